"""A vecdb file, open: its collections, and what concerns the file as a whole."""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Any

import apsw
import orjson

from vecdb import embedding
from vecdb.collection import Collection
from vecdb.config import CollectionConfig, TextConfig, TokenConfig
from vecdb.definition import Definition, differences
from vecdb.embedding.base import Embedder
from vecdb.errors import CollectionNotFound, ConfigMismatch, InvalidInput, MissingExtra, ModelMismatch, StorageError
from vecdb.index.base import IndexConfig, NeuralLshConfig
from vecdb.index.device_scan import Scanner, scanner_on
from vecdb.index_files import IndexFiles
from vecdb.storage import Durability, Store
from vecdb.tables import Tables
from vecdb.tokenizers import stemmer_version
from vecdb.types import Metric
from vecdb.upkeep import Upkeep

_LONGEST_NAME = 200


def open(
    path: str | Path,
    *,
    create: bool = True,
    read_only: bool = False,
    durability: Durability = "full",
    busy_timeout_s: float = 10.0,
    background: bool = True,
    device: str = "cpu",
) -> Database:
    """Open a vecdb file, or make one (unless create=False). ":memory:" is a database that ends with the program.

    durability: "full" keeps every acknowledged write through a power cut; "relaxed" may lose the last few then (never through a
    crash of the program). busy_timeout_s: how long a write waits for another process's. background=False starts no threads: the
    index is then merged by `Collection.optimize` only. device: "cuda:0" searches indexed vectors exactly on that GPU, whatever ef
    and target_recall say (extra [gpu]); "auto" does so where there is a GPU.

    Raises InvalidInput for a device that is not there, MissingExtra without its packages, NotAVecdbFile, NewerFile, DatabaseBusy,
    ReadOnly, StorageError.
    """
    if durability not in ("full", "relaxed"):
        raise InvalidInput(f"durability is {durability!r}; it must be 'full' or 'relaxed'")
    scanner = scanner_on(device)
    where = None if str(path) == ":memory:" else Path(path)
    store = Store(
        where,
        create=create and not read_only,
        read_only=read_only,
        durability=durability,
        busy_timeout_s=busy_timeout_s,
    )
    return Database(store, background=background, scanner=scanner)


