"""Slow twins of vecdb/query/selection: straight from the definitions, one candidate at a time."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from itertools import combinations

import numpy as np

from vecdb.query.selection import Coverage, Pool
from vecdb.query.selection.coverage import cells_of, neighbourhood, similarities

SetFunction = Callable[[Sequence[int]], float]


def mmr(pool: Pool, diversity: float, count: int) -> list[int]:
    """The formula of Carbonell & Goldstein (1998)."""
    chosen: list[int] = []
    while len(chosen) < min(count, len(pool)):
        best, best_value = -1, -math.inf
        for i in range(len(pool)):
            if i in chosen:
                continue
            redundancy = max((float(pool.cosines[i, j]) for j in chosen), default=0.0)
            value = (1 - diversity) * float(pool.relevance[i]) - diversity * redundancy
            if value > best_value:
                best, best_value = i, value
        chosen.append(best)
    return chosen


def kcenter_radius(pool: Pool, chosen: Iterable[int]) -> float:
    """The largest distance of a candidate from the nearest chosen one."""
    distances = np.sqrt(np.maximum(2 - 2 * pool.cosines[:, list(chosen)], 0))
    return float(distances.min(axis=1).max())


def log_determinant(pool: Pool, relevance: float, chosen: Sequence[int]) -> float:
    """log det of the kernel of Chen et al. (2018), restricted to chosen."""
    quality = np.exp(relevance / (2 * (1 - relevance)) * pool.relevance[list(chosen)])
    kernel = quality[:, None] * pool.cosines[np.ix_(chosen, chosen)] * quality[None, :]
    sign, logarithm = np.linalg.slogdet(kernel)
    return float(logarithm) if sign > 0 else -math.inf


def copies(pool: Pool) -> list[int]:
    """The group of each candidate: that of the first one before it with a cosine of 0.95 or more, else its own."""
    groups: list[int] = []
    for i in range(len(pool)):
        before = [j for j in range(i) if pool.cosines[i, j] >= 0.95]
        groups.append(groups[before[0]] if before else i)
    return groups


def objective(options: Coverage, pool: Pool) -> SetFunction:
    """F of vecdb/query/selection/coverage.py, for a set of places."""
    like = similarities(pool)
    weights = neighbourhood(pool, like, options.tau)
    cells = cells_of(pool, options.clusters)
    of = copies(pool)

    def value(chosen: Sequence[int]) -> float:
        if not chosen:
            return 0.0
        covered = sum(float(weights[i]) * max(float(like[i, s]) for s in chosen) for i in range(len(pool)))
        relevant = sum(
            max(float(pool.relevance[s]) for s in chosen if of[s] == group) for group in {of[s] for s in chosen}
        )
        varied = sum(
            math.sqrt(sum(float(pool.relevance[s]) for s in chosen if cells[s] == cell)) for cell in set(cells.tolist())
        )
        return options.coverage * covered + options.relevance * relevant + options.diversity * varied

    return value


def best_of_size(value: SetFunction, size: int, count: int) -> float:
    return max(value(chosen) for chosen in combinations(range(size), min(count, size)))


def best_within(value: SetFunction, costs: Sequence[float], budget: float) -> float:
    """Over all sets that the budget allows."""
    places = range(len(costs))
    sets = (chosen for n in range(len(costs) + 1) for chosen in combinations(places, n))
    return max(value(chosen) for chosen in sets if sum(costs[i] for i in chosen) <= budget)
