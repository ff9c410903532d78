"""Every compiled function of the index. They take arrays and numbers, check nothing, raise nothing and hold no lock.

All are in one file because Numba's disk cache does not notice when a callee in another file changes (touch this file after
an edit of simd.py, whose loops it calls). All run on one thread and release the interpreter's lock; several threads call
them on ranges of the same work (see pool.py). What two ranges write never overlaps, so a result does not depend on how the
work was cut. What decides which way a walk goes is integer arithmetic and a few float operations in a fixed order, so it does
not depend on the CPU either.

How a vector is looked at, from coarse to fine (codes.py says how the numbers are chosen):

1. its line, one or two of the cache: four-bit numbers, the coordinates along the directions in which the data vary most, and
   what is known of the node without any probe. It gives an estimate of the distance, which the walk and the beam go by.
2. its code, a byte for each dimension, by which what is expanded is measured and links are chosen.
3. its full precision, which decides the order of the few that are reported.

Words. A beam is an int64 array of which the first `size` entries are in use, ascending: each is a key, distance in the
upper half and node in the lower, so that one comparison orders by distance and then by position (`key_of`). `marks` (N,)
uint8 says which nodes the present search has seen: those whose mark equals the generation, clock[0]. A search begins by
adding one to the clock. A probe is what nodes are compared with: a query, or a node that looks for links.
Code distances are float32: squared Euclidean between what the codes stand for under l2 and cosine, and -2 times the dot
product under ip.

The first half of the file is called by the second half only; the functions in `SIGNATURES` are called from Python.
"""

from __future__ import annotations

import threading
from typing import Any, NamedTuple

import numpy as np
from numba import carray, njit, types

from vecdb.index.growth import LINE
from vecdb.index.simd import (
    compiled,
    dot_codes,
    dot_floats,
    dot_four_codes,
    dot_four_nibbles,
    dot_nibbles,
    inlined,
    insert_key,
    l2_floats,
    pointer_to,
    prefetch,
    shift_right,
)

L2 = 0
DOT = 1  # ip
UNIT_DOT = 2  # cosine over unit vectors: 1 - dot
METRIC_CODES = {"l2": L2, "ip": DOT, "cosine": UNIT_DOT}

# A line holds four-bit numbers, and in its last four words, all float32, what is known of the node without any probe:
SCALE = -4  # what one unit of its code is worth
CONSTANT = -3  # its part of estimates
NORM = -2  # its part of code distances
FACTOR = -1  # what the product of its numbers is worth
LINE_HEAD = 16  # bytes of these
MIDDLE = 128  # what a code stores for zero

NODE_STEP = 0.335  # standard deviations: best for a normal variable in 16 even steps (Max 1960)
_PROBE_STEP = 4.5 / 127  # standard deviations
_MENDING_BEAM = 256  # candidates for the links of a node that lost some: about what ef_construction gives a new node
_SCAN_AHEAD = 8  # rows asked for before they are measured
_SCAN_SLACK = 16  # so many more than k are measured in float64, because float32 may misplace what is nearly equal
_AGREED = 10  # nearest
_PEERS_AT_ONCE = 16  # of 1,024 bytes each: a third of a first-level cache
_AHEAD = 3  # nodes whose links are asked for before it is certain that they are next
_SWEPT = 320  # keys in a beam
_WIDEST_GAP = 6.0
_SPARE = 16  # so many more than 2 k are kept in the order of codes
_LAST_KEY = np.int64(2**63 - 1)


class Coding(NamedTuple):
    """How vectors of D numbers become codes of W bytes and lines; S directions."""

    centre: np.ndarray  # (D,) float32
    basis: np.ndarray  # (S, W) uint8: directions as codes
    offsets: np.ndarray  # (S,) float64: the middle of the data along them
    norm_weight: float  # an estimate of the code distance: so much of the two |code|^2,
    energy_weight: float  # so much of the two |coordinates|^2,
    product_weight: float  # so much of the product of the coordinates,
    origin: float  # and a constant
    slack: float  # codes so much farther than the k-th nearest are still looked at in full precision
    by_lines: bool  # walks go by estimates; False where these are too rough for this data, then by codes


class Graph(NamedTuple):
    """The graph as kernels read it; N nodes, of which U reach above the base level."""

    vectors: np.ndarray  # (N, D) float32
    codes: np.ndarray  # (N, W) uint8: one-byte numbers + MIDDLE, padded with MIDDLE to whole cache lines
    lines: np.ndarray  # (N, L) uint8, L = 64 or 128
    heads: np.ndarray  # (N, L / 4) float32: the lines again
    base: np.ndarray  # (N, 2M) int32: links on the base level, -1 after the last
    upper: np.ndarray  # (U, M) int32: links above; those of node n on level l stand in row starts[n] + l - 1
    starts: np.ndarray  # (N,) int32
    levels: np.ndarray  # (N,) uint8: highest level of each node
    coding: Coding
    metric: int
    entry: int  # where searches start: a node of the highest level; -1 if there is none
    top: int  # its level


def frame_of(graph: Graph) -> np.ndarray:
    """A graph as one array (F,) int64, for kernels that are called for a single query: addresses, shapes and numbers. It
    spares the call some twenty arguments (3 µs). Whoever calls with it keeps the graph's arrays alive.

    11 addresses, the 18 lengths of their axes, 6 numbers of the coding as bits, metric, entry and top.
    """
    arrays = (*graph[:8], *graph.coding[:3])
    numbers = np.array(graph.coding[3:], np.float64).view(np.int64)
    shapes = [length for array in arrays for length in array.shape]
    whole = (graph.metric, graph.entry, graph.top)
    return np.array([*(array.ctypes.data for array in arrays), *shapes, *numbers.tolist(), *whole], np.int64)


@inlined
def graph_in(frame):
    """The graph that `frame_of` made a frame of."""
    numbers = frame[29:35].view(np.float64)
    coding = Coding(
        carray(pointer_to(frame[8], np.float32), (frame[25],)),
        carray(pointer_to(frame[9], np.uint8), (frame[26], frame[27])),
        carray(pointer_to(frame[10], np.float64), (frame[28],)),
        numbers[0],
        numbers[1],
        numbers[2],
        numbers[3],
        numbers[4],
        numbers[5] != 0.0,
    )
    return Graph(
        carray(pointer_to(frame[0], np.float32), (frame[11], frame[12])),
        carray(pointer_to(frame[1], np.uint8), (frame[13], frame[14])),
        carray(pointer_to(frame[2], np.uint8), (frame[15], frame[16])),
        carray(pointer_to(frame[3], np.float32), (frame[17], frame[18])),
        carray(pointer_to(frame[4], np.int32), (frame[19], frame[20])),
        carray(pointer_to(frame[5], np.int32), (frame[21], frame[22])),
        carray(pointer_to(frame[6], np.int32), (frame[23],)),
        carray(pointer_to(frame[7], np.uint8), (frame[24],)),
        coding,
        frame[35],
        frame[36],
        frame[37],
    )


PLAIN, FILTERED = 0, 1  # walks over all nodes; the second reports only those that are allowed
FEATURES = 8  # what the recall of a walk so far is judged by, see `judge`


