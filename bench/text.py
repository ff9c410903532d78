"""`python -m bench text`: word search by language, how soon texts are loaded, and what its options cost.

Part "language": XQuAD, 240 paragraphs and 1,190 questions in each language, which are translations of each other; every question
must find its paragraph. Asked as they are, and once more without accents. Part "speed": the texts of the loading benchmark,
without vectors, one core: rows a second into a new file, seconds until the words are in memory, milliseconds a question.
"""

from __future__ import annotations

import argparse
import gzip
import json
import statistics
import sys
import tempfile
import time
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import vecdb
from bench.data import CORPORA, data_folder, load_texts
from bench.machine import describe_run, result_path, results_folder
from vecdb import TextConfig

LANGUAGES = {
    "en": "english", "de": "german", "es": "spanish", "ro": "romanian", "ru": "russian", "el": "greek", "tr": "turkish",
    "hi": "hindi", "ar": "arabic",
}  # fmt: skip
MEASURES = ("RR@10", "nDCG@10")


def main(arguments: Sequence[str]) -> int:
    given = _arguments(arguments)
    described = describe_run("text")
    lines: list[dict[str, Any]] = []
    if "language" in given.parts:
        lines += [{**described, "part": "language", **line} for line in _languages()]
    if "speed" in given.parts:
        lines += [{**described, "part": "speed", **line} for line in _speeds(given.data, given.rows, given.questions)]
    whole = len(given.parts) == 2 and given.rows is None and given.data == CORPORA[0]
    path = result_path(given.out or results_folder(whole=whole), "text")
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    _print(lines)
    print(f"results: {path}", file=sys.stderr)
    return 0


# -- languages


def _languages() -> list[dict[str, Any]]:
    folder = data_folder() / "text" / "xquad"
    if not folder.is_dir():
        print(f"no {folder}: languages are left out; name the data's folder in VECDB_DATA", file=sys.stderr)
        return []
    corpus, queries = (_read(folder / f"{name}.jsonl.gz") for name in ("corpus", "queries"))
    qrels: dict[str, dict[str, int]] = {}
    for line in (folder / "qrels" / "test.tsv").read_text().splitlines()[1:]:
        query, document, grade = line.split("\t")
        qrels.setdefault(query, {})[document] = int(grade)
    settings = [
        (short, text)
        for short, language in LANGUAGES.items()
        for text in (TextConfig("none"), TextConfig(language), TextConfig(language, fold_accents=False))
    ]
    settings += [("zh", text) for text in (TextConfig("none"), TextConfig("cjk"), TextConfig("none", cjk=True))]
    return [_quality(short, text, corpus, queries, qrels) for short, text in settings]


def _quality(
    short: str,
    text: TextConfig,
    corpus: Sequence[dict[str, str]],
    queries: Sequence[dict[str, str]],
    qrels: dict[str, dict[str, int]],
) -> dict[str, Any]:
    with vecdb.open(":memory:", background=False) as db:
        collection = db.collection("c", text=text)
        documents = [record for record in corpus if record["lang"] == short]
        collection.add(ids=[d["_id"] for d in documents], texts=[d["text"] for d in documents])
        collection.warm()
        asked = {query["_id"]: query["text"] for query in queries if query["lang"] == short}
        bare = {id: _without_accents(question) for id, question in asked.items()}
        found = {
            name: collection.evaluate(questions, qrels, modes=("text",), k=10, measures=MEASURES)["text"].means
            for name, questions in (("as they are", asked), ("without accents", bare))
        }
    setting = {"language": text.language, "cjk": text.cjk, "fold_accents": text.fold_accents}
    return {"data": {"name": "xquad", "language": short, "documents": len(documents), "questions": len(asked)},
            "text": setting, "found": found}  # fmt: skip


def _without_accents(text: str) -> str:
    return "".join(c for c in unicodedata.normalize("NFD", text) if not 0x300 <= ord(c) <= 0x36F)


def _read(path: Path) -> list[dict[str, str]]:
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


# -- speed

SETTINGS = {
    "english": TextConfig(),
    "none": TextConfig("none"),
    "english, pairs": TextConfig(cjk=True),
    "german": TextConfig("german"),
    "title and text": TextConfig(fields={"title": 2.0, "text": 1.0}),
    "k1 = 0.9, b = 0.4": TextConfig(k1=0.9, b=0.4),
}


