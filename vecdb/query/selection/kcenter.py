"""k-center: the greedy 2-approximation (Gonzalez, Theoretical Computer Science 38, 1985)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vecdb.query.selection.base import MOST_IN_POOL, Floats, Pool, Selection, check_whole


@dataclass(frozen=True, slots=True)
class KCenter:
    """Begins with the most relevant candidate; each step takes the one that is farthest from all chosen.

    The largest distance of any candidate from its nearest chosen one is at most twice the smallest possible. Relevance
    decides only what is in the pool, so a large pool brings hits that are far from the query.
    """

    pool: int = 50

    def __post_init__(self) -> None:
        check_whole("pool", self.pool, MOST_IN_POOL)

    def choose(self, pool: Pool, count: int) -> Selection:
        places, distances = farthest_first(pool.cosines, count)
        return Selection(places, distances)


def farthest_first(cosines: Floats, count: int) -> tuple[list[int], list[float]]:
    """Places, and the Euclidean distance (of unit vectors) of each from those before it; the first one's is counted as 2.

    cosines: (c, c). The first place is 0; of equally far ones the earlier is taken.
    """
    nearest = np.full(len(cosines), 2.0)
    left = np.ones(len(cosines), dtype=np.bool_)
    places: list[int] = []
    distances: list[float] = []
    for _ in range(min(count, len(cosines))):
        place = int(np.argmax(np.where(left, nearest, -1.0)))
        left[place] = False
        places.append(place)
        distances.append(float(nearest[place]))
        nearest = np.minimum(nearest, np.sqrt(np.maximum(2.0 - 2.0 * cosines[place], 0.0)))
    return places, distances
