"""Nearness in a second space: distances, constraints and weights against brute force, mistakes, and every face."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from naive_filters import distance, matches

import vecdb
from vecdb.attributes import Attributes
from vecdb.filters import describe, parse
from vecdb.nearness import EARTH_RADIUS_M, haversine, place_of
from vecdb.query.near import KERNELS, nearby_of

START = datetime(2024, 5, 1, tzinfo=UTC)
DEGREES = st.tuples(st.floats(-90, 90), st.floats(-180, 180))
EDGES = st.sampled_from(
    [(90.0, 12.0), (-90.0, 0.0), (0.0, 180.0), (0.0, -180.0), (0.0, 179.9), (0.0, -179.9), (89.9, -170.0)]
)


def test_distances_that_are_known() -> None:
    quarter = EARTH_RADIUS_M * math.pi / 2
    assert haversine(np.array([[90.0, 77.0], [0.0, 90.0], [0.0, -180.0]]), (0.0, 0.0)) == pytest.approx(
        [quarter, quarter, 2 * quarter]
    )
    berlin_paris = haversine(np.array([[52.52, 13.405]]), (48.8566, 2.3522))[0]
    assert berlin_paris == pytest.approx(877_460, rel=1e-3)
    assert haversine(np.array([[0.0, 179.9]]), (0.0, -179.9))[0] == pytest.approx(
        22_239, rel=1e-3
    )  # not round the Earth
    assert haversine(np.array([[90.0, -60.0]]), (90.0, 120.0))[0] == pytest.approx(0, abs=1e-6)  # a pole is one place


@given(
    st.lists(
        st.one_of(
            DEGREES | EDGES,
            st.lists(DEGREES | EDGES, min_size=2, max_size=3),
            st.sampled_from(["nowhere", None, 5, [1.0], [91.0, 0.0], [1.0, 2.0, 3.0], ["1", 2.0], {"lat": 1.0}]),
        ),
        max_size=12,
    ),
    DEGREES | EDGES,
    st.floats(1.0, 2.1e7),
    st.booleans(),
)
def test_what_is_near_on_the_earth_is_what_the_twin_says(
    given_places: list[Any], centre: tuple[float, float], reach: float, as_objects: bool
) -> None:
    def written(place: Any) -> Any:
        if isinstance(place, tuple):
            return {"lat": place[0], "lon": place[1]} if as_objects else list(place)
        if isinstance(place, list) and place and isinstance(place[0], tuple):
            return [{"lat": lat, "lon": lon} for lat, lon in place]
        return place

    batch = [{"geo": written(place)} for place in given_places]
    attributes = Attributes.empty().appended(batch)
    away = [distance(metadata, "geo", centre) for metadata in batch]
    assert attributes.distances("geo", place_of(centre)) == pytest.approx(away, rel=1e-6, abs=0.2)
    where = {"geo": {"$near": [*centre, reach]}}
    mask = attributes.mask(parse(where))
    for found, metadata, exactly in zip(mask.tolist(), batch, away):
        assert found == matches(where, metadata) or exactly == pytest.approx(reach, rel=1e-6, abs=0.2)
    assert describe(parse(where)) == describe(parse({"geo": {"$near": [*map(float, centre), reach]}}))


def test_places_follow_when_records_are_written() -> None:
    attributes = Attributes.empty().appended([{"geo": [1.0, 1.0]}])
    near = parse({"geo": {"$near": [1, 1, "1km"]}})
    assert attributes.mask(near).tolist() == [True]
    grown = attributes.appended([{"geo": {"lat": 1.0, "lon": 1.001}}, {"geo": [40.0, 1.0]}])
    assert grown.mask(near).tolist() == [True, True, False]
    moved = grown.replaced(np.array([0]), [{"geo": [50.0, 50.0]}])
    assert moved.mask(near).tolist() == [False, True, False]
    assert attributes.mask(near).tolist() == [True]


@given(st.lists(st.integers(-20, 20) | st.floats(-20, 20), max_size=10), st.floats(-20, 20), st.floats(0.01, 15))
def test_numbers_and_moments_are_near_by_their_difference(values: list[float], centre: float, width: float) -> None:
    numbers = [{"n": value} for value in values]
    where = {"n": {"$near": [centre, width]}}
    mask = Attributes.empty().appended(numbers).mask(parse(where)).tolist()
    assert mask == [matches(where, metadata) for metadata in numbers]
    moments = [{"n": START + timedelta(days=value)} for value in values]
    where = {"n": {"$near": [START + timedelta(days=centre), width * 86_400]}}
    mask = Attributes.empty().appended(moments).mask(parse(where)).tolist()
    assert mask == [matches(where, metadata) for metadata in moments]


SIZE, DIMENSION = 4_000, 16


@pytest.fixture(scope="module")
def cities(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Records with a place, a day and a price: a graph over most of them, a tail, and some deleted."""
    rng = np.random.default_rng(3)
    vectors = rng.standard_normal((SIZE, DIMENSION)).astype(np.float32)
    path = tmp_path_factory.mktemp("near") / "c.vecdb"
    with vecdb.open(path, background=False) as db:
        docs = db.collection("c", dimension=DIMENSION)
        metadata = [
            {
                "geo": {"lat": float(lat), "lon": float(lon)},
                "day": START + timedelta(days=float(day)),
                "price": float(price),
                "even": bool(number % 2),
            }
            for number, (lat, lon, day, price) in enumerate(
                zip(
                    rng.uniform(-90, 90, SIZE),
                    rng.uniform(-180, 180, SIZE),
                    rng.uniform(0, 99, SIZE),
                    rng.uniform(1, 9, SIZE),
                )
            )
        ]
        del metadata[7]["geo"]
        texts = [f"common {'rare' if number % 9 == 0 else 'usual'} w{number % 5}" for number in range(SIZE)]
        part = slice(0, SIZE - 300)
        ids = [f"r{number}" for number in range(SIZE)]
        docs.add(ids=ids[part], vectors=vectors[part], texts=texts[part], metadata=metadata[part])
        docs.optimize()
        docs.warm()
        part = slice(SIZE - 300, SIZE)
        docs.add(ids=ids[part], vectors=vectors[part], texts=texts[part], metadata=metadata[part])
        docs.delete(ids[5:50])
        yield docs, vectors / np.linalg.norm(vectors, axis=1, keepdims=True), metadata


