"""A collection with a learned partition in the place of a graph."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import vecdb
from vecdb import NeuralLshConfig
from vecdb.errors import ConfigMismatch, InvalidInput, MissingExtra

pytest.importorskip("torch")

CONFIG = NeuralLshConfig(bins=20, hidden=32, layers=1, soft_k=10, epochs=8, probes=3)


def points(count: int, seed: int = 0) -> np.ndarray:
    """(count, 12) around 30 centres."""
    random = np.random.default_rng(seed)
    centres = np.random.default_rng(99).standard_normal((30, 12)) * 3
    return (centres[random.integers(0, 30, count)] + random.standard_normal((count, 12))).astype(np.float32)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "learned.vecdb"


def make(path: Path, count: int = 3_000) -> np.ndarray:
    vectors = points(count)
    with vecdb.open(path, background=False) as db:
        docs = db.collection("docs", metric="l2", index=CONFIG)
        docs.add(
            ids=[str(i) for i in range(count)], vectors=vectors, metadata=[{"even": i % 2 == 0} for i in range(count)]
        )
        docs.optimize()
    return vectors


def test_it_is_built_saved_and_opened_again(path: Path) -> None:
    vectors = make(path)
    with vecdb.open(path, background=False) as db:
        docs = db.collection("docs")
        assert docs.config.index == CONFIG
        docs.warm()
        queries = points(50, seed=1)
        exact = docs.search(vector=queries, k=10, exact=True)
        found = docs.search(vector=queries, k=10, target_recall=0.9)
        shares = [len({h.id for h in a} & {h.id for h in b}) / 10 for a, b in zip(exact, found)]
        assert np.mean(shares) > 0.85
        assert found[0].trace[0].detail["engine"] == "neural_lsh"
        assert found[0].estimated_recall is not None
        assert all(docs.search(vector=v, k=1)[0].id == str(i) for i, v in enumerate(vectors[:30]))
        assert docs.check() == []


def test_writes_and_filters_go_on(path: Path) -> None:
    vectors = make(path)
    with vecdb.open(path, background=False) as db:
        docs = db.collection("docs")
        docs.warm()
        docs.add(ids=["new"], vectors=vectors[:1] + 0.01)
        docs.delete(["0"])
        assert docs.search(vector=vectors[0], k=1)[0].id == "new"
        hits = docs.search(vector=vectors[0], k=20, where={"even": False})
        assert len(hits) == 20
        assert all(int(hit.id) % 2 for hit in hits)
        docs.optimize()
        assert docs.search(vector=vectors[0], k=1)[0].id == "new"
        assert docs.check() == []


def test_the_graph_of_near_vectors_is_found_by_searches(path: Path) -> None:
    vectors = make(path, 1_500)
    with vecdb.open(path, background=False) as db:
        docs = db.collection("docs")
        docs.warm()
        hits = docs.search(vector=vectors[3], k=5, graph={"kinds": ["semantic"], "beta": 0.3})
        assert hits[0].id == "3"


def test_its_settings_are_not_tuned(path: Path) -> None:
    make(path, 200)
    with vecdb.open(path, background=False) as db, pytest.raises(InvalidInput, match="learned partition"):
        db.collection("docs").tune()


def test_other_settings_are_refused(path: Path) -> None:
    make(path, 100)
    with vecdb.open(path) as db:
        with pytest.raises(ConfigMismatch):
            db.collection("docs", index=NeuralLshConfig(bins=8))
        with pytest.raises(ConfigMismatch):
            db.collection("docs", index=vecdb.HnswConfig())


def test_without_torch_none_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vecdb.database.find_spec", lambda name: None)
    with vecdb.open(":memory:") as db:
        with pytest.raises(MissingExtra, match=r"vecdb\[learned\]"):
            db.collection("docs", index=CONFIG)
        assert db.collections() == []
