"""Which bytes of the file stand for a collection's vectors, and turning them into other bytes while everything goes on.

A collection is made with a storage codec ("float32", or "float8", "pca:192+float8", …). What the codec must be fitted to comes
in with the first records; so they are written as float32, and turned into the wanted bytes once there are enough, in
the background. Changing the codec later is the same job. It goes through the rows in ascending order, so one number says where
it stands: rows up to `done` have the coming codec's bytes, rows above, and new ones, the present codec's. Each step is
one transaction, and another process, or the next one, goes on from there.

Kept in the file: under "storage" what the codecs are and how far the job is; under "codec", by a random name, each codec itself.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import apsw
import numpy as np
from numpy.typing import NDArray

from vecdb.definition import Definition
from vecdb.errors import CorruptIndex, ReadOnly, StorageError
from vecdb.index.base import Metric
from vecdb.index.codecs import Codec, parse
from vecdb.index_files import IndexFiles
from vecdb.storage import Store
from vecdb.tables import Tables
from vecdb.types import Vector
from vecdb.vectors import Matrix, from_blobs, to_blobs

Rows = NDArray[np.int64]
Progress = Callable[[int, int | None], None]

FLOAT32 = "float32"
# What a codec is fitted to. Below this many vectors it would learn them by heart; a collection waits for them.
FIT_FROM, _SAMPLE = 4_096, 50_000
_ROWS_A_STEP = 2_000


@dataclass(frozen=True)
class Encoding:
    """How the bytes of each row are to be read. A codec of None is float32."""

    present: Codec | None = None
    coming: Codec | None = None
    done: int = 0  # rows up to here have the coming codec's bytes

    @property
    def is_float32(self) -> bool:
        return self.present is None and self.coming is None

    def decode(self, rows: Sequence[int] | Rows, blobs: Sequence[bytes], dimension: int | None) -> Matrix:
        """(n, D): the vectors that the blobs of these rows stand for. Raises StorageError for a blob of another length."""
        if self.is_float32:
            return from_blobs(list(blobs), dimension or len(blobs[0]) // 4)
        assert dimension is not None  # there is a codec, so there are vectors
        vectors = np.empty((len(blobs), dimension), np.float32)
        is_done = np.asarray(rows) <= self.done if self.coming is not None else np.zeros(len(blobs), np.bool_)
        for codec, chosen in ((self.coming, is_done), (self.present, ~is_done)):
            places = np.flatnonzero(chosen)
            if len(places):
                vectors[places] = _decoded(codec, [blobs[i] for i in places.tolist()], dimension)
        return vectors

    def encode(self, vectors: Matrix) -> list[bytes]:
        """The blobs of new rows."""
        return _encoded(self.present, vectors)

    def bytes_of(self, row: int, dimension: int) -> int:
        """How long the blob of a row is."""
        codec = self.coming if self.coming is not None and row <= self.done else self.present
        return 4 * dimension if codec is None else codec.bytes_per_vector


@dataclass(frozen=True)
class StorageState:
    """How a collection's vectors are stored. wanted: the codec it is to have; stored: the one that its rows have, or had before
    the change that is going on; share: of the rows that have the wanted codec's bytes already.

    bytes_per_vector: of the wanted codec; overhead: bytes of what was fitted for it, kept once.
    """

    wanted: str
    stored: str
    share: float
    bytes_per_vector: int | None
    overhead: int


class StoredVectors:
    """The encoding of one collection's vectors, as the file has it."""

    def __init__(self, store: Store, tables: Tables, definition: Definition, files: IndexFiles) -> None:
        self._store = store
        self._tables = tables
        self._definition = definition
        self._files = files
        self._known: tuple[Any, Encoding] = (None, Encoding())

    @property
    def _metric(self) -> Metric:
        return self._definition.config.metric

    def encoding(self, db: apsw.Connection) -> Encoding:
        """As of the state that db sees. Raises StorageError if a codec is damaged."""
        saved = self._definition.kept.get(db, "storage")
        known, encoding = self._known
        if saved == known:
            return encoding
        if saved is None:
            encoding = Encoding()
        else:
            same = known is not None and all(known[name] == saved[name] for name in ("present", "coming"))
            if same:  # only the job went on
                encoding = Encoding(encoding.present, encoding.coming, saved["done"])
            else:
                encoding = Encoding(self._codec(db, saved["present"]), self._codec(db, saved["coming"]), saved["done"])
        self._known = saved, encoding
        return encoding

    def _codec(self, db: apsw.Connection, name: str | None) -> Codec | None:
        if not name:
            return None
        arrays = self._definition.kept.arrays(db, "codec", name)
        if "codec" not in arrays:
            raise StorageError(f"codec {name} of collection {self._definition.name!r} is missing; restore a backup")
        try:
            return Codec.from_bytes(arrays["codec"].tobytes())
        except CorruptIndex as error:
            raise StorageError(f"a codec of collection {self._definition.name!r} is unusable: {error}") from error

    def state(self) -> StorageState:
        with self._store.snapshot() as db:
            self._definition.refresh(db)
            encoding, config = self.encoding(db), self._definition.config
            total = self._tables.count_vectors(db)
            changed = self._tables.count_vectors(db, upto=encoding.done) if encoding.coming is not None else 0
            wanted = _wanted(self._definition)
            is_there = encoding.coming is None and _text(encoding.present) == wanted
            share = 1.0 if is_there else changed / total if total else 0.0
            codec = encoding.coming or encoding.present
            size = None
            if config.dimension is not None:
                size = parse(wanted, config.dimension, self._metric).bytes_per_vector
            return StorageState(wanted, _text(encoding.present), share, size, 0 if codec is None else codec.overhead)

    def decode(self, db: apsw.Connection, rows: Sequence[int] | Rows, blobs: Sequence[bytes]) -> Matrix:
        """(n, D): what the blobs of these rows, read in the same snapshot, stand for."""
        encoding = self.encoding(db)
        if not encoding.is_float32 and self._definition.config.dimension is None:
            self._definition.refresh(db)
        return encoding.decode(rows, blobs, self._definition.config.dimension)

    def vectors_of(self, db: apsw.Connection, rows: Sequence[int]) -> dict[int, Vector]:
        """The vector (D,) of each of these rows that has one. db: a snapshot."""
        blobs = self._tables.vectors_of(db, rows)
        return dict(zip(blobs, self.decode(db, list(blobs), list(blobs.values())))) if blobs else {}

    # -- changing

    def is_due(self) -> bool:
        """Whether there is something to change, and enough to fit the wanted codec to."""
        if self._store.read_only:
            return False
        with self._store.snapshot() as db:
            self._definition.refresh(db)
            encoding = self.encoding(db)
            if encoding.coming is not None:
                return True
            if _text(encoding.present) == _wanted(self._definition) or self._definition.config.dimension is None:
                return False
            return self._tables.count_vectors(db) >= FIT_FROM

    def want(self, text: str) -> None:
        """From now on this codec is wanted. Raises InvalidInput; ReadOnly."""
        if self._store.read_only:
            raise ReadOnly("the storage of a database opened with read_only=True cannot be changed; open it without")
        with self._store.write() as db:
            self._definition.refresh(db)
            dimension = self._definition.config.dimension
            settled = checked_storage(text, dimension, self._metric)
            config = self._definition.keep_storage(db, settled)
        self._definition.config = config

    def change(
        self, *, exclusive: Callable[[], AbstractContextManager[None]], progress: Progress | None = None, seed: int = 0
    ) -> bool:
        """Turn all rows into what is wanted, from wherever the job stands; whether anything was changed.

        exclusive: a context in which nobody else changes storage or publishes an index. A codec that is wanted while another is
        still coming waits for that one. Raises InvalidInput where there is no vector to fit to.
        """
        changed = False
        with exclusive():
            while self._begin(seed):
                changed = True
                while self._step(progress):
                    pass
        return changed

    def _begin(self, seed: int) -> bool:
        """See to it that a codec is coming, if one must; fits it."""
        with self._store.snapshot() as db:
            self._definition.refresh(db)
            encoding = self.encoding(db)
            wanted, config = _wanted(self._definition), self._definition.config
            if encoding.coming is not None:
                return True
            if _text(encoding.present) == wanted:
                return False
            if config.dimension is None or not self._tables.count_vectors(db):
                return False
            rows = self._tables.vector_rows(db)
            drawn = rows[np.unique(np.linspace(0, len(rows) - 1, min(len(rows), _SAMPLE)).astype(np.int64))]
            found = self._tables.vectors_of(db, drawn.tolist())
            sample = encoding.decode(list(found), list(found.values()), config.dimension)
        codec = parse(wanted, config.dimension, self._metric).fit(sample, seed=seed)
        name = secrets.token_hex(8)
        with self._store.write() as db:
            self._definition.refresh(db)
            saved = self._definition.kept.get(db, "storage") or {"present": "", "coming": "", "done": 0}
            if saved["coming"] or _wanted(self._definition) != wanted:
                return True  # somebody else was faster: look again
            arrays = {"codec": np.frombuffer(codec.to_bytes(), np.uint8)}
            self._definition.kept.put(db, "codec", {"codec": codec.text}, name, arrays)
            self._definition.kept.put(db, "storage", saved | {"coming": name, "done": 0})
        return True

    def _step(self, progress: Progress | None) -> bool:
        """One transaction of the job; False once it is finished."""
        with self._store.write() as db:
            self._definition.refresh(db)
            encoding, saved = self.encoding(db), self._definition.kept.get(db, "storage")
            if encoding.coming is None:
                return False
            found = self._tables.next_vectors(db, encoding.done, _ROWS_A_STEP)
            if found:
                rows = [row for row, _ in found]
                dimension = self._definition.config.dimension
                vectors = _decoded(encoding.present, [blob for _, blob in found], dimension or 0)
                self._tables.replace_vectors(db, zip(_encoded(encoding.coming, vectors), rows))
                self._definition.kept.put(db, "storage", saved | {"done": rows[-1]})
            else:
                self._finish(db, encoding, saved)
            done, total = encoding.done if not found else found[-1][0], self._tables.count_vectors(db)
            changed = self._tables.count_vectors(db, upto=done)
        if progress is not None:
            progress(changed, total)
        return bool(found)

    def _finish(self, db: apsw.Connection, encoding: Encoding, saved: dict[str, Any]) -> None:
        """All rows have the coming codec's bytes. What memory and index hold are other vectors now: they are read again."""
        assert encoding.coming is not None
        kept = self._definition.kept
        if saved["present"]:
            kept.forget(db, "codec", saved["present"])
        if encoding.coming.is_float32:
            kept.forget(db, "codec", saved["coming"])
            kept.forget(db, "storage")
        else:
            kept.put(db, "storage", {"present": saved["coming"], "coming": "", "done": 0})
        self._files.forget(db)
        self._tables.log_recoded(db)