class Rule(NamedTuple):
    """When a walk ends before its beam is done: once its score reaches the threshold. k = 0: never."""

    k: int
    weights: np.ndarray  # (FEATURES,) float32
    threshold: np.float32
    score: np.ndarray  # (1,) float32: of the last step
    trace: np.ndarray  # (H, FEATURES + 2) float32: every step's features, true hits and work, where H > 0
    is_true: np.ndarray  # (N,) uint8: who the true hits are, for the trace
    steps: np.ndarray  # (1,) int64: how many rows the trace has


# Codes ---------------------------------------------------------------------------------------------------------------

# Without fast arithmetic: the same numbers on every CPU.
_strict = njit(cache=True, nogil=True, error_model="numpy")


@_strict
def quantise(vectors, row, coding, code):
    """vectors[row] from the centre as one-byte numbers into code (W,) int8, zeros behind -> what one unit is worth.

    Each vector has a scale of its own, so that none is clipped or lost, however unlike the others it is.
    """
    dimension = vectors.shape[1]
    bits = np.int32(0)  # of positive floats sort like the floats, and the largest of whole numbers is found in vectors
    for d in range(dimension):
        bits = max(bits, np.float32(abs(vectors[row, d] - coding.centre[d])).view(np.int32))
    largest = np.int32(bits).view(np.float32)
    inverse = np.float32(127.0) / largest if largest > np.float32(0.0) else np.float32(0.0)
    for d in range(dimension):
        code[d] = np.int8(np.rint((vectors[row, d] - coding.centre[d]) * inverse))
    for d in range(dimension, code.shape[0]):
        code[d] = 0
    return largest / np.float32(127.0)


@_strict
def sum_and_energy(code, scale):
    """The sum of code (W,) int8, and what its sum of squares is worth."""
    total = np.int32(0)
    energy = np.int32(0)
    for d in range(code.shape[0]):
        value = np.int32(code[d])
        total += value
        energy += value * value
    return total, np.float64(energy) * np.float64(scale) * np.float64(scale)


@_strict
def norm_of(energy, metric):
    """What a node or probe adds to every code distance."""
    return np.float32(0.0) if metric == DOT else np.float32(energy)


@_strict
def project(code, total, scale, coding, coordinates):
    """Coordinates (S,) float64 of a code (int8) along the basis, from the middle of the data -> their energy."""
    size = coding.basis.shape[0]
    products = coordinates.view(np.int64)  # each gives way to its coordinate
    for s in range(0, size - 3, 4):
        dot_four_codes(coding.basis, s, code, products)
    for s in range(size & ~3, size):
        products[s] = dot_codes(coding.basis, s, code)
    energy = 0.0
    for s in range(size):
        product = np.float64(products[s] - MIDDLE * total) * np.float64(scale) - coding.offsets[s]
        coordinates[s] = product
        energy += product * product
    return energy


# In line, but without fast arithmetic: fixed order and no fused operations, so that walks go the same way on every CPU.
_strict_inlined = njit(cache=True, nogil=True, error_model="numpy", forceinline=True)


@_strict_inlined
def combined(norm, own, worth, product):
    """Node's norm + probe's own part - 2 * worth * product -> float32."""
    return (norm + own) - np.float32(2.0) * (worth * np.float32(product))


@_strict_inlined
def estimated(constant, own, worth, factor, product):
    return (constant + own) + (worth * factor) * np.float32(product)


@_strict
def write_line(coordinates, energy, code_energy, scale, metric, coding, lines, heads, row):
    """The line of a node.

    As in RaBitQ (Gao & Long 2024; Gao et al. 2025 for more than one bit), what is coded is the direction, and a factor makes
    its product with the coordinates what it was before rounding.
    """
    half = lines.shape[1] - LINE_HEAD
    lines[row, :] = 0
    step = NODE_STEP * np.sqrt(energy / max(coordinates.shape[0], 1))
    inverse = 1.0 / step if step > 0.0 else 0.0
    product = 0.0
    for s in range(coordinates.shape[0]):
        number = np.int64(np.floor(coordinates[s] * inverse)) + 8
        number = min(max(number, np.int64(0)), np.int64(15))
        product += (2 * number - 15) * coordinates[s]
        if s < half:
            lines[row, s] |= np.uint8(number)
        else:
            lines[row, s - half] |= np.uint8(number << 4)
    words = heads.shape[1]
    constant = coding.norm_weight * code_energy + coding.energy_weight * energy
    factor = coding.product_weight * energy / product if product > 0.0 else 0.0
    heads[row, words + SCALE] = scale
    heads[row, words + CONSTANT] = np.float32(constant)
    heads[row, words + NORM] = norm_of(code_energy, metric)
    heads[row, words + FACTOR] = np.float32(factor)


@_strict
def write_probe(coordinates, energy, code_energy, coding, probe):
    """The coordinates of a probe as one-byte numbers, laid out as in a line, and what else estimates want of it."""
    width = probe.sketch.shape[0] // 2
    half = width - LINE_HEAD
    probe.sketch[:] = 0
    step = _PROBE_STEP * np.sqrt(energy / max(coordinates.shape[0], 1))
    inverse = 1.0 / step if step > 0.0 else 0.0
    total = np.int64(0)
    for s in range(coordinates.shape[0]):
        number = np.int64(np.rint(coordinates[s] * inverse))
        number = min(max(number, np.int64(-127)), np.int64(127))
        total += number
        probe.sketch[s if s < half else width + s - half] = np.int8(number)
    constant = coding.norm_weight * code_energy + coding.energy_weight * energy + coding.origin
    probe.own[1] = np.float32(constant)
    probe.worth[1] = np.float32(step)
    probe.sums[1] = 15 * total  # a four-bit number n stands for 2 n - 15


class Probe(NamedTuple):
    """What nodes are compared with, in the forms that comparing wants."""

    code: np.ndarray  # (W,) int8
    sketch: np.ndarray  # (2 * bytes in a line,) int8
    coordinates: np.ndarray  # (S,) float64
    own: np.ndarray  # (2,) float32: its part of code distances and of estimates
    worth: np.ndarray  # (2,) float32: what products with its code and its sketch are worth
    sums: (
        np.ndarray
    )  # (2,) int32: what products with them are too large by, because codes store MIDDLE more than they mean


@inlined
def new_bytes(count):
    """(count,) int8 from the start of a cache line: what is read in whole lines then touches no line more than it must."""
    room = np.empty(count + LINE, np.int8)
    start = -np.int64(room.ctypes.data) & (LINE - 1)
    return room[start : start + count]


@compiled
def new_probe(graph):
    """Room for a probe, in one allocation: each costs as much as a few nodes' estimates."""
    width, count = graph.codes.shape[1], graph.coding.basis.shape[0]
    middle = width + 2 * graph.lines.shape[1]
    room = new_bytes(middle + 8 * (count + 3))
    wide = room[middle:].view(np.float64)
    numbers = wide[count:].view(np.float32)
    return Probe(
        room[:width], room[width:middle], wide[:count], numbers[:2], numbers[2:4], wide[count + 2 :].view(np.int32)
    )


