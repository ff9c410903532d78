"""Generate, then rank: exact search of the user's vector over all items, and the ranker on what it found."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from vecdb.index.base import Mask, Vectors
from vecdb.index.device_scan import Scan, scanner_on
from vecdb.index.exact import ExactIndex
from vecdb.index.grank.histories import Items, padded
from vecdb.index.grank.network import Network


class Recommended(NamedTuple):
    """items (k,): numbers from 1, best first; scores (k,): of the ranker, or cosines where there is none. generated (k,): the
    place of each in the generator's order, from 0.
    """

    items: Items
    scores: NDArray[np.float32]
    generated: Items


class GRank:
    """A trained network over its items. device: where all items are searched, as for `vecdb.open`: "auto", "cpu", "cuda:0", …"""

    def __init__(self, network: Network, *, device: str = "cpu") -> None:
        self.network = network
        scanner = scanner_on(device)
        vectors = network.vectors[1:]
        self._scan: Scan | ExactIndex = (
            ExactIndex.over(vectors, "cosine") if scanner is None else scanner(vectors, "cosine")
        )

    def users(self, histories: Sequence[Items]) -> Vectors:
        """(B, D): the user vectors of histories, oldest item first."""
        return self.network.users(self._long(histories))

    def generate(
        self, histories: Sequence[Items], k: int, *, excluded: Sequence[Items], allowed: Mask | None = None
    ) -> list[Recommended]:
        """The k items nearest to each user's vector, exactly, without those that are excluded for this user. allowed (n,): which
        items may be recommended to any. Fewer where there are fewer.
        """
        return self._generated(self.users(histories), k, excluded, allowed)

    def recommend(
        self,
        histories: Sequence[Items],
        k: int,
        *,
        candidates: int,
        excluded: Sequence[Items],
        allowed: Mask | None = None,
    ) -> list[Recommended]:
        """The k best of so many generated candidates (at least k) by the ranker, if there is one."""
        users = self.users(histories)
        found = self._generated(users, max(k, candidates), excluded, allowed)
        if self.network.config.has_ranker:
            found = [
                self._ranked(history, user, one) for history, user, one in zip(self._long(histories), users, found)
            ]
        return [Recommended(one.items[:k], one.scores[:k], one.generated[:k]) for one in found]

    def ordered(self, history: Items, items: Items, given: NDArray[np.float32]) -> Recommended:
        """Candidates found by others, with scores (C,) from there, ordered by the ranker; as given where there is none."""
        found = Recommended(items, given, np.arange(len(items)))
        if not self.network.config.has_ranker or not len(items):
            return found
        return self._ranked(self._long([history])[0], self.users([history])[0], found)

    def _generated(self, users: Vectors, k: int, excluded: Sequence[Items], allowed: Mask | None) -> list[Recommended]:
        wanted = np.array([k + len(items) for items in excluded], np.int64)
        depths = 1 << np.ceil(np.log2(np.maximum(wanted, 1))).astype(
            np.int64
        )  # few searches, each about as deep as need be
        found: dict[int, Recommended] = {}
        for depth in np.unique(depths):
            numbers = np.flatnonzero(depths == depth)
            near = self._scan.search(users[numbers], min(int(depth), self.network.items), allowed=allowed)
            for number, positions, distances in zip(numbers.tolist(), near.positions, near.distances):
                kept = np.flatnonzero((positions >= 0) & ~np.isin(positions + 1, excluded[number]))[:k]
                found[number] = Recommended(positions[kept] + 1, 1 - distances[kept], np.arange(len(kept)))
        return [found[number] for number in range(len(users))]

    def _ranked(self, history: Items, user: Vectors, found: Recommended) -> Recommended:
        scores = self.network.ranks(history, found.items, user)
        order = np.argsort(-scores, kind="stable")
        return Recommended(found.items[order], scores[order], found.generated[order])

    def _long(self, histories: Sequence[Items]) -> Items:
        long = self.network.config.long
        return np.stack([padded(items, long) for items in histories]) if histories else np.empty((0, long), np.int64)
