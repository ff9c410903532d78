"""Slow twins of what reranks: loops that anyone can check."""

from __future__ import annotations

from typing import Any

import numpy as np


def maxsim(query: Any, documents: Any) -> list[float]:
    """float64: for each document (T, D), the sum over query tokens of the largest dot product; -inf without tokens."""
    scores = []
    for tokens in documents:
        total = 0.0
        for q in np.asarray(query, dtype=np.float64):
            total += max((float(q @ t) for t in np.asarray(tokens, dtype=np.float64)), default=-np.inf)
        scores.append(total if len(tokens) else -np.inf)
    return scores


def pruned_and_stopped(first: Any, second: Any, k: int, alpha: float | None, beta: int | None) -> tuple[list[int], int]:
    """Candidates pruning and early exit as the paper tells them: (order of the best k, how many were scored).

    first: scores of the first stage, descending; second: those that scoring would give.
    """
    kept = list(range(len(first)))
    if alpha is not None and len(first) > k:
        bound = (1 - alpha) * first[k - 1]
        kept = [i for i in kept if i < k or first[i] >= bound]
    heap: list[tuple[float, int]] = []
    scored = misses = 0
    for turn, i in enumerate(kept):
        if turn >= k and beta is not None and misses >= beta:
            break
        scored += 1
        if len(heap) < k:
            heap.append((second[i], -i))
            continue
        worst = min(heap)
        if second[i] > worst[0]:
            heap[heap.index(worst)] = (second[i], -i)
            misses = 0
        else:
            misses += 1
    return [-i for _, i in sorted(heap, reverse=True)], scored
