from __future__ import annotations

import html
import re
from typing import Any

import apsw
import pytest
from hypothesis import given
from hypothesis import strategies as st
from naive_text import best_window

import vecdb
from vecdb import SnippetOptions, TextConfig, tokenizers
from vecdb.query.snippets import snippet
from vecdb.query.terms import Marks, marks_of_syntax, terms_of
from vecdb.words import Analyzer


def analyzer(config: TextConfig) -> Analyzer:
    db = apsw.Connection(":memory:")
    tokenizers.register(db)
    return Analyzer(db, config)


ENGLISH, PAIRS = analyzer(TextConfig()), analyzer(TextConfig(cjk=True))


def shown(text: str, query: str, cut: Analyzer = ENGLISH, **options: Any) -> str:
    return snippet(text, Marks(frozenset(terms_of(query, cut).weights)), cut, SnippetOptions(**options))


LONG = (
    "The first part speaks of nothing in particular. Wings are discussed here, alone. Then come many words about weather, "
    "food and travel. At last the wing flutters in a slipstream, and the slipstream answers. The end is quiet again."
)


def test_the_window_with_most_of_the_words_is_shown_and_stems_are_marked() -> None:
    found = shown(LONG, "winged slipstreams flutter", length=70)
    assert found == "…last the **wing** **flutters** in a **slipstream**, and the **slipstream** answers…"


def test_a_short_text_is_shown_whole() -> None:
    assert shown("A wing.", "wing") == "A **wing**."
    assert shown("", "wing") == ""
    assert shown("...", "wing") == "..."


def test_without_a_match_it_is_the_beginning() -> None:
    assert shown(LONG, "zebra", length=30) == "The first part speaks of…"
    assert shown("  \n " + LONG, "", length=30).strip() == "The first part speaks of…"


def test_html_is_escaped_and_marks_are_the_callers() -> None:
    text = 'a <b>wing</b> & "tail"'
    assert shown(text, "wing", html=True) == "a &lt;b&gt;<mark>wing</mark>&lt;/b&gt; &amp; &quot;tail&quot;"
    assert shown(text, "wing", before="[", after="]") == 'a <b>[wing]</b> & "tail"'
    assert shown(text, "wing", before="", after="") == text


def test_pairs_of_characters_are_marked_as_one_run() -> None:
    assert shown("我们用向量数据库搜索。", "向量数据", PAIRS) == "我们用**向量数据**库搜索。"
    assert shown("我们用向量数据库搜索。", "量", PAIRS) == "我们用向**量**数据库搜索。"
    assert shown("Die 向量 and wings", "wing 向量", PAIRS) == "Die **向量** and **wings**"
    assert shown("東京" * 50 + "大阪" + "東京" * 50, "大阪", PAIRS, length=6) == "…東京**大阪**東京…"


def test_a_word_longer_than_the_window_is_shown_whole() -> None:
    assert shown("x " * 50 + "incomprehensibilities" + " y" * 50, "incomprehensibilities", length=5) == (
        "…**incomprehensibilities**…"
    )
    assert shown("a" * 100, "b", length=10) == "a" * 10 + "…"


def test_phrases_and_prefixes_of_the_query_syntax_are_marked() -> None:
    marks = marks_of_syntax('("behind the wing" OR slip*) NOT heat', ENGLISH)
    text = "a slipstream behind the wings"
    assert snippet(text, marks, ENGLISH, SnippetOptions()) == "a **slipstream** **behind** **the** **wings**"


alphabets = st.sampled_from(["ab <&", "wing über", "東京都 a", "\x00\t\n .!"])
texts = st.one_of(
    st.text(max_size=120), alphabets.flatmap(lambda letters: st.text(st.sampled_from(letters), max_size=120))
)


@given(texts, texts, st.integers(1, 60), st.booleans(), st.sampled_from([ENGLISH, PAIRS]))
def test_a_snippet_is_a_piece_of_the_text_with_marks(
    text: str, query: str, length: int, escape: bool, cut: Analyzer
) -> None:
    before, after, ellipsis = "\ue000", "\ue001", "\ue002"
    if set(text) & {before, after, ellipsis}:
        return
    found = shown(text, query, cut, length=length, before=before, after=after, ellipsis=ellipsis, html=escape)
    assert re.fullmatch(f"{ellipsis}?([^{before}{after}]*({before}[^{before}{after}]+{after})?)*{ellipsis}?", found)
    bare = re.sub(f"[{before}{after}{ellipsis}]", "", found)
    bare = html.unescape(bare) if escape else bare
    assert bare in text
    assert len(bare) <= length or before in found  # only a marked word may be longer
    marked = re.findall(f"{before}([^{after}]+){after}", html.unescape(found) if escape else found)
    wanted = {term for term, _ in cut.query(query)}
    for piece in marked:
        assert wanted & set(cut.document(piece)[0])


@given(
    st.lists(st.sampled_from(["ant", "bee", "cat", "of", "the", "elk"]), min_size=1, max_size=40), st.integers(5, 60)
)
def test_no_other_window_holds_more_of_the_words(words: list[str], length: int) -> None:
    text = " ".join(words)
    wanted = {"ant", "bee", "elk"}
    matches = [(found.start(), found.end(), found.group()) for found in re.finditer(r"ant|bee|elk", text)]
    marked = re.findall(r"<(\w+)>", shown(text, "ant bee elk", length=length, before="<", after=">"))
    assert set(marked) <= wanted
    assert (len(set(marked)), len(marked)) >= best_window(text, matches, length)


@pytest.mark.parametrize(
    "options", [{"length": 0}, {"length": 1.5}, {"before": 3}, {"ellipsis": None}, {"html": "yes"}]
)
def test_options_that_cannot_be_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(vecdb.InvalidQuery, match="snippet"):
        SnippetOptions(**options)
