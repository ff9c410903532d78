"""Fusion with weights of each query's own: how far to trust which list is read off both lists."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from vecdb.errors import InvalidQuery
from vecdb.query.fusion.base import Evidence, Share, check_count, usual_pool
from vecdb.query.fusion.features import NAMES, OWN, TOP, Features, features
from vecdb.query.fusion.scores import scaled
from vecdb.query.ranking import Ranking, Scores

_FARTHEST = 3.0  # deviations from the mean: a stranger query is taken for one at the edge of what was seen


@dataclass(frozen=True, slots=True)
class Lean:
    """Which list to lean on: the text list's weight is a logistic function of the features, in the order of NAMES.

    means and deviations: of each feature where it was learned. slopes: for one deviation. bias: at the means.
    """

    bias: float
    slopes: tuple[float, ...]
    means: tuple[float, ...]
    deviations: tuple[float, ...]

    def __post_init__(self) -> None:
        for name in ("slopes", "means", "deviations"):
            values = getattr(self, name)
            if len(values) != len(NAMES) or not np.isfinite(values).all():
                raise InvalidQuery(f"{name} of a lean are {values}; give {len(NAMES)} numbers, for {', '.join(NAMES)}")
        if not np.isfinite(self.bias):
            raise InvalidQuery(f"bias of a lean is {self.bias}; it must be a finite number")

    def standard(self, found: Features) -> Features:
        """Features (…, F) in deviations from their means; one that is unknown or never varied tells nothing: 0."""
        deviations = np.array(self.deviations)
        standard = np.nan_to_num((found - np.array(self.means)) / np.where(deviations > 0, deviations, np.inf))
        clipped: Features = np.clip(standard, -_FARTHEST, _FARTHEST)
        return clipped

    def text_weight(self, found: Features) -> Any:
        """(…) of the text list, for features (…, F); the vector list has the rest."""
        return 1.0 / (1.0 + np.exp(-(self.bias + self.standard(found) @ np.array(self.slopes))))


@dataclass(frozen=True, slots=True)
class Adaptive:
    """Weighted sum of scores in deviations, the weights chosen for each query by a Lean.

    usual: mean features of the collection's queries, in the order of OWN, which `Collection.fit_fusion` measures; None: unknown.
    lean: None for the one that comes with vecdb, learned on judged collections of many fields.
    """

    usual: tuple[float, ...] | None = None
    lean: Lean | None = None
    needs_stems: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if self.usual is None:
            return
        if len(self.usual) != len(OWN) or not all(0.0 <= value <= 1.0 for value in self.usual):
            raise InvalidQuery(
                f"usual of adaptive fusion is {self.usual}; give what fit_fusion measured, {len(OWN)} numbers from 0 to 1: "
                f"{', '.join(OWN)}"
            )
        object.__setattr__(self, "usual", tuple(float(value) for value in self.usual))

    def pool(self, wanted: int) -> int:
        return usual_pool(wanted)

    def shares(self, rankings: Sequence[Ranking], evidence: Evidence) -> tuple[tuple[Share, ...], Mapping[str, Any]]:
        check_count((0.5, 0.5), rankings)
        vector, text = rankings
        found = features(vector, text, self.usual)
        weight = float(self._lean.text_weight(found))
        shares, scales = [], {}
        for ranking, own, scale in ((vector, 1.0 - weight, near_deviations), (text, weight, word_deviations)):
            scores, taken = scaled(ranking.scores, scale)
            shares.append(Share(own, own * scores))
            scales[ranking.name] = list(taken)
        told = {name: round(float(value), 4) for name, value in zip(NAMES, found) if not np.isnan(value)}
        return tuple(shares), {"scales": scales, "features": told}

    @property
    def _lean(self) -> Lean:
        if self.lean is not None:
            return self.lean
        from vecdb.query.fusion.learned import LEAN, UNFITTED

        return UNFITTED if self.usual is None else LEAN


def near_deviations(scores: Scores) -> tuple[float, float]:
    """Deviations of the first hundred scores above the last of all: the same however deep the list is."""
    return float(scores.min()), float(scores[:TOP].std())


def word_deviations(scores: Scores) -> tuple[float, float]:
    """The same; but a text list of fewer rows has all that match, and every other row's score is 0. So the one row that has a
    rare word lies many deviations above the rest.
    """
    if len(scores) >= TOP:
        return near_deviations(scores)
    padded = np.append(scores, np.zeros(TOP - len(scores)))
    return float(padded.min()), float(padded.std())
