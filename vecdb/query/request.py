"""What can be asked of a search, checked once."""

from __future__ import annotations

import base64
import binascii
import difflib
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from dataclasses import field as attribute
from typing import Any, Literal, TypedDict

import numpy as np
import orjson

from vecdb.config import Synonyms, checked_synonyms
from vecdb.errors import InvalidInput, InvalidQuery, InvalidVector
from vecdb.filters import Node, parse
from vecdb.query.boost_options import Boost, boosts_of
from vecdb.query.examples import Discover, Examples, Recommend, discover_of, recommend_of
from vecdb.query.fusion import Fusion, fusion_of
from vecdb.query.graph_options import GraphOptions, graph_of
from vecdb.query.near import Nearby, both, constraint, nearby_of
from vecdb.query.selection import MOST_IN_POOL, Selector, name_of, selector_of
from vecdb.query.snippets import SnippetOptions
from vecdb.rerank.kinds import RerankSpec, Stage, stages_of
from vecdb.types import DERIVED_FIELDS, Filter, Mode, Vector

Syntax = Literal["plain", "query"]

MOST_HITS = 100_000
MODES = ("auto", "vector", "text", "hybrid")
MOST_NESTED = 4  # prefetches within prefetches
MOST_PREFETCHES = 32  # of one search, in all
VECTOR_FIELD = "vector"
_PREFETCHED = 100  # candidates that a prefetch gives, unless it says k itself
_OF_HITS = ("vectors", "snippets")  # what a prefetch, which has no hits, cannot give


class SearchKeywords(TypedDict, total=False):
    """What a caller may say about a search; `Collection.search` documents it, `SearchOptions` has the defaults."""

    k: int
    mode: Mode
    where: Filter | None
    exact: bool
    ef: int | None
    target_recall: float | None
    fusion: str | Mapping[str, Any] | Fusion
    syntax: Syntax
    distinct: str | None
    per_group: int
    near: Mapping[str, Any] | None
    select: str | Mapping[str, Any] | Selector
    min_score: float | None
    offset: int
    rerank: RerankSpec | None
    candidates: int | None
    vectors: bool
    synonyms: Synonyms | None
    fuzzy: bool
    snippets: bool | Mapping[str, Any] | SnippetOptions
    graph: GraphOptions | Mapping[str, Any] | None
    field: str
    prefetch: Sequence[SearchPlan | Mapping[str, Any]] | None
    boosts: Sequence[Boost | Mapping[str, Any]] | None
    recommend: Recommend | Mapping[str, Any] | None
    discover: Discover | Mapping[str, Any] | None
    plan: SearchPlan | Mapping[str, Any] | str | None
    params: Mapping[str, Any] | None


