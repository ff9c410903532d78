"""Rewards of what a model wrote, for training by outcome alone (GRPO): Rank-R1's and GroupRank's."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vecdb.rerank.listwise import answers

_TAGS = re.compile(r"^\s*<reason>.*?</reason>\s*<answer>.*?</answer>\s*$", re.DOTALL)


def pick_reward(text: str, labels: Sequence[str], positive: int) -> float:
    """1 if the reply has its tags and names exactly the positive, else 0 (Rank-R1, section 3.2)."""
    return float(answers.strict_pick(text, labels) == positive)


def group_reward(
    text: str,
    labels: Sequence[str],
    grades: Sequence[float],
    *,
    recall: float = 0.2,
    alignment: float = 0.1,
    k: int = 10,
) -> float:
    """nDCG@k + recall x recall@k + alignment x (1 - JS of the two score distributions) (GroupRank, section 3.3).

    -0.1 for right tags around unusable scores, -0.5 for anything else. grades: the labels' scores, 0 … 10.
    """
    if _TAGS.match(text) is None:
        return -0.5
    given = answers.scores(text, labels)
    if given is None:
        return -0.1
    scores, truth = np.asarray(given), np.asarray(grades, dtype=np.float64)
    # Documents with one score come in the worst order: a model must not win by giving all the same.
    order = np.lexsort((truth, -scores))[:k]
    return ndcg(truth, order) + recall * _recall(truth, order) + alignment * (1.0 - jensen_shannon(scores, truth))


def ndcg(grades: NDArray[Any], order: NDArray[Any]) -> float:
    """Of the documents in this order, with gains 2^grade - 1 of grades scaled to at most 3; 0 if none is relevant."""
    gains = 2.0 ** (grades * (3.0 / max(3.0, grades.max(initial=0.0)))) - 1.0
    discounts = 1.0 / np.log2(np.arange(len(order)) + 2.0)
    ideal = np.sort(gains)[::-1][: len(order)] @ discounts
    return float(gains[order] @ discounts / ideal) if ideal > 0 else 0.0


def _recall(grades: NDArray[Any], order: NDArray[Any]) -> float:
    relevant = grades >= max(grades.max(initial=0.0) / 2, 1e-9)
    return float(relevant[order].sum() / relevant.sum()) if relevant.any() else 0.0


def jensen_shannon(one: NDArray[Any], other: NDArray[Any]) -> float:
    """Between two vectors of scores made distributions (their sum 1; uniform if all are zero); base 2, so from 0 to 1."""
    p, q = _distribution(one), _distribution(other)
    middle = (p + q) / 2
    return (_divergence(p, middle) + _divergence(q, middle)) / 2


def _distribution(scores: NDArray[Any]) -> NDArray[Any]:
    total = scores.sum()
    return scores / total if total > 0 else np.full(len(scores), 1.0 / max(1, len(scores)))


def _divergence(p: NDArray[Any], q: NDArray[Any]) -> float:
    real = p > 0
    return float((p[real] * np.log2(p[real] / q[real])).sum())
