"""Slow twins of the text side, which anyone can check by reading."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence


def bm25f(
    documents: Sequence[Mapping[str, Sequence[str]] | None],
    query: Mapping[str, float],
    weights: Mapping[str, float],
    *,
    k1: float,
    b: float,
) -> dict[int, float]:
    """Document number -> score above 0. A document is its fields' terms; None has no text at all and does not count."""
    known = {number: fields for number, fields in enumerate(documents) if fields is not None}
    lengths = {number: sum(len(terms) for terms in fields.values()) for number, fields in known.items()}
    mean = sum(lengths.values()) / len(known) if known else 0.0
    scores: dict[int, float] = {}
    for number, fields in known.items():
        for term, worth in query.items():
            count = sum(weights[name] * list(terms).count(term) for name, terms in fields.items())
            if count:
                having = sum(any(term in terms for terms in other.values()) for other in known.values())
                idf = max(1e-6, math.log((len(known) - having + 0.5) / (having + 0.5)))
                saturated = count * (k1 + 1) / (count + k1 * (1 - b + b * lengths[number] / mean))
                scores[number] = scores.get(number, 0.0) + worth * idf * saturated
    return scores


def alignment_distance(a: str, b: str) -> int:
    """Restricted Damerau-Levenshtein distance, cell by cell."""
    table = [[max(i, j) if min(i, j) == 0 else 0 for j in range(len(b) + 1)] for i in range(len(a) + 1)]
    for i in range(1, len(a) + 1):
        for j in range(1, len(b) + 1):
            changed = table[i - 1][j - 1] + (a[i - 1] != b[j - 1])
            table[i][j] = min(table[i - 1][j] + 1, table[i][j - 1] + 1, changed)
            if i > 1 and j > 1 and a[i - 1] == b[j - 2] and a[i - 2] == b[j - 1]:
                table[i][j] = min(table[i][j], table[i - 2][j - 2] + 1)
    return table[-1][-1]


def nearest_terms(term: str, known: Mapping[str, int]) -> list[tuple[str, int]]:
    """The at most five most frequent of the terms at the smallest distance, 1 or, from 8 letters on, 2: all are looked at."""
    if len(term) < 4 or any(character.isdigit() for character in term):
        return []
    for distance in (1, 2) if len(term) >= 8 else (1,):
        near = [(-count, word) for word, count in known.items() if count and word[:1] == term[0]]
        near = [(count, word) for count, word in near if alignment_distance(term, word) == distance]
        if near:
            return [(word, distance) for _, word in sorted(near)[:5]]
    return []


def best_window(text: str, matches: Sequence[tuple[int, int, str]], length: int) -> tuple[int, int]:
    """(different terms, occurrences) of the best run of matches (start, end, term) that fits into length characters."""
    best = (0, 0)
    for first in range(len(matches)):
        for last in range(first, len(matches)):
            if last == first or matches[last][1] - matches[first][0] <= length:
                terms = [term for _, _, term in matches[first : last + 1]]
                best = max(best, (len(set(terms)), len(terms)))
            else:
                break
    return best


def is_cjk(character: str) -> bool:
    """Enough of the scripts for tests."""
    return any(
        low <= character <= high for low, high in ("\u3041\u3096", "\u30a1\u30fa", "\u4e00\u9fff", "\uac00\ud7a3")
    )


def cjk_terms(run: str, *, is_query: bool) -> list[str]:
    """What a run of CJK characters becomes, in any order."""
    pairs = [run[i : i + 2] for i in range(len(run) - 1)]
    if is_query:
        return pairs or [run]
    return [*run, *pairs]
