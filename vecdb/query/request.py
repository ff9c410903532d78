"""What can be asked of a search, checked once."""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from dataclasses import field as attribute
from typing import Any, Literal, TypedDict

import numpy as np
import orjson

from vecdb.config import Synonyms, checked_synonyms
from vecdb.errors import InvalidQuery
from vecdb.filters import Node, parse
from vecdb.query.fusion import Fusion, fusion_of
from vecdb.query.graph_options import GraphOptions, graph_of
from vecdb.query.selection import MOST_IN_POOL, Selector, name_of, selector_of
from vecdb.query.snippets import SnippetOptions
from vecdb.rerank.base import Reranker
from vecdb.types import DERIVED_FIELDS, Filter, Mode, Vector

Syntax = Literal["plain", "query"]

MOST_HITS = 100_000
VECTOR_FIELD = "vector"


class SearchKeywords(TypedDict, total=False):
    """What a caller may say about a search; `Collection.search` documents it, `SearchOptions` has the defaults."""

    k: int
    mode: Mode
    where: Filter | None
    exact: bool
    ef: int | None
    target_recall: float | None
    fusion: str | Fusion
    syntax: Syntax
    group_by: str | None
    per_group: int
    select: str | Selector
    min_score: float | None
    offset: int
    rerank: Reranker | None
    candidates: int | None
    vectors: bool
    synonyms: Synonyms | None
    fuzzy: bool
    snippets: bool | SnippetOptions
    graph: GraphOptions | Mapping[str, Any] | None
    field: str


@dataclass(frozen=True, slots=True)
class SearchOptions:
    """Everything about a search but the query itself."""

    k: int = 10
    mode: Mode = "auto"
    where: Filter | None = None
    exact: bool = False
    ef: int | None = None
    target_recall: float | None = None
    fusion: str | Fusion = "adaptive"
    syntax: Syntax = "plain"
    group_by: str | None = None
    per_group: int = 1
    select: str | Selector = "topk"
    min_score: float | None = None
    offset: int = 0
    rerank: Reranker | None = None
    candidates: int | None = None
    vectors: bool = False
    synonyms: Synonyms | None = None
    fuzzy: bool = False
    snippets: bool | SnippetOptions = False
    graph: GraphOptions | Mapping[str, Any] | None = None
    field: str = VECTOR_FIELD

    def __post_init__(self) -> None:
        _whole("k", self.k, 1, MOST_HITS)
        _whole("offset", self.offset, 0, MOST_HITS)
        _whole("per_group", self.per_group, 1, MOST_HITS)
        if self.ef is not None:
            _whole("ef", self.ef, 1, MOST_HITS)
        if self.target_recall is not None:
            self._check_target(self.target_recall)
        if self.candidates is not None:
            _whole("candidates", self.candidates, 1, MOST_HITS)
        _one_of("mode", self.mode, ("auto", "vector", "text", "hybrid"))
        _one_of("field", self.field, (VECTOR_FIELD, *DERIVED_FIELDS))
        _one_of("syntax", self.syntax, ("plain", "query"))
        fusion_of(self.fusion)
        self._check_words()
        graph_of(self.graph)
        _ = self.condition
        if self.selector is not None and self.offset + self.k > MOST_IN_POOL:
            raise InvalidQuery(
                f"k and offset ask for {self.offset + self.k:,} hits; a set is chosen of at most {MOST_IN_POOL:,}: "
                "ask for fewer, or leave out select"
            )
        if self.rerank is not None and not callable(getattr(self.rerank, "rerank", None)):
            raise InvalidQuery(f"rerank is {self.rerank!r}; give an object with rerank(query, candidates, k)")

    def _check_words(self) -> None:
        if self.synonyms is not None:
            checked_synonyms(self.synonyms, InvalidQuery)
        if not isinstance(self.fuzzy, bool):
            raise InvalidQuery(f"fuzzy is {self.fuzzy!r}; it must be True or False")
        if not isinstance(self.snippets, bool | SnippetOptions):
            raise InvalidQuery(f"snippets is {self.snippets!r}; give True, or vecdb.SnippetOptions(…)")
        if self.syntax == "query" and (self.fuzzy or self.synonyms):
            raise InvalidQuery(
                "fuzzy and synonyms are for plain text; syntax='query' searches what it says: write (car OR auto), or prefix*"
            )

    def _check_target(self, target: float) -> None:
        if self.ef is not None or self.exact:
            raise InvalidQuery("target_recall was given with ef or exact; a search goes by one of them")
        if isinstance(target, bool) or not isinstance(target, (int, float)) or not 0.0 < target < 1.0:
            raise InvalidQuery(
                f"target_recall is {target!r}; it must lie between 0 and 1, both excluded (for all of it: exact=True)"
            )

    @property
    def condition(self) -> Node | None:
        """The filter, parsed; None if it admits everything. Raises InvalidFilter."""
        return None if self.where is None or self.where == {} else parse(self.where)

    @property
    def selector(self) -> Selector | None:
        """What chooses the hits as a set; None if they are simply the best. Raises InvalidQuery."""
        return selector_of(self.select)

    @property
    def snippet_options(self) -> SnippetOptions | None:
        """How snippets are made; None if none are asked for."""
        if isinstance(self.snippets, SnippetOptions):
            return self.snippets
        return SnippetOptions() if self.snippets else None

    @property
    def overlay(self) -> GraphOptions | None:
        """The graph options; None if no graph has a say."""
        options = graph_of(self.graph)
        return None if options is None or options.beta == 0 else options

    @property
    def wanted(self) -> int:
        """Hits needed to fill the page, and one more to know whether there is a next one."""
        return self.offset + self.k + 1

    def depth(self, lists: int) -> int:
        """How many candidates each first-stage list must give."""
        if self.candidates is not None:
            return max(self.candidates, self.wanted)
        depth = self.wanted if lists == 1 else fusion_of(self.fusion).pool(self.wanted)
        if self.rerank is not None:
            depth = max(depth, 50, 5 * self.wanted)
        if (selector := self.selector) is not None:
            depth = max(depth, selector.pool)
        if self.overlay is not None:
            depth = max(depth, 100, self.overlay.seeds)
        if self.group_by is not None:
            depth = max(depth, 200, 10 * self.wanted * self.per_group)
        return depth


