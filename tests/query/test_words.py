"""Word search through the public face: fields, synonyms, corrections, languages; from FTS5 and from memory alike."""

from __future__ import annotations

import math
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from naive_text import bm25f
from word_embedder import WordEmbedder

import vecdb
from vecdb import SnippetOptions, TextConfig
from vecdb.errors import InvalidInput
from vecdb.query.terms import with_columns

WORDS = ["ant", "bee", "cat", "dog", "elk", "fox", "gnu", "hen"]


def engine(hits: vecdb.Hits) -> str:
    return next(report.detail["engine"] for report in hits.trace if report.stage == "text")


def cold_and_warm(path: Path, query: Any, **options: Any) -> vecdb.Hits:
    """The hits of a fresh process, which must be those of one that has everything in memory."""
    with vecdb.open(path, background=False) as db:
        cold = db.collection("c").search(query, **options)
        assert engine(cold) == "fts5"
    with vecdb.open(path, background=False) as db:
        db.collection("c").warm()
        warm = db.collection("c").search(query, **options)
        assert engine(warm) == "memory"
    assert cold.ids == warm.ids
    np.testing.assert_allclose(cold.scores, warm.scores, rtol=1e-5)
    assert [hit.snippet for hit in cold] == [hit.snippet for hit in warm]
    return warm


# -- fields

FIELDS: list[TextConfig] = [
    TextConfig("none", fields={"title": 2.0, "text": 1.0}),
    TextConfig("none", fields={"text": 1.0, "title": 0.5, "book.author": 3.0}),
    TextConfig("none", fields={"title": 2.0, "text": 1.0}, k1=0.9, b=0.4),
    TextConfig("none", k1=2.0, b=0.0),
]


def random_records(rng: np.random.Generator, count: int) -> list[dict[str, Any]]:
    def words(most: int) -> str:
        return " ".join(rng.choice(WORDS, size=rng.integers(0, most + 1), p=np.array([1, 1, 2, 2, 3, 3, 6, 6]) / 24))

    records = []
    for i in range(count):
        metadata = {"title": words(3), "book": {"author": [words(2), words(1)]}, "n": i % 3}
        if rng.random() < 0.2:
            del metadata["title"]
        records.append({"id": f"r{i}", "text": None if rng.random() < 0.1 else words(7), "metadata": metadata})
    return records


def naive_scores(records: list[dict[str, Any]], text: TextConfig, query: list[str]) -> dict[str, float]:
    documents: list[dict[str, list[str]] | None] = []
    for record in records:
        whole = {"text": record["text"]}
        if "title" in text.fields:
            whole["title"] = record["metadata"].get("title")
        if "book.author" in text.fields:
            whole["book.author"] = "\n".join(record["metadata"]["book"]["author"])
        given = {name: (value or "").split() for name, value in whole.items()}
        documents.append(
            given if record["text"] is not None or any(v for n, v in whole.items() if n != "text") else None
        )
    scores = bm25f(documents, dict.fromkeys(query, 1.0), text.fields, k1=text.k1, b=text.b)
    return {records[number]["id"]: score for number, score in scores.items()}


@pytest.mark.parametrize("text", FIELDS, ids=str)
def test_fields_score_as_a_plain_loop_does(path: Path, rng: np.random.Generator, text: TextConfig) -> None:
    records = random_records(rng, 60)
    with vecdb.open(path, background=False) as db:
        db.collection("c", text=text).add(records)
    for query in (["ant"], ["bee", "elk"], ["gnu", "hen", "cat"]):
        hits = cold_and_warm(path, " ".join(query), k=100)
        wanted = naive_scores(records, text, query)
        assert dict(zip(hits.ids, hits.scores)) == pytest.approx(wanted, rel=1e-5)
        filtered = cold_and_warm(path, " ".join(query), k=100, where={"n": 1})
        assert filtered.ids == [id for id in hits.ids if int(id[1:]) % 3 == 1]


