"""A query's way: first-stage lists, fusion, a second look, selection, hits.

Each stage takes a Ranking and gives one. What a stage did to a record is read off the lists afterwards, for the few records that
come back, so tracing costs nothing on the way.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from vecdb.definition import Definition
from vecdb.errors import InvalidQuery
from vecdb.filters import Node
from vecdb.metadata import decode
from vecdb.query.fusion import Share, fuse, fusion_of
from vecdb.query.ranking import Ranking
from vecdb.query.request import Query, SearchOptions, cursor_to
from vecdb.query.retrieval import Retrieval
from vecdb.query.selection import diversified, grouped
from vecdb.rerank.base import Candidate
from vecdb.storage import Store
from vecdb.tables import StoredRecord, Tables
from vecdb.types import Hit, Hits, StageReport, TraceStep
from vecdb.vectors import Matrix, prepared

_log = logging.getLogger("vecdb")

# The last attempt keeps this process from writing; other processes pause longer between two commits than a query takes.
_ATTEMPTS = 3


@dataclass(slots=True)
class Course:
    """How one query went: the list after each stage, in order, and what each stage reported."""

    query: Query
    lists: list[Ranking] = field(default_factory=list)  # first-stage ones
    shares: dict[str, Share] = field(default_factory=dict)  # what each first-stage list added in the fusion
    stages: list[Ranking] = field(default_factory=list)  # after the first stage, in order
    reports: list[StageReport] = field(default_factory=list)
    records: dict[int, StoredRecord] = field(default_factory=dict)
    recall: float | None = 1.0  # likely share of the true neighbours in the first stage; None: nobody can say
    missed: bool = False  # a candidate was deleted, or got a new row, before its record was read

    @property
    def last(self) -> Ranking:
        return self.stages[-1] if self.stages else self.lists[0]

    def report(self, stage: str, candidates: int, since: float, detail: Mapping[str, Any] | None = None) -> None:
        self.reports.append(StageReport(stage, candidates, (time.perf_counter() - since) * 1e3, detail or {}))


class Engine:
    """Runs searches on one collection."""

    def __init__(self, store: Store, tables: Tables, definition: Definition, retrieval: Retrieval) -> None:
        self._store = store
        self._tables = tables
        self._definition = definition
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
            self._later_stages(course, options)
        return courses

    def stages_of(self, query: Query, options: SearchOptions) -> tuple[str, ...]:
        """Which first-stage lists a query gets. Raises InvalidQuery if it lacks what its mode needs."""
        embeddable = query.vector is not None or (query.text is not None and self._definition.embeds)
        if options.mode == "auto":
            return tuple(s for s, on in (("vector", embeddable), ("text", query.text is not None)) if on)
        if options.mode in ("text", "hybrid") and query.text is None:
            raise InvalidQuery(f"mode={options.mode!r} searches words, but the query is a vector; give text as well")
        if options.mode in ("vector", "hybrid") and not embeddable:
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
        for course, ranking in zip(courses, found.rankings):
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
        texts = [course.query.text or "" for course in courses]
        for course, evidence in zip(courses, self.retrieval.evidence(texts, options, stems=fusion.needs_stems)):
            since = time.perf_counter()
            fused = fuse(course.lists, fusion, evidence)
            course.shares = {ranking.name: share for ranking, share in zip(course.lists, fused.shares)}
            course.stages.append(fused.ranking)
            detail = {"kind": type(fusion).__name__.lower(), **fused.detail}
            course.report("fusion", len(fused.ranking), since, detail)

    def _later_stages(self, course: Course, options: SearchOptions) -> None:
        if options.rerank is not None:
            self._rerank(course, options)
        if options.diversity is not None:
            self._diversify(course, options)
        if options.group_by is not None:
            self._group(course, options)
        if options.min_score is not None:
            since = time.perf_counter()
            good = np.flatnonzero(course.last.scores >= options.min_score)
            course.stages.append(course.last.taken(good, "min_score"))
            course.report("min_score", len(good), since, {"min_score": options.min_score})

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

    def _diversify(self, course: Course, options: SearchOptions) -> None:
        since = time.perf_counter()
        assert options.diversity is not None
        pool = course.last.first(options.depth(1))
        stored = self.retrieval.vectors_of(pool.rows.tolist())
        nothing = np.zeros(self._definition.config.dimension or 1, dtype=np.float32)  # unlike everything
        vectors = (
            np.stack([nothing if vector is None else vector for vector in stored]) if stored else nothing[None][:0]
        )
        count = len(pool) if options.group_by is not None else options.wanted
        places, _ = diversified(pool.scores, vectors, options.diversity, count)
        course.stages.append(pool.taken(places, "diversity"))
        course.report("diversity", len(places), since, {"diversity": options.diversity})

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
        )

    def _hit_list(self, course: Course, rows: list[int], options: SearchOptions) -> Iterator[Hit]:
        lists = [
            (r, {row: place for place, row in enumerate(r.rows.tolist())}) for r in (*course.lists, *course.stages)
        ]
        vectors = self.retrieval.vectors_of(rows) if options.vectors and rows else None
        for i, row in enumerate(rows):
            record = course.records[row]
            steps = tuple(_steps(lists, course.shares, row))
            yield Hit(
                id=record.id,
                rank=options.offset + i + 1,
                score=steps[-1].score or 0.0,
                text=record.text,
                metadata=decode(record.metadata),
                parent=record.parent,
                seq=record.seq,
                vector=None if vectors is None else vectors[i],
                trace=steps,
            )


def _steps(
    lists: Sequence[tuple[Ranking, dict[int, int]]], shares: Mapping[str, Share], row: int
) -> Iterator[TraceStep]:
    """A record's rank and score in each list that has it, and what those that were fused added."""
    for ranking, places in lists:
        place = places.get(row)
        if place is None:
            continue
        rank, score = place + 1, float(ranking.scores[place])
        share = shares.get(ranking.name)
        if share is None:
            yield TraceStep(ranking.name, rank, score)
        else:
            yield TraceStep(ranking.name, rank, score, share.weight, float(share.scores[place]))


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
