"""What can be told of a query and its two lists without knowing what is relevant: numbers that say which list to trust.

Ranks and shapes only, nothing in the units of one embedding model's scores, so that what was learned with one model and some
collections holds for others. Each is O(100): the first rows of a list tell its shape. Each counts twice: for the query itself,
and as the mean over other queries of the collection, which says what its queries are like.

Tried beside them on 16 judged pairs of lists, the collection at hand left out, and of no further use: the idf of the words, their
number, how many of them occur nowhere, gaps and deviations of either list, overlap at several depths, ties. They tell these
collections apart, and lead astray on the next one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vecdb.query.ranking import Ranking, Scores

TOP = 100  # rows of a list that are looked at

Features = NDArray[np.float64]

OWN = (
    # The mean of the text list's first 100 scores, in units of the first one; 0 where it has no such row. Words that many records
    # have alike do not tell them apart: the nearer to 1, the less the list says.
    "flatness",
    # Where the text list's first row stands in the vector list, as its score there: 1 is first, 0 is last or not at all. And the
    # other way round. Both lists rank what is relevant high, and only one of them what it alone mistakes for it: the list whose
    # favourite the other one knows too is the safer one.
    "text_in_vector",
    "vector_in_text",
)
USUAL = tuple(f"usual_{name}" for name in OWN)  # the mean over other queries; NaN: unknown
NAMES = OWN + USUAL


def features(vector: Ranking, text: Ranking, usual: Sequence[float] | None = None) -> Features:
    """(F,) in the order of NAMES. usual: of OWN, over other queries."""
    own = (_flatness(text.scores[:TOP]), _standing(text, vector), _standing(vector, text))
    return np.array([*own, *((math.nan,) * len(OWN) if usual is None else usual)])


def _flatness(scores: Scores) -> float:
    """1 for a list without rows, or without scores above 0: it says nothing."""
    return float(scores.sum() / (TOP * scores[0])) if len(scores) and scores[0] > 0 else 1.0


def _standing(one: Ranking, other: Ranking) -> float:
    """The min-max score of one list's first row in the other list; 0 if it is not there, or there is none."""
    if not len(one) or not len(other):
        return 0.0
    scores: NDArray[Any] = other.scores[:TOP]
    at = np.flatnonzero(other.rows[:TOP] == one.rows[0])
    if not len(at):
        return 0.0
    width = float(scores[0] - scores[-1])
    return float(scores[at[0]] - scores[-1]) / width if width > 0 else 1.0