@dataclass(frozen=True, slots=True)
class Query:
    """One query: text, a prepared (D,) vector, or both."""

    text: str | None = None
    vector: Vector | None = attribute(default=None, compare=False)


def fingerprint(query: Query, options: SearchOptions) -> str:
    """Eight characters that differ for different searches, so that a cursor is not used with another one."""
    parts: list[Any] = [
        query.text,
        options.mode,
        repr(options.where),
        options.syntax,
        options.group_by,
        options.min_score,
        None if options.selector is None else name_of(options.selector),
        repr(options.synonyms),
        options.fuzzy,
    ]
    if options.field != VECTOR_FIELD:
        parts.append(options.field)
    if options.overlay is not None:
        parts.append(options.overlay)
    digest = hashlib.blake2b(repr(parts).encode(errors="replace"), digest_size=6)
    if query.vector is not None:
        digest.update(np.ascontiguousarray(query.vector).tobytes())
    return base64.urlsafe_b64encode(digest.digest()).decode()


def cursor_to(offset: int, query: Query, options: SearchOptions) -> str:
    return base64.urlsafe_b64encode(orjson.dumps([offset, fingerprint(query, options)])).decode()


def continued(options: SearchOptions, cursor: str, query: Query) -> SearchOptions:
    """options from where the cursor left off. Raises InvalidQuery if it is of another search."""
    try:
        offset, made_for = orjson.loads(base64.urlsafe_b64decode(cursor))
    except (binascii.Error, ValueError, TypeError) as error:
        raise InvalidQuery(f"cursor {cursor!r} is not one that a search gave; pass hits.cursor as it is") from error
    if made_for != fingerprint(query, options):
        raise InvalidQuery("the cursor was given by another search; use it with the same query, mode and filter")
    return replace(options, offset=offset)


def _whole(name: str, value: object, least: int, most: int) -> None:
    if not isinstance(value, int | np.integer) or isinstance(value, bool) or not least <= value <= most:
        raise InvalidQuery(f"{name} is {value!r}; it must be a whole number between {least} and {most:,}")


def _one_of(name: str, value: object, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise InvalidQuery(f"{name} is {value!r}; it must be one of {', '.join(choices)}")
