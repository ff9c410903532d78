"""Boosts against their formula, one record and one value at a time."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from naive_filters import matches

import vecdb
from vecdb.query.boost_options import Boost, boosts_of

NOW = datetime(2026, 1, 1, tzinfo=UTC)
METADATA: list[dict[str, Any]] = [
    {},
    {"n": 3, "seen": NOW - timedelta(days=3)},
    {"n": [1, 50], "tag": "x"},
    {"n": -4.5, "seen": [NOW + timedelta(days=1), date(2020, 1, 1)]},
    {"n": "text", "seen": None, "tag": "y"},
    {"n": 2**60, "deep": {"n": 7}},
    {"n": 0, "seen": NOW},
    {"n": 1.7e308, "tag": "x"},
]


def values(metadata: Mapping[str, Any], boost: Boost) -> list[float]:
    """What the field holds: numbers, or seconds from the origin."""
    found: Any = metadata
    for key in (boost.field or "").split("."):
        found = found.get(key) if isinstance(found, dict) else None
    listed = found if isinstance(found, list) else [found]
    if boost.decay is not None and boost.is_of_dates:
        at = boost.origin_at(NOW.timestamp()) / 1e6
        days = [
            v if isinstance(v, datetime) else datetime(v.year, v.month, v.day) for v in listed if isinstance(v, date)
        ]
        return [d.replace(tzinfo=UTC).timestamp() - at for d in days]
    numbers = [v for v in listed if isinstance(v, int | float)]
    return [v - boost.origin for v in numbers] if boost.decay is not None else numbers


def gain(metadata: Mapping[str, Any], boost: Boost) -> float:
    """The factor, or what is added, as the docstring of Boost has it."""
    nothing = 1.0 if boost.op == "multiply" else 0.0
    weight = 1.0 if boost.weight is None else boost.weight
    if boost.where is not None:
        return weight if matches(boost.where, metadata) else nothing
    found = values(metadata, boost)
    if boost.decay is not None:
        scale, offset = boost.distances
        made = [one_decay(boost.decay, max(0.0, abs(v) - offset) / scale, boost.at) for v in found]
    else:
        made = [one_modified(str(boost.modifier), v) for v in found]
    if not found:
        if boost.missing is None:
            return nothing
        made = [boost.missing if boost.decay is not None else one_modified(str(boost.modifier), boost.missing)]
    v = max(made)
    if boost.op == "add":
        return min(max(weight * v, -1e6), 1e6)
    factor = 1 - weight + weight * v if boost.decay is not None else 1 + weight * v
    return min(max(factor, 0.0), 1e6)


def one_decay(kind: str, steps: float, at: float) -> float:
    if kind == "linear":
        return max(0.0, 1 - (1 - at) * steps)
    return at ** min(steps**2 if kind == "gauss" else steps, 1e5) if steps < 1e100 else 0.0


def one_modified(modifier: str, x: float) -> float:
    if modifier == "log1p":
        return math.log1p(max(x, 0))
    if modifier == "sqrt":
        return math.sqrt(max(x, 0))
    if modifier == "square":
        return min(abs(x), 1e150) ** 2
    return (1 / x if x else 0.0) if modifier == "reciprocal" else min(max(x, -1e300), 1e300)


@st.composite
def boosts(draw: st.DrawFn) -> dict[str, Any]:
    op = draw(st.sampled_from(["multiply", "add"]))
    kind = draw(st.sampled_from(["where", "decay", "dates", "modifier"]))
    any_weight = st.floats(0, 50) if op == "multiply" else st.floats(-50, 50)
    if kind == "where":
        where = draw(st.sampled_from([{"tag": "x"}, {"n": {"$gt": 0}}, {"$not": {"tag": "y"}}, {}]))
        return {"where": where, "weight": draw(any_weight), "op": op}
    missing = draw(st.sampled_from([None, 0.0, 0.25, 1.0]))
    if kind == "modifier":
        modifier = draw(st.sampled_from(["none", "log1p", "sqrt", "square", "reciprocal"]))
        field = draw(st.sampled_from(["n", "deep.n", "absent"]))
        return {"field": field, "modifier": modifier, "weight": draw(any_weight), "op": op, "missing": missing}
    weight = draw(st.floats(0, 1)) if op == "multiply" else draw(any_weight)
    decay = {"decay": draw(st.sampled_from(["exp", "gauss", "linear"])), "at": draw(st.floats(0.1, 0.9))}
    decay |= {"weight": weight, "op": op, "missing": missing}
    if kind == "dates":
        scale = draw(st.sampled_from(["2d", "36h", timedelta(days=9), "4.5w"]))
        return {
            "field": "seen",
            "origin": NOW,
            "scale": scale,
            "offset": draw(st.sampled_from([0, "1d", 7200])),
            **decay,
        }
    return {"field": "n", "origin": draw(st.floats(-10, 60)), "scale": draw(st.floats(0.5, 90)), **decay}


@pytest.fixture(scope="module", params=["cosine", "l2"])
def docs(request: pytest.FixtureRequest) -> Any:
    """Record i at angle i; under l2 scores are negative."""
    with vecdb.open(":memory:", background=False) as db:
        docs = db.collection("c", dimension=2, metric=request.param)
        angles = np.linspace(0, 1.4, len(METADATA))
        docs.add(
            ids=[str(i) for i in range(len(METADATA))],
            vectors=np.stack([np.cos(angles), np.sin(angles)], axis=1),
            metadata=METADATA,
        )
        docs.update(ids=["1"], metadata=[{"n": 4}])  # its columns now have a row out of order
        yield docs


@given(given_boosts=st.lists(boosts(), min_size=1, max_size=4))
def test_scores_are_the_formulas(docs: Any, given_boosts: list[dict[str, Any]]) -> None:
    plain = dict(zip((hits := docs.search([1, 0.1])).ids, hits.scores))
    found = docs.search([1, 0.1], boosts=given_boosts)
    wanted = {}
    for record in docs.scan():
        gains = [(boost.op, gain(record.metadata, boost)) for boost in boosts_of(given_boosts)]
        factor = math.prod(g for op, g in gains if op == "multiply")
        score = plain[record.id]
        wanted[record.id] = score + abs(score) * (factor - 1) + sum(g for op, g in gains if op == "add")
    assert dict(zip(found.ids, found.scores)) == pytest.approx(wanted, rel=1e-9, abs=1e-9)
    assert found.scores == sorted(found.scores, reverse=True)


def test_without_a_wish_dates_decay_from_now(db: vecdb.Database) -> None:
    docs = db.collection("c")
    ages = [30, 1, 0]
    docs.add(
        ids=[f"{age}d" for age in ages],
        texts=["word"] * 3,
        metadata=[{"seen": datetime.now(UTC) - timedelta(days=age)} for age in ages],
    )
    found = docs.search("word", boosts=[{"field": "seen", "decay": "exp", "scale": "1d"}])
    assert found.ids == ["0d", "1d", "30d"]
    assert found.scores[1] == pytest.approx(found.scores[0] / 2, rel=1e-3)
    by_creation = docs.search("word", boosts=[{"field": "$created", "decay": "linear", "scale": 10, "origin": "now"}])
    assert len(by_creation) == 3


def test_boosts_bring_up_what_the_page_would_not_have(db: vecdb.Database) -> None:
    docs = db.collection("c", dimension=2)
    angles = np.linspace(0, 1.5, 60)
    docs.add(vectors=np.stack([np.cos(angles), np.sin(angles)], axis=1), ids=[str(i) for i in range(60)])
    docs.add(ids=["best"], vectors=[[0.3, 1]], metadata=[{"best": True}])
    boosts = [{"where": {"best": True}, "weight": 10}]
    assert docs.search([1, 0], k=1, boosts=boosts).ids == ["best"]
    several = docs.search([[1, 0], [0, 1]], k=2, boosts=boosts)
    assert [hits.ids for hits in several] == [docs.search(v, k=2, boosts=boosts).ids for v in ([1, 0], [0, 1])]


def test_a_collection_without_metadata_has_nothing_to_boost_by(db: vecdb.Database) -> None:
    docs = db.collection("c")
    boosts = [{"field": "n", "modifier": "log1p"}, {"where": {"n": 1}, "weight": 2}]
    assert docs.search("word", boosts=boosts).ids == []
    docs.add(ids=["a"], texts=["word"])
    assert docs.search("word", boosts=boosts).scores == pytest.approx(docs.search("word").scores)


@pytest.mark.parametrize(
    ("boost", "place"),
    [
        ({}, "boosts[0]"),
        ({"where": {"n": 1}}, "boosts[0].weight"),
        ({"where": {"n": {"$around": 1}}, "weight": 1}, "boosts[0].where.n"),
        ({"where": {"n": 1}, "weight": -1}, "boosts[0].weight"),
        ({"where": {"n": 1}, "weight": 2, "field": "n"}, "boosts[0].field"),
        ({"where": {"n": 1}, "weight": 2, "op": "max"}, "boosts[0].op"),
        ({"field": "n"}, "boosts[0]"),
        ({"field": "", "modifier": "none"}, "boosts[0].field"),
        ({"field": "n", "modifier": "cube"}, "boosts[0].modifier"),
        ({"field": "n", "modifier": "none", "scale": 1}, "boosts[0].scale"),
        ({"field": "n", "modifier": "none", "missing": "x"}, "boosts[0].missing"),
        ({"field": "n", "decay": "exp", "scale": 1}, "boosts[0].origin"),
        ({"field": "n", "decay": "exp", "scale": 0, "origin": 1}, "boosts[0].scale"),
        ({"field": "n", "decay": "exp", "scale": "1y"}, "boosts[0].scale"),
        ({"field": "n", "decay": "exp", "origin": 1}, "boosts[0].scale"),
        ({"field": "n", "decay": "exp", "scale": "1d", "origin": 3}, "boosts[0].origin"),
        ({"field": "n", "decay": "exp", "scale": 1, "origin": float("nan")}, "boosts[0].origin"),
        ({"field": "n", "decay": "exp", "scale": "1d", "offset": -1}, "boosts[0].offset"),
        ({"field": "n", "decay": "cliff", "scale": "1d"}, "boosts[0].decay"),
        ({"field": "n", "decay": "exp", "scale": "1d", "weight": 1.5}, "boosts[0].weight"),
        ({"field": "n", "decay": "exp", "scale": "1d", "at": 1}, "boosts[0].at"),
        ({"fields": "n", "decay": "exp"}, "boosts[0].fields"),
        ("fresh", "boosts[0]"),
    ],
)
def test_mistakes_are_named_with_their_place(db: vecdb.Database, boost: Any, place: str) -> None:
    with pytest.raises(vecdb.InvalidInput) as caught:
        db.collection("c").search("word", boosts=[boost])
    assert caught.value.path == place
    assert str(caught.value).startswith(f"{place}: ")
