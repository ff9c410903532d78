"""Index files are derived: whatever happens to them, the database opens, answers rightly, and builds them anew."""

from __future__ import annotations

import logging
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import vecdb
from vecdb.errors import CorruptIndex
from vecdb.segments import _HEAD, _aligned, open_segment

COUNT, DIMENSION = 300, 12
NAME = "library.vecdb"


def vectors(count: int = COUNT, seed: int = 0) -> np.ndarray:
    found = np.random.default_rng(seed).standard_normal((count, DIMENSION)).astype(np.float32)
    return found / np.linalg.norm(found, axis=1, keepdims=True)


def fill(db: vecdb.Database, name: str, seed: int) -> vecdb.Collection:
    collection = db.collection(name, dimension=DIMENSION)
    collection.add(ids=[f"r{i}" for i in range(COUNT)], vectors=vectors(seed=seed))
    collection.delete([f"r{i}" for i in range(0, COUNT, 50)])
    collection.optimize()
    return collection


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a closed database of two indexed collections, of which "a" (number 1) is tested."""
    folder = tmp_path_factory.mktemp("original")
    with vecdb.open(folder / NAME, background=False) as db:
        fill(db, "a", 0)
        fill(db, "b", 1)
    return folder


@pytest.fixture
def path(original: Path, tmp_path: Path) -> Path:
    shutil.copytree(original, tmp_path / "copy")
    return tmp_path / "copy" / NAME


def segment_of(path: Path, number: int = 1) -> Path:
    (found,) = path.with_name(NAME + "-index").glob(f"{number}-*.seg")
    return found


def assert_answers_are_right(collection: vecdb.Collection, alive: np.ndarray) -> None:
    """alive: (n,) numbers of the records that must be there, r0 … ."""
    known = vectors(max(alive) + 1) if max(alive) >= COUNT else vectors()
    queries = vectors(8, seed=99)
    order = np.argsort(-(queries @ known[alive].T), axis=1, kind="stable")[:, :10]
    truth = [[f"r{alive[i]}" for i in line] for line in order]
    assert [hits.ids for hits in collection.search(queries, k=10)] == truth
    assert [hits.ids for hits in collection.search(queries, k=10, exact=True)] == truth
    assert [collection.search(query, k=10).ids for query in queries[:2]] == truth[:2]


ALIVE = np.array([i for i in range(COUNT) if i % 50])


def assert_survives(path: Path) -> None:
    """Opens, answers rightly before and after loading what can be loaded, is sound; is rebuilt, and sound again."""
    with vecdb.open(path, background=False) as db:
        a = db.collection("a", create=False)
        assert_answers_are_right(a, ALIVE)
        a.warm()
        assert_answers_are_right(a, ALIVE)
        assert db.check() == []
        a.optimize()
        assert_answers_are_right(a, ALIVE)
        assert db.check() == []
        assert a.stats().indexed == len(ALIVE)
    with vecdb.open(path, background=False) as db:
        a = db.collection("a")
        a.warm()
        hits = a.search(vectors(1)[0])
        assert hits.trace[0].detail["engine"] == "hnsw"
        assert db.check() == []


def flip(file: Path, position: int, bits: int = 0xFF) -> None:
    data = bytearray(file.read_bytes())
    data[position] ^= bits
    file.write_bytes(data)


def regions(file: Path) -> dict[str, tuple[int, int]]:
    """name -> (first byte, size) of each part of a segment file."""
    data = file.read_bytes()
    length = _HEAD.unpack_from(data)[2]
    found = {"magic": (0, 8), "version": (8, 4), "length": (12, 4), "checksum": (16, 4), "header": (_HEAD.size, length)}
    start = _aligned(_HEAD.size + length)
    for name, entry in orjson.loads(data[_HEAD.size : _HEAD.size + length])["arrays"].items():
        size = np.dtype(entry["dtype"]).itemsize * int(np.prod(entry["shape"], dtype=np.int64))
        found[name] = (start + entry["offset"], size)
    return found


def test_every_array_of_the_index_is_a_region(original: Path) -> None:
    names = set(regions(segment_of(original / NAME)))
    assert {"magic", "header", "vectors", "rows", "base", "levels", "live"} <= names


@pytest.mark.parametrize("place", ["first", "middle", "last"])
@pytest.mark.parametrize(
    "region",
    ["magic", "version", "length", "checksum", "header", "vectors", "rows", "base", "levels", "starts", "live"],
)
def test_a_changed_byte_in_any_region_is_noticed(path: Path, region: str, place: str) -> None:
    segment = segment_of(path)
    first, size = regions(segment)[region]
    flip(segment, first + {"first": 0, "middle": size // 2, "last": size - 1}[place])
    with vecdb.open(path, background=False) as db:
        a = db.collection("a")
        assert_answers_are_right(a, ALIVE)
        assert a.stats().indexed == 0
    if place == "middle":
        assert_survives(path)


def truncated_to(size: int | Callable[[int], int]) -> Callable[[Path], None]:
    def damage(segment: Path) -> None:
        data = segment.read_bytes()
        segment.write_bytes(data[: size if isinstance(size, int) else size(len(data))])

    return damage


def replaced_by_the_other_collections(segment: Path) -> None:
    (other,) = segment.parent.glob("2-*.seg")
    shutil.copy(other, segment)


def replaced_by_a_folder(segment: Path) -> None:
    segment.unlink()
    segment.mkdir()


def folder_replaced_by_a_file(segment: Path) -> None:
    shutil.rmtree(segment.parent)
    segment.parent.write_text("somebody's notes")


DAMAGES: dict[str, Callable[[Path], None]] = {
    "empty": truncated_to(0),
    "a few bytes": truncated_to(5),
    "half of the fixed head": truncated_to(_HEAD.size // 2),
    "cut in the header": truncated_to(_HEAD.size + 20),
    "cut in the middle": truncated_to(lambda size: size // 2),
    "without its last 100 bytes": truncated_to(lambda size: size - 100),
    "zeros": lambda segment: segment.write_bytes(bytes(segment.stat().st_size)),
    "text": lambda segment: segment.write_text("not a segment at all" * 100),
    "removed": lambda segment: segment.unlink(),
    "removed with its folder": lambda segment: shutil.rmtree(segment.parent),
    "of another collection": replaced_by_the_other_collections,
    "a folder": replaced_by_a_folder,
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
def test_a_damaged_segment_costs_nothing_but_time(path: Path, damage: Callable[[Path], None]) -> None:
    damage(segment_of(path))
    assert_survives(path)


def test_an_unusable_index_folder_is_reported_and_answers_stay_right(path: Path) -> None:
    folder_replaced_by_a_file(segment_of(path))
    with vecdb.open(path, background=False) as db:
        a = db.collection("a")
        assert_answers_are_right(a, ALIVE)
        with pytest.raises(vecdb.StorageError):
            a.optimize()
        assert_answers_are_right(a, ALIVE)
        assert db.check() == []
    assert path.with_name(NAME + "-index").read_text() == "somebody's notes"


def test_bytes_after_the_last_array_change_nothing(path: Path) -> None:
    with segment_of(path).open("ab") as file:
        file.write(b"more")
    assert_survives(path)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_segment_with_random_flipped_bits_is_refused_or_the_same(original: Path, data: st.DataObject) -> None:
    source = segment_of(original / NAME)
    whole = source.read_bytes()
    checksum = _HEAD.unpack_from(whole)[3]
    wanted = open_segment(source, checksum).arrays
    places = data.draw(st.lists(st.tuples(st.integers(0, len(whole) - 1), st.integers(1, 255)), min_size=1, max_size=4))
    damaged = bytearray(whole)
    for position, bits in places:
        damaged[position] ^= bits
    target = original / "damaged.seg"
    target.write_bytes(damaged)
    try:
        found = open_segment(target, checksum).arrays
    except CorruptIndex:
        return
    assert found.keys() == wanted.keys()  # only padding was hit, or a bit was flipped back
    assert all(np.array_equal(found[name], wanted[name]) for name in wanted)


@settings(max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(position=st.floats(0, 1, exclude_max=True), bits=st.integers(1, 255))
def test_answers_are_right_wherever_a_bit_flips(
    original: Path, tmp_path_factory: pytest.TempPathFactory, position: float, bits: int
) -> None:
    folder = tmp_path_factory.mktemp("flipped") / "copy"
    shutil.copytree(original, folder)
    segment = segment_of(folder / NAME)
    flip(segment, int(position * segment.stat().st_size), bits)
    assert_survives(folder / NAME)


def test_damage_is_logged_once_not_at_every_search(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    segment_of(path).unlink()
    with caplog.at_level(logging.WARNING, "vecdb"), vecdb.open(path, background=False) as db:
        a = db.collection("a")
        a.warm()
        noticed = len(caplog.records)
        assert noticed
        for _ in range(5):
            a.warm()
            a.search(vectors(1)[0])
        assert len(caplog.records) == noticed


def test_who_uses_an_older_segment_goes_on_when_the_newer_one_is_damaged(path: Path) -> None:
    more = vectors(COUNT + 100)[COUNT:]
    alive = np.append(ALIVE, np.arange(COUNT, COUNT + 100))
    with vecdb.open(path, background=False) as user, vecdb.open(path, background=False) as other:
        used = user.collection("a")
        used.warm()
        assert_answers_are_right(used, ALIVE)
        older = segment_of(path)
        writing = other.collection("a")
        writing.add(ids=[f"r{i}" for i in range(COUNT, COUNT + 100)], vectors=more)
        writing.optimize()
        newer = segment_of(path)
        assert newer != older
        assert not older.exists()
        newer.write_bytes(newer.read_bytes()[:-5_000])
        assert_answers_are_right(used, alive)
        used.warm()  # sees that there is a newer one, and that it is damaged
        assert_answers_are_right(used, alive)
        used.optimize()
        assert_answers_are_right(used, alive)
        assert used.stats().tail == 0
        assert user.check() == []


def test_files_that_nobody_registered_go_with_the_next_merge(path: Path) -> None:
    folder = path.with_name(NAME + "-index")
    strays = [folder / "1-vector-0123456789abcdef.seg", folder / "1-vector-01.seg.4711.tmp", folder / "9-vector-22.seg"]
    for stray in strays:
        stray.write_bytes(b"left by a crash")
    foreign = folder / "notes.txt"
    foreign.write_text("somebody's")
    with vecdb.open(path, background=False) as db:
        db.collection("a").optimize()
    assert not any(stray.exists() for stray in strays)
    assert foreign.exists()
    segment_of(path, 1)
    segment_of(path, 2)


def test_a_dropped_collection_leaves_no_files(path: Path) -> None:
    with vecdb.open(path, background=False) as db:
        db.drop("a")  # never opened by this process
        assert db.check() == []
    assert [file.name[0] for file in path.with_name(NAME + "-index").glob("*.seg")] == ["2"]


def test_a_copy_of_the_file_alone_is_a_whole_database(path: Path, tmp_path: Path) -> None:
    alone = tmp_path / "alone" / NAME
    alone.parent.mkdir()
    shutil.copy(path, alone)
    assert_survives(alone)


def test_a_link_to_the_file_shares_its_index(path: Path, tmp_path: Path) -> None:
    link = tmp_path / "link.vecdb"
    try:
        link.symlink_to(path)
    except OSError:
        pytest.skip("this system makes no symbolic links")
    with vecdb.open(link, background=False) as db:
        assert db.index_folder == path.resolve().with_name(NAME + "-index")
        assert db.collection("a").stats().indexed == len(ALIVE)


# -- disk full, folders and files that cannot be written -----------------------------------------------------------------------


def tables_are_full(db: vecdb.Database, *, pages_more: int) -> None:
    """Let SQLite take the disk to be full after so many more pages."""
    with db._store.read() as reader:
        pages = reader.pragma("page_count")
    db._store._writer.pragma("max_page_count", pages + pages_more)


def test_a_batch_that_does_not_fit_leaves_no_trace_and_fits_once_there_is_room(path: Path) -> None:
    more = [{"id": f"m{i}", "text": "long " * 50, "vector": v} for i, v in enumerate(vectors(2_000, seed=5))]
    with vecdb.open(path, background=False) as db:
        a = db.collection("a")
        assert_answers_are_right(a, ALIVE)
        tables_are_full(db, pages_more=10)
        with pytest.raises(vecdb.DiskFull, match=r"no space left to write .*library\.vecdb"):
            a.add(more)
        with pytest.raises(vecdb.DiskFull):
            a.upsert(more)
        assert len(a) == len(ALIVE)
        assert a.get("m0") is None
        assert a.search("long", mode="text").ids == []
        assert_answers_are_right(a, ALIVE)
        assert db.check() == []
        a.delete("r1")  # there is room for that
        tables_are_full(db, pages_more=1_000)
        assert a.add(more).added == 2_000
        assert len(a) == len(ALIVE) - 1 + 2_000
        assert db.check() == []


class SmallDisk:
    """A file system of a few MB, and ways to fill it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ballast = folder / "ballast"

    def fill(self, *, leave: int) -> None:
        free = shutil.disk_usage(self.folder).free
        if free > leave:
            with self.ballast.open("ab") as file:
                file.write(b"x" * (free - leave))

    def empty(self) -> None:
        self.ballast.unlink(missing_ok=True)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[SmallDisk]:
    folder = tmp_path / "small"
    folder.mkdir()
    mount(["-t", "tmpfs", "-o", "size=8m", "tmpfs", str(folder)])
    yield SmallDisk(folder)
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def mount(arguments: list[str]) -> None:
    """Mount, or skip the test. Unmount with --lazy: a search that has ended may still map a segment."""
    if not sys.platform.startswith("linux"):
        pytest.skip("mounts a file system, which this test can do on Linux only")
    try:
        made = subprocess.run(["mount", *arguments], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("there is no mount command")
    if made.returncode:
        pytest.skip(f"may not mount a file system: {made.stderr.strip()}")


def test_a_full_disk_loses_nothing_and_is_survived(small_disk: SmallDisk) -> None:
    path = small_disk.folder / NAME
    with vecdb.open(path, background=False) as db:
        a = fill(db, "a", 0)
        small_disk.fill(leave=256 * 1024)
        acknowledged = set()
        with pytest.raises(vecdb.DiskFull, match="free some space"):
            for batch in range(10_000):
                ids = [f"b{batch}-{i}" for i in range(20)]
                a.add(ids=ids, vectors=vectors(20, seed=7), texts=["some words"] * 20)
                acknowledged |= set(ids)
        assert len(a) == len(ALIVE) + len(acknowledged)
        assert all(a.get(sorted(acknowledged)))
        assert a.get(f"b{batch}-0") is None
        assert a.search(vectors(1)[0], k=5, exact=True)
        small_disk.empty()
        a.delete(sorted(acknowledged)[:10])
        a.add(ids=[f"b{batch}-{i}" for i in range(20)], vectors=vectors(20, seed=7))
        assert db.check() == []
    with vecdb.open(path, background=False) as db:
        assert len(db.collection("a")) == len(ALIVE) + len(acknowledged) + 10
        assert db.check() == []


def test_opening_on_a_full_disk_gives_a_typed_error_or_works(small_disk: SmallDisk) -> None:
    path = small_disk.folder / NAME
    with vecdb.open(path, background=False) as db:
        fill(db, "a", 0)
    small_disk.fill(leave=0)
    with pytest.raises(vecdb.DiskFull):
        vecdb.open(path, background=False)
    with pytest.raises(vecdb.DiskFull):
        vecdb.open(small_disk.folder / "another.vecdb")
    small_disk.empty()
    assert_survives(path)


def test_a_segment_that_does_not_fit_is_given_up_and_answers_stay_right(small_disk: SmallDisk) -> None:
    path = small_disk.folder / NAME
    more, count = vectors(COUNT + 5_000)[COUNT:], COUNT + 5_000
    alive = np.append(ALIVE, np.arange(COUNT, count))
    with vecdb.open(path, background=False) as db:
        a = fill(db, "a", 0)
        a.add(ids=[f"r{i}" for i in range(COUNT, count)], vectors=more)
        before = segment_of(path)
        small_disk.fill(leave=200 * 1024)
        with pytest.raises(vecdb.DiskFull):
            a.optimize()
        assert list(before.parent.glob("1-*")) == [before]  # no half file takes up the room that is left
        assert db.check() == []
        assert_answers_are_right(a, alive)
        small_disk.empty()
        a.optimize()
        assert segment_of(path) != before
        assert db.check() == []


def test_a_background_merge_without_room_is_logged_and_put_off(
    small_disk: SmallDisk, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    import time

    from vecdb import upkeep

    monkeypatch.setattr(upkeep, "_LEAST_TAIL", 100)
    monkeypatch.setattr(upkeep, "_QUIET_S", 0.02)
    monkeypatch.setattr(upkeep, "_RETRY_S", 0.3)
    with vecdb.open(small_disk.folder / NAME, background=False) as db:
        fill(db, "a", 0)
    with caplog.at_level(logging.WARNING, "vecdb"), vecdb.open(small_disk.folder / NAME) as db:
        a = db.collection("a")
        a.add(ids=[f"r{i}" for i in range(COUNT, COUNT + 5_000)], vectors=vectors(COUNT + 5_000)[COUNT:])
        small_disk.fill(leave=200 * 1024)
        deadline = time.monotonic() + 20
        while "no space left" not in caplog.text and time.monotonic() < deadline:
            time.sleep(0.05)
        assert "no space left" in caplog.text
        assert_answers_are_right(a, np.append(ALIVE, np.arange(COUNT, COUNT + 5_000)))
        small_disk.empty()
        a.delete("r1")  # any write is an occasion to try again
        while a.stats().tail and time.monotonic() < deadline:
            time.sleep(0.05)
        assert a.stats().tail == 0


@pytest.fixture
def read_only_folder(path: Path) -> Iterator[Path]:
    """The database's folder, mounted so that nobody can write there: permissions do not bind the superuser."""
    folder = path.parent
    mount(["--bind", str(folder), str(folder)])
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", str(folder)], check=True, capture_output=True)
        yield path
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_a_read_only_folder_can_be_read_and_says_what_it_is(read_only_folder: Path) -> None:
    path = read_only_folder
    with pytest.raises(vecdb.ReadOnly, match="read_only=True"):
        vecdb.open(path)
    with pytest.raises(vecdb.StorageError):
        vecdb.open(path.with_name("new.vecdb"))
    with vecdb.open(path, read_only=True) as db:
        a = db.collection("a")
        assert_answers_are_right(a, ALIVE)
        a.warm()
        assert_answers_are_right(a, ALIVE)
        assert a.search(vectors(1)[0]).trace[0].detail["engine"] == "hnsw"
        assert db.check() == []
        with pytest.raises(vecdb.ReadOnly):
            a.add(ids=["new"], vectors=vectors(1))
        with pytest.raises(vecdb.ReadOnly):
            a.optimize()


def test_commits_that_a_read_only_folder_hides_are_not_left_out_silently(path: Path) -> None:
    """A write-ahead log without its shared-memory file can be read only where that file can be made."""
    with vecdb.open(path, background=False) as db:
        db.collection("a").add(ids=["late"], vectors=vectors(1))
        folder = path.parent.with_name("taken")
        shutil.copytree(path.parent, folder)
    (folder / (NAME + "-shm")).unlink()
    assert (folder / (NAME + "-wal")).stat().st_size
    mount(["--bind", str(folder), str(folder)])
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", str(folder)], check=True, capture_output=True)
        with pytest.raises(vecdb.ReadOnly, match="write-ahead log|last commits"):
            vecdb.open(folder / NAME, read_only=True)
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)
    with vecdb.open(folder / NAME, read_only=True) as db:
        assert db.collection("a").get("late") is not None


def test_a_file_that_cannot_be_written_gives_a_typed_error_and_stays_as_it_is(path: Path) -> None:
    if shutil.which("chattr") is None or subprocess.run(["chattr", "+i", str(path)], capture_output=True).returncode:
        pytest.skip("may not make a file immutable here (chattr +i)")
    try:
        before = path.read_bytes()
        with pytest.raises(vecdb.ReadOnly), vecdb.open(path, background=False) as db:
            db.collection("a").add(ids=["new"], vectors=vectors(1))
        with vecdb.open(path, read_only=True) as db:
            assert_answers_are_right(db.collection("a"), ALIVE)
        assert path.read_bytes() == before
    finally:
        subprocess.run(["chattr", "-i", str(path)], check=True)
    with vecdb.open(path, background=False) as db:
        db.collection("a").add(ids=["new"], vectors=vectors(1))
        assert db.check() == []


def test_a_database_opened_for_reading_refuses_every_write(path: Path) -> None:
    with vecdb.open(path, read_only=True) as db:
        a = db.collection("a")
        for write in (
            lambda: a.add(ids=["new"], vectors=vectors(1)),
            lambda: a.upsert(ids=["r1"], vectors=vectors(1)),
            lambda: a.update(ids=["r1"], metadata=[{"x": 1}]),
            lambda: a.delete("r1"),
            lambda: a.delete(where={"x": 1}),
            a.optimize,
            lambda: db.drop("a"),
        ):
            with pytest.raises(vecdb.ReadOnly):
                write()
        with pytest.raises(vecdb.CollectionNotFound):
            db.collection("new")
        assert_answers_are_right(a, ALIVE)


def test_a_reader_without_write_access_takes_over_what_others_merge(path: Path) -> None:
    with vecdb.open(path, read_only=True) as reader, vecdb.open(path, background=False) as writer:
        reading, writing = reader.collection("a"), writer.collection("a")
        reading.warm()
        writing.add(ids=[f"r{i}" for i in range(COUNT, COUNT + 200)], vectors=vectors(COUNT + 200)[COUNT:])
        assert reading.stats().tail == 200
        writing.optimize()
        reading.warm()
        assert reading.stats().tail == 0
        assert_answers_are_right(reading, np.append(ALIVE, np.arange(COUNT, COUNT + 200)))
