from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vecdb.errors import InvalidInput, InvalidQuery
from vecdb.query.fusion import Adaptive, Lean, ZScore, fuse
from vecdb.query.fusion.features import NAMES, agreement, features
from vecdb.query.fusion.fitting import tendency_of
from vecdb.query.fusion.learning import WEIGHTS, Example, curve, example, ideal_gain, learn
from vecdb.query.ranking import Ranking, ranked


@st.composite
def rankings(draw: st.DrawFn, name: str) -> Ranking:
    rows = draw(st.lists(st.integers(1, 40), unique=True, max_size=25))
    scores = [draw(st.sampled_from([0.0, 0.1, 0.5, 0.9, 3.0])) for _ in rows]
    return ranked(name, np.array(rows, dtype=np.int64), np.array(scores, dtype=np.float64))


def naive_agreement(vector: Ranking, text: Ranking) -> float:
    def standing(own: Ranking, other: Ranking) -> float:
        known = dict(zip(other.rows[:100].tolist(), other.scores[:100].tolist()))
        first = own.rows[:5].tolist()
        if not first or not known:
            return 0.0
        low, high = min(known.values()), max(known.values())
        return sum(((known[r] - low) / (high - low) if high > low else 1.0) for r in first if r in known) / len(first)

    return standing(text, vector) - standing(vector, text)


def lean_of(bias: float, **slopes: float) -> Lean:
    return Lean(bias, tuple(slopes.get(name, 0.0) for name in NAMES), (0.0,) * len(NAMES), (1.0,) * len(NAMES))


@given(rankings("vector"), rankings("text"), st.none() | st.floats(-1, 1))
def test_features_are_finite_whatever_the_lists(vector: Ranking, text: Ranking, tendency: float | None) -> None:
    found = features(vector, text, tendency)
    assert agreement(vector, text) == pytest.approx(naive_agreement(vector, text), abs=1e-12)
    assert agreement(vector, text) == pytest.approx(-agreement(text, vector), abs=1e-12)
    assert np.isfinite(found[1:]).all()
    assert math.isnan(found[0]) == (tendency is None)
    assert 0.0 < Adaptive(tendency).shares([vector, text], None)[0][1].weight < 1.0  # type: ignore[arg-type]


@given(rankings("vector"), rankings("text"), st.floats(-2, 2))
def test_it_is_a_fusion_of_scores_with_the_weights_of_its_lean(vector: Ranking, text: Ranking, bias: float) -> None:
    weight = 1 / (1 + math.exp(-bias))
    found = fuse([vector, text], Adaptive(lean=lean_of(bias)))
    wanted = fuse([vector, text], ZScore(weights=(1 - weight, weight)))
    assert found.ranking.rows.tolist() == wanted.ranking.rows.tolist()
    np.testing.assert_allclose(found.ranking.scores, wanted.ranking.scores, atol=1e-12)


def test_the_better_its_lists_speak_of_the_words_the_more_they_count() -> None:
    rng = np.random.default_rng(0)
    vector = Ranking("vector", rng.permutation(300)[:100], np.sort(rng.random(100))[::-1])
    text = Ranking("text", rng.permutation(300)[:100], np.sort(rng.random(100))[::-1])
    shares = [Adaptive(t).shares([vector, text], None)[0] for t in (-0.05, 0.0, 0.05, 0.1)]  # type: ignore[arg-type]
    weights = [text_share.weight for _, text_share in shares]
    assert weights == sorted(weights)
    assert weights[0] < weights[-1]


@given(rankings("vector"), rankings("text"), st.dictionaries(st.integers(1, 40), st.integers(0, 3), min_size=1))
def test_a_curve_is_what_fusing_and_measuring_give(vector: Ranking, text: Ranking, grades: dict[int, int]) -> None:
    if not any(grades.values()):
        with pytest.raises(InvalidInput, match="no relevant document"):
            example(vector, text, grades, 0.0)
        return
    found = example(vector, text, grades, 0.0).curve
    ideal = sum(g / math.log2(i + 2) for i, g in enumerate(sorted(grades.values(), reverse=True)[:10]))
    assert ideal_gain(list(grades.values())) == pytest.approx(ideal)
    for weight, value in zip(WEIGHTS.tolist(), found):
        fused = fuse([vector, text], ZScore(weights=(1 - weight, weight))).ranking.first(10)
        gain = sum(grades.get(row, 0) / math.log2(i + 2) for i, row in enumerate(fused.rows.tolist()))
        assert value == pytest.approx(gain / ideal, abs=1e-9)


def test_a_curve_is_the_measure_of_ir_measures() -> None:
    evaluation = pytest.importorskip("vecdb.evaluation")
    rng = np.random.default_rng(1)
    vector = Ranking("vector", rng.permutation(60)[:30], np.sort(rng.random(30))[::-1])
    text = Ranking("text", rng.permutation(60)[:30], np.sort(rng.random(30))[::-1])
    grades = {int(row): int(grade) for row, grade in zip(rng.permutation(60)[:20], rng.integers(0, 4, 20))}
    found = curve(vector, text, [vector.scores, text.scores], grades)
    fused = {}
    for ranking in (vector, text):
        for row, score in zip(ranking.rows.tolist(), ranking.scores.tolist()):
            fused[row] = fused.get(row, 0.0) + 0.5 * score
    run = {"q": [(str(row), score) for row, score in fused.items()]}
    qrels = {"q": {str(row): grade for row, grade in grades.items()}}
    assert found[10] == pytest.approx(evaluation.evaluate_run(run, qrels, ("nDCG@10",)).means["nDCG@10"])


def test_learning_finds_the_feature_that_says_which_list_is_right() -> None:
    rng = np.random.default_rng(0)
    rising, falling = WEIGHTS, WEIGHTS[::-1]

    def group(count: int) -> list[Example]:
        made = []
        for _ in range(count):
            told = rng.standard_normal(len(NAMES))
            made.append(Example(told, rising if told[2] > 0 else falling))
        return made

    lean = learn([group(200), group(50)])
    assert lean.slopes[2] > 5 * max(abs(s) for i, s in enumerate(lean.slopes) if i != 2)
    unseen = group(100)
    weights = [float(lean.text_weight(e.features)) for e in unseen]
    assert all((w > 0.5) == (e.features[2] > 0) for w, e in zip(weights, unseen) if abs(e.features[2]) > 0.3)
    with pytest.raises(InvalidInput, match="no examples"):
        learn([[], []])


def test_a_tendency_is_drawn_to_the_usual_where_queries_are_few() -> None:
    usual = tendency_of([])
    assert usual < tendency_of([0.5]) < tendency_of([0.5] * 10) < tendency_of([0.5] * 1000) < 0.5


@pytest.mark.parametrize("tendency", [-1.5, 2, float("nan"), float("inf")])
def test_impossible_tendencies_are_refused(tendency: Any) -> None:
    with pytest.raises(InvalidQuery, match="tendency"):
        Adaptive(tendency)


def test_a_lean_of_the_wrong_length_is_refused() -> None:
    with pytest.raises(InvalidQuery, match="slopes"):
        Lean(0.0, (1.0,), (0.0,) * len(NAMES), (1.0,) * len(NAMES))
    with pytest.raises(InvalidQuery, match="bias"):
        lean_of(float("nan"))
