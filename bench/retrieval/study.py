"""What is compared on a collection, and what was learned for it elsewhere: the lines of results."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from bench.retrieval.measure import Ranker, by_fusion, by_text, by_vector, evaluate, given
from bench.retrieval.sets import FAMILIES, Lists
from vecdb.evaluation import Evaluation, paired_bootstrap
from vecdb.query.fusion import Adaptive, Fusion, Rrf, Vstash, ZScore
from vecdb.query.fusion.features import agreement
from vecdb.query.fusion.fitting import tendency_of
from vecdb.query.fusion.learning import WEIGHTS, Example, curve, example, learn

Line = dict[str, Any]

OWN = "adaptive"
SINGLE = ("dense", "bm25")
MOST_HARM = 0.002  # in nDCG@10, below the better single list
_K = 10


@dataclass(frozen=True)
class Lesson:
    """What one collection teaches the others. examples: for the adaptive fusion; rrf: (Q, 21) curves of reciprocal ranks."""

    name: str
    examples: list[Example]
    rrf: np.ndarray[Any, np.dtype[np.float64]]

    @property
    def scores(self) -> np.ndarray[Any, np.dtype[np.float64]]:
        """(Q, 21) curves of scores in deviations."""
        return np.array([example.curve for example in self.examples])


@dataclass(frozen=True)
class Learned:
    """What the other collections say: constant weights of the text list, and a lean."""

    rrf_text: float
    scores_text: float
    adaptive: Adaptive


def lesson_of(lists: Lists) -> Lesson:
    examples, rrf = [], []
    tendency = float(np.mean(agreements(lists)))
    for query, grades in zip(lists.queries, lists.grades):
        (vector, text), _ = given(query, _K, Adaptive().pool(_K + 1), lists.documents)
        examples.append(example(vector, text, grades, tendency))
        added = [1.0 / (60.0 + np.arange(1, len(ranking) + 1)) for ranking in (vector, text)]
        rrf.append(curve(vector, text, added, grades))
    return Lesson(lists.name, examples, np.array(rrf))


def agreements(lists: Lists) -> np.ndarray[Any, np.dtype[np.float64]]:
    """(Q,) of each query's two lists. No judgement goes into it."""
    pairs = (given(query, _K, Adaptive().pool(_K + 1), lists.documents)[0] for query in lists.queries)
    return np.array([agreement(vector, text) for vector, text in pairs])


def fitted(lists: Lists, learned: Adaptive) -> dict[str, Adaptive]:
    """For each query id the adaptive fusion with the tendency of the other half of the queries, whose answers it never saw."""
    found = agreements(lists)
    halves = np.arange(len(found)) % 2
    tendencies = [tendency_of(found[halves != half].tolist()) for half in (0, 1)]
    return {
        query.id: replace(learned, tendency=tendencies[half]) for query, half in zip(lists.queries, halves.tolist())
    }


def learned_elsewhere(name: str, lessons: Sequence[Lesson]) -> Learned:
    """From all lessons but this collection's own and its family's."""
    family: set[str] = next((known for known in FAMILIES if name in known), {name})
    others = [lesson for lesson in lessons if lesson.name not in family]
    return Learned(
        best_constant([lesson.rrf for lesson in others]),
        best_constant([lesson.scores for lesson in others]),
        Adaptive(lean=learn([lesson.examples for lesson in others])),
    )


def best_constant(curves: Sequence[np.ndarray[Any, np.dtype[np.float64]]]) -> float:
    """The text list's weight with the best mean over collections of their means."""
    return float(WEIGHTS[int(np.argmax(np.mean([of.mean(axis=0) for of in curves], axis=0)))])


def fusions(learned: Learned) -> dict[str, Fusion]:
    """Every way of joining two lists, by name. Constants were chosen on the other collections."""
    return {
        "rrf": Rrf(),
        "rrf, constant": Rrf(weights=(1 - learned.rrf_text, learned.rrf_text)),
        "scores, constant": ZScore(weights=(1 - learned.scores_text, learned.scores_text)),
        "vstash's rule": Vstash(),
        "adaptive, unfitted": learned.adaptive,
    }


def compared(lists: Lists, learned: Learned, peers: Mapping[str, Ranker] | None = None) -> dict[str, Evaluation]:
    """Each way measured on one collection, and the best weight of each query that the judgements would choose."""
    rankers: dict[str, Ranker] = {"dense": by_vector, "bm25": by_text, **(peers or {})}
    rankers |= {name: by_fusion(fusion, lists.documents) for name, fusion in fusions(learned).items()}
    own = {id: by_fusion(fusion, lists.documents) for id, fusion in fitted(lists, learned.adaptive).items()}
    rankers[OWN] = lambda query, k: own[query.id](query, k)
    found = {name: evaluate(lists, ranker) for name, ranker in rankers.items()}
    lesson = lesson_of(lists)
    for name, curves in (("oracle, rrf", lesson.rrf), ("oracle, scores", lesson.scores)):
        best = dict(zip((query.id for query in lists.queries), curves.max(axis=1).tolist()))
        found[name] = Evaluation(
            {"nDCG@10": float(np.mean(list(best.values())))}, {q: {"nDCG@10": v} for q, v in best.items()}
        )
    return found


def lines_of(lists: Lists, learned: Learned, found: Mapping[str, Evaluation]) -> Iterator[Line]:
    """A line for each way: its means, and by how much the adaptive fusion is better, with a paired 95 % interval."""
    weights = adaptive_weights(lists, learned.adaptive)
    for name, evaluation in found.items():
        line: Line = {
            "set": lists.name,
            "documents": lists.documents,
            "queries": len(lists.queries),
            "way": name,
            "means": evaluation.means,
        }
        if name == OWN:
            line["text_weight"] = {"mean": float(weights.mean()), "sd": float(weights.std())}
        else:
            gain = paired_bootstrap(found[OWN], evaluation, "nDCG@10")
            line["adaptive_gain"] = {"mean": gain.difference, "low": gain.low, "high": gain.high, "p": gain.p_value}
        if name.endswith("constant"):
            line["text_weight"] = learned.rrf_text if name.startswith("rrf") else learned.scores_text
        yield line


def adaptive_weights(lists: Lists, adaptive: Adaptive) -> np.ndarray[Any, np.dtype[np.float64]]:
    """(Q,) of the text list."""
    weights = []
    own = fitted(lists, adaptive)
    for query in lists.queries:
        rankings, evidence = given(query, _K, adaptive.pool(_K + 1), lists.documents)
        weights.append(own[query.id].shares(rankings, evidence)[0][1].weight)
    return np.array(weights)


def share_of_the_way(start: float, reached: float, end: float) -> float:
    """How far from start to end."""
    return (reached - start) / (end - start) if end > start else 0.0