class Middle(NamedTuple):
    """A node that others are compared with by codes alone."""

    code: np.ndarray  # (W,) int8
    own: np.float32
    worth: np.float32
    total: np.int32


@compiled
def aim(graph, vectors, row, probe):
    """Make vectors[row] the probe."""
    finish_probe(graph, quantise(vectors, row, graph.coding, probe.code), probe)


@compiled
def aim_from(graph, node, probe):
    """Make a node the probe, by its code."""
    load_code(graph.codes, node, probe.code)
    finish_probe(graph, graph.heads[node, graph.heads.shape[1] + SCALE], probe)


@inlined
def load_code(codes, row, code):
    """codes[row] into code (W,) int8."""
    for d in range(code.shape[0]):
        code[d] = np.int8(np.int32(codes[row, d]) - MIDDLE)


@inlined
def finish_probe(graph, scale, probe):
    total, energy = sum_and_energy(probe.code, scale)
    probe.own[0] = norm_of(energy, graph.metric)
    probe.worth[0] = scale
    probe.sums[0] = MIDDLE * total
    power = project(probe.code, total, scale, graph.coding, probe.coordinates)
    write_probe(probe.coordinates, power, energy, graph.coding, probe)


@inlined
def middle_of(graph, node, code):
    """A node for `distance_from`; code (W,) int8: room for its code."""
    load_code(graph.codes, node, code)
    total = np.int32(0)
    for d in range(code.shape[0]):
        total += np.int32(code[d])
    words = graph.heads.shape[1]
    return Middle(code, graph.heads[node, words + NORM], graph.heads[node, words + SCALE], np.int32(MIDDLE * total))


@inlined
def distance_from(graph, middle, node):
    """The code distance from a node to the one in the middle -> float32."""
    words = graph.heads.shape[1]
    product = dot_codes(graph.codes, node, middle.code) - middle.total
    worth = middle.worth * graph.heads[node, words + SCALE]
    return combined(graph.heads[node, words + NORM], middle.own, worth, product)


@inlined
def probe_distance(graph, probe, node):
    """The code distance from a node to the probe -> float32."""
    words = graph.heads.shape[1]
    product = dot_codes(graph.codes, node, probe.code) - probe.sums[0]
    worth = probe.worth[0] * graph.heads[node, words + SCALE]
    return combined(graph.heads[node, words + NORM], probe.own[0], worth, product)


@inlined
def prefetch_estimate(graph, node):
    """Ask for what `estimate` reads."""
    if not graph.coding.by_lines:
        prefetch_code(graph, node)
    for offset in range(0, graph.lines.shape[1], LINE):
        prefetch(graph.lines, node, offset)


@inlined
def prefetch_code(graph, node):
    for offset in range(0, graph.codes.shape[1], LINE):
        prefetch(graph.codes, node, offset)


@inlined
def prefetch_links(links, row):
    for offset in range(0, links.shape[1] * 4, LINE):
        prefetch(links, row, offset)


# Beams ---------------------------------------------------------------------------------------------------------------


@inlined
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


@inlined
def float_distance(vectors, row, query, metric):
    """Squared Euclidean or the negated dot product, in float32."""
    if metric == L2:
        return l2_floats(vectors, row, query)
    return -dot_floats(vectors, row, query)


@inlined
def next_generation(marks, clock):
    """A mark that no node bears."""
    clock[0] += 1
    if clock[0] > 255:
        marks[:] = 0
        clock[0] = 1
    return np.uint8(clock[0])


@inlined
def key_of(distance, node):
    """One int64 that sorts by distance (float32), then node: [32 bits: distance] [31: node] [1: expanded].

    The bits of a float32, read as an integer, sort like the float if it is positive, and backwards if it is negative.
    """
    bits = np.float32(distance + np.float32(0.0)).view(np.int32)  # + 0: there is no -0 to sort before 0
    ordered = bits if bits >= 0 else np.int32(bits ^ 0x7FFFFFFF)
    return (np.int64(ordered) << 32) | (np.int64(node) << 1)


@inlined
def distance_of(key):
    bits = np.int32(key >> 32)
    return np.int32(bits if bits >= 0 else np.int32(bits ^ 0x7FFFFFFF)).view(np.float32)


@inlined
def node_of(key):
    return (key & 0xFFFFFFFF) >> 1


@inlined
def is_expanded(key):
    return key & 1 != 0


@inlined
def new_beam(limit):
    """An empty beam of at most `limit` keys, with the room behind it that `insert_key` wants."""
    return new_bytes(8 * ((limit + 7) & ~7)).view(np.int64)[:limit]


@inlined
def insert(beam, size, limit, key):
    """Put a key that is not too far into a beam of at most `limit`, pushing out the last if it is full."""
    if size <= _SWEPT:  # all of it is a few vector instructions; halving, as many branches that cannot be predicted
        insert_key(beam, size, min(size, limit - 1), key)
        return
    low = 0
    high = size
    while low < high:
        middle = (low + high) >> 1
        if beam[middle] < key:
            low = middle + 1
        else:
            high = middle
    shift_right(beam, low, min(size, limit - 1))
    beam[low] = key


@inlined
def offer_key(key, limit, beam, size):
    """Offer a key to a beam of at most `limit` -> the beam's size."""
    if size < limit or key < beam[size - 1]:
        insert(beam, size, limit, key)
        size = min(size + 1, limit)
    return size


# Walking -------------------------------------------------------------------------------------------------------------


@inlined
def link_row(graph, node, level):
    """Where in base (level 0) or upper (above) the node's links stand."""
    return np.int64(node) if level == 0 else np.int64(graph.starts[node]) + level - 1


@inlined
def estimate(graph, node, probe):
    """About the code distance from a node to the probe, by the node's line; that distance itself if lines are not trusted."""
    if not graph.coding.by_lines:
        return probe_distance(graph, probe, node)
    return line_estimate(graph, probe, node)


@inlined
def line_estimate(graph, probe, node):
    return estimate_from(graph, probe, node, dot_nibbles(graph.lines, node, probe.sketch))


@inlined
def estimate_from(graph, probe, node, product):
    """The estimate by the product of the node's line with the probe's sketch."""
    words = graph.heads.shape[1]
    product = 2 * product - probe.sums[1]
    factor = graph.heads[node, words + FACTOR]
    return estimated(graph.heads[node, words + CONSTANT], probe.own[1], probe.worth[1], factor, product)


@inlined
def gather(links, row, marks, generation, fresh):
    """The unseen links of links[row], into fresh; from now on they are seen -> how many."""
    count = 0
    for i in range(links.shape[1]):
        link = links[row, i]
        if link < 0:
            break
        fresh[count] = link  # no branch: whether a node was seen cannot be predicted
        count += marks[link] != generation
        marks[link] = generation
    return count


@inlined
def in_fours(count):
    """count, rounded up to whole fours: so many estimates are made at once."""
    return (count + 3) & ~3


