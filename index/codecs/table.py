"""Codes in memory that are scanned, and the re-check of what a scan found on vectors that are more precise.

A scan over codes asks for more than k, and the distances of these are taken again from the most precise copy there is. How many
more is learnt: `learn_oversampling` finds the least factor that reaches a recall on a sample of queries. A format that knows the
error of its products (RaBitQ) needs no factor: whatever could be among the k nearest within its bound is looked at again.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vecdb.errors import InvalidInput
from vecdb.index.arguments import as_k, as_queries, as_target, as_vectors
from vecdb.index.base import Neighbours, Vectors
from vecdb.index.codecs.base import Codes
from vecdb.index.codecs.codec import Codec
from vecdb.index.codecs.compiled import kernels
from vecdb.index.exact import exact_search, measure

FACTORS = (1.0, 1.25, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 15.0, 20.0, 30.0, 50.0, 100.0)


class CodeTable:
    """N codes of one codec, with what their distances want."""

    def __init__(self, codec: Codec, codes: Codes) -> None:
        self.codec = codec
        self.codes = np.ascontiguousarray(codes)
        self._weights = codec.weights(self.codes)

    @classmethod
    def of(cls, codec: Codec, vectors: ArrayLike) -> CodeTable:
        return cls(codec, codec.encode(vectors))

    def __len__(self) -> int:
        return len(self.codes)

    def distances(self, queries: ArrayLike) -> Vectors:
        """(B, N), see `Codec.distances`."""
        return self.codec.distances(queries, self.codes, weights=self._weights)

    def search(
        self,
        queries: ArrayLike,
        k: int,
        *,
        exact: Vectors | None = None,
        oversampling: float | None = None,
    ) -> Neighbours:
        """The k nearest by the distances of codes; with exact (N, D), by the distances of these, among so many times k.

        oversampling None: as far as the format's bound reaches, or twice k where it has none. Ties by position.
        """
        k = as_k(k)
        targets = as_queries(queries, self.codec.dimension)
        if oversampling is not None and (exact is None or not oversampling >= 1):
            without = " without exact vectors" if exact is None else ""
            raise InvalidInput(
                f"oversampling is {oversampling}{without}; it is at least 1, for a re-check on exact vectors"
            )
        positions = np.full((len(targets), k), -1, np.int64)
        nearest = np.full((len(targets), k), np.inf, np.float32)
        work = np.full(len(targets), len(self), np.int64)
        if not len(self):
            return Neighbours(positions, nearest, work)
        vectors = None if exact is None else as_vectors(exact, self.codec.dimension)
        for i, target in enumerate(targets):
            distances = self.distances(target[None])[0]
            if vectors is None:
                found, measured = self._best(distances, k)
            else:
                candidates = self._candidates(target, distances, k, oversampling)
                found, measured = _rechecked(vectors, candidates, target, k, self.codec)
                work[i] += len(candidates)
            positions[i, : len(found)], nearest[i, : len(found)] = found, measured
        return Neighbours(positions, nearest, work)

    def _best(self, distances: Vectors, count: int) -> tuple[NDArray[np.int64], Vectors]:
        rows = np.empty(min(count, len(distances)), np.int64)
        nearest = np.empty(len(rows), np.float32)
        kernels().smallest(distances, rows, nearest)
        return rows, nearest

    def _candidates(self, target: Vectors, distances: Vectors, k: int, oversampling: float | None) -> NDArray[np.int64]:
        errors = self.codec.errors(target[None], self.codes) if oversampling is None else None
        if errors is None:
            return self._best(distances, int(np.ceil((oversampling or 2.0) * k)))[0]
        # The k-th smallest upper bound: nobody whose lower bound is above it can be among the k nearest.
        _, highest = self._best(distances + errors[0], k)
        return np.flatnonzero(distances - errors[0] <= highest[-1])


def _rechecked(
    vectors: Vectors, candidates: NDArray[np.int64], target: Vectors, k: int, codec: Codec
) -> tuple[NDArray[np.int64], Vectors]:
    rows = np.sort(candidates)
    measured = measure(vectors, rows, target, codec.metric)
    order = np.argsort(measured, kind="stable")[:k]
    return rows[order], measured[order]


def learn_oversampling(
    table: CodeTable,
    exact: Vectors,
    queries: ArrayLike,
    k: int,
    target_recall: float,
    *,
    factors: Sequence[float] = FACTORS,
) -> tuple[float, float]:
    """The least factor with which a re-check finds target_recall of the true k nearest of queries, and the recall it has there.

    The last of factors where none suffices. Queries are a sample (B, D) of what will be asked, not of what is stored: a stored
    vector is its own nearest.
    """
    target = as_target(target_recall, None)
    assert target is not None
    targets = as_queries(queries, table.codec.dimension)
    if not len(targets):
        raise InvalidInput("a factor is learnt from queries; give some")
    true = exact_search(exact, targets, k, table.codec.metric)
    ranks = np.empty((len(targets), min(k, len(table))), np.int64)
    for i, query in enumerate(targets):
        rows = true.positions[i, : ranks.shape[1]]
        distances = table.distances(query[None])[0]
        order = np.argsort(distances, kind="stable")
        place = np.empty(len(order), np.int64)  # where a scan has each
        place[order] = np.arange(len(order))
        ranks[i] = place[rows]
    recall = 0.0
    for factor in factors:
        recall = float(np.mean(ranks < np.ceil(factor * k)))
        if recall >= target:
            return float(factor), recall
    return float(factors[-1]), recall
