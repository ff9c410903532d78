"""Why a record is not among the hits: the query is run again, and its way is followed stage by stage.

The remedy is tried, not guessed: the change that a stage calls for is applied, the query is run, and if a later stage drops the
record now, that one's change is added, until the record is a hit. Numbers are then made as small a change as still works.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, is_dataclass, replace
from typing import Any

import numpy as np

from vecdb.errors import InvalidQuery, VecdbError
from vecdb.filters import And, Node, conjuncts, describe
from vecdb.query.engine import Course, Engine, prefetch_name
from vecdb.query.fusion import Adaptive, ZScore
from vecdb.query.near import both
from vecdb.query.plan_data import as_data
from vecdb.query.ranking import Ranking
from vecdb.query.request import MOST_HITS, Query, SearchOptions, SearchPlan
from vecdb.query.selection import MOST_IN_POOL, Pool, name_of
from vecdb.storage import Store
from vecdb.tables import StoredRecord, Tables
from vecdb.types import Mode, WhyNot

Change = dict[str, Any]

_MOST_STEPS = 24  # changes tried one after the other; each opens the way to a later stage, and few queries have five
# From then on the depth of the lists is held, and a selection that drops the record is left out: a larger k looks deeper into the
# lists, a larger pool brings in others that are chosen first, and the record's rank may keep ahead of either.
_STEPS_BEFORE_HOLDING = 8
_MOST_DOUBLINGS, _HALVINGS = (
    20,
    5,
)  # of a list's weight: up to a million times, and then to some percent of what is needed
_SHRINKING = (
    "ef",
    "candidates",
    "k",
    "per_group",
)  # larger admits more, so the smallest that works is found by halving


@dataclass(frozen=True, slots=True)
class _Miss:
    """Where one run of the query lost the record, and what would carry it past that stage: None if nothing can.

    stage is None if the record is a hit.
    """

    stage: str | None
    reason: str
    change: Change | None = None
    rank: int | None = None


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
    search = _Search(engine, record, query)
    miss = search.miss(options)
    if miss.stage is None:
        return WhyNot(id, None, miss.reason, None, miss.rank)
    change = search.remedy(options, miss)
    remedy = (
        _in_words(change) if change else "no option of search brings it in; change its text or vector, or the query"
    )
    return WhyNot(id, miss.stage, miss.reason, remedy, miss.rank, change)


class _Search:
    """One record and one query, run with this or that option. around: the filter of the searches that this one is part of."""

    def __init__(self, engine: Engine, record: StoredRecord, query: Query, around: Node | None = None) -> None:
        self._engine = engine
        self._record = record
        self._query = query
        self._around = around

    def miss(self, options: SearchOptions) -> _Miss:
        return (
            self._by_filter(options)
            or self._by_distance(options)
            or self._by_examples(options)
            or self._by_lists(options)
        )

    def remedy(self, options: SearchOptions, miss: _Miss) -> Change | None:
        """Options with which the record is a hit; None if there are none."""
        change: Change = {}
        for step in range(_MOST_STEPS):
            if miss.stage is None:
                return self._smallest(options, change)
            if not miss.change:
                return None
            change |= {"select": "topk"} if step >= _STEPS_BEFORE_HOLDING and miss.stage == "select" else miss.change
            if step == _STEPS_BEFORE_HOLDING and options.candidates is None:
                changed = replace(options, **change)
                change["candidates"] = changed.depth(len(self._engine.stages_of(self._query, changed)))
            try:
                miss = self.miss(replace(options, **change))
            except InvalidQuery:  # beyond what a search may ask for
                return None
        return None

    def _smallest(self, options: SearchOptions, change: Change) -> Change:
        """change without what a later part of it made needless, and with each number as near to what it was as still admits
        the record.
        """
        for name in list(change):
            fewer = {other: value for other, value in change.items() if other != name}
            if fewer and self._admits(options, fewer):
                change = fewer
        for name in _SHRINKING:
            if name not in change:
                continue
            fails, works = getattr(options, name) or 0, change[name]
            if name == "candidates" and options.candidates is None:
                fails = options.depth(1)
            while works - fails > 1:
                middle = (fails + works) // 2
                if self._admits(options, {**change, name: middle}):
                    works = middle
                else:
                    fails = middle
            change = {**change, name: works}
        return change

    def _admits(self, options: SearchOptions, change: Change) -> bool:
        try:
            changed = replace(options, **change)
            rank = self._course(changed).last.rank_of(self._record.row)
        except InvalidQuery:
            return False
        return rank is not None and changed.offset < rank <= changed.offset + changed.k

    def _course(self, options: SearchOptions) -> Course:
        course = self._engine.courses([self._query], options, self._around)[0]
        if options.examples is None:
            self._query = course.query  # embedded once
        return course

    # -- the stages

    def _by_filter(self, options: SearchOptions) -> _Miss | None:
        where = options.condition
        if where is None:
            return None
        parts = conjuncts(where)
        passing = tuple(part for part in parts if self._engine.retrieval.matches(self._record.row, part))
        failing = [describe(part) for part in parts if part not in passing]
        if not failing:
            return None
        left = json.loads(describe(And(passing))) if passing else None
        return _Miss("filter", f"its metadata does not satisfy {' and '.join(failing)}", {"where": left})

    def _by_distance(self, options: SearchOptions) -> _Miss | None:
        """A record that is too far away; what brings it in is the distance that reaches it."""
        for near in options.nearby:
            away, weight = self._engine.retrieval.nearness(self._record.row, near)
            if (near.within is None or away <= near.within) and weight > 0:
                continue
            others = {field: said for field, said in (options.near or {}).items() if field != near.field}
            if not np.isfinite(away):
                reason = f"{near.field!r} of the record says no place, so it is near nothing"
                return _Miss("near", reason, {"near": others or None})
            if near.within is not None and away > near.within:
                reason = f"it is {away:g} away by {near.field!r}, farther than {near.within:g}"
                wider = near.as_data | {"within": float(np.nextafter(away, np.inf))}
            else:
                reason = f"its weight is 0, as it is {away:g} away by {near.field!r} and the scale is {near.scale:g}"
                wider = near.as_data | {"scale": away}
            return _Miss("near", reason, {"near": {**others, near.field: wider}})
        return None

    def _by_examples(self, options: SearchOptions) -> _Miss | None:
        shown = self._engine.shown(options)
        if shown is None or self._record.row not in shown.rows:
            return None
        return _Miss("examples", "it is one of the examples of the search, which are never among its hits")

    def _by_prefetch(self, course: Course, options: SearchOptions) -> _Miss:
        """Of the prefetches, none of which gave the record, the one that came nearest to it."""
        around = both(self._around, options.admitted)
        misses = []
        for number, step in enumerate(options.steps):
            query = self._engine.asked(course.query, step, options)
            miss = _Search(self._engine, self._record, query, around).miss(step)
            name = prefetch_name(number)
            change = None
            if miss.change is not None:
                changed = [_data(other) for other in options.steps]
                changed[number] = _data(step, miss.change)
                change = {"prefetch": changed}
            misses.append(_Miss(f"{name}.{miss.stage}", f"{name}: {miss.reason}", change, miss.rank))
        return min(misses, key=lambda miss: (miss.change is None, miss.rank or MOST_HITS))

    def _by_lists(self, options: SearchOptions) -> _Miss:
        course = self._course(options)
        row = self._record.row
        if options.steps and row not in course.pool and course.last.rank_of(row) is None:
            return self._by_prefetch(course, options)
        if all(ranking.rank_of(row) is None for ranking in (*course.lists, *course.stages)):  # the graph reaches others
            misses = [self._missed(ranking, options, several=len(course.lists) > 1) for ranking in course.lists]
            # The list that came nearest to having it is the one worth changing.
            return min(misses, key=lambda miss: (miss.change is None, miss.rank or MOST_HITS))
        lists = [*course.lists, *course.stages]
        first = next(place for place, ranking in enumerate(lists) if ranking.rank_of(row) is not None)
        before = lists[first]
        for ranking in course.stages[max(0, first + 1 - len(course.lists)) :]:
            if ranking.rank_of(row) is None:
                return self._dropped(ranking.name, before, course, options)
            before = ranking
        rank = course.last.rank_of(row)
        assert rank is not None
        if rank <= options.offset:
            return _Miss("page", f"it is hit {rank}, on an earlier page", {"offset": rank - 1}, rank)
        if rank > options.offset + options.k:
            if outweighed := self._boosted_away(rank, course, options) or self._outweighed(rank, course, options):
                return outweighed
            reason = f"it is number {rank}, after the last of the {options.k} hits asked for"
            return _Miss("k", reason, {"k": rank - options.offset}, rank)
        return _Miss(None, f"it is hit {rank}", None, rank)

    def _outweighed(self, rank: int, course: Course, options: SearchOptions) -> _Miss | None:
        """A record that one list alone would have made a hit, and that the fusion put behind others; None for any other."""
        if len(course.lists) < 2 or any(stage.name not in ("fusion", "min_score") for stage in course.stages):
            return None
        places = [ranking.rank_of(self._record.row) or MOST_HITS for ranking in course.lists]
        place = min(places)
        if place > options.offset + options.k:
            return None
        favourite = places.index(place)
        name = course.lists[favourite].name
        reason = f"it is number {place} of the {name} list, but the fusion of the lists made it number {rank}"
        change = self._weightier(favourite, course, options) or {"k": rank - options.offset}
        return _Miss("fusion", reason, change, rank)

    def _boosted_away(self, rank: int, course: Course, options: SearchOptions) -> _Miss | None:
        """A record that would have been a hit without the boosts; None for any other."""
        names = [ranking.name for ranking in course.stages]
        if not options.boosts or any(name not in ("boosts", "min_score") for name in names[names.index("boosts") :]):
            return None
        passed = course.passed
        before = passed[[ranking.name for ranking in passed].index("boosts") - 1].rank_of(self._record.row)
        if before is None or before > options.offset + options.k:
            return None
        reason = f"it was number {before} before the boosts, which made it number {rank}"
        return _Miss("boosts", reason, {"k": rank - options.offset}, rank)

    def _weightier(self, favourite: int, course: Course, options: SearchOptions) -> Change | None:
        """The fusion with about the smallest weight of that list that admits the record; None if none does."""
        fusion = options.joining(len(course.lists))
        if isinstance(fusion, Adaptive):  # the same with the weights that it chose
            fusion = ZScore(weights=tuple(course.shares[ranking.name].weight for ranking in course.lists))
        given = getattr(fusion, "weights", None)
        if not given or not is_dataclass(fusion) or isinstance(fusion, type):
            return None

        def with_weight(weight: float) -> Change:
            weights = (*given[:favourite], weight, *given[favourite + 1 :])
            return {"fusion": replace(fusion, weights=weights)}

        fails = works = float(given[favourite]) or max(given) / 1024
        for _ in range(_MOST_DOUBLINGS):
            fails, works = works, 2 * works
            if self._admits(options, with_weight(works)):
                break
        else:
            return None
        for _ in range(_HALVINGS):
            middle = float(f"{(fails + works) / 2:.3g}")
            if self._admits(options, with_weight(middle)):
                works = middle
            else:
                fails = middle
        return with_weight(works)

    def _missed(self, ranking: Ranking, options: SearchOptions, *, several: bool) -> _Miss:
        """Why one first-stage list lacks the record."""
        rank = self._full_list(ranking.name, options).rank_of(self._record.row)
        if rank is None and ranking.name == "vector":
            return _Miss("vector", "the record has no vector", self._by_other_list("text", options, several))
        if rank is None:
            reason = "none of the query's words occurs in its text"
            return _Miss("text", reason, self._by_other_list("vector", options, several))
        if options.distinct is not None and self._is_crowded_out(ranking, options):
            return self._of_full_group(rank, self._full_list(ranking.name, options), options)
        if rank <= len(ranking):
            reason = f"it is number {rank} by exact search, but the index did not find it"
            return _Miss("index", reason, self._past_index(options), rank)
        reason = f"it is number {rank} of the {ranking.name} list, of which the first {len(ranking)} were looked at"
        return _Miss(ranking.name, reason, _deeper(rank, options, several=several), rank)

    def _is_crowded_out(self, ranking: Ranking, options: SearchOptions) -> bool:
        """Whether the list was made longer without the record, as its group was full."""
        if options.steps or len(ranking) <= options.depth(1):
            return False
        assert options.distinct is not None
        groups = self._engine.crowds(options.distinct).of(np.append(ranking.rows, self._record.row))
        return bool(groups[-1] >= 0 and np.count_nonzero(groups[:-1] == groups[-1]) >= options.per_group)

    def _by_other_list(self, name: Mode, options: SearchOptions, several: bool) -> Change | None:
        """A mode that searches the other list too, if that one can have the record."""
        if several:
            return None  # the other list is asked already
        try:
            self._engine.stages_of(self._query, replace(options, mode="hybrid"))
            found = self._full_list(name, options).rank_of(self._record.row)
        except VecdbError:  # the query has no text, or the collection no model
            return None
        return None if found is None else {"mode": "hybrid"}

    def _past_index(self, options: SearchOptions) -> Change:
        """The beam that finds the record, or else exact search."""
        if options.target_recall is None:
            ef = 2 * max(options.ef or 0, options.depth(1))
            while ef < MOST_HITS:
                lists = self._course(replace(options, ef=ef, rerank=None)).lists
                if any(ranking.rank_of(self._record.row) for ranking in lists):
                    return {"ef": ef}
                ef *= 4
        given = ("ef", "target_recall")
        return {"exact": True, **{name: None for name in given if getattr(options, name) is not None}}

    def _full_list(self, name: str, options: SearchOptions) -> Ranking:
        """The whole list of one first stage, by exact search."""
        mode: Mode = "vector" if name == "vector" else "text"
        alone = SearchOptions(
            k=1,
            mode=mode,
            where=options.where,
            near=options.near,
            exact=True,
            candidates=MOST_HITS,
            syntax=options.syntax,
            synonyms=options.synonyms,
            fuzzy=options.fuzzy,
            field=options.field,
            recommend=options.recommend,
            discover=options.discover,
        )
        return self._course(alone).lists[0]

    def _dropped(self, name: str, before: Ranking, course: Course, options: SearchOptions) -> _Miss:
        """The stage after `before` has lost the record."""
        rank = before.rank_of(self._record.row)
        assert rank is not None
        if name == "fusion":
            return _Miss("fusion", "the fusion left it out", {"fusion": "rrf"}, rank)  # which leaves out none
        if name.startswith("rerank"):
            return self._outranked(name, rank, course, options)
        stage = {"min_score": self._below, "select": self._unchosen, "group": self._crowded}
        return stage[name](rank, before, course, options)

    def _below(self, rank: int, before: Ranking, course: Course, options: SearchOptions) -> _Miss:
        score = float(before.scores[rank - 1])
        reason = f"its score is {score!r}, below {options.min_score!r}"
        return _Miss("min_score", reason, {"min_score": _rounded_down(score)}, rank)

    def _unchosen(self, rank: int, before: Ranking, course: Course, options: SearchOptions) -> _Miss:
        selector, chosen = options.selector, course.chosen
        assert selector is not None
        assert chosen is not None
        name = name_of(selector)
        if rank > len(chosen.pool):
            reason = f"it is number {rank} of the candidates; {name} chose from the first {len(chosen.pool)}"
            return _Miss("select", reason, _larger_pool(rank, options) or {"select": "topk"}, rank)
        pool = Pool.of(chosen.pool.scores, self._engine.retrieval.vectors_of(chosen.pool.rows.tolist()))
        turn = selector.choose(pool, len(pool)).places.index(rank - 1) + 1
        reason = f"it would be chosen as number {turn} by {name}; {len(chosen.selection.places)} were chosen"
        return _Miss("select", reason, {"k": turn - options.offset}, rank)

    def _crowded(self, rank: int, before: Ranking, course: Course, options: SearchOptions) -> _Miss:
        return self._of_full_group(rank, before, options)

    def _of_full_group(self, rank: int, ranking: Ranking, options: SearchOptions) -> _Miss:
        """The record is number `rank` of a list in which its group has enough better ones."""
        assert options.distinct is not None
        crowds = self._engine.crowds(options.distinct)
        groups = crowds.of(ranking.rows[:rank])
        place = int(np.count_nonzero(groups == groups[-1]))
        same = f"{options.distinct} ({crowds.key(int(groups[-1]))})"
        reason = f"{options.per_group} better hit(s) of the same {same} were kept"
        return _Miss("group", reason, {"per_group": place}, rank)

    def _outranked(self, name: str, rank: int, course: Course, options: SearchOptions) -> _Miss:
        looked_at = next(r.detail["looked_at"] for r in course.reports if r.stage == name)
        if rank > looked_at:
            reason = f"it is number {rank} of the stage before; the reranker looked at {looked_at}"
            bounded = any(stage.top is not None for stage in options.stages)
            return _Miss(name, reason, {"rerank": None} if bounded else {"candidates": rank}, rank)
        # How many it gives depends on k; a reranker that gave fewer than it was asked for will never give this one.
        gave = len(next(ranking for ranking in course.stages if ranking.name == name))
        change: Change = {"k": 2 * options.k} if gave >= options.reranked else {"rerank": None}
        return _Miss(name, "the reranker did not rank it among the best", change, rank)


def _data(step: SearchPlan, change: Change | None = None) -> dict[str, Any]:
    """A prefetch with a change, as data as far as it is data."""
    changed = {**step.changed(), **(change or {})}
    try:
        data: dict[str, Any] = as_data(changed)
    except InvalidQuery:  # it holds an object of the caller's own
        return changed
    return data


def _deeper(rank: int, options: SearchOptions, *, several: bool) -> Change:
    """What makes a first-stage list so deep."""
    if options.candidates is None and options.selector is not None:
        return _larger_pool(rank, options) or {"candidates": rank}
    if several or options.candidates is not None or options.rerank is not None or options.distinct is not None:
        return {"candidates": rank}
    return {"k": rank - options.offset}


def _larger_pool(rank: int, options: SearchOptions) -> Change | None:
    """The selection with so large a pool; None if it cannot have that."""
    selector = options.selector
    if rank > MOST_IN_POOL or not is_dataclass(selector) or isinstance(selector, type):
        return None
    return {"select": replace(selector, pool=rank)}


def _rounded_down(score: float) -> float:
    """Short to read, and low enough for a score that falls with the age of its record to stay above it until the next search."""
    low_enough = score - abs(score) / 10_000
    short = float(f"{score - abs(score) / 1_000:.3g}")
    return min(short, low_enough)


def _in_words(change: Mapping[str, Any]) -> str:
    given = [
        f"{name}={json.dumps(value) if isinstance(value, dict) else repr(value)}"
        for name, value in change.items()
        if value is not None
    ]
    gone = [name for name, value in change.items() if value is None]
    said = [f"{verb} {' and '.join(names)}" for verb, names in (("leave out", gone), ("pass", given)) if names]
    return ", ".join(said)
