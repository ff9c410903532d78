"""A quick embedder for tests in which the model is not the point: equal words give equal vectors, near texts near ones."""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray


class WordEmbedder:
    """The mean of a random direction for each word. calls counts the texts that were really embedded."""

    def __init__(self, name: str = "words-16", dimension: int = 16) -> None:
        self.name = name
        self.dimension = dimension
        self.calls = 0

    def embed_documents(self, texts: list[str]) -> NDArray[np.float32]:
        self.calls += len(texts)
        return np.stack([self._vector(text) for text in texts])

    def embed_query(self, text: str) -> NDArray[np.float32]:
        return self._vector(text)

    def _vector(self, text: str) -> NDArray[np.float32]:
        words = text.lower().split() or ["nothing"]
        vector = np.sum([self._direction(word) for word in words], axis=0)
        return np.asarray(vector / np.linalg.norm(vector), dtype=np.float32)

    def _direction(self, word: str) -> NDArray[np.float64]:
        seed = int.from_bytes(hashlib.blake2b(f"{self.name}:{word}".encode(), digest_size=8).digest())
        return np.random.default_rng(seed).standard_normal(self.dimension)
