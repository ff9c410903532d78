"""The SQL of one collection. Every statement about records, vectors and words stands here.

Tables are named by the collection's number, never by its name. A row number is given once and never again. A record whose text
or vector changes gets a new row; one whose metadata changes keeps it, so whatever is derived from text and vectors (the word
index, the graph) only ever sees rows come and go.

    records_7   row, id, parent, seq, text, metadata (JSON), hash (of the text), created, updated, expires
    vectors_7   row, vector: little-endian float32, as sqlite-vec reads it
    words_7     FTS5 over texts_7, a view of the records that have text; it keeps no second copy of them
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple, cast

import apsw
import orjson

from vecdb.config import TextConfig

# Who is further behind than this many entries of the change log reads everything anew. An entry takes some 20 bytes.
CHANGES_KEPT = 100_000

# Rows of a list are bound as one JSON array: SQLite's limit on bound values does not apply.
_LISTED = "IN (SELECT value FROM json_each(?))"
_BOUND_AT_ONCE = 1_000


class StoredRecord(NamedTuple):
    """One line of records_N, as SQLite gives it."""

    row: int
    id: str
    parent: str | None
    seq: int | None
    text: str | None
    metadata: str
    hash: bytes | None
    created: float
    updated: float
    expires: float | None

    def is_expired(self, now: float) -> bool:
        return self.expires is not None and self.expires <= now


_COLUMNS = ", ".join(StoredRecord._fields)


class Change(NamedTuple):
    """A range of rows, first and last included. op: 'add', 'delete' or 'meta'; 'drop' when the collection itself went."""

    op: str
    first: int
    last: int


class Tables:
    """Statements for one collection. Methods take the connection: the caller owns the transaction."""

    def __init__(self, collection: int) -> None:
        self.collection = int(collection)
        self.records = f"records_{self.collection}"
        self.vectors = f"vectors_{self.collection}"
        self.words = f"words_{self.collection}"
        self.texts_view = f"texts_{self.collection}"

    # -- schema

    def create(self, db: apsw.Connection, text: TextConfig) -> None:
        tokenizer = " ".join(text.tokenizer)
        db.execute(
            f"""
            CREATE TABLE {self.records} (
                row INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, parent TEXT, seq INTEGER, text TEXT,
                metadata TEXT NOT NULL, hash BLOB, created REAL NOT NULL, updated REAL NOT NULL, expires REAL
            );
            CREATE INDEX {self.records}_parent ON {self.records} (parent) WHERE parent IS NOT NULL;
            CREATE INDEX {self.records}_expires ON {self.records} (expires) WHERE expires IS NOT NULL;
            CREATE INDEX {self.records}_hash ON {self.records} (hash) WHERE hash IS NOT NULL;
            CREATE TABLE {self.vectors} (row INTEGER PRIMARY KEY, vector BLOB NOT NULL);
            CREATE VIEW {self.texts_view} AS SELECT row, text FROM {self.records} WHERE text IS NOT NULL;
            CREATE VIRTUAL TABLE {self.words} USING fts5(
                text, content='{self.texts_view}', content_rowid='row', tokenize='{tokenizer}'
            );
            """
        )

    def drop(self, db: apsw.Connection) -> None:
        db.execute(f"DROP TABLE {self.words}; DROP VIEW {self.texts_view}")
        db.execute(f"DROP TABLE {self.vectors}; DROP TABLE {self.records}")
        for table in ("changes", "segments", "sources"):
            db.execute(f"DELETE FROM {table} WHERE collection = ?", (self.collection,))
        self._log(db, [Change("drop", 0, 0)])  # also keeps the log's last number from going back

    # -- writing

    def insert(
        self, db: apsw.Connection, records: Sequence[StoredRecord], vectors: Iterable[tuple[int, bytes]]
    ) -> None:
        """Add records, whose rows are consecutive and above all others, and the vectors of some of them."""
        if not records:
            return
        first, last = records[0].row, records[-1].row
        db.executemany(f"INSERT INTO {self.records} ({_COLUMNS}) VALUES (?,?,?,?,?,?,?,?,?,?)", records)
        db.executemany(f"INSERT INTO {self.vectors} (row, vector) VALUES (?,?)", vectors)
        db.execute(
            f"INSERT INTO {self.words} (rowid, text) "
            f"SELECT row, text FROM {self.records} WHERE row BETWEEN ? AND ? AND text IS NOT NULL",
            (first, last),
        )
        self._log(db, [Change("add", first, last)])

    def replace_fields(self, db: apsw.Connection, records: Sequence[StoredRecord]) -> None:
        """Store parent, seq, metadata, updated and expires anew; text and vector stay."""
        db.executemany(
            f"UPDATE {self.records} SET parent = ?, seq = ?, metadata = ?, updated = ?, expires = ? WHERE row = ?",
            ((r.parent, r.seq, r.metadata, r.updated, r.expires, r.row) for r in records),
        )
        self._log(db, _ranges("meta", [r.row for r in records]))

    def delete(self, db: apsw.Connection, rows: Sequence[int]) -> None:
        if not rows:
            return
        listed = (orjson.dumps(list(rows)).decode(),)
        db.execute(
            f"INSERT INTO {self.words} ({self.words}, rowid, text) "
            f"SELECT 'delete', row, text FROM {self.records} WHERE row {_LISTED} AND text IS NOT NULL",
            listed,
        )
        db.execute(f"DELETE FROM {self.vectors} WHERE row {_LISTED}", listed)
        db.execute(f"DELETE FROM {self.records} WHERE row {_LISTED}", listed)
        self._log(db, _ranges("delete", rows))

    def next_row(self, db: apsw.Connection) -> int:
        return 1 + (db.execute("SELECT seq FROM sqlite_sequence WHERE name = ?", (self.records,)).get or 0)

    def set_fingerprint(self, db: apsw.Connection, parent: str, fingerprint: str | None) -> None:
        if fingerprint is None:
            db.execute("DELETE FROM sources WHERE collection = ? AND parent = ?", (self.collection, parent))
        else:
            db.execute("REPLACE INTO sources VALUES (?, ?, ?)", (self.collection, parent, fingerprint))

    def _log(self, db: apsw.Connection, changes: Iterable[Change]) -> None:
        db.executemany(
            "INSERT INTO changes (collection, op, first, last) VALUES (?,?,?,?)",
            ((self.collection, *change) for change in changes),
        )
        db.execute("DELETE FROM changes WHERE seq <= (SELECT max(seq) FROM changes) - ?", (CHANGES_KEPT,))

    # -- reading: records

    def by_rows(self, db: apsw.Connection, rows: Sequence[int]) -> dict[int, StoredRecord]:
        """The records that exist, by row. Bound one by one: four times as fast as a JSON list for a page of hits."""
        records: dict[int, StoredRecord] = {}
        for start in range(0, len(rows), _BOUND_AT_ONCE):
            part = rows[start : start + _BOUND_AT_ONCE]
            marks = ",".join("?" * len(part))
            found = db.execute(f"SELECT {_COLUMNS} FROM {self.records} WHERE row IN ({marks})", part)
            records.update((line[0], StoredRecord(*line)) for line in found)
        return records

    def by_id(self, db: apsw.Connection, id: str) -> StoredRecord | None:
        found = db.execute(f"SELECT {_COLUMNS} FROM {self.records} WHERE id = ?", (id,)).fetchone()
        return None if found is None else StoredRecord(*found)

    def by_ids(self, db: apsw.Connection, ids: Sequence[str]) -> dict[str, StoredRecord]:
        """The records that exist; ids may be of any number."""
        found = db.execute(
            f"SELECT {_COLUMNS} FROM {self.records} WHERE id {_LISTED}", (orjson.dumps(list(ids)).decode(),)
        )
        return {line[1]: StoredRecord(*line) for line in found}

    def rows_of_parent(self, db: apsw.Connection, parent: str) -> list[int]:
        return [row for (row,) in db.execute(f"SELECT row FROM {self.records} WHERE parent = ?", (parent,))]

    def siblings(self, db: apsw.Connection, parent: str, first: int, last: int) -> list[StoredRecord]:
        """The records of one parent whose seq lies in first … last, in that order."""
        found = db.execute(
            f"SELECT {_COLUMNS} FROM {self.records} WHERE parent = ? AND seq BETWEEN ? AND ? ORDER BY seq",
            (parent, first, last),
        )
        return [StoredRecord(*line) for line in found]

    def expired(self, db: apsw.Connection, now: float) -> list[int]:
        found = db.execute(f"SELECT row FROM {self.records} WHERE expires <= ?", (now,))
        return [row for (row,) in found]

    def page(self, db: apsw.Connection, after: int, now: float, limit: int) -> list[StoredRecord]:
        found = db.execute(
            f"SELECT {_COLUMNS} FROM {self.records} WHERE row > ? AND (expires IS NULL OR expires > ?) ORDER BY row LIMIT ?",
            (after, now, limit),
        )
        return [StoredRecord(*line) for line in found]

    def count(self, db: apsw.Connection, now: float) -> int:
        expired = db.execute(f"SELECT count(*) FROM {self.records} WHERE expires <= ?", (now,)).get
        return int(db.execute(f"SELECT count(*) FROM {self.records}").get - expired)

    def fields(self, db: apsw.Connection, first: int, last: int) -> Iterator[tuple[Any, ...]]:
        """(row, metadata, parent, seq, created, updated) of rows first … last, ascending."""
        return db.execute(
            f"SELECT row, metadata, parent, seq, created, updated FROM {self.records} WHERE row BETWEEN ? AND ? ORDER BY row",
            (first, last),
        )

    def lifetimes(self, db: apsw.Connection, first: int, last: int) -> list[tuple[int, float | None]]:
        """(row, expires) of rows first … last, ascending."""
        sql = f"SELECT row, expires FROM {self.records} WHERE row BETWEEN ? AND ? ORDER BY row"
        return cast(list[tuple[int, float | None]], db.execute(sql, (first, last)).fetchall())

    def texts(self, db: apsw.Connection, first: int, last: int) -> Iterator[tuple[int, str]]:
        sql = f"SELECT row, text FROM {self.records} WHERE row BETWEEN ? AND ? AND text IS NOT NULL ORDER BY row"
        return db.execute(sql, (first, last))

    def fingerprints(self, db: apsw.Connection) -> dict[str, str]:
        return dict(db.execute("SELECT parent, fingerprint FROM sources WHERE collection = ?", (self.collection,)))

    def count_texts(self, db: apsw.Connection, match: str | None = None) -> int:
        """How many records have text; with an FTS5 query, how many of them match it."""
        if match is None:
            return int(db.execute(f"SELECT count(*) FROM {self.texts_view}").get)
        return int(db.execute(f"SELECT count(*) FROM {self.words} WHERE {self.words} MATCH ?", (match,)).get)

    def text_bytes(self, db: apsw.Connection) -> int:
        return int(db.execute(f"SELECT coalesce(sum(octet_length(text)), 0) FROM {self.records}").get)

    # -- reading: vectors

    def vector(self, db: apsw.Connection, row: int) -> bytes | None:
        found: bytes | None = db.execute(f"SELECT vector FROM {self.vectors} WHERE row = ?", (row,)).get
        return found

    def vectors_between(self, db: apsw.Connection, first: int, last: int) -> Iterator[tuple[int, bytes]]:
        sql = f"SELECT row, vector FROM {self.vectors} WHERE row BETWEEN ? AND ? ORDER BY row"
        return db.execute(sql, (first, last))

    def vector_of_hash(self, db: apsw.Connection, text_hash: bytes) -> bytes | None:
        """A vector that this very text already has."""
        found: bytes | None = db.execute(
            f"SELECT vector FROM {self.records} JOIN {self.vectors} USING (row) WHERE hash = ? LIMIT 1", (text_hash,)
        ).get
        return found

    def count_vectors(self, db: apsw.Connection) -> int:
        return int(db.execute(f"SELECT count(*) FROM {self.vectors}").get)

    # -- reading: changes

    def last_seq(self, db: apsw.Connection) -> int:
        """Of the whole database: cheap, and never smaller than the collection's own."""
        return int(db.execute("SELECT max(seq) FROM changes").get or 0)

    def changes_since(self, db: apsw.Connection, seq: int) -> list[Change]:
        found = db.execute(
            "SELECT op, first, last FROM changes WHERE collection = ? AND seq > ? ORDER BY seq", (self.collection, seq)
        )
        return [Change(*line) for line in found]


def _ranges(op: str, rows: Iterable[int]) -> list[Change]:
    """Rows as few ranges: consecutive rows share one."""
    ranges: list[Change] = []
    for row in sorted(rows):
        if ranges and row == ranges[-1].last + 1:
            ranges[-1] = ranges[-1]._replace(last=row)
        else:
            ranges.append(Change(op, row, row))
    return ranges
