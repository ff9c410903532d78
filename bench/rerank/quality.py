"""What a second look is worth on judged collections, and what it costs: the same candidates, other orders."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from bench.data import data_folder
from bench.intervals import mean_interval
from bench.rerank.heads import Set
from bench.rerank.states import states_of
from bench.retrieval.candidates import read_run
from bench.retrieval.sets import QueryLists, lists_of, load, vectors_of
from vecdb.query.fusion import Adaptive, Fusion
from vecdb.rerank.base import BatchReranker, Candidate, Context, Ranked, Task, TokenEncoder
from vecdb.rerank.blend import Blend
from vecdb.rerank.cosine import Cosine
from vecdb.rerank.late_interaction import MaxSim
from vecdb.rerank.tokens import Tokens, encode_tokens

Line = dict[str, Any]
Order = list[tuple[int, float]]

RERANKERS: dict[str, BatchReranker] = {
    "cosine": Cosine(),
    "maxsim": MaxSim(),
    "maxsim + cosine": Blend(lists={}, given=0.0),
    "blend without the first stage": Blend(given=0.0),
    "blend with the first stage": Blend(),
    "maxsim, alpha 0.3": MaxSim(alpha=0.3),
    "maxsim, beta 8": MaxSim(beta=8),
}
# A search's own fusion learned its weights on these collections' judgements: to reranking it is the harder start.
FIRST_STAGES: dict[str, Fusion | None] = {"RRF": None, "adaptive": Adaptive()}
ALPHAS: tuple[float | None, ...] = (None, 0.3, 0.2, 0.15, 0.1, 0.05, 0.025)
BETAS: tuple[int | None, ...] = (None, 2, 4, 8, 16, 32)


def compared(name: str, first_stage: str = "RRF", looked_at: int = 50) -> Iterator[Line]:
    """Each reranker on the hybrid candidates of one collection, with its difference to the first stage's order."""
    judged, documents, queries = Set.of(name, FIRST_STAGES[first_stage]), *vectors_of(load(name))
    encoder = _Stored(judged)
    candidates = [query[:looked_at] for query in judged.candidates]
    first = judged.ndcg([found[:10] for found in candidates])
    told = {"first_stage": first_stage}
    yield _line(name, f"first stage ({first_stage})", first, first, {"documents": looked_at, **told})
    for alone, lists in _single(judged).items():
        yield _line(name, alone, judged.ndcg(lists), first, told)
    for label, reranker in RERANKERS.items():
        tasks = [
            Task(query.text, _candidates(encoder, found, query, documents), 10, vector)
            for query, found, vector in zip(judged.lists.queries, candidates, queries)
        ]
        orders, work = _ordered(reranker, tasks, encoder)
        yield _line(name, label, judged.ndcg(orders), first, {**work, **told})


def pruning(name: str, run: str) -> Iterator[Line]:
    """Candidates pruning and early exit on another system's list of 100, beside taking fewer candidates at once (k = 10)."""
    judged = load(name)
    place = {id: i for i, id in enumerate(judged.ids)}
    given = read_run(data_folder() / "text" / name / "runs" / f"{run}.tsv.gz")
    candidates = [[(place[d], s) for d, s in given[query] if d in place] for query in judged.queries]
    wanted = [document for found in candidates for document, _ in found]
    states = states_of(judged, wanted, list(judged.queries.values()), run)
    whole = Set(name, lists_of(judged), candidates, states)
    encoder = _Stored(whole)
    tasks = [
        Task(query, [_candidate(encoder, d, s, None) for d, s in found], 10)
        for query, found in zip(judged.queries.values(), candidates)
    ]
    full: dict[str, float] | None = None
    for label, reranker, depth in _grid():
        cut = [Task(t.query, t.candidates[:depth], t.k) for t in tasks]
        orders, work = _ordered(reranker, cut, encoder)
        found = whole.ndcg(orders)
        full = full or found
        settings = {"alpha": reranker.alpha, "beta": reranker.beta, "depth": depth}
        yield {**_line(name, label, found, full, work), "run": run, **settings}


