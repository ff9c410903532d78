"""What the studies of orders share: a sample of queries, nDCG@10 of their orders, and a line with the difference to a base."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from bench.retrieval.sets import Judged, Lists
from vecdb.evaluation import Evaluation, evaluate_run, paired_bootstrap

Line = dict[str, Any]
MEASURE = "nDCG@10"


def sample(lists: Lists, count: int) -> list[int]:
    """Queries by chance, the same for every method."""
    chosen = np.random.default_rng(0).permutation(len(lists.queries))[:count]
    return sorted(chosen.tolist())


def evaluated(lists: Lists, orders: Mapping[int, Sequence[int]], measure: str = MEASURE) -> Evaluation:
    """orders: documents of each query, best first, by its turn in lists."""
    qrels = {lists.queries[p].id: {str(d): g for d, g in lists.grades[p].items()} for p in orders}
    run = {lists.queries[p].id: [(str(d), -float(i)) for i, d in enumerate(found)] for p, found in orders.items()}
    return evaluate_run(run, qrels, measures=(measure,))


def gain(found: Evaluation, base: Evaluation, measure: str = MEASURE) -> list[float]:
    """[difference, low, high]: of the means, with its 95 % interval by paired bootstrap."""
    compared = paired_bootstrap(found, base, measure)
    return [compared.difference, compared.low, compared.high]


def line(judged: Judged, way: str, found: Evaluation, base: Evaluation, more: Line, measure: str = MEASURE) -> Line:
    return {
        "set": judged.name,
        "queries": len(found.per_query),
        "way": way,
        measure: found.means[measure],
        "gain": gain(found, base, measure),
        **more,
    }
