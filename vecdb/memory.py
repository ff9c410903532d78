"""What a process keeps in memory of a collection, as immutable snapshots that follow the tables.

A reader takes the newest snapshot and never locks. Whoever finds it behind the file (this process or another one wrote) brings
it up to date from the change log, under a lock, and publishes a new one, sharing whatever did not change.

Records have slots 0 … n-1 in order of their rows; a deleted record's slot stays, dead, until `compact`. The parts of a snapshot
(columns for filters, postings, vectors) are loaded when first asked for.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Literal

import apsw
import numpy as np
from numpy.typing import NDArray

from vecdb.attributes import Attributes
from vecdb.config import TextConfig
from vecdb.errors import CollectionNotFound, CorruptIndex
from vecdb.index.base import Mask, VectorIndex
from vecdb.index.bm25 import Postings
from vecdb.index.device_scan import Scan, Scanner
from vecdb.index.exact import ExactIndex
from vecdb.index.opening import open_index
from vecdb.index_files import IndexFiles, SavedIndex
from vecdb.metadata import decode
from vecdb.storage import Store
from vecdb.stored_vectors import StoredVectors
from vecdb.tables import Change, Tables
from vecdb.types import Metric
from vecdb.vector_view import Slots, VectorView
from vecdb.words import Analyzer

_log = logging.getLogger("vecdb")

Part = Literal["attributes", "words", "vectors"]
Floats = NDArray[np.float64]

_EVERY_ROW = 2**62


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A collection as of change seq. rows: (n,) ascending. expires: (n,) seconds since 1970, +inf for never."""

    seq: int
    rows: Slots = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    live: Mask = field(default_factory=lambda: np.zeros(0, dtype=np.bool_))
    expires: Floats = field(default_factory=lambda: np.zeros(0))
    all_live: bool = True
    next_expiry: float = np.inf
    links_version: int = 0  # how often links or mentions were seen to change
    meta_version: int = 0  # and parent, seq or metadata of records that kept their rows
    attributes: Attributes | None = None
    words: Postings | None = None
    vectors: VectorView | None = None

    def has(self, parts: Iterable[Part]) -> bool:
        return all(getattr(self, part) is not None for part in parts)

    def visible(self, now: float) -> Mask | None:
        """(n,) the slots that are neither deleted nor expired; None if that is all of them."""
        if now >= self.next_expiry:
            return self.live & (self.expires > now)
        return None if self.all_live else self.live

    def slots_of(self, rows: Slots) -> Slots:
        """The slot of each row, -1 where it has none."""
        slots = np.searchsorted(self.rows, rows)
        known = slots < len(self.rows)
        known[known] = self.rows[slots[known]] == rows[known]
        return np.where(known, slots, -1)


