"""float8: a sign, four bits of exponent and three of mantissa (e4m3), or five and two (e5m2); OCP 8-bit floating point, 2023.

Plain casts waste e4m3 on unit vectors: of 384 numbers a quarter lie below its smallest normal one, 2^-6. So numbers are
multiplied first, by a power of two of each vector's own (nothing to fit, one byte more, any range), or by a factor for each
dimension, fitted to a sample. Rounded to nearest, ties to even; what is too large becomes the largest, 448 or 57,344.
"""

from __future__ import annotations

from typing import ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray

from vecdb.index.base import Vectors
from vecdb.index.codecs.base import Arrays, Codes, Plain, powers_of_two, saturated
from vecdb.index.codecs.compiled import kernels, kernels_for, over_rows

Kind = Literal["e4m3", "e5m2"]
_TARGETS = {"e4m3": 8, "e5m2": 15}  # powers of two that the largest number stays below
_HEADROOM = 4.0  # factors for dimensions leave room for numbers so many times the largest of the sample
_TINY = np.float32(2.0**-100)  # factors stay finite


class Float8(Plain):
    """scale: "vector" or "dimension", see above."""

    name: ClassVar[str] = "float8"

    def __init__(self, size: int, kind: Kind = "e4m3", scale: Literal["vector", "dimension"] = "vector") -> None:
        self.size = size
        self.kind: Kind = kind
        self.scale = scale
        self.width = size + (scale == "vector")
        self._factors: Vectors = np.ones(size, np.float32)
        self._table = float8_numbers(kind)

    @property
    def text(self) -> str:
        options = [self.kind] * (self.kind != "e4m3") + [self.scale] * (self.scale != "vector")
        return self.name + (":" + ",".join(options) if options else "")

    def fit(self, sample: Vectors, seed: int) -> Self:
        if self.scale == "vector":
            return self
        largest = np.abs(sample).max(axis=0, initial=0.0)
        # Powers of two: multiplying by them rounds nothing.
        powers = powers_of_two(np.maximum(largest, _TINY)[:, None] * np.float32(_HEADROOM), _TARGETS[self.kind])
        return self.with_arrays({"factors": np.ldexp(np.ones(self.size, np.float32), powers)})

    def arrays(self) -> Arrays:
        return {} if self.scale == "vector" else {"factors": self._factors}

    def with_arrays(self, arrays: Arrays) -> Self:
        if self.scale == "vector":
            return self
        made = type(self)(self.size, self.kind, self.scale)
        made._factors = np.asarray(arrays["factors"], np.float32)
        return made

    def encode(self, values: Vectors) -> Codes:
        codes = np.empty((len(values), self.width), np.uint8)
        compiled = kernels_for(len(values))
        if compiled is not None:
            kind = compiled.E4M3 if self.kind == "e4m3" else compiled.E5M2
            over_rows(compiled.encode_float8, len(values), values, self._factors, kind, self.width, codes)
            return codes
        with np.errstate(over="ignore"):  # infinity becomes the largest number, as all that is too large
            scaled = values * self._factors
        if self.scale == "vector":
            shifts = powers_of_two(scaled, _TARGETS[self.kind])
            codes[:, self.size] = shifts + 127
            scaled = np.ldexp(scaled, shifts[:, None])
        codes[:, : self.size] = as_float8(scaled, self.kind)
        return codes

    def decode(self, codes: Codes) -> Vectors:
        values = self._table[codes[:, : self.size]]
        if self.scale == "vector":
            return saturated(np.ldexp(values.astype(np.float64), 127 - codes[:, self.size :].astype(np.int32)))
        return saturated(values.astype(np.float64) / self._factors)

    def products(self, queries: Vectors, codes: Codes) -> Vectors:
        compiled = kernels()
        out = np.empty((len(queries), len(codes)), np.float32)
        kind = compiled.E4M3 if self.kind == "e4m3" else compiled.E5M2
        over_rows(compiled.products_of_float8, len(codes), queries / self._factors, codes, kind, out)
        return out


def as_float8(values: Vectors, kind: Kind) -> NDArray[np.uint8]:
    """values in float8, by their bits: normal numbers lose the end of their mantissa, smaller ones are counted in steps."""
    drop, base, most, least, steps = _LAYOUTS[kind]
    bits = np.ascontiguousarray(values).view(np.uint32)
    rest = bits & np.uint32(0x7FFFFFFF)
    half = np.uint32(1 << (drop - 1))
    normal = ((rest + half - np.uint32(1) + ((rest >> np.uint32(drop)) & np.uint32(1))) >> np.uint32(drop)) - base
    sizes = np.abs(values)
    small = np.rint(np.minimum(sizes, least) * steps).astype(np.uint32)
    code = np.where(sizes < least, small, np.minimum(normal, most))
    coded: NDArray[np.uint8] = (code | ((bits >> np.uint32(24)) & np.uint32(0x80))).astype(np.uint8)
    return coded


_LAYOUTS = {
    "e4m3": (20, np.uint32((127 - 7) << 3), np.uint32(0x7E), np.float32(2.0**-6), np.float32(2.0**9)),
    "e5m2": (21, np.uint32((127 - 15) << 2), np.uint32(0x7B), np.float32(2.0**-14), np.float32(2.0**16)),
}


def float8_numbers(kind: Kind) -> Vectors:
    """(256,): what each code stands for. Codes for infinity and NaN, which are never written, stand for the largest."""
    bits, bias, most = (3, 7, 0x7E) if kind == "e4m3" else (2, 15, 0x7B)
    codes = np.minimum(np.arange(256) & 0x7F, most)
    exponents, mantissas = codes >> bits, codes & ((1 << bits) - 1)
    steps = np.where(exponents > 0, mantissas + (1 << bits), mantissas)
    numbers = np.ldexp(steps.astype(np.float32), np.maximum(exponents, 1) - bias - bits)
    table: Vectors = np.where(np.arange(256) & 0x80, -numbers, numbers).astype(np.float32)
    return table
