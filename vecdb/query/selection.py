"""Choosing among candidates: variety, and a limit for each group."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np
from numpy.typing import NDArray


def diversified(
    relevance: NDArray[np.float64], vectors: NDArray[np.float32], diversity: float, count: int
) -> tuple[list[int], list[float]]:
    """Maximal marginal relevance (Carbonell & Goldstein, SIGIR 1998): places of the chosen, and their value when chosen.

    relevance: (c,), brought to 0 … 1 here. vectors: (c, D). Each step takes the candidate with the largest
    (1 - diversity) * relevance - diversity * (its largest cosine with one already chosen).
    """
    span = np.ptp(relevance) if len(relevance) else 0.0
    scaled = (relevance - relevance.min()) / span if span > 0 else np.ones_like(relevance)
    norms = np.linalg.norm(vectors, axis=1)
    unit = vectors / np.where(norms > 0, norms, 1)[:, None]
    nearest = np.full(len(relevance), -np.inf)
    chosen: list[int] = []
    values: list[float] = []
    for _ in range(min(count, len(relevance))):
        redundancy = np.where(np.isfinite(nearest), nearest, 0.0)
        value = (1 - diversity) * scaled - diversity * redundancy
        value[chosen] = -np.inf
        best = int(np.argmax(value))
        chosen.append(best)
        values.append(float(value[best]))
        nearest = np.maximum(nearest, unit @ unit[best])
    return chosen, values


def grouped(groups: Sequence[Hashable], per_group: int) -> list[int]:
    """Places of the first per_group members of each group, in the order given. None is no group: it is always kept."""
    seen: dict[Hashable, int] = {}
    places = []
    for place, group in enumerate(groups):
        if group is not None:
            seen[group] = seen.get(group, 0) + 1
            if seen[group] > per_group:
                continue
        places.append(place)
    return places
