"""What a fusion is: from several ranked lists of one query, and what is known of the query, what each list adds to each row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from vecdb.errors import InvalidQuery
from vecdb.query.ranking import Ranking, Scores, ranked
from vecdb.types import Metric


@dataclass(frozen=True, slots=True)
class Evidence:
    """What is known of a query beside its lists.

    k: hits asked for. words: how many there are in its text, by spaces. stems: its distinct stems, as the word index has them;
    frequencies: in how many of the `documents` that have text each occurs, 0 where none has it. metric: of the vectors.
    """

    k: int = 10
    words: int = 0
    stems: tuple[str, ...] = ()
    frequencies: tuple[int, ...] = ()
    documents: int = 0
    metric: Metric = "cosine"


@dataclass(frozen=True, slots=True)
class Share:
    """What one list adds. scores: (c,) to the fused score of each of its rows, the weight included.

    counted: (c,) the rows that this list may bring in; None: all. A row that no list counts is left out.
    """

    weight: float
    scores: Scores
    counted: NDArray[np.bool_] | None = None


@dataclass(frozen=True, slots=True)
class Fused:
    """ranking: the one list. shares: of the lists, in their order. detail: what was decided, JSON-able, for the trace."""

    ranking: Ranking
    shares: tuple[Share, ...]
    detail: Mapping[str, Any] = field(default_factory=dict)


@runtime_checkable
class Fusion(Protocol):
    @property
    def needs_stems(self) -> bool:
        """Whether it looks at the stems in its evidence; they cost a little."""

    def pool(self, wanted: int) -> int:
        """How many candidates each list should give for so many wanted hits."""

    def shares(self, rankings: Sequence[Ranking], evidence: Evidence) -> tuple[tuple[Share, ...], Mapping[str, Any]]:
        """What each list adds, and the detail for the trace."""


def fuse(rankings: Sequence[Ranking], fusion: Fusion, evidence: Evidence | None = None) -> Fused:
    """One list of the rows that any list counts. A row's score is the sum of what the lists that have it add."""
    shares, detail = fusion.shares(rankings, evidence or Evidence())
    parts = [
        (ranking.rows, share.scores)
        if share.counted is None
        else (ranking.rows[share.counted], share.scores[share.counted])
        for ranking, share in zip(rankings, shares)
    ]
    rows, places = np.unique(np.concatenate([rows for rows, _ in parts]), return_inverse=True)
    added = np.concatenate([added for _, added in parts])
    scores = np.bincount(places, weights=added, minlength=len(rows)).astype(np.float64, copy=False)
    return Fused(ranked("fusion", rows, scores), shares, detail)


def usual_pool(wanted: int) -> int:
    """A record that is good in one list only must be found in the other to be ranked well by both."""
    return max(100, 4 * wanted)


def check_weights(weights: tuple[float, ...]) -> None:
    if not weights or any(not np.isfinite(w) or w < 0 for w in weights) or not any(weights):
        raise InvalidQuery(f"fusion weights are {weights}; they must be 0 or more, and not all 0")


def check_count(weights: tuple[float, ...], rankings: Sequence[Ranking]) -> None:
    if len(weights) != len(rankings):
        raise InvalidQuery(f"fusion has {len(weights)} weights for {len(rankings)} lists; give one for each")
