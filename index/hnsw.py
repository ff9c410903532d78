"""HnswIndex: the graph index. It checks arguments, chooses how to search, and calls kernels; the graph itself is in graph.py."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vecdb.index import kernels
from vecdb.index.arguments import (
    as_dimension,
    as_ef,
    as_k,
    as_mask,
    as_metric,
    as_positions,
    as_queries,
    as_target,
    as_threads,
    as_vectors,
)
from vecdb.index.base import HnswConfig, Mask, Metric, Neighbours, Positions, Vectors
from vecdb.index.calibration import HELD_OUT, Calibration, Entry, Traces, calibrate
from vecdb.index.exact import exact_search
from vecdb.index.graph import HnswGraph
from vecdb.index.growth import frozen
from vecdb.index.insertion import insert
from vecdb.index.ordering import insertion_order
from vecdb.index.pool import RangePool
from vecdb.index.removal import remove
from vecdb.index.repair import connect, settle
from vecdb.index.scratch import Scratch, ScratchShelf

_QUERIES_AT_ONCE = 16  # of a batch for several threads, at least
_RANGES_A_THREAD = 8  # at most: so many even out what some queries take longer, and each costs some time in Python
# Scanning a row takes about as long as a walk's estimate, and a walk makes some sixteen for each place of its beam.
_SCAN_PER_EF = 16
_LEAST_CALIBRATED = 1_024  # so few vectors are all looked at where a recall is asked for
_CALIBRATION_HOLDS = 0.2  # as long as no larger share of the vectors has come or gone
_SPARE_STEPS = 64  # of a traced walk, beyond two for each place of its beam
_NO_MASK: Mask = np.zeros(0, np.bool_)
_NO_WEIGHTS: Vectors = np.zeros(0, np.float32)
_LARGEST_KERNEL_K = 512  # the scan kernel sorts by insertion; beyond, NumPy's partition is better


class HnswIndex:
    """Hierarchical navigable small world graph (Malkov & Yashunin 2016) over float32 vectors, searched by compiled kernels.

    It departs from the paper in that nodes are inserted in batches (insertion.py), removed nodes leave the graph
    (removal.py), and every live node is made to be found by its own vector (repair.py).
    """

    kind = "hnsw"

    def __init__(self, dimension: int, metric: str = "cosine", config: HnswConfig | None = None) -> None:
        kernels.warm()
        self.dimension = as_dimension(dimension)
        self.metric: Metric = as_metric(metric)
        self.config = config or HnswConfig()
        self._graph = HnswGraph(self.dimension, self.metric, self.config)
        self._shelf = ScratchShelf()
        self._search = kernels.entry_of(kernels.search)
        self._calibration: Calibration | None = None

    def __repr__(self) -> str:
        return f"<HnswIndex {len(self):,} x {self.dimension} {self.metric} M={self.config.M}>"

    def __len__(self) -> int:
        return self._graph.size

    @property
    def live(self) -> Mask:
        return frozen(self._graph.live[: self._graph.size])

    @property
    def vectors(self) -> Vectors:
        """(N, D) float32, read-only."""
        return self._graph.view().vectors

    @classmethod
    def build(
        cls, vectors: ArrayLike, metric: str = "cosine", config: HnswConfig | None = None, *, threads: int | None = None
    ) -> HnswIndex:
        """An index over these vectors, which are not copied (nor ever written to) if they are float32 and contiguous."""
        index = cls(np.shape(vectors)[-1], metric, config)
        index._insert(as_vectors(vectors, index.dimension), threads, adopt=True)
        return index

    @classmethod
    def open(cls, settings: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> HnswIndex:
        """The index that `settings()` and `arrays()` describe. The arrays may be read-only memory maps."""
        index = cls(settings["dimension"], settings["metric"], HnswConfig(**settings["config"]))
        index._graph = HnswGraph.open(index.dimension, index.metric, index.config, settings["state"], arrays)
        index._calibration = Calibration.from_arrays(arrays)
        return index

    def add(self, vectors: Vectors, *, threads: int | None = None) -> None:
        self._insert(as_vectors(vectors, self.dimension), threads, adopt=False)

    def remove(self, positions: Positions, *, threads: int | None = None) -> None:
        positions = as_positions(positions, len(self))
        positions = positions[self._graph.live[positions]]
        if len(positions):
            with RangePool(as_threads(threads)) as pool:
                remove(self._graph, positions, self._shelf, pool)

    def settle(self, *, threads: int | None = None) -> None:
        """See to it that every live vector finds itself, now: `add` and `remove` leave it at looking for those who are
        likely to be missed, until a fiftieth of the nodes has come or gone. Wants the index for itself, as they do.
        """
        graph = self._graph
        if graph.unchecked:
            with RangePool(as_threads(threads)) as pool:
                graph.own()
                if graph.parents is None:
                    connect(graph, np.zeros(graph.size, np.uint8), self._shelf, touched=None)
                settle(graph, self._shelf, pool)

    def search(
        self,
        queries: Vectors,
        k: int,
        *,
        allowed: Mask | None = None,
        ef: int | None = None,
        target_recall: float | None = None,
        threads: int | None = 1,
    ) -> Neighbours:
        graph = self._graph
        queries = as_queries(queries, self.dimension)
        k = as_k(k)
        target = None if target_recall is None else as_target(target_recall, ef)
        ef = as_ef(ef, self.config.ef, k)
        count = len(queries)
        answer = Neighbours(
            np.empty((count, k), np.int64),
            np.empty((count, k), np.float32),
            np.empty(count, np.int64),
            None if target is None else np.ones(count, np.float32),
            "walk",
        )
        if allowed is None:
            if max(2 * ef, 0 if target is None else _LEAST_CALIBRATED) < graph.live_count:
                beam, entry = self._plan(k, ef, target, 1.0)
                self._walk(queries, k, beam, entry, None, answer, threads)
                self._complete(queries, k, min(k, graph.live_count), None, answer)
                return answer
            allowed = graph.live[: graph.size]
        else:
            allowed = as_mask(allowed, graph.size)
            if graph.live_count < graph.size:
                allowed = allowed & graph.live[: graph.size]
        return self._search_allowed(queries, k, ef, target, allowed, answer, threads)

    def forecast(
        self, k: int, *, matching: int | None = None, ef: int | None = None, target_recall: float | None = None
    ) -> tuple[str, int]:
        """The way that such a search would take, and about how many distances it would compute. matching: how many live positions
        are allowed; None: no mask is given. Without a calibration, which this does not make, a target is taken for the usual ef.
        """
        live, k = self._graph.live_count, as_k(k)
        target, ef = as_target(target_recall, ef), as_ef(ef, self.config.ef, k)
        count = live if matching is None else matching
        share = count / max(live, 1)
        beam = _beam(ef)
        if target is not None and self._calibration is not None and count:
            beam = self._calibration.entry(share, k, target).beam
        if matching is None and max(2 * ef, 0 if target is None else _LEAST_CALIBRATED) < live:
            return "walk", min(live, _SCAN_PER_EF * beam)
        if count <= _LEAST_CALIBRATED or _scan_is_cheaper(count, share, beam):
            return "scan", count
        return "filtered walk", min(live, int(_SCAN_PER_EF * beam / share))

    def calibrate(self, *, threads: int | None = None) -> None:
        """Learn from the index itself when a search with a target recall may end (calibration.py); some seconds at 100,000
        vectors. Done by itself when such a search comes first; to be done again when the vectors have become others. Does
        nothing where there are so few that such a search looks at all of them.
        """
        graph = self._graph
        if graph.live_count <= _LEAST_CALIBRATED:
            return
        live = np.flatnonzero(graph.live[: graph.size])
        held_out = np.ascontiguousarray(live[:: max(1, len(live) // HELD_OUT)][:HELD_OUT])
        rest = self.copy()
        with RangePool(
            as_threads(threads)
        ) as pool:  # unfilled: richer than the index around the very queries, it would flatter
            remove(rest._graph, held_out, self._shelf, pool, fill=False)
        self._calibration = calibrate(
            rest, graph.view().vectors[held_out], self.config.seed, live=graph.live_count, drawn=graph.drawn
        )

    @property
    def is_calibration_stale(self) -> bool:
        """Has so much come or gone since the last calibration (or was there none) that it may no longer hold?"""
        if self._calibration is None:
            return self._graph.live_count > _LEAST_CALIBRATED
        change = abs(self._graph.live_count - self._calibration.live) + self._graph.drawn - self._calibration.drawn
        return change > _CALIBRATION_HOLDS * self._graph.live_count

    def refresh(self, *, threads: int | None = None) -> None:
        """Calibrate again if that is due."""
        if self.is_calibration_stale:
            self.calibrate(threads=threads)

    @property
    def calibration(self) -> Calibration | None:
        """What `calibrate` learned."""
        return self._calibration

    def trace(self, queries: Vectors, truth: NDArray[np.int32], beam: int, walk: int, allowed: Mask) -> Traces:
        """What walks for queries (B, D) see, step by step: see kernels.trace. allowed (N,): none but live ones."""
        graph = self._graph
        k = truth.shape[1]
        steps = np.zeros((len(queries), 2 * beam + _SPARE_STEPS, kernels.FEATURES + 2), np.float32)
        lengths = np.zeros(len(queries), np.int64)

        def work(start: int, stop: int, scratch: Scratch) -> None:
            is_true = np.zeros(graph.size, np.uint8)
            marks = scratch.marks, scratch.clock
            kernels.trace(
                graph.view(),
                queries,
                start,
                stop,
                k,
                beam,
                walk,
                allowed,
                truth,
                is_true,
                *marks,
                steps,
                lengths,
            )

        self._run(work, len(queries), None)
        return steps, lengths

    def compact(self) -> Positions:
        return self._graph.compact()

    def copy(self) -> HnswIndex:
        twin = HnswIndex(self.dimension, self.metric, self.config)
        twin._graph = self._graph.copy()
        twin._calibration = self._calibration
        return twin

    def check(self) -> list[str]:
        return self._graph.check()

    def arrays(self) -> dict[str, NDArray[Any]]:
        calibration = {} if self._calibration is None else self._calibration.as_arrays()
        return {**self._graph.arrays(), **calibration}

    def settings(self) -> dict[str, Any]:
        graph = self._graph
        return {
            "kind": self.kind,
            "dimension": self.dimension,
            "metric": self.metric,
            "config": asdict(self.config),
            "state": {
                "entry": graph.entry,
                "top": graph.top,
                "drawn": graph.drawn,
                "unchecked": graph.unchecked,
                "fitted_on": graph.fitted_on,
            },
        }

    def _insert(self, vectors: Vectors, threads: int | None, *, adopt: bool) -> None:
        if len(vectors):
            numbers = np.arange(len(vectors), dtype=np.int32)
            index = self if self._graph.live_count else None
            order = insertion_order(self.config, self._graph.drawn, numbers, vectors, index=index, threads=threads)
            with RangePool(as_threads(threads)) as pool:
                insert(self._graph, self._graph.append(vectors, adopt=adopt)[order], self._shelf, pool)

    def _search_allowed(
        self,
        queries: Vectors,
        k: int,
        ef: int,
        target: float | None,
        allowed: Mask,
        answer: Neighbours,
        threads: int | None,
    ) -> Neighbours:
        """Two ways, by cost: all rows are measured, or a walk as without a filter reports those of its beam that are allowed,
        the beam being so much wider that it holds enough of them. What the beam of such a walk holds are the nearest of all,
        so if there are k allowed ones among them, they are the nearest allowed ones, wherever the filter's rows lie; and if
        there are fewer, because these lie far from the query, the rows are measured after all.
        """
        graph = self._graph
        count = int(np.count_nonzero(allowed))
        share = count / max(graph.live_count, 1)
        beam, entry = (0, None) if count <= _LEAST_CALIBRATED else self._plan(k, ef, target, share)
        if not beam or _scan_is_cheaper(count, share, beam):
            self._scan(queries, k, allowed, answer, threads)
            return answer._replace(way="scan")
        self._walk(queries, k, int(beam / share), entry, allowed, answer, threads)
        self._complete(queries, k, min(k, count), allowed, answer)
        return answer._replace(way="filtered walk")

    def _plan(self, k: int, ef: int, target: float | None, share: float) -> tuple[int, Entry | None]:
        """How to walk where a share of the nodes is allowed: with a beam for ef, to its end, or with the beam of an entry of
        the calibration and by its rule, so that recall is the target.
        """
        if target is None:
            return _beam(ef), None
        if self._calibration is None:
            self.calibrate()
        assert self._calibration is not None
        entry = self._calibration.entry(share, k, target)
        return entry.beam, entry

    def _walk(
        self,
        queries: Vectors,
        k: int,
        beam: int,
        entry: Entry | None,
        allowed: Mask | None,
        answer: Neighbours,
        threads: int | None,
    ) -> None:
        framed = self._graph.framed()
        walk, mask = (kernels.PLAIN, _NO_MASK) if allowed is None else (kernels.FILTERED, allowed)
        weights, threshold, scores = _NO_WEIGHTS, 0.0, _NO_WEIGHTS
        if entry is not None:
            weights, threshold, scores = entry.weights, entry.threshold, np.empty(len(queries), np.float32)
        positions, distances, work = answer[:3]
        if threads == 1:  # what is done for ranges costs a single query a microsecond
            scratch = self._shelf.take(self._graph.size)
            marks, clock = scratch.marks, scratch.clock
            out = positions, distances, work, scores
            self._search(
                framed[1], queries, 0, len(queries), k, beam, walk, mask, weights, threshold, marks, clock, *out
            )
            self._shelf.give_back(scratch)
        else:
            settings = k, beam, walk, mask, weights, threshold
            self._walk_in_ranges(framed[1], queries, settings, (positions, distances, work, scores), threads)
        if entry is not None and answer.estimated_recall is not None:
            answer.estimated_recall[:] = entry.estimate(scores)

    def _walk_in_ranges(
        self,
        frame: NDArray[np.int64],
        queries: Vectors,
        settings: tuple[Any, ...],
        out: tuple[NDArray[Any], ...],
        threads: int | None,
    ) -> None:
        def work(start: int, stop: int, scratch: Scratch) -> None:
            self._search(frame, queries, start, stop, *settings, scratch.marks, scratch.clock, *out)

        self._run(work, len(queries), threads)

    def _scan(self, queries: Vectors, k: int, allowed: Mask, answer: Neighbours, threads: int | None) -> None:
        """Measure all allowed rows."""
        if k > _LARGEST_KERNEL_K:
            self._fill(answer, slice(None), exact_search(self._graph.view().vectors, queries, k, self.metric, allowed))
            return
        view, out = self._graph.view(), (answer.positions, answer.distances, answer.work)
        rows = np.flatnonzero(allowed)

        def work(start: int, stop: int, scratch: Scratch) -> None:
            kernels.scan(view, queries, start, stop, k, rows, *out)

        self._run(work, len(queries), threads)

    def _run(self, work: Callable[[int, int, Scratch], None], count: int, threads: int | None) -> None:
        """work over queries 0 … count-1: in this thread if it is to be one, or if a pool would cost more than it saves."""
        shelf, size = self._shelf, self._graph.size
        threads = as_threads(threads)
        if threads == 1 or count <= _QUERIES_AT_ONCE:
            scratch = shelf.take(size)
            work(0, count, scratch)
            shelf.give_back(scratch)
            return

        def borrowing(start: int, stop: int) -> None:
            with shelf.borrow(size) as scratch:
                work(start, stop, scratch)

        with RangePool(threads) as pool:
            pool.run(borrowing, count, step=max(_QUERIES_AT_ONCE, -(-count // (_RANGES_A_THREAD * threads))))

    def _complete(self, queries: Vectors, k: int, wanted: int, allowed: Mask | None, answer: Neighbours) -> None:
        """Answer queries that a walk left with fewer than `wanted` positions by exact search."""
        if wanted == 0:
            return
        if len(queries) == 1 and answer.positions[0, wanted - 1] >= 0:  # what follows would take 4 µs to say so
            return
        short = np.flatnonzero(answer.positions[:, wanted - 1] < 0)
        if len(short):
            if allowed is None:
                allowed = self._graph.live[: self._graph.size]
            scanned = Neighbours(
                np.empty((len(short), k), np.int64),
                np.empty((len(short), k), np.float32),
                np.empty(len(short), np.int64),
            )
            self._scan(np.ascontiguousarray(queries[short]), k, allowed, scanned, None)
            scanned.work[:] += answer.work[short]
            self._fill(answer, short, scanned)

    def _fill(self, answer: Neighbours, places: NDArray[np.int64] | slice, exact: Neighbours) -> None:
        answer.positions[places] = exact.positions
        answer.distances[places] = exact.distances
        answer.work[places] = exact.work
        if answer.estimated_recall is not None:
            answer.estimated_recall[places] = 1.0


def _scan_is_cheaper(count: int, share: float, beam: int) -> bool:
    """Than a filtered walk, whose beam is wider by 1 / share: count allowed nodes, which are this share of all."""
    return count * share <= _SCAN_PER_EF * beam


def _beam(ef: int) -> int:
    """The width of a beam that goes by estimates and finds about as much as one of width ef by true distances."""
    return ef + ef // 8 + 4
