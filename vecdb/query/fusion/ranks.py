"""Fusion by ranks alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np

from vecdb.errors import InvalidQuery
from vecdb.query.fusion.base import Evidence, Share, check_count, check_weights, usual_pool
from vecdb.query.ranking import Ranking


@dataclass(frozen=True, slots=True)
class Rrf:
    """Reciprocal rank fusion (Cormack, Clarke & Buettcher, SIGIR 2009): weight / (k + rank).

    base: the rank of a list's first row, 1 as in the paper, or 0 as in some implementations.
    """

    k: float = 60.0
    weights: tuple[float, ...] = (1.0, 1.0)
    base: Literal[0, 1] = 1
    needs_stems: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check_weights(self.weights)
        if self.base not in (0, 1):
            raise InvalidQuery(f"base of reciprocal rank fusion is {self.base!r}; ranks count from 0 or from 1")
        if not self.k >= 0 or not np.isfinite(self.k) or self.k + self.base <= 0:
            raise InvalidQuery(
                f"k of reciprocal rank fusion is {self.k}; it must be 0 or more, and above 0 where ranks count from 0"
            )

    def pool(self, wanted: int) -> int:
        return usual_pool(wanted)

    def shares(self, rankings: Sequence[Ranking], evidence: Evidence) -> tuple[tuple[Share, ...], Mapping[str, Any]]:
        check_count(self.weights, rankings)
        shares = tuple(
            Share(float(weight), weight * reciprocal_ranks(len(ranking), self.k, self.base))
            for weight, ranking in zip(self.weights, rankings)
        )
        return shares, {"k": float(self.k), "base": self.base}


def reciprocal_ranks(count: int, k: float, base: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    """(count,) 1 / (k + rank)."""
    return 1.0 / (k + np.arange(base, count + base, dtype=np.float64))
