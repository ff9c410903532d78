"""Near duplicates: what is one, which record stays, and that nothing goes without being asked."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from word_embedder import WordEmbedder

import vecdb
from vecdb import duplicates
from vecdb.blocking.codes import joined
from vecdb.duplicates import all_pairs, codes_of_records, like_pairs, standing
from vecdb.types import Record

TEXTS = {
    "a": "the committee decided that prices shall rise by five percent in the coming year",
    "a2": "The committee decided that prices shall rise by five percent in the coming year!",
    "b": "children were vaccinated in the school of the village in the spring of that year",
    "c": "the committee has not met since the minister resigned and nobody took the office",
    "b2": "children were vaccinated in the school of the village in the spring of this year",
}


def collection(db: vecdb.Database, **options: Any) -> vecdb.Collection:
    return db.collection("docs", **{"embed": WordEmbedder(), **options})


def rows(*ids: str) -> list[dict[str, Any]]:
    return [{"id": id, "text": TEXTS[id]} for id in ids]


def test_nothing_is_changed_until_it_is_asked_for() -> None:
    with vecdb.open(":memory:", background=False) as db:
        docs = collection(db)
        docs.add(rows(*TEXTS))
        found = docs.dedupe()
        assert [(one.id, one.of) for one in found.duplicates] == [("a2", "a"), ("b2", "b")]
        assert all(0.9 <= one.similarity <= 1 for one in found.duplicates)
        assert (found.records, found.deleted, found.linked, found.is_applied) == (5, 2, 0, False)
        assert docs.count() == 5
        newest = docs.dedupe("replace")
        assert [(one.id, one.of) for one in newest.duplicates] == [("a", "a2"), ("b", "b2")]
        linked = docs.dedupe("link", apply=True)
        assert (linked.deleted, linked.linked) == (0, 2)
        assert {(link.source, link.target, link.kind) for link in docs.links()} == {
            ("a2", "a", "duplicate"),
            ("b2", "b", "duplicate"),
        }
        done = docs.dedupe("skip", threshold=found.duplicates[0].similarity - 1e-4, apply=True)
        assert done.is_applied
        assert docs.get("a2") is None
        assert docs.count() == 5 - done.deleted
        assert docs.dedupe(threshold=1.0).duplicates == ()
        assert docs.dedupe("skip", where={"nothing": 1}).records == 0


def test_what_is_a_duplicate_when_it_is_added_is_one_afterwards() -> None:
    with vecdb.open(":memory:", background=False) as db:
        docs, later = collection(db), collection_of(db, "later")
        skipped = [docs.add(rows(id), duplicates="skip") for id in TEXTS]
        later.add(rows(*TEXTS))
        at_once = [one for result in skipped for one in result.duplicates]
        afterwards = later.dedupe().duplicates
        assert [(one.id, one.of) for one in at_once] == [(one.id, one.of) for one in afterwards]
        assert [one.similarity for one in at_once] == pytest.approx([one.similarity for one in afterwards], abs=1e-5)
        assert [result.ids for result in skipped] == [("a",), (), ("b",), ("c",), ()]
        whole = collection_of(db, "whole").add(rows(*TEXTS), duplicates="skip")  # within one batch
        assert whole.ids == ("a", "b", "c")
        assert whole.added == 3
        assert [(one.id, one.of) for one in whole.duplicates] == [("a2", "a"), ("b2", "b")]


def collection_of(db: vecdb.Database, name: str) -> vecdb.Collection:
    return db.collection(name, embed=WordEmbedder())


def test_added_duplicates_are_linked_or_take_the_place_of_the_older() -> None:
    with vecdb.open(":memory:", background=False) as db:
        docs = collection(db)
        docs.add(rows("a", "b", "c"))
        result = docs.add(rows("a2"), duplicates="link")
        assert result.ids == ("a2",)
        (link,) = docs.links("a2")
        assert (link.target, link.kind) == ("a", "duplicate")
        assert link.weight == pytest.approx(result.duplicates[0].similarity)
        result = docs.add(rows("b2"), duplicates="replace")
        assert [(one.id, one.of) for one in result.duplicates] == [("b", "b2")]
        assert docs.get("b") is None
        assert docs.get("b2") is not None
        with pytest.raises(vecdb.DuplicateId):  # an id that exists is refused as ever, and nothing is written
            docs.add([*rows("b"), {"id": "a", "text": TEXTS["a"]}], duplicates="skip")
        assert docs.get("b") is None
        for wrong in ({"duplicates": "drop"}, {"duplicates": "skip", "threshold": 0.0}):
            with pytest.raises(vecdb.InvalidInput):
                docs.add(rows("b"), **wrong)  # type: ignore[arg-type]
        with pytest.raises(vecdb.InvalidInput, match="policy"):
            docs.dedupe("merge")  # type: ignore[arg-type]


def test_words_alone_and_vectors_alone_tell_duplicates_too() -> None:
    with vecdb.open(":memory:", background=False) as db:
        words = db.collection("words")
        words.add(rows("a", "b", "c"))
        assert words.add(rows("a2", "b2"), duplicates="skip").ids == ()
        words.add(rows("a2"))
        assert [one.id for one in words.dedupe().duplicates] == ["a2"]
        plain = db.collection("plain")
        plain.add(ids=["x", "y"], vectors=[[1.0, 0.0], [0.0, 1.0]])
        assert plain.add(ids=["x2", "z"], vectors=[[2.0, 0.1], [1.0, 1.0]], duplicates="skip").ids == ("z",)


def test_likeness_is_not_passed_on() -> None:
    chain = [(0, 1, 0.95), (1, 2, 0.93), (2, 3, 0.99)]
    assert standing(4, chain, newest=False) == [(1, 0, 0.95), (3, 2, 0.99)]
    assert standing(4, chain, newest=True) == [(0, 1, 0.95), (2, 3, 0.99)]
    assert standing(3, [(0, 2, 0.9), (1, 2, 0.95)], newest=False) == [(2, 1, 0.95)]


def test_near_pairs_are_those_of_all_pairs() -> None:
    random = np.random.default_rng(2)
    records = [
        Record(
            str(i), TEXTS[random.choice(list(TEXTS))] + " x" * (i % 3), vector=random.standard_normal(4).astype("f4")
        )
        for i in range(40)
    ]
    codes = codes_of_records(records)
    left, right = (grid.ravel() for grid in np.indices((40, 40)))
    every = all_pairs(codes, 0.6)
    assert 20 < len(every) < 700
    found = like_pairs(codes, left, right, 0.6)
    assert [pair[:2] for pair in found] == [pair[:2] for pair in every]
    np.testing.assert_allclose([pair[2] for pair in found], [pair[2] for pair in every], atol=1e-5)
    assert [pair for pair in every if pair[1] >= 30] == all_pairs(codes, 0.6, 30)


def test_codes_of_parts_are_those_of_the_whole() -> None:
    random = np.random.default_rng(3)
    vectors = [random.standard_normal(6).astype("f4") if i % 3 else None for i in range(30)]
    records = [Record(str(i), list(TEXTS.values())[i % 5] if i % 4 else None, vector=v) for i, v in enumerate(vectors)]
    whole = codes_of_records(records)
    parts = [records[:1], [], records[1:4], records[4:29], records[29:]]  # the first has no vector, nor has the second
    both = joined([codes_of_records(part) for part in parts])
    np.testing.assert_array_equal(both.dense, whole.dense)
    np.testing.assert_array_equal(both.sparse.dense(), whole.sparse.dense())


@pytest.mark.parametrize("with_vectors", [True, False])
def test_how_many_are_read_at_once_changes_nothing(with_vectors: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = list(TEXTS.values())
    rows = [{"id": f"r{i}", "text": f"{texts[i % 5]} {i // 25 * 'x '}", "metadata": {"i": i}} for i in range(60)]
    with vecdb.open(":memory:", background=False) as db:
        docs = collection(db, **({} if with_vectors else {"embed": None}))
        docs.add(rows)
        docs.update(ids=["r3"], texts=[texts[0]])  # has a new row, and is as old as before
        asked = [(policy, where) for policy in ("skip", "replace", "link") for where in (None, {"i": {"$gte": 20}})]
        whole = [docs.dedupe(policy, where=where) for policy, where in asked]  # type: ignore[arg-type]
        monkeypatch.setattr(duplicates, "_PAGE", 7)
        monkeypatch.setattr(duplicates, "_AT_ONCE", 3)
        assert [docs.dedupe(policy, where=where) for policy, where in asked] == whole  # type: ignore[arg-type]
        assert ("r3", "r0") in {(one.id, one.of) for one in whole[0].duplicates}
        assert [one.records for one in whole] == 3 * [60, 40]


def test_what_is_written_meanwhile_is_not_its_own_duplicate(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(duplicates, "_PAGE", 2)
    with vecdb.open(":memory:", background=False) as db:
        docs = collection(db)
        docs.add(rows("a", "b", "c"))
        scan = vecdb.Collection.scan

        def and_write(self: vecdb.Collection, **options: Any) -> vecdb.Page:
            page = scan(self, **options)
            if options["cursor"] is None:  # "a" was read; now it gets a row behind the others
                self.update(ids=["a"], texts=[TEXTS["a2"]])
            return page

        monkeypatch.setattr(vecdb.Collection, "scan", and_write)
        found = docs.dedupe(apply=True)
        assert (found.records, found.duplicates, docs.count()) == (3, (), 3)


def test_documents_are_not_held_all_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Texts are long and say little, so what is kept of each is small beside it."""
    count, length = 400, 50_000
    monkeypatch.setattr(duplicates, "_PAGE", 10)
    monkeypatch.setattr(duplicates, "_AT_ONCE", 1)  # whose hits hold 17 texts
    vectors = np.random.default_rng(4).standard_normal((count, 8))
    with vecdb.open(":memory:", background=False) as db:
        docs = db.collection("docs")
        texts = [f"number {i // 2}" + length * " " for i in range(count)]
        docs.add(ids=[f"r{i}" for i in range(count)], texts=texts, vectors=vectors[np.arange(count) // 2])
        del texts
        few = db.collection("few")
        few.add(ids=["x", "y"], texts=["x", "y"], vectors=vectors[:2])
        few.dedupe()  # code that is loaded once is not counted
        tracemalloc.start()
        try:
            found = docs.dedupe()
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert len(found.duplicates) == count // 2
    assert peak < count * length / 2  # a constant, of which most is the words' table of buckets


def test_a_blocker_decides_where_it_is_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch")
    from blocking.products import encoder, shops

    from vecdb.blocking import HashConfig, table_of, train_blocker

    monkeypatch.setattr("vecdb.blocking.blocker.encoder_of", lambda blocker: encoder())
    a, b, pairs = shops(60, alone=0)
    both = [
        {"id": id, "text": row[table.fields.index("name")]}
        for table in (a, b)
        for id, row in zip(table.ids, table.values)
    ]
    halves = [table_of(both[:60]), table_of(both[60:])]
    blocker = train_blocker(*halves, pairs, recall=0.9, encoder=encoder(), config=HashConfig(dimension=8, epochs=2))
    with vecdb.open(":memory:", background=False) as db:
        docs = db.collection("shop")
        docs.add(both)
        found = docs.dedupe("link", blocker=blocker)
        assert len({(one.of, one.id) for one in found.duplicates} & set(pairs)) > 40
        assert len(docs.dedupe("link").duplicates) < 10  # as texts they differ
        with pytest.raises(vecdb.InvalidInput, match="fields"):
            other = db.collection("other")
            other.add(ids=["x", "y"], vectors=[[1.0], [1.0]])
            other.dedupe(blocker=blocker)


def test_the_commands_tell_first_and_do_it_when_asked(tmp_path: Path) -> None:
    from typer.testing import CliRunner

    from vecdb.cli import app

    path, source = tmp_path / "d.vecdb", tmp_path / "rows.jsonl"
    lines = [{"id": id, "text": text} for id, text in TEXTS.items()]
    lines[1]["links"] = [{"target": "b"}]  # type: ignore[assignment]
    source.write_text("".join(json.dumps(line) + "\n" for line in lines))
    run, to = CliRunner(), ["--db", str(path), "--collection"]
    done = run.invoke(app, ["import", str(source), *to, "all", "--embed", "none"])
    assert done.exit_code == 0, done.output
    told = run.invoke(app, ["dedupe", *to, "all"])
    assert [json.loads(line)["id"] for line in told.stdout.splitlines()] == ["a2", "b2"]
    assert "2 would be deleted" in told.stderr
    assert "--apply" in told.stderr
    done = run.invoke(app, ["dedupe", *to, "all", "--policy", "replace", "--apply"])
    assert done.exit_code == 0, done.output
    done = run.invoke(app, ["import", str(source), *to, "few", "--embed", "none", "--duplicates", "skip"])
    assert json.loads(done.stdout) == {"added": 3, "updated": 0, "unchanged": 0, "duplicates": 2}
    with vecdb.open(path, create=False) as db:
        assert sorted(record.id for record in db.collection("all").scan()) == ["a2", "b2", "c"]
        assert sorted(record.id for record in db.collection("few").scan()) == ["a", "b", "c"]
        assert db.collection("few").links() == []
    assert run.invoke(app, ["dedupe", *to, "all", "--policy", "drop"]).exit_code == 2
    assert run.invoke(app, ["import", str(source), *to, "all", "--upsert", "--duplicates", "skip"]).exit_code == 2


def test_files_bring_no_chunk_twice(tmp_path: Path) -> None:
    from vecdb.ingest import IngestSettings, ingest

    notes = tmp_path / "notes"
    notes.mkdir()
    for id, text in TEXTS.items():
        (notes / f"{id}.txt").write_text(text)
    with vecdb.open(":memory:", background=False) as db:
        docs = collection(db)
        settings = IngestSettings(root=notes, duplicates="skip")
        report = ingest(docs, notes, settings=settings)
        assert report.as_json()["duplicates"] == 2
        assert sorted(record.parent or "" for record in docs.scan()) == ["a.txt", "b.txt", "c.txt"]
        again = ingest(docs, notes, settings=settings)
        assert again.counts == {"unchanged": 5}
        (notes / "a.txt").write_text(TEXTS["a"] + " indeed")  # is not taken for a duplicate of what it was
        assert ingest(docs, notes, settings=settings).duplicates == 0
        assert {record.text for record in docs.scan(where={"$parent": "a.txt"})} == {TEXTS["a"] + " indeed"}
        linked = db.collection("linked", embed=WordEmbedder())
        ingest(linked, notes, settings=IngestSettings(root=notes, duplicates="link"))
        assert linked.count() == 5
        assert {(link.kind, link.source[0], link.target[0]) for link in linked.links()} == {
            ("duplicate", "a", "a"),
            ("duplicate", "b", "b"),
        }
        newest = db.collection("newest", embed=WordEmbedder())
        ingest(newest, notes, settings=IngestSettings(root=notes, duplicates="replace"))
        assert sorted(record.parent or "" for record in newest.scan()) == ["a2.txt", "b2.txt", "c.txt"]
        with pytest.raises(vecdb.InvalidInput, match="policy"):
            IngestSettings(duplicates="drop")  # type: ignore[arg-type]
