"""Keeping the index in step with the tables, in the background: loading, compiling, merging the tail.

Nothing here is ever waited for by a query or a write. Whatever fails (no disk space, another process merges already) is logged
and tried again after the next change; exact search over the tail gives the same answers meanwhile.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import numpy as np

from vecdb import durable
from vecdb.config import CollectionConfig
from vecdb.definition import Definition
from vecdb.errors import CollectionNotFound, DatabaseClosed, ReadOnly, VecdbError
from vecdb.index.base import IndexConfig, Positions, VectorIndex
from vecdb.index.opening import empty_index
from vecdb.index_files import IndexFiles
from vecdb.memory import Memory, Part, Snapshot
from vecdb.overlay import Overlays
from vecdb.process_lock import try_lock
from vecdb.storage import Store, files_translated
from vecdb.stored_vectors import Progress, StoredVectors
from vecdb.tuning import is_built_as, recheck_tuning, settings_of, with_settings
from vecdb.vector_view import VectorView

_log = logging.getLogger("vecdb")

# Up to here a matrix product answers in about a millisecond, and a graph would gain nothing.
INDEX_FROM = 8_192
# A tail of 2,048 x 384 costs about a tenth of a millisecond; beyond that it is merged once it is a twentieth of the index.
_LEAST_TAIL, _TAIL_SHARE = 2_048, 0.05
_DEAD_SHARE = 0.2
# Mending a graph that lost half of its nodes costs more than building it anew.
_REBUILD_SHARE = 0.5
# A load in many small batches is merged when it pauses, or after this long.
_QUIET_S, _PATIENCE_S = 0.3, 5.0
# What has just failed (a full disk, mostly) would only fail again, after as much work.
_RETRY_S = 60.0


class Indexing:
    """The index of one collection: whether it must be merged, and merging it."""

    def __init__(
        self,
        store: Store,
        memory: Memory,
        files: IndexFiles,
        definition: Definition,
        folder: Path | None,
        overlays: Overlays,
        stored: StoredVectors,
    ) -> None:
        self._store = store
        self._memory = memory
        self._overlays = overlays
        self._stored = stored
        self._files = files
        self._definition = definition
        self._folder = folder
        self._merging = threading.Lock()
        self._unusable_epoch = 0
        self.wanted: set[Part] = set()  # parts of memory that queries had to do without
        self.not_before = 0.0  # monotonic time until which Upkeep leaves it alone

    def warm(self) -> None:
        """Load vectors and what else was wanted; if there is a graph, compile or load the kernels and take the newest one. If
        links were asked for, find those that take long.
        """
        self._memory.current("vectors", *self.wanted)
        self._memory.compact()
        self._adopt_newest()
        if self._overlays.wants_preparation():
            self._overlays.prepare()

    def is_behind(self) -> bool:
        """Whether the snapshot at hand could be searched faster: kernels missing, or a merge due."""
        view = self._memory.newest().vectors
        if view is None or (view.epoch > 0 and not self._memory.kernels_ready):
            return True
        return _is_due(view, self._definition.config.index)

    def is_due(self) -> bool:
        view = self._memory.current("vectors").vectors
        assert view is not None
        with self._store.read() as db:
            self._definition.refresh(db)
        return _is_due(view, self._definition.config.index)

    def merge(self, *, threads: int | None, force: bool = False) -> bool:
        """Bring tail and deletions into the index, if that is due; whether this process did it.

        force: also if it is not due, and after waiting for a process that is at it. Raises ReadOnly, DiskFull, StorageError.
        """
        if self._store.read_only:
            if force:
                raise ReadOnly("the index of a database opened with read_only=True cannot be merged; open it without")
            return False
        if not force and not self.is_due():
            return False
        with self._merging, self._only_process(wait=force) as mine:
            if not mine:
                return False
            self._compile()
            self._adopt_newest()  # another process may have merged, or ours may still search exactly
            if not force and not self.is_due():
                return False
            snapshot = self._memory.current("vectors")
            view = snapshot.vectors
            assert view is not None
            with self._store.read() as db:
                self._definition.refresh(db)
            is_complete = not len(view.tail_slots) and not view.dead_in_index
            if is_complete and view.index is not None:
                is_complete = settings_of(view.index) == self._definition.config.index
            if not is_complete:
                self._merge(snapshot, threads)
            else:
                self._files.remove_strays()
            return True

    def _merge(self, snapshot: Snapshot, threads: int | None) -> None:
        began = time.monotonic()
        config = self._definition.config
        index, rows = _extended(snapshot, config, threads)
        # The ef that tuning chose is for a sample; that of the whole can be measured now.
        config = recheck_tuning(self._store, self._definition, index, time.monotonic() - began)
        index = with_settings(index, config.index, threads)
        saved = self._files.publish(
            index.settings(),
            index.arrays(),
            rows,
            upto_seq=snapshot.seq,
            last_row=int(snapshot.rows[-1]) if len(snapshot.rows) else 0,
        )
        self._memory.adopt(saved)

    def _adopt_newest(self) -> None:
        """Search through the newest saved index, whichever process made it, unless we do already or it is damaged."""
        view = self._memory.newest().vectors
        in_use = 0 if view is None or view.index is None or view.index.kind == "exact" else view.epoch
        with self._store.read() as db:
            if self._files.newest_epoch(db) <= max(in_use, self._unusable_epoch):
                return
        self._compile()
        with self._store.snapshot() as db:
            epoch, saved = self._files.newest_epoch(db), self._files.open_newest(db)
        if saved is None or not self._memory.adopt(saved):
            self._unusable_epoch = epoch

    def recode(self, progress: Progress | None = None) -> bool:
        """Turn stored vectors into the bytes that are wanted; whether any was."""
        return self._stored.change(exclusive=self.exclusive, progress=progress)

    def recode_if_due(self) -> None:
        if self._stored.is_due():
            self.recode()

    def _compile(self) -> None:
        if not self._memory.kernels_ready:
            from vecdb.index import kernels  # numba: half a second to import, and at first use some seconds to compile

            kernels.warm()
            self._memory.kernels_ready = True

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """A block in which nobody else, here or in another process, publishes files of this collection."""
        with self._merging, self._only_process(wait=True):
            yield

    @contextmanager
    def _only_process(self, *, wait: bool) -> Iterator[bool]:
        if self._folder is None:
            yield True
            return
        with ExitStack() as stack:
            lock = self._folder / "merge.lock"
            with files_translated(lock):
                with self._store.kept_open():
                    durable.make_folder(self._folder)
                    lock.touch()
                mine = stack.enter_context(try_lock(lock, wait=wait))
            yield mine


def _is_due(view: VectorView, wanted: IndexConfig) -> bool:
    """Whether tail or dead positions have grown past what is worth carrying along, or the graph is to be another one."""
    if view.index is not None and settings_of(view.index) not in (None, wanted):
        return True
    indexed, tail = len(view.index_slots), len(view.tail_slots)
    if not indexed:
        return tail >= INDEX_FROM
    return tail > max(_LEAST_TAIL, _TAIL_SHARE * indexed) or view.dead_in_index > max(
        _LEAST_TAIL, _DEAD_SHARE * indexed
    )


def _extended(snapshot: Snapshot, config: CollectionConfig, threads: int | None) -> tuple[VectorIndex, Positions]:
    """A new index over all live vectors of the snapshot, and the row of each of its positions."""
    view = snapshot.vectors
    assert view is not None
    in_tail = snapshot.live[view.tail_slots]
    parts = [view.tail[in_tail]] if in_tail.any() else []
    rows = [snapshot.rows[view.tail_slots[in_tail]]]
    index: VectorIndex | None = None
    if view.index is not None:
        alive = np.ones(len(view.index_slots), dtype=bool) if view.index_allowed is None else view.index_allowed
        rows.insert(0, snapshot.rows[view.index_slots[alive]])
        is_wanted = is_built_as(view.index, config.index)
        if not is_wanted or np.count_nonzero(~alive) > _REBUILD_SHARE * len(alive):
            parts.insert(0, view.index.arrays()["vectors"][alive])
        else:
            index = view.index.copy()
            index.remove(np.flatnonzero(~alive))
            index.compact()
    if index is None:
        dimension = config.dimension or (parts[0].shape[1] if parts else 1)
        index = empty_index(dimension, config.metric, config.index)
    if parts:
        index.add(parts[0] if len(parts) == 1 else np.concatenate(parts), threads=threads)
    index.refresh(threads=threads)
    return index, np.concatenate(rows)


class Upkeep:
    """One background thread for all collections of a database; it starts when first needed."""

    def __init__(self, *, enabled: bool) -> None:
        self.enabled = enabled
        self._wake = threading.Condition()
        self._waiting: dict[Indexing, float] = {}  # since when
        self._last_write = 0.0
        self._thread: threading.Thread | None = None
        self._closed = False
        self._pid = os.getpid()

    def nudge(self, indexing: Indexing, *, wrote: bool = False) -> None:
        """There may be something to do for this collection, because it was written to or because a query had to go without."""
        if not self.enabled or (indexing in self._waiting and not wrote):
            return
        with self._wake:
            now = time.monotonic()
            if wrote:
                self._last_write = now
            self._waiting.setdefault(indexing, now)
            if self._thread is None and not self._closed:
                thread = threading.Thread(target=self._run, name="vecdb-upkeep", daemon=True)
                with suppress(RuntimeError):  # the interpreter is ending, and starts no more threads
                    thread.start()
                    self._thread = thread
            self._wake.notify()

    def close(self) -> None:
        """No new work from now on. What runs is left to end by itself: it can publish nothing on a closed database."""
        if os.getpid() != self._pid:  # a forked child has no such thread, and nobody who would let go of its lock
            return
        with self._wake:
            self._closed = True
            self._waiting.clear()
            self._wake.notify()

    def _run(self) -> None:
        while (indexing := self._next()) is not None:
            self._look_after(indexing)
            del indexing  # while this thread sleeps, nothing here keeps a forgotten database open

    def _look_after(self, indexing: Indexing) -> None:
        try:
            indexing.recode_if_due()
            indexing.warm()
            indexing.merge(threads=max(1, (os.cpu_count() or 1) // 2))
        except (DatabaseClosed, CollectionNotFound):
            return
        except VecdbError as error:
            _log.warning("the index could not be brought up to date, searching exactly meanwhile: %s", error)
        except Exception as error:
            if isinstance(error, RuntimeError) and "shutdown" in str(error):
                return  # the interpreter is ending: the pool of a build starts no more threads
            _log.exception("the index could not be brought up to date, searching exactly meanwhile")
        else:
            return
        indexing.not_before = time.monotonic() + _RETRY_S

    def _next(self) -> Indexing | None:
        """The next collection to look after, once its writes have paused; None when closed."""
        with self._wake:
            while not self._closed:
                now = time.monotonic()
                for indexing, since in self._waiting.items():
                    ripe = now - self._last_write >= _QUIET_S or now - since >= _PATIENCE_S
                    if ripe and now >= indexing.not_before:
                        del self._waiting[indexing]
                        return indexing
                self._wake.wait(_QUIET_S if self._waiting else None)
            return None
