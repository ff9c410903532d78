"""BM25 over postings in memory: the word index that answers while SQLite's FTS5 keeps the truth.

Scores are those of FTS5's bm25() (Robertson & Zaragoza 2009, section 3.2; k1 = 1.2 and b = 0.75 unless told otherwise), so that a
query gets the same answer from either; only here it costs microseconds for each thousand postings, there a millisecond.

Fields: one occurrence of a term may count for more or less than 1. Counts are added up over the fields and saturated once, and a
document's length is that of all its fields, unweighted. That is what FTS5 does with weights, and BM25F (Robertson, Zaragoza &
Taylor 2004) but for the length.

A document is a slot (0 … n-1) and a list of terms, which somebody else has tokenised. `Postings` is an immutable snapshot: adding
documents gives a new one that shares the old one's blocks, so readers never lock.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain

import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]

K1 = 1.2
B = 0.75
# A term in more than half of the documents would have a negative idf; FTS5 gives it this one.
_LEAST_IDF = 1e-6


@dataclass(frozen=True, slots=True)
class _Block:
    """The postings of some documents. Term terms[i] occurs in slots[starts[i]:starts[i+1]], counts times in each."""

    terms: NDArray[np.int32]
    starts: NDArray[np.int64]
    slots: NDArray[np.int32]
    counts: NDArray[np.float32]

    def of(self, term: int) -> slice:
        i = int(np.searchsorted(self.terms, term))
        if i == len(self.terms) or self.terms[i] != term:
            return slice(0, 0)
        return slice(int(self.starts[i]), int(self.starts[i + 1]))


@dataclass(frozen=True, slots=True)
class Postings:
    """vocabulary grows only, and is shared by all snapshots. lengths: (n,) tokens in each document, -1 where there is no text."""

    vocabulary: dict[str, int] = field(default_factory=dict)
    blocks: tuple[_Block, ...] = ()
    lengths: NDArray[np.int32] = field(default_factory=lambda: np.zeros(0, dtype=np.int32))

    def __len__(self) -> int:
        return len(self.lengths)

    @property
    def nbytes(self) -> int:
        blocks = sum(b.terms.nbytes + b.starts.nbytes + b.slots.nbytes + b.counts.nbytes for b in self.blocks)
        return blocks + self.lengths.nbytes

    def appended(
        self,
        documents: Sequence[Sequence[str] | None],
        *,
        lengths: Sequence[int] | NDArray[np.int32] | None = None,
        counts: NDArray[np.float32] | None = None,
    ) -> Postings:
        """With documents at the slots after the last; None has no text.

        lengths: (len(documents),) tokens of each, where that is not its number of terms. counts: for each term of each document,
        one after the other, how much this occurrence counts; None: 1.
        """
        if not documents:
            return self
        first = len(self.lengths)
        sizes = np.fromiter((len(d) if d else 0 for d in documents), dtype=np.int32, count=len(documents))
        known = self.vocabulary
        # setdefault(term, len(known)) numbers a new term; a race is excluded because only one writer appends
        terms = np.fromiter(
            (known.setdefault(term, len(known)) for term in chain.from_iterable(d for d in documents if d)),
            dtype=np.int32,
            count=int(sizes.sum()),
        )
        slots = np.repeat(np.arange(first, first + len(documents), dtype=np.int32), sizes)
        blocks = [*self.blocks, _block(terms, slots, np.ones(len(terms), np.float32) if counts is None else counts)]
        # Blocks at least double in size from the last to the first: few of them, and each posting is merged log(n) times.
        while len(blocks) > 1 and len(blocks[-2].slots) < 2 * len(blocks[-1].slots):
            blocks[-2:] = [_merged(blocks[-2], blocks[-1])]
        added = np.array(sizes if lengths is None else lengths, dtype=np.int32)
        added[[document is None for document in documents]] = -1
        return Postings(known, tuple(blocks), np.concatenate([self.lengths, added]))

    def compacted(self, kept: NDArray[np.int64]) -> Postings:
        """Only the documents at slots kept (ascending), renumbered 0 … len(kept)-1."""
        renumbered = np.full(len(self.lengths), -1, dtype=np.int32)
        renumbered[kept] = np.arange(len(kept), dtype=np.int32)
        parts = []
        for block in self.blocks:
            terms = np.repeat(block.terms, np.diff(block.starts))
            slots = renumbered[block.slots]
            alive = slots >= 0
            parts.append(_block(terms[alive], slots[alive], block.counts[alive]))
        return Postings(self.vocabulary, tuple(parts), self.lengths[kept])

    def scores(
        self, query: Mapping[str, float] | Sequence[str], live: Mask | None = None, *, k1: float = K1, b: float = B
    ) -> NDArray[np.float32]:
        """(n,) float32: the BM25 score of each document, 0 where no term of the query occurs.

        query: terms, or terms with the weight of each one's share in the score. live: the documents that count for document
        frequencies and lengths; None means all of them.
        """
        scores = np.zeros(len(self.lengths), dtype=np.float32)
        has_text = self.lengths >= 0 if live is None else live & (self.lengths >= 0)
        documents = int(np.count_nonzero(has_text))
        if not documents:
            return scores
        mean_length = float(self.lengths.sum(where=has_text, dtype=np.int64)) / documents or 1.0
        saturation = (k1 * (1 - b + b / mean_length * self.lengths)).astype(np.float32)
        for term, weight in (query if isinstance(query, Mapping) else dict.fromkeys(query, 1.0)).items():
            number = self.vocabulary.get(term)
            if number is not None:
                self._add_term(scores, number, weight * (k1 + 1), documents, saturation, live)
        return scores

    def _add_term(
        self,
        scores: NDArray[np.float32],
        term: int,
        factor: float,
        documents: int,
        saturation: NDArray[np.float32],
        live: Mask | None,
    ) -> None:
        found = [(block, where) for block in self.blocks if (where := block.of(term)).stop]
        frequency = sum(
            where.stop - where.start if live is None else int(np.count_nonzero(live[block.slots[where]]))
            for block, where in found
        )
        if not frequency:
            return
        idf = np.log((documents - frequency + 0.5) / (frequency + 0.5))
        weight = np.float32(max(idf, _LEAST_IDF) * factor)
        for block, where in found:
            slots, counts = block.slots[where], block.counts[where]
            scores[slots] += (
                weight * counts / (counts + saturation[slots])
            )  # a slot occurs once for each term and block

    def documents(self, live: Mask | None = None) -> int:
        """How many documents have text."""
        return int(np.count_nonzero(self.lengths >= 0 if live is None else live & (self.lengths >= 0)))

    def frequency(self, term: str, live: Mask | None = None) -> int:
        """In how many documents the term occurs."""
        number = self.vocabulary.get(term)
        if number is None:
            return 0
        slots = [block.slots[block.of(number)] for block in self.blocks]
        return sum(len(s) if live is None else int(np.count_nonzero(live[s])) for s in slots)


def _block(terms: NDArray[np.int32], slots: NDArray[np.int32], counts: NDArray[np.float32]) -> _Block:
    """Postings in any order, repeated (term, slot) pairs summed."""
    keys = terms.astype(np.int64) << 32 | slots
    order = np.argsort(keys, kind="stable")
    keys = keys[order]
    firsts = np.flatnonzero(np.diff(keys, prepend=-1))
    counts = np.add.reduceat(counts[order], firsts) if len(firsts) else counts[:0]
    keys = keys[firsts]
    numbers = (keys >> 32).astype(np.int32)
    starts = np.flatnonzero(np.diff(numbers, prepend=-1))
    return _Block(
        terms=numbers[starts],
        starts=np.append(starts, len(keys)).astype(np.int64),
        slots=(keys & 0xFFFFFFFF).astype(np.int32),
        counts=counts.astype(np.float32, copy=False),
    )


def _merged(left: _Block, right: _Block) -> _Block:
    return _block(
        np.concatenate([np.repeat(block.terms, np.diff(block.starts)) for block in (left, right)]),
        np.concatenate([left.slots, right.slots]),
        np.concatenate([left.counts, right.counts]),
    )
