"""Making one ranking of several. Pure functions of the lists; no labels, no state."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np

from vecdb.errors import InvalidQuery
from vecdb.query.ranking import Ranking, Scores, ranked


@runtime_checkable
class Fusion(Protocol):
    @property
    def weights(self) -> tuple[float, ...]:
        """One for each list: vector, then text."""

    def contributions(self, ranking: Ranking) -> Scores:
        """(c,) what a list of weight 1 adds to the score of each of its rows."""


@dataclass(frozen=True, slots=True)
class Rrf:
    """Reciprocal rank fusion (Cormack, Clarke & Buettcher, SIGIR 2009): weight / (k + rank), ranks from 1."""

    k: float = 60.0
    weights: tuple[float, ...] = (1.0, 1.0)

    def __post_init__(self) -> None:
        _check_weights(self.weights)
        if not self.k >= 0:
            raise InvalidQuery(f"k of reciprocal rank fusion is {self.k}; it must be 0 or more")

    def contributions(self, ranking: Ranking) -> Scores:
        return 1.0 / (self.k + np.arange(1, len(ranking) + 1, dtype=np.float64))


@dataclass(frozen=True, slots=True)
class Weighted:
    """Weighted sum of scores, each list's own brought to 0 … 1 by its smallest and largest score (min-max)."""

    weights: tuple[float, ...] = (0.5, 0.5)

    def __post_init__(self) -> None:
        _check_weights(self.weights)

    def contributions(self, ranking: Ranking) -> Scores:
        if not len(ranking):
            return ranking.scores
        low, high = ranking.scores.min(), ranking.scores.max()
        return (ranking.scores - low) / (high - low) if high > low else np.ones(len(ranking))


FUSIONS: dict[str, Callable[[], Fusion]] = {"rrf": Rrf, "weighted": Weighted}


def fusion_of(given: str | Fusion) -> Fusion:
    if isinstance(given, str):
        if given not in FUSIONS:
            raise InvalidQuery(
                f"fusion is {given!r}; it must be one of {', '.join(FUSIONS)}, or an object such as Rrf(k=20)"
            )
        return FUSIONS[given]()
    if not isinstance(given, Fusion):
        raise InvalidQuery(f"fusion is {given!r}; give 'rrf', 'weighted', or an object such as Rrf(k=20)")
    return given


def fuse(rankings: Sequence[Ranking], fusion: Fusion) -> Ranking:
    """One list of all rows that occur in any; a row gets nothing from a list that it is not in."""
    if len(fusion.weights) != len(rankings):
        raise InvalidQuery(f"fusion has {len(fusion.weights)} weights for {len(rankings)} lists; give one for each")
    rows, places = np.unique(np.concatenate([r.rows for r in rankings]), return_inverse=True)
    shares = np.concatenate([w * fusion.contributions(r) for w, r in zip(fusion.weights, rankings)])
    scores: Scores = np.zeros(len(rows))
    np.add.at(scores, places, shares)
    return ranked("fusion", rows, scores)


def _check_weights(weights: tuple[float, ...]) -> None:
    if not weights or any(not np.isfinite(w) or w < 0 for w in weights) or not any(weights):
        raise InvalidQuery(f"fusion weights are {weights}; they must be 0 or more, and not all 0")
