"""GroupRank: scores of small groups, judged side by side (Sun et al. 2025).

Documents are compared within a group, groups do not wait for one another, and the scores of all share one scale, so that they
can be blended with the first stage's. The spread over rounds tells how sure the model is of each.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from vecdb.errors import InvalidQuery
from vecdb.language_model import Prompt
from vecdb.rerank.base import Ranked, Reranked, Task
from vecdb.rerank.listwise import answers, prompts
from vecdb.rerank.listwise.engine import Outcome, Plan, Question, Verdict
from vecdb.rerank.listwise.plans import GroupScores, groups
from vecdb.rerank.listwise.reranker import ListwiseReranker, ModelSpec, at_least
from vecdb.rerank.models.base import ChatModel, Reply


class Groupwise(ListwiseReranker["list[float] | None", GroupScores]):
    """group_size: documents a prompt. rounds: over new random groups, averaged. seed: of the groups.

    blend: the share of the first stage's score (scaled to 0 … 1 over the candidates) in the final one; it also orders the many
    ties of whole-number scores. A document that no round could score has the first stage's score alone. reply_tokens: room for
    the model's reasoning and scores.
    """

    def __init__(
        self,
        model: ModelSpec = None,
        *,
        group_size: int = 20,
        rounds: int = 2,
        seed: int = 0,
        blend: float = 0.4,
        reply_tokens: int = 512,
        passage_tokens: int | None = 300,
    ) -> None:
        super().__init__(model)
        at_least(1, group_size=group_size, rounds=rounds, reply_tokens=reply_tokens, passage_tokens=passage_tokens)
        at_least(0, seed=seed)
        if not 0.0 <= blend <= 1.0:
            raise InvalidQuery(
                f"blend is {blend!r}; it must be between 0 (the model alone) and 1 (the first stage alone)"
            )
        self.group_size, self.rounds, self.seed, self.blend = group_size, rounds, seed, blend
        self.reply_tokens, self.passage_tokens = reply_tokens, passage_tokens

    def plan(self, task: Task, model: ChatModel) -> Plan[list[float] | None, GroupScores]:
        return groups(len(task.candidates), group_size=self.group_size, rounds=self.rounds, seed=self.seed)

    def judge(self, model: ChatModel) -> GroupJudge:
        return GroupJudge(model, self.passage_tokens, self.reply_tokens)

    def answer(self, task: Task, outcome: Outcome[GroupScores]) -> Reranked:
        means, spreads = outcome.result.means, outcome.result.spreads
        first = scaled(np.array([candidate.score for candidate in task.candidates], dtype=np.float64))
        scores = np.where(np.isnan(means), first, (1.0 - self.blend) * means + self.blend * first)
        order = np.argsort(-scores, kind="stable")[: task.k].tolist()  # equal scores stay in the first stage's order
        ranked = tuple(Ranked(i, float(scores[i]), {"spread": float(spreads[i])}) for i in order)
        return self.reranked(ranked, outcome, {"unscored": int(np.isnan(means).sum())})


def scaled(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """To 0 … 1, the best being 1; all 0.5 where they are equal."""
    if not len(scores) or scores.max() == scores.min():
        return np.full(len(scores), 0.5)
    spread: NDArray[np.float64] = (scores - scores.min()) / (scores.max() - scores.min())
    return spread


@dataclass(frozen=True, slots=True)
class GroupJudge:
    """GroupRank: a score from 0 to 1 for each document of a group, after a comparison in words.

    A reply without usable scores is asked for once more, with a note on what was wrong with it; then the group has none.
    """

    model: ChatModel
    passage_tokens: int | None = None
    reply_tokens: int = 512

    def judge(self, questions: Sequence[Question]) -> list[Verdict[list[float] | None]]:
        asked = []
        for question in questions:
            frame = partial(prompts.group, question.query, prompts.numbers(len(question.texts)))
            fitted = prompts.fit(
                self.model, question.texts, frame, reply=self.reply_tokens + 64, most=self.passage_tokens
            )
            asked.append(frame(fitted.passages))
        first = self.model.generate(asked, limit=self.reply_tokens, stop=prompts.closed)
        verdicts = [self._verdict(question, reply) for question, reply in zip(questions, first, strict=True)]
        again = [place for place, verdict in enumerate(verdicts) if verdict.answer is None]
        if again:
            retried = [Prompt(asked[i].system, asked[i].user + _AGAIN) for i in again]
            for i, reply in zip(again, self.model.generate(retried, limit=self.reply_tokens, stop=prompts.closed)):
                second = self._verdict(questions[i], reply)
                verdicts[i] = replace(second, usage=verdicts[i].usage + second.usage)
        return verdicts

    @staticmethod
    def _verdict(question: Question, reply: Reply) -> Verdict[list[float] | None]:
        given = answers.scores(reply.text, prompts.numbers(len(question.texts)))
        usage = replace(reply.usage, documents=len(question.texts), failures=int(given is None))
        scores = None if given is None else [score / 10.0 for score in given]
        return Verdict(scores, usage, answers.reasoning(reply.text))


_AGAIN = "\nWrite a score for every document, each once, and close the JSON object."
