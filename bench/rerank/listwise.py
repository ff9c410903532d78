"""Listwise rerankers with a language model on judged collections: nDCG@10, work and time beside each other.

The hybrid first stage's best candidates before a small model by every method; all see the same ones, cut to the same length.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from bench.rerank.orders import evaluated, line, sample
from bench.retrieval.measure import by_fusion
from bench.retrieval.sets import lists_of, load
from vecdb.query.fusion import Rrf
from vecdb.rerank.base import BatchReranker, Candidate, Reranked

Line = dict[str, Any]
SETS = ("scifact", "cosqa", "msmarco-dl21")
METHODS = ("first", "written", "full", "group", "setwise")
_COUNTERS = ("calls", "forward_passes", "prompt_tokens", "decoded_tokens", "documents", "failures")


def study(
    names: Sequence[str], queries: int, *, model: str | None, methods: Sequence[str], depth: int, tokens: int
) -> Iterator[Line]:
    """One line for each method over the hybrid first stage's best `depth`, passages of at most so many tokens."""
    from vecdb.rerank.models.loading import load_chat

    chat = load_chat(model)
    settings = {"model": model or "smollm2-135m", "candidates": depth, "passage_tokens": tokens}
    for name in names:
        judged = load(name)
        lists = lists_of(judged)
        hybrid = by_fusion(Rrf(), lists.documents)
        places = sample(lists, queries)
        listed = {p: hybrid(lists.queries[p], depth) for p in places}
        first = evaluated(lists, {p: ranking.rows.tolist() for p, ranking in listed.items()})
        yield line(judged, "first stage", first, first, {"ms": 0.0, "against": "first stage"})
        for method in methods:
            reranker = _reranker(method, chat, depth, tokens)
            orders, work, since = {}, dict.fromkeys(_COUNTERS, 0.0), time.process_time()
            for p, ranking in listed.items():
                own = ranking.rows.tolist()
                candidates = [Candidate(str(d), judged.texts[d], float(s)) for d, s in zip(own, ranking.scores)]
                answer: Reranked = reranker.rerank(lists.queries[p].text, candidates, depth)
                orders[p] = [own[r.position] for r in answer]
                for counter in _COUNTERS:
                    work[counter] += answer.counters[counter] / len(places)
            cost = {"ms": 1e3 * (time.process_time() - since) / len(places), "against": "first stage", "work": work}
            yield line(judged, method, evaluated(lists, orders), first, {**cost, **settings})


def _reranker(method: str, chat: Any, depth: int, tokens: int) -> BatchReranker:
    from vecdb.rerank.listwise.first import First
    from vecdb.rerank.listwise.group import Groupwise
    from vecdb.rerank.listwise.setwise import Setwise
    from vecdb.rerank.listwise.written import Full, Sliding

    window = min(20, depth)
    step = max(1, window // 2)
    made: dict[str, Callable[[], BatchReranker]] = {
        "first": lambda: First(chat, window=window, step=step, passage_tokens=tokens),
        "first, 4 arrangements": lambda: First(chat, window=window, step=step, passage_tokens=tokens, shuffles=4),
        "written": lambda: Sliding(chat, window=window, step=step, passage_tokens=tokens, letters=True),
        "windows": lambda: Sliding(chat, window=window, step=step, passage_tokens=tokens),
        "full": lambda: Full(chat, passage_tokens=tokens),
        "group": lambda: Groupwise(chat, group_size=window, rounds=1, passage_tokens=tokens, reply_tokens=160),
        "setwise": lambda: Setwise(chat, set_size=window, passage_tokens=tokens, reply_tokens=96),
        "setwise at once": lambda: Setwise(chat, set_size=window, passage_tokens=tokens, reasoning=False),
    }
    return made[method]()
