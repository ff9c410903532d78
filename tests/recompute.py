"""A hit's score from its trace: the one place that says how the stages make a score."""

from __future__ import annotations

from vecdb.types import Hit, TraceStep


def recomputed(hit: Hit) -> float:
    """A list gives its score; a fusion adds up what its lists added; a reranker gives its own score; what
    only leaves out or reorders (min_score, select, group) keeps the score.
    """
    score = 0.0
    lists: list[TraceStep] = []
    for step in hit.trace:
        if step.stage in ("vector", "text"):
            assert step.score is not None
            score = step.score
            lists.append(step)
        elif step.stage == "fusion":
            score = sum(each.added for each in lists if each.added is not None)
        elif step.stage == "rerank":
            assert step.score is not None
            score = step.score
        else:
            assert step.stage in ("min_score", "select", "group")
    return score
