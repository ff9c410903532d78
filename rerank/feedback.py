"""A reranker teaches the query vector, and the search is made again with that (FIRST, arXiv 2406.15657, relevance feedback).

The query vector v is moved so that s_d = (c / 2) v . d orders the reranked candidates as the reranker did; c brings the spread
of v . d to that of the reranker's scores. "ranknet" looks at the order alone, pair by pair, with weights 1 / (rank + rank); "kl"
at the scores, as a distribution. "rocchio" is the plain control: the mean of the best few is added. What then comes in is
reranked with the rest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from vecdb.errors import InvalidQuery
from vecdb.rerank.base import BatchReranker, Context, Need, Reranked, Task
from vecdb.rerank.decay import Floats
from vecdb.rerank.kinds import reranker_of
from vecdb.types import Vector

Method = Literal["ranknet", "kl", "rocchio"]

# Updates and rate of the paper: the order of a listwise model; the scores of a cross-encoder.
_DEFAULTS: dict[str, tuple[int, float]] = {"ranknet": (20, 0.001), "kl": (100, 0.005), "rocchio": (1, 0.5)}
_ROCCHIO_DOCUMENTS = 5


@dataclass(frozen=True)
class Feedback(BatchReranker):
    """by: the reranker that teaches, as `rerank=` takes one. steps and rate: of the method; None: its own. teachers: from how
    many of the best candidates is learnt.
    """

    by: Any
    method: Method = "ranknet"
    steps: int | None = None
    rate: float | None = None
    teachers: int = 20
    _inner: BatchReranker = field(init=False, repr=False, compare=False)

    refines = True

    def __post_init__(self) -> None:
        if self.method not in _DEFAULTS:
            raise InvalidQuery(f"method of feedback is {self.method!r}; it must be one of {', '.join(_DEFAULTS)}")
        if self.steps is not None and (not isinstance(self.steps, int) or not 1 <= self.steps <= 1_000):
            raise InvalidQuery(f"steps of feedback is {self.steps!r}; it must be a whole number from 1 to 1,000")
        if self.rate is not None and (not isinstance(self.rate, int | float) or not 0 < self.rate < 100):
            raise InvalidQuery(f"rate of feedback is {self.rate!r}; it must be a number above 0")
        if not isinstance(self.teachers, int) or not 2 <= self.teachers <= 200:
            raise InvalidQuery(f"teachers of feedback is {self.teachers!r}; it must be a whole number from 2 to 200")
        object.__setattr__(self, "_inner", reranker_of(self.by))

    @property
    def needs(self) -> frozenset[Need]:  # type: ignore[override]
        return self._inner.needs | {"embedding"}

    @property
    def drops(self) -> bool:  # type: ignore[override]
        return self._inner.drops

    def rerank_batch(self, tasks: Sequence[Task], context: Context) -> list[Reranked]:
        deeper = [Task(t.query, t.candidates, max(t.k, self.teachers), t.vector) for t in tasks]
        return self._inner.rerank_batch(deeper, context)

    def refine(self, tasks: Sequence[Task], answers: Sequence[Reranked], context: Context) -> Vector:
        refined = []
        for task, answer in zip(tasks, answers):
            context.limit.check()
            assert task.vector is not None
            places = [r for r in answer.ranked if task.candidates[r.position].embedding is not None][: self.teachers]
            documents = [task.candidates[r.position].embedding for r in places]
            scores = np.array([r.score for r in places], dtype=np.float64)
            refined.append(self._taught(task.vector, documents, scores))
        return np.stack(refined)

    def _taught(self, vector: Vector, documents: Sequence[Any], scores: Floats) -> Vector:
        """vector, moved; its length stays."""
        if len(documents) < 2:
            return vector
        steps, rate = _DEFAULTS[self.method]
        steps, rate = self.steps or steps, self.rate or rate
        start, matrix = vector.astype(np.float64), np.stack(documents).astype(np.float64)
        if self.method == "rocchio":
            moved = start + rate * matrix[:_ROCCHIO_DOCUMENTS].mean(axis=0)
        else:
            moved = _descended(start, matrix, scores, self.method, steps, rate)
        length = np.linalg.norm(moved)
        if not np.isfinite(length) or length == 0:
            return vector
        return np.asarray(moved * (np.linalg.norm(start) / length), dtype=np.float32)


def _descended(start: Floats, documents: Floats, scores: Floats, method: str, steps: int, rate: float) -> Floats:
    """Adam over the query vector. documents (m, D) in the teacher's order, scores (m,) the teacher's."""
    spread = float(np.ptp(documents @ start))
    stretch = 0.5 * (float(np.ptp(scores)) or 1.0) / spread if spread > 0 else 1.0
    moved, first, second = start.copy(), np.zeros_like(start), np.zeros_like(start)
    for step in range(1, steps + 1):
        student = stretch * (documents @ moved)
        slope = ranknet_slope(student) if method == "ranknet" else _kl_slope(student, scores)
        gradient = stretch * (slope @ documents)
        first = 0.9 * first + 0.1 * gradient
        second = 0.999 * second + 0.001 * gradient * gradient
        moved -= rate * (first / (1 - 0.9**step)) / (np.sqrt(second / (1 - 0.999**step)) + 1e-8)
    return moved


def ranknet_slope(student: Floats) -> Floats:
    """Gradient with respect to student scores (m,), given in the teacher's order, of the sum over pairs i before j of
    log(1 + exp(s_j - s_i)) / (rank_i + rank_j), ranks from 1.
    """
    ranks = np.arange(1, len(student) + 1)
    weights = np.triu(1.0 / (ranks[:, None] + ranks[None, :]), 1)
    # sigmoid(s_j - s_i), in a form that does not overflow
    pull = weights * 0.5 * (1.0 + np.tanh(0.5 * (student[None, :] - student[:, None])))
    return np.asarray(pull.sum(axis=0) - pull.sum(axis=1))


def _kl_slope(student: Floats, teacher: Floats) -> Floats:
    """Gradient of KL(softmax(teacher) || softmax(student)) with respect to student."""
    return _softmax(student) - _softmax(teacher)


def _softmax(values: Floats) -> Floats:
    powers = np.exp(values - values.max())
    return np.asarray(powers / powers.sum())