@pytest.mark.parametrize("text", FIELDS[:2], ids=str)
def test_fields_follow_every_kind_of_write(path: Path, rng: np.random.Generator, text: TextConfig) -> None:
    records = {record["id"]: record for record in random_records(rng, 40)}
    with vecdb.open(path, background=False) as db:
        collection = db.collection("c", text=text, embed=WordEmbedder())
        collection.add(list(records.values()))
        collection.warm()
        for _ in range(5):
            for id in rng.choice(list(records), size=4, replace=False):
                title = " ".join(rng.choice(WORDS, size=2))
                collection.update(ids=[id], metadata=[{"title": title, "m": 1}])
                records[id]["metadata"] |= {"title": title, "m": 1}
            changed = random_records(rng, 40)[:6]
            collection.upsert(changed)
            records |= {record["id"]: record for record in changed}
            gone = str(rng.choice(list(records)))
            collection.delete(gone)
            del records[gone]
            hits = collection.search("elk fox", mode="text", k=100)
            wanted = naive_scores(list(records.values()), text, ["elk", "fox"])
            assert dict(zip(hits.ids, hits.scores)) == pytest.approx(wanted, rel=1e-5)
        assert collection.check() == []
        for id, record in records.items():
            stored = collection.get(id, vectors=True)
            assert stored is not None
            assert (stored.vector is not None) == bool(record["text"])  # a new title kept the text's vector
        db.drop("c")
        assert db.check() == []
    with vecdb.open(path, background=False) as db:
        assert db.collections() == []


def test_metadata_outside_the_fields_changes_in_place(db: vecdb.Database) -> None:
    collection = db.collection("c", text=FIELDS[0])
    collection.add([{"id": "a", "text": "ant", "metadata": {"title": "bee", "n": 1}}])
    before = db._store._writer.execute("SELECT row FROM records_1").get
    collection.update(ids=["a"], metadata=[{"n": 2}])
    assert db._store._writer.execute("SELECT row FROM records_1").get == before
    collection.update(ids=["a"], metadata=[{"title": "cat"}])
    assert db._store._writer.execute("SELECT row FROM records_1").get > before
    assert (collection.search("bee").ids, collection.search("cat").ids) == ([], ["a"])


def test_values_that_are_no_texts_are_not_searched(db: vecdb.Database) -> None:
    collection = db.collection("c", text=TextConfig(fields={"text": 1.0, "a.b": 1.0}))
    values = [7, None, True, {"c": "ant"}, ["ant", 7], "ant", ["x"]]
    collection.add([{"id": str(i), "metadata": {"a": {"b": value}}} for i, value in enumerate(values)])
    collection.add([{"id": "flat", "metadata": {"a": "ant", "a.b": "ant"}}])
    assert sorted(collection.search("ant").ids) == ["4", "5"]


# -- synonyms and corrections


@pytest.fixture
def cars(path: Path) -> Path:
    text = TextConfig(synonyms={"car": ["automobile"], "heart attack": {"myocardial infarction": 0.8}})
    with vecdb.open(path, background=False) as db:
        collection = db.collection("c", text=text, embed=WordEmbedder())
        texts = {
            "car": "a car in the street",
            "auto": "the automobile of my uncle",
            "both": "this car is an automobile",
            "heart": "he had a heart attack",
            "medical": "myocardial infarction, acute",
            "attack": "the attack came at dawn",
            "wagon": "a wagon with two horses",
        }
        texts |= {f"other{i}": f"something else number {i}" for i in range(8)}
        collection.add(ids=list(texts), texts=list(texts.values()))
    return path


def test_synonyms_bring_in_what_else_is_meant_for_less(cars: Path) -> None:
    hits = cold_and_warm(cars, "cars", mode="text", snippets=True)
    assert hits.ids == ["both", "car", "auto"]
    assert hits[0].snippet == "this **car** is an **automobile**"
    plain = cold_and_warm(cars, "cars", mode="text", synonyms={})
    assert sorted(plain.ids) == ["both", "car"]
    halves = dict(zip(hits.ids, hits.scores))
    direct = cold_and_warm(cars, "automobile", mode="text")
    assert halves["auto"] == pytest.approx(0.5 * dict(zip(direct.ids, direct.scores))["auto"], rel=1e-5)


def test_a_phrase_is_expanded_only_where_it_stands_whole(cars: Path) -> None:
    assert "medical" in cold_and_warm(cars, "signs of heart attacks", mode="text").ids
    assert "medical" not in cold_and_warm(cars, "attack of the heart", mode="text").ids
    assert "medical" not in cold_and_warm(cars, "heart", mode="text").ids


