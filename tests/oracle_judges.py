"""Judges that know the truth: texts are numbers, and the larger is the better. They count what they are asked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from vecdb.rerank.listwise.engine import Question, Verdict
from vecdb.rerank.models.base import Usage


@dataclass
class Counting:
    windows: list[int] = field(default_factory=list)  # their sizes
    rounds: int = 0

    def count(self, questions: Sequence[Question]) -> None:
        self.rounds += 1
        self.windows += [len(question.texts) for question in questions]


@dataclass
class OrderOracle(Counting):
    def judge(self, questions: Sequence[Question]) -> list[Verdict[list[int]]]:
        self.count(questions)
        return [Verdict(_best_first(q.texts), Usage(calls=1, documents=len(q.texts))) for q in questions]


@dataclass
class PickOracle(Counting):
    def judge(self, questions: Sequence[Question]) -> list[Verdict[int | None]]:
        self.count(questions)
        return [Verdict(_best_first(q.texts)[0], Usage(calls=1, documents=len(q.texts))) for q in questions]


@dataclass
class ScoreOracle(Counting):
    def judge(self, questions: Sequence[Question]) -> list[Verdict[list[float] | None]]:
        self.count(questions)
        return [Verdict([float(t) for t in q.texts], Usage(calls=1, documents=len(q.texts))) for q in questions]


def _best_first(texts: Sequence[str]) -> list[int]:
    return sorted(range(len(texts)), key=lambda place: -float(texts[place]))
