"""The contract of rerankers: stages, limits, what happens when one fails, and what travels."""

from __future__ import annotations

import asyncio
import importlib
import inspect
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest
from word_embedder import WordEmbedder

import vecdb
from vecdb.rerank.base import BatchReranker, Candidate, Context, Limit, OneByOne, Ranked, Reranked, Task, by_score
from vecdb.rerank.kinds import KINDS, reached, reranker_of, stages_of

TEXTS = ["red apple", "red car", "green apple", "blue sea", "red red wine", "apple pie"]


@pytest.fixture
def docs() -> Iterator[vecdb.Collection]:
    with vecdb.open(":memory:", background=False) as db:
        collection = db.collection("docs", embed=WordEmbedder())
        collection.add(ids=[f"d{i}" for i in range(6)], texts=TEXTS, metadata=[{"n": i} for i in range(6)])
        yield collection


class Recorder(BatchReranker):
    """Turns the order round and keeps what it was given."""

    needs = frozenset({"embedding"})

    def __init__(self) -> None:
        self.tasks: list[Task] = []

    def rerank_batch(self, tasks: Sequence[Task], context: Context) -> list[Reranked]:
        self.tasks = list(tasks)
        return [Reranked(by_score(range(len(task.candidates)), task.k), {"passes": 1}) for task in tasks]


def test_every_kind_can_be_imported_and_says_what_it_is() -> None:
    for path in KINDS.values():
        module, _, name = path.partition(":")
        assert issubclass(getattr(importlib.import_module(module), name), BatchReranker)


def test_a_batch_of_queries_is_one_call_with_vectors_where_they_are_needed(docs: vecdb.Collection) -> None:
    reranker = Recorder()
    answers = docs.search(["red", "apple"], k=2, rerank=reranker)
    assert [task.query for task in reranker.tasks] == ["red", "apple"]
    assert all(task.vector is not None and task.vector.shape == (16,) for task in reranker.tasks)
    assert all(c.embedding is not None and c.embedding.shape == (16,) for t in reranker.tasks for c in t.candidates)
    plain = docs.search("red", k=6)
    assert answers[0].ids == plain.ids[::-1][:2]
    assert answers[0].trace[-1].detail == {"kind": "Recorder", "looked_at": 6, "passes": 1}


def test_stages_follow_each_other_and_top_bounds_what_one_sees(docs: vecdb.Collection) -> None:
    first, second = Recorder(), Recorder()
    whole = docs.search("red", k=6, rerank=first).ids
    hits = docs.search("red", k=6, rerank=[first, second])
    assert hits.ids == whole[::-1]
    assert [step.stage for step in hits[0].trace][-2:] == ["rerank", "rerank_2"]
    hits = docs.search(
        "red",
        k=6,
        rerank=["cosine", {"kind": "relevance_x_time", "time_field": "n", "top": 2}],
    )
    assert sorted(hits.ids[:2]) == sorted(docs.search("red", k=6, rerank="cosine").ids[:2])
    assert hits.ids[2:] == docs.search("red", k=6, rerank="cosine").ids[2:]
    assert hits.scores == sorted(hits.scores, reverse=True)


@pytest.mark.parametrize(
    ("answers", "told"),
    [
        ([], "0 answers to 1"),
        ([Reranked((Ranked(0, 1.0), Ranked(0, 0.5)))], "a position twice"),
        ([Reranked((Ranked(99, 1.0),))], "no candidate's"),
        ([Reranked((Ranked(0, float("nan")),))], "finite"),
    ],
)
def test_a_wrong_answer_keeps_the_order_and_says_why(docs: vecdb.Collection, answers: Any, told: str) -> None:
    class Wrong(BatchReranker):
        def rerank_batch(self, tasks: Sequence[Task], context: Context) -> list[Reranked]:
            return list(answers)

    hits = docs.search("red", k=3, rerank=Wrong())
    assert hits.ids == docs.search("red", k=3).ids
    assert told in hits.trace[-1].detail["failed"]


def test_one_query_that_fails_leaves_the_others_alone(docs: vecdb.Collection) -> None:
    class Picky:
        def rerank(self, query: str, candidates: Sequence[Candidate], k: int) -> list[Ranked]:
            if query == "red":
                raise RuntimeError("no red")
            return [Ranked(i, float(i)) for i in reversed(range(len(candidates)))]

    good, bad = docs.search(["apple", "red"], k=6, rerank=Picky())
    assert good.ids == docs.search("apple", k=6).ids[::-1]
    assert bad.ids == docs.search("red", k=6).ids
    assert bad.trace[-1].detail["failed"] == "RuntimeError: no red"


def test_time_that_is_over_keeps_the_order(docs: vecdb.Collection) -> None:
    class Slow(BatchReranker):
        def rerank_batch(self, tasks: Sequence[Task], context: Context) -> list[Reranked]:
            for _ in range(1000):
                threading.Event().wait(0.005)
                context.limit.check()
            raise AssertionError

    limit = Limit(0.0)
    with pytest.raises(vecdb.RerankStopped, match="over"):
        limit.check()
    assert Limit(5).seconds_left is not None
    assert Limit().seconds_left is None
    hits = docs.search("red", k=3, rerank={"kind": "feedback", "by": Slow(), "deadline_ms": 20})
    assert hits.ids == docs.search("red", k=3).ids
    assert hits.trace[-1].detail["failed"].startswith("RerankStopped")


