"""From hits to the passages of a prompt: joined where chunks adjoin, without repeats, cut to fit a budget."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

from vecdb.errors import InvalidInput
from vecdb.relevance import informative_words
from vecdb.types import Passage, Record

CountTokens = Callable[[str], int]

TEMPLATE = "[{number}] {source}\n{text}"

_SENTENCE_END = re.compile(r"(?<=[.!?…])[\"')\]]*\s+|(?<=[。！？])|\n+")
_WORD = re.compile(r"\w+")
_SAME = 0.9  # share of a passage's word triples that stand in a better one already: it would tell the model nothing
_LARGEST_SHARE = (
    0.5  # of the budget, for one passage while others wait: a single long text must not be the only witness
)
_SMALLEST_TOKENS = 60  # a rest of the budget that is smaller holds no useful part of a passage: only a whole short one
_LONGEST_OVERLAP = 2000  # characters that two adjoining chunks are searched for


@dataclass(frozen=True, slots=True)
class Piece:
    """A text that may become a passage: one record, or several adjoining ones of a parent. first, last: their seqs."""

    id: str
    text: str
    score: float
    parent: str | None = None
    first: int | None = None
    last: int | None = None
    metadata: dict[str, Any] = field(default_factory=dict)

    @property
    def source(self) -> str:
        """What a reader knows the text by."""
        return str(self.metadata.get("source") or self.parent or self.id)

    def adjoins(self, other: Piece) -> bool:
        """True if both are chunks of one parent with no chunk between them."""
        if self.parent is None or self.parent != other.parent:
            return False
        if self.first is None or self.last is None or other.first is None or other.last is None:
            return False
        return self.first - 1 <= other.last and other.first <= self.last + 1


def estimate_tokens(text: str) -> int:
    """About how many tokens a language model counts: four characters of ASCII each, or one and a half of other scripts.

    Within a fifth of common tokenisers on English prose. Where the budget is hard, give the model's own counter.
    """
    ascii_ = sum(map(str.isascii, text)) if not text.isascii() else len(text)
    return math.ceil(ascii_ / 4 + (len(text) - ascii_) / 1.5)


def joined(pieces: Iterable[Piece]) -> list[Piece]:
    """Pieces, best first, with those that adjoin made one, in reading order. A joined piece stands where its best
    part did.
    """
    result: list[Piece] = []
    for piece in pieces:
        touching = [place for place, other in enumerate(result) if other.adjoins(piece)]  # two, if it fills a gap
        if not touching:
            result.append(piece)
            continue
        for place in touching:
            piece = _merged(result[place], piece)
        result[touching[0]] = piece
        for place in reversed(touching[1:]):
            del result[place]
    return result


def _merged(a: Piece, b: Piece) -> Piece:
    assert a.first is not None
    assert a.last is not None
    assert b.first is not None
    assert b.last is not None
    if a.first <= b.first and b.last <= a.last:  # it is in there already
        return a
    before, after = (a, b) if a.first <= b.first else (b, a)
    return replace(
        a if a.score >= b.score else b,
        text=_without_overlap(before.text, after.text),
        first=before.first,
        last=max(a.last, b.last),
        score=max(a.score, b.score),
    )


def _without_overlap(before: str, after: str) -> str:
    """Two chunks as one text; what the first one's end and the second one's beginning share stands once."""
    longest = min(len(before), len(after), _LONGEST_OVERLAP)
    for length in range(longest, 7, -1):  # fewer characters than eight agree by chance
        if before.endswith(after[:length]):
            return before + after[length:]
    return f"{before}\n{after}"


def distinct(pieces: Iterable[Piece]) -> list[Piece]:
    """Pieces without those that say again, nearly word for word, what a better one says."""
    kept: list[Piece] = []
    seen: list[frozenset[tuple[str, ...]]] = []
    for piece in pieces:
        triples = _triples(piece.text)
        if any(len(triples & other) >= _SAME * len(triples) for other in seen):
            continue
        kept.append(piece)
        seen.append(triples)
    return kept


def _triples(text: str) -> frozenset[tuple[str, ...]]:
    words = _WORD.findall(text.casefold())
    return frozenset(zip(words, words[1:], words[2:])) or frozenset([tuple(words)])


@dataclass(frozen=True, slots=True)
class Packer:
    """Numbers passages and packs them into a budget of tokens, best first."""

    question: str
    budget_tokens: int
    count_tokens: CountTokens = estimate_tokens
    template: str = TEMPLATE

    def __post_init__(self) -> None:
        if self.budget_tokens < 1:
            raise InvalidInput(f"budget_tokens is {self.budget_tokens}; it must be at least 1")
        self.render(Piece("id", "text", 0.0), 1)

    def cost(self, piece: Piece) -> int:
        """About how many tokens of the budget a piece takes, cut as `pack` would cut it."""
        tokens = self.count_tokens(self.render(piece, 10) + "\n\n")
        return min(tokens, self.budget_tokens, max(_SMALLEST_TOKENS, int(self.budget_tokens * _LARGEST_SHARE)))

    def pack(self, pieces: Sequence[Piece]) -> tuple[str, tuple[Passage, ...]]:
        """The prompt's text and the passages in it; the text's tokens are within the budget.

        Raises InvalidInput if the budget does not even hold the beginning of one passage.
        """
        texts: list[str] = []
        passages: list[Passage] = []
        for place, piece in enumerate(pieces):
            left = self.budget_tokens - self.count_tokens("\n\n".join([*texts, ""]))
            others_wait = place + 1 < len(pieces)
            share = min(left, max(_SMALLEST_TOKENS, int(self.budget_tokens * _LARGEST_SHARE))) if others_wait else left
            rendered = self._fitted(piece, len(passages) + 1, share, _SMALLEST_TOKENS)
            if rendered is None or self.count_tokens("\n\n".join([*texts, rendered[1]])) > self.budget_tokens:
                continue  # a shorter one may still fit
            texts.append(rendered[1])
            passages.append(self._passage(*rendered, len(texts)))
        if pieces and not passages:  # a budget for a line or two: then that much of the best one
            rendered = self._fitted(pieces[0], 1, self.budget_tokens, 1)
            if rendered is None:
                raise InvalidInput(f"budget_tokens is {self.budget_tokens}; no passage fits, give a hundred or more")
            return rendered[1], (self._passage(*rendered, 1),)
        return "\n\n".join(texts), tuple(passages)

    def _passage(self, piece: Piece, text: str, number: int) -> Passage:
        tokens = self.count_tokens(text)
        return Passage(number, piece.id, piece.text, piece.source, piece.score, tokens, piece.metadata)

    def render(self, piece: Piece, number: int) -> str:
        """A passage as it stands in the prompt."""
        metadata = piece.metadata
        values = {"number": number, "source": piece.source, "text": piece.text, "id": piece.id}
        values |= {"title": metadata.get("title") or piece.source, "page": metadata.get("page") or ""}
        try:
            return self.template.format(**values)
        except (KeyError, IndexError, ValueError) as error:
            known = ", ".join(f"{{{name}}}" for name in values)
            raise InvalidInput(f"the template {self.template!r} is wrong ({error}); it may hold {known}") from error

    def _fitted(self, piece: Piece, number: int, tokens: int, smallest: int) -> tuple[Piece, str] | None:
        """The piece and its rendering in at most so many tokens, cut to whole sentences if need be.

        None if only less than smallest tokens of it would fit.
        """
        text = self.render(piece, number)
        if self.count_tokens(text) <= tokens:
            return piece, text
        # Tokens do not add up exactly, so the bound on the text shrinks until the whole fits.
        bound = tokens - self.count_tokens(self.render(replace(piece, text=""), number))
        while bound > 0 and tokens >= smallest:
            cut = replace(piece, text=self._best_window(piece.text, bound))
            if self.count_tokens(cut.text) < smallest // 2:
                return None  # the sentences around are long, and what fits between them says little
            if self.count_tokens(text := self.render(cut, number)) <= tokens:
                return cut, text
            bound = int(bound * 0.9)
        return None

    def _best_window(self, text: str, bound: int) -> str:
        """The run of whole sentences within bound tokens that holds most of the question's words; of equals, the
        first.
        """
        words = informative_words(self.question)
        spans = _sentences(text)
        costs = [self.count_tokens(text[start:stop]) + 1 for start, stop in spans]
        found = [words & informative_words(text[start:stop]) for start, stop in spans]
        best, window = (-1, 0, 0), ""
        first, cost = 0, 0
        for last in range(len(spans)):
            cost += costs[last]
            while cost > bound and first <= last:
                cost -= costs[first]
                first += 1
            if first <= last:
                gain = len(frozenset[str]().union(*found[first : last + 1]))
                if (gain, -first, last) > best:
                    best, window = (gain, -first, last), text[spans[first][0] : spans[last][1]].strip()
        return window or _whole_words(text, bound)


def _sentences(text: str) -> list[tuple[int, int]]:
    """Where each sentence (or line) of a text starts and stops; together they cover it."""
    stops = [match.end() for match in _SENTENCE_END.finditer(text)]
    edges = [0, *stops, len(text)]
    return [(start, stop) for start, stop in pairwise(edges) if text[start:stop].strip()]


def _whole_words(text: str, bound: int) -> str:
    """The beginning of a text whose first sentence is too long already, cut between words."""
    beginning = text[: bound * 4]
    return (beginning.rpartition(" ")[0] or beginning).rstrip() + " …"


def piece_of(record: Record, score: float) -> Piece:
    """A stored record as a piece."""
    return Piece(record.id, record.text or "", score, record.parent, record.seq, record.seq, record.metadata)
