"""Every compiled function of the index. They take arrays and numbers, check nothing, raise nothing and hold no lock.

All are in one file because Numba's disk cache does not notice when a callee in another file changes. All run on one
thread and release the interpreter's lock; several threads call them on ranges of the same work (see pool.py). What two
ranges write never overlaps, so a result does not depend on how the work was cut.

Words. A beam is an int64 array of which the first `size` entries are in use, ascending: each is a key, distance in the
upper half and node in the lower, so that one comparison orders by distance and then by position (`key_of`). `marks` (N,)
uint8 says which nodes the present search has seen: those whose mark equals the generation, clock[0]. A search begins by
adding one to the clock.
Distances inside are squared Euclidean under l2 and the negated dot product otherwise; `report` turns them into the metric's.

The first half of the file is called by the second half only; the functions in `SIGNATURES` are called from Python.
"""

from __future__ import annotations

import threading
from typing import Any, NamedTuple

import numpy as np
from llvmlite import ir  # type: ignore[import-untyped]
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

L2 = 0
DOT = 1  # ip
UNIT_DOT = 2  # cosine over unit vectors: 1 - dot
METRIC_CODES = {"l2": L2, "ip": DOT, "cosine": UNIT_DOT}

_MENDING_BEAM = 256  # candidates for the links of a node that lost some: about what ef_construction gives a new node
_LINE = 16  # 4-byte numbers in a cache line
_AHEAD = 3  # rows asked for before they are measured
_SCAN_SLACK = 16  # so many more than k are measured in float64, because float32 may misplace what is nearly equal
_PEERS_AT_ONCE = 16  # of 384 numbers each: half of a first-level cache


class Graph(NamedTuple):
    """The graph as kernels read it; N nodes in vectors of D numbers, of which U reach above the base level."""

    vectors: np.ndarray  # (N, D) float32
    base: np.ndarray  # (N, 2M) int32: links on the base level, -1 after the last
    upper: (
        np.ndarray
    )  # (U, M) int32: links on the levels above; those of node n on level l stand in row starts[n] + l - 1
    starts: np.ndarray  # (N,) int32
    levels: np.ndarray  # (N,) uint8: highest level of each node
    metric: int
    entry: int  # where searches start: a node of the highest level; -1 if there is none
    top: int  # its level


# reassoc lets LLVM sum in vector registers. Not plain fastmath: that assumes that inf and nan never occur.
_compiled = njit(cache=True, nogil=True, fastmath={"contract", "reassoc"}, error_model="numpy")


@intrinsic
def _prefetch(typing_context, array, row, column):
    """Ask for the cache line of array[row, column]; a hint that changes no value."""

    def generate(context, builder, signature, arguments):
        array_type = signature.args[0]
        struct = context.make_array(array_type)(context, builder, arguments[0])
        indices = [
            context.cast(builder, value, kind, types.intp) for value, kind in zip(arguments[1:], signature.args[1:])
        ]
        address = cgutils.get_item_pointer(context, builder, array_type, struct, indices, wraparound=False)
        pointer, number = ir.IntType(8).as_pointer(), ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [pointer, number, number, number])
        hint = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
        to_read, keep_long, data = (ir.Constant(number, value) for value in (0, 3, 1))
        builder.call(hint, [builder.bitcast(address, pointer), to_read, keep_long, data])
        return context.get_dummy_value()

    return types.void(array, row, column), generate


