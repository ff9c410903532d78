"""What the file keeps of vectors: other bytes than float32, chosen at the start or changed while everything goes on."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from word_embedder import WordEmbedder

import vecdb
from vecdb import stored_vectors
from vecdb.errors import ConfigMismatch, InvalidInput, ReadOnly, StorageError
from vecdb.index.codecs import parse

Vectors = NDArray[np.float32]
COUNT, SIZE = 600, 32


def made(seed: int = 0, count: int = COUNT) -> Vectors:
    """Unit vectors around a few directions."""
    random = np.random.default_rng(seed)
    middles = random.standard_normal((12, SIZE))
    vectors = middles[random.integers(0, 12, count)] + 0.5 * random.standard_normal((count, SIZE))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Codecs come in from 256 vectors on, a hundred at a time."""
    monkeypatch.setattr(stored_vectors, "FIT_FROM", 256)
    monkeypatch.setattr(stored_vectors, "_ROWS_A_STEP", 100)


def filled(db: vecdb.Database, storage: str | None = None, vectors: Vectors | None = None) -> vecdb.Collection:
    given = made() if vectors is None else vectors
    docs = db.collection("docs", storage=storage)
    docs.add(ids=[f"d{i}" for i in range(len(given))], vectors=given, texts=[f"text {i}" for i in range(len(given))])
    return docs


def vectors_in(docs: vecdb.Collection, count: int = COUNT) -> Vectors:
    return np.stack([record.vector for record in docs.get([f"d{i}" for i in range(count)], vectors=True)])  # type: ignore[union-attr, misc]


def lengths(docs: vecdb.Collection) -> set[int]:
    with docs._store.read() as db:
        return {n for (n,) in db.execute(f"SELECT DISTINCT length(vector) FROM {docs._tables.vectors}")}


@pytest.mark.parametrize("codec", ["float16", "float8", "int8", "pca:16+float8", "rabitq:4"])
def test_every_reader_sees_what_the_stored_bytes_stand_for(codec: str, tmp_path: Path, few: None) -> None:
    vectors = made()
    want = parse(codec, SIZE, "cosine")
    with vecdb.open(tmp_path / "a.vecdb", background=False) as db:
        docs = filled(db)
        before = [hit.id for hit in docs.search(vectors[3], k=20, exact=True)]
        state = docs.set_storage(codec)
        assert (state.stored, state.wanted, state.share) == (codec, codec, 1.0)
        assert lengths(docs) == {want.bytes_per_vector == state.bytes_per_vector and want.bytes_per_vector}
        decoded = vectors_in(docs)
        fitted = want.fit(vectors)
        assert np.array_equal(decoded, fitted.decode(fitted.encode(vectors)))
        hits = docs.search(vectors[3], k=20, exact=True, vectors=True)
        right = np.argsort(-(decoded.astype(np.float64) @ vectors[3]), kind="stable")[:20]
        assert [hit.id for hit in hits] == [f"d{i}" for i in right]
        assert all(np.array_equal(hit.vector, decoded[int(hit.id[1:])]) for hit in hits)
        assert len(set(before) & {hit.id for hit in hits}) >= 13
        assert docs.check() == []
        assert docs.stats().vector_bytes == COUNT * want.bytes_per_vector
    with vecdb.open(tmp_path / "a.vecdb", background=False) as db:
        docs = db.collection("docs")
        assert docs.search(vectors[3], k=1)[0].id == "d3"  # a new process has nothing in memory yet
        assert np.array_equal(vectors_in(docs), decoded)
        assert docs.storage.stored == codec


def test_a_collection_waits_for_enough_vectors_and_then_stores_what_it_was_made_with(tmp_path: Path, few: None) -> None:
    vectors = made()
    with vecdb.open(tmp_path / "a.vecdb", background=False) as db:
        docs = filled(db, "int8", vectors[:200])
        docs._indexing.recode_if_due()
        assert (docs.storage.stored, docs.storage.wanted) == ("float32", "int8")
        docs.add(ids=[f"d{i}" for i in range(200, COUNT)], vectors=vectors[200:])
        docs._indexing.recode_if_due()
        assert docs.storage.stored == "int8"
        docs.add(ids=["new"], vectors=vectors[:1])
        assert lengths(docs) == {SIZE}
        assert docs.get("new", vectors=True).vector == pytest.approx(vectors[0], abs=0.01)  # type: ignore[union-attr]
    with vecdb.open(tmp_path / "a.vecdb", background=False) as db:
        with pytest.raises(ConfigMismatch, match="storage"):
            db.collection("docs", storage="float8")
        assert db.collection("docs", storage="int8").storage.share == 1.0


