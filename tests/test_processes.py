"""One file, several processes and handles: everybody sees what is committed, and nobody is disturbed by a merge."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import shared_file
from crash_child import merge_eagerly

import vecdb
from vecdb import tables, upkeep


def vectors(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, 8)).astype(np.float32)


def run_python(program: str, *arguments: object, timeout: float = 60) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", program, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)


def test_two_write_and_four_read_one_file(path: Path) -> None:
    outcome = shared_file.run(path, writers=2, readers=4, seconds=3.0)
    assert outcome.wrong == []
    assert outcome.commits > 10
    assert sum(outcome.merges) > 0
    # What bench measures with the machine to itself; here only that nobody waits for a merge, a timeout, a poll of seconds.
    assert np.median(outcome.lag_ms) < 1_000


def test_many_processes_may_make_the_same_file_at_once(path: Path) -> None:
    program = """
import sys, time, vecdb
from pathlib import Path
vecdb.open
print("ready", flush=True)
sys.stdin.readline()
with vecdb.open(sys.argv[1], background=False) as db:
    db.collection("c", dimension=2).add(ids=[sys.argv[2]], vectors=[[1.0, 2.0]])
"""
    children = [
        subprocess.Popen(
            [sys.executable, "-c", program, str(path), str(number)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(6)
    ]
    for child in children:
        assert child.stdout is not None
        child.stdout.readline()
    for child in children:
        assert child.stdin is not None
        child.stdin.write("go\n")
        child.stdin.flush()
    assert [child.communicate(timeout=60)[1] for child in children] == [""] * 6
    with vecdb.open(path, background=False) as db:
        assert all(db.collection("c").get([str(number) for number in range(6)]))
        assert len(db.collection("c")) == 6


# -- collections that others drop ------------------------------------------------------------------------------------------


def test_a_collection_that_another_handle_dropped_is_not_found_by_any_method(path: Path) -> None:
    query = vectors(1)[0]
    uses = {
        "add": lambda c: c.add(ids=["x"], vectors=vectors(1)),
        "upsert": lambda c: c.upsert(ids=["x"], vectors=vectors(1)),
        "update": lambda c: c.update(ids=["a"], metadata=[{"n": 2}]),
        "replace": lambda c: c.replace("p", [{"text": "new"}]),
        "delete": lambda c: c.delete(["a"]),
        "delete where": lambda c: c.delete(where={"n": 1}),
        "get": lambda c: c.get("a"),
        "count": lambda c: c.count(),
        "count where": lambda c: c.count({"n": 1}),
        "facets": lambda c: c.facets("n"),
        "scan": lambda c: c.scan(),
        "scan where": lambda c: c.scan(where={"n": 1}),
        "vector": lambda c: c.search(query),
        "exact": lambda c: c.search(query, exact=True),
        "filtered": lambda c: c.search(query, where={"n": 1}),
        "text": lambda c: c.search("word", mode="text"),
        "syntax": lambda c: c.search("word*", mode="text", syntax="query"),
        "hybrid": lambda c: c.search("word", vector=query),
        "stats": lambda c: c.stats(),
        "check": lambda c: c.check(),
        "optimize": lambda c: c.optimize(),
        "warm": lambda c: c.warm(),
        "why_not": lambda c: c.why_not("a", query),
    }
    for warm in (False, True):
        with vecdb.open(path, background=False) as db, vecdb.open(path, background=False) as other:
            collection = db.collection("c", dimension=8)
            collection.add(ids=["a", "b"], vectors=vectors(2), texts=["word"] * 2, metadata=[{"n": 1}] * 2)
            if warm:
                collection.optimize()
                collection.warm()
            other.drop("c")
            for name, use in uses.items():
                with pytest.raises(vecdb.CollectionNotFound):
                    use(collection)
                    pytest.fail(f"{name} did not notice")
            assert db.collections() == []
            assert db.check() == []


def test_a_collection_that_was_made_again_works_through_a_fresh_handle_only(path: Path) -> None:
    with vecdb.open(path, background=False) as db, vecdb.open(path, background=False) as other:
        old = db.collection("c", dimension=8)
        old.add(ids=["a"], vectors=vectors(1))
        old.warm()
        other.drop("c")
        other.collection("c", dimension=3).add(ids=["b"], vectors=[[1, 2, 3]])
        with pytest.raises(vecdb.CollectionNotFound):
            old.search(vectors(1)[0])
        fresh = db.collection("c")
        assert fresh.search([1, 2, 3]).ids == ["b"]
        assert fresh.dimension == 3
        with pytest.raises(vecdb.CollectionNotFound):
            old.add(ids=["x"], vectors=vectors(1))


def test_dropping_one_collection_does_not_hide_changes_of_another(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The log's last number must not go back: a reader takes an unchanged one for "nothing has changed"."""
    monkeypatch.setattr(tables, "CHANGES_KEPT", 5)
    with vecdb.open(path, background=False) as reader, vecdb.open(path, background=False) as writer:
        kept, gone = writer.collection("kept", dimension=8), writer.collection("gone", dimension=8)
        kept.add(ids=["a"], vectors=vectors(1))
        reading = reader.collection("kept")
        reading.warm()
        assert reading.count({"n": {"$exists": False}}) == 1
        kept.add(ids=["b"], vectors=vectors(1))  # scrolls out of the log below
        for i in range(20):
            gone.add(ids=[f"g{i}"], vectors=vectors(1))
        writer.drop("gone")
        assert sorted(reading.search(vectors(1)[0]).ids) == ["a", "b"]
        assert reading.check() == []


