"""Options that several commands share, and text from the command line turned into values."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from vecdb.collection import Collection
    from vecdb.database import Database

Db = Annotated[Path, typer.Option("--db", envvar="VECDB_DB", help="The database file.")]
Name = Annotated[
    str | None, typer.Option("--collection", "-c", help="The collection; may be left out if there is only one.")
]
Plain = Annotated[bool, typer.Option("--plain", help="Print for eyes, not JSON lines.")]
Where = Annotated[
    list[str] | None,
    typer.Option(
        "--where", "-w", help="""A filter: key=value, or JSON such as '{"year": {"$gte": 2020}}'; all must hold."""
    ),
]
Mode = Annotated[str, typer.Option("--mode", help="auto, vector, text or hybrid.")]

DEFAULT_DB = Path("library.vecdb")


@contextmanager
def open_database(path: Path, *, read_only: bool = True) -> Iterator[Database]:
    """An existing database."""
    import vecdb
    from vecdb.errors import NotAVecdbFile, NotFound

    if not path.exists():
        raise NotFound(
            f"there is no database {path}; make one with `vecdb ingest` or `vecdb import`, or name it with --db"
        )
    if path.is_dir():
        raise NotAVecdbFile(f"{path} is a folder; name the database file with --db")
    with vecdb.open(path, create=False, read_only=read_only) as database:
        yield database


@contextmanager
def open_collection(path: Path, name: str | None, *, read_only: bool = True) -> Iterator[Collection]:
    """An existing collection: the one named, or the only one."""
    with open_database(path, read_only=read_only) as database:
        yield database.collection(name or _only_one(database), create=False)


def _only_one(database: Database) -> str:
    from vecdb.errors import CollectionNotFound, InvalidInput

    names = database.collections()
    if not names:
        raise CollectionNotFound(
            f"{database.path} holds no collection yet; fill one with `vecdb ingest` or `vecdb import`"
        )
    if len(names) > 1:
        raise InvalidInput(f"{database.path} holds {', '.join(names)}; say which with --collection")
    return names[0]


def parse_where(filters: Sequence[str] | None) -> dict[str, Any] | None:
    """A filter from the command line. Raises InvalidFilter if one is neither JSON nor key=value."""
    from vecdb.errors import InvalidFilter

    parsed = []
    for text in filters or ():
        if text.lstrip().startswith("{"):
            value = _json(text)
            if not isinstance(value, dict):
                raise InvalidFilter(
                    f"the filter {text!r} is not JSON; quote it in the shell: --where '{{\"year\": 2020}}'"
                )
            parsed.append(value)
        else:
            parsed.append(_key_value(text, "filter"))
    return parsed[0] if len(parsed) == 1 else {"$and": parsed} if parsed else None


def parse_metadata(pairs: Sequence[str] | None) -> dict[str, Any]:
    """Metadata from --metadata key=value, as often as given. A value that is JSON keeps its type: year=2020 is a
    number.
    """
    from vecdb.metadata import decode, encode

    given: dict[str, Any] = {}
    for pair in pairs or ():
        given |= _key_value(pair, "metadata")
    return decode(encode(given))  # "$date" objects become dates here, and what cannot be kept is refused


def parse_floors(pairs: Sequence[str] | None) -> dict[str, Any]:
    """The least means of --min measure=value, as often as given."""
    floors: dict[str, Any] = {}
    for pair in pairs or ():
        floors |= _key_value(pair, "floor")
    return floors


def parse_params(pairs: Sequence[str] | None) -> dict[str, Any]:
    """The values of a plan's placeholders from --param name=value, as often as given. A value that is JSON keeps its type."""
    params: dict[str, Any] = {}
    for pair in pairs or ():
        params |= _key_value(pair, "parameter")
    return params


def parse_plan(text: str) -> str | dict[str, Any]:
    """A plan as JSON, or the name of a saved query."""
    return json_object(text, "the plan") if text.lstrip().startswith("{") else text


def parse_graph(pairs: Sequence[str] | None) -> dict[str, Any] | None:
    """The options of --graph option=value, as often as given, or JSON of them; "on" has none. None: no graph."""
    if not pairs:
        return None
    given: dict[str, Any] = {}
    for pair in pairs:
        if pair != "on":
            given |= json_object(pair, "graph") if pair.lstrip().startswith("{") else _key_value(pair, "graph option")
    return given


def parse_near(pairs: Sequence[str] | None) -> dict[str, Any] | None:
    """Places from --near field=latitude,longitude,radius or field=centre,width or field=JSON, as often as given."""
    given: dict[str, Any] = {}
    for pair in pairs or ():
        for field, said in _key_value(pair, "place").items():
            # One number, too, is JSON; two or three with commas are not.
            parts = None if isinstance(said, dict) else [_number_or_text(part.strip()) for part in str(said).split(",")]
            if parts is not None and len(parts) < 2:
                raise typer.BadParameter(
                    f"{pair!r} is no place; write {field}=48.1,11.6,2km (latitude, longitude, radius) "
                    f"or {field}=100,20 (centre, width)"
                )
            given[field] = parts or said
    return given or None


def _number_or_text(text: str) -> Any:
    value = _json(text)
    return text if value is None else value


def json_object(text: str | bytes, what: str) -> dict[str, Any]:
    """The object of a JSON text. Raises InvalidInput if it is not one."""
    from vecdb.errors import InvalidInput

    value = _json(text)
    if not isinstance(value, dict):
        shown = text[:60] if isinstance(text, str) else text[:60].decode("utf-8", "replace")
        raise InvalidInput(f'{what} is no JSON object: {shown!r}; give one such as \'{{"mode": "text"}}\'')
    return value


def _key_value(text: str, what: str) -> dict[str, Any]:
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise typer.BadParameter(f"{text!r} is no {what}; write key=value, for instance kind=pdf")
    parsed = _json(value)
    return {key.strip(): value if parsed is None and value != "null" else parsed}


def _json(text: str | bytes) -> Any:
    """The JSON value of a text; None if it is not JSON."""
    import orjson

    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return None


def text_or_stdin(text: str) -> str:
    """The text, or standard input for "-"."""
    return sys.stdin.read().strip() if text == "-" else text


def lines_or_stdin(values: Sequence[str]) -> list[str]:
    """The values, with the lines of standard input in the place of a "-"."""
    lines: list[str] = []
    for value in values:
        lines.extend(line.strip() for line in sys.stdin if line.strip()) if value == "-" else lines.append(value)
    return lines


def one_of(value: str, allowed: Iterable[str], option: str) -> Any:
    """The value if it is allowed; a usage error that lists the choices otherwise."""
    if value not in (choices := list(allowed)):
        raise typer.BadParameter(f"{value!r} is not one of {', '.join(choices)}", param_hint=option)
    return value
