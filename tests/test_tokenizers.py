"""The FTS5 tokenizer in Python: what it makes of words, of CJK, and of anything at all."""

from __future__ import annotations

import sys
import unicodedata
from pathlib import Path
from typing import Any

import apsw
import pytest
from hypothesis import given
from hypothesis import strategies as st
from naive_text import cjk_terms, is_cjk

import vecdb
from vecdb import TextConfig, tokenizers
from vecdb.config import SNOWBALL
from vecdb.words import Analyzer

Stemmer = pytest.importorskip("Stemmer")


def analyzer(config: TextConfig) -> Analyzer:
    db = apsw.Connection(":memory:")
    tokenizers.register(db)
    return Analyzer(db, config)


CONFIGS = [
    TextConfig(),
    TextConfig("none", fold_accents=False),
    TextConfig("cjk"),
    TextConfig("english", cjk=True),
    TextConfig("none", cjk=True),
    TextConfig("german"),
    TextConfig("french", fold_accents=False, cjk=True),
    TextConfig("hindi"),
]


def test_every_language_that_is_offered_is_there() -> None:
    assert set(SNOWBALL) <= set(Stemmer.algorithms())
    for language in SNOWBALL:
        assert analyzer(TextConfig(language)).document("one two")[1] == 2


@pytest.mark.parametrize(
    ("language", "forms"),
    [
        ("german", ["Häuser", "Hauses", "haus", "HÄUSER"]),
        ("french", ["cheval", "chevaux"]),
        ("spanish", ["canción", "canciones"]),
        ("italian", ["città", "citta"]),
        ("russian", ["мой", "мои\u0306"]),
        ("russian", ["книга", "книги", "книгу"]),
        ("hindi", ["लड़का", "लड़के", "लड़कों"]),
        ("turkish", ["kitaplar", "kitaplarımız"]),
        ("finnish", ["talo", "talossa", "taloissa"]),
    ],
)
def test_forms_of_a_word_are_one_term(language: str, forms: list[str]) -> None:
    cut = analyzer(TextConfig(language))
    assert len({term for form in forms for term in cut.document(form)[0]}) == 1


@pytest.mark.parametrize("config", CONFIGS, ids=str)
def test_composed_and_decomposed_accents_are_one(config: TextConfig) -> None:
    cut = analyzer(config)
    for word in ("été", "Häuser", "ação"):
        composed, decomposed = (unicodedata.normalize(form, word) for form in ("NFC", "NFD"))
        if config.fold_accents or config.is_snowball:
            assert cut.document(composed)[0] == cut.document(decomposed)[0]


def test_accents_fold_unless_told_otherwise() -> None:
    for language in ("english", "none", "german", "italian"):
        folded, kept = analyzer(TextConfig(language)), analyzer(TextConfig(language, fold_accents=False))
        assert folded.document("rôle émigré")[0] == folded.document("role emigre")[0]
        assert kept.document("rôle émigré")[0] != kept.document("role emigre")[0]
    assert (
        analyzer(TextConfig("greek")).document("άνθρωπος")[0] == analyzer(TextConfig("greek")).document("ανθρωπος")[0]
    )
    assert analyzer(TextConfig("russian")).document("йод")[0] != analyzer(TextConfig("russian")).document("иод")[0]


runs = st.text(st.sampled_from("東京都庁日本語テストかな한국어"), min_size=1, max_size=6)
words = st.text(st.sampled_from("abcdefg"), min_size=1, max_size=6)


@given(st.lists(st.one_of(runs, words, st.sampled_from([" ", ", ", "-", "。"])), max_size=8), st.booleans())
def test_runs_become_pairs_and_characters_and_words_stay_words(parts: list[str], is_query: bool) -> None:
    text = "".join(parts)
    wanted: list[str] = []
    plain = analyzer(TextConfig("english"))
    for piece in "".join(f"\0{c}" if i and is_cjk(c) != is_cjk(text[i - 1]) else c for i, c in enumerate(text)).split(
        "\0"
    ):
        whole = is_cjk(piece[:1] or " ")
        wanted += cjk_terms(piece, is_query=is_query) if whole else plain.document(piece)[0]
    cut = analyzer(TextConfig("english", cjk=True))
    found = [term for term, _ in cut.query(text)] if is_query else cut.document(text)[0]
    assert sorted(found) == sorted(wanted)


def test_a_run_has_a_position_for_each_character() -> None:
    terms, length = analyzer(TextConfig("english", cjk=True)).document("running 東京都 2024年")
    assert length == 6
    assert terms == ["run", "東", "東京", "京", "京都", "都", "2024", "年"]


@pytest.mark.parametrize("config", CONFIGS, ids=str)
@given(text=st.text(max_size=60))
def test_the_piece_of_a_term_is_cut_into_that_term_again(config: TextConfig, text: str) -> None:
    """FTS5 is asked for pieces of the query's text; each must be the one term that it stands for."""
    cut = analyzer(config)
    for term, piece in cut.query(text):
        assert [again for again, _ in cut.query(piece)] == [term]