# -- a log that does not reach back far enough -----------------------------------------------------------------------------


def test_a_process_that_slept_through_the_trimming_of_the_log_is_right_again(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "CHANGES_KEPT", 10)
    with vecdb.open(path, background=False) as sleeper, vecdb.open(path, background=False) as writer:
        writing = writer.collection("c", dimension=8)
        writing.add(ids=[f"r{i}" for i in range(40)], vectors=vectors(40), texts=[f"word{i}" for i in range(40)])
        writing.optimize()
        sleeping = sleeper.collection("c")
        sleeping.warm()
        for i in range(30):
            writing.upsert([{"id": f"r{i}", "vector": vectors(100)[50 + i], "text": f"new{i}", "metadata": {"n": i}}])
        writing.delete(["r39", "r35"])
        with writer._store.read() as db:
            assert db.execute("SELECT count(*) FROM changes").get <= 10
        assert sleeping.search(vectors(100)[55], k=1).ids == ["r5"]
        assert sleeping.search("new7", mode="text").ids == ["r7"]
        assert sleeping.search("word7", mode="text").ids == []
        assert sleeping.count({"n": {"$gte": 20}}) == 10
        assert "r39" not in sleeping.search(vectors(40)[39], k=40).ids
        assert sleeping.check() == []
        assert len(sleeping.search(vectors(1)[0], k=100)) == 38


def test_the_log_does_not_grow_for_ever_in_a_collection_without_index(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "CHANGES_KEPT", 10)
    with vecdb.open(path, background=False) as db:
        words = db.collection("words")
        for i in range(50):
            words.upsert([{"id": "same", "text": f"version {i}"}])
        with db._store.read() as reader:
            assert reader.execute("SELECT count(*) FROM changes").get <= 10


# -- what two writers may not do to each other -----------------------------------------------------------------------------


