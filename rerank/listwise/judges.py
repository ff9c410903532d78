"""Language models as judges of windows: by the first token's logits, by a written order, by scores, by a pick."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from vecdb.language_model import Prompt
from vecdb.rerank.listwise import answers, prompts
from vecdb.rerank.listwise.engine import Question, Verdict
from vecdb.rerank.listwise.plans import Permutation, Pick
from vecdb.rerank.models.base import ChatModel, Reply, Usage

OPENING = "["  # the model's reply is begun for it: the next token is an identifier


@dataclass(frozen=True, slots=True)
class FirstTokenJudge:
    """FIRST: the order of a window is that of its letters' logits at the first token; exactly one token is decoded.

    passage_tokens: the most of each passage that is shown. shuffles: 2 or more average the log-probabilities over as many
    random arrangements, against the bias of models for early letters and for places in the prompt.
    """

    model: ChatModel
    passage_tokens: int | None = None
    shuffles: int = 1
    seed: int = 0

    def judge(self, questions: Sequence[Question]) -> list[Verdict[Permutation]]:
        rng = np.random.default_rng(self.seed)
        arranged = []
        for question in questions:
            count = len(question.texts)
            kept = [np.arange(count)] if self.shuffles == 1 else [rng.permutation(count) for _ in range(self.shuffles)]
            arranged.append(kept)
        asked, labels = [], []
        for question, arrangements in zip(questions, arranged):
            own = prompts.letters(len(question.texts))
            for arrangement in arrangements:
                texts = [question.texts[i] for i in arrangement]
                frame = partial(prompts.permutation, question.query, own)
                asked.append(frame(prompts.fit(self.model, texts, frame, reply=2, most=self.passage_tokens).passages))
                labels.append(own)
        told = iter(self.model.first_token(asked, labels, OPENING))
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
        asked = []
        for question in questions:
            labels = self._labels(question)
            frame = partial(prompts.permutation, question.query, labels, top=self.top)
            fitted = prompts.fit(
                self.model, question.texts, frame, reply=self.reply(len(labels)), most=self.passage_tokens
            )
            asked.append(frame(fitted.passages))
        most = max((len(question.texts) for question in questions), default=0)
        wanted = most if self.top is None else min(self.top, most)
        replies = self.model.generate(
            asked, opening=OPENING, limit=self.reply(most), stop=lambda text: text.count("]") >= wanted
        )
        return [self._verdict(question, reply) for question, reply in zip(questions, replies, strict=True)]

    def reply(self, count: int) -> int:
        """Tokens enough for an order of so many: "[100] > " is at most 7 of them where digits stand alone."""
        wanted = count if self.top is None else min(self.top, count)
        return 8 + 7 * wanted

    def _labels(self, question: Question) -> list[str]:
        return (prompts.letters if self.letters else prompts.numbers)(len(question.texts))

    def _verdict(self, question: Question, reply: Reply) -> Verdict[Permutation]:
        labels = self._labels(question)
        order = answers.permutation(OPENING + reply.text, labels)
        usage = replace(reply.usage, documents=len(labels), failures=int(order is None))
        return Verdict(list(range(len(labels))) if order is None else order, usage)


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
        first = self.model.generate(asked, limit=self.reply_tokens, stop=_closed)
        verdicts = [self._verdict(question, reply) for question, reply in zip(questions, first, strict=True)]
        again = [place for place, verdict in enumerate(verdicts) if verdict.answer is None]
        if again:
            retried = [Prompt(asked[i].system, asked[i].user + _AGAIN) for i in again]
            for i, reply in zip(again, self.model.generate(retried, limit=self.reply_tokens, stop=_closed)):
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


def _closed(text: str) -> bool:
    return "</answer>" in text


@dataclass(frozen=True, slots=True)
class PickJudge:
    """Rank-R1: the best document of a set, after reasoning. A majority of votes, each over another arrangement.

    reasoning=False asks for the label at once (the plain setwise prompt). The first arrangement is as given unless shuffled.
    """

    model: ChatModel
    passage_tokens: int | None = None
    reply_tokens: int = 1024
    reasoning: bool = True
    votes: int = 1
    shuffled: bool = True
    seed: int = 0

    def judge(self, questions: Sequence[Question]) -> list[Verdict[Pick]]:
        rng = np.random.default_rng(self.seed)
        asked: list[Prompt] = []
        arrangements: list[list[int]] = []
        for question in questions:
            count = len(question.texts)
            frame = partial(prompts.pick, question.query, prompts.numbers(count), reasoning=self.reasoning)
            for _ in range(self.votes):
                arrangement = rng.permutation(count).tolist() if self.shuffled else list(range(count))
                texts = [question.texts[i] for i in arrangement]
                fitted = prompts.fit(self.model, texts, frame, reply=self._limit + 32, most=self.passage_tokens)
                asked.append(frame(fitted.passages))
                arrangements.append(arrangement)
        replies = self.model.generate(asked, limit=self._limit, stop=_closed)
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
