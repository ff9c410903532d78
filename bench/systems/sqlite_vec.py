"""sqlite-vec and FTS5 in one SQLite file, the way their documentation joins them: exact search, RRF of two lists in SQL."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

import apsw
import sqlite_vec

from bench.systems.base import COLUMNS, Setting, Where

if TYPE_CHECKING:
    from bench.data import Records, Vectors

_SCHEMA = """
CREATE TABLE records (row INTEGER PRIMARY KEY, id TEXT UNIQUE NOT NULL, text TEXT, metadata TEXT);
CREATE VIRTUAL TABLE words USING fts5(text, content='records', content_rowid='row', tokenize='porter unicode61');
CREATE VIRTUAL TABLE vectors USING vec0(
    row INTEGER PRIMARY KEY, embedding float[{dimension}] distance_metric=cosine, tenth INTEGER, thousandth INTEGER);
"""
_VECTOR = """
SELECT id, text, metadata, distance
FROM (SELECT row AS found, distance FROM vectors WHERE embedding MATCH ? AND k = ? {where}) JOIN records ON row = found
ORDER BY distance
"""
_TEXT = """
SELECT id, records.text, metadata, score
FROM (SELECT rowid AS found, rank AS score FROM words WHERE words MATCH ? ORDER BY rank LIMIT ?) JOIN records ON row = found
ORDER BY score
"""
_HYBRID = """
WITH near AS (SELECT row, row_number() OVER (ORDER BY distance) AS place FROM vectors WHERE embedding MATCH ? AND k = ?),
     said AS (SELECT rowid AS row, row_number() OVER (ORDER BY rank) AS place FROM words WHERE words MATCH ?
              ORDER BY rank LIMIT ?),
     fused AS (SELECT row, sum(1.0 / (60 + place)) AS score FROM (SELECT * FROM near UNION ALL SELECT * FROM said)
               GROUP BY row ORDER BY score DESC LIMIT ?)
SELECT id, text, metadata, score FROM fused JOIN records USING (row) ORDER BY score DESC
"""


class SqliteVec:
    columns = COLUMNS
    ladder: tuple[Setting, ...] = ({},)
    note = "exact search; filtered keys are columns of its vector table; text search is SQLite's FTS5"

    def __init__(self, folder: Path) -> None:
        self._path = folder / "records.sqlite"

    def create(self) -> None:
        self.open()

    def load(self, records: Records) -> None:
        self._db.execute(_SCHEMA.format(dimension=records.vectors.shape[1]))
        rows = range(len(records))
        with self._db:
            self._db.executemany(
                "INSERT INTO records VALUES (?, ?, ?, ?)",
                zip(rows, records.ids, records.texts, (json.dumps(m) for m in records.metadata)),
            )
            self._db.execute("INSERT INTO words (words) VALUES ('rebuild')")
            self._db.executemany(
                "INSERT INTO vectors (row, embedding, tenth, thousandth) VALUES (?, ?, ?, ?)",
                (
                    (row, vector.tobytes(), metadata["tenth"], metadata["thousandth"])
                    for row, vector, metadata in zip(rows, records.vectors, records.metadata)
                ),
            )

    def index(self) -> None:
        """There is none."""

    def open(self) -> None:
        self._db = apsw.Connection(str(self._path))
        self._db.enable_load_extension(True)
        self._db.load_extension(sqlite_vec.loadable_path())
        self._db.enable_load_extension(False)
        # As vecdb does: readers never wait, and a commit survives a power cut.
        for pragma in ("journal_mode = WAL", "synchronous = FULL", "cache_size = -65536"):
            self._db.execute(f"PRAGMA {pragma}")

    def warm(self) -> None:
        """There is nothing to ask for; the warm-up queries fill the page cache."""

    def vector(self, query: Vectors, k: int, setting: Setting, where: Where | None) -> list[str]:
        bound = [query.tobytes(), k] + ([] if where is None else [where[1]])
        sql = _VECTOR.format(where="" if where is None else f"AND {where[0]} = ?")
        return [str(id) for id, *_ in self._db.execute(sql, bound).fetchall()]

    def text(self, query: str, k: int) -> list[str]:
        return [str(id) for id, *_ in self._db.execute(_TEXT, (_any_word(query), k)).fetchall()]

    def hybrid(self, query: str, vector: Vectors, k: int, setting: Setting) -> list[str]:
        bound = (vector.tobytes(), 10 * k, _any_word(query), 10 * k, k)
        return [str(id) for id, *_ in self._db.execute(_HYBRID, bound).fetchall()]

    def close(self) -> None:
        self._db.close()


def _any_word(query: str) -> str:
    """An FTS5 query for any of the words, quoted so that none is read as an operator."""
    return " OR ".join(f'"{word}"' for word in dict.fromkeys(re.findall(r"\w+", query.lower())))


make = SqliteVec
