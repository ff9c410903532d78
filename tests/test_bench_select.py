"""The measures of `bench select`, computed by hand, and its smallest run."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parent.parent

if not (ROOT / "bench" / "__main__.py").exists():
    pytest.skip("bench/ is not beside the tests: it is not part of the package", allow_module_level=True)


@pytest.fixture(autouse=True)
def _bench_is_importable() -> Iterator[None]:
    sys.path.append(str(ROOT))
    yield
    sys.path.remove(str(ROOT))


FACETS = {1: {"a"}, 2: {"a"}, 3: {"b"}, 4: {"a", "c"}}


def test_measures_are_what_their_papers_say() -> None:
    from bench.select.measures import alpha_ndcg, precision, subtopic_recall

    assert subtopic_recall([1, 2, 9], FACETS, 3) == pytest.approx(1 / 3)
    assert subtopic_recall([4, 3], FACETS, 2) == 1
    assert subtopic_recall([9, 4, 3], FACETS, 1) == 0
    assert precision([1, 9, 3], FACETS, 3) == pytest.approx(2 / 3)
    ideal = 2 + 1 / math.log2(3) + 0.5 / 2  # record 4 (a, c), then 3 (b), then a second a
    assert alpha_ndcg([4, 3, 1], FACETS, 3) == pytest.approx(1)
    assert alpha_ndcg([1, 2, 9], FACETS, 3) == pytest.approx((1 + 0.5 / math.log2(3)) / ideal)
    assert alpha_ndcg([], FACETS, 3) == 0


def test_a_run_writes_a_line_for_each_method(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from bench.select import run, sets

    def made(name: str) -> sets.FacetSet:
        rng = np.random.default_rng(0)
        centres = rng.standard_normal((4, 8))
        vectors = np.repeat(centres, 30, axis=0) + 0.3 * rng.standard_normal((120, 8))
        vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
        facets = {row: {str(row // 30)} for row in range(90)}
        asked = [(centres[0] + centres[1] + centres[2] + rng.standard_normal(8)).astype(np.float32) for _ in range(4)]
        return sets.FacetSet(name, vectors, [sets.Asked(vector, facets, np.arange(100)) for vector in asked])

    monkeypatch.setattr(run, "load_facet_set", made)
    monkeypatch.setattr(run, "GRIDS", {name: grid[:2] for name, grid in run.GRIDS.items()})
    monkeypatch.setattr(run, "_LATENCY_ROUNDS", 2)
    assert run.main(["--sets", "fashion", "--out", str(tmp_path)]) == 0
    (path,) = tmp_path.glob("select-*.jsonl")
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    quality = {line["method"]: line for line in lines if line["part"] == "quality"}
    assert {"topk", "coverage (default)", "coverage (tuned)", "mmr (tuned)", "kcenter (tuned)", "dpp (tuned)"} <= set(
        quality
    )
    assert all(0 <= value <= 1 for line in quality.values() for value in line["means"].values())
    assert len([line for line in lines if line["part"] == "tuning"]) == 2 * len(run.GRIDS)
    assert {line["method"] for line in lines if line["part"] == "latency"} == {
        "topk",
        "coverage",
        "mmr",
        "kcenter",
        "dpp",
    }
    assert run.main(["--show", str(path), "--markdown"]) == 0
