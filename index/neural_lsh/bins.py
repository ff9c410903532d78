"""What each bin holds: one-byte codes of its vectors, side by side, so that a bin is scanned as fast as memory gives it.

A code is the vector from a common centre in whole steps of a 127th of its largest number, with a scale of its own (as in
index/codes.py). It orders what is scanned; the nearest few are measured in full precision.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vecdb.index.base import Mask, Metric, Neighbours, Positions, Vectors
from vecdb.index.growth import aligned
from vecdb.index.kernels import METRIC_CODES, MIDDLE
from vecdb.index.neural_lsh import kernels
from vecdb.index.neural_lsh.network import Network
from vecdb.index.simd import padded

_LARGEST = 127
_NUMBERS_AT_ONCE = 2**22
_NO_MASK: Mask = np.zeros(1, np.bool_)
_BALANCE_ROUNDS = 200
_FULLEST = 1.6  # times the mean, which balancing aims at, so that growth leaves it under 2


@dataclass(frozen=True)
class Bins:
    """codes (n, W) uint8, scales and norms (n,) float32, members (n,) int64: the position of each row; bounds (m + 1,) int64."""

    metric: Metric
    centre: Vectors
    codes: NDArray[np.uint8]
    scales: Vectors
    norms: Vectors
    members: Positions
    bounds: NDArray[np.int64]

    @classmethod
    def of(cls, vectors: Vectors, labels: NDArray[np.int32], bins: int, metric: Metric) -> Bins:
        """vectors (N, D) and the bin of each, -1 for those that are in none."""
        inside = np.flatnonzero(labels >= 0)
        members = inside[np.argsort(labels[inside], kind="stable")].astype(np.int64)
        bounds = np.concatenate([[0], np.cumsum(np.bincount(labels[members], minlength=bins))]).astype(np.int64)
        dimension = vectors.shape[1]
        centre = np.zeros(dimension, np.float32)
        if metric != "ip" and len(members):  # the inner product is not the same from another origin
            centre = vectors[members].mean(axis=0, dtype=np.float64).astype(np.float32)
        codes = aligned((len(members), padded(dimension)), np.uint8)
        scales, norms = np.empty(len(members), np.float32), np.zeros(len(members), np.float32)
        step = max(1, _NUMBERS_AT_ONCE // dimension)
        for start in range(0, len(members), step):
            numbers, scale = coded(vectors[members[start : start + step]] - centre)
            codes[start : start + step] = MIDDLE
            codes[start : start + step, :dimension] = numbers.astype(np.int16) + MIDDLE
            scales[start : start + step] = scale
            if metric != "ip":
                energy = np.einsum("nd,nd->n", numbers, numbers, dtype=np.int64)
                norms[start : start + step] = energy * np.square(scale, dtype=np.float64)
        return cls(metric, centre, codes, scales, norms, members, bounds)

    @property
    def sizes(self) -> NDArray[np.int64]:
        """(m,)"""
        return np.diff(self.bounds)

    def scan(
        self,
        vectors: Vectors,
        queries: Vectors,
        logits: Vectors,
        k: int,
        *,
        probes: int,
        mass: float,
        allowed: Mask | None,
    ) -> Neighbours:
        """The k nearest of each query's likeliest bins. vectors (N, D) by position; queries (B, D); logits (B, m): how likely
        each bin is; probes and mass: how many of them to look into (see kernels.scan), and more until k rows were allowed.
        """
        numbers, scales = coded(queries - self.centre)
        codes = np.zeros((len(queries), self.codes.shape[1]), np.int8)
        codes[:, : queries.shape[1]] = numbers
        room = min(2 * k + 24, max(1, len(self.members)))  # more than k, because codes misplace what is nearly equal
        distances, rows = np.empty((len(queries), room), np.float32), np.empty((len(queries), room), np.int64)
        positions, found = np.empty((len(queries), k), np.int64), np.empty((len(queries), k), np.float32)
        work = np.empty(len(queries), np.int64)
        kernels.scan(
            self.codes,
            self.scales,
            self.norms,
            self.members,
            self.bounds,
            codes,
            numbers.sum(axis=1, dtype=np.int64),
            scales,
            logits,
            probes,
            mass,
            k,
            _NO_MASK if allowed is None else allowed,
            allowed is not None,
            distances,
            rows,
            work,
        )
        kernels.recheck(vectors, self.members, rows, queries, METRIC_CODES[self.metric], positions, found)
        return Neighbours(positions, found, work)


def coded(vectors: Vectors) -> tuple[NDArray[np.int8], Vectors]:
    """(n, D) int8 whole steps, and what a step of each is worth (n,) float32; a vector of zeros has steps worth nothing."""
    largest = np.abs(vectors).max(axis=1, initial=0.0)
    scale = (largest / np.float32(_LARGEST)).astype(np.float32)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        inverse = np.where(largest > 0, np.float32(_LARGEST) / largest, 0).astype(np.float32)
        inverse[~np.isfinite(inverse)] = 0  # so small that a step is nothing
    return np.rint(vectors * inverse[:, None]).astype(np.int8), scale


def bins_of(network: Network, vectors: Vectors) -> NDArray[np.int32]:
    """(N,) int32: the likeliest bin of each of vectors (N, D)."""
    found = np.empty(len(vectors), np.int32)
    widest = max(weight.shape[1] for weight in network.weights)
    step = max(1, _NUMBERS_AT_ONCE // widest)
    for start in range(0, len(vectors), step):
        found[start : start + step] = network.logits(vectors[start : start + step]).argmax(axis=1)
    return found


def balanced(network: Network, vectors: Vectors) -> Network:
    """The network with biases that keep its fullest bin under _FULLEST times the mean, as far as biases can.

    Assigning by the likeliest bin is not balanced any more after learning. A bin that is too full becomes a little less likely,
    for vectors and queries alike, so a vector still lies in its own likeliest bin.
    """
    step = max(1, _NUMBERS_AT_ONCE // network.bins)
    logits = np.concatenate([network.logits(vectors[start : start + step]) for start in range(0, len(vectors), step)])
    most = max(_FULLEST * len(vectors) / network.bins, 1.0)
    bias, best, least = np.zeros(network.bins, np.float32), np.zeros(network.bins, np.float32), np.inf
    for number in range(_BALANCE_ROUNDS):
        sizes = np.bincount((logits + bias).argmax(axis=1), minlength=network.bins)
        if sizes.max() < least:
            best, least = bias.copy(), sizes.max()
        if sizes.max() <= most:
            break
        over = sizes > 0.95 * most
        rate = max(0.05, 0.3 * 0.99**number)
        bias[over] -= (rate * np.log(sizes[over] / (0.9 * most))).astype(np.float32)
    return network.shifted(best)
