"""Relevance feedback (FIRST, arXiv 2406.15657): does a query vector that a reranker taught find more than the one before?

A reranker orders the hybrid first stage's 50; from its 20 best the query vector is taught; recall@100 of an exact search with the
new vector, over the whole collection, beside that with the old one. Teachers: cosine and BM25 together, which any collection
has; the judgements themselves, which are how far a teacher can come; and chance, from which nothing may be learnt.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from bench.rerank.orders import evaluated, line
from bench.rerank.states import hybrid
from bench.retrieval.sets import Judged, Lists, lists_of, load, vectors_of
from vecdb.rerank.base import BatchReranker, Candidate, Context, Reranked, Task, by_score
from vecdb.rerank.blend import Blend
from vecdb.rerank.feedback import Feedback

Line = dict[str, Any]
SETS = ("msmarco-dl19", "nfcorpus-bow", "dbpedia-50", "cranfield", "scifact", "cosqa")
METHODS = ("ranknet", "kl", "rocchio")
_LOOKED_AT, _DEPTH = 50, 100
_BINARY = {"msmarco-dl19": 2, "msmarco-dl21": 2}  # from which grade on a document is relevant


class ByGrade(BatchReranker):
    """The judgements as a reranker; its tasks are told apart by their query's id, which stands in their place."""

    def __init__(self, grades: dict[str, dict[int, int]]) -> None:
        self._grades = grades

    def rerank_batch(self, tasks: Sequence[Task], context: Context) -> list[Reranked]:
        return [Reranked(by_score(self._scores(task), task.k)) for task in tasks]

    def _scores(self, task: Task) -> list[float]:
        return [float(self._grades[task.query].get(int(c.id), 0)) for c in task.candidates]


class ByChance(BatchReranker):
    def rerank_batch(self, tasks: Sequence[Task], context: Context) -> list[Reranked]:
        chance = np.random.default_rng(0)
        return [Reranked(by_score(chance.random(len(task.candidates)).tolist(), task.k)) for task in tasks]


def study(names: Sequence[str]) -> Iterator[Line]:
    for name in names:
        judged = load(name)
        yield from _taught(judged, lists_of(judged), *vectors_of(judged))


def _taught(judged: Judged, lists: Lists, documents: Any, queries: Any) -> Iterator[Line]:
    measure = f"R(rel={_BINARY.get(judged.name, 1)})@{_DEPTH}"
    places = [p for p, grades in enumerate(lists.grades) if max(grades.values()) >= _BINARY.get(judged.name, 1)]
    found = hybrid(lists)
    tasks = []
    for p in places:
        query = lists.queries[p]
        words = dict(zip(query.text_docs.tolist(), query.text_scores.tolist()))
        candidates = [
            Candidate(str(d), None, s, embedding=documents[d], scores={"text": words[d]} if d in words else {})
            for d, s in found[p][:_LOOKED_AT]
        ]
        tasks.append(Task(query.id, candidates, 10, queries[p]))

    def searched(vectors: Any) -> dict[int, list[int]]:
        scores = np.asarray(vectors) @ documents.T
        return {p: np.argsort(-own, kind="stable")[:_DEPTH].tolist() for p, own in zip(places, scores)}

    before = evaluated(lists, searched(queries[places]), measure)
    about: Line = {"against": "before", "measure": measure}
    yield _line(judged, "before", before, before, about, measure)
    grades = {query.id: own for query, own in zip(lists.queries, lists.grades)}
    teachers: dict[str, Any] = {
        "cosine and BM25": Blend(of=("cosine",), lists={"text": 1.0}, given=0.0),
        "judgements": ByGrade(grades),
        "chance": ByChance(),
    }
    for teacher, by in teachers.items():
        for method in METHODS:
            stage = Feedback(by=by, method=method)  # type: ignore[arg-type]
            answers = stage.rerank_batch(tasks, Context())
            refined = stage.refine(tasks, answers, Context())
            after = evaluated(lists, searched(refined), measure)
            yield _line(judged, f"{method}, taught by {teacher}", after, before, about, measure)


def _line(judged: Judged, way: str, found: Any, base: Any, about: Line, measure: str) -> Line:
    made = line(judged, way, found, base, about, measure)
    return {**made, "recall": made.pop(measure)}