@inlined
def new_room(graph):
    """-> fresh (2, F) int32, keys (2 F,) int64: room for what one node leads to, twice, and for a key and a product each."""
    width = in_fours(graph.base.shape[1])
    room = np.empty(3 * width, np.int64)
    return room[2 * width :].view(np.int32).reshape((2, width)), room[: 2 * width]


@inlined
def offer_fresh(graph, probe, links, level, ef, beam, size, cursor, fresh, keys, count):
    """Offer fresh[:count] to the beam by their estimates -> (size, cursor), the cursor at the first that may be unexpanded.

    keys, fresh: as `new_room` makes them.
    """
    worst = beam[size - 1] if size == ef else _LAST_KEY
    soon = beam[cursor + 1] if cursor + 1 < size else np.int64(0)  # what is nearer is likely to be expanded next
    kept = 0
    if graph.coding.by_lines:
        products = keys[fresh.shape[0] :]
        for i in range(count, in_fours(count)):
            fresh[i] = fresh[0]
        for i in range(0, count, 4):
            dot_four_nibbles(graph.lines, fresh, i, probe.sketch, products)
        for i in range(count):
            key = key_of(estimate_from(graph, probe, fresh[i], products[i]), fresh[i])
            if key < soon:
                prefetch_links(links, link_row(graph, fresh[i], level))
                prefetch_code(graph, fresh[i])
            keys[kept] = key
            kept += key < worst
    else:
        for i in range(count):
            key = key_of(probe_distance(graph, probe, fresh[i]), fresh[i])
            keys[kept] = key
            kept += key < worst
    for i in range(kept):
        if size < ef or keys[i] < beam[size - 1]:
            insert(beam, size, ef, keys[i])
            size = min(size + 1, ef)
            while cursor > 0 and beam[cursor - 1] >= keys[i]:
                cursor -= 1
    return size, cursor


@inlined
def worth_measuring(slack, found, total, k):
    """How many of found[:total] have a code so near that they may be among the k nearest."""
    if total <= k:
        return total
    limit = distance_of(found[k - 1]) + slack
    count = k
    while count < total and distance_of(found[count]) <= limit:
        count += 1
    return count


@inlined
def judge(rule, slack, found, total, beam, size, cursor, steps, stale, work):
    """Score a walk's recall so far, from what can be seen without knowing the answer -> may it end?

    The features: how much farther the next candidate is than the k-th best found (in spreads of the k best), how many steps
    the k best have not changed, how many steps there were, and how spread the k best are. Declarative recall with a predictor
    asked at every step is the idea of DARTH (Chatzakis et al. 2026), which asks boosted trees from time to time; this one is
    linear in a few terms, so that it costs next to nothing.
    """
    if total < rule.k:
        return False
    last = distance_of(found[rule.k - 1])
    spread = max(last - distance_of(found[0]), np.float32(1e-6) * abs(last)) + np.float32(1e-30)
    while cursor < size and is_expanded(beam[cursor]):
        cursor += 1
    gap = np.float32(_WIDEST_GAP)
    if cursor < size:
        gap = (distance_of(beam[cursor]) - last) / spread
        gap = min(max(gap, np.float32(-_WIDEST_GAP)), np.float32(_WIDEST_GAP))
    idle = np.sqrt(np.float32(stale))
    share = np.float32(stale) / np.float32(steps)
    far = np.sqrt(np.float32(steps))
    width = spread / (abs(last) + spread)
    if rule.trace.shape[0] > 0:
        write_step(
            rule,
            (np.float32(1.0), gap, gap * gap, idle, share, far, gap * idle, width),
            found,
            worth_measuring(slack, found, total, rule.k),
            work,
        )
        return rule.steps[0] == rule.trace.shape[0]
    w = rule.weights
    score = (
        w[0]
        + w[1] * gap
        + w[2] * gap * gap
        + w[3] * idle
        + w[4] * share
        + w[5] * far
        + w[6] * gap * idle
        + w[7] * width
    )
    rule.score[0] = score
    return score >= rule.threshold


@compiled
def write_step(rule, features, found, count, work):
    """A row of the trace. count: so many of found would be measured in full precision now, so they are hits if they are true."""
    row = rule.trace[rule.steps[0]]
    for i in range(FEATURES):
        row[i] = features[i]
    hits = 0
    for i in range(count):
        hits += rule.is_true[node_of(found[i])]
    row[FEATURES] = hits
    row[FEATURES + 1] = work
    rule.steps[0] += 1


@inlined
def search_level(
    graph, probe, level, ef, marks, generation, beam, size, found, fresh, keys, allowed, walk, sought, rule
):
    """search_layer, algorithm 2 of Malkov & Yashunin (2016), from the beam's first `size` nodes -> (how many it found, work).

    Departures. One sorted array, the beam, is both the candidates and the results: what falls off its end is farther than
    the ef best and would never be expanded. It goes by estimates. What is expanded is measured by its code; those are the
    results, in `found`, as many as it has room for, and only allowed (N,) bool ones if the walk is not PLAIN. (The same
    division of labour as in SymphonyQG, Gou et al. 2025.)

    The walk is a pipeline of two steps, so that it seldom waits for memory: it asks for the lines of one node's links, and
    looks meanwhile at those that it asked for the step before. So it chooses the next node without knowing the links of the
    last, which costs a few per cent more distances and saves a quarter of the time.

    fresh, keys: as `new_room` makes them. The walk ends early where it meets the node
    `sought` (-1: none), or by the rule.
    """
    links = graph.base if level == 0 else graph.upper
    cursor = 0
    total = 0
    work = 0
    last = np.int64(-1)  # the node whose links were asked for a step ago, and how many they are
    waiting = 0
    turn = 0
    steps = 0
    changed = 0  # the step at which the rule's k best changed
    while last != sought or last < 0:
        node = np.int64(-1)
        while cursor < size and node < 0:
            if not is_expanded(beam[cursor]):
                node = node_of(beam[cursor])
                beam[cursor] |= 1
            cursor += 1
        count = 0
        if node >= 0:
            prefetch_code(graph, node)
            count = gather(links, link_row(graph, node, level), marks, generation, fresh[turn])
            for i in range(count):
                prefetch_estimate(graph, fresh[turn, i])
        elif last < 0:
            break
        if last >= 0:
            if walk == PLAIN or allowed[last]:
                steps += 1  # only such as could be a result, so that a filter does not seem to be patience
                key = key_of(probe_distance(graph, probe, last), last)
                if total < found.shape[0] or key < found[total - 1]:
                    if rule.k > 0 and (total < rule.k or key < found[rule.k - 1]):
                        changed = steps
                    insert(found, total, found.shape[0], key)
                    total = min(total + 1, found.shape[0])
            size, cursor = offer_fresh(
                graph, probe, links, level, ef, beam, size, cursor, fresh[1 - turn], keys, waiting
            )
            if rule.k > 0 and judge(
                rule, graph.coding.slack, found, total, beam, size, cursor, steps, steps - changed, work
            ):
                break
        for i in range(cursor, min(cursor + _AHEAD, size)):
            prefetch_links(links, link_row(graph, node_of(beam[i]), level))
        work += count
        last = node
        waiting = count
        turn = 1 - turn
    if last >= 0 and last == sought:
        total = offer_key(key_of(probe_distance(graph, probe, last), last), found.shape[0], found, total)
    return total, work


