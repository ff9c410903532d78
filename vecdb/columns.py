"""Typed columns over rows of metadata: arrays that only grow.

Every path that occurs in the metadata has a Column. A column keeps one Stream per lane (per type of value), and a
stream is two arrays: the row that each entry belongs to, ascending, and its value. A record without the path costs
nothing; a list gives several entries. Texts are kept as codes into the column's own dictionary, so that a predicate
on text looks at each distinct text once.

One writer appends; readers take `Stream.view`, a tuple that never changes, and ignore entries of rows that they do
not know.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from datetime import date, datetime
from enum import IntEnum
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vecdb.metadata import DATE_KEY, microseconds, normalised_value

Rows = NDArray[np.int32]
Values = NDArray[Any]

_EXACT_INT: Final = 2**53  # up to here every int is a float64


class Lane(IntEnum):
    """What a stream holds; ELEMENT is added for items of lists. Ints that float64 cannot hold exactly are in BIG."""

    NULL = 0
    BOOL = 1
    NUMBER = 2
    BIG = 3
    DATE = 4
    TEXT = 5
    LIST = 6  # a whole list, as the code of its `list_key`
    OBJECT = 7  # an object, or a list with objects in it: it exists, but equals no operand


ELEMENT: Final = 8
SCALAR_LANES: Final = (Lane.NULL, Lane.BOOL, Lane.NUMBER, Lane.BIG, Lane.DATE, Lane.TEXT)
CODED_LANES: Final = frozenset({Lane.TEXT, Lane.LIST, Lane.TEXT + ELEMENT})

_DTYPES: Final[dict[int, type[np.generic]]] = {
    Lane.NULL: np.bool_,
    Lane.BOOL: np.bool_,
    Lane.NUMBER: np.float64,
    Lane.BIG: np.int64,
    Lane.DATE: np.int64,
    Lane.TEXT: np.int32,
    Lane.LIST: np.int32,
    Lane.OBJECT: np.bool_,
}


class View(NamedTuple):
    """Entries of one lane: rows (E,) int32 ascending, values (E,). single: no row stands there twice."""

    rows: Rows
    values: Values
    single: bool

    def until(self, row: int) -> View:
        """The entries of rows before this one."""
        if not len(self.rows) or self.rows[-1] < row:
            return self
        count = int(np.searchsorted(self.rows, np.int32(row)))
        return View(self.rows[:count], self.values[:count], self.single)


class Stream:
    """The entries of one lane, in arrays with spare room at the end; doubling makes appending linear in all."""

    __slots__ = ("_rows", "_values", "view")

    def __init__(self, dtype: type[np.generic]) -> None:
        self._rows: Rows = np.empty(0, np.int32)
        self._values: Values = np.empty(0, dtype)
        self.view = View(self._rows, self._values, True)

    def extend(self, rows: Sequence[int] | Rows, values: Sequence[Any] | Values) -> None:
        """Append entries; rows ascend and precede none that is here. Readers see the new view or the old one."""
        start, stop = len(self.view.rows), len(self.view.rows) + len(rows)
        self._rows = _with_room(self._rows, start, stop)
        self._values = _with_room(self._values, start, stop)
        self._rows[start:stop] = rows
        self._values[start:stop] = values
        fresh = self._rows[max(start - 1, 0) : stop]
        single = self.view.single and bool(np.all(fresh[1:] > fresh[:-1]))
        self.view = View(self._rows[:stop], self._values[:stop], single)

    @property
    def nbytes(self) -> int:
        return self._rows.nbytes + self._values.nbytes


class Dictionary:
    """Distinct texts and their codes 0, 1, … in order of arrival."""

    __slots__ = ("_codes", "nbytes", "texts")

    def __init__(self) -> None:
        self.texts: list[str] = []
        self._codes: dict[str, int] = {}
        self.nbytes = 0  # of the texts and of about what a list and a dict spend on them

    def code(self, text: str) -> int | None:
        return self._codes.get(text)

    def intern(self, texts: Sequence[str]) -> list[int]:
        """The codes of these texts, new ones added."""
        codes, result = self._codes, []
        for text in texts:
            code = codes.get(text)
            if code is None:
                code = len(self.texts)
                self.texts.append(text)  # before the code, so that an interruption leaves no code for two texts
                codes[text] = code
                self.nbytes += sys.getsizeof(text) + 112
            result.append(code)
        return result


class Column:
    """All entries of one path. Lists have a dictionary of their own, so that their keys never meet the texts."""

    __slots__ = ("lists", "points", "streams", "texts")

    def __init__(self) -> None:
        self.points: Any = None  # what nearness.py makes of the entries, until there are more
        self.streams: dict[int, Stream] = {}
        self.texts = Dictionary()
        self.lists = Dictionary()

    def view(self, lane: int, rows: int) -> View | None:
        """This lane's entries of rows before `rows`; None if it has no entries at all."""
        stream = self.streams.get(lane)
        return None if stream is None else stream.view.until(rows)

    def extend(self, lane: int, rows: Sequence[int] | Rows, values: Sequence[Any] | Values) -> None:
        """Append entries; texts and list keys are given as such."""
        if lane in CODED_LANES:
            values = self.dictionary(lane).intern(values)  # type: ignore[arg-type]
        stream = self.streams.get(lane)
        if stream is None:
            stream = Stream(_DTYPES[lane % ELEMENT])
        stream.extend(rows, values)
        self.streams[lane] = stream

    def dictionary(self, lane: int) -> Dictionary:
        return self.lists if lane == Lane.LIST else self.texts

    @property
    def nbytes(self) -> int:
        return sum(stream.nbytes for stream in tuple(self.streams.values())) + self.texts.nbytes + self.lists.nbytes


