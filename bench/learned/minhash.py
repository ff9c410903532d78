"""MinHash LSH (datasketch), for comparison: pairs whose sets of words, or of four-letter pieces, fall into one bucket."""

from __future__ import annotations

from typing import Any

import numpy as np

from bench.learned.er_sets import ErSet

_THRESHOLDS = (0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
_PERMUTATIONS = 128
_MOST = 0.5  # of all pairs: nobody calls that blocking


def study_minhash(data: ErSet, wanted: float) -> dict[str, Any]:
    """The curve of whichever kind of set is better at the recall wanted. Nothing is learned, so every entity is a test one."""
    from bench.learned.blocking import ratio_at

    curves = {kind: _curve(data, kind) for kind in ("words", "pieces")}
    at = {kind: ratio_at(curve, wanted) for kind, curve in curves.items()}
    best = min(at, key=lambda kind: np.inf if at[kind] is None else at[kind])
    ratio, possible = at[best], len(data.a) * len(data.b)
    return {
        "curves": {"threshold": curves[best]},
        "sets": best,
        "ratio_at_wanted": {"threshold": ratio},
        "candidates_at_wanted": {"threshold": None if ratio is None else ratio * possible},
    }


def _curve(data: ErSet, kind: str) -> list[dict[str, float]]:
    from datasketch import MinHash, MinHashLSH

    sides = []
    for texts in data.texts():
        values = [[item.encode() for item in _items(text, kind)] for text in texts]
        sides.append(MinHash.bulk(values, num_perm=_PERMUTATIONS, seed=1))
    matches = set(zip(data.matches.left.tolist(), data.matches.right.tolist()))
    points = []
    for threshold in reversed(_THRESHOLDS):
        index = MinHashLSH(threshold=threshold, num_perm=_PERMUTATIONS)
        for place, own in enumerate(sides[1]):
            index.insert(place, own)
        found = [(left, right) for left, own in enumerate(sides[0]) for right in index.query(own)]
        ratio = len(found) / (len(data.a) * len(data.b))
        points.append({"threshold": threshold, "recall": len(matches & set(found)) / len(matches), "ratio": ratio})
        if ratio > _MOST:
            break
    return points


def _items(text: str, kind: str) -> set[str]:
    words = text.lower().split()
    if kind == "words":
        return set(words) or {""}
    whole = " ".join(words)
    return {whole[i : i + 4] for i in range(max(1, len(whole) - 3))}
