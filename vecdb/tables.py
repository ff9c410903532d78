"""The SQL of one collection. Every statement about records, vectors and words stands here.

Tables are named by the collection's number, never by its name. A row number is given once and never again. A record whose text
or vector changes gets a new row; one whose metadata changes keeps it, so whatever is derived from text and vectors (the word
index, the graph) only ever sees rows come and go.

    records_7   row, id, parent, seq, text, metadata (JSON), hash (of the text), created, updated, expires
    vectors_7   row, vector: little-endian float32, as sqlite-vec reads it, or a codec's bytes (see stored_vectors.py)
    fields_7    row, and the texts of the metadata keys that are searched; only where there are such (see TextConfig.fields)
    words_7     FTS5 over texts_7, a view of the records that have text; it keeps no second copy of them
    tokens_7    row, tokens: vectors of the text's tokens, as rerank/tokens.py writes them; only of collections that keep such
    links_7     source, target (rows), kind, weight, directed; of one kind, two records have one undirected, or one each way
    mentions_7  entity, row: what the texts name
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple, cast

import apsw
import numpy as np
import orjson
from numpy.typing import NDArray

from vecdb.config import TextConfig
from vecdb.metadata import decode
from vecdb.words import field_texts

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
    """A range of rows, first and last included. op: 'add', 'delete' or 'meta'; 'drop' when the collection itself went; 'links'
    (of no rows) when links or mentions changed, 'recode' when all vectors got other bytes.
    """

    op: str
    first: int
    last: int


class StoredLink(NamedTuple):
    """One line of links_N: two rows."""

    source: int
    target: int
    kind: str
    weight: float
    directed: bool


class Tables:
    """Statements for one collection. Methods take the connection: the caller owns the transaction."""

    def __init__(self, collection: int, text: TextConfig) -> None:
        self.collection = int(collection)
        self._text = text
        self._keys = text.keys
        names = {key: f"field_{i}" for i, key in enumerate(self._keys)}  # what users call them never becomes SQL
        self.columns = {name: names.get(name, "text") for name in text.fields}  # of the word index, by field
        self._columns = ", ".join(self.columns.values())
        self._field_columns = ", ".join(names.values())
        self.searched = f"fields_{self.collection}"
        self.records = f"records_{self.collection}"
        self.vectors = f"vectors_{self.collection}"
        self.words = f"words_{self.collection}"
        self.texts_view = f"texts_{self.collection}"
        self.tokens = f"tokens_{self.collection}"
        self.links = f"links_{self.collection}"
        self.mentions = f"mentions_{self.collection}"

    # -- schema

    def create(self, db: apsw.Connection) -> None:
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
            CREATE TABLE {self.tokens} (row INTEGER PRIMARY KEY, tokens BLOB NOT NULL);
            CREATE TABLE {self.links} (
                source INTEGER NOT NULL, target INTEGER NOT NULL, kind TEXT NOT NULL, weight REAL NOT NULL,
                directed INTEGER NOT NULL, PRIMARY KEY (source, target, kind)
            ) WITHOUT ROWID;
            CREATE INDEX {self.links}_target ON {self.links} (target);
            CREATE TABLE {self.mentions} (
                entity TEXT NOT NULL, row INTEGER NOT NULL, PRIMARY KEY (entity, row)
            ) WITHOUT ROWID;
            CREATE INDEX {self.mentions}_row ON {self.mentions} (row);
            """
        )
        if self._keys:
            db.execute(
                f"""
                CREATE TABLE {self.searched} (row INTEGER PRIMARY KEY, {self._field_columns.replace(",", " TEXT,")} TEXT);
                CREATE VIEW {self.texts_view} AS
                SELECT row, {self._columns} FROM {self.records} LEFT JOIN {self.searched} USING (row)
                WHERE text IS NOT NULL OR row IN (SELECT row FROM {self.searched});
                """
            )
        else:
            db.execute(f"CREATE VIEW {self.texts_view} AS SELECT row, text FROM {self.records} WHERE text IS NOT NULL")
        db.execute(
            f"CREATE VIRTUAL TABLE {self.words} USING fts5({self._columns}, content='{self.texts_view}', content_rowid='row', "
            f"tokenize='{' '.join(self._text.tokenizer)}')"
        )
        if self._text.rank is not None:
            db.execute(f"INSERT INTO {self.words} ({self.words}, rank) VALUES ('rank', ?)", (self._text.rank,))

    def rebuild_words(self, db: apsw.Connection) -> None:
        """Make the word index anew from the texts: another version of a stemmer makes other terms of them."""
        db.execute(f"INSERT INTO {self.words} ({self.words}) VALUES ('rebuild')")

    def drop(self, db: apsw.Connection) -> None:
        db.execute(f"DROP TABLE {self.words}; DROP VIEW {self.texts_view}; DROP TABLE IF EXISTS {self.searched}")
        db.execute(f"DROP TABLE {self.vectors}; DROP TABLE {self.tokens}; DROP TABLE {self.records}")
        db.execute(f"DROP TABLE {self.links}; DROP TABLE {self.mentions}")
        for table in ("changes", "segments", "sources"):
            db.execute(f"DELETE FROM {table} WHERE collection = ?", (self.collection,))
        self._log(db, [Change("drop", 0, 0)])  # also keeps the log's last number from going back

    # -- writing

    def insert(
        self,
        db: apsw.Connection,
        records: Sequence[StoredRecord],
        vectors: Iterable[tuple[int, bytes]],
        tokens: Iterable[tuple[int, bytes]] = (),
    ) -> None:
        """Add records, whose rows are consecutive and above all others, and the vectors and token vectors of some of them."""
        if not records:
            return
        first, last = records[0].row, records[-1].row
        db.executemany(f"INSERT INTO {self.records} ({_COLUMNS}) VALUES (?,?,?,?,?,?,?,?,?,?)", records)
        db.executemany(f"INSERT INTO {self.vectors} (row, vector) VALUES (?,?)", vectors)
        db.executemany(f"INSERT INTO {self.tokens} (row, tokens) VALUES (?,?)", tokens)
        if self._keys:
            marks = ",?" * len(self._keys)
            db.executemany(
                f"INSERT INTO {self.searched} VALUES (?{marks})",
                ((r.row, *texts) for r in records if any(texts := self.field_texts(r.metadata))),
            )
        db.execute(
            f"INSERT INTO {self.words} (rowid, {self._columns}) "
            f"SELECT row, {self._columns} FROM {self.texts_view} WHERE row BETWEEN ? AND ?",
            (first, last),
        )
        self._log(db, [Change("add", first, last)])

    def field_texts(self, metadata: str) -> tuple[str | None, ...]:
        """What is searched of a record besides its text."""
        return field_texts(decode(metadata), self._keys) if self._keys else ()

    def replace_fields(self, db: apsw.Connection, records: Sequence[StoredRecord]) -> None:
        """Store parent, seq, metadata, updated and expires anew; text and vector stay."""
        db.executemany(
            f"UPDATE {self.records} SET parent = ?, seq = ?, metadata = ?, updated = ?, expires = ? WHERE row = ?",
            ((r.parent, r.seq, r.metadata, r.updated, r.expires, r.row) for r in records),
        )
        self._log(db, _ranges("meta", [r.row for r in records]))

    def delete(self, db: apsw.Connection, rows: Sequence[int], *, keep_links: bool = False) -> None:
        """keep_links: leave links and mentions be, because the records get new rows now (see `move_links`)."""
        if not rows:
            return
        listed = (orjson.dumps(list(rows)).decode(),)
        db.execute(
            f"INSERT INTO {self.words} ({self.words}, rowid, {self._columns}) "
            f"SELECT 'delete', row, {self._columns} FROM {self.texts_view} WHERE row {_LISTED}",
            listed,
        )
        if self._keys:
            db.execute(f"DELETE FROM {self.searched} WHERE row {_LISTED}", listed)
        db.execute(f"DELETE FROM {self.vectors} WHERE row {_LISTED}", listed)
        db.execute(f"DELETE FROM {self.tokens} WHERE row {_LISTED}", listed)
        db.execute(f"DELETE FROM {self.records} WHERE row {_LISTED}", listed)
        changes = _ranges("delete", rows)
        ends = [] if keep_links else self._link_ends
        if sum(self._changed(db, f"DELETE FROM {table} WHERE {end} {_LISTED}", listed) for table, end in ends):
            changes.append(_LINKS_CHANGED)
        self._log(db, changes)

    def move_links(self, db: apsw.Connection, moves: Sequence[tuple[int, int]]) -> None:
        """Give the links and mentions of each record its new row. moves: (old row, new row)."""
        before = db.total_changes()
        for table, end in self._link_ends:
            db.executemany(f"UPDATE {table} SET {end} = ? WHERE {end} = ?", ((new, old) for old, new in moves))
        if db.total_changes() > before:
            self._log(db, [_LINKS_CHANGED])

    def put_links(self, db: apsw.Connection, links: Iterable[StoredLink]) -> None:
        """Add links, in this order. One replaces whatever link of its kind and records it cannot stand beside."""
        db.executemany(
            f"DELETE FROM {self.links} WHERE source = ? AND target = ? AND kind = ? AND directed <= ?;"
            f"REPLACE INTO {self.links} (source, target, kind, weight, directed) VALUES (?,?,?,?,?)",
            ((link.target, link.source, link.kind, not link.directed, *link) for link in links),
        )
        self._log(db, [_LINKS_CHANGED])

    def remove_links(self, db: apsw.Connection, ends: Iterable[tuple[int, int]], kind: str | None) -> int:
        """Delete the links from one row to another, undirected ones in either order, of one kind or all. Returns how many."""
        of_kind, bound = ("", ()) if kind is None else ("AND kind = ?", (kind,))
        sql = f"DELETE FROM {self.links} WHERE source = ? AND target = ? AND directed <= ? {of_kind}"
        removed = 0
        for source, target in ends:
            removed += self._changed(db, sql, (source, target, True, *bound))
            removed += self._changed(db, sql, (target, source, False, *bound))
        if removed:
            self._log(db, [_LINKS_CHANGED])
        return removed

    def put_mentions(self, db: apsw.Connection, mentions: Iterable[tuple[str, int]]) -> None:
        """Note which entity is named in which row."""
        before = db.total_changes()
        db.executemany(f"INSERT OR IGNORE INTO {self.mentions} (entity, row) VALUES (?,?)", mentions)
        if db.total_changes() > before:
            self._log(db, [_LINKS_CHANGED])

    def forget_mentions(self, db: apsw.Connection, rows: Sequence[int]) -> None:
        if self._changed(db, f"DELETE FROM {self.mentions} WHERE row {_LISTED}", (orjson.dumps(list(rows)).decode(),)):
            self._log(db, [_LINKS_CHANGED])

    @property
    def _link_ends(self) -> list[tuple[str, str]]:
        """Where rows are named besides their own tables: (table, column)."""
        return [(self.links, "source"), (self.links, "target"), (self.mentions, "row")]

    def _changed(self, db: apsw.Connection, sql: str, bound: tuple[object, ...]) -> int:
        """Run one statement; returns how many lines it changed."""
        before = db.total_changes()
        db.execute(sql, bound)
        return db.total_changes() - before

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

    def ids(self, db: apsw.Connection, rows: Sequence[int]) -> dict[int, str]:
        """The id of each of these rows that exists."""
        found = db.execute(f"SELECT row, id FROM {self.records} WHERE row {_LISTED}", (orjson.dumps(rows).decode(),))
        return dict(found)

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

    def texts(self, db: apsw.Connection, first: int, last: int) -> Iterator[tuple[Any, ...]]:
        """(row, text of each field or None) of rows first … last that have any, ascending."""
        sql = f"SELECT row, {self._columns} FROM {self.texts_view} WHERE row BETWEEN ? AND ? ORDER BY row"
        return db.execute(sql, (first, last))

    def fingerprints(self, db: apsw.Connection) -> dict[str, str]:
        return dict(db.execute("SELECT parent, fingerprint FROM sources WHERE collection = ?", (self.collection,)))

    def count_texts(self, db: apsw.Connection) -> int:
        """How many records have text."""
        return int(db.execute(f"SELECT count(*) FROM {self.texts_view}").get)

    def text_bytes(self, db: apsw.Connection) -> int:
        return int(db.execute(f"SELECT coalesce(sum(octet_length(text)), 0) FROM {self.records}").get)

    # -- reading: vectors

    def vector(self, db: apsw.Connection, row: int) -> bytes | None:
        found: bytes | None = db.execute(f"SELECT vector FROM {self.vectors} WHERE row = ?", (row,)).get
        return found

    def vectors_of(self, db: apsw.Connection, rows: Sequence[int]) -> dict[int, bytes]:
        """The vector of each of these rows that has one."""
        sql = f"SELECT row, vector FROM {self.vectors} WHERE row {_LISTED}"
        return dict(db.execute(sql, (orjson.dumps(rows).decode(),)))

    def tokens_of(self, db: apsw.Connection, rows: Sequence[int]) -> dict[int, bytes]:
        """The token vectors of each of these rows that has some."""
        sql = f"SELECT row, tokens FROM {self.tokens} WHERE row {_LISTED}"
        return dict(db.execute(sql, (orjson.dumps(list(rows)).decode(),)))

    def vectors_between(self, db: apsw.Connection, first: int, last: int) -> Iterator[tuple[int, bytes]]:
        sql = f"SELECT row, vector FROM {self.vectors} WHERE row BETWEEN ? AND ? ORDER BY row"
        return db.execute(sql, (first, last))

    def vector_of_hash(self, db: apsw.Connection, text_hash: bytes) -> tuple[int, bytes] | None:
        """A row with this very text, and the vector that it already has."""
        found = db.execute(
            f"SELECT row, vector FROM {self.records} JOIN {self.vectors} USING (row) WHERE hash = ? LIMIT 1",
            (text_hash,),
        ).fetchone()
        return cast("tuple[int, bytes] | None", found)

    def count_vectors(self, db: apsw.Connection, upto: int | None = None) -> int:
        """upto: those of rows up to this one."""
        where, bound = ("", ()) if upto is None else ("WHERE row <= ?", (upto,))
        return int(db.execute(f"SELECT count(*) FROM {self.vectors} {where}", bound).get)

    def vector_bytes(self, db: apsw.Connection) -> int:
        return int(db.execute(f"SELECT coalesce(sum(octet_length(vector)), 0) FROM {self.vectors}").get)

    def vector_rows(self, db: apsw.Connection) -> NDArray[np.int64]:
        """The rows that have a vector, ascending."""
        found = db.execute(f"SELECT row FROM {self.vectors} ORDER BY row")
        return np.fromiter((row for (row,) in found), np.int64)

    def next_vectors(self, db: apsw.Connection, after: int, limit: int) -> list[tuple[int, bytes]]:
        """The first rows above one, with their vectors."""
        sql = f"SELECT row, vector FROM {self.vectors} WHERE row > ? ORDER BY row LIMIT ?"
        return cast(list[tuple[int, bytes]], db.execute(sql, (after, limit)).fetchall())

    def replace_vectors(self, db: apsw.Connection, vectors: Iterable[tuple[bytes, int]]) -> None:
        """Other bytes for the vectors of rows; says nothing in the log."""
        db.executemany(f"UPDATE {self.vectors} SET vector = ? WHERE row = ?", vectors)

    def log_recoded(self, db: apsw.Connection) -> None:
        """All vectors have other bytes than before: whoever holds some must read them again."""
        self._log(db, [Change("recode", 0, 0)])

    # -- reading: links

    def links_of(self, db: apsw.Connection, row: int | None, now: float) -> list[tuple[str, str, str, float, int]]:
        """(source id, target id, kind, weight, directed) of the links at one row or all, but for those with expired records."""
        ends = ("?1 IS NULL",) if row is None else ("source = ?1", "target = ?1")
        sql = (
            f"SELECT s.id, t.id, kind, weight, directed FROM {self.links} "
            f"JOIN {self.records} s ON s.row = source JOIN {self.records} t ON t.row = target "
            f"WHERE {{}} AND coalesce(s.expires > ?2, 1) AND coalesce(t.expires > ?2, 1)"
        )
        found = [line for end in ends for line in db.execute(sql.format(end), (row, now))]
        return cast(list[tuple[str, str, str, float, int]], sorted(found))

    def all_links(self, db: apsw.Connection) -> list[StoredLink]:
        found = db.execute(f"SELECT source, target, kind, weight, directed FROM {self.links}")
        return [StoredLink(*line) for line in found]

    def all_mentions(self, db: apsw.Connection) -> list[tuple[str, int]]:
        """(entity, row), those of one entity together."""
        found = db.execute(f"SELECT entity, row FROM {self.mentions} ORDER BY entity, row").fetchall()
        return cast(list[tuple[str, int]], found)

    def mentions_of(self, db: apsw.Connection, ids: Sequence[str]) -> list[tuple[str, str]]:
        """(id, entity) for all that these records name, sorted."""
        sql = f"SELECT id, entity FROM {self.mentions} JOIN {self.records} USING (row) WHERE id {_LISTED} ORDER BY id, entity"
        return cast(list[tuple[str, str]], db.execute(sql, (orjson.dumps(list(ids)).decode(),)).fetchall())

    def places(self, db: apsw.Connection, first: int) -> list[tuple[int, str, int]]:
        """(row, parent, seq) of the rows >= first that have both."""
        sql = f"SELECT row, parent, seq FROM {self.records} WHERE row >= ? AND parent IS NOT NULL AND seq IS NOT NULL"
        return cast(list[tuple[int, str, int]], db.execute(sql, (first,)).fetchall())

    def ids_of(self, db: apsw.Connection, rows: Sequence[int]) -> dict[int, str]:
        """The ids of the records that exist, by row."""
        sql = f"SELECT row, id FROM {self.records} WHERE row {_LISTED}"
        return dict(db.execute(sql, (orjson.dumps(list(rows)).decode(),)))

    # -- reading: changes

    def last_seq(self, db: apsw.Connection) -> int:
        """Of the whole database: cheap, and never smaller than the collection's own."""
        return int(db.execute("SELECT max(seq) FROM changes").get or 0)

    def changes_since(self, db: apsw.Connection, seq: int) -> list[Change]:
        found = db.execute(
            "SELECT op, first, last FROM changes WHERE collection = ? AND seq > ? ORDER BY seq", (self.collection, seq)
        )
        return [Change(*line) for line in found]


_LINKS_CHANGED = Change("links", 0, 0)


def _ranges(op: str, rows: Iterable[int]) -> list[Change]:
    """Rows as few ranges: consecutive rows share one."""
    ranges: list[Change] = []
    for row in sorted(rows):
        if ranges and row == ranges[-1].last + 1:
            ranges[-1] = ranges[-1]._replace(last=row)
        else:
            ranges.append(Change(op, row, row))
    return ranges
