from __future__ import annotations

from typing import Any

import naive_fusion as naive
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vecdb.errors import InvalidQuery
from vecdb.query.fusion import (
    FUSIONS,
    CombMnz,
    Distribution,
    Evidence,
    Fused,
    Rrf,
    Vstash,
    Weighted,
    ZScore,
    fuse,
    fusion_of,
)
from vecdb.query.fusion.vstash import vstash_weights
from vecdb.query.ranking import Ranking, ranked

row_lists = st.lists(st.integers(1, 40), unique=True, max_size=20)
weight_pairs = st.tuples(st.floats(0, 3), st.floats(0.1, 3))


@st.composite
def rankings(draw: st.DrawFn, name: str = "list", *, most: float = 20.0) -> Ranking:
    """A list with ties, equal scores throughout, one row or none among its forms."""
    rows = draw(row_lists)
    scores = draw(
        st.lists(st.sampled_from([-1.0, 0.0, 0.25, 0.5, 0.9, 1.0, most]), min_size=len(rows), max_size=len(rows))
    )
    return ranked(name, np.array(rows, dtype=np.int64), np.array(scores, dtype=np.float64))


@st.composite
def evidences(draw: st.DrawFn) -> Evidence:
    documents = draw(st.integers(0, 500))
    stems = draw(st.lists(st.text("abc", min_size=1, max_size=2), unique=True, max_size=6))
    frequencies = tuple(draw(st.integers(0, documents)) for _ in stems)
    return Evidence(draw(st.integers(1, 12)), draw(st.integers(0, 80)), tuple(stems), frequencies, documents)


def ranking_of(rows: list[int]) -> Ranking:
    return Ranking("list", np.array(rows, dtype=np.int64), np.linspace(9.0, 1.0, len(rows)))


def pairs(ranking: Ranking) -> list[tuple[int, float]]:
    return list(zip(ranking.rows.tolist(), ranking.scores.tolist()))


def check_against(fused: Fused, wanted: dict[int, float]) -> None:
    found = dict(pairs(fused.ranking))
    assert found == pytest.approx(wanted, rel=1e-9, abs=1e-9)
    assert fused.ranking.rows.tolist() == sorted(found, key=lambda row: (-found[row], row))


@given(row_lists, row_lists, st.floats(0, 100), weight_pairs, st.sampled_from([0, 1]))
def test_rrf_adds_weighted_reciprocal_ranks(
    left: list[int], right: list[int], k: float, weights: tuple[float, float], base: int
) -> None:
    lists = [ranking_of(left), ranking_of(right)]
    k = max(k, 1e-3)  # ranks from 0 need it above 0
    fused = fuse(lists, Rrf(k=k, weights=weights, base=base))  # type: ignore[arg-type]
    check_against(fused, naive.rrf([pairs(r) for r in lists], k, weights, base))


@given(rankings(), rankings(), weight_pairs)
def test_fusions_of_scores_are_those_on_paper(left: Ranking, right: Ranking, weights: tuple[float, float]) -> None:
    lists = [pairs(left), pairs(right)]
    for fusion, scale in (
        (Weighted(weights), naive.min_max),
        (ZScore(weights), naive.z_scores),
        (Distribution(weights), naive.three_deviations),
    ):
        check_against(fuse([left, right], fusion), naive.summed([scale(r) for r in lists], weights))
    mnz = naive.comb_mnz([naive.min_max(r) for r in lists], weights)
    check_against(fuse([left, right], CombMnz(weights)), mnz)


@given(rankings("vector", most=0.99), rankings("text"), evidences(), st.booleans())
def test_vstash_is_its_published_rule(vector: Ranking, text: Ranking, evidence: Evidence, gate: bool) -> None:
    wanted = naive.vstash(
        pairs(vector),
        pairs(text),
        k=evidence.k,
        words=evidence.words,
        frequencies=dict(zip(evidence.stems, evidence.frequencies)),
        documents=evidence.documents,
        gate=gate,
    )
    check_against(fuse([vector, text], Vstash(gate=gate), evidence), wanted)


@given(rankings("vector"), rankings("text"), evidences(), st.sampled_from(sorted(FUSIONS)))
def test_what_the_lists_add_sums_to_the_score(vector: Ranking, text: Ranking, evidence: Evidence, name: str) -> None:
    fused = fuse([vector, text], fusion_of(name), evidence)
    added: dict[int, float] = {}
    for ranking, share in zip((vector, text), fused.shares):
        for row, score in zip(ranking.rows.tolist(), share.scores.tolist()):
            added[row] = added.get(row, 0.0) + score
    for row, score in pairs(fused.ranking):
        assert added[row] == pytest.approx(score, abs=1e-9)


@given(row_lists, row_lists)
def test_weighted_fusion_of_equal_lists_keeps_their_order(rows: list[int], others: list[int]) -> None:
    fused = fuse([ranking_of(rows), ranking_of(rows)], Weighted())
    assert fused.ranking.rows.tolist() == rows
    alone = fuse([ranking_of(rows), ranking_of(others)], Weighted(weights=(1.0, 0.0))).ranking.rows.tolist()
    # the last of a list gets 0 by min-max, like those that are not in it
    assert alone[: max(len(rows) - 1, 0)] == rows[:-1]


