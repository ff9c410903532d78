"""RaBitQ: directions in one to eight bits a number, with an unbiased estimate of products and a bound on its error.

Gao & Long 2024 (one bit), Gao et al. 2025 (more). A vector from the mean is turned at random; what is coded is its direction,
by the grid point with the smallest angle to it. Behind the bits of a row stand a float32 factor f, by which products with the
grid point are multiplied to be right on the mean, and a float16, the tangent of the angle: it gives the vector's length and
the bound. Numbers of one and two bits are kept a bit of each at a time (see simd.dot_planes), four bits two to a byte.
"""

from __future__ import annotations

from typing import ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from vecdb.index.base import Vectors
from vecdb.index.codecs.base import Arrays, Codes, blocks, exact_product, on_grid, saturated
from vecdb.index.codecs.compiled import kernels, over_rows
from vecdb.index.codecs.levels import halves
from vecdb.index.codecs.linear import random_turn

_TAIL = 6  # bytes of factor and tangent
_STEEPEST = 1e4  # tangent: a vector at a right angle to its code
_SPREADS = 24  # grids tried for each vector
_EPSILON = (
    1.9  # standard deviations of the bound (Gao & Long 2024, section 5.2.4): three estimates in a hundred are below
)


class RaBitQ:
    """bits: 1, 2, 4 or 8 for each number."""

    name: ClassVar[str] = "rabitq"

    def __init__(self, size: int, bits: int) -> None:
        self.size, self.bits = size, bits
        self._words = -(-size // 64)
        self._bytes = {8: size, 4: -(-size // 2)}.get(bits, 8 * self._words * bits)
        self.width = self._bytes + _TAIL
        self._centre: Vectors = np.zeros(size, np.float32)
        self._turn: Vectors = np.zeros((0, 0), np.float32)  # until it is fitted

    @property
    def text(self) -> str:
        return f"{self.name}:{self.bits}"

    @property
    def overhead(self) -> int:
        return self._centre.nbytes + self._turn.nbytes

    def fit(self, sample: Vectors, seed: int) -> Self:
        mean = (np.einsum("nd->d", sample, dtype=np.float64) / len(sample)).astype(np.float32)
        return self.with_arrays({"centre": mean, "turn": on_grid(random_turn(self.size, self.size, seed))})

    def arrays(self) -> Arrays:
        return {"centre": self._centre, "turn": self._turn}

    def with_arrays(self, arrays: Arrays) -> Self:
        made = type(self)(self.size, self.bits)
        made._centre, made._turn = (np.ascontiguousarray(arrays[name], np.float32) for name in ("centre", "turn"))
        return made

    @property
    def _middle(self) -> float:
        return float((1 << self.bits) - 1) / 2

    def encode(self, values: Vectors) -> Codes:
        codes = np.empty((len(values), self.width), np.uint8)
        for block in blocks(len(values)):
            turned = exact_product(values[block].astype(np.float64) - self._centre, self._turn)
            numbers = _nearest_points(turned, self.bits)
            points = numbers - self._middle
            products = np.einsum("nd,nd->n", points, turned)  # points are float64, and so are the sums
            energies = np.einsum("nd,nd->n", turned, turned, dtype=np.float64)
            sizes = np.einsum("nd,nd->n", points, points)
            known = products > 0
            products = np.where(known, products, 1.0)
            factors = np.where(known, energies / products, 0.0)
            tangents = np.sqrt(np.where(known, np.maximum(sizes * energies / products**2 - 1, 0.0), 0.0))
            codes[block, : self._bytes] = self._packed(numbers)
            factors = np.minimum(factors, np.finfo(np.float32).max)
            codes[block, self._bytes : -2] = factors.astype("<f4")[:, None].view(np.uint8)
            codes[block, -2:] = np.minimum(tangents, _STEEPEST).astype("<f2")[:, None].view(np.uint8)
        return codes

    def decode(self, codes: Codes) -> Vectors:
        points = (self._numbers(codes) - self._middle) * self._factors(codes)[:, None]
        turned = exact_product(points, np.ascontiguousarray(self._turn.T))
        return saturated(turned.astype(np.float64) + self._centre)

    def products(self, queries: Vectors, codes: Codes) -> Vectors:
        compiled = kernels()
        turned = exact_product(queries, self._turn)
        offsets = queries.astype(np.float64) @ self._centre.astype(np.float64)
        out = np.empty((len(queries), len(codes)), np.float32)
        if self.bits >= 4:
            columns = np.zeros((len(queries), self.size if self.bits == 8 else 2 * self._bytes), np.float32)
            columns[:, : self.size] = turned
            high, low, units = halves(columns)
            sums = self._middle * (256.0 * high.sum(axis=1, dtype=np.int64) + low.sum(axis=1, dtype=np.int64))
            given = (high, low, units, sums, offsets, self._bytes, self.bits == 4, codes, out)
            over_rows(compiled.products_of_points, len(codes), *given)
            return out
        units = np.maximum(np.abs(turned).max(axis=1, initial=0.0).astype(np.float64), 1e-300) / 127
        whole = np.rint(turned / units[:, None]).astype(np.int8)
        sums = self._middle * whole.sum(axis=1, dtype=np.int64)
        planes = _query_planes(whole, self._words)
        over_rows(compiled.products_of_planes, len(codes), planes, units, sums, offsets, self.bits, codes, out)
        return out

    def squared_norms(self, codes: Codes) -> Vectors:
        """|x|² = |c|² + 2 c·(x - c) + |x - c|², of which the last is known and the middle estimated."""
        centre = self._centre.astype(np.float64)
        lengths = self._lengths(codes)
        moved = (self.decode(codes) - self._centre).astype(np.float64)
        norms = centre @ centre + 2 * np.einsum("nd,d->n", moved, centre) + lengths**2
        return saturated(np.maximum(norms, 0.0))

    def errors(self, queries: Vectors, codes: Codes) -> Vectors:
        """|x - c| |q| tan / sqrt(d - 1) times epsilon: theorem 3.2 of Gao & Long 2024."""
        reach = self._lengths(codes) * self._tangents(codes) * (_EPSILON / np.sqrt(max(self.size - 1, 1)))
        norms = np.sqrt(np.einsum("bd,bd->b", queries, queries, dtype=np.float64))
        return np.asarray(norms[:, None] * reach[None], dtype=np.float32)

    def _factors(self, codes: Codes) -> Vectors:
        factors: Vectors = np.ascontiguousarray(codes[:, self._bytes : -2]).view("<f4")[:, 0]
        return factors

    def _tangents(self, codes: Codes) -> NDArray[np.float64]:
        return np.ascontiguousarray(codes[:, -2:]).view("<f2")[:, 0].astype(np.float64)

    def _lengths(self, codes: Codes) -> NDArray[np.float64]:
        """|x - c|: f |grid point| is longer than that by the cosine of the angle."""
        points = self._numbers(codes) - self._middle
        sizes = np.sqrt(np.einsum("nd,nd->n", points, points))
        lengths: NDArray[np.float64] = self._factors(codes) * sizes / np.sqrt(1 + self._tangents(codes) ** 2)
        return lengths

    def _packed(self, numbers: NDArray[np.uint8]) -> Codes:
        if self.bits == 8:
            return numbers
        if self.bits == 4:
            packed = numbers[:, : self._bytes].copy()
            packed[:, : self.size - self._bytes] |= numbers[:, self._bytes :] << 4
            return packed
        padded = np.zeros((len(numbers), 64 * self._words), np.uint8)
        padded[:, : self.size] = numbers
        return np.concatenate(
            [np.packbits((padded >> bit) & 1, axis=1, bitorder="little") for bit in range(self.bits)], axis=1
        )

    def _numbers(self, codes: Codes) -> NDArray[np.float64]:
        """(N, d): the grid's numbers, 0 … 2^bits - 1."""
        packed = codes[:, : self._bytes]
        if self.bits == 8:
            return packed.astype(np.float64)
        if self.bits == 4:
            return np.concatenate([packed & 15, packed >> 4], axis=1)[:, : self.size].astype(np.float64)
        numbers = np.zeros((len(codes), self.size))
        for bit, plane in enumerate(np.split(packed, self.bits, axis=1)):
            numbers += np.unpackbits(plane, axis=1, count=self.size, bitorder="little") * 2.0**bit
        return numbers


def _nearest_points(turned: Vectors, bits: int) -> NDArray[np.uint8]:
    """For each vector the numbers (N, d) of the grid point whose direction is nearest, among those of some spreads of the grid.

    One bit knows only signs. With more, a direction's grid point depends on how far the direction is stretched before it is
    rounded; Gao et al. pass over all stretches at which a number changes, which finds cosines larger by less than 1e-3.
    """
    if bits == 1:
        return (turned > 0).astype(np.uint8)
    spreads = np.linspace(1.0, 0.35 if bits > 2 else 0.2, _SPREADS).astype(np.float32)
    numbers = np.empty(turned.shape, np.uint8)
    kernels().encode_points(turned, bits, spreads, numbers, 0, len(turned))
    return numbers


def _query_planes(whole: NDArray[np.int8], words: int) -> NDArray[np.uint64]:
    """(B, W, 8): the bits of queries (B, d), 64 numbers to a word, in two's complement."""
    padded = np.zeros((len(whole), 64 * words), np.uint8)
    padded[:, : whole.shape[1]] = whole.view(np.uint8)
    planes = [np.packbits((padded >> bit) & 1, axis=1, bitorder="little").view("<u8") for bit in range(8)]
    return np.ascontiguousarray(np.stack(planes, axis=2))
