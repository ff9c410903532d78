"""Ways of joining two lists, each measured on the same lists: nDCG@10 of a search for 10, recall@100 of one for 100."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from bench.retrieval.sets import Lists, QueryLists
from vecdb.evaluation import Evaluation, evaluate_run
from vecdb.query.fusion import Evidence, Fusion, fuse
from vecdb.query.ranking import Ranking

MEASURES = {"nDCG@10": 10, "R@100": 100}  # and how many hits are asked for

Ranker = Callable[[QueryLists, int], Ranking]  # the query's lists and k -> the first k


def given(query: QueryLists, k: int, depth: int, documents: int) -> tuple[list[Ranking], Evidence]:
    """What a fusion is given: both lists, and what is known of the query."""
    lists = [
        Ranking("vector", query.vector_docs[:depth].astype(np.int64), query.vector_scores[:depth]),
        Ranking("text", query.text_docs[:depth].astype(np.int64), query.text_scores[:depth]),
    ]
    frequencies = tuple(query.frequencies.tolist())
    return lists, Evidence(k, len(query.text.split()), query.stems, frequencies, documents)


def by_fusion(fusion: Fusion, documents: int) -> Ranker:
    """As the engine does it: lists as long as the fusion asks for."""

    def rank(query: QueryLists, k: int) -> Ranking:
        lists, evidence = given(query, k, fusion.pool(k + 1), documents)
        return fuse(lists, fusion, evidence).ranking.first(k)

    return rank


def by_vector(query: QueryLists, k: int) -> Ranking:
    return Ranking("vector", query.vector_docs[:k].astype(np.int64), query.vector_scores[:k])


def by_text(query: QueryLists, k: int) -> Ranking:
    return Ranking("text", query.text_docs[:k].astype(np.int64), query.text_scores[:k])


def evaluate(lists: Lists, ranker: Ranker) -> Evaluation:
    """Both measures over every query, by ir-measures."""
    qrels = {query.id: {str(d): g for d, g in grades.items()} for query, grades in zip(lists.queries, lists.grades)}
    parts = []
    for measure, k in MEASURES.items():
        run = {}
        for query in lists.queries:
            found = ranker(query, k)
            run[query.id] = [(str(d), float(s)) for d, s in zip(found.rows.tolist(), found.scores)]
        parts.append(evaluate_run(run, qrels, measures=(measure,)))
    means = {name: value for part in parts for name, value in part.means.items()}
    queries = parts[0].per_query
    return Evaluation(means, {q: {n: v for part in parts for n, v in part.per_query[q].items()} for q in queries})
