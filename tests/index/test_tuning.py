"""What tuning says of settings must be what an index with these settings does."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from tests.index.conftest import RealVectors
from tests.index_measures import recall
from vecdb.errors import DimensionMismatch, InvalidInput, InvalidQuery, InvalidVector
from vecdb.index import HnswConfig, HnswIndex, exact_search
from vecdb.index import tuning as tuning_module
from vecdb.index.tuning import EF_CONSTRUCTION_STEPS, M_STEPS, Trial, Tuning, best_of_each, recheck, tune

LONG = 1_000.0  # seconds: never the reason to stop


@pytest.fixture(scope="module")
def tuned(real: RealVectors) -> Tuning:
    return tune(real.base, "cosine", sample=2000, target_recall=0.97, budget_s=LONG)


@pytest.fixture(scope="module")
def rebuilt(real: RealVectors, tuned: Tuning) -> HnswIndex:
    return HnswIndex.build(real.base, "cosine", tuned.config)


def without_times(tuning: Tuning) -> Any:
    def bare(trials: tuple[Trial, ...]) -> list[Trial]:
        return [replace(trial, microseconds=0.0, build_s=None) for trial in trials]

    return replace(tuning, trials=bare(tuning.trials), rechecks=bare(tuning.rechecks))  # type: ignore[arg-type]


def test_the_target_is_reached_by_an_index_that_is_built_so(real: RealVectors) -> None:
    tuning = tune(real.base, "cosine", target_recall=0.97, queries=real.queries, budget_s=LONG)
    assert (tuning.is_reached, tuning.is_complete, tuning.sample, tuning.queries) == (True, True, 4000, 300)
    index = HnswIndex.build(real.base, "cosine", tuning.config)
    found = index.search(real.queries, 10)
    assert recall(found.positions, real.neighbours[:, :10].astype(np.int64)) == pytest.approx(tuning.recall, abs=1e-3)
    assert tuning.recall >= 0.97
    chosen = next(t for t in tuning.trials if (t.M, t.ef_construction, t.ef) == settings(tuning))
    assert chosen.work == pytest.approx(found.work.mean(), rel=0.01)  # finding each vector by itself at another ef
    assert chosen.bytes_per_vector == sum(a.nbytes for a in index.arrays().values()) / 4000


def settings(tuning: Tuning) -> tuple[int, int, int]:
    return tuning.config.M, tuning.config.ef_construction, tuning.config.ef


def test_held_out_vectors_are_not_in_the_graph(tuned: Tuning) -> None:
    assert (tuned.sample, tuned.queries) == (1800, 200)
    assert tuned.own_recall > tuned.recall  # stored vectors are found more easily


def test_the_curve_rises_with_ef(tuned: Tuning) -> None:
    for best in best_of_each(tuned.trials, 0.97):
        of_build = [t for t in tuned.trials if (t.M, t.ef_construction) == (best.M, best.ef_construction)]
        of_build.sort(key=lambda trial: trial.ef)
        assert all(a.work < b.work for a, b in pairwise(of_build))
        assert all(a.recall <= b.recall + 0.005 for a, b in pairwise(of_build))
        assert all(t.recall_p5 <= t.recall for t in of_build)


def test_the_smallest_ef_is_found(tuned: Tuning) -> None:
    for best in best_of_each(tuned.trials, 0.97):
        below = [
            t.ef for t in tuned.trials if (t.M, t.ef_construction) == (best.M, best.ef_construction) and t.recall < 0.97
        ]
        assert best.ef - max(below, default=best.ef) <= max(1, best.ef // 32)


def test_nothing_that_was_measured_is_much_cheaper_and_ties_go_to_the_smaller(tuned: Tuning) -> None:
    reached = [trial for trial in tuned.trials if trial.recall >= 0.97]
    chosen = next(t for t in reached if (t.M, t.ef_construction, t.ef) == settings(tuned))
    assert chosen.work <= 1.03 * min(trial.work for trial in reached)
    assert all(t.M >= chosen.M for t in reached if t.work < chosen.work)
    tried = {(t.M, t.ef_construction) for t in tuned.trials}
    assert tried < {(m, width) for m in M_STEPS for width in EF_CONSTRUCTION_STEPS}  # never the whole grid


def test_the_same_seed_gives_the_same_answer(real: RealVectors) -> None:
    first, second, other = (
        tune(real.base, "l2", sample=800, target_recall=0.9, budget_s=LONG, seed=seed) for seed in (3, 3, 4)
    )
    assert without_times(first) == without_times(second)
    assert without_times(first).trials != without_times(other).trials


def test_a_target_that_cannot_be_reached_is_not_said_to_be(real: RealVectors, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tuning_module, "_WIDEST", 10)
    tuning = tune(real.base, "cosine", sample=1000, target_recall=1.0, budget_s=LONG)
    assert (tuning.is_reached, tuning.is_complete) == (False, True)
    assert tuning.recall == max(trial.recall for trial in tuning.trials) < 1.0
    assert {(t.M, t.ef_construction) for t in tuning.trials} >= {(16, 200), (24, 200)}  # it looked for richer graphs
    assert "NOT reached" in str(tuning)


def test_a_budget_that_is_too_short_is_told(real: RealVectors) -> None:
    told: list[Trial] = []
    tuning = tune(real.base, "cosine", sample=500, budget_s=0.001, progress=told.append)
    assert not tuning.is_complete
    assert "budget of 0.001 s" in str(tuning)
    assert tuple(told) == tuning.trials
    assert len({(trial.M, trial.ef_construction) for trial in told}) == 1  # the first graph is always built


def test_bytes_are_kept_to(real: RealVectors) -> None:
    free = tune(real.base, "cosine", target_recall=0.95, sample=600, budget_s=LONG, config=HnswConfig(M=32))
    most = 1.001 * min(trial.bytes_per_vector for trial in free.trials if trial.M == 32) - 8 * 16
    kept = tune(
        real.base,
        "cosine",
        target_recall=0.95,
        sample=600,
        budget_s=LONG,
        config=HnswConfig(M=32),
        bytes_per_vector=most,
    )
    chosen = next(t for t in kept.trials if (t.M, t.ef_construction, t.ef) == settings(kept))
    assert chosen.bytes_per_vector <= most
    assert kept.is_reached
    assert kept.trials[0].M == 32  # the first says what a graph takes
    none = tune(real.base, "cosine", sample=500, budget_s=LONG, bytes_per_vector=10)
    assert not none.is_reached
    assert {trial.M for trial in none.trials} == {16}


def test_the_other_settings_stay(real: RealVectors) -> None:
    own = HnswConfig(M=10, ef_construction=90, ef=5, seed=9, order="given")
    tuning = tune(real.base, "cosine", sample=500, target_recall=0.8, config=own, budget_s=LONG)
    assert (tuning.config.seed, tuning.config.order) == (9, "given")
    assert (tuning.trials[0].M, tuning.trials[0].ef_construction) == (8, 100)


def test_equal_vectors_are_equally_good_answers() -> None:
    vectors = np.repeat(np.random.default_rng(2).standard_normal((300, 8)).astype(np.float32), 3, axis=0)
    tuning = tune(vectors, "l2", k=1, target_recall=0.99, budget_s=0.001)
    assert tuning.is_reached  # either of two copies is the nearest


@pytest.mark.parametrize("metric", ["cosine", "l2", "ip"])
def test_small_sets_can_be_tuned(metric: str, rng: np.random.Generator) -> None:
    vectors = rng.standard_normal((40, 6)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    for count in (2, 3, 40):
        tuning = tune(vectors[:count], metric, target_recall=0.9, budget_s=0.001)
        assert tuning.is_reached
        index = HnswIndex.build(vectors[:count], metric, tuning.config)
        assert recheck(index, tuning).vectors == count


def test_ef_is_measured_again_on_the_whole(real: RealVectors, tuned: Tuning, rebuilt: HnswIndex) -> None:
    again = recheck(rebuilt, tuned, queries=real.queries, build_s=1.5)
    assert (again.vectors, again.with_queries, again.is_reached) == (4000, True, True)
    assert {trial.build_s for trial in again.rechecks} == {1.5}
    found = rebuilt.search(real.queries, 10, ef=again.config.ef)
    assert recall(found.positions, real.neighbours[:, :10].astype(np.int64)) == pytest.approx(again.recall, abs=1e-3)
    assert again.recall >= 0.97
    assert again.trials == tuned.trials


def test_stored_vectors_stand_in_for_queries(real: RealVectors, tuned: Tuning, rebuilt: HnswIndex) -> None:
    again = recheck(rebuilt, tuned)
    assert (again.with_queries, again.is_reached, again.recall) == (False, True, tuned.recall)
    assert min(t.recall for t in again.rechecks if t.ef >= again.config.ef) >= tuned.own_recall - 0.005
    found = rebuilt.search(real.queries, 10, ef=again.config.ef)
    # claims ask here, other texts than the abstracts that are stored: a bound, not the target
    assert recall(found.positions, real.neighbours[:, :10].astype(np.int64)) >= 0.93


def test_removed_vectors_are_neither_asked_nor_found(real: RealVectors, tuned: Tuning, rebuilt: HnswIndex) -> None:
    index = rebuilt.copy()
    index.remove(np.arange(0, 4000, 2))
    again = recheck(index, tuned, queries=real.queries)
    assert again.vectors == 2000
    true = exact_search(index.vectors, real.queries, 10, "cosine", index.live)
    found = index.search(real.queries, 10, ef=again.config.ef)
    assert recall(found.positions, true.positions) == pytest.approx(again.recall, abs=1e-3)


def test_a_graph_of_other_settings_is_refused(tuned: Tuning) -> None:
    index = HnswIndex.build(np.eye(8, dtype=np.float32), "l2", HnswConfig(M=5))
    with pytest.raises(InvalidInput, match="was not built as the tuning says"):
        recheck(index, tuned)
    with pytest.raises(InvalidInput, match="empty"):
        recheck(HnswIndex(8, "l2", tuned.config), tuned)


def test_a_tuning_survives_json(real: RealVectors, tuned: Tuning, rebuilt: HnswIndex) -> None:
    again = recheck(rebuilt, tuned)
    assert Tuning.from_json(json.loads(json.dumps(asdict(again)))) == again


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        ({"target_recall": 0.0}, InvalidInput),
        ({"target_recall": 1.01}, InvalidInput),
        ({"target_recall": float("nan")}, InvalidInput),
        ({"k": 0}, InvalidQuery),
        ({"sample": 1}, InvalidInput),
        ({"budget_s": 0}, InvalidInput),
        ({"budget_s": float("inf")}, InvalidInput),
        ({"bytes_per_vector": -1}, InvalidInput),
        ({"queries": np.zeros((0, 4))}, InvalidInput),
        ({"queries": np.zeros((2, 5))}, DimensionMismatch),
        ({"queries": np.zeros(4)}, InvalidQuery),
        ({"metric": "hamming"}, InvalidInput),
        ({"vectors": np.ones((1, 4))}, InvalidInput),
        ({"vectors": np.ones(4)}, InvalidVector),
        ({"vectors": 3.0}, InvalidVector),
    ],
    ids=str,
)
def test_bad_input_is_refused(wrong: dict[str, Any], error: type[Exception]) -> None:
    arguments: dict[str, Any] = {"vectors": np.eye(4), "metric": "l2", **wrong}
    with pytest.raises(error):
        tune(arguments.pop("vectors"), arguments.pop("metric"), **arguments)
