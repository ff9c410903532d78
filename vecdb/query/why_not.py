"""Why a record is not among the hits: the query is run again, and its way is followed stage by stage."""

from __future__ import annotations

import time
from dataclasses import replace

from vecdb.filters import conjuncts, describe
from vecdb.query.engine import Course, Engine, group_of
from vecdb.query.ranking import Ranking
from vecdb.query.request import MOST_HITS, Query, SearchOptions
from vecdb.storage import Store
from vecdb.tables import StoredRecord, Tables
from vecdb.types import Mode, WhyNot


def explain_absence(
    engine: Engine, store: Store, tables: Tables, id: str, query: Query, options: SearchOptions
) -> WhyNot:
    """The first stage that dropped the record, and the smallest change that would bring it in."""
    with store.read() as db:
        record = tables.by_id(db, id)
    if record is None:
        return WhyNot(id, "records", "there is no record with this id", "add it")
    if record.is_expired(time.time()):
        return WhyNot(id, "records", "the record has expired", "update it with a later expires, or None")
    return (
        _by_filter(engine, record, options)
        or _by_first_stage(engine, record, query, options)
        or _by_later_stage(engine.courses([query], options)[0], record, options)
    )


def _by_filter(engine: Engine, record: StoredRecord, options: SearchOptions) -> WhyNot | None:
    where = options.condition
    if where is None:
        return None
    failing = [describe(part) for part in conjuncts(where) if not engine.retrieval.matches(record.row, part)]
    if not failing:
        return None
    reason = f"its metadata does not satisfy {' and '.join(failing)}"
    return WhyNot(record.id, "filter", reason, f"leave out or change {failing[0]}")


def _by_first_stage(engine: Engine, record: StoredRecord, query: Query, options: SearchOptions) -> WhyNot | None:
    """None if some first-stage list has the record."""
    depth = options.depth(len(engine.stages_of(query, options)))
    course = engine.courses([query], replace(options, rerank=None, candidates=depth))[0]
    places = [ranking.rank_of(record.row) for ranking in course.lists]
    if any(place is not None for place in places):
        return None
    misses = [_missed(engine, ranking, record, course, options) for ranking in course.lists]
    # The list that came nearest to having it is the one worth changing.
    return min(misses, key=lambda miss: miss.rank or MOST_HITS)


def _missed(engine: Engine, ranking: Ranking, record: StoredRecord, course: Course, options: SearchOptions) -> WhyNot:
    full = _full_list(engine, ranking.name, course.query, options)
    rank = full.rank_of(record.row)
    if rank is None and ranking.name == "vector":
        return WhyNot(record.id, "vector", "the record has no vector", "update it with a vector or an embeddable text")
    if rank is None:
        reason = "none of the query's words occurs in its text"
        return WhyNot(record.id, "text", reason, "search by meaning (mode='vector' or 'hybrid'), or use its words")
    if rank <= len(ranking):
        reason = f"it is number {rank} by exact search, but the index did not find it"
        return WhyNot(record.id, "index", reason, "raise ef, or pass exact=True", rank)
    reason = f"it is number {rank} of the {ranking.name} list, of which the first {len(ranking)} were looked at"
    several = len(course.lists) > 1 or options.candidates is not None
    remedy = f"candidates={rank}" if several else f"k={rank - options.offset}"
    return WhyNot(record.id, ranking.name, reason, f"pass {remedy} or more", rank)


def _full_list(engine: Engine, name: str, query: Query, options: SearchOptions) -> Ranking:
    """The whole list of one first stage, by exact search."""
    mode: Mode = "vector" if name == "vector" else "text"
    alone = SearchOptions(k=1, mode=mode, where=options.where, exact=True, syntax=options.syntax, candidates=MOST_HITS)
    return engine.courses([query], alone)[0].lists[0]


def _by_later_stage(course: Course, record: StoredRecord, options: SearchOptions) -> WhyNot:
    """The record is in a first-stage list: which later stage lost it, or where does it stand?"""
    before = course.lists[0]
    for ranking in course.stages:
        if ranking.rank_of(record.row) is None:
            return _dropped(ranking, before, course, record, options)
        before = ranking
    rank = course.last.rank_of(record.row)
    assert rank is not None
    if rank <= options.offset:
        return WhyNot(record.id, "page", f"it is hit {rank}, on an earlier page", f"offset={rank - 1} or less", rank)
    if rank > options.offset + options.k:
        reason = f"it is number {rank}, after the last of the {options.k} hits asked for"
        return WhyNot(record.id, "k", reason, f"pass k={rank - options.offset} or more", rank)
    return WhyNot(record.id, None, f"it is hit {rank}", None, rank)


def _dropped(ranking: Ranking, before: Ranking, course: Course, record: StoredRecord, options: SearchOptions) -> WhyNot:
    rank = before.rank_of(record.row)
    name = ranking.name
    if name == "min_score" and rank is not None:
        score = float(before.scores[rank - 1])
        return WhyNot(
            record.id, name, f"its score is {score:.6g}, below {options.min_score:.6g}", f"min_score={score:.6g}", rank
        )
    if name == "group":
        group = group_of(record, options.group_by or "parent")
        reason = f"{options.per_group} better hit(s) of the same {options.group_by} ({group}) were kept"
        return WhyNot(record.id, name, reason, f"raise per_group above {options.per_group}", rank)
    if name == "fusion":
        kind = next(r.detail.get("kind") for r in course.reports if r.stage == name)
        reason = f"the fusion ({kind}) left it out: far behind the best vector, or too far down in the words' list"
        return WhyNot(record.id, name, reason, "take another fusion, such as 'rrf', or raise k", rank)
    if name == "diversity":
        return WhyNot(record.id, name, "hits like it were chosen already", "lower diversity, or raise k", rank)
    looked_at = next((r.detail.get("looked_at") for r in course.reports if r.stage == name), None)
    if looked_at is not None and rank is not None and rank > looked_at:
        reason = f"it is number {rank} of the first stage; the reranker looked at {looked_at}"
        return WhyNot(record.id, name, reason, f"pass candidates={rank} or more", rank)
    return WhyNot(record.id, name, "the reranker did not rank it among the best", "raise k", rank)
