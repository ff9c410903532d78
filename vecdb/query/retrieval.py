"""First-stage lists: by vector and by words, from memory where it is loaded, else from SQLite itself."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import repeat
from typing import Any, Literal

import numpy as np

from vecdb.config import checked_synonyms
from vecdb.definition import Definition
from vecdb.derived import Derived
from vecdb.filters import Node
from vecdb.index.base import Mask
from vecdb.index.bm25 import Postings
from vecdb.index.exact import exact_search
from vecdb.memory import Memory, Part, Snapshot
from vecdb.query.cold import ColdScan
from vecdb.query.examples import SCANNED, Examples
from vecdb.query.fusion import Evidence
from vecdb.query.near import Nearby, best_weighed, weighed_ranking, weights_of
from vecdb.query.ranking import Ranking, Rows, Scores, ranked
from vecdb.query.request import VECTOR_FIELD, SearchOptions
from vecdb.query.snippets import SnippetOptions, snippet
from vecdb.query.spelling import Speller
from vecdb.query.terms import Marks, QueryTerms, Thesaurus, corrected, marks_of_syntax, terms_of, with_columns
from vecdb.rerank.tokens import Tokens, from_bytes
from vecdb.storage import Store
from vecdb.stored_vectors import StoredVectors
from vecdb.tables import Tables
from vecdb.types import Metric, Vector
from vecdb.vectors import Matrix, prepared
from vecdb.words import Analyzer

# A batch larger than this is worth loading the arrays for, instead of scanning the file once a query.
_COLD_BATCH = 4
_MOST_COLD_WEIGHTS = 100  # SQLite joins no more than 500 queries into one
_GROUP = 64
_ALL = 2**31  # more candidates than there are records
_POOL = 1_000  # nearest of each example, where not all records are measured
_MEASURED_AT_ONCE = 8_192
_CEILINGS: dict[Metric, float] = {"cosine": 1.0 + 1e-6, "l2": 0.0, "ip": np.inf}  # of scores by vector
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


@dataclass(frozen=True, slots=True)
class Likeness:
    """How like each of some examples records are. rows: (m,); similarities: (m, E)."""

    rows: Rows
    similarities: Scores

    def of(self, row: int) -> list[float] | None:
        found = np.flatnonzero(self.rows == row)
        return self.similarities[found[0]].tolist() if len(found) else None


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
        derived: Mapping[str, Derived],
        stored: StoredVectors,
    ) -> None:
        self._store = store
        self._tables = tables
        self._memory = memory
        self._definition = definition
        self._wish = wait_for
        self._text = definition.config.text
        self._unasked = self._text.unasked
        self._own_thesaurus: Thesaurus | None = None
        self._speller: Speller | None = None
        self._derived = derived
        self._stored = stored
        self._cold = ColdScan(store, tables, stored, definition.config.metric)

    # -- by vector ---------------------------------------------------------------------------------------------------------

    def by_vector(
        self,
        queries: Matrix,
        depth: int,
        where: Node | None,
        options: SearchOptions,
        *,
        without: Rows | None = None,
    ) -> Found:
        """The depth nearest records for each of (B, D) queries. without: rows that are passed over, here and below."""
        if options.field != VECTOR_FIELD:
            like = self._derived_like(options.field, queries, _ALL if options.weighs else depth, where, without)
            return replace(like, rankings=self._weigh(like.rankings, options, depth))
        if options.weighs:
            return self._weighed_vectors(queries, depth, where, options, without)
        if self._memory.newest().vectors is None and len(queries) <= _COLD_BATCH:
            found = self._vectors_from_file(queries, depth, where, without)
            if found is not None:
                return found
        return self._vectors_from_memory(queries, depth, where, options, without)

    def _vectors_from_file(self, queries: Matrix, depth: int, where: Node | None, without: Rows | None) -> Found | None:
        rows = self._rows(where, without)
        rankings = [self._cold.vectors(query, depth, rows) for query in queries]
        self._wish("vectors")
        if any(ranking is None for ranking in rankings):
            return None
        found = [ranking for ranking in rankings if ranking is not None]
        return Found(found, {"engine": "sqlite", "exact": True}, [1.0] * len(found))

    def _vectors_from_memory(
        self, queries: Matrix, depth: int, where: Node | None, options: SearchOptions, without: Rows | None
    ) -> Found:
        snapshot, allowed, live = self._allowed(where, "vectors", without=without)
        view = snapshot.vectors
        assert view is not None
        depth = min(depth, max(len(view), 1))
        nearest = view.search(
            queries,
            depth,
            allowed=allowed,
            live=live,
            exact=options.exact,
            every=options.is_exact,
            ef=options.ef,
            target_recall=options.target_recall,
            threads=1 if len(queries) == 1 else None,
        )
        rankings = []
        for slots, distances in zip(nearest.slots, nearest.distances):
            found = slots >= 0
            scores = scores_of(distances[found], self._definition.config.metric)
            rankings.append(Ranking("vector", snapshot.rows[slots[found]], scores))
        exact = options.is_exact or view.index is None or view.index.kind == "exact" or view.scan is not None
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

    def _weighed_vectors(
        self, queries: Matrix, depth: int, where: Node | None, options: SearchOptions, without: Rows | None
    ) -> Found:
        """The same by scores that nearness weighs."""
        snapshot, allowed, live = self._allowed(where, "vectors", "attributes", without=without)
        view, metric = snapshot.vectors, self._definition.config.metric
        assert view is not None
        assert snapshot.attributes is not None
        weights = weights_of(options.nearby, snapshot.attributes)
        if allowed is None:
            allowed = np.ones(len(snapshot.rows), np.bool_) if live is None else live
        work = [0]
        rankings = []
        for query in queries:

            def search(mask: Mask, count: int, query: Vector = query) -> tuple[Rows, Scores]:
                nearest = view.search(
                    query[None],
                    count,
                    allowed=mask,
                    live=live,
                    exact=options.exact,
                    every=options.is_exact,
                    ef=options.ef,
                    target_recall=options.target_recall,
                    threads=1,
                )
                work[0] += nearest.work
                found = nearest.slots[0] >= 0
                return nearest.slots[0][found], scores_of(nearest.distances[0][found], metric)

            slots, scores = best_weighed(search, weights, allowed, depth, _CEILINGS[metric])
            rankings.append(Ranking("vector", snapshot.rows[slots], scores))
        detail = {"engine": "exact", "exact": options.is_exact, "way": "by weight", "distances": work[0]}
        return Found(rankings, detail, [1.0] * len(queries) if options.is_exact else None)

    def nearness(self, row: int, near: Nearby) -> tuple[float, float]:
        """How far a record is, and what that weighs."""
        snapshot = self.columns()
        assert snapshot.attributes is not None
        slot, now = int(snapshot.slots_of(np.array([row]))[0]), time.time()
        if slot < 0:
            return np.inf, 0.0
        away = snapshot.attributes.distances(near.field, near.place.at(now))
        return float(away[slot]), float(near.weights(snapshot.attributes, now)[slot])

    def _weigh(self, rankings: Sequence[Ranking], options: SearchOptions, depth: int = _ALL) -> list[Ranking]:
        """The depth best of whole lists by scores that nearness weighs, as they are if it plays no part."""
        if not options.weighs:
            return [ranking.first(depth) for ranking in rankings]
        snapshot = self.columns()
        assert snapshot.attributes is not None
        weights = weights_of(options.nearby, snapshot.attributes)
        weighed = []
        for ranking in rankings:
            slots = snapshot.slots_of(ranking.rows)
            weighed.append(weighed_ranking(ranking, np.where(slots >= 0, weights[slots], 0.0), depth))
        return weighed

    def _derived_like(self, field: str, queries: Matrix, depth: int, where: Node | None, without: Rows | None) -> Found:
        """The same among the vectors of a derived field: all of them are looked at."""
        rows, vectors = self._derived[field].current()
        snapshot, allowed, live = self._allowed(where, without=without)
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

    # -- by vector, some records or by examples

    def by_vector_among(self, queries: Matrix, pools: Sequence[Rows], options: SearchOptions) -> Found:
        """Each of (B, D) queries against the records of its own pool: every one that has a vector is measured."""
        every = np.unique(np.concatenate(pools))
        known, vectors = self.vectors_among(every, options.field)
        rows = every[known]
        metric = self._definition.config.metric if options.field == VECTOR_FIELD else "cosine"
        rankings = []
        for query, pool in zip(queries, pools):
            mine = np.flatnonzero(np.isin(rows, pool))
            if not len(mine):
                rankings.append(Ranking.empty("vector"))
                continue
            found = exact_search(vectors[mine], query[None], len(mine), metric)
            scores = scores_of(found.distances[0], metric)
            rankings.append(Ranking("vector", rows[mine[found.positions[0]]], scores))
        detail = {"engine": "exact", "exact": True, "way": "prefetched"}
        return Found(self._weigh(rankings, options), detail, [1.0] * len(pools))

    def by_examples(
        self,
        examples: Examples,
        vectors: Matrix,
        depth: int,
        where: Node | None,
        options: SearchOptions,
        *,
        without: Rows | None = None,
    ) -> tuple[Found, Likeness]:
        """The depth best records by examples whose vectors are given (E, D), and how like them each is that was measured."""
        rows = self._with_vectors(where, options.field, without)
        detail: dict[str, Any] = {"engine": "exact", "way": "scan", "exact": True}
        recalls: list[float] | None = [1.0]
        if len(rows) > SCANNED and not options.is_exact:
            near = self.by_vector(vectors[examples.near], max(depth, _POOL), where, options, without=without)
            rows = np.unique(np.concatenate([ranking.rows for ranking in near.rankings]))
            detail = {**near.detail, "way": "pool", "exact": False}
            recalls = None
        ranking, likeness = self.like_examples(examples, vectors, rows, options)
        return Found([ranking.first(depth)], {**detail, "measured": len(rows)}, recalls), likeness

    def like_examples(
        self, examples: Examples, vectors: Matrix, rows: Rows, options: SearchOptions
    ) -> tuple[Ranking, Likeness]:
        """These records, those without a vector left out, by examples."""
        metric = self._definition.config.metric if options.field == VECTOR_FIELD else "cosine"
        kept, parts = [np.zeros(0, np.int64)], [np.zeros((0, len(vectors)))]
        for start in range(0, len(rows), _MEASURED_AT_ONCE):
            block = rows[start : start + _MEASURED_AT_ONCE]
            known, found = self.vectors_among(block, options.field)
            kept.append(block[known])
            parts.append(similarities(found, vectors, metric))
        likeness = Likeness(np.concatenate(kept), np.concatenate(parts))
        whole = ranked("vector", likeness.rows, examples.scores(likeness.similarities))
        return self._weigh([whole], options)[0], likeness

    def vectors_among(self, rows: Rows, field: str = VECTOR_FIELD) -> tuple[Rows, Matrix]:
        """Which of rows (m,), ascending, have a vector in this field: their places (p,), and the vectors (p, D)."""
        if field != VECTOR_FIELD:
            derived, vectors = self._derived[field].current()
            places = np.searchsorted(derived, rows)
            known = np.flatnonzero(places < len(derived))
            known = known[derived[places[known]] == rows[known]]
            return known, vectors[places[known]]
        if self._memory.newest().vectors is not None:
            snapshot = self._memory.current("vectors")
            assert snapshot.vectors is not None
            slots = snapshot.slots_of(rows)
            known = np.flatnonzero(snapshot.vectors.holds(slots) & (slots >= 0))
            return known, snapshot.vectors.vectors_at(slots[known])
        stored = self.vectors_of(rows.tolist())
        having = np.array([place for place, vector in enumerate(stored) if vector is not None], dtype=np.int64)
        matrix = [vector for vector in stored if vector is not None]
        width = self._definition.config.dimension or 0
        return having, np.stack(matrix) if matrix else np.zeros((0, width), np.float32)

    def _with_vectors(self, where: Node | None, field: str, without: Rows | None) -> Rows:
        """The rows, ascending, that the filter admits and that have a vector."""
        snapshot, allowed, live = self._allowed(where, "vectors", without=without)
        within = live if allowed is None else allowed
        if within is None:
            within = snapshot.live
        if field != VECTOR_FIELD:
            rows, _ = self._derived[field].current()
            slots = snapshot.slots_of(rows)
            return rows[(slots >= 0) & within[slots]]
        assert snapshot.vectors is not None
        slots = np.flatnonzero(within)
        return snapshot.rows[slots[snapshot.vectors.holds(slots)]]

    def field_of(self, field: str) -> tuple[int | None, Metric]:
        """How many numbers a vector of this field has (None: not settled yet), and how they are compared."""
        if field != VECTOR_FIELD:
            return self._derived[field].dimension(), "cosine"
        return self._definition.config.dimension, self._definition.config.metric

    def prepared(self, vectors: Matrix, field: str, name: Callable[[int], str]) -> Matrix:
        """Query vectors as those of a field are stored. Raises InvalidVector, DimensionMismatch."""
        dimension, metric = self.field_of(field)
        return prepared(vectors, dimension=dimension, metric=metric, collection=self._definition.name, name=name)

    # -- by words ----------------------------------------------------------------------------------------------------------

    def by_text(
        self,
        queries: Sequence[str],
        depth: int,
        where: Node | None,
        options: SearchOptions,
        pools: Sequence[Rows] | None = None,
        *,
        without: Rows | None = None,
    ) -> Found:
        """The depth best records by BM25 for each query. pools: instead of all, those among which each looks."""
        first = _ALL if options.weighs else depth
        if options.syntax == "query":
            readable = [with_columns(q.encode(errors="replace").decode(), self._tables.columns) for q in queries]
            asked = zip(readable, self._among(where, pools, without))
            rankings = [self._cold.words([(1.0, q)] if q.strip() else [], first, rows) for q, rows in asked]
            return Found(self._weigh(rankings, options, depth), {"engine": "fts5"})
        with self._store.read() as db:
            analyzer = Analyzer(db, self._text)
            thesaurus = self._thesaurus(options, analyzer)
            terms = [terms_of(query, analyzer, thesaurus, self._unasked) for query in queries]
        matches = [query.matches for query in terms]
        if self._memory.newest().words is not None or self._needs_memory(matches, options):
            return self._words_from_memory(terms, depth, where, options, pools, without)
        among = self._among(where, pools, without)
        rankings = [self._cold.words(match, first, rows) for match, rows in zip(matches, among)]
        self._wish("words")
        return Found(self._weigh(rankings, options, depth), {"engine": "fts5"}, terms=terms)

    def _needs_memory(self, matches: Sequence[Sequence[object]], options: SearchOptions) -> bool:
        """FTS5 has no vocabulary at hand to correct words by, counts expired records in its document frequencies, and is asked
        once for each different weight.
        """
        many = any(len(match) > _MOST_COLD_WEIGHTS for match in matches)
        return many or options.fuzzy or self._cold.has_expired(time.time())

    def _words_from_memory(
        self,
        queries: list[QueryTerms],
        depth: int,
        where: Node | None,
        options: SearchOptions,
        pools: Sequence[Rows] | None = None,
        without: Rows | None = None,
    ) -> Found:
        snapshot, allowed, live = self._allowed(where, "words", without=without)
        words = snapshot.words
        assert words is not None
        if options.fuzzy:
            speller = self._spelling(words)
            queries = [corrected(q, speller, partial(words.frequency, live=live)) for q in queries]
        within = live if allowed is None else allowed
        rankings = []
        for query, pool in zip(queries, repeat(None) if pools is None else pools):
            scores = words.scores(query.weights, live, k1=self._text.k1, b=self._text.b)
            if within is not None:
                scores[~within] = 0
            if pool is not None:
                slots = snapshot.slots_of(pool)
                slots = slots[slots >= 0]
                scores = _only(scores, slots)
            rankings.append(_best(scores, _ALL if options.weighs else depth, snapshot))
        return Found(self._weigh(rankings, options, depth), {"engine": "memory"}, terms=queries)

    def forecast_text(self, query: str, options: SearchOptions) -> TextForecast:
        """What by_text would do for a plain query. Nothing is loaded for it: corrections show only where words are in memory."""
        loaded = self._memory.newest().words is not None
        with self._store.read() as db:
            analyzer = Analyzer(db, self._text)
            terms = terms_of(query, analyzer, self._thesaurus(options, analyzer), self._unasked)
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
                terms = corrected(terms, self._spelling(words), partial(words.frequency, live=live))
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
            return Marks(
                frozenset(terms_of(query, analyzer, self._thesaurus(options, analyzer), self._unasked).weights)
            )

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

    def _spelling(self, words: Postings) -> Speller:
        """The speller of a vocabulary, which snapshots share until words are read anew."""
        speller = self._speller
        if speller is None or speller.vocabulary is not words.vocabulary:
            speller = self._speller = Speller(words.vocabulary)
        return speller

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

    def with_columns(self, where: Node | None) -> tuple[Snapshot, Mask | None, Mask | None]:
        """The same with vectors and typed columns."""
        return self._allowed(where, "attributes", "vectors")

    def columns(self) -> Snapshot:
        """The newest state with its typed columns."""
        return self._memory.current("attributes")

    def _among(self, where: Node | None, pools: Sequence[Rows] | None, without: Rows | None) -> Iterable[Rows | None]:
        """For each query the rows to look at; None for all."""
        return repeat(self._rows(where, without)) if pools is None else pools

    def _rows(self, where: Node | None, without: Rows | None = None) -> Rows | None:
        """The rows that a filter admits; None without one."""
        if where is None and without is None:
            return None
        snapshot, allowed, _ = self._allowed(where, without=without)
        return snapshot.rows[allowed]

    def _allowed(
        self, where: Node | None, *parts: Part, without: Rows | None = None
    ) -> tuple[Snapshot, Mask | None, Mask | None]:
        """A snapshot with parts; the slots that the filter admits (None without a filter); the slots that are visible at all."""
        if without is not None:
            snapshot, allowed, live = self._allowed(where, *parts)
            if allowed is None:
                allowed = np.ones(len(snapshot.rows), np.bool_) if live is None else live
            allowed = allowed.copy()
            slots = snapshot.slots_of(without)
            allowed[slots[slots >= 0]] = False
            return snapshot, allowed, live
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
        with self._store.snapshot() as db:
            found = self._stored.vectors_of(db, rows)
        return [found.get(row) for row in rows]

    def tokens_of(self, rows: Sequence[int]) -> list[Tokens | None]:
        """The stored token vectors of each of these rows; None for a record that has none."""
        config = self._definition.config.tokens
        if config is None or config.dimension is None:
            return [None] * len(rows)
        with self._store.read() as db:
            blobs = self._tables.tokens_of(db, rows)
        return [
            from_bytes(blob, config.dimension, config.codec) if (blob := blobs.get(row)) is not None else None
            for row in rows
        ]

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


def similarities(vectors: Matrix, examples: Matrix, metric: Metric) -> Scores:
    """(m, E): the scores by vector of vectors (m, D) against each example (E, D), as `scores_of` has them, in float64."""
    wide, others = vectors.astype(np.float64), examples.astype(np.float64)
    products: Scores = wide @ others.T
    if metric != "l2":
        return products
    squares = np.einsum("md,md->m", wide, wide)[:, None] + np.einsum("ed,ed->e", others, others)
    distances: Scores = np.sqrt(np.maximum(squares - 2 * products, 0.0))
    return -distances


def _only(scores: Vector, slots: Rows) -> Vector:
    """The scores of these slots, 0 elsewhere."""
    kept = np.zeros_like(scores)
    kept[slots] = scores[slots]
    return kept


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
