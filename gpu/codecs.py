"""Bytes for vectors, made on a device as the codecs of a database make them: the same arithmetic, step by step, on tensors.

What is exact there (whole numbers, powers of two, single roundings) is exact here, and bytes are equal. Sums of float64 numbers
come in another order, so that what was rounded from them may differ in the last bit, once in some ten million numbers; the
nearest of two centroids that are about as near may be the other one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from vecdb.gpu.kmeans import nearest

if TYPE_CHECKING:
    import torch

Kind = Literal["e4m3", "e5m2"]
_GRID_BITS = 18  # of a matrix's numbers: steps of 2^-18
# Bits that are dropped from a float32, what is taken from the exponent, the largest code; the least normal number and steps of
# those below it; the power of two that scaled numbers stay below.
_LAYOUTS = {
    "e4m3": (20, (127 - 7) << 3, 0x7E, 2.0**-6, 2.0**9, 8),
    "e5m2": (21, (127 - 15) << 2, 0x7B, 2.0**-14, 2.0**16, 15),
}


def encode_float8(values: torch.Tensor, kind: Kind, factors: torch.Tensor | None) -> torch.Tensor:
    """(N, d) float32 -> uint8: (N, d) of numbers times factors (d,), or (N, d + 1) with each row's power of two as last byte."""
    import torch

    if factors is not None:
        return _as_float8(values * factors, kind)
    shifts = _shifts(values, _LAYOUTS[kind][5])
    codes = _as_float8(values * _powers(shifts)[:, None], kind)
    return torch.cat([codes, (shifts + 127).to(torch.uint8)[:, None]], 1)


def decode_float8(codes: torch.Tensor, size: int, table: torch.Tensor, factors: torch.Tensor | None) -> torch.Tensor:
    """(N, width) uint8 -> (N, size) float32. table (256,): what each code stands for."""
    values = table[codes[:, :size].long()].double()
    if factors is None:
        return _saturated(values * _wide_powers(127 - codes[:, size:].int()))
    return _saturated(values / factors.double())


def encode_levels(values: torch.Tensor, lows: torch.Tensor, inverses: torch.Tensor, levels: int) -> torch.Tensor:
    """(N, d) float32 -> (N, d) uint8: the nearest of so many even levels from lows (d,) on, 1 / inverses apart."""
    import torch

    return ((values - lows) * inverses).round().clamp(0, levels - 1).to(torch.uint8)


def decode_levels(numbers: torch.Tensor, lows: torch.Tensor, steps: torch.Tensor) -> torch.Tensor:
    """(N, d) uint8 -> (N, d) float32."""
    return lows + numbers.float() * steps


def encode_parts(values: torch.Tensor, books: torch.Tensor) -> torch.Tensor:
    """(N, d) float32 -> (N, M) uint8: the nearest centroid of each part. books (M, S, K)."""
    import torch

    parts, size, _ = books.shape
    padded = torch.nn.functional.pad(values, (0, parts * size - values.shape[1])).view(len(values), parts, size)
    return torch.stack([nearest(padded[:, m], books[m].T) for m in range(parts)], 1).to(torch.uint8)


def decode_parts(codes: torch.Tensor, books: torch.Tensor) -> torch.Tensor:
    """(N, M) uint8 -> (N, M * S) float32."""
    import torch

    return torch.cat([books[m].T[codes[:, m].long()] for m in range(len(books))], 1)


def exact_product(vectors: torch.Tensor, matrix: torch.Tensor) -> torch.Tensor:
    """(N, D) @ (D, E) -> float32, for a matrix in steps of 2^-18: whole numbers of so few bits that every sum is exact."""
    bits = min(53 - _GRID_BITS - max(1, (vectors.shape[1] - 1).bit_length()), 24)
    shifts = _shifts(vectors, bits)[:, None]
    whole = (vectors.double() * _wide_powers(shifts)).round()
    return _saturated(whole @ matrix.double() * _wide_powers(-shifts))


def reduce_by(vectors: torch.Tensor, mean: torch.Tensor, basis: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
    """z = (x - mean) @ basis / scales: (N, D) -> (N, d) float32."""
    return _saturated(exact_product(vectors.double() - mean, basis).double() / scales)


def restore_by(reduced: torch.Tensor, mean: torch.Tensor, basis: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
    """(N, d) -> (N, D) float32: what `reduce_by` made these of, within the directions of the basis."""
    return _saturated(exact_product(reduced.double() * scales, basis.T.contiguous()).double() + mean)


def unit(vectors: torch.Tensor) -> torch.Tensor:
    """(N, D) float32 at unit length; zeros stay zeros."""
    largest = vectors.abs().amax(1, keepdim=True).double()
    wide = vectors.double() / largest.masked_fill(largest == 0, 1)
    norms = (wide * wide).sum(1, keepdim=True).sqrt()
    return (wide / norms.masked_fill(norms == 0, 1)).float()


def second_moment(vectors: torch.Tensor, mean: torch.Tensor) -> torch.Tensor:
    """(D, D) float64: the sum of (x - mean) (x - mean)^T."""
    away = vectors.double() - mean
    return away.T @ away


def _shifts(values: torch.Tensor, target: int) -> torch.Tensor:
    """(N,) int32: e such that the largest of each row times 2^e lies in [2^(target - 1), 2^target); 0 for rows of zeros."""
    import torch

    largest = values.abs().amax(1)
    shifts = (target - torch.frexp(largest).exponent).clamp(-126, 126)
    return shifts.masked_fill(largest == 0, 0).int()


def _powers(exponents: torch.Tensor) -> torch.Tensor:
    """2^e in float32, for -126 <= e <= 126, bit by bit: a device's power function may round."""
    import torch

    return ((exponents.int() + 127) << 23).view(torch.float32)


def _wide_powers(exponents: torch.Tensor) -> torch.Tensor:
    """2^e in float64."""
    import torch

    return ((exponents.long() + 1023) << 52).view(torch.float64)


def _saturated(wide: torch.Tensor) -> torch.Tensor:
    import torch

    largest = torch.finfo(torch.float32).max
    return wide.clamp(-largest, largest).float()


def _as_float8(values: torch.Tensor, kind: Kind) -> torch.Tensor:
    """Rounded to nearest, ties to even, by the bits; what is too large becomes the largest."""
    import torch

    drop, base, most, least, steps, _ = _LAYOUTS[kind]
    bits = values.view(torch.int32)
    rest = bits & 0x7FFFFFFF
    half = 1 << (drop - 1)
    normal = ((rest + (half - 1 + ((rest >> drop) & 1))) >> drop) - base
    sizes = values.abs()
    small = (sizes.clamp(max=least) * steps).round().int()
    code = torch.where(sizes < least, small, normal.clamp(max=most))
    return (code | ((bits >> 24) & 0x80)).to(torch.uint8)
