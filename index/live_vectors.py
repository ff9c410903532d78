"""Vectors of which some are live: what the indexes without a graph share, and what of it a search may look at."""

from __future__ import annotations

from copy import copy
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vecdb.index.arguments import as_dimension, as_mask, as_metric, as_positions, as_vectors
from vecdb.index.base import Mask, Metric, Positions, Vectors
from vecdb.index.growth import frozen, with_room


class LiveVectors:
    """The part of a VectorIndex that knows vectors and which are left of them; a kind of index adds what it searches by."""

    kind: str

    def __init__(self, dimension: int, metric: str) -> None:
        self.dimension = as_dimension(dimension)
        self.metric: Metric = as_metric(metric)
        self._size = 0
        self._vectors: Vectors = np.empty((0, self.dimension), np.float32)
        self._live: Mask = np.empty(0, np.bool_)

    def __len__(self) -> int:
        return self._size

    @property
    def live(self) -> Mask:
        return frozen(self._live[: self._size])

    @property
    def vectors(self) -> Vectors:
        """(N, D) float32, read-only."""
        return frozen(self._vectors[: self._size])

    def add(self, vectors: Vectors, *, threads: int | None = None) -> None:
        matrix = as_vectors(vectors, self.dimension)
        size = self._size + len(matrix)
        self._vectors = with_room(self._vectors, self._size, size)
        self._vectors[self._size : size] = matrix
        self._live = with_room(self._live, self._size, size)
        self._live[self._size : size] = True
        self._size = size

    def remove(self, positions: Positions, *, threads: int | None = None) -> None:
        self._live[as_positions(positions, self._size)] = False

    def compact(self) -> Positions:
        kept: Positions = np.flatnonzero(self.live)
        if len(kept) < self._size:
            self._keep(kept)
        return kept

    def copy(self) -> Self:
        twin = copy(self)
        # Cut to their used part: the twin then reallocates on its first `add`, and this index's room stays its own.
        twin._vectors = self._vectors[: self._size]
        twin._live = self._live[: self._size].copy()
        return twin

    def arrays(self) -> dict[str, NDArray[Any]]:
        return {"vectors": self.vectors, "live": self.live}

    def settings(self) -> dict[str, Any]:
        return {"kind": self.kind, "dimension": self.dimension, "metric": self.metric}

    @property
    def _live_count(self) -> int:
        return int(np.count_nonzero(self._live[: self._size]))

    def _take(self, vectors: ArrayLike, live: NDArray[Any] | None = None) -> None:
        """Hold these vectors, which are not copied if they are float32 and contiguous. live: None for all."""
        self._vectors = as_vectors(vectors, self.dimension)
        self._size = len(self._vectors)
        self._live = np.ones(self._size, np.bool_) if live is None else as_mask(live, self._size).copy()

    def _keep(self, kept: Positions) -> None:
        """Drop all other positions."""
        self._take(self._vectors[kept])


def live_among(live: Mask, allowed: NDArray[Any] | None) -> Mask | None:
    """(N,): which live positions are allowed, for a search; None if nothing is left out by either."""
    mask = None if live.all() else live
    if allowed is None:
        return mask
    allowed = as_mask(allowed, len(live))
    return allowed if mask is None else allowed & mask
