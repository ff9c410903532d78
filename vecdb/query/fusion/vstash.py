"""The rule of vstash (stffns/vstash, package vstash 0.39, 2026), as its paper and its package have it, to compare with.

Left out is what this engine does elsewhere: recency, and choosing among the chunks of one document.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from vecdb.errors import InvalidQuery
from vecdb.query.fusion.base import Evidence, Share, check_count
from vecdb.query.fusion.ranks import reciprocal_ranks
from vecdb.query.ranking import Ranking
from vecdb.types import Metric

_K, _BASE = 60.0, 0
_LONG_QUERY = 50  # words; for more than that
_LONG_WEIGHTS, _FALLBACK_WEIGHTS = (0.9, 0.1), (0.6, 0.4)
_SLOPE, _LEAST_TEXT, _SPAN = 2.0, 0.1, 0.5
# The widest distance that is kept, in multiples of the best, for usual and for long queries.
_CUTOFF_L2 = (1.15, 5.0)
# The best distance up to which the answer counts as good; above the second it is poor. In Euclidean units.
_TIERS_L2 = (0.95, 0.98)


@dataclass(frozen=True, slots=True)
class Vstash:
    """Adaptive reciprocal rank fusion: the rarer the query's words, the more the text list counts.

    The gate drops vector hits much farther than the best one; a hit of the text list alone is let in if it is among the first
    2 k of that list. gate: False leaves every vector hit in.
    """

    gate: bool = True
    needs_stems: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not isinstance(self.gate, bool):
            raise InvalidQuery(f"gate of vstash's fusion is {self.gate!r}; it must be True or False")

    def pool(self, wanted: int) -> int:
        return 10 * wanted  # the most; `shares` cuts the lists where the rule does

    def shares(self, rankings: Sequence[Ranking], evidence: Evidence) -> tuple[tuple[Share, ...], Mapping[str, Any]]:
        check_count(_FALLBACK_WEIGHTS, rankings)
        vector, text = rankings
        pool = min(10 * evidence.k, max(3 * evidence.k, evidence.documents // 3))
        distances = _distances(vector, evidence.metric)[:pool]
        near = np.zeros(len(vector), dtype=np.bool_)
        near[:pool] = self._within(distances, evidence) if self.gate else True
        counted = np.arange(len(text)) < min(pool, 2 * evidence.k)
        counted |= np.isin(text.rows, vector.rows[near]) & (np.arange(len(text)) < pool)
        weights = vstash_weights(evidence) if len(vector) else (0.0, 1.0)
        # Ranks are those among what is left, as the gate comes before the fusion.
        ranks = np.maximum(np.cumsum(near) - 1, 0)
        by_vector = np.where(near, weights[0] / (_K + _BASE + ranks), 0.0)
        by_text = np.where(counted, weights[1] * reciprocal_ranks(len(text), _K, _BASE), 0.0)
        shares = (Share(weights[0], by_vector, near), Share(weights[1], by_text, counted))
        return shares, {**_told(distances, evidence.metric), "pool": pool, "gated": int(np.count_nonzero(~near[:pool]))}

    def _within(self, distances: np.ndarray[Any, np.dtype[np.float64]], evidence: Evidence) -> Any:
        """(c,) or one bool: the hits inside the gate."""
        if not len(distances) or evidence.metric == "ip" or distances[0] <= 0:
            return True
        cutoff = _CUTOFF_L2[evidence.words > _LONG_QUERY]
        return distances <= (cutoff**2 if evidence.metric == "cosine" else cutoff) * distances[0]


def vstash_weights(evidence: Evidence) -> tuple[float, float]:
    """Of the vector list and of the text list: a sigmoid of the mean idf, about half of the largest one possible."""
    if evidence.words > _LONG_QUERY:
        return _LONG_WEIGHTS
    frequencies = [f for stem, f in zip(evidence.stems, evidence.frequencies) if len(stem) > 1]
    if evidence.documents < 2 or not frequencies:
        return _FALLBACK_WEIGHTS
    largest = math.log(evidence.documents)
    mean = sum(largest - math.log(f + 1) for f in frequencies) / len(frequencies)
    rarity = 1.0 / (1.0 + math.exp(-_SLOPE * (mean - largest / 2)))
    text = _LEAST_TEXT + _SPAN * rarity
    return 1.0 - text, text


def _distances(vector: Ranking, metric: Metric) -> np.ndarray[Any, np.dtype[np.float64]]:
    """(c,) from the scores that a list has: 1 - cosine, or the Euclidean distance."""
    return 1.0 - vector.scores if metric == "cosine" else -vector.scores


def _told(distances: np.ndarray[Any, np.dtype[np.float64]], metric: Metric) -> dict[str, Any]:
    """The best distance, and what the rule calls that. Nothing for inner products, which are no distances."""
    if not len(distances) or metric == "ip":
        return {}
    best = float(distances[0])
    high, medium = (t**2 / 2 if metric == "cosine" else t for t in _TIERS_L2)
    return {"best_distance": best, "tier": "high" if best <= high else "medium" if best <= medium else "low"}
