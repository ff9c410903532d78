"""Metadata in memory: what filters and facets are answered from.

An Attributes is an immutable snapshot of slots 0 … n-1, each the metadata of one record. A writer makes the next
snapshot by `appended`, `replaced` or `compacted`; readers keep the one they have, without locks, in any number of
threads.

Snapshots of one line share their columns, which only ever grow. Inside, a record's metadata is a row; a snapshot
knows how many rows it sees and which row belongs to each slot. Appending adds rows. Replacing adds rows too and
points the slots at them; the rows left behind are swept out when they get to be many. So both cost what the batch
costs, and no snapshot disturbs another. Only the newest snapshot of a line may add rows; another one that tries
(after a rolled-back transaction, say) gets columns of its own first, which is correct and costs a copy.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vecdb.columns import CODED_LANES, ELEMENT, SCALAR_LANES, Column, Entries, Lane
from vecdb.filters import Node
from vecdb.matching import matching_rows
from vecdb.metadata import Kind, moment_at
from vecdb.nearness import Place, distances

Mask = NDArray[np.bool_]
Slots = NDArray[np.int64]

_DEAD_ROWS_KEPT = 1024  # below this many, sweeping out replaced rows is not worth a copy


@dataclass(frozen=True, slots=True)
class Groups:
    """Slots by the value that they have at a path. numbers: (n,) int64, equal for equal values, below 0 for none. keys: the value
    that each number stands for.
    """

    numbers: Slots
    keys: Mapping[int, Any]


class _Columns:
    """The columns of one line of snapshots. rows: how many the newest snapshot sees; it alone may add more."""

    __slots__ = ("by_path", "rows")

    def __init__(self) -> None:
        self.by_path: dict[str, Column] = {}
        self.rows = 0

    def extend(self, batch: Sequence[Mapping[str, Any]]) -> None:
        entries = Entries(batch, self.rows)
        # Claimed before the first column changes: if an append breaks off half-way (out of memory, an interrupt), no
        # snapshot sees this many rows, so none goes on writing here.
        self.rows += len(batch)
        for path, lanes in entries.paths.items():
            column = self.by_path.get(path)
            if column is None:
                column = Column()
            for lane, (rows, values) in lanes.items():
                column.extend(lane, rows, values)
            self.by_path[path] = column


class Attributes:
    """A snapshot; make the first by `Attributes.empty()`.

    A batch holds metadata as `metadata.encode` takes it, and besides may hold the keys in filters.SYSTEM_FIELDS. Values
    of other types raise InvalidRecord.
    """

    __slots__ = ("_columns", "_grouped", "_length", "_row_of_slot", "_rows")

    def __init__(self, columns: _Columns, rows: int, length: int, row_of_slot: Slots | None) -> None:
        """row_of_slot: (at least length,) int64, spare room at its end; None where slot i is row i."""
        self._columns = columns
        self._rows = rows
        self._length = length
        self._row_of_slot = row_of_slot
        self._grouped: dict[str, Groups] = {}  # made when first asked for

    @classmethod
    def empty(cls) -> Attributes:
        return cls(_Columns(), 0, 0, None)

    def __len__(self) -> int:
        return self._length

    def __repr__(self) -> str:
        return f"<Attributes {self._length:,} slots, {len(self._columns.by_path):,} paths>"

    @property
    def nbytes(self) -> int:
        """Bytes in memory, shared columns included; dictionaries of texts are estimated."""
        slots = 0 if self._row_of_slot is None else self._row_of_slot.nbytes
        return slots + sum(column.nbytes for column in tuple(self._columns.by_path.values()))

    def appended(self, batch: Sequence[Mapping[str, Any]]) -> Attributes:
        """With the batch in new slots at the end."""
        if not len(batch):
            return self
        base = self._newest()
        base._columns.extend(batch)
        rows, length = base._rows + len(batch), base._length + len(batch)
        row_of_slot = base._row_of_slot
        if row_of_slot is not None:
            if length > len(row_of_slot):
                row_of_slot = np.empty(2 * length, np.int64)
                row_of_slot[: base._length] = base._slots()
            row_of_slot[base._length : length] = np.arange(base._rows, rows)
        return Attributes(base._columns, rows, length, row_of_slot)

    def replaced(self, slots: Slots, batch: Sequence[Mapping[str, Any]]) -> Attributes:
        """With batch[i] as the metadata of slots[i], (B,) int64; the last one counts if a slot stands there twice."""
        assert len(slots) == len(batch), f"{len(slots)} slots for {len(batch)} records"
        if not len(batch):
            return self
        assert 0 <= slots.min() <= slots.max() < self._length, f"slots outside 0 … {self._length - 1}"
        base = self._newest()
        base._columns.extend(batch)
        rows = base._rows + len(batch)
        row_of_slot = base._slots().copy()
        row_of_slot[slots] = np.arange(base._rows, rows)
        result = Attributes(base._columns, rows, base._length, row_of_slot)
        dead = rows - base._length
        return result._copy() if dead > max(_DEAD_ROWS_KEPT, base._length // 2) else result

    def compacted(self, kept: Slots) -> Attributes:
        """With only these slots, (K,) int64 ascending: new slot i was kept[i]. Shares nothing with this snapshot."""
        assert np.all(kept[1:] > kept[:-1]), "kept slots must ascend"
        slot_of_row = np.full(self._rows, -1, np.int64)
        slot_of_row[self._slots()[kept]] = np.arange(len(kept))
        columns = _Columns()
        for path, column in self._columns.by_path.items():
            moved = _moved(column, slot_of_row)
            if moved.streams:
                columns.by_path[path] = moved
        columns.rows = len(kept)
        return Attributes(columns, len(kept), len(kept), None)

    def mask(self, node: Node) -> Mask:
        """(n,) bool: the slots whose metadata satisfies the filter. The array is the caller's own."""
        rows = matching_rows(node, self._columns.by_path, self._rows)
        return rows if self._row_of_slot is None else rows.take(self._slots())

    def numbers(self, path: str, slots: Slots) -> tuple[Slots, NDArray[np.float64]]:
        """The numbers at a path of these slots (m,), items of lists included: the place in slots of each (e,), and it (e,)."""
        places, values = self._entries(path, (Lane.NUMBER, Lane.BIG), slots)
        return places, values.astype(np.float64)

    def moments(self, path: str, slots: Slots) -> tuple[Slots, NDArray[np.int64]]:
        """The same for dates: microseconds since 1970."""
        return self._entries(path, (Lane.DATE,), slots)

    def _entries(self, path: str, lanes: Sequence[Lane], slots: Slots) -> tuple[Slots, NDArray[Any]]:
        column = self._columns.by_path.get(path)
        rows = self._slots()[slots].astype(np.int32)
        places: list[Slots] = [np.zeros(0, np.int64)]
        values: list[NDArray[Any]] = [np.zeros(0, np.int64)]
        for lane in lanes:
            for kind in (lane, lane + ELEMENT):
                view = None if column is None else column.view(kind, self._rows)
                if view is None:
                    continue
                first = np.searchsorted(view.rows, rows, side="left")
                counts = np.searchsorted(view.rows, rows, side="right") - first
                ends = np.cumsum(counts)
                of_slot = np.repeat(np.arange(len(rows)), counts)
                places.append(of_slot)
                values.append(view.values[np.arange(len(of_slot)) + (first - ends + counts)[of_slot]])
        return np.concatenate(places), np.concatenate(values)

    def distances(self, path: str, place: Place) -> NDArray[np.float64]:
        """(n,) how far each slot is from a place, by what it has at a path: see nearness.py. inf where it has none."""
        rows = distances(place, path, self._columns.by_path, self._rows)
        return rows if self._row_of_slot is None else rows.take(self._slots())

    def grouped_by(self, path: str) -> Groups:
        """Which slots share a scalar value at a path; null, lists and objects are none. Of several values the first counts."""
        known = self._grouped.get(path)
        if known is None:
            known = self._grouped[path] = self._groups(path)
        return known

    def _groups(self, path: str) -> Groups:
        column = self._columns.by_path.get(path)
        numbers = np.full(self._rows, -1, np.int64)
        keys: dict[int, Any] = {}
        for lane in SCALAR_LANES:
            view = None if column is None or lane is Lane.NULL else column.view(lane, self._rows)
            if column is None or view is None or not len(view.rows):
                continue
            values, of_value = np.unique(view.values, return_inverse=True)
            numbers[view.rows[::-1]] = of_value[::-1] + len(keys)
            texts = column.texts.texts if lane is Lane.TEXT else None
            shown = (value if texts is None else texts[value] for value in values.tolist())
            keys |= {len(keys) + place: _shown_value(_KINDS[lane], value) for place, value in enumerate(shown)}
        return Groups(numbers if self._row_of_slot is None else numbers.take(self._slots()), keys)

    def facets(self, path: str, allowed_mask: Mask | None = None, limit: int = 10) -> list[tuple[Any, int]]:
        """The scalar values at a path, items of lists included, and how many of the allowed slots have each.

        At most limit of them, most frequent first, then by type and value. allowed_mask: (n,) bool, None for all. Whole
        numbers come as int, dates as aware datetimes.
        """
        column = self._columns.by_path.get(path)
        if column is None or limit < 1:
            return []
        allowed_rows = np.zeros(self._rows, np.bool_)
        allowed_rows[self._slots()] = True if allowed_mask is None else allowed_mask
        counted = (count for lane in SCALAR_LANES for count in _counts(column, lane, allowed_rows, limit))
        best = heapq.nsmallest(limit, counted, key=lambda count: (-count[2], count[0], count[1]))
        return [(_shown_value(kind, value), count) for kind, value, count in best]

    def _slots(self) -> Slots:
        """The row of each slot, (n,) int64."""
        return np.arange(self._length) if self._row_of_slot is None else self._row_of_slot[: self._length]

    def _newest(self) -> Attributes:
        """This snapshot if it may add rows, else an equal one that may."""
        return self if self._columns.rows == self._rows else self._copy()

    def _copy(self) -> Attributes:
        return self.compacted(np.arange(self._length))


