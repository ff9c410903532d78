"""The demonstration, on a handful of texts and a toy model."""

from __future__ import annotations

from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console
from word_embedder import WordEmbedder

import vecdb
from vecdb import demo
from vecdb.judged import JudgedCollection

ANIMALS = ("bee", "whale", "fox", "owl", "toad", "hare", "pike", "crow", "lynx", "moth")


@pytest.fixture
def judged() -> JudgedCollection:
    corpus = [
        {"_id": f"d{n}", "title": f"On the {animal}", "text": f"What the {animal} eats and where the {animal} sleeps."}
        for n, animal in enumerate(ANIMALS)
    ]
    queries = {f"q{n}": f"where does the {animal} sleep" for n, animal in enumerate(ANIMALS)}
    return JudgedCollection("animals", corpus, queries, {f"q{n}": {f"d{n}": 1} for n in range(len(ANIMALS))})


def run(path: Path, judged: JudgedCollection, embedder: WordEmbedder) -> str:
    output = StringIO()
    demo.run(path, console=Console(file=output, width=100), judged=judged, embed=embedder)
    return output.getvalue()


def test_the_demonstration_loads_searches_and_measures(path: Path, judged: JudgedCollection) -> None:
    shown = run(path, judged, WordEmbedder(dimension=64))
    for expected in (
        "10 abstracts",
        "by meaning",
        "by words",
        "by both",
        "nDCG@10",
        "recall@100",
        "is refused",
        "a second",
    ):
        assert expected in shown
    for query in demo.QUERIES:
        assert f"“{query}”" in shown


def test_the_second_run_embeds_no_document_again(path: Path, judged: JudgedCollection) -> None:
    run(path, judged, WordEmbedder(dimension=64))
    with vecdb.open(path) as db:
        db.collection("papers").delete(["d3", "d7"])
    embedder = WordEmbedder(dimension=64)
    shown = run(path, judged, embedder)
    assert "2 abstracts in" in shown
    assert embedder.calls == 2
    assert "all 10 abstracts are there from an earlier run" in run(path, judged, embedder)
