"""The terms of a vocabulary that are nearest to a misspelt one.

Distance is that of Damerau (1964) in its restricted form ("optimal string alignment"): insertions, deletions, substitutions, and
swaps of two neighbours, no place changed twice. Terms of 4 to 7 letters may be 1 away, longer ones 2; the first letter, which is
seldom wrong, must agree; and a term with a digit stands for itself: the part number next to it is another part.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

_SHORTEST, _SHORTEST_FOR_TWO = 4, 8
_MOST_NEAR = 5


def near_terms(term: str, vocabulary: Iterable[str], frequency: Callable[[str], int]) -> list[tuple[str, int]]:
    """(term, distance) of those nearest to term that occur somewhere: all at the smallest distance there is, the most frequent
    five of them.
    """
    if len(term) < _SHORTEST or any(character.isdigit() for character in term):
        return []
    most = 2 if len(term) >= _SHORTEST_FOR_TWO else 1
    first, least, longest = term[0], len(term) - most, len(term) + most
    candidates = [known for known in vocabulary if known[:1] == first and least <= len(known) <= longest]
    found = distances(term, candidates)
    for distance in range(1, most + 1):
        counted = [(frequency(candidates[i]), candidates[i]) for i in np.flatnonzero(found == distance)]
        near = sorted(((-count, known) for count, known in counted if count))[:_MOST_NEAR]
        if near:
            return [(known, distance) for _, known in near]
    return []


def distances(word: str, candidates: Sequence[str]) -> NDArray[np.int16]:
    """(len(candidates),) how far each is from word. The usual table, one cell of all candidates at a time."""
    count, width = len(candidates), max(map(len, candidates), default=0)
    if not width:
        return np.full(count, len(word), dtype=np.int16)
    letters = np.array(candidates, dtype=f"U{width}").view(np.uint32).reshape(count, width)
    lengths = np.fromiter(map(len, candidates), dtype=np.intp, count=count)
    row = np.tile(np.arange(width + 1, dtype=np.int16)[:, None], count)  # (width + 1, count): from nothing of word
    before, two_before = row, row
    for i, letter in enumerate(map(ord, word), start=1):
        two_before, before, row = before, row, np.empty_like(row)
        row[0] = i
        for j in range(1, width + 1):
            changed = before[j - 1] + (letters[:, j - 1] != letter)
            row[j] = np.minimum(np.minimum(before[j], row[j - 1]) + 1, changed)
            if i > 1 and j > 1:
                swapped = (letters[:, j - 1] == ord(word[i - 2])) & (letters[:, j - 2] == letter)
                row[j] = np.where(swapped, np.minimum(row[j], two_before[j - 2] + 1), row[j])
    return row[lengths, np.arange(count)]
