"""A hit's score from its trace: the one place that says how the stages make a score."""

from __future__ import annotations

from vecdb.query.fusion import Rrf
from vecdb.types import Hit, TraceStep


def recomputed(hit: Hit, fusion: Rrf) -> float:
    """A list gives its score; a fusion adds up what its lists contribute; a reranker gives its own; what only leaves out or
    reorders (min_score, select, group) keeps the score.
    """
    score = 0.0
    lists: list[TraceStep] = []
    for step in hit.trace:
        if step.stage in ("vector", "text"):
            assert step.score is not None
            score = step.score
            lists.append(step)
        elif step.stage == "fusion":
            score = sum(_contribution(each, fusion) for each in lists)
        elif step.stage == "rerank":
            assert step.score is not None
            score = step.score
        else:
            assert step.stage in ("min_score", "select", "group")
    return score


def _contribution(step: TraceStep, fusion: Rrf) -> float:
    assert step.weight is not None
    assert step.rank is not None
    return step.weight / (fusion.k + step.rank)
