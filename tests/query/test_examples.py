"""Searches by examples against loops over all records."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from recompute import recomputed

import vecdb
from vecdb.query import retrieval

SIZE = 40


def cosine(a: Any, b: Any) -> float:
    a, b = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


SIMILARITY: dict[str, Callable[[Any, Any], float]] = {
    "cosine": cosine,
    "ip": lambda a, b: float(np.dot(np.asarray(a, np.float64), np.asarray(b, np.float64))),
    "l2": lambda a, b: -float(np.linalg.norm(np.asarray(a, np.float64) - np.asarray(b, np.float64))),
}


def held(x: float) -> float:
    return (1 + x / (1 + abs(x))) / 2


def recommended(like: Callable[[Any, Any], float], vector: Any, positive: list[Any], negative: list[Any]) -> float:
    wanted = max((like(vector, p) for p in positive), default=-np.inf)
    other = max((like(vector, n) for n in negative), default=-np.inf)
    return held(wanted) if wanted > other else -held(other)


def discovered(like: Callable[[Any, Any], float], vector: Any, target: Any, pairs: list[tuple[Any, Any]]) -> float:
    differences = [like(vector, p) - like(vector, n) for p, n in pairs]
    if target is None:
        return sum(min(0.0, d) for d in differences)
    return sum(1 if d > 0 else -1 for d in differences) + held(like(vector, target))


@pytest.fixture(scope="module", params=["cosine", "ip", "l2"])
def docs(request: pytest.FixtureRequest) -> Iterator[vecdb.Collection]:
    """With copies, and records that have no vector."""
    vectors = np.random.default_rng(4).standard_normal((SIZE, 3)).round(1) + 0.01
    vectors[30:] = vectors[:10]
    with vecdb.open(":memory:", background=False) as db:
        docs = db.collection("c", dimension=3, metric=request.param)
        docs.add(ids=[f"r{i}" for i in range(SIZE)], vectors=vectors, metadata=[{"n": i} for i in range(SIZE)])
        docs.add(ids=["mute"], texts=["no vector"])
        yield docs


EXAMPLE = st.one_of(
    st.integers(0, SIZE - 1).map("r{}".format),
    st.lists(st.sampled_from([-1.0, 0.25, 0.5, 2.0]), min_size=3, max_size=3),
)


def vector_of(docs: vecdb.Collection, example: Any) -> Any:
    if not isinstance(example, str):
        return np.asarray(example, np.float32) / (np.linalg.norm(example) if docs.metric == "cosine" else 1)
    record = docs.get(example, vectors=True)
    assert record is not None
    return record.vector


@settings(max_examples=40)
@given(
    positive=st.lists(EXAMPLE, max_size=3),
    negative=st.lists(EXAMPLE, max_size=3),
    where=st.sampled_from([None, {"n": {"$lt": 25}}]),
    is_pooled=st.booleans(),
)
def test_the_best_score_is_that_of_a_loop(
    docs: vecdb.Collection, positive: list[Any], negative: list[Any], where: Any, is_pooled: bool
) -> None:
    if not positive and not negative:
        return
    with pytest.MonkeyPatch.context() as patched:
        if is_pooled and positive:
            patched.setattr(retrieval, "SCANNED", 0)  # the pool is deep enough to hold all
        hits = docs.recommend(positive, negative, strategy="best_score", where=where, k=SIZE)
    vectors = [[vector_of(docs, example) for example in side] for side in (positive, negative)]
    check(
        docs, hits, where, [*positive, *negative], lambda vector: recommended(SIMILARITY[docs.metric], vector, *vectors)
    )
    assert hits.trace[0].detail["way"] == ("pool" if is_pooled and positive else "scan")
    assert (hits.estimated_recall is None) == (is_pooled and bool(positive))


@settings(max_examples=40)
@given(
    target=st.one_of(st.none(), EXAMPLE),
    context=st.lists(st.tuples(EXAMPLE, EXAMPLE), min_size=1, max_size=3),
    where=st.sampled_from([None, {"n": {"$gte": 7}}]),
)
def test_discoveries_are_those_of_a_loop(docs: vecdb.Collection, target: Any, context: Any, where: Any) -> None:
    hits = docs.discover(target, context, where=where, k=SIZE)
    examples = [target, *(end for pair in context for end in pair)]
    aim = None if target is None else vector_of(docs, target)
    pairs = [(vector_of(docs, p), vector_of(docs, n)) for p, n in context]
    check(docs, hits, where, examples, lambda vector: discovered(SIMILARITY[docs.metric], vector, aim, pairs))


def check(
    docs: vecdb.Collection, hits: vecdb.Hits, where: Any, examples: list[Any], score: Callable[[Any], float]
) -> None:
    """All records but the examples come, by descending scores, and those are right. A tie of similarities may fall either way."""
    records = [r for r in docs.scan(where=where, vectors=True) if r.vector is not None and r.id not in examples]
    assert sorted(hits.ids) == sorted(record.id for record in records)
    assert hits.scores == sorted(hits.scores, reverse=True)
    found = dict(zip(hits.ids, hits.scores))
    for record in records:
        wanted = [score(np.asarray(record.vector, np.float64) * (1 + nudge)) for nudge in (0, 1e-6, -1e-6)]
        nearest = min(wanted, key=lambda w, f=found[record.id]: abs(w - f))
        if found[record.id] != pytest.approx(nearest, abs=1e-5):
            assert ties(docs, record.vector, examples), (record.id, found[record.id], wanted)


def ties(docs: vecdb.Collection, vector: Any, examples: list[Any]) -> bool:
    """Whether two examples are equally like a record, up to rounding."""
    likeness = [SIMILARITY[docs.metric](vector, vector_of(docs, e)) for e in examples if e is not None]
    return any(abs(a - b) < 1e-6 for i, a in enumerate(likeness) for b in likeness[:i])


@settings(max_examples=30)
@given(positive=st.lists(EXAMPLE, min_size=1, max_size=3), negative=st.lists(EXAMPLE, max_size=2))
def test_the_average_is_a_search_by_that_vector(
    docs: vecdb.Collection, positive: list[Any], negative: list[Any]
) -> None:
    vectors = [np.stack([vector_of(docs, e) for e in side]) for side in (positive, negative) if side]
    vector = vectors[0].mean(axis=0) if not negative else 2 * vectors[0].mean(axis=0) - vectors[1].mean(axis=0)
    if np.linalg.norm(vector) < 1e-3:
        return
    hits = docs.recommend(positive, negative, k=SIZE)
    plain = docs.search(vector, k=SIZE)
    kept = [hit for hit in plain if hit.id not in [*positive, *negative]]
    assert sorted(hits.ids) == sorted(hit.id for hit in kept)
    assert hits.scores == pytest.approx([hit.score for hit in kept], abs=1e-4)


def test_examples_stay_out_whatever_brings_them(db: vecdb.Database) -> None:
    docs = db.collection("c", dimension=2)
    angles = np.linspace(0, 1.5, 30)
    vectors = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    docs.add(ids=[f"r{i}" for i in range(30)], vectors=vectors, texts=["word"] * 30)
    docs.link("r1", "r0", "cites")
    two = [{"mode": "text"}, {"vector": vectors[0], "mode": "vector", "k": 20}]
    staged: list[dict[str, Any]] = [{"prefetch": two[:1]}, {"prefetch": two}, {"prefetch": two, "mode": "vector"}]
    for options in ({"mode": "vector"}, {"mode": "hybrid"}, {"graph": {"beta": 0.9}}, *staged):
        for asked in ({"recommend": {"positive": ["r0"]}}, {"discover": {"target": "r0", "context": [("r0", "r9")]}}):
            hits = docs.search("word", k=5, **options, **asked)  # type: ignore[arg-type]
            assert len(hits) == 5
            assert not {"r0"} & set(hits.ids)
            assert hits.scores == pytest.approx([recomputed(hit) for hit in hits])
            if "discover" in asked:
                assert "r9" not in hits.ids
    first = docs.recommend("r0", k=2)
    second = docs.search(recommend={"positive": "r0"}, k=2, cursor=first.cursor)
    assert first.ids + second.ids == docs.recommend("r0", k=4).ids


def test_derived_vectors_have_examples_too(db: vecdb.Database) -> None:
    docs = db.collection("c", dimension=2)
    docs.add(ids=[f"r{i}" for i in range(12)], texts=["word"] * 12)
    docs.link([f"r{i}" for i in range(9)], [f"r{i + 1}" for i in range(9)])
    docs.link(["r0", "r4"], ["r2", "r6"])
    docs.derive("fastrp", dimension=8)
    vectors = {f"r{i}": docs.vector(f"r{i}") for i in range(10)}
    hits = docs.recommend("r0", "r9", strategy="best_score", field="fastrp", k=12)
    assert sorted(hits.ids) == sorted(set(vectors) - {"r0", "r9"})
    for hit in hits:
        wanted = recommended(cosine, vectors[hit.id], [vectors["r0"]], [vectors["r9"]])
        assert hit.score == pytest.approx(wanted, abs=1e-6)
    average = docs.recommend(["r0", "r3"], field="fastrp", k=12)
    mean = (np.asarray(vectors["r0"]) + np.asarray(vectors["r3"])) / 2
    assert dict(zip(average.ids, average.scores)) == pytest.approx(
        {id: cosine(vector, mean) for id, vector in vectors.items() if id not in ("r0", "r3")}, abs=1e-6
    )
    among = docs.recommend("r0", field="fastrp", mode="vector", prefetch=[{"query": "word", "mode": "text", "k": 5}])
    assert set(among.ids) == {"r1", "r2", "r3", "r4"}
    with pytest.raises(vecdb.InvalidQuery, match="has no vector"):
        docs.recommend("r11", field="fastrp")


def test_a_batch_has_its_examples_in_common(docs: vecdb.Collection) -> None:
    asked: dict[str, Any] = {"positive": ["r1"], "negative": ["r2"], "strategy": "best_score"}
    several = docs.search(["no", "vector"], recommend=asked, k=4)
    assert [hits.ids for hits in several] == [docs.search(text, recommend=asked, k=4).ids for text in ("no", "vector")]


def test_what_cannot_be_an_example_is_refused(docs: vecdb.Collection) -> None:
    refused: list[tuple[Callable[[], Any], type[Exception], str]] = [
        (lambda: docs.recommend(["r1", "absent"]), vecdb.RecordNotFound, "'absent'"),
        (lambda: docs.recommend("mute"), vecdb.InvalidQuery, "has no vector"),
        (lambda: docs.recommend([[1, 2]]), vecdb.DimensionMismatch, "holds 3"),
        (lambda: docs.recommend([[1, 2, float("nan")]]), vecdb.InvalidVector, "NaN"),
        (docs.recommend, vecdb.InvalidQuery, "no positive example"),
        (lambda: docs.recommend(negative="r1"), vecdb.InvalidQuery, "no positive example"),
        (lambda: docs.recommend("r1", strategy="worst"), vecdb.InvalidQuery, "average or best_score"),  # type: ignore[arg-type]
        (docs.discover, vecdb.InvalidQuery, "neither a target nor a context"),
        (lambda: docs.discover("r1", ["r2"]), vecdb.InvalidQuery, "a pair"),
        (lambda: docs.discover("r1", 7), vecdb.InvalidQuery, "pairs"),
        (lambda: docs.recommend(7), vecdb.InvalidQuery, "list of records' ids"),
        (lambda: docs.recommend({"r1": 1}), vecdb.InvalidQuery, "list of records' ids"),
        (lambda: docs.recommend("r1", discover={"target": "r2"}), vecdb.InvalidQuery, "one of them"),
        (
            lambda: docs.search([1, 2, 3], recommend={"positive": "r1"}),
            vecdb.InvalidQuery,
            "both a vector and examples",
        ),
        (lambda: docs.recommend(["r1"] * 300), vecdb.InvalidQuery, "at most 256"),
    ]
    for call, kind, words in refused:
        with pytest.raises(kind, match=words):
            call()
