"""Writing records: one call, one transaction, all or nothing.

Everything slow (checking, embedding) happens before the transaction, so that the write lock is held for SQLite's work only.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import apsw
import numpy as np

from vecdb.config import CollectionConfig
from vecdb.definition import Definition
from vecdb.embedding.base import embed_in_batches
from vecdb.errors import DuplicateId, InvalidVector, RecordNotFound
from vecdb.links import Entities
from vecdb.metadata import decode, encode
from vecdb.records import Batch
from vecdb.rerank.tokens import encode_tokens, to_bytes
from vecdb.storage import Store
from vecdb.stored_vectors import StoredVectors
from vecdb.tables import StoredRecord, Tables
from vecdb.types import WriteResult
from vecdb.vectors import Matrix, as_matrix, from_blobs, prepared, to_blobs

Progress = Callable[[int, int | None], None]
Admit = Callable[[Batch, list[Matrix | None]], Sequence[int]]

_ENCODED_AT_ONCE = 256  # texts: vectors of tokens are large until they are coded


@dataclass(slots=True)
class _Prepared:
    """A batch with its vectors ready: blobs[i] is record i's vector as float32 or None, hashes[i] its text's hash if we embedded
    it.

    named: the entities that each text of the batch names, if a function finds them.
    """

    batch: Batch
    blobs: list[bytes | None]
    hashes: list[bytes | None]
    dimension: int | None
    model: str | None  # whose vectors the caller says they are
    named: dict[str, tuple[str, ...]]
    tokens: list[bytes | None]  # of each text, where the collection keeps token vectors
    kept: dict[int, tuple[int, bytes]] = field(default_factory=dict)  # records that keep the vector of a row, as stored


class Writer:
    def __init__(self, store: Store, tables: Tables, definition: Definition, stored: StoredVectors) -> None:
        self._store = store
        self._tables = tables
        self._definition = definition
        self._stored = stored
        self.entities: Entities | None = None  # how entities of records that are written are found

    def add(
        self, batch: Batch, progress: Progress | None = None, model: str | None = None, *, admit: Admit | None = None
    ) -> WriteResult:
        """admit is given the batch and the vector of each record, or None, and says which positions are written."""
        ready = self._prepared(batch, progress, model)
        chosen: Sequence[int] = range(len(batch))
        if admit is not None:
            given = [None if blob is None else from_blobs([blob], len(blob) // 4)[0] for blob in ready.blobs]
            chosen = admit(batch, given)
        try:
            with self._store.write() as db:
                config = self._begin(db, ready)
                rows = self._insert(db, ready, chosen, time.time(), self._stored_blobs(db, ready))
                self._mention(db, ready, rows, {})
        except apsw.ConstraintError as error:
            raise self._taken(batch, error) from error
        self._definition.config = config
        return WriteResult(tuple(batch.ids[position] for position in chosen), added=len(chosen))

    def upsert(self, batch: Batch, progress: Progress | None = None, model: str | None = None) -> WriteResult:
        ready = self._prepared(batch, progress, model)
        with self._store.write() as db:
            config = self._begin(db, ready)
            old = self._tables.by_ids(db, batch.ids)
            result = self._replace(db, ready, old)
        self._definition.config = config
        return result

    def update(
        self, batch: Batch, progress: Progress | None = None, model: str | None = None, *, replace_metadata: bool
    ) -> WriteResult:
        """Change what the batch gives and keep the rest. Raises RecordNotFound for an id that is not there."""
        with self._store.snapshot() as db:  # before anything is embedded in vain
            self._existing(db, batch)
        ready = self._prepared(batch, progress, model)
        with self._store.write() as db:
            config = self._begin(db, ready)
            old = self._existing(db, batch)
            self._complete(db, ready, old, replace_metadata)
            result = self._replace(db, ready, old)
        self._definition.config = config
        return result

    def replace(
        self, parent: str, batch: Batch | None, fingerprint: str | None, progress: Progress | None = None
    ) -> WriteResult:
        """Make batch all there is of this parent (None: nothing), and remember the fingerprint (None: forget it)."""
        ready = None if batch is None else self._prepared(batch, progress)
        with self._store.write() as db:
            config = self._begin(db, ready)
            rows = set(self._tables.rows_of_parent(db, parent))
            self._tables.set_fingerprint(db, parent, fingerprint)
            result = WriteResult(())
            if ready is not None:
                old = self._tables.by_ids(db, ready.batch.ids)
                self._check_parent(ready.batch, old, parent)
                rows -= {record.row for record in old.values()}
                result = self._replace(db, ready, old)
            self._tables.delete(db, sorted(rows))
        self._definition.config = config
        return result

    def delete(self, matching: Callable[[], Sequence[int]]) -> int:
        """Delete the rows that matching finds inside the transaction, where nobody can change them any more."""
        with self._store.write() as db:
            self._refresh(db)
            rows = matching()
            self._tables.delete(db, rows)
            return len(rows)

    def delete_ids(self, ids: Sequence[str]) -> int:
        with self._store.write() as db:
            self._refresh(db)
            now = time.time()
            found = self._tables.by_ids(db, ids).values()
            self._tables.delete(db, [record.row for record in found])
            return sum(not record.is_expired(now) for record in found)

    # -- before the transaction

    def _prepared(self, batch: Batch, progress: Progress | None, model: str | None = None) -> _Prepared:
        config = self._definition.config
        blobs: list[bytes | None] = [None] * len(batch)
        hashes: list[bytes | None] = [None] * len(batch)
        dimension = None
        if batch.vectors is not None:
            positions = np.flatnonzero(batch.has_vector)
            try:
                given = prepared(
                    batch.vectors[positions],
                    dimension=config.dimension,
                    metric=config.metric,
                    collection=self._definition.name,
                    name=lambda i: batch.name(int(positions[i])),
                )
            except InvalidVector as error:
                place = batch.first + int(positions[error.position or 0])
                raise type(error)(str(error), position=place) from None
            dimension = given.shape[1]
            for position, blob in zip(positions.tolist(), to_blobs(given)):
                blobs[position] = blob
        if self._definition.embeds:
            dimension = self._embed(batch, blobs, hashes, progress) or dimension
        named: dict[str, tuple[str, ...]] = {}
        if self.entities is not None and callable(self.entities.extractor):
            named = {text: self.entities.of(text, "{}") for text in dict.fromkeys(batch.texts) if text}
        return _Prepared(batch, blobs, hashes, dimension, model, named, self._encoded(batch))

    def _encoded(self, batch: Batch) -> list[bytes | None]:
        """Token vectors of the texts. A record whose text stays keeps those that it has."""
        config, encoder = self._definition.config.tokens, self._definition.token_encoder()
        made: list[bytes | None] = [None] * len(batch)
        if config is None or encoder is None:
            return made
        with self._store.snapshot() as db:
            old = self._tables.by_ids(db, batch.ids)
            same = {p: old[id].row for p, id in enumerate(batch.ids) if id in old and old[id].text == batch.texts[p]}
            known = self._tables.tokens_of(db, list(same.values()))
        places: dict[str, list[int]] = {}
        for position, text in enumerate(batch.texts):
            made[position] = known.get(same.get(position, -1))
            if text and made[position] is None:
                places.setdefault(text, []).append(position)
        texts = list(places)
        for start in range(0, len(texts), _ENCODED_AT_ONCE):
            part = texts[start : start + _ENCODED_AT_ONCE]
            for text, vectors in zip(part, encoder.encode_documents(part)):
                blob = to_bytes(encode_tokens(vectors, config.codec))
                for position in places[text]:
                    made[position] = blob
        return made

    def _embed(
        self, batch: Batch, blobs: list[bytes | None], hashes: list[bytes | None], progress: Progress | None
    ) -> int | None:
        """Fill in vectors for texts that came without one. Texts that are stored already are not embedded again."""
        wanted: dict[bytes, list[int]] = {}
        for position, text in enumerate(batch.texts):
            if text and blobs[position] is None:
                key = hashes[position] = hashlib.blake2b(text.encode(), digest_size=16).digest()
                wanted.setdefault(key, []).append(position)
        if not wanted:
            return None
        known: dict[bytes, bytes] = {}
        with self._store.snapshot() as db:
            for key in wanted:
                found = self._tables.vector_of_hash(db, key)
                if found is not None:
                    (known[key],) = to_blobs(self._stored.decode(db, [found[0]], [found[1]]))
        new = [key for key in wanted if key not in known]
        if new:
            texts = [batch.texts[wanted[key][0]] or "" for key in new]
            known.update(zip(new, to_blobs(self._embedded(texts, progress))))
        for key, positions in wanted.items():
            for position in positions:
                blobs[position] = known[key]
        return len(next(iter(known.values()))) // 4

    def _embedded(self, texts: list[str], progress: Progress | None) -> Matrix:
        embedder = self._definition.embedder()
        vectors = as_matrix(
            embed_in_batches(embedder, texts, progress=progress), what=f"vectors of model {embedder.name!r}"
        )
        if len(vectors) != len(texts):
            raise InvalidVector(
                f"model {embedder.name!r} made {len(vectors)} vectors of {len(texts)} texts; it must make one each"
            )
        return prepared(
            vectors,
            dimension=self._definition.config.dimension,
            metric=self._definition.config.metric,
            collection=self._definition.name,
            name=lambda i: f"the vector of text {texts[i][:40]!r}…",
        )

    # -- inside the transaction

    def _begin(self, db: apsw.Connection, ready: _Prepared | None) -> CollectionConfig:
        """Settle what the first write settles, and let expired records go. Returns the configuration from now on."""
        self._refresh(db)
        self._tables.delete(db, self._tables.expired(db, time.time()))
        config = self._definition.config
        if ready is None or ready.dimension is None:
            return config
        if config.dimension not in (None, ready.dimension):  # settled by somebody else while we prepared
            prepared(
                np.zeros((1, ready.dimension), dtype=np.float32),
                dimension=config.dimension,
                metric=config.metric,
                collection=self._definition.name,
                name=ready.batch.name,
            )
        is_first = ready.model is not None and not self._tables.count_vectors(db)
        return self._definition.settle(db, ready.dimension, ready.model, is_first=is_first)

    def _refresh(self, db: apsw.Connection) -> None:
        """Learn what others have settled, and see to it that the word index holds our stems before any is added or taken."""
        self._definition.refresh(db)
        if self._definition.settle_stemmer(db):
            self._tables.rebuild_words(db)

    def _insert(
        self,
        db: apsw.Connection,
        ready: _Prepared,
        positions: Sequence[int],
        created: float | Sequence[float],
        blobs: dict[int, bytes],
    ) -> dict[str, int]:
        """Write the batch's records at these positions as new rows, with their blobs; returns the row of each id."""
        batch, now = ready.batch, time.time()
        first = self._tables.next_row(db)
        born = [created] * len(positions) if isinstance(created, float) else created
        records = [
            StoredRecord(
                first + i,
                batch.ids[p],
                batch.parents[p],
                batch.seqs[p],
                batch.texts[p],
                batch.metadata[p],
                ready.hashes[p],
                born[i],
                now,
                batch.expires[p],
            )
            for i, p in enumerate(positions)
        ]
        vectors = ((first + i, blobs[p]) for i, p in enumerate(positions) if p in blobs)
        tokens = ((first + i, blob) for i, p in enumerate(positions) if (blob := ready.tokens[p]) is not None)
        self._tables.insert(db, records, vectors, tokens)
        return {record.id: record.row for record in records}

    def _replace(self, db: apsw.Connection, ready: _Prepared, old: dict[str, StoredRecord]) -> WriteResult:
        """Write the batch over the records in old: not at all, in place, or as a new row, whichever is enough."""
        batch, now = ready.batch, time.time()
        blobs = self._stored_blobs(db, ready)
        fresh: list[int] = []
        created: list[float] = []
        gone: dict[str, int] = {}
        kept: list[StoredRecord] = []
        updated = unchanged = 0
        for position, id in enumerate(batch.ids):
            before = old.get(id)
            if (
                before is None
                or before.text != batch.texts[position]
                or self._tables.field_texts(before.metadata) != self._tables.field_texts(batch.metadata[position])
                or self._tables.vector(db, before.row) != blobs.get(position)
            ):
                fresh.append(position)
                alive = before is not None and not before.is_expired(now)
                created.append(before.created if before is not None and alive else now)
                updated += alive
                if before is not None:
                    gone[id] = before.row
                    if (
                        before.text == batch.texts[position] and ready.tokens[position] is None
                    ):  # an update without its text
                        ready.tokens[position] = self._tables.tokens_of(db, [before.row]).get(before.row)
                continue
            after = before._replace(
                parent=batch.parents[position],
                seq=batch.seqs[position],
                metadata=batch.metadata[position],
                expires=batch.expires[position],
            )
            if after == before:
                unchanged += 1
            else:
                kept.append(after._replace(updated=now))
        self._tables.delete(db, list(gone.values()), keep_links=True)
        if fresh:
            rows = self._insert(db, ready, fresh, created, blobs)
            self._tables.move_links(db, [(gone[id], row) for id, row in rows.items() if id in gone])
            self._mention(db, ready, rows, old)
        if kept:
            self._tables.replace_fields(db, kept)
            self._mention(db, ready, {record.id: record.row for record in kept}, old)
        added = len(fresh) - updated
        return WriteResult(tuple(batch.ids), added=added, updated=updated + len(kept), unchanged=unchanged)

    def _mention(
        self, db: apsw.Connection, ready: _Prepared, rows: dict[str, int], old: dict[str, StoredRecord]
    ) -> None:
        """Note the entities of the records with these rows. Those of a text that did not change have moved with it."""
        by_key = self.entities is not None and not callable(self.entities.extractor)
        batch, stale = ready.batch, []
        mentions: list[tuple[str, int]] = []
        for position, id in enumerate(batch.ids):
            before, text = old.get(id), batch.texts[position]
            if id not in rows or (not by_key and before is not None and before.text == text):
                continue
            if before is not None:
                stale.append(rows[id])
            if by_key and self.entities is not None:
                names = self.entities.of(text, batch.metadata[position])
            else:
                names = ready.named.get(text or "", ())
            mentions += [(name, rows[id]) for name in names]
        if stale:
            self._tables.forget_mentions(db, stale)
        if mentions:
            self._tables.put_mentions(db, mentions)

    def _stored_blobs(self, db: apsw.Connection, ready: _Prepared) -> dict[int, bytes]:
        """By position, the bytes that a new row has for each record of the batch that has a vector."""
        encoding = self._stored.encoding(db)
        blobs = {p: blob for p, blob in enumerate(ready.blobs) if blob is not None}
        if encoding.is_float32 or not blobs:
            return blobs
        given = list(blobs.values())
        made = dict(zip(blobs, encoding.encode(from_blobs(given, len(given[0]) // 4))))
        # What is kept is not decoded and encoded again: it might change by a step each time.
        made.update({p: blob for p, (row, blob) in ready.kept.items() if row > encoding.done})
        return made

    def _existing(self, db: apsw.Connection, batch: Batch) -> dict[str, StoredRecord]:
        old, now = self._tables.by_ids(db, batch.ids), time.time()
        for position, id in enumerate(batch.ids):
            if id not in old or old[id].is_expired(now):
                raise RecordNotFound(
                    f"{batch.name(position)} is not in collection {self._definition.name!r}; add it with add or upsert"
                )
        return old

    def _complete(
        self, db: apsw.Connection, ready: _Prepared, old: dict[str, StoredRecord], replace_metadata: bool
    ) -> None:
        """Fill in what an update does not give from the records as they are."""
        batch = ready.batch
        kept: dict[str, list[Any]] = {
            "text": batch.texts,
            "parent": batch.parents,
            "seq": batch.seqs,
            "expires": batch.expires,
        }
        for position, id in enumerate(batch.ids):
            before = old[id]
            for name, column in kept.items():
                if name not in batch.given:
                    column[position] = getattr(before, name)
            if "metadata" not in batch.given:
                batch.metadata[position] = before.metadata
            elif not replace_metadata:
                batch.metadata[position] = encode({**decode(before.metadata), **decode(batch.metadata[position])})
            if ready.blobs[position] is None:  # no vector given, no text embedded
                blob = self._tables.vector(db, before.row)
                if blob is not None:
                    ready.kept[position] = before.row, blob
                    (ready.blobs[position],) = to_blobs(self._stored.decode(db, [before.row], [blob]))
                ready.hashes[position] = before.hash

    def _check_parent(self, batch: Batch, old: dict[str, StoredRecord], parent: str) -> None:
        """Ids must be new or this parent's own: taking over another document's records would lose them unnoticed."""
        for position, id in enumerate(batch.ids):
            if id in old and old[id].parent != parent:
                raise DuplicateId(
                    f"{batch.name(position)} belongs to parent {old[id].parent!r} already, not to {parent!r}; "
                    "give it another id, or delete the other one",
                    position=batch.first + position,
                )

    def _taken(self, batch: Batch, error: apsw.ConstraintError) -> Exception:
        """Which record of a refused add has an id that exists."""
        with self._store.snapshot() as db:
            old = self._tables.by_ids(db, batch.ids)
        for position, id in enumerate(batch.ids):
            if id in old:
                return DuplicateId(
                    f"{batch.name(position)} exists in collection {self._definition.name!r} already; use upsert to replace it",
                    position=batch.first + position,
                )
        return error
