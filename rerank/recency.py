"""Relevance times recency, with nothing dated later than it may be (AutoCast++). Plain decays are the search's `boosts`."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from vecdb.errors import InvalidQuery
from vecdb.rerank.base import BatchReranker, Context, Need, Ranked, Reranked, Task
from vecdb.rerank.decay import DAY_S, Floats, decay_factors, seconds_at, seconds_of
from vecdb.rerank.kinds import reranker_of
from vecdb.rerank.time_prior import TimePrior, time_prior_of

LEAST_RELEVANCE = 1e-4  # AutoCast++
_NO_SCORES = np.zeros(0)


@dataclass(frozen=True)
class RelevanceTime(BatchReranker):
    """Relevance times recency. as_of: nothing dated later comes back, nor anything undated. With a span (start, end) and a
    time_prior (`fit_time_prior`), recency is the prior where the record lies in the span; without, it halves every half_life_days
    before as_of (or now), and never falls below floor.

    relevance: another reranker, such as "graded", whose scores are brought to 0 … 1 over the candidates unless they are so by
    themselves; a function (query, text) -> 0 … 1, or grades 0 … 4 with grades=True; None: the scores of the stage before.
    """

    time_field: str
    as_of: Any = None
    span: Sequence[Any] | None = None
    time_prior: TimePrior | Mapping[str, Any] | None = None
    half_life_days: float = 30.0
    floor: float = 0.05
    relevance: Any = None
    grades: bool = False
    _inner: BatchReranker | None = field(default=None, init=False, repr=False, compare=False)
    _prior: TimePrior | None = field(default=None, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        _check_key("time_field", self.time_field)
        if self.as_of is not None and np.isnan(seconds_of(self.as_of)):
            raise InvalidQuery(f"as_of is {self.as_of!r}; give a date, ISO 8601 text, or seconds since 1970")
        if (self.span is None) != (self.time_prior is None):
            raise InvalidQuery(
                "a time_prior says what a place in a span is worth: give both, or neither (half_life_days)"
            )
        decay_factors(_NO_SCORES, "half", self.half_life_days, floor=self.floor)
        if self.span is not None:
            if (
                isinstance(self.span, str)
                or len(self.span) != 2
                or not seconds_of(self.span[0]) < seconds_of(self.span[1])
            ):
                raise InvalidQuery(f"span is {self.span!r}; give two times, the start before the end")
            object.__setattr__(self, "_prior", time_prior_of(self.time_prior or {}))
        if self.relevance is not None and not (
            callable(self.relevance) and not hasattr(self.relevance, "rerank") and not isinstance(self.relevance, type)
        ):
            object.__setattr__(self, "_inner", reranker_of(self.relevance))

    @property
    def needs(self) -> frozenset[Need]:  # type: ignore[override]
        return frozenset() if self._inner is None else self._inner.needs

    @property
    def drops(self) -> bool:  # type: ignore[override]
        return self.as_of is not None

    def rerank_batch(self, tasks: Sequence[Task], context: Context) -> list[Reranked]:
        times = [seconds_at([c.metadata for c in task.candidates], self.time_field) for task in tasks]
        allowed = [self._allowed(moments) for moments in times]
        # What may not be seen is not shown to any model either.
        seen = [
            Task(task.query, [task.candidates[place] for place in places], len(places), task.vector)
            for task, places in zip(tasks, allowed)
        ]
        judged = self._relevance(seen, context)
        return [
            self._one(task, places, moments[places], *found)
            for task, places, moments, found in zip(tasks, allowed, times, judged)
        ]

    def _allowed(self, moments: Floats) -> list[int]:
        if self.as_of is None:
            return list(range(len(moments)))
        return np.flatnonzero(moments <= seconds_of(self.as_of)).tolist()  # false for NaN

    def _relevance(self, tasks: Sequence[Task], context: Context) -> list[tuple[Floats, str | None]]:
        """(n,) in 0 … 1 for each task, and why it is only the score of the stage before."""
        if self._inner is not None:
            try:
                answers = self._inner.rerank_batch(tasks, context)
            except Exception as error:  # as_of holds whatever happens to a model
                why = f"{type(error).__name__}: {error}"
                return [(_to_unit(_scores(task)), why) for task in tasks]
            absolute = self._inner.is_absolute
            return [
                # An order that was only kept has the scores of the stage before, whatever their scale.
                (_scores_of(answer, len(task.candidates), absolute and answer.kept is None), answer.kept)
                for task, answer in zip(tasks, answers)
            ]
        if callable(self.relevance):
            return [self._asked(self.relevance, task, context) for task in tasks]
        return [(_to_unit(_scores(task)), None) for task in tasks]

    def _asked(self, relevance: Callable[[str, str], float], task: Task, context: Context) -> tuple[Floats, str | None]:
        found = np.zeros(len(task.candidates))
        try:
            for place, candidate in enumerate(task.candidates):
                context.limit.check()
                value = float(relevance(task.query, candidate.text or ""))
                found[place] = value / 4.0 if self.grades else value
        except Exception as error:
            return _to_unit(_scores(task)), f"{type(error).__name__}: {error}"
        return np.clip(np.nan_to_num(found), 0.0, 1.0), None

    def _one(self, task: Task, places: list[int], moments: Floats, relevance: Floats, kept: str | None) -> Reranked:
        r, c = np.clip(relevance, LEAST_RELEVANCE, 1.0), self._recency(moments)
        scores = r * c
        order = np.lexsort((-r, -scores))[: task.k]  # a prior may be 0, and then relevance alone decides
        details = [{"relevance": float(a), "recency": float(b)} for a, b in zip(r, c)]
        ranked = tuple(Ranked(places[i], float(scores[i]), details[i]) for i in order.tolist())
        undated = int(np.isnan(moments).sum())
        counters: dict[str, Any] = {"prior": "half-life" if self._prior is None else "fitted", "undated": undated}
        if self.as_of is not None:
            counters["after_as_of"] = len(task.candidates) - len(places)
        return Reranked(ranked, counters, kept)

    def _recency(self, moments: Floats) -> Floats:
        if self._prior is not None and self.span is not None:
            start, end = (seconds_of(moment) for moment in self.span)
            u = np.clip((moments - start) / (end - start), 0.0, 1.0)
            return np.where(np.isnan(u), 0.0, self._prior.at(np.nan_to_num(u)))
        now = time.time() if self.as_of is None else seconds_of(self.as_of)
        return decay_factors((now - moments) / DAY_S, "half", self.half_life_days, floor=self.floor)


def _scores(task: Task) -> Floats:
    return np.array([candidate.score for candidate in task.candidates], dtype=np.float64)


def _to_unit(scores: Floats) -> Floats:
    """0 … 1 over these; all alike: 1."""
    span = float(scores.max(initial=-np.inf) - scores.min(initial=np.inf)) if len(scores) else 0.0
    return (scores - scores.min()) / span if span > 0 else np.ones_like(scores)


def _scores_of(answer: Reranked, candidates: int, absolute: bool) -> Floats:
    """What an answer says of all candidates, 0 … 1; what it left out has 0."""
    found = np.zeros(candidates)
    if answer.ranked:
        scores = np.array([r.score for r in answer.ranked])
        found[[r.position for r in answer.ranked]] = scores if absolute else _to_unit(scores)
    return found


def _check_key(name: str, key: object) -> None:
    if not isinstance(key, str) or not key:
        raise InvalidQuery(f"{name} is {key!r}; it must be a metadata key")
