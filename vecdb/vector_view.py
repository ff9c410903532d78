"""The vectors of one snapshot: an index over older rows and, beside it, the tail that is searched exactly."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from vecdb.index.base import Mask, VectorIndex, Vectors
from vecdb.index.device_scan import Scan
from vecdb.index.exact import exact_search
from vecdb.index.growth import with_room
from vecdb.types import Metric

Slots = NDArray[np.int64]
_NO_SLOTS: Slots = np.zeros(0, dtype=np.int64)


@dataclass(frozen=True, slots=True)
class Nearest:
    """For B queries: slots (B, k), -1 where there are fewer; distances (B, k), +inf there; distances computed, in all; the
    share of the true k nearest that is likely among them (B,), 1 where all was looked at, None where nothing is known; the
    way that the index took (index/base.py).
    """

    slots: Slots
    distances: NDArray[np.float32]
    work: int
    recall: NDArray[np.float32] | None = None
    way: str = "scan"


@dataclass(frozen=True, slots=True)
class VectorView:
    """Immutable. A slot is a record's place in memory; the index and the tail number their vectors by position.

    index_slots: (p,) the slot of each index position, -1 for records that are gone; index_is_prefix: they are 0 … p-1.
    index_allowed: the positions that are live, None if all are. epoch: of the index, counting the ones saved before it.
    tail: (t, D), and tail_slots (t,) the slot of each; its buffer is shared with older snapshots, which see only their own
    part of it. scan: searches the index's vectors exactly on a GPU, in place of the index; None without one.
    """

    metric: Metric
    index: VectorIndex | None = None
    index_slots: Slots = field(default_factory=_NO_SLOTS.copy)
    index_is_prefix: bool = False
    index_allowed: Mask | None = None
    epoch: int = 0
    tail_buffer: Vectors = field(default_factory=lambda: np.zeros((0, 0), dtype=np.float32))
    tail_slots: Slots = field(default_factory=_NO_SLOTS.copy)
    scan: Scan | None = None

    @property
    def tail(self) -> Vectors:
        return self.tail_buffer[: len(self.tail_slots)]

    @property
    def dead_in_index(self) -> int:
        return 0 if self.index_allowed is None else int(np.count_nonzero(~self.index_allowed))

    def __len__(self) -> int:
        return len(self.index_slots) + len(self.tail_slots)

    def holds(self, slots: Slots) -> Mask:
        """(m,) which of these slots have a vector."""
        found = _among(self.tail_slots, slots)
        if self.index is not None:
            found |= _among(self.index_slots[self.index_slots >= 0], slots)
        return found

    def vectors_at(self, slots: Slots) -> Vectors:
        """The vectors (m, D) of these slots, each of which must have one. Slots ascend in the index and in the tail."""
        found = np.empty((len(slots), self.dimension), dtype=np.float32)
        in_tail = np.isin(slots, self.tail_slots)
        if in_tail.any():  # an empty tail has no width
            found[in_tail] = self.tail[np.searchsorted(self.tail_slots, slots[in_tail])]
        if self.index is not None and not in_tail.all():
            gone = self.index_slots < 0
            kept = np.flatnonzero(~gone)
            positions = kept[np.searchsorted(self.index_slots[kept], slots[~in_tail])]
            found[~in_tail] = self.index.arrays()["vectors"][positions]
        return found

    @property
    def dimension(self) -> int:
        """Numbers in a vector; 0 where there is none."""
        return self.index.dimension if self.index is not None else int(self.tail_buffer.shape[1])

    def with_tail(self, vectors: Vectors, slots: Slots) -> VectorView:
        """With more vectors at the end of the tail."""
        if not len(slots):
            return self
        used, wanted = len(self.tail_slots), len(self.tail_slots) + len(slots)
        buffer = self.tail_buffer if used else np.zeros((0, vectors.shape[1]), dtype=np.float32)
        buffer = with_room(buffer, used, wanted)
        buffer[used:wanted] = vectors
        return replace(self, tail_buffer=buffer, tail_slots=np.concatenate([self.tail_slots, slots]))

    def with_live(self, live: Mask) -> VectorView:
        """Knowing which slots are live now. live: (n,) over all slots."""
        if self.index is None:
            return self
        allowed = self._of_index(live)
        return replace(self, index_allowed=None if allowed.all() else allowed)

    def with_index(
        self,
        index: VectorIndex,
        slots: Slots,
        last_row: int,
        epoch: int,
        live: Mask,
        rows: Slots,
        scan: Scan | None = None,
    ) -> VectorView:
        """With index (and scan) instead of the present one; the tail keeps what lies above last_row. rows: (n,) the row of each
        slot.
        """
        keep = rows[self.tail_slots] > last_row
        view = VectorView(self.metric, index, slots, _is_prefix(slots), epoch=epoch, scan=scan)
        return view.with_tail(self.tail[keep], self.tail_slots[keep]).with_live(live)

    def renumbered(self, new_slot: Slots) -> VectorView:
        """With slots renumbered: new_slot[old] is the new one, or -1 for a record that is gone."""
        keep = new_slot[self.tail_slots] >= 0
        gone = self.index_slots < 0
        slots = np.where(gone, -1, new_slot[self.index_slots]) if len(self.index_slots) else self.index_slots
        allowed = slots >= 0
        view = replace(
            self,
            index_slots=slots,
            index_is_prefix=_is_prefix(slots),
            index_allowed=None if allowed.all() else allowed,
            tail_buffer=self.tail_buffer[:0],
            tail_slots=_NO_SLOTS,
        )
        return view.with_tail(self.tail[keep], new_slot[self.tail_slots[keep]])

    def search(
        self,
        queries: Vectors,
        k: int,
        *,
        allowed: Mask | None,
        live: Mask | None,
        exact: bool,
        ef: int | None,
        target_recall: float | None = None,
        threads: int | None,
        every: bool = False,
    ) -> Nearest:
        """The k nearest slots of allowed (n,) for (B, D) queries. exact: by the vectors themselves; every: by whatever the index
        has, but for certain, as every allowed vector is looked at.

        live says the same as allowed where there is no filter (None: every slot is live); allowed must lie within it.
        """
        parts: list[tuple[Slots, NDArray[np.float32]]] = []
        work, way = 0, "scan"
        recall: NDArray[np.float32] | None = np.ones(len(queries), np.float32)
        if self.index is not None and len(self.index_slots):
            mask = self.index_allowed if allowed is None else self._of_index(allowed)
            if self.scan is not None:
                found = self.scan.search(queries, k, mask)
                way = found.way
            elif every and self.index.kind == "hnsw":  # a beam of all vectors costs more than its scan by codes
                found = self.index.search(queries, k, allowed=mask, ef=len(self.index), threads=threads)
                way = found.way
            elif exact or every:
                vectors = self.index.arrays()["vectors"]
                found = exact_search(vectors, queries, k, self.metric, mask)
            else:
                found = self.index.search(queries, k, allowed=mask, ef=ef, target_recall=target_recall, threads=threads)
                recall, way = (found.estimated_recall, found.way) if self.index.kind != "exact" else (recall, way)
            parts.append((_slots_at(self.index_slots, found.positions), found.distances))
            work += int(found.work.sum())
        if len(self.tail_slots):
            within = live if allowed is None else allowed
            found = exact_search(
                self.tail, queries, k, self.metric, None if within is None else within[self.tail_slots]
            )
            parts.append((_slots_at(self.tail_slots, found.positions), found.distances))
            work += int(found.work.sum())
        if not parts:
            return Nearest(
                np.full((len(queries), k), -1, dtype=np.int64),
                np.full((len(queries), k), np.inf, dtype=np.float32),
                work,
            )
        if len(parts) == 1:
            return Nearest(*parts[0], work, recall, way)
        slots = np.concatenate([part[0] for part in parts], axis=1)
        distances = np.concatenate([part[1] for part in parts], axis=1)
        order = np.argsort(distances, axis=1, kind="stable")[:, :k]
        if recall is not None:  # those of the tail are certain
            recall = 1.0 - (1.0 - recall) * np.mean(order < k, axis=1, dtype=np.float32)
        return Nearest(np.take_along_axis(slots, order, 1), np.take_along_axis(distances, order, 1), work, recall, way)

    def forecast(
        self, k: int, *, allowed: Mask | None, exact: bool, ef: int | None, target_recall: float | None
    ) -> tuple[str, int]:
        """The way that such a search would take (the index's, or "device", "exact", "exact index", "no index"), and about how
        many distances it would compute.
        """
        tail = len(self.tail_slots) if allowed is None else int(np.count_nonzero(allowed[self.tail_slots]))
        if self.index is None or not len(self.index_slots):
            return "no index", tail
        mask = self.index_allowed if allowed is None else self._of_index(allowed)
        matching = None if mask is None else int(np.count_nonzero(mask))
        way, cost = self.index.forecast(k, matching=matching, ef=ef, target_recall=target_recall)
        if exact or self.scan is not None:
            return "exact" if self.scan is None else "device", (
                len(self.index_slots) if matching is None else matching
            ) + tail
        return "exact index" if self.index.kind == "exact" else way, cost + tail

    def _of_index(self, mask: Mask) -> Mask:
        """A mask over slots as one over index positions."""
        if not len(mask):  # nothing is left of the collection, and -1 would be no place in the mask
            return np.zeros(len(self.index_slots), dtype=np.bool_)
        return mask[self.index_slots] & (self.index_slots >= 0)


def _among(known: Slots, slots: Slots) -> Mask:
    """(m,) which of slots stand in known, which ascends."""
    places = np.searchsorted(known, slots)
    found: Mask = places < len(known)
    found[found] = known[places[found]] == slots[found]
    return found


def _is_prefix(slots: Slots) -> bool:
    return bool(np.array_equal(slots, np.arange(len(slots))))


def _slots_at(slots: Slots, positions: Slots) -> Slots:
    found = slots[positions]
    if positions.min(initial=0) < 0:
        found[positions < 0] = -1
    return found
