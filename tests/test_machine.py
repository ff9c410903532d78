"""A collection as a state machine: any sequence of writes, merges and reopenings against a plain dictionary."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

import vecdb

IDS = [f"r{i}" for i in range(12)]
WORDS = ["ant", "bee", "cat", "dog"]
DIMENSION = 4
# Few distinct values make ties and duplicates likely; no zero vector.
components = st.sampled_from([-1.0, 0.5, 1.0, 2.0])
vectors = st.lists(components, min_size=DIMENSION, max_size=DIMENSION)
texts = st.one_of(st.none(), st.lists(st.sampled_from(WORDS), min_size=1, max_size=4).map(" ".join))
metadata = st.dictionaries(st.sampled_from(["a", "b"]), st.sampled_from([0, 1, True, "1", None]), max_size=2)


@st.composite
def records(draw: st.DrawFn) -> list[dict[str, Any]]:
    ids = draw(st.lists(st.sampled_from(IDS), unique=True, min_size=1, max_size=6))
    return [
        {"id": id, "text": draw(texts), "vector": draw(st.one_of(st.none(), vectors)), "metadata": draw(metadata)}
        for id in ids
    ]


class Library(RuleBasedStateMachine):
    """model: id -> record as it was written."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.path = self.folder / "m.vecdb"
        self.model: dict[str, dict[str, Any]] = {}
        self.db: vecdb.Database | None = None

    @initialize(metric=st.sampled_from(["cosine", "l2", "ip"]))
    def make(self, metric: Any) -> None:
        self.metric = metric
        self.reopen()

    @rule()
    def reopen(self) -> None:
        if self.db is not None:
            self.db.close()
        self.db = vecdb.open(self.path, background=False, durability="relaxed")
        self.collection = self.db.collection("c", dimension=DIMENSION, metric=self.metric)

    @rule(batch=records())
    def add(self, batch: list[dict[str, Any]]) -> None:
        if any(record["id"] in self.model for record in batch):
            try:
                self.collection.add(batch)
            except vecdb.DuplicateId:
                return
            raise AssertionError("an id that exists was added")
        self.collection.add(batch)
        self.model |= {record["id"]: record for record in batch}

    @rule(batch=records())
    def upsert(self, batch: list[dict[str, Any]]) -> None:
        result = self.collection.upsert(batch)
        known = sum(record["id"] in self.model for record in batch)
        assert result.added == len(batch) - known
        assert result.updated + result.unchanged == known
        self.model |= {record["id"]: record for record in batch}

    @rule(batch=records(), field=st.sampled_from(["text", "metadata", "vector"]))
    def update(self, batch: list[dict[str, Any]], field: str) -> None:
        changes = [{"id": r["id"], field: r[field]} for r in batch if r["id"] in self.model]
        if not changes:
            return
        self.collection.update(changes)
        for change in changes:
            record = self.model[change["id"]] = dict(self.model[change["id"]])
            if field == "metadata":
                record["metadata"] = {**record["metadata"], **change["metadata"]}
            elif field == "text" or change["vector"] is not None:
                record[field] = change[field]

    @rule(ids=st.lists(st.sampled_from(IDS), unique=True, min_size=1))
    def delete(self, ids: list[str]) -> None:
        assert self.collection.delete(ids) == sum(id in self.model for id in ids)
        for id in ids:
            self.model.pop(id, None)

    @rule(value=st.sampled_from([0, 1, True, "1"]))
    def delete_where(self, value: Any) -> None:
        gone = [
            i
            for i, r in self.model.items()
            if r["metadata"].get("a") == value and type(r["metadata"]["a"]) is type(value)
        ]
        assert self.collection.delete(where={"a": value}) == len(gone)
        for id in gone:
            del self.model[id]

    @rule()
    def merge(self) -> None:
        self.collection.optimize()

    @rule()
    def warm(self) -> None:
        self.collection.warm()

    @rule(query=vectors, k=st.integers(1, 15), exact=st.booleans())
    def search_by_vector(self, query: list[float], k: int, exact: bool) -> None:
        hits = self.collection.search(query, k=k, exact=exact)
        having = {id: self.similarity(query, r["vector"]) for id, r in self.model.items() if r["vector"] is not None}
        best = sorted(having.values(), reverse=True)[:k]
        np.testing.assert_allclose(hits.scores, best, atol=1e-5)  # ids may differ among ties, scores not
        for hit in hits:
            np.testing.assert_allclose(hit.score, having[hit.id], atol=1e-5)

    @rule(query=vectors, value=st.sampled_from([0, 1, True, "1", None]))
    def search_with_filter(self, query: list[float], value: Any) -> None:
        hits = self.collection.search(query, k=20, where={"a": value})
        wanted = {
            id
            for id, r in self.model.items()
            if r["vector"] is not None
            and "a" in r["metadata"]
            and r["metadata"]["a"] == value
            and type(r["metadata"]["a"]) is type(value)
        }
        assert set(hits.ids) == wanted

    @rule(words=st.lists(st.sampled_from(WORDS), min_size=1, max_size=3, unique=True))
    def search_by_words(self, words: list[str]) -> None:
        hits = self.collection.search(" ".join(words), k=20, mode="text")
        assert set(hits.ids) == {
            id for id, r in self.model.items() if r["text"] and set(words) & set(r["text"].split())
        }

    @invariant()
    def everything_written_is_there(self) -> None:
        if self.db is None:
            return
        assert len(self.collection) == len(self.model)
        stored = {record.id: record for record in self.collection.scan(vectors=True)}
        assert stored.keys() == self.model.keys()
        for id, record in self.model.items():
            assert (stored[id].text, stored[id].metadata) == (record["text"], record["metadata"])
            assert [type(v) for v in stored[id].metadata.values()] == [type(v) for v in record["metadata"].values()]
            if record["vector"] is None:
                assert stored[id].vector is None
            else:
                given = np.array(record["vector"], np.float32)
                wanted = given / np.linalg.norm(given) if self.metric == "cosine" else given
                np.testing.assert_allclose(stored[id].vector, wanted, rtol=1e-6)

    def teardown(self) -> None:
        try:
            if self.db is not None:
                assert self.db.check() == []
                self.db.close()
        finally:
            shutil.rmtree(self.folder)

    def similarity(self, a: list[float], b: list[float]) -> float:
        x, y = np.array(a), np.array(b)
        if self.metric == "cosine":
            return float(x @ y / np.linalg.norm(x) / np.linalg.norm(y))
        return float(x @ y) if self.metric == "ip" else -float(np.linalg.norm(x - y))


TestLibrary = Library.TestCase
TestLibrary.settings = settings(max_examples=40, stateful_step_count=25, deadline=None)
