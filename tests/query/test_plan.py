"""Plans against what searches then do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from word_embedder import WordEmbedder

import vecdb

TEXTS = ["ant bee", "bee cat", "cat dog", "dog elk", "elk ant"]


def filled(db: vecdb.Database, count: int = 60) -> vecdb.Collection:
    rng = np.random.default_rng(5)
    collection = db.collection("c", dimension=8)
    collection.add(
        ids=[str(i) for i in range(count)],
        texts=[TEXTS[i % 5] for i in range(count)],
        vectors=rng.standard_normal((count, 8)),
        metadata=[{"n": i % 10} for i in range(count)],
    )
    return collection


def stages(plan: Any) -> dict[str, Any]:
    return {stage.stage: stage for stage in plan.stages}


OPTIONS: list[dict[str, Any]] = [
    {"mode": "text"},
    {"mode": "vector"},
    {"mode": "hybrid"},
    {"mode": "hybrid", "where": {"n": {"$lt": 3}}},
    {"mode": "hybrid", "fusion": "weighted", "distinct": "n", "select": "mmr", "min_score": 0.0},
    {"mode": "text", "fuzzy": True},
    {"mode": "text", "syntax": "query"},
    {"prefetch": [{"mode": "text"}, {"mode": "vector"}], "boosts": [{"where": {"n": 1}, "weight": 2}]},
    {"prefetch": [{"mode": "text", "k": 9}], "mode": "hybrid", "where": {"n": {"$lt": 3}}},
]


@pytest.mark.parametrize("is_warm", [False, True])
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_a_search_goes_the_way_that_was_planned(path: Path, options: dict[str, Any], is_warm: bool) -> None:
    vector = np.arange(8) + 1.0
    with vecdb.open(path, background=False) as db:
        filled(db)
    with vecdb.open(path, background=False) as db:
        collection = db.collection("c")
        if is_warm:
            collection.warm()
        planned = stages(collection.explain("bees", vector=vector, **options))
        done = {report.stage: report for report in collection.search("bees", vector=vector, **options).trace}
    assert list(done) == [stage for stage in planned if stage not in ("filter", "page", "embed")]
    if "text" in planned:
        assert planned["text"].way.split()[0] == done["text"].detail["engine"]
    if "vector" in planned:
        engine = {"sqlite": "sqlite scan", "exact": "scan"}[done["vector"].detail["engine"]]
        assert planned["vector"].way == engine
        if is_warm and "prefetch" not in options:
            assert planned["vector"].cost == done["vector"].detail["distances"]
    if "where" in options:
        assert planned["filter"].detail == {"matching": 18, "records": 60, "selectivity": 0.3}


def test_frequencies_are_the_same_before_and_after_loading(db: vecdb.Database) -> None:
    collection = filled(db)
    cold = stages(collection.explain("ants beside bees", synonyms={"bee": ["elk"]}))["text"]
    collection.warm()
    warm = stages(collection.explain("ants beside bees", synonyms={"bee": ["elk"]}))["text"]
    assert (cold.way, warm.way) == ("fts5", "memory")
    assert cold.detail["terms"] == warm.detail["terms"] == {"ant": 24, "besid": 0, "bee": 24, "elk": 24}
    assert cold.cost == warm.cost == 72
    assert warm.detail["weights"] == {"elk": 0.5}
    assert stages(collection.explain("antz", fuzzy=True))["text"].detail["terms"] == {"antz": 0, "ant": 24}


def test_nothing_is_loaded_for_a_plan(db: vecdb.Database) -> None:
    collection = filled(db)
    collection.explain("bee", vector=np.ones(8), fuzzy=True)
    assert not collection._memory.newest().has(["words"])
    assert not collection._memory.newest().has(["vectors"])


def test_deleted_records_count_nowhere(db: vecdb.Database) -> None:
    collection = filled(db)
    collection.warm()
    collection.delete([str(i) for i in range(0, 60, 5)])
    planned = stages(collection.explain("bee", vector=np.ones(8), where={"n": {"$gte": 0}}))
    assert planned["filter"].detail["records"] == planned["filter"].detail["matching"] == 48
    assert planned["text"].detail["terms"] == {"bee": 12}
    assert planned["vector"].cost == 48


def test_a_plan_says_who_embeds(db: vecdb.Database) -> None:
    collection = db.collection("c", embed=WordEmbedder())
    collection.add(ids=["a"], texts=["ant"])
    plan = collection.explain("ant")
    assert [stage.stage for stage in plan.stages] == ["embed", "vector", "text", "fusion", "page"]
    assert plan.stages[0].way == "words-16"
    assert "embed: words-16, because the query is text and the collection has a model" in str(plan)
    assert collection._definition.embedder().name == "words-16"


def test_prefetches_are_planned_as_a_tree(db: vecdb.Database) -> None:
    collection = filled(db)
    inner: dict[str, Any] = {"k": 7, "where": {"n": 1}, "prefetch": [{"mode": "text"}]}
    plan = collection.explain("bee", vector=np.ones(8), prefetch=[inner, {"mode": "vector"}], where={"n": {"$lt": 5}})
    first = stages(plan)["prefetch[0]"]
    assert [stage.stage for stage in plan.stages] == ["filter", "prefetch[0]", "prefetch[1]", "fusion", "page"]
    assert [stage.stage for stage in first.stages] == ["filter", "prefetch[0]", "page"]
    assert first.stages[0].detail["matching"] == 6
    assert [stage.stage for stage in first.stages[1].stages] == ["text", "page"]
    lines = str(plan).splitlines()
    assert [len(line) - len(line.lstrip()) for line in lines] == [0, 0, 4, 4, 8, 8, 4, 0, 4, 4, 0, 0]
    by_examples = collection.explain(recommend={"positive": ["1"], "negative": ["2", "3"], "strategy": "best_score"})
    assert (by_examples.stages[0].way, by_examples.stages[0].cost) == ("scan", 180)
    assert stages(collection.explain(recommend={"positive": ["1"]}))["vector"].detail["candidates"] == 12
    with pytest.raises(vecdb.ModelUnavailable):
        collection.explain("bee", prefetch=[{"mode": "vector"}])


def test_what_cannot_be_searched_cannot_be_planned(db: vecdb.Database) -> None:
    collection = filled(db)
    with pytest.raises(vecdb.InvalidQuery, match="one at a time"):
        collection.explain(["a", "b"])
    with pytest.raises(vecdb.InvalidQuery, match="there is no query"):
        collection.explain()
    with pytest.raises(vecdb.InvalidFilter):
        collection.explain("a", where={"n": {"$around": 1}})
    with pytest.raises(vecdb.ModelUnavailable):
        collection.explain("a", mode="vector")
    assert [stage.stage for stage in db.collection("empty").explain("a").stages] == ["text", "page"]


@pytest.mark.slow
@pytest.mark.parametrize("where", [None, {"n": {"$lt": 9}}, {"n": 0}])
@pytest.mark.parametrize("options", [{}, {"ef": 20}, {"exact": True}, {"target_recall": 0.9}], ids=str)
def test_an_indexs_way_is_foretold(tmp_path_factory: Any, where: Any, options: dict[str, Any]) -> None:
    """The way exactly, unless a target recall is learned later; a walk's distances within a factor of two."""
    with vecdb.open(":memory:", background=False) as db:
        collection = filled(db, 6_000)
        collection.optimize()
        query = np.ones(8)
        planned = stages(collection.explain(query, where=where, **options))["vector"]
        collection.search(query, where=where, **options)
        done = collection.search(query, where=where, **options).trace[0].detail
        assert planned.way == (f"hnsw {done['way']}" if done["way"].endswith("walk") else "scan")
        if done["way"] == "scan":
            assert planned.cost == done["distances"]
        elif "target_recall" not in options:
            assert done["distances"] / 2 <= planned.cost <= done["distances"] * 2
