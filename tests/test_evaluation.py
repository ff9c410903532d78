"""Measures against values worked out by hand, the bootstrap against a plain loop, the table as text."""

from __future__ import annotations

import dataclasses
import json
import math
import sys
from typing import Any

import numpy as np
import pytest

import vecdb
from vecdb.evaluation import (
    MEASURES,
    BootstrapResult,
    Evaluation,
    Gate,
    compare_evaluations,
    evaluate_run,
    evaluation_from_json,
    paired_bootstrap,
    table,
)

QRELS = {"q1": {"a": 3, "b": 1, "z": 0}, "q2": {"c": 1}}


def evaluation_of(values: list[float], measure: str = "AP") -> Evaluation:
    per_query = {f"q{i}": {measure: value} for i, value in enumerate(values)}
    return Evaluation({measure: float(np.mean(values))}, per_query)


def test_measures_equal_those_worked_out_by_hand() -> None:
    # q1: z (not relevant), b (grade 1), x (not judged), a (grade 3); q2: c at rank 1.
    run = {"q1": [("z", 0.9), ("b", 0.8), ("x", 0.7), ("a", 0.1)], "q2": [("c", 5.0)]}
    found = evaluate_run(run, QRELS, ["nDCG@10", "nDCG@2", "RR@10", "AP", "R@100", "P@2"]).per_query
    gained = 1 / math.log2(3) + 3 / math.log2(5)
    ideal = 3 / math.log2(2) + 1 / math.log2(3)
    assert found["q1"]["nDCG@10"] == pytest.approx(gained / ideal)
    assert found["q1"]["nDCG@2"] == pytest.approx((1 / math.log2(3)) / ideal)
    assert found["q1"]["RR@10"] == pytest.approx(1 / 2)
    assert found["q1"]["AP"] == pytest.approx((1 / 2 + 2 / 4) / 2)
    assert found["q1"]["R@100"] == 1
    assert found["q1"]["P@2"] == pytest.approx(1 / 2)
    assert set(found["q2"].values()) == {1.0, 0.5}  # precision at 2 of one result


def test_a_query_without_results_counts_as_nothing() -> None:
    run: dict[str, list[tuple[str, float]]] = {"q1": [], "q9": [("a", 1.0)]}
    evaluation = evaluate_run({**run, "q2": [("c", 1.0)]}, QRELS)
    assert set(evaluation.per_query) == {"q1", "q2"}
    assert evaluation.per_query["q1"] == dict.fromkeys(MEASURES, 0.0)
    assert evaluation.means == dict.fromkeys(MEASURES, 0.5)
    assert evaluate_run({}, QRELS).means == dict.fromkeys(MEASURES, 0.0)


def test_results_count_in_the_order_of_scores_and_equal_scores_in_the_order_given() -> None:
    qrels = {"q": {"b": 1}}
    assert evaluate_run({"q": [("a", 1.0), ("b", 2.0)]}, qrels, ["RR@10"]).means["RR@10"] == 1
    for results, expected in (([("b", 1.0), ("a", 1.0)], 1), ([("a", 1.0), ("b", 1.0)], 0.5)):
        assert evaluate_run({"q": results}, qrels, ["RR@10"]).means["RR@10"] == expected


def test_cutoffs_cut() -> None:
    run = {"q": [(f"x{i}", 100.0 - i) for i in range(10)] + [("b", 0.0)]}
    found = evaluate_run(run, {"q": {"b": 1}}, ["RR@10", "RR@11", "R@10", "R@11"]).means
    assert found == {"RR@10": 0, "RR@11": pytest.approx(1 / 11), "R@10": 0, "R@11": 1}


@pytest.mark.parametrize("measure", ["", "foo", "nDCG@", "nDCG@x", "P", "R@0", "nDCG@0", "P@2.5", "P@-1", "import os"])
def test_unknown_measures_are_refused_with_examples(measure: str) -> None:
    with pytest.raises(vecdb.InvalidInput, match="such as nDCG@10"):
        evaluate_run({}, QRELS, [measure])


def test_a_measure_that_cannot_be_computed_here_is_refused() -> None:
    with pytest.raises(vecdb.InvalidInput, match="cannot compute RBP"):
        evaluate_run({}, QRELS, ["RBP"])


def test_what_cannot_be_evaluated_is_refused() -> None:
    with pytest.raises(vecdb.InvalidInput, match="qrels is empty"):
        evaluate_run({"q": [("a", 1.0)]}, {})
    with pytest.raises(vecdb.InvalidInput, match="no measure"):
        evaluate_run({}, QRELS, [])
    with pytest.raises(vecdb.InvalidInput, match="'q1' hold a document twice"):
        evaluate_run({"q1": [("a", 1.0), ("a", 0.5)]}, QRELS)


