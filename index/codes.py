"""What a walk reads instead of vectors: a byte for each dimension, and a line or two of the cache that sketch the whole.

Everything is fitted to a sample of the data and then frozen with the graph. Sums are taken in a fixed order, or over whole
numbers, so that the same vectors give the same bytes with any number of threads.

- Codes: vector - centre, rounded to one byte for each dimension, in steps of a 127th of its largest number. A scale of its own
  for each vector costs four bytes and saves from what one scale for all would do to vectors unlike the sample: a new topic
  would be clipped, and one long vector would leave nothing of the others (recall of 0.5 and 0.01 where this has 0.99).
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
from vecdb.index.growth import LINE, frozen
from vecdb.index.kernels import Coding
from vecdb.index.simd import padded

SAMPLE = 8192  # vectors that a coding is fitted to
_PROBES = 256  # of the sample, for fitting the estimate: each with its so many nearest
_NEAREST = 32
_ROUNDS = 8  # of orthogonal iteration: more change the share of variance that is caught by less than a thousandth
_WHOLE = 2.0**18  # products of such numbers, so many as a sample has, are exact in float64
_TINY = 1e-30
_SLACK = 3.0  # standard deviations of the code distance
Numbers = NDArray[np.float64]


def fit(vectors: Vectors, metric: Metric, seed: int) -> Coding:
    """The coding that suits vectors (N, D), by an even sample of them."""
    sample = np.ascontiguousarray(vectors[:: max(1, -(-len(vectors) // SAMPLE))])
    coding = _centred(sample, metric)
    if len(sample) < 2:
        return coding
    codes = np.empty((len(sample), padded(sample.shape[1])), np.uint8)
    lines = np.empty((len(sample), line_width(sample.shape[1])), np.uint8)
    write_codes(sample, coding, metric, codes, lines, 0, len(sample))
    scales = lines.view(np.float32)[:, kernels.SCALE].astype(np.float64)
    numbers = (codes[:, : sample.shape[1]].astype(np.float64) - kernels.MIDDLE) * scales[:, None]
    probes = np.arange(0, len(sample), max(1, len(sample) // _PROBES))
    nearest, distances = _near_pairs(numbers, probes, metric)
    coding = coding._replace(slack=_fit_slack(sample, probes, nearest, distances, metric))
    return _fit_lines(codes, lines, numbers, probes, nearest, distances, coding, seed)


def line_width(dimension: int) -> int:
    """Bytes in a line: two cache lines hold 224 coordinates, one 96."""
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
    kernels.encode(vectors, start, stop, coding, kernels.METRIC_CODES[metric], codes, lines, lines.view(np.float32))


def as_arrays(coding: Coding) -> dict[str, NDArray[Any]]:
    """What `from_arrays` makes the coding of again."""
    return {
        "coding.centre": coding.centre,
        "coding.basis": coding.basis,
        "coding.offsets": coding.offsets,
        "coding.scalars": np.array(coding[3:], np.float64),
    }


def from_arrays(arrays: Mapping[str, NDArray[Any]]) -> Coding:
    norm_weight, energy_weight, product_weight, origin, slack, by_lines = np.asarray(arrays["coding.scalars"]).tolist()
    return Coding(
        frozen(np.ascontiguousarray(arrays["coding.centre"], np.float32)),
        frozen(np.ascontiguousarray(arrays["coding.basis"], np.uint8)),
        frozen(np.ascontiguousarray(arrays["coding.offsets"], np.float64)),
        norm_weight,
        energy_weight,
        product_weight,
        origin,
        slack,
        bool(by_lines),
    )


def _centred(sample: Vectors, metric: Metric) -> Coding:
    """A coding with a centre and no more: the middle of the range or the mean, whichever leaves less to be rounded away. The
    inner product is not the same from another origin, so there the centre is zero.
    """
    dimension = sample.shape[1]
    centres = [np.zeros(dimension, np.float32)]
    if metric != "ip" and len(sample):
        low, high = float(sample.min()), float(sample.max())
        mean = np.einsum("nd->d", sample, dtype=np.float64) / len(sample)
        centres = [np.full(dimension, np.float32((low + high) / 2)), mean.astype(np.float32)]
    steps = [float(np.square(np.abs(sample - centre).max(axis=1), dtype=np.float64).sum()) for centre in centres]
    centre = centres[int(np.argmin(steps))]
    basis, offsets = np.empty((0, padded(dimension)), np.uint8), np.empty(0, np.float64)
    return Coding(frozen(centre), frozen(basis), frozen(offsets), 0.0, 0.0, 0.0, 0.0, 0.0, False)


def _near_pairs(numbers: Numbers, probes: NDArray[np.int64], metric: Metric) -> tuple[NDArray[np.int64], Numbers]:
    """For each of probes (P,) its nearest others (P, n) in code distance, and these distances."""
    unit = max(float(np.abs(numbers).max(initial=0.0)), _TINY) / _WHOLE
    whole = np.rint(numbers / unit)
    distances = -2.0 * unit * unit * (whole[probes] @ whole.T)  # products of whole numbers: the same in any order
    if metric != "ip":
        energies = np.einsum("nd,nd->n", numbers, numbers)
        distances += energies + energies[probes, None]
    distances[np.arange(len(probes)), probes] = np.inf
    count = min(_NEAREST, len(numbers) - 1)
    order = np.argsort(distances, axis=1, kind="stable")[:, :count]
    return order, np.take_along_axis(distances, order, axis=1)


def _fit_slack(
    sample: Vectors, probes: NDArray[np.int64], nearest: NDArray[np.int64], distances: Numbers, metric: Metric
) -> float:
    """How far code distances stray from distances."""
    exact = sample.astype(np.float64)
    true = np.empty_like(distances)
    for i, probe in enumerate(probes):
        if metric == "ip":
            true[i] = -2.0 * np.einsum("nd,d->n", exact[nearest[i]], exact[probe])
        else:
            difference = exact[nearest[i]] - exact[probe]
            true[i] = np.einsum("nd,nd->n", difference, difference)
    return float(_SLACK * np.std(distances - true))


def _fit_lines(
    codes: NDArray[np.uint8],
    lines: NDArray[np.uint8],
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
        basis=frozen(_as_codes(basis, codes.shape[1])), offsets=frozen(np.zeros(len(basis))), product_weight=1.0
    )
    coordinates = np.empty((len(codes), len(basis)))
    kernels.coordinates_of(codes, lines.view(np.float32), coding, coordinates)
    offsets = np.einsum("ns->s", coordinates) / len(coordinates)
    coding = coding._replace(offsets=frozen(offsets))
    products = _products(coordinates - offsets, nearest, probes)
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
    scales = np.maximum(np.abs(features).max(axis=0), _TINY)
    scaled = features / scales
    normal = np.einsum("nf,ng->fg", scaled, scaled) + 1e-9 * len(scaled) * np.eye(4)
    weights = np.linalg.solve(normal, np.einsum("nf,n->f", scaled, distances.ravel())) / scales
    norm_weight, energy_weight, product_weight, origin = weights.tolist()
    return coding._replace(
        norm_weight=norm_weight,
        energy_weight=energy_weight,
        product_weight=product_weight,
        origin=origin,
        by_lines=True,
    )


def _products(directions: Numbers, nearest: NDArray[np.int64], probes: NDArray[np.int64]) -> Numbers:
    """(P, n): the products of coordinates as lines give them, of each of probes with its nearest."""
    powers = np.einsum("ns,ns->n", directions, directions)
    steps = np.maximum(np.sqrt(powers / directions.shape[1]), _TINY)[:, None]
    rounded = 2 * np.clip(np.floor(directions / (kernels.NODE_STEP * steps)) + 8, 0, 15) - 15
    worth = powers / np.maximum(np.einsum("ns,ns->n", rounded, directions), _TINY)
    products: Numbers = np.stack(
        [np.einsum("ns,s->n", rounded[near], directions[p]) for p, near in zip(probes, nearest)]
    )
    products *= worth[nearest]
    return products


def _directions(numbers: Numbers, seed: int) -> Numbers:
    """(S, D) orthonormal: about the dominant principal components, turned among themselves at random."""
    size = min(2 * (line_width(numbers.shape[1]) - kernels.LINE_HEAD), numbers.shape[1])
    moved = numbers - np.einsum("nd->d", numbers) / len(numbers)
    whole = np.rint(moved * (_WHOLE / max(float(np.abs(moved).max(initial=0.0)), _TINY)))
    random = np.random.default_rng([seed, size])
    basis = random.standard_normal((numbers.shape[1], size))
    kernels.iterate_subspace(whole.T @ whole, basis, _ROUNDS)  # of whole numbers: the same in any order
    turn = random.standard_normal((size, size))
    kernels.iterate_subspace(np.zeros((0, 0)), turn, 0)
    turned: Numbers = np.einsum("ds,st->td", basis, turn)
    return turned


def _as_codes(basis: Numbers, width: int) -> NDArray[np.uint8]:
    """(S, W): the basis in one byte each, one scale for all."""
    codes = np.full((len(basis), width), kernels.MIDDLE, np.uint8)
    largest = float(np.abs(basis).max(initial=0.0)) or 1.0
    codes[:, : basis.shape[1]] = np.rint(basis * (127 / largest)) + kernels.MIDDLE
    return codes
