"""A query's way: first-stage lists, fusion, a second look, selection, hits.

Each stage takes a Ranking and gives one. What a stage did to a record is read off the lists afterwards, for the few records that
come back, so tracing costs nothing on the way.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial
from itertools import repeat
from typing import Any

import numpy as np

from vecdb.definition import Definition
from vecdb.embedding.base import DEFAULT_MODEL
from vecdb.errors import InvalidQuery
from vecdb.filters import Node
from vecdb.metadata import decode
from vecdb.query.fusion import Adaptive, Share, fuse, fusion_of
from vecdb.query.graph import GraphStage
from vecdb.query.graph_options import GraphOptions
from vecdb.query.ranking import Ranking
from vecdb.query.request import VECTOR_FIELD, Query, SearchOptions, cursor_to
from vecdb.query.retrieval import Retrieval
from vecdb.query.selection import Covered, Pool, Selection, name_of
from vecdb.query.selection.grouping import grouped
from vecdb.query.terms import Marks, QueryTerms
from vecdb.relevance import LOOKED_AT, no_answer
from vecdb.rerank.base import Candidate
from vecdb.storage import Store
from vecdb.tables import StoredRecord, Tables
from vecdb.types import Hit, Hits, StageReport, TraceStep
from vecdb.vectors import Matrix, prepared

_log = logging.getLogger("vecdb")

# The last attempt keeps this process from writing; other processes pause longer between two commits than a query takes.
_ATTEMPTS = 3
_MOST_SHOWN = 10  # records that a trace lists as covered by a hit


@dataclass(frozen=True, slots=True)
class Chosen:
    """What a selection chose from which rows. covered: what those of the page and before it stand for."""

    pool: Ranking
    selection: Selection
    covered: Covered | None

    def shown(self, row: int) -> dict[str, Any]:
        """What the trace tells of a chosen row; "covers" are rows."""
        places = self.selection.places
        turn = next((turn for turn, place in enumerate(places) if self.pool.rows[place] == row), None)
        if turn is None:
            return {}
        gain = self.selection.gains[turn]
        told: dict[str, Any] = {"gain": gain if np.isfinite(gain) else None}
        if self.covered is not None and turn < len(self.covered.scores):
            cell = self.pool.rows[self.covered.cells[turn][:_MOST_SHOWN]].tolist()
            told |= {"coverage": self.covered.scores[turn], "share": self.covered.shares[turn], "covers": cell}
        return told


Explain = Callable[[Sequence[int]], Mapping[int, Mapping[str, Any]]]


@dataclass(slots=True)
class Course:
    """How one query went: the list after each stage, in order, and what each stage reported."""

    query: Query
    lists: list[Ranking] = field(default_factory=list)  # first-stage ones
    shares: dict[str, Share] = field(default_factory=dict)  # what each first-stage list added in the fusion
    stages: list[Ranking] = field(default_factory=list)  # after the first stage, in order
    reports: list[StageReport] = field(default_factory=list)
    records: dict[int, StoredRecord] = field(default_factory=dict)
    chosen: Chosen | None = None  # by the selection
    explain: dict[str, Explain] = field(default_factory=dict)  # what more is known of rows in the list of a stage
    recall: float | None = 1.0  # likely share of the true neighbours in the first stage; None: nobody can say
    terms: QueryTerms | None = None  # what the word list was searched for
    missed: bool = False  # a candidate was deleted, or got a new row, before its record was read

    @property
    def last(self) -> Ranking:
        return self.stages[-1] if self.stages else self.lists[0]

    def report(self, stage: str, candidates: int, since: float, detail: Mapping[str, Any] | None = None) -> None:
        self.reports.append(StageReport(stage, candidates, (time.perf_counter() - since) * 1e3, detail or {}))


class Engine:
    """Runs searches on one collection."""

    def __init__(
        self, store: Store, tables: Tables, definition: Definition, retrieval: Retrieval, graph: GraphStage
    ) -> None:
        self._store = store
        self._tables = tables
        self._definition = definition
        self._graph = graph
        self.retrieval = retrieval

    def run(self, queries: Sequence[Query], options: SearchOptions) -> list[Hits]:
        """The hits of each query. One that lost candidates to a write meanwhile is asked again: it could lack a record
        that was there all the time, under its old row and then its new one, or come back short.
        """
        answers = []
        for attempt in range(_ATTEMPTS):
            with self._store.without_writes() if attempt == _ATTEMPTS - 1 else nullcontext():
                courses = self.courses(queries, options)
                answers = [self._hits(course, options) for course in courses]
            if not any(course.missed for course in courses):
                break
        return answers

    def courses(self, queries: Sequence[Query], options: SearchOptions) -> list[Course]:
        """Each query taken through all stages, up to but not including the cut to one page."""
        where = options.condition
        stages = self.stages_of(queries[0], options)
        courses = [Course(query) for query in queries]
        depth = options.depth(len(stages))
        if "vector" in stages:
            self._by_vector(courses, depth, where, options)
        if "text" in stages:
            self._by_text(courses, depth, where, options)
        if len(stages) > 1:
            self._fuse(courses, options)
        for course in courses:
            if options.overlay is not None:
                self._follow_links(course, options.overlay, where)
            self._later_stages(course, options)
        return courses

    def stages_of(self, query: Query, options: SearchOptions) -> tuple[str, ...]:
        """Which first-stage lists a query gets. Raises InvalidQuery if it lacks what its mode needs."""
        embeds = self._definition.embeds and options.field == VECTOR_FIELD
        embeddable = query.vector is not None or (query.text is not None and embeds)
        if options.mode == "auto":
            return tuple(s for s, on in (("vector", embeddable), ("text", query.text is not None)) if on)
        if options.mode in ("text", "hybrid") and query.text is None:
            raise InvalidQuery(f"mode={options.mode!r} searches words, but the query is a vector; give text as well")
        if options.mode in ("vector", "hybrid") and not embeddable:
            if options.field != VECTOR_FIELD:
                raise InvalidQuery(f"no text can be turned into a vector of field {options.field!r}; give a vector")
            self._definition.embedder()  # says why there is none
        return {"vector": ("vector",), "text": ("text",), "hybrid": ("vector", "text")}[options.mode]

    # -- stages ------------------------------------------------------------------------------------------------------------

    def _by_vector(self, courses: list[Course], depth: int, where: Node | None, options: SearchOptions) -> None:
        since = time.perf_counter()
        matrix = self.query_vectors([course.query for course in courses])
        found = self.retrieval.by_vector(matrix, depth, where, options)
        recalls: Sequence[float | None] = found.recalls or [None] * len(courses)
        for course, vector, ranking, recall in zip(courses, matrix, found.rankings, recalls):
            course.recall = recall
            course.query = Query(course.query.text, vector)
            course.lists.append(ranking)
            course.report("vector", len(ranking), since, found.detail)

    def _by_text(self, courses: list[Course], depth: int, where: Node | None, options: SearchOptions) -> None:
        since = time.perf_counter()
        found = self.retrieval.by_text([course.query.text or "" for course in courses], depth, where, options)
        for course, ranking, terms in zip(courses, found.rankings, found.terms or repeat(None)):
            course.terms = terms
            course.lists.append(ranking)
            course.report("text", len(ranking), since, found.detail)

    def query_vectors(self, queries: Sequence[Query]) -> Matrix:
        """(B, D): the given vectors, and the texts of those that gave none, embedded together."""
        texts = [query.text or "" for query in queries if query.vector is None]
        embedded = iter(self._prepared(self._definition.embedder().embed_queries(texts)) if texts else ())
        return np.stack([query.vector if query.vector is not None else next(embedded) for query in queries])

    def _prepared(self, vectors: Matrix) -> Matrix:
        config = self._definition.config
        return prepared(
            np.ascontiguousarray(vectors, dtype=np.float32),
            dimension=config.dimension,
            metric=config.metric,
            collection=self._definition.name,
            name="the vector of query {}".format,
        )

    def _fuse(self, courses: list[Course], options: SearchOptions) -> None:
        fusion = fusion_of(options.fusion)
        if fusion == Adaptive():
            fusion = self.fitted_fusion() or fusion
        texts = [course.query.text or "" for course in courses]
        for course, evidence in zip(courses, self.retrieval.evidence(texts, options, stems=fusion.needs_stems)):
            since = time.perf_counter()
            fused = fuse(course.lists, fusion, evidence)
            course.shares = {ranking.name: share for ranking, share in zip(course.lists, fused.shares)}
            course.stages.append(fused.ranking)
            detail = {"kind": type(fusion).__name__.lower(), **fused.detail}
            course.report("fusion", len(fused.ranking), since, detail)

    def fitted_fusion(self) -> Adaptive | None:
        """What was fitted for this collection, by whatever process; None if nothing was."""
        from vecdb.query.fusion import fitting

        with self._store.read() as db:
            return fitting.from_json(self._definition.kept.get(db, "fusion"))

    def _follow_links(self, course: Course, options: GraphOptions, where: Node | None) -> None:
        since = time.perf_counter()
        ranking, detail, explain = self._graph.ranked(course.last, options, where)
        course.stages.append(ranking)
        course.explain[ranking.name] = explain
        course.report(ranking.name, len(ranking), since, detail)

    def _later_stages(self, course: Course, options: SearchOptions) -> None:
        if options.rerank is not None:
            self._rerank(course, options)
        if options.min_score is not None:
            since = time.perf_counter()
            good = np.flatnonzero(course.last.scores >= options.min_score)
            course.stages.append(course.last.taken(good, "min_score"))
            course.report("min_score", len(good), since, {"min_score": options.min_score})
        if options.selector is not None:
            self._select(course, options)
        if options.group_by is not None:
            self._group(course, options)

    def _rerank(self, course: Course, options: SearchOptions) -> None:
        """A second look at the best candidates. A reranker that fails leaves the order as it was, and says so in the trace."""
        since = time.perf_counter()
        assert options.rerank is not None
        pool = course.last.first(options.depth(1))
        self._load(course, pool.rows.tolist())
        pool = pool.taken([place for place, row in enumerate(pool.rows.tolist()) if row in course.records])
        records = [course.records[row] for row in pool.rows.tolist()]
        candidates = [Candidate(r.id, r.text, float(s), decode(r.metadata)) for r, s in zip(records, pool.scores)]
        try:
            order = list(options.rerank.rerank(course.query.text or "", candidates, options.wanted))
            places = np.array([r.position for r in order], dtype=np.int64)
            if len(np.unique(places)) != len(places) or (
                len(places) and not 0 <= places.min() <= places.max() < len(pool)
            ):
                raise InvalidQuery("the reranker gave a position twice, or one that is no candidate's")
        except Exception as error:  # whatever a model does: the first stage's answer is still an answer
            _log.warning("the reranker failed, keeping the first stage's order: %s", error)
            course.report("rerank", len(pool), since, {"failed": f"{type(error).__name__}: {error}"})
            return
        scores = np.array([r.score for r in order], dtype=np.float64)
        course.stages.append(Ranking("rerank", pool.rows[places], scores))
        course.report("rerank", len(order), since, {"looked_at": len(pool)})

    def _select(self, course: Course, options: SearchOptions) -> None:
        """Candidates chosen as a set; they keep their scores, so what comes back is ordered by choice."""
        since = time.perf_counter()
        selector = options.selector
        assert selector is not None
        ranking = course.last.first(max(selector.pool, options.wanted))
        pool = Pool.of(ranking.scores, self.retrieval.vectors_of(ranking.rows.tolist()))
        selection = selector.choose(pool, len(pool) if options.group_by is not None else options.wanted)
        ends = min(options.offset + options.k, len(selection.places))
        covered = selection.covered(ends) if selection.covered is not None and ends else None
        course.chosen = Chosen(ranking, selection, covered)
        course.explain["select"] = partial(self._told, course.chosen)
        course.stages.append(ranking.taken(selection.places, "select"))
        detail: dict[str, Any] = {"kind": name_of(selector), "pool": len(pool)}
        if covered is not None:
            detail["coverage"] = covered.scores[-1]
        course.report("select", len(selection.places), since, detail)

    def _group(self, course: Course, options: SearchOptions) -> None:
        since = time.perf_counter()
        assert options.group_by is not None
        rows = course.last.rows.tolist()
        self._load(course, rows)
        groups = [group_of(course.records.get(row), options.group_by) for row in rows]
        places = grouped(groups, options.per_group)
        course.stages.append(course.last.taken(places, "group"))
        course.report("group", len(places), since, {"by": options.group_by, "per_group": options.per_group})

    # -- hits --------------------------------------------------------------------------------------------------------------

    def _load(self, course: Course, rows: list[int]) -> None:
        """Read these candidates' records, but for those that were deleted while the query ran."""
        missing = [row for row in rows if row not in course.records]
        if missing:
            with self._store.read() as db:
                course.records.update(self._tables.by_rows(db, missing))
            course.missed |= any(row not in course.records for row in missing)

    def _hits(self, course: Course, options: SearchOptions) -> Hits:
        """The page asked for. If a record was deleted while the query ran, the next one takes its place."""
        ranking = course.last
        rows: list[int] = []
        place = options.offset
        while place < len(ranking) and len(rows) < options.k:
            upcoming = ranking.rows[place : place + options.k - len(rows)].tolist()
            self._load(course, upcoming)
            rows += [row for row in upcoming if row in course.records]
            place += len(upcoming)
        return Hits(
            hits=tuple(self._hit_list(course, rows, options)),
            cursor=cursor_to(place, course.query, options) if place < len(ranking) else None,
            estimated_recall=course.recall,
            trace=tuple(course.reports),
            no_answer=self._no_answer(course, options),
        )

    def _no_answer(self, course: Course, options: SearchOptions) -> float | None:
        """Of the question, not of the page: it looks at the best candidates."""
        vector = next((ranking for ranking in course.lists if ranking.name == "vector"), None)
        config = self._definition.config
        is_known = options.field == VECTOR_FIELD and (config.model, config.metric) == (DEFAULT_MODEL, "cosine")
        if course.query.text is None or (vector is not None and not is_known):
            return None
        cosine = None if vector is None else float(vector.scores[:1].max(initial=0.0))
        first = course.last.rows[:LOOKED_AT].tolist()
        self._load(course, first)
        return no_answer(
            course.query.text, [course.records[row].text for row in first if row in course.records], cosine
        )

    def _told(self, chosen: Chosen, rows: list[int]) -> dict[int, dict[str, Any]]:
        """What the selection tells of each of these rows, with ids for the records that it covers."""
        details = {row: chosen.shown(row) for row in rows}
        covered = [row for detail in details.values() for row in detail.get("covers", ())]
        if covered:
            with self._store.read() as db:
                ids = self._tables.ids(db, covered)
            for detail in details.values():
                detail["covers"] = [ids[row] for row in detail.get("covers", ()) if row in ids]
        return details

    def _hit_list(self, course: Course, rows: list[int], options: SearchOptions) -> Iterator[Hit]:
        lists = [
            (r, {row: place for place, row in enumerate(r.rows.tolist())}) for r in (*course.lists, *course.stages)
        ]
        vectors = self.retrieval.vectors_of(rows) if options.vectors and rows else None
        details = {name: explain(rows) for name, explain in course.explain.items()}
        snippets = self._snippets(course, rows, options)
        for i, row in enumerate(rows):
            record = course.records[row]
            steps = tuple(_steps(lists, course.shares, details, row))
            yield Hit(
                id=record.id,
                rank=options.offset + i + 1,
                score=steps[-1].score or 0.0,
                text=record.text,
                metadata=decode(record.metadata),
                parent=record.parent,
                seq=record.seq,
                vector=None if vectors is None else vectors[i],
                snippet=None if snippets is None else snippets[i],
                trace=steps,
            )

    def _snippets(self, course: Course, rows: list[int], options: SearchOptions) -> list[str | None] | None:
        wanted = options.snippet_options
        if wanted is None or not rows:
            return None
        if course.terms is not None:
            marks = Marks(frozenset(course.terms.weights))
        else:
            marks = self.retrieval.marks(course.query.text, options)
        return self.retrieval.snippets([course.records[row].text for row in rows], marks, wanted)


def _steps(
    lists: Sequence[tuple[Ranking, dict[int, int]]],
    shares: Mapping[str, Share],
    details: Mapping[str, Mapping[int, Mapping[str, Any]]],
    row: int,
) -> Iterator[TraceStep]:
    """A record's rank and score in each list that has it, and what those that were fused added."""
    for ranking, places in lists:
        place = places.get(row)
        if place is None:
            continue
        rank, score = place + 1, float(ranking.scores[place])
        share = shares.get(ranking.name)
        weight, added = (None, None) if share is None else (share.weight, float(share.scores[place]))
        yield TraceStep(ranking.name, rank, score, weight, added, details.get(ranking.name, {}).get(row, {}))


def group_of(record: StoredRecord | None, key: str) -> str | None:
    """What a record is grouped by: its parent, or the value of a metadata key (dots go into nested ones)."""
    if record is None:
        return None
    if key == "parent":
        return record.parent
    value: Any = decode(record.metadata)
    for part in key.split("."):
        if not isinstance(value, Mapping) or part not in value:
            return None
        value = value[part]
    return f"{type(value).__name__}:{value}"
