"""Ways to cut a space into m bins. Each gives the bin of every base vector, and how likely every bin is for a query.

All are given the same vectors and the same number of bins; queries are never among the vectors.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.vectors import VectorSet
from vecdb.index.base import NeuralLshConfig
from vecdb.index.neural_lsh.bins import balanced, bins_of
from vecdb.index.neural_lsh.index import NeuralLshIndex, nearest_of
from vecdb.index.neural_lsh.learning import learn
from vecdb.index.neural_lsh.partition import cut_share, partition

Matrix = NDArray[np.float32]
Labels = NDArray[np.int32]


@dataclass(frozen=True)
class Cut:
    """labels (N,), scores (Q, m) of the queries' bins, larger is likelier; cut: share of the 10-NN graph's edges between bins."""

    labels: Labels
    scores: Matrix
    cut: float
    build_s: float
    index: Any = None  # what answers queries, where that is measured too


@dataclass(frozen=True)
class Material:
    """What the ways have in common: made once, its time is counted into each way that needs it."""

    data: VectorSet
    bins: int
    config: NeuralLshConfig
    nearest: Labels  # (N, soft_k)
    nearest_s: float

    @classmethod
    def of(cls, data: VectorSet, bins: int, seed: int) -> Material:
        config = NeuralLshConfig(bins=bins, seed=seed)
        since = time.perf_counter()
        nearest = nearest_of(data.base, data.metric, config.soft_k)
        return cls(data, bins, config, nearest, time.perf_counter() - since)

    @property
    def graph(self) -> Labels:
        return self.nearest[:, : self.config.graph_k]


def neural(material: Material) -> Cut:
    """The index as a user builds it."""
    since = time.perf_counter()
    index = NeuralLshIndex.build(material.data.base, material.data.metric, material.config)
    took = time.perf_counter() - since
    return _cut(material, index._labels, index._network.logits(material.data.queries), took, index)


def neural_hard(material: Material) -> Cut:
    """The same, learned from a vector's own bin instead of its neighbours' bins."""
    return _learned(material, hard=True)


def graph_bins(material: Material) -> Cut:
    """The graph's own bins, ranked by the network: what is lost between this and `neural` is what the network cannot tell."""
    return _learned(material, hard=False, reassign=False)


def balanced_kmeans(material: Material) -> Cut:
    since = time.perf_counter()
    data = material.data
    labels = partition(data.base, material.graph, material.bins, material.config.seed, balanced_only=True)
    centres = _means(data.base, labels, material.bins)
    return _cut(material, labels, -_distances(data.queries, centres), time.perf_counter() - since + material.nearest_s)


def ivf(material: Material) -> Cut:
    """k-means as Faiss's IVF-Flat has it."""
    import faiss

    data = material.data
    since = time.perf_counter()
    metric = faiss.METRIC_L2 if data.metric == "l2" else faiss.METRIC_INNER_PRODUCT
    index = faiss.index_factory(data.base.shape[1], f"IVF{material.bins},Flat", metric)
    index.train(data.base)
    index.add(data.base)
    took = time.perf_counter() - since
    labels = np.empty(len(data.base), np.int32)
    for bin in range(material.bins):
        size = index.invlists.list_size(bin)
        labels[faiss.rev_swig_ptr(index.invlists.get_ids(bin), size)] = bin
    centres = index.quantizer.reconstruct_n(0, material.bins)
    scores = -_distances(data.queries, centres) if data.metric == "l2" else data.queries @ centres.T
    return _cut(material, labels, scores, took, index)


def hyperplanes(material: Material) -> Cut:
    """Signs of products with random directions from the mean; a query's other bins by the squared margins it takes to get there
    (multi-probe LSH, Lv et al. 2007).
    """
    since = time.perf_counter()
    data = material.data
    bits = int(np.ceil(np.log2(material.bins)))
    random = np.random.default_rng([material.config.seed, 7])
    directions = random.standard_normal((data.base.shape[1], bits)).astype(np.float32)
    middle = np.median(data.base @ directions, axis=0)  # the best that chance can do for balance
    powers = 1 << np.arange(bits)
    labels = ((data.base @ directions > middle) @ powers).astype(np.int32)
    margins = data.queries @ directions - middle
    signs = (np.arange(1 << bits)[:, None] & powers) > 0
    costs = np.stack([(np.square(m) * (signs != (m > 0))).sum(axis=1) for m in margins])
    return _cut(material, labels, -costs.astype(np.float32), time.perf_counter() - since)


WAYS: dict[str, Callable[[Material], Cut]] = {
    "neural LSH": neural,
    "neural LSH on hard labels": neural_hard,
    "graph's own bins": graph_bins,
    "balanced k-means": balanced_kmeans,
    "k-means (Faiss IVF)": ivf,
    "random hyperplanes": hyperplanes,
}


def _learned(material: Material, *, hard: bool, reassign: bool = True) -> Cut:
    since = time.perf_counter()
    data, config = material.data, material.config
    labels = partition(data.base, material.graph, material.bins, config.seed)
    network = learn(data.base, labels, material.nearest, material.bins, config, hard=hard)
    if reassign:
        network = balanced(network, data.base)
        labels = bins_of(network, data.base)
    took = time.perf_counter() - since + material.nearest_s
    return _cut(material, labels, network.logits(data.queries), took)


def _cut(material: Material, labels: Labels, scores: Matrix, build_s: float, index: Any = None) -> Cut:
    return Cut(labels, scores, cut_share(material.graph, labels), build_s, index)


def _means(points: Matrix, labels: Labels, bins: int) -> Matrix:
    sums = np.zeros((bins, points.shape[1]))
    np.add.at(sums, labels, points)
    return (sums / np.maximum(np.bincount(labels, minlength=bins), 1)[:, None]).astype(np.float32)


def _distances(queries: Matrix, centres: Matrix) -> Matrix:
    """(Q, m): squared Euclidean, but for what all of a query have in common."""
    found: Matrix = np.einsum("md,md->m", centres, centres) - 2.0 * (queries @ centres.T)
    return found
