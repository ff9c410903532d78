"""Vectors at the door: any array-like becomes (N, D) float32, C-contiguous, finite; inside nobody converts again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vecdb.errors import DimensionMismatch, InvalidVector
from vecdb.types import Metric

Matrix = NDArray[np.float32]


def as_matrix(given: Any, *, what: str = "vectors") -> Matrix:
    """given as (N, D) float32. Raises InvalidVector for anything that is not a rectangle of real numbers."""
    try:
        array = np.asarray(given)
        if array.dtype == object:  # a list of arrays, or rows of unequal length
            array = np.stack([np.asarray(row, dtype=np.float32) for row in given])
    except (TypeError, ValueError) as error:
        raise InvalidVector(
            f"{what} cannot be read as an array of numbers ({error}); give rows of equal length"
        ) from error
    if array.dtype.kind not in "fiu" and array.dtype.name != "bfloat16":
        raise InvalidVector(f"{what} hold {array.dtype}; give real numbers")
    if array.ndim != 2:
        raise InvalidVector(f"{what} have {array.ndim} dimension(s) {array.shape}; give an (N, D) array")
    with np.errstate(over="ignore"):  # a float64 beyond float32's range becomes inf, and is refused as such
        return np.ascontiguousarray(array, dtype=np.float32)


def prepared(
    vectors: Matrix,
    *,
    dimension: int | None,
    metric: Metric,
    collection: str,
    name: Callable[[int], str] = "vector {}".format,
) -> Matrix:
    """vectors as they are stored: checked, and of unit length under cosine. name(i) is how an error calls vector i.

    Raises DimensionMismatch, or InvalidVector for NaN, infinity, or a zero vector under cosine; `.position` is the row.
    """
    if dimension is not None and vectors.shape[1] != dimension:
        raise DimensionMismatch(
            f"{name(0)} has {vectors.shape[1]} numbers, collection {collection!r} holds {dimension}; "
            "was it embedded with another model?",
            position=0,
        )
    norms = np.sqrt(np.einsum("nd,nd->n", vectors, vectors, dtype=np.float64))
    bad = ~np.isfinite(norms)
    if bad.any():
        position = int(np.argmax(bad))
        raise InvalidVector(f"{name(position)} contains NaN or infinity; give finite numbers", position=position)
    if metric != "cosine":
        return vectors
    if (norms == 0).any():
        position = int(np.argmax(norms == 0))
        raise InvalidVector(
            f"{name(position)} is all zeros, which has no direction under cosine; leave it out, or use metric='l2'",
            position=position,
        )
    if np.abs(norms - 1).max(initial=0) < 1e-6:
        return vectors  # already unit: stored to the bit as given
    return np.asarray(vectors / norms[:, None], dtype=np.float32)


def to_blobs(vectors: Matrix) -> list[bytes]:
    """Each row as little-endian bytes: the layout that sqlite-vec reads."""
    data = vectors.astype("<f4", copy=False).tobytes()
    width = 4 * vectors.shape[1]
    return [data[start : start + width] for start in range(0, len(data), width)]


def from_blobs(blobs: list[bytes], dimension: int) -> Matrix:
    return np.frombuffer(b"".join(blobs), dtype="<f4").reshape(-1, dimension).astype(np.float32, copy=False)