def test_what_is_cut_short_goes_on_and_is_read_right_meanwhile(tmp_path: Path, few: None) -> None:
    vectors = made()
    with vecdb.open(tmp_path / "a.vecdb", background=False) as db:
        docs = filled(db)
        docs.warm()

        def stop(done: int, total: int | None) -> None:
            assert total == COUNT
            if done >= 300:
                raise KeyboardInterrupt

        with suppress(KeyboardInterrupt):
            docs.set_storage("float8", progress=stop)
        assert 0.4 < docs.storage.share < 0.6
        assert lengths(docs) == {SIZE + 1, 4 * SIZE}
        assert docs.check() == []
        assert docs.search(vectors[7], k=1)[0].id == "d7"
        # Written while the change goes on: with the bytes of before, for the change has not come there.
        docs.add(ids=["late"], vectors=made(5, 1))
        docs.update(ids=["d2"], metadata=[{"seen": True}])
        docs.upsert(ids=["d5", "d590"], vectors=vectors[[5, 590]], texts=["text 5", "text 590"])
    with vecdb.open(tmp_path / "a.vecdb", background=False) as db:
        docs = db.collection("docs")
        found = vectors_in(docs)
        assert found == pytest.approx(vectors, abs=0.04)
        assert np.array_equal(found[590], vectors[590])
        assert not np.array_equal(found[290], vectors[290])
        assert docs.search(vectors[7], k=1)[0].id == "d7"
        docs._indexing.recode_if_due()
        assert docs.storage.share == 1.0
        assert lengths(docs) == {SIZE + 1}
        assert docs.get("late", vectors=True).vector == pytest.approx(made(5, 1)[0], abs=0.02)  # type: ignore[union-attr]
        assert docs.check() == []


def test_another_process_goes_on_with_its_own_memory(tmp_path: Path, few: None) -> None:
    vectors = made()
    with (
        vecdb.open(tmp_path / "a.vecdb", background=False) as db,
        vecdb.open(tmp_path / "a.vecdb", background=False) as other,
    ):
        docs, theirs = filled(db), other.collection("docs")
        assert theirs.search(vectors[1], k=1, exact=True)[0].id == "d1"
        theirs.warm()
        docs.set_storage("pca:8+int8")
        assert np.array_equal(vectors_in(theirs), vectors_in(docs))
        mine, found = (c.search(vectors[9], k=30, exact=True) for c in (docs, theirs))
        assert [(hit.id, hit.score) for hit in mine] == [(hit.id, hit.score) for hit in found]
        theirs.add(ids=["x"], vectors=made(8, 1))
        assert lengths(docs) == {8}
        assert theirs.check() == []


def test_an_index_is_built_anew_over_what_is_stored(tmp_path: Path, few: None) -> None:
    vectors = made()
    with vecdb.open(tmp_path / "a.vecdb", background=False) as db:
        docs = filled(db)
        docs.optimize()
        assert docs.stats().indexed == COUNT
        docs.set_storage("int4")
        assert docs.search(vectors[0], k=3)[0].id == "d0"
        docs.optimize()
        assert docs.stats().indexed == COUNT
        assert docs.check() == []  # the index's copies are the decoded vectors, to the bit
    with vecdb.open(tmp_path / "a.vecdb", background=False) as db:
        docs = db.collection("docs")
        docs.warm()
        assert docs.stats().tail == 0
        assert docs.check() == []


