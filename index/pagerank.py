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

import numpy as np
from numba import njit
from numpy.typing import NDArray

from vecdb.errors import InvalidInput
from vecdb.index.adjacency import RESTART, THRESHOLD, Adjacency, Floats, Nodes
from vecdb.index.pool import RangePool

WALKS = 100  # from each vertex: at most R / c entries of 8 bytes are kept of it, about a third of that on k-NN graphs
ROUNDS = 2
_ENTRIES_AT_ONCE = 1 << 20
_SOURCES_AT_ONCE = 16
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)  # SplitMix64 (Steele, Lea & Flood 2014)


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
            after, used = walk(
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
    return float(settle(scores, nodes.astype(np.int32), flow, prints.starts, prints.ids, prints.values))


def personalised(
    graph: Adjacency,
    sources: Sequence[Mapping[int, float]] | NDArray[np.integer],
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
        decompose(
            graph.starts, graph.targets, shares, known.starts, known.ids, known.values, starts, nodes, weights,
            first, stop, restart, rounds, threshold, found.nodes, found.scores, found.residual, found.pushes,
        )  # fmt: skip

    threads = threads or os.cpu_count() or 1
    count = len(starts) - 1
    with RangePool(min(threads, count)) as pool:
        pool.run(work, count, step=max(_SOURCES_AT_ONCE, -(-count // (4 * threads))))
    return PageRanks(*(column[copy_of] for column in (found.nodes, found.scores, found.residual, found.pushes)))


def _flattened(
    sources: Sequence[Mapping[int, float]] | NDArray[np.integer], size: int
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


# Kernels --------------------------------------------------------------------------------------------------------------


@njit(cache=True, nogil=True)
def mixed(state):
    """The random number of a state of SplitMix64. uint64 -> uint64."""
    z = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


@njit(cache=True, nogil=True)
def walk(starts, targets, limits, first, stop, walks, restart, seed, visits, touched, ids, values, counts):
    """Walk from vertices first … stop-1 and write their fingerprints one behind the other, counts[v] entries for vertex v.

    visits (N,) int32 zeros, and left so; touched (N,). Returns the first vertex for which there was no room, and the entries
    written.
    """
    used = 0
    for source in range(first, stop):
        state = mixed(mixed(np.uint64(seed)) + _GOLDEN * np.uint64(source + 1))
        size = 0
        for _ in range(walks):
            here = source
            while True:
                if visits[here] == 0:
                    touched[size] = here
                    size += 1
                visits[here] += 1
                state += _GOLDEN
                drawn = np.float64(mixed(state) >> np.uint64(11)) * 2.0**-53
                if drawn < restart:
                    break
                low = starts[here]
                high = starts[here + 1]
                if low == high:
                    continue
                drawn = (drawn - restart) / (1.0 - restart)
                high -= 1
                while low < high:
                    middle = (low + high) >> 1
                    if drawn < limits[middle]:
                        high = middle
                    else:
                        low = middle + 1
                here = targets[low]
        is_full = used + size > len(ids)
        for i in range(size):
            node = touched[i]
            if not is_full:
                ids[used + i] = node
                values[used + i] = visits[node] * restart / walks
            visits[node] = 0
        if is_full:
            return source, used
        counts[source] = size
        used += size
    return stop, used


@njit(cache=True, nogil=True)
def settle(scores, nodes, flow, print_starts, print_ids, print_values):
    """scores[…] += flow[i] * the fingerprint of nodes[i]; returns the flow at vertices without one."""
    lost = 0.0
    for i in range(len(nodes)):
        low = print_starts[nodes[i]]
        high = print_starts[nodes[i] + 1]
        if low == high:
            lost += flow[i]
        for j in range(low, high):
            scores[print_ids[j]] += flow[i] * print_values[j]
    return lost


@njit(cache=True, nogil=True)
def sinks(score, node, other_score, other_node):
    """Does a node belong behind another one in the answer?"""
    return score < other_score or (score == other_score and node > other_node)


@njit(cache=True, nogil=True)
def sift(nodes, scores, at, size):
    """Let the entry at `at` sink to its place in a heap whose first entry is the one to be pushed out next."""
    node = nodes[at]
    score = scores[at]
    while 2 * at + 1 < size:
        child = 2 * at + 1
        if child + 1 < size and sinks(scores[child + 1], nodes[child + 1], scores[child], nodes[child]):
            child += 1
        if not sinks(scores[child], nodes[child], score, node):
            break
        nodes[at] = nodes[child]
        scores[at] = scores[child]
        at = child
    nodes[at] = node
    scores[at] = score


@njit(cache=True, nogil=True)
def best(result, touched, size, nodes, scores):
    """The largest of result[touched[:size]] into nodes and scores (k,), best first."""
    k = min(len(nodes), size)
    for i in range(k):
        nodes[i] = touched[i]
        scores[i] = result[touched[i]]
    for i in range(k // 2 - 1, -1, -1):
        sift(nodes, scores, i, k)
    for i in range(k, size):
        node = touched[i]
        if sinks(scores[0], nodes[0], result[node], node):
            nodes[0] = node
            scores[0] = result[node]
            sift(nodes, scores, 0, k)
    for i in range(k - 1, 0, -1):
        last_node = nodes[i]
        last_score = scores[i]
        nodes[i] = nodes[0]
        scores[i] = scores[0]
        nodes[0] = last_node
        scores[0] = last_score
        sift(nodes, scores, 0, i)


@njit(cache=True, nogil=True)
def decompose(
    starts, targets, shares, print_starts, print_ids, print_values, source_starts, source_nodes, source_weights,
    first, stop, restart, rounds, threshold, out_nodes, out_scores, out_residual, out_pushes,
):  # fmt: skip
    """Sources first … stop-1, one after the other, on one set of arrays that each leaves as it found them."""
    size = len(starts) - 1
    flow = np.zeros(size)
    coming = np.zeros(size)
    result = np.zeros(size)
    is_touched = np.zeros(size, np.bool_)
    is_coming = np.zeros(size, np.bool_)
    touched = np.empty(size, np.int32)
    active = np.empty(size, np.int32)
    following = np.empty(size, np.int32)
    for source in range(first, stop):
        reached = 0
        residual = 0.0
        pushes = 0
        count = 0
        for i in range(source_starts[source], source_starts[source + 1]):
            active[count] = source_nodes[i]
            flow[source_nodes[i]] = source_weights[i]
            count += 1
        for _ in range(rounds):
            upcoming = 0
            for i in range(count):
                node = active[i]
                if not is_touched[node]:
                    is_touched[node] = True
                    touched[reached] = node
                    reached += 1
                low = starts[node]
                high = starts[node + 1]
                if low == high:
                    result[node] += flow[node]
                    flow[node] = 0.0
                    continue
                result[node] += restart * flow[node]
                moved = (1.0 - restart) * flow[node]
                flow[node] = 0.0
                pushes += high - low
                for j in range(low, high):
                    target = targets[j]
                    if not is_coming[target]:
                        is_coming[target] = True
                        following[upcoming] = target
                        upcoming += 1
                    coming[target] += moved * shares[j]
            count = 0
            for i in range(upcoming):
                node = following[i]
                is_coming[node] = False
                if coming[node] < threshold:
                    residual += coming[node]
                else:
                    flow[node] = coming[node]
                    active[count] = node
                    count += 1
                coming[node] = 0.0
        for i in range(count):
            node = active[i]
            low = print_starts[node]
            high = print_starts[node + 1]
            if low == high:
                residual += flow[node]
            for j in range(low, high):
                target = print_ids[j]
                if not is_touched[target]:
                    is_touched[target] = True
                    touched[reached] = target
                    reached += 1
                result[target] += flow[node] * print_values[j]
            flow[node] = 0.0
        best(result, touched, reached, out_nodes[source], out_scores[source])
        out_residual[source] = residual
        out_pushes[source] = pushes
        for i in range(reached):
            result[touched[i]] = 0.0
            is_touched[touched[i]] = False
