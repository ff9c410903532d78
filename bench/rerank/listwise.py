"""Listwise rerankers and E2Rank with the offline models, on judged collections: nDCG@10, work and time beside each other.

    python -m bench.rerank.listwise --sets scifact cosqa --queries 20

Two parts. `e2rank`: BM25's 100, ordered by the cosine of the plain query, by the listwise query of an encoder, by the same query
with random or foreign documents in it, and by Rocchio's mean of the same documents. `listwise`: the hybrid first stage's best
candidates before a small language model by every method; all methods see the same candidates, cut to the same length.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from bench.machine import describe_run, result_path, results_folder, version_of
from bench.report import Cell, Table, show_markdown, show_tables
from bench.retrieval.measure import by_fusion
from bench.retrieval.sets import Judged, Lists, lists_of, load, vectors_of
from vecdb.evaluation import Evaluation, evaluate_run, paired_bootstrap
from vecdb.query.fusion import Rrf
from vecdb.rerank.base import BatchReranker, Candidate, Context, Reranked, Task

Line = dict[str, Any]
SETS = ("scifact", "cosqa", "msmarco-dl21")
MEASURE = "nDCG@10"
METHODS = ("first", "written", "full", "group", "setwise")
_COUNTERS = ("calls", "forward_passes", "prompt_tokens", "decoded_tokens", "documents", "failures")


def e2rank_lines(judged: Judged, lists: Lists, queries: int, model: str | None = None) -> Iterator[Line]:
    """One line for each way of ordering BM25's 100 candidates. model: a trained encoder's folder; None: the default model."""
    from vecdb.embedding import load_embedder
    from vecdb.rerank.e2rank import E2Rank
    from vecdb.rerank.models.encoder import TextEncoder, unit
    from vecdb.rerank.models.loading import load_encoder

    places = _sample(lists, queries)
    documents, plain = vectors_of(judged)
    context = Context(embed=load_embedder("default").embed_queries)  # type: ignore[attr-defined]
    encoder: Any = None
    if model is not None:  # then its vectors, not the default model's, are what is compared
        encoder = TextEncoder(*load_encoder(model), max_tokens=512)
        pool = sorted({int(d) for p in places for d in lists.queries[p].text_docs[:100]})
        documents = documents.copy()
        documents[pool] = encoder.encode([judged.texts[d] for d in pool])
        plain = encoder.encode([query.text for query in lists.queries])
    chance = np.random.default_rng(0)
    orders: dict[str, dict[int, list[int]]] = {}
    seconds: dict[str, float] = {}

    def keep(way: str, order: Callable[[int], list[int]]) -> None:
        since = time.process_time()
        orders[way] = {p: order(p) for p in places}
        seconds[way] = time.process_time() - since

    def listed(p: int) -> list[int]:
        return [int(d) for d in lists.queries[p].text_docs[:100]]

    def by_cosine(p: int, vector: Any) -> list[int]:
        own = listed(p)
        return [own[i] for i in np.argsort(-(documents[own] @ vector), kind="stable")] if own else []

    def by_listwise(shown: Callable[[int], list[int]]) -> Callable[[int], list[int]]:
        reranker = E2Rank(encoder)

        def order(p: int) -> list[int]:
            own = listed(p)
            if not own:
                return []
            # The reranker reads the first 20 of what it is given; scores do not depend on the order.
            given = shown(p) + own
            task = Task(lists.queries[p].text, [_candidate(judged, documents, d) for d in given], len(given))
            ranked = reranker.rerank_batch([task], context)[0]
            places = [r.position - len(given) + len(own) for r in ranked if r.position >= len(given) - len(own)]
            return [own[i] for i in places]

        return order

    def of_another(p: int) -> list[int]:
        other = places[(places.index(p) + 1) % len(places)]
        return listed(other)[:20]

    def rocchio(p: int, count: int, share: float) -> list[int]:
        own = listed(p)[:count]
        mean = documents[own].mean(0) if own else plain[p]
        return by_cosine(p, share * plain[p] + (1 - share) * unit(mean))

    keep("bm25", listed)
    keep("plain query", lambda p: by_cosine(p, plain[p]))
    keep("listwise query", by_listwise(lambda p: listed(p)[:20]))
    keep("random documents", by_listwise(lambda p: chance.permutation(listed(p))[:20].tolist()))
    keep("another query's documents", by_listwise(of_another))
    for count, share in ((5, 0.7), (20, 0.7), (5, 0.5), (20, 0.5)):
        keep(f"rocchio {count} docs, query {share}", lambda p, c=count, s=share: rocchio(p, c, s))
    base = _evaluated(lists, orders["plain query"])
    for way, found in orders.items():
        cost = {"ms": 1e3 * seconds[way] / len(places), "against": "plain query"}
        yield _line("e2rank", judged, way, _evaluated(lists, found), base, cost)


def listwise_lines(
    judged: Judged, lists: Lists, queries: int, *, model: str | None, methods: Sequence[str], depth: int, tokens: int
) -> Iterator[Line]:
    """One line for each method over the hybrid first stage's best `depth`, passages of at most so many tokens."""
    from vecdb.rerank.models.loading import load_chat

    chat = load_chat(model)
    hybrid = by_fusion(Rrf(), lists.documents)
    places = _sample(lists, queries)
    listed = {p: hybrid(lists.queries[p], depth) for p in places}
    first = _evaluated(lists, {p: ranking.rows.tolist() for p, ranking in listed.items()})
    yield _line("listwise", judged, "first stage", first, first, {"ms": 0.0, "against": "first stage"})
    for method in methods:
        reranker = _reranker(method, chat, depth, tokens)
        orders, work, since = {}, dict.fromkeys(_COUNTERS, 0.0), time.process_time()
        for p, ranking in listed.items():
            own = ranking.rows.tolist()
            candidates = [Candidate(str(d), judged.texts[d], float(s)) for d, s in zip(own, ranking.scores)]
            answer: Reranked = reranker.rerank(lists.queries[p].text, candidates, depth)
            orders[p] = [own[r.position] for r in answer]
            for name in _COUNTERS:
                work[name] += answer.counters[name] / len(places)
        cost = {"ms": 1e3 * (time.process_time() - since) / len(places), "against": "first stage", "work": work}
        settings = {"model": model or "smollm2-135m", "candidates": depth, "passage_tokens": tokens}
        yield _line("listwise", judged, method, _evaluated(lists, orders), first, {**cost, **settings})


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


