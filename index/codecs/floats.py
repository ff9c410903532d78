"""Numbers as they are, or in 16 bits: float32, float16, bfloat16. Nothing is fitted; what is too large becomes the largest."""

from __future__ import annotations

from typing import ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from vecdb.index.base import Vectors
from vecdb.index.codecs.base import Arrays, Codes, Plain
from vecdb.index.codecs.compiled import kernels, kernels_for, over_rows

_LARGEST_HALF = np.float32(65504.0)


class Float32(Plain):
    """Four bytes a number, little-endian: the layout that sqlite-vec reads."""

    name: ClassVar[str] = "float32"
    _bytes: ClassVar[int] = 4

    def __init__(self, size: int) -> None:
        self.size = size
        self.width = self._bytes * size

    @property
    def text(self) -> str:
        return self.name

    def fit(self, sample: Vectors, seed: int) -> Self:
        return self

    def with_arrays(self, arrays: Arrays) -> Self:
        return self

    def encode(self, values: Vectors) -> Codes:
        return np.ascontiguousarray(values, "<f4").view(np.uint8)

    def decode(self, codes: Codes) -> Vectors:
        return np.ascontiguousarray(codes).view("<f4").astype(np.float32)

    def products(self, queries: Vectors, codes: Codes) -> Vectors:
        out = np.empty((len(queries), len(codes)), np.float32)
        over_rows(kernels().products_of_floats, len(codes), queries, codes.view(np.float32), 0, out)
        return out


class Float16(Float32):
    """IEEE's half: 11 bits of precision, largest 65,504."""

    name: ClassVar[str] = "float16"
    _bytes: ClassVar[int] = 2

    def encode(self, values: Vectors) -> Codes:
        compiled = kernels_for(len(values))
        if compiled is None:
            return np.clip(values, -_LARGEST_HALF, _LARGEST_HALF).astype("<f2").view(np.uint8)
        words = np.empty(values.shape, np.uint16)  # NumPy takes four times as long
        over_rows(compiled.encode_halves, len(values), values, words)
        return words.astype("<u2", copy=False).view(np.uint8)

    def decode(self, codes: Codes) -> Vectors:
        return np.ascontiguousarray(codes).view("<f2").astype(np.float32)

    def products(self, queries: Vectors, codes: Codes) -> Vectors:
        return _products(queries, codes, kernels().HALVES)


class BFloat16(Float32):
    """The upper half of a float32: its range, and 8 bits of precision."""

    name: ClassVar[str] = "bfloat16"
    _bytes: ClassVar[int] = 2

    def encode(self, values: Vectors) -> Codes:
        words = np.empty(values.shape, np.uint16)
        compiled = kernels_for(len(values))
        if compiled is not None:
            over_rows(compiled.encode_bfloats, len(values), values, words)
        else:
            words[:] = as_bfloats(values)
        return words.astype("<u2", copy=False).view(np.uint8)

    def decode(self, codes: Codes) -> Vectors:
        words = np.ascontiguousarray(codes).view("<u2").astype(np.uint32)
        return (words << np.uint32(16)).view(np.float32)

    def products(self, queries: Vectors, codes: Codes) -> Vectors:
        return _products(queries, codes, kernels().BFLOATS)


def as_bfloats(values: Vectors) -> NDArray[np.uint16]:
    """Rounded to nearest, ties to even; what would round to infinity becomes the largest."""
    bits = values.view(np.uint32)
    rest = bits & np.uint32(0x7FFFFFFF)
    rounded = (rest + np.uint32(0x7FFF) + ((rest >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)
    sign = (bits >> np.uint32(16)) & np.uint32(0x8000)
    words: NDArray[np.uint16] = (np.minimum(rounded, np.uint32(0x7F7F)) | sign).astype(np.uint16)
    return words


def _products(queries: Vectors, codes: Codes, kind: int) -> Vectors:
    out = np.empty((len(queries), len(codes)), np.float32)
    over_rows(kernels().products_of_words, len(codes), queries, codes.view(np.uint16), kind, out)
    return out
