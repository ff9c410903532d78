"""How good a list is that shall cover sub-topics. Pure functions of labels: no vector comes in here."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence

Facets = Mapping[int, Collection[str]]  # row of each relevant record -> its sub-topics, at least one

_ALPHA = 0.5  # as in the TREC web tracks


def subtopic_recall(ranking: Sequence[int], facets: Facets, k: int) -> float:
    """S-recall@k (Zhai, Cohen & Lafferty, SIGIR 2003): the share of all sub-topics that the first k have."""
    found = {topic for row in ranking[:k] for topic in facets.get(row, ())}
    return len(found) / len({topic for topics in facets.values() for topic in topics})


def precision(ranking: Sequence[int], facets: Facets, k: int) -> float:
    return sum(row in facets for row in ranking[:k]) / k


def alpha_ndcg(ranking: Sequence[int], facets: Facets, k: int) -> float:
    """alpha-nDCG@k (Clarke et al., SIGIR 2008), alpha = 0.5: each further record of a sub-topic counts half of the one before.

    The ideal list is chosen greedily, as its authors do: the best one is NP-hard to find.
    """
    kinds = Counter(tuple(sorted(topics)) for topics in facets.values())  # records with the same sub-topics are alike
    ideal: list[tuple[str, ...]] = []
    seen: dict[str, int] = {}
    for _ in range(min(k, len(facets))):
        best = max(sorted(kinds), key=lambda topics: _gain(topics, seen))
        ideal.append(best)
        kinds -= Counter([best])
        for topic in best:
            seen[topic] = seen.get(topic, 0) + 1
    return _alpha_dcg([facets.get(row, ()) for row in ranking[:k]]) / _alpha_dcg(ideal)


def _alpha_dcg(found: Sequence[Collection[str]]) -> float:
    """found: the sub-topics of each record of a list."""
    seen: dict[str, int] = {}
    total = 0.0
    for place, topics in enumerate(found):
        total += _gain(topics, seen) / math.log2(place + 2)
        for topic in topics:
            seen[topic] = seen.get(topic, 0) + 1
    return total


def _gain(topics: Collection[str], seen: Mapping[str, int]) -> float:
    return sum(_ALPHA ** seen.get(topic, 0) for topic in topics)