@dataclass(frozen=True, slots=True)
class SearchOptions:
    """Everything about a search but the query itself."""

    k: int = 10
    mode: Mode = "auto"
    where: Filter | None = None
    exact: bool = False
    ef: int | None = None
    target_recall: float | None = None
    fusion: str | Mapping[str, Any] | Fusion = "auto"
    syntax: Syntax = "plain"
    distinct: str | None = None
    per_group: int = 1
    near: Mapping[str, Any] | None = None
    select: str | Mapping[str, Any] | Selector = "topk"
    min_score: float | None = None
    offset: int = 0
    rerank: RerankSpec | None = None
    candidates: int | None = None
    vectors: bool = False
    synonyms: Synonyms | None = None
    fuzzy: bool = False
    snippets: bool | Mapping[str, Any] | SnippetOptions = False
    graph: GraphOptions | Mapping[str, Any] | None = None
    field: str = VECTOR_FIELD
    prefetch: Sequence[SearchPlan | Mapping[str, Any]] | None = ()
    boosts: Sequence[Boost | Mapping[str, Any]] | None = ()
    recommend: Recommend | Mapping[str, Any] | None = None
    discover: Discover | Mapping[str, Any] | None = None

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
        _one_of("field", self.field, (VECTOR_FIELD, *DERIVED_FIELDS))
        _one_of("syntax", self.syntax, ("plain", "query"))
        self._check_words()
        _one_of("mode", self.mode, MODES)
        # Most searches say little, and none shall wait for what it does not say.
        if self.graph is not None:
            with InvalidInput.under("graph"):
                graph_of(self.graph)
        if self.where is not None:
            with InvalidInput.under("where"):
                _ = self.condition
        if self.near is not None:
            self._check_near()
        if self.boosts or self.prefetch or self.recommend is not None or self.discover is not None:
            self._check_parts()
        if self.fusion != "auto":
            with InvalidInput.under("fusion"):
                fusion_of(self.fusion)
        if self.selector is not None and self.offset + self.k > MOST_IN_POOL:
            raise InvalidQuery(
                f"k and offset ask for {self.offset + self.k:,} hits; a set is chosen of at most {MOST_IN_POOL:,}: "
                "ask for fewer, or leave out select",
                path="select",
            )
        if self.rerank is not None:
            with InvalidInput.under("rerank"):
                _ = self.stages

    def _check_parts(self) -> None:
        """Those options that are values of their own become such values."""
        for name, made in (("boosts", boosts_of), ("recommend", recommend_of), ("discover", discover_of)):
            with InvalidInput.under(name):
                object.__setattr__(self, name, made(getattr(self, name)))
        if self.recommend is not None and self.discover is not None:
            raise InvalidQuery("both recommend and discover were given; a search goes by one of them", path="discover")
        with InvalidInput.under("prefetch"):
            object.__setattr__(self, "prefetch", _prefetches(self.prefetch))
        if _depth(self) > MOST_NESTED:
            raise InvalidQuery(
                f"prefetch is nested {_depth(self)} deep; at most {MOST_NESTED} are taken", path="prefetch"
            )
        if _count(self) > MOST_PREFETCHES:
            raise InvalidQuery(
                f"there are {_count(self)} prefetches in all; at most {MOST_PREFETCHES} are taken", path="prefetch"
            )

    def _check_near(self) -> None:
        with InvalidInput.under("near"):
            nearby = self.nearby
        if self.prefetch and self.mode == "auto" and any(near.kernel is not None for near in nearby):
            raise InvalidQuery(
                "near has a kernel, which weighs the scores that this search gives, but it only joins those of its prefetches; "
                "give near to them, or say mode='vector'",
                path="near",
            )

    def _check_words(self) -> None:
        if self.synonyms is not None:
            with InvalidInput.under("synonyms"):
                checked_synonyms(self.synonyms, InvalidQuery)
        if not isinstance(self.fuzzy, bool):
            raise InvalidQuery(f"fuzzy is {self.fuzzy!r}; it must be True or False", path="fuzzy")
        if self.snippets is not False:
            with InvalidInput.under("snippets"):
                _ = self.snippet_options
        if self.syntax == "query" and (self.fuzzy or self.synonyms):
            raise InvalidQuery(
                "fuzzy and synonyms are for plain text; syntax='query' searches what it says: write (car OR auto), or prefix*",
                path="syntax",
            )

    def _check_target(self, target: float) -> None:
        if self.ef is not None or self.exact:
            raise InvalidQuery(
                "target_recall was given with ef or exact; a search goes by one of them", path="target_recall"
            )
        if isinstance(target, bool) or not isinstance(target, (int, float)) or not 0.0 < target < 1.0:
            raise InvalidQuery(
                f"target_recall is {target!r}; it must lie between 0 and 1, both excluded (for all of it: exact=True)",
                path="target_recall",
            )

    @property
    def condition(self) -> Node | None:
        """The filter, parsed; None if it admits everything. Raises InvalidFilter."""
        return None if self.where is None or self.where == {} else parse(self.where)

    @property
    def nearby(self) -> tuple[Nearby, ...]:
        """What records are to be near to; none if that plays no part. Raises InvalidQuery."""
        return nearby_of(self.near)

    @property
    def admitted(self) -> Node | None:
        """What hits must satisfy, as it is now: the filter, and to be near; None if all do."""
        return both(self.condition, constraint(self.nearby))

    @property
    def weighs(self) -> bool:
        """Whether nearness has a weight in the scores."""
        return self.near is not None and any(near.kernel is not None for near in self.nearby)

    @property
    def is_exact(self) -> bool:
        """Whether all that may be hits are measured. Those near a place are, unless it is said how many may be missed."""
        return self.exact or (self.near is not None and self.ef is None and self.target_recall is None)

    @property
    def selector(self) -> Selector | None:
        """What chooses the hits as a set; None if they are simply the best. Raises InvalidQuery."""
        if self.select == "topk":
            return None
        with InvalidInput.under("select"):
            return selector_of(self.select)

    def joining(self, lists: int) -> Fusion:
        """The fusion of so many first-stage lists. What reads off queries which list to trust knows a vector list and a word
        list, so those of prefetches are joined by rank unless it was said how. Raises InvalidQuery.
        """
        if self.fusion == "auto":
            return fusion_of("rrf" if self.steps and self.mode == "auto" else "adaptive", lists)
        return fusion_of(self.fusion, lists)

    @property
    def steps(self) -> tuple[SearchPlan, ...]:
        """The searches whose candidates this one works over; none if it works over all records."""
        return self.prefetch or ()  # type: ignore[return-value]  # by _check_parts

    @property
    def lifts(self) -> tuple[Boost, ...]:
        """The boosts; none if scores stay as they are."""
        return self.boosts or ()  # type: ignore[return-value]  # by _check_parts

    @property
    def examples(self) -> Examples | None:
        """What the vector list goes by instead of a vector."""
        return self.recommend if self.recommend is not None else self.discover  # type: ignore[return-value]

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The rerankers, in order. Raises InvalidQuery."""
        return stages_of(self.rerank)

    @property
    def snippet_options(self) -> SnippetOptions | None:
        """How snippets are made; None if none are asked for."""
        if isinstance(self.snippets, SnippetOptions):
            return self.snippets
        if isinstance(self.snippets, Mapping):
            known = [field.name for field in fields(SnippetOptions)]
            if any(name not in known for name in self.snippets):
                raise InvalidQuery(f"snippets is {self.snippets!r}; give True, or some of {', '.join(known)}")
            return SnippetOptions(**self.snippets)
        if not isinstance(self.snippets, bool):
            raise InvalidQuery(f"snippets is {self.snippets!r}; give True, or vecdb.SnippetOptions(…)")
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

    @property
    def reranked(self) -> int:
        """Candidates that a reranker must give back: the hits, or all that boosts may still bring up, or groups leave over."""
        return self.depth(1) if self.boosts or self.distinct is not None else self.wanted

    def depth(self, lists: int) -> int:
        """How many candidates each first-stage list must give."""
        if self.candidates is not None:
            return max(self.candidates, self.wanted)
        depth = self.wanted if lists == 1 else self.joining(lists).pool(self.wanted)
        if self.rerank is not None:
            depth = max(depth, 50, 5 * self.wanted, *(stage.top or 0 for stage in self.stages))
        if (selector := self.selector) is not None:
            depth = max(depth, selector.pool)
        if self.overlay is not None:
            depth = max(depth, 100, self.overlay.seeds)
        if self.boosts:
            depth = max(depth, 100, 4 * self.wanted)
        if self.distinct is not None:
            depth = max(depth, 200, 10 * self.wanted * self.per_group)
        return depth


@dataclass(frozen=True, slots=True)
class SearchPlan(SearchOptions):
    """A search as one value: its options, and what is looked for (None: what the search that it is part of looks for).

    As data it is a mapping of the same names, of which those left out have their defaults; `of` and `as_data` lead from one to
    the other. `query` may also be a vector, as in `search`.
    """

    query: str | None = None
    vector: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        if self.query is not None and not isinstance(self.query, str):
            if self.vector is not None:
                raise InvalidQuery("two vectors were given; with vector= the query itself is text", path="query")
            object.__setattr__(self, "vector", self.query)
            object.__setattr__(self, "query", None)
        if self.vector is not None:
            with InvalidInput.under("vector"):
                object.__setattr__(self, "vector", _numbers(self.vector))
        SearchOptions.__post_init__(self)

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> SearchPlan:
        """Raises InvalidInput, whose path names the mistake: "prefetch[1].where.year"."""
        check_names(data, _PLAIN)
        return cls(**data)

    def changed(self) -> dict[str, Any]:
        """The fields that do not have their defaults, and k, whose default is another in a prefetch."""
        found = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in found.items() if name == "k" or value != _PLAIN[name]}

    def as_data(self) -> dict[str, Any]:
        """What differs from the defaults, as JSON has it. Raises InvalidQuery for a reranker or a fusion of the caller's own."""
        from vecdb.query.plan_data import as_data

        data: dict[str, Any] = as_data(self)
        return data


