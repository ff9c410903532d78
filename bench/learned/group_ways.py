"""Ways to rank groups for a query of several vectors. Each gives groups, best first, and how many distances it computed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from bench.learned.group_sets import GroupedSet, Labels, Matrix
from vecdb.index import HnswConfig, HnswIndex
from vecdb.index.groups import (
    Grids,
    Grouped,
    GroupKernel,
    exact_groups,
    gridded_groups,
    measured_reach,
    nearest_by,
    probed_groups,
)
from vecdb.index.groups.exact import nearest_in_groups

DEPTH = 100  # groups of a ranking that are kept


@dataclass(frozen=True)
class Ranked:
    """groups: best first, at most DEPTH; work: distances between full vectors."""

    groups: list[int]
    work: int


@dataclass
class Ranker:
    """One set, and what the ways have in common. quantile: see measured_reach; votes: neighbours of each query vector."""

    data: GroupedSet
    quantile: float = 0.5
    votes: int = 20
    seed: int = 0

    @cached_property
    def grouped(self) -> Grouped:
        return Grouped.of(self.data.base, self.data.groups)

    @cached_property
    def kernel(self) -> GroupKernel:
        return GroupKernel(measured_reach(self.grouped, self.seed, self.quantile))

    @cached_property
    def grids(self) -> Grids:
        return Grids.of(self.grouped, seed=self.seed)

    @cached_property
    def graph(self) -> Any:
        return HnswIndex.build(self.data.base, "l2", HnswConfig(seed=self.seed), threads=1)

    @cached_property
    def means(self) -> Matrix:
        sums = np.add.reduceat(self.data.base[self.grouped.positions], self.grouped.starts[:-1], axis=0)
        return _unit(sums)

    def groups_for(self, query: int) -> Labels:
        """The group of each vector, -1 in the one that is no answer to this query."""
        own = self.data.own[query]
        return self.data.groups if own < 0 else np.where(self.data.groups == own, -1, self.data.groups)

    def grouped_for(self, query: int) -> Grouped:
        return self.grouped if self.data.own[query] < 0 else Grouped.of(self.data.base, self.groups_for(query))


def exact(ranker: Ranker, query: int) -> Ranked:
    found = exact_groups(ranker.grouped_for(query), ranker.data.queries[query], DEPTH, ranker.kernel)
    return Ranked(found.keys.tolist(), found.work)


def chamfer(ranker: Ranker, query: int) -> Ranked:
    """The mean of the least distances: every one counts, however far."""
    grouped, vectors = ranker.grouped_for(query), ranker.data.queries[query]
    away = nearest_in_groups(grouped, vectors).mean(axis=0)
    return Ranked(grouped.keys[np.argsort(away, kind="stable")[:DEPTH]].tolist(), len(vectors) * len(grouped.positions))


def pooled(ranker: Ranker, query: int) -> Ranked:
    """The mean of the query's vectors against the mean of each group's, by cosine."""
    scores = ranker.means @ _unit(ranker.data.queries[query].sum(axis=0)[None])[0]
    order = ranker.grouped.keys[np.argsort(-scores, kind="stable")]
    return Ranked(order[order != ranker.data.own[query]][:DEPTH].tolist(), len(order))


def voted(ranker: Ranker, query: int) -> Ranked:
    """How often groups stand among the nearest of each query vector; equal ones by the sum of similarities."""
    groups, vectors = ranker.groups_for(query), ranker.data.queries[query]
    kept = np.flatnonzero(groups >= 0)
    votes = np.zeros(int(groups.max()) + 1)
    base = ranker.data.base[kept] if len(kept) < len(groups) else ranker.data.base
    squares = np.einsum("nd,nd->n", base, base)
    for vector in vectors:
        away = squares - 2 * (base @ vector)
        nearest = np.argpartition(away, ranker.votes)[: ranker.votes]
        np.add.at(votes, groups[kept[nearest]], 1.0 + 1e-3 * (1.0 - away[nearest]))
    order = np.argsort(-votes, kind="stable")
    return Ranked(order[votes[order] > 0][:DEPTH].tolist(), len(vectors) * len(kept))


def by_index(ranker: Ranker, query: int) -> Ranked:
    groups, vectors = ranker.groups_for(query), ranker.data.queries[query]
    found = probed_groups(nearest_by(ranker.graph), ranker.data.base, groups, vectors, 10, ranker.kernel)
    return Ranked(found.keys.tolist(), found.work)


def by_grids(ranker: Ranker, query: int) -> Ranked:
    groups, vectors = ranker.groups_for(query), ranker.data.queries[query]
    found = gridded_groups(ranker.grids, ranker.data.base, groups, vectors, 10, ranker.kernel)
    return Ranked(found.keys.tolist(), found.work)


WAYS: dict[str, Callable[[Ranker, int], Ranked]] = {
    "groups, exact": exact,
    "groups, index": by_index,
    "groups, grids": by_grids,
    "mean pooling": pooled,
    "voting": voted,
    "Chamfer": chamfer,
}


def _unit(vectors: Matrix) -> Matrix:
    unit: Matrix = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)
    return unit