def test_weighted_fusion_takes_scores_not_ranks() -> None:
    left = Ranking("vector", np.array([1, 2, 3]), np.array([0.9, 0.89, 0.1]))
    right = Ranking("text", np.array([3, 2]), np.array([10.0, 2.0]))
    fused = fuse([left, right], Weighted(weights=(0.5, 0.5))).ranking
    assert dict(pairs(fused)) == pytest.approx({1: 0.5, 2: 0.5 * 0.79 / 0.8, 3: 0.5})


@pytest.mark.parametrize("name", sorted(FUSIONS))
def test_empty_lists_fuse_to_what_the_other_has(name: str) -> None:
    empty, some = Ranking.empty("vector"), ranking_of([3, 1, 2])
    evidence = Evidence(documents=10)
    assert len(fuse([empty, Ranking.empty("text")], fusion_of(name), evidence).ranking) == 0
    assert fuse([empty, some], fusion_of(name), evidence).ranking.rows.tolist() == [3, 1, 2]
    assert fuse([some, empty], fusion_of(name), evidence).ranking.rows.tolist()[0] == 3


@pytest.mark.parametrize("documents", [17, 1_000, 1_000_000])
def test_vstash_puts_the_only_record_with_a_word_first_whatever_its_vector(documents: int) -> None:
    rng = np.random.default_rng(0)
    evidence = Evidence(words=1, stems=("e1234x",), frequencies=(1,), documents=documents)
    assert vstash_weights(evidence)[1] > 0.5
    vector = Ranking("vector", rng.permutation(50)[:16], np.sort(rng.uniform(0, 0.2, 16))[::-1])
    assert fuse([vector, Ranking("text", np.array([99]), np.array([7.0]))], Vstash(), evidence).ranking.rows[0] == 99


def test_vstash_weighs_words_the_more_the_rarer_they_are() -> None:
    weights = [vstash_weights(Evidence(10, 1, ("word",), (df,), 10_000))[1] for df in (0, 1, 10, 100, 1_000, 10_000)]
    assert weights == sorted(weights, reverse=True)
    assert vstash_weights(Evidence(10, 60, ("word",), (3,), 10_000)) == (0.9, 0.1)
    assert vstash_weights(Evidence(10, 2, ("a", "b"), (3, 4), 10_000)) == (0.6, 0.4)
    assert vstash_weights(Evidence(10, 1, ("word",), (1,), 1)) == (0.6, 0.4)


def test_vstash_tells_its_tier_and_gates_in_units_of_the_metric() -> None:
    vector = Ranking("vector", np.arange(4), np.array([0.8, 0.75, 0.7, 0.1]))
    nothing = Ranking.empty("text")
    fused = fuse([vector, nothing], Vstash(), Evidence(documents=900))
    assert fused.ranking.rows.tolist() == [0, 1]  # distances up to 0.2 * 1.3225
    assert (fused.detail["tier"], fused.detail["gated"]) == ("high", 2)
    far = Ranking("vector", np.arange(2), np.array([-0.97, -1.1]))
    fused = fuse([far, nothing], Vstash(), Evidence(documents=900, metric="l2"))
    assert (fused.detail["tier"], fused.ranking.rows.tolist()) == ("medium", [0, 1])  # 1.1 <= 1.15 * 0.97
    products = Ranking("vector", np.arange(2), np.array([9.0, 0.1]))
    fused = fuse([products, nothing], Vstash(), Evidence(documents=900, metric="ip"))
    assert "tier" not in fused.detail
    assert fused.ranking.rows.tolist() == [0, 1]


def test_equal_scores_are_ordered_by_age() -> None:
    assert ranked("x", np.array([5, 2, 9]), np.array([1.0, 1.0, 1.0])).rows.tolist() == [2, 5, 9]


@pytest.mark.parametrize("weights", [(), (0.0, 0.0), (-1.0, 1.0), (float("nan"), 1.0)])
@pytest.mark.parametrize("kind", [Rrf, Weighted, ZScore, Distribution, CombMnz])
def test_impossible_weights_are_refused(kind: Any, weights: tuple[float, ...]) -> None:
    with pytest.raises(InvalidQuery, match="weights"):
        kind(weights=weights)


@pytest.mark.parametrize("options", [{"k": -1}, {"k": float("nan")}, {"base": 2}, {"k": 0, "base": 0}])
def test_impossible_ranks_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(InvalidQuery, match="reciprocal rank fusion"):
        Rrf(**options)


@pytest.mark.parametrize("kind", [Rrf, Weighted, ZScore, Distribution, CombMnz])
def test_weights_must_match_the_lists(kind: Any) -> None:
    with pytest.raises(InvalidQuery, match="3 weights for 2 lists"):
        fuse([ranking_of([1]), ranking_of([2])], kind(weights=(1, 1, 1)))


def test_fusion_is_named_or_an_object() -> None:
    assert fusion_of("rrf") == Rrf()
    assert fusion_of(Weighted()) == Weighted()
    for wrong in ("best", object(), None):
        with pytest.raises(InvalidQuery):
            fusion_of(wrong)  # type: ignore[arg-type]