def _speeds(data: str, rows: int | None, questions: int) -> list[dict[str, Any]]:
    texts, asked, checksum = load_texts(data)
    texts = texts[:rows]
    described = {"name": data, "checksum": checksum, "rows": len(texts)}
    return [
        {"data": described, "setting": name, **_speed(text, texts, asked[:questions])}
        for name, text in SETTINGS.items()
    ]


def _speed(text: TextConfig, texts: list[str], asked: list[str]) -> dict[str, Any]:
    titles = [{"title": " ".join(words.split()[:4])} for words in texts] if text.keys else [None] * len(texts)
    with tempfile.TemporaryDirectory(prefix="bench-text-") as folder:
        path = Path(folder) / "library.vecdb"
        with vecdb.open(path, background=False) as db:
            collection = db.collection("c", text=text)
            begun = time.perf_counter()
            collection.add(ids=[f"r{i}" for i in range(len(texts))], texts=texts, metadata=titles, batch_size=10_000)
            loading = time.perf_counter() - begun
        with vecdb.open(path, background=False) as db:
            collection = db.collection("c")
            begun = time.perf_counter()
            collection.search(asked[0])
            first = time.perf_counter() - begun
            begun = time.perf_counter()
            collection.warm()
            warming = time.perf_counter() - begun
            ways: dict[str, dict[str, Any]] = {
                "plain": {},
                "snippets": {"snippets": True},
                "synonyms": {"synonyms": {question.split()[0]: ["library", "a server"] for question in asked}},
                "fuzzy": {"fuzzy": True},
            }
            took = {name: _median_ms(collection, asked, options) for name, options in ways.items()}
            typed = [_misspelt(question) for question in asked]
            took["fuzzy, misspelt"] = _median_ms(collection, typed, {"fuzzy": True})
    return {"rows_per_s": len(texts) / loading, "first_ms": 1e3 * first, "warm_s": warming, "p50_ms": took}


def _median_ms(collection: vecdb.Collection, asked: Sequence[str], options: dict[str, Any]) -> float:
    times = []
    for question in asked:
        begun = time.perf_counter()
        collection.search(question, mode="text", **options)
        times.append(1e3 * (time.perf_counter() - begun))
    return statistics.median(times)


def _misspelt(question: str) -> str:
    """Its longest word with two letters swapped."""
    longest = max(question.split(), key=len)
    middle = len(longest) // 2
    swapped = longest[: middle - 1] + longest[middle] + longest[middle - 1] + longest[middle + 1 :]
    return question.replace(longest, swapped)


# -- showing


def _print(lines: Sequence[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(width=None if Console().is_terminal else 150)
    quality = [line for line in lines if line["part"] == "language"]
    if quality:
        table = Table(
            "language", "cut as", "accents", "RR@10", "nDCG@10", "RR@10 without accents", title="XQuAD by words"
        )
        for line in quality:
            text, found = line["text"], line["found"]
            cut = f"{text['language']}{', pairs' if text['cjk'] else ''}"
            figures = (*found["as they are"].values(), found["without accents"]["RR@10"])
            table.add_row(
                line["data"]["language"],
                cut,
                "folded" if text["fold_accents"] else "kept",
                *(f"{v:.4f}" for v in figures),
            )
        console.print(table)
    speed = [line for line in lines if line["part"] == "speed"]
    if speed:
        ways = list(speed[0]["p50_ms"])
        table = Table("texts", "rows/s in", "first answer ms", "warm s", *(f"{way} p50 ms" for way in ways))
        for line in speed:
            table.add_row(
                line["setting"], f"{line['rows_per_s']:,.0f}", f"{line['first_ms']:.1f}", f"{line['warm_s']:.2f}",
                *(f"{line['p50_ms'][way]:.2f}" for way in ways),
            )  # fmt: skip
        console.print(table)


def _arguments(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench text", description=__doc__.partition("\n\n")[0])
    parser.add_argument("--parts", nargs="+", choices=("language", "speed"), default=["language", "speed"])
    parser.add_argument("--data", choices=CORPORA, default=CORPORA[0])
    parser.add_argument("--rows", type=int, help="texts to load")
    parser.add_argument("--questions", type=int, default=300)
    parser.add_argument("--out", type=Path, help="where results go; default: bench/results if all is measured")
    return parser.parse_args(arguments)
