"""The k-nearest-neighbour graph of the vectors, cut into bins of about equal size so that few edges lie between bins.

The paper cuts with KaHIP, which no package of Python's brings. Here: k-means over vectors that are averaged with their
neighbours, with places in a bin given by regret (who would lose most by its second choice chooses first), then label
propagation on the graph with the same limit of places, as long as it lowers the cut. The weight of an edge is 2 where it goes
both ways, else 1 (the paper's released code).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vecdb.index.base import Vectors
from vecdb.index.neural_lsh import kernels

Labels = NDArray[np.int32]
Nodes = NDArray[np.int32]

SLACK = 1.05  # a bin holds at most so many times the mean
_ROUNDS = 12  # of k-means
_CHOICES = 16  # bins that a vector is offered in order before it takes any that has room
_PASSES = 12  # of label propagation, at most
_STILL = 1e-3  # share of nodes that move in a pass that is not worth another
_NUMBERS_AT_ONCE = 2**24


def partition(vectors: Vectors, nearest: Nodes, bins: int, seed: int, *, balanced_only: bool = False) -> Labels:
    """(N,) int32: each vector's bin, 0 … bins-1, none of which holds more than SLACK times the mean (rounded up).

    vectors (N, D); nearest (N, k): their neighbours' rows, -1 where there are fewer. balanced_only: without label propagation.
    """
    count = len(vectors)
    capacity = int(np.ceil(SLACK * count / bins))
    random = np.random.default_rng([seed, 1])
    labels = _balanced_kmeans(_smoothed(vectors, nearest), bins, capacity, random)
    if not balanced_only:
        _propagated(labels, nearest, bins, capacity, random)
    return labels


def cut_share(nearest: Nodes, labels: Labels) -> float:
    """Share of the edges whose ends are in different bins."""
    is_edge = nearest >= 0
    differs = labels[np.where(is_edge, nearest, 0)] != labels[:, None]
    return float(differs[is_edge].mean()) if is_edge.any() else 0.0


def edges_of(nearest: Nodes) -> tuple[NDArray[np.int64], Nodes, NDArray[np.float32]]:
    """The undirected graph as starts (N + 1,), neighbours (E,) and weights (E,): 2 where each is near the other."""
    count, k = nearest.shape
    source = np.repeat(np.arange(count, dtype=np.int64), k)
    target = nearest.ravel().astype(np.int64)
    there = (target >= 0) & (target != source)
    source, target = source[there], target[there]
    keys = np.concatenate([source * count + target, target * count + source])
    edges, times = np.unique(keys, return_counts=True)
    starts = np.searchsorted(edges, np.arange(count + 1, dtype=np.int64) * count)
    return starts, (edges % count).astype(np.int32), times.astype(np.float32)


def _smoothed(vectors: Vectors, nearest: Nodes) -> Vectors:
    """Each vector averaged with the mean of its neighbours: near ones then have nearer centres."""
    smooth = np.empty_like(vectors)
    step = max(1, _NUMBERS_AT_ONCE // (vectors.shape[1] * max(1, nearest.shape[1])))
    for start in range(0, len(vectors), step):
        near = nearest[start : start + step]
        there = near >= 0
        own = vectors[start : start + step]
        total = np.einsum("nkd,nk->nd", vectors[np.where(there, near, 0)], there.astype(np.float32))
        known = there.sum(axis=1, dtype=np.float32)[:, None]
        smooth[start : start + step] = np.where(known > 0, (own + total / np.maximum(known, 1)) / 2, own)
    return smooth


def _balanced_kmeans(points: Vectors, bins: int, capacity: int, random: np.random.Generator) -> Labels:
    centres = points[_spread_out(points, bins, random)].astype(np.float32)
    labels = np.zeros(len(points), np.int32)
    for _ in range(_ROUNDS):
        labels = _assigned(points, centres, capacity)
        sums = np.zeros((bins, points.shape[1]), np.float64)
        np.add.at(sums, labels, points)
        sizes = np.bincount(labels, minlength=bins)
        filled = sizes > 0
        centres[filled] = (sums[filled] / sizes[filled, None]).astype(np.float32)
    return labels


def _spread_out(points: Vectors, bins: int, random: np.random.Generator) -> NDArray[np.int64]:
    """Rows to start from: k-means++ (Arthur & Vassilvitskii 2007) on a sample of them."""
    sample = np.sort(random.permutation(len(points))[: max(20 * bins, 1_024)])
    drawn = points[sample]
    squares = np.einsum("nd,nd->n", drawn, drawn)
    chosen = [int(random.integers(len(drawn)))]
    nearest = np.full(len(drawn), np.inf)
    for _ in range(bins - 1):
        last = drawn[chosen[-1]]
        nearest = np.minimum(nearest, np.maximum(squares + squares[chosen[-1]] - 2.0 * (drawn @ last), 0.0))
        nearest[chosen] = 0.0
        total = nearest.sum()
        if total > 0:
            chosen.append(int(random.choice(len(drawn), p=nearest / total)))
        else:  # all the rest are copies: any that was not taken
            chosen.append(int(np.setdiff1d(np.arange(len(drawn)), chosen)[0]))
    rows: NDArray[np.int64] = sample[np.array(chosen)]
    return rows


def _assigned(points: Vectors, centres: Vectors, capacity: int) -> Labels:
    """Each point's bin: the nearest centre that has room, those with the largest regret first."""
    count, bins = len(points), len(centres)
    width = min(_CHOICES, bins)
    choices = np.empty((count, width), np.int32)
    regrets = np.empty(count, np.float32)
    halves = np.einsum("md,md->m", centres, centres) / 2
    step = max(1, _NUMBERS_AT_ONCE // bins)
    for start in range(0, count, step):
        away = halves - points[start : start + step] @ centres.T
        near = (
            np.argpartition(away, width - 1, axis=1)[:, :width]
            if width < bins
            else np.tile(np.arange(bins), (len(away), 1))
        )
        distances = np.take_along_axis(away, near, axis=1)
        order = np.argsort(distances, axis=1, kind="stable")
        choices[start : start + step] = np.take_along_axis(near, order, axis=1)
        best = np.take_along_axis(distances, order[:, : min(2, width)], axis=1)
        regrets[start : start + step] = best[:, -1] - best[:, 0]
    labels = np.full(count, -1, np.int32)
    sizes = np.zeros(bins, np.int64)
    order = np.argsort(-regrets, kind="stable")
    if kernels.fill_bins(order, choices, capacity, labels, sizes):
        for node in np.flatnonzero(labels < 0).tolist():  # few: all of their nearest bins are full
            away = halves - centres @ points[node]
            away[sizes >= capacity] = np.inf
            bin = int(np.argmin(away))
            labels[node] = bin
            sizes[bin] += 1
    return labels


def _propagated(labels: Labels, nearest: Nodes, bins: int, capacity: int, random: np.random.Generator) -> None:
    starts, neighbours, weights = edges_of(nearest)
    sizes = np.bincount(labels, minlength=bins).astype(np.int64)
    votes = np.zeros(bins, np.float32)
    for _ in range(_PASSES):
        order = random.permutation(len(labels))
        moved = kernels.propagate(order, starts, neighbours, weights, labels, sizes, capacity, votes)
        if moved <= _STILL * len(labels):
            break
