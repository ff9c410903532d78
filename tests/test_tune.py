"""Tuning a collection: measured, kept, applied by the next merge, and stale when the collection has become another one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import vecdb
from tests.word_embedder import WordEmbedder
from vecdb.collection import Collection
from vecdb.errors import InvalidInput, InvalidQuery, ReadOnly
from vecdb.index.base import HnswConfig, VectorIndex
from vecdb.judged import shipped_data

SHORT = 0.001  # seconds: only the first graph is built


@pytest.fixture(scope="module")
def embeddings() -> NDArray[np.float32]:
    """(1000, 384) embeddings of abstracts."""
    with np.load(shipped_data() / "embeddings" / "scifact-minilm-4k.npz") as saved:
        return saved["base"][:1000].astype(np.float32)


@pytest.fixture
def docs(db: vecdb.Database, embeddings: NDArray[np.float32]) -> Collection:
    return filled(db, embeddings)


def filled(db: vecdb.Database, vectors: NDArray[np.float32], index: HnswConfig | None = None) -> Collection:
    docs = db.collection("docs", index=index)
    docs.add(ids=[f"d{i}" for i in range(len(vectors))], vectors=vectors)
    return docs


def graph(docs: Collection) -> VectorIndex:
    view = docs._memory.current("vectors").vectors
    assert view is not None
    assert view.index is not None
    return view.index


def config_of(docs: Collection) -> HnswConfig:
    return graph(docs).config  # type: ignore[attr-defined,no-any-return]


def test_nothing_was_tuned_at_first(docs: Collection) -> None:
    assert docs.tuning is None


def test_what_was_measured_is_kept(path: Path, embeddings: NDArray[np.float32]) -> None:
    with vecdb.open(path, background=False) as db:
        tuning = filled(db, embeddings).tune(0.9, budget_s=SHORT)
        assert (tuning.is_reached, tuning.is_applied, tuning.records, tuning.is_stale) == (True, False, 1000, False)
        assert db.collection("docs").config.index == HnswConfig()
    with vecdb.open(path, read_only=True) as db:
        assert db.collection("docs").tuning == tuning


def test_an_applied_tuning_is_how_the_next_merge_builds(path: Path, embeddings: NDArray[np.float32]) -> None:
    with vecdb.open(path, background=False) as db:
        docs = filled(db, embeddings, HnswConfig(M=24, ef_construction=400, seed=3))
        docs.optimize()
        tuning = docs.tune(0.9, budget_s=1_000, apply=True)
        assert tuning.is_applied
        assert (tuning.vectors, tuning.config.seed) == (None, 3)  # the graph that there is, is another one
        assert (tuning.config.M, tuning.config.ef_construction) != (24, 400)
        assert docs.config.index == tuning.config
        assert config_of(docs).M == 24  # until the merge
        docs.optimize()
        checked = docs.tuning
        assert checked is not None
        assert (checked.vectors, checked.is_reached, len(checked.rechecks) > 0) == (1000, True, True)
        assert config_of(docs) == docs.config.index == checked.config
        assert replace(checked.config, ef=0 + tuning.config.ef) == tuning.config
        assert docs.check() == []
        epoch = docs._memory.newest().vectors.epoch  # type: ignore[union-attr]
        docs.optimize()  # nothing is left to do
        assert docs._memory.newest().vectors.epoch == epoch  # type: ignore[union-attr]
    with vecdb.open(path, background=False) as db:
        docs = db.collection("docs")
        docs.warm()
        assert config_of(docs) == docs.config.index == checked.config
        with pytest.raises(vecdb.ConfigMismatch, match="index is"):
            db.collection("docs", index=HnswConfig(M=24, ef_construction=400, seed=3))


def test_a_graph_that_is_right_already_is_not_built_again(docs: Collection) -> None:
    docs.optimize()
    links = graph(docs).arrays()["base"].copy()
    tuning = docs.tune(0.9, budget_s=SHORT, apply=True)  # in no time nothing else is found
    assert (tuning.config.M, tuning.config.ef_construction, tuning.vectors) == (16, 200, 1000)
    assert tuning.config.ef < 64
    docs.optimize()
    assert config_of(docs) == tuning.config == docs.config.index
    assert docs.check() == []
    # where every vector finds itself in the narrower beam too, not a link has changed; elsewhere a few are added
    assert np.mean(graph(docs).arrays()["base"] == links) > 0.99
    assert all(docs.search(record.vector, k=1).ids == [record.id] for record in docs.scan(vectors=True).records)


def test_another_handle_s_settings_are_followed(path: Path, embeddings: NDArray[np.float32]) -> None:
    with vecdb.open(path, background=False) as db, vecdb.open(path, background=False) as other:
        docs = filled(db, embeddings)
        theirs = other.collection("docs")
        docs.optimize()
        theirs.warm()
        docs.tune(0.9, budget_s=1_000, apply=True)
        theirs.add(ids=["new"], vectors=embeddings[:1] + 1)
        theirs.optimize()
        assert docs.count() == 1001
        assert theirs.config.index == docs.config.index == config_of(theirs)
        assert theirs.tuning == docs.tuning


def test_a_background_thread_builds_it_too(path: Path, embeddings: NDArray[np.float32]) -> None:
    with vecdb.open(path, background=False) as db:
        docs = filled(db, embeddings, HnswConfig(M=5, ef_construction=20))
        docs.optimize()
    with vecdb.open(path) as db:
        docs = db.collection("docs")
        tuning = docs.tune(0.9, budget_s=SHORT, apply=True)
        assert tuning.is_applied
        with docs._indexing._merging:
            pass
        docs._indexing.merge(threads=1)  # or the thread was quicker
        assert config_of(docs).M == tuning.config.M


def test_a_target_that_is_not_reached_is_not_applied(docs: Collection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vecdb.index.tuning._WIDEST", 10)
    tuning = docs.tune(1.0, budget_s=SHORT, apply=True)
    assert (tuning.is_reached, tuning.is_applied) == (False, False)
    assert docs.config.index == HnswConfig()
    assert docs.tuning == tuning


@pytest.mark.parametrize(
    ("change", "changed"),
    [
        (lambda docs, v: docs.add(ids=[f"n{i}" for i in range(251)], vectors=v[:251] + 1), 251),
        (lambda docs, v: docs.delete([f"d{i}" for i in range(251)]), 251),
        (lambda docs, v: docs.upsert(ids=[f"d{i}" for i in range(126)], vectors=v[:126] + 1), 252),
    ],
    ids=["grown", "shrunk", "changed"],
)
def test_a_tuning_gets_stale(
    docs: Collection, embeddings: NDArray[np.float32], change: Callable[[Any, Any], None], changed: int
) -> None:
    docs.tune(0.9, budget_s=SHORT)
    docs.add(ids=["one"], vectors=embeddings[:1])
    docs.delete("one")
    docs.update(ids=["d999"], metadata=[{"a": 1}])
    assert docs.tuning.changed == 2  # type: ignore[union-attr]
    assert not docs.tuning.is_stale  # type: ignore[union-attr]
    change(docs, embeddings)
    assert docs.tuning.changed == changed + 2  # type: ignore[union-attr]
    assert docs.tuning.is_stale  # type: ignore[union-attr]


def test_vectors_in_index_and_tail_are_measured(docs: Collection, embeddings: NDArray[np.float32]) -> None:
    docs.optimize()
    docs.delete([f"d{i}" for i in range(100)])
    docs.add(ids=[f"n{i}" for i in range(200)], vectors=embeddings[:200] + 1)
    tuning = docs.tune(0.9, budget_s=SHORT, queries=embeddings[:50])
    assert (tuning.records, tuning.sample, tuning.queries) == (1100, 1100, 50)


def test_queries_may_be_texts_or_vectors(db: vecdb.Database) -> None:
    docs = db.collection("words", embed=WordEmbedder())
    docs.add(ids=[f"d{i}" for i in range(60)], texts=[f"wing {i} of aircraft {i * i}" for i in range(60)])
    by_text = docs.tune(0.9, budget_s=SHORT, queries=["wing 3", "aircraft 16"])
    vectors = docs.embedder.embed_queries(["wing 3", "aircraft 16"])  # type: ignore[union-attr]
    by_vector = docs.tune(0.9, budget_s=SHORT, queries=vectors)
    assert (by_text.queries, by_text.sample) == (2, 60)
    assert [t.recall for t in by_text.trials] == [t.recall for t in by_vector.trials]


def test_a_read_only_file_is_measured_but_not_changed(path: Path, embeddings: NDArray[np.float32]) -> None:
    with vecdb.open(path, background=False) as db:
        filled(db, embeddings)
    with vecdb.open(path, read_only=True) as db:
        docs = db.collection("docs")
        assert docs.tune(0.9, budget_s=SHORT).is_reached
        assert docs.tuning is None
        with pytest.raises(ReadOnly):
            docs.tune(0.9, apply=True)


def test_bad_input_is_refused(docs: Collection, db: vecdb.Database) -> None:
    with pytest.raises(InvalidInput, match="target_recall is 95"):
        docs.tune(95)
    with pytest.raises(InvalidQuery, match="k is 0"):
        docs.tune(k=0)
    with pytest.raises(InvalidInput, match="budget_s is 0"):
        docs.tune(budget_s=0)
    with pytest.raises(vecdb.DimensionMismatch):
        docs.tune(queries=[[1.0, 2.0]])
    with pytest.raises(InvalidQuery, match="empty"):
        docs.tune(queries=np.zeros((0, 384)))
    with pytest.raises(InvalidInput, match="has no vectors to tune for"):
        db.collection("empty").tune()
    assert docs.tuning is None
