"""The part of a text that shows best why it was found, with the query's words marked.

Made from the text itself and the collection's tokenizer, so it is the same whatever found the hit: postings in memory, FTS5, or a
vector. The window is the one with the most different terms of the query, then the most occurrences, then the first.
"""

from __future__ import annotations

import html
from collections import Counter
from dataclasses import dataclass

from vecdb.errors import InvalidQuery
from vecdb.query.terms import Marks
from vecdb.tokenizers import Token
from vecdb.words import Analyzer

_MOST_CHARACTERS = 100_000
_HTML_MARKS = ("<mark>", "</mark>")


@dataclass(frozen=True, slots=True)
class SnippetOptions:
    """length: the most characters of text in a snippet, marks not counted. before, after: what stands around a marked word
    (None: ** and **, or with html <mark> and </mark>). ellipsis: where text was left out. html: escape the text itself, so that
    the snippet can be put into a page; the marks and the ellipsis are put in as they are.
    """

    length: int = 200
    before: str | None = None
    after: str | None = None
    ellipsis: str = "…"
    html: bool = False

    def __post_init__(self) -> None:
        if (
            isinstance(self.length, bool)
            or not isinstance(self.length, int)
            or not 1 <= self.length <= _MOST_CHARACTERS
        ):
            raise InvalidQuery(
                f"a snippet's length is {self.length!r}; it must be a whole number between 1 and {_MOST_CHARACTERS:,}"
            )
        for name in ("before", "after", "ellipsis"):
            value = getattr(self, name)
            if not isinstance(value, str) and (value is not None or name == "ellipsis"):
                raise InvalidQuery(f"a snippet's {name} is {value!r}; it must be text")
        if not isinstance(self.html, bool):
            raise InvalidQuery(f"a snippet's html is {self.html!r}; it must be True or False")

    @property
    def marks(self) -> tuple[str, str]:
        usual = _HTML_MARKS if self.html else ("**", "**")
        return usual[0] if self.before is None else self.before, usual[1] if self.after is None else self.after


@dataclass(frozen=True, slots=True)
class _Match:
    """An occurrence of a term: characters start … end of the text."""

    start: int
    end: int
    term: str


def snippet(text: str, marks: Marks, analyzer: Analyzer, options: SnippetOptions) -> str:
    """The best window of a text. Without a match it is the beginning."""
    tokens = _in_characters(text, analyzer.tokens(text.encode()))
    matches = _matches(tokens, marks)
    first, last = _window(text, tokens, matches, options.length)
    escaped = html.escape if options.html else str
    before, after = options.marks
    parts = [options.ellipsis] if text[:first].strip() else []
    done = first
    for start, end in _joined(matches, first, last):
        parts += [escaped(text[done:start]), before, escaped(text[start:end]), after]
        done = end
    parts.append(escaped(text[done:last]))
    if text[last:].strip():
        parts.append(options.ellipsis)
    return "".join(parts)


def _in_characters(text: str, tokens: list[Token]) -> list[Token]:
    """Tokens with offsets in characters instead of bytes."""
    if text.isascii():
        return tokens
    offset, at = {0: 0}, 0
    for place, character in enumerate(text, start=1):
        at += len(character.encode())
        offset[at] = place
    return [(offset[start], offset[end], *terms) for start, end, *terms in tokens]


def _matches(tokens: list[Token], marks: Marks) -> list[_Match]:
    """Where terms of the query stand. A further term of a position is a pair, and ends where the next position does."""
    found = []
    for place, (start, end, *terms) in enumerate(tokens):
        for number, term in enumerate(terms):
            if marks.has(term):
                found.append(_Match(start, tokens[place + 1][1] if number else end, term))
    return found


def _window(text: str, tokens: list[Token], matches: list[_Match], length: int) -> tuple[int, int]:
    """The characters first … last to show."""
    if len(text) <= length:
        return 0, len(text)
    start, end = _best_span(matches, length) if matches else (0, 0)
    if not matches:
        start = end = len(text) - len(text.lstrip())
    # What is left over goes to both sides; what one side cannot use, the other gets. Then no word is cut.
    spare = max(0, length - (end - start))
    first = max(0, min(start - spare // 2, len(text) - length))
    last = min(len(text), max(first + length, end))
    if first > 0:
        first = min((token[0] for token in tokens if token[0] >= first), default=start)
        first = min(first, start) if matches else first
    if last < len(text):
        last = max((token[1] for token in tokens if token[1] <= last), default=0)
        last = max(last, end) if last > first else min(len(text), first + length)
    return first, last


def _best_span(matches: list[_Match], length: int) -> tuple[int, int]:
    """From the first to the last match of the best window; a match that is longer than a window is one by itself."""
    best, span = (0, 0), (matches[0].start, matches[0].end)
    terms: Counter[str] = Counter()
    stop = 0
    for place, match in enumerate(matches):
        while stop < len(matches) and (stop == place or matches[stop].end - match.start <= length):
            terms[matches[stop].term] += 1
            stop += 1
        worth = (len(terms), stop - place)
        if worth > best:
            best, span = worth, (match.start, max(m.end for m in matches[place:stop]))
        terms[match.term] -= 1
        if not terms[match.term]:
            del terms[match.term]
    return span


def _joined(matches: list[_Match], first: int, last: int) -> list[tuple[int, int]]:
    """The matches that lie within the window, those that overlap or touch as one."""
    spans = sorted({(match.start, match.end) for match in matches if first <= match.start and match.end <= last})
    joined: list[tuple[int, int]] = []
    for start, end in spans:
        if joined and start <= joined[-1][1]:
            joined[-1] = joined[-1][0], max(joined[-1][1], end)
        else:
            joined.append((start, end))
    return joined
