"""What is kept for a collection beside its records."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import vecdb
from vecdb.errors import StorageError
from vecdb.kept import Kept, packed, unpacked


def test_values_and_arrays_come_back(tmp_path: Path) -> None:
    numbers = np.arange(6, dtype=np.float32).reshape(2, 3)
    with vecdb.open(tmp_path / "a.vecdb") as db:
        kept = Kept(db.collection("notes")._definition.number)
        with db._store.write() as connection:
            kept.put(connection, "map", {"rank": 2}, arrays={"numbers": numbers})
            kept.put(connection, "query", [1], "b")
            kept.put(connection, "query", [2], "a")
            kept.put(connection, "query", [3], "b")
    with vecdb.open(tmp_path / "a.vecdb") as db, db._store.read() as connection:
        assert kept.get(connection, "map") == {"rank": 2}
        assert np.array_equal(kept.arrays(connection, "map")["numbers"], numbers)
        assert list(kept.all(connection, "query").items()) == [("a", [2]), ("b", [3])]
        assert kept.get(connection, "query", "c") is None
        assert kept.arrays(connection, "query", "a") == {}


def test_forgetting_says_whether_there_was_one() -> None:
    with vecdb.open(":memory:") as db:
        kept = db.collection("notes")._definition.kept
        with db._store.write() as connection:
            kept.put(connection, "query", 1, "a")
            assert kept.forget(connection, "query", "a")
            assert not kept.forget(connection, "query", "a")


def test_a_dropped_collection_leaves_nothing_to_one_of_the_same_name() -> None:
    with vecdb.open(":memory:") as db:
        kept = db.collection("notes")._definition.kept
        with db._store.write() as connection:
            kept.put(connection, "query", 1, "a")
        db.drop("notes")
        kept = db.collection("notes")._definition.kept
        with db._store.read() as connection:
            assert kept.all(connection, "query") == {}
            assert connection.execute("SELECT count(*) FROM kept").get == 0


def test_damaged_arrays_are_refused() -> None:
    data = packed({"numbers": np.arange(100)})
    for damaged in (b"", data[:50], data[:200] + b"x" + data[201:]):
        with pytest.raises(StorageError, match="damaged"):
            unpacked(damaged, "map")
