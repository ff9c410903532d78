"""What a reranker is: it looks at texts, scores and stored vectors of candidates, never at the index or the database.

    class Mine:                                   # the least that `search(..., rerank=Mine())` takes
        def rerank(self, query, candidates, k):
            return [Ranked(position, score), …]   # best first, each position at most once

A reranker of ours is a `BatchReranker`: it gets many queries at once (`rerank_batch`), may ask for stored vectors (`needs`),
keeps to a `Limit`, and says with each answer how much work it was (`Reranked.counters`) and whether it had to keep the order
that it was given (`Reranked.kept`). It is used by many threads at once, so whatever it keeps between calls is not changed, or
is locked. Its options are the keyword arguments of its class, of types that JSON has: `rerank={"kind": "maxsim", "alpha": 0.05}`
is `MaxSim(alpha=0.05)`, by way of the table in `kinds`. Bad options raise InvalidQuery when it is made; a missing package
(MissingExtra) or model (ModelUnavailable) when it is first used, and then the search keeps the order that it has, flagged.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, overload, runtime_checkable

from vecdb.errors import RerankStopped
from vecdb.rerank.tokens import Tokens
from vecdb.types import Vector

Need = Literal["embedding", "tokens"]  # what of a candidate is read only if a reranker asks for it


@dataclass(frozen=True, slots=True)
class Candidate:
    """A record that the stage before found. score: of that stage, larger is better. embedding: (D,) as stored, tokens: its
    token vectors; each only where the reranker `needs` it and the record has it. scores: in the first stage's lists that have it
    ("vector", "text").
    """

    id: str
    text: str | None
    score: float
    metadata: Mapping[str, Any] = field(default_factory=dict)
    embedding: Vector | None = None
    tokens: Tokens | None = None
    scores: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Ranked:
    """One place in the new order. position: the candidate's in the list that was given, from 0. score: larger is better; finite.

    detail: what else the reranker knows of it, JSON-able; it becomes the detail of the hit's trace step.
    """

    position: int
    score: float
    detail: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Reranked(Sequence[Ranked]):
    """A new order, best first: a sequence of `Ranked`.

    counters: the work and how it went, JSON-able: {"scored": 31, "forward_passes": 1, …}. kept: why the order that was given was
    kept, wholly or from some place on (the model failed, time ran out); None if the order is the reranker's own.
    """

    ranked: tuple[Ranked, ...]
    counters: Mapping[str, Any] = field(default_factory=dict)
    kept: str | None = None

    @overload
    def __getitem__(self, index: int) -> Ranked: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Ranked]: ...
    def __getitem__(self, index: int | slice) -> Ranked | Sequence[Ranked]:
        return self.ranked[index]

    def __len__(self) -> int:
        return len(self.ranked)


@dataclass(frozen=True, slots=True)
class Task:
    """One query's candidates, best first by the stage before; the k best are wanted. vector: the query's, if it has one."""

    query: str
    candidates: Sequence[Candidate]
    k: int
    vector: Vector | None = None


class Limit:
    """How long a reranker may go on: until a deadline, or until somebody calls `cancel` (from any thread).

    A reranker calls `check` between units of work (a batch, a window). RerankStopped may be let through, and then the order
    that was given is kept, or caught, to give back what is known so far with `Reranked.kept` set.
    """

    def __init__(self, seconds: float | None = None) -> None:
        self._until = None if seconds is None else time.monotonic() + seconds
        self._cancelled = threading.Event()

    def cancel(self) -> None:
        self._cancelled.set()

    @property
    def seconds_left(self) -> float | None:
        """None: no deadline."""
        return None if self._until is None else max(0.0, self._until - time.monotonic())

    def check(self) -> None:
        """Raises RerankStopped once the deadline has passed, or after `cancel`."""
        if self._cancelled.is_set():
            raise RerankStopped("the search was cancelled")
        if self._until is not None and time.monotonic() >= self._until:
            raise RerankStopped("the time given to the reranker is over")


class Limits:
    """The limits of everything that somebody waits for: `cancel`, from any thread, ends them all, and those that begin later."""

    def __init__(self) -> None:
        self._begun: list[Limit] = []
        self._cancelled = False
        self._lock = threading.Lock()

    def add(self, limit: Limit) -> None:
        with self._lock:
            self._begun.append(limit)
            if self._cancelled:
                limit.cancel()

    def cancel(self) -> None:
        with self._lock:
            self._cancelled = True
            for limit in self._begun:
                limit.cancel()


class TokenEncoder(Protocol):
    """A model that gives a vector for each token of a text: unit length, so that dot products are cosines."""

    @property
    def name(self) -> str:
        """The model's identity; token vectors of another one do not compare."""

    @property
    def dimension(self) -> int:
        """D of each token vector."""

    def encode_documents(self, texts: Sequence[str]) -> list[Vector]:
        """(T, D) float32 for each text; T may be 0."""

    def encode_queries(self, texts: Sequence[str]) -> list[Vector]:
        """(Q, D) float32 for each text."""


