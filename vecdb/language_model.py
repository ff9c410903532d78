"""Language models as vecdb uses them: something that completes a prompt. A function, an object, or a service by its
URL.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from vecdb.errors import InvalidInput, MissingExtra, ModelUnavailable

_KEY_VARIABLE = "OPENAI_API_KEY"
_DEFAULT_URL = "https://api.openai.com/v1"


@dataclass(frozen=True, slots=True)
class Prompt:
    """system: the rules. user: the material and the question. Kept apart, because models trust the former more."""

    system: str
    user: str

    def __str__(self) -> str:
        return f"{self.system}\n\n{self.user}"


class LanguageModel(Protocol):
    def complete(self, prompt: Prompt) -> str:
        """The model's reply."""


@dataclass(frozen=True, slots=True)
class FunctionModel:
    """A user's function from one text to another."""

    function: Callable[[str], str]

    def complete(self, prompt: Prompt) -> str:
        reply = self.function(str(prompt))
        if not isinstance(reply, str):
            raise InvalidInput(f"llm gave a {type(reply).__name__}; it must take a prompt and return text")
        return reply


@dataclass(frozen=True, slots=True)
class OpenAiModel:
    """A model behind an OpenAI-compatible service (POST {url}/chat/completions). temperature 0: quoting, not
    inventing.
    """

    model: str
    url: str = _DEFAULT_URL
    api_key: str | None = field(default=None, repr=False)
    timeout_s: float = 120.0
    temperature: float = 0.0

    def complete(self, prompt: Prompt) -> str:
        """Raises ModelUnavailable if the service cannot be reached, refuses, or answers something else than a
        completion.
        """
        return _content(self.chat(prompt), self.endpoint)

    @property
    def endpoint(self) -> str:
        return f"{self.url.rstrip('/')}/chat/completions"

    def chat(self, prompt: Prompt, *, opening: str = "", **more: Any) -> Any:
        """What the service answers, as JSON. opening: how the reply begins, sent as the assistant's own words; more: further
        fields of the request. Raises as `complete` does.
        """
        try:
            import httpx2
        except ImportError as error:
            raise MissingExtra.of("httpx2", extra="client", what="asking a language model over HTTP") from error
        messages = [{"role": "system", "content": prompt.system}, {"role": "user", "content": prompt.user}]
        if opening:
            messages.append({"role": "assistant", "content": opening})
        body = {"model": self.model, "messages": messages, "temperature": self.temperature, **more}
        key = self.api_key or os.environ.get(_KEY_VARIABLE)
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        try:
            response = httpx2.post(self.endpoint, json=body, headers=headers, timeout=self.timeout_s)
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            raise ModelUnavailable(
                f"the language model at {self.url} cannot be reached ({error}); is it running?"
            ) from error
        if response.status_code != 200:
            raise ModelUnavailable(f"{self.endpoint} answered {response.status_code}: {response.text[:200]}")
        try:
            return response.json()
        except ValueError as error:
            raise _no_completion(self.endpoint, response.text) from error


def _content(answer: Any, endpoint: str) -> str:
    try:
        content = answer["choices"][0]["message"]["content"]
    except (KeyError, IndexError, TypeError) as error:
        raise _no_completion(endpoint, str(answer)) from error
    if not isinstance(content, str):
        raise ModelUnavailable(f"{endpoint} answered a completion without text: {str(answer)[:200]}")
    return content


def _no_completion(endpoint: str, text: str) -> ModelUnavailable:
    return ModelUnavailable(f"{endpoint} answered no chat completion: {text[:200]}")


def openai_llm(spec: str, *, api_key: str | None = None) -> OpenAiModel:
    """The model that "openai:MODEL@URL" names; without @URL it is OpenAI's own. Raises InvalidInput for another
    form.
    """
    kind, _, rest = spec.partition(":")
    model, _, url = rest.partition("@")
    if kind != "openai" or not model or (url and not url.startswith(("http://", "https://"))):
        raise InvalidInput(
            f"llm is {spec!r}; write openai:MODEL@URL, such as openai:llama3.2@http://localhost:11434/v1"
        )
    return OpenAiModel(model, url or _DEFAULT_URL, api_key)


def as_language_model(llm: LanguageModel | Callable[[str], str] | str) -> LanguageModel:
    """Whatever a user calls a language model as one."""
    if isinstance(llm, str):
        return openai_llm(llm)
    if hasattr(llm, "complete"):
        return llm
    if callable(llm):
        return FunctionModel(llm)
    raise InvalidInput(f"llm is a {type(llm).__name__}; give a function from text to text, or openai:MODEL@URL")
