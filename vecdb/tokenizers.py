"""An FTS5 tokenizer in Python, for what SQLite's own cannot do: Snowball stems, and Chinese, Japanese and Korean in pairs.

    tokenize='vecdb german 1 0'      language, whether accents are folded, whether CJK is cut into pairs

It stands on SQLite's unicode61 (or porter) and changes what that gives. Every connection knows it by name, and PyStemmer is
loaded when a table is first used that needs it; without it such a table can be neither written nor searched by words, and all
else of the file works. Plain `sqlite3` reads such a file too, but for MATCH on its word index.

CJK (as Lucene's CJKAnalyzer does, but with single characters beside the pairs): a run c1 c2 c3 has three positions, holding c1
and c1c2, c2 and c2c3, c3. A query's run is cut into its pairs c1c2, c2c3 alone, or is the one character that it is. So a query
of one character finds it anywhere, and a phrase of pairs matches only the same run.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from math import log
from typing import Any

import apsw

from vecdb.errors import MissingExtra

Token = tuple[Any, ...]  # (start, end, term, *terms at the same position), offsets in bytes

# Han with its iteration mark, kana (also half-width), hangul; not their punctuation.
_RUN = re.compile(
    "[\u3005-\u3007\u3021-\u3029\u3031-\u3035\u3041-\u3096\u309d-\u309f\u30a1-\u30fa\u30fc-\u30ff\u3105-\u312f\u3131-\u318e"
    "\u31a0-\u31bf\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uff66-\uff9f\u1100-\u11ff\ua960-\ua97f\uac00-\ud7ff"
    "\U0001b000-\U0001b16f\U00020000-\U0003ffff]+"
)
_ACCENT = re.compile("(?<=[a-zα-ω])[\u0300-\u036f]+")  # of Latin and Greek letters, in canonical decomposition
# Vowel signs of Indian scripts and of Arabic are marks, which unicode61 by itself takes for the end of a word.
_WITH_MARKS = ("categories", "L* N* Co Mn Mc", "remove_diacritics", "0")
_MOST_KNOWN = 500_000  # stems remembered by one tokenizer: 60 MB at most


def register(db: apsw.Connection) -> None:
    """Make the tokenizer and the ranking function known to a connection. Raises what reading the file raises."""
    db.execute(
        "SELECT count(*) FROM sqlite_schema"
    ).fetchall()  # apsw takes any failure to read it for a SQLite without FTS5
    db.register_fts5_tokenizer("vecdb", _made)
    db.register_fts5_function("vecdb_bm25", _bm25)


@cache
def stemmer_version() -> str:
    """Package and version that stems come from. Raises MissingExtra."""
    return f"PyStemmer {_package().version()}"


def _package() -> Any:
    try:
        import Stemmer
    except ImportError as error:
        raise MissingExtra.of("PyStemmer", extra="text", what="word search in this language") from error
    return Stemmer


def _made(db: apsw.Connection, arguments: list[str]) -> Callable[[bytes, int, str | None], Iterable[Token]]:
    language, fold, cjk = arguments
    unicode61 = ["remove_diacritics", "2" if fold == "1" else "0"]
    if language in ("english", "none"):
        name, base = ("porter", ["unicode61", *unicode61]) if language == "english" else ("unicode61", unicode61)
        return _Cutter(db.fts5_tokenizer(name, base), None, pairs=cjk == "1")
    stem = _package().Stemmer(language).stemWord
    return _Cutter(db.fts5_tokenizer("unicode61", list(_WITH_MARKS)), _term_of(stem, fold == "1"), pairs=cjk == "1")


def _term_of(stem: Callable[[str], str], fold: bool) -> Callable[[str], str]:
    """Accents go before the stem is taken: then é finds e whatever the ending. In the other order they would be two stems where
    endings have accents: on XQuAD in German, Spanish, Romanian, Greek and Turkish that was better by at most 0.002 of RR@10, and
    worse by up to 0.016 once questions were typed without accents. Cyrillic is let alone: и and й are two letters.
    """

    def term(word: str) -> str:
        if not word.isascii():
            word = _ACCENT.sub("", unicodedata.normalize("NFD", word)) if fold else word
            word = unicodedata.normalize("NFC", word)
        return stem(word) or word

    return term


class _Cutter:
    """Cuts UTF-8 text into tokens. One connection's: SQLite never calls it from two threads at once."""

    def __init__(self, base: apsw.FTS5Tokenizer, term_of: Callable[[str], str] | None, *, pairs: bool) -> None:
        self._base = base
        self._term_of = term_of
        self._pairs = pairs
        self._known: dict[str, str] = {}

    def __call__(self, text: bytes, flags: int, locale: str | None) -> Iterable[Token]:
        tokens: list[Token] = self._base(text, flags, locale, include_colocated=False)  # type: ignore[assignment]
        if self._pairs and not text.isascii():
            return self._with_pairs(text, tokens, flags)
        return tokens if self._term_of is None else self._stemmed(tokens)

    def _stemmed(self, tokens: list[Token]) -> list[Token]:
        known = self._known
        for i, (start, end, word) in enumerate(tokens):
            term = known.get(word)
            tokens[i] = (start, end, self._learn(word) if term is None else term)
        return tokens

    def _learn(self, word: str) -> str:
        assert self._term_of is not None
        if len(self._known) >= _MOST_KNOWN:
            self._known.clear()
        term = self._known[word] = self._term_of(word)
        return term

    def _with_pairs(self, text: bytes, tokens: list[Token], flags: int) -> Iterator[Token]:
        is_query = bool(flags & apsw.FTS5_TOKENIZE_QUERY)
        for token in tokens:
            start, end, word = token
            if word.isascii() or not _RUN.search(word):
                yield from (token,) if self._term_of is None else self._stemmed([token])
                continue
            whole = text[start:end].decode()
            done = 0
            for run in (*_RUN.finditer(whole), None):
                until = len(whole) if run is None else run.start()
                if until > done:
                    yield from self._between(whole[done:until], start + len(whole[:done].encode()), flags)
                if run is not None:
                    yield from _pairs(run.group(), start + len(whole[: run.start()].encode()), is_query)
                    done = run.end()

    def _between(self, part: str, at: int, flags: int) -> Iterator[Token]:
        """The words of what stands between two runs, or before or after one."""
        tokens: list[Token] = self._base(part.encode(), flags, None, include_colocated=False)  # type: ignore[assignment]
        for start, end, term in tokens if self._term_of is None else self._stemmed(tokens):
            yield at + start, at + end, term


