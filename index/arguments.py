"""Arguments of an index, checked once at its door. Each function returns the argument in the form that the inside expects."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vecdb.errors import DimensionMismatch, InvalidInput, InvalidQuery, InvalidVector
from vecdb.index.base import METRICS, Mask, Metric, Positions, Vectors


def as_metric(metric: str) -> Metric:
    for known in METRICS:
        if metric == known:
            return known
    raise InvalidInput(f"metric is {metric!r}; it must be one of {', '.join(METRICS)}")


def as_dimension(dimension: int) -> int:
    if dimension < 1:
        raise InvalidInput(f"dimension is {dimension}; a vector has at least one number")
    return int(dimension)


def as_vectors(vectors: ArrayLike, dimension: int) -> Vectors:
    """(N, D) float32, C-contiguous; the very same memory if it is so already (a memory map stays one)."""
    matrix = np.ascontiguousarray(np.asarray(vectors), dtype=np.float32)
    if matrix.ndim != 2:
        raise InvalidVector(
            f"vectors have {matrix.ndim} axes; an index takes a matrix (N, {dimension}), one vector a row"
        )
    if matrix.shape[1] != dimension:
        raise DimensionMismatch(f"vectors have {matrix.shape[1]} numbers each; this index holds vectors of {dimension}")
    return matrix


def as_queries(queries: ArrayLike, dimension: int) -> Vectors:
    """(B, D) float32, C-contiguous and aligned."""
    if type(queries) is np.ndarray and queries.dtype == np.float32 and queries.flags.carray:
        matrix = queries
    else:
        matrix = np.array(queries, dtype=np.float32, order="C", copy=None)
    if matrix.ndim != 2:
        raise InvalidQuery(f"queries have {matrix.ndim} axes; search takes a matrix (B, {dimension}), one query a row")
    if matrix.shape[1] != dimension:
        raise DimensionMismatch(f"queries have {matrix.shape[1]} numbers each; this index holds vectors of {dimension}")
    return matrix


def as_k(k: int) -> int:
    if k < 1:
        raise InvalidQuery(f"k is {k}; ask for at least one neighbour")
    return int(k)


def as_target(target_recall: float | None, ef: int | None) -> float | None:
    if target_recall is None:
        return None
    if ef is not None:
        raise InvalidQuery("ef and target_recall were both given; a search goes by one of them")
    if not 0.0 < target_recall < 1.0:
        raise InvalidQuery(
            f"target_recall is {target_recall}; it must lie between 0 and 1, both excluded (for all of it, search exactly)"
        )
    return float(target_recall)


def as_ef(ef: int | None, default: int, k: int) -> int:
    """The beam width: never below k, because the beam must hold the answer."""
    if ef is None:
        return max(default, k)
    if ef < 1:
        raise InvalidQuery(f"ef is {ef}; the beam is at least 1 wide")
    return max(int(ef), k)


def as_mask(allowed: NDArray[Any], size: int) -> Mask:
    """(N,) bool, C-contiguous."""
    mask = np.ascontiguousarray(allowed)
    if mask.dtype != np.bool_ or mask.shape != (size,):
        raise InvalidInput(
            f"allowed is {mask.dtype} of shape {mask.shape}; it must be bool of shape ({size},), one entry a position"
        )
    return mask


def as_positions(positions: ArrayLike, size: int) -> Positions:
    """(n,) int64, ascending, each once."""
    array = np.asarray(positions)
    if array.size == 0:
        return np.empty(0, np.int64)
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise InvalidInput(f"positions are {array.dtype} of shape {array.shape}; give a flat array of integers")
    unique = np.unique(array).astype(np.int64)
    if unique[0] < 0 or unique[-1] >= size:
        wrong = unique[0] if unique[0] < 0 else unique[-1]
        raise InvalidInput(f"position {wrong} does not exist; this index has positions 0 to {size - 1}")
    return unique


def as_threads(threads: int | None) -> int:
    if threads is None:
        return os.cpu_count() or 1
    if threads < 1:
        raise InvalidInput(f"threads is {threads}; at least one must do the work (None: all processors)")
    return int(threads)
