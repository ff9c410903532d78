"""A small set that stands for the whole neighbourhood of a query: greedy choice by a monotone submodular objective.

The idea is Raja & Vats (2025), "Beyond Nearest Neighbors: Semantic Compression and Graph-Augmented Retrieval"; the formulas
are ours, since that paper gives none. For a set S of the pool C, cells P_1 … P_J of the pool, relevance r within 0 … 1:

    F(S) = coverage  * sum over i in C of w_i * (max over s in S of similarity(i, s))
         + relevance * sum over g of (max over s in S and C_g of r_s)
         + diversity * sum over j of sqrt(sum over s in S and P_j of r_s)

The first term is facility location: what lies near the query must be represented. w is the softmax of r / tau, divided by how
many candidates are like i: a region counts by its relevance, not by its number of records, which would draw the choice to where
most of the pool is. The second goes by groups of near copies C_g, most of which have one member: so a small weight of it breaks
the ties of a neighbourhood that is covered by relevance, and still brings no copy back. All three terms are monotone and
submodular, as no similarity is negative, so the greedy choice of k reaches at least 1 - 1/e = 0.632 of the best k (Nemhauser,
Wolsey & Fisher 1978). With coverage = diversity = 0 it is the top k of a pool without copies.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vecdb.errors import InvalidQuery
from vecdb.query.selection.base import (
    MOST_IN_POOL,
    Covered,
    Floats,
    Places,
    Pool,
    Selection,
    check_number,
    check_whole,
)
from vecdb.query.selection.kcenter import farthest_first

# Bounds looked at together: one NumPy call for a block costs little more than one for a single candidate.
_BLOCK = 16
_LEAST_IN_CELL = 5  # on average: were each candidate a cell of its own, the diversity of cells would say nothing
_COPY = 0.95  # the cosine from which a record is a near copy of another
_ROUNDS = 3  # of k-means; the cells need not be the best ones


@dataclass(frozen=True, slots=True)
class Coverage:
    """coverage, relevance, diversity: the weights of the three terms. tau: how sharply the neighbourhood is the query's; small
    lets only the most relevant candidates count. clusters: cells of the pool, at most one for five candidates.

    The defaults came out best on the tuning halves of `bench select`: they raised the share of sub-topics found by 10 % without
    costing 5 % of the precision on most sets. Without relevance, questions whose answers stand out from all else lose some of
    them to records that only fill the page with something new. A diversity of 0.01 finds a little more and costs precision.
    """

    coverage: float = 1.0
    relevance: float = 0.02
    diversity: float = 0.003
    tau: float = 0.05
    clusters: int = 20
    pool: int = 200

    def __post_init__(self) -> None:
        for name in ("coverage", "relevance", "diversity"):
            check_number(name, getattr(self, name), 0, 1e6)
        if not self.coverage + self.relevance + self.diversity > 0:
            raise InvalidQuery("coverage, relevance and diversity of a selection are all 0; give one of them a weight")
        check_number("tau", self.tau, 1e-3, 1e6)
        check_whole("clusters", self.clusters, MOST_IN_POOL)
        check_whole("pool", self.pool, MOST_IN_POOL)

    def choose(self, pool: Pool, count: int) -> Selection:
        objective = Objective(self, pool)
        return objective.selection(lazy_greedy(objective, count))

    def within(self, pool: Pool, costs: Floats, budget: float) -> Selection:
        """A set whose costs (c,) sum to at most budget.

        The better of two greedy choices, by gain and by gain for its cost: either alone can be arbitrarily bad, the better
        one reaches at least (1 - 1/e) / 2 of the best set (Leskovec et al., "Cost-effective outbreak detection in networks",
        KDD 2007, theorem 3).
        """
        choices = []
        for divisors in (None, costs):
            objective = Objective(self, pool)
            choices.append((objective, lazy_greedy(objective, len(pool), costs, budget, divisors)))
        objective, chosen = max(choices, key=lambda choice: sum(choice[1][1]))
        return objective.selection(chosen)


class Objective:
    """F, and the state of a greedy choice. A candidate's gain never grows as the set does, not even by rounding: each operation
    below is monotone in floating point too, so a stale gain is an upper bound to the last bit.
    """

    def __init__(self, options: Coverage, pool: Pool) -> None:
        self._options = options
        self._relevance = pool.relevance
        self.similarities = similarities(pool)
        self.weights = neighbourhood(pool, self.similarities, options.tau)
        nothing_to_vary = not options.diversity  # then the cells, half of the time, are not needed
        self.cells = np.zeros(len(pool), dtype=np.int64) if nothing_to_vary else cells_of(pool, options.clusters)
        self._groups = copies_in(pool)
        self._counted = np.zeros(len(pool))  # the largest relevance chosen of each group of copies
        self._best = np.zeros(len(pool))  # similarity of each candidate to the chosen one most like it
        self._mass = np.zeros(int(self.cells.max(initial=0)) + 1)  # relevance chosen in each cell

    def gains(self, places: Places) -> Floats:
        """(b,) what each of these candidates would add."""
        options, relevance = self._options, self._relevance[places]
        nearer = np.maximum(self.similarities[places] - self._best, 0.0)
        nearer *= self.weights
        mass = self._mass[self.cells[places]]
        root = np.sqrt(mass + relevance) + np.sqrt(mass)  # sqrt(m + r) - sqrt(m) = r / root, without cancellation
        varied = relevance / np.where(root > 0, root, 1.0)
        better = np.maximum(relevance - self._counted[self._groups[places]], 0.0)
        gains: Floats = options.coverage * nearer.sum(axis=1) + options.relevance * better + options.diversity * varied
        return gains

    def take(self, place: int) -> None:
        np.maximum(self._best, self.similarities[place], out=self._best)
        self._mass[self.cells[place]] += self._relevance[place]
        group = self._groups[place]
        self._counted[group] = max(self._counted[group], self._relevance[place])

    def selection(self, chosen: tuple[list[int], list[float]]) -> Selection:
        places, gains = chosen
        return Selection(places, gains, self._covered(places))

    def _covered(self, places: list[int]) -> Callable[[int], Covered]:
        def covered(count: int) -> Covered:
            first = places[:count]
            like = self.similarities[first]
            scores = np.maximum.accumulate(like, axis=0) @ self.weights
            nearest = np.argmax(like, axis=0)
            nearest[first] = np.arange(len(first))  # a copy of a chosen one, if chosen too, stands for itself
            counted = self.weights * like.max(axis=0)
            order = np.argsort(-self.weights, kind="stable")
            order = order[~np.isin(order, first) & (counted[order] > 0)]
            cells = [order[nearest[order] == i].tolist() for i in range(len(first))]
            shares = np.bincount(nearest, weights=counted, minlength=len(first))
            return Covered(scores.tolist(), shares.tolist(), cells)

        return covered


def similarities(pool: Pool) -> Floats:
    """(c, c) within 0 … 1, 1 on the diagonal: how far a cosine lies above the pool's mean one.

    Models differ in how alike they find any two texts; what is no more alike than two candidates usually are covers nothing.
    """
    count = len(pool)
    floor = max((pool.cosines.sum() - count) / max(count * (count - 1), 1), 0.0)
    if floor > 1 - 1e-6:  # copies of one record
        return np.ones_like(pool.cosines)
    return np.asarray(np.maximum(pool.cosines - floor, 0.0) / (1.0 - floor))


def neighbourhood(pool: Pool, similarities: Floats, tau: float) -> Floats:
    """(c,) summing to 1: how much each candidate must be represented."""
    if not len(pool):
        return np.zeros(0)
    crowd = similarities.sum(axis=1)
    with_vector = pool.vectors.any(axis=1)
    if with_vector.any():  # nobody knows what the others are like: they count as usual ones
        crowd[~with_vector] = crowd[with_vector].mean()
    weights = np.exp((pool.relevance - pool.relevance.max()) / tau) / crowd
    return np.asarray(weights / weights.sum())


def copies_in(pool: Pool) -> NDArray[np.int64]:
    """(c,) the group of each candidate: that of the first one before it that it is a near copy of, else one of its own."""
    like = np.tril(pool.cosines >= _COPY, -1)
    groups = np.arange(len(pool))
    for place in np.flatnonzero(like.any(axis=1)):
        groups[place] = groups[np.argmax(like[place])]
    return groups


def cells_of(pool: Pool, count: int) -> NDArray[np.int64]:
    """(c,) the cell of each candidate: spherical k-means from seeds that are far from each other, so the same each time.

    Copies share a cell. Candidates without a vector have one together.
    """
    with_vector = np.flatnonzero(pool.vectors.any(axis=1))
    cells = np.zeros(len(pool), dtype=np.int64)
    if not len(with_vector):
        return cells
    vectors = pool.vectors[with_vector]
    count = min(count, -(-len(vectors) // _LEAST_IN_CELL))
    seeds, distances = farthest_first(pool.cosines[np.ix_(with_vector, with_vector)], count)
    centres = vectors[[seed for seed, distance in zip(seeds, distances) if distance > 1e-3]]
    nearest = np.argmax(vectors @ centres.T, axis=1)
    for _ in range(_ROUNDS):
        sums = (nearest[None, :] == np.arange(len(centres))[:, None]).astype(np.float32) @ vectors
        norms = np.linalg.norm(sums, axis=1, keepdims=True)
        centres = np.where(norms > 1e-9, sums / np.maximum(norms, 1e-9), centres)  # an empty cell keeps its centre
        moved = np.argmax(vectors @ centres.T, axis=1)
        if np.array_equal(moved, nearest):
            break
        nearest = moved
    cells[:] = len(centres)
    cells[with_vector] = nearest
    return cells


def lazy_greedy(
    objective: Objective,
    count: int,
    costs: Floats | None = None,
    budget: float = np.inf,
    divisors: Floats | None = None,
) -> tuple[list[int], list[float]]:
    """Places in order of choice, and their gains: count of them, within budget if there are costs. divisors: (c,) what gains are
    divided by for comparison. Of equals the earlier is taken.

    Lazy (Minoux 1978): what a candidate would have added earlier bounds what it adds now, so only those with the largest bounds
    are looked at again. They are, in blocks, until the best of them is above all other bounds.
    """
    places: list[int] = []
    gains: list[float] = []
    waiting = np.arange(len(objective.weights))
    bounds = np.full(len(waiting), np.inf)
    value = np.zeros(len(waiting))  # the gain behind each bound
    spent = 0.0
    while len(places) < count:
        if costs is not None:  # what does not fit now never will
            waiting = waiting[costs[waiting] <= budget - spent]
        if not len(waiting):
            break
        waiting = waiting[np.lexsort((waiting, -bounds[waiting]))]
        best, best_bound = -1, -np.inf
        block = len(waiting) if not places else _BLOCK
        for start in range(0, len(waiting), block):
            ahead = waiting[start]
            if bounds[ahead] < best_bound or (bounds[ahead] == best_bound and ahead > best):
                break
            fresh = waiting[start : start + block]
            value[fresh] = objective.gains(fresh)
            bounds[fresh] = value[fresh] if divisors is None else value[fresh] / divisors[fresh]
            top = bounds[fresh].max()
            if top >= best_bound:
                first = int(fresh[bounds[fresh] == top].min())
                best = first if top > best_bound else min(first, best)
                best_bound = top
        objective.take(best)
        places.append(best)
        gains.append(float(value[best]))
        waiting = waiting[waiting != best]
        spent += float(costs[best]) if costs is not None else 0.0
    return places, gains