def test_synonyms_of_a_search_stand_in_for_the_collections_own(cars: Path) -> None:
    hits = cold_and_warm(cars, "car", mode="text", synonyms={"car": {"wagon": 1.0, "horse": 0.25}})
    assert sorted(hits.ids) == ["both", "car", "wagon"]
    assert "auto" not in hits.ids
    assert cold_and_warm(cars, "car", mode="text", synonyms={"car": "!!", "": ["x"]}).ids == hits.ids[:0] + [
        id for id in hits.ids if id != "wagon"
    ]


@given(
    st.dictionaries(
        st.lists(st.sampled_from(WORDS), min_size=1, max_size=2).map(" ".join),
        st.dictionaries(st.lists(st.sampled_from(WORDS), min_size=1, max_size=2).map(" ".join), st.floats(0.1, 1.0)),
        max_size=4,
    ),
    st.lists(st.sampled_from(WORDS), min_size=1, max_size=4),
)
@settings(max_examples=25)
def test_any_synonyms_give_the_same_from_fts5_as_from_memory(
    synonyms: dict[str, dict[str, float]], query: list[str]
) -> None:
    rng = np.random.default_rng(3)
    with vecdb.open(":memory:", background=False) as db:
        collection = db.collection("c", text="none")
        records = [{"id": str(i), "text": " ".join(rng.choice(WORDS, size=3))} for i in range(30)]
        collection.add(records)
        cold = collection.search(" ".join(query), k=30, synonyms=synonyms)
        collection.warm()
        warm = collection.search(" ".join(query), k=30, synonyms=synonyms)
        weights = {term: 1 + math.log(query.count(term)) for term in query}
        for text, expansions in synonyms.items():
            terms = text.split()
            if any(query[i : i + len(terms)] == terms for i in range(len(query))):
                for expansion, weight in expansions.items():
                    distinct = set(expansion.split())
                    for term in distinct:
                        weights[term] = max(weights.get(term, 0.0), weight / len(distinct))
        wanted = bm25f([{"text": r["text"].split()} for r in records], weights, {"text": 1.0}, k1=1.2, b=0.75)
    for hits in (cold, warm):
        assert dict(zip(hits.ids, hits.scores)) == pytest.approx({str(n): s for n, s in wanted.items()}, rel=1e-4)


def test_words_that_no_record_has_stand_for_the_nearest_if_asked(cars: Path) -> None:
    with vecdb.open(cars, background=False) as db:
        collection = db.collection("c")
        assert collection.search("automoblie", mode="text").ids == []
        hits = collection.search("automoblie", mode="text", fuzzy=True, snippets=True)
        assert engine(hits) == "memory"
        assert sorted(hits.ids) == ["auto", "both"]
        assert "**automobile**" in (hits[0].snippet or "")
        exact = collection.search("automobile", mode="text")
        assert dict(zip(hits.ids, hits.scores)) == pytest.approx(
            {id: 0.7 * score for id, score in zip(exact.ids, exact.scores)}, rel=1e-5
        )
        # A word that some record has is never replaced.
        assert collection.search("car", mode="text", fuzzy=True).ids == collection.search("car", mode="text").ids
        assert collection.why_not("auto", "automoblie", mode="text", fuzzy=True, k=1).stage in (None, "k")
        collection.delete(["auto", "both"])
        assert collection.search("automoblie", mode="text", fuzzy=True).ids == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fuzzy": True, "syntax": "query"}, "for plain text"),
        ({"synonyms": {"a": ["b"]}, "syntax": "query"}, "for plain text"),
        ({"fuzzy": "yes"}, "fuzzy is 'yes'"),
        ({"synonyms": [("a", "b")]}, "give a mapping"),
        ({"synonyms": {"a": {"b": 0}}}, "weights above 0"),
        ({"snippets": "yes"}, "SnippetOptions"),
        ({"snippets": {"length": 3}}, "SnippetOptions"),
    ],
    ids=str,
)
def test_options_that_cannot_be_are_refused(db: vecdb.Database, options: dict[str, Any], message: str) -> None:
    collection = db.collection("c")
    collection.add(ids=["x"], texts=["a b c"])
    with pytest.raises(vecdb.InvalidQuery, match=message):
        collection.search("a", **options)


