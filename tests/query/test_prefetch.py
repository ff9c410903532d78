"""Searches over the candidates of others, against the same made of single searches."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import vecdb
from vecdb.index.exact import ExactIndex
from vecdb.query.fusion import Rrf
from vecdb.vector_view import VectorView

WORDS = ["wing", "flow", "plate", "heat", "drag"]
SIZE = 50


@pytest.fixture(scope="module", params=[False, True], ids=["cold", "warm"])
def docs(request: pytest.FixtureRequest) -> Iterator[vecdb.Collection]:
    rng = np.random.default_rng(2)
    with vecdb.open(":memory:", background=False) as db:
        docs = db.collection("c", dimension=3)
        docs.add(
            {
                "id": f"r{i}",
                "metadata": {"n": i, "even": i % 2 == 0},
                **({"vector": rng.standard_normal(3).round(1) + 0.01} if i % 7 else {}),
                **({"text": " ".join(rng.choice(WORDS, size=rng.integers(1, 6)))} if i % 5 else {}),
            }
            for i in range(SIZE)
        )
        if request.param:
            docs.warm()
        yield docs


STEP = st.fixed_dictionaries(
    {"k": st.integers(1, 20), "mode": st.sampled_from(["vector", "text", "hybrid"])},
    optional={
        "offset": st.integers(0, 3),
        "where": st.sampled_from([{"even": True}, {"n": {"$lt": 30}}]),
        "boosts": st.just([{"field": "n", "modifier": "log1p", "weight": 0.5}]),
        "query": st.just("heat drag"),
    },
)
ASKED: dict[str, Any] = {"query": "wing flow", "vector": [0.3, -1.0, 0.2]}


def alone(docs: vecdb.Collection, step: dict[str, Any], where: dict[str, Any] | None) -> vecdb.Hits:
    """A prefetch as a search of its own."""
    asked = {**ASKED, **step}
    if "query" in step and step["mode"] != "text":
        asked["vector"] = [1.0, 0.0, 0.0]
    both = [filter for filter in (where, step.get("where")) if filter is not None]
    hits: vecdb.Hits = docs.search(**{**asked, "where": {"$and": both} if both else None})
    return hits


def given_vector(step: dict[str, Any]) -> dict[str, Any]:
    """A step with a query of its own needs a vector of its own."""
    return {**step, "vector": [1.0, 0.0, 0.0]} if "query" in step and step["mode"] != "text" else step


@settings(max_examples=60)
@given(
    steps=st.lists(STEP, min_size=1, max_size=3),
    mode=st.sampled_from(["auto", "vector", "text", "hybrid"]),
    where=st.sampled_from([None, {"n": {"$gte": 5}}]),
)
def test_it_is_what_single_searches_make(
    docs: vecdb.Collection, steps: list[dict[str, Any]], mode: Any, where: dict[str, Any] | None
) -> None:
    hits = docs.search(**ASKED, prefetch=[given_vector(step) for step in steps], mode=mode, where=where, k=SIZE)
    lists = [alone(docs, step, where) for step in steps]
    wanted: dict[str, float] = {}
    if mode == "auto":
        for found in lists:
            for rank, hit in enumerate(found, 1):
                added = hit.score if len(lists) == 1 else 1 / (60 + rank)
                wanted[hit.id] = wanted.get(hit.id, 0.0) + added
    else:
        pool = sorted({hit.metadata["n"] for found in lists for hit in found})
        if pool:
            among = docs.search(**ASKED, mode=mode, where={"n": {"$in": pool}}, k=SIZE)
            wanted = dict(zip(among.ids, among.scores))
    assert dict(zip(hits.ids, hits.scores)) == pytest.approx(wanted, rel=1e-6, abs=1e-6)
    assert hits.scores == sorted(hits.scores, reverse=True)


def test_a_batch_is_its_queries_one_by_one(docs: vecdb.Collection) -> None:
    texts = ["wing flow", "heat", "nothing of this", "plate plate"]
    vectors = np.array([[1, 0, 0], [0, 1, 0], [0.5, 0.5, 0], [0, 0, -1.0]])
    for mode in ("auto", "vector", "text", "hybrid"):
        for steps in (
            [{"mode": "text", "k": 9}],
            [{"k": 7}, {"query": "drag", "mode": "text"}, {"mode": "vector", "k": 3}],
        ):
            options: dict[str, Any] = {"mode": mode, "prefetch": steps, "k": 6}
            several = docs.search(texts, vector=vectors, **options)
            single = [docs.search(text, vector=vector, **options) for text, vector in zip(texts, vectors)]
            assert [hits.ids for hits in several] == [hits.ids for hits in single]
            assert [hits.scores for hits in several] == [pytest.approx(hits.scores) for hits in single]


def test_pages_follow_one_another(docs: vecdb.Collection) -> None:
    steps: list[dict[str, Any]] = [{"mode": "text"}, {"mode": "vector"}]
    whole = docs.search(**ASKED, prefetch=steps, k=9)
    first = docs.search(**ASKED, prefetch=steps, k=4)
    second = docs.search(**ASKED, prefetch=steps, k=5, cursor=first.cursor)
    assert first.ids + second.ids == whole.ids
    with pytest.raises(vecdb.InvalidQuery, match="another search"):
        docs.search(**ASKED, prefetch=steps[:1], k=5, cursor=first.cursor)


def test_a_search_needs_no_query_if_its_prefetches_have_one(docs: vecdb.Collection) -> None:
    assert docs.search(prefetch=[{"query": "wing", "k": 4}]).ids == docs.search("wing", k=4).ids
    with pytest.raises(vecdb.InvalidQuery, match=r"prefetch\[1\]: there is no query"):
        docs.search(prefetch=[{"query": "wing"}, {}])
    with pytest.raises(vecdb.InvalidQuery, match="there is no query"):
        docs.search(prefetch=[{"query": "wing"}], mode="vector")


def test_an_empty_prefetch_leaves_nothing(docs: vecdb.Collection) -> None:
    for mode in ("auto", "vector", "text", "hybrid"):
        steps = [{"where": {"n": -1}}, {"query": "unheard", "mode": "text"}]
        assert docs.search(**ASKED, prefetch=steps, mode=mode).ids == []  # type: ignore[arg-type]
        many = docs.search(["wing", "flow"], vector=np.eye(3)[:2], prefetch=steps, mode=mode)  # type: ignore[arg-type]
        assert [hits.ids for hits in many] == [[], []]


def test_later_stages_work_on_what_was_prefetched(docs: vecdb.Collection) -> None:
    pool = set(docs.search("wing", mode="text", k=12).ids)
    steps = [{"mode": "text", "k": 12}]
    for options in ({"select": "mmr"}, {"distinct": "even", "per_group": 2}, {"min_score": 0.1}, {"mode": "vector"}):
        hits = docs.search("wing", vector=[1, 0, 0], prefetch=steps, k=4, **options)  # type: ignore[arg-type]
        assert hits.ids
        assert set(hits.ids) <= pool


def test_fusions_take_as_many_lists_as_there_are(docs: vecdb.Collection) -> None:
    three = [{"mode": "text"}, {"mode": "vector"}, {"query": "drag", "mode": "text"}]
    for fusion in ("rrf", "weighted", "zscore", "distribution", "combmnz", {"kind": "rrf", "k": 5}):
        assert docs.search(**ASKED, prefetch=three, fusion=fusion).ids
    weighted = docs.search(**ASKED, prefetch=three, fusion=Rrf(weights=(0.0, 1.0, 0.0)), k=5)
    assert [hit.score > 0 for hit in weighted] == [True] * 5
    for fusion in ("adaptive", "vstash", Rrf(), {"kind": "rrf", "weights": [1, 2]}):
        with pytest.raises(vecdb.InvalidQuery, match="2 weights for 3 lists"):
            docs.search(**ASKED, prefetch=three, fusion=fusion)  # type: ignore[arg-type]
    assert docs.search(**ASKED, prefetch=three[1::-1], fusion="adaptive").ids


def nested(depth: int) -> list[dict[str, Any]]:
    return [{"mode": "text"}] if depth == 1 else [{"prefetch": nested(depth - 1)}]


def test_there_is_an_end_to_nesting(docs: vecdb.Collection) -> None:
    assert docs.search("wing", prefetch=nested(4)).ids == docs.search("wing", mode="text").ids
    with pytest.raises(vecdb.InvalidQuery, match="nested 5 deep"):
        docs.search("wing", prefetch=nested(5))
    with pytest.raises(vecdb.InvalidQuery, match="33 prefetches"):
        docs.search("wing", prefetch=[{}] * 33)


@pytest.mark.parametrize(
    ("prefetch", "place"),
    [
        ("text", "prefetch"),
        ({"mode": "text"}, "prefetch"),
        (["text"], "prefetch[0]"),
        ([{}, {"k": 0}], "prefetch[1].k"),
        ([{"mode": "best"}], "prefetch[0].mode"),
        ([{"modus": "text"}], "prefetch[0].modus"),
        ([{}, {"where": {"year": {"$around": 1}}}], "prefetch[1].where.year"),
        ([{"where": {"$or": [{"a": 1}, {"b": {"$gt": None}}]}}], "prefetch[0].where.$or[1].b.$gt"),
        (
            [{"prefetch": [{}, {"boosts": [{"where": {}, "weight": 1}, {"field": "n"}]}]}],
            "prefetch[0].prefetch[1].boosts[1]",
        ),
        ([{"snippets": True}], "prefetch[0].snippets"),
        ([{"vectors": True}], "prefetch[0].vectors"),
        ([{"vector": [[1, 2, 3]]}], "prefetch[0].vector"),
        ([{"fusion": {"kind": "rrf", "of": 1}}], "prefetch[0].fusion"),
        ([{"select": "most"}], "prefetch[0].select"),
        ([{"graph": {"beta": 2}}], "prefetch[0].graph"),
        ([{"recommend": {"positive": [[1, 2], []]}}], "prefetch[0].recommend.positive[1]"),
        ([{"discover": {"context": [("a",)]}}], "prefetch[0].discover.context[0]"),
        ([{"vector": [1, 2]}], "prefetch[0]"),
    ],
)
def test_mistakes_are_named_with_their_place(docs: vecdb.Collection, prefetch: Any, place: str) -> None:
    with pytest.raises(vecdb.InvalidInput) as caught:
        docs.search("wing", prefetch=prefetch)
    assert caught.value.path == place
    assert "[" not in place or str(caught.value).startswith(f"{place}: ")


def test_a_view_knows_which_slots_have_vectors() -> None:
    """Over an index with gaps, a tail, and slots beside both."""
    vectors = np.arange(1, 15, dtype=np.float32).reshape(7, 2)
    slots = np.array([0, -1, 3, 4, -1], dtype=np.int64)  # of the index; 1 and 2 never had a vector
    live = np.ones(9, dtype=np.bool_)
    view = VectorView("l2").with_tail(vectors[5:], np.array([6, 8]))
    view = view.with_index(ExactIndex.over(vectors[:5], "l2"), slots, 6, 1, live, np.arange(1, 10))
    every = np.arange(9)
    known = [0, 3, 4, 6, 8]
    assert np.flatnonzero(view.holds(every)).tolist() == known
    assert np.flatnonzero(VectorView("l2").holds(every)).tolist() == []
    assert not view.holds(np.array([-1, 99])).any()
    assert view.holds(np.zeros(0, dtype=np.int64)).tolist() == []
    assert view.vectors_at(np.array(known)).tolist() == vectors[[0, 2, 3, 5, 6]].tolist()
