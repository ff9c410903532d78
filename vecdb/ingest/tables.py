"""Files of rows: CSV, TSV, JSON lines, JSON, Parquet. Each row becomes one Row, read one after the other."""

from __future__ import annotations

import csv
import gzip
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from io import TextIOWrapper
from itertools import islice
from pathlib import Path
from typing import Any, TextIO

from vecdb.errors import MissingExtra
from vecdb.ingest.documents import Row, Unreadable
from vecdb.ingest.kinds import Kind

# Column names that mean the text and the title in data sets we know, the likeliest first; compared in lower case.
TEXT_COLUMNS = (
    *("text", "body", "content", "contents", "passage", "document", "abstract", "description", "summary", "message"),
    *("comment", "review", "answer", "question", "sentence", "code"),
)
TITLE_COLUMNS = ("title", "headline", "subject", "name")

_WHOLE = re.compile(r"-?(0|[1-9]\d{0,17})")
_DECIMAL = re.compile(r"-?(0|[1-9]\d*)\.\d+([eE][-+]?\d{1,3})?")
_PARQUET_BATCH = 1024
_MAX_FIELD = 16 * 2**20  # csv's own bound of 128 kB is less than a long article


@dataclass(frozen=True, slots=True)
class RowOptions:
    """text_columns: whose values, joined by a line break, are a row's text; empty: guessed by name (title, then text).

    id_column: whose value is the record's id; None: rows are numbered. split: cut long texts into chunks as documents
    are.
    """

    text_columns: tuple[str, ...] = ()
    id_column: str | None = None
    split: bool = False


def read_rows(path: Path, kind: Kind, options: RowOptions) -> Iterator[Row]:
    """The rows of a file that have a text, one by one. Raises Unreadable, naming the line, where the file is broken."""
    columns: _Columns | None = None
    for number, values in enumerate(_raw_rows(path, kind), 1):
        if columns is None:
            columns = _Columns.choose(values, options)
        row = columns.row(number, values)
        if row is not None:
            yield row


@dataclass(frozen=True, slots=True)
class _Columns:
    """Which columns of a file mean what."""

    text: tuple[str, ...]
    title: str | None
    id: str | None

    @classmethod
    def choose(cls, first: dict[str, Any], options: RowOptions) -> _Columns:
        names = list(first)
        for wanted in (*options.text_columns, *([options.id_column] if options.id_column else [])):
            if wanted not in first:
                raise Unreadable(f"no column {wanted!r}; there are {', '.join(map(repr, names))}")
        by_name = {name.lower(): name for name in reversed(names)}
        title = next((by_name[name] for name in TITLE_COLUMNS if name in by_name), None)
        if options.text_columns:
            return cls(options.text_columns, title, options.id_column)
        text = next((by_name[name] for name in TEXT_COLUMNS if name in by_name), None)
        if text is None and title is None:
            strings = [name for name, value in first.items() if isinstance(value, str) and name != options.id_column]
            if len(strings) != 1:
                there_are = ", ".join(map(repr, names))
                raise Unreadable(
                    f"cannot tell which column holds the text; there are {there_are}: name it (--text-column)"
                )
            text = strings[0]
        return cls(tuple(name for name in (title, text) if name), title, options.id_column)

    def row(self, number: int, values: dict[str, Any]) -> Row | None:
        parts = [str(values[name]).strip() for name in self.text if values.get(name) is not None]
        text = "\n".join(part for part in parts if part)
        if not text:
            return None
        key = None
        if self.id is not None:
            if values.get(self.id) is None:
                raise Unreadable(f"row {number} has no {self.id!r}, the column of ids")
            key = str(values[self.id])
        title = values.get(self.title) if self.title else None
        used = {*self.text, self.id, self.title}
        metadata = {name: value for name, value in values.items() if name not in used and value is not None}
        return Row(number, text, None if title is None else str(title), key, metadata)


def _raw_rows(path: Path, kind: Kind) -> Iterator[dict[str, Any]]:
    if kind.name == "parquet":
        return _parquet(path)
    if kind.name == "json":
        return _json(path)
    if kind.name == "jsonl":
        return _json_lines(path)
    return _separated(path, "\t" if kind.name == "tsv" else None)


def _open(path: Path) -> TextIO:
    """A text stream; gzip is undone. Errors of opening and of decoding come as Unreadable from the readers."""
    opened = gzip.open if path.suffix == ".gz" else open
    return TextIOWrapper(opened(path, "rb"), encoding="utf-8-sig", newline="")


_BROKEN = (OSError, EOFError, UnicodeDecodeError)  # not there, not gzip, cut short, not UTF-8


def _because(error: Exception) -> str:
    return "not UTF-8 text" if isinstance(error, UnicodeDecodeError) else getattr(error, "strerror", None) or str(error)


