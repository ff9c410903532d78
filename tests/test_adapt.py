"""The query map that a collection learns from its own documents: what is mined, how it is fitted, the gate, and its use."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

import vecdb
from tests.word_embedder import WordEmbedder
from vecdb.adaptation.adapting import exchanged, judged
from vecdb.adaptation.kept import KIND
from vecdb.adaptation.maps import FitSettings, Lesson, QueryMap, _loss, _Scored, fit_map
from vecdb.adaptation.mining import NEGATIVES
from vecdb.adaptation.pseudo import pseudo_queries
from vecdb.collection import Collection
from vecdb.errors import InvalidInput, InvalidQuery, ModelUnavailable, ReadOnly, StorageError
from vecdb.evaluation import BootstrapResult
from vecdb.types import Metric

D = 24
WORDS = [f"{a}{b}" for a in ("ba", "ce", "di", "fo", "gu", "ha") for b in ("l", "m", "n", "r", "s", "t", "x", "z")]


class Askew(WordEmbedder):
    """Its queries are pushed aside, always in the same way: what a map can put right."""

    def embed_query(self, text: str) -> NDArray[np.float32]:
        vector = self._vector(text)
        aside = np.random.default_rng(5).standard_normal((4, self.dimension))
        pushed = vector + 0.3 * (vector @ aside.T) @ aside[::-1] + 0.1 * aside[0]
        return np.asarray(pushed / np.linalg.norm(pushed), dtype=np.float32)


class Senseless(WordEmbedder):
    """Its queries have nothing to do with their words."""

    def embed_query(self, text: str) -> NDArray[np.float32]:
        return self._vector(f"{text.replace(' ', '')}?")


def texts_of(count: int, seed: int = 1) -> list[str]:
    rng = np.random.default_rng(seed)
    return [" ".join(rng.choice(WORDS, 12)) + ". " + " ".join(rng.choice(WORDS, 9)) for _ in range(count)]


def filled(db: vecdb.Database, embedder: WordEmbedder, metric: Metric = "cosine", count: int = 400) -> Collection:
    docs = db.collection("docs", embed=embedder, metric=metric)
    docs.add(ids=[f"d{i}" for i in range(count)], texts=texts_of(count))
    return docs


def stored_vector(docs: Collection) -> NDArray[np.float32]:
    record = docs.get("d7", vectors=True)
    assert record is not None
    assert record.vector is not None
    return record.vector


def askew() -> Askew:
    return Askew("askew", D)


# -- queries of texts


def test_queries_are_a_sentence_and_words_in_a_row(rng: np.random.Generator) -> None:
    text = "The wing of an aircraft. Heat flows to a flat plate slowly! Shells buckle under a heavy load"
    sentences = {s.strip() for s in text.replace("!", "!|").replace(".", ".|").split("|")}
    for _ in range(50):
        sentence, *others = pseudo_queries(text, rng)
        assert sentence in sentences
        for span in others:  # none if it is the same
            assert 4 <= len(span.split()) <= 12
            assert span in text


def test_where_words_are_not_set_apart_characters_are_counted(rng: np.random.Generator) -> None:
    text = "風洞の中の翼の周りの流れを調べた。平らな板への熱の移動も測定した。" * 4
    for _ in range(20):
        sentence, span = pseudo_queries(text, rng)
        assert sentence in ("風洞の中の翼の周りの流れを調べた。", "平らな板への熱の移動も測定した。")
        assert 8 <= len(span) <= 30
        assert span in text


@given(st.text(max_size=300), st.integers(0, 2**32))
def test_any_text_gives_queries_made_of_it(text: str, seed: int) -> None:
    made = pseudo_queries(text, np.random.default_rng(seed))
    assert made == pseudo_queries(text, np.random.default_rng(seed))
    assert bool(made) == bool(text.split())
    bare = "".join(text.split())
    for query in made:
        assert query.strip()
        assert "".join(query.split()) in bare


# -- the map


def test_a_map_is_the_identity_and_a_correction(rng: np.random.Generator) -> None:
    queries = rng.standard_normal((9, 6)).astype(np.float32) * 3
    queries[4] = 0
    zeros = np.zeros((6, 2), np.float32)
    assert np.allclose(QueryMap(zeros, zeros, zeros[:, 0])(queries), queries, rtol=1e-6)
    u, v, b = (rng.standard_normal(s).astype(np.float32) for s in ((6, 2), (6, 2), (6,)))
    mapped = QueryMap(u, v, b)(queries)
    for query, found in zip(queries, mapped):  # the slow twin
        length = np.linalg.norm(query)
        unit = query / length if length else query
        moved = unit + sum(u[:, r] * (v[:, r] @ unit) for r in range(2)) + b
        assert found == pytest.approx(length * moved / np.linalg.norm(moved), abs=1e-5)
    assert mapped.dtype == np.float32


def test_what_a_map_cancels_keeps_its_direction() -> None:
    query = np.array([[0.0, 2.0]], np.float32)
    assert QueryMap(np.array([[0], [-1]], np.float32), np.array([[0], [1]], np.float32), np.zeros(2, np.float32))(
        query
    ) == pytest.approx(query)


def lesson_of(rng: np.random.Generator, count: int = 12, documents: int = 20, dimension: int = 5) -> Lesson:
    return Lesson(
        rng.standard_normal((count, dimension)),  # type: ignore[arg-type]  # double, for differences
        rng.standard_normal((documents, dimension)),  # type: ignore[arg-type]
        rng.integers(documents, size=count),
        rng.integers(documents, size=(count, 3)),
    )


def loss_by_hand(lesson: Lesson, metric: Metric, weights: list[Any], settings: FitSettings) -> float:
    u, v, b = weights
    scale = np.linalg.norm(lesson.documents, axis=1).mean()
    known = sorted({*lesson.positives.tolist(), *lesson.negatives.ravel().tolist()})
    total = 0.0
    for query, positive in zip(lesson.queries, lesson.positives):
        unit = query / np.linalg.norm(query)
        moved = unit + u @ (v.T @ unit) + b
        moved = moved / np.linalg.norm(moved)
        if metric == "l2":  # less half of the squared distance, but for what all documents share
            length = np.linalg.norm(query) / scale
            scores = {d: -np.sum((length * moved - lesson.documents[d] / scale) ** 2) / 2 for d in known}
        else:
            scores = {d: moved @ lesson.documents[d] / scale for d in known}
        exps = {d: np.exp(score / settings.temperature) for d, score in scores.items()}
        total += -np.log(exps[positive] / sum(exps.values())) + settings.towards_identity * np.sum((moved - unit) ** 2)
    return float(total / len(lesson.queries))


@pytest.mark.parametrize("metric", ["cosine", "l2", "ip"])
def test_the_loss_and_its_slopes(metric: Metric, rng: np.random.Generator) -> None:
    lesson, settings = lesson_of(rng), FitSettings(temperature=0.5)
    weights: list[Any] = [rng.standard_normal(shape) for shape in ((5, 2), (5, 2), (5,))]
    batch = np.arange(len(lesson.queries))
    loss, slopes = _loss(_Scored.of(lesson, metric), batch, weights, settings)
    assert loss == pytest.approx(loss_by_hand(lesson, metric, weights, settings), rel=1e-5)
    for weight, slope in zip(weights, slopes):
        for place in np.ndindex(weight.shape):
            before = weight[place]
            around = []
            for step in (1e-4, -1e-4):
                weight[place] = before + step
                around.append(loss_by_hand(lesson, metric, weights, settings))
            weight[place] = before
            assert slope[place] == pytest.approx((around[0] - around[1]) / 2e-4, rel=1e-3, abs=1e-4)


def test_fitting_undoes_what_pushes_queries_aside(rng: np.random.Generator) -> None:
    documents = rng.standard_normal((300, 8)).astype(np.float32)
    documents /= np.linalg.norm(documents, axis=1, keepdims=True)
    aside = documents.copy()
    aside[:, 0] += 1.5
    lesson = Lesson(aside[:200], documents, np.arange(200), rng.integers(300, size=(200, 4)))
    fitted = fit_map(lesson, "cosine", settings=FitSettings(rank=4, epochs=60, batch=32))
    again = fit_map(lesson, "cosine", settings=FitSettings(rank=4, epochs=60, batch=32))
    assert all(np.array_equal(one, other) for one, other in zip(fitted.arrays().values(), again.arrays().values()))
    held_out = aside[200:]
    before, after = (
        np.mean((of @ documents.T).argmax(axis=1) == np.arange(200, 300)) for of in (held_out, fitted(held_out))
    )
    assert after > before + 0.1


# -- mining


def test_triples_are_what_they_should_be(db: vecdb.Database) -> None:
    docs = db.collection("docs", embed=WordEmbedder("words", D))
    texts = texts_of(150)
    docs.add(
        ids=[f"d{i}" for i in range(150)], texts=texts, parents=[f"p{i // 2}" if i < 60 else None for i in range(150)]
    )
    docs.add(ids=["copy of one", "no words", "no vector"], texts=[texts[70], " ", None], vectors=None)
    miner = docs._miner(3)
    asked = miner.asked(500, time.perf_counter() + 60)
    assert {source.row for source in asked.sources} == {*range(1, 152)}
    learning, judging = miner.halves(asked)
    assert learning.documents.isdisjoint(judging.documents)
    assert set(learning.texts).isdisjoint(judging.texts)
    assert len(learning) > len(judging) > 0
    triples = miner.triples(learning)
    lesson = triples.lesson
    assert lesson.negatives.shape == (len(triples.asked), NEGATIVES)
    names = {row: f"parent p{(row - 1) // 2}" if row <= 60 else f"id d{row - 1}" for row in range(1, 151)}
    names |= {151: "id copy of one", 152: "id no words"}
    options: dict[str, Any] = {"k": 20, "exact": True}
    rows = {**{f"d{i}": i + 1 for i in range(150)}, "copy of one": 151, "no words": 152}
    learned = {row for row, name in names.items() if miner._is_learned(name)}
    for place in range(0, len(triples.asked), 7):
        own = triples.rows[lesson.positives[place]]
        assert own == triples.asked.sources[place].row
        text = triples.asked.texts[place]
        lists = [
            [rows[h.id] for h in docs.search(text, mode=mode, **options) if rows[h.id] in learned][:10]  # type: ignore[arg-type]
            for mode in ("vector", "text")
        ]
        for other in lesson.negatives[place]:
            row = int(triples.rows[other])
            assert (row in lists[0]) != (row in lists[1])
            assert names[row] != names[own]
            assert lesson.documents[other] @ lesson.documents[lesson.positives[place]] < 0.95


def test_nothing_is_drawn_twice_and_time_is_kept(db: vecdb.Database) -> None:
    docs = filled(db, WordEmbedder("words", D), count=600)
    assert len({s.row for s in docs._miner(0).asked(100, time.perf_counter() + 60).sources}) == 100
    assert len({s.row for s in docs._miner(0).asked(10_000, 0.0).sources}) == 256  # it was too late: one step


def test_the_control_has_every_document_of_another_query(rng: np.random.Generator) -> None:
    lesson = lesson_of(rng, count=50, documents=50)
    lesson = Lesson(lesson.queries, lesson.documents, np.arange(50), lesson.negatives)
    other = exchanged(lesson, 4).positives
    assert sorted(other) == list(range(50))
    assert not np.any(other == lesson.positives)


# -- the gate


@pytest.mark.parametrize(
    ("gain", "control", "accepted"),
    [
        ((0.02, 0.01, 0.03), (-0.1, -0.2, -0.05), True),
        ((0.02, 0.01, 0.03), (0.01, -0.01, 0.03), True),
        ((0.02, 0.01, 0.03), (0.01, 0.001, 0.03), False),
        ((0.02, 0.0, 0.03), (-0.1, -0.2, -0.05), False),
        ((0.0, 0.0, 0.0), (0.0, 0.0, 0.0), False),
        ((-0.02, -0.03, -0.01), (-0.1, -0.2, -0.05), False),
    ],
)
def test_the_gate(gain: tuple[float, ...], control: tuple[float, ...], accepted: bool) -> None:
    assert judged(BootstrapResult(*gain, 1.0), BootstrapResult(*control, 1.0))[0] == accepted


@pytest.mark.parametrize("metric", ["cosine", "l2", "ip"])
def test_a_map_that_helps_is_accepted_and_used(db: vecdb.Database, metric: Metric) -> None:
    docs = filled(db, askew(), metric)
    stored = stored_vector(docs)
    asked = texts_of(40, seed=9)
    before = docs.search(asked, mode="vector", vectors=True)
    adapted = docs.adapt(sample=400)
    assert (adapted.is_accepted, adapted.is_applied, adapted.is_control_refused) == (True, True, True)
    assert adapted.gain.low > 0.01
    assert adapted.after - adapted.before == pytest.approx(adapted.gain.difference)
    assert (adapted.shared_documents, adapted.shared_queries) == (0, 0)
    assert docs.adapter == adapted
    assert np.array_equal(stored_vector(docs), stored)
    after = docs.search(asked, mode="vector")
    assert [h.trace[0].detail.get("adapter") for h in after] == [adapted.version] * 40
    assert [[hit.id for hit in hits] for hits in after] != [[hit.id for hit in hits] for hits in before]
    assert "accepted, used by searches" in str(adapted)


def test_it_is_used_wherever_the_collection_embeds_and_nowhere_else(db: vecdb.Database) -> None:
    docs = filled(db, askew())
    adapted = docs.adapt(sample=400)
    question = "bal cem din for gus"
    plain, mapped = askew().embed_query(question), docs._engine.with_vectors(docs._asking.queries(question)[0])[0]
    assert mapped.adapter == adapted.version
    assert mapped.vector is not None
    assert not np.allclose(mapped.vector, plain, atol=1e-3)
    by_text = docs.search(question, mode="vector")
    by_vector = docs.search(vector=mapped.vector)
    assert [h.id for h in by_text] == [h.id for h in by_vector]
    assert "adapter" not in by_vector.trace[0].detail
    assert docs.search(question, vector=plain, mode="hybrid").trace[0].detail.get("adapter") is None
    assert docs.search(question, mode="hybrid").trace[0].detail["adapter"] == adapted.version
    assert "adapter" not in docs.search(question, mode="text").trace[0].detail
    assert docs.explain(question).stages[0].detail["adapter"] == adapted.version
    assert docs.why_not(by_text[0].id, question, mode="vector").stage is None


def test_a_cursor_of_before_is_refused_and_later_ones_go_on(db: vecdb.Database) -> None:
    docs = filled(db, askew())
    before = docs.search("bal cem din for gus", mode="vector", k=5)
    version = docs.adapt(sample=400).version
    with pytest.raises(InvalidQuery, match="another search"):
        docs.search("bal cem din for gus", mode="vector", k=5, cursor=before.cursor)
    page = docs.search("bal cem din for gus", mode="vector", k=5)
    further = docs.search("bal cem din for gus", mode="vector", k=5, cursor=page.cursor)
    whole = docs.search("bal cem din for gus", mode="vector", k=10)
    assert [h.id for h in (*page, *further)] == [h.id for h in whole]
    assert further.trace[0].detail["adapter"] == version


def test_other_handles_notice_and_it_can_be_taken_back(path: Path) -> None:
    with vecdb.open(path, background=False) as db, vecdb.open(path, background=False) as other:
        docs = filled(db, askew())
        theirs = other.collection("docs", embed=askew())
        before = theirs.search("bal cem din for", mode="vector")
        adapted = docs.adapt(sample=400)
        assert theirs.adapter == adapted
        assert theirs.search("bal cem din for", mode="vector").trace[0].detail["adapter"] == adapted.version
        second = docs.adapt(sample=300, seed=2)
        assert second.version != adapted.version
        assert theirs.search("bal cem din for", mode="vector").trace[0].detail["adapter"] == second.version
        assert theirs.reset_adapter()
        assert (docs.adapter, docs.reset_adapter()) == (None, False)
        after = docs.search("bal cem din for", mode="vector")
        assert [h.id for h in after] == [h.id for h in before]
        assert [h.score for h in after] == pytest.approx([h.score for h in before])
        assert "adapter" not in after.trace[0].detail
    with vecdb.open(path, read_only=True) as db:
        docs = db.collection("docs", embed=askew())
        assert not docs.adapt(sample=100, apply=False).is_applied
        with pytest.raises(ReadOnly):
            docs.adapt(sample=100)
        with pytest.raises(ReadOnly):
            docs.reset_adapter()


def test_a_map_that_does_not_help_changes_nothing(db: vecdb.Database) -> None:
    docs = filled(db, Senseless("senseless", D))
    refused = docs.adapt(sample=400)
    assert (refused.is_accepted, refused.is_applied, docs.adapter) == (False, False, None)
    assert str(refused).startswith("refused, not used: ")


def test_what_is_not_to_be_applied_is_not(db: vecdb.Database) -> None:
    docs = filled(db, askew())
    one, two = docs.adapt(sample=200, apply=False), docs.adapt(sample=200, apply=False)
    assert (one.is_accepted, one.is_applied, docs.adapter) == (True, False, None)
    assert (one.version, one.gain, one.control) == (two.version, two.gain, two.control)


def test_refusals(db: vecdb.Database) -> None:
    docs = filled(db, askew(), count=50)
    for wrong in (0, 59, -1, 100.0, True, None):
        with pytest.raises(InvalidInput, match="sample is"):
            docs.adapt(sample=wrong)  # type: ignore[arg-type]
    for wrong in (0, -1, float("nan"), float("inf"), "60", True):
        with pytest.raises(InvalidInput, match="budget_s is"):
            docs.adapt(budget_s=wrong)  # type: ignore[arg-type]
    for wrong in (-1, 0.5, None):
        with pytest.raises(InvalidInput, match="seed is"):
            docs.adapt(seed=wrong)  # type: ignore[arg-type]
    with pytest.raises(InvalidInput, match="30 each are needed"):
        docs.adapt()
    with pytest.raises(InvalidInput, match="no record with text and a vector"):
        db.collection("empty", embed=askew()).adapt()
    with pytest.raises(ModelUnavailable):
        db.collection("plain", dimension=3).adapt()


def test_a_damaged_map_is_told_of_and_can_be_removed(db: vecdb.Database) -> None:
    docs = filled(db, askew(), count=200)
    bad = {"u": np.zeros((D, 2), np.float32), "v": np.zeros((D, 3), np.float32), "b": np.zeros(D, np.float32)}
    other = {"u": np.zeros((3, 2), np.float32), "v": np.zeros((3, 2), np.float32), "b": np.zeros(3, np.float32)}
    nan = {"u": np.zeros((D, 2)), "v": np.zeros((D, 2)), "b": np.full(D, np.nan)}
    for number, arrays in enumerate((bad, other, nan, {"u": bad["u"]}, {})):
        with db._store.write() as connection:
            docs._definition.kept.put(connection, KIND, {"version": str(number)}, arrays=arrays)
        with pytest.raises(StorageError, match="reset_adapter"):
            docs.search("bal")
        assert docs.search("bal", mode="text") is not None
    assert docs.reset_adapter()
    assert len(docs.search("bal")) == 10


# -- triples for training elsewhere


def test_triples_are_written_as_texts(db: vecdb.Database, tmp_path: Path) -> None:
    docs = filled(db, WordEmbedder("words", D), count=120)
    path = tmp_path / "triples.jsonl"
    count = docs.export_triples(path, sample=120)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert count == len(lines) > 50
    known = set(texts_of(120))
    for line in lines:
        assert list(line) == ["anchor", "positive", *(f"negative_{i + 1}" for i in range(NEGATIVES))]
        assert line["anchor"] in line["positive"]
        assert {line[name] for name in list(line)[1:]} <= known
        assert line["positive"] not in list(line.values())[2:]
    with pytest.raises(StorageError, match="new file"):
        docs.export_triples(path, sample=120)
    with pytest.raises(InvalidInput, match="sample"):
        docs.export_triples(tmp_path / "other", sample=1)
