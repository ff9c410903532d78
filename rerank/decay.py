"""How much of something is left at a distance: pure functions of arrays. Elasticsearch and Qdrant have them under these names.

All are 1 up to `offset` from the origin and `at` (0 < at < 1) another `scale` further out. With d = max(0, |distance| - offset):

    exp     at ** (d / scale)
    gauss   at ** ((d / scale) ** 2)
    linear  max(0, 1 - (1 - at) * d / scale), which is 0 from scale / (1 - at) on
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Decay = Literal["exp", "gauss", "linear"]


def _exp(steps: Floats, at: float) -> Floats:
    return np.power(at, steps)


def _gauss(steps: Floats, at: float) -> Floats:
    with np.errstate(over="ignore"):  # an infinite square is as far as can be
        return np.power(at, np.square(steps))


def _linear(steps: Floats, at: float) -> Floats:
    return np.maximum(0.0, 1.0 - (1.0 - at) * steps)


DECAYS: Final[dict[str, Callable[[Floats, float], Floats]]] = {"exp": _exp, "gauss": _gauss, "linear": _linear}


def decayed(kind: Decay, distance: Floats, scale: float, *, offset: float = 0.0, at: float = 0.5) -> Floats:
    """(n,) what is left, 0 … 1, at distances (n,) of either sign; scale above 0, offset from 0 on, in the distances' unit."""
    with np.errstate(over="ignore"):
        steps = np.maximum(0.0, np.abs(distance) - offset) / scale
    return DECAYS[kind](steps, at)
