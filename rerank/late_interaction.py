"""MaxSim over stored token vectors, with candidates pruning and early exit (arXiv 2601.05200; the score: ColBERT, 2004.12832).

    score(q, d) = sum over query tokens i of max over document tokens j of q_i . d_j

alpha, candidates pruning: with k wanted, a candidate is looked at only if its score of the stage before is at least (1 - alpha)
times the k-th one's. It is a ratio, so it says nothing where scores can be 0 or below, and is then left out (counter
"not_pruned"). beta, early exit: the first k are scored, then one after the other, until beta of them in a row have not entered
the best k. Both are off by default: how much they may cost depends on the stage before.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from heapq import heapify, heapreplace
from typing import Any

import numpy as np

from vecdb.errors import InvalidQuery, ModelUnavailable
from vecdb.rerank.base import BatchReranker, Context, Limit, Need, Ranked, Reranked, Task, as_given
from vecdb.rerank.tokens import Tokens, joined
from vecdb.types import Vector

_BLOCK = 64  # documents that are compared between two looks at the clock


@dataclass(frozen=True)
class MaxSim(BatchReranker):
    """encode: a text whose tokens are not stored is encoded
    now, which takes milliseconds each; False: it follows behind the others. device: "cpu" or "cuda" to compute in PyTorch; None:
    compiled kernels. threads: of those.
    """

    alpha: float | None = None
    beta: int | None = None
    encode: bool = True
    device: str | None = None
    threads: int = 1

    needs = frozenset[Need]({"tokens"})

    def __post_init__(self) -> None:
        if self.alpha is not None and not (_is_number(self.alpha) and 0 <= self.alpha <= 1):
            raise InvalidQuery(f"alpha of maxsim is {self.alpha!r}; it must lie between 0 and 1, or be left out")
        if self.beta is not None and (not isinstance(self.beta, int) or isinstance(self.beta, bool) or self.beta < 1):
            raise InvalidQuery(f"beta of maxsim is {self.beta!r}; it must be a whole number from 1 on, or be left out")
        if not isinstance(self.threads, int) or not 1 <= self.threads <= 64:
            raise InvalidQuery(f"threads of maxsim is {self.threads!r}; it must lie between 1 and 64")
        if self.device is not None and not isinstance(self.device, str):
            raise InvalidQuery(f"device of maxsim is {self.device!r}; it must be 'cpu' or 'cuda', or be left out")

    def rerank_batch(self, tasks: Sequence[Task], context: Context) -> list[Reranked]:
        if context.encoder is None:
            raise ModelUnavailable(
                "maxsim compares token vectors, and this collection has no token encoder; make it with tokens='default'"
            )
        context.limit.check()
        queries = context.encoder.encode_queries([task.query for task in tasks])
        return [self._one(task, query, context) for task, query in zip(tasks, queries)]

    def _one(self, task: Task, query: Vector, context: Context) -> Reranked:
        scores = [candidate.score for candidate in task.candidates]
        kept, counters = self._pruned(scores, task.k)
        tokens = self._tokens(task, kept, context, counters)
        comparable = [place for place in kept if place in tokens]
        if not comparable or not len(query):
            why = "no candidate has token vectors" if len(query) else "the query has no tokens"
            return as_given(task, why, {**counters, "scored": 0})
        compare = _Compare(query, tokens, self, context.limit)
        similarities = self._scored(comparable, task.k, compare)
        counters |= {"scored": len(similarities), "query_tokens": len(query), "tokens": compare.compared}
        if self.beta is not None:
            counters["exited_at"] = len(similarities) if len(similarities) < len(comparable) else None
        return Reranked(self._ordered(task, similarities, comparable, scores), counters)

    def _pruned(self, scores: Sequence[float], k: int) -> tuple[list[int], dict[str, Any]]:
        """Places that are looked at. Ties at the threshold stay, and so do the first k whatever their scores."""
        places = list(range(len(scores)))
        counters: dict[str, Any] = {"candidates": len(scores), "pruned": 0}
        if self.alpha is None or len(scores) <= k:
            return places, counters
        if not min(scores) > 0:
            counters["not_pruned"] = "scores of the stage before are not all above 0"
            return places, counters
        least = (1.0 - self.alpha) * scores[k - 1]
        places = [place for place in places if place < k or scores[place] >= least]
        counters["pruned"] = len(scores) - len(places)
        return places, counters

    def _tokens(
        self, task: Task, places: Sequence[int], context: Context, counters: dict[str, Any]
    ) -> dict[int, Tokens]:
        """Of each candidate that has some, stored or made now."""
        known = {p: t for p in places if (t := task.candidates[p].tokens) is not None and len(t)}
        missing = [p for p in places if task.candidates[p].tokens is None and task.candidates[p].text]
        if missing and self.encode and context.encoder is not None:
            counters["encoded"] = len(missing)
            for start in range(0, len(missing), _BLOCK):
                context.limit.check()
                part = missing[start : start + _BLOCK]
                made = context.encoder.encode_documents([task.candidates[p].text or "" for p in part])
                known |= {p: Tokens(vectors) for p, vectors in zip(part, made) if len(vectors)}
        return known

    def _scored(self, places: Sequence[int], k: int, compare: _Compare) -> dict[int, float]:
        """MaxSim of the places, in their order; with beta until that many in a row have not come among the best k."""
        if self.beta is None or len(places) <= k:
            return dict(zip(places, compare(places)))
        scored = dict(zip(places, compare(places[:k])))
        heap = list(scored.values())
        heapify(heap)
        at, misses = k, 0
        while at < len(places) and misses < self.beta:
            part = places[at : at + self.beta - misses]  # so many will be looked at whatever they score
            for place, score in zip(part, compare(part)):
                scored[place] = score
                if score > heap[0]:
                    heapreplace(heap, score)
                    misses = 0
                else:
                    misses += 1
            at += len(part)
        return scored

    def _ordered(
        self, task: Task, similarities: dict[int, float], comparable: Sequence[int], scores: Sequence[float]
    ) -> tuple[Ranked, ...]:
        """By score; then what could not be compared, as it was given, with the lowest score that there is."""
        places = list(similarities)
        order = np.argsort([-similarities[place] for place in places], kind="stable")[: task.k]
        ranked = [Ranked(places[i], similarities[places[i]]) for i in order.tolist()]
        if len(ranked) < task.k:
            lowest = ranked[-1].score
            seen = set(comparable)
            others = [place for place in range(len(scores)) if place not in seen]
            ranked += [Ranked(place, lowest, {"tokens": 0}) for place in others[: task.k - len(ranked)]]
        return tuple(ranked)


class _Compare:
    """MaxSim of one query with candidates at given places; counts the tokens."""

    def __init__(self, query: Vector, tokens: dict[int, Tokens], how: MaxSim, limit: Limit) -> None:
        self._query, self._tokens, self._how, self._limit = query, tokens, how, limit
        self.compared = 0

    def __call__(self, places: Sequence[int]) -> list[float]:
        scores: list[float] = []
        for start in range(0, len(places), _BLOCK):
            self._limit.check()
            parts = _of_one_codec([self._tokens[place] for place in places[start : start + _BLOCK]])
            together, ends = joined(parts)
            self.compared += len(together)
            if self._how.device is not None:
                from vecdb.rerank.torch_maxsim import maxsim as in_torch

                found = in_torch(self._query, together, ends, device=self._how.device)
            else:
                from vecdb.index.maxsim import maxsim

                found = maxsim(self._query, together.codes, ends, together.scales, threads=self._how.threads)
            scores += found.tolist()
        return scores


def _of_one_codec(parts: list[Tokens]) -> list[Tokens]:
    """As they are where they agree; stored ones beside ones made now become float32."""
    return parts if len({part.codes.dtype for part in parts}) == 1 else [Tokens(part.dense()) for part in parts]


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
