"""What is exported and imported again is what it was: records, links, entities, settings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import vecdb
from vecdb.cli.transfer import export_to, import_from, read_records
from vecdb.config import CollectionConfig, TextConfig
from vecdb.errors import InvalidRecord, RecordNotFound

words = st.text(st.sampled_from("abcß é東\n\t'\""), min_size=1, max_size=6)
IDS = ["a", "b", "c/1", "ü", "e"]
text_configs = st.builds(
    TextConfig,
    language=st.sampled_from(["english", "none"]),
    fold_accents=st.booleans(),
    cjk=st.booleans(),
    fields=st.sampled_from([{"text": 1.0}, {"title": 2.5, "text": 1.0}, {"text": 0.1, "book.title": 3.0}]),
    k1=st.sampled_from([1.2, 0.9]),
    b=st.sampled_from([0.75, 0.4]),
    synonyms=st.dictionaries(words, st.dictionaries(words, st.sampled_from([0.1, 0.8]), max_size=2), max_size=2),
)
kinds = st.sampled_from(["link", "cites", "ähnlich"])
bonds = st.lists(
    st.tuples(st.sampled_from(IDS), st.sampled_from(IDS), kinds, st.sampled_from([0.1, 1.0, 3e5]), st.booleans()),
    max_size=8,
)


def told(docs: vecdb.Collection, ids: list[str]) -> dict[str, Any]:
    """All that a copy must agree in."""
    records = [record for record in docs.get(ids, vectors=True) if record is not None]
    fields = ("id", "text", "metadata", "parent", "seq", "expires")
    return {
        "records": [[getattr(record, field) for field in fields] for record in records],
        "vectors": [None if r.vector is None else r.vector.tolist() for r in records],
        "links": docs.links(),
        "entities": docs._links.entities(ids),
        "text": docs.config.text,
        "metric": docs.metric,
        "index": docs.config.index,
    }


def copied(db: vecdb.Database, name: str, path: Path, where: dict[str, Any] | None = None) -> vecdb.Collection:
    """The records of a collection, by way of a file."""
    export_to(db.collection(name), str(path), where=where, vectors=True)
    given_settings, _, records = read_records(str(path))
    docs = db.collection("copy", **given_settings)
    import_from(docs, records, upsert=False, batch_size=2)
    return docs


@pytest.mark.parametrize("ending", ["jsonl", "parquet"])
@settings(max_examples=15)
@given(
    config=text_configs,
    metric=st.sampled_from(["cosine", "l2", "ip"]),
    links=bonds,
    named=st.dictionaries(st.sampled_from(IDS), st.lists(words, max_size=3)),
    order=st.sampled_from(["random", "lid_desc"]),
)
def test_a_round_trip_loses_nothing(
    ending: str,
    tmp_path_factory: pytest.TempPathFactory,
    config: TextConfig,
    metric: Any,
    links: list[tuple[str, str, str, float, bool]],
    named: dict[str, list[str]],
    order: Any,
) -> None:
    if ending == "parquet":
        pytest.importorskip("pyarrow")
    with vecdb.open(":memory:", background=False) as db:
        docs = db.collection("docs", text=config, metric=metric, index=vecdb.HnswConfig(order=order))
        docs.add(
            ids=IDS,
            texts=["one", "two\n東", None, "", "grün"],
            vectors=[[1.0, 0.0], None, [0.6, 0.8], [0.0, -2.0], None],
            metadata=[{}, {"title": "x", "n": [1, None]}, {}, {"book": {"title": "y"}}, {}],
        )
        for source, target, kind, weight, directed in links:
            if source != target:
                docs.link(source, target, kind, weight, directed=directed)
        docs.link_entities(named)
        copy = copied(db, "docs", tmp_path_factory.mktemp("round") / f"out.{ending}")
        assert told(copy, IDS) == told(docs, IDS)


def test_usual_settings_are_not_told(tmp_path: Path) -> None:
    with vecdb.open(":memory:") as db:
        db.collection("docs").add(ids=["a"], texts=["one"])
        export_to(db.collection("docs"), str(tmp_path / "out.jsonl"), where=None, vectors=False)
    assert (tmp_path / "out.jsonl").read_text() == '{"id":"a","text":"one","metadata":{}}\n'


@pytest.mark.parametrize("ending", ["jsonl", "parquet"])
def test_settings_of_a_collection_without_records_are_kept(tmp_path: Path, ending: str) -> None:
    if ending == "parquet":
        pytest.importorskip("pyarrow")
    with vecdb.open(":memory:") as db:
        db.collection("docs", text="none", metric="l2")
        copy = copied(db, "docs", tmp_path / f"out.{ending}")
        assert (copy.config.text, copy.metric, len(copy)) == (TextConfig("none"), "l2", 0)


def test_a_part_takes_its_own_links_along_only(tmp_path: Path) -> None:
    with vecdb.open(":memory:") as db:
        docs = db.collection("docs")
        docs.add(ids=["a", "b", "c"], texts=["x", "y", "z"], metadata=[{"n": 1}, {"n": 1}, {"n": 2}])
        docs.link(["a", "c"], ["b", "a"])
        copy = copied(db, "docs", tmp_path / "out.jsonl", where={"n": 1})
        assert copy.links() == [vecdb.Link("a", "b")]


@pytest.mark.parametrize(
    ("lines", "error", "message"),
    [
        ('{"$collection": 3}', InvalidRecord, "must be an object"),
        ('{"$collection": {"colour": 3}}', InvalidRecord, "colour"),
        ('{"$collection": {"text": {"tongue": "x"}}}', InvalidRecord, "tongue"),
        ('{"text": "x", "links": [{"target": "a"}]}', InvalidRecord, "no id"),
        ('{"id": "x", "text": "x", "links": ["a"]}', InvalidRecord, "must be an object"),
        ('{"id": "x", "text": "x", "links": 3}', InvalidRecord, "must be a list of objects"),
        ('{"id": "x", "text": "x", "links": [{"to": "a"}]}', InvalidRecord, "source and target"),
        ('{"id": "x", "text": "x", "links": [{"target": "nobody"}]}', RecordNotFound, "nobody"),
        ('{"id": "x", "text": "x", "entities": "one"}', vecdb.VecdbError, "a list of texts"),
        ('{"id": "x", "text": "x", "entities": 5}', vecdb.VecdbError, "a list of texts"),
    ],
)
def test_broken_files_are_refused(tmp_path: Path, lines: str, error: type[Exception], message: str) -> None:
    (tmp_path / "in.jsonl").write_text(lines)
    with vecdb.open(":memory:") as db, pytest.raises(error, match=message):
        settings_, _, records = read_records(str(tmp_path / "in.jsonl"))
        import_from(db.collection("docs", **settings_), records, upsert=False, batch_size=10)


def test_the_usual_configuration_is_what_a_collection_has() -> None:
    with vecdb.open(":memory:") as db:
        assert db.collection("docs").config.text == CollectionConfig().text
