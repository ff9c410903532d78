"""The order of the stored embeddings: what candidates of words, links or several lists look like to the model alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vecdb.errors import ModelUnavailable
from vecdb.rerank.base import BatchReranker, Context, Need, Ranked, Reranked, Task, by_score
from vecdb.rerank.projection import unit
from vecdb.types import Vector


@dataclass(frozen=True)
class Cosine(BatchReranker):
    """Candidates without a vector follow in the order that they had, with the lowest score there can be, -1."""

    needs = frozenset[Need]({"embedding"})

    def rerank_batch(self, tasks: Sequence[Task], context: Context) -> list[Reranked]:
        return [self._one(task, vector) for task, vector in zip(tasks, query_vectors(tasks, context))]

    def _one(self, task: Task, vector: Vector) -> Reranked:
        have = {place: c.embedding for place, c in enumerate(task.candidates) if c.embedding is not None}
        scores = np.full(len(task.candidates), -1.0)
        if have:
            scores[list(have)] = unit(np.stack(list(have.values()))) @ unit(vector[None])[0]
        ranked: tuple[Ranked, ...] = by_score(scores.tolist(), task.k)
        return Reranked(ranked, {"scored": len(have)})


def query_vectors(tasks: Sequence[Task], context: Context) -> list[Vector]:
    """The vector of each task's query; those that have none are embedded together. Raises ModelUnavailable without a model."""
    missing = [place for place, task in enumerate(tasks) if task.vector is None]
    made: dict[int, Vector] = {}
    if missing:
        if context.embed is None:
            raise ModelUnavailable("the query has no vector and the collection no model to make one; give vector=")
        made = dict(zip(missing, context.embed([tasks[place].query for place in missing])))
    return [made[place] if task.vector is None else task.vector for place, task in enumerate(tasks)]
