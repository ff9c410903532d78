"""Triples from a collection's own documents: a query made of one, that document, and others that only one list takes for it.

Documents are divided by their names into a half to learn from and a half to be judged by: a query's hard negatives come from the
learning half too, so nothing that the gate asks about has been seen. Chunks of one parent are one document.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from vecdb.adaptation.maps import Lesson, Places
from vecdb.adaptation.pseudo import pseudo_queries
from vecdb.definition import Definition
from vecdb.embedding.base import embed_queries
from vecdb.errors import InvalidInput
from vecdb.memory import Memory
from vecdb.query.request import SearchOptions
from vecdb.query.retrieval import Retrieval
from vecdb.storage import Store
from vecdb.tables import StoredRecord, Tables
from vecdb.vectors import Matrix, prepared

NEGATIVES = 4

_LEARNING_SHARE = 0.6
_AT_ONCE = 256  # records read and embedded together; between two such steps the clock is looked at
_LOOKED_AT, _LISTED = 20, 10  # of each list: as deep as it is looked into, and what is left of it in the learning half
_NEAR_COPY = 0.95  # cosine to the positive from which a document is no negative, but the same again


@dataclass(frozen=True, slots=True)
class Source:
    """A record that queries were made of."""

    row: int
    document: str
    text_hash: bytes


@dataclass(frozen=True, slots=True)
class Asked:
    """Queries made of records: query i of sources[i], vectors (N, D)."""

    texts: list[str]
    sources: list[Source]
    vectors: Matrix

    def __len__(self) -> int:
        return len(self.texts)

    def taken(self, places: Sequence[int]) -> Asked:
        return Asked([self.texts[i] for i in places], [self.sources[i] for i in places], self.vectors[list(places)])

    @property
    def documents(self) -> set[str]:
        return {source.document for source in self.sources}

    @property
    def rows(self) -> list[int]:
        return [source.row for source in self.sources]


@dataclass(frozen=True, slots=True)
class Triples:
    """asked[i] stands for query i of the lesson; rows: of its documents."""

    asked: Asked
    lesson: Lesson
    rows: Places


class Miner:
    """What is asked of one collection and found in it."""

    def __init__(
        self,
        store: Store,
        tables: Tables,
        definition: Definition,
        memory: Memory,
        retrieval: Retrieval,
        seed: int,
    ) -> None:
        self._store = store
        self._tables = tables
        self._definition = definition
        self._memory = memory
        self._retrieval = retrieval
        self._seed = seed

    def asked(self, sample: int, until: float) -> Asked:
        """Queries made of up to sample records that have text and a vector, drawn at random; of fewer once it is `until` by
        time.perf_counter(). Raises ModelUnavailable if nothing embeds here.
        """
        embedder = self._definition.embedder().embedder  # past the cache, which is for what people ask
        rng = np.random.default_rng(self._seed)
        texts: list[str] = []
        sources: list[Source] = []
        vectors: list[Matrix] = []
        drawn = 0
        for records in self._drawn(rng):
            made = [pseudo_queries(record.text or "", rng) for record in records]
            usable = [place for place, queries in enumerate(made) if queries][: sample - drawn]
            batch = [text for place in usable for text in made[place]]
            if batch:
                found = embed_queries(embedder, batch)
                has_direction = np.any(found != 0, axis=1)
                of = [_source(records[place]) for place in usable for _ in made[place]]
                texts += [text for text, kept in zip(batch, has_direction) if kept]
                sources += [source for source, kept in zip(of, has_direction) if kept]
                vectors.append(self._prepared(found[has_direction]))
            drawn += len(usable)
            if drawn >= sample or time.perf_counter() > until:
                break
        if not vectors:
            raise InvalidInput(
                f"collection {self._definition.name!r} has no record with text and a vector to learn from; add some first"
            )
        return Asked(texts, sources, np.concatenate(vectors))

    def halves(self, asked: Asked) -> tuple[Asked, Asked]:
        """To learn from, and to be judged by. What is to be judged by loses whatever text the other has too."""
        learns = [self._is_learned(source.document) for source in asked.sources]
        learning = asked.taken([place for place, mine in enumerate(learns) if mine])
        known, hashes = set(learning.texts), {source.text_hash for source in learning.sources}
        judging = [
            place
            for place, mine in enumerate(learns)
            if not mine and asked.texts[place] not in known and asked.sources[place].text_hash not in hashes
        ]
        return learning, asked.taken(judging)

    def triples(self, learning: Asked) -> Triples:
        """Where the lists disagree about a query, with NEGATIVES documents that only one of them has."""
        options = SearchOptions(mode="hybrid", candidates=_LOOKED_AT)
        self._memory.current("vectors", "words")
        lists = (
            self._retrieval.by_vector(learning.vectors, _LOOKED_AT, None, options).rankings,
            self._retrieval.by_text(learning.texts, _LOOKED_AT, None, options).rankings,
        )
        documents = self._documents({row for rankings in lists for found in rankings for row in found.rows.tolist()})
        learned = {row for row, document in documents.items() if self._is_learned(document)}
        rng = np.random.default_rng(self._seed)
        candidates = []
        for source, by_vector, by_text in zip(learning.sources, *lists):
            first, second = (
                [row for row in found.rows.tolist() if row in learned][:_LISTED] for found in (by_vector, by_text)
            )
            apart = sorted(row for row in set(first) ^ set(second) if documents[row] != source.document)
            candidates.append(rng.permutation(np.array(apart, dtype=np.int64))[: 2 * NEGATIVES])
        return self._lesson(learning, candidates)

    def _lesson(self, learning: Asked, candidates: list[Places]) -> Triples:
        """Of the candidates of each query those that are no copies of its positive; queries without any are left out."""
        rows = np.unique(np.concatenate([np.array(learning.rows, dtype=np.int64), *candidates]))
        found = self._retrieval.vectors_of(rows.tolist())
        known = np.array([vector is not None for vector in found])  # what was deleted meanwhile has none
        rows, vectors = rows[known], np.stack([vector for vector in found if vector is not None])
        units = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), np.float32(1e-12))
        kept, positives, negatives = [], [], []
        for place, (row, apart) in enumerate(zip(learning.rows, candidates)):
            apart = apart[np.isin(apart, rows)]
            if not np.isin(row, rows):
                continue
            own, others = int(np.searchsorted(rows, row)), np.searchsorted(rows, apart)
            others = others[units[others] @ units[own] < _NEAR_COPY]
            if len(others):
                kept.append(place)
                positives.append(own)
                negatives.append(np.resize(others, NEGATIVES))
        asked = learning.taken(kept)
        shape = (len(kept), NEGATIVES)
        lesson = Lesson(
            asked.vectors,
            vectors,
            np.array(positives, dtype=np.int64),
            np.array(negatives, dtype=np.int64).reshape(shape),
        )
        return Triples(asked, lesson, rows)

    def _drawn(self, rng: np.random.Generator) -> Iterator[list[StoredRecord]]:
        snapshot = self._memory.current("vectors")
        assert snapshot.vectors is not None
        has_vector = np.zeros(len(snapshot.rows), dtype=np.bool_)
        for slots in (snapshot.vectors.index_slots, snapshot.vectors.tail_slots):
            has_vector[slots[slots >= 0]] = True
        visible = snapshot.visible(time.time())
        rows = rng.permutation(snapshot.rows[has_vector if visible is None else has_vector & visible])
        for start in range(0, len(rows), _AT_ONCE):
            wanted = rows[start : start + _AT_ONCE].tolist()
            with self._store.read() as db:
                found = self._tables.by_rows(db, wanted)
            yield [found[row] for row in wanted if row in found]

    def _documents(self, rows: set[int]) -> dict[int, str]:
        listed = sorted(rows)
        found: dict[int, str] = {}
        for start in range(0, len(listed), 10 * _AT_ONCE):
            with self._store.read() as db:
                records = self._tables.by_rows(db, listed[start : start + 10 * _AT_ONCE])
            found.update((row, _document(record)) for row, record in records.items())
        return found

    def _is_learned(self, document: str) -> bool:
        digest = hashlib.blake2b(f"{self._seed}:{document}".encode(errors="replace"), digest_size=4).digest()
        return int.from_bytes(digest) < _LEARNING_SHARE * 2**32

    def _prepared(self, vectors: Matrix) -> Matrix:
        config = self._definition.config
        return prepared(vectors, dimension=config.dimension, metric=config.metric, collection=self._definition.name)


def _document(record: StoredRecord) -> str:
    return f"id {record.id}" if record.parent is None else f"parent {record.parent}"


def _source(record: StoredRecord) -> Source:
    text = (record.text or "").encode(errors="replace")
    return Source(record.row, _document(record), record.hash or hashlib.blake2b(text, digest_size=16).digest())
