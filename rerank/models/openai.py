"""A language model behind an OpenAI-compatible service as a `ChatModel`: llama.cpp's server, vLLM, Ollama, OpenAI itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np

from vecdb.errors import InvalidInput, ModelUnavailable
from vecdb.language_model import OpenAiModel, Prompt
from vecdb.rerank.models.base import FirstToken, Reply, Stop

_T = TypeVar("_T")
_CHARACTERS_A_TOKEN = 3.5  # of English; a service's tokenizer is not at hand, and too many tokens is the safer error


@dataclass(frozen=True, slots=True)
class OpenAiChat:
    """context: the model's, in tokens. parallel: how many requests at once. top_logprobs: how many tokens the service tells of.

    extra: further fields of each request. A reply's opening is sent as the assistant's last message, which llama.cpp and Ollama
    continue; vLLM does with extra={"continue_final_message": True, "add_generation_prompt": False}. prefill=False leaves it out,
    for services that would answer it; a label that begins the reply, with or without a bracket in its token, is found all the
    same.
    """

    model: OpenAiModel
    context: int = 8192
    parallel: int = 4
    top_logprobs: int = 20
    prefill: bool = True
    extra: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if min(self.context, self.parallel, self.top_logprobs) < 1:
            raise InvalidInput("context, parallel and top_logprobs of a service must each be at least 1")

    def lengths(self, texts: Sequence[str]) -> list[int]:
        return [int(np.ceil(len(text) / _CHARACTERS_A_TOKEN)) for text in texts]

    def cut(self, text: str, tokens: int) -> str:
        return text[: int(tokens * _CHARACTERS_A_TOKEN)]

    def first_token(self, prompts: Sequence[Prompt], labels: Sequence[Sequence[str]], opening: str) -> list[FirstToken]:
        """Raises ModelUnavailable if the service tells no probabilities, or of none of the labels."""

        def ask(prompt: Prompt, own: Sequence[str]) -> FirstToken:
            answer = self._ask(prompt, opening, max_tokens=1, logprobs=True, top_logprobs=self.top_logprobs)
            try:
                told = answer["choices"][0]["logprobs"]["content"][0]["top_logprobs"]
                chances = [(str(one["token"]).strip(" [\n"), float(one["logprob"])) for one in told]
            except (KeyError, IndexError, TypeError, ValueError) as error:
                raise ModelUnavailable(
                    f"{self.model.endpoint} tells no top_logprobs, which reranking by the first token needs; "
                    "rerank='sliding' does without"
                ) from error
            scores = np.full(len(own), -np.inf)
            place = {label: i for i, label in enumerate(own)}
            for token, chance in chances:
                if token in place:
                    scores[place[token]] = np.logaddexp(scores[place[token]], chance)
            if not np.isfinite(scores).any():
                raise ModelUnavailable(
                    f"{self.model.endpoint} names none of the labels among its likeliest first tokens "
                    f"({', '.join(repr(token) for token, _ in chances[:5])}); does it continue the opening of a reply (prefill)?"
                )
            return FirstToken(scores, self._used(answer, "prompt_tokens", prompt))

        return self._side_by_side(ask, prompts, labels)

    def generate(
        self, prompts: Sequence[Prompt], *, opening: str = "", limit: int, stop: Stop | None = None
    ) -> list[Reply]:
        """stop cannot interrupt a service: a reply is as long as it is, and is read as such."""

        def ask(prompt: Prompt) -> Reply:
            answer = self._ask(prompt, opening, max_tokens=limit)
            try:
                text = answer["choices"][0]["message"]["content"] or ""
            except (KeyError, IndexError, TypeError) as error:
                raise ModelUnavailable(
                    f"{self.model.endpoint} answered no chat completion: {str(answer)[:200]}"
                ) from error
            if opening:  # some services repeat the opening in what they give back
                text = text.removeprefix(opening)
            decoded = self._used(answer, "completion_tokens", Prompt("", text))
            return Reply(text, self._used(answer, "prompt_tokens", prompt), decoded)

        return self._side_by_side(ask, prompts)

    def _ask(self, prompt: Prompt, opening: str, **fields: Any) -> Any:
        return self.model.chat(prompt, opening=opening if self.prefill else "", **fields, **self.extra)

    def _used(self, answer: Any, name: str, prompt: Prompt) -> int:
        """Tokens as the service counts them, or an estimate."""
        try:
            return int(answer["usage"][name])
        except (KeyError, TypeError, ValueError):
            return sum(self.lengths([prompt.system, prompt.user]))

    def _side_by_side(self, ask: Callable[..., _T], *arguments: Sequence[Any]) -> list[_T]:
        with ThreadPoolExecutor(self.parallel, "vecdb-rerank") as pool:
            return list(pool.map(ask, *arguments))
