"""Setwise reranking with reasoning (Rank-R1, Zhuang et al. 2025): a model thinks, then picks the best of a set, in a heap."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import numpy as np

from vecdb.errors import InvalidQuery
from vecdb.language_model import Prompt
from vecdb.rerank.base import Ranked, Reranked, Task
from vecdb.rerank.listwise import answers, prompts
from vecdb.rerank.listwise.engine import Outcome, Plan, Question, Verdict
from vecdb.rerank.listwise.group import scaled
from vecdb.rerank.listwise.plans import Order, Pick, bubblesort, heapsort
from vecdb.rerank.listwise.reranker import ListwiseReranker, ModelSpec, at_least, by_rank
from vecdb.rerank.models.base import ChatModel, Reply, Usage

_METHODS = {"heapsort": heapsort, "bubblesort": bubblesort}


class Setwise(ListwiseReranker[Pick, Order]):
    """set_size: documents a comparison. method: how the best k are found; the rest keep the first stage's order.

    reasoning: think first, as Rank-R1 does; False asks for the label at once. votes: comparisons of one set, each of another
    arrangement, the majority wins. reply_tokens: room for the reasoning. fuse: the share of the first stage's score in the
    final one. The trace has the reasoning of each comparison.
    """

    def __init__(
        self,
        model: ModelSpec = None,
        *,
        set_size: int = 20,
        method: Literal["heapsort", "bubblesort"] = "heapsort",
        reasoning: bool = True,
        votes: int = 1,
        seed: int = 0,
        fuse: float = 0.0,
        reply_tokens: int = 1024,
        passage_tokens: int | None = 300,
    ) -> None:
        super().__init__(model)
        if method not in _METHODS:
            raise InvalidQuery(f"method is {method!r}; it must be one of {', '.join(_METHODS)}")
        at_least(2, set_size=set_size)
        at_least(0, seed=seed)
        at_least(1, votes=votes, reply_tokens=reply_tokens, passage_tokens=passage_tokens)
        if not 0.0 <= fuse <= 1.0:
            raise InvalidQuery(
                f"fuse is {fuse!r}; it must be between 0 (the model alone) and 1 (the first stage alone)"
            )
        self.set_size, self.method, self.reasoning, self.votes, self.seed = set_size, method, reasoning, votes, seed
        self.fuse, self.reply_tokens, self.passage_tokens = fuse, reply_tokens, passage_tokens

    def plan(self, task: Task, model: ChatModel) -> Plan[Pick, Order]:
        return _METHODS[self.method](len(task.candidates), set_size=self.set_size, k=task.k)

    def judge(self, model: ChatModel) -> PickJudge:
        return PickJudge(model, self.passage_tokens, self.reply_tokens, self.reasoning, self.votes, self.seed)

    def answer(self, task: Task, outcome: Outcome[Order]) -> Reranked:
        if not self.fuse:
            return by_rank(task, outcome)
        count = len(task.candidates)
        own = np.empty(count)
        own[outcome.result] = np.linspace(1.0, 0.0, count)
        first = scaled(np.array([candidate.score for candidate in task.candidates], dtype=np.float64))
        scores = (1.0 - self.fuse) * own + self.fuse * first
        order = np.argsort(-scores, kind="stable")[: task.k].tolist()
        return self.reranked(tuple(Ranked(i, float(scores[i])) for i in order), outcome)


@dataclass(frozen=True, slots=True)
class PickJudge:
    """Rank-R1: the best document of a set, after reasoning. A majority of votes, each over another arrangement.

    reasoning=False asks for the label at once (the plain setwise prompt).
    """

    model: ChatModel
    passage_tokens: int | None = None
    reply_tokens: int = 1024
    reasoning: bool = True
    votes: int = 1
    seed: int = 0

    def judge(self, questions: Sequence[Question]) -> list[Verdict[Pick]]:
        asked: list[Prompt] = []
        arrangements: list[list[int]] = []
        for question in questions:
            count, random = len(question.texts), question.random(self.seed)
            frame = partial(prompts.pick, question.query, prompts.numbers(count), reasoning=self.reasoning)
            for _ in range(self.votes):
                arrangement = random.permutation(count).tolist()
                texts = [question.texts[i] for i in arrangement]
                fitted = prompts.fit(self.model, texts, frame, reply=self._limit + 32, most=self.passage_tokens)
                asked.append(frame(fitted.passages))
                arrangements.append(arrangement)
        replies = self.model.generate(asked, limit=self._limit, stop=prompts.closed)
        ballots = list(zip(arrangements, replies, strict=True))
        return [
            self._verdict(question, ballots[place * self.votes : (place + 1) * self.votes])
            for place, question in enumerate(questions)
        ]

    @property
    def _limit(self) -> int:
        return self.reply_tokens if self.reasoning else 24

    def _verdict(self, question: Question, ballots: Sequence[tuple[list[int], Reply]]) -> Verdict[Pick]:
        labels = prompts.numbers(len(question.texts))
        usage, picks, reasons = Usage(), [], []
        for arrangement, reply in ballots:
            place = answers.pick(reply.text, labels)
            usage += replace(reply.usage, documents=len(labels), failures=int(place is None))
            if place is not None:
                picks.append(arrangement[place])
            if (reason := answers.reasoning(reply.text)) is not None:
                reasons.append(reason)
        # Of several with as many votes the one that stands first, as a parent does before its children.
        best = min(set(picks), key=lambda p: (-picks.count(p), p)) if picks else None
        return Verdict(best, usage, "\n".join(reasons) or None)
