"""Decays against their formulas, one number at a time."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vecdb.rerank.decay import DECAYS, decayed


def by_hand(kind: str, distance: float, scale: float, offset: float, at: float) -> float:
    steps = max(0.0, abs(distance) - offset) / scale
    if kind == "linear":
        return max(0.0, 1 - (1 - at) * steps)
    if kind == "exp":
        return math.exp(math.log(at) * steps)
    deviation = math.sqrt(-1 / (2 * math.log(at)))  # as Elasticsearch writes it, with the scale as the unit
    return math.exp(-(min(steps, 1e100) ** 2) / (2 * deviation**2))


@given(
    kind=st.sampled_from(sorted(DECAYS)),
    distances=st.lists(st.floats(-1e12, 1e12), max_size=5),
    scale=st.floats(1e-3, 1e9),
    offset=st.floats(0, 1e6),
    at=st.floats(0.01, 0.99),
)
def test_each_value_is_the_formulas(kind: str, distances: list[float], scale: float, offset: float, at: float) -> None:
    found = decayed(kind, np.array(distances, dtype=float), scale, offset=offset, at=at)  # type: ignore[arg-type]
    assert found.shape == (len(distances),)
    for value, distance in zip(found, distances):
        assert value == pytest.approx(by_hand(kind, distance, scale, offset, at), abs=1e-9)


@pytest.mark.parametrize("kind", sorted(DECAYS))
def test_the_scale_is_where_it_says(kind: str) -> None:
    found = decayed(kind, np.array([0.0, 2.0, -2.0, 12.0, -12.0, 1e308]), 10, offset=2, at=0.3)  # type: ignore[arg-type]
    assert found == pytest.approx([1, 1, 1, 0.3, 0.3, 0])