def test_deleting_by_filter_decides_on_the_state_it_deletes_from(path: Path) -> None:
    """Another process changes a record between the reading of the filter's columns and the write lock."""
    with vecdb.open(path, background=False) as db, vecdb.open(path, background=False) as other:
        collection, others = db.collection("c"), other.collection("c")
        collection.add(ids=["a", "b"], texts=["one", "two"], metadata=[{"old": True}] * 2)
        matching, calls = collection._reader.matching, []

        def interrupted(where: vecdb.types.Filter) -> list[int]:
            found = matching(where)
            if not calls:
                others.upsert([{"id": "a", "text": "one", "metadata": {"old": False}}])
                others.add([{"id": "c", "text": "three", "metadata": {"old": True}}])
            calls.append(found)
            return found

        collection._reader.matching = interrupted  # type: ignore[method-assign]
        assert collection.delete(where={"old": True}) == 2
        assert [record.id for record in collection.scan()] == ["a"]


@pytest.mark.parametrize("where", [{"n": {"$gte": 0}}, None])
def test_a_scan_goes_on_past_a_record_that_is_deleted_meanwhile(path: Path, where: vecdb.types.Filter | None) -> None:
    with vecdb.open(path, background=False) as db:
        collection = db.collection("c")
        collection.add(ids=list("abcdef"), texts=["t"] * 6, metadata=[{"n": i} for i in range(6)])
        matching = collection._reader.matching

        def interrupted(where: vecdb.types.Filter) -> list[int]:
            found = matching(where)
            collection.delete("b")
            return found

        collection._reader.matching = interrupted  # type: ignore[method-assign]
        seen: list[str] = []
        cursor = None
        while True:
            page = collection.scan(where=where, limit=2, cursor=cursor)
            seen += [record.id for record in page]
            cursor = page.cursor
            if cursor is None:
                break
        assert seen in (list("abcdef"), list("acdef"))


def test_a_search_that_loses_candidates_to_a_write_is_asked_again(path: Path) -> None:
    """Between finding rows and reading their records, another thread gives every record a new row."""
    with vecdb.open(path, background=False) as db:
        collection = db.collection("c", dimension=8)
        collection.add(ids=[f"r{i}" for i in range(20)], vectors=vectors(20))
        collection.warm()
        engine = collection._engine
        courses, interruptions = engine.courses, []

        def interrupted(*arguments: object) -> object:
            found = courses(*arguments)  # type: ignore[arg-type]
            if not interruptions:
                interruptions.append(1)
                collection.upsert(ids=[f"r{i}" for i in range(20)], vectors=vectors(20, seed=1))
            return found

        engine.courses = interrupted  # type: ignore[method-assign,assignment]
        assert len(collection.search(vectors(1)[0], k=20)) == 20


def test_a_search_among_incessant_writes_ends_with_a_whole_answer(path: Path) -> None:
    """Every attempt is interrupted by another thread, but for the last, which that thread has to wait for."""
    with vecdb.open(path, background=False) as db:
        collection = db.collection("c", dimension=8)
        collection.add(ids=[f"r{i}" for i in range(20)], vectors=vectors(20))
        collection.warm()
        engine = collection._engine
        courses = engine.courses
        writers: list[threading.Thread] = []

        def replace_all(seed: int) -> None:
            collection.upsert(ids=[f"r{i}" for i in range(20)], vectors=vectors(20, seed=seed))

        def interrupted(*arguments: object) -> object:
            found = courses(*arguments)  # type: ignore[arg-type]
            writers.append(threading.Thread(target=replace_all, args=(len(writers) + 1,)))
            writers[-1].start()
            writers[-1].join(0.5)
            return found

        engine.courses = interrupted  # type: ignore[method-assign,assignment]
        assert len(collection.search(vectors(1)[0], k=20)) == 20
        for writer in writers:
            writer.join(10)
            assert not writer.is_alive()
        assert len(writers) > 1


# -- merges ----------------------------------------------------------------------------------------------------------------


