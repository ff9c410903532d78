"""`bench retrieval` on two collections that are made up: what it compares, and that it never learns from what it measures."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parent.parent

if not (ROOT / "bench" / "__main__.py").exists():
    pytest.skip("bench/ is not beside the tests: it is not part of the package", allow_module_level=True)


@pytest.fixture(autouse=True)
def _bench_is_importable() -> Iterator[None]:
    sys.path.append(str(ROOT))
    yield
    sys.path.remove(str(ROOT))


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """Three collections: twelve topics of three words each, of which a text has some; vectors are topics with noise."""
    from bench.retrieval import answers, run, sets, weakened

    def made(name: str) -> sets.Judged:
        rng = np.random.default_rng(len(name))
        topics = rng.integers(0, 12, 150)
        texts = [" ".join(f"w{t}{part}" for part in "abc" if rng.random() < 0.5) + f" w{t} is {name}" for t in topics]
        queries = {f"q{t}": f"what are w{t}a and w{t}b of w{t}c" for t in range(12)}
        ids = [f"d{place}" for place in range(150)]
        qrels = {f"q{t}": {ids[place]: 1 for place in np.flatnonzero(topics == t)} for t in range(12)}
        return sets.Judged(name, ids, texts, queries, qrels, checksum="0")

    def vectors(judged: sets.Judged) -> tuple[np.ndarray, np.ndarray]:  # type: ignore[type-arg]
        axes = np.random.default_rng(0).standard_normal((12, 32))
        noise = np.random.default_rng(1).standard_normal((162, 32))
        topics = [int(text.split()[-3][1:]) for text in judged.texts] + list(range(12))
        found = (axes[topics] + noise).astype(np.float32)
        return found[:150], found[150:]

    monkeypatch.setattr(sets, "CACHE", tmp_path / "cache")
    names = ("one", "three", "fourteen")
    for module in (sets, run):
        monkeypatch.setattr(module, "NAMES", names)
    monkeypatch.setattr(sets, "load", made)
    for module in (sets, weakened, answers):
        monkeypatch.setattr(module, "vectors_of", vectors)
    return list(names)


def test_every_way_is_measured_on_every_collection(names: list[str], tmp_path: Path) -> None:
    from bench.retrieval import run

    options = ["--sets", ",".join(names), "--no-vstash", "--no-candidates", "--no-latency"]
    assert run.main([*options, "--out", str(tmp_path)]) == 0
    (path,) = tmp_path.glob("retrieval-*.jsonl")
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    ways = {(line["set"], line["way"]): line["means"]["nDCG@10"] for line in lines if line["part"] == "set"}
    for name in names:
        of = {way: value for (found, way), value in ways.items() if found == name}
        assert {"dense", "bm25", "rrf", "adaptive", "adaptive, unfitted", "adaptive, labels", "oracle, scores"} <= set(
            of
        )
        assert all(0 < value <= 1 for value in of.values())
        assert of["oracle, scores"] + 1e-9 >= of["adaptive"] > 0.5
        assert of["oracle, rrf"] + 1e-9 >= of["rrf"]
    told = [line for line in lines if line["part"] == "answers"]
    assert {(line["set"], line["by"]) for line in told} == {
        (n, by) for n in names for by in ("cosine and words", "words")
    }
    assert all(0 <= line[measure] <= 1 for line in told for measure in ("auc", "ece", "answered", "refused"))
    assert run.main(["--show", str(path), "--out", str(tmp_path)]) == 0


def test_area_and_calibration_error_by_hand() -> None:
    from bench.retrieval.answers import area, calibration_error

    own, foreign = np.array([0.1, 0.2, 0.2]), np.array([0.2, 0.9])
    assert area(own, foreign) == pytest.approx((1 + 0.5 + 0.5 + 3) / 6)
    # bins: [0.1] has no foreign one, [0.2, 0.2, 0.2] a third, [0.9] one
    assert calibration_error(own, foreign) == pytest.approx((0.1 * 1 + (1 / 3 - 0.2) * 3 + 0.1 * 1) / 5)


def test_nothing_is_learned_from_a_collection_for_itself(names: list[str]) -> None:
    from bench.retrieval import sets, study

    lessons = [study.lesson_of(sets.lists_of(sets.load(name))) for name in names]
    one, other, _ = lessons
    alone = study.learned_elsewhere(one.lists, [other], [])
    pair = [one, other]
    assert study.learned_elsewhere(one.lists, pair, pair) == study.learned_elsewhere(one.lists, [other], [other])
    assert alone.lean != study.learned_elsewhere(other.lists, lessons, []).lean


def test_a_family_does_not_learn_from_itself() -> None:
    from bench.retrieval.sets import Lists

    lists = Lists("msmarco-dl19 (other lists)", "msmarco-dl19", 3, [], [])
    assert lists.family == {"msmarco-dl19", "msmarco-dl21"}
    assert Lists("time", "time", 3, [], []).family == {"time"}


def test_weakened_lists_are_of_the_same_questions(names: list[str]) -> None:
    from bench.retrieval import sets, study
    from bench.retrieval.weakened import weakened

    judged = sets.load("one")
    found = list(weakened(judged))
    assert len(found) == 4
    assert all([query.id for query in lists.queries] == list(judged.queries) for lists in found)
    whole = study.lesson_of(sets.lists_of(judged)).scores.mean(axis=0)
    poorer = [study.lesson_of(lists).scores.mean(axis=0) for lists in found]
    assert poorer[1][0] < whole[0]  # by eight dimensions
    assert poorer[2][-1] < whole[-1]  # by half of the words
    assert poorer[3][-1] < whole[-1]