def test_a_missing_ir_measures_names_the_install_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ir_measures", None)
    with pytest.raises(vecdb.MissingExtra, match=r"pip install 'vecdb\[eval\]'"):
        evaluate_run({}, QRELS)


def slow_bootstrap(a: list[float], b: list[float], samples: int, rng: np.random.Generator) -> list[float]:
    """The mean difference of each draw, one query at a time."""
    means = []
    for _ in range(samples):
        drawn = [int(i) for i in rng.integers(len(a), size=len(a))]
        means.append(sum(a[i] - b[i] for i in drawn) / len(a))
    return means


def test_the_bootstrap_agrees_with_a_plain_loop() -> None:
    rng = np.random.default_rng(1)
    a, b = rng.random(40).tolist(), rng.random(40).tolist()
    result = paired_bootstrap(evaluation_of(a), evaluation_of(b), "AP", samples=4000, seed=3)
    means = np.array(slow_bootstrap(a, b, 4000, np.random.default_rng(3)))
    assert result.difference == pytest.approx(np.mean(a) - np.mean(b))
    assert (result.low, result.high) == pytest.approx(np.percentile(means, [2.5, 97.5]))
    extreme = np.abs(means - result.difference) >= abs(result.difference)
    assert result.p_value == pytest.approx((extreme.sum() + 1) / 4001)


def test_a_clear_difference_is_significant_and_none_is_not() -> None:
    rng = np.random.default_rng(0)
    base = rng.random(300)
    noise = rng.normal(0, 0.02, 300)
    better = paired_bootstrap(evaluation_of((base + 0.05 + noise).tolist()), evaluation_of(base.tolist()), "AP")
    assert better.low > 0.04
    assert better.p_value == pytest.approx(1 / 10_001)
    same = paired_bootstrap(evaluation_of(base.tolist()), evaluation_of(base.tolist()), "AP")
    assert same == BootstrapResult(0.0, 0.0, 0.0, 1.0)


def test_by_chance_few_differences_are_called_significant() -> None:
    """Under no difference a p-value below 0.1 should come in about a tenth of cases: of 200, 8 to 36 is 3 sigma."""
    rng = np.random.default_rng(5)
    found = 0
    for seed in range(200):
        a, b = rng.random((2, 60))
        result = paired_bootstrap(evaluation_of(a.tolist()), evaluation_of(b.tolist()), "AP", samples=500, seed=seed)
        found += result.p_value < 0.1
    assert 8 <= found <= 36


def test_the_bootstrap_is_reproducible_and_the_other_way_round_is_its_mirror() -> None:
    rng = np.random.default_rng(2)
    a, b = evaluation_of(rng.random(50).tolist()), evaluation_of(rng.random(50).tolist())
    one, again, mirrored = (paired_bootstrap(*pair, "AP", seed=9) for pair in ((a, b), (a, b), (b, a)))
    assert one == again
    assert (mirrored.difference, mirrored.low, mirrored.high) == pytest.approx((-one.difference, -one.high, -one.low))
    assert mirrored.p_value == one.p_value


@pytest.mark.parametrize(
    ("b", "measure", "options", "reason"),
    [
        (evaluation_of([1.0]), "AP", {}, "different queries"),
        (evaluation_of([1.0, 0.0], "RR"), "AP", {}, "was not measured"),
        (evaluation_of([1.0, 0.0]), "RR", {}, "was not measured"),
        (evaluation_of([1.0, 0.0]), "AP", {"samples": 0}, "samples"),
    ],
)
def test_what_cannot_be_compared_is_refused(b: Evaluation, measure: str, options: Any, reason: str) -> None:
    with pytest.raises(vecdb.InvalidInput, match=reason):
        paired_bootstrap(evaluation_of([0.5, 0.5]), b, measure, **options)


def test_the_table_lines_up_and_marks_the_best() -> None:
    text = Evaluation({"nDCG@10": 0.67, "AP": 0.6}, {})
    hybrid = Evaluation({"nDCG@10": 0.7012345, "AP": 0.6, "P@5": 0.2}, {})
    assert table({"text": text, "hybrid": hybrid}).splitlines() == [
        "        nDCG@10       AP      P@5",
        "text     0.6700   0.6000*       -",
        "hybrid   0.7012*  0.6000*  0.2000*",
    ]
    assert table({"text": text}).splitlines() == ["      nDCG@10       AP", "text   0.6700   0.6000"]
    with pytest.raises(vecdb.InvalidInput, match="no evaluation"):
        table({})


