"""Exact search by looking at every allowed vector. NumPy only: it answers before any kernel is compiled.

Two passes. A matrix product gives all distances in float32, with a rounding error that depends on how BLAS cut the work;
everything that could be among the k nearest within that error is then measured again in float64. So the answer is the
same for one query or a thousand, for any BLAS and any number of its threads, and equal vectors are at equal distances.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vecdb.index.arguments import as_k, as_mask, as_queries, as_target, as_vectors
from vecdb.index.base import Mask, Metric, Neighbours, Positions, Vectors
from vecdb.index.growth import with_room
from vecdb.index.live_vectors import LiveVectors, live_among

_GATHER_SHARE = 0.25  # below this share of allowed rows, copying them out costs less than scoring all of them
_SCORES_AT_ONCE = 2**24  # float32 distances of one matrix product: 64 MiB
_NUMBERS_AT_ONCE = 2**22  # numbers copied out of the vectors at once: 16 MiB as float32, 32 MiB as float64
_UNIT_SLACK = 1.01  # unit vectors in float32 are this long at most, generously


class ExactIndex(LiveVectors):
    """Brute force over all vectors: the oracle of the other kinds, and the right choice for some thousand vectors."""

    kind = "exact"

    def __init__(self, dimension: int, metric: str = "cosine") -> None:
        super().__init__(dimension, metric)
        self._norms: Vectors = np.empty(0, np.float32)

    def __repr__(self) -> str:
        return f"<ExactIndex {self._size:,} x {self.dimension} {self.metric}>"

    @classmethod
    def over(cls, vectors: ArrayLike, metric: str = "cosine") -> ExactIndex:
        """An index over these vectors, which are not copied (nor ever written to) if they are float32 and contiguous."""
        matrix = np.asarray(vectors)
        return cls.open(
            {"dimension": matrix.shape[-1], "metric": metric},
            {"vectors": matrix, "live": np.ones(len(matrix), np.bool_)},
        )

    @classmethod
    def open(cls, settings: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> ExactIndex:
        """The index that `settings()` and `arrays()` describe. The arrays may be read-only memory maps."""
        index = cls(settings["dimension"], settings["metric"])
        index._take(arrays["vectors"], arrays["live"])
        index._norms = squared_norms(index._vectors, index.metric)
        return index

    def add(self, vectors: Vectors, *, threads: int | None = None) -> None:
        matrix = as_vectors(vectors, self.dimension)
        if self.metric != "cosine":
            size = self._size + len(matrix)
            self._norms = with_room(self._norms, self._size, size)
            self._norms[self._size : size] = squared_norms(matrix, self.metric)
        super().add(matrix)

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
        """ef has no meaning here; threads neither: the matrix product uses as many as NumPy's BLAS is set to. The recall is 1."""
        mask = live_among(self._live[: self._size], allowed)
        norms = self._norms[: self._size]
        answer = exact_search(self._vectors[: self._size], queries, k, self.metric, mask, norms=norms)
        return answer if as_target(target_recall, ef) is None else answer.with_recall(1.0)

    def forecast(
        self, k: int, *, matching: int | None = None, ef: int | None = None, target_recall: float | None = None
    ) -> tuple[str, int]:
        """All that are allowed are measured: nothing but their number decides what it costs."""
        return "scan", self._live_count if matching is None else matching

    def refresh(self, *, threads: int | None = None) -> None:
        """Nothing is learned."""

    def copy(self) -> Self:
        twin = super().copy()
        twin._norms = self._norms[: self._size]
        return twin

    def check(self) -> list[str]:
        finite = np.isfinite(self.vectors).all(axis=1)
        return [f"the vector at position {position} is not finite" for position in np.flatnonzero(~finite)]

    def _keep(self, kept: Positions) -> None:
        super()._keep(kept)
        self._norms = self._norms[kept] if self.metric != "cosine" else self._norms


def squared_norms(vectors: Vectors, metric: Metric) -> Vectors:
    """(N,) float32: squared lengths, which l2 and ip need; empty under cosine, where they are all 1."""
    if metric == "cosine":
        return np.empty(0, np.float32)
    norms: Vectors = np.einsum("nd,nd->n", vectors, vectors)
    return norms


def exact_search(
    vectors: Vectors,
    queries: Vectors,
    k: int,
    metric: Metric,
    allowed: Mask | None = None,
    *,
    norms: Vectors | None = None,
) -> Neighbours:
    """The k nearest of vectors (N, D) for each of queries (B, D), among allowed (N,) if given; ties by position.

    The vectors may be a read-only memory map; they are not copied, and where few are allowed only those are read. norms is
    what `squared_norms` returns, for callers that keep it.
    """
    k = as_k(k)
    vectors = as_vectors(vectors, vectors.shape[-1])
    queries = as_queries(queries, vectors.shape[1])
    rows = _allowed_rows(allowed, len(vectors))
    count = len(vectors) if rows is None else len(rows)
    positions = np.full((len(queries), k), -1, np.int64)
    distances = np.full((len(queries), k), np.inf, np.float32)
    if count and len(queries):
        if norms is None:
            norms = squared_norms(vectors, metric)
        for first, candidates in _candidates(vectors, queries, k, metric, rows, norms):
            for i, nearby in enumerate(candidates, start=first):
                found, measured = _nearest(vectors, nearby, queries[i], k, metric)
                positions[i, : len(found)] = found
                distances[i, : len(found)] = measured
    return Neighbours(positions, distances, np.full(len(queries), count, np.int64))


