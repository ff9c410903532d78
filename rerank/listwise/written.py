"""Orders that a model writes out: windows that slide (Sun et al. 2023), and full ranking, all candidates in one window.

One class with one switch, the window, so that both share prompt, parser and model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

from vecdb.errors import InvalidQuery
from vecdb.rerank.base import Reranked, Task
from vecdb.rerank.listwise import answers, prompts
from vecdb.rerank.listwise.engine import Outcome, Plan, Question, Verdict
from vecdb.rerank.listwise.plans import Order, Permutation, sliding
from vecdb.rerank.listwise.reranker import ListwiseReranker, ModelSpec, at_least, by_rank
from vecdb.rerank.models.base import ChatModel, Reply

_LEAST_IN_FULL = 24  # tokens of each passage below which windows tell a model more than one long list


class Sliding(ListwiseReranker[Permutation, Order]):
    """window: how many passages a prompt shows, None for all of them. step: how far it moves. passes: over the whole list.

    best: end a reply after so many identifiers, None for all: the rest of the window keeps its order. letters: identifiers as
    FIRST has them, for comparing with it. Where the model's context does not hold the whole list, windows of 20 are shown
    instead of one, and the counters say so (`windowed`).
    """

    def __init__(
        self,
        model: ModelSpec = None,
        *,
        window: int | None = 20,
        step: int = 10,
        passes: int = 1,
        best: int | None = None,
        letters: bool = False,
        passage_tokens: int | None = 300,
    ) -> None:
        super().__init__(model)
        if window is not None and not 1 <= step <= window:
            raise InvalidQuery(f"step is {step!r}; it must be between 1 and window ({window})")
        if letters and (window is None or window > prompts.MOST_LETTERS):
            raise InvalidQuery(f"window is {window!r}; with letters it can be at most {prompts.MOST_LETTERS}")
        at_least(1, passes=passes, best=best, passage_tokens=passage_tokens)
        self.window, self.step, self.passes, self.best = window, step, passes, best
        self.letters, self.passage_tokens = letters, passage_tokens

    def plan(self, task: Task, model: ChatModel) -> Plan[Permutation, Order]:
        count = len(task.candidates)
        if self.window is None and not self.judge(model).holds(task):
            return sliding(count, window=20, step=10, passes=self.passes)
        return sliding(count, window=self.window, step=self.step, passes=self.passes)

    def judge(self, model: ChatModel) -> WrittenOrderJudge:
        return WrittenOrderJudge(model, self.passage_tokens, self.best, self.letters)

    def answer(self, task: Task, outcome: Outcome[Order]) -> Reranked:
        windowed = {"windowed": True} if self.window is None and outcome.usage.calls > self.passes else {}
        return by_rank(task, outcome, windowed)


class Full(Sliding):
    """Full ranking (Liu et al. 2025): every candidate in one prompt, each cut to 100 tokens. best: as of Sliding."""

    def __init__(
        self, model: ModelSpec = None, *, passes: int = 1, best: int | None = None, passage_tokens: int | None = 100
    ) -> None:
        super().__init__(model, window=None, passes=passes, best=best, passage_tokens=passage_tokens)


@dataclass(frozen=True, slots=True)
class WrittenOrderJudge:
    """The order that the model writes out, identifier by identifier; what it leaves out follows as it was.

    top: end the reply after so many identifiers; None for all. letters: [A], [B], … as FIRST has them, instead of numbers.
    """

    model: ChatModel
    passage_tokens: int | None = None
    top: int | None = None
    letters: bool = False

    def judge(self, questions: Sequence[Question]) -> list[Verdict[Permutation]]:
        """Windows of one size are asked about together: how long a reply may be depends on the size."""
        verdicts: dict[int, Verdict[Permutation]] = {}
        for count in {len(question.texts) for question in questions}:
            places = [place for place, question in enumerate(questions) if len(question.texts) == count]
            verdicts.update(zip(places, self._of_one_size([questions[place] for place in places], count)))
        return [verdicts[place] for place in range(len(questions))]

    def _of_one_size(self, questions: Sequence[Question], count: int) -> list[Verdict[Permutation]]:
        asked = []
        for question in questions:
            frame = partial(prompts.permutation, question.query, self._labels(count), top=self.top)
            fitted = prompts.fit(self.model, question.texts, frame, reply=self.reply(count), most=self.passage_tokens)
            asked.append(frame(fitted.passages))
        wanted = count if self.top is None else min(self.top, count)
        replies = self.model.generate(
            asked, opening=prompts.OPENING, limit=self.reply(count), stop=lambda text: text.count("]") >= wanted
        )
        return [self._verdict(question, reply) for question, reply in zip(questions, replies, strict=True)]

    def holds(self, task: Task) -> bool:
        """Whether one prompt can show all of the task's candidates, each at a length that still tells something."""
        texts = [candidate.text or "" for candidate in task.candidates]
        frame = partial(prompts.permutation, task.query, self._labels(len(texts)), top=self.top)
        try:
            fitted = prompts.fit(self.model, texts, frame, reply=self.reply(len(texts)), most=self.passage_tokens)
        except prompts.DoesNotFit:
            return False
        return fitted.cut_to is None or fitted.cut_to >= min(_LEAST_IN_FULL, self.passage_tokens or _LEAST_IN_FULL)

    def reply(self, count: int) -> int:
        """Tokens enough for an order of so many: "[100] > " is at most 7 of them where digits stand alone."""
        wanted = count if self.top is None else min(self.top, count)
        return 8 + 7 * wanted

    def _labels(self, count: int) -> list[str]:
        return prompts.letters(count) if self.letters else prompts.numbers(count)

    def _verdict(self, question: Question, reply: Reply) -> Verdict[Permutation]:
        labels = self._labels(len(question.texts))
        order = answers.permutation(prompts.OPENING + reply.text, labels)
        usage = replace(reply.usage, documents=len(labels), failures=int(order is None))
        return Verdict(list(range(len(labels))) if order is None else order, usage)