# -- comparing and gates


def test_a_comparison_holds_every_measure_both_have() -> None:
    rng = np.random.default_rng(2)
    values = rng.random(30)
    a, b = evaluation_of(list(values + 0.2)), evaluation_of(list(values))
    found = compare_evaluations(a, b, samples=500)
    assert found.differences == {"AP": paired_bootstrap(a, b, "AP", samples=500)}
    assert found.differences["AP"].difference == pytest.approx(0.2)
    assert "AP: a - b = +0.2000, 95 % interval +0.2000 … +0.2000" in str(found)
    with pytest.raises(vecdb.InvalidInput, match="share no measure: AP and RR@10"):
        compare_evaluations(a, evaluation_of(list(values), "RR@10"))


def test_a_gate_asks_for_a_floor() -> None:
    found = evaluation_of([0.4, 0.6])
    assert Gate({"AP": 0.5}).judged(found)
    failed = Gate({"AP": 0.51}).judged(found)
    assert not failed
    assert [(c.measure, c.value, c.wanted, c.passed) for c in failed.checks] == [("AP", 0.5, 0.51, False)]
    assert str(failed) == "FAIL  AP is 0.5000, at least 0.51\nthe gate is NOT passed"


def test_a_gate_refuses_what_is_worse_than_its_baseline_by_more_than_chance() -> None:
    rng = np.random.default_rng(4)
    before = rng.random(80)
    baseline = evaluation_of(list(before))
    noisy = evaluation_of(list(before + rng.normal(0, 0.05, 80)))
    worse = evaluation_of(list(before - 0.03 + rng.normal(0, 0.05, 80)))
    assert Gate(baseline=baseline).judged(baseline)
    assert Gate(baseline=baseline).judged(noisy)
    assert not Gate(baseline=baseline).judged(worse)
    assert Gate(baseline=baseline, tolerance=0.05).judged(worse)
    assert Gate(baseline=worse).judged(baseline)  # better passes
    assert not Gate({"AP": 0.99}, baseline).judged(baseline)  # every condition must hold


def test_a_baseline_may_be_its_json() -> None:
    baseline = evaluation_of([0.25, 0.75])
    saved = json.loads(json.dumps(dataclasses.asdict(baseline)))
    assert evaluation_from_json(saved) == baseline
    assert Gate(baseline=saved).judged(baseline) == Gate(baseline=baseline).judged(baseline)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "no condition"),
        ({"least": {}}, "no condition"),
        ({"least": {"AP": "high"}}, "the least AP is 'high'"),
        ({"least": {"AP": float("nan")}}, "the least AP is nan"),
        ({"least": {"AP": 0.1}, "tolerance": -1}, "tolerance is -1"),
        ({"baseline": {}}, "the baseline is no evaluation"),
        ({"baseline": {"means": {"AP": 1}, "per_query": {}}}, "lacks measures"),
        ({"baseline": {"means": {"AP": 1}, "per_query": {"q": {"RR": 1}}}}, "lacks measures"),
    ],
    ids=str,
)
def test_gates_that_cannot_be_are_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(vecdb.InvalidInput, match=message):
        Gate(**given)


def test_a_baseline_of_other_queries_is_refused() -> None:
    with pytest.raises(vecdb.InvalidInput, match="different queries"):
        Gate(baseline=evaluation_of([0.5])).judged(evaluation_of([0.5, 0.5]))


def test_a_collection_compares_and_gates(db: vecdb.Database) -> None:
    docs = db.collection("c")
    docs.add(ids=["a", "b", "c"], texts=["bee bee bee bee", "bee and ant", "cat"])
    queries, qrels = {"q1": "bees", "q2": "cat", "unjudged": "x"}, {"q1": {"b": 1}, "q2": {"c": 1}}
    found = docs.compare("text", {"mode": "text", "k": 1}, queries, qrels, measures=("R@10",))
    assert (found.a.means["R@10"], found.b.means["R@10"]) == (1.0, 0.5)
    passed = docs.gate(queries, qrels, min={"R@10": 1.0}, mode="text")
    assert passed
    assert not docs.gate(queries, qrels, min={"R@10": 1.0}, mode="text", where={"x": 1})
    assert docs.gate(queries, qrels, baseline=passed.evaluation)
    with pytest.raises(vecdb.InvalidInput, match="give a mode, the name of a saved query, or options"):
        docs.compare(3, "text", queries, qrels)  # type: ignore[arg-type]
    with pytest.raises(vecdb.InvalidQuery, match="no option 'moode'"):
        docs.compare({"moode": "text"}, "text", queries, qrels)
