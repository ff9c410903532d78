"""Recall at equal numbers of distances, read from sweeps over ef: a point is {"ef", "recall", "work"}. Pure functions.

Recall at equal ef would not do: an order that makes longer lists measures more distances at the same ef.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Line = dict[str, Any]
Point = dict[str, Any]

# Where orders are compared: at the numbers of distances with which the random order has these recalls.
RECALLS = (0.80, 0.85, 0.90, 0.95, 0.98, 0.99)


@dataclass(frozen=True)
class Spread:
    """Mean and standard deviation (of a sample; 0 for one) of `count` values; nan where any of them is."""

    mean: float
    sd: float
    count: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        return cls(float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else 0.0, len(values))


def recall_at(points: Sequence[Point], work: float) -> float:
    """The recall with so many distances, linear in their logarithm between points; nan beyond the ends."""
    ordered = sorted(points, key=lambda point: point["work"])
    works, recalls = ([point[name] for point in ordered] for name in ("work", "recall"))
    return float(np.interp(np.log(work), np.log(works), recalls, left=np.nan, right=np.nan))


def work_at(points: Sequence[Point], recall: float) -> float:
    """The distances that so much recall takes, interpolated likewise; nan beyond the ends."""
    ordered = sorted(points, key=lambda point: point["work"])
    recalls = np.maximum.accumulate([point["recall"] for point in ordered])
    if not recalls[0] <= recall <= recalls[-1]:
        return float("nan")
    upper = int(np.searchsorted(recalls, recall))
    if upper == 0 or recalls[upper] == recall:
        return float(ordered[upper]["work"])
    share = (recall - recalls[upper - 1]) / (recalls[upper] - recalls[upper - 1])
    below, above = np.log(ordered[upper - 1]["work"]), np.log(ordered[upper]["work"])
    return float(np.exp(below + share * (above - below)))


@dataclass(frozen=True)
class Comparison:
    """One engine on one set. works: what the random order needs on average for RECALLS, nan where it has no such recall.

    recalls[order][i]: over seeds, at works[i]. costs[order][i]: distances for RECALLS[i], over what the random order needs.
    """

    name: str
    engine: str
    works: tuple[float, ...]
    recalls: dict[str, tuple[Spread, ...]]
    costs: dict[str, tuple[Spread, ...]]

    def gap(self, better: str, worse: str) -> tuple[float, float]:
        """The largest difference in recall between two orders, and how many standard deviations (of both) that is."""
        largest, in_sds = 0.0, 0.0
        for one, other in zip(self.recalls[better], self.recalls[worse]):
            difference = one.mean - other.mean
            if abs(difference) > abs(largest):
                sd = float(np.hypot(one.sd, other.sd))
                largest, in_sds = difference, difference / sd if sd > 0 else float("inf")
        return largest, in_sds


def compare(lines: Iterable[Line]) -> list[Comparison]:
    """The comparisons that these lines allow: each set and engine that has been measured in random order."""
    groups: dict[tuple[str, str], dict[str, list[Sequence[Point]]]] = {}
    for line in lines:
        if line["part"] == "order":
            orders = groups.setdefault((line["data"]["name"], line["engine"]), {})
            orders.setdefault(line["order"], []).append(line["points"])
    made = []
    for (name, engine), orders in groups.items():
        if "random" in orders:
            works = tuple(float(np.mean([work_at(points, r) for points in orders["random"]])) for r in RECALLS)
            recalls = {
                order: tuple(Spread.of([recall_at(points, work) for points in sweeps]) for work in works)
                for order, sweeps in orders.items()
            }
            costs = {
                order: tuple(
                    Spread.of([work_at(points, recall) / work for points in sweeps])
                    for recall, work in zip(RECALLS, works)
                )
                for order, sweeps in orders.items()
            }
            made.append(Comparison(name, engine, works, recalls, costs))
    return made
