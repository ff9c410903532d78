"""What ways to rank groups are measured by: average precision and recall of the first ten, and the distances that it took."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.intervals import mean_interval
from bench.learned.group_sets import GroupedSet, load_grouped
from bench.learned.group_ways import WAYS, Ranked, Ranker
from vecdb.index.groups import Grouped, GroupKernel, exact_groups, gridded_groups, nearest_by, probed_groups

K = 10
ORACLE = "groups, exact"
_CROWD = 5_000


def study(name: str, ways: Sequence[str], seed: int) -> Iterator[dict[str, Any]]:
    """One line for each way, with its paired difference to the oracle, all distances by CANN's kernel."""
    data = load_grouped(name)
    ranker = Ranker(data, seed=seed)
    described = {
        "name": name,
        "rows": len(data.base),
        "dimension": data.base.shape[1],
        "groups": data.count,
        "queries": len(data.queries),
        "vectors_a_query": float(np.mean([len(query) for query in data.queries])),
        "seed": seed,
    }
    oracle: dict[str, NDArray[np.float64]] = {}
    for way in ways:
        made = [WAYS[way](ranker, query) for query in range(len(data.queries))]
        found = {"ap": per_query(made, data, average_precision), "recall": per_query(made, data, recall)}
        oracle = found if way == ORACLE else oracle
        pairs = [len(query) * len(data.base) for query in data.queries]
        yield {
            "part": "groups",
            "data": described,
            "way": way,
            "reach": ranker.kernel.reach,
            **{measure: float(values.mean()) for measure, values in found.items()},
            "work": float(np.mean([ranked.work / all_pairs for ranked, all_pairs in zip(made, pairs)])),
            "oracle_minus": {m: mean_interval(oracle[m] - found[m], seed) for m in found if oracle and way != ORACLE},
        }


def per_query(made: Sequence[Ranked], data: GroupedSet, measure: Any) -> NDArray[np.float64]:
    return np.array([measure(ranked.groups, good) for ranked, good in zip(made, data.relevant)])


def recall(groups: Sequence[int], good: frozenset[int]) -> float:
    """Of the first ten, as a share of what ten can hold."""
    return len(good & set(groups[:K])) / min(K, len(good))


def average_precision(groups: Sequence[int], good: frozenset[int]) -> float:
    """Of the first ten."""
    places = [place for place, group in enumerate(groups[:K], 1) if group in good]
    return sum(count / place for count, place in enumerate(places, 1)) / min(K, len(good))


def crowd(name: str, seed: int) -> dict[str, Any]:
    """One more group, of 5,000 near copies of a query's vectors: how many of the ten groups that the oracle finds without it are
    among the first eleven with it, and how many different groups are among as many nearest vectors as a plain search would take.
    """
    data = load_grouped(name)
    ranker = Ranker(data, seed=seed)
    random = np.random.default_rng([seed, 3])
    shares: dict[str, list[float]] = {"exact": [], "index": [], "grids": [], "plain": []}
    for query in random.permutation(len(data.queries))[:5]:
        vectors = data.queries[query]
        before = exact_groups(ranker.grouped_for(query), vectors, K, ranker.kernel).keys
        noise = 0.01 * random.standard_normal((_CROWD, data.base.shape[1])) / np.sqrt(data.base.shape[1])
        copies = vectors[random.integers(0, len(vectors), _CROWD)] + noise.astype(np.float32)
        base = np.concatenate([data.base, copies])
        groups = np.append(ranker.groups_for(int(query)), np.full(_CROWD, int(data.groups.max()) + 1))
        grown = Ranker(GroupedSet(name, base, groups, [vectors], [frozenset()], [-1]), seed=seed)
        for way, found in _every(grown, ranker.kernel, groups, vectors):
            shares[way].append(len(np.intersect1d(found, before)) / max(len(before), 1))
        nearest = _nearest(base, vectors[0], 100)
        shares["plain"].append(len(np.unique(groups[nearest])) / K)
    described = {"name": name, "crowd": _CROWD, "queries": 5, "seed": seed}
    return {
        "part": "crowd",
        "data": described,
        "way": "crowd",
        "kept": {w: float(np.mean(s)) for w, s in shares.items()},
    }


def _every(ranker: Ranker, kernel: GroupKernel, groups: Any, vectors: Any) -> Iterator[tuple[str, Any]]:
    base = ranker.data.base
    yield "exact", exact_groups(Grouped.of(base, groups), vectors, K + 1, kernel).keys
    search = nearest_by(ranker.graph)
    yield "index", probed_groups(search, base, groups, vectors, K + 1, kernel).keys
    yield "grids", gridded_groups(ranker.grids, base, groups, vectors, K + 1, kernel).keys


def _nearest(base: Any, query: Any, count: int) -> Any:
    away = np.einsum("nd,nd->n", base, base) - 2 * (base @ query)
    return np.argpartition(away, count)[:count]
