"""Searches of a collection that ask for a recall: what the hits say of themselves, in the library and over HTTP."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import vecdb
from vecdb.errors import InvalidQuery

DIMENSION = 24
COUNT = 9_000  # more than a collection searches without an index


def clustered(count: int, seed: int) -> NDArray[np.float32]:
    centres = np.random.default_rng(1).standard_normal((60, DIMENSION))
    rng = np.random.default_rng(seed)
    return (centres[rng.integers(0, 60, count)] + 0.7 * rng.standard_normal((count, DIMENSION))).astype(np.float32)


QUERIES = clustered(200, 3)


@pytest.fixture(scope="module")
def database() -> Iterator[vecdb.Database]:
    with vecdb.open(":memory:", background=False) as db:
        docs = db.collection("docs", dimension=DIMENSION, index=vecdb.HnswConfig(M=8, ef_construction=60))
        metadata = [{"tenth": i % 10} for i in range(COUNT)]
        docs.add(ids=[f"d{i}" for i in range(COUNT)], vectors=clustered(COUNT, 2), metadata=metadata)
        docs.optimize()
        yield db


@pytest.fixture
def docs(database: vecdb.Database) -> vecdb.Collection:
    return database.collection("docs")


def mean_recall(found: list[Any], true: list[Any]) -> float:
    return float(np.mean([len(set(got.ids) & set(want.ids)) / len(want.ids) for got, want in zip(found, true)]))


def test_an_index_is_searched(docs: vecdb.Collection) -> None:
    hits = docs.search(QUERIES[0], k=10)
    assert hits.estimated_recall is None
    assert docs.search(QUERIES[0], k=10, exact=True).estimated_recall == 1


@pytest.mark.parametrize("target", [0.8, 0.9, 0.95])
def test_hits_say_what_share_of_the_nearest_they_are(docs: vecdb.Collection, target: float) -> None:
    found = docs.search(QUERIES, k=10, target_recall=target)
    got = mean_recall(found, docs.search(QUERIES, k=10, exact=True))
    said = [hits.estimated_recall for hits in found]
    assert all(0 < share <= 1 for share in said)
    assert got >= target - 0.03
    assert abs(float(np.mean(said)) - got) <= 0.04
    assert docs.search(QUERIES[0], k=10, target_recall=target).estimated_recall == said[0]


def test_what_a_filter_leaves_to_a_scan_is_whole(docs: vecdb.Collection) -> None:
    hits = docs.search(QUERIES[0], k=10, where={"tenth": 3}, target_recall=0.8)
    assert hits.estimated_recall == 1
    assert hits.ids == docs.search(QUERIES[0], k=10, where={"tenth": 3}, exact=True).ids


def test_what_was_written_since_is_found_as_well(docs: vecdb.Collection) -> None:
    docs.upsert(ids=["late"], vectors=QUERIES[7:8])
    hits = docs.search(QUERIES[7], k=10, target_recall=0.8)
    assert hits.ids[0] == "late"
    assert hits.estimated_recall is not None
    assert 0 < hits.estimated_recall <= 1
    docs.delete("late")


def test_a_collection_without_an_index_finds_all() -> None:
    with vecdb.open(":memory:", background=False) as db:
        small = db.collection("small", dimension=DIMENSION)
        small.add(ids=["a", "b", "c"], vectors=QUERIES[:3])
        assert small.search(QUERIES[0], k=2, target_recall=0.5).estimated_recall == 1


def test_a_target_goes_with_neither_ef_nor_exact(docs: vecdb.Collection) -> None:
    for other in ({"ef": 50}, {"exact": True}):
        with pytest.raises(InvalidQuery, match="one of them"):
            docs.search(QUERIES[0], target_recall=0.9, **other)
    for target in (0, 1, 95, True, "high"):
        with pytest.raises(InvalidQuery, match="target_recall is"):
            docs.search(QUERIES[0], target_recall=target)


def test_over_http_hits_say_the_same(database: vecdb.Database, docs: vecdb.Collection) -> None:
    pytest.importorskip("httpx2")
    pytest.importorskip("fastapi")
    pytest.importorskip("pydantic_settings")
    from starlette.testclient import TestClient

    from vecdb.server.app import create_app
    from vecdb.server.settings import Settings

    app = create_app(database, Settings(models=("default",)))
    with (
        TestClient(app, base_url="http://localhost") as http,
        vecdb.connect("http://localhost", http=http) as remote,
    ):
        there = remote.collection("docs")
        for options in ({"target_recall": 0.9}, {}, {"exact": True}):
            here, got = (each.search(QUERIES[0], k=10, **options) for each in (docs, there))
            assert got.ids == here.ids
            assert got.estimated_recall == here.estimated_recall
        with pytest.raises(InvalidQuery, match="one of them"):
            there.search(QUERIES[0], target_recall=0.9, ef=3)
