"""CodeScanIndex: every allowed vector's code is looked at, and the best are measured again on the vectors themselves.

No graph is built, so that it is there at once, and what a search reads is what the codec leaves: an eighth or a thirtieth of the
vectors, which may stay on disk (they are a memory map). How many are measured again is set by hand, or learnt: stored vectors
ask for their neighbours, and the places that a scan gives these say how deep to look for any recall.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vecdb.errors import CorruptIndex
from vecdb.index.arguments import as_ef, as_k, as_queries, as_target, as_vectors
from vecdb.index.base import CodesConfig, Mask, Neighbours, Positions, Vectors
from vecdb.index.codecs import Codec, parse
from vecdb.index.codecs.base import Codes
from vecdb.index.codecs.compiled import kernels
from vecdb.index.exact import exact_search, measure
from vecdb.index.growth import with_room
from vecdb.index.live_vectors import LiveVectors, live_among

K = 10  # neighbours that depth is learnt for
_FITTED, _ASKED = 20_000, 200  # vectors that a codec is fitted to; that ask for their neighbours
_FEWEST = 20 * _ASKED  # of so few all are fitted to, also those that ask
_HOLDS = 2.0  # a codec is fitted anew when so many times as many vectors have come
_GATHER_SHARE = 0.25  # below this share of allowed rows, copying their codes out costs less than scanning all


class CodeScanIndex(LiveVectors):
    """A scan of codes. Its codec is fitted to the first vectors that come, and anew by `refresh` when they have doubled."""

    kind = "codes"

    def __init__(self, dimension: int, metric: str = "cosine", config: CodesConfig | None = None) -> None:
        super().__init__(dimension, metric)
        self.config = config or CodesConfig()
        self._codec = parse(self.config.codec, self.dimension, self.metric)
        self._fitted_on = 0
        self._codes: Codes = np.empty((0, self._codec.bytes_per_vector), np.uint8)
        self._weights: Vectors | None = None  # see Codec.weights
        self._depths: NDArray[np.int64] = np.empty(0, np.int64)  # places of true neighbours in a scan, ascending

    def __repr__(self) -> str:
        return f"<CodeScanIndex {self._size:,} x {self.dimension} {self.metric} {self._codec.text}>"

    @property
    def codec(self) -> Codec:
        """What codes are of; not fitted while there is no vector."""
        return self._codec

    @classmethod
    def build(cls, vectors: ArrayLike, metric: str = "cosine", config: CodesConfig | None = None) -> CodeScanIndex:
        """An index over these vectors, ready to be searched."""
        index = cls(np.shape(vectors)[-1], metric, config)
        index.add(as_vectors(vectors, index.dimension))
        index.refresh()
        return index

    @classmethod
    def open(cls, settings: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> CodeScanIndex:
        """The index that `settings()` and `arrays()` describe. The arrays may be read-only memory maps."""
        index = cls(settings["dimension"], settings["metric"], CodesConfig(**settings["config"]))
        index._take(arrays["vectors"], arrays["live"])
        index._fitted_on = int(settings["fitted_on"])
        if index._fitted_on:
            index._codec = Codec.from_bytes(np.asarray(arrays["codec"]).tobytes())
        index._codes, index._depths = arrays["codes"], np.asarray(arrays["depths"], np.int64)
        if index._codes.shape != (index._size, index._codec.bytes_per_vector):
            raise CorruptIndex(f"the codes of {index!r} have the shape {index._codes.shape}; rebuild it")
        index._weights = arrays["weights"] if len(arrays["weights"]) == index._size and index._size else None
        return index

    def add(self, vectors: Vectors, *, threads: int | None = None) -> None:
        first = self._size
        super().add(vectors)
        if self._size == first:
            return
        if self._fitted_on:
            self._append(first)
        else:
            self._fit()

    def refresh(self, *, threads: int | None = None) -> None:
        """Fit the codec anew if that many vectors have come since, and learn how deep a scan must look."""
        if self._size >= _HOLDS * self._fitted_on > 0:
            self._fit()
        self._learn()

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
        """ef: how many of the best codes are measured again. threads have no meaning here."""
        k, targets = as_k(k), as_queries(queries, self.dimension)
        target = as_target(target_recall, ef)
        mask = live_among(self.live, allowed)
        rows: Positions = np.flatnonzero(self.live if mask is None else mask)
        depth, likely = self._depth(k, None if ef is None else as_ef(ef, 1, k), target)
        if len(rows) <= max(depth, k):
            answer = exact_search(self._vectors[: self._size], targets, k, self.metric, mask)
            likely = 1.0
        else:
            answer = self._scan(targets, k, rows, depth)
        return answer if target is None else answer.with_recall(likely)

    def forecast(
        self, k: int, *, matching: int | None = None, ef: int | None = None, target_recall: float | None = None
    ) -> tuple[str, int]:
        count = self._live_count if matching is None else matching
        depth, _ = self._depth(as_k(k), None if ef is None else as_ef(ef, 1, k), as_target(target_recall, ef))
        return ("scan", count) if count <= max(depth, k) else ("scan of codes", count + depth)

    def copy(self) -> Self:
        twin = super().copy()
        twin._codes = self._codes[: self._size]
        twin._weights = None if self._weights is None else self._weights[: self._size]
        return twin

    def check(self) -> list[str]:
        problems = []
        for first in range(0, self._size, _FITTED):
            part = slice(first, min(first + _FITTED, self._size))
            finite = np.isfinite(self._vectors[part]).all(axis=1)
            problems += [f"the vector at position {first + i} is not finite" for i in np.flatnonzero(~finite)]
            if finite.all():
                wrong = (self._codec.encode(self._vectors[part]) != self._codes[part]).any(axis=1)
                problems += [f"the code at position {first + i} is not its vector's" for i in np.flatnonzero(wrong)]
        return problems

    def arrays(self) -> dict[str, NDArray[Any]]:
        fitted = np.frombuffer(self._codec.to_bytes(), np.uint8) if self._fitted_on else np.empty(0, np.uint8)
        weights = np.empty(0, np.float32) if self._weights is None else self._weights[: self._size]
        codes = np.ascontiguousarray(self._codes[: self._size])
        return {**super().arrays(), "codes": codes, "weights": weights, "codec": fitted, "depths": self._depths}

    def settings(self) -> dict[str, Any]:
        return super().settings() | {"config": asdict(self.config), "fitted_on": self._fitted_on}

    # -- inside

    def _keep(self, kept: Positions) -> None:
        super()._keep(kept)
        self._codes = self._codes[kept]
        self._weights = None if self._weights is None else self._weights[kept]

    def _fit(self) -> None:
        """The codec to an even sample of the live vectors, and all codes by it."""
        rows = np.flatnonzero(self.live)
        if not len(rows):
            rows = np.arange(self._size)
        if len(rows) >= _FEWEST:  # what a codec was fitted to finds its neighbours more easily than a query does
            rows = np.setdiff1d(rows, self._asking(rows))
        drawn = rows[np.unique(np.linspace(0, len(rows) - 1, min(len(rows), _FITTED)).astype(np.int64))]
        unfitted = parse(self.config.codec, self.dimension, self.metric)
        self._codec = unfitted.fit(self._vectors[drawn], seed=self.config.seed)
        self._fitted_on = self._size
        self._codes, self._weights = self._codes[:0], None
        self._append(0)

    def _append(self, first: int) -> None:
        """Codes of the vectors from `first` on."""
        codes = self._codec.encode(self._vectors[first : self._size])
        self._codes = with_room(self._codes, first, self._size)
        self._codes[first : self._size] = codes
        weights = self._codec.weights(codes)
        if weights is not None:
            known = np.empty(0, np.float32) if self._weights is None else self._weights
            self._weights = with_room(known, first, self._size)
            self._weights[first : self._size] = weights

    def _learn(self) -> None:
        """Where a scan has the K true neighbours of live vectors that ask, each left out of what it finds itself."""
        rows = np.flatnonzero(self.live)
        if len(rows) <= K:
            self._depths = np.empty(0, np.int64)
            return
        asking = self._asking(rows)
        vectors, live = self._vectors[: self._size], self.live
        true = exact_search(vectors, vectors[asking], K + 1, self.metric, live).positions
        depths = []
        for row, near in zip(asking, true):
            distances = self._distances(vectors[row][None], None)
            distances[~live] = np.inf
            distances[row] = np.inf
            wanted = near[near != row][:K]
            depths += [int(np.count_nonzero(distances < distances[other])) for other in wanted]
        self._depths = np.sort(np.array(depths, np.int64))

    @staticmethod
    def _asking(rows: Positions) -> Positions:
        asking: Positions = rows[np.unique(np.linspace(0, len(rows) - 1, min(len(rows), _ASKED)).astype(np.int64))]
        return asking

    def _depth(self, k: int, ef: int | None, target: float | None) -> tuple[int, float]:
        """How many of the best codes are measured again, and the recall that is likely then.

        The places of K neighbours stand for those of k: a scan of codes that has the K nearest within some times K has the k
        nearest within about as many times k.
        """
        if ef is None and target is None and self.config.oversampling:
            ef = max(k, math.ceil(self.config.oversampling * k))
        if not len(self._depths):  # so few vectors that nothing was learnt
            return (max(k, self._size) if ef is None else ef), 1.0
        if ef is None:
            wanted = math.ceil((self.config.recall if target is None else target) * len(self._depths))
            place = int(self._depths[max(wanted, 1) - 1]) + 1
            ef = max(k, math.ceil(place * max(k / K, 1.0)))
        likely = np.count_nonzero(self._depths < ef / max(k / K, 1.0)) / len(self._depths)
        return ef, float(likely)

    def _distances(self, query: Vectors, rows: Positions | None) -> Vectors:
        """(n,): distances by codes from query (1, D) to rows, or to all."""
        codes, weights = self._codes[: self._size], self._weights
        weights = None if weights is None else weights[: self._size]
        if rows is not None:
            codes, weights = codes[rows], None if weights is None else weights[rows]
        distances: Vectors = self._codec.distances(query, codes, weights=weights)[0]
        return distances

    def _scan(self, targets: Vectors, k: int, rows: Positions, depth: int) -> Neighbours:
        gathered = len(rows) <= _GATHER_SHARE * self._size
        outside = None
        if not gathered and len(rows) < self._size:
            outside = np.ones(self._size, np.bool_)
            outside[rows] = False
        positions = np.full((len(targets), k), -1, np.int64)
        nearest = np.full((len(targets), k), np.inf, np.float32)
        for i, target in enumerate(targets):
            distances = self._distances(target[None], rows if gathered else None)
            if outside is not None:
                distances[outside] = np.inf
            best = smallest(distances, depth)
            candidates = np.sort(rows[best] if gathered else best)
            measured = measure(self._vectors, candidates, target, self.metric)
            order = np.argsort(measured, kind="stable")[:k]
            positions[i], nearest[i] = candidates[order], measured[order]
        work = np.full(len(targets), len(rows) + depth, np.int64)
        return Neighbours(positions, nearest, work, None, "scan of codes")


_FEW = 64  # so many are kept in order by insertion; more are cut off by a partition


def smallest(distances: Vectors, count: int) -> Positions:
    """Where the `count` smallest of distances (N,) are, the first of equals; in no order."""
    if count <= _FEW:
        rows, nearest = np.empty(count, np.int64), np.empty(count, np.float32)
        kernels().smallest(distances, rows, nearest)
        return rows
    last = np.partition(distances, count - 1)[count - 1]
    below = np.flatnonzero(distances < last)
    return np.concatenate([below, np.flatnonzero(distances == last)[: count - len(below)]])
