"""Several opinions at once: scores of rerankers and of the first stage's lists, brought to one scale and added.

The default adds the scores of the stage before, MaxSim of stored tokens, cosine of stored embeddings and, half as much, BM25:
weights that were chosen on DL21. What they do elsewhere is in docs/late_interaction.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from vecdb.errors import InvalidQuery
from vecdb.rerank.base import BatchReranker, Context, Need, Ranked, Reranked, Task, as_given
from vecdb.rerank.decay import Floats
from vecdb.rerank.kinds import reranker_of

_MOST_PARTS = 8


@dataclass(frozen=True)
class Blend(BatchReranker):
    """of: rerankers, as `rerank=` takes one, and weights of each (None: 1). lists: weights of the first stage's lists ("vector",
    "text"); who is not in a list has the lowest score that a candidate has there. given: weight of the stage before.

    Each is brought to mean 0 and deviation 1 over the candidates. A part that fails is left out, and the counters say so.
    """

    of: Sequence[Any] = ("maxsim", "cosine")
    weights: Sequence[float] | None = None
    lists: Mapping[str, float] = field(default_factory=lambda: {"text": 0.5})
    given: float = 1.0
    _parts: tuple[tuple[str, BatchReranker, float], ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if isinstance(self.of, str) or not isinstance(self.of, Sequence) or len(self.of) > _MOST_PARTS:
            raise InvalidQuery(f"of in blend is {self.of!r}; give a list of at most {_MOST_PARTS} rerankers")
        weights = [1.0] * len(self.of) if self.weights is None else list(self.weights)
        if len(weights) != len(self.of):
            raise InvalidQuery(f"blend has {len(weights)} weights for {len(self.of)} rerankers; give one each")
        if not isinstance(self.lists, Mapping) or not set(self.lists) <= {"vector", "text"}:
            raise InvalidQuery(f"lists in blend is {self.lists!r}; give weights of 'vector' and 'text'")
        for weight in (*weights, *self.lists.values(), self.given):
            if not isinstance(weight, int | float) or isinstance(weight, bool) or not 0 <= weight < 1e6:
                raise InvalidQuery(f"a weight of blend is {weight!r}; it must be 0 or above")
        if not any((*weights, *self.lists.values(), self.given)):
            raise InvalidQuery("blend adds nothing: give at least one weight above 0")
        names = [_name(spec) for spec in self.of]
        parts = tuple(zip(names, (reranker_of(spec) for spec in self.of), map(float, weights)))
        object.__setattr__(self, "_parts", parts)

    @property
    def needs(self) -> frozenset[Need]:  # type: ignore[override]
        return frozenset[Need]().union(*(part.needs for _, part, _ in self._parts))

    @property
    def drops(self) -> bool:  # type: ignore[override]
        return any(part.drops for _, part, _ in self._parts)

    def rerank_batch(self, tasks: Sequence[Task], context: Context) -> list[Reranked]:
        whole = [Task(t.query, t.candidates, len(t.candidates), t.vector) for t in tasks]
        answers: list[list[Reranked]] = []
        for name, part, _ in self._parts:
            context.limit.check()
            try:
                answers.append(part.rerank_batch(whole, context))
            except Exception as error:  # the other parts still have something to say
                if part.drops:
                    raise
                answers.append([Reranked((), kept=f"{name}: {type(error).__name__}: {error}")] * len(tasks))
        return [self._one(task, [answer[i] for answer in answers]) for i, task in enumerate(tasks)]

    def _one(self, task: Task, answers: Sequence[Reranked]) -> Reranked:
        count = len(task.candidates)
        total, added = np.zeros(count), 0
        allowed = np.ones(count, dtype=np.bool_)
        counters: dict[str, Any] = {}
        failed = []
        for (name, part, weight), answer in zip(self._parts, answers):
            counters[name] = dict(answer.counters)
            scores = np.full(count, np.nan)
            for r in answer.ranked:
                scores[r.position] = r.score
            if part.drops:
                allowed &= ~np.isnan(scores)
            if answer.kept is not None:
                failed.append(answer.kept)
            elif weight:
                total += weight * standard(scores)
                added += 1
        if not added and self._parts and failed:
            return as_given(task, "; ".join(failed), counters)
        if failed:
            counters["left_out"] = failed
        for name, weight in self.lists.items():
            total += weight * standard(np.array([c.scores.get(name, np.nan) for c in task.candidates]))
        total += self.given * standard(np.array([c.score for c in task.candidates], dtype=np.float64))
        order = [place for place in np.argsort(-total, kind="stable").tolist() if allowed[place]]
        return Reranked(tuple(Ranked(place, float(total[place])) for place in order[: task.k]), counters)


def standard(scores: Floats) -> Floats:
    """Mean 0, deviation 1; NaN stands for the lowest of the others. All alike, or none known: 0."""
    known = scores[~np.isnan(scores)]
    if not len(known):
        return np.zeros(len(scores))
    filled = np.where(np.isnan(scores), known.min(), scores).astype(np.float64)
    deviation = float(filled.std())
    return (filled - filled.mean()) / deviation if deviation > 0 else np.zeros(len(scores))


def _name(spec: Any) -> str:
    if isinstance(spec, str):
        return spec
    return str(spec.get("kind")) if isinstance(spec, Mapping) else type(spec).__name__
