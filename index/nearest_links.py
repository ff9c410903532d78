"""The k-nearest-neighbour graph of stored vectors, read off the links that a search graph has already.

An HNSW node links to some of its near ones, chosen to lead in all directions, so the links alone are not its nearest. But the
near ones of near ones are near (Dong, Moses & Li, WWW 2011): each round looks at those that the node's present nearest hold to be
nearest, and measures them in full precision. Two rounds find what an exact search finds but for a few per cent, for some two
hundred products a node.
"""

from __future__ import annotations

import os

import numpy as np
from numpy.typing import NDArray

from vecdb.index import graph_kernels
from vecdb.index.base import Mask, Metric, VectorIndex, Vectors
from vecdb.index.pool import RangePool

Nodes = NDArray[np.int32]

NEAREST = 12  # k_g
_ROUNDS = 2
_NODES_AT_ONCE = 1_024


def nearest_in(index: VectorIndex, k: int = NEAREST, *, threads: int | None = None) -> tuple[Nodes, Vectors]:
    """The k-NN graph of what an index holds, as `nearest_from_links`: from the links of an HNSW index, else by searches."""
    arrays = index.arrays()
    vectors = arrays["vectors"]
    if "base" in arrays:
        return nearest_from_links(vectors, arrays["base"], index.live, index.metric, k=k, threads=threads)
    nodes, scores = np.full((len(vectors), k), -1, np.int32), np.zeros((len(vectors), k), np.float32)
    for first in range(0, len(vectors), _NODES_AT_ONCE):
        few = np.ascontiguousarray(vectors[first : first + _NODES_AT_ONCE])
        found = index.search(few, k + 1, threads=threads).positions.astype(np.int32)
        others = without_self(found, first)
        others[~index.live[first : first + len(few)]] = -1
        nodes[first : first + len(few)] = others
    squares = np.einsum("nd,nd->n", vectors, vectors)
    inverse = np.divide(1.0, np.sqrt(squares), out=np.zeros_like(squares), where=squares > 0)
    graph_kernels.cosines(vectors, inverse, nodes, 0, len(vectors), scores)
    return nodes, scores


def without_self(found: Nodes, first: int) -> Nodes:
    """(n, k) of found (n, k + 1), which was found for the positions from first on: all but the own one, or but the last where
    copies of it came in its place.
    """
    own = found == np.arange(first, first + len(found))[:, None]
    own[~own.any(axis=1), -1] = True
    return np.ascontiguousarray(found[~own].reshape(len(found), -1))


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
                graph_kernels.refine(vectors, halves, links, before, live, first, stop, two, marks, nodes, scores)

            pool.run(work, size, step=_NODES_AT_ONCE)
        pool.run(
            lambda first, stop: graph_kernels.cosines(vectors, inverse, nodes, first, stop, scores),
            size,
            step=_NODES_AT_ONCE,
        )
    return nodes, scores
