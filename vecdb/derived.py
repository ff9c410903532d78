"""Vectors that are derived from links: the field "fastrp" of a collection, a vector for each record by what it is linked to.

What was derived is a file beside the database, as an index is: deleted or damaged, it is made anew from the links. How it is
derived is in the database. Records that are linked later get their vectors from those of their neighbours, until the next
`Collection.derive` looks at everything again.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from vecdb.definition import Definition
from vecdb.errors import InvalidQuery
from vecdb.index.adjacency import Adjacency
from vecdb.index_files import IndexFiles, SavedIndex
from vecdb.overlay import Kinds, Overlay, Overlays
from vecdb.storage import Store
from vecdb.tables import Tables
from vecdb.types import DERIVED_FIELDS
from vecdb.upkeep import Indexing
from vecdb.vectors import Matrix

if TYPE_CHECKING:
    from vecdb.index.fastrp import Embedding, FastRPConfig

FASTRP = DERIVED_FIELDS[0]


class NodeVectors:
    """The field "fastrp" of one collection."""

    def __init__(
        self,
        store: Store,
        tables: Tables,
        files: IndexFiles,
        definition: Definition,
        overlays: Overlays,
        indexing: Indexing,
    ) -> None:
        self._store = store
        self._tables = tables
        self._files = files
        self._definition = definition
        self._overlays = overlays
        self._indexing = indexing
        self._lock = threading.Lock()
        self._saved: tuple[int, Embedding, Kinds | None] | None = None  # epoch, what was derived, from which links
        self._current: tuple[Overlay, int, NDArray[np.int64], Matrix] | None = None

    def derive(self, config: FastRPConfig, kinds: Kinds | None, *, tune: bool = False) -> int:
        """Look at all links, make the vectors and save them; returns how many records have one. Raises ReadOnly."""
        if tune:
            from vecdb.index import fastrp_tuning

            overlay = self._overlays.current()
            config = fastrp_tuning.tune(overlay.chosen(kinds), config, keys=overlay.snapshot.rows).config
        found, seq = self._made(config, kinds)
        settings = {"kind": FASTRP, "config": asdict(config), "kinds": kinds}
        arrays = {name: getattr(found, name) for name in ("vectors", "powers", "mean", "deviation")}
        with self._indexing.exclusive():
            with self._store.write() as db:
                self._definition.refresh(db)
                self._definition.kept.put(db, "derived", settings, FASTRP)
            last = int(found.keys.max(initial=0))
            saved = self._files.publish(settings, arrays, found.keys, upto_seq=seq, last_row=last)
        with self._lock:
            self._saved = _opened(saved)
        return len(found.keys)

    def _made(self, config: FastRPConfig, kinds: Kinds | None) -> tuple[Embedding, int]:
        """The vectors of the records that have one, and the change up to which links were looked at."""
        from vecdb.index.fastrp import embed

        overlay = self._overlays.current()
        found = embed(overlay.chosen(kinds), config, keys=overlay.snapshot.rows)
        known = found.known
        powers = np.ascontiguousarray(found.powers[:, known])
        kept = replace(found, keys=found.keys[known], vectors=found.vectors[known], known=known[known], powers=powers)
        return kept, overlay.snapshot.seq

    def current(self) -> tuple[NDArray[np.int64], Matrix]:
        """The rows (m,) that have a vector now, ascending, and their vectors (m, D) at unit length. Raises InvalidQuery if
        nothing was derived yet.
        """
        epoch, found, kinds = self._embedding()
        overlay = self._overlays.current(complete=False)
        with self._lock:
            if self._current is None or self._current[0] is not overlay or self._current[1] != epoch:
                self._current = overlay, epoch, *_extended(found, overlay, overlay.chosen(kinds))
            return self._current[2], self._current[3]

    def vector_of(self, id: str) -> Matrix | None:
        """(D,), or None for a record that has none."""
        rows, vectors = self.current()
        with self._store.snapshot() as db:
            record = self._tables.by_id(db, id)
        place = -1 if record is None else int(np.searchsorted(rows, record.row))
        is_there = record is not None and place < len(rows) and rows[place] == record.row
        return vectors[place].copy() if is_there else None

    def dimension(self) -> int:
        return self._embedding()[1].config.dimension

    def _embedding(self) -> tuple[int, Embedding, Kinds | None]:
        with self._store.snapshot() as db:
            settings = self._definition.kept.get(db, "derived", FASTRP)
            epoch = self._files.newest_epoch(db)
            if settings is None:
                raise InvalidQuery(
                    f"collection {self._definition.name!r} has no vectors in field {FASTRP!r}; make them with derive({FASTRP!r})"
                )
            if self._saved is not None and self._saved[0] == epoch:
                return self._saved
            saved = self._files.open_newest(db)
        if saved is None:  # the file is gone, or damaged
            config, kinds = _config_of(settings), settings["kinds"]
            if self._store.read_only:
                self._saved = epoch, self._made(config, kinds)[0], kinds
            else:
                self.derive(config, kinds)
            assert self._saved is not None
            return self._saved
        with self._lock:
            self._saved = _opened(saved)
            return self._saved


def _config_of(settings: Mapping[str, Any]) -> FastRPConfig:
    from vecdb.index.fastrp import FastRPConfig

    return FastRPConfig(**{**settings["config"], "weights": tuple(settings["config"]["weights"])})


def _opened(saved: SavedIndex) -> tuple[int, Embedding, Kinds | None]:
    from vecdb.index.fastrp import Embedding

    arrays = saved.arrays
    known = np.ones(len(saved.rows), dtype=np.bool_)
    found = Embedding(
        _config_of(saved.settings),
        saved.rows,
        arrays["vectors"],
        known,
        arrays["powers"],
        arrays["mean"],
        arrays["deviation"],
    )
    return saved.epoch, found, saved.settings["kinds"]


def _extended(found: Embedding, overlay: Overlay, graph: Adjacency) -> tuple[NDArray[np.int64], Matrix]:
    """What was derived, less the records that are gone, and the vectors of linked records that are new."""
    rows = overlay.snapshot.rows
    slots = overlay.snapshot.slots_of(found.keys)
    alive = slots >= 0
    alive[alive] = overlay.snapshot.live[slots[alive]]
    fresh = np.setdiff1d(np.flatnonzero(~graph.is_dangling & overlay.snapshot.live), slots[alive])
    numbers = np.full(len(rows), -1, dtype=np.int64)
    numbers[fresh] = np.arange(len(fresh))
    numbers[slots[alive]] = len(fresh) + np.flatnonzero(alive)
    places, counts = graph.edges_of(fresh)
    sources = np.repeat(np.arange(len(fresh)), counts)
    targets = numbers[graph.targets[places]]
    kept = targets >= 0
    neighbours = Adjacency.of(len(fresh) + len(found.keys), sources[kept], targets[kept], graph.weights[places][kept])
    vectors, known = found.extended(rows[fresh], neighbours)
    every = np.concatenate([found.keys[alive], rows[fresh[known]]])
    matrix = np.concatenate([found.vectors[alive], vectors[known]])
    order = np.argsort(every, kind="stable")
    norms = np.linalg.norm(matrix, axis=1, keepdims=True)
    return every[order], np.ascontiguousarray((matrix / np.where(norms > 0, norms, 1))[order], dtype=np.float32)


class Derived(Protocol):
    """A field of vectors that are made."""

    def current(self) -> tuple[NDArray[np.int64], Matrix]:
        """The rows (m,) that have a vector now, ascending, and their vectors (m, D) at unit length. Raises InvalidQuery."""

    def dimension(self) -> int: ...

    def vector_of(self, id: str) -> Matrix | None: ...


def check_field(field: Any, known: Sequence[str] = DERIVED_FIELDS) -> None:
    if field not in known:
        raise InvalidQuery(f"field is {field!r}; a derived one is called {', '.join(known)}")
