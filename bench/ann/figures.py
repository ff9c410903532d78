"""What is read from measured points: a point is {"setting", "recall", "qps", …}. Pure functions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

Point = dict[str, Any]

RECALLS = (0.90, 0.95, 0.99, 0.999)

# Where the curve of a plot is to have points beside those.
_CURVE = (0.80, 0.85, 0.925, 0.97, 0.98, 0.985, 0.995, 0.9975)


def at_recall(points: Sequence[Point], wanted: float, value: str = "qps") -> Point | None:
    """The fastest point with at least this recall; None if there is none."""
    good = [point for point in points if point["recall"] >= wanted]
    return max(good, key=lambda point: point[value], default=None)


def worth_measuring(survey: Sequence[Point], *, quick: bool = False) -> list[Point]:
    """The points of a survey that may be the fastest at some recall, in its order.

    For each recall the one just above it, which a ladder of beams makes the fastest, and those that the survey found
    fastest: a survey measures once, and errs.
    """
    chosen: list[Point] = []
    for wanted in RECALLS if quick else (*RECALLS, *_CURVE):
        good = [point for point in survey if point["recall"] >= wanted]
        nearest = sorted(good, key=lambda point: point["recall"])[:1]
        fastest = sorted(good, key=lambda point: -point["qps"])[: 1 if quick else 2]
        chosen += nearest + fastest
    if not chosen:  # nothing reaches the least recall: its best is shown all the same
        chosen = [max(survey, key=lambda point: point["recall"])]
    return [point for point in survey if point in chosen]


def front(points: Sequence[Point]) -> list[Point]:
    """The points that no other beats in recall and speed at once, by rising recall."""
    kept: list[Point] = []
    for point in sorted(points, key=lambda point: (-point["recall"], -point["qps"])):
        if not kept or point["qps"] > kept[-1]["qps"]:
            kept.append(point)
    return kept[::-1]