def _candidate(judged: Judged, documents: Any, d: int) -> Candidate:
    return Candidate(judged.ids[d], judged.texts[d], 0.0, embedding=documents[d])


def _sample(lists: Lists, count: int) -> list[int]:
    """Queries by chance, the same for every method."""
    chosen = np.random.default_rng(0).permutation(len(lists.queries))[:count]
    return sorted(chosen.tolist())


def _evaluated(lists: Lists, orders: dict[int, list[int]]) -> Evaluation:
    qrels = {lists.queries[p].id: {str(d): g for d, g in lists.grades[p].items()} for p in orders}
    run = {lists.queries[p].id: [(str(d), -float(i)) for i, d in enumerate(found)] for p, found in orders.items()}
    return evaluate_run(run, qrels, measures=(MEASURE,))


def _line(part: str, judged: Judged, way: str, found: Evaluation, base: Evaluation, more: Line) -> Line:
    gain = paired_bootstrap(found, base, MEASURE)
    return {
        "part": part,
        "set": judged.name,
        "queries": len(found.per_query),
        "way": way,
        MEASURE: found.means[MEASURE],
        "gain": [gain.difference, gain.low, gain.high],
        **more,
    }


def tables(lines: Sequence[Line]) -> list[Table]:
    """A table for each part and set."""
    found = []
    for part, name in dict.fromkeys((line["part"], line["set"]) for line in lines):
        own = [line for line in lines if (line["part"], line["set"]) == (part, name)]
        head = ("order", MEASURE, f"gain over {own[0]['against']}", "CPU ms", "calls", "prompt", "decoded", "void")
        rows = []
        for line in own:
            work = line.get("work", {})
            counts = [work.get(c) for c in ("calls", "prompt_tokens", "decoded_tokens", "failures")]
            gain, low, high = line["gain"]
            rows.append(
                (
                    Cell(line["way"]),
                    Cell(f"{line[MEASURE]:.3f}", -line[MEASURE]),
                    Cell(f"{gain:+.3f} [{low:+.3f}, {high:+.3f}]"),
                    Cell(f"{line['ms']:,.0f}"),
                    *(Cell("-" if count is None else f"{count:,.1f}") for count in counts),
                )
            )
        found.append(Table(f"{part}: {name}, {own[0]['queries']} queries", head, tuple(rows)))
    return found


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.rerank.listwise", description=__doc__)
    parser.add_argument("--sets", nargs="*", default=list(SETS))
    parser.add_argument("--part", choices=("e2rank", "listwise"), action="append")
    parser.add_argument("--queries", type=int, default=20, help="of each set, for the language model")
    parser.add_argument("--embedded-queries", type=int, default=200, help="of each set, for e2rank")
    parser.add_argument("--methods", nargs="*", default=list(METHODS))
    parser.add_argument(
        "--model", help="the language model, as vecdb.rerank takes it; the small offline one without it"
    )
    parser.add_argument("--encoder", help="a trained E2Rank encoder; the default embedding model without it")
    parser.add_argument("--candidates", type=int, default=10)
    parser.add_argument("--passage-tokens", type=int, default=64)
    parser.add_argument("--markdown", action="store_true")
    given = parser.parse_args(list(arguments))
    parts = given.part or ["e2rank", "listwise"]
    described = {**describe_run("rerank"), "torch": version_of("torch"), "transformers": version_of("transformers")}
    path = result_path(results_folder(whole=given.sets == list(SETS)), "rerank-listwise")
    lines: list[Line] = []
    for name in given.sets:
        judged = load(name)
        lists = lists_of(judged)
        found: list[Iterator[Line]] = []
        if "e2rank" in parts:
            found.append(e2rank_lines(judged, lists, given.embedded_queries, given.encoder))
        if "listwise" in parts:
            settings = {"model": given.model, "methods": given.methods}
            depth, tokens = given.candidates, given.passage_tokens
            found.append(listwise_lines(judged, lists, given.queries, depth=depth, tokens=tokens, **settings))
        for line in (line for part in found for line in part):
            lines.append({**described, **line})
            with path.open("a") as file:  # methods take long, and may be measured in several runs
                file.write(json.dumps(lines[-1]) + "\n")
            print(f"{name}: {line['way']} {line[MEASURE]:.3f}", file=sys.stderr, flush=True)
    (show_markdown if given.markdown else show_tables)(tables(lines), [])
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