def _separated(path: Path, delimiter: str | None) -> Iterator[dict[str, Any]]:
    """Rows of a CSV file with a header, read twice: first to learn each column's type, so that "007" beside "12"
    stays text.
    """
    csv.field_size_limit(_MAX_FIELD)
    try:
        with _open(path) as stream:
            dialect = _dialect(stream.read(65536)) if delimiter is None else {"delimiter": delimiter}
        with _open(path) as stream:
            reader = csv.reader(stream, **dialect, strict=True)
            header = [name.strip() for name in next(reader, [])]
            _check_header(header)
            types = _column_types(reader, len(header))
        with _open(path) as stream:
            reader = csv.reader(stream, **dialect, strict=True)
            next(reader)
            for cells in reader:
                if cells:
                    yield {name: type_(cell) if cell else None for name, type_, cell in zip(header, types, cells)}
    except csv.Error as error:
        raise Unreadable(f"line {reader.line_num}: {error}") from error
    except _BROKEN as error:
        raise Unreadable(_because(error)) from error


def _dialect(sample: str) -> dict[str, Any]:
    """The separator that the header line has most of. (csv.Sniffer guesses from the body, and prose misleads it.)"""
    header = sample.split("\n", 1)[0]
    return {"delimiter": max(",;\t|", key=header.count)}


def _check_header(header: list[str]) -> None:
    if not header:
        raise Unreadable("empty file; the first line must name the columns")
    twice = {name for name in header if header.count(name) > 1}
    if "" in header or twice:
        fault = f"column {sorted(twice)[0]!r} is named twice" if twice - {""} else "a column has no name"
        raise Unreadable(f"{fault}; the first line must name each column once")


def _column_types(rows: Any, width: int) -> list[Any]:
    """A converter for each column: the narrowest of bool, int, float, str that takes all of its cells."""
    fits: list[list[Any]] = [[_to_bool, int, float] for _ in range(width)]
    patterns = {
        _to_bool: re.compile("true|false", re.IGNORECASE),
        int: _WHOLE,
        float: re.compile(f"{_DECIMAL.pattern}|{_WHOLE.pattern}"),
    }
    for cells in rows:
        if cells and len(cells) != width:
            raise Unreadable(f"line {rows.line_num}: {len(cells)} cells where the header has {width}")
        for kept, cell in zip(fits, cells):
            if kept and cell:
                kept[:] = [type_ for type_ in kept if patterns[type_].fullmatch(cell)]
    return [kept[0] if kept else str for kept in fits]


def _to_bool(cell: str) -> bool:
    return cell.lower() == "true"


def _json_lines(path: Path) -> Iterator[dict[str, Any]]:
    import orjson

    try:
        with _open(path) as stream:
            for line_number, line in enumerate(stream, 1):
                if not line.strip():
                    continue
                try:
                    values = orjson.loads(line)
                except orjson.JSONDecodeError as error:
                    raise Unreadable(f"line {line_number} is not JSON: {error.msg} at column {error.colno}") from error
                if not isinstance(values, dict):
                    raise Unreadable(
                        f"line {line_number} holds a {type(values).__name__}; each line must be one object"
                    )
                yield values
    except _BROKEN as error:
        raise Unreadable(_because(error)) from error


def _json(path: Path) -> Iterator[dict[str, Any]]:
    """A list of objects gives a row each; an object gives one row; anything else is not a table."""
    import orjson

    try:
        values = orjson.loads(path.read_bytes())
    except orjson.JSONDecodeError as error:
        raise Unreadable(f"not JSON: {error}") from error
    except OSError as error:
        raise Unreadable(_because(error)) from error
    rows: Sequence[Any] = values if isinstance(values, list) else [values]
    for number, row in enumerate(rows, 1):
        if not isinstance(row, dict):
            raise Unreadable(f"item {number} is a {type(row).__name__}; a list of objects is wanted, or one object")
        yield row


def _parquet(path: Path) -> Iterator[dict[str, Any]]:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise MissingExtra.of("pyarrow", extra="files", what="reading Parquet files") from error
    try:
        with pq.ParquetFile(path) as table:
            for batch in table.iter_batches(batch_size=_PARQUET_BATCH):
                for values in batch.to_pylist():
                    yield {name: plain(value) for name, value in values.items()}
    except (pa.ArrowException, OSError) as error:
        raise Unreadable(f"not a readable Parquet file ({error})") from error


def plain(value: Any) -> Any:
    """A value that metadata can hold: Parquet's decimals, times and bytes as text, NaN as None, the rest as it is."""
    if isinstance(value, dict):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [plain(inner) for inner in value]
    if isinstance(value, float) and value != value:  # how pandas writes a missing value
        return None
    if value is None or isinstance(value, (str, bool, int, float, date, datetime)):
        return value
    return str(value)


def blocks(rows: Iterator[Row], size: int) -> Iterator[list[Row]]:
    """Rows in lists of size, the last one shorter."""
    while block := list(islice(rows, size)):
        yield block
