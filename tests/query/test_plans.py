"""Generated plans on small collections: each hit's score recomputes from its trace, and why_not's remedies work."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, reject, settings
from hypothesis import strategies as st
from recompute import recomputed

import vecdb
from vecdb import SearchPlan
from vecdb.query.fusion import FUSIONS, Rrf, Weighted
from vecdb.query.retrieval import Found, Retrieval
from vecdb.query.selection import Coverage, Dpp, KCenter, Mmr
from vecdb.rerank.base import Candidate, Ranked

WORDS = ["wing", "flow", "plate", "heat", "drag", "lift", "duct", "noise"]


class ByLength:
    """Prefers long texts, and looks at no more than `most` candidates, if that is given."""

    def __init__(self, most: int | None = None, without: str | None = None) -> None:
        self._most = most
        self._without = without

    def rerank(self, query: str, candidates: Sequence[Candidate], k: int) -> list[Ranked]:
        able = [i for i, c in enumerate(candidates[: self._most]) if c.id != self._without]
        able.sort(key=lambda i: -len(candidates[i].text or ""))
        return [Ranked(i, float(len(candidates[i].text or ""))) for i in able[:k]]


def filled(db: vecdb.Database, seed: int, size: int) -> vecdb.Collection:
    """Records with ties, copies, parents, and some without a vector or a text."""
    rng = random.Random(seed)
    vectors = np.random.default_rng(seed).standard_normal((size, 4)).round(1)
    collection = db.collection(f"c{seed}", dimension=4)
    records: list[dict[str, Any]] = []
    for i in range(size):
        record: dict[str, Any] = {
            "id": f"r{i}",
            "metadata": {"n": i, "even": i % 2 == 0},
            "parent": f"p{rng.randrange(1 + size // 3)}",
        }
        if rng.random() < 0.9:
            record["vector"] = vectors[i] if rng.random() < 0.7 or not i else vectors[i // 2]
            record["vector"][0] += 0.05 if not np.any(record["vector"]) else 0.0
        if rng.random() < 0.9 or "vector" not in record:
            record["text"] = " ".join(rng.choices(WORDS, k=rng.randrange(1, 8)))
        records.append(record)
    collection.add(records)
    return collection


SELECTS = st.sampled_from(
    [
        "topk",
        "coverage",
        "mmr",
        "kcenter",
        "dpp",
        Coverage(1, 0, 0, pool=7),
        Mmr(0.8, pool=5),
        KCenter(9),
        Dpp(0.5, pool=6),
    ]
)


BOOSTS: list[dict[str, Any]] = [
    {"where": {"even": True}, "weight": 1.5},
    {"where": {"n": {"$lt": 9}}, "weight": 0.0},
    {"where": {"even": False}, "weight": -0.3, "op": "add"},
    {"field": "n", "modifier": "log1p", "weight": 0.2},
    {"field": "absent", "modifier": "sqrt", "missing": 4, "op": "add"},
    {"field": "n", "decay": "gauss", "origin": 10, "scale": 5},
    {"field": "n", "decay": "linear", "origin": 0, "scale": 8, "weight": 0.5, "offset": 2, "at": 0.2},
    {"field": "$created", "decay": "exp", "scale": "30d"},
]
# ID stands for a record that has a vector.
EXAMPLES: list[dict[str, Any]] = [
    {"recommend": {"positive": [[0.6, -0.3, 0.1, 0.5], "ID"], "negative": [[0.1, 0.2, 0.9, 0]]}},
    {"recommend": {"positive": "ID", "negative": [[0.1, 0.2, 0.9, 0]], "strategy": "best_score"}},
    {"recommend": {"negative": ["ID", [1, 1, 0, 0]], "strategy": "best_score"}},
    {"discover": {"target": "ID"}},
    {"discover": {"target": [1, 1, 0, 0], "context": [("ID", [0, 0, 1, 0]), ([1, 0, 0, 0], [0, 1, 0, 0])]}},
    {"discover": {"context": [("ID", [0, 0, 1, 0])]}},
]


@st.composite
def nested_plans(draw: st.DrawFn, nesting: int = 2) -> dict[str, Any]:
    """Options of a search with prefetches, boosts and examples."""
    plan = draw(plans())
    plan["boosts"] = draw(st.lists(st.sampled_from(BOOSTS), max_size=3))
    plan |= draw(st.sampled_from([{}, {}, *EXAMPLES]))
    plan |= draw(st.sampled_from([{}, {}, {"graph": {"beta": 0.4}}]))
    if nesting:
        plan["prefetch"] = draw(st.lists(nested_plans(nesting=nesting - 1), max_size=3))
        if plan["prefetch"] and draw(st.booleans()):
            kinds = [name for name in FUSIONS if len(plan["prefetch"]) == 2 or name not in ("adaptive", "vstash")]
            plan |= {"mode": "auto", "fusion": draw(st.sampled_from(kinds))}
    if nesting < 2:
        plan |= draw(st.sampled_from([{}, {"query": "plate flow"}, {"query": "drag", "vector": [0.0, 1.0, 0.2, 0.0]}]))
        if "vector" in plan and ("recommend" in plan or "discover" in plan):
            del plan["vector"]
    return plan


def with_examples(plan: Any, id: str) -> Any:
    if isinstance(plan, dict):
        return {name: with_examples(value, id) for name, value in plan.items()}
    if isinstance(plan, list | tuple):
        return type(plan)(with_examples(value, id) for value in plan)
    return id if plan == "ID" else plan


def asking(plan: dict[str, Any]) -> dict[str, Any]:
    """Examples take the place of the vector."""
    return {**plan, **({"query": "wing heat"} if "recommend" in plan or "discover" in plan else QUERIES)}


@st.composite
def plans(draw: st.DrawFn) -> dict[str, Any]:
    """Options of a search."""
    weights = draw(st.sampled_from([(1.0, 1.0), (0.3, 2.0), (1.0, 0.0)]))
    return {
        "k": draw(st.integers(1, 12)),
        "offset": draw(st.integers(0, 6)),
        "mode": draw(st.sampled_from(["vector", "text", "hybrid"])),
        "fusion": draw(
            st.sampled_from(
                [
                    Rrf(draw(st.sampled_from([0.0, 10.0, 60.0])), weights),
                    Weighted(weights),
                    *(FUSIONS[name]() for name in FUSIONS),
                ]
            )
        ),
        "select": draw(SELECTS),
        "distinct": draw(st.sampled_from([None, "parent", "even"])),
        "per_group": draw(st.integers(1, 3)),
        "min_score": draw(st.sampled_from([None, -1.0, 0.0, 0.01, 0.4])),
        "candidates": draw(st.sampled_from([None, 1, 8])),
        "where": draw(
            st.sampled_from(
                [None, {"even": True}, {"n": {"$lt": 20}, "even": False}, {"$or": [{"n": 3}, {"n": {"$gte": 9}}]}]
            )
        ),
        "rerank": draw(st.sampled_from([None, ByLength()])),
    }


@pytest.fixture(scope="module")
def collections() -> Iterator[Callable[[int], vecdb.Collection]]:
    made: dict[int, vecdb.Collection] = {}
    with vecdb.open(":memory:", background=False) as db:

        def collection(seed: int) -> vecdb.Collection:
            if seed not in made:
                made[seed] = filled(db, seed, [1, 5, 30, 60][seed % 4])
            return made[seed]

        yield collection


QUERIES = {"query": "wing heat", "vector": [0.6, -0.3, 0.1, 0.5]}


@given(plan=plans(), seed=st.integers(0, 7))
def test_each_score_recomputes_from_the_trace(
    collections: Callable[[int], vecdb.Collection], plan: dict[str, Any], seed: int
) -> None:
    hits = collections(seed).search(**QUERIES, **plan, vectors=True)
    query = np.array(QUERIES["vector"]) / np.linalg.norm(QUERIES["vector"])
    for hit in hits:
        assert hit.score == pytest.approx(recomputed(hit), abs=1e-6)
        assert hit.score == hit.trace[-1].score
        by_vector = next((step.score for step in hit.trace if step.stage == "vector"), None)
        assert by_vector is None or by_vector == pytest.approx(float(hit.vector @ query), abs=1e-6)


@settings(max_examples=150)
@given(plan=nested_plans(), seed=st.integers(0, 7))
def test_each_score_of_a_nested_plan_recomputes_from_the_trace(
    collections: Callable[[int], vecdb.Collection], plan: dict[str, Any], seed: int
) -> None:
    collection = collections(seed)
    plan = asking(with_examples(plan, having_vector(collection)))
    hits = found(collection, plan)
    for hit in hits:
        assert hit.score == pytest.approx(recomputed(hit), abs=1e-6)
        assert hit.score == hit.trace[-1].score
    examples = [*plan.get("recommend", {}).values(), *plan.get("discover", {}).values()]
    assert not set(hits.ids) & {one for given in examples for one in [given, *given] if isinstance(one, str)}
    if not _reranks(plan):
        data = SearchPlan.of(plan).as_data()
        assert collection.search(plan=json.loads(json.dumps(data))).ids == hits.ids


@settings(max_examples=40)
@given(plan=nested_plans(), seed=st.integers(0, 7), number=st.integers(0, 59))
def test_the_remedy_of_a_nested_plan_admits_the_record(
    collections: Callable[[int], vecdb.Collection], plan: dict[str, Any], seed: int, number: int
) -> None:
    collection, id = collections(seed), f"r{number}"
    plan = asking(with_examples(plan, having_vector(collection)))
    hits = found(collection, plan)
    why = collection.why_not(id, **plan)
    assert (why.stage is None) == (id in hits.ids)
    if why.change is not None:
        assert id in collection.search(**{**plan, **why.change}).ids


def found(collection: vecdb.Collection, plan: dict[str, Any]) -> vecdb.Hits:
    try:
        return collection.search(**plan)
    except vecdb.ModelUnavailable:  # some part of it goes by a vector that it is not given
        return reject()


def having_vector(collection: vecdb.Collection) -> str:
    return next(record.id for record in collection.scan(vectors=True) if record.vector is not None)


def _reranks(plan: dict[str, Any]) -> bool:
    return plan["rerank"] is not None or any(_reranks(step) for step in plan.get("prefetch", ()))


@settings(max_examples=60)
@given(plan=plans(), seed=st.integers(0, 7), number=st.integers(0, 59))
def test_the_remedy_of_any_plan_admits_the_record(
    collections: Callable[[int], vecdb.Collection], plan: dict[str, Any], seed: int, number: int
) -> None:
    collection, id = collections(seed), f"r{number}"
    why = collection.why_not(id, **QUERIES, **plan)
    hits = collection.search(**QUERIES, **plan)
    assert (why.stage is None) == (id in hits.ids)
    if why.stage is not None and why.change is not None:
        assert id in collection.search(**QUERIES, **{**plan, **why.change}).ids
        assert why.remedy
    if why.change is None and why.stage not in (None, "records"):
        # Nothing helps a record that neither list can have.
        assert id not in collection.search(**QUERIES, mode="hybrid", k=100).ids


def test_a_selection_that_keeps_choosing_others_is_left_out(collections: Callable[[int], vecdb.Collection]) -> None:
    """Each larger k looks at more candidates than the pool holds, and each larger pool has one more that is chosen first."""
    collection = collections(7)
    plan: dict[str, Any] = {"k": 1, "fusion": "adaptive", "select": Coverage(1, 0, 0, pool=7), "candidates": 1}
    why = collection.why_not("r3", **QUERIES, **plan)
    assert why.stage == "select"
    assert why.change is not None
    assert "r3" in collection.search(**QUERIES, **{**plan, **why.change}).ids


def test_a_lower_min_score_admits_a_record_whose_score_falls_with_its_age(
    collections: Callable[[int], vecdb.Collection],
) -> None:
    boosts = [{"field": "$created", "decay": "exp", "scale": "30d"}]
    plan: dict[str, Any] = {"k": 60, "mode": "vector", "boosts": boosts, "min_score": 2.0}
    why = collections(7).why_not("r11", **QUERIES, **plan)
    assert why.change is not None
    assert set(why.change) == {"min_score"}
    assert "r11" in collections(7).search(**QUERIES, **{**plan, **why.change}).ids


# -- misses whose stage is known by construction

SIZE = 80
KINDS = [
    "records",
    "filter",
    "first",
    "blind",
    "min_score",
    "select",
    "pool",
    "group",
    "page",
    "k",
    "rerank",
    "fusion",
    "index",
    "prefetch",
    "prefetch filter",
    "boosts",
    "examples",
]


@pytest.fixture(scope="module")
def line() -> Iterator[vecdb.Collection]:
    """Record i is number i + 1 by vector for (1, 0), and number i + 1 by words for "word" (its text is longer); 3 a parent."""
    with vecdb.open(":memory:", background=False) as db:
        collection = db.collection("line", dimension=2)
        angles = np.linspace(0.0, 1.5, SIZE)
        collection.add(
            ids=[f"r{i}" for i in range(SIZE)],
            vectors=np.stack([np.cos(angles), np.sin(angles)], axis=1),
            texts=[f"word{' filler' * i}" for i in range(SIZE)],
            metadata=[{"n": i, "odd": i % 2 == 1, "third": i % 3} for i in range(SIZE)],
            parents=[f"p{i // 3}" for i in range(SIZE)],
        )
        # Each is the last of the one list that has it.
        collection.add([{"id": "mute", "vector": [-1.0, 0.0]}, {"id": "blind", "text": f"word{' filler' * 2 * SIZE}"}])
        collection.warm()
        yield collection


Miss = tuple[str, str, dict[str, Any]]  # the stage that must be named, the record, the options


def injected(rng: random.Random) -> Miss:
    """One miss; every stage before the named one lets the record pass."""
    i = rng.randrange(1, SIZE)
    id, rank = f"r{i}", i + 1
    mode = rng.choice(["vector", "text"])
    harmless: dict[str, Any] = rng.choice(
        [{}, {"where": {"n": {"$lte": i}}}, {"where": {"third": i % 3, "odd": i % 2 == 1}}]
    )
    plain = {"mode": mode, **harmless}
    before = [j for j in range(i) if "where" not in harmless or _passes(harmless["where"], j)]
    place = len(before) + 1  # the record's among those that the filter admits
    kind = rng.choice(KINDS)
    if kind == "records":
        return "records", "absent", plain
    if kind == "filter":
        return "filter", id, {"mode": mode, "k": SIZE, "where": {"n": {"$lte": SIZE}, "odd": i % 2 == 0}}
    if kind == "first" and place > 2:  # one more than k is looked at, to know whether there is another page
        return mode, id, {**plain, "k": rng.randrange(1, place - 1)}
    if kind == "blind":
        return rng.choice([("vector", "blind", {"mode": "vector"}), ("text", "mute", {"mode": "text"})])
    if kind == "min_score":
        return "min_score", id, {"mode": "vector", "k": SIZE, "min_score": float(np.cos(1.5 * (i - 0.5) / (SIZE - 1)))}
    if kind == "select":
        # k-center takes the ends of the line first: its third is about in the middle.
        return "select", "r1", {"mode": "vector", "k": rng.randrange(2, 20), "select": KCenter(SIZE)}
    if kind == "pool" and rank > 12:
        select = rng.choice([Coverage(pool=10), Mmr(pool=10), Dpp(pool=10), KCenter(pool=10)])
        return "select", id, {"mode": "vector", "k": 5, "candidates": SIZE, "select": select}
    if kind == "group" and i % 3:
        return "group", id, {"mode": "vector", "k": SIZE, "distinct": "parent", "per_group": i % 3}
    if kind == "page":
        return "page", id, {**plain, "k": rng.randrange(1, 9), "offset": place + rng.randrange(5)}
    if kind == "k" and place > 1:
        return "k", id, {**plain, "k": rng.randrange(1, place), "candidates": SIZE}
    if kind == "rerank":
        options = rng.choice(
            [{"k": SIZE, "rerank": ByLength(without=id)}, {"k": 3, "candidates": rank, "rerank": ByLength(most=i)}]
        )
        return "rerank", id, {"mode": "vector", **options}
    if kind == "fusion":
        # The other way round by vector, whose list has nearly all of the weight.
        j = rng.randrange(1, 20)
        options = {"mode": "hybrid", "candidates": SIZE, "fusion": Rrf(weights=(1.0, rng.choice([0.0, 0.001])))}
        return "fusion", f"r{j}", {**options, "vector": [0.0, 1.0], "k": rng.randrange(j + 1, 40)}
    if kind == "index":
        return "index", id, {"mode": "vector", "k": SIZE}
    if kind == "prefetch" and place > 2:
        step = {"mode": mode, "k": rng.randrange(1, place - 1)}
        outer = rng.choice([{}, {"mode": "vector"}, {"mode": "text"}])
        return f"prefetch[0].{mode}", id, {**harmless, **outer, "k": SIZE, "prefetch": [step]}
    if kind == "prefetch filter":
        step = {"where": {"odd": i % 2 == 0}, "mode": mode, "k": SIZE}
        return "prefetch[0].filter", id, {**harmless, "k": SIZE, "prefetch": [step]}
    if kind == "boosts" and rank < SIZE:
        boost = {"where": {"n": i}, **rng.choice([{"weight": 0.0}, {"weight": -2.0, "op": "add"}])}
        return "boosts", id, {"mode": "vector", "k": rank, "candidates": SIZE, "boosts": [boost]}
    if kind == "examples":
        options = rng.choice([{"recommend": {"positive": [id]}}, {"discover": {"context": [("r0", id)]}}])
        return "examples", id, {**options, "k": SIZE, "mode": "vector"}
    return injected(rng)


def _passes(where: dict[str, Any], j: int) -> bool:
    return j <= where["n"]["$lte"] if "n" in where else (where["third"], where["odd"]) == (j % 3, j % 2 == 1)


def _make_blind(patched: pytest.MonkeyPatch, row: int, ef: int) -> None:
    """The index misses a row until it is asked with a beam of `ef`, or exactly."""
    whole = Retrieval.by_vector

    def by_vector(self: Retrieval, queries: Any, depth: int, where: Any, options: Any) -> Found:
        found = whole(self, queries, depth, where, options)
        if not options.exact and (options.ef or 0) < ef:
            kept = [np.flatnonzero(ranking.rows != row) for ranking in found.rankings]
            found.rankings = [ranking.taken(places) for ranking, places in zip(found.rankings, kept)]
        return found

    patched.setattr(Retrieval, "by_vector", by_vector)


def test_why_not_names_the_stage_of_a_thousand_injected_misses(
    line: vecdb.Collection, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = random.Random(0)
    wrong = []
    stages = set()
    for _ in range(1000):
        stage, id, options = injected(rng)
        if stage != "examples":
            options = {"vector": [1.0, 0.0], **options}
        with monkeypatch.context() as patched:
            if stage == "index":
                _make_blind(patched, int(id[1:]) + 1, rng.choice([SIZE + 50, 10**9]))
            assert id not in line.search("word", **options).ids
            why = line.why_not(id, "word", **options)
            stages.add(stage)
            if why.stage != stage:
                wrong.append((stage, id, options, why))
                continue
            if why.stage in ("records", "examples"):
                continue
            assert why.change is not None, (id, options, why)
            assert id in line.search("word", **{**options, **why.change}).ids, (id, options, why)
    assert len(wrong) <= 10, wrong[:3]
    assert stages == {
        *({*KINDS, "vector", "text"} - {"first", "blind", "pool", "prefetch", "prefetch filter"}),
        *(f"prefetch[0].{stage}" for stage in ("vector", "text", "filter")),
    }
