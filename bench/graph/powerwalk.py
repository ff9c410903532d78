"""PowerWalk on the k-NN graph of real embeddings: fingerprints alone, with rounds of decomposition, and rounds alone.

The truth is power iteration to 1e-9. Precision is that of the first 50, more than a node has edges. A batch is timed with all
sources together, and beside it the same sources one by one.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.data import load_corpus
from vecdb.index import HnswConfig, HnswIndex, exact_search
from vecdb.index.adjacency import RESTART, Adjacency, pairs_once, spread
from vecdb.index.graph_kernels import multiply
from vecdb.index.nearest_links import NEAREST, nearest_from_links
from vecdb.index.pagerank import ROUNDS, WALKS, Fingerprints, fingerprints, personalised
from vecdb.index.pool import RangePool

_SOURCES, _BATCH, _TOP = 100, 1_000, 50
_WALKS = (10, 100, WALKS)
_SETTINGS: tuple[tuple[str, int, bool], ...] = (
    ("fingerprints alone", 0, True),
    ("T = 1", 1, True),
    ("T = 2", 2, True),
    ("T = 3", 3, True),
    ("T = 2, no fingerprints", 2, False),
)


def measure(corpus: str, rows: int | None) -> Iterator[dict[str, Any]]:
    graph, about = knn_graph(corpus, rows)
    yield about
    yield from measure_on(graph)


def measure_on(graph: Adjacency) -> Iterator[dict[str, Any]]:
    rng = np.random.default_rng(0)
    sources = np.sort(rng.choice(len(graph), min(_SOURCES, len(graph)), replace=False))
    truth = exact_vectors(graph, sources)
    for walks in _WALKS:
        began = time.perf_counter()
        prints = fingerprints(graph, walks=walks)
        build_s = time.perf_counter() - began
        yield {"what": "fingerprints", "walks": walks, "build_s": build_s, "mb": prints.nbytes / 1e6}
        for name, rounds, with_prints in _SETTINGS:
            if with_prints or walks == _WALKS[0]:
                yield {"what": "error", "walks": walks if with_prints else 0, "setting": name} | _error(
                    graph, sources, truth, prints if with_prints else None, rounds
                )
        yield {"what": "batch", "walks": walks} | _batch(graph, prints, rng)


def knn_graph(corpus: str, rows: int | None) -> tuple[Adjacency, dict[str, Any]]:
    """The symmetrised graph of each record's 12 nearest, read off an HNSW index, and how true it is."""
    vectors = load_corpus(corpus).records(rows).vectors
    began = time.perf_counter()
    index = HnswIndex.build(vectors, "cosine", HnswConfig())
    built = time.perf_counter()
    nodes, scores = nearest_from_links(vectors, index.arrays()["base"], index.live, "cosine")
    edges = pairs_once(np.repeat(np.arange(len(nodes)), NEAREST), nodes.ravel(), scores.ravel())
    graph = Adjacency.undirected(len(nodes), *edges)
    done = time.perf_counter()
    sample = np.random.default_rng(1).choice(len(vectors), min(500, len(vectors)), replace=False)
    true = exact_search(vectors, vectors[sample], NEAREST + 1, "cosine").positions
    found = [
        len({p for p in row.tolist() if p != node} & set(nodes[node].tolist())) / NEAREST
        for node, row in zip(sample, true)
    ]
    about = {
        "what": "graph",
        "nodes": len(graph),
        "edges": graph.edges,
        "neighbours_found": float(np.minimum(found, 1.0).mean()),
        "index_s": built - began,
        "graph_s": done - built,
    }
    return graph, about


def exact_vectors(graph: Adjacency, sources: NDArray[np.int64], tolerance: float = 1e-9) -> NDArray[np.float64]:
    """(N, B): the PageRank vector of each source, by power iteration on all of them at once."""
    back = graph.reverse
    shares = back.weights / graph.sums[back.targets]
    flow = np.zeros((len(graph), len(sources)))
    flow[sources, np.arange(len(sources))] = 1.0
    ranks, left = np.zeros_like(flow), 1.0
    with RangePool(os.cpu_count() or 1) as pool:
        while left > tolerance:
            ranks += RESTART * flow
            coming = np.zeros_like(flow)
            pool.run(
                lambda a, b, flow=flow, coming=coming: multiply(back.starts, back.targets, shares, flow, a, b, coming),
                len(graph),
                step=2048,
            )
            coming[graph.is_dangling] += flow[graph.is_dangling]
            flow, left = (1 - RESTART) * coming, (1 - RESTART) * left
    return ranks


def _error(
    graph: Adjacency, sources: NDArray[np.int64], truth: NDArray[np.float64], prints: Fingerprints | None, rounds: int
) -> dict[str, Any]:
    errors, precision = [], []
    found = personalised(graph, sources, len(graph) if len(graph) < 200_000 else 200_000, prints=prints, rounds=rounds)
    for place in range(len(sources)):
        kept = found.nodes[place] >= 0
        guess = np.zeros(len(graph))
        guess[found.nodes[place][kept]] = found.scores[place][kept]
        errors.append(np.abs(guess - truth[:, place]).sum())
        best = np.argsort(-truth[:, place], kind="stable")[:_TOP]
        precision.append(len(np.intersect1d(best, found.nodes[place][:_TOP])) / _TOP)
    times = []
    for source in sources:
        began = time.perf_counter()
        personalised(graph, np.array([source]), _TOP, prints=prints, rounds=rounds, threads=1)
        times.append(time.perf_counter() - began)
    return {
        "l1": float(np.mean(errors)),
        "precision@50": float(np.mean(precision)),
        "edges_pushed": float(found.pushes.mean()),
        "residual": float(found.residual.mean()),
        "ms": float(np.median(times) * 1e3),
    }


def _batch(graph: Adjacency, prints: Fingerprints, rng: np.random.Generator) -> dict[str, Any]:
    sources = rng.choice(len(graph), min(_BATCH, len(graph)), replace=False)
    personalised(graph, sources[:2], _TOP, prints=prints)  # compiled, and the graph's shares are there
    seconds = {}
    for threads in (1, 2):
        began = time.perf_counter()
        together = personalised(graph, sources, _TOP, prints=prints, threads=threads)
        seconds[threads] = time.perf_counter() - began
    began = time.perf_counter()
    alone = [personalised(graph, np.array([s]), _TOP, prints=prints, threads=1) for s in sources]
    one_by_one = time.perf_counter() - began
    differ = max(float(np.abs(a.scores[0] - b).max()) for a, b in zip(alone, together.scores))
    return {
        "sources": len(sources),
        "edges": graph.edges,
        "s, 2 threads": seconds[2],
        "s, 1 thread": seconds[1],
        "s, one by one": one_by_one,
        "times as fast, 1 thread": one_by_one / seconds[1],
        "times as fast, 2 threads": one_by_one / seconds[2],
        "a fingerprint serves": _sharing(graph, sources),
        "difference": differ,
    }


def _sharing(graph: Adjacency, sources: NDArray[np.int64]) -> float:
    """For how many of the sources each vertex that two rounds reach is reached, on average: more than so many times no batch can
    gain by reading each fingerprint once.
    """
    reached = [spread(graph, np.array([s]), np.ones(1), rounds=ROUNDS).leftover[0] for s in sources]
    return sum(map(len, reached)) / len(np.unique(np.concatenate(reached)))
