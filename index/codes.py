"""What a walk reads instead of vectors: a byte for each dimension, and a line of 64 bytes that sketches the whole.

Everything is fitted to a sample of the data and then frozen with the graph. The arithmetic is exact where it matters (whole
numbers in float64 sum to the same in any order), so that the same vectors give the same bytes with any number of threads.

- Codes: (vector - centre) * scale, rounded to one byte; one scale for all dimensions, because the distance between codes is
  then the distance between vectors but for the rounding. The clipping point is the one of least squared error.
- Directions: those in which the codes vary most (principal components, by orthogonal iteration), turned among themselves at
  random, so that each holds about as much as any other and one step of four bits suits all.
- The estimate of a code distance is linear in what node and probe know on their own (energy in all dimensions, energy along
  the directions) and in the product of their coordinates. Its weights are a least-squares fit over near pairs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vecdb.index import kernels
from vecdb.index.base import Metric, Vectors
from vecdb.index.growth import frozen
from vecdb.index.kernels import Coding
from vecdb.index.simd import LINE, padded

SAMPLE = 8192  # vectors that a coding is fitted to
_PROBES = 256  # of the sample, for fitting the estimate: each with its so many nearest
_NEAREST = 32
_CLIPS = (1.0, 0.9999, 0.999)  # quantiles of |vector - centre| that may become the largest code
_LARGEST = 127
_ROUNDS = 8  # of orthogonal iteration: more change the share of variance that is caught by less than a thousandth
_SLACK = 3.0  # standard deviations of the code distance
Numbers = NDArray[np.float64]


def fit(vectors: Vectors, metric: Metric, seed: int) -> Coding:
    """The coding that suits vectors (N, D), by an even sample of them."""
    sample = np.ascontiguousarray(vectors[:: max(1, -(-len(vectors) // SAMPLE))])
    coding = _fit_scale(sample, metric)
    if len(sample) == 0:
        return coding
    codes = np.empty((len(sample), padded(sample.shape[1])), np.uint8)
    lines = np.empty((len(sample), line_width(sample.shape[1])), np.uint8)
    write_codes(sample, coding, metric, codes, lines, 0, len(sample))
    numbers = codes[:, : sample.shape[1]].astype(np.float64) - kernels.MIDDLE
    probes = np.arange(0, len(sample), max(1, len(sample) // _PROBES))
    nearest, distances = _near_pairs(numbers, probes, metric)
    if nearest.shape[1] == 0:
        return coding
    coding = coding._replace(slack=_fit_slack(sample, probes, nearest, distances, coding, metric))
    return _fit_lines(codes, numbers, probes, nearest, distances, coding, seed)


def line_width(dimension: int) -> int:
    """Bytes in a line: two cache lines hold 232 coordinates, one 104."""
    return LINE if dimension <= 2 * LINE else 2 * LINE


def write_codes(
    vectors: Vectors,
    coding: Coding,
    metric: Metric,
    codes: NDArray[np.uint8],
    lines: NDArray[np.uint8],
    start: int,
    stop: int,
) -> None:
    """Codes and lines of vectors[start:stop], into the same rows."""
    kernels.encode(vectors, start, stop, coding, kernels.METRIC_CODES[metric], codes, lines, lines.view(np.int32))


def as_arrays(coding: Coding) -> dict[str, NDArray[Any]]:
    """What `from_arrays` makes the coding of again."""
    scalars = [float(value) for value in coding if not isinstance(value, np.ndarray)]
    return {
        "coding.centre": coding.centre,
        "coding.basis": coding.basis,
        "coding.offsets": coding.offsets,
        "coding.scalars": np.array(scalars, np.float64),
    }


def from_arrays(arrays: Mapping[str, NDArray[Any]]) -> Coding:
    scale, *rest = np.asarray(arrays["coding.scalars"], np.float64).tolist()
    norm_weight, energy_weight, product_weight, origin, slack = rest
    return Coding(
        frozen(np.ascontiguousarray(arrays["coding.centre"], np.float32)),
        np.float32(scale),
        frozen(np.ascontiguousarray(arrays["coding.basis"], np.uint8)),
        frozen(np.ascontiguousarray(arrays["coding.offsets"], np.int32)),
        norm_weight,
        energy_weight,
        product_weight,
        origin,
        int(slack),
    )


def _fit_scale(sample: Vectors, metric: Metric) -> Coding:
    """Centre and scale. The inner product is not the same from another origin, so there the centre is zero."""
    dimension = sample.shape[1]
    centres = [np.zeros(dimension, np.float32)]
    if metric != "ip" and len(sample):
        low, high = float(sample.min()), float(sample.max())
        centres = [
            np.full(dimension, np.float32((low + high) / 2)),
            np.einsum("nd->d", sample, dtype=np.float64).astype(np.float32) / np.float32(len(sample)),
        ]
    best, least = (centres[0], np.float32(1.0)), np.inf
    for centre in centres:
        moved = sample - centre
        sizes = np.abs(moved).ravel()
        for reach in np.quantile(sizes, _CLIPS) if len(sizes) else []:
            if reach <= 0:
                continue
            scale = np.float32(_LARGEST / reach)
            rounded = np.clip(np.rint(moved * scale), -_LARGEST, _LARGEST) / scale
            error = float(np.einsum("nd,nd->", rounded - moved, rounded - moved, dtype=np.float64))
            if error < least:
                best, least = (centre, scale), error
    centre, scale = best
    basis, offsets = np.empty((0, padded(dimension)), np.uint8), np.empty(0, np.int32)
    return Coding(frozen(centre), scale, frozen(basis), frozen(offsets), 0.0, 0.0, 0.0, 0.0, 0)


def _near_pairs(numbers: Numbers, probes: NDArray[np.int64], metric: Metric) -> tuple[NDArray[np.int64], Numbers]:
    """For each of probes (P,) its nearest others (P, n) in code distance, and these distances."""
    products = numbers[probes] @ numbers.T  # whole numbers: exact in any order
    distances = -2.0 * products
    if metric != "ip":
        energies = np.einsum("nd,nd->n", numbers, numbers)
        distances += energies + energies[probes, None]
    distances[np.arange(len(probes)), probes] = np.inf
    count = min(_NEAREST, len(numbers) - 1)
    order = np.argsort(distances, axis=1, kind="stable")[:, :count]
    return order, np.take_along_axis(distances, order, axis=1)


def _fit_slack(
    sample: Vectors,
    probes: NDArray[np.int64],
    nearest: NDArray[np.int64],
    distances: Numbers,
    coding: Coding,
    metric: Metric,
) -> int:
    """How far code distances stray from distances."""
    exact = sample.astype(np.float64) * float(coding.scale)
    true = np.empty_like(distances)
    for i, probe in enumerate(probes):
        if metric == "ip":
            true[i] = -2.0 * np.einsum("nd,d->n", exact[nearest[i]], exact[probe])
        else:
            difference = exact[nearest[i]] - exact[probe]
            true[i] = np.einsum("nd,nd->n", difference, difference)
    return int(np.ceil(_SLACK * np.std(distances - true)))


def _fit_lines(
    codes: NDArray[np.uint8],
    numbers: Numbers,
    probes: NDArray[np.int64],
    nearest: NDArray[np.int64],
    distances: Numbers,
    coding: Coding,
    seed: int,
) -> Coding:
    """Directions, steps, and the weights of the estimate."""
    basis = _directions(numbers, seed)
    coding = coding._replace(
        basis=frozen(_as_codes(basis, codes.shape[1])), offsets=frozen(np.zeros(len(basis), np.int32))
    )
    coordinates = np.empty((len(codes), len(basis)), np.int32)
    rows = np.arange(len(codes), dtype=np.int32)
    kernels.coordinates_of(codes, rows, coding, coordinates)
    offsets = np.rint(coordinates.mean(axis=0)).astype(np.int32)
    coding = coding._replace(offsets=frozen(offsets), product_weight=1.0)
    products = _products(codes, coordinates - offsets, nearest, probes, coding)
    energies = np.einsum("nd,nd->n", numbers, numbers)
    powers = np.einsum("ns,ns->n", coordinates - offsets, coordinates - offsets, dtype=np.float64)
    features = np.stack(
        [
            energies[nearest] + energies[probes, None],
            powers[nearest] + powers[probes, None],
            products,
            np.ones_like(distances),
        ],
        axis=-1,
    ).reshape(-1, 4)
    scales = np.maximum(np.abs(features).max(axis=0), 1.0)
    weights = np.linalg.lstsq(features / scales, distances.ravel(), rcond=None)[0] / scales
    norm_weight, energy_weight, product_weight, origin = weights.tolist()
    return coding._replace(
        norm_weight=norm_weight, energy_weight=energy_weight, product_weight=product_weight, origin=origin
    )


def _products(
    codes: NDArray[np.uint8],
    coordinates: NDArray[np.int32],
    nearest: NDArray[np.int64],
    probes: NDArray[np.int64],
    coding: Coding,
) -> Numbers:
    """(P, n): the products of coordinates as lines give them, of each of probes with its nearest."""
    directions = coordinates.astype(np.float64)
    powers = np.einsum("ns,ns->n", directions, directions)
    steps = np.maximum(np.sqrt(powers / directions.shape[1]), 1e-9)[:, None]
    rounded = 2 * np.clip(np.floor(directions / (kernels.NODE_STEP * steps)) + 8, 0, 15) - 15
    worth = powers / np.maximum(np.einsum("ns,ns->n", rounded, directions), 1e-9)
    products: Numbers = np.take_along_axis(directions[probes] @ rounded.T, nearest, axis=1) * worth[nearest]
    return products


def _directions(numbers: Numbers, seed: int) -> Numbers:
    """(S, D) orthonormal: about the dominant principal components, turned among themselves at random."""
    size = min(2 * (line_width(numbers.shape[1]) - kernels.LINE_HEAD), numbers.shape[1])
    middle = np.rint(numbers.mean(axis=0))
    moved = numbers - middle
    random = np.random.default_rng([seed, size])
    basis = random.standard_normal((numbers.shape[1], size))
    kernels.iterate_subspace(moved.T @ moved, basis, _ROUNDS)
    turn = random.standard_normal((size, size))
    kernels.iterate_subspace(np.zeros((0, 0)), turn, 0)
    turned: Numbers = np.einsum("ds,st->td", basis, turn)
    return turned


def _as_codes(basis: Numbers, width: int) -> NDArray[np.uint8]:
    """(S, W): the basis in one byte each, one scale for all."""
    codes = np.full((len(basis), width), kernels.MIDDLE, np.uint8)
    largest = float(np.abs(basis).max(initial=0.0)) or 1.0
    codes[:, : basis.shape[1]] = np.rint(basis * (_LARGEST / largest)) + kernels.MIDDLE
    return codes