class Entries:
    """Records taken apart: by path and lane, the rows and the values, in lists of its own.

    Takes what `metadata.encode` takes, unchecked, and besides keys that start with "$".
    """

    __slots__ = ("paths",)

    def __init__(self, batch: Sequence[Mapping[str, Any]], first_row: int) -> None:
        self.paths: dict[str, dict[int, tuple[list[int], list[Any]]]] = {}
        for row, metadata in enumerate(batch, first_row):
            for key, value in metadata.items():
                self._value(row, key, value)

    def _value(self, row: int, path: str, value: Any) -> None:
        lane, kept = lane_and_value(value)
        if lane is not None:
            self._put(row, path, lane, kept)
        elif type(kept) is dict:
            self._put(row, path, Lane.OBJECT, True)
            self._members(row, path, kept)
        else:
            self._list(row, path, kept)

    def _members(self, row: int, path: str, members: dict[str, Any]) -> None:
        for key, value in members.items():
            self._value(row, f"{path}.{key}", value)

    def _list(self, row: int, path: str, values: list[Any]) -> None:
        key = list_key(values)
        if key is None:
            self._put(row, path, Lane.OBJECT, True)
        else:
            self._put(row, path, Lane.LIST, key)
        for item in values:
            lane, kept = lane_and_value(item)
            if lane is not None:
                self._put(row, path, lane + ELEMENT, kept)
            elif type(kept) is dict:
                self._members(row, path, kept)

    def _put(self, row: int, path: str, lane: int, value: Any) -> None:
        lanes = self.paths.get(path)
        if lanes is None:
            lanes = self.paths[path] = {}
        entries = lanes.get(lane)
        if entries is None:
            entries = lanes[lane] = ([], [])
        entries[0].append(row)
        entries[1].append(value)


def list_key(values: Sequence[Any]) -> str | None:
    """A text that two lists share exactly if they are equal, types strict, 1 = 1.0. None if an object is inside."""
    parts = []
    for value in values:
        lane, kept = lane_and_value(value)
        if lane is None:
            part = list_key(kept) if type(kept) is list else None
            if part is None:
                return None
        else:
            part = scalar_key(lane, kept)
        parts.append(part)
    return f"[{''.join(parts)}]"


def scalar_key(lane: int, value: Any) -> str:
    """A text for one scalar; its length stands before a text's own characters, so no value can imitate another."""
    if lane == Lane.TEXT:
        return f"t{len(value)}:{value}"
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return f"{'n' if lane == Lane.BIG else _LETTERS[lane]}{value};"


_LETTERS: Final[dict[int, str]] = {Lane.NULL: "z", Lane.BOOL: "b", Lane.NUMBER: "n", Lane.DATE: "d"}
_LANE_OF_TYPE: Final[dict[type, int]] = {
    str: int(Lane.TEXT),
    float: int(Lane.NUMBER),
    bool: int(Lane.BOOL),
    type(None): int(Lane.NULL),
}


def lane_and_value(value: Any) -> tuple[int | None, Any]:
    """A scalar's lane and what is kept there. For a list or an object (None, itself in plain form)."""
    kind = type(value)
    lane = _LANE_OF_TYPE.get(kind)
    if lane is not None:
        return lane, value
    if kind is int:
        exact = -_EXACT_INT <= value <= _EXACT_INT or float(value) == value
        return (Lane.NUMBER if exact else Lane.BIG), value
    if kind is datetime or kind is date:
        return Lane.DATE, microseconds(value)
    if kind is list or (kind is dict and DATE_KEY not in value):
        return None, value
    return lane_and_value(normalised_value(value))


def _with_room(array: Values, filled: int, wanted: int) -> Values:
    """The array itself if it has the wanted length, else a longer copy of its filled part."""
    if wanted <= len(array):
        return array
    grown = np.empty(max(wanted, 2 * len(array)), array.dtype)
    grown[:filled] = array[:filled]
    return grown
