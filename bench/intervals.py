"""How sure a mean is."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

_RESAMPLES = 10_000


def mean_interval(values: ArrayLike, seed: int = 0) -> tuple[float, float, float]:
    """Mean, low and high of values (n,): its 95 % interval by the percentile bootstrap (of paired differences: a paired one)."""
    known = np.asarray(values, dtype=np.float64)
    draws = np.random.default_rng(seed).integers(0, len(known), (_RESAMPLES, len(known)))
    low, high = np.percentile(known[draws].mean(axis=1), [2.5, 97.5])
    return float(known.mean()), float(low), float(high)
