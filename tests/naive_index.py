"""Slow twins of index/kernels.py: the algorithms as the papers write them, with heaps, sets and one distance at a time."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

Links = Mapping[int, Sequence[int]]


def distance(a: NDArray[np.float32], b: NDArray[np.float32], metric: str) -> float:
    """As Neighbours defines it, in float64."""
    a, b = a.astype(np.float64), b.astype(np.float64)
    if metric == "l2":
        return float(sum((x - y) ** 2 for x, y in zip(a, b)))
    product = float(sum(x * y for x, y in zip(a, b)))
    return max(1.0 - product, 0.0) if metric == "cosine" else -product


def nearest(
    vectors: NDArray[np.float32], query: NDArray[np.float32], k: int, metric: str, rows: Iterable[int]
) -> list[tuple[float, int]]:
    """The k nearest of the given rows: (distance, row), ascending."""
    return sorted((float(np.float32(distance(vectors[row], query, metric))), row) for row in rows)[:k]


def search_layer(
    entries: Iterable[int], ef: int, links: Links, away: Callable[[int], float]
) -> list[tuple[float, int]]:
    """Algorithm 2 of Malkov & Yashunin (2016): the ef nearest that a walk meets, (distance, node) ascending."""
    visited = set(entries)
    candidates = [(away(node), node) for node in visited]
    heapq.heapify(candidates)
    found = sorted(candidates)[:ef]
    while candidates:
        closest = heapq.heappop(candidates)
        if len(found) == ef and closest > found[-1]:
            break
        for node in links[closest[1]]:
            if node not in visited:
                visited.add(node)
                entry = (away(node), node)
                if len(found) < ef or entry < found[-1]:
                    heapq.heappush(candidates, entry)
                    found = sorted([*found, entry])[:ef]
    return found


def select_neighbours(
    candidates: Sequence[tuple[float, int]],
    limit: int,
    between: Callable[[int, int], float],
    chosen: Sequence[int] = (),
) -> list[int]:
    """Algorithm 4 of the same, without its two options; as near to a chosen one as to the middle means refused."""
    taken = list(chosen)
    for away, node in sorted(candidates):
        if len(taken) < limit and all(between(node, other) > away for other in taken):
            taken.append(node)
    return taken


def reached_from(entry: int, links: Links) -> set[int]:
    """All nodes that a walk over the links comes to."""
    seen, waiting = {entry}, [entry]
    while waiting:
        for node in links[waiting.pop()]:
            if node not in seen:
                seen.add(node)
                waiting.append(node)
    return seen
