"""Recall as a contract: when a walk may end so that its recall is what was asked for, learned from the index itself.

A search with a target walks with a beam that is wide enough for hard queries and ends, query by query, as soon as a score
says that the recall so far is likely the target (kernels.judge; the idea of declarative recall with an early-stopping
predictor is DARTH's, Chatzakis et al., SIGMOD 2026). Here is how the score's weights and thresholds come about:

1. Some hundred nodes are held out: taken out of a copy of the graph, which is mended, but not filled up. (Filled up, recall
   would seem up to 6 points higher than it is, because the neighbours of what was taken out then know each other. Only not to
   meet the node that is searched for would not do: its neighbours lean on its links, and recall would seem up to 4 points
   lower than it is.) Their true neighbours among the others are found by exact search.
2. After every step of such a walk the features and the recall so far are written down, and a logistic regression learns to
   tell one from the other.
3. For each target of a grid, the threshold is the lowest at which the mean recall of the walks, ended by it, reaches the
   target. What the score says at that moment is shifted by what it is wrong by on average.

There is a table for walks without a filter and two for walks with one, that allows three tenths or a tenth; their beams are in
numbers of allowed nodes. (Fewer still are scanned, unless there are very many.)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from vecdb.index.base import Mask, Metric, Vectors
from vecdb.index.exact import exact_search
from vecdb.index.kernels import FEATURES, FILTERED, PLAIN

TARGETS = (0.7, 0.8, 0.85, 0.9, 0.93, 0.95, 0.97, 0.98, 0.99, 0.995)
_SHARES = (1.0, 0.3, 0.1)  # of nodes that are allowed, descending
_ABOUT = 0.9  # of a share is that share
_DEPTHS = (1, 10, 100)  # numbers of neighbours that tables are made for; a search takes the nearest
_BEAMS = (16, 32, 64, 128, 256, 512, 1024)
HELD_OUT = 320  # nodes
_REGRESSED = 40_000  # steps that a regression takes at most
_HEADROOM = 0.5  # a beam is wide enough for a target if its end is at least half as far from perfect
_CAUTION = 0.1  # of the distance to perfect: how far above the target the mean is to be on the sample
_ROUNDS = 12  # of Newton's method
_RIDGE = 1e-3
Traces = tuple[NDArray[np.float32], NDArray[np.int64]]


class Tracer(Protocol):
    """What an index offers for its calibration."""

    metric: Metric

    def __len__(self) -> int: ...

    @property
    def vectors(self) -> Vectors: ...

    @property
    def live(self) -> Mask: ...

    def trace(self, queries: Vectors, truth: NDArray[np.int32], beam: int, walk: int, allowed: Mask) -> Traces:
        """As kernels.trace: steps (B, H, FEATURES + 2) and lengths (B,)."""


@dataclass(frozen=True)
class Entry:
    """How to search for a target. reached: the mean recall on the sample, p5: its 5th percentile."""

    beam: int
    threshold: float
    shift: float
    reached: float
    p5: float
    weights: NDArray[np.float32]

    def estimate(self, scores: NDArray[np.float32]) -> NDArray[np.float32]:
        """Recall that the final scores (B,) of walks stand for; 1 where it was never in doubt (inf)."""
        finite = np.where(np.isfinite(scores), scores, 0.0)
        estimates = np.clip(_logistic(finite) + self.shift, 0.0, 1.0)
        return np.where(np.isfinite(scores), estimates, 1.0).astype(np.float32)


@dataclass(frozen=True)
class Calibration:
    """table (shares, depths, targets, 5 + FEATURES) float64: beam, threshold, shift, reached, p5 and the weights.

    live, drawn: how many vectors the index held then, and how many there had ever been.
    """

    table: NDArray[np.float64]
    live: int
    drawn: int

    def entry(self, share: float, k: int, target: float) -> Entry:
        """For a share of allowed nodes or the next larger one (which makes a walk more patient than need be, not less), the
        nearest depth, and the target or the next higher one of the grid.
        """
        depth = int(np.argmin([abs(np.log(k / known)) for known in _DEPTHS]))
        larger = [s for s, known in enumerate(_SHARES) if known >= _ABOUT * share]
        goal = min(int(np.searchsorted(TARGETS, target - 1e-9)), len(TARGETS) - 1)
        beam, threshold, shift, reached, p5, *weights = self.table[larger[-1], depth, goal].tolist()
        return Entry(max(int(beam), k), threshold, shift, reached, p5, np.array(weights, np.float32))

    def as_arrays(self) -> dict[str, NDArray[Any]]:
        return {"recall.table": self.table, "recall.counts": np.array([self.live, self.drawn], np.int64)}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> Calibration | None:
        table, counts = arrays.get("recall.table"), arrays.get("recall.counts")
        shape = (len(_SHARES), len(_DEPTHS), len(TARGETS), 5 + FEATURES)
        if table is None or counts is None or table.shape != shape:
            return None
        return cls(np.array(table), *counts.tolist())


def calibrate(index: Tracer, queries: Vectors, seed: int, *, live: int, drawn: int) -> Calibration:
    """Measure an index by queries (B, D) that are not in it. live and drawn are remembered."""
    draws = np.random.default_rng(seed).random(len(index))
    table = np.empty((len(_SHARES), len(_DEPTHS), len(TARGETS), 5 + FEATURES))
    for s, share in enumerate(_SHARES):
        allowed = index.live & (draws < share)
        truth = exact_search(index.vectors, queries, max(_DEPTHS), index.metric, allowed).positions.astype(np.int32)
        for d, k in enumerate(_DEPTHS):
            table[s, d] = _entries(index, queries, np.ascontiguousarray(truth[:, :k]), share, allowed)
    return Calibration(table, live, drawn)


def _entries(
    index: Tracer, queries: Vectors, truth: NDArray[np.int32], share: float, allowed: Mask
) -> NDArray[np.float64]:
    """(targets, 5 + FEATURES) for one share and depth: each target with the narrowest beam that leaves it room."""
    k, walk = truth.shape[1], PLAIN if share == 1.0 else FILTERED
    entries = np.empty((len(TARGETS), 5 + FEATURES))
    beams = iter([beam for beam in _BEAMS if beam >= k])
    beam = next(beams)
    walks = _Walks(index.trace(queries, truth, int(beam / share), walk, allowed), k)
    for t, target in enumerate(TARGETS):
        while walks.end < target + _HEADROOM * (1.0 - target):
            wider = next(beams, None)
            if wider is None:
                break
            beam, walks = wider, _Walks(index.trace(queries, truth, int(wider / share), walk, allowed), k)
        entries[t] = [beam, *walks.stop_at(target), *walks.weights]
    return entries


class _Walks:
    """Traces of one beam: features (B, H, F), recall (B, H) and which steps there were (B, H)."""

    def __init__(self, traces: Traces, k: int) -> None:
        steps, lengths = traces
        taken = np.arange(steps.shape[1]) < lengths[:, None]
        keep = lengths > 0
        self.taken = taken[keep]
        self.features = steps[keep, :, :FEATURES].astype(np.float64)
        self.recall = np.where(self.taken, steps[keep, :, FEATURES] / k, 0.0)
        self.last = lengths[keep] - 1
        self.end = float(self._at(self.last).mean()) if len(self.last) else 1.0
        self.weights = _regress(self.features[self.taken], self.recall[self.taken])
        scores = np.where(self.taken, self.features @ self.weights, -np.inf)
        self.highest = np.maximum.accumulate(scores, axis=1)
        self.scores = scores

    def stop_at(self, target: float) -> tuple[float, float, float, float]:
        """Threshold, shift, mean recall and its 5th percentile."""
        if not len(self.last):
            return -np.inf, 0.0, 1.0, 1.0
        wanted = target + _CAUTION * (1.0 - target)
        finite = self.highest[np.isfinite(self.highest)]
        low, high = 0, 400
        ladder = np.quantile(finite, np.linspace(0.0, 1.0, high + 1))
        while low < high:  # the lowest threshold that reaches the target: recall grows with it
            middle = (low + high) // 2
            if self._at(self._stops(ladder[middle])).mean() >= wanted:
                high = middle
            else:
                low = middle + 1
        stops = self._stops(ladder[low])
        reached = self._at(stops)
        said = _logistic(self.scores[np.arange(len(stops)), stops])
        mean = float(reached.mean())
        return float(ladder[low]), mean - float(said.mean()), mean, float(np.quantile(reached, 0.05))

    def _stops(self, threshold: float) -> NDArray[np.int64]:
        """(B,): the step at which each walk ends."""
        above = self.highest >= threshold
        return np.where(above.any(axis=1), np.argmax(above, axis=1), self.last)

    def _at(self, stops: NDArray[np.int64]) -> NDArray[np.float64]:
        recall: NDArray[np.float64] = self.recall[np.arange(len(stops)), stops]
        return recall


def _regress(features: NDArray[np.float64], shares: NDArray[np.float64]) -> NDArray[np.float64]:
    """Weights (F,) of a logistic regression of shares (n,) in 0 … 1 on features (n, F), by Newton's method."""
    if not len(features):
        return np.zeros(FEATURES)
    every = -(-len(features) // _REGRESSED)
    features, shares = features[::every], shares[::every]
    scale = np.maximum(np.sqrt(np.mean(np.square(features), axis=0)), 1e-9)
    scaled = features / scale
    weights = np.zeros(FEATURES)
    for _ in range(_ROUNDS):
        said = _logistic(scaled @ weights)
        slope = np.maximum(said * (1.0 - said), 1e-6)
        gradient = scaled.T @ (shares - said) - _RIDGE * len(scaled) * weights
        curvature = (scaled * slope[:, None]).T @ scaled + _RIDGE * len(scaled) * np.eye(FEATURES)
        weights = weights + np.linalg.solve(curvature, gradient)
    scaled_back: NDArray[np.float64] = weights / scale
    return scaled_back


def _logistic(scores: NDArray[Any]) -> NDArray[np.float64]:
    said: NDArray[np.float64] = 1.0 / (1.0 + np.exp(-np.clip(scores, -30.0, 30.0)))
    return said