def test_one_of_several_handles_merges_and_all_use_the_result(path: Path) -> None:
    with vecdb.open(path, background=False) as first, vecdb.open(path, background=False) as second:
        a, b = first.collection("c", dimension=8), second.collection("c", dimension=8)
        a.add(ids=[f"r{i}" for i in range(500)], vectors=vectors(500))
        b.warm()
        a.optimize()
        b.warm()
        for collection in (a, b):
            stats = collection.stats()
            assert (stats.indexed, stats.tail) == (500, 0)
            assert collection.search(vectors(1)[0]).trace[0].detail["engine"] == "hnsw"
            assert collection.check() == []
        b.optimize()  # nothing to do, and nothing done
        assert b._memory.newest().vectors.epoch == 1  # type: ignore[union-attr]
        b.add(ids=["one more"], vectors=vectors(1, seed=3))
        b.optimize()
        a.warm()
        assert a.check() == []
        assert a._memory.newest().vectors.epoch == 2  # type: ignore[union-attr]


def test_optimize_waits_for_a_merge_of_another_process(path: Path) -> None:
    from vecdb.process_lock import try_lock

    with vecdb.open(path, background=False) as db:
        collection = db.collection("c", dimension=8)
        collection.add(ids=[f"r{i}" for i in range(50)], vectors=vectors(50))
        assert db.index_folder is not None
        db.index_folder.mkdir()
        merging = threading.Thread(target=collection.optimize)
        with try_lock(db.index_folder / "merge.lock") as mine:
            assert mine
            merging.start()
            time.sleep(0.2)
            assert merging.is_alive()
            assert collection.stats().tail == 50
            collection.add(ids=["meanwhile"], vectors=vectors(1))  # nobody else waits
        merging.join(30)
        assert collection.stats().tail == 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_the_merge_lock_is_free_though_a_child_was_forked_while_it_was_held(tmp_path: Path) -> None:
    from vecdb.process_lock import try_lock

    program = """
import os, sys, time
from pathlib import Path
from vecdb.process_lock import try_lock
with try_lock(Path(sys.argv[1])) as mine:
    child = os.fork()
    if not child:
        time.sleep(30)
        os._exit(0)
with try_lock(Path(sys.argv[1])) as mine:
    print(mine)
os.kill(child, 9)
os.waitpid(child, 0)
"""
    done = run_python(program, tmp_path / "merge.lock")
    assert (done.stdout, done.stderr) == ("True\n", "")
    with try_lock(tmp_path / "merge.lock") as mine:
        assert mine


def test_a_drop_during_a_merge_leaves_neither_file_nor_row(path: Path) -> None:
    with vecdb.open(path, background=False) as db, vecdb.open(path, background=False) as other:
        collection = db.collection("c", dimension=8)
        collection.add(ids=[f"r{i}" for i in range(50)], vectors=vectors(50))
        publish = collection._files.publish

        def dropped_first(*arguments: object, **options: object) -> object:
            other.drop("c")
            return publish(*arguments, **options)  # type: ignore[arg-type]

        collection._files.publish = dropped_first  # type: ignore[method-assign,assignment]
        with pytest.raises(vecdb.CollectionNotFound):
            collection.optimize()
        assert db.index_folder is not None
        assert list(db.index_folder.glob("*.seg*")) == []
        with db._store.read() as reader:
            assert reader.execute("SELECT count(*) FROM segments").get == 0


# -- ends ------------------------------------------------------------------------------------------------------------------


EXIT_WHILE = """
import os, sys, time, numpy as np
sys.path.insert(0, sys.argv[2])
import vecdb
from vecdb import upkeep
from crash_child import merge_eagerly
merge_eagerly()
moment, wanted = float(sys.argv[3]), sys.argv[4]
os.cpu_count = lambda: 8 if wanted == "merging in threads" else 2  # half of them build
db = vecdb.open(sys.argv[1])
c = db.collection("c", dimension=64)
if wanted.startswith("merging"):
    from vecdb.index import kernels
    kernels.warm()
x = np.random.default_rng(0).standard_normal((12_000, 64)).astype(np.float32)
c.add(ids=[f"r{i}" for i in range(len(x))], vectors=x)
time.sleep(moment)
if wanted == "closing":
    db.close()
if wanted == "raising":
    raise SystemExit(3)
"""


