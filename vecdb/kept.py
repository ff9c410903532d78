"""What was fitted for a collection or saved with it, in the file: JSON values, and arrays where numbers are many.

Each has a kind ("tuning", "derived", …) and a name, which is empty where there is one of its kind.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from typing import Any

import apsw
import numpy as np
import orjson
from numpy.typing import NDArray

from vecdb.errors import StorageError

Arrays = Mapping[str, NDArray[Any]]


class Kept:
    """What is kept for one collection."""

    def __init__(self, collection: int) -> None:
        self._collection = collection

    def get(self, db: apsw.Connection, kind: str, name: str = "") -> Any:
        """The JSON value; None if nothing is kept."""
        sql = "SELECT value FROM kept WHERE collection = ? AND kind = ? AND name = ?"
        found = db.execute(sql, (self._collection, kind, name)).get
        return None if found is None else orjson.loads(found)

    def all(self, db: apsw.Connection, kind: str) -> dict[str, Any]:
        """The JSON values of this kind by name, in the order of names."""
        sql = "SELECT name, value FROM kept WHERE collection = ? AND kind = ? ORDER BY name"
        return {name: orjson.loads(value) for name, value in db.execute(sql, (self._collection, kind))}

    def arrays(self, db: apsw.Connection, kind: str, name: str = "") -> dict[str, NDArray[Any]]:
        """The arrays beside the value; none if there are none. Raises StorageError if they are damaged."""
        sql = "SELECT arrays FROM kept WHERE collection = ? AND kind = ? AND name = ?"
        found = db.execute(sql, (self._collection, kind, name)).get
        return {} if found is None else unpacked(found, f"{kind} {name}".strip())

    def put(self, db: apsw.Connection, kind: str, value: Any, name: str = "", arrays: Arrays | None = None) -> None:
        """Keep it instead of what was kept under that kind and name."""
        saved = orjson.dumps(value).decode()
        sql = "INSERT OR REPLACE INTO kept (collection, kind, name, value, arrays) VALUES (?, ?, ?, ?, ?)"
        db.execute(sql, (self._collection, kind, name, saved, None if arrays is None else packed(arrays)))

    def forget(self, db: apsw.Connection, kind: str, name: str = "") -> bool:
        """Whether there was one."""
        sql = "DELETE FROM kept WHERE collection = ? AND kind = ? AND name = ?"
        db.execute(sql, (self._collection, kind, name))
        return db.changes() > 0

    def forget_all(self, db: apsw.Connection) -> None:
        db.execute("DELETE FROM kept WHERE collection = ?", (self._collection,))


def packed(arrays: Arrays) -> bytes:
    """NumPy's .npz: any zip reader opens it, and it checks its own sums."""
    file = io.BytesIO()
    np.savez(file, **arrays)  # type: ignore[arg-type]  # NumPy's stubs take every keyword for allow_pickle
    return file.getvalue()


def unpacked(data: bytes, name: str) -> dict[str, NDArray[Any]]:
    """name: for the message. Raises StorageError."""
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as file:
            return dict(file)
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise StorageError(
            f"the arrays kept as {name!r} are damaged ({error}); restore a backup, or make them anew"
        ) from error
