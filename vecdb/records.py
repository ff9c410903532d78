"""Whatever a user calls records, as a Batch: columns of equal length, checked, ready to be written.

Accepted: an iterable (also a generator) of dicts or Record objects; a pandas or polars DataFrame, or an Arrow table, with
columns id, text, vector, metadata, parent, seq, expires (any other column becomes metadata); or the columns by keyword.
"""

from __future__ import annotations

import difflib
import math
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vecdb.errors import DimensionMismatch, DuplicateId, InvalidInput, InvalidRecord, InvalidVector
from vecdb.metadata import encode
from vecdb.types import Record, WriteResult
from vecdb.vectors import Matrix, as_matrix

FIELDS = ("id", "text", "vector", "metadata", "parent", "seq", "expires")
Columns = dict[str, Any]  # field -> a list, or for vector an (N, D) array; fields that nobody gave are absent


@dataclass(slots=True)
class Batch:
    """N checked records, of which the first is number `first` of the whole input.

    vectors: (N, D) with meaningless rows where has_vector is False, or None if no record has one. given: the fields that
    the caller gave at all; `update` changes only those.
    """

    ids: list[str]
    texts: list[str | None]
    metadata: list[str]
    parents: list[str | None]
    seqs: list[int | None]
    expires: list[float | None]
    vectors: Matrix | None
    has_vector: NDArray[np.bool_]
    given: frozenset[str]
    first: int

    def __len__(self) -> int:
        return len(self.ids)

    def name(self, position: int) -> str:
        """How an error message calls a record."""
        return f"record {self.first + position} (id {self.ids[position]!r})"


def columns_of(ids: Any, texts: Any, vectors: Any, metadata: Any, parents: Any, seqs: Any, expires: Any) -> Columns:
    """The keyword columns of `add` and its like, as `batches` takes them."""
    return {
        "id": ids,
        "text": texts,
        "vector": vectors,
        "metadata": metadata,
        "parent": parents,
        "seq": seqs,
        "expires": expires,
    }


def batches(records: Any, columns: Columns, batch_size: int | None, *, need_ids: bool = False) -> Iterator[Batch]:
    """The input as Batches of batch_size records, or as a single one. Raises InvalidRecord; InvalidInput if it is empty."""
    if batch_size is not None and batch_size < 1:
        raise InvalidInput(f"batch_size is {batch_size}; it must be at least 1, or None for a single batch")
    first = 0
    for part in _parts(records, {name: column for name, column in columns.items() if column is not None}, batch_size):
        batch = _checked(part, first, need_ids)
        first += len(batch)
        yield batch
    if not first:
        raise InvalidInput("there are no records to write; give at least one")


def joined(results: Sequence[WriteResult]) -> WriteResult:
    """The results of several batches as one."""
    return WriteResult(
        ids=tuple(id for result in results for id in result.ids),
        added=sum(result.added for result in results),
        updated=sum(result.updated for result in results),
        unchanged=sum(result.unchanged for result in results),
        duplicates=tuple(one for result in results for one in result.duplicates),
    )


def as_timestamp(value: Any) -> float | None:
    """A moment as seconds since 1970: from a datetime (naive is UTC), such seconds, or a timedelta from now."""
    if value is None:
        return None
    if isinstance(value, timedelta):
        return time.time() + value.total_seconds()
    if isinstance(value, datetime):
        return (value if value.tzinfo else value.replace(tzinfo=UTC)).timestamp()
    if (
        isinstance(value, int | float | np.integer | np.floating)
        and not isinstance(value, bool)
        and math.isfinite(value)
    ):
        return float(value)
    raise InvalidRecord(f"expires is {value!r}; give a datetime, a timedelta from now, or seconds since 1970")


# -- from what users have to columns


def _parts(records: Any, columns: Columns, batch_size: int | None) -> Iterator[Columns]:
    if records is None:
        yield from _sliced(_column_lengths_agree(columns), batch_size)
        return
    if columns:
        raise InvalidInput(f"both records and {', '.join(columns)}= were given; give one or the other")
    frame = _frame_columns(records)
    if frame is not None:
        yield from _sliced(frame, batch_size)
        return
    if isinstance(records, Mapping | Record):
        records = [records]
    if isinstance(records, str | bytes) or not isinstance(records, Iterable):
        raise InvalidInput(
            f"records is a {type(records).__name__}; give dicts, a DataFrame, an Arrow table, or ids= and texts="
        )
    stream = iter(records)
    first = 0
    while chunk := list(islice(stream, batch_size)):
        yield _dict_columns(chunk, first)
        first += len(chunk)


