"""Every compiled function for graphs. They take arrays and numbers, check nothing, raise nothing and hold no lock; several
threads call them on ranges of the same work. They are in one file because Numba's disk cache does not notice when a callee in
another one changes. Graphs are as adjacency.py has them: node v's edges are starts[v] … starts[v+1].
"""

from __future__ import annotations

import numpy as np
from numba import njit

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)  # SplitMix64 (Steele, Lea & Flood 2014)

# Once fingerprints have more entries than one for so many vertices, adding them up blindly and looking at all vertices is faster
# (2.5 times with 100 walks) than asking of each entry whether its vertex was met before.
_DENSE = 8

# PageRank -------------------------------------------------------------------------------------------------------------


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
    heap(nodes, scores, k)
    for i in range(k, size):
        node = touched[i]
        if sinks(scores[0], nodes[0], result[node], node):
            nodes[0] = node
            scores[0] = result[node]
            sift(nodes, scores, 0, k)
    unheap(nodes, scores, k)


@njit(cache=True, nogil=True)
def best_of_all(result, nodes, scores):
    """The same of all nodes whose result is above 0."""
    k = 0
    least = 0.0
    for node in range(len(result)):  # ascending: of equal ones those that come later never belong before
        score = result[node]
        if score > least:
            if k < len(nodes):
                nodes[k] = node
                scores[k] = score
                k += 1
                if k < len(nodes):
                    continue
                heap(nodes, scores, k)
            else:
                nodes[0] = node
                scores[0] = score
                sift(nodes, scores, 0, k)
            least = scores[0]
    if k < len(nodes):
        heap(nodes, scores, k)
    unheap(nodes, scores, k)


@njit(cache=True, nogil=True)
def heap(nodes, scores, size):
    """Put the first entries in the order that sift keeps."""
    for i in range(size // 2 - 1, -1, -1):
        sift(nodes, scores, i, size)


@njit(cache=True, nogil=True)
def unheap(nodes, scores, size):
    """Sort such entries, best first."""
    for i in range(size - 1, 0, -1):
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
                low = starts[node]
                high = starts[node + 1]
                settled = flow[node] if low == high else restart * flow[node]
                if result[node] == 0.0 and settled > 0.0:
                    touched[reached] = node
                    reached += 1
                result[node] += settled
                moved = (1.0 - restart) * flow[node]
                flow[node] = 0.0
                if low == high:
                    continue
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
        entries = 0
        for i in range(count):
            entries += print_starts[active[i] + 1] - print_starts[active[i]]
        is_dense = entries > size // _DENSE
        for i in range(count):
            node = active[i]
            share = flow[node]
            flow[node] = 0.0
            low = print_starts[node]
            high = print_starts[node + 1]
            if low == high:
                residual += share
            elif is_dense:
                for j in range(low, high):
                    result[print_ids[j]] += share * print_values[j]
            else:
                for j in range(low, high):
                    target = print_ids[j]
                    known = result[target]
                    more = share * print_values[j]
                    if known == 0.0 and more > 0.0:  # what is above 0 once stays so: each node is listed once
                        touched[reached] = target
                        reached += 1
                    result[target] = known + more
        if is_dense:
            best_of_all(result, out_nodes[source], out_scores[source])
            result[:] = 0.0
        else:
            best(result, touched, reached, out_nodes[source], out_scores[source])
            for i in range(reached):
                result[touched[i]] = 0.0
        out_residual[source] = residual
        out_pushes[source] = pushes


# Nearest neighbours ---------------------------------------------------------------------------------------------------


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


# Products -------------------------------------------------------------------------------------------------------------


@njit(cache=True, nogil=True)
def multiply(starts, targets, shares, dense, first, stop, out):
    """out[first:stop] = rows first … stop-1 of a sparse matrix times dense (N, D). out is zeros."""
    for row in range(first, stop):
        for j in range(starts[row], starts[row + 1]):
            share = shares[j]
            target = targets[j]
            for d in range(dense.shape[1]):
                out[row, d] += share * dense[target, d]
