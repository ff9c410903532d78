"""int8 and int4: evenly spaced levels for each dimension, between bounds fitted to a sample; beyond them numbers are cut off.

"affine" spreads the levels from the least to the largest number of a dimension, "symmetric" has zero as its middle level.
Distances are taken between whole numbers: a query is rounded to fifteen bits, so that two byte products make each.
"""

from __future__ import annotations

from typing import ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray

from vecdb.index.base import Vectors
from vecdb.index.codecs.base import Arrays, Codes, Plain
from vecdb.index.codecs.compiled import kernels, kernels_for, over_rows

_FINEST = 127 * 256  # whole numbers that a query is rounded to, either way
_FARTHEST = 2.0**126  # bounds between which every level is a float32 number
_SMALLEST_STEP = 1e-30  # a dimension that never changes has a step all the same


class Levels(Plain):
    """int8."""

    name: ClassVar[str] = "int8"
    _levels: ClassVar[int] = 256

    def __init__(self, size: int, ranges: Literal["affine", "symmetric"] = "affine") -> None:
        self.size = size
        self.ranges = ranges
        self.width = size
        self._lows: Vectors = np.zeros(size, np.float32)
        self._steps: Vectors = np.ones(size, np.float32)

    @property
    def text(self) -> str:
        return self.name if self.ranges == "affine" else f"{self.name}:{self.ranges}"

    def fit(self, sample: Vectors, seed: int) -> Self:
        """The bounds are the extremes of the sample: cutting off a thousandth costs more than finer levels give back."""
        low = np.clip(sample.min(axis=0).astype(np.float64), -_FARTHEST, _FARTHEST)
        high = np.clip(sample.max(axis=0).astype(np.float64), -_FARTHEST, _FARTHEST)
        if self.ranges == "symmetric":  # an odd number of levels, so that zero is one of them
            largest = np.maximum(np.abs(low), np.abs(high))
            steps = np.maximum(2 * largest / (self._levels - 2), _SMALLEST_STEP)
            low = -steps * (self._levels // 2)
        else:
            steps = np.maximum((high - low) / (self._levels - 1), _SMALLEST_STEP)
        return self.with_arrays({"lows": low.astype(np.float32), "steps": steps.astype(np.float32)})

    def arrays(self) -> Arrays:
        return {"lows": self._lows, "steps": self._steps}

    def with_arrays(self, arrays: Arrays) -> Self:
        made = type(self)(self.size, self.ranges)
        made._lows, made._steps = (np.asarray(arrays[name], np.float32) for name in ("lows", "steps"))
        return made

    @property
    def _inverses(self) -> Vectors:
        return np.float32(1.0) / self._steps

    def encode(self, values: Vectors) -> Codes:
        compiled = kernels_for(len(values))
        if compiled is None:
            return self._numbered(values)
        codes = np.empty((len(values), self.width), np.uint8)
        given = (values, self._lows, self._inverses, self._levels - 1, codes)
        over_rows(compiled.encode_levels, len(values), *given)
        return codes

    def decode(self, codes: Codes) -> Vectors:
        return self._lows + codes.astype(np.float32) * self._steps

    def products(self, queries: Vectors, codes: Codes) -> Vectors:
        return self._products(queries, codes, queries * self._steps, pairs=False)

    def _numbered(self, values: Vectors) -> Codes:
        """(N, D): the level of each number."""
        with np.errstate(over="ignore"):  # too far away is cut off like any other
            levels = np.rint((values - self._lows) * self._inverses)
        numbered: Codes = np.clip(levels, 0, self._levels - 1).astype(np.uint8)
        return numbered

    def _products(self, queries: Vectors, codes: Codes, worths: Vectors, *, pairs: bool) -> Vectors:
        high, low, units = halves(worths)
        offsets = queries.astype(np.float64) @ self._lows.astype(np.float64)
        out = np.empty((len(queries), len(codes)), np.float32)
        compiled = kernels()
        over_rows(compiled.products_of_levels, len(codes), high, low, units, offsets, codes, pairs, out)
        return out


class Pairs(Levels):
    """int4: two numbers to a byte, those of the first half of the dimensions in the low halves."""

    name: ClassVar[str] = "int4"
    _levels: ClassVar[int] = 16

    def __init__(self, size: int, ranges: Literal["affine", "symmetric"] = "affine") -> None:
        super().__init__(size, ranges)
        self.width = -(-size // 2)

    def encode(self, values: Vectors) -> Codes:
        compiled = kernels_for(len(values))
        if compiled is None:
            numbers = self._numbered(values)
            codes = numbers[:, : self.width].copy()
            codes[:, : self.size - self.width] |= numbers[:, self.width :] << 4
            return codes
        codes = np.empty((len(values), self.width), np.uint8)
        given = (values, self._lows, self._inverses, self._levels - 1, codes)
        over_rows(compiled.encode_pairs, len(values), *given)
        return codes

    def decode(self, codes: Codes) -> Vectors:
        numbers = np.concatenate([codes & 15, codes >> 4], axis=1)[:, : self.size]
        return super().decode(numbers)

    def products(self, queries: Vectors, codes: Codes) -> Vectors:
        worths = np.zeros((len(queries), 2 * self.width), np.float32)  # an odd number of dimensions leaves a half empty
        worths[:, : self.size] = queries * self._steps
        return self._products(queries, codes, worths, pairs=True)


def halves(values: Vectors) -> tuple[NDArray[np.int8], NDArray[np.int8], NDArray[np.float64]]:
    """values (B, D) as whole numbers of fifteen bits: 256 * high + low of one unit (B,) each."""
    units = np.maximum(np.abs(values).max(axis=1, initial=0.0).astype(np.float64), 1e-300) / _FINEST
    whole = np.rint(values / units[:, None]).astype(np.int32)
    high = (whole + 128) >> 8
    return high.astype(np.int8), (whole - 256 * high).astype(np.int8), units