def _column_lengths_agree(columns: Columns) -> Columns:
    if not columns:
        raise InvalidInput("nothing was given; give records, or at least one of ids=, texts=, vectors=")
    columns = {name: _listed(name, column) for name, column in columns.items()}
    lengths = {name: len(column) for name, column in columns.items()}
    if len(set(lengths.values())) > 1:
        raise InvalidInput(f"columns differ in length: {', '.join(f'{n} has {c}' for n, c in lengths.items())}")
    return columns


def _listed(name: str, column: Any) -> Any:
    if name == "vector":
        return column if isinstance(column, np.ndarray) else list(column)
    if isinstance(column, str | bytes | Mapping) or not isinstance(column, Iterable):
        raise InvalidInput(f"{name} is a {type(column).__name__}; give one value for each record, in a list")
    return column.tolist() if isinstance(column, np.ndarray) else list(column)


def _sliced(columns: Columns, batch_size: int | None) -> Iterator[Columns]:
    total = len(next(iter(columns.values())))
    step = batch_size or max(total, 1)
    for start in range(0, total, step):
        yield {name: column[start : start + step] for name, column in columns.items()}


def _dict_columns(records: list[Any], first: int) -> Columns:
    known = frozenset(FIELDS)
    for position, record in enumerate(records):
        if isinstance(record, Record):
            records[position] = _record_dict(record)
        elif not isinstance(record, Mapping):
            raise InvalidRecord(
                f"record {first + position} is a {type(record).__name__}; give a dict with the keys {', '.join(FIELDS)}",
                position=first + position,
            )
        elif not record.keys() <= known:
            raise _unknown_key(record, first + position)
    present = [name for name in FIELDS if any(name in record for record in records)] or ["id"]  # ids are made up
    return {name: [record.get(name) for record in records] for name in present}


def _record_dict(record: Record) -> dict[str, Any]:
    return {name: value for name in FIELDS if (value := getattr(record, name)) is not None}


def _unknown_key(record: Mapping[str, Any], position: int) -> InvalidRecord:
    key = next(k for k in record if k not in FIELDS)
    near = difflib.get_close_matches(str(key), FIELDS, n=1)
    hint = f"did you mean {near[0]!r}?" if near else "put it into 'metadata'"
    return InvalidRecord(
        f"record {position} has the key {key!r}, which is none of {', '.join(FIELDS)}; {hint}", position=position
    )


def _frame_columns(records: Any) -> Columns | None:
    """Columns of a DataFrame or an Arrow table; None if records is neither. No library is imported: it is there already."""
    library = type(records).__module__.partition(".")[0]
    if library == "pandas":
        missing = records.isna()
        table = {
            str(name): [None if gone else value for value, gone in zip(records[name].tolist(), missing[name])]
            for name in records.columns
        }
    elif library == "polars":
        table = records.to_dict(as_series=False)
    elif library == "pyarrow":
        arrow = records.read_all() if hasattr(records, "read_all") else records
        table = {name: _arrow_column(arrow, name) for name in arrow.schema.names}
    else:
        return None
    extra = [name for name in table if name not in FIELDS]
    if not extra:
        return dict(table)
    columns = {name: column for name, column in table.items() if name in FIELDS}
    own = columns.get("metadata")
    values = zip(*(table[name] for name in extra))
    columns["metadata"] = [
        {**((own[i] or {}) if own else {}), **dict(zip(extra, line, strict=True))} for i, line in enumerate(values)
    ]
    return columns


def _arrow_column(table: Any, name: str) -> Any:
    column = table.column(name)
    if name == "vector" and column.null_count == 0 and hasattr(column.type, "list_size"):  # fixed size: no Python lists
        flat = column.combine_chunks() if hasattr(column, "combine_chunks") else column
        return flat.flatten().to_numpy(zero_copy_only=False).reshape(-1, column.type.list_size)
    return column.to_pylist()


# -- checks


def _checked(columns: Columns, first: int, need_ids: bool) -> Batch:
    count = len(next(iter(columns.values())))
    if need_ids and "id" not in columns:
        raise InvalidInput("no ids were given; say which records to change")
    ids = _ids(columns.get("id"), count, first, need_ids)
    vectors, has_vector = _vectors(columns.get("vector"), count, first)

    def column(name: str, kinds: type | tuple[type, ...], wanted: str) -> list[Any]:
        values = columns.get(name)
        if values is None:
            return [None] * count
        for position, value in enumerate(values):
            if value is not None and (not isinstance(value, kinds) or isinstance(value, bool)):
                raise _bad(ids, first, position, f"has {name} {value!r}; it must be {wanted}")
        return list(values)

    texts = column("text", str, "text or None")
    parents = column("parent", str, "text or None")
    _encodable(ids, texts, first)
    _encodable(ids, parents, first)
    return Batch(
        ids=ids,
        texts=texts,
        metadata=_metadata(columns.get("metadata"), ids, count, first),
        parents=parents,
        seqs=_seqs(column("seq", (int, np.integer), "a whole number or None"), ids, first),
        expires=_expiries(columns.get("expires"), ids, count, first),
        vectors=vectors,
        has_vector=has_vector,
        given=frozenset(columns),
        first=first,
    )


