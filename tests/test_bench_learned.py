"""`python -m bench learned` on a small set, and its arithmetic."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from bench.learned import main
from bench.learned.partitions import Cut
from bench.learned.study import at_recall, measured
from bench.vectors import VectorSet

pytest.importorskip("torch")


def test_a_quick_run_measures_every_way(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--quick", "--ways", "neural LSH,balanced k-means,random hyperplanes", "--out", str(tmp_path)]) == 0
    (path,) = tmp_path.glob("learned-*.jsonl")
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    cuts = {line["way"]: line for line in lines if line["part"] == "partition"}
    assert set(cuts) == {"neural LSH", "balanced k-means", "random hyperplanes"}
    for line in cuts.values():
        assert [p["recall"] for p in line["points"]] == sorted(p["recall"] for p in line["points"])
    assert cuts["neural LSH"]["points"][1]["recall"] > cuts["random hyperplanes"]["points"][1]["recall"]
    assert "neural LSH" in capsys.readouterr().out


def test_recall_and_rows_of_a_cut() -> None:
    """Four vectors in two bins; the first query's ten nearest are not there, so two stand for them."""
    truth = np.array([[0, 2] * 5, [3, 3] * 5], np.int32)
    data = VectorSet("x", "l2", np.zeros((4, 2), np.float32), np.zeros((2, 2), np.float32), truth, np.zeros((2, 10)))
    cut = Cut(np.array([0, 0, 0, 1], np.int32), np.array([[1.0, 0.0], [1.0, 2.0]], np.float32), 0.0, 0.0)
    one, two = measured(cut, data)
    assert (one["probes"], one["recall"], one["scanned"]) == (1, 1.0, 0.5)
    assert (two["recall"], two["scanned"], two["scanned_p95"]) == (1.0, 1.0, 1.0)


def test_rows_at_a_recall_are_read_between_points() -> None:
    points = [
        {"recall": 0.8, "scanned": 0.1, "scanned_p95": 0.2},
        {"recall": 1.0, "scanned": 0.3, "scanned_p95": 0.4},
    ]
    assert at_recall(points, 0.9) == pytest.approx({"scanned": 0.2, "scanned_p95": 0.3})
    assert at_recall(points[:1], 0.9) is None
