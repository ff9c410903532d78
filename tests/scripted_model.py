"""A language model that says what it was told to, and counts words as tokens."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from vecdb.language_model import Prompt
from vecdb.rerank.models.base import FirstToken, Reply


@dataclass
class Scripted:
    """reply: prompt -> text. score: (prompt, label) -> log-probability. seen: every prompt that was asked."""

    reply: Callable[[Prompt], str] = lambda prompt: ""
    score: Callable[[Prompt, str], float] = lambda prompt, label: 0.0
    context: int = 100_000
    seen: list[Prompt] = field(default_factory=list)
    limits: list[int] = field(default_factory=list)

    def lengths(self, texts: Sequence[str]) -> list[int]:
        return [len(text.split()) for text in texts]

    def cut(self, text: str, tokens: int) -> str:
        return " ".join(text.split()[:tokens])

    def first_token(self, prompts: Sequence[Prompt], labels: Sequence[Sequence[str]], opening: str) -> list[FirstToken]:
        self.seen += prompts
        told = [np.array([self.score(prompt, label) for label in own]) for prompt, own in zip(prompts, labels)]
        return [FirstToken(scores, len(str(prompt).split())) for scores, prompt in zip(told, prompts)]

    def generate(self, prompts: Sequence[Prompt], *, opening: str = "", limit: int, stop: Any = None) -> list[Reply]:
        self.seen += prompts
        self.limits.append(limit)
        said = [self.reply(prompt) for prompt in prompts]
        return [Reply(text, len(str(prompt).split()), len(text.split())) for text, prompt in zip(said, prompts)]


def shown(prompt: Prompt) -> dict[str, str]:
    """Label -> passage, of the passages that a prompt lists."""
    lines = [line for line in prompt.user.splitlines() if line.startswith("[")]
    return {line[1 : line.index("]")]: line[line.index("]") + 2 :] for line in lines}
