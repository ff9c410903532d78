"""What the listwise rerankers share: a model that is loaded at first use, a plan for each query, one run of the engine."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from threading import Lock
from typing import Any, Generic, TypeVar

from vecdb.errors import InvalidQuery
from vecdb.rerank.base import Context, Ranked, Reranked, Task, TextReranker
from vecdb.rerank.listwise.engine import Judge, Outcome, Plan, run
from vecdb.rerank.models.base import ChatModel
from vecdb.rerank.models.loading import ModelSpec, chat_spec, load_chat

A = TypeVar("A")
R = TypeVar("R")

__all__ = ["ListwiseReranker", "ModelSpec", "at_least", "by_rank"]


class ListwiseReranker(TextReranker, Generic[A, R]):
    """A method by its plan, its judge and what it makes of the outcome. model: as `load_chat` takes it, loaded when used."""

    def __init__(self, model: ModelSpec) -> None:
        self._spec = chat_spec(model)
        self._model: ChatModel | None = None
        self._lock = Lock()

    @abstractmethod
    def plan(self, task: Task, model: ChatModel) -> Plan[A, R]: ...

    @abstractmethod
    def judge(self, model: ChatModel) -> Judge[A]: ...

    @abstractmethod
    def answer(self, task: Task, outcome: Outcome[R]) -> Reranked: ...

    def rerank_texts(self, tasks: Sequence[Task], context: Context) -> list[Reranked]:
        model = self.load()
        outcomes = run(
            [self.plan(task, model) for task in tasks],
            [task.query for task in tasks],
            [[candidate.text or "" for candidate in task.candidates] for task in tasks],
            self.judge(model),
            check=context.limit.check,
        )
        return [self.answer(task, outcome) for task, outcome in zip(tasks, outcomes)]

    def load(self) -> ChatModel:
        """The model; loaded on first use, then kept. Raises MissingExtra or ModelUnavailable."""
        with self._lock:
            if self._model is None:
                self._model = load_chat(self._spec)
            return self._model

    @staticmethod
    def reranked(ranked: tuple[Ranked, ...], outcome: Outcome[R], more: Mapping[str, Any] | None = None) -> Reranked:
        counters: dict[str, Any] = {**outcome.usage.as_dict(), **(more or {})}
        if outcome.reasons:
            counters["reasons"] = [{"looked_at": window, "reason": reason} for window, reason in outcome.reasons]
        return Reranked(ranked, counters)


def by_rank(task: Task, outcome: Outcome[list[int]], more: Mapping[str, Any] | None = None) -> Reranked:
    """An order without scores of its own: 1 / rank, so that larger is better and nobody takes it for a probability."""
    ranked = tuple(Ranked(position, 1.0 / rank) for rank, position in enumerate(outcome.result[: task.k], 1))
    return ListwiseReranker.reranked(ranked, outcome, more)


def at_least(least: int, **options: int | None) -> None:
    """Raises InvalidQuery for an option that is no whole number of at least so much; None passes."""
    for name, value in options.items():
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < least):
            raise InvalidQuery(f"{name} is {value!r}; it must be a whole number of at least {least}")