def test_a_cancelled_search_stops_its_reranker() -> None:
    begun, stopped = threading.Event(), threading.Event()

    class Endless(BatchReranker):
        def rerank_batch(self, tasks: Sequence[Task], context: Context) -> list[Reranked]:
            begun.set()
            try:
                while True:
                    threading.Event().wait(0.005)
                    context.limit.check()
            except vecdb.RerankStopped:
                stopped.set()
                raise

    async def run() -> None:
        async with vecdb.open_async(":memory:", background=False) as db:
            collection = await db.collection("c", embed=WordEmbedder())
            await collection.add(ids=["a"], texts=["red"])
            task = asyncio.create_task(collection.search("red", rerank=Endless()))
            await asyncio.to_thread(begun.wait, 10)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert await asyncio.to_thread(stopped.wait, 10)

    asyncio.run(run())


def test_what_is_no_reranker_is_refused_before_anything_runs(docs: vecdb.Collection) -> None:
    for wrong in ("klingon", 7, [], ["cosine"] * 9, {"kind": "cosine", "top": 0}, {"kind": "cosine", "x": 1}, Recorder):
        with pytest.raises(vecdb.InvalidQuery, match="rerank"):
            docs.search("red", rerank=wrong)
    with pytest.raises(vecdb.InvalidQuery, match="part of another"):
        reranker_of({"kind": "cosine", "top": 3})


def test_equal_options_are_one_instance_so_that_models_load_once() -> None:
    assert reranker_of({"kind": "relevance_x_time", "time_field": "a"}) is reranker_of(
        {"kind": "relevance_x_time", "time_field": "a"}
    )
    assert reranker_of({"kind": "relevance_x_time", "time_field": "a"}) is not reranker_of(
        {"kind": "relevance_x_time", "time_field": "b"}
    )
    assert [stage.name for stage in stages_of(["cosine", reranker_of("cosine")])] == ["cosine", "cosine"]


def test_what_a_specification_reaches_is_found_at_any_depth() -> None:
    spec = ["cosine", {"kind": "feedback", "by": {"kind": "x", "model": "m", "more": [{"url": "u"}]}, "model": None}]
    assert list(reached(spec)) == ["m", "u"]
    deep: Any = "cosine"
    for _ in range(2_000):
        deep = {"kind": "feedback", "by": deep}
    with pytest.raises(vecdb.InvalidQuery, match="nested"):
        list(reached(deep))


def test_a_service_takes_no_model_that_it_was_not_told_of() -> None:
    pytest.importorskip("fastapi")
    from vecdb.server.schemas import SearchBody
    from vecdb.server.settings import Settings

    body = SearchBody(query="a", rerank=[{"kind": "feedback", "by": {"kind": "maxsim", "encoder": "http://evil"}}])
    with pytest.raises(vecdb.InvalidQuery, match="VECDB_MODELS"):
        body.options(Settings())
    allowed = SearchBody(query="a", rerank={"kind": "maxsim", "encoder": "mine"})
    assert allowed.options(Settings(models=("mine",)))["rerank"] == {"kind": "maxsim", "encoder": "mine"}
    with pytest.raises(vecdb.InvalidQuery, match="top of rerank"):
        SearchBody(query="a", rerank={"kind": "cosine", "top": 10**6}).options(Settings())


def test_records_that_come_in_by_feedback_are_reranked_too() -> None:
    class Steepest(BatchReranker):
        def rerank_batch(self, tasks: Sequence[Task], context: Context) -> list[Reranked]:
            return [Reranked(by_score([c.metadata["angle"] for c in task.candidates], task.k)) for task in tasks]

    angles = [0, -10, 20, 25, 60]
    with vecdb.open(":memory:", background=False) as db:
        docs = db.collection("angles", dimension=2)
        turns = np.radians(angles)
        vectors = np.stack([np.cos(turns), np.sin(turns)], axis=1)
        docs.add(ids=[str(a) for a in angles], vectors=vectors, metadata=[{"angle": a} for a in angles])
        assert docs.search([1, 0], k=1, candidates=3, rerank=Steepest()).ids == ["20"]
        taught = {"kind": "feedback", "by": Steepest(), "method": "rocchio", "rate": 5.0, "teachers": 2}
        hits = docs.search([1, 0], k=1, candidates=3, rerank=taught)
    assert hits.ids == ["25"]  # which lies nearer to where the query moved
    assert hits.trace[-1].detail["added"] == 1
    assert hits.trace[-1].detail["looked_at"] == 4


