"""Slow twins of codecs: one number at a time, by looking at every number that a format has."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def float8_value(code: int, exponent_bits: int, mantissa_bits: int) -> float:
    """What the bits say, by the definition of the format."""
    sign = -1.0 if code & 0x80 else 1.0
    exponent = (code >> mantissa_bits) & (2**exponent_bits - 1)
    mantissa = code & (2**mantissa_bits - 1)
    bias = 2 ** (exponent_bits - 1) - 1
    if exponent == 0:
        return sign * mantissa * 2.0 ** (1 - bias - mantissa_bits)
    return sign * (1 + mantissa / 2**mantissa_bits) * 2.0 ** (exponent - bias)


def nearest_float8(value: float, exponent_bits: int, mantissa_bits: int, largest: int) -> int:
    """The code of the nearest number, of two equally near the one with an even mantissa; at most the largest one."""
    numbers = [float8_value(code, exponent_bits, mantissa_bits) for code in range(largest + 1)]
    size = min(abs(float(value)), numbers[largest])
    code = min(range(largest + 1), key=lambda c: (abs(numbers[c] - size), c & 1))
    return code | (0x80 if np.signbit(value) else 0)


def nearest_level(value: float, low: float, step: float, levels: int) -> int:
    distances = [abs(low + step * level - value) for level in range(levels)]
    return int(np.argmin(distances))


def distances(queries: NDArray[np.float32], vectors: NDArray[np.float32], metric: str) -> NDArray[np.float64]:
    """(B, N) in float64: as an index has them."""
    q, v = queries.astype(np.float64), vectors.astype(np.float64)
    if metric == "l2":
        return ((q[:, None] - v[None]) ** 2).sum(axis=2)
    return -(q @ v.T) if metric == "ip" else 1 - q @ v.T


def nearest_centroids(values: NDArray[np.float32], books: NDArray[np.float32]) -> NDArray[np.float64]:
    """(N, M): the squared distance of each part to its nearest centroid. books (M, S, K)."""
    parts, size, _ = books.shape
    cut = values.reshape(len(values), parts, size).astype(np.float64)
    return ((cut[:, :, :, None] - books[None].astype(np.float64)) ** 2).sum(axis=2).min(axis=2)


def strictly_nearest_centroids(
    values: NDArray[np.float32], books: NDArray[np.float32], farthest: float
) -> NDArray[np.int64]:
    """(N, M): the first of the nearest, by the same float32 sums in the same order, one number after the other."""
    parts, size, _ = books.shape
    cut = np.clip(values, -farthest, farthest).reshape(len(values), parts, size)
    codes = np.empty((len(values), parts), np.int64)
    for m in range(parts):
        sums = np.repeat((np.square(books[m], dtype=np.float64).sum(axis=0) / 2).astype(np.float32)[None], len(cut), 0)
        for s in range(size):
            sums = sums - cut[:, m, s, None] * books[m, s]
        codes[:, m] = sums.argmin(axis=1)
    return codes


def needed_factor(
    distances: NDArray[np.float32], true: NDArray[np.int64], k: int, target: float, factors: list[float]
) -> float:
    """The least factor with which the true k nearest are among the factor * k nearest by code, tried one by one."""
    for factor in factors:
        count = int(np.ceil(factor * k))
        found = [
            len(set(np.argsort(line, kind="stable")[:count].tolist()) & set(rows.tolist())) / k
            for line, rows in zip(distances, true)
        ]
        if np.mean(found) >= target:
            return factor
    return factors[-1]
