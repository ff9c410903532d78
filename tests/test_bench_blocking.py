"""`python -m bench learned blocking` on two made-up shops, and its arithmetic."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from blocking.products import encoder, shops

from bench.learned import blocking, blocking_run, er_sets
from bench.learned.er_sets import FOLDS, ErSet, cut, roles
from vecdb.blocking import HashConfig
from vecdb.blocking.learn import matches_of

pytest.importorskip("torch")


def made() -> ErSet:
    a, b, pairs = shops(100, alone=10)
    return cut("shops", a, b, matches_of(a, b, pairs), 0)


def test_parts_are_apart_by_entity_and_each_is_tested_once() -> None:
    data = made()
    tested = []
    for fold in range(FOLDS):
        learning, valid, test = roles(fold)
        assert sorted([*learning, valid, test]) == list(range(FOLDS))
        matches = data.matches_in(test)
        assert set(matches.left.tolist()) <= set(data.records_in(test)[0].tolist())
        assert set(matches.right.tolist()) <= set(data.records_in(test)[1].tolist())
        tested += matches.left.tolist()
    assert sorted(tested) == sorted(data.matches.left.tolist())
    assert sum(len(data.records_in(part)[0]) for part in range(FOLDS)) == len(data.a)


def test_a_run_measures_ways_beside_each_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    data = made()
    vectors = tuple(encoder().encode(texts) for texts in data.texts())
    monkeypatch.setattr(blocking_run, "load_er", lambda name, seed: data)
    monkeypatch.setattr(blocking, "frozen_vectors", lambda data: vectors)
    monkeypatch.setattr(blocking_run, "HashConfig", lambda **_: HashConfig(dimension=8, epochs=1))
    monkeypatch.setattr(er_sets, "CACHE", tmp_path / "cache")
    chosen = ["blocker", "frozen encoder", "encoder trained alone"]  # the last has no encoder and is passed over
    assert blocking_run.main(["--sets", "abt-buy", "--ways", ";".join(chosen), "--out", str(tmp_path)]) == 0
    (path,) = tmp_path.glob("blocking-*.jsonl")
    lines: dict[str, Any] = {line["way"]: line for line in map(json.loads, path.read_text().splitlines())}
    assert list(lines) == chosen[:2]
    for line in lines.values():
        assert line["folds"] == FOLDS
        for side in line["by_k"].values():
            assert [point["recall"] for point in side] == sorted(point["recall"] for point in side)
        for curve in line["curves"].values():
            assert all(0 <= point["recall"] <= 1 and 0 < point["ratio"] <= 1 for point in curve)
        assert sum(line["loss_check"]["near"]) == pytest.approx(1)
    assert lines["blocker"]["ratio_at_wanted"]["k"] < lines["frozen encoder"]["ratio_at_wanted"]["k"]
    assert "blocker" in capsys.readouterr().out


def test_ratio_and_f1_are_read_where_they_are_asked_for() -> None:
    curve = [{"recall": 0.9, "ratio": 0.1}, {"recall": 1.0, "ratio": 0.3}, {"recall": 0.5, "ratio": 0.01}]
    assert blocking.ratio_at(curve, 0.95) == pytest.approx(0.2)
    assert blocking.ratio_at(curve[2:], 0.95) is None
    assert blocking.ratio_at(curve, 0.2) == 0.01
    ranks = {"a": np.array([1, 1, 2, 9]), "b": np.array([1, 1, 1, 2])}
    found = blocking.f1_at(ranks, {"a": 4, "b": 4}, 0.75)  # a needs k = 2, of which 3 of 8 are right; b 3 of 4 at k = 1
    assert found == {"f1": pytest.approx(0.75), "recall": 0.75, "precision": 0.75, "k": 1, "side": "b"}


def test_minhash_curves_grow() -> None:
    pytest.importorskip("datasketch")
    from bench.learned.minhash import study_minhash

    found = study_minhash(made(), 0.95)
    points = found["curves"]["threshold"]
    assert [point["recall"] for point in points] == sorted(point["recall"] for point in points)
    assert points[-1]["recall"] > 0.5
