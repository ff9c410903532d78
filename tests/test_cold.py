"""The first answers of a process come from SQLite itself, and are the same as later ones."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import apsw
import numpy as np
import pytest

import vecdb
from vecdb.query.request import SearchOptions

WORDS = ["ant", "bee", "cat", "dog", "elk", "fox", "gnu", "hen"]


@pytest.fixture
def filled(path: Path, rng: np.random.Generator) -> Path:
    with vecdb.open(path, background=False) as db:
        collection = db.collection("c", dimension=12)
        vectors = rng.standard_normal((300, 12)).astype(np.float32)
        texts = [" ".join(rng.choice(WORDS, size=rng.integers(1, 6))) for _ in range(300)]
        collection.add(
            ids=[f"r{i}" for i in range(300)], texts=texts, vectors=vectors, metadata=[{"n": i % 5} for i in range(300)]
        )
        collection.delete([f"r{i}" for i in range(0, 300, 7)])
    return path


QUERIES: list[dict[str, Any]] = [
    {"mode": "vector"},
    {"mode": "vector", "where": {"n": 3}},
    {"mode": "text"},
    {"mode": "text", "where": {"n": {"$in": [1, 2]}}},
    {"mode": "hybrid"},
    {"mode": "hybrid", "where": {"n": 4}, "k": 50},
    {"mode": "hybrid", "fusion": "vstash"},
]


@pytest.mark.parametrize("options", QUERIES, ids=str)
def test_cold_and_warm_answers_are_the_same(filled: Path, rng: np.random.Generator, options: dict[str, Any]) -> None:
    vector = rng.standard_normal(12)
    with vecdb.open(filled, background=False) as db:
        collection = db.collection("c")
        cold = collection.search("bee or fox?", vector=vector, **options)
        assert {report.detail.get("engine") for report in cold.trace if report.stage != "fusion"} <= {"sqlite", "fts5"}
        collection.warm()
        warm = collection.search("bee or fox?", vector=vector, **options)
        assert {report.detail.get("engine") for report in warm.trace if report.stage != "fusion"} <= {"exact", "memory"}
    assert cold.ids == warm.ids
    np.testing.assert_allclose(cold.scores, warm.scores, atol=1e-5)


@pytest.mark.parametrize("language", ["english", "none", "cjk"])
def test_words_are_as_rare_in_the_file_as_in_memory(tmp_path: Path, language: Any) -> None:
    texts = ["the bees' dance, dancing", "a dancer danced", None, "東京都の天気予報", '"quoted" bees-wax', "café"]
    with vecdb.open(tmp_path / "words.vecdb", background=False) as db:
        docs = db.collection("c", text=vecdb.TextConfig(language=language))
        docs.add(ids=[str(i) for i in range(6)], texts=texts, vectors=np.eye(6))
        docs.delete("1")
        retrieval = docs._engine.retrieval
        queries = ["Dancing BEES dance", 'cafe "quoted" AND wax', "天気予報", "", "?!", "zeppelin the"]
        cold = retrieval.evidence(queries, SearchOptions())
        assert {evidence.documents for evidence in cold} == {4}
        assert cold[0].stems or language == "cjk"
        docs.warm()
        assert retrieval.evidence(queries, SearchOptions()) == cold


def test_sqlite_vec_reads_the_stored_vectors(filled: Path, rng: np.random.Generator) -> None:
    sqlite_vec = pytest.importorskip("sqlite_vec")
    query = rng.standard_normal(12).astype(np.float32)
    with vecdb.open(filled, background=False) as db:
        wanted = db.collection("c").search(query, k=5, exact=True)
    connection = apsw.Connection(str(filled))
    connection.enable_load_extension(True)
    connection.load_extension(sqlite_vec.loadable_path())
    found = connection.execute(
        "SELECT id, 1 - vec_distance_cosine(vector, ?) FROM vectors_1 JOIN records_1 USING (row) ORDER BY 2 DESC LIMIT 5",
        (query.tobytes(),),
    ).fetchall()
    assert [id for id, _ in found] == wanted.ids
    np.testing.assert_allclose([score for _, score in found], wanted.scores, atol=1e-5)


def test_expired_records_are_in_no_answer(path: Path) -> None:
    with vecdb.open(path, background=False) as db:
        collection = db.collection("c", dimension=2)
        collection.add(
            [
                {"id": "stays", "text": "ant", "vector": [1, 0], "metadata": {"a": 1}},
                {
                    "id": "goes",
                    "text": "ant",
                    "vector": [1, 0],
                    "metadata": {"a": 1},
                    "expires": timedelta(seconds=0.3),
                },
            ]
        )
        collection.warm()
        assert len(collection) == 2
        time.sleep(0.35)
        for warm in (True, False):
            view = collection if warm else vecdb.open(path, background=False).collection("c")
            assert view.search([1, 0]).ids == ["stays"]
            assert view.search("ant", mode="text").ids == ["stays"]
            assert view.search("ant", vector=[1, 0], where={"a": 1}).ids == ["stays"]
            assert view.get("goes") is None
            assert [r.id for r in view.scan()] == ["stays"]
            assert [r.id for r in view.scan(where={"a": 1})] == ["stays"]
            assert (len(view), view.count({"a": 1}), view.facets("a")) == (1, 1, [(1, 1)])
        assert collection.add([{"id": "goes", "text": "again"}]).added == 1
        assert collection.check() == []


def test_a_first_answer_needs_no_heavy_import(filled: Path) -> None:
    program = f"""
import json, sys
import vecdb
light = sorted(m for m in ("torch", "numba", "pandas", "fastapi", "pyarrow", "onnxruntime") if m in sys.modules)
db = vecdb.open({str(filled)!r}, background=False)
hits = db.collection("c").search("bee", vector=[1.0] * 12, k=3)
heavy = sorted(m for m in ("torch", "numba", "pandas", "fastapi", "pyarrow", "onnxruntime") if m in sys.modules)
print(json.dumps([light, heavy, len(hits)]))
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=filled.parent
    )
    assert json.loads(done.stdout) == [[], [], 3]


def test_background_threads_take_over_by_themselves(filled: Path, rng: np.random.Generator) -> None:
    with vecdb.open(filled) as db:
        collection = db.collection("c")
        vector = rng.standard_normal(12)
        first = collection.search(vector)
        deadline = time.monotonic() + 20
        while (hits := collection.search(vector)).trace[0].detail["engine"] == "sqlite":
            assert time.monotonic() < deadline, "the arrays were never loaded"
            time.sleep(0.02)
        assert hits.ids == first.ids
