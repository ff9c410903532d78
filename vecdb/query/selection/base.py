"""What a set is chosen from, what a choice is, and what all methods share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from vecdb.errors import InvalidQuery
from vecdb.types import Vector
from vecdb.vectors import Matrix

Floats = NDArray[np.float64]
Places = NDArray[np.int64]

MOST_IN_POOL = 2_000  # every candidate is compared with every other one: 100 MB


@dataclass(frozen=True)
class Pool:
    """Candidates, best first. relevance: (c,) within 0 … 1. vectors: (c, D) of unit length, or zero where there is none."""

    relevance: Floats
    vectors: Matrix

    def __len__(self) -> int:
        return len(self.relevance)

    @classmethod
    def of(cls, scores: Floats, vectors: Sequence[Vector | None]) -> Pool:
        """scores: (c,) of any scale, larger is better. A candidate's relevance is 1 less how far its score lies below the best
        one, measured by the largest score of the pool without its sign: s / max for scores above 0. Were it measured by the
        span of the scores, the last of twenty candidates that are all good would count for nothing.
        """
        if not len(scores):
            return cls(np.zeros(0), np.zeros((0, 1), dtype=np.float32))
        largest_score = np.abs(scores).max()
        below = (scores.max() - scores) / (largest_score if largest_score > 0 else 1.0)
        relevance = np.maximum(1.0 - below, 0.0)
        dimension = next((len(vector) for vector in vectors if vector is not None), 1)
        nothing = np.zeros(dimension, dtype=np.float32)
        given = np.stack([nothing if vector is None else vector for vector in vectors])
        largest = np.abs(given).max(axis=1, keepdims=True)  # squares of a very long vector would be beyond float32
        scaled = given / np.where(largest > 0, largest, 1)
        norms = np.linalg.norm(scaled, axis=1, keepdims=True)
        return cls(relevance, np.asarray(scaled / np.where(norms > 0, norms, 1), dtype=np.float32))

    @cached_property
    def cosines(self) -> Floats:
        """(c, c). A record is like itself; one without a vector is unlike all others."""
        cosines = np.clip((self.vectors @ self.vectors.T).astype(np.float64), -1.0, 1.0)
        np.fill_diagonal(cosines, 1.0)
        return cosines


@dataclass(frozen=True, slots=True)
class Covered:
    """What the first n chosen stand for. scores: the share of the neighbourhood (0 … 1) that the first, the first two, … cover;
    shares: how much of the last score each brings, so they sum to it; cells: the places of those not chosen that are most like
    each, those that count most first.
    """

    scores: list[float]
    shares: list[float]
    cells: list[list[int]]


@dataclass(frozen=True, slots=True)
class Selection:
    """places: of the pool, in the order of choice. gains: what each was worth when it was chosen; each method has its own
    measure. covered: what the first n of them stand for, where the method knows.
    """

    places: list[int]
    gains: list[float]
    covered: Callable[[int], Covered] | None = None


@runtime_checkable
class Selector(Protocol):
    """Chooses a set. The first n of a larger choice from one pool are the choice of n, so that pages can follow."""

    @property
    def pool(self) -> int:
        """From how many of the best candidates it chooses."""

    def choose(self, pool: Pool, count: int) -> Selection:
        """count of the pool's candidates, or all if there are no more."""


def check_number(name: str, value: object, least: float, most: float) -> None:
    """Raises InvalidQuery unless value is a number within these bounds."""
    number = isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)
    if not number or not least <= value <= most:  # type: ignore[operator]
        raise InvalidQuery(f"{name} of a selection is {value!r}; it must lie between {least:g} and {most:g}")


def check_whole(name: str, value: Any, most: int) -> None:
    """Raises InvalidQuery unless value is a whole number from 1 on."""
    if not isinstance(value, int | np.integer) or isinstance(value, bool) or not 1 <= value <= most:
        raise InvalidQuery(f"{name} of a selection is {value!r}; it must be a whole number between 1 and {most:,}")