@compiled
def no_rule():
    nothing = np.empty(0, np.int64)
    floats = nothing.view(np.float32)
    return Rule(0, floats, np.float32(0.0), floats, floats.reshape((0, 0)), nothing.view(np.uint8), nothing)


@inlined
def start_from(graph, probe, node, marks, generation, beam):
    """Begin a beam with one node -> its size."""
    beam[0] = key_of(estimate(graph, node, probe), node)
    marks[node] = generation
    return 1


@inlined
def descend(graph, probe, level):
    """Greedy walk by estimates from the entry down to just above `level` -> (node, work)."""
    nearest = np.int64(graph.entry)
    least = estimate(graph, nearest, probe)
    work = 1
    for upper_level in range(graph.top, level, -1):
        moved = True
        while moved:
            moved = False
            row = link_row(graph, nearest, upper_level)
            for i in range(graph.upper.shape[1]):
                if graph.upper[row, i] < 0:
                    break
                prefetch_estimate(graph, graph.upper[row, i])
            for i in range(graph.upper.shape[1]):
                link = graph.upper[row, i]
                if link < 0:
                    break
                candidate = estimate(graph, link, probe)
                work += 1
                if candidate < least:
                    least = candidate
                    nearest = np.int64(link)
                    moved = True
    return nearest, work


@inlined
def walk_base(graph, probe, ef, walk, allowed, sought, rule, marks, clock, beam, found, fresh, keys):
    """Descent and walk on the base level, as search_level has it -> (how many it found, work)."""
    generation = next_generation(marks, clock)
    start, work = descend(graph, probe, 0)
    size = start_from(graph, probe, start, marks, generation, beam)
    total, more = search_level(
        graph, probe, 0, ef, marks, generation, beam, size, found, fresh, keys, allowed, walk, sought, rule
    )
    return total, work + more


@compiled
def report(graph, query, found, count, best, k, positions, distances):
    """Measure found[:count] precisely and write the best k by (distance, position); the rest of the row is -1 and inf.

    best: room for k keys.
    """
    size = 0
    for i in range(count):
        node = node_of(found[i])
        for offset in range(0, 4 * graph.vectors.shape[1], LINE):
            prefetch(graph.vectors, node, offset)
    for i in range(count):
        node = node_of(found[i])
        key = key_of(precise_distance(graph.vectors, node, query, graph.metric), node)
        size = offer_key(key, k, best, size)
    for i in range(k):
        positions[i] = node_of(best[i]) if i < size else -1
        distances[i] = distance_of(best[i]) if i < size else np.float32(np.inf)


@compiled
def meets(graph, node, ef, marks, clock, probe, beam, found, fresh, keys):
    """Does a search for the node's own code find it, or others as near to fill the beam? -> (answer, how many it found)."""
    aim_from(graph, node, probe)
    everybody = np.empty(0, np.bool_)
    total, _ = walk_base(graph, probe, ef, PLAIN, everybody, node, no_rule(), marks, clock, beam, found, fresh, keys)
    for i in range(total):
        if node_of(found[i]) == node:
            return True, total
    is_crowded = total == ef and distance_of(found[total - 1]) <= probe_distance(graph, probe, node)
    return is_crowded, total


# Links ---------------------------------------------------------------------------------------------------------------


@compiled
def select(graph, beam, size, limit, chosen, count, code):
    """select_neighbours_heuristic, algorithm 4 of Malkov & Yashunin (2016) -> how many are chosen, limit at most.

    A candidate of the beam is taken if it is nearer to the node in the middle than to all taken before it. chosen[:count]
    is taken beforehand; code: room for one. Departure: a candidate exactly as near to a taken one is refused, so that
    copies of one vector do not fill the list and shut themselves in.
    """
    for i in range(size):
        if count >= limit:
            break
        node = node_of(beam[i])
        away = distance_of(beam[i])
        if count:
            middle = middle_of(graph, node, code)
        keep = True
        for j in range(count):
            if distance_from(graph, middle, chosen[j]) <= away:
                keep = False
                break
        if keep:
            chosen[count] = node
            count += 1
    return count


@inlined
def contains(nodes, count, node):
    """Is node among nodes[:count]?"""
    i = 0
    while i < count and nodes[i] != node:
        i += 1
    return i < count


@inlined
def degree_of(links, row):
    """How many links stand in links[row]."""
    count = 0
    while count < links.shape[1] and links[row, count] >= 0:
        count += 1
    return count


@inlined
def write_links(links, row, chosen, count):
    """links[row] = chosen[:count], then -1."""
    for i in range(links.shape[1]):
        links[row, i] = chosen[i] if i < count else -1


@compiled
def measure_peers(graph, batch, start, stop, out):
    """out[i - start, j]: code distance from batch[i] to batch[j], for start <= i < stop; by tiles, which stay in the cache."""
    width = graph.codes.shape[1]
    codes = np.empty((_PEERS_AT_ONCE, width), np.int8)
    for first in range(0, batch.shape[0], _PEERS_AT_ONCE):
        last = min(first + _PEERS_AT_ONCE, batch.shape[0])
        for j in range(first, last):
            middle = middle_of(graph, batch[j], codes[j - first])
            for i in range(start, stop):
                out[i - start, j] = distance_from(graph, middle, batch[i])


@inlined
def offer(graph, node, middle, limit, beam, size):
    """Offer a node to the beam around the one in the middle -> the beam's size."""
    return offer_key(key_of(distance_from(graph, middle, node), node), limit, beam, size)


@compiled
def offer_link_to(graph, base, parents, lost, holder, node, code):
    """Give `holder` a base link to node, in a free place or for its farthest link outside the tree -> did it work?"""
    degree = degree_of(base, holder)
    if contains(base[holder], degree, node):
        return True
    if degree < base.shape[1]:
        base[holder, degree] = node
        return True
    worst = -1
    farthest = np.float32(-np.inf)
    middle = middle_of(graph, holder, code)
    for i in range(degree):
        link = base[holder, i]
        if parents[link] != holder:
            away = distance_from(graph, middle, link)
            if away > farthest:
                farthest = away
                worst = i
    if worst < 0:
        return False
    lost[base[holder, worst]] = 1
    base[holder, worst] = node
    return True


@compiled
def link_from_nearby(graph, base, parents, lost, node, beam, size, code):
    """One of the beam's nodes, nearest first, gets a base link to node: a tree node with a free place if there is one.

    -> that node, or -1. code: room for one.
    """
    for i in range(size):
        holder = node_of(beam[i])
        if holder != node and parents[holder] >= 0 and base[holder, base.shape[1] - 1] < 0:
            offer_link_to(graph, base, parents, lost, holder, node, code)
            return holder
    for i in range(size):
        holder = node_of(beam[i])
        if holder != node and parents[holder] >= 0 and offer_link_to(graph, base, parents, lost, holder, node, code):
            return holder
    return np.int64(-1)


@compiled
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


