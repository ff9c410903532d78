"""Rerankers that read query and text together, on the hybrid first stage's 50: cross-encoders, MVP, and blends with the lists."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from bench.rerank.orders import evaluated, line, sample
from bench.rerank.states import hybrid
from bench.retrieval.sets import lists_of, load
from vecdb.rerank.base import BatchReranker, Candidate, Context, Reranked, Task
from vecdb.rerank.blend import Blend
from vecdb.rerank.cross_encoder import CrossEncoder
from vecdb.rerank.mvp import Mvp

Line = dict[str, Any]
_LOOKED_AT = 50
_LISTS = {"vector": 1.0, "text": 0.5}


class Remembering(BatchReranker):
    """Another reranker that reads each set of candidates once, and orders all of them."""

    def __init__(self, inner: BatchReranker) -> None:
        self._inner = inner
        self._known: dict[tuple[str, ...], Reranked] = {}

    def rerank_batch(self, tasks: Sequence[Task], context: Context) -> list[Reranked]:
        keys = [(task.query, *(candidate.id for candidate in task.candidates)) for task in tasks]
        new = [place for place, key in enumerate(keys) if key not in self._known]
        whole = [Task(tasks[p].query, tasks[p].candidates, len(tasks[p].candidates)) for p in new]
        for place, answer in zip(new, self._inner.rerank_batch(whole, context)):
            self._known[keys[place]] = answer
        return [
            Reranked(self._known[key].ranked[: task.k], self._known[key].counters) for key, task in zip(keys, tasks)
        ]


def study(cross_encoders: Sequence[str], views: Sequence[str], names: Sequence[str], queries: int) -> Iterator[Line]:
    """Each folder alone and with the first stage's lists, as `Blend` adds them; differences to the first stage."""
    ways: dict[str, BatchReranker] = {"lists, blended": Blend(of=(), lists=_LISTS, given=0.0)}
    for kind, folders in (("cross-encoder", cross_encoders), ("mvp", views)):
        for folder in folders:
            one: BatchReranker = (
                CrossEncoder(folder, max_tokens=256, batch=128)
                if kind == "cross-encoder"
                else Mvp(folder, max_tokens=256, batch=128)
            )
            one = Remembering(one)
            ways[f"{kind}: {Path(folder).name}"] = one
            ways[f"{kind} and lists: {Path(folder).name}"] = Blend(of=(one,), weights=(2.0,), lists=_LISTS, given=0.0)
    for name in names:
        yield from _compared(name, ways, queries)


def _compared(name: str, ways: dict[str, BatchReranker], queries: int) -> Iterator[Line]:
    judged = load(name)
    lists = lists_of(judged)
    places = sample(lists, queries)
    found = hybrid(lists)
    tasks = []
    for p in places:
        query = lists.queries[p]
        known = {
            "vector": dict(zip(query.vector_docs.tolist(), query.vector_scores.tolist())),
            "text": dict(zip(query.text_docs.tolist(), query.text_scores.tolist())),
        }
        candidates = [
            Candidate(str(d), judged.texts[d], s, scores={n: own[d] for n, own in known.items() if d in own})
            for d, s in found[p][:_LOOKED_AT]
        ]
        tasks.append(Task(query.text, candidates, 10))
    first = evaluated(lists, {p: [int(c.id) for c in task.candidates[:10]] for p, task in zip(places, tasks)})
    yield line(judged, "first stage (RRF)", first, first, {"against": "first stage"})
    for way, reranker in ways.items():
        since = time.process_time()
        answers = reranker.rerank_batch(tasks, Context())
        ms = 1e3 * (time.process_time() - since) / max(1, len(tasks))
        orders = {
            p: [int(task.candidates[r.position].id) for r in answer] for p, task, answer in zip(places, tasks, answers)
        }
        about = {"against": "first stage", "ms": ms if "lists" not in way else None}  # what the blends add is nothing
        yield line(judged, way, evaluated(lists, orders), first, about)
