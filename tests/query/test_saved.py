"""Plans that are kept with a collection, and their placeholders."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import vecdb
from vecdb import SearchPlan
from vecdb.query.boost_options import Boost
from vecdb.query.fusion import Adaptive, Rrf
from vecdb.query.plan_data import as_data, bound
from vecdb.query.selection import Mmr

PLAN: dict[str, Any] = {
    "where": {"year": {"$gte": {"$param": "since"}}, "day": {"$lt": date(2030, 1, 1)}},
    "prefetch": [{"mode": "text", "k": {"$param": "depth", "default": 20}, "fusion": Rrf(k=3)}],
    "boosts": [{"where": {"tag": {"$param": "tag", "default": "x"}}, "weight": 2}],
    "k": 5,
}


def filled(path: Path) -> None:
    with vecdb.open(path, background=False) as db:
        docs = db.collection("c")
        years = range(2000, 2020)
        docs.add(
            ids=[str(year) for year in years],
            texts=[f"word {'more ' * (year - 2000)}" for year in years],
            metadata=[{"year": year, "day": date(year, 1, 1), "tag": "xy"[year % 2]} for year in years],
        )


def test_a_saved_query_outlives_its_handle(path: Path) -> None:
    filled(path)
    with vecdb.open(path, background=False) as db:
        docs = db.collection("c")
        docs.save_query("fresh", PLAN)
        direct = docs.search(
            "word",
            where={"year": {"$gte": 2010}, "day": {"$lt": date(2030, 1, 1)}},
            prefetch=[{"mode": "text", "k": 20, "fusion": Rrf(k=3)}],
            boosts=[{"where": {"tag": "x"}, "weight": 2}],
            k=5,
        )
    with vecdb.open(path, read_only=True) as db:
        docs = db.collection("c", create=False)
        assert list(docs.queries()) == ["fresh"]
        hits = docs.run("fresh", "word", params={"since": 2010})
        assert (hits.ids, hits.scores) == (direct.ids, direct.scores)
        assert json.loads(json.dumps(docs.queries())) == docs.queries()
        with pytest.raises(vecdb.ReadOnly):
            docs.save_query("other", {})
        with pytest.raises(vecdb.ReadOnly):
            docs.delete_query("fresh")


def test_what_is_given_takes_the_place_of_the_plans(path: Path) -> None:
    filled(path)
    with vecdb.open(path, background=False) as db:
        docs = db.collection("c")
        docs.save_query("q", {"query": "word", "k": 3, "where": {"year": {"$lt": 2005}}})
        assert len(docs.run("q")) == 3
        assert len(docs.run("q", k=4)) == 4
        assert docs.run("q", where={"tag": "x"}).ids == ["2000", "2002", "2004"]
        assert docs.run("q", "unheard").ids == []
        assert docs.run("q", where=None).ids == docs.run("q").ids
        docs.save_query("q", {"k": 1})
        assert len(docs.run("q", "word")) == 1
        assert [len(hits) for hits in docs.run("q", ["word", "more"])] == [1, 1]
        assert docs.search("word", plan=SearchPlan(k=2)).ids == docs.search("word", k=2).ids
        assert docs.why_not("2019", "word", plan="q").stage == "text"
        assert str(docs.explain("word", plan="q")).endswith("(k: 1; offset: 0)")
        with pytest.raises(vecdb.InvalidQuery, match="there is no query"):
            docs.run("q")


def test_measures_are_taken_of_saved_queries(path: Path) -> None:
    pytest.importorskip("ir_measures")
    filled(path)
    with vecdb.open(path, background=False) as db:
        docs = db.collection("c")
        docs.save_query("late", {"mode": "text", "where": {"year": {"$gte": {"$param": "since", "default": 2010}}}})
        queries, qrels = {"q": "word"}, {"q": {"2012": 1}}
        found = docs.evaluate(queries, qrels, modes=["text", "late"], k=3, measures=["R@3"])
        assert {name: result.means["R@3"] for name, result in found.items()} == {"text": 0.0, "late": 1.0}
        for setting in ("late", {"plan": "late"}, {"mode": "text", "where": {"year": {"$gte": 2010}}}):
            compared = docs.compare(setting, "text", queries, qrels, k=3, measures=["R@3"], samples=10)
            assert compared.differences["R@3"].difference == 1
        earlier = {"plan": "late", "params": {"since": 2000}}
        assert docs.compare("late", earlier, queries, qrels, k=3, measures=["R@3"], samples=10).b.means["R@3"] == 0
        assert docs.gate(queries, qrels, min={"R@3": 1.0}, plan="late", k=3)
        assert not docs.gate(queries, qrels, min={"R@3": 1.0}, mode="text", k=3)
        with pytest.raises(vecdb.QueryNotFound):
            docs.compare("early", "text", queries, qrels)
        with pytest.raises(vecdb.InvalidInput, match="query of its own"):
            docs.compare({"query": "x"}, "text", queries, qrels)


def test_names_are_looked_after(path: Path) -> None:
    filled(path)
    with vecdb.open(path, background=False) as db, vecdb.open(path, background=False) as other:
        docs = db.collection("c")
        for name in ("", " ", "text", 7, "x" * 201, "\ud800"):
            with pytest.raises(vecdb.InvalidInput):
                docs.save_query(name, {})  # type: ignore[arg-type]
        docs.save_query("ünï ' --", {"k": 2})
        assert other.collection("c").queries() == {"ünï ' --": {"k": 2}}
        assert docs.delete_query("ünï ' --")
        assert not docs.delete_query("ünï ' --")
        with pytest.raises(vecdb.QueryNotFound, match="there are none"):
            other.collection("c").run("ünï ' --", "word")
        docs.save_query("q", {})
        db.drop("c")
        assert db.collection("c").queries() == {}


@pytest.mark.parametrize(
    ("plan", "at"),
    [
        ({"kk": 1}, "kk"),
        ({"k": 0}, "k"),
        ({"k": {"$param": "k", "default": 0}}, "k"),
        ({"where": {"a": {"$around": 1}}}, "where.a"),
        ({"where": {"a": {"$param": ""}}}, "where.a"),
        ({"where": {"a": {"$param": "a", "or": 1}}}, "where.a"),
        (
            {"prefetch": [{"$param": "step"}, {"k": {"$param": "k"}, "where": {"year": {"$around": 1}}}]},
            "prefetch[1].where.year",
        ),
        ({"boosts": [{"where": {"$param": "w"}, "weight": 1}, {"field": "x"}]}, "boosts[1]"),
        ({"plan": "other"}, "plan"),
        ({"cursor": "x"}, "cursor"),
        ([1], None),
    ],
)
def test_what_cannot_run_is_not_saved(db: vecdb.Database, plan: Any, at: str | None) -> None:
    docs = db.collection("c")
    with pytest.raises(vecdb.InvalidInput) as caught:
        docs.save_query("q", plan)
    assert caught.value.path == at
    assert docs.queries() == {}


def test_code_is_not_saved(db: vecdb.Database) -> None:
    class Mine:
        def rerank(self, query: str, candidates: Any, k: int) -> list[Any]:
            return []

    for plan in ({"rerank": Mine()}, {"prefetch": [{"rerank": Mine()}]}, {"where": {"a": object()}}):
        with pytest.raises(vecdb.InvalidInput):
            db.collection("c").save_query("q", plan)


def test_each_placeholder_gets_its_value(db: vecdb.Database) -> None:
    docs = db.collection("c")
    docs.add(ids=["a"], texts=["word"], metadata=[{"year": 3}])
    docs.save_query("q", PLAN)
    for params, message in [
        ({}, "where.year.$gte"),
        ({"since": 1, "until": 2}, "no parameter 'until'"),
        ({"since": {"$around": 2}}, "wanted a value"),
        ("since", "give a mapping"),
    ]:
        with pytest.raises(vecdb.InvalidInput) as caught:
            docs.run("q", "word", params=params)  # type: ignore[arg-type]
        assert message in f"{caught.value.path}: {caught.value}"
    with pytest.raises(vecdb.InvalidQuery, match=r"prefetch\[0\].k: k is 0"):
        docs.run("q", "word", params={"since": 1, "depth": 0})
    with pytest.raises(vecdb.InvalidQuery, match="params are of a plan"):
        docs.search("word", params={"since": 1})


VALUES = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(2**60), 2**60),
        st.floats(allow_nan=False, allow_infinity=False),
        st.text(),
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=3), inner, max_size=3)),
    max_leaves=6,
)


@given(data=VALUES, value=VALUES)
def test_binding_puts_values_where_placeholders_stand(data: Any, value: Any) -> None:
    holder = {"$param": "v"}
    assert bound({"a": [data, holder], "b": {"c": holder}}, {"v": value}) == {"a": [data, value], "b": {"c": value}}
    assert bound({"a": {"$param": "v", "default": value}}, {}) == {"a": value}


def test_plans_and_data_lead_to_each_other() -> None:
    plan = SearchPlan(
        query="word",
        vector=(0.5, 1.0),
        k=3,
        fusion=Adaptive(usual=(0.4, 0.6, 0.6)),
        select=Mmr(0.5),
        where={"day": date(2020, 1, 1), "tags": {"$in": {"a"}}},
        boosts=[Boost(field="n", modifier="log1p", weight=2.0)],
        prefetch=[SearchPlan(k=10, recommend={"positive": ["a"]}), {"mode": "text", "graph": {"beta": 0.5}}],
        snippets=vecdb.SnippetOptions(length=9),
    )
    data = plan.as_data()
    assert data["boosts"] == [{"field": "n", "modifier": "log1p", "weight": 2.0}]
    assert data["where"] == {"day": {"$date": "2020-01-01"}, "tags": {"$in": ["a"]}}
    assert [step["k"] for step in data["prefetch"]] == [10, 100]
    again = SearchPlan.of(json.loads(json.dumps(data)))
    assert again.as_data() == data
    assert (again.boosts, again.examples, again.steps[0]) == (plan.boosts, plan.examples, plan.steps[0])
    assert SearchPlan.of(as_data({"query": [1, 2]})) == SearchPlan(vector=(1.0, 2.0))