def measure(vectors: Vectors, rows: Positions, query: Vectors, metric: Metric) -> Vectors:
    """(n,) float32: distances from query (D,) to vectors[rows], computed in float64, then rounded."""
    target = query.astype(np.float64)
    distances = np.empty(len(rows), np.float64)
    step = max(1, _NUMBERS_AT_ONCE // len(query))
    for start in range(0, len(rows), step):
        block = vectors[rows[start : start + step]].astype(np.float64)
        # einsum sums each row alone; a matrix-vector product may round equal rows differently
        if metric == "l2":
            block -= target
            distances[start : start + step] = np.einsum("nd,nd->n", block, block)
        else:
            distances[start : start + step] = -np.einsum("nd,d->n", block, target)
    if metric == "cosine":
        distances = np.maximum(1.0 + distances, 0.0)
    return distances.astype(np.float32)


def _allowed_rows(allowed: Mask | None, size: int) -> Positions | None:
    """The allowed positions, ascending; None if that is all of them."""
    if allowed is None:
        return None
    rows: Positions = np.flatnonzero(as_mask(allowed, size))
    return None if len(rows) == size else rows


def _nearest(vectors: Vectors, rows: Positions, query: Vectors, k: int, metric: Metric) -> tuple[Positions, Vectors]:
    """The k nearest of vectors[rows]; rows are ascending."""
    distances = measure(vectors, rows, query, metric)
    order = np.argsort(distances, kind="stable")[:k]  # stable and rows ascending: ties by position
    return rows[order], distances[order]


def _candidates(
    vectors: Vectors, queries: Vectors, k: int, metric: Metric, rows: Positions | None, norms: Vectors
) -> Iterator[tuple[int, list[Positions]]]:
    """For runs of queries: the number of the first, and for each the rows that may be among its k nearest, ascending."""
    gathered = rows is not None and len(rows) <= _GATHER_SHARE * len(vectors)
    blocks: list[Positions | slice]
    if rows is not None and gathered:
        step = max(1, _NUMBERS_AT_ONCE // vectors.shape[1])
        blocks = [rows[start : start + step] for start in range(0, len(rows), step)]
        widest = min(step, len(rows))
    else:
        blocks = [slice(0, len(vectors))]
        widest = len(vectors)
    outside = None
    if rows is not None and not gathered:
        outside = np.ones(len(vectors), np.bool_)
        outside[rows] = False
    slacks = _rounding(vectors.shape[1], queries, metric, norms)
    step = max(1, _SCORES_AT_ONCE // widest)
    for first in range(0, len(queries), step):
        run = queries[first : first + step]
        found: list[list[Positions]] = [[] for _ in run]
        for block in blocks:
            rough = _rough_distances(vectors[block], run, metric, norms[block] if len(norms) else norms)
            if outside is not None:
                rough[:, outside] = np.inf
            for i, line in enumerate(rough):
                near = _within_reach(line, k, slacks[first + i])
                found[i].append(near if isinstance(block, slice) else block[near])
        yield first, [parts[0] if len(parts) == 1 else np.concatenate(parts) for parts in found]


def _rough_distances(vectors: Vectors, queries: Vectors, metric: Metric, norms: Vectors) -> Vectors:
    """(B, N) float32: distances up to rounding and up to a constant for each query."""
    products = queries @ vectors.T if len(queries) > 1 else (vectors @ queries[0])[None]
    if metric == "l2":
        products *= -2.0
        products += norms
    else:
        np.negative(products, out=products)
    return products


def _rounding(dimension: int, queries: Vectors, metric: Metric, norms: Vectors) -> NDArray[np.float32]:
    """(B,) float32: how far two rough distances may be out of order, from the error bound of a float32 dot product.

    A dot product of D terms errs by at most D * eps/2 * |q| * |v| (Higham 2002, section 3.1), and two of them are compared.
    """
    eps = float(np.finfo(np.float32).eps)
    lengths = np.sqrt(np.einsum("bd,bd->b", queries, queries, dtype=np.float64))
    longest = float(np.sqrt(norms.max(initial=0.0))) if metric != "cosine" else _UNIT_SLACK
    if metric == "l2":
        lengths = 2 * (lengths + longest)
    slack: Vectors = ((dimension + 2) * eps * longest * lengths).astype(np.float32)
    return slack


def _within_reach(distances: Vectors, k: int, slack: float) -> Positions:
    """Where distances (N,) are at most the k-th smallest plus slack, ascending; infinite ones never."""
    if k >= len(distances):
        return np.flatnonzero(distances < np.inf)
    kth = np.partition(distances, k - 1)[k - 1]
    return np.flatnonzero((distances <= kth + slack) & (distances < np.inf))
