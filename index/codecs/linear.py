"""Fewer dimensions, or turned ones: principal components, random directions, the first numbers of a Matryoshka vector.

Directions are orthonormal, so what is lost is what lies outside them. Principal components are those of the second moment, not of
the covariance, unless the metric is l2: centring moves dot products by what depends on the document, and cost 0.1 of recall on
text where distances were taken between centred vectors; under l2 it is harmless, and catches more.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray

from vecdb.errors import InvalidInput
from vecdb.index.base import Metric, Vectors
from vecdb.index.codecs.base import Arrays, blocks, exact_product, on_grid, saturated

_PASSES = 4  # of the randomised method over the data: the fourth changes the caught variance by less than a thousandth
_SPARE = 10  # directions more than wanted, Halko, Martinsson & Tropp 2011, section 4.2
_ROWS_AT_ONCE = 8_192
# In an eigenvalue problem of this size the exact method takes a minute; the randomised one does not square the dimension.
_LARGEST_EXACT = 4_096
_LEAST_SCALE = 1e-6  # of the largest: whitening blows nothing up by more than a million
Matrix = NDArray[np.float64]
Moment = Callable[[Vectors, Vectors], Matrix]


class Linear:
    """z = (x - mean) @ basis / scales. mean is zero but for principal components under l2, scales are one but for whitening."""

    name: ClassVar[str]

    def __init__(self, size_in: int, size: int) -> None:
        if size > size_in:
            raise InvalidInput(f"{self.name}:{size} keeps more numbers than the {size_in} there are; ask for fewer")
        self.size_in, self.size = size_in, size
        self._mean: Vectors = np.zeros(size_in, np.float32)
        self._basis: Vectors = np.zeros((0, 0), np.float32)  # until it is fitted
        self._scales: Vectors = np.ones(size, np.float32)

    @property
    def text(self) -> str:
        return f"{self.name}:{self.size}"

    @property
    def overhead(self) -> int:
        return sum(array.nbytes for array in self.arrays().values())

    def arrays(self) -> Arrays:
        return {"mean": self._mean, "basis": self._basis, "scales": self._scales}

    def with_arrays(self, arrays: Arrays) -> Self:
        made = self._like()
        made._mean, made._basis, made._scales = (
            np.ascontiguousarray(arrays[name], np.float32) for name in ("mean", "basis", "scales")
        )
        return made

    def _like(self) -> Self:
        return type(self)(self.size_in, self.size)

    def _fitted(self, basis: NDArray[np.floating], mean: Vectors | None = None, scales: Vectors | None = None) -> Self:
        return self.with_arrays(
            {
                "basis": on_grid(basis),
                "mean": self._mean if mean is None else mean,
                "scales": self._scales if scales is None else scales,
            }
        )

    def fit(self, sample: Vectors, metric: Metric, seed: int) -> Self:
        raise NotImplementedError

    def apply(self, vectors: Vectors) -> Vectors:
        reduced = exact_product(vectors.astype(np.float64) - self._mean, self._basis)
        return saturated(reduced / self._scales.astype(np.float64))

    def restore(self, reduced: Vectors) -> Vectors:
        wide = exact_product(reduced.astype(np.float64) * self._scales, np.ascontiguousarray(self._basis.T))
        return saturated(wide.astype(np.float64) + self._mean)

    def aim(self, queries: Vectors) -> tuple[Vectors, Vectors]:
        return exact_product(queries, self._basis) * self._scales, queries @ self._mean


class Pca(Linear):
    """The directions in which a sample varies most. whiten: each at unit variance (which distances then undo).

    method: "exact" adds up the second moment, "randomised" projects the sample (Halko, Martinsson & Tropp 2011, algorithm 4.4
    without its transform); both read it in blocks, so that it may be a memory map larger than memory. "auto" takes the first
    up to 4,096 dimensions.
    """

    name: ClassVar[str] = "pca"

    def __init__(
        self, size_in: int, size: int, *, whiten: bool = False, method: Literal["auto", "exact", "randomised"] = "auto"
    ) -> None:
        super().__init__(size_in, size)
        self.whiten, self.method = whiten, method

    @property
    def text(self) -> str:
        options = ["whiten"] * self.whiten + [self.method] * (self.method != "auto")
        return ",".join([f"{self.name}:{self.size}", *options])

    def _like(self) -> Self:
        return type(self)(self.size_in, self.size, whiten=self.whiten, method=self.method)

    def fit(self, sample: Vectors, metric: Metric, seed: int, *, moment: Moment | None = None) -> Self:
        """moment: what takes the place of `second_moment` in the exact method."""
        mean = np.zeros(self.size_in, np.float32)
        if metric == "l2":
            total = np.zeros(self.size_in)
            for block in blocks(len(sample), _ROWS_AT_ONCE):
                total += sample[block].sum(axis=0, dtype=np.float64)
            mean = (total / len(sample)).astype(np.float32)
        randomised = self.method == "randomised" or (self.method == "auto" and self.size_in > _LARGEST_EXACT)
        if randomised:
            powers, basis = _randomised(sample, mean, self.size, seed)
        else:
            powers, basis = _exact((moment or second_moment)(sample, mean), self.size)
        scales: Vectors | None = None
        if self.whiten:
            deviations = np.sqrt(np.maximum(powers, 0.0) / len(sample))
            least = max(float(deviations.max(initial=0.0)) * _LEAST_SCALE, float(np.finfo(np.float32).tiny))
            scales = np.maximum(deviations, least).astype(np.float32)
        return self._fitted(basis, mean, scales)


class RandomProjection(Linear):
    """Random orthonormal directions: what principal components must beat."""

    name: ClassVar[str] = "random"

    def fit(self, sample: Vectors, metric: Metric, seed: int) -> Self:
        return self._fitted(random_turn(self.size_in, self.size, seed))


class Rotation(RandomProjection):
    """A random turn: no direction is special any more."""

    name: ClassVar[str] = "rotate"

    def __init__(self, size_in: int, size: int | None = None) -> None:
        super().__init__(size_in, size_in)

    @property
    def text(self) -> str:
        return self.name


class Truncation(Linear):
    """The first numbers: models trained for it (Matryoshka, Kusupati et al. 2022) put what matters most there."""

    name: ClassVar[str] = "truncate"

    def arrays(self) -> Arrays:
        return {}

    def with_arrays(self, arrays: Arrays) -> Self:
        return self

    def fit(self, sample: Vectors, metric: Metric, seed: int) -> Self:
        return self

    def apply(self, vectors: Vectors) -> Vectors:
        return np.ascontiguousarray(vectors[:, : self.size])

    def restore(self, reduced: Vectors) -> Vectors:
        restored = np.zeros((len(reduced), self.size_in), np.float32)
        restored[:, : self.size] = reduced
        return restored

    def aim(self, queries: Vectors) -> tuple[Vectors, Vectors]:
        return self.apply(queries), np.zeros(len(queries), np.float32)


def random_turn(size_in: int, size: int, seed: int) -> Matrix:
    """(D, d) orthonormal columns, uniform among such."""
    gaussian = np.random.default_rng([seed, size_in, size]).standard_normal((size_in, size))
    basis, triangle = np.linalg.qr(gaussian)
    turned: Matrix = basis * np.where(np.diag(triangle) < 0, -1.0, 1.0)
    return turned


def second_moment(sample: Vectors, mean: Vectors) -> Matrix:
    """(D, D): the sum of (x - mean) (x - mean)^T, block by block."""
    moment = np.zeros((sample.shape[1], sample.shape[1]))
    for block in blocks(len(sample), _ROWS_AT_ONCE):
        moved = sample[block].astype(np.float64) - mean
        moment += moved.T @ moved
    return moment


def _exact(moment: Matrix, size: int) -> tuple[Matrix, Matrix]:
    """The largest eigenvalues (d,) of a second moment (D, D) and their directions (D, d), largest first."""
    powers, directions = np.linalg.eigh(moment)
    return powers[::-1][:size], _signed(directions[:, ::-1][:, :size])


def _randomised(sample: Vectors, mean: Vectors, size: int, seed: int) -> tuple[Matrix, Matrix]:
    """The same by subspace iteration from random directions: only D x (d + 10) numbers are in memory."""
    width = min(size + _SPARE, sample.shape[1])
    basis = random_turn(sample.shape[1], width, seed)
    for _ in range(_PASSES):
        image = np.zeros_like(basis)
        for block in blocks(len(sample), _ROWS_AT_ONCE):
            moved = sample[block].astype(np.float64) - mean
            image += moved.T @ (moved @ basis)
        basis, _ = np.linalg.qr(image)
    # Within the subspace: the eigenvectors of its own second moment.
    small = np.zeros((width, width))
    for block in blocks(len(sample), _ROWS_AT_ONCE):
        projected = (sample[block].astype(np.float64) - mean) @ basis
        small += projected.T @ projected
    powers, turn = np.linalg.eigh(small)
    return powers[::-1][:size], _signed(basis @ turn[:, ::-1][:, :size])


def _signed(directions: Matrix) -> Matrix:
    """Each column with its largest number positive: a solver may return either sign."""
    largest = np.abs(directions).argmax(axis=0)
    signs = np.where(directions[largest, np.arange(directions.shape[1])] < 0, -1.0, 1.0)
    signed: Matrix = directions * signs
    return signed
