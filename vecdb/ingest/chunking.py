"""Cutting a document into chunks that an embedding model can read whole, at the seams of its text."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

from vecdb.errors import InvalidInput, MissingExtra
from vecdb.ingest.documents import Document
from vecdb.ingest.kinds import Kind

Splitter = Callable[[str], Sequence[str]]
_HEADING = re.compile(r"^(#{1,6})[ \t]+(.+?)[ \t#]*$", re.MULTILINE)
_FENCE = re.compile(r"^(```|~~~).*?(?:^\1|\Z)", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of a document's text. page, section: where it begins; None where the kind has none."""

    text: str
    page: int | None = None
    section: str | None = None


@dataclass(frozen=True, slots=True)
class Chunking:
    """How documents are cut.

    size: the most that a chunk may hold, and overlap: how much of a chunk's end its successor repeats, both in `unit`.
    The default of 1,000 characters is about 220 tokens of English; the default model reads 256. unit "tokens" needs
    tokenizer, a `tokenizers.Tokenizer`. split: your own function from a text to its chunks, instead of all that.
    """

    size: int = 1000
    overlap: int = 100
    unit: Literal["characters", "tokens"] = "characters"
    tokenizer: Any = None
    split: Splitter | None = None

    def __post_init__(self) -> None:
        if self.size < 1:
            raise InvalidInput(f"chunk size is {self.size}; it must be at least 1")
        if not 0 <= self.overlap < self.size:
            raise InvalidInput(
                f"overlap is {self.overlap}; it must be at least 0 and less than the chunk size, {self.size}"
            )
        if self.unit not in ("characters", "tokens"):
            raise InvalidInput(f"unit is {self.unit!r}; it must be 'characters' or 'tokens'")
        if self.unit == "tokens" and self.tokenizer is None:
            raise InvalidInput("sizes in tokens need a tokenizer; give Chunking(tokenizer=…) or count in characters")

    @property
    def identity(self) -> str:
        """Text that changes when the settings do. A function is known by its name: an edit inside it goes unnoticed."""
        if self.split is not None:
            return f"split:{self.split.__module__}.{self.split.__qualname__}"
        return f"{self.size}/{self.overlap} {self.unit}"


def cut(document: Document, kind: Kind, chunking: Chunking) -> list[Chunk]:
    """A document's chunks in reading order. Markdown is cut at headings first, known programming languages at
    definitions.
    """
    text = document.text
    if chunking.split is not None:
        pieces = _locate(text, chunking.split(text))
    else:
        pieces = _splitter(kind.reader, kind.language, chunking).chunk_indices(text)
    sections = _Sections(text) if kind.reader in ("markdown", "html", "docx") else None
    return [
        Chunk(piece, document.page_at(offset), sections.of(offset, offset + len(piece)) if sections else None)
        for offset, piece in pieces
        if piece.strip()
    ]


def _locate(text: str, pieces: Sequence[str]) -> Iterator[tuple[int, str]]:
    """Each piece of a user's splitter with its offset; a piece that is not found (rewritten text) counts as where the
    last was.
    """
    position = 0
    for piece in pieces:
        found = text.find(piece, position)
        position = found if found >= 0 else position
        yield position, piece


@lru_cache(maxsize=32)
def _splitter(reader: str, language: str | None, chunking: Chunking) -> Any:
    try:
        from semantic_text_splitter import CodeSplitter, MarkdownSplitter, TextSplitter
    except ImportError as error:
        raise MissingExtra.of("semantic-text-splitter", extra="files", what="cutting documents into chunks") from error
    arguments: tuple[Any, ...] = ()
    kind: Any = MarkdownSplitter if reader in ("markdown", "html", "docx") else TextSplitter
    grammar = _grammar(language) if language else None
    if grammar is not None:
        kind, arguments = CodeSplitter, (grammar,)
    if chunking.unit == "tokens":
        return kind.from_huggingface_tokenizer(*arguments, chunking.tokenizer, chunking.size, overlap=chunking.overlap)
    return kind(*arguments, chunking.size, overlap=chunking.overlap)


def _grammar(language: str) -> Any:
    """The tree-sitter grammar of a language if its package (tree-sitter-python, …) is installed; else None: cut as
    text.
    """
    from importlib import import_module

    try:
        return import_module(f"tree_sitter_{language}").language()
    except (ImportError, AttributeError):  # some grammars offer several languages under other names
        return None


class _Sections:
    """The headings above each place of a Markdown text, outermost first: "Install › Linux"."""

    def __init__(self, text: str) -> None:
        fences = [match.span() for match in _FENCE.finditer(text)]
        self._offsets: list[int] = []
        self._paths: list[str] = []
        stack: list[tuple[int, str]] = []
        for match in _HEADING.finditer(text):
            fence = bisect_right(fences, (match.start(), len(text))) - 1
            if fence >= 0 and match.start() < fences[fence][1]:  # a comment in a code block, not a heading
                continue
            level = len(match.group(1))
            stack = [above for above in stack if above[0] < level] + [(level, match.group(2).strip())]
            self._offsets.append(match.start())
            self._paths.append(" › ".join(title for _, title in stack))

    def of(self, start: int, stop: int) -> str | None:
        """The section that a chunk begins in; for one from before the first heading, the first that begins in it."""
        place = bisect_right(self._offsets, start)
        if place == 0 and self._offsets and self._offsets[0] < stop:
            place = 1
        return self._paths[place - 1] if place else None
