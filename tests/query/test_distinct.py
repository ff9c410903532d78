"""Constrained neighbours: so many different groups come back as there are, however crowded one of them is."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import vecdb
from vecdb.query.distinct import Crowds

DIMENSION, CROWD, OTHERS = 8, 5_000, 60


def crowded(docs: Any, *, warm: bool) -> tuple[Any, Any, list[str | None]]:
    """A group of 5,000 near copies of the query, and 60 records of 20 other groups (and of none), farther from it."""
    rng = np.random.default_rng(0)
    query = rng.standard_normal(DIMENSION)
    copies = query + 0.01 * rng.standard_normal((CROWD, DIMENSION))
    others = query + rng.uniform(0.5, 2, (OTHERS, 1)) * rng.standard_normal((OTHERS, DIMENSION))
    vectors = np.concatenate([copies, others]).astype(np.float32)
    parents = ["crowd"] * CROWD + [None if i % 12 == 0 else f"p{i % 20}" for i in range(OTHERS)]
    texts = ["fox fox fox"] * CROWD + [f"fox and {i} other words" for i in range(OTHERS)]
    metadata = [{"n": i % 7, "odd": bool(i % 2), "who": {"name": parent}} for i, parent in enumerate(parents)]
    docs.add(
        ids=[f"r{i}" for i in range(len(parents))], vectors=vectors, texts=texts, parents=parents, metadata=metadata
    )
    if warm:
        docs.optimize()
        docs.warm()
    return query, vectors / np.linalg.norm(vectors, axis=1, keepdims=True), parents


def oracle(query: Any, vectors: Any, parents: list[str | None], k: int, per_group: int, keep: Any = None) -> list[str]:
    """The nearest, one after the other, as long as their group is not full."""
    order = np.argsort(-(vectors.astype(np.float64) @ (query / np.linalg.norm(query))), kind="stable")
    counts: dict[str, int] = {}
    ids = []
    for number in order.tolist():
        if keep is not None and not keep(number):
            continue
        parent = parents[number]
        if parent is not None:
            counts[parent] = counts.get(parent, 0) + 1
            if counts[parent] > per_group:
                continue
        ids.append(f"r{number}")
    return ids[:k]


@pytest.fixture(scope="module", params=["cold", "warm"])
def crowd(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    with vecdb.open(tmp_path_factory.mktemp("crowd") / "c.vecdb", background=False) as db:
        docs = db.collection("c", dimension=DIMENSION)
        yield docs, *crowded(docs, warm=request.param == "warm")


def test_plain_search_collapses_onto_the_crowd(crowd: Any) -> None:
    docs, query, _, _ = crowd
    assert {hit.parent for hit in docs.search(query, k=20)} == {"crowd"}


@pytest.mark.parametrize("per_group", [1, 2])
@pytest.mark.parametrize("k", [1, 5, 20, 100])
def test_the_nearest_of_different_groups_come_back(crowd: Any, k: int, per_group: int) -> None:
    docs, query, vectors, parents = crowd
    hits = docs.search(query, k=k, distinct="parent", per_group=per_group)
    assert hits.ids == oracle(query, vectors, parents, k, per_group)
    assert hits.scores == sorted(hits.scores, reverse=True)
    assert docs.search(query, k=k, distinct="who.name", per_group=per_group).ids == hits.ids


def test_filters_pages_and_batches_hold(crowd: Any) -> None:
    docs, query, vectors, parents = crowd
    odd = docs.search(query, k=9, distinct="parent", where={"odd": True})
    assert odd.ids == oracle(query, vectors, parents, 9, 1, lambda number: number % 2)
    ids, page = [], docs.search(query, k=4, distinct="parent")
    while page.cursor is not None:
        ids += page.ids
        page = docs.search(query, k=4, distinct="parent", cursor=page.cursor)
    assert ids + page.ids == oracle(query, vectors, parents, 999, 1)
    batch = docs.search(np.stack([query, -query]), k=7, distinct="parent")
    assert [hits.ids for hits in batch] == [docs.search(q, k=7, distinct="parent").ids for q in (query, -query)]


@pytest.mark.parametrize(
    "options",
    [
        {"mode": "text"},
        {"mode": "hybrid"},
        {"mode": "hybrid", "fusion": "rrf"},
        {"mode": "text", "syntax": "query"},
        {"mode": "hybrid", "rerank": {"kind": "cosine"}},
        {"mode": "hybrid", "boosts": [{"where": {"n": 3}, "weight": 2}]},
        {"mode": "vector", "select": "mmr"},
        {"mode": "hybrid", "candidates": 30},
        {"mode": "hybrid", "where": {"odd": False}},
        {"mode": "hybrid", "near": {"n": (3, 2)}},
    ],
)
def test_every_kind_of_search_finds_so_many_groups(crowd: Any, options: dict[str, Any]) -> None:
    docs, query, _, _ = crowd
    hits = docs.search("fox", vector=query, k=15, distinct="parent", **options)
    assert len(hits) == 15
    named = [hit.parent for hit in hits if hit.parent is not None]
    assert len(named) == len(set(named))


def test_by_examples_too(crowd: Any) -> None:
    docs = crowd[0]
    for strategy in ("average", "best_score"):
        hits = docs.search(recommend={"positive": ["r0", "r1"], "strategy": strategy}, k=12, distinct="parent")
        assert len({hit.parent or hit.id for hit in hits}) == len(hits) == 12
        assert not {"r0", "r1"} & set(hits.ids)


def test_a_member_of_a_full_group_is_told_so(crowd: Any) -> None:
    docs, query, _, _ = crowd
    first = docs.search(query, k=1).ids[0]
    for id in ("r17", "r4999"):
        if id == first:
            continue
        why = docs.why_not(id, query, k=5, distinct="parent")
        assert why.stage == "group"
        assert "crowd" in why.reason
        assert id in docs.search(query, **{"k": 5, "distinct": "parent", **why.change}).ids


def test_groups_follow_writes(db: vecdb.Database) -> None:
    docs = db.collection("c", dimension=2)
    docs.add(ids=["a", "b", "c"], vectors=[[1, 0], [1, 0.1], [1, 0.2]], parents=["x", "x", "y"])
    assert docs.search([1, 0], distinct="parent").ids == ["a", "c"]
    docs.update(ids=["b"], parents=["z"])
    assert docs.search([1, 0], distinct="parent").ids == ["a", "b", "c"]
    docs.delete("a")
    assert docs.search([1, 0], distinct="parent").ids == ["b", "c"]
    docs.add(ids=["d"], vectors=[[1, 0]], parents=["z"])
    assert docs.search([1, 0], distinct="parent").ids == ["d", "c"]


def test_values_of_any_type_are_groups_and_lists_are_none(db: vecdb.Database) -> None:
    docs = db.collection("c", dimension=2)
    values: list[Any] = [1, 1.0, True, "1", None, [1], [1], 2**60, 2**60]
    docs.add(
        ids=[str(i) for i in range(len(values))],
        vectors=[[1, 0.01 * i] for i in range(len(values))],
        metadata=[{"v": value} for value in values],
    )
    assert docs.search([1, 0], distinct="v").ids == ["0", "2", "3", "4", "5", "6", "7"]
    crowds = Crowds(docs._engine.retrieval.columns(), "v")
    numbers = crowds.of(np.arange(1, len(values) + 1))
    assert [crowds.key(number) for number in numbers.tolist()] == [1, 1, True, "1", None, None, None, 2**60, 2**60]
