"""What an embedding model is to vecdb, and what is done with any of them: batches, queries, a cache.

An embedder turns texts into vectors. Its `name` is the model's identity: a collection remembers it and refuses vectors
of another model, so two embedders with one name must give the same vectors for the same text.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from threading import Lock
from typing import Any, Protocol

import numpy as np

from vecdb.errors import InvalidInput, InvalidVector
from vecdb.types import Vector

Progress = Callable[[int, int], None]  # called with (texts done, texts in all) after each batch


DEFAULT_MODEL = "all-MiniLM-L6-v2-int8"  # the identity of `minilm.MiniLM`

EmbedFunction = Callable[[list[str]], Any]  # gives an (N, D) array-like


class Embedder(Protocol):
    """A model that embeds texts. One that has `embed_queries(texts) -> (N, D)` too is asked for queries in batches."""

    @property
    def name(self) -> str:
        """The model's identity, such as "all-MiniLM-L6-v2-int8"."""

    @property
    def dimension(self) -> int:
        """D, the length of every vector it gives."""

    def embed_documents(self, texts: list[str]) -> Vector:
        """(N, D) float32, in the order of the texts."""

    def embed_query(self, text: str) -> Vector:
        """(D,) float32."""


class FromSpec:
    """What embedders that a string can make have in common: spec is that string."""

    spec: str


def embed_queries(embedder: Embedder, texts: Sequence[str]) -> Vector:
    """(N, D) float32: each text embedded as a query, at once where the embedder has a method for that."""
    texts = checked_texts(texts)
    if not texts:
        return np.empty((0, embedder.dimension), np.float32)
    embed_together = getattr(embedder, "embed_queries", None)
    if embed_together is not None:
        return as_vectors(embed_together(texts), len(texts), embedder.name)
    return as_vectors(np.stack([embedder.embed_query(text) for text in texts]), len(texts), embedder.name)


def embed_in_batches(
    embedder: Embedder, texts: Sequence[str], *, batch_size: int = 256, progress: Progress | None = None
) -> Vector:
    """(N, D) float32: the documents embedded in batches of batch_size, progress told after each."""
    if batch_size < 1:
        raise InvalidInput(f"batch_size is {batch_size}; it must be at least 1")
    texts = checked_texts(texts)
    vectors = np.empty((len(texts), embedder.dimension), np.float32)
    for start in range(0, len(texts), batch_size):
        batch = texts[start : start + batch_size]
        part = as_vectors(embedder.embed_documents(batch), len(batch), embedder.name)
        if part.shape[1] != vectors.shape[1]:
            raise InvalidVector(
                f"the embedder {embedder.name!r} says that its vectors have {vectors.shape[1]} numbers "
                f"but gave {part.shape[1]}; its `dimension` must be the length of what it gives"
            )
        vectors[start : start + len(batch)] = part
        if progress is not None:
            progress(start + len(batch), len(texts))
    return vectors


def checked_texts(texts: Sequence[str]) -> list[str]:
    """The texts as a list. A lone string is refused: as a sequence it would be embedded letter by letter."""
    if isinstance(texts, str):
        raise InvalidInput("got one string where a list of texts is wanted; wrap it in a list")
    texts = list(texts)
    for position, text in enumerate(texts):
        if not isinstance(text, str):
            raise InvalidInput(f"text {position} is a {type(text).__name__}; only strings can be embedded")
    return texts


def as_vectors(given: Any, count: int, source: str) -> Vector:
    """What a model gave, as a C-contiguous (count, D) float32 array; InvalidVector if it is none or is not finite."""
    try:
        vectors = np.ascontiguousarray(given, dtype=np.float32)
    except (TypeError, ValueError) as error:
        raise InvalidVector(
            f"the embedder {source!r} gave something that is not an array of numbers: {error}"
        ) from error
    if vectors.ndim != 2 or len(vectors) != count or vectors.shape[1] == 0:
        raise InvalidVector(
            f"the embedder {source!r} gave an array of shape {vectors.shape} for {count} texts; "
            f"it must give one row of numbers a text: ({count}, dimension)"
        )
    if not np.isfinite(vectors).all():
        raise InvalidVector(f"the embedder {source!r} gave NaN or infinity; look at the texts and at the model")
    return vectors


class CachedEmbedder:
    """An embedder that remembers the vectors of its latest queries, by their text. Documents pass through.

    Interactive use repeats queries (paging, another filter, another mode), and embedding is the slowest step of a
    search. Any number of threads may use it; two that miss the same text at once both embed it, which is harmless.
    """

    def __init__(self, embedder: Embedder, *, size: int = 1024) -> None:
        if size < 1:
            raise InvalidInput(f"size is {size}; a cache must hold at least 1 query")
        self.embedder = embedder
        self.size = size
        self._vectors: OrderedDict[str, Vector] = OrderedDict()  # least recently used first
        self._lock = Lock()

    @property
    def name(self) -> str:
        return self.embedder.name

    @property
    def dimension(self) -> int:
        return self.embedder.dimension

    def embed_documents(self, texts: list[str]) -> Vector:
        return self.embedder.embed_documents(texts)

    def embed_query(self, text: str) -> Vector:
        vector: Vector = self.embed_queries([text])[0]
        return vector

    def embed_queries(self, texts: Sequence[str]) -> Vector:
        """(N, D) float32; the embedder sees each text that is not remembered once."""
        texts = checked_texts(texts)
        found = self._recall(texts)
        missing = [text for text in dict.fromkeys(texts) if text not in found]
        if missing:
            found.update(zip(missing, embed_queries(self.embedder, missing)))
            self._remember(missing, found)
        if not texts:
            return np.empty((0, self.dimension), np.float32)
        return np.stack([found[text] for text in texts])

    def _recall(self, texts: list[str]) -> dict[str, Vector]:
        with self._lock:
            found = {text: self._vectors[text] for text in texts if text in self._vectors}
            for text in found:
                self._vectors.move_to_end(text)
        return found

    def _remember(self, texts: list[str], vectors: dict[str, Vector]) -> None:
        with self._lock:
            for text in texts[-self.size :]:
                self._vectors[text] = vectors[text].copy()  # a view would keep the whole batch alive
                self._vectors.move_to_end(text)
            while len(self._vectors) > self.size:
                self._vectors.popitem(last=False)
