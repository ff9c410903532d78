from __future__ import annotations

import math
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vecdb.errors import InvalidInput, InvalidQuery
from vecdb.query.fusion import Adaptive, Lean, fuse, learning
from vecdb.query.fusion.adaptive import near_deviations, word_deviations
from vecdb.query.fusion.features import NAMES, OWN, features
from vecdb.query.fusion.fitting import fit_lists, from_json, to_json, usual_of
from vecdb.query.fusion.learned import LEAN, UNFITTED
from vecdb.query.fusion.learning import WEIGHTS, Example, curve, example, ideal_gain, learn, learn_on
from vecdb.query.fusion.scores import scaled
from vecdb.query.ranking import Ranking, ranked


@st.composite
def rankings(draw: st.DrawFn, name: str) -> Ranking:
    rows = draw(st.lists(st.integers(1, 40), unique=True, max_size=25))
    scores = [draw(st.sampled_from([0.0, 0.1, 0.5, 0.9, 3.0])) for _ in rows]
    return ranked(name, np.array(rows, dtype=np.int64), np.array(scores, dtype=np.float64))


def naive_features(vector: Ranking, text: Ranking) -> list[float]:
    def standing(own: Ranking, other: Ranking) -> float:
        known = dict(zip(other.rows[:100].tolist(), other.scores[:100].tolist()))
        if not len(own) or own.rows[0] not in known:
            return 0.0
        low, high = min(known.values()), max(known.values())
        return (known[own.rows[0]] - low) / (high - low) if high > low else 1.0

    scores = text.scores.tolist()[:100]
    flatness = sum(scores) / scores[0] / 100 if scores and scores[0] > 0 else 1.0
    return [flatness, standing(text, vector), standing(vector, text)]


def lean_of(bias: float, **slopes: float) -> Lean:
    return Lean(bias, tuple(slopes.get(name, 0.0) for name in NAMES), (0.0,) * len(NAMES), (1.0,) * len(NAMES))


USUAL = st.tuples(*(st.floats(0, 1) for _ in OWN))


@given(rankings("vector"), rankings("text"), st.none() | USUAL)
def test_features_are_what_they_say_whatever_the_lists(
    vector: Ranking, text: Ranking, usual: tuple[float, ...] | None
) -> None:
    found = features(vector, text, usual)
    np.testing.assert_allclose(found[: len(OWN)], naive_features(vector, text), atol=1e-12)
    assert ((found[: len(OWN)] >= 0) & (found[: len(OWN)] <= 1)).all()
    assert np.isnan(found[len(OWN) :]).all() if usual is None else found[len(OWN) :].tolist() == list(usual)
    assert 0.0 < Adaptive(usual).shares([vector, text], None)[0][1].weight < 1.0  # type: ignore[arg-type]


def naive_deviations(scores: list[float], *, is_text: bool) -> list[float]:
    """Above the last of the list, of its first hundred; rows that a short text list lacks count 0."""
    known = scores + [0.0] * (100 - len(scores)) if is_text else scores
    deviation = float(np.std(known[:100])) if known else 0.0
    return [(score - min(known)) / deviation if deviation > 1e-12 else 1.0 for score in scores]


@given(rankings("vector"), rankings("text"), st.floats(-2, 2))
def test_it_is_a_sum_of_deviations_with_the_weights_of_its_lean(vector: Ranking, text: Ranking, bias: float) -> None:
    weight = 1 / (1 + math.exp(-bias))
    found = fuse([vector, text], Adaptive(lean=lean_of(bias))).ranking
    wanted: dict[int, float] = {}
    for ranking, share in ((vector, 1 - weight), (text, weight)):
        scores = naive_deviations(ranking.scores.tolist(), is_text=ranking is text)
        for row, score in zip(ranking.rows.tolist(), scores):
            wanted[row] = wanted.get(row, 0.0) + share * score
    assert dict(zip(found.rows.tolist(), found.scores.tolist())) == pytest.approx(wanted, abs=1e-9)


