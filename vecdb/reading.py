"""Reading records: by id, by filter, page by page. Nothing here ranks; that is what query/ does."""

from __future__ import annotations

import base64
import binascii
import time
from collections.abc import Sequence
from typing import Any

import apsw
import numpy as np

from vecdb.definition import Definition
from vecdb.errors import InvalidInput
from vecdb.filters import parse
from vecdb.index.base import Mask
from vecdb.memory import Memory, Snapshot
from vecdb.metadata import decode
from vecdb.storage import Store
from vecdb.stored_vectors import StoredVectors
from vecdb.tables import StoredRecord, Tables
from vecdb.types import Filter, Page, Record

_LARGEST_PAGE = 100_000


class Reader:
    """Reads the records of one collection. Those that have expired are not there."""

    def __init__(
        self, store: Store, tables: Tables, definition: Definition, memory: Memory, stored: StoredVectors
    ) -> None:
        self._store = store
        self._tables = tables
        self._definition = definition
        self._memory = memory
        self._stored = stored

    def by_ids(self, ids: str | Sequence[str], *, vectors: bool = False) -> dict[str, Record]:
        """Those that are there, by id."""
        now = time.time()
        with self._store.snapshot() as db:
            self._definition.refresh(db)
            found = self._tables.by_ids(db, listed(ids))
            return {id: self._record(db, one, vectors) for id, one in found.items() if not one.is_expired(now)}

    def present(self, ids: Sequence[str]) -> list[Record]:
        """Those that are there, in the order of ids."""
        found = self.by_ids(ids)
        return [found[id] for id in ids if id in found]

    def count(self, where: Filter | None) -> int:
        if where is not None and where != {}:
            return len(self.matching(where))
        with self._store.snapshot() as db:
            self._definition.refresh(db)
            return self._tables.count(db, time.time())

    def facets(self, key: str, where: Filter | None, limit: int) -> list[tuple[Any, int]]:
        """As `Collection.facets`."""
        snapshot, mask = self._seen(where)
        assert snapshot.attributes is not None
        return snapshot.attributes.facets(key, mask, limit)

    def page(self, where: Filter | None, limit: int, cursor: str | None, *, vectors: bool) -> Page:
        """As `Collection.scan`. Raises InvalidInput for a limit or a cursor that cannot be."""
        if not 1 <= limit <= _LARGEST_PAGE:
            raise InvalidInput(f"limit is {limit}; it must lie between 1 and {_LARGEST_PAGE:,}")
        after = _row_of(cursor)
        rows = None
        if where is not None:
            matching = np.array(self.matching(where), dtype=np.int64)
            rows = matching[np.searchsorted(matching, after, side="right") :][: limit + 1]
        with self._store.snapshot() as db:
            self._definition.refresh(db)
            if rows is None:
                found = self._tables.page(db, after, time.time(), limit + 1)
                rows = np.array([record.row for record in found], dtype=np.int64)
            else:  # one may have been deleted since the filter was evaluated; the cursor counts it all the same
                by_row = self._tables.by_rows(db, rows.tolist())
                found = [by_row[row] for row in rows.tolist() if row in by_row]
            last = int(rows[limit - 1]) if len(rows) > limit else None
            records = tuple(self._record(db, record, vectors) for record in found if last is None or record.row <= last)
        return Page(records, None if last is None else _cursor_of(last))

    def siblings(self, parent: str, first: int, last: int) -> list[Record]:
        """The records of one parent whose seq lies in first … last, in that order."""
        now = time.time()
        first, last = max(first, -(2**63)), min(last, 2**63 - 1)
        with self._store.snapshot() as db:
            found = self._tables.siblings(db, parent, first, last) if first <= last else []
            return [self._record(db, record, False) for record in found if not record.is_expired(now)]

    def matching(self, where: Filter) -> list[int]:
        """The rows, ascending, of records that satisfy a filter."""
        snapshot, mask = self._seen(where)
        assert mask is not None
        rows: list[int] = snapshot.rows[mask].tolist()
        return rows

    def _seen(self, where: Filter | None) -> tuple[Snapshot, Mask | None]:
        """The newest columns, and the slots in them that are there and satisfy a filter; None if that is all of them."""
        node = None if where is None else parse(where)
        snapshot = self._memory.current("attributes")
        assert snapshot.attributes is not None
        visible = snapshot.visible(time.time())
        if node is None:
            return snapshot, visible
        chosen = snapshot.attributes.mask(node)
        return snapshot, chosen if visible is None else chosen & visible

    def _record(self, db: apsw.Connection, stored: StoredRecord, vectors: bool) -> Record:
        found = self._stored.vectors_of(db, [stored.row]) if vectors else {}
        return Record(
            id=stored.id,
            text=stored.text,
            metadata=decode(stored.metadata),
            vector=found.get(stored.row),
            parent=stored.parent,
            seq=stored.seq,
            created=stored.created,
            updated=stored.updated,
            expires=stored.expires,
        )


def listed(ids: str | Sequence[str]) -> list[str]:
    """One id or several, as a list. Raises InvalidInput for one that is not text."""
    several = [ids] if isinstance(ids, str) else list(ids)
    for id in several:
        if not isinstance(id, str):
            raise InvalidInput(f"id {id!r} is a {type(id).__name__}; ids are text")
    return several


def _cursor_of(row: int) -> str:
    return base64.urlsafe_b64encode(str(row).encode()).decode()


def _row_of(cursor: str | None) -> int:
    if cursor is None:
        return 0
    try:
        return int(base64.urlsafe_b64decode(cursor))
    except (binascii.Error, ValueError) as error:
        raise InvalidInput(f"cursor {cursor!r} is not one that a scan gave; pass page.cursor as it is") from error
