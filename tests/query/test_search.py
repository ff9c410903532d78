"""Searching through the public face: modes, syntax, paging, grouping, reranking, trace."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from word_embedder import WordEmbedder

import vecdb
from vecdb.embedding.base import DEFAULT_MODEL
from vecdb.query.fusion import FUSIONS, Adaptive, Rrf, Weighted
from vecdb.query.selection import Coverage, Mmr
from vecdb.relevance import no_answer
from vecdb.rerank.base import Candidate, Ranked

TEXTS = {
    "wing": "the lift of a thin wing in supersonic flow",
    "plate": "heat transfer along a flat plate in supersonic flow",
    "duct": "noise of a duct; measured, not computed",
    "wings": "two wings, and their drag",
    "café": "a café beside the wind tunnel",
}


def filled(db: vecdb.Database) -> vecdb.Collection:
    collection = db.collection("c", embed=WordEmbedder())
    collection.add(
        [
            {"id": id, "text": text, "metadata": {"words": len(text.split())}, "parent": f"doc{i // 2}", "seq": i}
            for i, (id, text) in enumerate(TEXTS.items())
        ]
    )
    return collection


@pytest.fixture
def collection(db: vecdb.Database) -> vecdb.Collection:
    return filled(db)


class Backwards:
    """A reranker that turns the order round, and remembers what it was shown."""

    def __init__(self) -> None:
        self.seen: list[Candidate] = []

    def rerank(self, query: str, candidates: Sequence[Candidate], k: int) -> list[Ranked]:
        self.seen = list(candidates)
        return [Ranked(len(candidates) - 1 - i, 1.0 / (i + 1)) for i in range(min(k, len(candidates)))]


@pytest.mark.parametrize(
    ("query", "ids"),
    [
        ("wings", {"wing", "wings"}),  # stemmed
        ('WING?! (in) "flow" AND NOT -x* ^', {"wing", "plate", "wings", "duct", "café"} - {"café"}),
        ("cafe", {"café"}),  # accents folded
        ("", set()),
        ("?!*", set()),
        ("zeppelin", set()),
    ],
)
def test_any_text_is_a_safe_query(collection: vecdb.Collection, query: str, ids: set[str]) -> None:
    cold = set(collection.search(query, mode="text").ids)
    collection.warm()
    assert set(collection.search(query, mode="text").ids) == cold
    if query.startswith("WING"):
        assert {"wing", "plate", "wings"} <= cold
    else:
        assert cold == ids


@given(text=st.text(max_size=60))
def test_no_text_can_break_a_search(text: str) -> None:
    if any("\ud800" <= c <= "\udfff" for c in text):
        return
    with vecdb.open(":memory:", background=False) as db:
        collection = db.collection("c")
        collection.add(ids=["a"], texts=[text or "x"])
        hits = collection.search(text, mode="text")
        collection.warm()
        assert collection.search(text, mode="text").ids == hits.ids


@pytest.mark.parametrize(
    ("query", "ids"),
    [
        ('"supersonic flow"', ["plate", "wing"]),
        ('"flow supersonic"', []),
        ("wing AND supersonic", ["wing"]),
        ("supersonic NOT wing", ["plate"]),
        ("super*", ["plate", "wing"]),
        ("(duct OR drag) NOT noise", ["wings"]),
    ],
)
def test_explicit_syntax_has_phrases_prefixes_and_operators(
    collection: vecdb.Collection, query: str, ids: list[str]
) -> None:
    assert sorted(collection.search(query, mode="text", syntax="query").ids) == ids


def test_stemming_is_a_setting(db: vecdb.Database) -> None:
    plain = db.collection("plain", text="none")
    plain.add(ids=list(TEXTS), texts=list(TEXTS.values()))
    assert plain.search("wings", mode="text").ids == ["wings"]
    cjk = db.collection("cjk", text="cjk")
    cjk.add(ids=["a", "b"], texts=["東京都の天気予報", "京都の歴史"])
    assert cjk.search("天気予", mode="text").ids == ["a"]
    cjk.warm()
    assert cjk.search("天気予", mode="text").ids == ["a"]


def test_auto_takes_what_query_and_collection_allow(collection: vecdb.Collection, db: vecdb.Database) -> None:
    def stages(hits: vecdb.Hits) -> list[str]:
        return [report.stage for report in hits.trace]

    assert stages(collection.search("wing")) == ["vector", "text", "fusion"]
    assert stages(collection.search(np.ones(16))) == ["vector"]
    words = db.collection("words")
    words.add(texts=["a wing"])
    assert stages(words.search("wing")) == ["text"]


def test_a_batch_gives_what_single_queries_give(collection: vecdb.Collection) -> None:
    queries = ["thin wing", "noise", "café"]
    for options in ({"mode": "text"}, {"mode": "vector"}, {"mode": "hybrid"}):
        together = collection.search(queries, k=3, **options)  # type: ignore[arg-type]
        assert [hits.ids for hits in together] == [collection.search(query, k=3, **options).ids for query in queries]  # type: ignore[arg-type]
    matrix = np.eye(16, dtype=np.float32)[:3]
    assert [h.ids for h in collection.search(matrix, k=2)] == [collection.search(row, k=2).ids for row in matrix]
    assert isinstance(collection.search(["one"]), list)


def test_text_and_vector_together_use_the_given_vector(collection: vecdb.Collection) -> None:
    vector = collection.get("duct", vectors=True).vector  # type: ignore[union-attr]
    hit = collection.search("wing", vector=vector, k=5).hits
    step = {h.id: h.trace[0] for h in hit}["duct"]
    assert (step.stage, step.rank) == ("vector", 1)


def test_hits_tell_how_likely_nothing_was_found(collection: vecdb.Collection) -> None:
    cold = collection.search("noise of a duct", mode="text", k=3)
    texts = [hit.text for hit in cold]
    assert cold.no_answer == no_answer("noise of a duct", texts, None)
    collection.warm()
    warm = collection.search("noise of a duct", mode="text", k=1)
    assert warm.no_answer == cold.no_answer  # whatever the page
    assert collection.search("noise of a duct", mode="text", k=1, offset=1).no_answer == cold.no_answer
    foreign = collection.search("mortgage of wings in Portugal", mode="text").no_answer
    assert foreign is not None
    assert cold.no_answer < 0.5 < foreign
    assert collection.search("zeppelin", mode="text").no_answer == 1.0
    assert collection.search(np.ones(16)).no_answer is None
    for mode in ("vector", "hybrid"):
        assert collection.search("duct", mode=mode).no_answer is None  # nobody knows this model's cosines


def test_cosines_of_the_default_model_count_for_no_answer(db: vecdb.Database) -> None:
    known = db.collection("known")
    known.add(ids=["a", "b"], texts=["noise of a duct", "wings"], vectors=np.eye(2), model=DEFAULT_MODEL)
    near, far = (
        known.search("duct", vector=v, model=DEFAULT_MODEL, mode="vector").no_answer for v in ([1.0, 0.1], [1.0, -3.0])
    )
    assert near == pytest.approx(no_answer("duct", ["noise of a duct"], 1 / np.sqrt(1.01)), rel=1e-5)
    assert far is not None
    assert near < far


FITTING = ["supersonic wing", "noise of a duct", "drag"]


def usual_in_trace(collection: vecdb.Collection, **options: Any) -> list[float]:
    """What the search says it knew of the collection; nothing if it was not fitted."""
    report = next(r for r in collection.search("wing", **options).trace if r.stage == "fusion")
    return [value for name, value in report.detail["features"].items() if name.startswith("usual_")]


def test_a_fusion_is_fitted_by_queries_alone(collection: vecdb.Collection) -> None:
    fitted = collection.fit_fusion(FITTING, keep=False)
    again = collection.fit_fusion(FITTING, keep=False)
    assert fitted == again == Adaptive(usual=fitted.usual)
    assert fitted.usual is not None
    assert usual_in_trace(collection, fusion=fitted) == pytest.approx(fitted.usual, abs=1e-4)
    assert (collection.fusion, usual_in_trace(collection, fusion="adaptive")) == (None, [])
    with pytest.raises(vecdb.InvalidInput, match="no queries"):
        collection.fit_fusion([])


def test_a_fitted_fusion_stays_with_the_collection(tmp_path: Path) -> None:
    path = tmp_path / "db.vecdb"
    with vecdb.open(path, background=False) as db:
        collection = filled(db)
        fitted = collection.fit_fusion(FITTING)
        assert collection.fusion == fitted
    with vecdb.open(path, background=False) as db, vecdb.open(path, background=False) as other:
        collection, far = (each.collection("c", embed=WordEmbedder()) for each in (db, other))
        assert collection.fusion == fitted
        assert usual_in_trace(far, fusion="adaptive") == pytest.approx(fitted.usual, abs=1e-4)
        assert usual_in_trace(far, fusion=Adaptive()) == usual_in_trace(far, fusion=fitted)
        assert [collection.forget_fusion(), collection.forget_fusion()] == [True, False]
        assert (far.fusion, usual_in_trace(far, fusion="adaptive")) == (None, [])
    with vecdb.open(path, read_only=True) as db, pytest.raises(vecdb.ReadOnly):
        db.collection("c", embed=WordEmbedder()).fit_fusion(FITTING)


def test_judgements_teach_the_fusion_which_list_is_right(collection: vecdb.Collection) -> None:
    asked = {str(i): text for i, text in enumerate([*FITTING, "wing", "duct", "heat"])}
    best = {id: {collection.search(text, mode="text", k=1).ids[0]: 1} for id, text in asked.items()}
    worst = {id: {collection.search(text, mode="text", k=20).ids[-1]: 1} for id, text in asked.items()}
    by_words, by_vectors = (collection.fit_fusion(asked, qrels=qrels, keep=False) for qrels in (best, worst))
    assert by_words.lean is not None
    assert by_vectors.lean is not None
    assert by_words.usual == by_vectors.usual
    assert by_words.lean.bias > by_vectors.lean.bias


@pytest.mark.parametrize(
    ("queries", "qrels", "said"),
    [
        (FITTING, {"1": {"duct": 1}}, "give queries as a mapping"),
        ({"1": "wing"}, {"2": {"duct": 1}}, "not among queries"),
        ({"1": "wing"}, {"1": {"duct": 0}}, "judge nothing that is stored as relevant"),
        ({"1": "wing"}, {"1": {"unknown": 1}}, "judge nothing that is stored as relevant"),
    ],
)
def test_judgements_that_teach_nothing_are_refused(
    collection: vecdb.Collection, queries: Any, qrels: Any, said: str
) -> None:
    with pytest.raises(vecdb.InvalidInput, match=said):
        collection.fit_fusion(queries, qrels=qrels)


@pytest.mark.parametrize("fusion", [*FUSIONS, Rrf(k=1, weights=(2, 1), base=0), Weighted(weights=(0.2, 0.8))])
def test_a_hybrid_score_recomputes_from_the_trace(collection: vecdb.Collection, fusion: Any) -> None:
    hits = collection.search("supersonic wing flow", fusion=fusion, k=5)
    report = next(report for report in hits.trace if report.stage == "fusion")
    assert hits
    for hit in hits:
        steps = {step.stage: step for step in hit.trace}
        lists = [steps[name] for name in ("vector", "text") if name in steps]
        assert steps["fusion"].score == pytest.approx(hit.score)
        assert sum(step.added or 0.0 for step in lists) == pytest.approx(hit.score, abs=1e-6)
        for step in lists:
            assert step.rank is not None
            assert step.score is not None
            assert step.weight is not None
            if report.detail["kind"] == "rrf":
                added = step.weight / (report.detail["k"] + step.rank - 1 + report.detail["base"])
            elif "scales" in report.detail:
                offset, scale = report.detail["scales"][step.stage]
                added = step.weight * ((step.score - offset) / scale if scale else 1.0)
                added *= len(lists) if report.detail["kind"] == "combmnz" else 1
            else:
                continue
            assert step.added == pytest.approx(added, abs=1e-6)


@pytest.mark.parametrize(
    "options",
    [{"mode": "text"}, {"mode": "vector"}, {"mode": "hybrid"}, {"mode": "hybrid", "where": {"words": {"$gt": 4}}}],
)
def test_pages_by_offset_and_by_cursor_give_each_hit_once(
    collection: vecdb.Collection, options: dict[str, Any]
) -> None:
    query = "supersonic wing noise café"
    everything = collection.search(query, k=10, **options)
    assert everything.cursor is None
    by_offset = [
        hit.id for offset in range(0, 10, 2) for hit in collection.search(query, k=2, offset=offset, **options)
    ]
    assert by_offset == everything.ids
    by_cursor: list[str] = []
    page = collection.search(query, k=2, **options)
    while True:
        by_cursor += page.ids
        assert [hit.rank for hit in page] == list(range(len(by_cursor) - len(page) + 1, len(by_cursor) + 1))
        if page.cursor is None:
            break
        page = collection.search(query, k=2, cursor=page.cursor, **options)
    assert by_cursor == everything.ids


def test_a_cursor_belongs_to_its_search(collection: vecdb.Collection) -> None:
    cursor = collection.search("wing flow plate", k=1).cursor
    assert cursor is not None
    with pytest.raises(vecdb.InvalidQuery, match="another search"):
        collection.search("noise", k=1, cursor=cursor)


def test_grouping_keeps_the_best_of_each_parent(collection: vecdb.Collection) -> None:
    hits = collection.search("supersonic wing flow", distinct="parent", k=5)
    assert len({hit.parent for hit in hits}) == len(hits) == 3
    best: dict[str | None, str] = {}
    for hit in collection.search("supersonic wing flow", k=5):
        best.setdefault(hit.parent, hit.id)
    assert hits.ids == list(best.values())
    assert len(collection.search("supersonic wing flow", distinct="parent", per_group=2, k=5)) == 5
    assert len(collection.search("supersonic wing flow", distinct="words", k=5)) == len(
        {len(t.split()) for t in TEXTS.values()}
    )


def test_a_set_passes_over_copies(db: vecdb.Database) -> None:
    collection = db.collection("c", embed=WordEmbedder())
    texts = ["lift of a wing"] * 9 + ["lift of a crane", "noise", "heat", "drag"]
    collection.add(ids=[f"copy{i}" for i in range(9)] + ["other", "x", "y", "z"], texts=texts)
    plain = collection.search("lift of a wing", k=3, mode="vector")
    diverse = collection.search("lift of a wing", k=3, mode="vector", select=Mmr(0.6))
    assert plain.ids == ["copy0", "copy1", "copy2"]
    assert [id for id in diverse.ids if id.startswith("copy")] == ["copy0"]


def test_a_set_comes_with_the_scores_of_its_hits_and_pages_follow_each_other(db: vecdb.Database) -> None:
    rng = np.random.default_rng(1)
    collection = db.collection("c", dimension=8)
    collection.add(ids=[f"r{i}" for i in range(60)], vectors=rng.standard_normal((60, 8)))
    collection.warm()  # SQLite's own scan rounds otherwise
    query = np.ones(8)
    scores = {hit.id: hit.score for hit in collection.search(query, k=60)}
    for select in ("coverage", "mmr", "kcenter", "dpp", Coverage(1, 0, 0, pool=30)):
        whole = collection.search(query, k=12, select=select)
        assert {hit.id: hit.score for hit in whole} == {id: scores[id] for id in whole.ids}
        first = collection.search(query, k=5, select=select)
        rest = collection.search(query, k=7, select=select, cursor=first.cursor)
        assert first.ids + rest.ids == whole.ids
        assert [hit.rank for hit in rest] == list(range(6, 13))


def test_plain_search_is_coverage_without_cover_and_diversity(collection: vecdb.Collection) -> None:
    for mode in ("vector", "text", "hybrid"):
        plain = collection.search("supersonic wing flow", k=5, mode=mode)
        chosen = collection.search("supersonic wing flow", k=5, mode=mode, select=Coverage(0, 1, 0))
        assert (chosen.ids, chosen.scores) == (plain.ids, plain.scores)


def test_the_trace_tells_what_a_chosen_hit_stands_for(db: vecdb.Database) -> None:
    collection = db.collection("c", dimension=3)
    clumps = np.repeat(np.eye(3), 5, axis=0) + np.linspace(0.3, 0, 15)[:, None]
    collection.add(ids=[f"{'abc'[i // 5]}{i % 5}" for i in range(15)], vectors=clumps)
    hits = collection.search([3.0, 2.0, 1.0], k=3, select=Coverage(1, 0, 0.1, tau=0.5))
    assert {hit.id[0] for hit in hits} == {"a", "b", "c"}
    steps = [hit.trace[-1] for hit in hits]
    assert [step.stage for step in steps] == ["select"] * 3
    for hit, step in zip(hits, steps):
        assert set(step.detail["covers"]) == {f"{hit.id[0]}{i}" for i in range(5)} - {hit.id}
    report = next(step for step in hits.trace if step.stage == "select")
    assert report.detail["kind"] == "coverage"
    assert (
        report.detail["coverage"]
        == steps[-1].detail["coverage"]
        == pytest.approx(sum(s.detail["share"] for s in steps))
    )
    assert [s.detail["gain"] for s in steps] == sorted((s.detail["gain"] for s in steps), reverse=True)


def test_records_without_vectors_can_be_chosen(db: vecdb.Database) -> None:
    collection = db.collection("c")
    collection.add(ids=list("abc"), texts=["a wing", "a wing and a wing", "wing"])
    for select in ("coverage", "mmr", "kcenter", "dpp"):
        assert sorted(collection.search("wing", select=select).ids) == ["a", "b", "c"]
        assert collection.search("zeppelin", select=select).ids == []


def test_groups_are_made_of_the_whole_choice(collection: vecdb.Collection) -> None:
    hits = collection.search("supersonic wing flow", select="coverage", distinct="parent", k=3)
    assert len({hit.parent for hit in hits}) == len(hits) == 3


def test_a_set_is_chosen_from_what_min_score_leaves(collection: vecdb.Collection) -> None:
    scores = collection.search("wing", mode="vector", k=5).scores
    hits = collection.search("wing", mode="vector", k=2, min_score=scores[1], select="kcenter")
    assert hits.scores == scores[:2]


def test_min_score_leaves_out_what_is_below(collection: vecdb.Collection) -> None:
    scores = collection.search("wing", mode="vector", k=5).scores
    assert collection.search("wing", mode="vector", k=5, min_score=scores[1]).scores == scores[:2]


def test_a_reranker_has_the_last_word(collection: vecdb.Collection) -> None:
    plain = collection.search("supersonic wing", k=5)
    reranker = Backwards()
    hits = collection.search("supersonic wing", k=5, rerank=reranker)
    assert hits.ids == plain.ids[::-1]
    assert hits.scores[0] == 1.0
    assert [candidate.text for candidate in reranker.seen] == [hit.text for hit in plain]
    assert hits[0].trace[-1] == vecdb.TraceStep("rerank", 1, 1.0)


class Broken:
    def rerank(self, query: str, candidates: Sequence[Candidate], k: int) -> list[Ranked]:
        raise RuntimeError("out of memory")


class Confused:
    def rerank(self, query: str, candidates: Sequence[Candidate], k: int) -> list[Ranked]:
        return [Ranked(0, 1.0), Ranked(0, 0.5)]


@pytest.mark.parametrize("reranker", [Broken(), Confused()])
def test_a_reranker_that_fails_leaves_the_order_and_a_mark(collection: vecdb.Collection, reranker: Any) -> None:
    plain = collection.search("supersonic wing", k=5)
    hits = collection.search("supersonic wing", k=5, rerank=reranker)
    assert hits.ids == plain.ids
    (report,) = [report for report in hits.trace if report.stage == "rerank"]
    assert "failed" in report.detail


def test_embedding_happens_once_for_each_text(db: vecdb.Database) -> None:
    embedder = WordEmbedder()
    collection = db.collection("c", embed=embedder)
    embedder.calls = 0
    collection.add(ids=["a", "b", "c"], texts=["same", "same", "other"])
    assert embedder.calls == 2
    collection.upsert(ids=["a", "d"], texts=["same", "other"])
    assert embedder.calls == 2
    collection.update(ids=["a"], metadata=[{"x": 1}])
    assert embedder.calls == 2
    collection.update(ids=["a"], texts=["new"])
    assert embedder.calls == 3
    np.testing.assert_allclose(collection.get("a", vectors=True).vector, embedder.embed_query("new"), atol=1e-6)  # type: ignore[union-attr]


def test_replace_makes_a_document_what_is_given(collection: vecdb.Collection) -> None:
    collection.replace("doc0", [{"id": "new", "text": "only this"}], fingerprint="v2")
    assert {record.id for record in collection.scan(where={"$parent": "doc0"})} == {"new"}
    assert collection.sources() == {"doc0": "v2"}
    with pytest.raises(vecdb.DuplicateId, match="belongs to parent 'doc1'"):
        collection.replace("doc0", [{"id": "duct", "text": "stolen"}])
    assert collection.get("duct").parent == "doc1"  # type: ignore[union-attr]
    collection.replace("doc0", None)
    assert collection.sources() == {}
    assert collection.count({"$parent": "doc0"}) == 0
    assert collection.check() == []


def test_recall_report_compares_the_index_with_exact_search(db: vecdb.Database, rng: np.random.Generator) -> None:
    collection = db.collection("c", metric="l2")
    collection.add(
        ids=[str(i) for i in range(600)],
        vectors=rng.standard_normal((600, 8)),
        metadata=[{"tenth": i % 10} for i in range(600)],
    )
    collection.optimize()
    report = collection.recall_report(sample=50, where=[{"tenth": 3}])
    assert [row.matching for row in report.rows] == [600, 60]
    assert report.recall >= 0.95
    assert all(row.self_recall == 1.0 for row in report.rows)
    assert "recall@10" in str(report)
