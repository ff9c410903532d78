"""How a query would be answered, told without answering it.

Everything here asks the stages' own questions again (is it in memory? is there an index? how many does the filter admit?), so a
plan holds for the moment in which it is made; a later query may find more in memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import numpy as np

from vecdb.definition import Definition
from vecdb.errors import InvalidInput
from vecdb.filters import Node
from vecdb.index.base import Mask
from vecdb.memory import Snapshot
from vecdb.query.engine import Engine, prefetch_name
from vecdb.query.examples import SCANNED
from vecdb.query.near import both
from vecdb.query.plan_data import as_data
from vecdb.query.request import Query, SearchOptions
from vecdb.query.second_look import rerank_name
from vecdb.query.selection import name_of
from vecdb.types import Plan, PlannedStage

_WHY = {
    "exact": "exact=True was given",
    "near": "near was given without ef or target_recall, so all that it admits is measured, by codes where there is a graph",
    "device": "the database was opened with a GPU as its device, which measures everything",
    "no index": "there is no index yet; it is made once there are enough vectors",
    "exact index": "the kernels are not compiled yet, so every vector of the index is measured",
    "walk": "the index is walked where it is cheaper than measuring everything",
    "filtered walk": "the filter admits so many that walking past the others is cheaper than measuring those it admits",
    "prefetched": "every record that was prefetched is measured",
    "scan": "so few are admitted that measuring each is cheaper than a walk",
}


def plan_of(
    engine: Engine, definition: Definition, query: Query, options: SearchOptions, around: Node | None = None
) -> Plan:
    """Raises InvalidQuery if the query lacks what its mode needs, as a search would. around: a filter that holds besides."""
    shown = engine.shown(options)
    query = query if shown is None else shown.asked(query)
    lists = engine.stages_of(query, options)
    where = both(around, options.admitted)
    snapshot, allowed, live = engine.retrieval.snapshot_of(where)
    depth = options.depth(len(lists)) + (0 if shown is None else len(shown.rows))
    stages: list[PlannedStage] = []
    if options.admitted is not None:
        stages.append(_filter(snapshot, allowed, live))
    for number, step in enumerate(options.steps):
        with InvalidInput.under(prefetch_name(number)):
            inner = plan_of(engine, definition, engine.asked(query, step, options), step, where)
        why = "its candidates are what the stages after it work on"
        stages.append(PlannedStage(prefetch_name(number), "search", why, None, {"k": step.k}, inner.stages))
    if "vector" in lists:
        if query.vector is None and options.examples is None:
            why, adapter = "the query is text and the collection has a model", engine.adapter.current()
            told = {} if adapter is None else {"adapter": adapter[0]}
            stages.append(PlannedStage("embed", definition.config.model or "model", why, None, told))
        stages.append(_vector(snapshot, allowed, definition, depth, options))
    if "text" in lists:
        stages.append(_text(engine, query.text or "", depth, options))
    stages += _after(lists, options)
    return Plan(tuple(stages))


def _filter(snapshot: Snapshot, allowed: Mask | None, live: Mask | None) -> PlannedStage:
    total = len(snapshot.rows) if live is None else int(np.count_nonzero(live))
    matching = total if allowed is None else int(np.count_nonzero(allowed))
    share = matching / total if total else 0.0
    detail = {"matching": matching, "records": total, "selectivity": round(share, 6)}
    return PlannedStage(
        "filter", "typed columns", "a filter was given; it is applied before the lists are made", None, detail
    )


def _vector(
    snapshot: Snapshot, allowed: Mask | None, definition: Definition, depth: int, options: SearchOptions
) -> PlannedStage:
    view = snapshot.vectors
    if options.steps:
        most = min(sum(step.k for step in options.steps), len(snapshot.rows))
        return PlannedStage("vector", "scan", _WHY["prefetched"], most, {})
    detail: dict[str, Any] = {"candidates": depth}
    if (examples := options.examples) is not None and not examples.is_one_vector:
        admitted = len(snapshot.rows) if allowed is None else int(np.count_nonzero(allowed))
        count = len(examples.examples)
        if admitted > SCANNED and not options.exact:
            why = "no one vector says it, and more are admitted than are measured: a pool near the examples"
            return PlannedStage("vector", "pool of neighbours", why, None, {**detail, "examples": count})
        why = "no one vector says what is wanted, so every record is compared with every example"
        return PlannedStage("vector", "scan", why, admitted * count, {**detail, "examples": count})
    if view is None:
        cost = len(snapshot.rows) if allowed is None else int(np.count_nonzero(allowed))
        if definition.config.metric == "ip":
            return PlannedStage(
                "vector", "scan", "vectors are loaded first: sqlite-vec has no inner product", cost, detail
            )
        why = "nothing is loaded yet, so SQLite scans the stored vectors while they are"
        return PlannedStage("vector", "sqlite scan", why, cost, detail)
    detail |= {"indexed": len(view.index_slots), "tail": len(view.tail_slots)}
    way, cost = view.forecast(
        depth, allowed=allowed, exact=options.is_exact, ef=options.ef, target_recall=options.target_recall
    )
    if way == "exact" and not options.exact:
        way = "near"
    if options.weighs:
        detail["weights"] = {near.field: near.kernel for near in options.nearby if near.kernel is not None}
    name = f"{view.index.kind} {way}" if view.index is not None and way.endswith("walk") else "scan"
    return PlannedStage("vector", name, _WHY[way], cost, detail)


def _text(engine: Engine, text: str, depth: int, options: SearchOptions) -> PlannedStage:
    if options.syntax == "query":
        why = "phrases and operators are FTS5's; postings in memory have no positions"
        return PlannedStage("text", "fts5", why, None, {"candidates": depth})
    found = engine.retrieval.forecast_text(text, options)
    why = {
        "memory": "the word index is in memory",
        "fts5": "the word index is not in memory yet",
        "memory (loaded first)": "fuzzy needs the vocabulary in memory"
        if options.fuzzy
        else "FTS5 still counts expired records, which the next write will delete, or there are too many synonyms for it",
    }[found.way]
    detail = {"candidates": depth, "terms": found.frequencies}
    if found.weights:
        detail["weights"] = found.weights
    return PlannedStage("text", found.way, why, sum(found.frequencies.values()), detail)


def _after(lists: tuple[str, ...], options: SearchOptions) -> Iterator[PlannedStage]:
    if len(lists) > 1:
        fusion = options.joining(len(lists))
        given = getattr(fusion, "weights", None)  # some are found for each query
        weights = {} if given is None else {"weights": dict(zip(lists, given))}
        yield PlannedStage("fusion", type(fusion).__name__.lower(), "there are several lists", None, weights)
    if options.overlay is not None:
        yield PlannedStage("graph", "pagerank", "graph was given", None, asdict(options.overlay))
    for number, stage in enumerate(options.stages):
        pool = {"candidates": stage.top or options.depth(1)}
        why = "a reranker was given" if number == 0 else "another reranker was given"
        yield PlannedStage(rerank_name(number), stage.name, why, None, pool)
    if options.boosts:
        yield PlannedStage("boosts", "typed columns", "boosts were given", None, {"boosts": as_data(options.boosts)})
    if options.min_score is not None:
        yield PlannedStage("min_score", "cut", "min_score was given", None, {"min_score": options.min_score})
    if (selector := options.selector) is not None:
        pool = {"pool": max(selector.pool, options.wanted)}
        yield PlannedStage("select", name_of(selector), "select was given", None, pool)
    if options.distinct is not None:
        groups = {"by": options.distinct, "per_group": options.per_group}
        yield PlannedStage("group", "best of each", "distinct was given", None, groups)
    page = {"k": options.k, "offset": options.offset}
    yield PlannedStage("page", "cut", "only these are wanted", None, page)
