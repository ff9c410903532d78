"""Answers from SQLite itself, before any array is loaded: sqlite-vec scans the stored vectors, FTS5 searches the words."""

from __future__ import annotations

import os
import time
import weakref
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from itertools import chain, pairwise
from pathlib import Path
from typing import cast

import apsw
import numpy as np
import orjson

from vecdb.errors import InvalidQuery
from vecdb.query.ranking import Ranking, Rows, ranked
from vecdb.query.terms import QueryTerms
from vecdb.storage import Store
from vecdb.stored_vectors import StoredVectors
from vecdb.tables import Tables
from vecdb.types import Metric, Vector

# sqlite-vec has no inner product over plain columns; such collections load their vectors at once instead.
_DISTANCES: dict[Metric, str] = {"cosine": "vec_distance_cosine", "l2": "vec_distance_L2"}
# Below this many rows a second connection costs more than it saves.
_ROWS_A_THREAD = 10_000
# Under so many writes that each of these meets one, the last answer counts as it is.
_ATTEMPTS = 5


class ColdScan:
    """Exact search in SQL. `vectors` is None where that is impossible: no sqlite-vec, no extensions, inner product, or stored
    bytes that are not float32.
    """

    def __init__(self, store: Store, tables: Tables, stored: StoredVectors, metric: Metric) -> None:
        self._store = store
        self._stored = stored
        self._tables = tables
        self._metric = metric
        self._able: weakref.WeakSet[apsw.Connection] = weakref.WeakSet()
        self._pool: ThreadPoolExecutor | None = None

    def vectors(self, query: Vector, depth: int, rows: Rows | None) -> Ranking | None:
        """The depth nearest of rows (None: of all) by SQLite's own scan."""
        if self._metric not in _DISTANCES:
            return None
        blob = query.astype("<f4").tobytes()
        try:
            for _ in range(_ATTEMPTS):
                with self._store.read() as db:
                    if not self._stored.encoding(db).is_float32:
                        return None
                    seq = self._tables.last_seq(db)
                found = self._nearest(blob, depth, rows)
                with self._store.read() as db:
                    if not self._stored.encoding(
                        db
                    ).is_float32:  # since a moment ago: some may have been read as they are now
                        return None
                    if self._tables.last_seq(db) == seq:  # else the ranges may have seen different states
                        break
        except (ImportError, apsw.ExtensionLoadingError, AttributeError):  # apsw built without extensions has no method
            return None
        except apsw.SQLError:  # what sqlite-vec says to bytes of a codec
            with self._store.read() as db:
                if self._stored.encoding(db).is_float32:
                    raise
            return None
        distances = np.array([distance for _, distance in found], dtype=np.float64)
        scores = 1.0 - distances if self._metric == "cosine" else -distances
        return ranked("vector", np.array([row for row, _ in found], dtype=np.int64), scores).first(depth)

    def words(self, matches: Sequence[tuple[float, str]], depth: int, rows: Rows | None) -> Ranking:
        """The depth best records by FTS5's scores for FTS5 queries, each weighed. Raises InvalidQuery for one it cannot read."""
        if not matches:
            return Ranking.empty("text")
        words = self._tables.words
        listed: str
        bound: tuple[object, ...]
        if rows is None:
            listed, bound = self._unexpired("rowid")
        else:
            listed, bound = "AND rowid IN (SELECT value FROM json_each(?))", (orjson.dumps(rows.tolist()).decode(),)
        if len(matches) == 1 and matches[0][0] == 1.0:
            sql = f"SELECT rowid, -rank FROM {words} WHERE {words} MATCH ? {listed} ORDER BY rank LIMIT ?"
            values: tuple[object, ...] = (matches[0][1], *bound, depth)
        else:
            part = f"SELECT rowid, -rank * ? AS score FROM {words} WHERE {words} MATCH ? {listed}"
            sql = (
                f"SELECT rowid, sum(score) AS total FROM ({' UNION ALL '.join([part] * len(matches))}) "
                "GROUP BY rowid ORDER BY total DESC, rowid LIMIT ?"
            )
            values = (*chain.from_iterable((weight, match, *bound) for weight, match in matches), depth)
        try:
            with self._store.read() as db:
                found = db.execute(sql, values).fetchall()
        except apsw.SQLError as error:
            raise InvalidQuery(
                f"the text query {matches[0][1]!r} cannot be read ({error}); quote phrases with \"…\", or use syntax='plain'"
            ) from error
        return ranked(
            "text", np.array([r for r, _ in found], dtype=np.int64), np.array([s for _, s in found], dtype=np.float64)
        )

    def _nearest(self, blob: bytes, depth: int, rows: Rows | None) -> list[tuple[int, float]]:
        vectors, distance = self._tables.vectors, _DISTANCES[self._metric]
        if rows is not None:
            sql = (
                f"SELECT row, {distance}(vector, ?) AS d FROM {vectors} "
                "WHERE row IN (SELECT value FROM json_each(?)) ORDER BY d, row LIMIT ?"
            )
            return self._select(sql, (blob, orjson.dumps(rows.tolist()).decode(), depth))
        unexpired, moments = self._unexpired("row")
        sql = (
            f"SELECT row, {distance}(vector, ?) AS d FROM {vectors} "
            f"WHERE row BETWEEN ? AND ? {unexpired} ORDER BY d, row LIMIT ?"
        )
        parts = self._ranges()
        if len(parts) == 1:
            return self._select(sql, (blob, *parts[0], *moments, depth))
        if self._pool is None:
            self._pool = ThreadPoolExecutor(len(parts), thread_name_prefix="vecdb-cold")
        jobs = [self._pool.submit(self._select, sql, (blob, *part, *moments, depth)) for part in parts]
        return [line for job in jobs for line in job.result()]

    def frequency(self, terms: QueryTerms) -> int:
        """In how many records any of the terms occurs."""
        words = self._tables.words
        with self._store.read() as db:
            sql = f"SELECT count(*) FROM {words} WHERE {words} MATCH ?"
            return sum(int(db.execute(sql, (match,)).get) for _, match in terms.matches)

    def has_expired(self, now: float) -> bool:
        """Whether there are expired records, which the next write will delete."""
        with self._store.read() as db:
            sql = f"SELECT 1 FROM {self._tables.records} WHERE expires <= ? LIMIT 1"
            return db.execute(sql, (now,)).get is not None

    def _unexpired(self, row: str) -> tuple[str, tuple[object, ...]]:
        """A condition that leaves out expired records, and what to bind. Empty if there are none: it costs a quarter more."""
        now = time.time()
        if not self.has_expired(now):
            return "", ()
        return f"AND {row} NOT IN (SELECT row FROM {self._tables.records} WHERE expires <= ?)", (now,)

    def _ranges(self) -> list[tuple[int, int]]:
        """All rows as ranges of equal width, one for each thread that is worth its connection."""
        with self._store.read() as db:
            table = self._tables.vectors  # one query each: min and max together would read the whole table
            first = db.execute(f"SELECT min(row) FROM {table}").get
            last = db.execute(f"SELECT max(row) FROM {table}").get
        if first is None:
            return [(0, 0)]
        width = last - first + 1
        threads = 1 if self._store.path is None else max(1, min(os.cpu_count() or 1, width // _ROWS_A_THREAD))
        edges = [first + width * i // threads for i in range(threads + 1)]
        return [(start, end - 1) for start, end in pairwise(edges)]

    def _select(self, sql: str, bound: tuple[object, ...]) -> list[tuple[int, float]]:
        with self._store.read() as db:
            if db not in self._able:
                _load_sqlite_vec(db)
                self._able.add(db)
            return cast(list[tuple[int, float]], db.execute(sql, bound).fetchall())


def _load_sqlite_vec(db: apsw.Connection) -> None:
    """Load the extension without running its package's code, which imports the standard library's sqlite3: 100 ms."""
    package = find_spec("sqlite_vec")
    if package is None or not package.submodule_search_locations:
        raise ImportError("sqlite_vec is not installed")
    db.enable_load_extension(True)
    try:
        db.load_extension(str(Path(package.submodule_search_locations[0], "vec0")))
    finally:
        db.enable_load_extension(False)
