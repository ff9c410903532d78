"""Texts as terms: what a collection's word index makes of them, by the very tokenizer that FTS5 uses for it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import apsw

from vecdb.config import TextConfig
from vecdb.tokenizers import Token
from vecdb.types import value_under


class Analyzer:
    """The tokenizer of one collection, on one connection; cheap to make, and not for a second thread."""

    def __init__(self, db: apsw.Connection, text: TextConfig) -> None:
        name, *arguments = text.tokenizer
        self._cut = db.fts5_tokenizer(name, arguments)
        self._has_colocated = text.cjk

    def document(self, text: str) -> tuple[list[str], int]:
        """A text's terms, and its length: positions, of which one may hold several terms."""
        found: Any = self._cut(
            text.encode(),
            apsw.FTS5_TOKENIZE_DOCUMENT,
            None,
            include_offsets=False,
            include_colocated=self._has_colocated,
        )
        if not self._has_colocated:
            return found, len(found)
        return [term for terms in found for term in terms], len(found)

    def tokens(self, text: bytes) -> list[Token]:
        """A document's tokens as (start, end, term, *further terms), with offsets in bytes."""
        return cast(list[Token], self._cut(text, apsw.FTS5_TOKENIZE_DOCUMENT, None))

    def query(self, text: str) -> list[tuple[str, str]]:
        """A query's terms in order, each with the piece of text that it is the term of. Any text will do."""
        data = text.encode(errors="replace")
        found: Any = self._cut(data, apsw.FTS5_TOKENIZE_QUERY, None, include_colocated=False)
        pieces = [(term, data[start:end].decode(errors="replace")) for start, end, term in found]
        return [
            (term, piece) for term, piece in pieces if "\0" not in piece
        ]  # FTS5 cannot be asked for a trigram with it


def field_texts(metadata: Mapping[str, Any], keys: tuple[str, ...]) -> tuple[str | None, ...]:
    """For each key (dots go into nested ones) the text there, or a list's texts joined by newlines; None for anything else."""
    return tuple(_text_in(value_under(metadata, key)) for key in keys)


def _text_in(value: Any) -> str | None:
    if isinstance(value, str):
        return value
    texts = [item for item in value if isinstance(item, str)] if isinstance(value, list) else []
    return "\n".join(texts) or None
