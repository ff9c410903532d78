"""PowerWalk (Liu, Li, Lui & Cheng, CIKM 2016): personalised PageRank by random-walk fingerprints and decomposition.

Before any query, R walks leave every vertex; all visits on the way are counted ("full path"), and `visits * c / R` estimates the
vertex's own PageRank vector without bias, because walks are never cut. A query pushes its flow T rounds along the edges and then
takes, of each vertex that the flow has reached, the fingerprint in proportion. What T rounds settle is exact, and the rest is an
average over the walks of all these vertices: much nearer to the truth than any one fingerprint.

We depart from the paper's code in that a walk ends by chance only (theirs is cut after ten steps, and normalised), edges are
drawn by weight, and a vertex without edges keeps what reaches it (adjacency.py). Each vertex has a random stream of its own, so
the fingerprints are the same however the work is cut among threads.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vecdb.errors import InvalidInput
from vecdb.index import graph_kernels
from vecdb.index.adjacency import RESTART, THRESHOLD, Adjacency, Floats, Nodes
from vecdb.index.pool import RangePool

# From each vertex: at most R / c entries of 8 bytes are kept of it, about half of that on k-NN graphs (6.5 KB). So many that two
# rounds cut the error of fingerprints 4.3 times; with 100 it is 3.4 times, for 2.9 KB.
WALKS = 256
ROUNDS = 2
_ENTRIES_AT_ONCE = 1 << 20
_SOURCES_AT_ONCE = 16


@dataclass(frozen=True, slots=True)
class Fingerprints:
    """Vertex v's estimate of its own PageRank vector: ids and values starts[v] … starts[v+1]. starts (N+1,) int64, ids (m,)
    int32, in the order of first visits, values (m,) float32.
    """

    starts: NDArray[np.int64]
    ids: Nodes
    values: NDArray[np.float32]
    walks: int
    restart: float

    @property
    def nbytes(self) -> int:
        return self.starts.nbytes + self.ids.nbytes + self.values.nbytes


@dataclass(frozen=True, slots=True)
class PageRanks:
    """For B sources the k best nodes (B, k) int64, best first, equal ones by number, -1 where fewer were reached; their scores
    (B, k) float64; residual (B,): the mass of each that was dropped, or left over where there are no fingerprints; pushes (B,)
    int64: edges that flow was sent along.
    """

    nodes: NDArray[np.int64]
    scores: Floats
    residual: Floats
    pushes: NDArray[np.int64]


def fingerprints(
    graph: Adjacency, *, walks: int = WALKS, restart: float = RESTART, seed: int = 0, threads: int | None = None
) -> Fingerprints:
    """Walks from every vertex. Equal for equal seeds, whatever the threads (None: as many as there are processors)."""
    if walks < 1:
        raise InvalidInput(f"walks is {walks}; at least one must leave each vertex")
    _check_restart(restart)
    size = len(graph)
    limits = _limits(graph)
    parts: dict[int, list[tuple[Nodes, NDArray[np.float32]]]] = {}
    counts = np.zeros(size, dtype=np.int64)

    def work(first: int, stop: int) -> None:
        found = []
        visits, touched = np.zeros(size, np.int32), np.empty(size, np.int32)
        room = max(min(_ENTRIES_AT_ONCE, int((stop - first) * walks / restart)), size)
        while first < stop:
            ids, values = np.empty(room, np.int32), np.empty(room, np.float32)
            after, used = graph_kernels.walk(
                graph.starts,
                graph.targets,
                limits,
                first,
                stop,
                walks,
                restart,
                seed,
                visits,
                touched,
                ids,
                values,
                counts,
            )
            found.append((first, ids[:used].copy(), values[:used].copy()))
            first = after
        parts[found[0][0]] = [(ids, values) for _, ids, values in found]

    threads = threads or os.cpu_count() or 1
    with RangePool(threads) as pool:
        pool.run(work, size, step=max(256, size // (8 * threads) + 1))
    pieces = [piece for first in sorted(parts) for piece in parts[first]]
    starts = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    ids = np.concatenate([ids for ids, _ in pieces]) if pieces else np.empty(0, np.int32)
    values = np.concatenate([values for _, values in pieces]) if pieces else np.empty(0, np.float32)
    return Fingerprints(starts, ids, values, walks, restart)


def finished(scores: Floats, nodes: NDArray[np.int64], flow: Floats, prints: Fingerprints) -> float:
    """Add what fingerprints say of the flow (m,) left over at nodes (m,) to scores (N,), in place (step 6 of the
    decomposition). Returns the flow at vertices that have no fingerprint.
    """
    return float(graph_kernels.settle(scores, nodes.astype(np.int32), flow, prints.starts, prints.ids, prints.values))


def personalised(
    graph: Adjacency,
    sources: Sequence[Mapping[int, float]] | NDArray[np.integer[Any]],
    k: int,
    *,
    prints: Fingerprints | None,
    rounds: int = ROUNDS,
    restart: float = RESTART,
    threshold: float = THRESHOLD,
    threads: int | None = None,
) -> PageRanks:
    """The k nodes of largest personalised PageRank for each of B sources: nodes, or distributions {node: weight}.

    A batch is one piece of work: sources that are equal are computed once, the threads share ranges of the others, and what one
    source needs to remember is used again for the next. prints=None: rounds of pushing alone, what is left over is residual.
    """
    _check_restart(restart)
    if k < 1 or rounds < 0 or not threshold >= 0:
        raise InvalidInput(f"k is {k}, rounds {rounds}, threshold {threshold}; they must be at least 1, 0 and 0")
    if prints is not None and prints.restart != restart:
        raise InvalidInput(f"the fingerprints were made for restart {prints.restart}, not {restart}; make them anew")
    starts, nodes, weights, copy_of = _flattened(sources, len(graph))
    found = PageRanks(
        np.full((len(starts) - 1, k), -1, np.int64),
        np.zeros((len(starts) - 1, k)),
        np.zeros(len(starts) - 1),
        np.zeros(len(starts) - 1, np.int64),
    )
    known = prints or Fingerprints(
        np.zeros(len(graph) + 1, np.int64), np.empty(0, np.int32), np.empty(0, np.float32), 0, restart
    )
    shares = graph.shares

    def work(first: int, stop: int) -> None:
        graph_kernels.decompose(
            graph.starts, graph.targets, shares, known.starts, known.ids, known.values, starts, nodes, weights,
            first, stop, restart, rounds, threshold, found.nodes, found.scores, found.residual, found.pushes,
        )  # fmt: skip

    threads = threads or os.cpu_count() or 1
    count = len(starts) - 1
    with RangePool(min(threads, count)) as pool:
        pool.run(work, count, step=max(_SOURCES_AT_ONCE, -(-count // (4 * threads))))
    return PageRanks(found.nodes[copy_of], found.scores[copy_of], found.residual[copy_of], found.pushes[copy_of])


def _flattened(
    sources: Sequence[Mapping[int, float]] | NDArray[np.integer[Any]], size: int
) -> tuple[NDArray[np.int64], Nodes, Floats, NDArray[np.int64]]:
    """Different sources as starts (u+1,), nodes and weights (m,), in order of their first nodes; and which one each of the
    given ones is (B,).
    """
    given = [{int(s): 1.0} if isinstance(s, int | np.integer) else s for s in sources]
    numbers: dict[tuple[tuple[int, float], ...], int] = {}
    keys = [tuple(sorted((int(node), float(weight)) for node, weight in one.items())) for one in given]
    for key in sorted(set(keys)):
        total = sum(weight for _, weight in key)
        if not key or not 0 <= key[0][0] <= key[-1][0] < size:
            raise InvalidInput(f"a source has nodes {[node for node, _ in key]}; give some of 0 to {size - 1}")
        if any(not weight > 0 for _, weight in key) or not np.isfinite(total):
            raise InvalidInput(
                f"a source has weights {[weight for _, weight in key]}; they must be above 0, and finite"
            )
        numbers[key] = len(numbers)
    starts = np.concatenate([[0], np.cumsum([len(key) for key in numbers])]).astype(np.int64)
    nodes = np.array([node for key in numbers for node, _ in key], dtype=np.int32)
    sums = [sum(weight for _, weight in key) for key in numbers]
    weights = np.array([weight / total for key, total in zip(numbers, sums) for _, weight in key], dtype=np.float64)
    return starts, nodes, weights, np.array([numbers[key] for key in keys], dtype=np.int64)


def _limits(graph: Adjacency) -> Floats:
    """(E,) running sums of each vertex's edge probabilities, the last one 1: where a number drawn from 0 … 1 falls."""
    sums = np.concatenate([[0.0], np.cumsum(graph.shares)])
    limits: Floats = sums[1:] - sums[graph.starts[graph.sources]]
    limits[graph.starts[1:][~graph.is_dangling] - 1] = 1.0
    return limits


def _check_restart(restart: float) -> None:
    if not 0 < restart < 1:
        raise InvalidInput(f"restart is {restart}; it must lie between 0 and 1, both excluded")