class Memory:
    """The snapshots of one collection in one process."""

    def __init__(
        self,
        store: Store,
        tables: Tables,
        files: IndexFiles,
        stored: StoredVectors,
        metric: Metric,
        text: TextConfig,
        scanner: Scanner | None = None,
    ) -> None:
        self.kernels_ready = False  # set once they are compiled; until then no answer waits for them
        self._store = store
        self._tables = tables
        self._files = files
        self._stored = stored
        self._metric = metric
        self._text = text
        self._scanner = scanner
        self._scanned: tuple[int, Scan | None] = (0, None)  # of this epoch
        self._lock = threading.Lock()
        self._snapshot = Snapshot(seq=-1)

    def newest(self) -> Snapshot:
        """The snapshot at hand, which may be behind the file."""
        return self._snapshot

    def current(self, *parts: Part) -> Snapshot:
        """A snapshot with these parts that knows every change committed before this call."""
        snapshot = self._snapshot
        with self._store.read() as db:
            if self._tables.last_seq(db) == snapshot.seq and snapshot.has(parts):
                return snapshot
        # The store first, as everywhere: in memory it is one lock for all. A file's state is fixed by the first read within.
        with self._store.snapshot() as db, self._lock:
            self._snapshot = _compacted(self._refreshed(db, self._snapshot, parts), _MOST_DEAD_IN_A_QUERY)
            return self._snapshot

    def adopt(self, saved: SavedIndex) -> bool:
        """Search through this index from now on, unless a newer one is in use already. The kernels must be ready.

        Returns whether it can be used.
        """
        index = self._index_of(saved)
        if index is None:
            return False
        self.current("vectors")
        with self._lock:
            snapshot = self._snapshot
            assert snapshot.vectors is not None
            if saved.epoch >= snapshot.vectors.epoch:
                view = self._through(snapshot.vectors, saved, snapshot, index)
                self._snapshot = _compacted(replace(snapshot, vectors=view))
        return True

    def compact(self) -> None:
        """Let go of dead slots before a query must do it; where there are no vectors, no merge does it either."""
        with self._lock:
            self._snapshot = _compacted(self._snapshot)

    # -- following the tables

    def _refreshed(self, db: apsw.Connection, old: Snapshot, parts: Sequence[Part]) -> Snapshot:
        seq = self._tables.last_seq(db)
        if old.seq >= 0 and old.seq < self._oldest_seq(db) - 1:  # the log no longer reaches back to what we know
            parts = [*parts, *(p for p in ("attributes", "words", "vectors") if getattr(old, p) is not None)]
            old = Snapshot(seq=-1, links_version=old.links_version + 1, meta_version=old.meta_version + 1)
        if old.seq < 0:
            changes = [Change("add", 1, _EVERY_ROW)]
        else:
            changes = self._tables.changes_since(db, old.seq)
        if any(change.op == "drop" for change in changes):
            raise CollectionNotFound("the collection was dropped; create it again with db.collection(…)")
        if old.vectors is not None and any(change.op == "recode" for change in changes):
            old, parts = replace(old, vectors=None), [*parts, "vectors"]
        snapshot = self._followed(db, old, changes) if changes else old
        snapshot = replace(snapshot, seq=seq)
        for part in parts:
            if getattr(snapshot, part) is None:
                snapshot = self._with_part(db, snapshot, part)
        return snapshot

    def _oldest_seq(self, db: apsw.Connection) -> int:
        return int(db.execute("SELECT min(seq) FROM changes").get or 0)

    def _followed(self, db: apsw.Connection, old: Snapshot, changes: Sequence[Change]) -> Snapshot:
        """old with these changes: new rows at the end, deleted ones dead, changed metadata read again."""
        count = len(old.rows)
        first_new = int(old.rows[-1]) + 1 if count else 1
        added = self._tables.lifetimes(db, first_new, _EVERY_ROW) if any(c.op == "add" for c in changes) else []
        rows = np.concatenate([old.rows, np.array([row for row, _ in added], dtype=np.int64)])
        expires = np.concatenate(
            [old.expires, np.array([np.inf if e is None else e for _, e in added], dtype=np.float64)]
        )
        live = np.concatenate([old.live, np.ones(len(added), dtype=np.bool_)])
        touched: list[int] = []
        for change in changes:
            span = slice(*np.searchsorted(old.rows, [change.first, change.last + 1]))
            if change.op == "delete":
                live[:count][span] = False
            elif change.op == "meta":
                touched.extend(range(span.start, span.stop))
        meta = np.unique(np.array(touched, dtype=np.int64))
        for slot in meta:
            for _, moment in self._tables.lifetimes(db, int(rows[slot]), int(rows[slot])):
                expires[slot] = np.inf if moment is None else moment
        snapshot = replace(
            old,
            rows=rows,
            live=live,
            expires=expires,
            all_live=bool(live.all()),
            next_expiry=float(expires[live].min(initial=np.inf)),
            links_version=old.links_version + any(change.op == "links" for change in changes),
            meta_version=old.meta_version + (len(meta) > 0),
        )
        return self._parts_followed(db, snapshot, count, meta)

    def _parts_followed(self, db: apsw.Connection, snapshot: Snapshot, count: int, meta: Slots) -> Snapshot:
        """snapshot with those parts brought up to date that are loaded. count: how many slots they know."""
        span = slice(count, len(snapshot.rows))
        attributes, words, vectors = snapshot.attributes, snapshot.words, snapshot.vectors
        if attributes is not None:
            attributes = attributes.appended(self._fields(db, snapshot.rows[span]))
            if len(meta):
                attributes = attributes.replaced(meta, self._fields(db, snapshot.rows[meta]))
        if words is not None:
            words = self._with_words(db, words, snapshot.rows[span])
        if vectors is not None:
            vectors = self._with_tail(db, vectors, snapshot, int(snapshot.rows[count]) if span.stop > count else None)
            vectors = vectors.with_live(snapshot.live)
        return replace(snapshot, attributes=attributes, words=words, vectors=vectors)

    def _with_part(self, db: apsw.Connection, snapshot: Snapshot, part: Part) -> Snapshot:
        if part == "attributes":
            return replace(snapshot, attributes=Attributes.empty().appended(self._fields(db, snapshot.rows)))
        if part == "words":
            return replace(snapshot, words=self._with_words(db, Postings(), snapshot.rows))
        view, first = VectorView(self._metric), 1
        saved = self._files.open_newest(db)
        index = None if saved is None else self._index_of(saved)
        if saved is not None and index is not None:
            view = self._through(view, saved, snapshot, index)
            first = saved.last_row + 1
        return replace(snapshot, vectors=self._with_tail(db, view, snapshot, first).with_live(snapshot.live))

    def _index_of(self, saved: SavedIndex) -> VectorIndex | None:
        """A saved index, opened; until the kernels are there, exact search over the same mapped vectors.

        None if its parts do not fit together: it is then as good as absent.
        """
        try:
            if self.kernels_ready:
                return open_index(saved.settings, saved.arrays)
            return ExactIndex.over(saved.arrays["vectors"], self._metric)
        except (CorruptIndex, KeyError, ValueError) as error:
            _log.warning("the saved index cannot be used, searching exactly until it is rebuilt: %s", error)
            return None

    def _through(self, view: VectorView, saved: SavedIndex, snapshot: Snapshot, index: VectorIndex) -> VectorView:
        slots = snapshot.slots_of(saved.rows)
        scan = self._scan_of(saved)
        return view.with_index(index, slots, saved.last_row, saved.epoch, snapshot.live, snapshot.rows, scan)

    def _scan_of(self, saved: SavedIndex) -> Scan | None:
        """The scan of an index's vectors on the GPU, made once for each epoch; None without a GPU, or if it has no room."""
        if self._scanner is None:
            return None
        if self._scanned[0] != saved.epoch:
            self._scanned = (0, None)  # lets go of the old one first
            try:
                self._scanned = (saved.epoch, self._scanner(saved.arrays["vectors"], self._metric))
            except MemoryError as error:
                _log.warning("the vectors do not fit on the GPU, searching on the CPU: %s", error)
                self._scanned = (saved.epoch, None)
        return self._scanned[1]

    def _with_tail(self, db: apsw.Connection, view: VectorView, snapshot: Snapshot, first: int | None) -> VectorView:
        """view with the vectors of rows >= first at the end of its tail."""
        if first is None:
            return view
        found = list(self._tables.vectors_between(db, first, _EVERY_ROW))
        if not found:
            return view
        rows = np.array([row for row, _ in found], dtype=np.int64)
        vectors = self._stored.decode(db, rows, [blob for _, blob in found])
        return view.with_tail(vectors, np.searchsorted(snapshot.rows, rows))

    def _fields(self, db: apsw.Connection, rows: Slots) -> list[dict[str, object]]:
        """For each of rows (ascending) its metadata with the system fields; {} for one that is gone."""
        if not len(rows):
            return []
        batch: list[dict[str, object]] = [{} for _ in rows]
        wanted = {int(row): i for i, row in enumerate(rows)}
        for row, metadata, parent, seq, created, updated in self._tables.fields(db, int(rows[0]), int(rows[-1])):
            i = wanted.get(row)
            if i is not None:
                fields = decode(metadata)
                if parent is not None:
                    fields["$parent"] = parent
                if seq is not None:
                    fields["$seq"] = seq
                fields["$created"] = datetime.fromtimestamp(created, UTC)
                fields["$updated"] = datetime.fromtimestamp(updated, UTC)
                batch[i] = fields
        return batch

    def _with_words(self, db: apsw.Connection, words: Postings, rows: Slots) -> Postings:
        """words with the terms of rows (ascending) at the end."""
        if not len(rows):
            return words
        documents: list[list[str] | None] = [None] * len(rows)
        lengths = np.zeros(len(rows), dtype=np.int32)
        weights = tuple(self._text.fields.values())
        counts: list[float] | None = None if weights == (1.0,) else []
        analyzer = Analyzer(db, self._text)
        wanted = {int(row): i for i, row in enumerate(rows)}
        for row, *texts in self._tables.texts(db, int(rows[0]), int(rows[-1])):
            if row not in wanted:
                continue
            terms: list[str] = []
            for weight, text in zip(weights, texts):
                if text is not None:
                    found, length = analyzer.document(text)
                    terms = terms + found if terms else found
                    lengths[wanted[row]] += length
                    if counts is not None:
                        counts += [weight] * len(found)
            documents[wanted[row]] = terms
        worth = None if counts is None else np.array(counts, dtype=np.float32)
        return words.appended(documents, lengths=lengths, counts=worth)