def test_a_teacher_that_fails_the_second_time_leaves_its_first_answer(docs: vecdb.Collection) -> None:
    class Once(BatchReranker):
        calls = 0

        def rerank_batch(self, tasks: Sequence[Task], context: Context) -> list[Reranked]:
            Once.calls += 1
            if Once.calls > 1:
                raise RuntimeError("tired")
            return [Reranked(by_score(range(len(task.candidates)), task.k)) for task in tasks]

    hits = docs.search("red", k=3, candidates=4, mode="vector", rerank={"kind": "feedback", "by": Once()})
    assert hits.ids == docs.search("red", k=4, mode="vector").ids[::-1][:3]
    assert hits.trace[-1].detail["again_failed"] == "RuntimeError: tired"


def test_a_reranker_of_the_users_works_outside_a_search() -> None:
    candidates = [Candidate("a", "x", 1.0), Candidate("b", "y", 0.5)]
    assert [r.position for r in Recorder().rerank("q", candidates, 1)] == [1]
    answer = OneByOne(Recorder()).rerank("q", candidates, 2)
    assert (len(answer), answer[0].position, answer.kept) == (2, 1, None)


@pytest.mark.parametrize(
    ("spec", "told"),
    [
        ({"top": 3}, "no 'kind'"),
        ({"kind": "maxsim", "alpah": 0.3}, "no option 'alpah'; it has alpha, beta"),
        ({"kind": "feedback"}, "needs the option 'by'"),
        ({"kind": "first", "window": "20"}, "window of rerank 'first' is '20'; it must be a whole number"),
        ({"kind": "first", "window": 20.0}, "must be a whole number"),
        ({"kind": "first", "shuffles": None}, "must be a whole number"),
        ({"kind": "first", "seed": -1}, "at least 0"),
        ({"kind": "first", "model": 5}, "model is a int"),
        ({"kind": "first", "model": ""}, "empty string"),
        ({"kind": "sliding", "window": "all"}, "must be a whole number or left out"),
        ({"kind": "sliding", "letters": "yes"}, "must be true or false"),
        ({"kind": "group", "blend": True}, "must be a number"),
        ({"kind": "setwise", "method": ["heapsort"]}, "must be one of heapsort, bubblesort"),
        ({"kind": "relevance_x_time", "time_field": 3}, "must be a text"),
        (
            {
                "kind": "relevance_x_time",
                "time_field": "d",
                "span": [0, 9],
                "time_prior": {"u": "ab", "values": [1, 2]},
            },
            "ab",
        ),
        ({"kind": "blend", "weights": 5}, "does not take"),
    ],
)
def test_an_option_of_the_wrong_type_is_refused_with_what_it_must_be(spec: dict[str, Any], told: str) -> None:
    with pytest.raises(vecdb.InvalidQuery) as raised:
        stages_of(spec)
    assert told in str(raised.value)
    assert "__init__" not in str(raised.value)


def test_every_kind_takes_its_own_defaults_as_options() -> None:
    """What the annotations say and what the defaults are agree, so that a default that is written out is not refused."""
    needed = {"relevance_x_time": {"time_field": "d"}, "feedback": {"by": "cosine"}}
    for name, place in KINDS.items():
        module, _, attribute = place.partition(":")
        taken = inspect.signature(getattr(importlib.import_module(module), attribute)).parameters
        plain = (bool, int, float, str, type(None))
        defaults = {o: p.default for o, p in taken.items() if isinstance(p.default, plain)}
        stages_of({"kind": name, **defaults, **needed.get(name, {})})


def test_the_fields_word_for_windows_of_a_model_is_a_kind() -> None:
    (first, second) = stages_of(["maxsim", {"kind": "listwise", "top": 20, "model": "nowhere.gguf"}])
    assert type(second.reranker) is type(reranker_of("sliding"))
    assert (first.top, second.top) == (None, 20)


class Unasked:
    """Stands in for any model; must not be asked."""

    context = 100

    def __getattr__(self, name: str) -> Any:
        return lambda *a, **k: pytest.fail(f"the model was asked: {name}")


@pytest.mark.parametrize(
    "kind", ["first", "sliding", "full", "graded", "group", "setwise", "mvp", "e2rank", "cross-encoder"]
)
def test_readers_of_texts_keep_the_order_where_there_is_nothing_to_read(kind: str) -> None:
    unasked: Any = (Unasked(), Unasked()) if kind == "cross-encoder" else Unasked()
    reader = reranker_of({"kind": kind, "model": unasked})
    texts = [Candidate("a", "red", 2.0), Candidate("b", "blue", 1.0)]
    bare = [Candidate("a", None, 2.0), Candidate("b", "", 1.0)]
    for query, given, why in (("", texts, "the query has no text"), ("red", bare, "no candidate has text")):
        answer = reader.rerank(query, given, 2)
        assert ([r.position for r in answer], answer.kept) == ([0, 1], why)
    assert len(reader.rerank("red", [], 2)) == 0


def test_a_search_by_vector_alone_is_not_reordered_by_a_reader_of_texts(docs: vecdb.Collection) -> None:
    spec = {"kind": "first", "model": Unasked()}
    vector = WordEmbedder().embed_query("red")
    plain, hits = docs.search(vector=vector, k=3), docs.search(vector=vector, k=3, rerank=spec)
    assert [hit.id for hit in hits] == [hit.id for hit in plain]
    assert next(s for s in hits.trace if s.stage == "rerank").detail["failed"] == "the query has no text"
