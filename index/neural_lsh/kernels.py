"""The compiled loops of a learned partition. They take arrays and numbers, check nothing and raise nothing.

Touch this file after an edit of simd.py: Numba's disk cache does not notice that a callee in another file has changed.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from vecdb.index.kernels import DOT, L2, MIDDLE
from vecdb.index.simd import dot_codes

# Sums may be taken in any order, so that they can be vectors; nothing is assumed of infinities.
_compiled = njit(cache=True, nogil=True, error_model="numpy", fastmath={"contract", "reassoc"})


# Partition ------------------------------------------------------------------------------------------------------------


@_compiled
def fill_bins(order, choices, capacity, labels, sizes):
    """Each node of order (n,) int64 goes to the first of its choices (N, c) int32 that has room: labels (N,) int32, and
    sizes (m,) int64 grow; who finds none keeps -1 -> how many.
    """
    left = 0
    for node in order:
        placed = False
        for c in range(choices.shape[1]):
            bin = choices[node, c]
            if sizes[bin] < capacity:
                labels[node] = bin
                sizes[bin] += 1
                placed = True
                break
        if not placed:
            left += 1
    return left


@_compiled
def propagate(order, starts, neighbours, weights, labels, sizes, capacity, votes):
    """One pass of label propagation: each node of order moves to the bin where most of its edges' weight lies, if that is more
    than where it is and there is room -> how many moved. Edges of node i are starts[i] … starts[i + 1]. votes (m,): zeros.
    """
    moved = 0
    for node in order:
        own = labels[node]
        for e in range(starts[node], starts[node + 1]):
            votes[labels[neighbours[e]]] += weights[e]
        best = own
        most = votes[own]
        for e in range(starts[node], starts[node + 1]):
            bin = labels[neighbours[e]]
            if votes[bin] > most and sizes[bin] < capacity:
                most = votes[bin]
                best = bin
        for e in range(starts[node], starts[node + 1]):
            votes[labels[neighbours[e]]] = np.float32(0.0)
        if best != own:
            labels[node] = best
            sizes[own] -= 1
            sizes[best] += 1
            moved += 1
    return moved


# Search ---------------------------------------------------------------------------------------------------------------


@_compiled
def _sift_down(distances, rows, size):
    """The root of a heap (largest first) finds its place."""
    at = 0
    while True:
        child = 2 * at + 1
        if child >= size:
            return
        if child + 1 < size and distances[child + 1] > distances[child]:
            child += 1
        if distances[child] <= distances[at]:
            return
        distances[at], distances[child] = distances[child], distances[at]
        rows[at], rows[child] = rows[child], rows[at]
        at = child


@_compiled
def _sift_up(distances, rows, size):
    """The last of a heap of so many finds its place."""
    at = size - 1
    while at > 0:
        parent = (at - 1) // 2
        if distances[parent] >= distances[at]:
            return
        distances[at], distances[parent] = distances[parent], distances[at]
        rows[at], rows[parent] = rows[parent], rows[at]
        at = parent


@_compiled
def _scan_bin(
    codes, scales, norms, members, first, last, allowed, filtered, query, sum_of_query, scale, distances, rows, size
):
    """Rows first … last of the codes against a query's code; the nearest so far are in a heap -> its size, how many were allowed.

    The distance is norm - 2 · scale · scale of the row · product: the query's own norm would change no order.
    """
    room = distances.shape[0]
    seen = 0
    for row in range(first, last):
        if filtered and not allowed[members[row]]:
            continue
        seen += 1
        product = np.float32(dot_codes(codes, row, query) - MIDDLE * sum_of_query)
        away = norms[row] - np.float32(2.0) * (scale * scales[row]) * product
        if size < room:
            distances[size] = away
            rows[size] = row
            size += 1
            _sift_up(distances, rows, size)
        elif away < distances[0]:
            distances[0] = away
            rows[0] = row
            _sift_down(distances, rows, size)
    return size, seen


@_compiled
def _likelier(keys, a, b):
    """Whether bin a comes before bin b: the larger logit, then the lower number, as argmax has it."""
    return keys[a] > keys[b] or (keys[a] == keys[b] and a < b)


@_compiled
def _settle(keys, heap, at, size):
    """heap[at] finds its place in a heap of bins, likeliest first."""
    while True:
        child = 2 * at + 1
        if child >= size:
            return
        if child + 1 < size and _likelier(keys, heap[child + 1], heap[child]):
            child += 1
        if not _likelier(keys, heap[child], heap[at]):
            return
        heap[at], heap[child] = heap[child], heap[at]
        at = child


@_compiled
def scan(
    codes,
    scales,
    norms,
    members,
    bounds,
    queries,
    sums,
    query_scales,
    logits,
    probes,
    mass,
    wanted,
    allowed,
    filtered,
    distances,
    rows,
    work,
):
    """For each of B queries: the nearest rows, by codes, of its likeliest bins.

    codes (N, W) uint8, scales, norms (N,) float32: rows in the order of bins; members (N,) int64: the position of each; bounds
    (m + 1,): where each bin begins. queries (B, W) int8, their sums and scales (B,). logits (B, m) float32 of the bins: the
    likeliest `probes` are looked into, or as many as their probabilities need to add up to `mass` if that is more; then more
    until `wanted` rows were allowed. Bins all but as likely as the first are looked into with it, because rounding decides which
    of them is first. allowed (N',) bool by position, read if filtered. Fills distances (B, r) and rows (B, r) int64, -1 behind
    the last, in no order; work (B,): rows measured.
    """
    bins = logits.shape[1]
    heap = np.empty(bins, np.int64)
    for i in range(queries.shape[0]):
        keys = logits[i]
        for bin in range(bins):
            heap[bin] = bin
        for at in range(bins // 2 - 1, -1, -1):
            _settle(keys, heap, at, bins)
        top = keys[heap[0]]
        whole = 0.0
        if mass > 0.0:
            for bin in range(bins):
                whole += np.exp(np.float64(keys[bin] - top))
        margin = top - np.float32(1e-4) * max(np.float32(1.0), abs(top))
        size = np.int64(0)
        total = np.int64(0)
        summed = 0.0
        for t in range(bins):
            bin = heap[0]
            if t >= probes and summed >= mass * whole and total >= wanted and keys[bin] < margin:
                break
            heap[0] = heap[bins - 1 - t]
            _settle(keys, heap, 0, bins - 1 - t)
            size, seen = _scan_bin(
                codes,
                scales,
                norms,
                members,
                bounds[bin],
                bounds[bin + 1],
                allowed,
                filtered,
                queries[i],
                sums[i],
                query_scales[i],
                distances[i],
                rows[i],
                size,
            )
            total += seen
            if mass > 0.0:
                summed += np.exp(np.float64(keys[bin] - top))
        rows[i, size:] = -1
        work[i] = total


@_compiled
def recheck(vectors, members, rows, queries, metric, positions, distances):
    """The k nearest of each query's rows (B, r) in full precision, by (distance, position): positions, distances (B, k).

    vectors (N', D) by position. metric: one of METRIC_CODES. Sums are taken in
    float64, so that distances equal what the exact index says; what is unused is -1 and inf.
    """
    k = positions.shape[1]
    for i in range(rows.shape[0]):
        size = 0
        for j in range(rows.shape[1]):
            if rows[i, j] < 0:
                break
            position = members[rows[i, j]]
            total = 0.0
            if metric == L2:
                for d in range(queries.shape[1]):
                    difference = np.float64(vectors[position, d]) - np.float64(queries[i, d])
                    total += difference * difference
            else:
                for d in range(queries.shape[1]):
                    total += np.float64(vectors[position, d]) * np.float64(queries[i, d])
                total = -total if metric == DOT else max(1.0 - total, 0.0)
            away = np.float32(total)
            if size == k and (away, position) >= (distances[i, k - 1], positions[i, k - 1]):
                continue
            at = size if size < k else k - 1
            while at > 0 and (away, position) < (distances[i, at - 1], positions[i, at - 1]):
                distances[i, at] = distances[i, at - 1]
                positions[i, at] = positions[i, at - 1]
                at -= 1
            distances[i, at] = away
            positions[i, at] = position
            size = min(size + 1, k)
        positions[i, size:] = -1
        distances[i, size:] = np.inf