@compiled
def encode(vectors, start, stop, coding, metric, codes, lines, heads):
    """Codes and lines of vectors[start:stop], into the same rows of codes (N, W) uint8 and lines (N, L) uint8, seen as
    heads (N, L / 4) float32, too.
    """
    code = np.empty(codes.shape[1], np.int8)
    coordinates = np.empty(coding.basis.shape[0], np.float64)
    for i in range(start, stop):
        scale = quantise(vectors, i, coding, code)
        total, energy = sum_and_energy(code, scale)
        for d in range(code.shape[0]):
            codes[i, d] = np.uint8(np.int32(code[d]) + MIDDLE)
        power = project(code, total, scale, coding, coordinates)
        write_line(coordinates, power, energy, scale, metric, coding, lines, heads, i)


@compiled
def agreement(graph, probes, others, out):
    """out[i]: the share of the _AGREED nearest of others (n,) int32 to probes[i] by codes that are among the first three times
    as many by lines; the probe itself does not count.
    """
    nearest = new_beam(_AGREED)
    likely = new_beam(3 * _AGREED)
    probe = new_probe(graph)
    for i in range(probes.shape[0]):
        aim_from(graph, probes[i], probe)
        size = 0
        guessed = 0
        for j in range(others.shape[0]):
            if others[j] != probes[i]:
                size = offer_key(key_of(probe_distance(graph, probe, others[j]), others[j]), _AGREED, nearest, size)
                key = key_of(line_estimate(graph, probe, others[j]), others[j])
                guessed = offer_key(key, 3 * _AGREED, likely, guessed)
        hits = 0
        for j in range(size):
            for g in range(guessed):
                hits += node_of(nearest[j]) == node_of(likely[g])
        out[i] = np.float32(hits) / np.float32(max(size, 1)) if size else np.float32(1.0)


@compiled
def coordinates_of(codes, heads, coding, coordinates):
    """Coordinates (n, S) float64 of codes (n, W) along the basis, from `offsets`."""
    code = np.empty(codes.shape[1], np.int8)
    for i in range(codes.shape[0]):
        load_code(codes, i, code)
        scale = heads[i, heads.shape[1] + SCALE]
        total, _ = sum_and_energy(code, scale)
        project(code, total, scale, coding, coordinates[i])


@_strict
def iterate_subspace(matrix, basis, rounds):
    """Basis (D, S) float64 becomes an orthonormal basis of about the S dominant eigenvectors of a symmetric matrix (D, D).

    Orthogonal iteration (Golub & Van Loan 2013, section 8.2.4), by hand because BLAS sums in an order that depends on its
    threads. rounds = 0 makes the basis orthonormal, no more.
    """
    dimension, size = basis.shape
    product = np.empty_like(basis)
    for turn in range(rounds + 1):
        if turn > 0:
            product[:] = 0.0
            for i in range(dimension):
                for j in range(dimension):
                    weight = matrix[i, j]
                    for s in range(size):
                        product[i, s] += weight * basis[j, s]
            basis[:] = product
        orthonormalise(basis)


@_strict
def orthonormalise(basis):
    """Modified Gram-Schmidt over the columns of basis (D, S), by rows of its transpose; zero where a column has nothing new."""
    vectors = basis.T.copy()
    size, dimension = vectors.shape
    for s in range(size):
        before = 0.0
        for d in range(dimension):
            before += vectors[s, d] * vectors[s, d]
        for other in range(s):
            product = 0.0
            for d in range(dimension):
                product += vectors[s, d] * vectors[other, d]
            for d in range(dimension):
                vectors[s, d] -= product * vectors[other, d]
        length = 0.0
        for d in range(dimension):
            length += vectors[s, d] * vectors[s, d]
        shrink = 1.0 / np.sqrt(length) if length > 1e-20 * before else 0.0
        for d in range(dimension):
            vectors[s, d] *= shrink
    basis[:] = vectors.T


@compiled
def search(
    frame,
    queries,
    start,
    stop,
    k,
    ef,
    walk,
    allowed,
    weights,
    threshold,
    marks,
    clock,
    positions,
    distances,
    work,
    scores,
):
    """Beam search for queries[start:stop] in the graph of a frame, by one of the walks; allowed (N,) bool is for FILTERED.

    Fills rows start:stop of positions (B, k) int64, distances (B, k) float32, work (B,) int64 and, if there are weights
    (FEATURES,), by which a walk is judged and ends at the threshold, of scores (B,) float32; k <= ef.
    """
    graph = graph_in(frame)
    beam = new_beam(ef)
    best = new_beam(k)
    found = new_beam(min(ef, 2 * k + _SPARE))
    fresh, keys = new_room(graph)
    probe = new_probe(graph)
    judged = k if weights.shape[0] > 0 else 0
    score = np.empty(1, np.float32)
    untraced = no_rule()
    rule = Rule(judged, weights, np.float32(threshold), score, untraced.trace, untraced.is_true, untraced.steps)
    for i in range(start, stop):
        aim(graph, queries, i, probe)
        rule.score[0] = np.float32(np.inf)
        total, work[i] = walk_base(
            graph, probe, ef, walk, allowed, np.int64(-1), rule, marks, clock, beam, found, fresh, keys
        )
        count = worth_measuring(graph.coding.slack, found, total, k)
        report(graph, queries[i], found, count, best, k, positions[i], distances[i])
        if judged > 0:
            scores[i] = rule.score[0]


@compiled
def trace(graph, queries, start, stop, k, ef, walk, allowed, truth, is_true, marks, clock, steps, lengths):
    """Walks for queries[start:stop] to the end of their beams, and what could be seen after each step.

    truth (B, k) int32 are the true neighbours (-1 where there are fewer), is_true (N,) uint8 zeros. Fills steps (B, H,
    FEATURES + 2) float32: the features, how many of the k best so far are true, the work so far; and lengths (B,) int64: how
    many rows of it. Walks of more steps end at H.
    """
    beam = new_beam(ef)
    found = new_beam(min(ef, 2 * k + _SPARE))
    fresh, keys = new_room(graph)
    probe = new_probe(graph)
    untraced = no_rule()
    for i in range(start, stop):
        aim(graph, queries, i, probe)
        for j in range(k):
            if truth[i, j] >= 0:
                is_true[truth[i, j]] = 1
        lengths[i] = 0
        rule = Rule(k, untraced.weights, np.float32(0.0), untraced.score, steps[i], is_true, lengths[i : i + 1])
        walk_base(graph, probe, ef, walk, allowed, np.int64(-1), rule, marks, clock, beam, found, fresh, keys)
        for j in range(k):
            if truth[i, j] >= 0:
                is_true[truth[i, j]] = 0