def brute(docs: Any, query: Any, weight: Any, k: int) -> list[str]:
    """Ids by cosine and weight(metadata), all of them measured; those of weight 0 are no hits."""
    _, vectors, metadata = docs
    query = query / np.linalg.norm(query)
    scored = []
    for number in (*range(5), *range(50, SIZE)):
        worth = weight(metadata[number])
        score = float(vectors[number] @ query)
        if worth > 0:
            scored.append((-(score + abs(score) * (worth - 1)), number))
    return [f"r{number}" for _, number in sorted(scored)[:k]]


@pytest.mark.parametrize("share", [0.0001, 0.001, 0.01, 0.1, 0.5, 1.0])
def test_the_true_best_come_back_however_many_are_near(cities: Any, share: float) -> None:
    docs, _, metadata = cities
    rng = np.random.default_rng(int(share * 1e4))
    centre = (10.0, 20.0)
    away = sorted(distance(one, "geo", centre) for one in metadata)
    radius = away[max(0, int(share * SIZE) - 2)] + 1.0
    for query in rng.standard_normal((4, DIMENSION)):
        found = docs.search(query, k=10, near={"geo": (*centre, radius)})
        assert found.ids == brute(cities, query, lambda one: distance(one, "geo", centre) <= radius, 10)
        assert found.estimated_recall == 1.0


SOFT: list[dict[str, Any]] = [
    {"geo": {"at": (10, 20), "kernel": "gauss", "scale": "900km"}},
    {"geo": {"at": [89.5, 179.0], "kernel": "linear", "scale": 2.5e6, "within": "4000km"}},
    {"day": {"at": START + timedelta(days=40), "kernel": "exp", "scale": "10d"}, "price": (5, 3)},
    {
        "price": {"at": 2.5, "kernel": "exp", "scale": 0.01},
        "day": {"at": START, "kernel": "linear", "scale": timedelta(60)},
    },
]


