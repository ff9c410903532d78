"""A similarity of the user's own as a field: what is learned, what searches by it find, and what happens to later records."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import vecdb

torch = pytest.importorskip("torch")

WIDE = 16


def filled(db: vecdb.Database) -> tuple[vecdb.Collection, NDArray[np.float32], NDArray[np.int64]]:
    """Records of 5 kinds, which two of 16 directions tell; the others are louder."""
    random = np.random.default_rng(1)
    kinds = random.integers(5, size=200)
    vectors = random.standard_normal((200, WIDE)).astype(np.float32)
    vectors[:, :2] = 1.2 * np.column_stack([np.cos(kinds * 1.257), np.sin(kinds * 1.257)])
    docs = db.collection("docs")
    docs.add(
        ids=[f"r{i}" for i in range(200)], vectors=vectors, metadata=[{"kind": int(kind)} for kind in kinds.tolist()]
    )
    return docs, vectors, kinds


def purity(docs: vecdb.Collection, kinds: NDArray[np.int64], **options: Any) -> float:
    """How many of the 5 nearest others are of a record's kind."""
    shares = []
    for i in range(0, 200, 10):
        hits = docs.recommend([f"r{i}"], k=5, **options)
        shares.append(np.mean([kinds[int(id[1:])] == kinds[i] for id in hits.ids]))
    return float(np.mean(shares))


def by_kind(a: vecdb.Record, b: vecdb.Record) -> float:
    return float(a.metadata.get("kind") == b.metadata.get("kind"))


def test_a_function_is_learned_and_searched_by() -> None:
    with vecdb.open(":memory:", background=False) as db:
        docs, _, kinds = filled(db)
        learned = docs.learn_similarity(by_kind, sample=150, dimension=8, epochs=30)
        assert learned.after > learned.before + 0.1
        assert learned.dimension == 8
        assert purity(docs, kinds, field="learned") > purity(docs, kinds) + 0.2
        own = docs.vector("r3", "learned")
        assert own is not None
        assert np.linalg.norm(own) == pytest.approx(1, abs=1e-5)
        hits = docs.search(vector=own, field="learned", k=3, where={"kind": int(kinds[3])})
        assert hits[0].id == "r3"
        assert hits[0].score == pytest.approx(1, abs=1e-5)


def test_records_of_later_have_their_vectors_and_those_that_go_lose_them(tmp_path: Path) -> None:
    path = tmp_path / "d.vecdb"
    with vecdb.open(path, background=False) as db:
        docs, vectors, _ = filled(db)
        docs.learn_similarity(by_kind, sample=60, dimension=4, epochs=3)
        before = docs.vector("r7", "learned")
        docs.add(ids=["late"], vectors=vectors[7:8])
        docs.delete("r7")
        docs.update([{"id": "r8", "vector": vectors[9]}])
        np.testing.assert_allclose(docs.vector("late", "learned"), before, atol=1e-6)
        assert docs.vector("r7", "learned") is None
        np.testing.assert_allclose(docs.vector("r8", "learned"), docs.vector("r9", "learned"), atol=1e-6)
        ids = docs.search(vector=before, field="learned", k=200).ids
        assert "late" in ids
        assert "r7" not in ids
        # One that followed every change and one that starts anew say the same.
        other = vecdb.open(path, background=False)
        again = other.collection("docs")
        rows, made = docs._learned.current()
        rows_again, made_again = again._learned.current()
        np.testing.assert_array_equal(rows, rows_again)
        np.testing.assert_allclose(made, made_again, atol=1e-6)
        # Learned anew, the other handle learns of it, too.
        docs.learn_similarity(by_kind, sample=60, dimension=6, epochs=2)
        assert len(again.vector("late", "learned")) == 6  # type: ignore[arg-type]
        other.close()


def test_triples_teach_as_a_function_does_and_are_checked() -> None:
    with vecdb.open(":memory:", background=False) as db:
        docs, _, kinds = filled(db)
        with pytest.raises(vecdb.InvalidQuery, match="learn_similarity"):
            docs.vector("r1", "learned")
        same = {kind: np.flatnonzero(kinds == kind).tolist() for kind in range(5)}
        triples = [
            (f"r{i}", f"r{same[int(kinds[i])][j % 5]}", f"r{same[(int(kinds[i]) + 1) % 5][j]}")
            for i in range(200)
            for j in (5, 6)
            if same[int(kinds[i])][j % 5] != i
        ]
        learned = docs.learn_similarity(triples=triples, dimension=8)
        assert learned.triples + learned.held_out == len(triples)
        assert learned.after >= learned.before
        again = docs.learn_similarity(triples=triples, dimension=8)
        assert again == learned
        for wrong, said in (
            ([*triples, ("r1", "r1", "r2")], "three different"),
            ([*triples, "abc"], "three different"),
            (triples[:5], "too few"),
            ([("r1", "r2", f"r{i}") for i in range(3, 40)], "one record"),
        ):
            with pytest.raises(vecdb.InvalidInput, match=said):
                docs.learn_similarity(triples=wrong)  # type: ignore[arg-type]
        with pytest.raises(vecdb.RecordNotFound, match="nobody"):
            docs.learn_similarity(triples=[*triples, ("r1", "r2", "nobody")])
        for options in ({}, {"triples": triples, "similarity": by_kind}, {"triples": triples, "dimension": 0}):
            with pytest.raises(vecdb.InvalidInput):
                docs.learn_similarity(**options)  # type: ignore[arg-type]
        with pytest.raises(vecdb.InvalidInput, match="finite"):
            docs.learn_similarity(lambda a, b: float("nan"))
        with pytest.raises(vecdb.InvalidQuery, match="fastrp"):
            docs.derive("learned")
