"""Queries made of a text: a sentence of it, and a few words in a row.

Chosen words out of order ("keywords") were tried as well: maps fitted to them did harm to real queries.
"""

from __future__ import annotations

import re

import numpy as np

_SENTENCE_END = re.compile(r"(?<=[.!?])\s+|(?<=[。！？])|\n+")
_LEAST_WORDS, _MOST_WORDS = 4, 40
_SPAN_WORDS = (4, 12)
_LEAST_CHARACTERS, _MOST_CHARACTERS, _SPAN_CHARACTERS = 8, 120, (8, 30)  # where words are not set apart
_LONGEST_WORD = 25  # on average: beyond it the spaces do not part words


def pseudo_queries(text: str, rng: np.random.Generator) -> tuple[str, ...]:
    """A sentence of the text, and a span of 4 to 12 of its words; one if they are the same, none of a text without any."""
    words = text.split()
    if not words:
        return ()
    apart = len(text) <= _LONGEST_WORD * len(words)
    made = _sentence(text, apart, rng), _span(words if apart else list("".join(words)), apart, rng)
    return tuple(dict.fromkeys(made))


def _sentence(text: str, apart: bool, rng: np.random.Generator) -> str:
    """One long enough to say something; else the text's beginning."""
    found = [" ".join(part.split()) for part in _SENTENCE_END.split(text)]
    long = [part for part in found if (len(part.split()) >= _LEAST_WORDS if apart else len(part) >= _LEAST_CHARACTERS)]
    chosen = long[int(rng.integers(len(long)))] if long else " ".join(text.split())
    return " ".join(chosen.split()[:_MOST_WORDS]) if apart else chosen[:_MOST_CHARACTERS]


def _span(units: list[str], apart: bool, rng: np.random.Generator) -> str:
    least, most = _SPAN_WORDS if apart else _SPAN_CHARACTERS
    length = int(rng.integers(least, most + 1))
    start = int(rng.integers(max(1, len(units) - length + 1)))
    return (" " if apart else "").join(units[start : start + length])
