"""The SQLite file: opening, connections, transactions, and SQLite's errors in our words.

One connection writes, behind a lock; each thread reads through a connection of its own, so readers never wait. A database in
memory has one connection for all, behind the same lock.
"""

from __future__ import annotations

import errno
import os
import shutil
import threading
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal

import apsw

from vecdb.errors import (
    CollectionNotFound,
    DatabaseBusy,
    DatabaseClosed,
    DiskFull,
    NewerFile,
    NotAVecdbFile,
    ReadOnly,
    StorageError,
)
from vecdb.migrations import APPLICATION_ID, VERSION, migrate
from vecdb.tokenizers import register

Durability = Literal["full", "relaxed"]

# 16 KiB pages hold ten 384-d float32 vectors at 94 % use; 4 KiB pages hold two at 75 %, 8 KiB waste half on 1,024-d ones.
PAGE_SIZE = 16_384

_POLL_S = 0.01

# A disk with less room than this is taken to be full when SQLite reports no more than "I/O error".
_HARDLY_ANY_SPACE = 1 << 20


class Store:
    """An open vecdb file. read() and write() give connections; nothing else in vecdb opens one."""

    def __init__(
        self, path: Path | None, *, create: bool, read_only: bool, durability: Durability, busy_timeout_s: float
    ) -> None:
        # Resolved once: index files lie beside the file by whatever link it is opened, and a connection that is made after
        # a chdir is still one to the same file.
        self.path = path = None if path is None else path.resolve()
        self.read_only = read_only
        self._durability = durability
        self._busy_timeout_ms = int(busy_timeout_s * 1000)
        self._pid = os.getpid()
        self._closed = False
        self._lock = threading.RLock()
        self._files_lock = threading.Lock()
        self._local = threading.local()
        self._readers: weakref.WeakSet[apsw.Connection] = weakref.WeakSet()
        self._readers_lock = threading.Lock()
        self._immutable = False
        if path is not None and not create and not path.exists():
            raise StorageError(f"there is no file {path}; pass create=True to make one")
        if path is not None and path.is_dir():
            raise NotAVecdbFile(f"{path} is a folder; give the path of a file in it, such as {path / 'library.vecdb'}")
        with translated(path):
            self._writer = self._open_first()
            self._owner = _Owner(self._writer)
            # Readers keep SQLite's small one: a scan gains nothing from a large cache, and pays as much again to fill it.
            self._writer.pragma("cache_size", -32_768)  # KiB

    @contextmanager
    def write(self) -> Iterator[apsw.Connection]:
        """One transaction: all of it is kept when the block ends, nothing of it if the block raises."""
        self._check_usable()
        if self.read_only:
            raise ReadOnly(f"{self._name} was opened with read_only=True; open it again without")
        with self._lock, translated(self.path):
            db = self._writer
            db.execute("BEGIN IMMEDIATE")
            try:
                yield db
                db.execute("COMMIT")
            except BaseException:
                if db.in_transaction:
                    with suppress(
                        apsw.Error
                    ):  # SQLite may have rolled back by itself (disk full); the first error counts
                        db.execute("ROLLBACK")
                raise

    @contextmanager
    def read(self) -> Iterator[apsw.Connection]:
        """A connection for reading. Statements in one `with` need not see one state: use `snapshot()` where they must."""
        self._check_usable()
        if self.path is None:
            with self._lock, translated(self.path):
                yield self._writer
            return
        with translated(self.path):
            try:
                yield self._reader()
            finally:
                if self._closed:  # by another thread, which could not close the connection that we were using
                    self._forget_reader()

    @contextmanager
    def snapshot(self) -> Iterator[apsw.Connection]:
        """A connection whose statements all see the same committed state."""
        with self.read() as db:
            if db.in_transaction:  # in memory, inside our own write: that already is one state
                yield db
                return
            db.execute("BEGIN")
            try:
                yield db
            finally:
                if db.in_transaction:  # SQLite ends it by itself after some errors
                    db.execute("COMMIT")

    @contextmanager
    def without_writes(self) -> Iterator[None]:
        """A block during which no other thread of this process writes."""
        with self._lock:
            yield

    @contextmanager
    def kept_open(self) -> Iterator[None]:
        """A block that writes files beside the database: `close` waits for its end, and nothing is written thereafter."""
        with self._files_lock:
            self._check_usable()
            yield

    def backup(self, target: Path) -> None:
        """Copy the committed state into a new file at target, while others go on writing."""
        if target.exists():
            raise StorageError(f"{target} exists; give a path where no file is")
        # One snapshot for the whole copy: else each commit of another connection would make it begin again.
        with self.snapshot() as source, translated(target):
            source.execute("SELECT count(*) FROM sqlite_schema").fetchall()
            copy = apsw.Connection(str(target))
            try:
                with copy.backup("main", source, "main") as job:
                    while not job.done:
                        job.step(1_000)
            except BaseException:
                copy.close()
                target.unlink(missing_ok=True)
                raise
            copy.close()

    def vacuum(self) -> None:
        """Write the file anew without its unused pages."""
        if self.read_only:
            raise ReadOnly(f"{self._name} was opened with read_only=True; open it again without")
        self._check_usable()
        with self._lock, translated(self.path):
            self._writer.execute("VACUUM")
            if self.path is not None:  # else the file shrinks when the log is next copied into it
                self._writer.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    @property
    def is_inherited(self) -> bool:
        """Whether this is a forked child's copy.

        It must not touch its parent's connections, nor take locks: the thread that held one when the process forked does
        not exist here and never lets go of it.
        """
        return os.getpid() != self._pid

    def close(self) -> None:
        if self.is_inherited:
            self._closed = True
            return
        with self._files_lock, self._lock:
            if self._closed:
                return
            self._closed = True
            with self._readers_lock:
                readers = list(self._readers)
            for reader in readers:
                with suppress(apsw.Error):  # another thread may be inside it: then that thread closes it, see `read`
                    reader.close()
            with suppress(apsw.Error):
                self._writer.close()

    @property
    def _name(self) -> str:
        return ":memory:" if self.path is None else str(self.path)

    def _check_usable(self) -> None:
        if self._closed:
            raise DatabaseClosed(f"{self._name} is closed; open it again with vecdb.open")
        if self.is_inherited:
            raise DatabaseClosed(f"{self._name} was opened before a fork; open it again in this process")

    def _reader(self) -> apsw.Connection:
        owner: _Owner | None = getattr(self._local, "reader", None)
        if owner is None:
            # Writable, though nothing is written through it: only such a connection, if it is the last one to close, takes
            # the write-ahead log with it.
            reader = self._connect(writable=not self.read_only)
            register(reader)
            reader.pragma("query_only", True)
            self._local.reader = owner = _Owner(reader)
            with self._readers_lock:
                self._readers.add(reader)
        return owner.db

    def _forget_reader(self) -> None:
        owner: _Owner | None = getattr(self._local, "reader", None)
        self._local.reader = None
        if owner is not None:
            owner.db.close()

    def _open_first(self) -> apsw.Connection:
        """The first connection: whose file is it, is it of a version we know, does the schema stand?"""
        try:
            return self._prepared(self._connect(writable=not self.read_only))
        except (apsw.CantOpenError, apsw.ReadOnlyError) as error:
            if self.path is None or not self.path.exists():
                raise
            if not self.read_only:
                raise ReadOnly(
                    f"{self.path} cannot be opened for writing ({error}); check its permissions and its folder's, or open "
                    "it with read_only=True"
                ) from error
            self._check_no_log(error)
            self._immutable = True  # a read-only folder: no -shm file can be made beside a WAL database
            return self._prepared(self._connect(writable=False))

    def _prepared(self, db: apsw.Connection) -> apsw.Connection:
        try:
            self._prepare(db, *self._identity(db))
            register(db)
        except BaseException:
            db.close()
            raise
        return db

    def _check_no_log(self, error: apsw.Error) -> None:
        """An immutable file is read without its write-ahead log: refuse that where commits are in the log."""
        assert self.path is not None
        log = self.path.with_name(self.path.name + "-wal")
        if log.exists() and log.stat().st_size:
            raise ReadOnly(
                f"the last commits of {self.path} are still in {log.name}, which cannot be read in a read-only folder; open "
                "the database once where its folder can be written, or copy both files to such a folder"
            ) from error

    def _identity(self, db: apsw.Connection) -> tuple[int, int]:
        """application_id (-1 for somebody's SQLite file that has none) and user_version."""
        began = not db.in_transaction
        if began:
            db.execute("BEGIN")  # one state: another process may be making the file just now
        try:
            application = db.pragma("application_id")
            version = db.pragma("user_version")
            if not application and (version or db.execute("SELECT count(*) FROM sqlite_schema").get):
                application = -1
            return int(application), int(version)
        finally:
            if began and db.in_transaction:
                db.execute("COMMIT")

    def _prepare(self, db: apsw.Connection, application: int, version: int) -> None:
        if application not in (0, APPLICATION_ID):
            raise NotAVecdbFile(f"{self._name} is a SQLite file of another program; give a vecdb file or a new path")
        if version > VERSION:
            raise NewerFile(
                f"{self._name} has schema version {version}, this vecdb knows up to {VERSION}; upgrade with: "
                "pip install --upgrade vecdb"
            )
        if application == APPLICATION_ID and version == VERSION:
            return
        if self.read_only:
            raise ReadOnly(f"{self._name} has schema version {version} and must be migrated; open it once for writing")
        if not application:
            self._keep_log(db)
        db.execute("BEGIN IMMEDIATE")
        try:
            if self._identity(db) != (APPLICATION_ID, VERSION):  # another process may have been quicker
                migrate(db, version)
            db.execute("COMMIT")
        except BaseException:
            if db.in_transaction:
                db.execute("ROLLBACK")
            raise

    def _keep_log(self, db: apsw.Connection) -> None:
        """Put a new file into WAL mode. SQLite does not wait for another process that is doing the same, so we do."""
        deadline = time.monotonic() + self._busy_timeout_ms / 1000
        while True:
            try:
                db.pragma("page_size", PAGE_SIZE)
                db.pragma("journal_mode", "wal")
                return
            except apsw.BusyError:
                if time.monotonic() >= deadline:
                    raise
                time.sleep(_POLL_S)

    def _connect(self, *, writable: bool) -> apsw.Connection:
        name = self._name
        flags = apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE if writable else apsw.SQLITE_OPEN_READONLY
        if self.path is not None:
            suffix = "?immutable=1" if self._immutable else ""
            name = self.path.as_uri() + suffix
            flags |= apsw.SQLITE_OPEN_URI
        db = apsw.Connection(name, flags=flags)
        db.set_busy_timeout(self._busy_timeout_ms)
        # FULL: with NORMAL a power cut can lose the last acknowledged commits of a WAL database (never its consistency).
        db.pragma("synchronous", "full" if self._durability == "full" else "normal")
        db.pragma("journal_size_limit", 64 << 20)  # a bulk load leaves no large log behind
        return db


