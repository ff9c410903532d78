"""Is a collection sound? Tables against tables, memory against tables, index against vectors."""

from __future__ import annotations

import apsw
import numpy as np

from vecdb.config import CollectionConfig
from vecdb.memory import Memory, Snapshot
from vecdb.storage import Store
from vecdb.stored_vectors import Encoding, StoredVectors
from vecdb.tables import Tables
from vecdb.vector_view import Slots
from vecdb.vectors import Matrix


def check_collection(
    store: Store, tables: Tables, memory: Memory, stored: StoredVectors, config: CollectionConfig
) -> list[str]:
    """Every broken invariant in words."""
    snapshot = memory.current("vectors")
    with store.snapshot() as db:
        encoding = stored.encoding(db)
        problems = _check_tables(db, tables, encoding, config)
        if tables.last_seq(db) == snapshot.seq:  # else somebody wrote in between; the tables alone can be judged
            problems += _check_memory(db, tables, encoding, snapshot)
    if not store.read_only:
        problems += _check_words(store, tables)
    return problems


def _check_tables(db: apsw.Connection, tables: Tables, encoding: Encoding, config: CollectionConfig) -> list[str]:
    problems = []
    orphans = db.execute(
        f"SELECT count(*) FROM {tables.vectors} WHERE row NOT IN (SELECT row FROM {tables.records})"
    ).get
    if orphans:
        problems.append(f"{orphans} vectors belong to no record")
    for table, end in ((tables.links, "source"), (tables.links, "target"), (tables.mentions, "row")):
        loose = db.execute(f"SELECT count(*) FROM {table} WHERE {end} NOT IN (SELECT row FROM {tables.records})").get
        if loose:
            problems.append(f"{loose} lines of {table} name a {end} that is no record")
    if config.dimension is not None:
        lengths = [encoding.bytes_of(row, config.dimension) for row in (encoding.done, encoding.done + 1)]
        sql = f"SELECT count(*) FROM {tables.vectors} WHERE length(vector) <> CASE WHEN row <= ? THEN ? ELSE ? END"
        odd = db.execute(sql, (encoding.done, *lengths)).get
        if odd:
            problems.append(
                f"{odd} vectors have another length than {config.dimension} numbers take as they are stored"
            )
    invalid = db.execute(f"SELECT count(*) FROM {tables.records} WHERE NOT json_valid(metadata)").get
    if invalid:
        problems.append(f"the metadata of {invalid} records is not JSON")
    return problems


def _check_words(store: Store, tables: Tables) -> list[str]:
    """FTS5 compares its index with the texts, term by term."""
    try:
        with store.write() as db:
            db.execute(f"INSERT INTO {tables.words} ({tables.words}, rank) VALUES ('integrity-check', 1)")
    except (apsw.CorruptError, apsw.SQLError) as error:
        return [f"the word index does not agree with the texts ({error})"]
    except Exception as error:
        if isinstance(error.__cause__, apsw.CorruptError):
            return [f"the word index does not agree with the texts ({error.__cause__})"]
        raise
    return []


def _check_memory(db: apsw.Connection, tables: Tables, encoding: Encoding, snapshot: Snapshot) -> list[str]:
    problems = []
    stored = np.array([row for (row,) in db.execute(f"SELECT row FROM {tables.records} ORDER BY row")], dtype=np.int64)
    if not np.array_equal(snapshot.rows[snapshot.live], stored):
        problems.append("the rows in memory are not those in the file")
    view = snapshot.vectors
    assert view is not None
    with_vector = np.array(
        [row for (row,) in db.execute(f"SELECT row FROM {tables.vectors} ORDER BY row")], dtype=np.int64
    )
    alive = np.ones(len(view.index_slots), dtype=bool) if view.index_allowed is None else view.index_allowed
    tail = view.tail_slots[snapshot.live[view.tail_slots]]
    slots = np.concatenate([view.index_slots[alive], tail])
    if not np.array_equal(snapshot.rows[slots], with_vector):
        problems.append("the vectors in memory are not those of the rows in the file")
        return problems
    if view.index is not None:
        problems += view.index.check()
        # While storage is changing, memory has the vectors of before.
        if encoding.coming is None:
            kept, rows = view.index.arrays()["vectors"][alive], with_vector[: int(alive.sum())]
            problems += _check_copies(db, tables, encoding, kept, rows)
    return problems


def _check_copies(db: apsw.Connection, tables: Tables, encoding: Encoding, vectors: Matrix, rows: Slots) -> list[str]:
    """The index's own copies of the vectors are, to the bit, what the file's bytes stand for."""
    if not len(rows):
        return []
    blobs = [blob for _, blob in tables.vectors_between(db, int(rows[0]), int(rows[-1]))]
    if len(blobs) != len(rows) or not np.array_equal(encoding.decode(rows, blobs, vectors.shape[1]), vectors):
        return ["vectors in the index differ from those in the file"]
    return []
