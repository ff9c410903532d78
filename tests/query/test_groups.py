"""Ranking groups of records through the public face: every method against a loop, filters, writes, crowds, mistakes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import vecdb

GROUPS, EACH, DIMENSION = 300, 6, 8
METHODS = ("exact", "index", "grids")


def scattered(seed: int = 0) -> tuple[Any, list[str], Any]:
    """Vectors, their parents, and one query near each vector of group 5; the vectors of a group lie far from each other."""
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((GROUPS, EACH, DIMENSION)) * 3
    vectors = (centres + 0.2 * rng.standard_normal(centres.shape)).reshape(-1, DIMENSION).astype(np.float32)
    queries = (centres[5] + 0.2 * rng.standard_normal((EACH, DIMENSION))).astype(np.float32)
    return vectors, [f"p{number // EACH}" for number in range(len(vectors))], queries


def naive(
    records: list[tuple[str, Any, Any]], queries: Any, reach: float, shape: float, k: int
) -> list[tuple[Any, float]]:
    """(group, score), best first, by a loop; records: id, vector as stored, group."""
    a = shape / (1 - shape)
    scores: dict[Any, float] = {}
    for group in {group for _, _, group in records if group is not None}:
        total = 0.0
        for query in queries.astype(np.float64):
            away = min(float(np.linalg.norm(vector - query)) for _, vector, other in records if other == group)
            total += (1 - (away / reach) ** a) ** (1 / a) if away < reach else 0.0
        if total > 0:
            scores[group] = total / len(queries)
    return sorted(scores.items(), key=lambda pair: -pair[1])[:k]


def stored(docs: Any, where: Any = None, by: str = "parent") -> list[tuple[str, Any, Any]]:
    records = docs.scan(where=where, limit=10_000, vectors=True).records
    return [
        (r.id, r.vector.astype(np.float64), r.parent if by == "parent" else r.metadata.get(by))
        for r in records
        if r.vector is not None
    ]


@pytest.fixture(scope="module", params=["cosine", "l2"])
def places(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Most records in a graph, some in its tail, some without a vector or without a group."""
    vectors, parents, queries = scattered()
    with vecdb.open(tmp_path_factory.mktemp("groups") / "g.vecdb", background=False) as db:
        docs = db.collection("c", dimension=DIMENSION, metric=request.param)
        ids = [f"r{number}" for number in range(len(vectors))]
        metadata = [{"kind": number % 9, "odd": bool(number % 2)} for number in range(len(vectors))]
        docs.add(ids=ids[:-100], vectors=vectors[:-100], parents=parents[:-100], metadata=metadata[:-100])
        docs.optimize()
        docs.warm()
        docs.add(ids=ids[-100:], vectors=vectors[-100:], parents=parents[-100:], metadata=metadata[-100:])
        docs.add(ids=["no vector"], texts=["x"], parents=["p5"])
        docs.add(ids=["no group"], vectors=queries[:1])
        if request.param == "cosine":
            queries = queries / np.linalg.norm(queries, axis=1, keepdims=True)
        yield docs, queries


@pytest.mark.parametrize("by", ["parent", "kind"])
@pytest.mark.parametrize("where", [None, {"odd": True}])
def test_exact_is_what_a_loop_says(places: Any, by: str, where: Any) -> None:
    docs, queries = places
    found = docs.search_groups(queries, 4, by=by, method="exact", where=where)
    expected = naive(stored(docs, where, by), queries, found.trace["reach"], found.trace["shape"], 4)
    assert found.groups == [group for group, _ in expected]
    assert found.scores == pytest.approx([score for _, score in expected], abs=2e-3)


@pytest.mark.parametrize("method", METHODS)
def test_every_method_finds_the_group_and_says_by_what(places: Any, method: str) -> None:
    docs, queries = places
    found = docs.search_groups(queries, 3, method=method)
    assert found[0].group == "p5"
    best = found[0]
    assert [match.query for match in best.matches] == list(range(EACH))
    assert sum(match.credit for match in best.matches) / EACH == pytest.approx(best.score)
    for match in best.matches:
        nearest = docs.search(queries[match.query], k=1, where={"$parent": "p5"}, exact=True)[0]
        assert (match.id, match.score) == (nearest.id, pytest.approx(nearest.score, abs=1e-3))
    exact = {hit.group: hit.score for hit in docs.search_groups(queries, GROUPS, method="exact")}
    for hit in found:  # never more than the truth
        assert hit.score <= exact[hit.group] + 1e-4
    if method != "exact":
        assert found.trace["distances"] < 0.6 * EACH * found.trace["vectors"]


@pytest.mark.parametrize("method", METHODS)
def test_filters_hold(places: Any, method: str) -> None:
    docs, queries = places
    found = docs.search_groups(queries, 3, method=method, where={"odd": True})
    assert found[0].group == "p5"
    assert all(int(match.id[1:]) % 2 for hit in found for match in hit.matches)
    assert docs.search_groups(queries, 3, method=method, where={"kind": 77}).groups == []


