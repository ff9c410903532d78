"""Bad input gives a typed error that says what was wrong and where, and changes nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from word_embedder import WordEmbedder

import vecdb

GOOD = {"id": "good", "text": "fine", "vector": [1.0, 0.0, 0.0], "metadata": {"n": 1}}

BAD_RECORDS: list[tuple[str, Any, type[vecdb.VecdbError], str]] = [
    ("wrong dimension", [GOOD, {"id": "x", "vector": [1.0, 0.0]}], vecdb.DimensionMismatch, "record 1"),
    ("all of a wrong dimension", [{"id": "x", "vector": [1.0, 0.0]}], vecdb.DimensionMismatch, "holds 3"),
    ("NaN", [GOOD, {"id": "x", "vector": [1.0, float("nan"), 0.0]}], vecdb.InvalidVector, "record 1 (id 'x')"),
    ("infinity", [{"id": "x", "vector": [1.0, float("inf"), 0.0]}], vecdb.InvalidVector, "record 0"),
    ("too large for float32", [{"id": "x", "vector": [1e300, 0.0, 0.0]}], vecdb.InvalidVector, "record 0"),
    (
        "zero vector under cosine",
        [GOOD, {"id": "z", "vector": [0.0, 0.0, 0.0]}],
        vecdb.InvalidVector,
        "record 1 (id 'z')",
    ),
    ("text as a vector", [{"id": "x", "vector": "abc"}], vecdb.InvalidVector, "record 0"),
    ("empty batch", [], vecdb.InvalidInput, "no records"),
    ("id twice", [GOOD, {**GOOD, "text": "again"}], vecdb.DuplicateId, "record 1"),
    ("number as id", [{"id": 5, "text": "x"}], vecdb.InvalidRecord, "id 5"),
    ("empty id", [{"id": "", "text": "x"}], vecdb.InvalidRecord, "record 0"),
    ("unknown key", [{"id": "x", "txt": "x"}], vecdb.InvalidRecord, "did you mean 'text'"),
    ("not a dict", [GOOD, 7], vecdb.InvalidRecord, "record 1 is a int"),
    ("text that is no text", [{"id": "x", "text": 3}], vecdb.InvalidRecord, "record 0"),
    ("broken Unicode", [{"id": "x", "text": "\ud800"}], vecdb.InvalidRecord, "record 0"),
    ("metadata that is no dict", [{"id": "x", "metadata": [1]}], vecdb.InvalidRecord, "record 0"),
    (
        "metadata that JSON cannot hold",
        [GOOD, {"id": "x", "metadata": {"a": object()}}],
        vecdb.InvalidRecord,
        "record 1",
    ),
    ("metadata NaN", [{"id": "x", "metadata": {"a": float("nan")}}], vecdb.InvalidRecord, "record 0"),
    ("expires that is no moment", [{"id": "x", "expires": "soon"}], vecdb.InvalidRecord, "record 0"),
    ("a string for records", "abc", vecdb.InvalidInput, "records is a str"),
    ("a number for records", 3, vecdb.InvalidInput, "records is a int"),
]


@pytest.fixture
def collection(db: vecdb.Database) -> vecdb.Collection:
    collection = db.collection("c", dimension=3)
    collection.add([{"id": "old", "text": "was here", "vector": [0.0, 1.0, 0.0]}])
    return collection


@pytest.mark.parametrize(("records", "error", "words"), [b[1:] for b in BAD_RECORDS], ids=[b[0] for b in BAD_RECORDS])
@pytest.mark.parametrize("verb", ["add", "upsert"])
def test_bad_records_are_refused_whole(
    collection: vecdb.Collection, verb: str, records: Any, error: type[vecdb.VecdbError], words: str
) -> None:
    with pytest.raises(error, match=_literal(words)):
        getattr(collection, verb)(records)
    assert [record.id for record in collection.scan()] == ["old"]
    assert collection.check() == []


def test_add_refuses_an_id_that_exists(collection: vecdb.Collection) -> None:
    with pytest.raises(vecdb.DuplicateId, match=r"record 1 \(id 'old'\) exists in collection 'c' already; use upsert"):
        collection.add([GOOD, {"id": "old", "text": "again"}])
    assert [record.text for record in collection.scan()] == ["was here"]


def test_errors_say_which_record_by_position(collection: vecdb.Collection) -> None:
    with pytest.raises(vecdb.InvalidInput) as caught:
        collection.add([GOOD, {"id": "z", "vector": [0.0, 0.0, 0.0]}])
    assert caught.value.position == 1


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({}, "nothing was given"),
        ({"ids": ["a", "b"], "texts": ["x"]}, "id has 2, text has 1"),
        ({"ids": "ab"}, "id is a str"),
        ({"records": [GOOD], "ids": ["a"]}, "one or the other"),
        ({"records": [GOOD], "batch_size": 0}, "batch_size is 0"),
    ],
)
def test_columns_must_fit_together(collection: vecdb.Collection, columns: dict[str, Any], words: str) -> None:
    with pytest.raises(vecdb.InvalidInput, match=words):
        collection.add(**columns)


@pytest.mark.parametrize(
    ("query", "options", "error", "words"),
    [
        ([1.0, 0.0], {}, vecdb.DimensionMismatch, "has 2 numbers, collection 'c' holds 3"),
        ([0.0, 0.0, 0.0], {}, vecdb.InvalidVector, "all zeros"),
        ([1.0, float("nan"), 0.0], {}, vecdb.InvalidVector, "NaN"),
        ([[1.0, 0.0, 0.0], [1.0]], {}, vecdb.InvalidVector, "equal length"),
        ([], {}, vecdb.InvalidInput, "is empty"),
        (None, {}, vecdb.InvalidQuery, "no query"),
        ([1.0, 0.0, 0.0], {"k": 0}, vecdb.InvalidQuery, "k is 0"),
        ([1.0, 0.0, 0.0], {"k": -3}, vecdb.InvalidQuery, "k is -3"),
        ([1.0, 0.0, 0.0], {"k": 2.5}, vecdb.InvalidQuery, "k is 2.5"),
        ([1.0, 0.0, 0.0], {"k": True}, vecdb.InvalidQuery, "k is True"),
        ([1.0, 0.0, 0.0], {"offset": -1}, vecdb.InvalidQuery, "offset is -1"),
        ([1.0, 0.0, 0.0], {"ef": 0}, vecdb.InvalidQuery, "ef is 0"),
        ([1.0, 0.0, 0.0], {"mode": "magic"}, vecdb.InvalidQuery, "mode is 'magic'"),
        ([1.0, 0.0, 0.0], {"mode": "text"}, vecdb.InvalidQuery, "query is a vector"),
        ("words", {"mode": "vector"}, vecdb.ModelUnavailable, "no embedding model"),
        ([1.0, 0.0, 0.0], {"fusion": "best"}, vecdb.InvalidQuery, "fusion is 'best'"),
        ([1.0, 0.0, 0.0], {"select": "best"}, vecdb.InvalidQuery, "select is 'best'"),
        ([1.0, 0.0, 0.0], {"select": "mmr", "k": 3000}, vecdb.InvalidQuery, "ask for 3,000 hits"),
        ([1.0, 0.0, 0.0], {"diversity": 0.5}, vecdb.InvalidQuery, "no option 'diversity'"),
        ([1.0, 0.0, 0.0], {"rerank": "x"}, vecdb.InvalidQuery, "rerank is 'x'"),
        ([1.0, 0.0, 0.0], {"cursor": "§"}, vecdb.InvalidQuery, "cursor"),
        ([1.0, 0.0, 0.0], {"where": {"a": {"$around": 1}}}, vecdb.InvalidFilter, r"\$around"),
        ([1.0, 0.0, 0.0], {"where": {"$and": {}}}, vecdb.InvalidFilter, r"\$and"),
        ([1.0, 0.0, 0.0], {"wher": {}}, vecdb.InvalidQuery, "did you mean 'where'"),
        ([1.0, 0.0, 0.0], {"where": []}, vecdb.InvalidFilter, "list"),
        ('"open phrase', {"mode": "text", "syntax": "query"}, vecdb.InvalidQuery, "cannot be read"),
        ("a AND", {"mode": "text", "syntax": "query"}, vecdb.InvalidQuery, "cannot be read"),
    ],
)
def test_bad_queries_are_refused(
    collection: vecdb.Collection, query: Any, options: dict[str, Any], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        collection.search(query, **options)


def test_another_models_vectors_are_refused_although_the_dimension_fits(db: vecdb.Database) -> None:
    collection = db.collection("c", embed=WordEmbedder("model-a"))
    collection.add(texts=["hello"])
    vector = np.ones((1, 16), np.float32)
    with pytest.raises(vecdb.ModelMismatch, match="model-b"):
        collection.add(ids=["x"], vectors=vector, model="model-b")
    with pytest.raises(vecdb.ModelMismatch, match="model-b"):
        collection.search(vector[0], model="model-b")
    with pytest.raises(vecdb.ModelMismatch, match="model-b"):
        db.collection("c", embed=WordEmbedder("model-b"))
    collection.add(ids=["y"], vectors=vector, model="model-a")
    assert len(collection) == 2


def test_a_collection_keeps_its_settings(db: vecdb.Database) -> None:
    db.collection("c", dimension=3, metric="l2", text="none")
    assert db.collection("c").metric == "l2"
    for wrong in ({"dimension": 4}, {"metric": "cosine"}, {"text": "english"}, {"index": vecdb.HnswConfig(M=8)}):
        with pytest.raises(vecdb.ConfigMismatch, match=next(iter(wrong))):
            db.collection("c", **wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["", "a\nb", "x" * 201, None, 5])
def test_impossible_names_are_refused(db: vecdb.Database, name: Any) -> None:
    with pytest.raises(vecdb.InvalidInput, match="collection name"):
        db.collection(name)


@pytest.mark.parametrize(
    "name", ["notes", "naïve 名前 🙂", "'; DROP TABLE collections; --", "../../etc/passwd", "a.b/c\\d"]
)
def test_any_printable_name_works(path: Path, name: str) -> None:
    with vecdb.open(path, background=False) as db:
        db.collection(name).add([{"id": "a", "text": "x"}])
    with vecdb.open(path, background=False) as db:
        assert db.collections() == [name]
        assert len(db.collection(name, create=False)) == 1
        db.drop(name)
        assert db.collections() == []
    assert {p.name for p in path.parent.iterdir()} <= {path.name, f"{path.name}-index"}


def test_unknown_collections_and_records_have_their_own_errors(db: vecdb.Database) -> None:
    with pytest.raises(vecdb.CollectionNotFound, match="there is no collection 'x'; this database has none"):
        db.collection("x", create=False)
    with pytest.raises(KeyError):
        db.drop("x")
    collection = db.collection("c")
    collection.add(ids=["a"], texts=["x"])
    with pytest.raises(vecdb.RecordNotFound, match="id 'b'"):
        collection.update([{"id": "a", "text": "changed"}, {"id": "b", "text": "y"}])
    assert collection.get("a").text == "x"  # type: ignore[union-attr]
    db.drop("c")
    with pytest.raises(vecdb.CollectionNotFound, match="was dropped"):
        collection.add(ids=["a"], texts=["x"])


def _literal(words: str) -> str:
    import re

    return re.escape(words)
