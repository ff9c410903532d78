"""A query's way: first-stage lists, fusion, a second look, selection, hits.

Each stage takes a Ranking and gives one. What a stage did to a record is read off the lists afterwards, for the few records that
come back, so tracing costs nothing on the way.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from functools import partial
from itertools import repeat
from typing import Any

import numpy as np

from vecdb.adaptation.kept import KeptMap
from vecdb.definition import Definition
from vecdb.embedding.base import DEFAULT_MODEL
from vecdb.errors import InvalidInput, InvalidQuery
from vecdb.filters import Node
from vecdb.metadata import decode
from vecdb.query.boosting import Booster
from vecdb.query.distinct import Crowds, spread
from vecdb.query.fusion import Adaptive, Share, fuse
from vecdb.query.graph import GraphStage
from vecdb.query.graph_options import GraphOptions
from vecdb.query.near import both
from vecdb.query.ranking import Ranking, Rows
from vecdb.query.request import VECTOR_FIELD, Query, SearchOptions, SearchPlan, cursor_to
from vecdb.query.retrieval import Retrieval
from vecdb.query.second_look import SecondLook
from vecdb.query.selection import Covered, Pool, Selection, name_of
from vecdb.query.selection.grouping import first_of_each, roomy
from vecdb.query.shown import Shown
from vecdb.query.terms import Marks, QueryTerms
from vecdb.relevance import LOOKED_AT, no_answer
from vecdb.storage import Store
from vecdb.tables import StoredRecord, Tables
from vecdb.types import Hit, Hits, StageReport, TraceStep
from vecdb.vectors import Matrix, as_matrix

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
    where: Node | None = None  # the filter that holds, with those of the searches around this one
    shown: Shown | None = None  # the examples, which are no hits
    prefetched: list[tuple[Ranking, Course]] = field(default_factory=list)  # what each prefetch gave, and how it went
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

    @property
    def passed(self) -> list[Ranking]:
        """All of its lists, in order."""
        before = [ranking for ranking, _ in self.prefetched]
        names = {ranking.name for ranking in before}
        return [*before, *(ranking for ranking in self.lists if ranking.name not in names), *self.stages]

    @property
    def pool(self) -> Rows:
        """The rows, ascending, that any prefetch gave."""
        return np.unique(np.concatenate([ranking.rows for ranking, _ in self.prefetched]))

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
        self.adapter = KeptMap(store, definition)
        self._graph = graph
        self.retrieval = retrieval
        self._second_look = SecondLook(self._load, self.roomy, definition, retrieval)

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

    def courses(self, queries: Sequence[Query], options: SearchOptions, around: Node | None = None) -> list[Course]:
        """Each query taken through all stages, up to but not including the cut to one page. around: a filter that holds besides
        the options' own.
        """
        where = both(around, options.admitted)
        shown = self.shown(options)
        courses = [Course(query if shown is None else shown.asked(query), where, shown) for query in queries]
        for number, step in enumerate(options.steps):
            with InvalidInput.under(prefetch_name(number)):
                self._prefetch(courses, number, step, options, where, shown)
        stages = self.stages_of(courses[0].query, options)
        depth = options.depth(len(stages)) + (0 if shown is None else len(shown.rows))
        if "vector" in stages:
            self._by_vector(courses, depth, where, options, shown)
        if "text" in stages:
            self._by_text(courses, depth, where, options)
        for course in courses:
            if not course.lists:
                course.lists = [ranking for ranking, _ in course.prefetched]
            elif shown is not None:
                course.lists = [shown.without(ranking) for ranking in course.lists]
        if options.distinct is not None and not options.steps:
            for course in courses:
                self._spread(course, depth, options)
        if len(stages) > 1:
            self._fuse(courses, options)
        if options.overlay is not None:
            for course in courses:
                self._follow_links(course, options.overlay)
        self._second_look.rank(courses, options)
        booster = Booster(options.lifts, self.retrieval.columns(), time.time()) if options.lifts else None
        for course in courses:
            if booster is not None:
                self._boost(course, booster)
            self._later_stages(course, options)
        return courses

    def stages_of(self, query: Query, options: SearchOptions) -> tuple[str, ...]:
        """Which first-stage lists a query gets. Raises InvalidQuery if it lacks what its mode needs."""
        if options.steps and options.mode == "auto":
            return tuple(prefetch_name(number) for number in range(len(options.steps)))
        embeds = self._definition.embeds and options.field == VECTOR_FIELD
        has_vector = query.vector is not None or options.examples is not None
        embeddable = has_vector or (query.text is not None and embeds)
        if options.mode == "auto":
            stages = tuple(s for s, on in (("vector", embeddable), ("text", query.text is not None)) if on)
            if not stages:
                raise InvalidQuery("there is no query; give text, a vector, or both")
            return stages
        if options.mode in ("text", "hybrid") and query.text is None:
            raise InvalidQuery(f"mode={options.mode!r} searches words, but the query is a vector; give text as well")
        if options.mode in ("vector", "hybrid") and not embeddable:
            if options.field != VECTOR_FIELD:
                raise InvalidQuery(f"no text can be turned into a vector of field {options.field!r}; give a vector")
            if query.text is None:
                raise InvalidQuery("there is no query; give text, a vector, or both")
            self._definition.embedder()  # says why there is none
        return {"vector": ("vector",), "text": ("text",), "hybrid": ("vector", "text")}[options.mode]

    # -- what is looked for

    def asked(self, query: Query, step: SearchPlan, options: SearchOptions) -> Query:
        """What a prefetch of a search with these options looks for: its own query, or the search's; its examples instead of the
        search's vector.
        """
        if step.query is not None or step.vector is not None:
            if step.vector is None:
                return Query(step.query)
            matrix = as_matrix([step.vector], what="the query")
            return Query(step.query, self.retrieval.prepared(matrix, step.field, "the query".format)[0])
        return query if step.field == options.field and step.examples is None else Query(query.text)

    def shown(self, options: SearchOptions) -> Shown | None:
        """The examples of a search, looked up; None if it has none."""
        return Shown.of(options, self._store, self._tables, self.retrieval)

    def looked_for(self, queries: Sequence[Query], options: SearchOptions) -> list[Query]:
        """Queries with the vectors that a search would give them, so that a cursor's fingerprint can be compared."""
        shown = self.shown(options)
        known = list(queries) if shown is None else [shown.asked(query) for query in queries]
        if "vector" not in self.stages_of(known[0], options) or (shown is not None and shown.vector is None):
            return known
        return self.with_vectors(known)

    # -- stages ------------------------------------------------------------------------------------------------------------

    def _prefetch(
        self,
        courses: list[Course],
        number: int,
        step: SearchPlan,
        options: SearchOptions,
        where: Node | None,
        shown: Shown | None,
    ) -> None:
        """Run one prefetch for all queries: once, if it has a query of its own."""
        since = time.perf_counter()
        is_one = step.query is not None or step.vector is not None
        asking = courses[:1] if is_one else courses
        went = self.courses([self.asked(course.query, step, options) for course in asking], step, where)
        for course, inner in zip(courses, went * len(courses) if is_one else went):
            last = inner.last
            ranking = Ranking(prefetch_name(number), *_page(last, step.offset, step.k))
            if shown is not None:
                ranking = shown.without(ranking)
            course.prefetched.append((ranking, inner))
            course.explain[ranking.name] = partial(self._told_of_prefetch, inner)
            course.missed |= inner.missed
            course.terms = course.terms or inner.terms
            known = course.recall is not None and inner.recall is not None
            course.recall = min(course.recall, inner.recall) if known else None  # type: ignore[type-var]
            course.report(ranking.name, len(ranking), since, {"stages": [asdict(report) for report in inner.reports]})

    def _told_of_prefetch(self, inner: Course, rows: Sequence[int]) -> dict[int, dict[str, Any]]:
        return {row: {"steps": [asdict(step) for step in steps]} for row, steps in zip(rows, _traced(inner, rows))}

    def _by_vector(
        self, courses: list[Course], depth: int, where: Node | None, options: SearchOptions, shown: Shown | None
    ) -> None:
        if shown is not None and shown.vector is None:
            self._by_examples(courses, depth, where, options, shown)
            return
        since = time.perf_counter()
        queries = self.with_vectors([course.query for course in courses])
        matrix = np.stack([query.vector for query in queries if query.vector is not None])
        if options.steps:
            found = self.retrieval.by_vector_among(matrix, [course.pool for course in courses], options)
        else:
            found = self.retrieval.by_vector(matrix, depth, where, options)
        recalls: Sequence[float | None] = found.recalls or [None] * len(courses)
        for course, query, ranking, recall in zip(courses, queries, found.rankings, recalls):
            if not options.steps:
                course.recall = recall
            course.query = query
            course.lists.append(ranking)
            mapped = {} if query.adapter is None else {"adapter": query.adapter}
            course.report("vector", len(ranking), since, {**found.detail, **mapped})

    def _by_examples(
        self, courses: list[Course], depth: int, where: Node | None, options: SearchOptions, shown: Shown
    ) -> None:
        """By examples that are no one vector. They are the same for all queries, and so is the list, unless it is among what was
        prefetched.
        """
        since = time.perf_counter()
        if options.steps:
            detail: Mapping[str, Any] = {"engine": "exact", "exact": True, "way": "prefetched"}
            lists = [
                self.retrieval.like_examples(shown.examples, shown.vectors, course.pool, options) for course in courses
            ]
        else:
            found, likeness = self.retrieval.by_examples(shown.examples, shown.vectors, depth, where, options)
            detail = found.detail
            lists = [(found.rankings[0], likeness)] * len(courses)
            for course in courses:
                course.recall = None if found.recalls is None else found.recalls[0]
        for course, (ranking, likeness) in zip(courses, lists):
            course.lists.append(ranking)
            course.explain["vector"] = partial(shown.told, likeness)
            course.report("vector", len(ranking), since, detail)

    def _by_text(self, courses: list[Course], depth: int, where: Node | None, options: SearchOptions) -> None:
        since = time.perf_counter()
        pools = [course.pool for course in courses] if options.steps else None
        depth = depth if pools is None else max(1, *(len(pool) for pool in pools))
        found = self.retrieval.by_text([course.query.text or "" for course in courses], depth, where, options, pools)
        for course, ranking, terms in zip(courses, found.rankings, found.terms or repeat(None)):
            course.terms = terms
            course.lists.append(ranking)
            course.report("text", len(ranking), since, found.detail)

    def _spread(self, course: Course, depth: int, options: SearchOptions) -> None:
        """First-stage lists of one query go on until enough different groups are in them."""
        assert options.distinct is not None
        crowds, shown = self.crowds(options.distinct), course.shown
        for place, ranking in enumerate(course.lists):
            asked = depth if shown is None else min(depth, len(ranking))  # examples were taken out of it
            course.lists[place] = spread(
                ranking, asked, options.wanted, options.per_group, crowds, self._again(course, ranking.name, options)
            )

    def _again(self, course: Course, name: str, options: SearchOptions) -> Callable[[int, Rows], Ranking]:
        """The search for one first-stage list, made again without some rows."""
        retrieval, query, shown = self.retrieval, course.query, course.shown

        def search(depth: int, without: Rows) -> Ranking:
            if shown is not None:
                without = np.union1d(without, shown.rows)
            if name == "text":
                found = retrieval.by_text([query.text or ""], depth, course.where, options, without=without)
            elif shown is not None and shown.vector is None:
                found, _ = retrieval.by_examples(
                    shown.examples, shown.vectors, depth, course.where, options, without=without
                )
            else:
                assert query.vector is not None
                found = retrieval.by_vector(query.vector[None], depth, course.where, options, without=without)
                known = course.recall is not None and found.recalls is not None
                course.recall = min(course.recall, found.recalls[0]) if known else None  # type: ignore
            return found.rankings[0]

        return search

    def crowds(self, by: str) -> Crowds:
        """Which records belong together, in the newest state."""
        return Crowds(self.retrieval.columns(), by)

    def roomy(self, rows: Rows, size: int, options: SearchOptions) -> Rows:
        """Places of the best `size` of these rows that leave enough different groups."""
        assert options.distinct is not None
        return roomy(self.crowds(options.distinct).of(rows), size, options.wanted, options.per_group)

    def with_vectors(self, queries: Sequence[Query]) -> list[Query]:
        """The same with a vector each: their texts embedded together, and mapped if the collection keeps an adapter. A vector
        that was given is taken as it is.
        """
        texts = [query.text or "" for query in queries if query.vector is None]
        if not texts:
            return list(queries)
        matrix, adapter = self._prepared(self._definition.embedder().embed_queries(texts)), self.adapter.current()
        version = None
        if adapter is not None:
            version, mapped = adapter
            matrix = self._prepared(mapped(matrix))
        embedded = iter(matrix)
        return [q if q.vector is not None else Query(q.text, next(embedded), version) for q in queries]

    def _prepared(self, vectors: Matrix) -> Matrix:
        matrix = np.ascontiguousarray(vectors, dtype=np.float32)
        return self.retrieval.prepared(matrix, VECTOR_FIELD, "the vector of query {}".format)

    def _fuse(self, courses: list[Course], options: SearchOptions) -> None:
        fusion = options.joining(len(courses[0].lists))
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

    def _follow_links(self, course: Course, options: GraphOptions) -> None:
        since = time.perf_counter()
        ranking, detail, explain = self._graph.ranked(course.last, options, course.where)
        if course.shown is not None:  # links lead to examples, too
            ranking = course.shown.without(ranking)
        course.stages.append(ranking)
        course.explain[ranking.name] = explain
        course.report(ranking.name, len(ranking), since, detail)

    def _later_stages(self, course: Course, options: SearchOptions) -> None:
        if options.min_score is not None:
            since = time.perf_counter()
            good = np.flatnonzero(course.last.scores >= options.min_score)
            course.stages.append(course.last.taken(good, "min_score"))
            course.report("min_score", len(good), since, {"min_score": options.min_score})
        if options.selector is not None:
            self._select(course, options)
        if options.distinct is not None:
            self._group(course, options)

    def _boost(self, course: Course, booster: Booster) -> None:
        since = time.perf_counter()
        boosted = booster.boosted(course.last)
        course.stages.append(boosted.ranking)
        course.explain[boosted.ranking.name] = boosted.told
        course.report(boosted.ranking.name, len(boosted.ranking), since, booster.told)

    def _select(self, course: Course, options: SearchOptions) -> None:
        """Candidates chosen as a set; they keep their scores, so what comes back is ordered by choice."""
        since = time.perf_counter()
        selector = options.selector
        assert selector is not None
        size = max(selector.pool, options.wanted)
        ranking = course.last.first(size)
        if options.distinct is not None:
            ranking = course.last.taken(self.roomy(course.last.rows, size, options))
        pool = Pool.of(ranking.scores, self.retrieval.vectors_of(ranking.rows.tolist()))
        selection = selector.choose(pool, len(pool) if options.distinct is not None else options.wanted)
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
        assert options.distinct is not None
        places = first_of_each(self.crowds(options.distinct).of(course.last.rows), options.per_group)
        course.stages.append(course.last.taken(places, "group"))
        course.report("group", len(places), since, {"by": options.distinct, "per_group": options.per_group})

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
        vectors = self.retrieval.vectors_of(rows) if options.vectors and rows else None
        snippets = self._snippets(course, rows, options)
        for i, (row, steps) in enumerate(zip(rows, _traced(course, rows))):
            record = course.records[row]
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


def prefetch_name(number: int) -> str:
    """As traces call the list that a prefetch gave."""
    return f"prefetch[{number}]"


def _page(ranking: Ranking, offset: int, k: int) -> tuple[Rows, Any]:
    return ranking.rows[offset : offset + k], ranking.scores[offset : offset + k]


def _traced(course: Course, rows: Sequence[int]) -> list[tuple[TraceStep, ...]]:
    """The trace of each of these rows, as far as the course has it."""
    lists = [(r, {row: place for place, row in enumerate(r.rows.tolist())}) for r in course.passed]
    details = {name: explain(rows) for name, explain in course.explain.items()}
    return [tuple(_steps(lists, course.shares, details, row)) for row in rows]


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