def _pairs(run: str, at: int, is_query: bool) -> Iterator[Token]:
    widths = [len(character.encode()) for character in run]
    last = len(run) - 1
    for i, character in enumerate(run):
        after = at + widths[i]
        if not is_query:
            yield (at, after, character, run[i : i + 2]) if i < last else (at, after, character)
        elif i < last:
            yield at, after + widths[i + 1], run[i : i + 2]
        elif not last:
            yield at, after, character
        at = after


def _bm25(api: apsw.FTS5ExtensionApi, *given: Any) -> float:
    """FTS5's bm25() with any k1 and b; negative, as FTS5 wants it. given: k1, b, and the weight of each column. Called for each
    row that matches.
    """
    k1, b, *weights = given
    if api.aux_data is None:
        api.aux_data = _idfs(api), api.column_total_size(-1) / max(api.row_count, 1) or 1.0
    idfs, mean_length = api.aux_data
    saturation = k1 * (1 - b + b * api.column_size(-1) / mean_length)
    score = 0.0
    for phrase, idf in enumerate(idfs):
        count = sum(
            weights[column] * len(api.phrase_column_offsets(phrase, column)) for column in api.phrase_columns(phrase)
        )
        if count:
            score += idf * count * (k1 + 1) / (count + saturation)
    return -score


def _idfs(api: apsw.FTS5ExtensionApi) -> list[float]:
    """Of each phrase of the query. The least is FTS5's own, for a phrase in more than half of the documents."""
    idfs = []
    for phrase in range(api.phrase_count):
        rows: list[int] = []
        api.query_phrase(phrase, lambda found, rows: rows.append(found.rowid), rows)
        idfs.append(max(1e-6, log((api.row_count - len(rows) + 0.5) / (len(rows) + 0.5))))
    return idfs