@compiled
def scan(graph, queries, start, stop, k, rows, positions, distances, work):
    """Exact search among rows (n,) int64 for queries[start:stop]. Fills what `search` fills.

    By codes first, which are a quarter of the bytes; in full precision then all that may be among the k nearest. A code is
    off by half a unit in each dimension at most, so by the triangle inequality a distance is known to within half a unit of
    both times the root of the dimension. (Dot products have no such inequality, and are measured in float32 instead.)
    """
    best = new_beam(k)
    keys = new_beam(k if graph.metric != DOT else k + _SCAN_SLACK)
    lowest = np.empty(rows.shape[0], np.float32)
    probe = new_probe(graph)
    for i in range(start, stop):
        if graph.metric == DOT:
            count = scan_floats(graph, queries[i], rows, keys)
        else:
            aim(graph, queries, i, probe)
            count = scan_codes(graph, probe, rows, keys, lowest)
            limit = distance_of(keys[k - 1]) if count == k else np.float32(np.inf)
            count = 0
            for j in range(rows.shape[0]):
                if lowest[j] <= limit:
                    key = key_of(precise_distance(graph.vectors, rows[j], queries[i], graph.metric), rows[j])
                    count = offer_key(key, k, best, count)
            keys[:count] = best[:count]
        report(graph, queries[i], keys, count, best, k, positions[i], distances[i])
        work[i] = rows.shape[0]


@compiled
def scan_codes(graph, probe, rows, keys, lowest):
    """How near each of rows may be at least, into lowest (n,), and the nearest that they may be at most, as keys -> how many.

    Both as Euclidean distances, not squared.
    """
    words = graph.heads.shape[1]
    half = np.float32(0.505 * np.sqrt(graph.vectors.shape[1]))  # a hundredth more, for float32
    size = 0
    for j in range(rows.shape[0]):
        if j + _SCAN_AHEAD < rows.shape[0]:
            prefetch_code(graph, rows[j + _SCAN_AHEAD])
            prefetch(graph.lines, rows[j + _SCAN_AHEAD], graph.lines.shape[1] - LINE)
        node = rows[j]
        away = np.sqrt(max(probe_distance(graph, probe, node), np.float32(0.0)))
        rounding = np.float32(1e-3) * np.sqrt(
            graph.heads[node, words + NORM] + probe.own[0]
        )  # of float32, where they cancel
        unsure = half * (probe.worth[0] + graph.heads[node, words + SCALE]) + rounding
        lowest[j] = away - unsure
        size = offer_key(key_of(away + unsure, node), keys.shape[0], keys, size)
    return size


@compiled
def scan_floats(graph, query, rows, keys):
    """The nearest of rows in float32, as keys -> how many."""
    size = 0
    for j in range(rows.shape[0]):
        if j + _SCAN_AHEAD < rows.shape[0]:
            for offset in range(0, 4 * graph.vectors.shape[1], LINE):
                prefetch(graph.vectors, rows[j + _SCAN_AHEAD], offset)
        away = float_distance(graph.vectors, rows[j], query, graph.metric)
        size = offer_key(key_of(away, rows[j]), keys.shape[0], keys, size)
    return size


@compiled
def choose_links(graph, base, upper, batch, start, stop, ef, marks, clock):
    """Each new node of batch[start:stop] chooses its own links: algorithm 1 of Malkov & Yashunin, without the reverse links.

    Candidates come from a search of the graph as it was before the batch, and from all other members of the batch (int32),
    which are compared one by one. Nobody links to a member yet, so no search meets one. Writes the nodes' own rows of
    base and upper, which are graph.base and graph.upper.
    """
    M = upper.shape[1]
    peers = np.empty((stop - start, batch.shape[0]), np.float32)
    measure_peers(graph, batch, start, stop, peers)
    beam = new_beam(ef)
    found = new_beam(ef)
    fresh, keys = new_room(graph)
    everybody = np.empty(0, np.bool_)
    nobody = np.int64(-1)
    rule = no_rule()
    chosen = np.empty(M, np.int32)
    probe = new_probe(graph)
    code = np.empty(graph.codes.shape[1], np.int8)
    for i in range(start, stop):
        node = batch[i]
        aim_from(graph, node, probe)
        level = np.int64(graph.levels[node])
        nearest = np.int64(graph.entry)
        if nearest >= 0:
            nearest, _ = descend(graph, probe, min(level, graph.top))
        for at in range(level, -1, -1):
            size = 0
            if nearest >= 0 and at <= graph.top:
                generation = next_generation(marks, clock)
                size = start_from(graph, probe, nearest, marks, generation, beam)
                size, _ = search_level(
                    graph,
                    probe,
                    at,
                    ef,
                    marks,
                    generation,
                    beam,
                    size,
                    found,
                    fresh,
                    keys,
                    everybody,
                    PLAIN,
                    nobody,
                    rule,
                )
                nearest = node_of(found[0])
            for j in range(batch.shape[0]):
                if j != i and graph.levels[batch[j]] >= at:
                    size = offer_key(key_of(peers[i - start, j], batch[j]), ef, found, size)
            count = select(graph, found, size, M, chosen, 0, code)
            write_links(base if at == 0 else upper, link_row(graph, node, at), chosen, count)


@compiled
def merge_links(graph, base, upper, level, targets, bounds, sources, start, stop, parents, lost):
    """Reverse links: targets[t] takes in sources[bounds[t]:bounds[t + 1]], for start <= t < stop; all int32 but bounds.

    A list that would overflow is chosen anew by `select`. On the base level a link to a node whose parent is the target is
    always kept: the tree of parents (see `grow_tree`) proves that every node can be reached. Who loses a link gets lost = 1.
    """
    links = base if level == 0 else upper
    width = links.shape[1]
    limit = 4 * width
    beam = new_beam(limit)
    chosen = np.empty(width, np.int32)
    centre = np.empty(graph.codes.shape[1], np.int8)
    code = np.empty(graph.codes.shape[1], np.int8)
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
        middle = middle_of(graph, target, centre)
        size = 0
        count = 0
        for i in range(degree):
            link = links[row, i]
            if level == 0 and parents[link] == target:
                chosen[count] = link
                count += 1
            else:
                size = offer(graph, link, middle, limit, beam, size)
        for i in range(first, bounds[t + 1]):
            if not contains(links[row], degree, sources[i]):
                size = offer(graph, sources[i], middle, limit, beam, size)
        count = select(graph, beam, size, width, chosen, count, code)
        for i in range(old):
            if not contains(chosen, count, links[row, i]):
                lost[links[row, i]] = 1
        write_links(links, row, chosen, count)


@compiled
def grow_tree(base, parents, queue, count):
    """Spanning tree over base links: parents (N,) int32 of nodes reached from queue[:count] that had none (-1) -> the end.

    The root is its own parent. queue (N + count,) int32 holds what was reached, in order.
    """
    return spread(base, parents, queue, 0, count)


@compiled
def attach(graph, base, parents, lost, rows, ef, marks, clock, queue):
    """Make each of rows (n,) int32, nodes outside the tree of parents, reachable: a tree node nearby links to it.

    The search starts at the tree's root on the base level, so it sees tree nodes only. The sum of tree links is the number
    of nodes less one, so somewhere a place for one more is always free or can be freed.
    """
    beam = new_beam(ef)
    found = new_beam(ef)
    fresh, keys = new_room(graph)
    everybody = np.empty(0, np.bool_)
    nobody = np.int64(-1)
    rule = no_rule()
    probe = new_probe(graph)
    code = np.empty(graph.codes.shape[1], np.int8)
    root = np.int64(graph.entry)
    for i in range(rows.shape[0]):
        node = rows[i]
        if parents[node] >= 0:
            continue
        aim_from(graph, node, probe)
        generation = next_generation(marks, clock)
        size = start_from(graph, probe, root, marks, generation, beam)
        size, _ = search_level(
            graph, probe, 0, ef, marks, generation, beam, size, found, fresh, keys, everybody, PLAIN, nobody, rule
        )
        holder = link_from_nearby(graph, base, parents, lost, node, found, size, code)
        other = 0
        while holder < 0:  # every node of the beam is full of tree links: take the first elsewhere that is not
            found[0] = key_of(np.float32(0.0), other)
            holder = link_from_nearby(graph, base, parents, lost, node, found, 1, code)
            other += 1
        parents[node] = holder
        queue[0] = node
        spread(base, parents, queue, 0, 1)


