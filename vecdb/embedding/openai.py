"""Embeddings from any service that speaks OpenAI's protocol: OpenAI itself, Ollama, vLLM, llama.cpp, LiteLLM, …"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from functools import cached_property
from http.client import HTTPException
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

from vecdb.embedding.base import FromSpec, as_vectors, checked_texts
from vecdb.errors import InvalidInput, InvalidVector, ModelUnavailable
from vecdb.types import Vector

API_KEY_VARIABLE = "OPENAI_API_KEY"

_BATCH = 128  # texts a request: small enough for every service (OpenAI takes 2,048, several others 128 or 256)
_ATTEMPTS = 5
_FIRST_PAUSE_S = 0.5  # doubled after each attempt, unless the service says how long
_LONGEST_PAUSE_S = 30.0
_BUSY = {408, 409, 429, 500, 502, 503, 504}  # answers after which trying again makes sense


class _NoRedirects(HTTPRedirectHandler):
    """A redirect is an error: urllib would carry the API key along to whatever host the answer names."""

    def redirect_request(self, *args: Any, **kwargs: Any) -> None:
        return None


class OpenAIEmbedder(FromSpec):
    """`model` at `url`, the service's address up to and including /v1. The API key is never stored or shown.

    The key is read from the environment variable key_env at each request; without one, none is sent (local services
    need none). timeout_s is for one attempt. Failures that may pass (busy, timeout, broken connection) are tried again
    up to five times; then, and for those that will not pass, ModelUnavailable is raised.
    """

    def __init__(
        self,
        model: str,
        url: str,
        *,
        key_env: str = API_KEY_VARIABLE,
        timeout_s: float = 60.0,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        address = urlsplit(url)
        if not model or address.scheme not in ("http", "https") or not address.hostname:
            raise InvalidInput(
                f"the embedding service {model!r} at {url!r} has no model or no address; "
                "write openai:MODEL@https://host/v1, such as openai:text-embedding-3-small@https://api.openai.com/v1"
            )
        if address.username or address.query or address.fragment:
            raise InvalidInput(
                "the address of an embedding service must hold no user, query or fragment: it is stored in the file; "
                f"put the key into the environment variable {key_env}"
            )
        self.name = model
        self.url = url.rstrip("/")
        self.spec = f"openai:{model}@{self.url}"
        self._key_env = key_env
        self._timeout_s = timeout_s
        self._pause = pause
        self._opener = build_opener(_NoRedirects)

    @cached_property
    def dimension(self) -> int:
        """Found by embedding one word, at the first use."""
        return int(self.embed_documents(["dimension"]).shape[1])

    def embed_documents(self, texts: list[str]) -> Vector:
        texts = checked_texts(texts)
        rows: list[Any] = []
        for start in range(0, len(texts), _BATCH):
            rows.extend(self._embed(texts[start : start + _BATCH]))
        return (
            as_vectors(rows, len(texts), self.name) if rows else as_vectors([[0.0] * self.dimension], 1, self.name)[:0]
        )

    def embed_queries(self, texts: list[str]) -> Vector:
        return self.embed_documents(texts)

    def embed_query(self, text: str) -> Vector:
        vector: Vector = self.embed_documents([text])[0]
        return vector

    def _embed(self, texts: list[str]) -> list[Any]:
        """One request's embeddings, in the order of the texts."""
        answer = self._post(json.dumps({"model": self.name, "input": texts}).encode())
        try:
            items = json.loads(answer)["data"]
            rows = {int(item["index"]): item["embedding"] for item in items}
            return [rows[position] for position in range(len(texts))]
        except (ValueError, TypeError, KeyError) as error:
            raise InvalidVector(
                f"{self.url} gave no embedding for each of {len(texts)} texts ({type(error).__name__}: {error}); "
                "is it an OpenAI-compatible service, and the address the one that ends in /v1?"
            ) from error

    def _post(self, body: bytes) -> bytes:
        headers = {"Content-Type": "application/json", "User-Agent": "vecdb"}
        key = os.environ.get(self._key_env)  # the one place where vecdb.embedding reads the environment
        if key:
            headers["Authorization"] = f"Bearer {key}"
        request = Request(f"{self.url}/embeddings", body, headers)
        for attempt in range(1, _ATTEMPTS + 1):
            pause_s = min(_FIRST_PAUSE_S * 2 ** (attempt - 1), _LONGEST_PAUSE_S)
            try:
                with self._opener.open(request, timeout=self._timeout_s) as response:
                    answer: bytes = response.read()
                    return answer
            except HTTPError as error:
                if error.code not in _BUSY or attempt == _ATTEMPTS:
                    raise self._refused(error, key is not None, attempt) from error
                pause_s = _wanted_pause(error, pause_s)
            except (OSError, HTTPException) as error:  # no connection, timeout, an answer cut short
                if attempt == _ATTEMPTS:
                    raise ModelUnavailable(
                        f"the embedding service {self.url} cannot be reached ({error}), tried {attempt} times; "
                        "check the address, the network and that the service runs"
                    ) from error
            self._pause(pause_s)
        raise AssertionError("the last attempt returns or raises")

    def _refused(self, error: HTTPError, has_key: bool, attempts: int) -> ModelUnavailable:
        """What the service answered, in its own words, cut to a line's length."""
        with error:
            words = error.read(500).decode("utf-8", "replace").strip()
        advice = "see what the service says"
        if error.code in (401, 403):
            found = "is refused" if has_key else "is not set"
            advice = f"the API key in the environment variable {self._key_env} {found}"
        elif error.code == 404:
            advice = "check the model's name, and that the address ends in /v1"
        elif 300 <= error.code < 400:
            advice = "redirects are not followed; give the address that it points to"
        return ModelUnavailable(
            f"the embedding service {self.url} answered {error.code} for the model {self.name!r}, "
            f"tried {attempts} times: {words or error.reason}; {advice}"
        )


def _wanted_pause(error: HTTPError, otherwise_s: float) -> float:
    """The seconds that the service asks for in Retry-After, if it names them, within reason."""
    with error:
        wanted = error.headers.get("Retry-After", "")
    return min(float(wanted), _LONGEST_PAUSE_S) if wanted.isdigit() else otherwise_s
