"""vecdb serve, and vecdb keys create, list, revoke."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from vecdb.cli.arguments import DEFAULT_DB, Db, Plain, one_of
from vecdb.cli.output import emit, print_table, talk

Keys = Annotated[
    Path, typer.Option("--keys", envvar="VECDB_KEYS_FILE", help="The file that holds the API keys' digests.")
]
_DEFAULT_KEYS = Path("vecdb-keys.json")


def add_to(app: typer.Typer) -> None:
    app.command()(serve)
    keys = typer.Typer(
        name="keys",
        help="Make, list and revoke the API keys of `vecdb serve`.",
        no_args_is_help=True,
        rich_markup_mode=None,
    )
    for command, name in ((create_key, "create"), (list_keys, "list"), (revoke_key, "revoke")):
        keys.command(name)(command)
    app.add_typer(keys)


def serve(
    db: Db = DEFAULT_DB,
    host: Annotated[str | None, typer.Option(help="The address to listen on.  [default: 127.0.0.1]")] = None,
    port: Annotated[int | None, typer.Option(min=0, max=65535, help="The port to listen on.  [default: 8000]")] = None,
    keys: Annotated[Path | None, typer.Option("--keys", help="The file of API keys; see `vecdb keys`.")] = None,
    server: Annotated[str | None, typer.Option(help="granian or uvicorn.  [default: granian]")] = None,
    device: Annotated[str | None, typer.Option(help="What searches: cpu, cuda:0, auto.  [default: cpu]")] = None,
    read_only: Annotated[bool, typer.Option("--read-only", help="Refuse every change.")] = False,
    insecure: Annotated[bool, typer.Option("--insecure", help="Serve other machines without any key.")] = False,
) -> None:
    """Serve the database over HTTP until Ctrl-C. Every other setting comes from VECDB_… in the environment.

    \b
    vecdb serve --db library.vecdb --port 8080
    vecdb keys create app --scope write && vecdb serve --host 0.0.0.0 --keys vecdb-keys.json
    """
    given: dict[str, Any] = {"host": host, "port": port, "keys_file": keys, "server": server, "device": device}
    given |= {"read_only": read_only or None, "insecure": insecure or None}
    settings = _settings({name: value for name, value in given.items() if value is not None})
    from vecdb.server.run import serve as run

    talk(f"serving {db} on http://{settings.host}:{settings.port}")
    run(db, settings)


def _settings(given: dict[str, Any]) -> Any:
    """The service's settings from arguments and environment; MissingExtra without the server's packages."""
    from vecdb.errors import InvalidInput, MissingExtra

    try:
        from pydantic import ValidationError

        from vecdb.server.settings import Settings
    except ModuleNotFoundError as error:
        raise MissingExtra.of(str(error.name), extra="server", what="`vecdb serve`") from error
    try:
        return Settings(**given)
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors())
        raise InvalidInput(f"the service's settings are wrong: {faults}") from error


def create_key(
    name: Annotated[str, typer.Argument(help="Who will use it.")],
    keys: Keys = _DEFAULT_KEYS,
    scope: Annotated[str, typer.Option(help="read or write.")] = "read",
    collection: Annotated[
        list[str] | None, typer.Option("--collection", "-c", help="Only for this collection; may be repeated.")
    ] = None,
) -> None:
    """Make a key and print it: this is the only time that it can be seen.

    \b
    vecdb keys create app --scope write --collection notes
    """
    from vecdb.server.keys import create_key as create

    key = create(keys, name=name, scope=one_of(scope, ("read", "write"), "--scope"), collections=collection or None)
    emit({"name": name, "key": key, "scope": scope, "collections": collection or None})
    talk(f"only a digest is kept, in {keys}: store the key now")


def list_keys(keys: Keys = _DEFAULT_KEYS, plain: Plain = False) -> None:
    """List the keys by name, with what they may do.

    \b
    vecdb keys list --plain
    """
    from vecdb.server.keys import list_keys as listed

    lines = [{name: value for name, value in asdict(key).items() if name != "sha256"} for key in listed(keys)]
    if plain:
        rows = (
            (line["name"], line["scope"], ", ".join(line["collections"] or ["all"]), line["created"]) for line in lines
        )
        print_table(["name", "scope", "collections", "created"], rows)
    else:
        for line in lines:
            emit(line)


def revoke_key(name: Annotated[str, typer.Argument(help="The key's name.")], keys: Keys = _DEFAULT_KEYS) -> None:
    """Revoke a key. A running service notices at once.

    \b
    vecdb keys revoke app
    """
    from vecdb.server.keys import revoke_key as revoke

    revoke(keys, name)
    emit({"revoked": name})
