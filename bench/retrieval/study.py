"""What is compared on a collection, and what was learned for it elsewhere: the lines of results."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from bench.retrieval.measure import Ranker, by_fusion, by_text, by_vector, evaluate, given
from bench.retrieval.sets import Lists
from vecdb.evaluation import Evaluation, paired_bootstrap
from vecdb.query.fusion import Adaptive, Fusion, Lean, Rrf, Vstash, ZScore
from vecdb.query.fusion.features import features
from vecdb.query.fusion.fitting import usual_of
from vecdb.query.fusion.learning import WEIGHTS, Example, Floats, curve, example, learn, learn_on

Line = dict[str, Any]

OWN = "adaptive"
SINGLE = ("dense", "bm25")
MOST_HARM = 0.002  # in nDCG@10, below the better single list
_K = 10
_WEAKENED = 0.25  # what a collection's four weakened forms count each, beside itself


@dataclass(frozen=True)
class Lesson:
    """What one collection teaches the others. fitted, unfitted: examples, with what its other queries are like and without; rrf:
    (Q, 21) curves of reciprocal ranks.
    """

    lists: Lists
    fitted: list[Example]
    unfitted: list[Example]
    rrf: Floats

    @property
    def scores(self) -> Floats:
        """(Q, 21) curves of scores in deviations."""
        return np.array([example.curve for example in self.fitted])


@dataclass(frozen=True)
class Learned:
    """What the other collections say: constant weights of the text list, and a lean."""

    rrf_text: float
    scores_text: float
    lean: Lean
    unfitted: Lean


def lesson_of(lists: Lists) -> Lesson:
    fitted, unfitted, rrf = [], [], []
    usual = usual_of_others(lists)
    for query, grades in zip(lists.queries, lists.grades):
        (vector, text), _ = given(query, _K, Adaptive().pool(_K + 1), lists.documents)
        fitted.append(example(vector, text, grades, usual[query.id]))
        unfitted.append(replace(fitted[-1], features=features(vector, text)))
        added = [1.0 / (60.0 + np.arange(1, len(ranking) + 1)) for ranking in (vector, text)]
        rrf.append(curve(vector, text, added, grades))
    return Lesson(lists, fitted, unfitted, np.array(rrf))


def usual_of_others(lists: Lists) -> dict[str, tuple[float, ...]]:
    """For each query id what the other half of the queries are like. No judgement goes into it."""
    pairs = (given(query, _K, Adaptive().pool(_K + 1), lists.documents)[0] for query in lists.queries)
    found = np.array([features(vector, text) for vector, text in pairs])
    halves = np.arange(len(found)) % 2
    usual = [usual_of(found[halves != half]) for half in (0, 1)]
    return {query.id: usual[half] for query, half in zip(lists.queries, halves.tolist())}


def learned_elsewhere(lists: Lists, lessons: Sequence[Lesson], weakened: Sequence[Lesson]) -> Learned:
    """From all lessons but this collection's own and its family's. The weakened ones teach the leans alone."""
    others = [lesson for lesson in lessons if lesson.lists.source not in lists.family]
    fitted, unfitted = leans(others, [lesson for lesson in weakened if lesson.lists.source not in lists.family])
    return Learned(
        best_constant([lesson.rrf for lesson in others]),
        best_constant([lesson.scores for lesson in others]),
        fitted,
        unfitted,
    )


def leans(lessons: Sequence[Lesson], weakened: Sequence[Lesson]) -> tuple[Lean, Lean]:
    """For collections whose usual queries are known, and for others."""
    teaching = [*lessons, *weakened]
    weights = [1.0] * len(lessons) + [_WEAKENED] * len(weakened)
    return learn([one.fitted for one in teaching], weights), learn([one.unfitted for one in teaching], weights)


def best_constant(curves: Sequence[Floats]) -> float:
    """The text list's weight with the best mean over collections of their means."""
    return float(WEIGHTS[int(np.argmax(np.mean([of.mean(axis=0) for of in curves], axis=0)))])


def fusions(learned: Learned) -> dict[str, Fusion]:
    """Every way of joining two lists that knows nothing of the collection, by name. Constants were chosen on the others."""
    return {
        "rrf": Rrf(),
        "rrf, constant": Rrf(weights=(1 - learned.rrf_text, learned.rrf_text)),
        "scores, constant": ZScore(weights=(1 - learned.scores_text, learned.scores_text)),
        "vstash's rule": Vstash(),
        "adaptive, unfitted": Adaptive(lean=learned.unfitted),
    }


def compared(
    lesson: Lesson, learned: Learned, peers: Mapping[str, Ranker] | None = None
) -> tuple[dict[str, Evaluation], Floats]:
    """Each way measured on one collection, and the best weight of each query that the judgements would choose; and (Q,) the
    weight of the text list that the adaptive fusion took.
    """
    lists = lesson.lists
    rankers: dict[str, Ranker] = {"dense": by_vector, "bm25": by_text, **(peers or {})}
    rankers |= {name: by_fusion(fusion, lists.documents) for name, fusion in fusions(learned).items()}
    own = {id: Adaptive(usual, learned.lean) for id, usual in usual_of_others(lists).items()}
    rankers[OWN] = lambda query, k: by_fusion(own[query.id], lists.documents)(query, k)
    judged = learned_with_labels(lesson, learned.lean)
    rankers["adaptive, labels"] = lambda query, k: by_fusion(judged[query.id], lists.documents)(query, k)
    found = {name: evaluate(lists, ranker) for name, ranker in rankers.items()}
    for name, curves in (("oracle, rrf", lesson.rrf), ("oracle, scores", lesson.scores)):
        best = dict(zip((query.id for query in lists.queries), curves.max(axis=1).tolist()))
        found[name] = Evaluation(
            {"nDCG@10": float(np.mean(list(best.values())))}, {q: {"nDCG@10": v} for q, v in best.items()}
        )
    return found, learned.lean.text_weight(np.array([one.features for one in lesson.fitted]))


def learned_with_labels(lesson: Lesson, lean: Lean) -> dict[str, Adaptive]:
    """For each query id the adaptive fusion learned on with the judgements of the other half of the queries."""
    queries, usual = lesson.lists.queries, usual_of_others(lesson.lists)
    found = {}
    for half in (0, 1):
        others = learn_on(lean, lesson.fitted[1 - half :: 2])
        found.update({query.id: Adaptive(usual[query.id], others) for query in queries[half::2]})
    return found


def lines_of(lists: Lists, learned: Learned, found: Mapping[str, Evaluation], text_weights: Floats) -> Iterator[Line]:
    """A line for each way: its means, and by how much the adaptive fusion is better, with a paired 95 % interval."""
    for name, evaluation in found.items():
        line: Line = {
            "set": lists.name,
            "documents": lists.documents,
            "queries": len(lists.queries),
            "way": name,
            "means": evaluation.means,
        }
        if name == OWN:
            line["text_weight"] = {"mean": float(text_weights.mean()), "sd": float(text_weights.std())}
        else:
            gain = paired_bootstrap(found[OWN], evaluation, "nDCG@10")
            line["adaptive_gain"] = {"mean": gain.difference, "low": gain.low, "high": gain.high, "p": gain.p_value}
        if name.endswith("constant"):
            line["text_weight"] = learned.rrf_text if name.startswith("rrf") else learned.scores_text
        yield line


def share_of_the_way(start: float, reached: float, end: float) -> float:
    """How far from start to end."""
    return (reached - start) / (end - start) if end > start else 0.0
