"""Determinantal point process: greedy MAP inference by incremental Cholesky (Chen, Zhang & Zhou, NeurIPS 2018)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vecdb.query.selection.base import MOST_IN_POOL, Pool, Selection, check_number, check_whole

_LEAST = 1e-6  # of a squared volume: what adds less lies in the span of the chosen ones, up to float32 cosines


@dataclass(frozen=True, slots=True)
class Dpp:
    """Each step takes the candidate that enlarges det(L) most, L_ij = q_i * cosine_ij * q_j, log q_i = a * relevance_i with
    a = relevance / (2 * (1 - relevance)) (section 5.2 there).

    relevance: 0 is diversity alone, towards 1 relevance alone. Once nothing is left outside the span of the chosen ones, the
    most relevant of the rest follow, with a gain of -inf. Greedy choice of a determinant has no bound on its quality.
    """

    relevance: float = 0.9
    pool: int = 200

    def __post_init__(self) -> None:
        check_number("relevance", self.relevance, 0, 0.999)
        check_whole("pool", self.pool, MOST_IN_POOL)

    def choose(self, pool: Pool, count: int) -> Selection:
        size, count = len(pool), min(count, len(pool))
        log_quality = self.relevance / (2 * (1 - self.relevance)) * pool.relevance
        # The rows of the Cholesky factor of the cosines; qualities scale it, so they are added to the logarithm instead:
        # exp(a * relevance) of several hundred would be beyond float64.
        factor = np.zeros((size, count))
        volume = np.ones(size)  # squared, of each candidate's part outside the span of the chosen ones
        left = np.ones(size, dtype=np.bool_)
        places: list[int] = []
        gains: list[float] = []
        while len(places) < count:
            outside = left & (volume > _LEAST)
            if not outside.any():
                break
            gain = np.where(outside, np.log(np.where(outside, volume, 1.0)) + 2 * log_quality, -np.inf)
            best, done = int(np.argmax(gain)), len(places)
            column = (pool.cosines[best] - factor[:, :done] @ factor[best, :done]) / np.sqrt(volume[best])
            factor[:, done] = column
            volume = np.maximum(volume - column**2, 0.0)
            left[best] = False
            places.append(best)
            gains.append(float(gain[best]))
        rest = np.flatnonzero(left)[: count - len(places)].tolist()  # the pool is best first
        return Selection(places + rest, gains + [-np.inf] * len(rest))