def _seqs(given: list[Any], ids: list[str], first: int) -> list[int | None]:
    for position, seq in enumerate(given):
        if seq is not None and not -(2**63) <= seq < 2**63:
            raise _bad(ids, first, position, f"has seq {seq}; it must fit into 64 bits")
    return [None if seq is None else int(seq) for seq in given]


def _ids(given: Sequence[Any] | None, count: int, first: int, required: bool) -> list[str]:
    if given is None:
        return [str(uuid.uuid4()) for _ in range(count)]
    ids: list[str] = []
    for position, id in enumerate(given):
        if isinstance(id, str) and id:
            ids.append(id)
        elif id is None and not required:
            ids.append(str(uuid.uuid4()))
        else:
            raise InvalidRecord(
                f"record {first + position} has id {id!r}; ids are non-empty text (str(…) makes them so)",
                position=first + position,
            )
    _encodable(ids, ids, first)
    if len(set(ids)) < count:
        seen: dict[str, int] = {}
        for position, id in enumerate(ids):
            if id in seen:
                raise DuplicateId(
                    f"record {first + position} has id {id!r}, which record {first + seen[id]} of the same batch has already",
                    position=first + position,
                )
            seen[id] = position
    return ids


def _encodable(ids: list[str], texts: Sequence[str | None], first: int) -> None:
    """Lone surrogates cannot be stored as UTF-8."""
    try:
        "".join(text for text in texts if text).encode()
    except UnicodeEncodeError:
        for position, text in enumerate(texts):
            try:
                (text or "").encode()
            except UnicodeEncodeError as error:
                problem = f"has text that is not valid Unicode ({error.reason}); decode it with errors='replace' first"
                raise _bad(ids, first, position, problem) from error


def _metadata(given: Sequence[Any] | None, ids: list[str], count: int, first: int) -> list[str]:
    if given is None:
        return ["{}"] * count
    encoded: list[str] = []
    for position, metadata in enumerate(given):
        if metadata is not None and not isinstance(metadata, Mapping):
            raise _bad(ids, first, position, f"has metadata of type {type(metadata).__name__}; give a dict")
        try:
            encoded.append(encode(metadata) if metadata else "{}")
        except InvalidRecord as error:
            raise _bad(ids, first, position, str(error)) from error
    return encoded


def _expiries(given: Sequence[Any] | None, ids: list[str], count: int, first: int) -> list[float | None]:
    if given is None:
        return [None] * count
    moments: list[float | None] = []
    for position, value in enumerate(given):
        try:
            moments.append(as_timestamp(value))
        except InvalidRecord as error:
            raise _bad(ids, first, position, str(error)) from error
    return moments


def _vectors(given: Any, count: int, first: int) -> tuple[Matrix | None, NDArray[np.bool_]]:
    if given is None:
        return None, np.zeros(count, dtype=bool)
    if isinstance(given, np.ndarray):
        return as_matrix(given), np.ones(count, dtype=bool)
    has_vector = np.array([vector is not None for vector in given], dtype=bool)
    if not has_vector.any():
        return None, has_vector
    try:
        some = as_matrix([vector for vector in given if vector is not None])
    except InvalidVector as error:
        raise _odd_vector(given, first) or error from error
    if len(some) == count:
        return some, has_vector
    vectors = np.zeros((count, some.shape[1]), dtype=np.float32)
    vectors[has_vector] = some
    return vectors, has_vector


def _odd_vector(given: Sequence[Any], first: int) -> InvalidVector | None:
    """The first vector that cannot be read, or whose length differs from the first one's."""
    length = None
    for position, vector in enumerate(given):
        if vector is None:
            continue
        try:
            own = as_matrix([vector]).shape[1]
        except InvalidVector as error:
            return InvalidVector(f"record {first + position} has a bad vector: {error}", position=first + position)
        length = own if length is None else length
        if own != length:
            message = f"record {first + position} has a vector of {own} numbers, those before it have {length}"
            return DimensionMismatch(message, position=first + position)
    return None


def _bad(ids: list[str], first: int, position: int, problem: str) -> InvalidRecord:
    return InvalidRecord(f"record {first + position} (id {ids[position]!r}) {problem}", position=first + position)
