from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from vecdb.query.selection import diversified, grouped


def naive_mmr(relevance: list[float], vectors: np.ndarray, diversity: float, count: int) -> list[int]:
    """Straight from the formula of Carbonell & Goldstein (1998)."""
    span = max(relevance) - min(relevance)
    scaled = [(r - min(relevance)) / span if span else 1.0 for r in relevance]
    chosen: list[int] = []
    while len(chosen) < min(count, len(relevance)):
        best, best_value = -1, -np.inf
        for i in range(len(relevance)):
            if i in chosen:
                continue
            redundancy = max((float(vectors[i] @ vectors[j]) for j in chosen), default=0.0)
            value = (1 - diversity) * scaled[i] - diversity * redundancy
            if value > best_value:
                best, best_value = i, value
        chosen.append(best)
    return chosen


@given(st.integers(1, 12), st.integers(1, 12), st.floats(0, 1), st.integers(0, 2**32 - 1))
def test_diversified_is_maximal_marginal_relevance(size: int, count: int, diversity: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    vectors = rng.standard_normal((size, 5)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    relevance = rng.random(size)
    places, _ = diversified(relevance, vectors, diversity, count)
    assert places == naive_mmr(relevance.tolist(), vectors, diversity, count)


def test_no_diversity_keeps_the_order_of_relevance() -> None:
    vectors = np.ones((4, 3), dtype=np.float32)
    assert diversified(np.array([4.0, 3.0, 2.0, 1.0]), vectors, 0.0, 4)[0] == [0, 1, 2, 3]


def test_diversity_passes_over_copies() -> None:
    vectors = np.array([[1, 0], [1, 0], [1, 0], [0, 1]], dtype=np.float32)
    assert diversified(np.array([1.0, 0.99, 0.98, 0.5]), vectors, 0.6, 2)[0] == [0, 3]


def test_grouped_keeps_the_first_of_each_group_and_all_that_have_none() -> None:
    assert grouped(["a", "b", "a", None, "a", None, "b"], 1) == [0, 1, 3, 5]
    assert grouped(["a", "b", "a", None, "a", None, "b"], 2) == [0, 1, 2, 3, 5, 6]
