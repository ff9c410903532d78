"""Graded relevance: how much each document helps, 0 to 4, by a model that nobody trained for it (AutoCast++, Yan et al. 2024).

The paper asks several times and takes the mean of the grades. Here the model's probabilities of the five grades, as its first
token, give the mean over any number of such answers at once: one forward pass and one decoded token a document.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from vecdb.rerank.base import Ranked, Reranked, Task
from vecdb.rerank.listwise import prompts
from vecdb.rerank.listwise.engine import Outcome, Plan, Question, Verdict
from vecdb.rerank.listwise.plans import Grade, one_by_one
from vecdb.rerank.listwise.reranker import ListwiseReranker, ModelSpec, at_least
from vecdb.rerank.models.base import ChatModel, FirstToken
from vecdb.rerank.recency import LEAST_RELEVANCE

_LABELS = prompts.GRADES
_MOST = len(_LABELS) - 1


class Graded(ListwiseReranker[Grade, "list[Grade]"]):
    """Scores are the expected grade / 4, from 1e-4 to 1, and mean the same for every query.

    model: as `models.load_chat` takes it. passage_tokens: the most of a document that is shown. Equal grades, and documents
    without one, which come last, stay in the first stage's order.
    """

    is_absolute = True

    def __init__(self, model: ModelSpec = None, *, passage_tokens: int | None = 512) -> None:
        super().__init__(model)
        at_least(1, passage_tokens=passage_tokens)
        self.passage_tokens = passage_tokens

    def plan(self, task: Task, model: ChatModel) -> Plan[Grade, list[Grade]]:
        return one_by_one(len(task.candidates))

    def judge(self, model: ChatModel) -> GradeJudge:
        return GradeJudge(model, self.passage_tokens)

    def answer(self, task: Task, outcome: Outcome[list[Grade]]) -> Reranked:
        grades = np.array([np.nan if grade is None else grade for grade in outcome.result])
        scores = np.clip(np.nan_to_num(grades / _MOST), LEAST_RELEVANCE, 1.0)
        order = np.lexsort((-scores, np.isnan(grades)))[: task.k].tolist()
        ranked = tuple(Ranked(i, float(scores[i]), {"grade": outcome.result[i]}) for i in order)
        return self.reranked(ranked, outcome, {"unscored": int(np.isnan(grades).sum())})


@dataclass(frozen=True, slots=True)
class GradeJudge:
    """The expected grade of one document, by the probabilities of the five grades as the first token of a reply."""

    model: ChatModel
    passage_tokens: int | None = None

    def judge(self, questions: Sequence[Question]) -> list[Verdict[Grade]]:
        asked = []
        for question in questions:
            frame = partial(prompts.grade, question.query)
            fitted = prompts.fit(self.model, question.texts, frame, reply=2, most=self.passage_tokens)
            asked.append(frame(fitted.passages))
        told = self.model.first_token(asked, [_LABELS] * len(asked), prompts.OPENING)
        return [self._verdict(first) for first in told]

    @staticmethod
    def _verdict(first: FirstToken) -> Verdict[Grade]:
        known = np.isfinite(first.scores)
        usage = replace(first.usage, documents=1, failures=int(not known.any()))
        if not known.any():
            return Verdict(None, usage)
        chance = np.where(known, np.exp(first.scores - first.scores[known].max()), 0.0)
        return Verdict(float(chance @ np.arange(len(_LABELS)) / chance.sum()), usage)
