"""Fusions as one would write them on paper: dicts of scores, loops, no arrays. What the real ones are compared with."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

List = Sequence[tuple[int, float]]  # rows with scores, best first


def rrf(lists: Sequence[List], k: float, weights: Sequence[float], base: int) -> dict[int, float]:
    fused: dict[int, float] = {}
    for ranked, weight in zip(lists, weights):
        for rank, (row, _) in enumerate(ranked, start=base):
            fused[row] = fused.get(row, 0.0) + weight / (k + rank)
    return fused


def min_max(ranked: List) -> dict[int, float]:
    scores = [score for _, score in ranked]
    return {r: (s - min(scores)) / (max(scores) - min(scores)) if max(scores) > min(scores) else 1.0 for r, s in ranked}


def z_scores(ranked: List) -> dict[int, float]:
    """Shifted so that the last one has 0."""
    scores = [score for _, score in ranked]
    deviation = statistics.pstdev(scores) if scores else 0.0
    return {row: (score - min(scores)) / deviation if deviation else 1.0 for row, score in ranked}


def three_deviations(ranked: List) -> dict[int, float]:
    scores = [score for _, score in ranked]
    if len(set(scores)) < 2:
        return {row: 1.0 for row, _ in ranked}
    mean, deviation = statistics.fmean(scores), statistics.pstdev(scores)
    low, high = mean - 3 * deviation, mean + 3 * deviation
    return {row: (score - low) / (high - low) for row, score in ranked}


def summed(scaled: Sequence[dict[int, float]], weights: Sequence[float]) -> dict[int, float]:
    rows = {row for scores in scaled for row in scores}
    return {row: sum(w * scores.get(row, 0.0) for scores, w in zip(scaled, weights)) for row in rows}


def comb_mnz(scaled: Sequence[dict[int, float]], weights: Sequence[float]) -> dict[int, float]:
    return {row: score * sum(row in scores for scores in scaled) for row, score in summed(scaled, weights).items()}


def vstash(
    vector: List,
    text: List,
    *,
    k: int,
    words: int,
    frequencies: dict[str, int],
    documents: int,
    gate: bool = True,
) -> dict[int, float]:
    """Steps 1 to 4 of the rule, for cosine similarities."""
    pool = min(10 * k, max(3 * k, documents // 3))
    vector, text = vector[:pool], text[:pool]
    idfs = [math.log(documents / (df + 1)) for stem, df in frequencies.items() if len(stem) > 1] if documents else []
    if words > 50:
        by_vector, by_text = 0.9, 0.1
    elif documents < 2 or not idfs:
        by_vector, by_text = 0.6, 0.4
    else:
        signal = 1 / (1 + math.exp(-2 * (sum(idfs) / len(idfs) - math.log(documents) / 2)))
        by_text = 0.1 + 0.5 * signal
        by_vector = 1 - by_text
    if not vector:
        by_vector, by_text = 0.0, 1.0
    elif gate and 1 - vector[0][1] > 0:
        cutoff = 25.0 if words > 50 else 1.3225
        vector = [(row, score) for row, score in vector if 1 - score <= cutoff * (1 - vector[0][1])]
    kept = {row for row, _ in vector}
    fused = {row: by_vector / (60 + rank) for rank, (row, _) in enumerate(vector)}
    for rank, (row, _) in enumerate(text):
        if row in kept or rank < 2 * k:
            fused[row] = fused.get(row, 0.0) + by_text / (60 + rank)
    return fused
