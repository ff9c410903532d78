"""Exact search by looking at every allowed vector. NumPy only: it answers before any kernel is compiled.

Two passes. A matrix product gives all distances in float32, with a rounding error that depends on how BLAS cut the work;
everything that could be among the k nearest within that error is then measured again in float64. So the answer is the
same for one query or a thousand, for any BLAS and any number of its threads, and equal vectors are at equal distances.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vecdb.index.arguments import (
    as_dimension,
    as_k,
    as_mask,
    as_metric,
    as_positions,
    as_queries,
    as_target,
    as_vectors,
)
from vecdb.index.base import Mask, Metric, Neighbours, Positions, Vectors
from vecdb.index.growth import frozen, with_room

_GATHER_SHARE = 0.25  # below this share of allowed rows, copying them out costs less than scoring all of them
_SCORES_AT_ONCE = 2**24  # float32 distances of one matrix product: 64 MiB
_NUMBERS_AT_ONCE = 2**22  # numbers copied out of the vectors at once: 16 MiB as float32, 32 MiB as float64
_UNIT_SLACK = 1.01  # unit vectors in float32 are this long at most, generously


class ExactIndex:
    """Brute force over all vectors: the oracle of the other kinds, and the right choice for some thousand vectors."""

    kind = "exact"

    def __init__(self, dimension: int, metric: str = "cosine") -> None:
        self.dimension = as_dimension(dimension)
        self.metric: Metric = as_metric(metric)
        self._size = 0
        self._vectors: Vectors = np.empty((0, self.dimension), np.float32)
        self._live: Mask = np.empty(0, np.bool_)
        self._norms: Vectors = np.empty(0, np.float32)

    def __repr__(self) -> str:
        return f"<ExactIndex {self._size:,} x {self.dimension} {self.metric}>"

    def __len__(self) -> int:
        return self._size

    @property
    def live(self) -> Mask:
        return frozen(self._live[: self._size])

    @property
    def vectors(self) -> Vectors:
        """(N, D) float32, read-only."""
        return frozen(self._vectors[: self._size])

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
        index._vectors = as_vectors(arrays["vectors"], index.dimension)
        index._size = len(index._vectors)
        index._live = as_mask(arrays["live"], index._size).copy()
        index._norms = squared_norms(index._vectors, index.metric)
        return index

    def add(self, vectors: Vectors, *, threads: int | None = None) -> None:
        matrix = as_vectors(vectors, self.dimension)
        size = self._size + len(matrix)
        self._vectors = with_room(self._vectors, self._size, size)
        self._vectors[self._size : size] = matrix
        self._live = with_room(self._live, self._size, size)
        self._live[self._size : size] = True
        if self.metric != "cosine":
            self._norms = with_room(self._norms, self._size, size)
            self._norms[self._size : size] = squared_norms(matrix, self.metric)
        self._size = size

    def remove(self, positions: Positions, *, threads: int | None = None) -> None:
        self._live[as_positions(positions, self._size)] = False

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
        live = self._live[: self._size]
        mask = None if live.all() else live
        if allowed is not None:
            allowed = as_mask(allowed, self._size)
            mask = allowed if mask is None else allowed & mask
        norms = self._norms[: self._size]
        answer = exact_search(self._vectors[: self._size], queries, k, self.metric, mask, norms=norms)
        if as_target(target_recall, ef) is None:
            return answer
        return answer._replace(estimated_recall=np.ones(len(answer.work), np.float32))

    def forecast(
        self, k: int, *, matching: int | None = None, ef: int | None = None, target_recall: float | None = None
    ) -> tuple[str, int]:
        """All that are allowed are measured: nothing but their number decides what it costs."""
        return "scan", int(np.count_nonzero(self._live[: self._size])) if matching is None else matching

    def refresh(self, *, threads: int | None = None) -> None:
        """Nothing is learned."""

    def compact(self) -> Positions:
        kept: Positions = np.flatnonzero(self._live[: self._size])
        if len(kept) < self._size:
            self._vectors = self._vectors[kept]
            self._norms = self._norms[kept] if self.metric != "cosine" else self._norms
        self._size = len(kept)
        self._live = np.ones(self._size, np.bool_)
        return kept

    def copy(self) -> ExactIndex:
        twin = ExactIndex(self.dimension, self.metric)
        twin._size = self._size
        # Cut to their used part: the twin then reallocates on its first `add`, and this index's room stays its own.
        twin._vectors = self._vectors[: self._size]
        twin._norms = self._norms[: self._size]
        twin._live = self._live[: self._size].copy()
        return twin

    def check(self) -> list[str]:
        vectors = self._vectors[: self._size]
        finite = np.isfinite(vectors).all(axis=1)
        return [f"the vector at position {position} is not finite" for position in np.flatnonzero(~finite)]

    def arrays(self) -> dict[str, NDArray[Any]]:
        return {"vectors": self.vectors, "live": self.live}

    def settings(self) -> dict[str, Any]:
        return {"kind": self.kind, "dimension": self.dimension, "metric": self.metric}


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
