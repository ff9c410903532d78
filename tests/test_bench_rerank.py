"""`bench rerank` on small made-up candidates."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parent.parent

if not (ROOT / "bench" / "__main__.py").exists():
    pytest.skip("bench/ is not beside the tests: it is not part of the package", allow_module_level=True)
pytest.importorskip("ir_measures")


@pytest.fixture(autouse=True)
def _bench_is_importable() -> Iterator[None]:
    sys.path.append(str(ROOT))
    yield
    sys.path.remove(str(ROOT))


def test_kernels_are_measured_beside_the_product(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from bench.rerank import kernels, run

    small = kernels.measure
    monkeypatch.setattr(kernels, "measure", lambda: small(20, 10, 32, 4))
    assert run.main(["--parts", "maxsim", "--out", str(tmp_path)]) == 0
    (path,) = tmp_path.glob("rerank-*.jsonl")
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert {"float32", "float16", "int8", "matrix product of the shape", "square matrix product"} <= {
        x["way"] for x in lines
    }
    assert all(line["ms"] > 0 and line["float32_error"] < 1e-4 and line["machine"] for line in lines)
    assert run.main(["--show", str(path), "--markdown"]) == 0


def made_set() -> Any:
    """Three queries, each with one good candidate in the last place, whose states are the query's own."""
    from bench.rerank.heads import Set
    from bench.rerank.states import States
    from bench.retrieval.sets import Lists, QueryLists

    rng = np.random.default_rng(0)
    queries = [rng.standard_normal((4, 384)).astype(np.float16) for _ in range(3)]
    documents = {10 * q + d: rng.standard_normal((6, 384)).astype(np.float16) for q in range(3) for d in range(5)}
    for q in range(3):
        documents[10 * q + 4] = queries[q]
    nothing, none = np.zeros(0, np.int32), np.zeros(0)
    lists = [QueryLists(f"q{q}", "text", nothing, none, nothing, none, (), np.zeros(0, np.int64)) for q in range(3)]
    candidates = [[(10 * q + d, 1.0 / (d + 1)) for d in range(5)] for q in range(3)]
    grades = [{10 * q + 4: 2} for q in range(3)]
    return Set("made", Lists("made", "made", 30, lists, grades), candidates, States(documents, queries))


def test_a_set_is_reranked_by_its_states() -> None:
    from bench.rerank.heads import slates_of_lists

    judged = made_set()
    first = judged.ndcg([found[:10] for found in judged.candidates])
    assert list(first.values()) == pytest.approx([1 / np.log2(6)] * 3)
    assert list(judged.ndcg(judged.reranked(None)).values()) == [1.0] * 3
    (slate, *_) = slates_of_lists(judged)
    assert slate.targets.tolist() == [0, 0, 0, 0, 2]


def test_work_and_differences_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnxruntime")
    from bench.rerank import quality
    from vecdb.rerank.base import Task
    from vecdb.rerank.late_interaction import MaxSim

    judged = made_set()
    encoder = quality._Stored(judged)
    tasks = [Task("q", [quality._candidate(encoder, d, s, None) for d, s in found], 2) for found in judged.candidates]
    orders, work = quality._ordered(MaxSim(alpha=0.0), tasks, encoder)
    assert (work["scored"], [len(order) for order in orders]) == (2.0, [2, 2, 2])
    orders, work = quality._ordered(MaxSim(), tasks, encoder)
    assert [order[0][0] for order in orders] == [4, 14, 24]
    line = quality._line("made", "maxsim", judged.ndcg(orders), judged.ndcg(judged.candidates), work)
    assert line["ndcg"] == 1.0
    assert (
        0 < line["low"] == pytest.approx(line["difference"]) == pytest.approx(line["high"])
    )  # the same for each query


def test_the_engines_fusion_by_ranks_gives_the_hybrid_lists() -> None:
    from bench.rerank.states import fused, hybrid
    from bench.retrieval.sets import Lists, QueryLists
    from vecdb.query.fusion import Rrf

    rng = np.random.default_rng(3)
    near, words = (rng.permutation(40)[:12].astype(np.int32) for _ in range(2))
    falling = np.linspace(2.0, 1.0, 12)
    query = QueryLists("q", "red apple", near, falling, words, falling, ("red", "appl"), np.array([3, 4]))
    lists = Lists("made", "made", 40, [query], [{int(near[0]): 1}])
    (expected,), (found,) = hybrid(lists), fused(lists, Rrf())
    assert dict(found) == pytest.approx(dict(expected))
    assert [score for _, score in found] == sorted(dict(found).values(), reverse=True)