def test_a_cursor_belongs_to_its_synonyms_and_corrections(cars: Path) -> None:
    with vecdb.open(cars, background=False) as db:
        collection = db.collection("c")
        page = collection.search("car", mode="text", k=1)
        assert page.cursor is not None
        assert collection.search("car", mode="text", k=1, cursor=page.cursor).ids == ["car"]
        for other in ({"synonyms": {}}, {"fuzzy": True}):
            with pytest.raises(vecdb.InvalidQuery, match="another search"):
                collection.search("car", mode="text", k=1, cursor=page.cursor, **other)


# -- snippets


def test_snippets_are_the_same_whatever_found_the_hit(cars: Path) -> None:
    with vecdb.open(cars, background=False) as db:
        collection = db.collection("c", embed=WordEmbedder())
        of_hits = {}
        for mode in ("text", "vector", "hybrid"):
            for hit in collection.search("cars attack", mode=mode, k=20, snippets=True):
                of_hits.setdefault(hit.id, set()).add(hit.snippet)
        assert of_hits["car"] == {"a **car** in the street"}
        assert of_hits["auto"] == {"the **automobile** of my uncle"}
        assert of_hits["wagon"] == {"a wagon with two horses"}
        assert all(len(found) == 1 for found in of_hits.values())
        vector = collection.get("car", vectors=True).vector  # type: ignore[union-attr]
        assert collection.search(vector, k=1, snippets=True)[0].snippet == "a car in the street"
        syntax = collection.search('"heart attack" OR wag*', syntax="query", mode="text", snippets=True)
        assert {hit.id: hit.snippet for hit in syntax} == {
            "heart": "he had a **heart** **attack**",
            "wagon": "a **wagon** with two horses",
        }
        assert collection.search("car", k=1)[0].snippet is None
        batch = collection.search(["car", "heart"], mode="text", k=1, snippets=SnippetOptions(html=True))
        assert [hits[0].snippet for hits in batch] == [
            "this <mark>car</mark> is an <mark>automobile</mark>",
            "he had a <mark>heart</mark> attack",
        ]


def test_a_record_without_text_has_no_snippet(db: vecdb.Database) -> None:
    collection = db.collection("c", text=FIELDS[0])
    collection.add([{"id": "a", "metadata": {"title": "ant"}}, {"id": "b", "text": "", "metadata": {"title": "ant"}}])
    assert {hit.id: hit.snippet for hit in collection.search("ant", snippets=True)} == {"a": None, "b": ""}


# -- frequencies that are right at once


def test_deleted_and_expired_records_count_in_no_frequency(path: Path, tmp_path: Path) -> None:
    stays = [{"id": f"s{i}", "text": f"ant {'bee' if i < 3 else 'cat'} number{i}"} for i in range(12)]
    goes = [{"id": f"g{i}", "text": "bee bee bee and much else besides"} for i in range(6)]
    fades = [{"id": f"f{i}", "text": "bee elk", "expires": timedelta(seconds=0.4)} for i in range(5)]
    with vecdb.open(tmp_path / "fresh.vecdb", background=False) as fresh:
        collection = fresh.collection("c")
        collection.add(stays)
        wanted = collection.search("bee number7", k=20)
    with vecdb.open(path, background=False) as db:
        collection = db.collection("c")
        collection.add(stays + goes + fades)
        collection.warm()
        assert len(collection.search("bee", k=20)) == 14
        collection.delete([record["id"] for record in goes])
        time.sleep(0.45)
        for found in (collection.search("bee number7", k=20), collection.search("bee number7", k=20, where={})):
            assert found.ids == wanted.ids
            np.testing.assert_allclose(found.scores, wanted.scores, rtol=1e-5)
    with vecdb.open(path, background=False) as db:  # cold: the expired ones are in FTS5 still
        found = db.collection("c").search("bee number7", k=20)
        assert found.ids == wanted.ids
        np.testing.assert_allclose(found.scores, wanted.scores, rtol=1e-5)


def test_forms_of_one_word_are_one_term_said_several_times(path: Path) -> None:
    with vecdb.open(path, background=False) as db:
        db.collection("c").add(ids=["a", "b", "c", "d"], texts=["run fast", "running late", "walk", "sit"])
    one = cold_and_warm(path, "run")
    many = cold_and_warm(path, "run, runs, running!")
    assert one.ids == many.ids
    np.testing.assert_allclose(many.scores, (1 + math.log(3)) * np.array(one.scores), rtol=1e-6)


# -- function words

