"""Stages that judge by what stands in a record's metadata: decay with age, boosts, and relevance times recency (AutoCast++)."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from vecdb.errors import InvalidQuery
from vecdb.rerank.base import BatchReranker, Context, Need, Ranked, Reranked, Task
from vecdb.rerank.decay import (
    DAY_S,
    Curve,
    Floats,
    Modifier,
    boosted,
    decay_factors,
    field_factors,
    multiplied,
    numbers_at,
    seconds_at,
    seconds_of,
    value_at,
)
from vecdb.rerank.kinds import reranker_of
from vecdb.rerank.time_prior import TimePrior, time_prior_of

_LEAST_RELEVANCE = 1e-4
_NO_SCORES = np.zeros(0)


@dataclass(frozen=True)
class Decay(BatchReranker):
    """The score of the stage before, times a factor that falls with the distance of a field from `origin` (see rerank/decay.py).

    unit "days": the field is a time, and scale and offset are days; origin None is now. unit "number": the field is a number,
    and origin must be given. weight None: the factor is multiplied; a number w: the score is multiplied with 1 + w * factor.
    """

    field: str
    scale: float
    curve: Curve = "exp"
    unit: Literal["days", "number"] = "days"
    origin: Any = None
    offset: float = 0.0
    floor: float = 0.0
    weight: float | None = None

    def __post_init__(self) -> None:
        _check_key("field", self.field)
        if self.unit not in ("days", "number") or (self.unit == "number" and _is_no_number(self.origin)):
            raise InvalidQuery(
                f"a decay of unit {self.unit!r} has the origin {self.origin!r}; give 'days', or 'number' with one"
            )
        if self.unit == "days" and self.origin is not None and np.isnan(seconds_of(self.origin)):
            raise InvalidQuery(
                f"origin of a decay is {self.origin!r}; give a date, ISO 8601 text, or seconds since 1970"
            )
        if self.weight is not None and (_is_no_number(self.weight) or self.weight < 0):
            raise InvalidQuery(f"weight of a decay is {self.weight!r}; it must be 0 or above, or be left out")
        decay_factors(_NO_SCORES, self.curve, self.scale, offset=self.offset, floor=self.floor)

    def rerank_batch(self, tasks: Sequence[Task], context: Context) -> list[Reranked]:
        return [_by_factor(task, self._factors(task), self.weight) for task in tasks]

    def _factors(self, task: Task) -> Floats:
        metadata = [candidate.metadata for candidate in task.candidates]
        if self.unit == "days":
            origin = time.time() if self.origin is None else seconds_of(self.origin)
            distances = (origin - seconds_at(metadata, self.field)) / DAY_S
        else:
            distances = numbers_at(metadata, self.field) - self.origin
        return decay_factors(distances, self.curve, self.scale, offset=self.offset, floor=self.floor)


@dataclass(frozen=True)
class Boost(BatchReranker):
    """The score of the stage before, times what a field says: `values` gives a factor for each value that the field may have
    (of a list, the largest; 1 for others), or else the factor is 1 + weight * modifier(number in the field).
    """

    field: str
    values: Mapping[str, float] | None = None
    weight: float = 1.0
    modifier: Modifier = "none"
    missing: float = 0.0

    def __post_init__(self) -> None:
        _check_key("field", self.field)
        field_factors(_NO_SCORES, weight=self.weight, modifier=self.modifier, missing=self.missing)
        if self.values is not None and (
            not isinstance(self.values, Mapping)
            or any(not isinstance(name, str) or _is_no_number(f) or f < 0 for name, f in self.values.items())
        ):
            raise InvalidQuery(f"values of a boost is {self.values!r}; give {{value as text: factor of 0 or above}}")

    def rerank_batch(self, tasks: Sequence[Task], context: Context) -> list[Reranked]:
        return [_by_factor(task, self._factors(task), None) for task in tasks]

    def _factors(self, task: Task) -> Floats:
        metadata = [candidate.metadata for candidate in task.candidates]
        if self.values is not None:
            return np.array([self._of_value(value_at(one, self.field)) for one in metadata], dtype=np.float64)
        numbers = numbers_at(metadata, self.field)
        return field_factors(numbers, weight=self.weight, modifier=self.modifier, missing=self.missing)

    def _of_value(self, value: Any) -> float:
        assert self.values is not None
        texts = [_as_text(item) for item in value] if isinstance(value, list) else [_as_text(value)]
        return max((float(self.values[text]) for text in texts if text in self.values), default=1.0)


@dataclass(frozen=True)
class RelevanceTime(BatchReranker):
    """Relevance times recency. as_of: nothing dated later comes back, nor anything undated. With a span (start, end) and a
    time_prior (`fit_time_prior`), recency is the prior where the record lies in the span; without, it halves every half_life_days
    before as_of (or now), and never falls below floor. relevance: another reranker whose scores are brought to 0 … 1 over the
    candidates, a function (query, text) -> 0 … 1 or grades 0 … 4 with grades=True; None: the scores of the stage before.
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
            return [(_scores_of(answer, len(task.candidates)), answer.kept) for task, answer in zip(tasks, answers)]
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
        r, c = np.clip(relevance, _LEAST_RELEVANCE, 1.0), self._recency(moments)
        scores = r * c
        order = np.lexsort((-r, -scores))[: task.k]  # a prior may be 0, and then relevance alone decides
        details = [{"relevance": float(a), "recency": float(b)} for a, b in zip(r, c)]
        ranked = tuple(Ranked(places[i], float(scores[i]), details[i]) for i in order.tolist())
        counters: dict[str, Any] = {"prior": "half-life" if self._prior is None else "fitted"}
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


def _by_factor(task: Task, factors: Floats, weight: float | None) -> Reranked:
    scores = _scores(task)
    new = multiplied(scores, factors) if weight is None else boosted(scores, factors, weight)
    order = np.argsort(-new, kind="stable")[: task.k]
    return Reranked(tuple(Ranked(i, float(new[i]), {"factor": float(factors[i])}) for i in order.tolist()))


def _scores(task: Task) -> Floats:
    return np.array([candidate.score for candidate in task.candidates], dtype=np.float64)


def _to_unit(scores: Floats) -> Floats:
    """0 … 1 over these; all alike: 1."""
    span = float(scores.max(initial=-np.inf) - scores.min(initial=np.inf)) if len(scores) else 0.0
    return (scores - scores.min()) / span if span > 0 else np.ones_like(scores)


def _scores_of(answer: Reranked, candidates: int) -> Floats:
    """What an answer says of all candidates, 0 … 1; what it left out has 0."""
    found = np.zeros(candidates)
    if answer.ranked:
        found[[r.position for r in answer.ranked]] = _to_unit(np.array([r.score for r in answer.ranked]))
    return found


def _as_text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def _check_key(name: str, key: object) -> None:
    if not isinstance(key, str) or not key:
        raise InvalidQuery(f"{name} is {key!r}; it must be a metadata key")


def _is_no_number(value: object) -> bool:
    return not isinstance(value, int | float) or isinstance(value, bool) or not np.isfinite(value)
