"""RaBitQ: directions in one to eight bits a number, with an unbiased estimate of products and a bound on its error.

Gao & Long 2024 (one bit), Gao et al. 2025 (more). The way from the mean is cut in two: the coordinate along the mean's own
direction is kept as a number, and the rest is turned at random and coded, by the grid point with the smallest angle to it.
(Only a rest of the query meets a rest of the vector, so that the error is less than with the mean taken off the vectors alone;
the paper takes it off both, and keeps the product of vector and mean for that.) Behind the bits of a row stand three float16:
a factor f, by which products with the grid point are multiplied to be right on the mean, the coordinate, and the tangent of the
angle, which gives the rest's length and the bound. f and coordinate are in units fitted to the sample; 65,504 of them are the
largest. Numbers of one and two bits are kept a bit of each at a time (see simd.dot_planes), four bits two to a byte.
"""

from __future__ import annotations

from typing import ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from vecdb.index.base import Vectors
from vecdb.index.codecs.base import Arrays, Codes, blocks, saturated
from vecdb.index.codecs.compiled import kernels, over_rows
from vecdb.index.codecs.levels import halves
from vecdb.index.codecs.turning import Signs, Wide, random_signs, turned, turned_back

_TAIL = 6  # bytes of factor, coordinate and tangent
_LARGEST_HALF = 65_504.0
_HALF_STEP = 2.0**-11  # how far a float16 is off at most, relative
_STEEPEST = 1e4  # tangent: a vector at a right angle to its code
_SPREADS = 24  # grids tried for each vector
_ROWS = 128  # encoded at once: float64 numbers of so many stay in the second-level cache
_EPSILON = (
    1.9  # standard deviations of the bound (Gao & Long 2024, section 5.2.4): three estimates in a hundred are below
)