_OPTIONS = {field.name: field.default for field in fields(SearchOptions)}
_PLAIN = {field.name: field.default for field in fields(SearchPlan)}


@dataclass(frozen=True, slots=True)
class Query:
    """One query: text, a prepared (D,) vector, or both. adapter: version of the map that made the vector; None without one."""

    text: str | None = None
    vector: Vector | None = attribute(default=None, compare=False)
    adapter: str | None = attribute(default=None, compare=False)


def options_of(given: Mapping[str, Any]) -> SearchOptions:
    """Raises InvalidQuery for a name that no option has, and what SearchOptions raises."""
    check_names(given, _OPTIONS)
    return SearchOptions(**given)


def check_names(given: Mapping[str, Any], known: Mapping[str, Any]) -> None:
    for name in given:
        if name not in known:
            near = difflib.get_close_matches(str(name), known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(known)}"
            raise InvalidQuery(f"search has no option {name!r}; {hint}", path=str(name))


def _prefetches(given: Any) -> tuple[SearchPlan, ...]:
    if given is None:
        return ()
    if isinstance(given, str | Mapping) or not isinstance(given, Sequence):
        raise InvalidQuery(f"prefetch is {given!r}; give a list of searches, [{{'mode': 'text', 'k': 50}}, …]")
    steps = []
    for place, one in enumerate(given):
        with InvalidInput.under(f"[{place}]"):
            if not isinstance(one, SearchPlan | Mapping):
                raise InvalidQuery(f"a prefetch is {one!r}; give the options of a search, {{'mode': 'text', 'k': 50}}")
            step = one if isinstance(one, SearchPlan) else SearchPlan.of({"k": _PREFETCHED, **one})
            for name in _OF_HITS:
                if getattr(step, name):
                    raise InvalidQuery(
                        f"a prefetch gives candidates, not hits; ask for {name} outside of it", path=name
                    )
            steps.append(step)
    return tuple(steps)


