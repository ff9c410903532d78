"""Opening, closing and sharing a handle: what can be wrong with a file, and what threads and forks may do."""

from __future__ import annotations

import gc
import gzip
import hashlib
import os
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import apsw
import numpy as np
import pytest
from crash_child import merge_eagerly

import vecdb
from vecdb import upkeep
from vecdb.migrations import APPLICATION_ID, VERSION

FORMATS = Path(__file__).parent / "formats"


def vectors(count: int, seed: int = 0, dimension: int = 8) -> np.ndarray:
    found = np.random.default_rng(seed).standard_normal((count, dimension)).astype(np.float32)
    return found / np.linalg.norm(found, axis=1, keepdims=True)


def fingerprint(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def files_beside(path: Path) -> list[str]:
    return sorted(p.name for p in path.parent.iterdir())


def make(path: Path, count: int = 5) -> None:
    with vecdb.open(path, background=False) as db:
        db.collection("c", dimension=8).add(ids=[f"r{i}" for i in range(count)], vectors=vectors(count))


# -- what is not a vecdb file ----------------------------------------------------------------------------------------------


def sqlite_file(path: Path, *statements: str) -> None:
    db = apsw.Connection(str(path))
    for statement in statements:
        db.execute(statement)
    db.close()


FOREIGN: dict[str, Callable[[Path], object]] = {
    "text": lambda path: path.write_text("these are notes, not a database" * 200),
    "a few bytes": lambda path: path.write_bytes(b"abc"),
    "zeros": lambda path: path.write_bytes(bytes(50_000)),
    "sqlite of another program": lambda path: sqlite_file(path, "CREATE TABLE t (x)", "INSERT INTO t VALUES (1)"),
    "sqlite in wal mode": lambda path: sqlite_file(path, "PRAGMA journal_mode = wal", "CREATE TABLE t (x)"),
    "sqlite of another program with an id": lambda path: sqlite_file(
        path, "PRAGMA application_id = 99", "CREATE TABLE t (x)"
    ),
    "empty sqlite with a version": lambda path: sqlite_file(path, f"PRAGMA user_version = {VERSION}"),
}


@pytest.mark.parametrize("options", [{}, {"read_only": True}], ids=["writing", "reading"])
@pytest.mark.parametrize("content", FOREIGN.values(), ids=FOREIGN.keys())
def test_a_file_that_is_not_ours_is_refused_and_left_alone(
    path: Path, content: Callable[[Path], object], options: dict[str, bool]
) -> None:
    content(path)
    before, beside = fingerprint(path), files_beside(path)
    with pytest.raises(vecdb.NotAVecdbFile, match=r"library\.vecdb"):
        vecdb.open(path, **options)
    assert fingerprint(path) == before
    assert (
        files_beside(path) == beside or options
    )  # SQLite's read-only connections leave an empty log where there is one


@pytest.mark.parametrize("size", [60, 8_000, 16_384, 100_000])
def test_a_file_that_was_cut_off_is_reported(path: Path, size: int) -> None:
    make(path, count=500)
    path.write_bytes(path.read_bytes()[:size])
    before = fingerprint(path)
    try:
        with vecdb.open(path, read_only=True) as db:
            problems = db.check()
    except vecdb.StorageError as error:
        problems = [str(error)]
    assert problems
    assert "damaged" in problems[0] or "not a vecdb file" in problems[0] or size == 100_000
    assert fingerprint(path) == before


@pytest.mark.parametrize("options", [{}, {"read_only": True}], ids=["writing", "reading"])
def test_a_file_of_a_later_version_is_refused_untouched(path: Path, options: dict[str, bool]) -> None:
    make(path)
    sqlite_file(path, f"PRAGMA user_version = {VERSION + 1}")
    before, beside = fingerprint(path), files_beside(path)
    with pytest.raises(vecdb.NewerFile, match=r"pip install --upgrade vecdb"):
        vecdb.open(path, **options)
    assert fingerprint(path) == before
    assert files_beside(path) == beside or options


def test_a_folder_is_not_a_database(tmp_path: Path) -> None:
    with pytest.raises(vecdb.NotAVecdbFile, match="folder"):
        vecdb.open(tmp_path)


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(vecdb.StorageError, match="does its folder exist"):
        vecdb.open(tmp_path / "no" / "such" / "library.vecdb")


@pytest.mark.parametrize("options", [{"create": False}, {"read_only": True}])
def test_a_missing_file_is_not_made_unasked(path: Path, options: dict[str, bool]) -> None:
    with pytest.raises(vecdb.StorageError, match="there is no file"):
        vecdb.open(path, **options)
    assert not path.exists()


def test_an_empty_file_becomes_a_database(path: Path) -> None:
    path.touch()
    make(path)
    with vecdb.open(path, background=False) as db:
        assert len(db.collection("c")) == 5


def test_a_file_whose_making_was_interrupted_becomes_a_database(path: Path) -> None:
    """Killed after the log mode was set, before the schema was committed."""
    sqlite_file(path, "PRAGMA page_size = 16384", "PRAGMA journal_mode = wal")
    assert path.stat().st_size
    make(path)
    with vecdb.open(path, background=False) as db:
        assert db.check() == []


def test_an_empty_file_cannot_be_opened_for_reading(path: Path) -> None:
    path.touch()
    with pytest.raises(vecdb.StorageError):
        vecdb.open(path, read_only=True)
    assert path.stat().st_size == 0


def test_a_damaged_table_is_reported_not_returned(path: Path) -> None:
    make(path, count=3_000)
    data = bytearray(path.read_bytes())
    for page in range(8, len(data) // 16_384):
        data[page * 16_384 : page * 16_384 + 64] = b"\xff" * 64
    path.write_bytes(data)
    with vecdb.open(path, background=False) as db:
        with pytest.raises(vecdb.StorageError, match="damaged"):
            list(db.collection("c").scan(limit=10_000, vectors=True))
        assert db.check() != []


# -- locked and closed -----------------------------------------------------------------------------------------------------


def test_a_locked_file_can_be_read_and_says_that_it_is_busy_to_a_writer(path: Path) -> None:
    make(path)
    other = apsw.Connection(str(path))
    other.execute("BEGIN EXCLUSIVE")
    with vecdb.open(path, busy_timeout_s=0.1, background=False) as db:
        collection = db.collection("c")
        assert collection.search(vectors(1)[0], k=1).ids == ["r0"]
        since = time.monotonic()
        with pytest.raises(vecdb.DatabaseBusy, match="busy_timeout_s"):
            collection.add(ids=["x"], vectors=vectors(1))
        assert 0.05 < time.monotonic() - since < 5
        with pytest.raises(vecdb.DatabaseBusy):
            db.collection("new")
        with pytest.raises(vecdb.DatabaseBusy):
            db.drop("c")
        other.execute("ROLLBACK")
        assert collection.add(ids=["x"], vectors=vectors(1)).added == 1
    other.close()


def test_a_file_that_somebody_keeps_for_himself_is_busy_at_opening(path: Path) -> None:
    make(path)
    other = apsw.Connection(str(path))
    other.pragma("locking_mode", "exclusive")
    other.execute("BEGIN EXCLUSIVE; SELECT count(*) FROM collections; COMMIT")
    for options in ({}, {"read_only": True}):
        with pytest.raises(vecdb.DatabaseBusy):
            vecdb.open(path, busy_timeout_s=0.1, **options)
    other.close()
    with vecdb.open(path, background=False) as db:
        assert len(db.collection("c")) == 5


@pytest.mark.parametrize("place", ["file", "memory"])
def test_a_closed_database_says_so(path: Path, place: str) -> None:
    db = vecdb.open(path if place == "file" else ":memory:", background=False)
    collection = db.collection("c", dimension=8)
    collection.add(ids=["a"], vectors=vectors(1), texts=["word"])
    collection.warm()
    db.close()
    db.close()
    uses: list[Callable[[], object]] = [
        lambda: collection.add(ids=["b"], vectors=vectors(1)),
        lambda: collection.search(vectors(1)[0]),
        lambda: collection.search("word"),
        lambda: collection.get("a"),
        lambda: collection.count({"x": 1}),
        lambda: collection.delete("a"),
        collection.optimize,
        collection.stats,
        collection.check,
        db.collections,
        db.check,
        lambda: db.collection("c"),
        lambda: db.drop("c"),
    ]
    for use in uses:
        with pytest.raises(vecdb.DatabaseClosed, match="closed"):
            use()


@pytest.mark.parametrize("place", ["file", "memory"])
def test_closing_while_others_search_and_write_gives_them_a_typed_error(path: Path, place: str) -> None:
    db = vecdb.open(path if place == "file" else ":memory:", background=False)
    collection = db.collection("c", dimension=8)
    collection.add(ids=[f"r{i}" for i in range(3_000)], vectors=vectors(3_000), texts=["a word"] * 3_000)
    errors: list[BaseException] = []

    def until_closed(work: Callable[[int], object]) -> None:
        n = 0
        try:
            while True:
                work(n)
                n += 1
        except vecdb.DatabaseClosed:
            return
        except BaseException as error:
            errors.append(error)

    works: list[Callable[[int], object]] = [
        lambda n: collection.search(vectors(1, n)[0]),
        lambda n: collection.search("word", k=3),
        lambda n: list(collection.scan(limit=500, vectors=True)),
        lambda n: collection.count({"n": n}),
        lambda n: collection.upsert(ids=["same"], vectors=vectors(1, n), metadata=[{"n": n}]),
    ]
    threads = [threading.Thread(target=until_closed, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    time.sleep(0.3)
    db.close()
    for thread in threads:
        thread.join(20)
        assert not thread.is_alive()
    assert errors == []
    if place == "file":
        assert files_beside(path) == [path.name]  # the log is gone: nobody's connection was forgotten
        with vecdb.open(path, background=False) as again:
            assert again.check() == []


def test_connections_of_threads_that_ended_are_closed(path: Path) -> None:
    make(path)
    with vecdb.open(path, background=False) as db:
        collection = db.collection("c")
        for _ in range(20):
            thread = threading.Thread(target=collection.count)
            thread.start()
            thread.join()
        assert len(db._store._readers) <= 2


@pytest.mark.parametrize("text", [vecdb.TextConfig(), vecdb.TextConfig(cjk=True, k1=0.9)], ids=str)
def test_connections_go_with_their_thread_and_with_their_database(path: Path, text: vecdb.TextConfig) -> None:
    """The tokenizer that each of them knows refers to it, and would keep it."""
    db = vecdb.open(path, background=False)
    collection = db.collection("c", text=text)
    collection.add(ids=["a"], texts=["ant 東京"])
    for _ in range(5):
        thread = threading.Thread(target=collection.search, args=("ant",))
        thread.start()
        thread.join()
    assert collection.search("ant").ids == ["a"]
    assert len(db._store._readers) <= 2
    kept = [weakref.ref(db._store._writer), *map(weakref.ref, db._store._readers)]
    del db, collection, thread
    gc.collect()
    assert [connection() for connection in kept] == [None] * len(kept)


def test_a_new_thread_reads_the_same_file_after_a_chdir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with vecdb.open("library.vecdb", background=False) as db:
        collection = db.collection("c", dimension=8)
        collection.add(ids=["a"], vectors=vectors(1))
        (tmp_path / "elsewhere").mkdir()
        monkeypatch.chdir(tmp_path / "elsewhere")
        counts: list[int] = []
        thread = threading.Thread(target=lambda: counts.append(collection.count()))
        thread.start()
        thread.join()
        assert counts == [1]
        collection.optimize()
    assert files_beside(tmp_path / "library.vecdb") == ["elsewhere", "library.vecdb", "library.vecdb-index"]


FORK = """
import os, sys, threading, time, numpy as np, vecdb
x = np.eye(8, dtype=np.float32)
db = vecdb.open(sys.argv[1])
c = db.collection("c", dimension=8)
c.add(ids=list("abcdefgh"), vectors=x)
c.search(x[0])
time.sleep(0.5)  # the background thread has started and sleeps

held = threading.Event()
def hold():  # another thread holds every lock while the process forks
    with db._store._lock, db._store._files_lock, db._upkeep._wake:
        held.set()
        time.sleep(0.5)
threading.Thread(target=hold).start()
held.wait()
child = os.fork()
if not child:
    for use in (lambda: c.search(x[0]), lambda: c.add(ids=["x"], vectors=x[:1]), lambda: c.get("a"), db.collections):
        try:
            use()
        except vecdb.DatabaseClosed as error:
            assert "fork" in str(error), error
        else:
            print("a forked child could use its parent's handle")
    db.close()
    with vecdb.open(sys.argv[1], background=False) as own:
        own.collection("c").add(ids=["by the child"], vectors=x[:1])
    sys.exit(0)
_, status = os.waitpid(child, 0)
print(os.waitstatus_to_exitcode(status))
c.add(ids=["by the parent"], vectors=x[:1])
print(len(c), sorted(c.search(x[0], k=3).ids), db.check())
db.close()
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_forked_child_is_told_to_open_for_itself_and_its_parent_goes_on(path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", FORK, path], capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout.splitlines() == ["0", "10 ['a', 'by the child', 'by the parent'] []"]
    assert (done.stderr, done.returncode) == ("", 0)
    assert [name for name in files_beside(path) if not name.endswith("-index")] == [path.name]


def test_two_handles_of_one_file_in_one_process_see_each_other(path: Path) -> None:
    with vecdb.open(path, background=False) as first, vecdb.open(path, background=False) as second:
        a = first.collection("c", dimension=8)
        a.add(ids=["a"], vectors=vectors(1))
        b = second.collection("c")
        assert b.search(vectors(1)[0]).ids == ["a"]
        b.upsert(ids=["a", "b"], vectors=vectors(2, seed=1), metadata=[{"n": 1}, {"n": 2}])
        assert sorted(a.search(vectors(1)[0]).ids) == ["a", "b"]
        assert a.count({"n": 2}) == 1
        b.delete("a")
        assert a.get("a") is None
        assert a.search(vectors(1)[0]).ids == ["b"]
        assert first.check() == second.check() == []


# -- threads ---------------------------------------------------------------------------------------------------------------


@pytest.fixture
def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("INDEX_FROM", "_LEAST_TAIL", "_QUIET_S", "_PATIENCE_S"):
        monkeypatch.setattr(upkeep, name, getattr(upkeep, name))  # so that they are put back
    merge_eagerly()


def vector_of(id: str, version: int) -> np.ndarray:
    return vectors(1, seed=int(id[1:]) * 1_000 + version)[0]


@pytest.mark.usefixtures("eager")
@pytest.mark.parametrize("place", ["file", "memory"])
def test_eight_threads_search_while_one_writes_and_merges(path: Path, place: str) -> None:
    """Each hit is a record as some commit left it, scores are those of that very version, and k come back if k match."""
    with vecdb.open(path if place == "file" else ":memory:") as db:
        collection = db.collection("c", dimension=8)

        def put(numbers: range, version: int) -> None:
            collection.upsert(
                {
                    "id": f"r{i}",
                    "vector": vector_of(f"r{i}", version),
                    "text": f"word version{version}",
                    "metadata": {"version": version, "even": i % 2 == 0},
                }
                for i in numbers
            )

        put(range(400), 0)  # these stay, in changing versions: at least 200 are even
        wrong: list[object] = []
        stop = threading.Event()
        searches = [0] * 8

        def look(number: int) -> None:
            draw = np.random.default_rng(number)
            try:
                while not stop.is_set():
                    query = vectors(1, seed=int(draw.integers(1 << 30)))[0]
                    kind = number % 4
                    if kind == 0:
                        hits = collection.search(query, k=10)
                    elif kind == 1:
                        hits = collection.search(query, k=10, where={"even": True})
                    elif kind == 2:
                        hits = collection.search("word", vector=query, k=10)
                    else:
                        hits = collection.search(query, k=10, exact=True)
                    searches[number] += 1
                    if len(set(hits.ids)) != 10:
                        wrong.append(f"{len(set(hits.ids))} different hits instead of 10")
                    for hit in hits:
                        vector = vector_of(hit.id, hit.metadata["version"])
                        if kind != 2 and abs(hit.score - float(vector @ query)) > 1e-4:
                            wrong.append(f"{hit.id} has the score of another version")
                        if hit.text != f"word version{hit.metadata['version']}":
                            wrong.append(f"{hit.id} has the text of another version")
            except BaseException as error:
                wrong.append(error)

        threads = [threading.Thread(target=look, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        end = time.monotonic() + 2.5
        version = 0
        while time.monotonic() < end:
            version += 1
            first = 400 + 50 * version
            put(range(first, first + 50), version)
            put(range(version % 4 * 100, version % 4 * 100 + 60), version)
            collection.delete(where={"version": version - 3, "even": False})
            put(range(400), version) if version % 10 == 0 else None
            collection.delete([f"r{i}" for i in range(first - 50, first, 2)])
            if version % 7 == 0:
                collection.optimize()
        stop.set()
        for thread in threads:
            thread.join(30)
            assert not thread.is_alive()
        assert wrong == []
        assert min(searches) > 0
        assert db.check() == []
        collection.optimize()
        assert db.check() == []


def test_deleting_by_filter_in_memory_does_not_lock_up_with_searches() -> None:
    """A delete holds the write lock and looks at the columns; a search holds the columns' lock and reads tables."""
    with vecdb.open(":memory:", background=False) as db:
        collection = db.collection("c", dimension=8)
        stop = threading.Event()

        def search() -> None:
            while not stop.is_set():
                collection.search(vectors(1)[0], where={"n": {"$gte": 0}})

        threads = [threading.Thread(target=search, daemon=True) for _ in range(3)]
        collection.add(ids=["first"], vectors=vectors(1), metadata=[{"n": 0}])
        for thread in threads:
            thread.start()

        def write() -> None:
            for n in range(60):
                collection.upsert(ids=["a"], vectors=vectors(1, n), metadata=[{"n": n}])
                assert collection.delete(where={"n": n}) >= 1

        writer = threading.Thread(target=write, daemon=True)
        writer.start()
        writer.join(30)
        stop.set()
        assert not writer.is_alive()
        for thread in threads:
            thread.join(10)
            assert not thread.is_alive()


def test_everything_may_be_deleted_and_merged_away(path: Path) -> None:
    """An index whose every vector is gone, and memory without any slot."""
    with vecdb.open(path, background=False) as db:
        collection = db.collection("c", dimension=8)
        collection.optimize()  # nothing there yet
        collection.add(ids=[f"r{i}" for i in range(1_500)], vectors=vectors(1_500))
        collection.optimize()
        for round in range(3):
            collection.delete([record.id for record in collection.scan(limit=2_000)])
            assert collection.search(vectors(1)[0]).ids == []
            collection.optimize()
            assert collection.search(vectors(1)[0]).ids == []
            collection.add(ids=[f"again{i}" for i in range(round + 1)], vectors=vectors(round + 1))
            assert len(collection.search(vectors(1)[0])) == round + 1
            assert db.check() == []
    with vecdb.open(path, background=False) as db:
        collection = db.collection("c")
        collection.warm()
        assert len(collection.search(vectors(1)[0])) == 3
        assert db.check() == []


@pytest.mark.usefixtures("eager")
@pytest.mark.parametrize("background", [True, False])
def test_memory_does_not_keep_what_was_replaced_though_there_is_nothing_to_merge(path: Path, background: bool) -> None:
    with vecdb.open(path, background=background) as db:
        collection = db.collection("words")
        for version in range(12):
            collection.upsert({"id": f"r{i}", "text": f"version{version} of {i}"} for i in range(400))
            collection.count({"n": {"$exists": False}})
        collection.search("version11", k=5)
        deadline = time.monotonic() + 10
        while len(collection._memory.newest().rows) > 1_600 and time.monotonic() < deadline:
            time.sleep(0.05)
        assert len(collection._memory.newest().rows) <= 1_600
        collection.warm()
        assert len(collection.search("version11", k=1_000)) == 400
        assert collection.search("version10").ids == []
        assert db.check() == []


def test_expired_records_leave_and_cost_nothing_once_they_are_removed(path: Path) -> None:
    with vecdb.open(path, background=False) as db:
        collection = db.collection("c", dimension=8)
        soon = time.time() + 0.3
        collection.add(ids=[f"r{i}" for i in range(20)], vectors=vectors(20), expires=[soon] * 10 + [None] * 10)
        collection.warm()
        assert len(collection.search(vectors(1)[0], k=20)) == 20
        time.sleep(0.35)
        assert len(collection.search(vectors(1)[0], k=20)) == collection.count() == 10
        collection.update(ids=["r15"], metadata=[{"n": 1}])  # any write lets the expired ones go
        assert len(collection.search(vectors(1)[0], k=20)) == 10
        assert collection._memory.newest().next_expiry == np.inf
        assert db.check() == []


# -- files of earlier versions ---------------------------------------------------------------------------------------------


def unpacked(version: int, folder: Path) -> Path:
    path = folder / f"v{version}.vecdb"
    path.write_bytes(gzip.decompress((FORMATS / f"{path.name}.gz").read_bytes()))
    return path


def test_there_is_a_file_of_every_version() -> None:
    assert sorted(p.name for p in FORMATS.glob("*.gz")) == sorted(f"v{n}.vecdb.gz" for n in range(1, VERSION + 1))
    assert all(p.stat().st_size < 100_000 for p in FORMATS.glob("*.gz"))


@pytest.mark.parametrize("version", range(1, VERSION + 1))
def test_a_file_of_an_earlier_version_is_read_whole(tmp_path: Path, version: int) -> None:
    path = unpacked(version, tmp_path)
    if version == VERSION:
        before = fingerprint(path)
        with vecdb.open(path, read_only=True) as db:
            assert_is_as_written(db, version)
        assert fingerprint(path) == before
    with vecdb.open(path, background=False) as db:
        assert_is_as_written(db, version)
        notes = db.collection("notes")
        notes.optimize()
        assert_is_as_written(db, version)
        notes.upsert([{"id": "n5", "text": "now about dogs"}, {"id": "new", "text": "one more"}])
        assert notes.search("dogs").ids == ["n5"]
        assert db.check() == []
        raw = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
        assert (raw.pragma("application_id"), raw.pragma("user_version")) == (APPLICATION_ID, VERSION)
        raw.close()


def assert_is_as_written(db: vecdb.Database, version: int) -> None:
    assert db.collections() == ["empty", "notes", "unit", "文档 / odd name"]
    assert db.check() == []
    notes = db.collection("notes")
    assert len(notes) == 28 + 1 + 3
    assert (notes.dimension, notes.metric) == (4, "l2")
    seventh = notes.get("n7", vectors=True)
    assert seventh is not None
    assert seventh.metadata == {"n": 7, "even": False, "tags": [], "deep": {"er": 3.5}, "none": None}
    assert seventh.text == "note number 7 about sleeping cats"
    assert seventh.vector.tolist() == [0.5, -0.5, 4.5, 4.5]  # type: ignore[union-attr]
    assert notes.get("n1").metadata["seen"] == datetime(2026, 11, 22, tzinfo=UTC)  # type: ignore[union-attr]
    assert notes.get("n2").text == "changed later"  # type: ignore[union-attr]
    assert notes.get("n3") is None
    assert notes.get("keeps").expires == datetime(2999, 1, 1, tzinfo=UTC).timestamp()  # type: ignore[union-attr]
    assert notes.sources() == {"book": "f1"}
    links = [vecdb.Link("n5", "n6", "cites", 1.0), vecdb.Link("n5", "n7", "cites", 2.5, True)]
    assert notes.links() == (links if version >= 3 else [])
    assert [record.id for record in notes.neighbours("book", 1, 2)] == ["c1", "c2"]
    assert notes.search(seventh.vector, k=1).ids == ["n7"]
    assert notes.search(seventh.vector, k=1, where={"tags": {"$contains": "b"}})[0].metadata["tags"] == ["a", "b"]
    assert sorted(notes.search("horse", k=20).ids) == sorted(f"n{i}" for i in range(0, 30, 3) if i != 3)
    assert notes.count({"deep.er": {"$lt": 3}, "even": True}) == 1  # 0; n2 was changed, n4 deleted
    assert notes.count({"seen": {"$gte": datetime(2026, 1, 1, tzinfo=UTC)}}) == 1
    assert db.collection("文档 / odd name").search("数据库").ids == ["ü"]
    unit = db.collection("unit")
    assert (unit.model, unit.dimension) == ("some-model", 2)
    assert unit.search([3, 4], k=1)[0].score == pytest.approx(1.0)
    assert db.collection("empty").count() == 0