@dataclass(frozen=True, slots=True)
class Context:
    """What a search offers to a reranker besides the candidates.

    embed: texts -> (N, D) by the model that made the candidates' embeddings, as queries. encoder: the one that made their
    tokens. None where the collection has none.
    """

    limit: Limit = field(default_factory=Limit)
    embed: Callable[[Sequence[str]], Vector] | None = None
    encoder: TokenEncoder | None = None


@runtime_checkable
class Reranker(Protocol):
    def rerank(self, query: str, candidates: Sequence[Candidate], k: int) -> Sequence[Ranked]:
        """The k best candidates, best first; each position at most once."""


class BatchReranker:
    """The base of ours: give it `rerank_batch`.

    needs: what it must have of each candidate. drops: it leaves candidates out on purpose, so that none which it did not see may
    follow the ones it gives. refines: it has `refine`. is_absolute: its scores are from 0 to 1 and mean the same for every query.
    """

    needs: frozenset[Need] = frozenset()
    drops: bool = False
    refines: bool = False
    is_absolute: bool = False

    def rerank_batch(self, tasks: Sequence[Task], context: Context) -> list[Reranked]:
        """The answer to each task, in their order. What it raises keeps the given order for all of them."""
        raise NotImplementedError

    def refine(self, tasks: Sequence[Task], answers: Sequence[Reranked], context: Context) -> Vector:
        """(len(tasks), D): query vectors to search with again, given what `rerank_batch` answered. Each task has a vector."""
        raise NotImplementedError

    def rerank(self, query: str, candidates: Sequence[Candidate], k: int) -> Reranked:
        """One query, outside a search: no deadline, and models must be the reranker's own."""
        return self.rerank_batch([Task(query, candidates, k)], Context())[0]


class TextReranker(BatchReranker):
    """The base of those that read texts: give it `rerank_texts`. A query without text (a vector alone), or candidates none of
    which has one, are nothing to read: no model is asked, and the order that was given is kept.
    """

    def rerank_texts(self, tasks: Sequence[Task], context: Context) -> list[Reranked]:
        """`rerank_batch` for tasks that can be read: their query has text, and so has one of their candidates at least."""
        raise NotImplementedError

    def rerank_batch(self, tasks: Sequence[Task], context: Context) -> list[Reranked]:
        missing = [_unread(task) for task in tasks]
        read = [task for task, why in zip(tasks, missing) if why is None]
        answers = iter(self.rerank_texts(read, context) if read else [])
        return [next(answers) if why is None else as_given(task, why) for task, why in zip(tasks, missing)]


def _unread(task: Task) -> str | None:
    """Why there is nothing for a reader in it."""
    if not task.candidates:
        return "there are no candidates"
    if not task.query.strip():
        return "the query has no text"
    return None if any(candidate.text for candidate in task.candidates) else "no candidate has text"


class OneByOne(BatchReranker):
    """Any object with rerank(query, candidates, k) as a BatchReranker; one query's failure is not another's."""

    def __init__(self, inner: Reranker) -> None:
        self.inner = inner

    def rerank_batch(self, tasks: Sequence[Task], context: Context) -> list[Reranked]:
        return [self._one(task, context) for task in tasks]

    def _one(self, task: Task, context: Context) -> Reranked:
        try:
            context.limit.check()
            order = self.inner.rerank(task.query, task.candidates, task.k)
        except Exception as error:  # whatever somebody's model does: the order that was given is still an answer
            return as_given(task, f"{type(error).__name__}: {error}")
        return order if isinstance(order, Reranked) else Reranked(tuple(order))


def as_given(task: Task, why: str, counters: Mapping[str, Any] | None = None) -> Reranked:
    """The order that was given, kept for this reason."""
    given = tuple(Ranked(place, candidate.score) for place, candidate in enumerate(task.candidates[: task.k]))
    return Reranked(given, counters or {}, why)


def by_score(scores: Sequence[float], k: int) -> tuple[Ranked, ...]:
    """The k best of candidates with these scores; equal ones stay in the order that was given. NaN comes last."""
    order = sorted(range(len(scores)), key=lambda place: (scores[place] != scores[place], -scores[place]))
    return tuple(Ranked(place, float(scores[place])) for place in order[:k])
