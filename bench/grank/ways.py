"""Ways to say what a user takes next. Each gives 500 items of the whole catalogue, best first, without what the user has."""

from __future__ import annotations

import hashlib
import json
import sys
import time
from dataclasses import asdict, dataclass, replace

import numpy as np

from bench.data import CACHE
from bench.grank.data import Split
from vecdb.recommender import Epoch, GRankConfig, Recipe, Recommender

DEPTH = 500  # what the generator finds, and the longest list that is judged
_NEIGHBOURS = 200
_SHRINKAGE = 20.0


@dataclass(frozen=True)
class Answer:
    """lists: items for each user, best first; generated: before a ranker. seconds: of learning; ms: of a user's answer."""

    lists: list[list[str]]
    generated: list[list[str]]
    seconds: float
    ms: float
    epochs: int = 0


def settings(way: str, config: GRankConfig, recipe: Recipe) -> tuple[GRankConfig, Recipe]:
    """Of the trained ways; all have the same size, negatives and number of steps in an epoch."""
    without = {"has_ranker": False}
    return {
        "two-tower": (replace(config, layers=0, **without), replace(recipe, auxiliary=0.0, ranker=0.0)),
        "generator": (replace(config, **without), replace(recipe, auxiliary=0.0, ranker=0.0)),
        "+ auxiliary": (replace(config, **without), replace(recipe, ranker=0.0)),
        "+ ranker": (config, replace(recipe, auxiliary=0.0)),
        "GRank": (config, recipe),
    }[way]


TRAINED = ("two-tower", "generator", "+ auxiliary", "+ ranker", "GRank")
PLAIN = ("popularity", "item-kNN")


def trained(split: Split, way: str, config: GRankConfig, recipe: Recipe) -> tuple[Answer, Recommender]:
    """The model is kept in bench/cache/grank/ and not trained again; training that was broken off goes on."""
    config, recipe = settings(way, config, recipe)
    about = json.dumps([split.name, split.items, asdict(config), asdict(recipe)])
    path = CACHE / "grank" / f"{hashlib.blake2b(about.encode(), digest_size=8).hexdigest()}.safetensors"
    facts = path.with_suffix(".json")
    if not facts.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial")
        told: list[Epoch] = []

        def progress(epoch: Epoch) -> None:
            told.append(epoch)
            print(f"{way} {recipe.seed}: {_said(epoch)}", file=sys.stderr, flush=True)

        recommender = Recommender.fit(
            split.histories, config=config, recipe=recipe, progress=progress, checkpoint=partial, threads=1
        )
        recommender.save(path)
        known = [epoch.seconds for epoch in told]
        number = told[-1].number if told else 0
        facts.write_text(json.dumps({"seconds": float(np.mean(known)) * number if known else 0.0, "epochs": number}))
        partial.unlink(missing_ok=True)
    saved = json.loads(facts.read_text())
    recommender = Recommender.load(path)
    return answered(split, recommender, saved["seconds"], saved["epochs"]), recommender


def answered(split: Split, recommender: Recommender, seconds: float, epochs: int, candidates: int = DEPTH) -> Answer:
    since = time.perf_counter()
    found = recommender.recommend_many(split.histories, candidates, candidates=candidates)
    ms = 1e3 * (time.perf_counter() - since) / len(found)
    lists = [[one.id for one in user] for user in found]
    generated = [[one.id for one in sorted(user, key=lambda one: one.generated)] for user in found]
    return Answer(lists, generated, seconds, ms, epochs)


def plain(split: Split, way: str) -> Answer:
    """popularity: who took it. item-kNN: the sum over a user's items of cosines between columns of the matrix users x items, each
    item's 200 nearest, shrunk by what few users say (Sarwar et al. 2001).
    """
    since = time.perf_counter()
    ids = sorted({item for history in split.histories for item in history})
    numbers = {item: number for number, item in enumerate(ids)}
    taken = np.zeros((len(split.histories), len(ids)), np.float32)
    for user, history in enumerate(split.histories):
        taken[user, [numbers[item] for item in history]] = 1.0
    if way == "popularity":
        scores = np.broadcast_to(taken.sum(axis=0), taken.shape)
    else:
        scores = taken @ _similar(taken)
    seconds = time.perf_counter() - since
    since = time.perf_counter()
    order = np.argsort(-np.where(taken > 0, -np.inf, scores), axis=1, kind="stable")[:, :DEPTH]
    lists = [[ids[number] for number in row if not taken[user, number]] for user, row in enumerate(order)]
    return Answer(lists, lists, seconds, 1e3 * (time.perf_counter() - since) / len(lists))


def _similar(taken: np.ndarray) -> np.ndarray:
    """(n, n) float32, column j: how near each item is to j, 0 but for the nearest."""
    counts = taken.sum(axis=0)
    near = taken.T @ taken
    near *= near / (near + _SHRINKAGE)
    near /= np.sqrt(np.maximum(counts[:, None] * counts[None, :], 1.0))
    np.fill_diagonal(near, 0.0)
    if len(near) > _NEIGHBOURS:
        least = np.partition(near, -_NEIGHBOURS, axis=1)[:, -_NEIGHBOURS]
        near[near < least[:, None]] = 0.0
    return near


def _said(epoch: Epoch) -> str:
    held_out = "" if epoch.held_out is None else f", held out {epoch.held_out:.4f}"
    return (
        f"epoch {epoch.number}, losses {epoch.generator:.3f} {epoch.auxiliary:.3f} {epoch.ranker:.3f}{held_out}, "
        f"{epoch.seconds:.0f} s"
    )
