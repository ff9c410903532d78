"""The word index in memory against SQLite's own bm25(), a plain loop, and bm25s."""

from __future__ import annotations

import apsw
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from naive_text import bm25f

from vecdb.index.bm25 import Postings

WORDS = ["ant", "bee", "cat", "dog", "elk", "fox"]
documents = st.lists(st.one_of(st.none(), st.lists(st.sampled_from(WORDS), max_size=12)), min_size=1, max_size=30)
queries = st.lists(st.sampled_from([*WORDS, "gnu"]), min_size=1, max_size=5)


def fts5_scores(texts: list[list[str] | None], query: list[str]) -> dict[int, float]:
    """slot -> score by a real FTS5 table, in which only documents with text are rows."""
    db = apsw.Connection(":memory:")
    db.execute("CREATE VIRTUAL TABLE words USING fts5(text)")
    db.executemany(
        "INSERT INTO words (rowid, text) VALUES (?, ?)",
        [(i, " ".join(t)) for i, t in enumerate(texts) if t is not None],
    )
    match = " OR ".join(f'"{word}"' for word in dict.fromkeys(query))
    return dict(db.execute("SELECT rowid, -bm25(words) FROM words WHERE words MATCH ?", (match,)))


def as_dict(scores: np.ndarray) -> dict[int, float]:
    return {int(slot): float(scores[slot]) for slot in np.flatnonzero(scores > 0)}


def assert_same(ours: dict[int, float], theirs: dict[int, float]) -> None:
    assert ours.keys() == theirs.keys()
    for slot, score in theirs.items():
        np.testing.assert_allclose(ours[slot], score, rtol=1e-5)


@given(documents, queries)
def test_scores_equal_those_of_fts5(texts: list[list[str] | None], query: list[str]) -> None:
    assert_same(as_dict(Postings().appended(texts).scores(query)), fts5_scores(texts, query))


@given(st.lists(documents, min_size=1, max_size=6), queries)
def test_adding_in_batches_gives_the_same_scores_as_at_once(
    batches: list[list[list[str] | None]], query: list[str]
) -> None:
    postings = Postings()
    for batch in batches:
        postings = postings.appended(batch)
    together = [text for batch in batches for text in batch]
    assert len(postings) == len(together)
    assert_same(as_dict(postings.scores(query)), fts5_scores(together, query))


@given(documents, queries, st.data())
def test_deleted_documents_change_frequencies_and_lengths_at_once(
    texts: list[list[str] | None], query: list[str], data: st.DataObject
) -> None:
    live = np.array(data.draw(st.lists(st.booleans(), min_size=len(texts), max_size=len(texts))))
    scores = Postings().appended(texts).scores(query, live)
    scores[~live] = 0
    assert_same(as_dict(scores), fts5_scores([t if alive else None for t, alive in zip(texts, live)], query))


@given(documents, queries, st.data())
def test_compaction_keeps_the_scores_of_what_is_kept(
    texts: list[list[str] | None], query: list[str], data: st.DataObject
) -> None:
    live = np.array(data.draw(st.lists(st.booleans(), min_size=len(texts), max_size=len(texts))))
    kept = np.flatnonzero(live)
    compacted = Postings().appended(texts).compacted(kept)
    np.testing.assert_allclose(
        compacted.scores(query), Postings().appended([texts[slot] for slot in kept]).scores(query), rtol=1e-6
    )


fields = st.fixed_dictionaries({name: st.lists(st.sampled_from(WORDS), max_size=6) for name in ("title", "text")})
weighed = st.dictionaries(st.sampled_from([*WORDS, "gnu"]), st.sampled_from([0.25, 0.5, 1.0]), min_size=1, max_size=4)


@given(
    st.lists(st.one_of(st.none(), fields), min_size=1, max_size=20),
    weighed,
    st.sampled_from([0.5, 1.0, 3.0]),
    st.sampled_from([0.0, 0.9, 1.2, 2.0]),
    st.sampled_from([0.0, 0.4, 0.75, 1.0]),
)
def test_fields_weights_k1_and_b_equal_a_plain_loop(
    texts: list[dict[str, list[str]] | None], query: dict[str, float], title: float, k1: float, b: float
) -> None:
    weights = {"title": title, "text": 1.0}
    flat = [None if text is None else [*text["title"], *text["text"]] for text in texts]
    counts = [weights[name] for text in texts if text for name in ("title", "text") for _ in text[name]]
    postings = Postings().appended(flat, counts=np.array(counts, dtype=np.float32))
    ours = as_dict(postings.scores(query, k1=k1, b=b))
    assert_same(ours, bm25f(texts, query, weights, k1=k1, b=b))


def test_lengths_may_differ_from_the_number_of_terms() -> None:
    postings = Postings().appended([["a", "ab", "b"], None, ["c", "cd", "d", "x"]], lengths=[2, 0, 3])
    assert postings.lengths.tolist() == [2, -1, 3]


def test_an_older_snapshot_does_not_see_later_documents() -> None:
    before = Postings().appended([["ant"], ["bee"]])
    after = before.appended([["ant", "cat"]])
    assert len(before) == 2
    assert before.frequency("ant") == 1
    assert after.frequency("ant") == 2
    assert before.frequency("cat") == 0


@pytest.mark.parametrize(("k1", "b"), [(1.2, 0.75), (1.5, 0.75), (0.9, 0.4), (2.0, 0.0), (1.2, 1.0)])
def test_scores_equal_those_of_bm25s(k1: float, b: float, rng: np.random.Generator) -> None:
    """Its "robertson" method has our idf, without the floor; no word here is in half of the documents. It leaves the factor
    k1 + 1, which changes no order, out of the term part."""
    bm25s = pytest.importorskip("bm25s")
    words = [f"w{i}" for i in range(40)]
    texts = [rng.choice(words, size=rng.integers(1, 12)).tolist() for _ in range(60)]
    retriever = bm25s.BM25(method="robertson", idf_method="robertson", k1=k1, b=b, dtype="float64")
    retriever.index(texts, show_progress=False)
    postings = Postings().appended(texts)
    for query in (["w1"], ["w2", "w3"], ["w4", "w5", "w6", "w39"]):
        theirs = retriever.get_scores(query)
        assert 0 < max(postings.frequency(word) for word in query) < 30
        np.testing.assert_allclose(postings.scores(query, k1=k1, b=b), theirs * (k1 + 1), rtol=1e-5)
