"""A ranked list of rows: what every stage takes and returns."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.int64]
Scores = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Ranking:
    """Rows (c,) best first, each once, with scores (c,), larger is better. name: of the stage that made it."""

    name: str
    rows: Rows
    scores: Scores

    def __len__(self) -> int:
        return len(self.rows)

    @classmethod
    def empty(cls, name: str) -> Ranking:
        return cls(name, np.zeros(0, dtype=np.int64), np.zeros(0))

    def first(self, count: int) -> Ranking:
        return Ranking(self.name, self.rows[:count], self.scores[:count])

    def taken(self, places: NDArray[np.int64] | list[int], name: str | None = None) -> Ranking:
        """Only these places of the list, in this order."""
        chosen = np.asarray(places, dtype=np.int64)
        return Ranking(name or self.name, self.rows[chosen], self.scores[chosen])

    def rank_of(self, row: int) -> int | None:
        """From 1; None if the row is not in the list."""
        found = np.flatnonzero(self.rows == row)
        return int(found[0]) + 1 if len(found) else None


def ranked(name: str, rows: Rows, scores: Scores) -> Ranking:
    """Rows in any order as a Ranking; equal scores are ordered by row, that is by age."""
    order = np.lexsort((rows, -scores))
    return Ranking(name, rows[order], scores[order])
