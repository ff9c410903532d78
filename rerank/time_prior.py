"""When in the life of a question news is worth most: a curve, learnt from how a crowd grew better at it (arXiv 2310.01880)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vecdb.errors import InvalidInput, InvalidQuery

_GRID = 109
_NO_SLOPE = 1e-9  # of a curve that is flat but for rounding
_TRIM = (0.05, 0.97)  # the ends of a life say more about when questions are asked and settled than about news


@dataclass(frozen=True, slots=True)
class TimePrior:
    """values: 0 … 1 at the points u, which ascend from the start (0) to the end (1) of a span; held constant beyond them."""

    u: tuple[float, ...]
    values: tuple[float, ...]

    def __post_init__(self) -> None:
        u, values = np.asarray(self.u, dtype=np.float64), np.asarray(self.values, dtype=np.float64)
        if u.ndim != 1 or u.shape != values.shape or not len(u) or not (np.diff(u) > 0).all():
            raise InvalidQuery(
                f"a time prior has {u.shape} points and {values.shape} values; give as many, u ascending"
            )
        if not (np.isfinite(u).all() and (values >= 0).all() and (values <= 1).all()):
            raise InvalidQuery(
                "the values of a time prior must lie between 0 and 1: a negative one would turn the order round"
            )
        object.__setattr__(self, "u", tuple(u.tolist()))
        object.__setattr__(self, "values", tuple(values.tolist()))

    def at(self, u: ArrayLike) -> NDArray[np.float64]:
        return np.interp(np.asarray(u, dtype=np.float64), self.u, self.values)

    def as_json(self) -> dict[str, Any]:
        return {"u": list(self.u), "values": list(self.values)}


def fit_time_prior(curves: Iterable[tuple[ArrayLike, ArrayLike]]) -> TimePrior:
    """The slope of the mean accuracy over the curves, where it rises: scaled to at most 1, and 0 where the crowd got worse.

    Each curve is (u, accuracy): points of a question's life, 0 … 1, and how likely the crowd held the true answer to be then.
    Curves without points say nothing and are left out. Learn it from questions that were settled before any that it is used for.
    Raises InvalidInput if no curve has points. If nowhere anything rises, all times count alike.
    """
    grid = np.linspace(0.0, 1.0, _GRID)
    means = []
    for given_u, given_accuracy in curves:
        u, accuracy = np.asarray(given_u, dtype=np.float64), np.asarray(given_accuracy, dtype=np.float64)
        if u.shape != accuracy.shape or u.ndim != 1 or not (np.isfinite(u).all() and np.isfinite(accuracy).all()):
            raise InvalidInput(
                f"a curve has {u.shape} points and {accuracy.shape} accuracies; give as many finite numbers"
            )
        if len(u):
            order = np.argsort(u, kind="stable")
            means.append(np.interp(grid, u[order], accuracy[order]))
    if not means:
        raise InvalidInput(
            "a time prior is learnt from curves of accuracy over time, and none of those given has points"
        )
    slope = np.gradient(np.mean(means, axis=0), grid)
    inside = (grid >= _TRIM[0]) & (grid <= _TRIM[1])
    rising = np.maximum(0.0, slope[inside])
    values = rising / rising.max() if rising.max() > _NO_SLOPE else np.ones_like(rising)
    return TimePrior(tuple(grid[inside].tolist()), tuple(values.tolist()))


def time_prior_of(given: TimePrior | Mapping[str, Any]) -> TimePrior:
    """Also from {"u": […], "values": […]}. Raises InvalidQuery."""
    if isinstance(given, TimePrior):
        return given
    if not isinstance(given, Mapping) or set(given) != {"u", "values"}:
        raise InvalidQuery(f"time_prior is {given!r}; give what fit_time_prior made, or {{'u': […], 'values': […]}}")
    return TimePrior(tuple(given["u"]), tuple(given["values"]))
