"""A collection whose searches scan codes, in the place of a graph."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import vecdb
from vecdb import CodesConfig
from vecdb.errors import ConfigMismatch, InvalidInput


def points(count: int, seed: int = 0) -> np.ndarray:
    """(count, 24) around 30 centres."""
    random = np.random.default_rng(seed)
    centres = np.random.default_rng(99).standard_normal((30, 24)) * 3
    return (centres[random.integers(0, 30, count)] + random.standard_normal((count, 24))).astype(np.float32)


def test_it_is_built_saved_opened_searched_and_changed(tmp_path: Path) -> None:
    path, vectors = tmp_path / "codes.vecdb", points(3_000)
    with vecdb.open(path, background=False) as db:
        docs = db.collection("docs", metric="l2", index=CodesConfig("rabitq:4"))
        docs.add(ids=[str(i) for i in range(3_000)], vectors=vectors, metadata=[{"n": i} for i in range(3_000)])
        docs.optimize()
    with vecdb.open(path, background=False) as db:
        docs = db.collection("docs")
        assert docs.config.index == CodesConfig("rabitq:4")
        docs.warm()
        queries = points(40, seed=1)
        exact = docs.search(vector=queries, k=10, exact=True)
        found = docs.search(vector=queries, k=10, target_recall=0.95)
        assert np.mean([len({h.id for h in a} & {h.id for h in b}) / 10 for a, b in zip(exact, found)]) > 0.93
        assert found[0].trace[0].detail["engine"] == "codes"
        assert found[0].estimated_recall >= 0.95
        hits = docs.search(vector=vectors[5], k=20, where={"n": {"$lt": 1_000}})
        assert len(hits) == 20
        docs.delete(["5"])
        docs.add(ids=["new"], vectors=vectors[5:6])
        assert docs.search(vector=vectors[5], k=1)[0].id == "new"
        docs.optimize()
        assert docs.search(vector=vectors[5], k=1)[0].id == "new"
        assert docs.check() == []
        assert (docs.stats().storage, docs.stats().index) == ("float32", "codes rabitq:4")
        docs.set_storage("int8")
        docs.optimize()
        assert docs.stats().storage == "int8"
        assert docs.search(vector=vectors[7], k=1)[0].id == "7"
        with pytest.raises(InvalidInput, match="a scan of codes"):
            docs.tune()
        with pytest.raises(ConfigMismatch):
            db.collection("docs", index=CodesConfig("int8"))


def test_a_codec_that_does_not_fit_the_dimension_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    with vecdb.open(tmp_path / "codes.vecdb") as db:
        with pytest.raises(InvalidInput, match="pq:48"):
            db.collection("docs", dimension=24, index=CodesConfig("pq:48"))
        assert db.collections() == []