class RaBitQ:
    """bits: 1, 2, 4 or 8 for each number."""

    name: ClassVar[str] = "rabitq"
    knows_norms: ClassVar[bool] = True

    def __init__(self, size: int, bits: int) -> None:
        self.size, self.bits = size, bits
        self._words = -(-size // 64)
        self._bytes = {8: size, 4: -(-size // 2)}.get(bits, 8 * self._words * bits)
        self.width = self._bytes + _TAIL
        self._centre: Vectors = np.zeros(size, np.float32)
        self._signs: Signs = np.ones((0, 0), np.int8)  # until it is fitted
        self._scales: Wide = np.ones(2)  # units of factors and coordinates

    @property
    def text(self) -> str:
        return f"{self.name}:{self.bits}"

    @property
    def overhead(self) -> int:
        return sum(array.nbytes for array in self.arrays().values())

    def fit(self, sample: Vectors, seed: int) -> Self:
        mean = (np.einsum("nd->d", sample, dtype=np.float64) / len(sample)).astype(np.float32)
        moved = sample.astype(np.float64) - mean
        spread = np.sqrt(np.einsum("nd,nd->", moved, moved) / len(sample))
        unit = max(float(spread), 1e-30)
        scales = np.array([unit / 2**self.bits, unit])
        return self.with_arrays({"centre": mean, "signs": random_signs(self.size, seed), "scales": scales})

    def arrays(self) -> Arrays:
        return {"centre": self._centre, "signs": self._signs, "scales": self._scales}

    def with_arrays(self, arrays: Arrays) -> Self:
        made = type(self)(self.size, self.bits)
        made._centre = np.ascontiguousarray(arrays["centre"], np.float32)
        made._signs = np.ascontiguousarray(arrays["signs"], np.int8)
        made._scales = np.ascontiguousarray(arrays["scales"], np.float64)
        return made

    @property
    def _along(self) -> Wide:
        """(d,): the mean's direction; zeros if it has none."""
        wide = self._centre.astype(np.float64)
        length = np.sqrt(np.einsum("d,d->", wide, wide))
        return wide / length if length > 0 else wide

    def _parted(self, values: Wide) -> tuple[Wide, Wide]:
        """values (N, d) as coordinates (N,) along the mean, and what is left, turned (N, d)."""
        along = self._along
        coordinates: Wide = np.einsum("nd,d->n", values, along)
        return coordinates, turned(values - coordinates[:, None] * along, self._signs)

    @property
    def _middle(self) -> float:
        return float((1 << self.bits) - 1) / 2

    def encode(self, values: Vectors) -> Codes:
        codes = np.empty((len(values), self.width), np.uint8)
        for block in blocks(len(values), _ROWS):
            coordinates, rest = self._parted(values[block].astype(np.float64) - self._centre)
            rest = saturated(rest).astype(np.float64)
            numbers = _nearest_points(rest.astype(np.float32), self.bits)
            points = numbers - self._middle
            products = np.einsum("nd,nd->n", points, rest)
            energies = np.einsum("nd,nd->n", rest, rest)
            sizes = np.einsum("nd,nd->n", points, points)
            known = products > 0
            products = np.where(known, products, 1.0)
            factors = np.where(known, energies / products, 0.0)
            tangents = np.sqrt(np.where(known, np.maximum(sizes * energies / products**2 - 1, 0.0), 0.0))
            codes[block, : self._bytes] = self._packed(numbers)
            kept = factors / self._scales[0], coordinates / self._scales[1], np.minimum(tangents, _STEEPEST)
            tail = np.stack(kept, axis=1).clip(-_LARGEST_HALF, _LARGEST_HALF).astype("<f2")
            codes[block, self._bytes :] = tail.view(np.uint8)
        return codes

    def decode(self, codes: Codes) -> Vectors:
        factors, coordinates, _ = self._tails(codes)
        rest = turned_back((self._numbers(codes) - self._middle) * factors[:, None], self._signs)
        along = self._along
        coordinates = coordinates - np.einsum(
            "nd,d->n", rest, along
        )  # what rounding has put there is known to be wrong
        return saturated(rest + coordinates[:, None] * along + self._centre)

    def products(self, queries: Vectors, codes: Codes) -> Vectors:
        compiled = kernels()
        wide = queries.astype(np.float64)
        along, rest = self._parted(wide)
        turned_queries = saturated(rest)
        offsets = wide @ self._centre.astype(np.float64)
        out = np.empty((len(queries), len(codes)), np.float32)
        if self.bits == 8:
            high, low, units = halves(turned_queries)
            sums = self._middle * (256.0 * high.sum(axis=1, dtype=np.int64) + low.sum(axis=1, dtype=np.int64))
            given = (high, low, units, sums, offsets, along, self._bytes, False, self._scales, codes, out)
            over_rows(compiled.products_of_points, len(codes), *given)
            return out
        # Codes of four bits are off by eight times what eight bits of the query leave.
        units = np.maximum(np.abs(turned_queries).max(axis=1, initial=0.0).astype(np.float64), 1e-300) / 127
        whole = np.rint(turned_queries / units[:, None]).astype(np.int8)
        sums = self._middle * whole.sum(axis=1, dtype=np.int64)
        if self.bits == 4:
            pairs = np.zeros((len(queries), 2 * self._bytes), np.int8)
            pairs[:, : self.size] = whole
            given = (pairs, pairs, units, sums, offsets, along, self._bytes, True, self._scales, codes, out)
            over_rows(compiled.products_of_points, len(codes), *given)
            return out
        by_planes = (
            _query_planes(whole, self._words),
            units,
            sums,
            offsets,
            along,
            self.bits,
            self._scales,
            codes,
            out,
        )
        over_rows(compiled.products_of_planes, len(codes), *by_planes)
        return out

    def squared_norms(self, codes: Codes) -> Vectors:
        """|x|²: of what lies along the mean, and of the rest, which is at a right angle to it."""
        _, coordinates, _ = self._tails(codes)
        centre = self._centre.astype(np.float64)
        along = np.sqrt(np.einsum("d,d->", centre, centre)) + coordinates
        return saturated(along**2 + self._lengths(codes) ** 2)

    def errors(self, queries: Vectors, codes: Codes) -> Vectors:
        """|x'| |q'| tan / sqrt(d - 1) times epsilon, x' and q' being the rests: theorem 3.2 of Gao & Long 2024; and what rounding
        of factor and coordinate adds at most.
        """
        _, coordinates, tangents = self._tails(codes)
        wide = queries.astype(np.float64)
        along = np.einsum("bd,d->b", wide, self._along)
        rests = np.sqrt(np.maximum(np.einsum("bd,bd->b", wide, wide) - along**2, 0.0))
        steep = tangents * (_EPSILON / np.sqrt(max(self.size - 1, 1))) + _HALF_STEP
        reach = rests[:, None] * (self._lengths(codes) * steep)[None]
        reach += np.abs(along)[:, None] * (_HALF_STEP * np.abs(coordinates))[None]
        return np.asarray(reach, dtype=np.float32)

    def _tails(self, codes: Codes) -> tuple[Wide, Wide, Wide]:
        """Factors, coordinates and tangents, (N,) each."""
        tail = np.ascontiguousarray(codes[:, self._bytes :]).view("<f2").astype(np.float64)
        return tail[:, 0] * self._scales[0], tail[:, 1] * self._scales[1], tail[:, 2]

    def _lengths(self, codes: Codes) -> Wide:
        """Of what is coded: f |grid point| is longer than that by the cosine of the angle."""
        points = self._numbers(codes) - self._middle
        sizes = np.sqrt(np.einsum("nd,nd->n", points, points))
        factors, _, tangents = self._tails(codes)
        lengths: Wide = factors * sizes / np.sqrt(1 + tangents**2)
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