def test_changing_back_and_over_keeps_the_last_codecs_numbers(few: None) -> None:
    with vecdb.open(":memory:", background=False) as db:
        docs = filled(db)
        docs.set_storage("float16")
        half = vectors_in(docs)
        docs.set_storage("float32")
        assert lengths(docs) == {4 * SIZE}
        assert np.array_equal(vectors_in(docs), half)
        with docs._store.read() as connection:
            assert connection.execute("SELECT count(*) FROM kept").get == 0
        docs.set_storage("float8")
        docs.set_storage("int8")
        assert (docs.storage.stored, lengths(docs)) == ("int8", {SIZE})
        assert docs.check() == []
        assert docs.set_storage("int8").share == 1.0  # nothing to do


def test_an_update_of_metadata_leaves_the_bytes_and_the_row(few: None) -> None:
    with vecdb.open(":memory:", background=False) as db:
        docs = filled(db)
        docs.set_storage("rabitq:2")  # whose vectors, decoded and coded again, are others
        vectors = vectors_in(docs)
        result = docs.update(ids=["d1", "d2"], metadata=[{"a": 1}, {"a": 2}])
        assert result.updated == 2
        docs.update(ids=["d3"], texts=["another text"])
        assert np.array_equal(vectors_in(docs), vectors)
        unchanged = docs.upsert(ids=["d9"], vectors=made()[9:10], texts=["text 9"])
        assert unchanged.unchanged == 1


def test_a_file_becomes_smaller_once_it_is_compacted(tmp_path: Path) -> None:
    path = tmp_path / "a.vecdb"
    random = np.random.default_rng(0)
    with vecdb.open(path, background=False) as db:
        docs = db.collection("docs")
        docs.add(ids=[str(i) for i in range(1_500)], vectors=random.standard_normal((1_500, 384)).astype(np.float32))
        docs.compact()
        before = path.stat().st_size
        docs.set_storage("pca:192+float8")
        docs.compact()
        overhead = docs.storage.overhead
        assert path.stat().st_size < 0.3 * before + overhead
        assert docs.check() == []


def test_bad_codecs_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    path = tmp_path / "a.vecdb"
    with vecdb.open(path, background=False) as db:
        for bad in ("float9", "pca:0+int8", ""):
            with pytest.raises(InvalidInput):
                db.collection("docs", storage=bad)
        docs = filled(db)
        for bad in ("float9", f"pca:{SIZE + 1}", "pca:8+pca:9"):
            with pytest.raises(InvalidInput):
                docs.set_storage(bad)
        assert docs.config.storage == "float32"
    with vecdb.open(path, read_only=True) as db:
        for refuse in (lambda: db.collection("docs").set_storage("float8"), db.collection("docs").compact):
            with pytest.raises(ReadOnly):
                refuse()


def test_an_empty_collection_takes_a_codec_and_waits(few: None) -> None:
    with vecdb.open(":memory:", background=False) as db:
        docs = db.collection("docs", storage="pca:4+int8")
        assert docs.set_storage("int8").share == 0.0
        docs.add(ids=["a"], vectors=[[1.0, 2.0]])
        assert docs.get("a", vectors=True).vector.shape == (2,)  # type: ignore[union-attr]
        assert docs.storage.stored == "float32"


def test_a_damaged_codec_is_an_error_that_says_so(tmp_path: Path, few: None) -> None:
    path = tmp_path / "a.vecdb"
    with vecdb.open(path, background=False) as db:
        filled(db).set_storage("float8")
    with vecdb.open(path, background=False) as db:
        docs = db.collection("docs")
        with docs._store.write() as connection:
            connection.execute("UPDATE kept SET arrays = NULL WHERE kind = 'codec'")
        with pytest.raises(StorageError, match="codec"):
            docs.get("d1", vectors=True)


def test_texts_that_are_known_are_not_embedded_again(few: None) -> None:
    embedder = WordEmbedder()
    with vecdb.open(":memory:", background=False) as db:
        docs = db.collection("docs", embed=embedder)
        docs.add(ids=[str(i) for i in range(300)], texts=[f"word{i} and more" for i in range(300)])
        docs.set_storage("int8")
        docs.add(ids=["again"], texts=["word7 and more"])
        assert embedder.calls == 300
        assert docs.get("again", vectors=True).vector == pytest.approx(docs.get("7", vectors=True).vector, abs=0.02)  # type: ignore[union-attr]
