"""First-stage lists: by vector and by words, from memory where it is loaded, else from SQLite itself."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal

import numpy as np

from vecdb.config import checked_synonyms
from vecdb.definition import Definition
from vecdb.derived import NodeVectors
from vecdb.filters import Node
from vecdb.index.base import Mask
from vecdb.index.exact import exact_search
from vecdb.memory import Memory, Part, Snapshot
from vecdb.query.cold import ColdScan
from vecdb.query.fusion import Evidence
from vecdb.query.ranking import Ranking, Rows, Scores, ranked
from vecdb.query.request import VECTOR_FIELD, SearchOptions
from vecdb.query.snippets import SnippetOptions, snippet
from vecdb.query.terms import Marks, QueryTerms, Thesaurus, corrected, marks_of_syntax, terms_of
from vecdb.storage import Store
from vecdb.tables import Tables
from vecdb.types import Metric, Vector
from vecdb.vectors import Matrix, from_blobs
from vecdb.words import Analyzer

# A batch larger than this is worth loading the arrays for, instead of scanning the file once a query.
_COLD_BATCH = 4
_MOST_COLD_WEIGHTS = 100  # SQLite joins no more than 500 queries into one
_GROUP = 64
_LEAST_SCORE = float(np.finfo(np.float32).tiny)


@dataclass(slots=True)
class Found:
    """One list for each query of a batch, and what the stage decided, for the trace. recalls: what share of the true
    neighbours each list is likely to have; None where nobody can say. terms: what each text query looked for.
    """

    rankings: list[Ranking]
    detail: dict[str, Any] = field(default_factory=dict)
    recalls: list[float] | None = None
    terms: list[QueryTerms] | None = None


TextWay = Literal["memory", "fts5", "memory (loaded first)"]


@dataclass(frozen=True, slots=True)
class TextForecast:
    """How a text query would be answered: in how many records each term occurs, and what terms weigh that do not weigh 1."""

    way: TextWay
    frequencies: dict[str, int]
    weights: dict[str, float]


class Retrieval:
    """The two first stages of one collection. wait_for: called with a part of memory that would have been faster to have."""

    def __init__(
        self,
        store: Store,
        tables: Tables,
        memory: Memory,
        definition: Definition,
        wait_for: Callable[[Part], None],
        nodes: NodeVectors,
    ) -> None:
        self._store = store
        self._tables = tables
        self._memory = memory
        self._definition = definition
        self._wish = wait_for
        self._text = definition.config.text
        self._own_thesaurus: Thesaurus | None = None
        self._nodes = nodes
        self._cold = ColdScan(store, tables, definition.config.metric)

    # -- by vector ---------------------------------------------------------------------------------------------------------

    def by_vector(self, queries: Matrix, depth: int, where: Node | None, options: SearchOptions) -> Found:
        """The depth nearest records for each of (B, D) queries."""
        if options.field != VECTOR_FIELD:
            return self._nodes_like(queries, depth, where)
        if self._memory.newest().vectors is None and len(queries) <= _COLD_BATCH:
            found = self._vectors_from_file(queries, depth, where)
            if found is not None:
                return found
        return self._vectors_from_memory(queries, depth, where, options)

    def _vectors_from_file(self, queries: Matrix, depth: int, where: Node | None) -> Found | None:
        rows = self._rows(where)
        rankings = [self._cold.vectors(query, depth, rows) for query in queries]
        self._wish("vectors")
        if any(ranking is None for ranking in rankings):
            return None
        found = [ranking for ranking in rankings if ranking is not None]
        return Found(found, {"engine": "sqlite", "exact": True}, [1.0] * len(found))

    def _vectors_from_memory(self, queries: Matrix, depth: int, where: Node | None, options: SearchOptions) -> Found:
        snapshot, allowed, live = self._allowed(where, "vectors")
        view = snapshot.vectors
        assert view is not None
        depth = min(depth, max(len(view), 1))
        nearest = view.search(
            queries,
            depth,
            allowed=allowed,
            live=live,
            exact=options.exact,
            ef=options.ef,
            target_recall=options.target_recall,
            threads=1 if len(queries) == 1 else None,
        )
        rankings = []
        for slots, distances in zip(nearest.slots, nearest.distances):
            found = slots >= 0
            scores = scores_of(distances[found], self._definition.config.metric)
            rankings.append(Ranking("vector", snapshot.rows[slots[found]], scores))
        exact = options.exact or view.index is None or view.index.kind == "exact" or view.scan is not None
        detail: dict[str, Any] = {
            "engine": "exact" if exact else view.index.kind if view.index else "exact",
            "exact": exact,
            "way": nearest.way,
            "distances": nearest.work,
            "indexed": len(view.index_slots),
            "tail": len(view.tail_slots),
        }
        if where is not None and allowed is not None:
            detail["allowed"] = int(np.count_nonzero(allowed))
        if not exact or len(view.index_slots) > len(view.tail_slots):
            self._wish("vectors")
        recalls = [1.0] * len(queries) if exact else None if nearest.recall is None else nearest.recall.tolist()
        return Found(rankings, detail, recalls)

    def _nodes_like(self, queries: Matrix, depth: int, where: Node | None) -> Found:
        """The same among the vectors that were derived from links: all of them are looked at."""
        rows, vectors = self._nodes.current()
        snapshot, allowed, live = self._allowed(where)
        slots = snapshot.slots_of(rows)
        within = live if allowed is None else allowed
        mask = slots >= 0
        if within is not None:
            mask[mask] = within[slots[mask]]
        found = exact_search(vectors, queries, max(1, min(depth, len(rows))), "cosine", mask)
        rankings = []
        for positions, distances in zip(found.positions, found.distances):
            known = positions >= 0
            rankings.append(Ranking("vector", rows[positions[known]], scores_of(distances[known], "cosine")))
        return Found(rankings, {"engine": "exact", "exact": True, "vectors": len(rows)}, [1.0] * len(queries))

    # -- by words ----------------------------------------------------------------------------------------------------------

    def by_text(self, queries: Sequence[str], depth: int, where: Node | None, options: SearchOptions) -> Found:
        """The depth best records by BM25 for each query."""
        if options.syntax == "query":
            rows = self._rows(where)
            readable = [query.encode(errors="replace").decode() for query in queries]
            rankings = [self._cold.words([(1.0, query)] if query.strip() else [], depth, rows) for query in readable]
            return Found(rankings, {"engine": "fts5"})
        with self._store.read() as db:
            analyzer = Analyzer(db, self._text)
            thesaurus = self._thesaurus(options, analyzer)
            terms = [terms_of(query, analyzer, thesaurus) for query in queries]
        matches = [query.matches for query in terms]
        if self._memory.newest().words is not None or self._needs_memory(matches, options):
            return self._words_from_memory(terms, depth, where, options)
        rows = self._rows(where)
        rankings = [self._cold.words(match, depth, rows) for match in matches]
        self._wish("words")
        return Found(rankings, {"engine": "fts5"}, terms=terms)

    def _needs_memory(self, matches: Sequence[Sequence[object]], options: SearchOptions) -> bool:
        """FTS5 has no vocabulary at hand to correct words by, counts expired records in its document frequencies, and is asked
        once for each different weight.
        """
        many = any(len(match) > _MOST_COLD_WEIGHTS for match in matches)
        return many or options.fuzzy or self._cold.has_expired(time.time())

    def _words_from_memory(
        self, queries: list[QueryTerms], depth: int, where: Node | None, options: SearchOptions
    ) -> Found:
        snapshot, allowed, live = self._allowed(where, "words")
        words = snapshot.words
        assert words is not None
        if options.fuzzy:
            queries = [corrected(q, words.vocabulary, partial(words.frequency, live=live)) for q in queries]
        within = live if allowed is None else allowed
        rankings = []
        for query in queries:
            scores = words.scores(query.weights, live, k1=self._text.k1, b=self._text.b)
            if within is not None:
                scores[~within] = 0
            rankings.append(_best(scores, depth, snapshot))
        return Found(rankings, {"engine": "memory"}, terms=queries)

    def forecast_text(self, query: str, options: SearchOptions) -> TextForecast:
        """What by_text would do for a plain query. Nothing is loaded for it: corrections show only where words are in memory."""
        loaded = self._memory.newest().words is not None
        with self._store.read() as db:
            analyzer = Analyzer(db, self._text)
            terms = terms_of(query, analyzer, self._thesaurus(options, analyzer))
        way: TextWay = "memory" if loaded else "fts5"
        if not loaded and self._needs_memory([terms.matches], options):
            way = "memory (loaded first)"
        if not loaded:
            frequencies = self._frequencies_from_file(terms)
        else:
            snapshot, _, live = self._allowed(None, "words")
            words = snapshot.words
            assert words is not None
            if options.fuzzy:
                terms = corrected(terms, words.vocabulary, partial(words.frequency, live=live))
            frequencies = {term: words.frequency(term, live) for term in terms.weights}
        weights = {term: weight for term, weight in terms.weights.items() if weight != 1.0}
        return TextForecast(way, frequencies, weights)

    def marks(self, query: str | None, options: SearchOptions) -> Marks:
        """What a snippet marks, as far as it can be told from the query alone."""
        with self._store.read() as db:
            analyzer = Analyzer(db, self._text)
            if query is None:
                return Marks()
            if options.syntax == "query":
                return marks_of_syntax(query, analyzer)
            return Marks(frozenset(terms_of(query, analyzer, self._thesaurus(options, analyzer)).weights))

    def snippets(self, texts: Sequence[str | None], marks: Marks, options: SnippetOptions) -> list[str | None]:
        """The snippet of each text; None where there is no text."""
        with self._store.read() as db:
            analyzer = Analyzer(db, self._text)
            return [None if text is None else snippet(text, marks, analyzer, options) for text in texts]

    def _thesaurus(self, options: SearchOptions, analyzer: Analyzer) -> Thesaurus | None:
        if options.synonyms is not None:
            return Thesaurus(checked_synonyms(options.synonyms), analyzer)
        if self._text.synonyms and self._own_thesaurus is None:
            self._own_thesaurus = Thesaurus(checked_synonyms(self._text.synonyms), analyzer)
        return self._own_thesaurus

    def evidence(self, queries: Sequence[str], options: SearchOptions, *, stems: bool = True) -> list[Evidence]:
        """What a fusion may know of each query. stems: also how rare its words are, which a query in FTS5's syntax has not."""
        bare = [
            Evidence(k=options.offset + options.k, words=len(q.split()), metric=self._definition.config.metric)
            for q in queries
        ]
        if not stems or options.syntax == "query":
            return bare
        with self._store.read() as db:
            analyzer = Analyzer(db, self._text)
            asked = [terms_of(query, analyzer) for query in queries]
        if self._memory.newest().words is None:
            counted = [self._frequencies_from_file(terms) for terms in asked]
            with self._store.read() as db:
                documents = self._tables.count_texts(db)
        else:
            snapshot, _, live = self._allowed(None, "words")
            words = snapshot.words
            assert words is not None
            counted = [{term: words.frequency(term, live) for term in terms.weights} for terms in asked]
            documents = words.documents(live)
        return [
            replace(known, stems=tuple(found), frequencies=tuple(found.values()), documents=documents)
            for known, found in zip(bare, counted)
        ]

    def _frequencies_from_file(self, terms: QueryTerms) -> dict[str, int]:
        return {term: self._cold.frequency(replace(terms, words={term: word})) for term, word in terms.words.items()}

    # -- shared ------------------------------------------------------------------------------------------------------------

    def snapshot_of(self, where: Node | None) -> tuple[Snapshot, Mask | None, Mask | None]:
        """The newest state, with what of it is loaded; the slots that the filter admits; those that are visible at all."""
        return self._allowed(where)

    def _rows(self, where: Node | None) -> Rows | None:
        """The rows that a filter admits; None without one."""
        if where is None:
            return None
        snapshot, allowed, _ = self._allowed(where)
        return snapshot.rows[allowed]

    def _allowed(self, where: Node | None, *parts: Part) -> tuple[Snapshot, Mask | None, Mask | None]:
        """A snapshot with parts; the slots that the filter admits (None without a filter); the slots that are visible at all."""
        if where is None:
            snapshot = self._memory.current(*parts)
            live = snapshot.visible(time.time())
            # Once something has expired, the index (which knows only deletions) must be told which slots are left.
            return snapshot, live if time.time() >= snapshot.next_expiry else None, live
        snapshot = self._memory.current("attributes", *parts)
        assert snapshot.attributes is not None
        live = snapshot.visible(time.time())
        allowed = snapshot.attributes.mask(where)
        return snapshot, allowed if live is None else allowed & live, live

    def vectors_of(self, rows: Sequence[int]) -> list[Vector | None]:
        """The stored vector (D,) of each of these rows; None for a record that has none."""
        with self._store.read() as db:
            blobs = self._tables.vectors_of(db, rows)
        if not blobs:
            return [None] * len(rows)
        found = dict(zip(blobs, from_blobs(list(blobs.values()), len(next(iter(blobs.values()))) // 4)))
        return [found.get(row) for row in rows]

    def matches(self, row: int, where: Node) -> bool:
        """Whether a record satisfies a filter."""
        snapshot = self._memory.current("attributes")
        assert snapshot.attributes is not None
        slot = int(snapshot.slots_of(np.array([row]))[0])
        return slot >= 0 and bool(snapshot.attributes.mask(where)[slot])


def scores_of(distances: Vector, metric: Metric) -> Scores:
    """Scores, larger is better: cosine similarity, negated Euclidean distance, inner product."""
    wide = distances.astype(np.float64)
    if metric == "cosine":
        return 1.0 - wide
    return -np.sqrt(wide) if metric == "l2" else -wide


def _best(scores: Vector, depth: int, snapshot: Snapshot) -> Ranking:
    """The depth best slots with a score above 0."""
    slots = np.flatnonzero(scores >= max(_bound(scores, depth), _LEAST_SCORE))
    return ranked("text", snapshot.rows[slots], scores[slots].astype(np.float64)).first(depth)


def _bound(scores: Vector, depth: int) -> float:
    """A score that the depth best reach and few others do: the depth-th largest of the maxima of small groups.

    depth groups have a member that large, so the depth-th best score is no smaller. Five times as fast as partitioning.
    """
    groups = len(scores) // _GROUP
    if depth >= groups:
        return 0.0
    maxima = scores[: groups * _GROUP].reshape(groups, _GROUP).max(axis=1)
    return float(np.partition(maxima, groups - depth)[groups - depth])