HEATED = ["the heat of the wing", "the who", "a wing", "to be or not to be"]


def asked(path: Path, query: str, text: TextConfig | str | None = None, **options: Any) -> list[str]:
    with vecdb.open(path, background=False) as db:
        db.collection("c", text=text).add(ids=["heat", "who", "wing", "be"], texts=HEATED)
    return sorted(cold_and_warm(path, query, **options).ids)


def test_function_words_are_not_looked_for_beside_others(path: Path) -> None:
    assert asked(path, "What is the heat of a Wing?") == ["heat", "wing"]


@pytest.mark.parametrize("query", ["to be or not to be", "Be", "(be)"])
def test_a_query_of_function_words_alone_is_kept_whole(path: Path, query: str) -> None:
    assert asked(path, query) == ["be"]


def test_function_words_are_found_by_phrases(path: Path) -> None:
    with vecdb.open(path, background=False) as db:
        db.collection("c").add(ids=["heat", "who", "wing", "be"], texts=HEATED)
        assert db.collection("c").search('"the who"', syntax="query").ids == ["who"]
        assert db.collection("c").search('"of the wing"', syntax="query").ids == ["heat"]


def test_a_phrase_with_function_words_has_its_synonyms(path: Path) -> None:
    assert asked(path, "state of the art", synonyms={"state of the art": ["wing"]}) == ["heat", "wing"]


@pytest.mark.parametrize("stop_words", [(), ["WING"]])
def test_stop_words_of_ones_own(path: Path, stop_words: list[str]) -> None:
    found = asked(path, "the wing", TextConfig(stop_words=stop_words))
    assert found == (["heat", "who"] if stop_words else ["heat", "who", "wing"])


def test_a_function_word_that_occurs_nowhere_is_not_corrected(path: Path) -> None:
    with vecdb.open(path, background=False) as db:
        db.collection("c").add(ids=["a", "b"], texts=["thus flies", "wings"])
        assert db.collection("c").search("this wings", fuzzy=True).ids == ["b"]


def test_other_languages_have_no_stop_words_of_their_own(path: Path) -> None:
    assert asked(path, "the wing", "none") == ["heat", "who", "wing"]


@pytest.mark.parametrize("stop_words", ["the", [1], {"the": 1}])
def test_wrong_stop_words_are_refused(stop_words: Any) -> None:
    with pytest.raises(InvalidInput, match="stop_words is"):
        TextConfig(stop_words=stop_words)


# -- languages


@pytest.mark.parametrize("text", [TextConfig(cjk=True), TextConfig("none", cjk=True)], ids=str)
def test_one_and_two_characters_are_found(path: Path, text: TextConfig) -> None:
    texts = {"db": "向量数据库很快", "tokyo": "東京都に住む", "kr": "데이터베이스 검색", "mixed": "the HNSW索引 works"}
    with vecdb.open(path, background=False) as db:
        db.collection("c", text=text).add(ids=list(texts), texts=list(texts.values()))
    for query, ids in {
        "库": ["db"], "向": ["db"], "数据": ["db"], "数据库": ["db"], "据数": [], "京都": ["tokyo"], "都": ["tokyo"],
        "東京": ["tokyo"], "검색": ["kr"], "베이": ["kr"], "索引": ["mixed"], "hnsw": ["mixed"], "works 很": ["db", "mixed"],
    }.items():  # fmt: skip
        assert sorted(cold_and_warm(path, query).ids) == ids, query
    with vecdb.open(path, background=False) as db:
        collection = db.collection("c")
        assert collection.search('"数据库很"', syntax="query").ids == ["db"]
        assert collection.search('"数据很"', syntax="query").ids == []
        assert collection.search("数据*", syntax="query").ids == ["db"]


TEXT_CONFIGS = [
    TextConfig(),
    TextConfig("none"),
    TextConfig("cjk"),
    TextConfig(cjk=True, fields={"title": 3.0, "text": 1.0}, synonyms={"a": ["b"]}),
    pytest.param(TextConfig("german", cjk=True, k1=0.5), marks=pytest.mark.filterwarnings("default")),
]


