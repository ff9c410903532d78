"""FastRP (Chen, Sultan, Tian, Chen & Skiena, CIKM 2019): a vector for every node of a graph by very sparse random projection.

Nodes whose neighbourhoods over several hops are alike get vectors that are alike. With M = D^-1 A (rows sum to 1) and R a random
(N, D) matrix that is mostly zeros: N_1 = M diag(d^b) R, N_r = M N_{r-1}, and the vector is the weighted sum of the N_r, its
columns brought to mean 0 and variance 1. b below 0 keeps hubs, which are near by chance, from being everybody's neighbour.

A node that comes later gets the mean of its neighbours' rows of N_{r-1} as its N_r, so they are kept. Rows of R are drawn from
a stream for each node's key, so they need not be.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from vecdb.errors import InvalidInput
from vecdb.index import graph_kernels
from vecdb.index.adjacency import Adjacency
from vecdb.index.pool import RangePool

Keys = NDArray[np.int64]
Matrix = NDArray[np.floating[Any]]

_LARGE = 10_000  # from so many nodes on 1/sqrt(n) of R is not zero; on small graphs a third (Achlioptas 2003)
_NODES_AT_ONCE = 2_048
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True, slots=True)
class FastRPConfig:
    """weights: of N_1 … N_q, both parities among them, or the two sides of a bipartite graph never meet. degree_exponent: b, -1
    … 0. normalise: each row of N_r to unit length before the sum. sparsity: one in so many entries of R is not zero; None: by
    the number of nodes.
    """

    dimension: int = 128
    weights: tuple[float, ...] = (1.0, 1.0, 1.0, 1.0)  # on a bipartite graph (0, 0, 1, 4) is no better than chance
    degree_exponent: float = -0.5
    normalise: bool = True
    sparsity: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if not 1 <= self.dimension <= 65_536:
            raise InvalidInput(f"dimension is {self.dimension}; it must lie between 1 and 65,536")
        if not self.weights or not np.isfinite(self.weights).all() or not any(self.weights):
            raise InvalidInput(f"weights are {self.weights}; give one for each power, not all of them 0")
        if not -1 <= self.degree_exponent <= 0:
            raise InvalidInput(f"degree_exponent is {self.degree_exponent}; it must lie between -1 and 0")
        if self.sparsity is not None and not 1 <= self.sparsity < np.inf:
            raise InvalidInput(f"sparsity is {self.sparsity}; one entry in so many is not zero: at least 1")
        if not 0 <= self.seed < 2**63:
            raise InvalidInput(f"seed is {self.seed}; it must lie between 0 and 2**63 - 1")


@dataclass(frozen=True, slots=True)
class Embedding:
    """vectors: (N, D), zeros where known (N,) is False: nodes without edges have no vector. keys: (N,) ascending.

    powers: (q, N, D), of which powers[r] is N_r, powers[0] the scaled rows of R. mean, deviation: (D,), of the columns.
    """

    config: FastRPConfig
    keys: Keys
    vectors: Matrix
    known: NDArray[np.bool_]
    powers: Matrix
    mean: Matrix
    deviation: Matrix

    def extended(self, keys: Keys, neighbours: Adjacency) -> tuple[Matrix, NDArray[np.bool_]]:
        """Vectors (n, D) for n new nodes, and which of them have one. neighbours: the new nodes' edges, node i < n being the
        i-th new one and n + j the one at place j here; edges among new nodes tell nothing, and are passed over.
        """
        count = len(keys)
        old = (neighbours.targets >= count) & (neighbours.sources < count)
        places = np.maximum(neighbours.targets[old] - count, 0)
        edges = Adjacency.of(max(count, len(self.keys)), neighbours.sources[old], places, neighbours.weights[old])
        known = np.diff(edges.starts)[:count] > 0
        levels = [_product(edges, power, count) for power in self.powers]
        return _standardised(_summed(levels, self.config), known, self.mean, self.deviation), known


def embed(
    graph: Adjacency,
    config: FastRPConfig | None = None,
    *,
    keys: Keys | None = None,
    dtype: DTypeLike = np.float32,
    threads: int | None = None,
    last_power: bool = False,
) -> Embedding:
    """A vector for each node. keys: (N,) ascending numbers that stay a node's own from one graph to the next; None: 0 … N-1.
    last_power: keep N_q too, which no later node needs.
    """
    config = config or FastRPConfig()
    size = len(graph)
    keys = np.arange(size, dtype=np.int64) if keys is None else keys
    known = ~graph.is_dangling
    degrees = np.bincount(graph.sources, graph.weights.astype(np.float64), minlength=size)
    scale = np.zeros(size)
    scale[known] = degrees[known] ** config.degree_exponent
    level = (projection(keys, config) * scale[:, None]).astype(dtype)
    powers = [level]
    for _ in config.weights:
        level = _product(graph, level, size, threads)
        powers.append(level)
    raw = _summed(powers[1:], config)
    mean = raw[known].mean(axis=0) if known.any() else np.zeros(config.dimension, dtype)
    deviation = raw[known].std(axis=0) if known.any() else np.ones(config.dimension, dtype)
    deviation = np.where(deviation > 0, deviation, 1).astype(dtype)
    vectors = _standardised(raw, known, mean, deviation)
    kept = powers if last_power else powers[:-1]
    return Embedding(config, keys, vectors, known, np.stack(kept), mean, deviation)


def projection(keys: Keys, config: FastRPConfig) -> NDArray[np.float64]:
    """R: (N, D). An entry is +-sqrt(s / D) for one in s, else 0; no row is all zeros."""
    size, dimension = len(keys), config.dimension
    s = config.sparsity or (float(np.sqrt(size)) if size >= _LARGE else 3.0)
    value = np.sqrt(s / dimension)
    with np.errstate(over="ignore"):  # uint64 arithmetic wraps round, as it should
        numbers = keys.astype(np.uint64)[:, None] * np.uint64(dimension) + np.arange(1, dimension + 1, dtype=np.uint64)
        start = _mixed(np.full(1, config.seed, np.uint64))
        mixed = _mixed(np.add(start, np.multiply(numbers, _GOLDEN, dtype=np.uint64), dtype=np.uint64))
    drawn = (mixed >> np.uint64(11)).astype(np.float64) * 2.0**-53
    entries = np.where(drawn < 0.5 / s, value, np.where(drawn < 1.0 / s, -value, 0.0))
    empty = np.flatnonzero(~entries.any(axis=1))
    lowest = drawn[empty].argmin(axis=1)
    entries[empty, lowest] = np.where(mixed[empty, lowest] & np.uint64(1), value, -value)
    return entries


def _mixed(state: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """SplitMix64 (Steele, Lea & Flood 2014) of each state."""
    z = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def _product(graph: Adjacency, dense: Matrix, count: int, threads: int | None = None) -> Matrix:
    """The first count rows of M dense."""
    out = np.zeros((count, dense.shape[1]), dense.dtype)
    shares = graph.shares.astype(dense.dtype)
    with RangePool(threads or os.cpu_count() or 1) as pool:
        pool.run(
            lambda first, stop: graph_kernels.multiply(graph.starts, graph.targets, shares, dense, first, stop, out),
            count,
            step=_NODES_AT_ONCE,
        )
    return out


def _summed(levels: list[Matrix], config: FastRPConfig) -> Matrix:
    """sum_r weight_r N_r, rows of N_r brought to unit length first if that is wanted. levels: N_1 … N_q, left as they are."""
    total = np.zeros_like(levels[0])
    for weight, level in zip(config.weights, levels):
        if not weight:
            continue
        if config.normalise:
            level = unit_rows(level)
        total += level.dtype.type(weight) * level
    return total


def unit_rows(rows: Matrix) -> Matrix:
    """Each row at unit length, rows of zeros as they are."""
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(rows / np.where(norms > 0, norms, 1).astype(rows.dtype))


def _standardised(raw: Matrix, known: NDArray[np.bool_], mean: Matrix, deviation: Matrix) -> Matrix:
    return np.where(known[:, None], (raw - mean) / deviation, 0).astype(raw.dtype)
