"""The index files of one collection: which is the newest, opening it, and putting a newer one in its place.

A file is first written and synced, then registered in the database, then its predecessors are removed. A crash between any two
of these steps leaves a file that nobody knows (removed at the next merge) or a registered, complete one.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import apsw
import numpy as np
from numpy.typing import NDArray

from vecdb import durable
from vecdb.errors import CollectionNotFound, CorruptIndex
from vecdb.segments import open_segment, write_segment
from vecdb.storage import Store, files_translated

_log = logging.getLogger("vecdb")


@dataclass(frozen=True, slots=True)
class SavedIndex:
    """An index as saved. rows: (p,) int64, ascending, the row of each position; every older row is in it or deleted.

    last_row: rows above it are newer than this index.
    """

    epoch: int
    last_row: int
    rows: NDArray[np.int64]
    settings: dict[str, Any]
    arrays: Mapping[str, NDArray[Any]]


class IndexFiles:
    """folder is None for a database in memory, which keeps no index files. field: whose vectors."""

    def __init__(self, store: Store, folder: Path | None, collection: int, field: str = "vector") -> None:
        self._field = field
        self._store = store
        self._folder = folder
        self._collection = collection

    def newest_epoch(self, db: apsw.Connection) -> int:
        sql = "SELECT max(epoch) FROM segments WHERE collection = ? AND field = ?"
        return int(db.execute(sql, (self._collection, self._field)).get or 0)

    def bytes(self, db: apsw.Connection) -> int:
        sql = "SELECT coalesce(sum(bytes), 0) FROM segments WHERE collection = ?"
        return int(db.execute(sql, (self._collection,)).get)

    def open_newest(self, db: apsw.Connection) -> SavedIndex | None:
        """The newest saved index, verified byte by byte; None if there is none, or it is damaged or gone."""
        sql = (
            "SELECT epoch, file, checksum FROM segments WHERE collection = ? AND field = ? ORDER BY epoch DESC LIMIT 1"
        )
        found = db.execute(sql, (self._collection, self._field)).fetchone()
        if found is None or not found[1] or self._folder is None:
            return None
        epoch, file, checksum = found
        try:
            segment = open_segment(self._folder / Path(file).name, checksum)
            arrays = dict(segment.arrays)
            return SavedIndex(epoch, segment.settings["last_row"], arrays.pop("rows"), segment.settings, arrays)
        except (CorruptIndex, KeyError) as error:
            _log.warning("index file %s cannot be used, searching exactly until it is rebuilt: %s", file, error)
            return None

    def publish(
        self,
        settings: dict[str, Any],
        arrays: Mapping[str, NDArray[Any]],
        rows: NDArray[np.int64],
        *,
        upto_seq: int,
        last_row: int,
    ) -> SavedIndex:
        """Save an index as the newest; returns it mapped from its file, or as given for a database in memory.

        Raises DiskFull, ReadOnly, StorageError, DatabaseClosed, CollectionNotFound; then the present one stays in place.
        """
        settings = {**settings, "last_row": last_row}
        if self._folder is None:
            with self._store.write() as db:
                epoch = self._register(db, upto_seq, "", 0, 0)
            return SavedIndex(epoch, last_row, rows, settings, arrays)
        path = self._folder / f"{self._collection}-{self._field}-{secrets.token_hex(8)}.seg"
        with self._store.kept_open(), files_translated(path):
            durable.make_folder(self._folder)
            try:
                checksum = write_segment(path, settings, {**arrays, "rows": rows})
                with self._store.write() as db:
                    epoch = self._register(db, upto_seq, path.name, checksum, path.stat().st_size)
            except BaseException:
                durable.remove_file(path)
                raise
            self.remove_strays()
        segment = open_segment(path, checksum)
        mapped = dict(segment.arrays)
        return SavedIndex(epoch, last_row, mapped.pop("rows"), segment.settings, mapped)

    def forget(self, db: apsw.Connection) -> None:
        """What is saved is of no use any more: its vectors are not those of the tables. Epochs go on from it."""
        sql = "UPDATE segments SET file = '', checksum = 0, bytes = 0 WHERE collection = ? AND field = ?"
        db.execute(sql, (self._collection, self._field))

    def remove_strays(self) -> None:
        """Remove files that the database does not know: predecessors, and what a crash or a dropped collection left.

        Only who holds the merge lock may call it: nobody else then has a file that is not registered yet.
        """
        if self._folder is None or not self._folder.is_dir():
            return
        with self._store.read() as db:
            known = {file for (file,) in db.execute("SELECT file FROM segments")}
        for pattern in ("*.seg", "*.seg.*.tmp"):
            for path in self._folder.glob(pattern):
                if path.name not in known:
                    durable.remove_file(path)

    def remove_all(self) -> None:
        """Remove the files of this collection, which has been dropped."""
        if self._folder is not None and self._folder.is_dir():
            for path in self._folder.glob(f"{self._collection}-*"):
                durable.remove_file(path)

    def _register(self, db: apsw.Connection, upto_seq: int, file: str, checksum: int, size: int) -> int:
        if not db.execute("SELECT count(*) FROM collections WHERE id = ?", (self._collection,)).get:
            raise CollectionNotFound("the collection was dropped while its index was built")
        epoch = 1 + self.newest_epoch(db)
        db.execute("DELETE FROM segments WHERE collection = ? AND field = ?", (self._collection, self._field))
        db.execute(
            "INSERT INTO segments (collection, field, epoch, upto_seq, file, checksum, bytes) VALUES (?,?,?,?,?,?,?)",
            (self._collection, self._field, epoch, upto_seq, file, checksum, size),
        )
        return epoch
