"""The algorithms as plans (`engine.Plan`): sliding windows, one of all, sets in a heap, groups, each alone. No texts, no model.

n: how many candidates there are, in first-stage order. Answers name candidates by their place in the window.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vecdb.rerank.listwise.engine import Plan, Window, together

Order = list[int]  # all n positions, best first
Permutation = list[int]  # places of a window, best first
Pick = int | None  # the place of a window's best; None: the model gave no usable answer
Grade = float | None  # of a window of one; None: the model gave none


def spans(n: int, window: int | None, step: int) -> Iterator[tuple[int, int]]:
    """Windows from the end of a list to its start, as (start, end): 1 + ceil((n - window) / step) of them.

    The last one is moved to begin at 0 rather than cut short, so every window is full if n allows. None: one of all.
    """
    if window is None or n <= window:
        yield 0, n
        return
    start = n - window
    yield start, n
    while start > 0:
        start = max(0, start - step)
        yield start, start + window


def sliding(n: int, *, window: int | None = 20, step: int = 10, passes: int = 1) -> Plan[Permutation, Order]:
    """Each window's order is written back before the next is shown, so that a good candidate climbs.

    After one pass by a judge that makes no mistakes the best window - step are in their true places; the rest are not.
    """
    order = list(range(n))
    yield from _slide(order, window, step, passes)
    return order


def _slide(order: Order, window: int | None, step: int, passes: int) -> Plan[Permutation, None]:
    if len(order) < 2:
        return
    for _ in range(passes):
        for start, end in spans(len(order), window, step):
            (answer,) = yield [order[start:end]]
            order[start:end] = [order[start + place] for place in answer]


def full_order(n: int, *, window: int = 20, step: int = 10) -> Plan[Permutation, Order]:
    """A complete order out of a judge of windows, for training labels (full ranking, section 3.2).

    One pass settles the best window - step of what is left; they are moved out, and the rest is passed over again until one
    window holds it. step must be smaller than window.
    """
    done: Order = []
    rest = list(range(n))
    while len(rest) > window:
        yield from _slide(rest, window, step, 1)
        done += rest[: window - step]
        rest = rest[window - step :]
    yield from _slide(rest, None, step, 1)
    return done + rest


def heapsort(n: int, *, set_size: int = 20, k: int = 10) -> Plan[Pick, Order]:
    """The best k by a heap in which each node has set_size - 1 children, then the others in first-stage order.

    A comparison is a node with its children; no answer counts as the node's own win, so that a model which never answers
    gives nearly the input back. Nodes of one level have separate subtrees: while the heap is built they are compared side
    by side. About (n - 1) / c calls to build and k log_c(n) to take out k, c = set_size - 1.
    """
    heap = list(range(n))
    children = set_size - 1
    size = n

    def sift(node: int) -> Plan[Pick, None]:
        while (first := children * node + 1) < size:
            (pick,) = yield [[heap[node], *heap[first : min(first + children, size)]]]
            if not pick:
                return
            child = first + pick - 1
            heap[node], heap[child] = heap[child], heap[node]
            node = child

    for level in reversed(list(_levels(n, children))):
        yield from together([sift(node) for node in level])
    best: Order = []
    for taken in range(1, min(k, n) + 1):
        size -= 1
        best.append(heap[0])
        heap[0], heap[size] = heap[size], heap[0]
        if taken < k:
            yield from sift(0)
    chosen = set(best)
    return best + [position for position in range(n) if position not in chosen]


def _levels(n: int, children: int) -> Iterator[range]:
    """The nodes of a heap of n that have children, level by level from the root."""
    start, width = 0, 1
    parents = (n - 2) // children + 1 if n > 1 else 0
    while start < parents:
        yield range(start, min(start + width, parents))
        start, width = start + width, width * children


def bubblesort(n: int, *, set_size: int = 20, k: int = 10) -> Plan[Pick, Order]:
    """The best k by k passes from the end, each carrying the best so far into the next set; the others keep their order.

    ceil((n - i - 1) / (set_size - 1)) calls for place i.
    """
    order = list(range(n))
    for place in range(min(k, n)):
        end = n
        while end - 1 > place:
            start = max(place, end - set_size)
            (pick,) = yield [order[start:end]]
            if pick:
                order.insert(start, order.pop(start + pick))
            end = start + 1
    return order


@dataclass(frozen=True, slots=True)
class GroupScores:
    """means: (n,) float64 of all rounds' scores, NaN for a candidate that no round scored. spreads: their standard
    deviation, 0 for one round.
    """

    means: NDArray[np.float64]
    spreads: NDArray[np.float64]


def groups(n: int, *, group_size: int = 20, rounds: int = 2, seed: int = 0) -> Plan[list[float] | None, GroupScores]:
    """Scores of candidates in small shuffled groups, averaged over rounds; all groups of all rounds are independent.

    ceil(n / group_size) groups a round, of sizes that differ by one at most: a last group of one or two would be scored
    without anything to compare with. None for a group: its candidates have no score in that round.
    """
    rng = np.random.default_rng(seed)
    windows: list[Window] = []
    for _ in range(rounds):
        if n:
            parts = np.array_split(rng.permutation(n), -(-n // group_size))
            windows += [part.tolist() for part in parts]
    answers = (yield windows) if windows else []
    given: list[list[float]] = [[] for _ in range(n)]
    for window, answer in zip(windows, answers):
        for position, score in zip(window, answer or ()):
            given[position].append(score)
    means = np.array([np.mean(scores) if scores else np.nan for scores in given], dtype=np.float64)
    spreads = np.array([np.std(scores) if scores else 0.0 for scores in given], dtype=np.float64)
    return GroupScores(means, spreads)


def one_by_one(n: int) -> Plan[Grade, list[Grade]]:
    """Every candidate alone; none waits for another."""
    grades: list[Grade] = yield [[i] for i in range(n)]
    return grades
