from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vecdb.errors import InvalidQuery
from vecdb.query.fusion import Rrf, Weighted, fuse, fusion_of
from vecdb.query.ranking import Ranking, ranked

row_lists = st.lists(st.integers(1, 40), unique=True, max_size=20)


def ranking_of(rows: list[int]) -> Ranking:
    return Ranking("list", np.array(rows, dtype=np.int64), np.linspace(9.0, 1.0, len(rows)))


@given(row_lists, row_lists, st.floats(0, 100), st.floats(0, 3), st.floats(0.1, 3))
def test_rrf_adds_weighted_reciprocal_ranks(left: list[int], right: list[int], k: float, a: float, b: float) -> None:
    fused = fuse([ranking_of(left), ranking_of(right)], Rrf(k=k, weights=(a, b)))
    wanted: dict[int, float] = dict.fromkeys({*left, *right}, 0.0)
    for rows, weight in ((left, a), (right, b)):
        for rank, row in enumerate(rows, start=1):
            wanted[row] += weight / (k + rank)
    assert dict(zip(fused.rows.tolist(), fused.scores)) == pytest.approx(wanted)
    assert sorted(wanted, key=lambda row: (-fused.scores[fused.rows.tolist().index(row)], row)) == fused.rows.tolist()


@given(row_lists, row_lists)
def test_weighted_fusion_of_equal_lists_keeps_their_order(rows: list[int], others: list[int]) -> None:
    fused = fuse([ranking_of(rows), ranking_of(rows)], Weighted())
    assert fused.rows.tolist() == rows
    assert (
        fuse([ranking_of(rows), ranking_of(others)], Weighted(weights=(1.0, 0.0))).rows.tolist()[
            : max(len(rows) - 1, 0)
        ]
        == (rows[:-1])
    )  # the last of a list gets 0 by min-max, like those that are not in it


def test_weighted_fusion_takes_scores_not_ranks() -> None:
    left = Ranking("vector", np.array([1, 2, 3]), np.array([0.9, 0.89, 0.1]))
    right = Ranking("text", np.array([3, 2]), np.array([10.0, 2.0]))
    fused = fuse([left, right], Weighted(weights=(0.5, 0.5)))
    assert dict(zip(fused.rows.tolist(), fused.scores)) == pytest.approx({1: 0.5, 2: 0.5 * 0.79 / 0.8, 3: 0.5})


def test_equal_scores_are_ordered_by_age() -> None:
    assert ranked("x", np.array([5, 2, 9]), np.array([1.0, 1.0, 1.0])).rows.tolist() == [2, 5, 9]


@pytest.mark.parametrize("weights", [(), (0.0, 0.0), (-1.0, 1.0), (float("nan"), 1.0)])
def test_impossible_weights_are_refused(weights: tuple[float, ...]) -> None:
    with pytest.raises(InvalidQuery, match="weights"):
        Rrf(weights=weights)


def test_weights_must_match_the_lists() -> None:
    with pytest.raises(InvalidQuery, match="3 weights for 2 lists"):
        fuse([ranking_of([1]), ranking_of([2])], Rrf(weights=(1, 1, 1)))


def test_fusion_is_named_or_an_object() -> None:
    assert fusion_of("rrf") == Rrf()
    assert fusion_of(Weighted()) == Weighted()
    for wrong in ("best", object(), None):
        with pytest.raises(InvalidQuery):
            fusion_of(wrong)  # type: ignore[arg-type]
