"""The field that is derived from links: who has a vector, who is near whom, and what happens to it when things change."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import vecdb


def two_circles(docs: vecdb.Collection, size: int = 30) -> None:
    """Two groups, everybody linked to six others of the own one, and some records without links."""
    rng = np.random.default_rng(0)
    ids = [f"{group}{i}" for group in "ab" for i in range(size)] + ["x", "y"]
    docs.add(ids=ids, texts=[f"text {id}" for id in ids], metadata=[{"n": i} for i in range(len(ids))])
    for group in "ab":
        for i in range(size):
            others = [j for j in rng.choice(size, 6, replace=False) if j != i]
            docs.link(f"{group}{i}", [f"{group}{j}" for j in others], "knows")


def nearest(docs: vecdb.Collection, id: str, k: int = 10, **options: object) -> list[str]:
    vector = docs.vector(id)
    assert vector is not None
    return docs.search(vector, k=k, field="fastrp", **options).ids  # type: ignore[no-any-return]


@pytest.fixture
def docs(db: vecdb.Database) -> vecdb.Collection:
    docs = db.collection("people")
    two_circles(docs)
    return docs


def test_records_with_like_surroundings_are_near(docs: vecdb.Collection) -> None:
    assert docs.derive(kinds=["knows"], dimension=32) == 60
    assert docs.vector("x") is None
    assert docs.vector("nobody") is None
    for id in ("a3", "b7"):
        found = nearest(docs, id)
        assert found[0] == id
        assert all(other[0] == id[0] for other in found)
        assert docs.search(docs.vector(id), k=1, field="fastrp")[0].score == pytest.approx(1.0, abs=1e-5)
    assert len(nearest(docs, "a3", k=100)) == 60


def test_filters_text_and_graph_work_with_it(docs: vecdb.Collection) -> None:
    docs.derive(kinds=["knows"], dimension=32)
    assert set(nearest(docs, "a3", where={"n": {"$lt": 3}})) == {"a0", "a1", "a2"}
    hits = docs.search("b4", vector=docs.vector("a3"), field="fastrp", k=5, graph={"kinds": ["knows"]})
    assert [step.stage for step in hits.trace] == ["vector", "text", "fusion", "graph"]
    with pytest.raises(vecdb.InvalidQuery, match="give a vector"):
        docs.search("b4", field="fastrp", mode="vector")
    with pytest.raises(vecdb.DimensionMismatch):
        docs.search([1.0, 2.0], field="fastrp")


def test_new_records_get_vectors_from_their_neighbours(docs: vecdb.Collection) -> None:
    docs.derive(kinds=["knows"], dimension=32)
    docs.add(ids=["new"], texts=["a newcomer"])
    assert docs.vector("new") is None
    docs.link("new", ["b1", "b2", "b3"], "knows")
    assert [id[0] for id in nearest(docs, "new", k=9)[1:]] == ["b"] * 8
    assert docs.derive(kinds=["knows"], dimension=32) == 61


def test_records_that_go_or_change_are_followed(db: vecdb.Database, docs: vecdb.Collection) -> None:
    docs.derive(kinds=["knows"], dimension=32)
    docs.delete("a4")
    docs.update(ids=["a5"], texts=["another text"])
    assert docs.vector("a4") is None
    assert "a4" not in nearest(docs, "a3", k=100)
    assert [id[0] for id in nearest(docs, "a5", k=6)] == ["a"] * 6
    assert db.check() == []


def test_it_is_kept_and_made_again_when_its_file_is_lost(path: Path) -> None:
    with vecdb.open(path, background=False) as db:
        docs = db.collection("people")
        two_circles(docs)
        docs.derive(kinds=["knows"], dimension=16)
        before = docs.vector("a3")
    for damage in (None, "truncate", "remove"):
        for file in path.with_name(path.name + "-index").glob("*fastrp*.seg"):
            if damage == "truncate":
                file.write_bytes(file.read_bytes()[:100])
            elif damage == "remove":
                file.unlink()
        with vecdb.open(path, background=False) as db:
            assert np.array_equal(db.collection("people").vector("a3"), before)  # type: ignore[arg-type]


def test_a_reader_makes_it_in_memory_when_the_file_is_lost(path: Path) -> None:
    with vecdb.open(path, background=False) as db:
        docs = db.collection("people")
        two_circles(docs)
        docs.derive(kinds=["knows"], dimension=16)
        before = docs.vector("a3")
    (file,) = path.with_name(path.name + "-index").glob("*fastrp*.seg")
    file.unlink()
    with vecdb.open(path, read_only=True) as db:
        docs = db.collection("people")
        assert np.array_equal(docs.vector("a3"), before)  # type: ignore[arg-type]
        with pytest.raises(vecdb.ReadOnly):
            docs.derive()
    assert not list(path.with_name(path.name + "-index").glob("*fastrp*.seg"))


def test_it_is_told_when_there_is_nothing(docs: vecdb.Collection) -> None:
    with pytest.raises(vecdb.InvalidQuery, match=r"derive\('fastrp'\)"):
        docs.vector("a3")
    with pytest.raises(vecdb.InvalidQuery, match="derive"):
        docs.search([1.0], field="fastrp")
    for call in (
        lambda: docs.derive("node2vec"),
        lambda: docs.vector("a3", "vector"),
        lambda: docs.search("a", field="other"),
        lambda: docs.derive(kinds=["unheard of"]),
    ):
        with pytest.raises(vecdb.InvalidQuery):
            call()
    with pytest.raises(vecdb.VecdbError, match="dimension"):
        docs.derive(dimension=0)


def test_a_collection_without_links_derives_nothing(db: vecdb.Database) -> None:
    docs = db.collection("alone")
    docs.add(ids=["a"], texts=["a"])
    assert docs.derive(dimension=4) == 0
    assert docs.vector("a") is None
    assert docs.search([1, 0, 0, 0], field="fastrp").ids == []


def test_settings_can_be_chosen_by_hidden_links(db: vecdb.Database) -> None:
    """People and things of two circles: even hops alone, as given, lead from people to people and to no thing."""
    docs = db.collection("shop")
    rng = np.random.default_rng(0)
    docs.add(ids=[f"p{i}" for i in range(60)] + [f"t{i}" for i in range(40)], texts=["x"] * 100)
    for i in range(60):
        docs.link(f"p{i}", [f"t{j}" for j in rng.choice(np.arange(i % 2, 40, 2), 8, replace=False)], "buys")
    assert docs.derive(kinds=["buys"], dimension=16, weights=(0.0, 1.0, 0.0, 1.0), tune=True) == 100
    with docs._store.read() as read:
        kept = docs._definition.derived(read)["fastrp"]["config"]
    assert kept["weights"][0] or kept["weights"][2]
    assert kept["dimension"] == 16
