"""The second look: rerankers go through the best candidates of all queries together, one stage after the other.

A stage that fails, runs out of time or is cancelled leaves the order as it was, and its report says why under "failed". What a
reranker did not look at (see `top` in rerank/kinds.py) follows in the order that it had, its scores moved below the reranker's.
"""

from __future__ import annotations

import contextvars
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from vecdb.definition import Definition
from vecdb.errors import InvalidQuery
from vecdb.metadata import decode
from vecdb.query.ranking import Ranking, Rows
from vecdb.query.request import VECTOR_FIELD, SearchOptions
from vecdb.query.retrieval import Retrieval
from vecdb.rerank.base import Candidate, Context, Limit, Limits, Reranked, Task
from vecdb.rerank.kinds import Stage

if TYPE_CHECKING:
    from vecdb.query.engine import Course

_log = logging.getLogger("vecdb")

# The limits of the searches that this task makes; who started it (`aio`, the server) cancels them when nobody waits any more.
CANCELLABLE: contextvars.ContextVar[Limits | None] = contextvars.ContextVar("vecdb_limits", default=None)


@dataclass(frozen=True, slots=True)
class _Pool:
    """What a stage of one query looks at, and what follows that."""

    head: Ranking
    tail: Ranking
    candidates: list[Candidate]


def rerank_name(number: int) -> str:
    """What the trace calls the stage with this number, from 0: rerank, rerank_2, rerank_3, …"""
    return "rerank" if number == 0 else f"rerank_{number + 1}"


class SecondLook:
    """load: reads the records of rows into a course. roomy: places of the best of some rows that leave enough groups."""

    def __init__(
        self,
        load: Callable[[Course, list[int]], None],
        roomy: Callable[[Rows, int, SearchOptions], Rows],
        definition: Definition,
        retrieval: Retrieval,
    ) -> None:
        self._load = load
        self._roomy = roomy
        self._definition = definition
        self._retrieval = retrieval

    def rank(self, courses: Sequence[Course], options: SearchOptions) -> None:
        """Each stage appends its Ranking to each course."""
        stages = options.stages
        for number, stage in enumerate(stages):
            name = rerank_name(number)
            wanted = options.reranked
            if number + 1 < len(stages):  # what follows wants to see more than the page
                following = stages[number + 1].top
                wanted = options.depth(1) if following is None else max(wanted, following)
            self._stage(courses, stage, name, wanted, options)

    def _stage(self, courses: Sequence[Course], stage: Stage, name: str, wanted: int, options: SearchOptions) -> None:
        since = time.perf_counter()
        limit = Limit(stage.deadline_s)
        running = CANCELLABLE.get()
        if running is not None:
            running.add(limit)
        pools: Sequence[_Pool] = [self._pool(course, stage, options) for course in courses]
        answers = self._answers(courses, pools, stage, limit, wanted)
        more: dict[str, Any] = {}
        if stage.reranker.refines:
            pools, answers, more = self._asked_again(courses, pools, answers, stage, limit, wanted, options)
        for course, pool, answer in zip(courses, pools, answers):
            self._finish(course, stage, name, pool, answer, wanted, since, more)

    def _pool(self, course: Course, stage: Stage, options: SearchOptions) -> _Pool:
        best = course.last.first(options.depth(1))
        if options.distinct is not None:
            best = course.last.taken(self._roomy(course.last.rows, options.depth(1), options))
        rows = best.rows.tolist()
        self._load(course, rows)
        live = best.taken([place for place, row in enumerate(rows) if row in course.records])
        return self._made(course, stage, live)

    def _made(self, course: Course, stage: Stage, live: Ranking) -> _Pool:
        top = len(live) if stage.top is None else stage.top
        head = live.first(top)
        tail = Ranking(live.name, live.rows[top:], live.scores[top:])
        rows = head.rows.tolist()
        needs = stage.reranker.needs
        vectors = self._retrieval.vectors_of(rows) if "embedding" in needs and rows else [None] * len(rows)
        tokens = self._retrieval.tokens_of(rows) if "tokens" in needs and rows else [None] * len(rows)
        records = [course.records[row] for row in rows]
        lists = _list_scores(course, rows)
        candidates = [
            Candidate(r.id, r.text, float(score), decode(r.metadata), vector, token, found)
            for r, score, vector, token, found in zip(records, head.scores, vectors, tokens, lists)
        ]
        return _Pool(head, tail, candidates)

    def _answers(
        self, courses: Sequence[Course], pools: Sequence[_Pool], stage: Stage, limit: Limit, wanted: int
    ) -> list[Reranked]:
        tasks = [
            Task(course.query.text or "", pool.candidates, wanted, course.query.vector)
            for course, pool in zip(courses, pools)
        ]
        try:
            answers = list(stage.reranker.rerank_batch(tasks, self._context(stage, limit)))
            if len(answers) != len(tasks):
                raise InvalidQuery(f"the reranker gave {len(answers)} answers to {len(tasks)} queries")
        except Exception as error:  # whatever a model does: the first stage's answer is still an answer
            answers = [Reranked((), kept=f"{type(error).__name__}: {error}")] * len(tasks)
        return [_checked(answer, len(pool.head)) for answer, pool in zip(answers, pools)]

    def _context(self, stage: Stage, limit: Limit) -> Context:
        definition = self._definition
        embed = partial(_embedded, definition) if definition.embeds else None
        encoder = definition.token_encoder() if "tokens" in stage.reranker.needs else None
        return Context(limit, embed, encoder)

    def _asked_again(
        self,
        courses: Sequence[Course],
        pools: Sequence[_Pool],
        answers: list[Reranked],
        stage: Stage,
        limit: Limit,
        wanted: int,
        options: SearchOptions,
    ) -> tuple[Sequence[_Pool], list[Reranked], dict[str, Any]]:
        """Candidates of the refined query vectors come in behind the others, and the reranker looks at all of them again."""
        asked = [
            place
            for place, course in enumerate(courses)
            if course.query.vector is not None and options.field == VECTOR_FIELD and answers[place].ranked
        ]
        if not asked:
            return pools, answers, {"added": 0}
        tasks = [Task(courses[p].query.text or "", pools[p].candidates, wanted, courses[p].query.vector) for p in asked]
        try:
            refined = stage.reranker.refine(tasks, [answers[p] for p in asked], self._context(stage, limit))
            found = self._retrieval.by_vector(refined, options.depth(1), courses[0].where, options).rankings
        except Exception as error:  # the first answer is whole
            return pools, answers, {"refine_failed": f"{type(error).__name__}: {error}"}
        wider, added = list(pools), 0
        for place, ranking in zip(asked, found):
            pool, course = wider[place], courses[place]
            if course.shown is not None:  # examples are like what was found, too
                ranking = course.shown.without(ranking)
            seen = np.concatenate([pool.head.rows, pool.tail.rows])
            new = ranking.taken(np.flatnonzero(~np.isin(ranking.rows, pool.head.rows)))
            self._load(course, new.rows.tolist())
            new = new.taken([i for i, row in enumerate(new.rows.tolist()) if row in course.records])
            added += int(np.count_nonzero(~np.isin(new.rows, seen)))
            tail = pool.tail.taken(np.flatnonzero(~np.isin(pool.tail.rows, new.rows)))
            both = Ranking(
                pool.head.name,
                np.concatenate([pool.head.rows, new.rows]),
                np.concatenate([pool.head.scores, new.scores]),
            )
            unbounded = replace(stage, top=None)
            wider[place] = replace(self._made(course, unbounded, both), tail=tail)
        again = self._answers([courses[p] for p in asked], [wider[p] for p in asked], stage, limit, wanted)
        more: dict[str, Any] = {"added": added}
        pools, answers = list(pools), list(answers)
        for place, answer in zip(asked, again):
            if answer.kept is not None:  # the first one stays
                more["again_failed"] = answer.kept
            else:
                pools[place], answers[place] = wider[place], answer
        return pools, answers, more

    def _finish(
        self,
        course: Course,
        stage: Stage,
        name: str,
        pool: _Pool,
        answer: Reranked,
        wanted: int,
        since: float,
        more: dict[str, Any],
    ) -> None:
        detail = {"kind": stage.name, "looked_at": len(pool.head), **answer.counters, **more}
        if answer.kept is not None:
            _log.warning("the reranker %s keeps the order that it was given: %s", stage.name, answer.kept)
            detail["failed"] = answer.kept
        answer = replace(answer, ranked=answer.ranked[:wanted])
        places = [r.position for r in answer.ranked]
        if answer.kept is not None and places == list(range(len(places))):
            course.report(name, len(pool.head) + len(pool.tail), since, detail)
            return
        ranking = pool.head.taken(places, name)
        ranking = replace(ranking, scores=np.array([r.score for r in answer.ranked], dtype=np.float64))
        details = {int(row): r.detail for row, r in zip(ranking.rows, answer.ranked)}
        if len(ranking) < wanted and not stage.reranker.drops:
            ranking = _followed(ranking, pool.tail)
        course.stages.append(ranking)
        course.explain[name] = lambda rows: {row: details.get(row, {}) for row in rows}
        course.report(name, len(ranking), since, detail)