@pytest.mark.parametrize("text", TEXT_CONFIGS, ids=str)
@given(stored=st.lists(st.text(max_size=30), max_size=4), query=st.text(max_size=30))
@settings(max_examples=60)
def test_any_text_is_a_query_and_a_record(text: TextConfig, stored: list[str], query: str) -> None:
    if text.is_snowball:
        pytest.importorskip("Stemmer")
    with vecdb.open(":memory:", background=False) as db:
        collection = db.collection("c", text=text)
        records = [*stored, query]
        collection.add(ids=[str(i) for i in range(len(records))], texts=records)
        cold = collection.search(query, k=10, snippets=True)
        collection.warm()
        warm = collection.search(query, k=10, snippets=True, fuzzy=False)
        assert set(cold.ids) == set(warm.ids)
        np.testing.assert_allclose(cold.scores, warm.scores, rtol=1e-4)
        collection.search(query, fuzzy=True, synonyms={query: [query, "x"]})
        if warm:
            assert str(len(records) - 1) in warm.ids
        assert collection.check() == []


def test_very_many_synonyms_are_no_trouble(db: vecdb.Database) -> None:
    collection = db.collection("c")
    collection.add(ids=["a", "b"], texts=["ant", "word499"])
    synonyms = {"ant": {f"word{i}": 0.5 + i / 2000 for i in range(600)}}
    assert sorted(collection.search("ant", synonyms=synonyms).ids) == ["a", "b"]


def test_what_is_no_unicode_is_still_a_query(db: vecdb.Database) -> None:
    collection = db.collection("c")
    collection.add(ids=["a"], texts=["ant"])
    assert collection.search("ant \ud800").ids == ["a"]
    assert collection.search('"ant" OR "\udfff"', syntax="query", snippets=True)[0].snippet == "**ant**"


# -- fields in queries with syntax ---------------------------------------------------------------------------------------


@pytest.fixture
def shelf(db: vecdb.Database) -> vecdb.Collection:
    books = db.collection("shelf", text=TextConfig(fields={"title": 2.0, "text": 1.0, "book.author": 1.0}))
    books.add(
        ids=["a", "b", "c"],
        texts=["whales and krill", "of a title", "nothing"],
        metadata=[{"title": "Moby"}, {"title": "Whale songs"}, {"title": "Krill", "book": {"author": "Whale, W."}}],
    )
    return books


@pytest.mark.parametrize(
    ("query", "ids"),
    [
        ("whale", "abc"),
        ("title:whale", "b"),
        ("text : whale", "a"),
        ("book.author:whale", "c"),
        ('"book.author" : whale', "c"),
        ("{title book.author}:whale", "bc"),
        ('{text "title"} : (whale OR krill)', "abc"),
        ("- title : whale", "ac"),
        ("title:whale OR text:krill", "ab"),
        ('title:"whale song"', "b"),
        ("title:mob*", "a"),
        ("title", "b"),
        ('"title:whale"', ""),
    ],
)
def test_a_query_with_syntax_may_name_fields(shelf: vecdb.Collection, query: str, ids: str) -> None:
    found = shelf.search(query, mode="text", syntax="query", snippets=True)
    assert sorted(found.ids) == list(ids)
    assert shelf.search(query, mode="text", syntax="query", where={"title": {"$exists": True}}).ids == found.ids


@pytest.mark.parametrize("query", ["author:whale", "{title author}:whale", "field_0:whale", '"":whale'])
def test_fields_that_are_not_searched_are_refused(shelf: vecdb.Collection, query: str) -> None:
    with pytest.raises(vecdb.InvalidQuery, match=r"title, text, book\.author can be searched"):
        shelf.search(query, mode="text", syntax="query")


def test_names_of_fields_are_not_marked(shelf: vecdb.Collection) -> None:
    assert shelf.search("{title text}:whale OR text:title", mode="text", syntax="query", snippets=True).ids
    (hit,) = shelf.search("text:title", mode="text", syntax="query", snippets=True)
    assert hit.snippet == "of a **title**"
    (hit,) = shelf.search("{title text}:krill NOT title:krill", mode="text", syntax="query", snippets=True)
    assert hit.snippet == "whales and **krill**"


@given(st.text(st.sampled_from('ab":{}()*^- .\n'), max_size=12))
def test_any_query_with_syntax_is_answered_or_refused(query: str) -> None:
    columns = {"text": "text", "a": "field_0", "b.a": "field_1"}
    try:
        changed = with_columns(query, columns)
    except vecdb.InvalidQuery:
        return
    if ":" not in query:
        assert changed == query
