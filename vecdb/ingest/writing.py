"""Records into the collection: vectors for their texts, made in batches or taken over from before, then one
transaction.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from vecdb.embedding.base import as_vectors
from vecdb.paging import pages
from vecdb.types import Duplicate, Record, Vector

if TYPE_CHECKING:
    from vecdb.collection import Collection
    from vecdb.duplicates import Policy

# Above so many chunks, a changed source's old vectors are not looked up: they would fill the memory.
_MOST_TAKEN_OVER = 20_000


class Writer:
    """Embeds and writes. on_embedded is told how many chunks got their vectors; stop is asked before each batch.

    unlike: what becomes of near duplicates, and how alike they are then; duplicates counts them.
    """

    def __init__(
        self,
        collection: Collection,
        *,
        batch_chunks: int,
        on_embedded: Callable[[int], None],
        stop: Callable[[], bool],
        unlike: tuple[Policy, float] | None = None,
    ) -> None:
        self._collection = collection
        self._embedder = collection.embedder
        self._batch_chunks = batch_chunks
        self._on_embedded = on_embedded
        self._stop = stop
        self._unlike = unlike
        self.duplicates = 0

    def embed(self, records: Sequence[dict[str, Any]], changed: Iterable[str] = ()) -> bool:
        """Put a vector on each record; False if the user stopped it. changed: sources whose old vectors may serve
        again.

        Embedding costs a thousand times more than everything else here, and an edit leaves most of a document's
        chunks as they were: a text that the source had before keeps its vector.
        """
        if self._embedder is None:
            return True
        before = self._vectors_before(changed)
        fresh: dict[str, list[dict[str, Any]]] = {}
        for record in records:
            if record["text"] in before:
                record["vector"] = before[record["text"]]
            else:
                fresh.setdefault(record["text"], []).append(record)
        self._on_embedded(len(records) - sum(map(len, fresh.values())))
        texts = list(fresh)
        for start in range(0, len(texts), self._batch_chunks):
            if self._stop():
                return False
            batch = texts[start : start + self._batch_chunks]
            vectors = as_vectors(self._embedder.embed_documents(batch), len(batch), self._embedder.name)
            for text, vector in zip(batch, vectors):
                for record in fresh[text]:
                    record["vector"] = vector
            self._on_embedded(sum(len(fresh[text]) for text in batch))
        return True

    def replace(self, source: str, records: Sequence[Mapping[str, Any]], fingerprint: str | None) -> None:
        """The source's records are these from now on, less near duplicates if these are not wanted; one transaction. Links to
        what they are duplicates of, and deletions of that, come after it.
        """
        found: list[Duplicate] = []
        if self._unlike is not None and records:
            from vecdb.duplicates import admitted

            new = [Record(one["id"], one["text"], vector=one.get("vector")) for one in records]
            places, found = admitted(self._collection, new, *self._unlike, parent=source)
            records = [records[place] for place in places]
        self._collection.replace(source, records, fingerprint=fingerprint)
        self.duplicates += len(found)
        if found and self._unlike is not None and self._unlike[0] != "skip":
            from vecdb.duplicates import carry_out

            carry_out(self._collection, self._unlike[0], found)

    def _vectors_before(self, sources: Iterable[str]) -> dict[str, Vector]:
        vectors: dict[str, Vector] = {}
        for source in sources:
            where = {"$parent": source}
            if len(vectors) + self._collection.count(where) <= _MOST_TAKEN_OVER:
                vectors.update(
                    (record.text, record.vector)
                    for page in pages(self._collection, where, vectors=True)
                    for record in page
                    if record.text is not None and record.vector is not None
                )
        return vectors
