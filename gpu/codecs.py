"""Bytes for vectors, made on a device as the codecs of a database make them: the same arithmetic, step by step.

What is exact there (whole numbers, powers of two, single roundings in one order) is exact here, and bytes are equal. Sums of
float64 numbers that are not whole come in another order, so that what was rounded from them (lengths, under cosine) may
differ in the last bit, once in some ten million numbers. On a GPU these are kernels, elsewhere their twins in plain PyTorch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

    from vecdb.gpu.reference import Float8Kind


def encode_float8(values: torch.Tensor, kind: Float8Kind, factors: torch.Tensor | None) -> torch.Tensor:
    """(N, d) float32 -> uint8: (N, d) of numbers times factors (d,), or (N, d + 1) with each row's power of two as last byte."""
    return _way(values).encode_float8(values, kind, factors)


def decode_float8(codes: torch.Tensor, size: int, kind: Float8Kind, factors: torch.Tensor | None) -> torch.Tensor:
    """(N, width) uint8 -> (N, size) float32. Codes for infinity and NaN, which are never written, stand for the largest.
    factors are powers of two.
    """
    return _way(codes).decode_float8(codes, size, kind, factors)


def encode_levels(values: torch.Tensor, lows: torch.Tensor, inverses: torch.Tensor, levels: int) -> torch.Tensor:
    """(N, d) float32 -> (N, d) uint8: the nearest of so many even levels from lows (d,) on, 1 / inverses apart."""
    return _way(values).encode_levels(values, lows, inverses, levels)


def decode_levels(numbers: torch.Tensor, lows: torch.Tensor, steps: torch.Tensor) -> torch.Tensor:
    """(N, d) uint8 -> (N, d) float32."""
    return _way(numbers).decode_levels(numbers, lows, steps)


def encode_parts(values: torch.Tensor, books: torch.Tensor) -> torch.Tensor:
    """(N, d) float32 -> (N, M) uint8: the nearest centroid of each part, the first of equals. books (M, S, K), K <= 256."""
    return _way(values).encode_parts(values, books)


def decode_parts(codes: torch.Tensor, books: torch.Tensor) -> torch.Tensor:
    """(N, M) uint8 -> (N, M * S) float32."""
    return _way(codes).decode_parts(codes, books)


def reduce_by(vectors: torch.Tensor, mean: torch.Tensor, basis: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
    """z = (x - mean) @ basis / scales: (N, D) -> (N, d) float32. basis (D, d) in steps of 2^-18, so that every sum is exact."""
    return _way(vectors).reduce_by(vectors, mean, basis, scales)


def restore_by(reduced: torch.Tensor, mean: torch.Tensor, basis: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
    """(N, d) -> (N, D) float32: what `reduce_by` made these of, within the directions of the basis."""
    return _way(reduced).restore_by(reduced, mean, basis, scales)


def unit(vectors: torch.Tensor) -> torch.Tensor:
    """(N, D) float32 at unit length; zeros stay zeros."""
    return _way(vectors).unit(vectors)


def second_moment(vectors: torch.Tensor, mean: torch.Tensor) -> torch.Tensor:
    """(D, D) float64: the sum of (x - mean) (x - mean)^T."""
    away = vectors.double() - mean
    return away.T @ away


def _way(tensor: torch.Tensor) -> Any:
    from vecdb.gpu import codec_kernels, reference

    return codec_kernels if tensor.device.type == "cuda" else reference
