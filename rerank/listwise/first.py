"""FIRST: the order of a window out of the logits of one token (Gangi Reddy et al. 2024).

The prompt asks for a written order of letters; only the first letter's logits are read, and they rank all of the window. One
forward pass and one decoded token a window; windows slide from the end of the list to its start.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from vecdb.errors import InvalidQuery
from vecdb.rerank.base import Reranked, Task
from vecdb.rerank.listwise import prompts
from vecdb.rerank.listwise.engine import Outcome, Plan, Question, Verdict
from vecdb.rerank.listwise.plans import Order, Permutation, sliding
from vecdb.rerank.listwise.reranker import ListwiseReranker, ModelSpec, at_least, by_rank
from vecdb.rerank.models.base import ChatModel, Usage


class First(ListwiseReranker[Permutation, Order]):
    """model: as `models.load_chat` takes it. window: at most 26, the letters there are. step: how far a window moves.

    passage_tokens: the most of a passage that is shown. shuffles: 2 or more average over turns of a random order of each
    window, against models' bias for early letters and places; each is a pass of its own. seed: of that order.
    """

    def __init__(
        self,
        model: ModelSpec = None,
        *,
        window: int = 20,
        step: int = 10,
        passage_tokens: int | None = 300,
        shuffles: int = 1,
        seed: int = 0,
    ) -> None:
        super().__init__(model)
        if not 2 <= window <= prompts.MOST_LETTERS:
            raise InvalidQuery(
                f"window is {window!r}; FIRST names passages by one letter, so give 2 to {prompts.MOST_LETTERS}"
            )
        if not 1 <= step <= window:
            raise InvalidQuery(f"step is {step!r}; it must be between 1 and window ({window})")
        at_least(1, passage_tokens=passage_tokens, shuffles=shuffles)
        at_least(0, seed=seed)
        self.window, self.step = window, step
        self.passage_tokens, self.shuffles, self.seed = passage_tokens, shuffles, seed

    def plan(self, task: Task, model: ChatModel) -> Plan[Permutation, Order]:
        return sliding(len(task.candidates), window=self.window, step=self.step)

    def judge(self, model: ChatModel) -> FirstTokenJudge:
        return FirstTokenJudge(model, self.passage_tokens, self.shuffles, self.seed)

    def answer(self, task: Task, outcome: Outcome[Order]) -> Reranked:
        return by_rank(task, outcome)


@dataclass(frozen=True, slots=True)
class FirstTokenJudge:
    """FIRST: the order of a window is that of its letters' logits at the first token; exactly one token is decoded.

    passage_tokens: the most of each passage that is shown. shuffles: 2 or more average the log-probabilities over as many
    arrangements, against the bias of models for early letters and for places in the prompt.
    """

    model: ChatModel
    passage_tokens: int | None = None
    shuffles: int = 1
    seed: int = 0

    def judge(self, questions: Sequence[Question]) -> list[Verdict[Permutation]]:
        arranged = [self._arrangements(question) for question in questions]
        asked, labels = [], []
        for question, arrangements in zip(questions, arranged):
            own = prompts.letters(len(question.texts))
            for arrangement in arrangements:
                texts = [question.texts[i] for i in arrangement]
                frame = partial(prompts.permutation, question.query, own)
                asked.append(frame(prompts.fit(self.model, texts, frame, reply=2, most=self.passage_tokens).passages))
                labels.append(own)
        told = iter(self.model.first_token(asked, labels, prompts.OPENING))
        verdicts = []
        for question, arrangements in zip(questions, arranged):
            total, usage = np.zeros(len(question.texts)), Usage()
            for arrangement in arrangements:
                first = next(told)
                # A letter that the model did not tell of is below all that it told of, not gone.
                known = first.scores[np.isfinite(first.scores)]
                floor = known.min() - 1.0 if len(known) else 0.0
                total[arrangement] += np.where(np.isfinite(first.scores), first.scores, floor)
                usage += replace(first.usage, documents=len(question.texts), failures=int(not len(known)))
            verdicts.append(Verdict(np.argsort(-total, kind="stable").tolist(), usage))
        return verdicts

    def _arrangements(self, question: Question) -> list[NDArray[np.int64]]:
        """As given; or turns of one random order, evenly spaced, so that every passage stands in places all over the prompt."""
        count = len(question.texts)
        if self.shuffles == 1:
            return [np.arange(count)]
        order = question.random(self.seed).permutation(count)
        return [np.roll(order, turn * count // self.shuffles) for turn in range(self.shuffles)]
