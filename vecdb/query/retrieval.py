"""First-stage lists: by vector and by words, from memory where it is loaded, else from SQLite itself."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, cast

import apsw
import numpy as np

from vecdb.definition import Definition
from vecdb.filters import Node
from vecdb.index.base import Mask
from vecdb.memory import Memory, Part, Snapshot
from vecdb.query.cold import ColdScan
from vecdb.query.fusion import Evidence
from vecdb.query.ranking import Ranking, Scores, ranked
from vecdb.query.request import SearchOptions
from vecdb.storage import Store
from vecdb.tables import Tables
from vecdb.types import Metric, Vector
from vecdb.vectors import Matrix, from_blobs

# A batch larger than this is worth loading the arrays for, instead of scanning the file once a query.
_COLD_BATCH = 4
_GROUP = 64
_LEAST_SCORE = float(np.finfo(np.float32).tiny)


@dataclass(slots=True)
class Found:
    """One list for each query of a batch, and what the stage decided, for the trace. recalls: what share of the true
    neighbours each list is likely to have; None where nobody can say.
    """

    rankings: list[Ranking]
    detail: dict[str, Any] = field(default_factory=dict)
    recalls: list[float] | None = None


class Retrieval:
    """The two first stages of one collection. wait_for: called with a part of memory that would have been faster to have."""

    def __init__(
        self,
        store: Store,
        tables: Tables,
        memory: Memory,
        definition: Definition,
        wait_for: Callable[[Part], None],
    ) -> None:
        self._store = store
        self._tables = tables
        self._memory = memory
        self._definition = definition
        self._wish = wait_for
        self._cold = ColdScan(store, tables, definition.config.metric)

    # -- by vector ---------------------------------------------------------------------------------------------------------

    def by_vector(self, queries: Matrix, depth: int, where: Node | None, options: SearchOptions) -> Found:
        """The depth nearest records for each of (B, D) queries."""
        if self._memory.newest().vectors is None and len(queries) <= _COLD_BATCH:
            found = self._vectors_from_file(queries, depth, where)
            if found is not None:
                return found
        return self._vectors_from_memory(queries, depth, where, options)

    def _vectors_from_file(self, queries: Matrix, depth: int, where: Node | None) -> Found | None:
        rows = None
        if where is not None:
            snapshot, allowed, _ = self._allowed(where)
            rows = snapshot.rows[allowed]
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
        exact = options.exact or view.index is None or view.index.kind == "exact"
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

    # -- by words ----------------------------------------------------------------------------------------------------------

    def by_text(self, queries: Sequence[str], depth: int, where: Node | None, options: SearchOptions) -> Found:
        """The depth best records by BM25 for each query."""
        if options.syntax == "query" or self._memory.newest().words is None:
            return self._words_from_file(queries, depth, where, options)
        snapshot, allowed, live = self._allowed(where, "words")
        words = snapshot.words
        assert words is not None
        with self._store.read() as db:
            tokenize = self._memory.tokenizer(db, query=True)
            terms = [tokenize(query) for query in queries]
        frequencies_of = None if snapshot.all_live else snapshot.live
        rankings = []
        for query_terms in terms:
            scores = words.scores(query_terms, frequencies_of)
            within = live if allowed is None else allowed
            if within is not None:
                scores[~within] = 0
            rankings.append(_best(scores, depth, snapshot))
        return Found(rankings, {"engine": "memory"})

    def _words_from_file(self, queries: Sequence[str], depth: int, where: Node | None, options: SearchOptions) -> Found:
        rows = None
        if where is not None:
            snapshot, allowed, _ = self._allowed(where)
            rows = snapshot.rows[allowed]
        rankings = []
        for query in queries:
            match = query if options.syntax == "query" else self.match_of(query)
            rankings.append(self._cold.words(match, depth, rows) if match.strip() else Ranking.empty("text"))
        if options.syntax == "plain":
            self._wish("words")
        return Found(rankings, {"engine": "fts5"})

    def match_of(self, text: str) -> str:
        """Any text as an FTS5 query for any of its words. Nothing in it can be taken for syntax."""
        with self._store.read() as db:
            return " OR ".join(_quoted(word) for word in dict.fromkeys(self._words_of(db, text)))

    def _words_of(self, db: apsw.Connection, text: str) -> list[str]:
        """The words of a text as FTS5 cuts them, before it stems them."""
        name, *arguments = [part for part in self._definition.config.text.tokenizer if part != "porter"]
        tokenize = db.fts5_tokenizer(name, arguments)
        found = tokenize(text.encode(), apsw.FTS5_TOKENIZE_QUERY, None, include_offsets=False, include_colocated=False)
        return cast(list[str], found)

    def evidence(self, queries: Sequence[str], options: SearchOptions, *, stems: bool = True) -> list[Evidence]:
        """What a fusion may know of each query. stems: also how rare its words are, which a query in FTS5's syntax has not."""
        bare = [
            Evidence(k=options.offset + options.k, words=len(q.split()), metric=self._definition.config.metric)
            for q in queries
        ]
        if not stems or options.syntax == "query":
            return bare
        if self._memory.newest().words is None:
            return [self._rarities_from_file(query, known) for query, known in zip(queries, bare)]
        snapshot = self._memory.current("words")
        words = snapshot.words
        assert words is not None
        live = None if snapshot.all_live else snapshot.live
        documents = words.documents(live)
        with self._store.read() as db:
            tokenize = self._memory.tokenizer(db, query=True)
            found = [tuple(dict.fromkeys(tokenize(query))) for query in queries]
        return [
            replace(known, stems=s, frequencies=tuple(words.frequency(stem, live) for stem in s), documents=documents)
            for known, s in zip(bare, found)
        ]

    def _rarities_from_file(self, query: str, known: Evidence) -> Evidence:
        """The stems of a query, counted by FTS5."""
        frequencies: dict[str, int] = {}
        with self._store.read() as db:
            tokenize = self._memory.tokenizer(db, query=True)
            for word in self._words_of(db, query):
                for stem in tokenize(word):  # one, but for a tokenizer that cuts a word of its own making once more
                    if stem not in frequencies:
                        frequencies[stem] = self._tables.count_texts(db, _quoted(word))
            documents = self._tables.count_texts(db)
        return replace(known, stems=tuple(frequencies), frequencies=tuple(frequencies.values()), documents=documents)

    # -- shared ------------------------------------------------------------------------------------------------------------

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
            blobs = [self._tables.vector(db, row) for row in rows]
        return [None if blob is None else from_blobs([blob], len(blob) // 4)[0] for blob in blobs]

    def matches(self, row: int, where: Node) -> bool:
        """Whether a record satisfies a filter."""
        snapshot = self._memory.current("attributes")
        assert snapshot.attributes is not None
        slot = int(snapshot.slots_of(np.array([row]))[0])
        return slot >= 0 and bool(snapshot.attributes.mask(where)[slot])


def _quoted(word: str) -> str:
    """As a string of FTS5's query syntax."""
    return '"{}"'.format(word.replace('"', '""'))


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