def naive_weight(near: dict[str, Any], one: dict[str, Any]) -> float:
    weight = 1.0
    for said in nearby_of(near):
        centre = [said.place.centre[0]] if said.place.space == "number" else said.place.centre
        if said.place.space == "time":
            centre = [datetime.fromtimestamp(said.place.centre[0] / 1e6, UTC)]
        away = distance(one, said.field, centre)
        if math.isinf(away) or (said.within is not None and away > said.within):
            return 0.0
        if said.kernel is not None:
            share = away / said.scale
            weight *= {"linear": max(0.0, 1 - share / 2), "gauss": 0.5 ** (share**2), "exp": 0.5**share}[said.kernel]
    return weight


@pytest.mark.parametrize("near", SOFT)
def test_weights_find_the_true_best_too(cities: Any, near: dict[str, Any]) -> None:
    docs = cities[0]
    rng = np.random.default_rng(1)
    for query in rng.standard_normal((3, DIMENSION)):
        expected = brute(cities, query, lambda one: naive_weight(near, one), 10)
        assert docs.search(query, k=10, near=near).ids == expected
    queries = rng.standard_normal((2, DIMENSION))
    singly = [docs.search(query, k=5, near=near).ids for query in queries]
    assert [hits.ids for hits in docs.search(queries, k=5, near=near)] == singly


def test_few_of_the_weighed_are_measured(cities: Any) -> None:
    hits = cities[0].search(np.ones(DIMENSION), k=3, near=SOFT[0])
    assert hits.trace[0].detail["distances"] < SIZE / 5


@pytest.mark.parametrize("mode", ["text", "hybrid", "vector"])
@pytest.mark.parametrize("near", SOFT[:2])
def test_words_are_weighed_as_well(cities: Any, mode: str, near: dict[str, Any]) -> None:
    docs, _, metadata = cities
    options = {"mode": mode, "vector": np.ones(DIMENSION), "fusion": "rrf"}
    plain = docs.search("rare w3", k=SIZE, candidates=SIZE, **options)
    found = docs.search("rare w3", k=SIZE, candidates=SIZE, near=near, **options)
    kept = {id for id in plain.ids if naive_weight(near, metadata[int(id[1:])]) > 0}
    assert set(found.ids) == kept
    if mode == "text":
        scores = dict(zip(plain.ids, plain.scores))
        for hit in found:
            assert hit.score == pytest.approx(scores[hit.id] * naive_weight(near, metadata[int(hit.id[1:])]), rel=1e-6)


def test_near_joins_filters_groups_prefetches_and_examples(cities: Any) -> None:
    docs, _, metadata = cities
    near = {"geo": (0, 0, "5000km")}
    inside = {f"r{i}" for i, one in enumerate(metadata) if distance(one, "geo", (0, 0)) <= 5e6}
    hits = docs.search(np.ones(DIMENSION), k=400, near=near, where={"even": True})
    assert set(hits.ids) <= inside
    assert all(hit.metadata["even"] for hit in hits)
    assert len(docs.search(np.ones(DIMENSION), k=5, near=near, distinct="even")) == 2
    step = docs.search("w1", prefetch=[{"mode": "text", "k": 500}], k=400, near=near)
    assert step.ids
    assert set(step.ids) <= inside
    soft = docs.search(
        np.ones(DIMENSION), mode="vector", prefetch=[{"mode": "text", "query": "rare", "k": 900}], k=5, near=SOFT[0]
    )
    assert soft.scores == sorted(soft.scores, reverse=True)
    liked = docs.search(recommend={"positive": ["r60", "r61"], "strategy": "best_score"}, near=near, k=50)
    assert set(liked.ids) <= inside
    assert docs.count({"geo": {"$near": [0, 0, "5000km"]}}) == len(inside - {f"r{i}" for i in range(5, 50)})
    chosen = docs.search(np.ones(DIMENSION), k=5, near=near, ef=64)
    assert chosen.trace[0].detail["exact"] is False


def test_a_record_too_far_away_is_told_so_and_how_far_to_look(cities: Any) -> None:
    docs, _, metadata = cities
    query = np.ones(DIMENSION)
    number = next(i for i, one in enumerate(metadata) if i >= 50 and distance(one, "geo", (0, 0)) > 9e6)
    why = docs.why_not(f"r{number}", query, near={"geo": (0, 0, "10km")}, k=5)
    assert why.stage == "near"
    assert f"{distance(metadata[number], 'geo', (0, 0)):g}" in why.reason
    assert f"r{number}" in docs.search(query, **{"k": 5, **why.change}).ids
    docs.add(ids=["nowhere"], vectors=query[None])
    why = docs.why_not("nowhere", query, near={"geo": (0, 0, "10km")}, k=5)
    assert (why.stage, why.change) == ("near", {"near": None})
    zero = docs.why_not(f"r{number}", query, near={"geo": {"at": (0, 0), "kernel": "linear", "scale": 1000}}, k=SIZE)
    assert zero.stage == "near"
    assert "weight is 0" in zero.reason
    assert f"r{number}" in docs.search(query, **{"k": SIZE, **zero.change}).ids
    docs.delete("nowhere")


