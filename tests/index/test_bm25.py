"""The word index in memory against SQLite's own bm25()."""

from __future__ import annotations

import apsw
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from vecdb.index.bm25 import Postings

WORDS = ["ant", "bee", "cat", "dog", "elk", "fox"]
documents = st.lists(st.one_of(st.none(), st.lists(st.sampled_from(WORDS), max_size=12)), min_size=1, max_size=30)
queries = st.lists(st.sampled_from([*WORDS, "gnu"]), min_size=1, max_size=5)


def fts5_scores(texts: list[list[str] | None], query: list[str]) -> dict[int, float]:
    """slot -> score by a real FTS5 table, in which only documents with text are rows."""
    db = apsw.Connection(":memory:")
    db.execute("CREATE VIRTUAL TABLE words USING fts5(text)")
    db.executemany(
        "INSERT INTO words (rowid, text) VALUES (?, ?)", [(i, " ".join(t)) for i, t in enumerate(texts) if t]
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


def test_an_older_snapshot_does_not_see_later_documents() -> None:
    before = Postings().appended([["ant"], ["bee"]])
    after = before.appended([["ant", "cat"]])
    assert len(before) == 2
    assert before.frequency("ant") == 1
    assert after.frequency("ant") == 2
    assert before.frequency("cat") == 0