@intrinsic
def _shift_right(typing_context, array, start, stop):
    """array[start + 1:stop + 1] = array[start:stop], by the C library's memmove: a loop of ours takes three times as long."""

    def generate(context, builder, signature, arguments):
        array_type = signature.args[0]
        data = context.make_array(array_type)(context, builder, arguments[0]).data
        first, last = (
            context.cast(builder, value, kind, types.intp) for value, kind in zip(arguments[1:], signature.args[1:])
        )
        one_on = builder.add(first, ir.Constant(first.type, 1))
        source, target = builder.gep(data, [first]), builder.gep(data, [one_on])
        cgutils.raw_memmove(builder, target, source, builder.sub(last, first), array_type.dtype.bitwidth // 8)
        return context.get_dummy_value()

    return types.void(array, start, stop), generate


@_compiled
def prefetch_row(matrix, row):
    """Ask for all of matrix[row], of 4-byte numbers: a search at 88,000 x 384 waits for memory most of its time."""
    for d in range(0, matrix.shape[1], _LINE):
        _prefetch(matrix, row, d)  # type: ignore[call-arg]


@_compiled
def distance(vectors, row, query, metric):
    """From vectors[row] to query (D,) -> float32."""
    total = np.float32(0.0)
    if metric == L2:
        for d in range(query.shape[0]):
            difference = vectors[row, d] - query[d]
            total += difference * difference
        return total
    for d in range(query.shape[0]):
        total += vectors[row, d] * query[d]
    return -total


@_compiled
def precise_distance(vectors, row, query, metric):
    """As the metric defines it, computed in float64, so that it equals what the exact index says -> float32."""
    total = 0.0
    if metric == L2:
        for d in range(query.shape[0]):
            difference = np.float64(vectors[row, d]) - np.float64(query[d])
            total += difference * difference
        return np.float32(total)
    for d in range(query.shape[0]):
        total += np.float64(vectors[row, d]) * np.float64(query[d])
    if metric == DOT:
        return np.float32(-total)
    return np.float32(max(1.0 - total, 0.0))


@_compiled
def next_generation(marks, clock):
    """A mark that no node bears."""
    clock[0] += 1
    if clock[0] > 255:
        marks[:] = 0
        clock[0] = 1
    return np.uint8(clock[0])


@_compiled
def key_of(distance, node):
    """One int64 that sorts by distance (float32), then node: [31 bits and sign: distance] [31: node] [1: expanded].

    The bits of a float32, read as an integer, sort like the float if it is positive, and backwards if it is negative.
    """
    bits = np.float32(distance + np.float32(0.0)).view(np.int32)  # + 0: there is no -0 to sort before 0
    ordered = bits if bits >= 0 else np.int32(bits ^ 0x7FFFFFFF)
    return (np.int64(ordered) << 32) | (np.int64(node) << 1)


@_compiled
def distance_of(key):
    ordered = np.int32(key >> 32)
    bits = ordered if ordered >= 0 else np.int32(ordered ^ 0x7FFFFFFF)
    return np.int32(bits).view(np.float32)


@_compiled
def node_of(key):
    return (key & 0xFFFFFFFF) >> 1


@_compiled
def is_expanded(key):
    return key & 1 != 0


@_compiled
def insert(beam, size, limit, key):
    """Put a key into a beam of at most `limit`, pushing out the last if it is full -> its place, or -1 if it is too far.

    Where it returns a place, the beam has grown by one unless it was full.
    """
    low = 0
    high = size
    while low < high:
        middle = (low + high) >> 1
        if beam[middle] < key:
            low = middle + 1
        else:
            high = middle
    if low >= limit:
        return -1
    _shift_right(beam, low, min(size, limit - 1))  # type: ignore[call-arg]
    beam[low] = key
    return low


@_compiled
def link_row(graph, node, level):
    """Where in base (level 0) or upper (above) the node's links stand."""
    return np.int64(node) if level == 0 else np.int64(graph.starts[node]) + level - 1


@_compiled
def search_level(graph, query, level, ef, marks, generation, beam, size, fresh, sought):
    """search_layer, algorithm 2 of Malkov & Yashunin (2016), from the beam's first `size` nodes -> (size, work).

    Departure: one sorted array is both the candidates and the results. What falls off its end is farther than the ef best
    and would never be expanded. fresh: room for one node's links. The walk ends early where it meets the node `sought`
    (-1: none).
    """
    links = graph.base if level == 0 else graph.upper
    work = 0
    cursor = 0
    while cursor < size and (sought < 0 or marks[sought] != generation):
        key = beam[cursor]
        if is_expanded(key):
            cursor += 1
            continue
        beam[cursor] = key | 1
        cursor += 1
        row = link_row(graph, node_of(key), level)
        count = 0
        for i in range(links.shape[1]):
            link = links[row, i]
            if link < 0:
                break
            if marks[link] != generation:
                marks[link] = generation
                fresh[count] = link
                count += 1
        work += count
        if cursor < size:  # the next to be expanded, unless a nearer one comes up now
            prefetch_row(links, link_row(graph, node_of(beam[cursor]), level))
        size, cursor = score_into_beam(graph, query, ef, beam, size, cursor, fresh, count)
    return size, work


@_compiled
def score_into_beam(graph, query, ef, beam, size, cursor, fresh, count):
    """Offer fresh[:count] to the beam -> (size, cursor), the cursor at the first node that may be unexpanded."""
    for i in range(min(_AHEAD, count)):
        prefetch_row(graph.vectors, fresh[i])
    for i in range(count):
        if i + _AHEAD < count:
            prefetch_row(graph.vectors, fresh[i + _AHEAD])
        key = key_of(distance(graph.vectors, fresh[i], query, graph.metric), fresh[i])
        if size < ef or key < beam[size - 1]:
            cursor = min(cursor, insert(beam, size, ef, key))
            size = min(size + 1, ef)
    return size, cursor


@_compiled
def descend(graph, query, level):
    """Greedy walk from the entry down to just above `level` -> (node, its distance, work)."""
    nearest = graph.entry
    least = distance(graph.vectors, nearest, query, graph.metric)
    work = 1
    for upper_level in range(graph.top, level, -1):
        moved = True
        while moved:
            moved = False
            row = link_row(graph, nearest, upper_level)
            for i in range(graph.upper.shape[1]):
                link = graph.upper[row, i]
                if link < 0:
                    break
                candidate = distance(graph.vectors, link, query, graph.metric)
                work += 1
                if candidate < least:
                    least = candidate
                    nearest = np.int64(link)
                    moved = True
    return nearest, least, work


@_compiled
def search_base(graph, query, ef, marks, clock, beam, fresh, sought):
    """Descent and beam search on the base level, sought as in search_level -> (size of the beam, work)."""
    generation = next_generation(marks, clock)
    nearest, least, work = descend(graph, query, 0)
    beam[0] = key_of(least, nearest)
    marks[nearest] = generation
    size, more = search_level(graph, query, 0, ef, marks, generation, beam, 1, fresh, sought)
    return size, work + more


@_compiled
def report(graph, query, beam, count, best, k, positions, distances):
    """Measure beam[:count] precisely and write the best k by (distance, position); the rest of the row is -1 and inf.

    best: room for k keys.
    """
    size = 0
    for i in range(count):
        node = node_of(beam[i])
        if insert(best, size, k, key_of(precise_distance(graph.vectors, node, query, graph.metric), node)) >= 0:
            size = min(size + 1, k)
    for i in range(k):
        positions[i] = node_of(best[i]) if i < size else -1
        distances[i] = distance_of(best[i]) if i < size else np.float32(np.inf)


@_compiled
def meets(graph, node, ef, marks, clock, beam, fresh):
    """Does a search for the node's own vector meet it, or fill the beam with others that are as near? -> (answer, size)."""
    query = graph.vectors[node]
    size, _ = search_base(graph, query, ef, marks, clock, beam, fresh, node)
    if marks[node] == np.uint8(clock[0]):
        return True, size
    is_crowded = size == ef and distance_of(beam[size - 1]) <= distance(graph.vectors, node, query, graph.metric)
    return is_crowded, size


@_compiled
def select(graph, beam, size, limit, chosen, count):
    """select_neighbours_heuristic, algorithm 4 of Malkov & Yashunin (2016) -> how many are chosen, limit at most.

    A candidate of the beam is taken if it is nearer to the node in the middle than to all taken before it. chosen[:count]
    is taken beforehand. Departure: a candidate exactly as near to a taken one is refused, so that copies of one vector do
    not fill the list and shut themselves in.
    """
    for i in range(size):
        if count >= limit:
            break
        node = node_of(beam[i])
        away = distance_of(beam[i])
        candidate = graph.vectors[node]
        keep = True
        for j in range(count):
            if distance(graph.vectors, chosen[j], candidate, graph.metric) <= away:
                keep = False
                break
        if keep:
            chosen[count] = node
            count += 1
    return count


@_compiled
def contains(nodes, count, node):
    """Is node among nodes[:count]?"""
    i = 0
    while i < count and nodes[i] != node:
        i += 1
    return i < count


@_compiled
def degree_of(links, row):
    """How many links stand in links[row]."""
    count = 0
    while count < links.shape[1] and links[row, count] >= 0:
        count += 1
    return count


@_compiled
def write_links(links, row, chosen, count):
    """links[row] = chosen[:count], then -1."""
    for i in range(links.shape[1]):
        links[row, i] = chosen[i] if i < count else -1


@_compiled
def offer_key(key, limit, beam, size):
    """Offer a key to a beam of at most `limit` -> the beam's size."""
    if size < limit or key < beam[size - 1]:
        insert(beam, size, limit, key)
        size = min(size + 1, limit)
    return size


@_compiled
def measure_peers(graph, batch, start, stop, out):
    """out[i - start, j]: distance from batch[i] to batch[j], for start <= i < stop; by tiles, which stay in the cache."""
    for first in range(0, batch.shape[0], _PEERS_AT_ONCE):
        last = min(first + _PEERS_AT_ONCE, batch.shape[0])
        for i in range(start, stop):
            query = graph.vectors[batch[i]]
            for j in range(first, last):
                out[i - start, j] = distance(graph.vectors, batch[j], query, graph.metric)


@_compiled
def offer(graph, middle, node, limit, beam, size):
    """Offer a node to the beam around the vector `middle` -> the beam's size."""
    return offer_key(key_of(distance(graph.vectors, node, middle, graph.metric), node), limit, beam, size)


@_compiled
def offer_link_to(graph, base, parents, lost, holder, node):
    """Give `holder` a base link to node, in a free place or for its farthest link outside the tree -> did it work?"""
    degree = degree_of(base, holder)
    if contains(base[holder], degree, node):
        return True
    if degree < base.shape[1]:
        base[holder, degree] = node
        return True
    worst = -1
    farthest = np.float32(-np.inf)
    middle = graph.vectors[holder]
    for i in range(degree):
        link = base[holder, i]
        if parents[link] != holder:
            away = distance(graph.vectors, link, middle, graph.metric)
            if away > farthest:
                farthest = away
                worst = i
    if worst < 0:
        return False
    lost[base[holder, worst]] = 1
    base[holder, worst] = node
    return True


@_compiled
def link_from_nearby(graph, base, parents, lost, node, beam, size):
    """One of the beam's nodes, nearest first, gets a base link to node: a tree node with a free place if there is one.

    -> that node, or -1.
    """
    for i in range(size):
        holder = node_of(beam[i])
        if holder != node and parents[holder] >= 0 and base[holder, base.shape[1] - 1] < 0:
            offer_link_to(graph, base, parents, lost, holder, node)
            return holder
    for i in range(size):
        holder = node_of(beam[i])
        if holder != node and parents[holder] >= 0 and offer_link_to(graph, base, parents, lost, holder, node):
            return holder
    return np.int64(-1)


@_compiled
def spread(base, parents, queue, first, last):
    """Grow the tree over base links from queue[first:last], whose nodes are in it -> the new end of the queue."""
    while first < last:
        node = queue[first]
        first += 1
        for i in range(base.shape[1]):
            link = base[node, i]
            if link < 0:
                break
            if parents[link] < 0:
                parents[link] = node
                queue[last] = link
                last += 1
    return last


# What Python calls ---------------------------------------------------------------------------------------------------


@_compiled
def search(graph, queries, start, stop, k, ef, allowed, is_filtered, marks, clock, positions, distances, work):
    """Beam search for queries[start:stop]; with is_filtered only allowed (N,) bool nodes of the beam are reported.

    Fills rows start:stop of positions (B, k) int64, distances (B, k) float32 and work (B,) int64; k <= ef.
    """
    beam = np.empty(ef, np.int64)
    best = np.empty(k, np.int64)
    fresh = np.empty(graph.base.shape[1], np.int32)
    for i in range(start, stop):
        query = queries[i]
        size, spent = search_base(graph, query, ef, marks, clock, beam, fresh, np.int64(-1))
        count = size
        if is_filtered:
            count = 0
            for j in range(size):
                if allowed[node_of(beam[j])]:
                    beam[count] = beam[j]
                    count += 1
        report(graph, query, beam, min(count, k), best, k, positions[i], distances[i])
        work[i] = spent


@_compiled
def gather_allowed(graph, node, allowed, marks, generation, fresh):
    """Allowed unseen nodes one link away, then those two links away through a node that is not allowed -> how many.

    They go into fresh. Steps over further nodes end once there are 2M, so that a mild filter costs no more than none.
    """
    width = graph.base.shape[1]
    count = 0
    for i in range(width):
        link = graph.base[node, i]
        if link < 0:
            break
        if allowed[link] and marks[link] != generation:
            marks[link] = generation
            fresh[count] = link
            count += 1
    for i in range(width):
        link = graph.base[node, i]
        if link < 0 or count >= width:
            break
        if allowed[link] or marks[link] == generation:
            continue
        marks[link] = generation
        for j in range(width):
            beyond = graph.base[link, j]
            if beyond < 0:
                break
            if allowed[beyond] and marks[beyond] != generation:
                marks[beyond] = generation
                fresh[count] = beyond
                count += 1
    return count


@_compiled
def search_allowed(graph, queries, start, stop, k, ef, allowed, seeds, marks, clock, positions, distances, work):
    """Beam search that scores allowed nodes only, stepping over the others: the two-hop idea of ACORN (Patel et al. 2024).

    seeds (s,) int32 are allowed nodes spread over the collection; the search starts from them and from where the plain
    descent ends, so that it also gets into allowed regions far from the query. Fills what `search` fills.
    """
    beam = np.empty(ef, np.int64)
    best = np.empty(k, np.int64)
    width = graph.base.shape[1]
    fresh = np.empty(max(width * (width + 1), seeds.shape[0]), np.int32)
    for i in range(start, stop):
        query = queries[i]
        generation = next_generation(marks, clock)
        count = seeds.shape[0]
        for j in range(count):
            fresh[j] = seeds[j]
            marks[seeds[j]] = generation
        size, cursor = score_into_beam(graph, query, ef, beam, 0, 0, fresh, count)
        nearest, _, spent = descend(graph, query, 0)
        spent += count
        count = gather_allowed(graph, nearest, allowed, marks, generation, fresh)
        while True:
            spent += count
            size, cursor = score_into_beam(graph, query, ef, beam, size, cursor, fresh, count)
            while cursor < size and is_expanded(beam[cursor]):
                cursor += 1
            if cursor == size:
                break
            key = beam[cursor]
            beam[cursor] = key | 1
            count = gather_allowed(graph, node_of(key), allowed, marks, generation, fresh)
        report(graph, query, beam, min(size, k), best, k, positions[i], distances[i])
        work[i] = spent


@_compiled
def scan(graph, queries, start, stop, k, rows, positions, distances, work):
    """Exact search among rows (n,) int64 for queries[start:stop]. Fills what `search` fills."""
    limit = k + _SCAN_SLACK
    beam = np.empty(limit, np.int64)
    best = np.empty(k, np.int64)
    for i in range(start, stop):
        query = queries[i]
        size = 0
        for j in range(rows.shape[0]):
            if j + _AHEAD < rows.shape[0]:
                prefetch_row(graph.vectors, rows[j + _AHEAD])
            size = offer(graph, query, rows[j], limit, beam, size)
        report(graph, query, beam, size, best, k, positions[i], distances[i])
        work[i] = rows.shape[0]


@_compiled
def choose_links(graph, base, upper, batch, start, stop, ef, marks, clock):
    """Each new node of batch[start:stop] chooses its own links: algorithm 1 of Malkov & Yashunin, without the reverse links.

    Candidates come from a search of the graph as it was before the batch, and from all other members of the batch (int32),
    which are compared one by one. Nobody links to a member yet, so no search meets one. Writes the nodes' own rows of
    base and upper, which are graph.base and graph.upper.
    """
    M = upper.shape[1]
    peers = np.empty((stop - start, batch.shape[0]), np.float32)
    measure_peers(graph, batch, start, stop, peers)
    beam = np.empty(ef, np.int64)
    fresh = np.empty(base.shape[1], np.int32)
    chosen = np.empty(M, np.int32)
    for i in range(start, stop):
        node = batch[i]
        query = graph.vectors[node]
        level = np.int64(graph.levels[node])
        nearest = graph.entry
        least = np.float32(0.0)
        if nearest >= 0:
            nearest, least, _ = descend(graph, query, min(level, graph.top))
        for at in range(level, -1, -1):
            size = 0
            if nearest >= 0 and at <= graph.top:
                generation = next_generation(marks, clock)
                beam[0] = key_of(least, nearest)
                marks[nearest] = generation
                size, _ = search_level(graph, query, at, ef, marks, generation, beam, 1, fresh, np.int64(-1))
                nearest = node_of(beam[0])
                least = distance_of(beam[0])
            for j in range(batch.shape[0]):
                if j != i and graph.levels[batch[j]] >= at:
                    size = offer_key(key_of(peers[i - start, j], batch[j]), ef, beam, size)
            count = select(graph, beam, size, M, chosen, 0)
            write_links(base if at == 0 else upper, link_row(graph, node, at), chosen, count)


@_compiled
def merge_links(graph, base, upper, level, targets, bounds, sources, start, stop, parents, lost):
    """Reverse links: targets[t] takes in sources[bounds[t]:bounds[t + 1]], for start <= t < stop; all int32 but bounds.

    A list that would overflow is chosen anew by `select`. On the base level a link to a node whose parent is the target is
    always kept: the tree of parents (see `grow_tree`) proves that every node can be reached. Who loses a link gets lost = 1.
    """
    links = base if level == 0 else upper
    width = links.shape[1]
    limit = 4 * width
    beam = np.empty(limit, np.int64)
    chosen = np.empty(width, np.int32)
    for t in range(start, stop):
        target = targets[t]
        row = link_row(graph, target, level)
        degree = degree_of(links, row)
        old = degree
        first = bounds[t]
        while first < bounds[t + 1] and degree < width:
            if not contains(links[row], degree, sources[first]):
                links[row, degree] = sources[first]
                degree += 1
            first += 1
        if first == bounds[t + 1]:
            continue
        middle = graph.vectors[target]
        size = 0
        count = 0
        for i in range(degree):
            link = links[row, i]
            if level == 0 and parents[link] == target:
                chosen[count] = link
                count += 1
            else:
                size = offer(graph, middle, link, limit, beam, size)
        for i in range(first, bounds[t + 1]):
            if not contains(links[row], degree, sources[i]):
                size = offer(graph, middle, sources[i], limit, beam, size)
        count = select(graph, beam, size, width, chosen, count)
        for i in range(old):
            if not contains(chosen, count, links[row, i]):
                lost[links[row, i]] = 1
        write_links(links, row, chosen, count)


@_compiled
def grow_tree(base, parents, queue, count):
    """Spanning tree over base links: parents (N,) int32 of nodes reached from queue[:count] that had none (-1) -> the end.

    The root is its own parent. queue (N + count,) int32 holds what was reached, in order.
    """
    return spread(base, parents, queue, 0, count)


@_compiled
def attach(graph, base, parents, lost, rows, ef, marks, clock, queue):
    """Make each of rows (n,) int32, nodes outside the tree of parents, reachable: a tree node nearby links to it.

    The search starts at the tree's root on the base level, so it sees tree nodes only. The sum of tree links is the number
    of nodes less one, so somewhere a place for one more is always free or can be freed.
    """
    beam = np.empty(ef, np.int64)
    fresh = np.empty(base.shape[1], np.int32)
    for i in range(rows.shape[0]):
        node = rows[i]
        if parents[node] >= 0:
            continue
        query = graph.vectors[node]
        generation = next_generation(marks, clock)
        beam[0] = key_of(distance(graph.vectors, graph.entry, query, graph.metric), graph.entry)
        marks[graph.entry] = generation
        size, _ = search_level(graph, query, 0, ef, marks, generation, beam, 1, fresh, np.int64(-1))
        holder = link_from_nearby(graph, base, parents, lost, node, beam, size)
        other = 0
        while holder < 0:  # every node of the beam is full of tree links: take the first elsewhere that is not
            beam[0] = key_of(np.float32(0.0), other)
            holder = link_from_nearby(graph, base, parents, lost, node, beam, 1)
            other += 1
        parents[node] = holder
        queue[0] = node
        spread(base, parents, queue, 0, 1)


@_compiled
def find_selves(graph, rows, start, stop, ef, marks, clock, found):
    """found[i] = 1 if a search for the vector of rows[i] meets that very node, or ef others that are as near."""
    beam = np.empty(ef, np.int64)
    fresh = np.empty(graph.base.shape[1], np.int32)
    for i in range(start, stop):
        found[i] = 1 if meets(graph, np.int64(rows[i]), ef, marks, clock, beam, fresh)[0] else 0


@_compiled
def strengthen(graph, base, parents, lost, rows, ef, marks, clock):
    """Make each of rows (n,) int32, nodes that a search for themselves misses, found: where it ends, a link leads to them."""
    beam = np.empty(ef, np.int64)
    fresh = np.empty(base.shape[1], np.int32)
    for i in range(rows.shape[0]):
        is_met, size = meets(graph, np.int64(rows[i]), ef, marks, clock, beam, fresh)
        if not is_met:
            link_from_nearby(graph, base, parents, lost, rows[i], beam, size)


@_compiled
def mend_links(graph, base, upper, level, rows, start, stop, dead, lost, marks, clock, queue):
    """Nodes of rows[start:stop] (int32) with links to dead ones (N,) bool choose anew: among their live links and the live
    links of the dead, followed through further dead ones. Only dead nodes' links and their own are read, so order is
    without effect. Who loses a link gets lost = 1. queue (N,) int32.
    """
    links = base if level == 0 else upper
    width = links.shape[1]
    beam = np.empty(_MENDING_BEAM, np.int64)
    chosen = np.empty(width, np.int32)
    for i in range(start, stop):
        node = rows[i]
        row = link_row(graph, node, level)
        degree = degree_of(links, row)
        is_whole = True
        for j in range(degree):
            if dead[links[row, j]]:
                is_whole = False
        if is_whole:
            continue
        middle = graph.vectors[node]
        generation = next_generation(marks, clock)
        marks[node] = generation
        size = 0
        first = 0
        last = 0
        at = row
        while True:
            for j in range(width):
                link = links[at, j]
                if link < 0:
                    break
                if marks[link] == generation:
                    continue
                marks[link] = generation
                if dead[link]:
                    queue[last] = link
                    last += 1
                else:
                    size = offer(graph, middle, link, _MENDING_BEAM, beam, size)
            if first == last or size == _MENDING_BEAM:
                break
            at = link_row(graph, queue[first], level)
            first += 1
        count = select(graph, beam, size, width, chosen, 0)
        for j in range(degree):
            link = links[row, j]
            if not dead[link] and not contains(chosen, count, link):
                lost[link] = 1
        write_links(links, row, chosen, count)


# Compiling ------------------------------------------------------------------------------------------------------------


def _array(dtype, dimensions, *, written):
    return types.Array(dtype, dimensions, "C", readonly=not written)


_vectors = _array(types.float32, 2, written=False)
_links = _array(types.int32, 2, written=True)
_nodes = _array(types.int32, 1, written=False)
_rows = _array(types.int64, 1, written=False)
_mask = _array(types.boolean, 1, written=False)
_scratch = _array(types.int32, 1, written=True)
_bytes = _array(types.uint8, 1, written=True)
_clock = _array(types.int64, 1, written=True)
_read_links = _array(types.int32, 2, written=False)
_levels = _array(types.uint8, 1, written=False)
_n = types.int64
_graph = types.NamedTuple((_vectors, _read_links, _read_links, _nodes, _levels, _n, _n, _n), Graph)
_answer = (_array(types.int64, 2, written=True), _array(types.float32, 2, written=True), _clock)
_marks = (_bytes, _clock)

# One signature each. Read-only arrays take writable ones as well, so memory maps need no kernels of their own.
SIGNATURES: dict[Any, Any] = {
    search: types.void(_graph, _vectors, _n, _n, _n, _n, _mask, types.boolean, *_marks, *_answer),
    search_allowed: types.void(_graph, _vectors, _n, _n, _n, _n, _mask, _nodes, *_marks, *_answer),
    scan: types.void(_graph, _vectors, _n, _n, _n, _rows, *_answer),
    choose_links: types.void(_graph, _links, _links, _nodes, _n, _n, _n, *_marks),
    merge_links: types.void(_graph, _links, _links, _n, _nodes, _rows, _nodes, _n, _n, _scratch, _bytes),
    grow_tree: types.int64(_links, _scratch, _scratch, _n),
    attach: types.void(_graph, _links, _scratch, _bytes, _nodes, _n, *_marks, _scratch),
    find_selves: types.void(_graph, _nodes, _n, _n, _n, *_marks, _bytes),
    strengthen: types.void(_graph, _links, _scratch, _bytes, _nodes, _n, *_marks),
    mend_links: types.void(_graph, _links, _links, _n, _nodes, _n, _n, _mask, _bytes, *_marks, _scratch),
}

_warming = threading.Lock()
_is_warm = False


def is_warm() -> bool:
    """Are all kernels ready to be called?"""
    return _is_warm


def warm() -> None:
    """Compile all kernels, or load them from Numba's disk cache; does nothing the second time. Any thread may call it."""
    global _is_warm
    if _is_warm:
        return
    with _warming:
        if not _is_warm:
            for function, signature in SIGNATURES.items():
                function.compile(signature)
                function.disable_compile()
            _is_warm = True