def test_a_collection_whose_words_tell_little_apart_leans_to_its_vectors() -> None:
    rng = np.random.default_rng(0)
    vector = Ranking("vector", rng.permutation(300)[:100], np.sort(rng.random(100))[::-1])
    text = Ranking("text", rng.permutation(300)[:100], np.sort(rng.random(100))[::-1])
    shares = [Adaptive((flat, 0.5, 0.5)).shares([vector, text], None)[0] for flat in (0.7, 0.5, 0.3)]  # type: ignore[arg-type]
    weights = [text_share.weight for _, text_share in shares]
    assert weights == sorted(weights)
    assert weights[0] < weights[-1]


@pytest.mark.parametrize("fusion", [Adaptive(), Adaptive((0.4, 0.6, 0.6))], ids=["unfitted", "fitted"])
def test_a_word_that_one_record_has_counts_more_than_words_that_all_have(fusion: Adaptive) -> None:
    rng = np.random.default_rng(0)
    vector = Ranking("vector", rng.permutation(300)[:100], np.sort(rng.random(100))[::-1])
    code = Ranking("text", vector.rows[:1], np.array([7.0]))
    common = Ranking("text", vector.rows[:100], np.linspace(1.0, 0.8, 100))
    (_, rare), (_, flat) = (fusion.shares([vector, text], None)[0] for text in (code, common))  # type: ignore[arg-type]
    assert rare.weight > 0.5 > flat.weight
    found = fuse([vector, Ranking("text", np.array([999]), np.array([7.0]))], fusion).ranking
    assert found.rows[0] == 999  # whatever the vectors say


@given(rankings("vector"), rankings("text"), st.dictionaries(st.integers(1, 40), st.integers(0, 3), min_size=1))
def test_a_curve_is_what_fusing_and_measuring_give(vector: Ranking, text: Ranking, grades: dict[int, int]) -> None:
    if not any(grades.values()):
        with pytest.raises(InvalidInput, match="no relevant document"):
            example(vector, text, grades, None)
        return
    found = example(vector, text, grades, None).curve
    ideal = sum(g / math.log2(i + 2) for i, g in enumerate(sorted(grades.values(), reverse=True)[:10]))
    assert ideal_gain(list(grades.values())) == pytest.approx(ideal)
    by_vector = dict(zip(vector.rows.tolist(), scaled(vector.scores, near_deviations)[0].tolist()))
    by_text = dict(zip(text.rows.tolist(), scaled(text.scores, word_deviations)[0].tolist()))
    rows = {*by_vector, *by_text}
    for weight, value in zip(WEIGHTS.tolist(), found):
        sums = {row: (1 - weight) * by_vector.get(row, 0.0) + weight * by_text.get(row, 0.0) for row in rows}
        fused = sorted(rows, key=lambda row: (-sums[row], row))[:10]
        gain = sum(grades.get(row, 0) / math.log2(i + 2) for i, row in enumerate(fused))
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


def told_by(feature: int, count: int, rng: np.random.Generator) -> list[Example]:
    """Queries for which the sign of one feature says which list is right."""
    made = []
    for _ in range(count):
        told = rng.standard_normal(len(NAMES))
        made.append(Example(told, WEIGHTS if told[feature] > 0 else WEIGHTS[::-1]))
    return made


def test_learning_finds_the_feature_that_says_which_list_is_right() -> None:
    rng = np.random.default_rng(0)
    lean = learn([told_by(2, 200, rng), told_by(2, 50, rng)])
    assert lean.slopes[2] > 5 * max(abs(s) for i, s in enumerate(lean.slopes) if i != 2)
    unseen = told_by(2, 100, rng)
    weights = [float(lean.text_weight(e.features)) for e in unseen]
    assert all((w > 0.5) == (e.features[2] > 0) for w, e in zip(weights, unseen) if abs(e.features[2]) > 0.3)
    with pytest.raises(InvalidInput, match="no examples"):
        learn([told_by(2, 2, rng), []])
    with pytest.raises(InvalidInput, match="no examples"):
        learn_on(lean, [])