def checked_storage(text: str, dimension: int | None, metric: Metric) -> str:
    """The text as the codec itself has it. Raises InvalidInput; without a dimension what depends on it is not looked at yet."""
    codec = parse(text, dimension or 65_536, metric)
    return codec.text


def _wanted(definition: Definition) -> str:
    config = definition.config
    if config.dimension is None:
        return config.storage
    return checked_storage(config.storage, config.dimension, config.metric)


def _text(codec: Codec | None) -> str:
    return FLOAT32 if codec is None else codec.text


def _decoded(codec: Codec | None, blobs: list[bytes], dimension: int) -> Matrix:
    width = 4 * dimension if codec is None else codec.bytes_per_vector
    joined = b"".join(blobs)
    if len(joined) != width * len(blobs):
        raise StorageError(f"a stored vector has not the {width} bytes of codec {_text(codec)!r}; restore a backup")
    if codec is None:
        return from_blobs(blobs, dimension)
    return codec.decode(np.frombuffer(joined, np.uint8).reshape(len(blobs), width))


def _encoded(codec: Codec | None, vectors: Matrix) -> list[bytes]:
    if codec is None:
        return to_blobs(vectors)
    codes, width = codec.encode(vectors).tobytes(), codec.bytes_per_vector
    return [codes[start : start + width] for start in range(0, len(codes), width)]
