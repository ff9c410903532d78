"""Local intrinsic dimensionality (LID): how many directions there are to go from a point, told by its neighbours' distances.

It says how hard a set is for a graph index (recall at fixed settings falls as it rises), and gives an order to insert in:
Elliott & Clark 2024, "The Impacts of Data, Ordering, and Intrinsic Dimensionality on Recall in HNSW".

Distances are Euclidean under every metric. Of unit vectors 1 - cos is half the squared distance, which would halve the
estimate and, rounded, tells a copy from a near neighbour no more; a dot product is no distance at all.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, TypeGuard

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vecdb.errors import InvalidInput
from vecdb.index.arguments import as_positions, as_vectors
from vecdb.index.base import HnswConfig, Positions, VectorIndex, Vectors
from vecdb.index.exact import exact_search

LidMethod = Literal["exact", "index"]
LidOrder = Literal["lid_desc", "lid_asc"]
Estimates = NDArray[np.float64]

LID_K = 100  # the variance of the estimate falls as 1 / k; Elliott & Clark's own value is not public

_MOST_PER_DIMENSION = 4.0  # nearly equal distances would give any number; so many times D is as good as infinite
_BINS = 20
_NUMBERS_AT_ONCE = 2**21  # numbers copied out of the vectors at once: 16 MiB as float64
# The throw-away index of method="index": its lists need not be perfect, only alike for all points.
_QUICK = HnswConfig(M=16, ef_construction=64)
_BEAM = 2  # times k wide is the search for k neighbours: a beam of k misses one in twenty-five, which moves estimates by 5 %


@dataclass(frozen=True, slots=True)
class LidReport:
    """The LID of a set of points, or of a sample of it.

    points: how many were estimated, of how many vectors. histogram: counts of equal bins, whose borders are edges (one more).
    """

    points: int
    vectors: int
    dimension: int
    k: int
    method: LidMethod
    mean: float
    median: float
    p5: float
    p95: float
    histogram: tuple[int, ...]
    edges: tuple[float, ...]


def lid_of_distances(distances: ArrayLike, dimension: int) -> Estimates:
    """(n,) float64: the maximum-likelihood LID of points whose neighbours are at these Euclidean distances (n, k), inf for none.

    -1 / mean(ln(r_i / r_k)), the estimator of Levina & Bickel (2004) and Amsaleg et al. (2015). Neighbours at distance 0,
    copies of the point, are left out. A point with fewer than two different distances left gets the median of the others (0
    if there are none). No estimate exceeds four times `dimension`.
    """
    r = np.asarray(distances, np.float64)
    counts = (r > 0) & np.isfinite(r)
    farthest = np.where(counts, r, 0.0).max(axis=1, initial=0.0)
    nearest = np.where(counts, r, np.inf).min(axis=1, initial=np.inf)
    tells = nearest < farthest
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = np.where(counts, np.log(r / farthest[:, None]), 0.0).sum(axis=1)
    lid = np.zeros(len(r))
    lid[tells] = np.minimum(-counts[tells].sum(axis=1) / logs[tells], _MOST_PER_DIMENSION * dimension)
    if tells.any():
        lid[~tells] = np.median(lid[tells])
    return lid


def pointwise_lid(
    vectors: ArrayLike,
    *,
    k: int = LID_K,
    method: LidMethod = "exact",
    rows: ArrayLike | None = None,
    threads: int | None = None,
) -> Estimates:
    """(N,) float64: the LID of each of vectors (N, D) among the others; of these rows only, ascending, if given.

    k neighbours are asked (N - 1 if there are fewer). method "exact" measures all pairs, N * N * D multiplications; "index"
    builds an HNSW graph, asks that and throws it away: from some ten thousand vectors on it is quicker. threads are the
    index's; the exact method has as many as NumPy's BLAS is set to. The answer does not depend on them.
    """
    matrix = _as_matrix(vectors)
    k = _as_lid_k(k)
    points = np.arange(len(matrix)) if rows is None else as_positions(rows, len(matrix))
    return lid_of_distances(_own_distances(matrix, points, k, _as_method(method), threads), matrix.shape[1])


def lid_among(index: VectorIndex, vectors: Vectors, *, k: int = LID_K, threads: int | None = None) -> Estimates:
    """(n,) float64: the LID of vectors (n, D) that are not in the index among those that are.

    Raises InvalidInput for an index of metric "ip", which does not find what is near.
    """
    k = _as_lid_k(k)
    if index.metric == "ip":
        raise InvalidInput("an index of metric 'ip' finds large dot products, not near vectors; use pointwise_lid")
    positions = index.search(vectors, k, ef=_BEAM * k, threads=threads).positions
    return lid_of_distances(_euclidean(_stored(index), vectors, positions), index.dimension)


def lid_order(
    vectors: ArrayLike,
    order: LidOrder = "lid_desc",
    *,
    k: int = LID_K,
    method: LidMethod = "exact",
    threads: int | None = None,
) -> Positions:
    """(N,) int64: the positions of vectors (N, D) by LID, largest first ("lid_desc") or last ("lid_asc"); ties by position."""
    return sorted_by_lid(pointwise_lid(vectors, k=k, method=method, threads=threads), order)


def sorted_by_lid(lid: Estimates, order: LidOrder) -> Positions:
    """(N,) int64: positions in that order of their LID; ties by position."""
    if order not in ("lid_desc", "lid_asc"):
        raise InvalidInput(f"order is {order!r}; by LID one can go 'lid_desc', hardest first, or 'lid_asc'")
    return np.argsort(-lid if order == "lid_desc" else lid, kind="stable")


def lid_report(
    data: ArrayLike | VectorIndex,
    *,
    k: int = LID_K,
    method: LidMethod = "exact",
    sample: int | None = None,
    seed: int = 0,
    threads: int | None = None,
) -> LidReport:
    """How LID is spread over vectors (N, D), or over the live vectors of an index.

    method "index" asks that index itself, or one that is built and thrown away where there is none or its metric is "ip".
    sample: estimate for so many points only, drawn with `seed`; their neighbours are still sought among all, so the exact
    method costs sample * N * D. Raises InvalidInput if there is nothing to report on.
    """
    k, method = _as_lid_k(k), _as_method(method)
    index = data if _is_index(data) else None
    matrix = _as_matrix(data) if index is None else _stored(index)  # type: ignore[arg-type]
    live = np.arange(len(matrix)) if index is None else np.flatnonzero(index.live)
    if not len(live):
        raise InvalidInput(
            "there are no vectors; a LID is taken of at least one, and means something from some hundred on"
        )
    if sample is not None and sample < 1:
        raise InvalidInput(f"sample is {sample}; estimate for at least one point (None: all)")
    points = live
    if sample is not None and sample < len(live):
        points = np.sort(np.random.default_rng(seed).choice(live, sample, replace=False))
    if index is not None and method == "index" and index.metric != "ip":
        distances = _asked(index, matrix, points, k, threads)
    elif len(live) < len(matrix):
        distances = _own_distances(matrix[live], np.searchsorted(live, points), k, method, threads)
    else:
        distances = _own_distances(matrix, points, k, method, threads)
    lid = lid_of_distances(distances, matrix.shape[1])
    p5, median, p95 = np.percentile(lid, [5, 50, 95])
    counts, edges = np.histogram(lid, bins=_BINS)
    return LidReport(
        points=len(points),
        vectors=len(live),
        dimension=matrix.shape[1],
        k=min(k, len(live) - 1),
        method=method,
        mean=float(lid.mean()),
        median=float(median),
        p5=float(p5),
        p95=float(p95),
        histogram=tuple(counts.tolist()),
        edges=tuple(edges.tolist()),
    )


def _own_distances(matrix: Vectors, points: Positions, k: int, method: LidMethod, threads: int | None) -> Estimates:
    """(n, <= k) float64, ascending: from matrix[points] to their nearest other rows."""
    if method == "index" and len(matrix):
        from vecdb.index.hnsw import HnswIndex  # numba takes half a second to import

        index = HnswIndex.build(matrix, "l2", _QUICK, threads=threads)
        return _asked(index, matrix, points, k, threads)
    k = min(k, len(matrix) - 1)
    if k < 1:
        return np.empty((len(points), 0))
    found = exact_search(matrix, matrix[points], k + 1, "l2")
    return _without_self(np.sqrt(found.distances, dtype=np.float64), found.positions, points)


def _asked(index: VectorIndex, matrix: Vectors, points: Positions, k: int, threads: int | None) -> Estimates:
    """(n, <= k) float64, ascending: from matrix[points] to what the index finds near them, apart from themselves."""
    k = min(k, int(np.count_nonzero(index.live)) - 1)
    queries = matrix[points]
    positions = index.search(queries, k + 1, ef=_BEAM * (k + 1), threads=threads).positions
    return _without_self(_euclidean(matrix, queries, positions), positions, points)


def _without_self(distances: Estimates, positions: Positions, points: Positions) -> Estimates:
    """(n, k) float64, ascending, from (n, k + 1). Where a point is not among its own neighbours, copies have taken its place."""
    return np.sort(np.where(positions == points[:, None], np.inf, distances), axis=1)[:, :-1]


def _euclidean(matrix: Vectors, queries: Vectors, positions: Positions) -> Estimates:
    """(n, k) float64: from queries (n, D) to matrix[positions (n, k)]; inf where the position is -1."""
    distances = np.empty(positions.shape)
    step = max(1, _NUMBERS_AT_ONCE // max(1, positions.shape[1] * matrix.shape[1]))
    for start in range(0, len(queries), step):
        part = slice(start, start + step)
        away = matrix[positions[part]].astype(np.float64) - queries[part, None]
        distances[part] = np.sqrt(np.einsum("nkd,nkd->nk", away, away))
    distances[positions < 0] = np.inf
    return distances


def _is_index(data: Any) -> TypeGuard[VectorIndex]:
    return hasattr(data, "search") and hasattr(data, "arrays")


def _stored(index: VectorIndex) -> Vectors:
    return as_vectors(index.arrays()["vectors"], index.dimension)


def _as_matrix(vectors: ArrayLike) -> Vectors:
    shape = np.shape(vectors)
    return as_vectors(vectors, shape[-1] if shape else 0)


def _as_lid_k(k: int) -> int:
    if k < 2:
        raise InvalidInput(f"k is {k}; a LID needs at least two neighbours, and {LID_K} are a good number")
    return int(k)


def _as_method(method: LidMethod) -> LidMethod:
    if method not in ("exact", "index"):
        raise InvalidInput(f"method is {method!r}; neighbours are found by 'exact' search or through an 'index'")
    return method