def test_a_cursor_of_what_is_near_now_goes_on(cities: Any) -> None:
    docs = cities[0]
    near = {"$created": ("now", "1d")}
    first = docs.search(np.ones(DIMENSION), k=3, near=near)
    second = docs.search(np.ones(DIMENSION), k=3, near=near, cursor=first.cursor)
    assert first.ids + second.ids == docs.search(np.ones(DIMENSION), k=6, near=near).ids
    with pytest.raises(vecdb.InvalidQuery, match="another search"):
        docs.search(np.ones(DIMENSION), k=3, near={"$created": ("now", "2d")}, cursor=first.cursor)


@pytest.mark.parametrize(
    ("near", "place", "says"),
    [
        ({}, "near", "1 to 8 fields"),
        ("geo", "near", "1 to 8 fields"),
        ({"geo": 5}, "near.geo", "give a tuple"),
        ({"geo": (1,)}, "near.geo", "latitude, longitude, radius"),
        ({"geo": (91, 0, 5)}, "near.geo", "latitude 91"),
        ({"geo": (0, 181, 5)}, "near.geo", "longitude 181"),
        ({"geo": (0, "x", 5)}, "near.geo", "coordinate 'x'"),
        ({"geo": (0, 0, 0)}, "near.geo", "within 0; it must be above 0"),
        ({"geo": (0, 0, math.inf)}, "near.geo", "finite"),
        ({"geo": (0, 0, "5 miles")}, "near.geo", "'2km'"),
        ({"day": ("noon", "3d")}, "near.day", "'noon'"),
        ({"day": ("2024-05-01", "3km")}, "near.day", "'30d'"),
        ({"n": (True, 3)}, "near.n", "centre True"),
        ({"n": {"at": 3}}, "near.n", "neither within nor kernel"),
        ({"n": {"at": 3, "kernel": "cliff", "scale": 1}}, "near.n.kernel", "linear, gauss, exp"),
        ({"n": {"at": 3, "kernel": "exp"}}, "near.n.scale", "go together"),
        ({"n": {"at": 3, "within": 1, "radius": 2}}, "near.n.radius", "no 'radius'"),
        ({"": (3, 1)}, "near.", "metadata key"),
    ],
)
def test_mistakes_are_named_with_their_place(db: vecdb.Database, near: Any, place: str, says: str) -> None:
    with pytest.raises(vecdb.InvalidQuery, match=says) as caught:
        db.collection("c", dimension=2).search([1, 0], near=near)
    assert caught.value.path is not None
    assert caught.value.path.rstrip(".") == place.rstrip(".")


def test_a_kernel_over_joined_prefetches_is_refused(db: vecdb.Database) -> None:
    near = {"n": {"at": 3, "kernel": "exp", "scale": 1}}
    with pytest.raises(vecdb.InvalidQuery, match="give near to them"):
        db.collection("c", dimension=2).search("x", near=near, prefetch=[{"mode": "text"}])


@pytest.mark.parametrize("operand", [5, [1], [1, 2, 3, 4], [100, 0, 5], [1, -1], ["x", 5], [None, 1]])
def test_wrong_operands_of_the_filter_are_refused(operand: Any) -> None:
    with pytest.raises(vecdb.InvalidFilter, match="latitude, longitude, metres"):
        parse({"geo": {"$near": operand}})


@given(st.floats(0, 1e9), st.sampled_from(sorted(KERNELS)))
def test_kernels_fall_from_one_and_are_one_half_at_scale(away: float, name: str) -> None:
    kernel = KERNELS[name]  # type: ignore[index]
    assert kernel(np.array([0.0, 1.0])) == pytest.approx([1.0, 0.5])
    near, far = kernel(np.array([away, away * 1.5 + 0.1]))
    assert 0 <= far <= near <= 1