def _followed(ranking: Ranking, tail: Ranking) -> Ranking:
    """ranking, then tail: its scores keep their distances, and none is above those of ranking."""
    if not len(tail):
        return ranking
    lowest = ranking.scores.min(initial=np.inf)
    moved = tail.scores if np.isinf(lowest) else tail.scores - max(0.0, float(tail.scores.max() - lowest))
    moved = np.minimum(moved, lowest)  # which the rounding of the difference may pass
    return Ranking(ranking.name, np.concatenate([ranking.rows, tail.rows]), np.concatenate([ranking.scores, moved]))


def _list_scores(course: Course, rows: Sequence[int]) -> list[dict[str, float]]:
    """The scores of each row in the first stage's lists."""
    lists = {r.name: dict(zip(r.rows.tolist(), r.scores.tolist())) for r in course.lists}
    return [{name: scores[row] for name, scores in lists.items() if row in scores} for row in rows]


def _checked(answer: Reranked, candidates: int) -> Reranked:
    """The answer, or the given order where it is none."""
    places = [r.position for r in answer.ranked]
    if len(set(places)) != len(places) or any(not 0 <= place < candidates for place in places):
        wrong = "the reranker gave a position twice, or one that is no candidate's"
    elif not np.isfinite([r.score for r in answer.ranked]).all():
        wrong = "the reranker gave a score that is no finite number"
    else:
        return answer
    return Reranked((), answer.counters, f"InvalidQuery: {wrong}")


def _embedded(definition: Definition, texts: Sequence[str]) -> Any:
    return definition.embedder().embed_queries(texts)
