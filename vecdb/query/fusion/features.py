"""What can be told of a query and its two lists without knowing what is relevant: numbers that say which list to trust.

Ranks and shapes only, nothing in the units of one embedding model's scores, so that what was learned with one model and some
collections holds for others. Each is O(100): the first rows of a list tell its shape.

Many more were tried on judged collections (idf of the stems, gaps and spreads of either list, overlap at several depths, query
length, unknown words): with the collection at hand left out, none of them told one query from another well enough to gain.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vecdb.query.ranking import Ranking, Scores

TOP = 100  # rows of a list that are looked at
_NEAR = 5  # and those that must prove themselves in the other list

Features = NDArray[np.float64]

NAMES = (
    "tendency",  # the mean agreement of other queries of the collection; NaN: unknown
    "agreement",  # how high the text list's first five stand in the vector list, less how high the vector list's do there
    "text_first",  # ln(1 + deviations of the text list's first score above its mean)
    "vector_first",
)


def features(vector: Ranking, text: Ranking, tendency: float | None = None) -> Features:
    """(F,) in the order of NAMES. A list without rows, or with equal scores throughout, has no shape: 0."""
    known = math.nan if tendency is None else tendency
    return np.array([known, agreement(vector, text), _first(text.scores[:TOP]), _first(vector.scores[:TOP])])


def agreement(vector: Ranking, text: Ranking) -> float:
    """-1 … 1: whether the vector list thinks better of the text list's first rows than the other way round.

    A list whose favourites the other one knows too is the safer one: both lists rank what is relevant high, and only one of them
    what it alone mistakes for it.
    """
    by_vector = _standing(text.rows[:_NEAR], vector.rows[:TOP], vector.scores[:TOP])
    return by_vector - _standing(vector.rows[:_NEAR], text.rows[:TOP], text.scores[:TOP])


def _standing(rows: NDArray[Any], others: NDArray[Any], scores: Scores) -> float:
    """The mean min-max score of rows in the other list, 0 for one that is not there."""
    if not len(rows) or not len(others):
        return 0.0
    width = float(scores[0] - scores[-1])
    scaled = (scores - scores[-1]) / width if width > 0 else np.ones(len(scores))
    return float(((rows[:, None] == others[None, :]) * scaled).sum()) / len(rows)


def _first(scores: Scores) -> float:
    deviation = float(scores.std()) if len(scores) else 0.0
    if deviation <= 1e-12 * max(1.0, float(np.abs(scores).max(initial=0.0))):
        return 0.0
    return math.log1p(float(scores[0] - scores.mean()) / deviation)
