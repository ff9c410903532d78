"""Groups ranked by all distances: blocks of products, the least of each group, the kernel, the mean."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vecdb.errors import InvalidInput
from vecdb.index.arguments import as_k, as_queries, as_vectors
from vecdb.index.base import Vectors
from vecdb.index.groups.kernel import GroupKernel

_DISTANCES_AT_ONCE = 2**23


@dataclass(frozen=True)
class Grouped:
    """vectors (N, D) float32 in the order of their groups; starts (G + 1,) int64: where each group begins; rows (N,) int64: which
    row of the caller's each is; keys (G,) int64: the caller's number of each group.
    """

    vectors: Vectors
    starts: NDArray[np.int64]
    rows: NDArray[np.int64]
    keys: NDArray[np.int64]

    @classmethod
    def of(cls, vectors: ArrayLike, groups: ArrayLike) -> Grouped:
        """vectors (N, D) and the group number of each (N,), not negative; those below 0 are in no group."""
        numbers = np.asarray(groups)
        matrix = as_vectors(vectors, np.shape(vectors)[-1])
        if numbers.shape != (len(matrix),) or numbers.dtype.kind not in "iu":
            raise InvalidInput(
                f"groups is {numbers.dtype} of shape {numbers.shape}; give one whole number for each of {len(matrix)} vectors"
            )
        inside = np.flatnonzero(numbers >= 0)
        rows = inside[np.argsort(numbers[inside], kind="stable")].astype(np.int64)
        keys, starts = np.unique(numbers[rows], return_index=True)
        return cls(
            np.ascontiguousarray(matrix[rows]),
            np.append(starts, len(rows)).astype(np.int64),
            rows,
            keys.astype(np.int64),
        )

    @cached_property
    def squares(self) -> Vectors:
        """(N,): squared lengths."""
        squares: Vectors = np.einsum("nd,nd->n", self.vectors, self.vectors)
        return squares

    def __len__(self) -> int:
        return len(self.keys)


@dataclass(frozen=True)
class RankedGroups:
    """Groups by score, best first, equal ones by number; those of score 0 are not among them.

    keys (k',) int64, scores (k',) float64; nearest (k', Q) int64: for each query vector the group's nearest row, -1 where it is
    beyond the kernel's reach; work: distances that were computed, touched: entries of grids that were read.
    """

    keys: NDArray[np.int64]
    scores: NDArray[np.float64]
    nearest: NDArray[np.int64]
    work: int
    touched: int = 0


def exact_groups(grouped: Grouped, queries: ArrayLike, k: int, kernel: GroupKernel) -> RankedGroups:
    """The k best groups for a set of query vectors (Q, D)."""
    matrix, k = as_queries(queries, grouped.vectors.shape[1]), as_k(k)
    return ranked(grouped, matrix, np.arange(len(grouped)), k, kernel)


def ranked(grouped: Grouped, queries: Vectors, among: NDArray[np.int64], k: int, kernel: GroupKernel) -> RankedGroups:
    """The k best of some groups (places in grouped.keys, ascending), by all distances to their vectors."""
    if not len(queries) or not len(among):
        return RankedGroups(np.empty(0, np.int64), np.empty(0), np.empty((0, len(queries)), np.int64), 0)
    part = grouped if len(among) == len(grouped) else _part(grouped, among)
    distances = np.empty((len(queries), len(among)))
    for start, stop in _query_blocks(part, len(queries)):
        distances[start:stop] = nearest_in_groups(part, queries[start:stop])
    scores = kernel(distances).mean(axis=0)
    best = np.argsort(-scores, kind="stable")[:k]
    best = best[scores[best] > 0]
    nearest = np.full((len(best), len(queries)), -1, np.int64)
    for line, place in enumerate(best):
        inside = slice(part.starts[place], part.starts[place + 1])
        away = _squared(part.vectors[inside], part.squares[inside], queries)
        near = distances[:, place] < kernel.reach
        nearest[line, near] = part.rows[inside][away.argmin(axis=1)][near]
    return RankedGroups(part.keys[best], scores[best], nearest, len(queries) * len(part.vectors))


def nearest_in_groups(grouped: Grouped, queries: Vectors) -> NDArray[np.float64]:
    """(Q, G): the Euclidean distance of each query vector to the nearest vector of each group."""
    least = np.minimum.reduceat(_squared(grouped.vectors, grouped.squares, queries), grouped.starts[:-1], axis=1)
    found: NDArray[np.float64] = np.sqrt(np.maximum(least, 0.0).astype(np.float64))
    return found


def _squared(vectors: Vectors, squares: Vectors, queries: Vectors) -> Vectors:
    """(Q, n): squared distances up to float32's rounding."""
    found = queries @ vectors.T
    found *= -2.0
    found += squares
    found += np.einsum("qd,qd->q", queries, queries)[:, None]
    return found


def _part(grouped: Grouped, among: NDArray[np.int64]) -> Grouped:
    """Some of the groups, as if there were no others."""
    sizes = np.diff(grouped.starts)[among]
    places = np.concatenate([np.arange(grouped.starts[g], grouped.starts[g + 1]) for g in among])
    starts = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    return Grouped(grouped.vectors[places], starts, grouped.rows[places], grouped.keys[among])


def _query_blocks(grouped: Grouped, count: int) -> list[tuple[int, int]]:
    step = max(1, _DISTANCES_AT_ONCE // max(len(grouped.vectors), 1))
    return [(start, min(start + step, count)) for start in range(0, count, step)]
