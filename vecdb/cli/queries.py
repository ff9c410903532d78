"""vecdb query run, save, list, delete."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from vecdb.cli.arguments import (
    DEFAULT_DB,
    Db,
    Name,
    Plain,
    Where,
    json_object,
    open_collection,
    parse_params,
    parse_plan,
    parse_where,
    text_or_stdin,
)
from vecdb.cli.output import emit, print_table, talk
from vecdb.cli.searching import print_hits

QueryName = Annotated[str, typer.Argument(help="The name of the query.")]


def add_to(app: typer.Typer) -> None:
    queries = typer.Typer(
        name="query",
        help="Save searches with a collection under names, and run them.",
        no_args_is_help=True,
        rich_markup_mode=None,
    )
    for command, name in ((run, "run"), (save, "save"), (list_queries, "list"), (delete, "delete")):
        queries.command(name)(command)
    app.add_typer(queries)


def run(
    plan: Annotated[str, typer.Argument(help="The name of a saved query, or a plan as JSON.")],
    text: Annotated[str | None, typer.Argument(help="What to look for; - reads it from standard input.")] = None,
    db: Db = DEFAULT_DB,
    collection: Name = None,
    param: Annotated[list[str] | None, typer.Option("--param", "-p", help="name=value; as often as needed.")] = None,
    k: Annotated[int | None, typer.Option("-k", min=1, help="How many hits.")] = None,
    where: Where = None,
    explain: Annotated[bool, typer.Option("--explain", help="Tell how it would be answered instead.")] = False,
    trace: Annotated[bool, typer.Option("--trace", help="Say what each stage made of each hit.")] = False,
    plain: Plain = False,
) -> None:
    """Search by a saved query.

    \b
    vecdb query run fresh "vaccines in children" -p since=2024 -k 5 --plain
    vecdb query run '{"recommend": {"positive": ["p1"], "negative": ["p7"]}}'
    """
    query = None if text is None else text_or_stdin(text)
    options: dict[str, Any] = {"plan": parse_plan(plan), "params": parse_params(param), "where": parse_where(where)}
    if k is not None:
        options["k"] = k
    with open_collection(db, collection) as docs:
        if explain:
            print(docs.explain(query, **options))
        else:
            print_hits(docs.search(query, **options), plain=plain, trace=trace)


def save(
    name: QueryName,
    file: Annotated[str, typer.Argument(help="A file with the plan as JSON; - reads it from standard input.")],
    db: Db = DEFAULT_DB,
    collection: Name = None,
) -> None:
    """Keep a plan, options of search as JSON, under a name. {"$param": "since"} stands for a value to be given when it is run.

    \b
    echo '{"where": {"year": {"$gte": {"$param": "since"}}}, "boosts": [{"field": "date", "decay": "exp", "scale": "30d"}]}' \\
        | vecdb query save fresh -
    """
    text = text_or_stdin(file) if file == "-" else Path(file).read_text()
    with open_collection(db, collection, read_only=False) as docs:
        docs.save_query(name, json_object(text, "the plan"))
    talk(f"saved {name}; run it with: vecdb query run {name} TEXT")


def list_queries(db: Db = DEFAULT_DB, collection: Name = None, plain: Plain = False) -> None:
    """List the saved queries with their plans.

    \b
    vecdb query list --plain
    """
    from vecdb.wire import dumps

    with open_collection(db, collection) as docs:
        saved = docs.queries()
    if plain:
        print_table(["name", "plan"], ((name, dumps(plan).decode()) for name, plan in saved.items()))
    else:
        for name, plan in saved.items():
            emit({"name": name, "plan": plan})


def delete(name: QueryName, db: Db = DEFAULT_DB, collection: Name = None) -> None:
    """Forget a saved query.

    \b
    vecdb query delete fresh
    """
    from vecdb.errors import QueryNotFound

    with open_collection(db, collection, read_only=False) as docs:
        if not docs.delete_query(name):
            raise QueryNotFound(f"there is no query {name!r}; see `vecdb query list`")
    talk(f"deleted {name}")
