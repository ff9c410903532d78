"""NeuralLshIndex: a learned partition of the space as a vector index. It checks arguments and joins the parts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vecdb.index.arguments import as_k, as_mask, as_queries, as_target, as_threads, as_vectors
from vecdb.index.base import HnswConfig, Mask, Metric, Neighbours, NeuralLshConfig, Positions, Vectors
from vecdb.index.exact import exact_search
from vecdb.index.live_vectors import LiveVectors
from vecdb.index.nearest_links import nearest_in, without_self
from vecdb.index.neural_lsh.bins import Bins, balanced, bins_of
from vecdb.index.neural_lsh.calibration import DEPTHS, Calibration, calibrate
from vecdb.index.neural_lsh.network import Network
from vecdb.index.pool import RangePool

_LEAST_LEARNED = 64  # so few vectors are one bin
_HELD_OUT = 320  # vectors that the network does not learn from, at most, for the calibration
_HELD_SHARE = 0.02
_EXACT_GRAPH = 20_000  # up to so many vectors, neighbours are found exactly
_QUERIES_AT_ONCE = 64
_LEAST_WALKED = 1_024  # so few allowed rows are all measured
_GROWN = 0.5  # vectors added since learning, as a share of those learned from
_OVERFULL = 2.5  # times the mean


class NeuralLshIndex(LiveVectors):
    """Neural LSH (Dong, Indyk, Razenshteyn & Wagner, ICLR 2020): the bins of a learned partition, searched likeliest first.

    Every live vector is found by its own numbers: it lies in the bin that its network finds likeliest, and that one is always
    looked into. Bins hold one-byte codes; the nearest few are measured in full precision.
    """

    kind = "neural_lsh"

    def __init__(self, dimension: int, metric: str = "cosine", config: NeuralLshConfig | None = None) -> None:
        super().__init__(dimension, metric)
        self.config = config or NeuralLshConfig()
        self._labels: NDArray[np.int32] = np.empty(0, np.int32)
        self._network = _one_bin(self.dimension)
        self._bins = Bins.of(self._vectors, self._labels, 1, self.metric)
        self._calibration: Calibration | None = None
        self._learned = 0  # vectors that the network was learned from

    def __repr__(self) -> str:
        return f"<NeuralLshIndex {self._size:,} x {self.dimension} {self.metric} bins={self._network.bins}>"

    @property
    def bin_sizes(self) -> NDArray[np.int64]:
        """(m,): how many live vectors each bin holds."""
        return self._bins.sizes

    @property
    def is_stale(self) -> bool:
        """Whether so much was added since the network learned, or one bin has become so full, that it is time to `relearn`."""
        live = self._live_count
        if live < 2 * _LEAST_LEARNED:
            return False
        grown = self._size - self._learned > _GROWN * max(self._learned, 1)
        return grown or float(self.bin_sizes.max()) > _OVERFULL * live / self._network.bins

    @classmethod
    def build(
        cls,
        vectors: ArrayLike,
        metric: str = "cosine",
        config: NeuralLshConfig | None = None,
        *,
        threads: int | None = None,
    ) -> NeuralLshIndex:
        """An index over these vectors, which are not copied (nor ever written to) if they are float32 and contiguous.

        Raises MissingExtra without PyTorch.
        """
        index = cls(np.shape(vectors)[-1], metric, config)
        index._take(vectors)
        index.relearn(threads=threads)
        return index

    @classmethod
    def open(cls, settings: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> NeuralLshIndex:
        """The index that `settings()` and `arrays()` describe. The arrays may be read-only memory maps."""
        index = cls(settings["dimension"], settings["metric"], NeuralLshConfig(**settings["config"]))
        index._take(arrays["vectors"], arrays["live"])
        index._labels = np.array(arrays["labels"], np.int32)
        index._network = Network.from_arrays(arrays)
        index._learned = int(settings["learned"])
        index._calibration = Calibration.from_arrays(arrays)
        wrong = index._network.weights[0].shape[0] != index.dimension or len(index._labels) != index._size
        if wrong or (len(index._labels) and not -1 <= index._labels.min() <= index._labels.max() < index._network.bins):
            raise ValueError("its network and its bins do not fit together")
        index._collect()
        return index

    def add(self, vectors: Vectors, *, threads: int | None = None) -> None:
        matrix = as_vectors(vectors, self.dimension)
        labels = np.concatenate([self._labels, bins_of(self._network, matrix)])
        super().add(matrix)
        self._labels = labels
        if self._learned == 0 and self._size >= _LEAST_LEARNED:
            self.relearn(threads=threads)
        else:
            self._collect()

    def remove(self, positions: Positions, *, threads: int | None = None) -> None:
        super().remove(positions)
        self._labels[~self.live] = -1
        self._collect()

    def relearn(self, *, threads: int | None = None) -> None:
        """Partition and learn anew from all live vectors; minutes at 100,000 on a CPU. Raises MissingExtra without PyTorch."""
        live = np.flatnonzero(self.live)
        self._calibration = None
        self._learned = self._size if len(live) >= _LEAST_LEARNED else 0
        self._network = _one_bin(self.dimension)
        if len(live) >= _LEAST_LEARNED:
            held = live[:: max(1, len(live) // min(_HELD_OUT, max(1, int(_HELD_SHARE * len(live)))))]
            points = np.ascontiguousarray(self._vectors[np.setdiff1d(live, held)])
            self._network = balanced(
                learned_network(points, self.metric, self.config, threads=threads), self._vectors[live]
            )
        self._labels = np.full(self._size, -1, np.int32)
        self._labels[live] = bins_of(self._network, self._vectors[live])
        self._collect()
        if self._learned:
            self._calibration = self._calibrated(held)

    def refresh(self, *, threads: int | None = None) -> None:
        """Learn anew if that is due."""
        if self.is_stale:
            self.relearn(threads=threads)

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
        """ef is the number of bins that are looked into, config.probes where neither it nor target_recall is given."""
        queries, k = as_queries(queries, self.dimension), as_k(k)
        target = as_target(target_recall, ef)
        count = live = self._live_count
        if allowed is not None:
            allowed = as_mask(allowed, self._size) & self._live[: self._size]
            count = int(np.count_nonzero(allowed))
        if count <= max(_LEAST_WALKED if allowed is not None or target is not None else 0, k):
            answer = exact_search(
                self._vectors[: self._size], queries, k, self.metric, self.live if allowed is None else allowed
            )
            return answer if target is None else answer.with_recall(1.0)
        if allowed is not None and count == live:
            allowed = None
        threshold, reached = None, None
        if target is not None:
            threshold, reached = self._entry(k * live / count, target)
        parts: list[Neighbours | None] = [None] * -(-len(queries) // _QUERIES_AT_ONCE)

        def work(start: int, stop: int) -> None:
            for first in range(start, stop, _QUERIES_AT_ONCE):
                few = queries[first : min(first + _QUERIES_AT_ONCE, stop)]
                parts[first // _QUERIES_AT_ONCE] = self._looked_up(few, k, ef, threshold, allowed)

        with RangePool(as_threads(threads)) as pool:
            pool.run(work, len(queries), step=_QUERIES_AT_ONCE if pool.threads > 1 else max(1, len(queries)))
        if not len(queries):
            return exact_search(self._vectors[:0], queries, k, self.metric)
        found = [part for part in parts if part is not None]
        answer = Neighbours(
            np.concatenate([part.positions for part in found]),
            np.concatenate([part.distances for part in found]),
            np.concatenate([part.work for part in found]),
            way="walk" if allowed is None else "filtered walk",
        )
        return answer if reached is None else answer.with_recall(reached)

    def forecast(
        self, k: int, *, matching: int | None = None, ef: int | None = None, target_recall: float | None = None
    ) -> tuple[str, int]:
        """As VectorIndex says. Bins are about equally full; what a target takes is known only query by query, so the usual number
        of bins is taken for it.
        """
        live = self._live_count
        count = live if matching is None else matching
        asks = matching is not None or as_target(target_recall, ef) is not None
        if count <= max(_LEAST_WALKED if asks else 0, as_k(k)):
            return "scan", count
        probes = min(ef or self.config.probes, self._network.bins)
        return "walk" if matching is None else "filtered walk", max(k, count * probes // self._network.bins)

    def copy(self) -> Self:
        twin = super().copy()
        twin._labels = self._labels.copy()
        return twin

    def check(self) -> list[str]:
        live = np.flatnonzero(self.live)
        vectors = self._vectors[live]
        problems = [f"the vector at position {p} is not finite" for p in live[~np.isfinite(vectors).all(axis=1)]]
        wrong = live[bins_of(self._network, vectors) != self._labels[live]]
        problems += [f"position {position} is not in its likeliest bin, and may not find itself" for position in wrong]
        if not np.array_equal(np.sort(self._bins.members), live):
            problems.append("the bins do not hold all live positions, each once")
        return problems

    def arrays(self) -> dict[str, NDArray[Any]]:
        calibration = {} if self._calibration is None else self._calibration.as_arrays()
        return {**super().arrays(), "labels": self._labels, **self._network.as_arrays(), **calibration}

    def settings(self) -> dict[str, Any]:
        return super().settings() | {"config": asdict(self.config), "learned": self._learned}

    # -- inside

    def _keep(self, kept: Positions) -> None:
        super()._keep(kept)
        self._learned, self._labels = int(np.searchsorted(kept, self._learned)), self._labels[kept]
        self._collect()

    def _collect(self) -> None:
        self._bins = Bins.of(self._vectors[: self._size], self._labels, self._network.bins, self.metric)

    def _looked_up(
        self, queries: Vectors, k: int, ef: int | None, threshold: float | None, allowed: Mask | None
    ) -> Neighbours:
        probes = 1 if threshold is not None else min(ef or self.config.probes, self._network.bins)
        return self._bins.scan(
            self._vectors[: self._size],
            queries,
            self._network.logits(queries),
            k,
            probes=probes,
            mass=threshold or 0.0,
            allowed=allowed,
        )

    def _entry(self, depth: float, target: float) -> tuple[float, float]:
        if (
            self._calibration is None
        ):  # one bin, or an index of few vectors that has not learned: all of it is looked at
            return 1.0, 1.0
        return self._calibration.entry(depth, target)

    def _calibrated(self, held: Positions) -> Calibration:
        others = self._live[: self._size].copy()
        others[held] = False
        near = exact_search(
            self._vectors[: self._size], self._vectors[held], max(DEPTHS), self.metric, others
        ).positions
        bins = np.where(near >= 0, self._labels[np.where(near >= 0, near, 0)], -1).astype(np.int32)
        return calibrate(self._network.logits(self._vectors[held]), bins)


def learned_network(points: Vectors, metric: Metric, config: NeuralLshConfig, *, threads: int | None = None) -> Network:
    """What tells the bins of a partition of these points, from the graph of their neighbours."""
    from vecdb.index.neural_lsh.learning import learn
    from vecdb.index.neural_lsh.partition import partition

    bins = config.bins_for(len(points))
    nearest = nearest_of(points, metric, max(config.soft_k, config.graph_k), threads=threads)
    labels = partition(points, nearest[:, : config.graph_k], bins, config.seed)
    return learn(points, labels, nearest, bins, config, threads=threads)


def nearest_of(points: Vectors, metric: Metric, k: int, *, threads: int | None = None) -> NDArray[np.int32]:
    """(N, k): the nearest others of each, -1 where there are fewer; exact for few points, else read off an HNSW graph."""
    if len(points) <= _EXACT_GRAPH:
        return without_self(exact_search(points, points, k + 1, metric).positions.astype(np.int32), 0)
    from vecdb.index.hnsw import HnswIndex

    graph = HnswIndex.build(points, metric, HnswConfig(ef_construction=100), threads=threads)
    return nearest_in(graph, k, threads=threads)[0]


def _one_bin(dimension: int) -> Network:
    return Network([np.zeros((dimension, 1), np.float32)], [np.zeros(1, np.float32)])
