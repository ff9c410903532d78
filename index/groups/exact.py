"""Groups ranked by all distances: blocks of products, the least of each group, the kernel, the mean."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vecdb.errors import InvalidInput
from vecdb.index.arguments import as_k, as_queries
from vecdb.index.base import Vectors
from vecdb.index.groups.kernel import GroupKernel

_NUMBERS_AT_ONCE = 2**22  # of vectors that are copied out, and of distances


class Source(Protocol):
    """Where vectors are: an array (N, D) is one, and so is whatever gives those of some positions."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    def __getitem__(self, positions: NDArray[np.int64], /) -> Any: ...


@dataclass(frozen=True)
class Grouped:
    """Vectors by group; they stay where they are. positions (n,) int64: of the vectors, group by group; starts (G + 1,) int64:
    where each group begins; keys (G,) int64: the caller's number of each group, ascending.
    """

    source: Source
    positions: NDArray[np.int64]
    starts: NDArray[np.int64]
    keys: NDArray[np.int64]

    @classmethod
    def of(cls, source: Source, groups: ArrayLike) -> Grouped:
        """groups: (N,) the group number of each vector; those below 0 are in no group."""
        numbers = np.asarray(groups)
        if numbers.shape != (source.shape[0],) or numbers.dtype.kind not in "iu":
            raise InvalidInput(
                f"groups is {numbers.dtype} of shape {numbers.shape}; give one whole number for each of {source.shape[0]} vectors"
            )
        inside = np.flatnonzero(numbers >= 0)
        positions = inside[np.argsort(numbers[inside], kind="stable")].astype(np.int64)
        keys, starts = np.unique(numbers[positions], return_index=True)
        return cls(source, positions, np.append(starts, len(positions)).astype(np.int64), keys.astype(np.int64))

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def dimension(self) -> int:
        return int(self.source.shape[1])

    def vectors(self, start: int, stop: int) -> Vectors:
        """Those of positions[start:stop]."""
        found: Vectors = np.asarray(self.source[self.positions[start:stop]], dtype=np.float32)
        return found

    def blocks(self) -> Iterator[tuple[int, int]]:
        """Groups first … last - 1, as many at once as memory is to be taken for; a single group may be larger."""
        most = max(1, _NUMBERS_AT_ONCE // max(self.dimension, 1))
        first = 0
        while first < len(self):
            last = int(np.searchsorted(self.starts, self.starts[first] + most, side="right")) - 1
            last = min(max(last, first + 1), len(self))
            yield first, last
            first = last


@dataclass(frozen=True)
class RankedGroups:
    """Groups by score, best first, equal ones by number; those of score 0 are not among them.

    keys (k',) int64, scores (k',) float64; nearest (k', Q) int64: the position of the group's vector nearest to each query
    vector, -1 where none within the kernel's reach is known, and distances (k', Q) float64, inf there; work: pairs of a query
    vector and a vector whose distance was computed; touched: entries of grids that were read.
    """

    keys: NDArray[np.int64]
    scores: NDArray[np.float64]
    nearest: NDArray[np.int64]
    distances: NDArray[np.float64]
    work: int
    touched: int = 0

    @classmethod
    def none(cls, queries: int, work: int = 0, touched: int = 0) -> RankedGroups:
        empty = np.empty((0, queries))
        return cls(np.empty(0, np.int64), np.empty(0), empty.astype(np.int64), empty, work, touched)


def exact_groups(grouped: Grouped, queries: ArrayLike, k: int, kernel: GroupKernel) -> RankedGroups:
    """The k best groups for a set of query vectors (Q, D)."""
    matrix, k = as_queries(queries, grouped.dimension), as_k(k)
    if not len(matrix) or not len(grouped):
        return RankedGroups.none(len(matrix))
    away = nearest_in_groups(grouped, matrix)
    scores = kernel(away).mean(axis=0)
    best = np.argsort(-scores, kind="stable")[:k]
    best = best[scores[best] > 0]
    nearest = np.full((len(best), len(matrix)), -1, np.int64)
    for line, place in enumerate(best):
        start, stop = int(grouped.starts[place]), int(grouped.starts[place + 1])
        for first, last in _query_blocks(len(matrix), stop - start):
            distances = _squared(grouped.vectors(start, stop), matrix[first:last])
            nearest[line, first:last] = grouped.positions[start:stop][distances.argmin(axis=1)]
    near = away.T[best] < kernel.reach
    return RankedGroups(
        grouped.keys[best],
        scores[best],
        np.where(near, nearest, -1),
        np.where(near, away.T[best], np.inf),
        len(matrix) * len(grouped.positions),
    )


def nearest_in_groups(grouped: Grouped, queries: Vectors) -> NDArray[np.float64]:
    """(Q, G): the Euclidean distance of each query vector to the nearest vector of each group."""
    found = np.empty((len(queries), len(grouped)))
    for first, last in grouped.blocks():
        start, stop = int(grouped.starts[first]), int(grouped.starts[last])
        vectors = grouped.vectors(start, stop)
        for low, high in _query_blocks(len(queries), stop - start):
            squares = _squared(vectors, queries[low:high])
            found[low:high, first:last] = np.minimum.reduceat(squares, grouped.starts[first:last] - start, axis=1)
    distances: NDArray[np.float64] = np.sqrt(np.maximum(found, 0.0))
    return distances


def ranked_pairs(
    asked: NDArray[np.int64],
    keys: NDArray[np.int64],
    distances: NDArray[np.float64],
    positions: NDArray[np.int64],
    queries: int,
    kernel: GroupKernel,
) -> RankedGroups:
    """All groups ranked by those pairs (e,) of a query vector and a vector that are known: number of the query vector, group of
    the vector, their distance, its position. What is not known counts nothing, so scores are at most the true ones.
    """
    near = np.flatnonzero((distances < kernel.reach) & (keys >= 0))
    near = near[np.lexsort((positions[near], distances[near], asked[near], keys[near]))]
    first = np.ones(len(near), np.bool_)
    first[1:] = (np.diff(keys[near]) != 0) | (np.diff(asked[near]) != 0)
    near = near[first]
    if not len(near):
        return RankedGroups.none(queries)
    groups, line = np.unique(keys[near], return_inverse=True)
    table = np.full((len(groups), queries), np.inf)
    table[line, asked[near]] = distances[near]
    nearest = np.full((len(groups), queries), -1, np.int64)
    nearest[line, asked[near]] = positions[near]
    scores = kernel(table).mean(axis=1)
    best = np.argsort(-scores, kind="stable")
    best = best[scores[best] > 0]
    return RankedGroups(groups[best], scores[best], nearest[best], table[best], 0)


def cut_to(found: RankedGroups, k: int, *, work: int, touched: int = 0) -> RankedGroups:
    """The first k of them, and what finding them took."""
    return RankedGroups(found.keys[:k], found.scores[:k], found.nearest[:k], found.distances[:k], work, touched)


def _squared(vectors: Vectors, queries: Vectors) -> Vectors:
    """(Q, n): squared distances up to float32's rounding."""
    found = queries @ vectors.T
    found *= -2.0
    found += np.einsum("nd,nd->n", vectors, vectors)
    found += np.einsum("qd,qd->q", queries, queries)[:, None]
    return found


def _query_blocks(queries: int, vectors: int) -> Iterator[tuple[int, int]]:
    step = max(1, _NUMBERS_AT_ONCE // max(vectors, 1))
    return ((start, min(start + step, queries)) for start in range(0, queries, step))
