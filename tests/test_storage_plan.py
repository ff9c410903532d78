"""Plans of storage: what is measured, what is recommended, and that nothing changes before somebody says so."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from test_stored_vectors import filled, made
from typer.testing import CliRunner

import vecdb
from vecdb.cli import app
from vecdb.errors import InvalidInput
from vecdb.storage_plan import StorageChoice, agreement, candidates, ndcg, recommend

CODECS = ["float32", "float8", "int4", "pca:16+int8", "rabitq:1"]


def choice(codec: str, total: int, loss: float) -> StorageChoice:
    return StorageChoice(codec, total, total, 1 - loss, None, loss, 1.0, False)


def test_a_plan_measures_every_codec_and_marks_those_that_none_beats() -> None:
    with vecdb.open(":memory:", background=False) as db:
        docs = filled(db)
        plan = docs.plan_storage(max_loss=0.2, codecs=CODECS, queries=made(3, 40))
        assert [one.codec for one in plan.choices] == [
            c.codec for c in sorted(plan.choices, key=lambda one: -one.total_bytes)
        ]
        assert {one.codec for one in plan.choices} == set(CODECS)
        by_codec = {one.codec: one for one in plan.choices}
        assert by_codec["float32"].loss == 0.0
        assert by_codec["float32"].total_bytes == 600 * 128
        assert by_codec["float8"].total_bytes == 600 * 33
        assert by_codec["pca:16+int8"].total_bytes > 600 * 16  # directions are counted
        for one in plan.choices:
            beaten = any(
                o.total_bytes <= one.total_bytes
                and o.loss <= one.loss
                and (o.total_bytes, o.loss) != (one.total_bytes, one.loss)
                for o in plan.choices
            )
            assert one.is_pareto is not beaten
        assert plan.recommended is not None
        assert plan.recommended.loss <= 0.2
        assert all(o.total_bytes >= plan.recommended.total_bytes for o in plan.choices if o.loss <= 0.2)
        assert (plan.vectors, plan.of_vectors, plan.queries) == (600, 600, 40)
        assert "->" in str(plan)
        assert docs.storage.stored == "float32"  # nothing was changed


def test_recall_is_that_of_a_scan_over_what_codes_stand_for() -> None:
    vectors, queries = made(), made(4, 30)
    with vecdb.open(":memory:", background=False) as db:
        docs = filled(db, vectors=vectors)
        measured = docs.plan_storage(codecs=["int4"], queries=queries).choices[0]
        true = np.argsort(-(queries @ vectors.T), axis=1, kind="stable")[:, :10]
        docs.set_storage("int4")
        found = np.array([[int(hit.id[1:]) for hit in hits] for hits in docs.search(queries, k=10, exact=True)])
        assert agreement(found, true) == pytest.approx(measured.recall, abs=0.02)


def test_judgements_count_where_there_are_some() -> None:
    vectors = made()
    with vecdb.open(":memory:", background=False) as db:
        docs = filled(db, vectors=vectors)
        qrels = {f"q{i}": {f"d{i}": 2, f"d{i + 1}": 1, "absent": 1} for i in range(20)}
        queries = {f"q{i}": vectors[i] for i in range(30)}
        plan = docs.plan_storage(codecs=["float32", "rabitq:1"], queries=queries, qrels=qrels)
        assert plan.queries == 20
        assert plan.choices[0].ndcg is not None
        assert plan.choices[0].ndcg > 0.6
        for one in plan.choices:
            assert one.loss == pytest.approx(plan.choices[0].ndcg - one.ndcg)  # type: ignore[operator]


@pytest.mark.parametrize("budget", [5, 10, 20, 40, 80])
def test_within_a_budget_the_least_loss_is_recommended(budget: int) -> None:
    choices = [
        choice("a", 80, 0.0),
        choice("b", 40, 0.02),
        choice("c", 38, 0.02),
        choice("d", 20, 0.3),
        choice("e", 10, 0.2),
    ]
    best = recommend(choices, budget, None)
    within = [one for one in choices if one.total_bytes <= budget]
    assert best == (min(within, key=lambda one: (one.loss, one.total_bytes)) if within else None)


def test_within_a_loss_the_fewest_bytes_are_recommended() -> None:
    choices = [choice("a", 80, 0.0), choice("b", 40, 0.005), choice("c", 10, 0.2)]
    assert recommend(choices, None, None) == choices[1]
    assert recommend(choices, None, 0.0) == choices[0]
    assert recommend(choices, None, 1.0) == choices[2]
    assert recommend(choices[2:], None, 0.1) is None


def test_ndcg_is_that_of_the_definition() -> None:
    found = np.array([[4, 2, 9], [1, 0, 3]])
    grades = [{2: 3, 9: 1, 7: 2}, {5: 1}]
    ideal = 3 + 2 / np.log2(3) + 1 / 2
    assert ndcg(found, grades) == pytest.approx((3 / np.log2(3) + 1 / 2) / ideal / 2)
    with pytest.raises(InvalidInput, match="relevant"):
        ndcg(found, [{}, {1: 0}])


def test_what_makes_no_plan_is_refused() -> None:
    with vecdb.open(":memory:", background=False) as db:
        docs = filled(db)
        for wrong in (
            {"budget_bytes": 10, "max_loss": 0.1},
            {"budget_bytes": 0},
            {"max_loss": 2.0},
            {"codecs": ["float9"]},
        ):
            with pytest.raises(InvalidInput):
                docs.plan_storage(**wrong)  # type: ignore[arg-type]
        with pytest.raises(InvalidInput, match="mapping"):
            docs.plan_storage(queries=made(1, 3), qrels={"q": {"d1": 1}})
        with pytest.raises(InvalidInput, match="judgements"):
            docs.plan_storage(queries={"a": made(1, 1)[0]}, qrels={"q": {"d1": 1}})
        with pytest.raises(InvalidInput, match="at least"):
            db.collection("few").plan_storage()


def test_candidates_fit_any_dimension() -> None:
    from vecdb.index.codecs import parse

    for dimension in (1, 2, 5, 384):
        for text in candidates(dimension):
            parse(text, dimension)


def test_the_command_is_a_dry_run_unless_told_otherwise(tmp_path: Path) -> None:
    path = tmp_path / "a.vecdb"
    with vecdb.open(path, background=False) as db:
        filled(db)
    run = ["optimize-storage", "--db", str(path), "--codecs", "float32 float8 rabitq:1", "--max-loss", "0.3"]
    result = CliRunner().invoke(app, [*run, "--plot", str(tmp_path / "plan")])
    assert result.exit_code == 0, result.output
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert [line["codec"] for line in lines] == ["float32", "float8", "rabitq:1"]
    assert sum(line["is_recommended"] for line in lines) == 1
    assert (tmp_path / "plan.png").stat().st_size > 1_000
    assert "<svg" in (tmp_path / "plan.svg").read_text()
    with vecdb.open(path, background=False) as db:
        assert db.collection("docs").storage.stored == "float32"
    assert CliRunner().invoke(app, [*run, "--apply", "--plain"]).exit_code == 0
    with vecdb.open(path, background=False) as db:
        assert db.collection("docs").storage.stored == next(line["codec"] for line in lines if line["is_recommended"])
    refused = CliRunner().invoke(
        app, ["optimize-storage", "--db", str(path), "--codecs", "float32", "--budget-mb", "0.001"]
    )
    assert refused.exit_code == 1
    assert "the smallest is float32 with" in refused.stderr
    nowhere = CliRunner().invoke(app, ["optimize-storage", "--db", str(path), "--plot", str(tmp_path / "no" / "plan")])
    assert nowhere.exit_code != 0
    assert "there is no folder" in str(nowhere.exception) + nowhere.output
