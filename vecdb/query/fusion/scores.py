"""Fusion by scores: each list's own are brought to one scale, (score - offset) / scale, and their weighted sum counts.

A row gets nothing from a list that it is not in, so every scale begins at 0 about where the list ends.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from vecdb.query.fusion.base import Evidence, Share, check_count, check_weights, usual_pool
from vecdb.query.ranking import Ranking, Scores

# A list's scores (c,), c > 0 -> its offset and its scale. A scale of 0: all scores are equal, and each row counts 1.
Scale = Callable[[Scores], tuple[float, float]]


def min_max(scores: Scores) -> tuple[float, float]:
    """The smallest score becomes 0, the largest 1."""
    low, high = float(scores.min()), float(scores.max())
    return low, high - low


def deviations(scores: Scores) -> tuple[float, float]:
    """Standard deviations above the smallest score: z-scores, shifted so that absence is worth as little as the last row.

    The shift is the same for all rows of a list, and changes no order of rows that both lists have.
    """
    return float(scores.min()), float(scores.std())


def three_deviations(scores: Scores) -> tuple[float, float]:
    """Mean - 3 standard deviations becomes 0, mean + 3 becomes 1 (distribution-based score fusion, Mazzeschi 2023)."""
    deviation = float(scores.std())
    return float(scores.mean()) - 3 * deviation, 6 * deviation


def scaled(scores: Scores, scale: Scale) -> tuple[Scores, tuple[float, float]]:
    """(c,) the scores on the common scale, and the offset and scale that were taken."""
    if not len(scores):
        return scores, (0.0, 0.0)
    offset, width = scale(scores)
    # Differences near the rounding of the scores themselves tell nothing, and would be blown up to whole units.
    if width <= 1e-12 * max(1.0, float(np.abs(scores).max())):
        return np.ones(len(scores)), (offset, 0.0)
    return (scores - offset) / width, (offset, width)


@dataclass(frozen=True, slots=True)
class _OfScores:
    """What these fusions share. weights: of the vector list, then of the text list."""

    weights: tuple[float, ...] = (0.5, 0.5)
    needs_stems: ClassVar[bool] = False
    scale: ClassVar[staticmethod[[Scores], tuple[float, float]]]

    def __post_init__(self) -> None:
        check_weights(self.weights)

    def pool(self, wanted: int) -> int:
        return usual_pool(wanted)

    def shares(self, rankings: Sequence[Ranking], evidence: Evidence) -> tuple[tuple[Share, ...], Mapping[str, Any]]:
        check_count(self.weights, rankings)
        found = [scaled(ranking.scores, type(self).scale) for ranking in rankings]
        shares = tuple(Share(float(weight), weight * scores) for weight, (scores, _) in zip(self.weights, found))
        return shares, {"scales": {ranking.name: list(taken) for ranking, (_, taken) in zip(rankings, found)}}


class Weighted(_OfScores):
    """Weighted sum of scores, each list's own brought to 0 … 1 by its smallest and largest score (min-max)."""

    __slots__ = ()
    scale = staticmethod(min_max)


class ZScore(_OfScores):
    """Weighted sum of scores in standard deviations above each list's last."""

    __slots__ = ()
    scale = staticmethod(deviations)


class Distribution(_OfScores):
    """Weighted sum of scores, mean ± 3 standard deviations of each list brought to 0 … 1; scores beyond stay beyond."""

    __slots__ = ()
    scale = staticmethod(three_deviations)


class CombMnz(_OfScores):
    """Weighted sum of min-max scores times the number of lists that have the row (Fox & Shaw, TREC-2, 1993)."""

    __slots__ = ()
    scale = staticmethod(min_max)

    def shares(self, rankings: Sequence[Ranking], evidence: Evidence) -> tuple[tuple[Share, ...], Mapping[str, Any]]:
        shares, detail = super().shares(rankings, evidence)
        rows, counts = np.unique(np.concatenate([ranking.rows for ranking in rankings]), return_counts=True)
        lists = [counts[np.searchsorted(rows, ranking.rows)] for ranking in rankings]
        return tuple(Share(s.weight, s.scores * n) for s, n in zip(shares, lists)), detail
