"""The engine under every reranker that shows candidates to a model in windows.

A method is a *plan*: a generator that yields the windows it wants judged next (windows of one yield do not depend on one
another), is sent one answer a window, and returns its result. A *judge* is what answers: a language model with a prompt, or
an oracle in a test. `run` takes the plans of many queries forward together, so that windows which must wait for each other
within a query are still judged in batches across queries. Plans know no texts and judges know no algorithm.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

import numpy as np

from vecdb.rerank.models.base import Usage

Window = list[int]  # candidates by their position, in the order in which the judge sees them

AT_ONCE = 16  # questions between two looks at the clock; a judge may read them in one batch

A = TypeVar("A")  # what a judge answers to one window
R = TypeVar("R")  # what a plan makes of the answers

Plan = Generator[list[Window], list[A], R]


@dataclass(frozen=True, slots=True)
class Question:
    """One window as a judge sees it."""

    query: str
    texts: list[str]

    def random(self, seed: int) -> np.random.Generator:
        """Chance that depends on the seed and the question alone, not on what else is in the batch."""
        words = "\n".join([self.query, *self.texts]).encode(errors="surrogatepass")
        return np.random.default_rng([seed, zlib.crc32(words)])


@dataclass(frozen=True, slots=True)
class Verdict(Generic[A]):
    """A judge's answer to one question, what it cost, and, of a model that explains itself, its words."""

    answer: A
    usage: Usage
    reason: str | None = None


class Judge(Protocol[A]):
    def judge(self, questions: Sequence[Question]) -> list[Verdict[A]]:
        """One verdict a question, in their order."""


@dataclass(slots=True)
class Outcome(Generic[R]):
    """What became of one query's plan. reasons: (window, the model's words) of each comparison that gave any."""

    result: R
    usage: Usage
    reasons: list[tuple[Window, str]] = field(default_factory=list)


@dataclass(slots=True)
class _Course(Generic[A, R]):
    plan: Plan[A, R]
    query: str
    texts: Sequence[str]
    usage: Usage = field(default_factory=Usage)
    reasons: list[tuple[Window, str]] = field(default_factory=list)
    waiting: list[Window] = field(default_factory=list)
    result: Any = None
    done: bool = False

    def advance(self, answers: list[A] | None) -> None:
        try:
            self.waiting = next(self.plan) if answers is None else self.plan.send(answers)
        except StopIteration as end:
            self.result, self.waiting, self.done = end.value, [], True


def run(
    plans: Sequence[Plan[A, R]],
    queries: Sequence[str],
    texts: Sequence[Sequence[str]],
    judge: Judge[A],
    *,
    check: Callable[[], None] | None = None,
) -> list[Outcome[R]]:
    """Each plan's result, in order. texts[i] are the candidates of queries[i].

    check is called before each batch of questions; what it raises (a deadline that has passed, a caller who left) ends the run.
    """
    courses = [_Course(plan, query, list(own)) for plan, query, own in zip(plans, queries, texts, strict=True)]
    for course in courses:
        course.advance(None)
    while active := [course for course in courses if not course.done]:
        questions = [Question(c.query, [c.texts[i] for i in window]) for c in active for window in c.waiting]
        verdicts: list[Verdict[A]] = []
        for start in range(0, len(questions), AT_ONCE):
            if check is not None:
                check()
            verdicts += judge.judge(questions[start : start + AT_ONCE])
        if len(verdicts) != len(questions):
            raise RuntimeError(f"the judge gave {len(verdicts)} verdicts on {len(questions)} windows")
        place = 0
        for course in active:
            own = verdicts[place : place + len(course.waiting)]
            place += len(own)
            for window, verdict in zip(course.waiting, own):
                course.usage += verdict.usage
                if verdict.reason is not None:
                    course.reasons.append((window, verdict.reason))
            course.advance([verdict.answer for verdict in own])
    return [Outcome(course.result, course.usage, course.reasons) for course in courses]


def together(plans: Sequence[Plan[A, R]]) -> Plan[A, list[R]]:
    """One plan out of several that do not depend on one another: their windows are judged side by side."""
    results: dict[int, R] = {}
    waiting: dict[int, list[Window]] = {}

    def advance(place: int, answers: list[A] | None) -> None:
        try:
            waiting[place] = next(plans[place]) if answers is None else plans[place].send(answers)
        except StopIteration as end:
            waiting.pop(place, None)
            results[place] = end.value

    for place in range(len(plans)):
        advance(place, None)
    while waiting:
        asked = [(place, len(windows)) for place, windows in waiting.items()]
        answers = yield [window for windows in waiting.values() for window in windows]
        start = 0
        for place, count in asked:
            advance(place, answers[start : start + count])
            start += count
    return [results[place] for place in range(len(plans))]