@pytest.mark.parametrize(
    ("wanted", "moment"),
    [
        ("merging", 0.0),
        ("merging", 0.4),
        ("merging in threads", 0.4),
        ("loading kernels", 0.25),
        ("closing", 0.5),
        ("raising", 0.4),
    ],
)
def test_a_program_may_end_while_the_index_is_merged(path: Path, wanted: str, moment: float) -> None:
    """No traceback, no crash, no waiting for the merge."""
    done = run_python(EXIT_WHILE, path, Path(__file__).parent, moment, wanted)
    assert (done.stderr, done.returncode) == ("", 3 if wanted == "raising" else 0)
    with vecdb.open(path, background=False) as db:
        assert len(db.collection("c")) == 12_000
        assert db.check() == []


def test_a_program_may_end_while_kernels_are_compiled(path: Path, tmp_path: Path) -> None:
    """With an empty cache that takes some twenty seconds; the program ends in their midst."""
    command = [sys.executable, "-c", EXIT_WHILE, str(path), str(Path(__file__).parent), "1.0", "compiling"]
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path / "cache")}
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=environment)
    assert (done.stderr, done.returncode) == ("", 0)


def test_closing_ends_the_thread_and_writes_no_file_afterwards(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        for name in ("INDEX_FROM", "_LEAST_TAIL", "_QUIET_S", "_PATIENCE_S"):
            patch.setattr(upkeep, name, getattr(upkeep, name))
        merge_eagerly()
        for pause in (0.0, 0.05, 0.1, 0.2, 0.3):
            with vecdb.open(path) as db:
                collection = db.collection("c", dimension=8)
                collection.upsert(ids=[f"r{i}" for i in range(1_500)], vectors=vectors(1_500, seed=int(pause * 100)))
                time.sleep(pause)
                thread = db._upkeep._thread
            folder = path.with_name(path.name + "-index")
            after_close = sorted(folder.glob("*")) if folder.exists() else []
            assert thread is not None
            thread.join(30)
            assert not thread.is_alive()
            assert (sorted(folder.glob("*")) if folder.exists() else []) == after_close
    with vecdb.open(path, background=False) as db:
        assert db.check() == []


def test_a_database_that_nobody_closed_leaves_no_thread_behind(path: Path) -> None:
    import gc

    collection = vecdb.open(path).collection("c", dimension=8)
    collection.add(ids=["a"], vectors=vectors(1))
    thread = collection._upkeep._thread
    assert thread is not None
    gc.collect()
    time.sleep(0.5)
    assert thread.is_alive()  # the collection is still in use
    assert collection.search(vectors(1)[0]).ids == ["a"]
    del collection
    for _ in range(50):
        gc.collect()
        thread.join(0.1)
        if not thread.is_alive():
            break
    assert not thread.is_alive()


def test_a_backup_of_a_file_under_constant_writing_ends_and_is_one_state(path: Path, tmp_path: Path) -> None:
    with vecdb.open(path, background=False) as db, vecdb.open(path, background=False) as other:
        collection = db.collection("c", dimension=8)
        collection.add(ids=[f"r{i}" for i in range(20_000)], vectors=vectors(20_000), metadata=[{"n": 0}] * 20_000)
        stop = threading.Event()

        def keep_writing() -> None:
            writing = other.collection("c")
            for n in range(1, 10_000):
                if stop.is_set():
                    return
                writing.update(ids=["r0", "r19999"], metadata=[{"n": n}] * 2)

        writer = threading.Thread(target=keep_writing)
        writer.start()
        try:
            db.backup(tmp_path / "copy.vecdb")
        finally:
            stop.set()
            writer.join()
    with vecdb.open(tmp_path / "copy.vecdb", background=False) as copy:
        saved = copy.collection("c")
        first, last = saved.get(["r0", "r19999"])
        assert first is not None
        assert last is not None
        assert first.metadata == last.metadata
        assert copy.check() == []
