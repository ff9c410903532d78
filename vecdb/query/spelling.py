"""The terms of a vocabulary that are nearest to a misspelt one.

Distance is that of Damerau (1964) in its restricted form ("optimal string alignment"): insertions, deletions, substitutions, and
swaps of two neighbours, no place changed twice. Terms of 4 to 7 letters may be 1 away, longer ones 2; the first letter, which is
seldom wrong, must agree; and a term with a digit stands for itself: the part number next to it is another part.

Few terms are measured: they lie sorted by first letter and length, each with a signature of the letters that it has, and a term
whose signature differs by more bits than so many changes can make is further away than that.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

_SHORTEST, _SHORTEST_FOR_TWO = 4, 8
_MOST_NEAR = 5

Signatures = NDArray[np.uint64]


@dataclass(slots=True)
class _Shelf:
    """Terms of one length that begin with one letter; signatures: of the first len(signatures) of them."""

    terms: list[str] = field(default_factory=list)
    signatures: Signatures = field(default_factory=lambda: np.zeros(0, np.uint64))


class Speller:
    """The terms of one vocabulary, which may grow while it is asked. What it keeps of them is made by the first question: a third
    of a microsecond and some ten bytes a term.
    """

    def __init__(self, vocabulary: Mapping[str, int]) -> None:
        self.vocabulary = vocabulary
        self._lock = threading.Lock()
        self._shelves: dict[tuple[str, int], _Shelf] = {}
        self._read = 0

    def near(self, term: str, frequency: Callable[[str], int]) -> list[tuple[str, int]]:
        """(term, distance) of those nearest to term that occur somewhere: all at the smallest distance there is, the most
        frequent five of them.
        """
        if len(term) < _SHORTEST or any(character.isdigit() for character in term):
            return []
        for distance in range(1, 3 if len(term) >= _SHORTEST_FOR_TWO else 2):
            candidates = self._candidates(term, distance)
            found = np.flatnonzero(distances(term, candidates, distance) == distance)
            counted = [(frequency(candidates[i]), candidates[i]) for i in found]
            near = sorted(((-count, known) for count, known in counted if count))[:_MOST_NEAR]
            if near:
                return [(known, distance) for _, known in near]
        return []

    def _candidates(self, term: str, most: int) -> list[str]:
        """Terms among which are all that are at most so far away."""
        own = _signatures([term])
        found = []
        with self._lock:
            self._shelve()
            for length in range(len(term) - most, len(term) + most + 1):
                shelf = self._shelves.get((term[0], length))
                if shelf is None:
                    continue
                if len(shelf.signatures) < len(shelf.terms):
                    new = _signatures(shelf.terms[len(shelf.signatures) :])
                    shelf.signatures = np.concatenate([shelf.signatures, new])
                # A change of one letter into another turns two bits; one put in or taken out, of which the lengths need so many,
                # turns one.
                bits = 2 * most - abs(length - len(term))
                found += [shelf.terms[i] for i in np.flatnonzero(_bits_of(shelf.signatures ^ own) <= bits)]
        return found

    def _shelve(self) -> None:
        """Take in the terms that are new."""
        if len(self.vocabulary) == self._read:
            return
        terms = list(self.vocabulary)  # at once: somebody may be adding to it
        for term in terms[self._read :]:
            self._shelves.setdefault((term[:1], len(term)), _Shelf()).terms.append(term)
        self._read = len(terms)


def distances(word: str, candidates: Sequence[str], most: int) -> NDArray[np.int16]:
    """(len(candidates),) how far each is from word; most + 1 if it is further than most.

    The usual table, one cell of all candidates at a time, and only cells that are no further from its diagonal (Ukkonen 1985).
    """
    count, width = len(candidates), max(map(len, candidates), default=0)
    far = np.int16(most + 1)
    if not width:
        return np.full(count, min(len(word), far), dtype=np.int16)
    letters = np.ascontiguousarray(np.array(candidates, dtype=f"U{width}").view(np.uint32).reshape(count, width).T)
    lengths = np.fromiter(map(len, candidates), dtype=np.intp, count=count)
    row = np.tile(np.minimum(np.arange(width + 1, dtype=np.int16), far)[:, None], count)  # from nothing of word
    before, two_before = row, row
    for i, letter in enumerate(map(ord, word), start=1):
        two_before, before, row = before, row, np.full_like(row, far)
        row[0] = min(i, far)
        for j in range(max(1, i - most), min(width, i + most) + 1):
            changed = before[j - 1] + (letters[j - 1] != letter)
            row[j] = np.minimum(np.minimum(before[j], row[j - 1]) + 1, changed)
            if i > 1 and j > 1:
                swapped = (letters[j - 1] == ord(word[i - 2])) & (letters[j - 2] == letter)
                row[j] = np.where(swapped, np.minimum(row[j], two_before[j - 2] + 1), row[j])
    return np.asarray(np.minimum(row[lengths, np.arange(count)], far))


def _signatures(terms: Sequence[str]) -> Signatures:
    """(n,) for n terms of one length: which letters each has (32 bits), and which more than once (32 more). Letters of larger
    alphabets share bits.
    """
    length = len(terms[0])
    letters = np.array(terms, dtype=f"U{length}").view(np.uint32).reshape(len(terms), length)
    once, twice = np.zeros(len(terms), np.uint64), np.zeros(len(terms), np.uint64)
    for place in range(length):
        bit = np.uint64(1) << (letters[:, place] & np.uint32(31)).astype(np.uint64)
        twice |= once & bit
        once |= bit
    return once | twice << np.uint64(32)


def _bits_of(values: Signatures) -> Signatures:
    """How many bits of each are set (numpy has a function for it from 2.0 on)."""
    pairs = values - (values >> np.uint64(1) & np.uint64(0x5555555555555555))
    fours = (pairs & np.uint64(0x3333333333333333)) + (pairs >> np.uint64(2) & np.uint64(0x3333333333333333))
    bytes_ = fours + (fours >> np.uint64(4)) & np.uint64(0x0F0F0F0F0F0F0F0F)
    return np.asarray((bytes_ * np.uint64(0x0101010101010101)) >> np.uint64(56))
