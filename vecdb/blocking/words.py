"""What a text says by its letters: words and pieces of words, weighted by how few records have them.

Products' numbers ("dsc-w120", "dscw120") are what tells records of one kind apart, and encoders hardly see them. Words are runs
of letters and digits; a word's pieces are its runs of 3 and 4 characters, ends marked, so that words that are spelt or joined
otherwise still have most of them. Weights are (1 + log tf) idf, rows have unit length.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from vecdb.index.sparse import Sparse

BUCKETS = 1 << 18  # of a hash: pieces rarely meet, and what meets adds a little noise
_PIECES = (3, 4)
_WORD = re.compile(r"[^\W_]+")


@dataclass(frozen=True, slots=True)
class Lexicon:
    """How many of so many texts have each piece: buckets (m,) int32 ascending, counts (m,) int32. What is not there, none has."""

    buckets: NDArray[np.int32]
    counts: NDArray[np.int32]
    texts: int

    @classmethod
    def of(cls, texts: Iterable[str]) -> Lexicon:
        lists = [_counted(text)[0] for text in texts]
        frequencies = np.bincount(np.concatenate([np.zeros(0, np.int64), *lists]), minlength=BUCKETS)
        buckets = np.flatnonzero(frequencies)
        return cls(buckets.astype(np.int32), frequencies[buckets].astype(np.int32), len(lists))

    def vectors(self, texts: Sequence[str]) -> Sparse:
        """(N, BUCKETS): unit rows; a text without a word is a zero row."""
        frequencies = np.zeros(BUCKETS)
        frequencies[self.buckets] = self.counts
        idf = np.log((self.texts + 1) / (frequencies + 1)) + 1e-3  # a piece that all have still counts a little
        rows, values = [], []
        for text in texts:
            pieces, counts = _counted(text)
            weights = (1 + np.log(counts)) * idf[pieces]
            rows.append(pieces.astype(np.int32))
            values.append((weights / max(float(np.linalg.norm(weights)), 1e-12)).astype(np.float32))
        return Sparse.of(rows, values, BUCKETS)


def _counted(text: str) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The buckets of a text's words and pieces, ascending, and how often each occurs."""
    found = [_buckets(word) for word in _WORD.findall(text.lower())]
    if not found:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    return np.unique(np.concatenate(found), return_counts=True)


@lru_cache(1 << 16)
def _buckets(word: str) -> NDArray[np.int64]:
    marked = f"<{word}>"
    pieces = [f"={word}", *(marked[i : i + n] for n in _PIECES for i in range(len(marked) - n + 1))]
    return np.array([zlib.crc32(piece.encode(errors="replace")) % BUCKETS for piece in pieces], dtype=np.int64)
