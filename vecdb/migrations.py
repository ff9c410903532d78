"""The schema of a vecdb file, as an ordered list of small functions. Number n brings a file from version n-1 to n.

A function that has been released is never edited; a change of the schema is a new one at the end. `user_version` in the
file's header is the number of the last one applied; `application_id` says that the file is ours.
"""

from __future__ import annotations

from collections.abc import Callable

import apsw

APPLICATION_ID = 0x76656364  # "vecd"


def m001_first_schema(db: apsw.Connection) -> None:
    """Database-wide tables. Each collection adds its own (see tables.py), named by its number."""
    db.execute(
        """
        CREATE TABLE collections (
            id INTEGER PRIMARY KEY AUTOINCREMENT,
            name TEXT NOT NULL UNIQUE,
            config TEXT NOT NULL,           -- JSON, CollectionConfig
            created REAL NOT NULL
        );
        CREATE TABLE changes (              -- what readers catch up from; one entry is a range of rows
            seq INTEGER PRIMARY KEY AUTOINCREMENT,
            collection INTEGER NOT NULL,
            op TEXT NOT NULL,               -- 'add' | 'delete' | 'meta'
            first INTEGER NOT NULL,
            last INTEGER NOT NULL
        );
        CREATE TABLE segments (             -- index files; all of them derived, see segments.py
            collection INTEGER NOT NULL,
            field TEXT NOT NULL,
            epoch INTEGER NOT NULL,
            upto_seq INTEGER NOT NULL,      -- the last change that the segment knows
            file TEXT NOT NULL,
            checksum INTEGER NOT NULL,
            bytes INTEGER NOT NULL,
            PRIMARY KEY (collection, field, epoch)
        );
        CREATE TABLE sources (              -- documents that records were made from, and what they were then
            collection INTEGER NOT NULL,
            parent TEXT NOT NULL,
            fingerprint TEXT NOT NULL,
            PRIMARY KEY (collection, parent)
        ) WITHOUT ROWID;
        """
    )


def m002_tuning(db: apsw.Connection) -> None:
    """What the last `Collection.tune` measured."""
    db.execute("ALTER TABLE collections ADD COLUMN tuning TEXT")  # JSON, CollectionTuning; NULL: never tuned


def m003_links(db: apsw.Connection) -> None:
    """Links between records, and the entities that their texts name; fields that are derived from links."""
    for (number,) in db.execute("SELECT id FROM collections").fetchall():
        db.execute(
            f"""
            CREATE TABLE links_{number} (
                source INTEGER NOT NULL, target INTEGER NOT NULL, kind TEXT NOT NULL, weight REAL NOT NULL,
                directed INTEGER NOT NULL, PRIMARY KEY (source, target, kind)
            ) WITHOUT ROWID;
            CREATE INDEX links_{number}_target ON links_{number} (target);
            CREATE TABLE mentions_{number} (
                entity TEXT NOT NULL, row INTEGER NOT NULL, PRIMARY KEY (entity, row)
            ) WITHOUT ROWID;
            CREATE INDEX mentions_{number}_row ON mentions_{number} (row);
            """
        )
    db.execute(
        "ALTER TABLE collections ADD COLUMN derived TEXT"
    )  # JSON: field -> how it is derived; NULL: there is none


def m004_kept(db: apsw.Connection) -> None:
    """What was fitted for a collection, or saved with it, by kind and name; tuning and derived fields move there."""
    db.execute(
        """
        CREATE TABLE kept (
            collection INTEGER NOT NULL,
            kind TEXT NOT NULL,             -- 'tuning', 'derived', …
            name TEXT NOT NULL,             -- '' where there is one of a kind
            value TEXT NOT NULL,            -- JSON
            arrays BLOB,                    -- an .npz file, where numbers are many
            PRIMARY KEY (collection, kind, name)
        ) WITHOUT ROWID;
        INSERT INTO kept (collection, kind, name, value)
            SELECT id, 'tuning', '', tuning FROM collections WHERE tuning IS NOT NULL;
        INSERT INTO kept (collection, kind, name, value)
            SELECT c.id, 'derived', d.key, d.value FROM collections c, json_each(c.derived) d;
        ALTER TABLE collections DROP COLUMN tuning;
        ALTER TABLE collections DROP COLUMN derived;
        """
    )


def m005_tokens(db: apsw.Connection) -> None:
    """Vectors of tokens, for late interaction."""
    for (number,) in db.execute("SELECT id FROM collections").fetchall():
        db.execute(f"CREATE TABLE tokens_{number} (row INTEGER PRIMARY KEY, tokens BLOB NOT NULL)")


MIGRATIONS: tuple[Callable[[apsw.Connection], None], ...] = (
    m001_first_schema,
    m002_tuning,
    m003_links,
    m004_kept,
    m005_tokens,
)
VERSION = len(MIGRATIONS)


def migrate(db: apsw.Connection, version: int) -> None:
    """Bring a file from version to VERSION, inside the caller's transaction."""
    for number, step in enumerate(MIGRATIONS[version:], start=version + 1):
        step(db)
        db.execute(f"PRAGMA user_version = {number}")
    db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
