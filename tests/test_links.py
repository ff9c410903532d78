"""Links between records: what is kept, what goes with what, and that nothing is written of a bad batch."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import apsw
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import vecdb
from vecdb import Link
from vecdb.config import TextConfig
from vecdb.migrations import m003_links
from vecdb.tables import Tables


@pytest.fixture
def docs(db: vecdb.Database) -> vecdb.Collection:
    docs = db.collection("docs", dimension=3)
    docs.add(ids=list("abcdef"), texts=[f"text {c}" for c in "abcdef"], vectors=np.eye(6, 3) + 0.1)
    return docs


def pairs(docs: vecdb.Collection, id: str) -> list[tuple[str, str, str, float, bool]]:
    return [(x.source, x.target, x.kind, x.weight, x.directed) for x in docs.links(id)]


# -- what is kept --------------------------------------------------------------------------------------------------------


def test_a_link_is_found_from_both_of_its_ends(docs: vecdb.Collection) -> None:
    assert docs.link("a", "b", "cites", 2.5, directed=True) == 1
    assert docs.links("a") == docs.links("b") == [Link("a", "b", "cites", 2.5, True)]
    assert docs.links("c") == []
    assert docs.links("a", "other") == []


def test_lists_make_several_links_and_single_values_count_for_all(docs: vecdb.Collection) -> None:
    assert docs.link("a", ["b", "c", "d"], weight=[1, 2, 3]) == 3
    assert docs.link(["e", "f"], "a", ["x", "y"], directed=[True, False]) == 2
    assert pairs(docs, "a") == [
        ("a", "b", "link", 1.0, False),
        ("a", "c", "link", 2.0, False),
        ("a", "d", "link", 3.0, False),
        ("e", "a", "x", 1.0, True),
        ("f", "a", "y", 1.0, False),
    ]
    assert docs.link([], []) == 0


lines = st.lists(
    st.tuples(st.sampled_from("abc"), st.sampled_from("abc"), st.sampled_from(["k", "m"]), st.booleans()).filter(
        lambda line: line[0] != line[1]
    ),
    max_size=8,
)


@given(lines, st.booleans())
def test_two_records_have_one_undirected_link_or_one_each_way(
    written: list[tuple[str, str, str, bool]], at_once: bool
) -> None:
    """The slow twin is a dict that a new link clears its way in."""
    kept: dict[tuple[str, str, str], tuple[int, bool]] = {}
    for number, (source, target, kind, directed) in enumerate(written, 1):
        opposite = (target, source, kind)
        if opposite in kept and not (directed and kept[opposite][1]):
            del kept[opposite]
        kept[source, target, kind] = number, directed
    with vecdb.open(":memory:", background=False) as db:
        docs = db.collection("docs")
        docs.add(ids=list("abc"), texts=list("abc"))
        weights = [float(n) for n in range(1, len(written) + 1)]
        if at_once and written:
            sources, targets, kinds, directed_ones = map(list, zip(*written))
            docs.link(sources, targets, kinds, weights, directed=directed_ones)
        else:
            for (source, target, kind, directed), weight in zip(written, weights):
                docs.link(source, target, kind, weight, directed=directed)
        found = {link for id in "abc" for link in docs.links(id)}
        assert found == {Link(*ends, float(number), directed) for ends, (number, directed) in kept.items()}
        assert db.check() == []


def test_unlinking_takes_undirected_links_in_either_order(docs: vecdb.Collection) -> None:
    docs.link(["a", "a", "b", "c"], ["b", "b", "a", "a"], ["x", "y", "z", "x"], directed=[False, True, True, False])
    assert docs.unlink("b", "a", "x") == 1
    assert docs.unlink("b", "a", "y") == 0  # that one leads from a to b
    assert docs.unlink("a", "b") == 1
    assert pairs(docs, "a") == [("b", "a", "z", 1.0, True), ("c", "a", "x", 1.0, False)]
    assert docs.unlink(["b", "a", "nobody"], ["a", "c", "a"]) == 2
    assert docs.links("a") == []


# -- what goes with what -------------------------------------------------------------------------------------------------


def test_links_stay_with_a_record_whose_text_or_vector_changes(db: vecdb.Database, docs: vecdb.Collection) -> None:
    docs.link(["a", "b"], ["b", "c"])
    docs.update(ids=["b"], texts=["new words"])
    docs.upsert([{"id": "a", "text": "text a", "vector": [9, 9, 9]}, {"id": "c", "text": "other", "vector": [1, 0, 0]}])
    docs.update(ids=["b"], metadata=[{"n": 1}])
    assert pairs(docs, "b") == [("a", "b", "link", 1.0, False), ("b", "c", "link", 1.0, False)]
    assert db.check() == []


def test_links_go_with_their_records(db: vecdb.Database, docs: vecdb.Collection) -> None:
    docs.link(["a", "b", "c"], ["b", "c", "d"])
    docs.delete("b")
    assert docs.links("a") == []
    assert pairs(docs, "c") == [("c", "d", "link", 1.0, False)]
    docs.add(ids=["b"], texts=["another one of this name"])
    assert docs.links("b") == []
    docs.replace("parent", [{"id": "p1", "text": "x"}, {"id": "p2", "text": "y"}])
    docs.link("p1", "p2")
    docs.replace("parent", [{"id": "p1", "text": "x changed"}])
    assert docs.links("p1") == []
    assert db.check() == []


def test_links_of_expired_records_are_not_told(docs: vecdb.Collection) -> None:
    docs.link("a", "b")
    docs.update(ids=["b"], expires=[timedelta(hours=-1)])
    assert docs.links("a") == []
    with pytest.raises(vecdb.RecordNotFound):
        docs.links("b")
    with pytest.raises(vecdb.RecordNotFound):
        docs.link("a", "b")


def test_a_dropped_collection_takes_its_links_along(path: Path) -> None:
    with vecdb.open(path, background=False) as db:
        docs = db.collection("docs")
        docs.add(ids=["a", "b"], texts=["a", "b"])
        docs.link("a", "b")
        db.drop("docs")
        again = db.collection("docs")
        again.add(ids=["a", "b"], texts=["a", "b"])
        assert again.links("a") == []


def test_links_survive_reopening_and_are_seen_by_other_handles(path: Path) -> None:
    with vecdb.open(path, background=False) as db:
        docs = db.collection("docs")
        docs.add(ids=["a", "b"], texts=["a", "b"])
        with vecdb.open(path, background=False) as other:
            docs.link("a", "b", "x")
            assert other.collection("docs").links("b") == docs.links("b") != []
    with vecdb.open(path, read_only=True) as db:
        assert len(db.collection("docs").links("a")) == 1
        with pytest.raises(vecdb.ReadOnly):
            db.collection("docs").link("a", "b")


def test_a_file_without_links_gets_the_tables_that_new_files_have(path: Path) -> None:
    def schema(db: apsw.Connection) -> dict[str, str]:
        found = db.execute("SELECT name, sql FROM sqlite_schema WHERE name LIKE 'links%' OR name LIKE 'mentions%'")
        return {name: " ".join(sql.split()) for name, sql in found}

    with vecdb.open(path, background=False) as db:
        db.collection("docs")
    raw = apsw.Connection(str(path))
    made = schema(raw)
    assert len(made) == 4
    tables = Tables(1, TextConfig())
    raw.execute(f"DROP TABLE {tables.links}; DROP TABLE {tables.mentions}; ALTER TABLE collections DROP COLUMN derived")
    m003_links(raw)
    assert schema(raw) == made
    raw.close()


# -- what is refused -----------------------------------------------------------------------------------------------------

NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"target": "a"}, "itself"),
        ({"weight": 0}, "above 0"),
        ({"weight": -1.0}, "above 0"),
        ({"weight": NAN}, "finite"),
        ({"weight": INF}, "finite"),
        ({"weight": 1e300}, "finite"),
        ({"weight": 1e-300}, "above 0"),
        ({"weight": "heavy"}, "finite"),
        ({"weight": True}, "finite"),
        ({"kind": ""}, "printable"),
        ({"kind": "x" * 65}, "printable"),
        ({"kind": "a\nb"}, "printable"),
        ({"kind": 7}, "printable"),
        ({"kind": "semantic"}, "derives"),
        ({"kind": "sequence"}, "derives"),
        ({"kind": "entity"}, "derives"),
        ({"directed": "yes"}, "True or False"),
        ({"target": 5}, "text"),
        ({"kind": ["x", "y"]}, "one value"),
    ],
)
def test_bad_links_are_refused(docs: vecdb.Collection, arguments: dict[str, object], message: str) -> None:
    good = {"source": "a", "target": "b"}
    with pytest.raises(vecdb.VecdbError, match=message):
        docs.link(**{**good, **arguments})  # type: ignore[arg-type]
    assert docs.links("a") == []


def test_one_bad_link_and_nothing_is_written(docs: vecdb.Collection) -> None:
    with pytest.raises(vecdb.VecdbError) as caught:
        docs.link(["a", "b", "c"], ["b", "b", "d"])
    assert caught.value.position == 1  # type: ignore[attr-defined]
    with pytest.raises(vecdb.RecordNotFound, match="nobody"):
        docs.link(["a", "a"], ["b", "nobody"])
    with pytest.raises(vecdb.VecdbError, match="2 links have 3"):
        docs.link(["a", "b"], ["c", "d"], weight=[1, 2, 3])
    assert docs.links("a") == docs.links("b") == []


def test_a_large_batch_is_one_transaction(db: vecdb.Database) -> None:
    docs = db.collection("many")
    ids = [str(i) for i in range(20_000)]
    docs.add(ids=ids, texts=["x"] * 20_000)
    assert docs.link(ids[:-1], ids[1:]) == 19_999
    assert len(docs.links("7")) == 2
    assert docs.unlink(ids[:-1], ids[1:]) == 19_999


# -- entities ------------------------------------------------------------------------------------------------------------


def mentioned(docs: vecdb.Collection) -> dict[str, list[str]]:
    """entity -> ids, from the table."""
    with docs._store.read() as db:
        found = docs._tables.all_mentions(db)
        ids = docs._tables.ids_of(db, [row for _, row in found])
    named: dict[str, list[str]] = {}
    for name, row in found:
        named.setdefault(name, []).append(ids[row])
    return {name: sorted(listed) for name, listed in named.items()}


def capitals(text: str) -> list[str]:
    return [word for word in text.split() if word[0].isupper()]


def test_entities_follow_their_texts(db: vecdb.Database) -> None:
    docs = db.collection("docs")
    docs.add(ids=["a", "b"], texts=["Ada met Babbage", "nobody here"])
    assert docs.link_entities(capitals) == 2
    docs.add(ids=["c"], texts=["ADA again"])
    assert mentioned(docs) == {"ada": ["a", "c"], "babbage": ["a"]}
    docs.update(ids=["b", "a"], texts=["Ada too", "only Babbage"])
    docs.update(ids=["c"], metadata=[{"n": 1}])
    assert mentioned(docs) == {"ada": ["b", "c"], "babbage": ["a"]}
    docs.delete("c")
    assert mentioned(docs) == {"ada": ["b"], "babbage": ["a"]}
    assert docs.link_entities(lambda text: []) == 0
    assert mentioned(docs) == {}
    assert db.check() == []


def test_entities_of_a_vector_that_changes_stay(db: vecdb.Database) -> None:
    docs = db.collection("docs", dimension=2)
    docs.add([{"id": "a", "text": "Ada", "vector": [1, 0]}])
    docs.link_entities(capitals)
    docs.update(ids=["a"], vectors=[[0, 1]])
    assert mentioned(docs) == {"ada": ["a"]}


def test_entities_of_a_metadata_key(db: vecdb.Database) -> None:
    docs = db.collection("docs")
    docs.add(ids=["a", "b"], texts=["x", "y"], metadata=[{"found": {"names": ["Ada", " ", "ada"]}}, {"found": 7}])
    assert docs.link_entities("found.names") == 1
    docs.update(ids=["b"], metadata=[{"found": {"names": "Babbage"}}])
    docs.add(ids=["c"], texts=["z"], metadata=[{"found": {"names": ["Ada", 5]}}])
    assert mentioned(docs) == {"ada": ["a", "c"], "babbage": ["b"]}
    docs.update(ids=["a"], metadata=[{"found": {}}], replace_metadata=True)
    assert mentioned(docs) == {"ada": ["c"], "babbage": ["b"]}


@pytest.mark.parametrize("extractor", [None, "", 5, lambda text: "one text", lambda text: [1]])
def test_bad_extractors_are_refused(docs: vecdb.Collection, extractor: object) -> None:
    with pytest.raises(vecdb.VecdbError, match="extractor"):
        docs.link_entities(extractor)  # type: ignore[arg-type]
    assert mentioned(docs) == {}
    docs.add(ids=["later"], texts=["written as if nothing had been"])


def test_entities_can_be_given_by_id(docs: vecdb.Collection) -> None:
    docs.add(ids=["x", "y"], texts=["one", "two"])
    assert docs.link_entities({"x": ["Ada", "ADA ", ""], "y": []}) == 1
    assert mentioned(docs)["ada"] == ["x"]
    assert docs.link_entities({"y": ["Ada"]}) == 1
    assert mentioned(docs)["ada"] == ["x", "y"]
    for wrong in ({"x": "Ada"}, {"x": [1]}, {"x": None}):
        with pytest.raises(vecdb.VecdbError, match="a list of texts"):
            docs.link_entities(wrong)  # type: ignore[arg-type]
    with pytest.raises(vecdb.errors.RecordNotFound, match="nobody"):
        docs.link_entities({"nobody": ["Ada"]})
    assert mentioned(docs)["ada"] == ["x", "y"]