# Dead slots cost memory and time in every mask; renumbering costs one pass over everything. In a query, which waits for it,
# there must be as many dead slots as live ones: then it costs no more than the deletions did.
_MOST_DEAD, _MOST_DEAD_IN_A_QUERY = 0.25, 0.5
_LEAST_WORTH_COMPACTING = 1_000


def _compacted(snapshot: Snapshot, most_dead: float = _MOST_DEAD) -> Snapshot:
    """snapshot without its dead slots, if they are many."""
    dead = len(snapshot.live) - int(np.count_nonzero(snapshot.live))
    if dead < _LEAST_WORTH_COMPACTING or dead < most_dead * len(snapshot.live):
        return snapshot
    kept = np.flatnonzero(snapshot.live)
    new_slot = np.full(len(snapshot.live), -1, dtype=np.int64)
    new_slot[kept] = np.arange(len(kept))
    return replace(
        snapshot,
        rows=snapshot.rows[kept],
        live=np.ones(len(kept), dtype=np.bool_),
        expires=snapshot.expires[kept],
        all_live=True,
        attributes=None if snapshot.attributes is None else snapshot.attributes.compacted(kept),
        words=None if snapshot.words is None else snapshot.words.compacted(kept),
        vectors=None if snapshot.vectors is None else snapshot.vectors.renumbered(new_slot),
    )
