"""Ranking groups of records (documents by their passages, places by their photographs' descriptors) for a set of query vectors.

The ways are those of `vecdb.index.groups`; here is what they need of a collection: which vectors are in which group now, how far
the kernel reaches, and grids that are kept until enough was written. Distances are always those of the vectors that are there:
what an index or a grid does not know is measured, and what it knows too much of is left out.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, get_args

import numpy as np

from vecdb.attributes import Slots
from vecdb.errors import InvalidQuery
from vecdb.filters import Node
from vecdb.index.base import Mask, Vectors
from vecdb.index.groups import (
    Grids,
    Grouped,
    GroupKernel,
    RankedGroups,
    exact_groups,
    gridded_groups,
    measured_reach,
    probed_groups,
)
from vecdb.index.groups.kernel import USUAL_SHAPE
from vecdb.memory import Snapshot
from vecdb.query.distinct import field_of
from vecdb.query.ranking import Rows
from vecdb.query.retrieval import Retrieval, scores_of
from vecdb.storage import Store
from vecdb.tables import Tables
from vecdb.types import GroupHit, GroupHits, GroupMatch, GroupMethod, Metric
from vecdb.vector_view import VectorView
from vecdb.vectors import Matrix

METHODS = get_args(GroupMethod)
MOST_GROUPS, MOST_QUERY_VECTORS = 10_000, 10_000

_MEASURED_AT_ONCE = 2**24  # pairs up to which "auto" measures all: about a second
_LEAST_NEW, _SHARE_OF_NEW = 1_000, 0.1  # of vectors that grids do not have, from which on they are made anew


@dataclass(frozen=True, slots=True)
class GroupOptions:
    """How groups are ranked; `Collection.search_groups` says what is what."""

    k: int = 10
    by: str = "parent"
    method: GroupMethod = "auto"
    reach: float | None = None
    shape: float | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.k, int | np.integer) or isinstance(self.k, bool) or not 1 <= self.k <= MOST_GROUPS:
            raise InvalidQuery(f"k is {self.k!r}; it must be a whole number between 1 and {MOST_GROUPS:,}", path="k")
        if not isinstance(self.by, str) or not self.by:
            raise InvalidQuery(f"by is {self.by!r}; give 'parent' or the name of a metadata key", path="by")
        if self.method not in METHODS:
            raise InvalidQuery(f"method is {self.method!r}; it must be one of {', '.join(METHODS)}", path="method")
        for name, value, most in (("reach", self.reach, np.inf), ("shape", self.shape, 0.5)):
            is_number = isinstance(value, int | float | np.number) and not isinstance(value, bool)
            if value is not None and not (is_number and 0 < value <= most and np.isfinite(value)):
                wanted = "a distance above 0" if name == "reach" else "above 0 and at most at 0.5"
                raise InvalidQuery(f"{name} is {value!r}; it must be {wanted}", path=name)


@dataclass(frozen=True, slots=True)
class _Kept:
    """Grids over the vectors of rows (n,), ascending; positions in them are places there."""

    grids: Grids
    rows: Rows


class GroupSearch:
    """Searches the groups of one collection. What was measured is kept: reaches until something is written, grids for longer."""

    def __init__(self, store: Store, tables: Tables, retrieval: Retrieval, metric: Metric) -> None:
        self._store = store
        self._tables = tables
        self._retrieval = retrieval
        self._metric = metric
        self._lock = threading.Lock()
        self._grids: dict[str, _Kept] = {}
        self._reaches: dict[str, tuple[int, float]] = {}  # after which change, and the reach

    def search(self, queries: Matrix, where: Node | None, options: GroupOptions) -> GroupHits:
        """queries: (m, D), as vectors are stored."""
        if self._metric == "ip":
            raise InvalidQuery(
                "groups are ranked by distances, and an inner product is none; make the collection with metric='cosine' or 'l2'"
            )
        if len(queries) > MOST_QUERY_VECTORS:
            raise InvalidQuery(f"there are {len(queries):,} query vectors; at most {MOST_QUERY_VECTORS:,} are taken")
        since = time.perf_counter()
        snapshot, allowed, live = self._retrieval.with_columns(where)
        view, attributes = snapshot.vectors, snapshot.attributes
        assert view is not None
        assert attributes is not None
        grouping = attributes.grouped_by(field_of(options.by))
        source = _SlotVectors(view, len(snapshot.rows), queries.shape[1])
        groups = np.where(source.known if live is None else source.known & live, grouping.numbers, -1)
        kernel = GroupKernel(
            options.reach or self._reach(snapshot, source, groups, options.by), options.shape or USUAL_SHAPE
        )
        admitted = groups if allowed is None else np.where(allowed, groups, -1)
        method = options.method
        if method == "auto":
            pairs = len(queries) * int(np.count_nonzero(admitted >= 0))
            has_graph = view.index is not None and view.index.kind != "exact"
            method = "index" if has_graph and pairs > _MEASURED_AT_ONCE else "exact"
        detail: dict[str, Any] = {}
        if method == "exact":
            found = exact_groups(Grouped.of(source, admitted), queries, options.k, kernel)
        elif method == "index":
            search = _ViewSearch(view, live, self._metric)
            found = probed_groups(search, source, admitted, queries, options.k, kernel)
        else:
            found, detail = self._by_grids(snapshot, source, groups, admitted, queries, kernel, options)
        trace = {
            "method": method,
            "reach": kernel.reach,
            "shape": kernel.shape,
            "vectors": int(np.count_nonzero(admitted >= 0)),
            "groups": len(np.unique(admitted[admitted >= 0])),
            "distances": found.work,
            **detail,
        }
        hits = self._hits(found, snapshot, grouping.keys, kernel)
        return GroupHits(hits, {**trace, "ms": (time.perf_counter() - since) * 1e3})

    def _reach(self, snapshot: Snapshot, source: _SlotVectors, groups: Slots, by: str) -> float:
        """Measured on all groups, whatever a filter admits; the same for the same records."""
        known = self._reaches.get(by)
        if known is None or known[0] != snapshot.seq:
            known = self._reaches[by] = (snapshot.seq, measured_reach(Grouped.of(source, groups)))
        return known[1]

    def _by_grids(
        self,
        snapshot: Snapshot,
        source: _SlotVectors,
        groups: Slots,
        admitted: Slots,
        queries: Matrix,
        kernel: GroupKernel,
        options: GroupOptions,
    ) -> tuple[RankedGroups, dict[str, Any]]:
        kept = self._current(snapshot, source, groups, options.by)
        slots = snapshot.slots_of(kept.rows)
        new = admitted >= 0
        new[slots[slots >= 0]] = False
        # Cells know places in kept.rows; what is gone since is no slot, and in no group.
        grids = kept.grids.moved(slots)
        found = gridded_groups(grids, source, admitted, queries, options.k, kernel, besides=np.flatnonzero(new))
        return found, {"touched": found.touched, "in_grids": len(kept.rows), "beside_them": int(np.count_nonzero(new))}

    def _current(self, snapshot: Snapshot, source: _SlotVectors, groups: Slots, by: str) -> _Kept:
        """Grids that have most of what there is; made anew where that is not so."""
        with self._lock:
            kept = self._grids.get(by)
            slots = np.flatnonzero(source.known & (groups >= 0))
            rows = snapshot.rows[slots]
            if kept is not None:
                common = len(np.intersect1d(kept.rows, rows, assume_unique=True))
                changed = max(len(rows), len(kept.rows)) - common
                if changed <= max(_LEAST_NEW, _SHARE_OF_NEW * len(rows)):
                    return kept
            numbers = np.full(len(groups), -1, np.int64)
            numbers[slots] = groups[slots]
            grids = Grids.of(Grouped.of(source, numbers))
            # By place among the rows, which stay what they are when slots are renumbered.
            kept = self._grids[by] = _Kept(grids.moved(np.searchsorted(slots, np.arange(len(groups)))), rows)
            return kept

    def _hits(
        self, found: RankedGroups, snapshot: Snapshot, keys: Mapping[int, Any], kernel: GroupKernel
    ) -> tuple[GroupHit, ...]:
        slots = np.unique(found.nearest[found.nearest >= 0])
        rows = snapshot.rows[slots].tolist()
        with self._store.read() as db:
            ids = self._tables.ids(db, rows)
        id_of = {slot: ids[row] for slot, row in zip(slots.tolist(), rows) if row in ids}
        hits = []
        for line, (group, score) in enumerate(zip(found.keys.tolist(), found.scores.tolist())):
            credits = kernel(found.distances[line])
            similarity = _similarities(found.distances[line], self._metric)
            matches = tuple(
                GroupMatch(number, id_of[slot], float(similarity[number]), float(credits[number]))
                for number, slot in enumerate(found.nearest[line].tolist())
                if slot in id_of
            )
            hits.append(GroupHit(keys[group], line + 1, score, matches))
        return tuple(hits)


class _SlotVectors:
    """The vectors of a view by slot. known (n,): which slots have one."""

    def __init__(self, view: VectorView, slots: int, dimension: int) -> None:
        self._indexed = None if view.index is None else view.index.arrays()["vectors"]
        self._tail = view.tail
        self.shape = (slots, dimension)
        self._place = np.zeros(slots, np.int64)  # from 1 in the index, from -1 down in the tail, 0 for none
        kept = np.flatnonzero(view.index_slots >= 0)
        self._place[view.index_slots[kept]] = kept + 1
        self._place[view.tail_slots] = -1 - np.arange(len(view.tail_slots))
        self.known: Mask = self._place != 0

    def __getitem__(self, slots: Slots) -> Vectors:
        place = self._place[slots]
        if self._indexed is not None and (place > 0).all():
            found: Vectors = self._indexed[place - 1]
            return found
        found = np.empty((len(slots), self.shape[1]), np.float32)
        old = place > 0
        if self._indexed is not None:
            found[old] = self._indexed[place[old] - 1]
        if not old.all():
            found[~old] = self._tail[-1 - place[~old]]
        return found


class _ViewSearch:
    """The nearest of some slots, by whatever the view has: its index over most, a scan of its tail."""

    def __init__(self, view: VectorView, live: Mask | None, metric: Metric) -> None:
        self._view = view
        self._live = live
        self._metric = metric

    def __call__(self, query: Vectors, count: int, allowed: Mask) -> tuple[Slots, np.ndarray[Any, Any], int]:
        nearest = self._view.search(
            query[None], count, allowed=allowed, live=self._live, exact=False, ef=None, threads=1
        )
        known = nearest.slots[0] >= 0
        doubled = 2.0 if self._metric == "cosine" else 1.0
        away = np.sqrt(np.maximum(nearest.distances[0][known].astype(np.float64) * doubled, 0.0))
        return nearest.slots[0][known], away, nearest.work


def _similarities(distances: np.ndarray[Any, Any], metric: Metric) -> np.ndarray[Any, Any]:
    """Scores, as searches have them, of Euclidean distances."""
    squares = np.square(distances)
    return scores_of((squares / 2 if metric == "cosine" else squares).astype(np.float64), metric)
