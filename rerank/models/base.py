"""What rerankers ask of a language model, whichever library runs it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from vecdb.language_model import Prompt

Stop = Callable[[str], bool]  # whether a reply that has come this far is complete


@dataclass(frozen=True, slots=True)
class Usage:
    """What judging cost. It does not depend on how questions were put into batches.

    calls: prompts sent. forward_passes: a prompt read is one, and so is each decoded token after the first. documents:
    texts that were read, each time they were. failures: answers that could not be used.
    """

    calls: int = 0
    forward_passes: int = 0
    prompt_tokens: int = 0
    decoded_tokens: int = 0
    documents: int = 0
    failures: int = 0

    def __add__(self, other: Usage) -> Usage:
        return Usage(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(Usage)))

    def as_dict(self) -> dict[str, int]:
        return {f.name: getattr(self, f.name) for f in fields(Usage)}


@dataclass(frozen=True, slots=True)
class Reply:
    """What a model wrote after a prompt, without the opening that it was given."""

    text: str
    prompt_tokens: int
    decoded_tokens: int

    @property
    def usage(self) -> Usage:
        return Usage(1, max(1, self.decoded_tokens), self.prompt_tokens, self.decoded_tokens)


@dataclass(frozen=True, slots=True)
class FirstToken:
    """scores: (L,) float64, the log-probability of each label as the next token; -inf where the model did not tell."""

    scores: NDArray[np.float64]
    prompt_tokens: int

    @property
    def usage(self) -> Usage:
        return Usage(1, 1, self.prompt_tokens, 1)


class ChatModel(Protocol):
    """A model that reads prompts. Any number of threads may use it.

    Its methods take a batch; what they give for one prompt does not depend on the others, up to rounding.
    """

    @property
    def context(self) -> int:
        """How many tokens a prompt and its reply may have together."""

    def lengths(self, texts: Sequence[str]) -> list[int]:
        """How many tokens each text has; an estimate where the model's tokenizer is not at hand."""

    def cut(self, text: str, tokens: int) -> str:
        """The text's beginning, at most so many tokens long."""

    def first_token(self, prompts: Sequence[Prompt], labels: Sequence[Sequence[str]], opening: str) -> list[FirstToken]:
        """How likely each of labels[i] follows prompts[i] and an opening that the model is given as its own words."""

    def generate(
        self, prompts: Sequence[Prompt], *, opening: str = "", limit: int, stop: Stop | None = None
    ) -> list[Reply]:
        """The likeliest replies (greedy), each of at most limit tokens and ended where stop says."""
