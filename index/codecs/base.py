"""What a codec is made of: reducers, which turn a vector into fewer or other numbers, and a format, which makes bytes of these.

Both are values: `fit` returns a fitted one and changes nothing. What is encoded never depends on what else is encoded with
it: equal vectors become equal bytes, and equal bytes equal vectors, in any batch, with any BLAS and any number of threads.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from vecdb.errors import InvalidInput
from vecdb.index.base import Metric, Vectors

Codes = NDArray[np.uint8]
Arrays = Mapping[str, NDArray[Any]]

# So many vectors at a time: a block of them stays in the second-level cache.
BLOCK = 512
# Beyond this many, what a compiler saves is worth waiting for it; below, NumPy answers at once.
WORTH_COMPILING = 4_096


class Reducer(Protocol):
    """A linear map of vectors, from `size_in` numbers to `size`."""

    name: ClassVar[str]
    size: int

    @property
    def text(self) -> str:
        """As it stands in a codec's text: "pca:192"."""

    @property
    def overhead(self) -> int:
        """Bytes that it keeps once for all vectors."""

    def fit(self, sample: Vectors, metric: Metric, seed: int) -> Self:
        """Fitted to sample (N, D)."""

    def apply(self, vectors: Vectors) -> Vectors:
        """(N, D) -> (N, size)."""

    def restore(self, reduced: Vectors) -> Vectors:
        """(N, size) -> (N, D): the vectors that reduced ones stand for."""

    def aim(self, queries: Vectors) -> tuple[Vectors, Vectors]:
        """(B, size) and (B,): for each query q such (a, b) that q · restore(z) = a · z + b for every z."""

    def arrays(self) -> Arrays: ...

    def with_arrays(self, arrays: Arrays) -> Self: ...


class Format(Protocol):
    """How d numbers become `width` bytes. Bytes are decoded to numbers v; distances are those from v."""

    name: ClassVar[str]
    width: int

    @property
    def text(self) -> str:
        """As it stands in a codec's text: "int8:affine"."""

    @property
    def overhead(self) -> int:
        """Bytes that it keeps once for all vectors: codebooks, ranges."""

    def fit(self, sample: Vectors, seed: int) -> Self:
        """Fitted to sample (N, d)."""

    def encode(self, values: Vectors) -> Codes:
        """(N, d) finite float32 -> (N, width)."""

    def decode(self, codes: Codes) -> Vectors:
        """(N, width) -> (N, d) float32, finite."""

    def products(self, queries: Vectors, codes: Codes) -> Vectors:
        """(B, N): dot products of queries (B, d) with what codes stand for."""

    knows_norms: ClassVar[bool]

    def squared_norms(self, codes: Codes) -> Vectors:
        """(N,): |v|² where that is known better than by decoding: if `knows_norms`."""

    def errors(self, queries: Vectors, codes: Codes) -> Vectors | None:
        """(B, N): how far products are likely to be off at most; None where the format has no bound."""

    def arrays(self) -> Arrays: ...

    def with_arrays(self, arrays: Arrays) -> Self: ...


class Plain:
    """What most formats share."""

    knows_norms: ClassVar[bool] = False

    def squared_norms(self, codes: Codes) -> Vectors:
        raise NotImplementedError

    def errors(self, queries: Vectors, codes: Codes) -> Vectors | None:
        return None

    def arrays(self) -> Arrays:
        return {}

    @property
    def overhead(self) -> int:
        return sum(array.nbytes for array in self.arrays().values())


def blocks(count: int, size: int = BLOCK) -> Iterator[slice]:
    for start in range(0, count, size):
        yield slice(start, min(start + size, count))


def powers_of_two(values: NDArray[np.floating[Any]], target: int) -> NDArray[np.int32]:
    """(N,): e such that the largest number of each row times 2^e lies in [2^(target - 1), 2^target). 0 for rows of zeros; at
    most 126 either way, so that 2^e and 2^-e are float32 numbers.
    """
    _, exponents = np.frexp(np.abs(values).max(axis=1, initial=0.0))
    shifts: NDArray[np.int32] = np.clip(target - exponents, -126, 126).astype(np.int32)
    shifts[~values.any(axis=1)] = 0
    return shifts


def exact_product(vectors: NDArray[np.floating[Any]], matrix: NDArray[np.float32]) -> Vectors:
    """(N, D) @ (D, E) -> float32, the same for a vector in whatever batch it comes.

    matrix is what `on_grid` made. The numbers of each row are taken as whole ones in some power of two, of so few bits that every
    sum is exact in float64: then the order of summation, which BLAS chooses, does not matter.
    """
    bits = 53 - GRID_BITS - max(1, int(vectors.shape[1] - 1).bit_length())
    made = np.empty((len(vectors), matrix.shape[1]), np.float32)
    wide = matrix.astype(np.float64)
    for block in blocks(len(vectors), 4 * BLOCK):
        shifts = powers_of_two(vectors[block], min(bits, 24))[:, None]
        whole = np.rint(np.ldexp(vectors[block].astype(np.float64), shifts))
        made[block] = saturated(np.ldexp(whole @ wide, -shifts))
    return made


def saturated(wide: NDArray[np.float64]) -> Vectors:
    """float64 as float32; what is too large becomes the largest."""
    return np.clip(wide, -_LARGEST, _LARGEST).astype(np.float32)


GRID_BITS = 18
_LARGEST = float(np.finfo(np.float32).max)


def on_grid(matrix: NDArray[Any]) -> NDArray[np.float32]:
    """matrix in steps of 2^-18 (of numbers up to 1): fit for `exact_product`. float32 holds such numbers exactly."""
    return np.ldexp(np.rint(np.ldexp(matrix.astype(np.float64), GRID_BITS)), -GRID_BITS).astype(np.float32)


def unit(vectors: Vectors) -> Vectors:
    """(N, D) at unit length; zeros stay zeros. Each row alone: the same in any batch."""
    largest = np.abs(vectors).max(axis=1, initial=0.0).astype(np.float64)
    wide = vectors / np.where(largest > 0, largest, 1.0)[:, None]  # float64, and no square overflows or vanishes
    norms = np.sqrt(np.einsum("nd,nd->n", wide, wide))
    return np.asarray(wide / np.where(norms > 0, norms, 1.0)[:, None], dtype=np.float32)


def whole_number(text: str, what: str, least: int, most: int) -> int:
    """The number that stands in a codec's text. Raises InvalidInput."""
    if not text.isascii() or not text.isdigit() or not least <= int(text) <= most:
        raise InvalidInput(f"{what} is {text!r}; it must be a whole number from {least} to {most}")
    return int(text)
