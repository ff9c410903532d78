"""Scores lifted or held back by what metadata says: see `boost_options.Boost` for the formula."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from vecdb.attributes import Attributes
from vecdb.filters import parse
from vecdb.index.base import Mask
from vecdb.memory import Snapshot
from vecdb.query.boost_options import Boost
from vecdb.query.ranking import Ranking, Scores
from vecdb.rerank.decay import decay_factors

Floats = Scores
Slots = np.ndarray[Any, np.dtype[np.int64]]

_FARTHEST = 1e290  # such a distance can be divided by the least scale

MODIFY: Final[dict[str, Callable[[Floats], Floats]]] = {
    "none": lambda values: np.clip(values, -1e300, 1e300),
    "log1p": lambda values: np.log1p(np.maximum(values, 0)),
    "sqrt": lambda values: np.sqrt(np.maximum(values, 0)),
    "square": lambda values: np.square(np.clip(values, -1e150, 1e150)),
    "reciprocal": lambda values: np.divide(1.0, values, out=np.zeros_like(values), where=np.abs(values) > 1e-300),
}


@dataclass(frozen=True, slots=True)
class Boosted:
    """ranking: with the new scores. What they are made of, in the order of ranking: before (m,) the scores that were; gains
    (m, B) what each boost did, a factor or what was added.
    """

    ranking: Ranking
    before: Scores
    gains: Floats
    boosts: tuple[Boost, ...]

    def told(self, rows: Sequence[int]) -> dict[int, Mapping[str, Any]]:
        """For each of these rows what its score is made of."""
        places = {row: rank - 1 for row in rows if (rank := self.ranking.rank_of(row)) is not None}
        return {
            row: {
                "before": float(self.before[place]),
                "boosts": [
                    {"factor" if boost.op == "multiply" else "added": float(gain)}
                    for boost, gain in zip(self.boosts, self.gains[place])
                ],
            }
            for row, place in places.items()
        }


class Booster:
    """The boosts of one search over one snapshot, whose attributes are loaded; now: seconds since 1970."""

    def __init__(self, boosts: tuple[Boost, ...], snapshot: Snapshot, now: float) -> None:
        assert snapshot.attributes is not None
        self._boosts = boosts
        self._snapshot = snapshot
        self._attributes: Attributes = snapshot.attributes
        self._now = now
        # One pass over all records for each filter, for all queries of a batch.
        self._masks: list[Mask | None] = [
            None if boost.where is None else self._attributes.mask(parse(boost.where)) for boost in boosts
        ]

    @property
    def told(self) -> Mapping[str, Any]:
        """What the trace tells of the stage."""
        return {"boosts": len(self._boosts)}

    def boosted(self, ranking: Ranking) -> Boosted:
        """A list anew, by the boosted scores."""
        slots = self._snapshot.slots_of(ranking.rows)
        gains = np.empty((len(ranking), len(self._boosts)))
        for place, (boost, mask) in enumerate(zip(self._boosts, self._masks)):
            gains[:, place] = self._gains(boost, mask, slots)
        multiply = np.array([boost.op == "multiply" for boost in self._boosts])
        scores = combined(ranking.scores, gains[:, multiply], gains[:, ~multiply])
        order = np.lexsort((ranking.rows, -scores))
        lifted = Ranking("boosts", ranking.rows[order], scores[order])
        return Boosted(lifted, ranking.scores[order], gains[order], self._boosts)

    def _gains(self, boost: Boost, mask: Mask | None, slots: Slots) -> Floats:
        """(m,) what one boost does to the records in these slots; -1 is a record that is gone."""
        gains = np.full(len(slots), 1.0 if boost.op == "multiply" else 0.0)
        known = np.flatnonzero(slots >= 0)
        if mask is not None:
            known = known[mask[slots[known]]]
            gains[known] = boost.gain(np.ones(len(known)))
            return gains
        assert boost.field is not None
        places, values = self._values(boost, slots[known])
        if boost.missing is not None:
            absent = np.setdiff1d(np.arange(len(known)), places)
            missing = np.full(len(absent), float(boost.missing))
            places = np.concatenate([places, absent])
            values = np.concatenate(
                [values, missing if boost.decay is not None else MODIFY[str(boost.modifier)](missing)]
            )
        largest = np.full(len(known), -np.inf)
        np.maximum.at(largest, places, values)
        found = np.isfinite(largest)
        gains[known[found]] = boost.gain(largest[found])
        return gains

    def _values(self, boost: Boost, slots: Slots) -> tuple[Slots, Floats]:
        """What the decay or the modifier gives for each value of the records in these slots: places (e,) in slots, and (e,)."""
        assert boost.field is not None
        if boost.decay is None:
            places, values = self._attributes.numbers(boost.field, slots)
            return places, MODIFY[str(boost.modifier)](values)
        origin, (_, offset) = boost.origin_at(self._now), boost.distances
        if boost.is_of_dates:
            places, moments = self._attributes.moments(boost.field, slots)
            distance = (moments - origin) / 1e6
        else:
            places, values = self._attributes.numbers(boost.field, slots)
            distance = np.clip(values, -_FARTHEST, _FARTHEST) - origin
        return places, decay_factors(
            distance.astype(np.float64, copy=False), boost.decay, boost.steepness, offset=offset
        )


def combined(scores: Scores, factors: Floats, added: Floats) -> Scores:
    """(m,) scores with factors (m, F) and additions (m, A): s + |s| * (product - 1) + sum."""
    boosted: Scores = scores + np.abs(scores) * (np.prod(factors, axis=1) - 1.0) + np.sum(added, axis=1)
    return boosted
