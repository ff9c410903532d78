"""A hit's score from its trace: the one place that says how the stages make a score."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from math import prod
from typing import Any

import pytest

from vecdb.types import Hit


def recomputed(hit: Hit) -> float:
    """A list gives its score; a fusion adds up what its lists added; links and boosts have their formulas; a reranker gives its
    own score; what only leaves out or reorders (min_score, select, group) keeps the score. A prefetch is recomputed itself.
    """
    return _of_steps([asdict(step) for step in hit.trace])


def _of_steps(steps: Sequence[Mapping[str, Any]]) -> float:
    score = 0.0
    lists: list[Mapping[str, Any]] = []
    for step in steps:
        stage, detail = step["stage"], step["detail"]
        if stage.startswith("prefetch["):
            assert step["score"] == pytest.approx(_of_steps(detail["steps"]), abs=1e-6)
        if stage in ("vector", "text") or stage.startswith("prefetch["):
            score = step["score"]
            if stage == "vector" and detail:
                assert score == pytest.approx(_of_examples(detail), abs=1e-6)
            lists.append(step)
        elif stage == "fusion":
            score = sum(each["added"] for each in lists if each["added"] is not None)
        elif stage == "graph":
            score = (1 - detail["beta"]) * detail["before"] + detail["beta"] * detail["graph"]
        elif stage == "boosts":
            assert detail["before"] == pytest.approx(score, abs=1e-6)
            factors = prod(boost["factor"] for boost in detail["boosts"] if "factor" in boost)
            score += abs(score) * (factors - 1) + sum(boost.get("added", 0.0) for boost in detail["boosts"])
        elif stage.startswith("rerank"):
            score = step["score"]
        else:
            assert stage in ("min_score", "select", "group")
    return score


def _of_examples(detail: Mapping[str, Any]) -> float:
    """By the similarities to the best positive and negative example, or to a target and pairs."""
    if "context" in detail:
        if detail["target"] is None:
            return float(sum(min(0.0, wanted - other) for wanted, other in detail["context"]))
        signs = [1 if wanted > other else -1 for wanted, other in detail["context"]]
        return sum(signs) + _held(detail["target"])
    wanted, other = detail["positive"], detail["negative"]
    if other is None or (wanted is not None and wanted > other):
        return _held(wanted)
    return -_held(other)


def _held(similarity: float) -> float:
    return (1 + similarity / (1 + abs(similarity))) / 2