class Database:
    """An open file. A context manager; safe to use from several threads, not across a fork."""

    def __init__(self, store: Store, *, background: bool, scanner: Scanner | None = None) -> None:
        self._store = store
        self._scanner = scanner
        self._upkeep = Upkeep(enabled=background)
        # A database that nobody closed: its thread ends with the last collection of it that somebody holds.
        weakref.finalize(store, self._upkeep.close).atexit = False
        self._open: dict[str, Collection] = {}
        self._lock = threading.RLock()

    def __enter__(self) -> Database:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Database {str(self.path) if self.path else ':memory:'}>"

    def __contains__(self, name: str) -> bool:
        return name in self.collections()

    @property
    def path(self) -> Path | None:
        """The file; None for a database in memory."""
        return self._store.path

    @property
    def index_folder(self) -> Path | None:
        """Where index files are kept. They are derived: deleting them loses nothing but time."""
        return None if self.path is None else self.path.with_name(self.path.name + "-index")

    def collection(
        self,
        name: str,
        *,
        dimension: int | None = None,
        metric: Metric | None = None,
        embed: Any = None,
        text: TextConfig | str | None = None,
        index: IndexConfig | None = None,
        tokens: Any = None,
        storage: str | None = None,
        create: bool = True,
    ) -> Collection:
        """The collection of this name: made if it is not there (unless create=False), else opened as it was made.

        dimension: numbers in a vector; left out, the first vector or the model tells. metric: "cosine" (default), "l2", "ip".
        embed: the model that embeds texts: "default" (offline, comes with pip), "sentence-transformers:NAME", "model2vec:NAME",
        "openai:MODEL@URL", an Embedder, or any callable from texts to vectors; None: vectors are given, or only words are
        searched. text: how words are cut: "english" (stemmed, default), "german" and thirty other languages, "none", "cjk", or a
        TextConfig, which also names the fields that are searched. index: HnswConfig (default), NeuralLshConfig for a learned
        partition, which is built with PyTorch (extra [learned]), or CodesConfig for a scan of codes. tokens: keep a vector for
        each token of a text as well, for rerank="maxsim": "default" (offline, comes with pip), "colbert:NAME", a TokenConfig, or
        an encoder of your own.
        storage: the codec that the file keeps vectors with: "float32" (default), "float8", "pca:192+float8", …; another one than
        float32 comes once there are 4,096 vectors to fit it to (see `Collection.set_storage`).

        Settings given for a collection that exists must be those it was made with: else ConfigMismatch, or ModelMismatch for
        another model. Raises CollectionNotFound if it is absent and create=False.
        """
        _check_name(name)
        given: dict[str, Any] = {
            key: value
            for key, value in {
                "dimension": dimension,
                "metric": metric,
                "text": TextConfig(text) if isinstance(text, str) else text,
                "index": index,
                "storage": storage,
            }.items()
            if value is not None
        }
        with self._lock:
            collection = self._open.get(name)
            if collection is None or not self._exists(collection):
                collection = self._open[name] = self._opened(name, given, embed, tokens, create)
                return collection
            self._agree(collection._definition, given, embed, tokens)
            return collection

    def collections(self) -> list[str]:
        """Names of all collections, sorted."""
        with self._store.read() as db:
            return [name for (name,) in db.execute("SELECT name FROM collections ORDER BY name")]

    def drop(self, name: str) -> None:
        """Delete a collection with all its records. Raises CollectionNotFound."""
        with self._lock, self._store.write() as db:
            definition = Definition.saved(db, name)
            if definition is None:
                raise self._absent(name)
            number = definition.number
            Tables(number, definition.config.text).drop(db)
            definition.kept.forget_all(db)
            db.execute("DELETE FROM collections WHERE id = ?", (number,))
            self._open.pop(name, None)
        IndexFiles(self._store, self.index_folder, number).remove_all()

    def check(self) -> list[str]:
        """Every broken invariant in words: SQLite's own, and each collection's. Empty if all is sound."""
        problems: list[str] = []
        try:
            with self._store.read() as db:
                problems += [text for (text,) in db.execute("PRAGMA integrity_check") if text != "ok"]
            for name in self.collections():
                problems += [f"{name}: {problem}" for problem in self.collection(name).check()]
        except StorageError as error:
            if not isinstance(error.__cause__, apsw.CorruptError):
                raise
            problems.append(str(error))  # so damaged that it cannot be looked through
        return problems

    def backup(self, path: str | Path) -> None:
        """Copy everything that is committed into a new file; others may go on writing meanwhile."""
        self._store.backup(Path(path))

    def close(self) -> None:
        """Let go of the file. Everything acknowledged is in it already."""
        self._upkeep.close()
        self._store.close()

    # -- inside

    def _opened(self, name: str, given: dict[str, Any], embed: Any, tokens: Any, create: bool) -> Collection:
        with self._store.read() as db:
            definition = Definition.saved(db, name)
        if definition is None:
            if not create or self._store.read_only:
                raise self._absent(name)
            definition = self._made(name, given, embed, tokens)
        self._agree(definition, given, embed, tokens)
        return Collection(self._store, definition, self._upkeep, self.index_folder, self._scanner)

    def _made(self, name: str, given: dict[str, Any], embed: Any, tokens: Any) -> Definition:
        embedder = None if embed is None else embedding.load_embedder(embed)
        if tokens is not None:
            from vecdb.embedding.late import token_settings

            given = {**given, "tokens": token_settings(tokens)[0]}
        config = CollectionConfig(**given)
        if config.text.is_snowball:
            given = {**given, "stemmer": stemmer_version()}
            config = CollectionConfig(**given)
        _check_index(config)
        if embedder is not None:
            _check_dimension(name, config, embedder)
            config = CollectionConfig(
                **{**given, "dimension": embedder.dimension}, model=embedder.name, embed=embedding.spec_of(embedder)
            )
        with self._store.write() as db:
            saved = Definition.saved(db, name)
            if saved is not None:  # another process made it a moment ago
                return saved
            db.execute(
                "INSERT INTO collections (name, config, created) VALUES (?, ?, ?)",
                (name, orjson.dumps(config.as_json()).decode(), time.time()),
            )
            number = db.last_insert_rowid()
            Tables(number, config.text).create(db)
        return Definition(name, number, config, embedder)

    def _agree(self, definition: Definition, given: dict[str, Any], embed: Any, tokens: Any) -> None:
        """Raise unless what a caller asks for is what the collection is."""
        if definition.config.dimension is None and "dimension" in given:
            with self._store.read() as db:
                definition.refresh(db)
        wrong = differences(given, definition.config)
        if wrong:
            raise ConfigMismatch(
                f"collection {definition.name!r} was made with other settings: {'; '.join(wrong)}; leave them out to open it as "
                "it is, or drop it first"
            )
        if tokens is not None:
            self._agree_on_tokens(definition, tokens)
        if embed is None or embed == definition.config.embed:
            return
        embedder = embedding.load_embedder(embed)
        if definition.config.model is None:
            raise ModelMismatch(
                f"collection {definition.name!r} was made without an embedding model, its vectors are not known to be "
                f"{embedder.name!r}'s; make a new collection with embed=…"
            )
        definition.use(embedder)

    def _agree_on_tokens(self, definition: Definition, tokens: Any) -> None:
        from vecdb.embedding.late import token_settings

        config, encoder = token_settings(tokens)
        definition.use_tokens(encoder)
        saved = definition.config.tokens
        if saved is not None and isinstance(tokens, Mapping | TokenConfig) and saved.codec != config.codec:
            raise ConfigMismatch(
                f"collection {definition.name!r} keeps token vectors as {saved.codec}, not {config.codec}; leave codec out"
            )

    def _exists(self, collection: Collection) -> bool:
        with self._store.read() as db:
            sql = "SELECT 1 FROM collections WHERE id = ?"
            return db.execute(sql, (collection._definition.number,)).get is not None

    def _absent(self, name: str) -> CollectionNotFound:
        known = self.collections()
        listed = ", ".join(repr(n) for n in known[:10]) or "none"
        return CollectionNotFound(f"there is no collection {name!r}; this database has {listed}")


def _check_name(name: object) -> None:
    if not isinstance(name, str) or not 0 < len(name) <= _LONGEST_NAME or not name.isprintable():
        raise InvalidInput(f"collection name {name!r} is not possible; give 1 to {_LONGEST_NAME} printable characters")


def _check_dimension(name: str, config: CollectionConfig, embedder: Embedder) -> None:
    if config.dimension not in (None, embedder.dimension):
        raise ConfigMismatch(
            f"collection {name!r} was asked for with dimension {config.dimension}, but model {embedder.name!r} makes vectors of "
            f"{embedder.dimension}; leave dimension out"
        )


def _check_index(config: CollectionConfig) -> None:
    """Raise MissingExtra if this Python could not build the index; said before the collection is made, not when it has grown."""
    if isinstance(config.index, NeuralLshConfig) and find_spec("torch") is None:
        raise MissingExtra("a learned partition is built with PyTorch; install it: pip install 'vecdb[learned]'")
