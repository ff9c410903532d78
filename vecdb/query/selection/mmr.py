"""Maximal marginal relevance (Carbonell & Goldstein, SIGIR 1998)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vecdb.query.selection.base import MOST_IN_POOL, Pool, Selection, check_number, check_whole


@dataclass(frozen=True, slots=True)
class Mmr:
    """Each step takes the candidate with the largest (1 - diversity) * relevance - diversity * (largest cosine with one
    already chosen). diversity: 0 is relevance alone. Not a submodular objective: no bound on its quality is known.
    """

    diversity: float = 0.3
    pool: int = 200

    def __post_init__(self) -> None:
        check_number("diversity", self.diversity, 0, 1)
        check_whole("pool", self.pool, MOST_IN_POOL)

    def choose(self, pool: Pool, count: int) -> Selection:
        redundancy = np.zeros(len(pool))
        left = np.ones(len(pool), dtype=np.bool_)
        places: list[int] = []
        gains: list[float] = []
        for _ in range(min(count, len(pool))):
            value = np.where(left, (1 - self.diversity) * pool.relevance - self.diversity * redundancy, -np.inf)
            best = int(np.argmax(value))
            like = pool.cosines[best]
            redundancy = np.maximum(redundancy, like) if places else like
            left[best] = False
            places.append(best)
            gains.append(float(value[best]))
        return Selection(places, gains)
