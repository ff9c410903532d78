"""Records of two tables that are to be joined: read from files, and written as texts for an encoder."""

from __future__ import annotations

import csv
import gzip
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from vecdb.errors import InvalidInput, NotFound

ID_COLUMNS = ("id", "_id")
_LONGEST_FIELD = 16 * 2**20  # csv's own bound of 128 kB is less than a long description


@dataclass(frozen=True, slots=True)
class Table:
    """Records as text. values[i] has the value of each field of record i, "" where it has none."""

    ids: tuple[str, ...]
    fields: tuple[str, ...]
    values: tuple[tuple[str, ...], ...]

    def __len__(self) -> int:
        return len(self.ids)

    def column(self, field: str) -> list[str]:
        """The values of a field; all are empty for one that this table lacks."""
        if field not in self.fields:
            return [""] * len(self)
        place = self.fields.index(field)
        return [row[place] for row in self.values]

    def texts(self, fields: Sequence[str] | None = None) -> list[str]:
        """Each record as one text, "name: value" after "name: value", fields without a value left out."""
        columns = [(field, self.column(field)) for field in (self.fields if fields is None else fields)]
        return [" ".join(f"{field}: {column[i]}" for field, column in columns if column[i]) for i in range(len(self))]

    def taken(self, places: Iterable[int]) -> Table:
        chosen = list(places)
        return Table(tuple(self.ids[i] for i in chosen), self.fields, tuple(self.values[i] for i in chosen))

    def places(self) -> dict[str, int]:
        return {id: place for place, id in enumerate(self.ids)}


def table_of(records: Iterable[Mapping[str, Any]], *, id_field: str | None = None, name: str = "the table") -> Table:
    """A table of mappings. id_field: whose value is the id; None: "id" or "_id", and without such the record's number from 0.

    Raises InvalidInput (`.position`) for a record without its id, an id that occurs twice, or no record at all.
    """
    rows = list(records)
    for position, row in enumerate(rows):
        if not isinstance(row, Mapping):
            raise InvalidInput(
                f"record {position} of {name} is a {type(row).__name__}; give mappings", position=position
            )
    if not rows:
        raise InvalidInput(f"{name} has no records; there is nothing to block")
    names = list(dict.fromkeys(str(field) for row in rows for field in row))
    if id_field is not None and id_field not in names:
        raise InvalidInput(f"{name} has no field {id_field!r} for ids; there are {', '.join(names)}")
    chosen = id_field or next((field for field in ID_COLUMNS if field in names), None)
    fields = tuple(field for field in names if field != chosen)
    if not fields:
        raise InvalidInput(f"{name} has no field beside its ids ({chosen!r}); give what records are compared by")
    ids: dict[str, None] = {}
    for position, row in enumerate(rows):
        id = str(position) if chosen is None else text_of(row.get(chosen))
        if not id:
            raise InvalidInput(f"record {position} of {name} has no {chosen!r}, which is its id", position=position)
        if id in ids:
            raise InvalidInput(f"id {id!r} occurs twice in {name}; ids must differ", position=position)
        ids[id] = None
    return Table(tuple(ids), fields, tuple(tuple(text_of(row.get(field)) for field in fields) for row in rows))


def read_table(path: str | Path, *, id_field: str | None = None) -> Table:
    """A table from a .csv, .tsv or .jsonl file, also .gz; ids as in `table_of`. Raises NotFound, InvalidInput."""
    return table_of(read_rows(Path(path)), id_field=id_field, name=str(path))


def read_rows(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a .csv, .tsv or .jsonl file, also .gz. Raises NotFound, InvalidInput naming the line."""
    kind = path.name.removesuffix(".gz").rpartition(".")[2].lower()
    if kind not in ("csv", "tsv", "jsonl"):
        raise InvalidInput(f"{path} is of no kind that is read here; give a .csv, .tsv or .jsonl file (also .gz)")
    try:
        data = path.read_bytes()
        text = (gzip.decompress(data) if path.suffix == ".gz" else data).decode("utf-8-sig")
    except FileNotFoundError as error:
        raise NotFound(f"there is no file {path}") from error
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise InvalidInput(f"{path} cannot be read as UTF-8 text ({error})") from error
    yield from _json_lines(path, text) if kind == "jsonl" else _separated(path, text, "\t" if kind == "tsv" else ",")


def _separated(path: Path, text: str, delimiter: str) -> Iterator[dict[str, Any]]:
    before = csv.field_size_limit(_LONGEST_FIELD)
    try:
        rows = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
        header = next(rows, [])
        for row in rows:
            if row and len(row) != len(header):
                raise InvalidInput(f"{path}, line {rows.line_num}: {len(row)} values under a header of {len(header)}")
            if row:
                yield dict(zip(header, row))
    except csv.Error as error:
        raise InvalidInput(f"{path} is no readable table: {error}") from error
    finally:
        csv.field_size_limit(before)


def _json_lines(path: Path, text: str) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = orjson.loads(line)
        except orjson.JSONDecodeError as error:
            raise InvalidInput(f"{path}, line {number} is not JSON: {error}") from error
        if not isinstance(row, dict):
            raise InvalidInput(f"{path}, line {number} holds a {type(row).__name__}; each line must be one object")
        yield row


def text_of(value: Any) -> str:
    """A value as text; lists one after the other."""
    if value is None or (isinstance(value, float) and value != value):
        return ""
    if isinstance(value, list | tuple):
        return ", ".join(filter(None, map(text_of, value)))
    return " ".join(str(value).split())
