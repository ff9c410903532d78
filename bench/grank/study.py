"""Recall and nDCG of each way, over seeds and by user; what each part adds, with intervals; how deep the generator must go."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.grank.data import Split
from bench.grank.ways import PLAIN, TRAINED, answered, plain, trained
from vecdb.evaluation import Evaluation, paired_bootstrap
from vecdb.recommender import GRankConfig, Recipe

CUTS = (10, 50, 500)
DEPTHS = (50, 100, 200, 500, 1000, 2000)
# What the paper's ablation says: each of the first is better than the second, by the measure.
ORDER = (
    ("+ auxiliary", "generator", "generated R@500"),
    ("+ auxiliary", "generator", "R@50"),
    ("+ ranker", "generator", "R@50"),
    ("GRank", "+ ranker", "R@50"),
    ("GRank", "+ ranker", "generated R@500"),
    ("GRank", "+ auxiliary", "R@50"),
    ("GRank", "generator", "R@50"),
    ("GRank", "generator", "nDCG@50"),
    ("GRank", "two-tower", "R@50"),
    ("GRank", "item-kNN", "R@50"),
    ("GRank", "popularity", "R@50"),
)


def study(split: Split, config: GRankConfig, recipe: Recipe, seeds: Sequence[int]) -> Iterator[dict[str, Any]]:
    """A line for each way, one for each of ORDER, and one for the depths of GRank's generator."""
    data = {"name": split.name, "users": len(split.histories), "items": split.items}
    data["taken"] = sum(len(history) for history in split.histories)
    by_user: dict[str, Evaluation] = {}
    for way in (*PLAIN, *TRAINED):
        answers = [plain(split, way)] if way in PLAIN else []
        answers += [
            trained(split, way, config, replace(recipe, seed=seed))[0] for seed in (seeds if way in TRAINED else ())
        ]
        measured = [measures(answer.lists, answer.generated, split.tests) for answer in answers]
        by_user[way] = _evaluation(measured)
        means = {name: [float(found[name].mean()) for found in measured] for name in measured[0]}
        yield {
            "part": "way",
            "data": data,
            "way": way,
            "seeds": len(answers),
            "means": {name: float(np.mean(values)) for name, values in means.items()},
            "sd": {name: float(np.std(values, ddof=1)) if len(values) > 1 else None for name, values in means.items()},
            "by_seed": means,
            "learning_s": float(np.mean([answer.seconds for answer in answers])),
            "epochs": [answer.epochs for answer in answers],
            "ms": float(np.mean([answer.ms for answer in answers])),
        }
    for better, worse, measure in ORDER:
        found = paired_bootstrap(by_user[better], by_user[worse], measure)
        yield {
            "part": "difference",
            "data": data,
            "better": better,
            "worse": worse,
            "measure": measure,
            "difference": found.difference,
            "low": found.low,
            "high": found.high,
            "p": found.p_value,
        }
    yield {"part": "depth", "data": data, "seed": seeds[0], "points": _depths(split, config, recipe, seeds[0])}


def measures(
    lists: Sequence[Sequence[str]], generated: Sequence[Sequence[str]], tests: Sequence[str]
) -> dict[str, NDArray[np.float64]]:
    """(users,) of each measure, over the whole catalogue: recall, and nDCG with one relevant item, which is 1 / log2(1 + rank).
    "generated": the same of the list before a ranker ordered it, the ceiling of what it can do.
    """
    found = {}
    for prefix, ranked in (("", lists), ("generated ", generated)):
        places = np.array([_place(items, test) for items, test in zip(ranked, tests)])
        for cut in CUTS:
            inside = places < cut
            found[f"{prefix}R@{cut}"] = inside.astype(np.float64)
            found[f"{prefix}nDCG@{cut}"] = np.where(inside, 1 / np.log2(np.where(inside, places, 0) + 2), 0.0)
    return found


def _place(items: Sequence[str], test: str) -> float:
    return items.index(test) if test in items else np.inf


def _evaluation(measured: Sequence[dict[str, NDArray[np.float64]]]) -> Evaluation:
    """By user, the mean over seeds: users are what is drawn anew, seeds only make each one's figure less of a chance."""
    mean = {name: np.mean([found[name] for found in measured], axis=0) for name in measured[0]}
    users = len(next(iter(mean.values())))
    per_query = {str(user): {name: float(values[user]) for name, values in mean.items()} for user in range(users)}
    return Evaluation({name: float(values.mean()) for name, values in mean.items()}, per_query)


def _depths(split: Split, config: GRankConfig, recipe: Recipe, seed: int) -> list[dict[str, float]]:
    """Recall at 50 after the ranker saw so many candidates, and the ceiling: the generator's recall at that depth."""
    _, recommender = trained(split, "GRank", config, replace(recipe, seed=seed))
    points = []
    for depth in DEPTHS:
        if depth > len(recommender.ids):
            break
        answer = answered(split, recommender, 0.0, 0, candidates=depth)
        ceiling = np.mean([test in items for items, test in zip(answer.generated, split.tests)])
        recall = float(measures(answer.lists, answer.generated, split.tests)["R@50"].mean())
        assert recall <= ceiling
        points.append({"candidates": depth, "R@50": recall, "ceiling": float(ceiling), "ms": answer.ms})
    return points
