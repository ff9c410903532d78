"""The true answers, by exact search in NumPy, and how much of them an answer has."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bench.data import Questions, Records

K = 10
_BLOCK = 250  # questions whose scores over all records are in memory at once

# Two records this close in cosine are equally good: float32 sums differ by as much with the order of the terms.
_TIE = 1e-6


@dataclass(frozen=True)
class Truth:
    """For each question: the cosine of its K-th best admitted record (-inf if fewer are admitted), and how many to find."""

    records: Records
    questions: Questions
    label: str  # the metadata key that is filtered on; "" for none
    wanted: list[int]  # the value that each question asks for
    labels: NDArray[np.int64]  # (N,) the value of each record
    worst: NDArray[np.float32]  # (Q,)
    count: NDArray[np.int64]  # (Q,)

    def recall(self, question: int, rows: Sequence[int]) -> float:
        """Share of what is to be found that is in rows. A record as near as the K-th counts; one not admitted does not."""
        if not self.count[question]:
            return 1.0 if not rows else 0.0
        found = np.unique(np.array(rows, dtype=np.int64))
        if self.label:
            found = found[self.labels[found] == self.wanted[question]]
        cosines = self.records.vectors[found] @ self.questions.vectors[question]
        good = int(np.count_nonzero(cosines >= self.worst[question] - _TIE))
        return min(good, int(self.count[question])) / float(self.count[question])


def exact_truth(records: Records, questions: Questions, label: str = "") -> Truth:
    """Exact search of every question, among the records whose metadata has the question's value of label."""
    wanted = list(getattr(questions, label)) if label else [0] * len(questions)
    labels = np.array([m[label] if label else 0 for m in records.metadata], dtype=np.int64)
    worst = np.full(len(questions), -np.inf, dtype=np.float32)
    count = np.zeros(len(questions), dtype=np.int64)
    for value in sorted(set(wanted)):
        admitted = np.flatnonzero(labels == value)
        asking = np.flatnonzero(np.array(wanted) == value)
        count[asking] = min(K, len(admitted))
        if len(admitted) > K:
            worst[asking] = _kth_best(records.vectors[admitted], questions.vectors[asking])
    return Truth(records, questions, label, wanted, labels, worst, count)


def _kth_best(vectors: NDArray[np.float32], queries: NDArray[np.float32]) -> NDArray[np.float32]:
    """(Q,) the K-th largest dot product of each of (Q, D) queries with (N, D) vectors, N > K."""
    parts = []
    for start in range(0, len(queries), _BLOCK):
        scores = queries[start : start + _BLOCK] @ vectors.T
        parts.append(np.partition(scores, -K, axis=1)[:, -K])
    return np.concatenate(parts)