class _Owner:
    """Whoever keeps a connection keeps it by one of these, and it is closed with it: when its thread ends, or the Store goes.

    A connection itself would never go, because the tokenizer that it knows refers to it.
    """

    def __init__(self, db: apsw.Connection) -> None:
        self.db = db
        weakref.finalize(self, _let_go, db, os.getpid()).atexit = False


def _let_go(db: apsw.Connection, pid: int) -> None:
    if os.getpid() == pid:  # else it is the parent's, see Store.is_inherited
        with suppress(apsw.Error):
            db.close()


@contextmanager
def translated(path: Path | None) -> Iterator[None]:
    """SQLite's errors as ours."""
    name = ":memory:" if path is None else str(path)
    try:
        yield
    except apsw.NotADBError as error:
        raise NotAVecdbFile(f"{name} is not a vecdb file (not even SQLite); give a vecdb file or a new path") from error
    except (apsw.BusyError, apsw.LockedError) as error:
        raise DatabaseBusy(
            f"{name} is being written by another process; try again, or open it with a larger busy_timeout_s"
        ) from error
    except apsw.FullError as error:
        raise _disk_full(name) from error
    except apsw.ReadOnlyError as error:
        raise ReadOnly(
            f"{name} cannot be written ({error}); check its permissions, or open it with read_only=True"
        ) from error
    except (apsw.CantOpenError, apsw.PermissionsError) as error:
        raise StorageError(f"cannot open {name} ({error}); does its folder exist, and may you write there?") from error
    except apsw.CorruptError as error:
        raise StorageError(
            f"{name} is damaged ({error}); restore a backup, or salvage it with: sqlite3 … .recover"
        ) from error
    except apsw.IOError as error:
        if path is not None and _is_full(path):
            raise _disk_full(name) from error
        raise StorageError(
            f"the system could not read or write {name} ({error}); nothing of this call was kept"
        ) from error
    except apsw.SQLError as error:
        if "no such table" not in str(error):
            raise
        raise CollectionNotFound(
            f"the collection was dropped from {name} meanwhile ({error}); create it again"
        ) from error
    except (apsw.ConnectionClosedError, apsw.ThreadingViolationError) as error:  # the latter: `close` is at work on it
        raise DatabaseClosed(f"{name} is closed; open it again with vecdb.open") from error


@contextmanager
def files_translated(what: Path) -> Iterator[None]:
    """The system's errors about files beside the database as ours."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise _disk_full(str(what)) from error
        if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
            raise ReadOnly(f"{what} cannot be written ({error}); check the permissions of its folder") from error
        raise StorageError(f"the system could not read or write {what} ({error})") from error


def _disk_full(name: str) -> DiskFull:
    return DiskFull(f"no space left to write {name}; nothing of this call was kept; free some space")


def _is_full(path: Path) -> bool:
    try:
        return shutil.disk_usage(path.parent).free < _HARDLY_ANY_SPACE
    except OSError:
        return False
