"""A tokenizer of transformers that several threads may use."""

from __future__ import annotations

from threading import Lock
from typing import Any


class SharedTokenizer:
    """One call at a time; everything else as the tokenizer has it.

    How a fast tokenizer truncates and pads is a state of its own, which each call sets before it reads: the calls of two threads
    mix, and one of them gets texts that are cut as the other wanted, or not at all.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._lock = Lock()

    def __call__(self, *texts: Any, **options: Any) -> Any:
        with self._lock:
            return self._tokenizer(*texts, **options)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tokenizer, name)


def shared(tokenizer: Any) -> SharedTokenizer:
    return tokenizer if isinstance(tokenizer, SharedTokenizer) else SharedTokenizer(tokenizer)