@pytest.mark.parametrize("config", CONFIGS, ids=str)
@given(text=st.text(max_size=80))
def test_offsets_lie_in_order_inside_the_text(config: TextConfig, text: str) -> None:
    data = text.encode()
    before = 0
    for start, end, *terms in analyzer(config).tokens(data):
        assert before <= start < end <= len(data)
        assert all(isinstance(term, str) for term in terms)
        data[start:end].decode()  # whole characters
        before = start


@pytest.fixture
def german(path: Path) -> Path:
    with vecdb.open(path, background=False) as db:
        db.collection("c", text="german").add(ids=["a", "b"], texts=["die Häuser", "der Wald"])
    return path


def test_without_the_package_all_but_words_still_works(german: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "Stemmer", None)
    tokenizers.stemmer_version.cache_clear()
    with vecdb.open(german, background=False) as db:
        collection = db.collection("c")
        assert collection.get("a").text == "die Häuser"  # type: ignore[union-attr]
        assert collection.count() == 2
        for call in (
            lambda: collection.search("haus"),
            lambda: collection.add(ids=["x"], texts=["y"]),
            lambda: collection.delete("a"),
            lambda: db.collection("other", text="french"),
        ):
            with pytest.raises(vecdb.MissingExtra, match=r"pip install 'vecdb\[text\]'"):
                call()
        assert "other" not in db.collections()
        assert collection.count() == 2
    monkeypatch.undo()
    tokenizers.stemmer_version.cache_clear()
    with vecdb.open(german, background=False) as db:
        assert db.collection("c").search("haus").ids == ["a"]
        assert db.check() == []


class Later:
    """A stemmer of another version, which makes other stems."""

    @staticmethod
    def version() -> str:
        return "99.0"

    class Stemmer:
        def __init__(self, language: str) -> None:
            self._language = language

        def stemWord(self, word: str) -> str:
            return word[:3]


def test_a_writer_with_another_stemmer_makes_the_word_index_anew(german: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "Stemmer", Later)
    tokenizers.stemmer_version.cache_clear()
    try:
        with vecdb.open(german, background=False) as db:
            collection = db.collection("c")
            assert collection.config.stemmer == f"PyStemmer {Stemmer.version()}"
            collection.delete("b")  # would take other terms out of the index than were put in
            assert collection.config.stemmer == "PyStemmer 99.0"
            assert collection.check() == []
            assert collection.search("häuslich").ids == ["a"]
            collection.warm()
            assert collection.search("häuslich").ids == ["a"]
    finally:
        tokenizers.stemmer_version.cache_clear()


def test_other_programs_can_read_all_but_the_word_index(german: Path) -> None:
    db = apsw.Connection(str(german))
    assert db.execute("SELECT id, text FROM records_1 ORDER BY row").fetchall() == [
        ("a", "die Häuser"),
        ("b", "der Wald"),
    ]
    with pytest.raises(apsw.SQLError, match="tokenizer"):
        db.execute("SELECT * FROM words_1 WHERE words_1 MATCH 'wald'").fetchall()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"language": "klingon"}, "must be one of english, none, cjk, arabic"),
        ({"language": "cjk", "cjk": True}, "trigrams"),
        ({"k1": -1}, "k1 is -1"),
        ({"k1": True}, "k1 is True"),
        ({"b": 1.5}, "b is 1.5"),
        ({"fields": {"title": 1.0}}, "among them 'text'"),
        ({"fields": {"text": 0}}, "must be above 0"),
        ({"fields": {"text": 1, "$parent": 1}}, "is no field"),
        ({"fields": {"text": 1, "": 1}}, "is no field"),
        ({"fields": ["text"]}, "among them 'text'"),
        ({"synonyms": ["car"]}, "give a mapping"),
        ({"synonyms": {"car": {"auto": 2}}}, "above 0 and at most 1"),
        ({"synonyms": {"car": [7]}}, "give texts"),
        ({"synonyms": {"car": 7}}, "the synonyms of 'car' are 7"),
        ({"synonyms": {"car": [["auto"]]}}, "give texts"),
        ({"synonyms": {7: ["auto"]}}, "give texts"),
    ],
    ids=str,
)
def test_settings_that_cannot_be_are_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(vecdb.InvalidInput, match=message):
        TextConfig(**given)


def test_settings_are_saved_and_must_agree(path: Path) -> None:
    text = TextConfig("none", fields={"title": 2, "text": 1}, k1=0.9, b=0.4, synonyms={"a": ["b c"], "d": {"e": 0.9}})
    with vecdb.open(path, background=False) as db:
        db.collection("c", text=text)
    with vecdb.open(path, background=False) as db:
        assert db.collection("c", text=text).config.text == text
        assert db.collection("c").config.text.synonyms == {"a": {"b c": 0.5}, "d": {"e": 0.9}}
        with pytest.raises(vecdb.ConfigMismatch):
            db.collection("c", text=TextConfig("none"))