def _grid() -> Iterator[tuple[str, MaxSim, int]]:
    yield "all 100", MaxSim(), 100
    for alpha in ALPHAS:
        for beta in BETAS:
            if alpha is not None or beta is not None:
                yield "pruned", MaxSim(alpha=alpha, beta=beta), 100
    for depth in range(10, 100, 5):
        yield "fewer", MaxSim(), depth


def _single(judged: Set) -> dict[str, list[Order]]:
    return {
        "BM25": [list(zip(q.text_docs[:10].tolist(), q.text_scores[:10].tolist())) for q in judged.lists.queries],
        "vector": [list(zip(q.vector_docs[:10].tolist(), q.vector_scores[:10].tolist())) for q in judged.lists.queries],
    }


class _Stored:
    """The default encoder whose states were made before: document 7 is the text "7", the first query asked for is the first."""

    name = "stored"

    def __init__(self, judged: Set) -> None:
        from vecdb.embedding.late import default_head

        head = default_head()
        self.dimension = head.config.dimension
        self.tokens: dict[int, Tokens] = {
            d: encode_tokens(head.project(s), "int8") for d, s in judged.states.documents.items()
        }
        self._queries = [head.project(query) for query in judged.states.queries]

    def encode_queries(self, texts: Sequence[str]) -> list[Any]:
        return self._queries[: len(texts)]

    def encode_documents(self, texts: Sequence[str]) -> list[Any]:
        raise NotImplementedError("all candidates have stored tokens")


def _candidate(encoder: _Stored, document: int, score: float, vectors: Any) -> Candidate:
    embedding = None if vectors is None else vectors[document]
    return Candidate(str(document), None, score, embedding=embedding, tokens=encoder.tokens[document])


def _candidates(encoder: _Stored, found: Order, query: QueryLists, vectors: Any) -> list[Candidate]:
    lists = {
        "vector": dict(zip(query.vector_docs.tolist(), query.vector_scores.tolist())),
        "text": dict(zip(query.text_docs.tolist(), query.text_scores.tolist())),
    }
    return [
        replace(
            _candidate(encoder, d, score, vectors), scores={n: known[d] for n, known in lists.items() if d in known}
        )
        for d, score in found
    ]


def _ordered(reranker: BatchReranker, tasks: list[Task], encoder: TokenEncoder) -> tuple[list[Order], Line]:
    """All queries at once; ms a query of the reranking itself, in processor time."""
    context = Context(encoder=encoder)
    reranker.rerank_batch(tasks[:1], context)
    since = time.process_time()
    answers = reranker.rerank_batch(tasks, context)
    ms = (time.process_time() - since) * 1e3 / len(tasks)
    orders = [[(_document(task, r), r.score) for r in answer] for task, answer in zip(tasks, answers)]
    scored = float(np.mean([_scored(answer.counters) for answer in answers]))
    return orders, {"scored": scored, "ms": ms}


def _scored(counters: Mapping[str, Any]) -> int:
    """By the reranker, or by the parts of a blend together."""
    parts = [part for part in counters.values() if isinstance(part, Mapping)]
    return int(counters.get("scored", 0)) + sum(_scored(part) for part in parts)


def _document(task: Task, ranked: Ranked) -> int:
    return int(task.candidates[ranked.position].id)


def _line(name: str, label: str, found: dict[str, float], base: dict[str, float], work: Line) -> Line:
    """With the mean difference to base and its 95 % interval by paired bootstrap."""
    difference, low, high = mean_interval([found[query] - base[query] for query in base])
    return {
        "set": name,
        "way": label,
        "queries": len(base),
        "ndcg": float(np.mean(list(found.values()))),
        "difference": difference,
        "low": low,
        "high": high,
        **work,
    }


def encoding_ms(names: Sequence[str], queries: int = 50) -> Iterator[Line]:
    """What encoding a query costs, and a whole second look at 50 candidates with it, on one thread."""
    from vecdb.embedding.late import MiniLMTokens
    from vecdb.embedding.minilm import MiniLM

    encoder = MiniLMTokens(model=MiniLM(threads=1))
    for name in names:
        texts = list(load(name).queries.values())[:queries]
        encoder.encode_queries(texts[:2])
        since = time.process_time()
        for text in texts:
            encoder.encode_queries([text])
        yield {"set": name, "way": "encoding a query", "ms": (time.process_time() - since) * 1e3 / len(texts)}