def test_features_that_nobody_knows_get_no_slope() -> None:
    rng = np.random.default_rng(0)
    unknowing = [Example(np.append(e.features[: len(OWN)], [np.nan] * len(OWN)), e.curve) for e in told_by(1, 100, rng)]
    lean = learn([unknowing])
    assert lean.slopes[len(OWN) :] == (0.0,) * len(OWN)
    assert lean.slopes[1] > 0.5
    assert not any(UNFITTED.slopes[len(OWN) :])


def test_learning_on_moves_the_more_the_more_is_judged() -> None:
    rng = np.random.default_rng(0)
    start = lean_of(0.0)
    few, many = (learn_on(start, told_by(1, count, rng)).slopes[1] for count in (2, 300))
    assert 0 < few < many


def test_harm_counts_more_than_gain(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three collections gain most by even weights, one loses by words less than the three gain: safety is on its side."""
    still = [np.zeros(len(NAMES)) for _ in range(10)]
    gaining = [[Example(f, 0.5 + 0.1 * np.minimum(WEIGHTS, 1 - WEIGHTS)) for f in still] for _ in range(3)]
    groups = [*gaining, [Example(f, 0.5 - 0.2 * WEIGHTS) for f in still]]
    careful = float(learn(groups).text_weight(still[0]))
    monkeypatch.setattr(learning, "_HARM", 0.0)
    careless = float(learn(groups).text_weight(still[0]))
    assert careful < 0.1 < 0.3 < careless
    assert careless < float(learn(groups, [1.0, 1.0, 1.0, 0.0]).text_weight(still[0])) + 1e-9


def test_usual_features_are_drawn_to_those_of_others_where_queries_are_few() -> None:
    others = usual_of(np.zeros((0, len(NAMES))))
    assert others == pytest.approx(LEAN.means[: len(OWN)])
    one, ten, many = (usual_of(np.full((count, len(NAMES)), 1.0)) for count in (1, 10, 10_000))
    assert many == pytest.approx((1.0,) * len(OWN), abs=1e-2)
    assert all(a < b < c < d for a, b, c, d in zip(others, one, ten, many, strict=True))


@given(st.lists(st.tuples(rankings("vector"), rankings("text")), min_size=1, max_size=4), st.booleans())
@settings(max_examples=20, deadline=None)
def test_what_was_fitted_survives_being_kept(pairs: list[tuple[Ranking, Ranking]], is_judged: bool) -> None:
    grades = [{int(row): 1.0 for ranking in pair for row in ranking.rows[:1]} for pair in pairs]
    if is_judged and not any(grades):
        with pytest.raises(InvalidInput, match="judge nothing"):
            fit_lists(pairs, grades)
        return
    fitted = fit_lists(pairs, grades if is_judged else None)
    assert (fitted.lean is not None) == is_judged
    saved = orjson.loads(orjson.dumps(to_json(fitted)))
    assert from_json(saved) == fitted
    assert from_json({**saved, "features": ["other"]}) is None
    assert from_json(None) is None


@pytest.mark.parametrize("usual", [(0.5, 0.5), (0.5, 0.5, 1.5), (0.5, float("nan"), 0.5), (0.5, -0.1, 0.5)])
def test_impossible_usual_features_are_refused(usual: Any) -> None:
    with pytest.raises(InvalidQuery, match="usual of adaptive"):
        Adaptive(usual)


def test_a_lean_of_the_wrong_length_is_refused() -> None:
    with pytest.raises(InvalidQuery, match="slopes"):
        Lean(0.0, (1.0,), (0.0,) * len(NAMES), (1.0,) * len(NAMES))
    with pytest.raises(InvalidQuery, match="bias"):
        lean_of(float("nan"))
