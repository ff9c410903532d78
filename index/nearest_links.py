"""The k-nearest-neighbour graph of stored vectors, read off the links that a search graph has already.

An HNSW node links to some of its near ones, chosen to lead in all directions, so the links alone are not its nearest. But the
near ones of near ones are near (Dong, Moses & Li, WWW 2011): each round looks at those that the node's present nearest hold to be
nearest, and measures them in full precision. Two rounds find what an exact search finds but for a few per cent, for some two
hundred products a node.
"""

from __future__ import annotations

import os

import numpy as np
from numba import njit
from numpy.typing import NDArray

from vecdb.index.base import Mask, Metric, Vectors
from vecdb.index.pool import RangePool

Nodes = NDArray[np.int32]

NEAREST = 12  # k_g
_ROUNDS = 2
_NODES_AT_ONCE = 1_024


def nearest_from_links(
    vectors: Vectors,
    links: Nodes,
    live: Mask,
    metric: Metric,
    *,
    k: int = NEAREST,
    rounds: int = _ROUNDS,
    threads: int | None = None,
) -> tuple[Nodes, Vectors]:
    """For each of N nodes about the k nearest others (N, k), nearest first, equal ones by number, -1 where there are fewer; and
    the cosines to them (N, k). vectors (N, D); links (N, W), -1 behind the last one of a row; live (N,): other nodes are nobody's
    neighbour. Does not depend on the number of threads.
    """
    size = len(vectors)
    squares = np.einsum("nd,nd->n", vectors, vectors)
    halves = squares / 2 if metric == "l2" else np.zeros_like(squares)
    norms = np.sqrt(squares)
    inverse = np.divide(1.0, norms, out=np.zeros_like(norms), where=norms > 0)
    nodes, scores = links, np.empty(0, np.float32)
    with RangePool(threads or os.cpu_count() or 1) as pool:
        for number in range(rounds + 1):
            before = nodes
            nodes, scores = np.full((size, k), -1, np.int32), np.zeros((size, k), np.float32)

            def work(
                first: int,
                stop: int,
                before: Nodes = before,
                nodes: Nodes = nodes,
                scores: Vectors = scores,
                two: bool = number > 0,
            ) -> None:
                marks = np.full(size, -1, np.int32)
                refine(vectors, halves, links, before, live, first, stop, two, marks, nodes, scores)

            pool.run(work, size, step=_NODES_AT_ONCE)
        pool.run(lambda first, stop: cosines(vectors, inverse, nodes, first, stop, scores), size, step=_NODES_AT_ONCE)
    return nodes, scores


# Kernels --------------------------------------------------------------------------------------------------------------


@njit(cache=True, nogil=True, fastmath={"contract", "reassoc"})
def product(vectors, a, b):
    """The dot product of two rows. (N, D) float32 -> float32."""
    total = np.float32(0.0)
    for d in range(vectors.shape[1]):
        total += vectors[a, d] * vectors[b, d]
    return total


@njit(cache=True, nogil=True)
def insert(nodes, scores, node, score):
    """Put a node into a row (k,) that is sorted by descending score and then by number, if it belongs there."""
    at = len(nodes)
    while at > 0 and (
        nodes[at - 1] < 0 or scores[at - 1] < score or (scores[at - 1] == score and nodes[at - 1] > node)
    ):
        if at < len(nodes):
            nodes[at] = nodes[at - 1]
            scores[at] = scores[at - 1]
        at -= 1
    if at < len(nodes):
        nodes[at] = node
        scores[at] = score


@njit(cache=True, nogil=True)
def refine(vectors, halves, links, before, live, first, stop, two, marks, nodes, scores):
    """The k nearest of nodes first … stop-1 among their links, and if `two` among those of `before` and before's own.

    marks: (N,) int32, none of them the number of a node in the range. nodes, scores: (N, k), of which the range is written.
    """
    for node in range(first, stop):
        if not live[node]:
            continue
        marks[node] = node
        for i in range(links.shape[1]):
            near = links[node, i]
            if near < 0:
                break
            if marks[near] != node and live[near]:
                marks[near] = node
                insert(nodes[node], scores[node], near, product(vectors, node, near) - halves[node] - halves[near])
        if not two:
            continue
        for i in range(before.shape[1]):
            near = before[node, i]
            if near < 0:
                break
            if marks[near] != node:
                marks[near] = node
                insert(nodes[node], scores[node], near, product(vectors, node, near) - halves[node] - halves[near])
            for j in range(before.shape[1]):
                far = before[near, j]
                if far < 0:
                    break
                if marks[far] != node:
                    marks[far] = node
                    insert(nodes[node], scores[node], far, product(vectors, node, far) - halves[node] - halves[far])


@njit(cache=True, nogil=True)
def cosines(vectors, inverse, nodes, first, stop, scores):
    """scores[i, j] = the cosine of i and nodes[i, j], 0 where that is -1. inverse: (N,), one by the length of each vector."""
    for node in range(first, stop):
        for j in range(nodes.shape[1]):
            near = nodes[node, j]
            scores[node, j] = 0.0 if near < 0 else product(vectors, node, near) * inverse[node] * inverse[near]