def _depth(options: SearchOptions) -> int:
    return max((1 + _depth(step) for step in options.steps), default=0)


def _count(options: SearchOptions) -> int:
    return sum(1 + _count(step) for step in options.steps)


def _numbers(given: Any) -> tuple[float, ...]:
    try:
        array = np.asarray(given, dtype=np.float32)
    except (TypeError, ValueError) as error:
        raise InvalidVector(f"the vector is {given!r}; give numbers (D,)") from error
    if array.ndim != 1 or not len(array):
        raise InvalidVector(f"the vector has the shape {array.shape}; a plan has one vector (D,)")
    return tuple(array.tolist())


def fingerprint(query: Query, options: SearchOptions) -> str:
    """Eight characters that differ for different searches, so that a cursor is not used with another one."""
    parts: list[Any] = [
        query.text,
        options.mode,
        repr(options.condition),
        options.syntax,
        options.distinct,
        options.min_score,
        None if options.selector is None else name_of(options.selector),
        repr(options.synonyms),
        options.fuzzy,
    ]
    if options.field != VECTOR_FIELD:
        parts.append(options.field)
    if options.near is not None:
        parts.append(options.nearby)
    if options.overlay is not None:
        parts.append(options.overlay)
    if options.lifts or options.examples is not None:
        from vecdb.query.plan_data import as_data

        parts += [as_data(options.lifts), options.examples]
    for step in options.steps:
        parts += [step.k, step.offset, step.vector, fingerprint(Query(step.query), step)]
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
        raise InvalidQuery(f"{name} is {value!r}; it must be a whole number between {least} and {most:,}", path=name)


def _one_of(name: str, value: object, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise InvalidQuery(f"{name} is {value!r}; it must be one of {', '.join(choices)}", path=name)