def _moved(column: Column, slot_of_row: Slots) -> Column:
    """A new column with the entries of rows that have a slot, under the slot's number; unused texts are gone."""
    result = Column()
    for lane in column.streams:
        view = column.view(lane, len(slot_of_row))
        assert view is not None
        slots = slot_of_row[view.rows]
        kept = np.flatnonzero(slots >= 0)
        if not len(kept):
            continue
        # A replaced slot's row stands late in the stream. Stable, so that entries of one slot stay in order.
        order = kept[np.argsort(slots[kept], kind="stable")]
        values: Any = view.values[order]
        if lane in CODED_LANES:
            texts = column.dictionary(lane).texts
            values = [texts[code] for code in values.tolist()]
        result.extend(lane, slots[order].astype(np.int32), values)
    return result


_KINDS = {
    Lane.NULL: Kind.NULL,
    Lane.BOOL: Kind.BOOL,
    Lane.NUMBER: Kind.NUMBER,
    Lane.BIG: Kind.NUMBER,
    Lane.DATE: Kind.DATE,
    Lane.TEXT: Kind.TEXT,
}


def _counts(column: Column, lane: Lane, allowed_rows: Mask, limit: int) -> Iterator[tuple[Kind, Any, int]]:
    """The kind, value and number of rows of the lane's most frequent values: enough of them to choose `limit` from."""
    views = [view for place in (0, ELEMENT) if (view := column.view(lane + place, len(allowed_rows))) is not None]
    if not views:
        return
    rows = np.concatenate([view.rows for view in views])
    values: Any = np.concatenate([view.values for view in views])
    counted = np.flatnonzero(allowed_rows[rows])
    rows, values = rows[counted], values[counted]
    if lane is not Lane.TEXT:
        distinct, values = np.unique(values, return_inverse=True)
    if len(views) > 1 or not views[0].single:  # a row that has a value twice counts once
        pairs = np.sort(values * np.int64(len(allowed_rows)) + rows)
        values = pairs[np.diff(pairs, prepend=-1) > 0] // len(allowed_rows)
    counts = np.bincount(values)
    least = 1 if len(counts) <= limit else max(1, int(np.partition(counts, -limit)[-limit]))
    above, level = np.flatnonzero(counts > least).tolist(), np.flatnonzero(counts == least).tolist()
    if lane is Lane.TEXT:
        texts = column.texts.texts
        level = heapq.nsmallest(limit, level, key=texts.__getitem__)
    for place in above + level[:limit]:  # other lanes' values ascend with their places
        yield _KINDS[lane], texts[place] if lane is Lane.TEXT else distinct[place].item(), int(counts[place])


def _shown_value(kind: Kind, value: Any) -> Any:
    if kind is Kind.NULL:
        return None
    if kind is Kind.DATE:
        return moment_at(value)
    return int(value) if isinstance(value, float) and value.is_integer() else value
