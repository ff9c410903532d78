"""How sure of a query's bins a search must be so that its recall is what was asked for.

A search looks into the likeliest bins until their probabilities add up to a threshold. Vectors that the network did not learn
from are asked like queries: their true neighbours among the others, and how likely each neighbour's bin was, say what recall
every threshold gives. Thresholds stand for depths (numbers of neighbours); where a filter lets a share of the vectors through,
k neighbours lie about as deep as k / share.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vecdb.index.base import Vectors
from vecdb.index.neural_lsh.network import log_softmax

TARGETS = (0.5, 0.7, 0.8, 0.85, 0.9, 0.93, 0.95, 0.97, 0.98, 0.99, 0.995)
DEPTHS = (1, 10, 100, 1_000)
_CAUTION = 0.1  # of the distance to perfect: how far above the target the mean is to be on the sample
_STEPS = 64  # thresholds that are tried


@dataclass(frozen=True)
class Calibration:
    """thresholds (depths, targets) float64, of the summed probability; reached: the mean recall there."""

    thresholds: NDArray[np.float64]
    reached: NDArray[np.float64]

    def entry(self, depth: float, target: float) -> tuple[float, float]:
        """Threshold and mean recall for neighbours so deep, and the target or the next higher one of the grid."""
        at = int(np.argmin([abs(np.log(depth / known)) for known in DEPTHS]))
        goal = min(int(np.searchsorted(TARGETS, target - 1e-9)), len(TARGETS) - 1)
        return float(self.thresholds[at, goal]), float(self.reached[at, goal])

    def as_arrays(self) -> dict[str, NDArray[Any]]:
        return {"recall.thresholds": self.thresholds, "recall.reached": self.reached}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> Calibration | None:
        thresholds, reached = arrays.get("recall.thresholds"), arrays.get("recall.reached")
        shape = (len(DEPTHS), len(TARGETS))
        if thresholds is None or reached is None or thresholds.shape != shape or reached.shape != shape:
            return None
        return cls(np.array(thresholds), np.array(reached))


def calibrate(logits: Vectors, neighbours: NDArray[np.int32]) -> Calibration:
    """logits (Q, m) of queries; neighbours (Q, n) int32: the bins of their true neighbours, nearest first, -1 behind the last."""
    order = np.argsort(-logits, axis=1, kind="stable")
    likely = np.exp(log_softmax(np.take_along_axis(logits, order, axis=1)).astype(np.float64))
    summed = np.cumsum(likely, axis=1)
    place = np.argsort(order, axis=1, kind="stable")  # of each bin in the query's order
    there = neighbours >= 0
    places = np.where(there, np.take_along_axis(place, np.where(there, neighbours, 0), axis=1), logits.shape[1])
    ladder = 1.0 - np.geomspace(1.0, 1e-6, _STEPS)
    thresholds, reached = np.ones((len(DEPTHS), len(TARGETS))), np.ones((len(DEPTHS), len(TARGETS)))
    probes = [probes_for(summed, threshold) for threshold in ladder]
    for d, depth in enumerate(DEPTHS):
        near, known = places[:, :depth], there[:, :depth]
        curve = np.array([((near < probe[:, None]) & known).sum() / max(known.sum(), 1) for probe in probes])
        for t, target in enumerate(TARGETS):
            good = np.flatnonzero(curve >= target + _CAUTION * (1.0 - target))
            if len(good):
                thresholds[d, t], reached[d, t] = ladder[good[0]], curve[good[0]]
    return Calibration(thresholds, reached)


def probes_for(summed: NDArray[Any], threshold: float) -> NDArray[np.int64]:
    """(B,): how many bins each query looks into, until their summed probabilities (B, m) reach the threshold; at least one."""
    if threshold >= 1.0:
        return np.full(len(summed), summed.shape[1], np.int64)
    short: NDArray[np.int64] = np.count_nonzero(summed < threshold, axis=1) + 1
    return np.minimum(short, summed.shape[1])