@pytest.mark.parametrize("method", METHODS)
def test_writes_count_at_once(db: vecdb.Database, method: Any) -> None:
    vectors, parents, queries = scattered(1)
    docs = db.collection("c", dimension=DIMENSION, metric="l2")
    docs.add(ids=[f"r{n}" for n in range(len(vectors))], vectors=vectors, parents=parents)
    docs.optimize()
    docs.warm()

    def best() -> Any:
        found = docs.search_groups(queries, 1, method=method, reach=1.5)
        expected = naive(stored(docs), queries, 1.5, 0.4592, 1)
        assert found.groups == [group for group, _ in expected]
        assert found.scores == pytest.approx([score for _, score in expected], abs=2e-3)
        return found.groups[0]

    assert best() == "p5"
    docs.delete([f"r{n}" for n in range(30, 34)])
    docs.add(ids=[f"new{n}" for n in range(5)], vectors=queries[:5] + 0.01, parents=["fresh"] * 5)
    assert best() == "fresh"
    docs.update(ids=[f"new{n}" for n in range(4)], parents=[None] * 4)
    assert best() in ("p5", "fresh")
    docs.upsert([{"id": "r0", "vector": vectors[0] + 9, "parent": "moved"}])
    docs.update(ids=[f"new{n}" for n in range(5)], parents=["other"] * 5)
    assert best() == "other"
    docs.delete(where={"$parent": "other"})
    best()
    more = np.repeat(queries, 400, axis=0) + np.float32(0.05)  # so many that grids are made anew
    docs.add(vectors=more, parents=["many"] * len(more))
    assert best() == "many"


@pytest.mark.parametrize("method", METHODS)
def test_a_crowd_hides_nobody(db: vecdb.Database, method: Any) -> None:
    """5,000 near copies of one query vector in one group: the nearest 100 of it are all of that group."""
    vectors, parents, queries = scattered(2)
    rng = np.random.default_rng(3)
    crowd = (queries[0] + 0.05 * rng.standard_normal((5_000, DIMENSION))).astype(np.float32)
    docs = db.collection("c", dimension=DIMENSION, metric="l2")
    docs.add(vectors=np.concatenate([vectors, crowd]), parents=parents + ["crowd"] * len(crowd))
    docs.optimize()
    docs.warm()
    assert {hit.parent for hit in docs.search(queries[0], k=100)} == {"crowd"}
    found = docs.search_groups(queries, 3, method=method, reach=2.0)
    assert found.groups[0] == "p5"
    assert "crowd" in found.groups
    assert found.scores[1] <= 0.5


def test_texts_are_embedded_and_one_is_enough(db: vecdb.Database) -> None:
    from word_embedder import WordEmbedder

    docs = db.collection("c", embed=WordEmbedder())
    docs.add(
        ids=["a1", "a2", "b1"], texts=["lift of a wing", "heat of a plate", "lift of a crane"], parents=["a", "a", "b"]
    )
    assert docs.search_groups(["lift of a wing", "heat of a plate"], reach=1.4)[0].group == "a"
    assert docs.search_groups("lift of a crane", 1, reach=1.4).groups == ["b"]
    assert docs.search_groups(np.ones(docs.dimension or 0)).trace["method"] == "exact"


def test_an_empty_collection_has_no_groups(db: vecdb.Database) -> None:
    docs = db.collection("c", dimension=3)
    for method in (*METHODS, "auto"):
        assert docs.search_groups([[1, 0, 0]], method=method).groups == []  # type: ignore[arg-type]
    docs.add(ids=["a"], vectors=[[1, 0, 0]], parents=["p"])
    for method in METHODS:
        assert docs.search_groups([[1, 0, 0]], method=method).groups == ["p"]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"k": 0}, "k is 0"),
        ({"k": True}, "k is True"),
        ({"by": ""}, "by is ''"),
        ({"method": "fast"}, "auto, exact, index, grids"),
        ({"reach": 0}, "a distance above 0"),
        ({"reach": float("nan")}, "a distance above 0"),
        ({"shape": 0.7}, "at most at 0.5"),
        ({"queries": [[1, 2, 3]]}, "has 3 numbers"),
        ({"queries": "words"}, "no embedding model"),
        ({"queries": np.ones((10_001, 2))}, "at most 10,000"),
        ({"queries": []}, "empty|no query|dimension"),
    ],
)
def test_mistakes_are_named(db: vecdb.Database, options: dict[str, Any], says: str) -> None:
    with pytest.raises(vecdb.VecdbError, match=says):
        db.collection("c", dimension=2).search_groups(**{"queries": [[1, 0]], **options})


def test_an_inner_product_is_no_distance(db: vecdb.Database) -> None:
    with pytest.raises(vecdb.InvalidQuery, match="inner product"):
        db.collection("c", dimension=2, metric="ip").search_groups([[1, 0]])