@compiled
def find_selves(graph, rows, start, stop, ef, marks, clock, found):
    """found[i] = 1 if a search for the code of rows[i] meets that very node, or ef others that are as near."""
    beam = new_beam(ef)
    nearby = new_beam(ef)
    fresh, keys = new_room(graph)
    probe = new_probe(graph)
    for i in range(start, stop):
        is_met, _ = meets(graph, np.int64(rows[i]), ef, marks, clock, probe, beam, nearby, fresh, keys)
        found[i] = 1 if is_met else 0


@compiled
def strengthen(graph, base, parents, lost, rows, ef, marks, clock):
    """Make each of rows (n,) int32, nodes that a search for themselves misses, found: where it ends, a link leads to them."""
    beam = new_beam(ef)
    nearby = new_beam(ef)
    fresh, keys = new_room(graph)
    probe = new_probe(graph)
    code = np.empty(graph.codes.shape[1], np.int8)
    for i in range(rows.shape[0]):
        is_met, size = meets(graph, np.int64(rows[i]), ef, marks, clock, probe, beam, nearby, fresh, keys)
        if not is_met:
            link_from_nearby(graph, base, parents, lost, rows[i], nearby, size, code)


@compiled
def mend_links(graph, base, upper, level, fill, rows, start, stop, dead, lost, marks, clock, queue):
    """Nodes of rows[start:stop] (int32) with links to dead ones (N,) bool choose anew: among their live links and the live
    links of the dead, followed through further dead ones. Only dead nodes' links and their own are read, so order is
    without effect. Who loses a link gets lost = 1. queue (N,) int32.

    If fill is 1, what `select` refuses fills up the list to its old length, nearest first (the paper's
    keepPrunedConnections): a node's candidates are fewer here than when it came, and without the filling a graph that loses
    half its nodes round after round ends with a quarter fewer links and half a point less recall than a new one.
    """
    links = base if level == 0 else upper
    width = links.shape[1]
    beam = new_beam(_MENDING_BEAM)
    chosen = np.empty(width, np.int32)
    centre = np.empty(graph.codes.shape[1], np.int8)
    code = np.empty(graph.codes.shape[1], np.int8)
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
        middle = middle_of(graph, node, centre)
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
                    size = offer(graph, link, middle, _MENDING_BEAM, beam, size)
            if first == last or size == _MENDING_BEAM:
                break
            at = link_row(graph, queue[first], level)
            first += 1
        count = select(graph, beam, size, width, chosen, 0, code)
        for j in range(size):
            if count >= degree or not fill:
                break
            if not contains(chosen, count, node_of(beam[j])):
                chosen[count] = node_of(beam[j])
                count += 1
        for j in range(degree):
            link = links[row, j]
            if not dead[link] and not contains(chosen, count, link):
                lost[link] = 1
        write_links(links, row, chosen, count)


# Compiling ------------------------------------------------------------------------------------------------------------


def _array(dtype, dimensions, *, written):
    return types.Array(dtype, dimensions, "C", readonly=not written)


_vectors = _array(types.float32, 2, written=False)
_codes = _array(types.uint8, 2, written=False)
_heads = _array(types.float32, 2, written=True)
_links = _array(types.int32, 2, written=True)
_nodes = _array(types.int32, 1, written=False)
_rows = _array(types.int64, 1, written=False)
_mask = _array(types.boolean, 1, written=False)
_scratch = _array(types.int32, 1, written=True)
_bytes = _array(types.uint8, 1, written=True)
_byte_rows = _array(types.uint8, 2, written=True)
_clock = _array(types.int64, 1, written=True)
_frame = _array(types.int64, 1, written=False)
_floats = _array(types.float32, 1, written=True)
_steps = _array(types.float32, 3, written=True)
_matrix = _array(types.float64, 2, written=True)
_read_links = _array(types.int32, 2, written=False)
_levels = _array(types.uint8, 1, written=False)
_n, _x = types.int64, types.float64
_centre = _array(types.float32, 1, written=False)
_middles = _array(types.float64, 1, written=False)
_coding = types.NamedTuple((_centre, _codes, _middles, _x, _x, _x, _x, _x, types.boolean), Coding)
_graph = types.NamedTuple(
    (_vectors, _codes, _codes, _vectors, _read_links, _read_links, _nodes, _levels, _coding, _n, _n, _n), Graph
)
_answer = (_array(types.int64, 2, written=True), _array(types.float32, 2, written=True), _clock)
_marks = (_bytes, _clock)

# One signature each. Read-only arrays take writable ones as well, so memory maps need no kernels of their own.
SIGNATURES: dict[Any, Any] = {
    encode: types.void(_vectors, _n, _n, _coding, _n, _byte_rows, _byte_rows, _heads),
    agreement: types.void(_graph, _nodes, _nodes, _floats),
    coordinates_of: types.void(_codes, _vectors, _coding, _matrix),
    iterate_subspace: types.void(_matrix, _matrix, _n),
    search: types.void(_frame, _vectors, _n, _n, _n, _n, _n, _mask, _floats, _x, *_marks, *_answer, _floats),
    trace: types.void(_graph, _vectors, _n, _n, _n, _n, _n, _mask, _links, _bytes, *_marks, _steps, _clock),
    scan: types.void(_graph, _vectors, _n, _n, _n, _rows, *_answer),
    choose_links: types.void(_graph, _links, _links, _nodes, _n, _n, _n, *_marks),
    merge_links: types.void(_graph, _links, _links, _n, _nodes, _rows, _nodes, _n, _n, _scratch, _bytes),
    grow_tree: types.int64(_links, _scratch, _scratch, _n),
    attach: types.void(_graph, _links, _scratch, _bytes, _nodes, _n, *_marks, _scratch),
    find_selves: types.void(_graph, _nodes, _n, _n, _n, *_marks, _bytes),
    strengthen: types.void(_graph, _links, _scratch, _bytes, _nodes, _n, *_marks),
    mend_links: types.void(_graph, _links, _links, _n, _n, _nodes, _n, _n, _mask, _bytes, *_marks, _scratch),
}


def entry_of(function: Any) -> Any:
    """What a compiled kernel is called by when its arguments are certain to be of its signature's types: the dispatcher takes
    3.6 µs to look at a graph's, which is a good part of one search.
    """
    (compiled_one,) = function.overloads.values()
    return compiled_one.entry_point


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
