"""`bench codecs` on something small: its methods give back what they say, at the bytes that they say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bench.codecs import grouping, show, study, survey
from bench.codecs.study import Task
from vecdb.index.exact import exact_search


@pytest.fixture(scope="module")
def task() -> Task:
    random = np.random.default_rng(0)
    middles = random.standard_normal((20, 32))
    vectors = middles[random.integers(0, 20, 620)] + 0.4 * random.standard_normal((620, 32))
    unit = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    documents, queries = unit[:600], unit[600:]
    true = exact_search(documents, queries, study.K, "cosine").positions
    return Task("small", "cosine", documents, queries, [{int(rows[0]): 2, int(rows[3]): 1} for rows in true], true)


def test_a_study_has_a_line_for_each_codec_and_a_recheck_loses_little(task: Task, tmp_path: Path) -> None:
    lines = list(study.study(task, ["float32", "float8", "pca:8+int4", "rabitq:1"]))
    assert [line["codec"] for line in lines] == ["float32", "float8", "pca:8+int4", "rabitq:1"]
    assert lines[0]["recall"] == 1.0
    for line in lines:
        assert line["recall"] <= line["rechecked_recall"] + 0.05
        assert line["true_bytes"] == pytest.approx(line["bytes"] + line["overhead"] / 600)
    shares = show.mean_losses(lines)
    assert shares["float32"] == (1.0, 0.0, 0.0)
    assert show.draw(lines, tmp_path).stat().st_size > 1_000
    show.print_tables(lines)


def test_raw_unsigned_codes_are_worse_than_decoded_ones(task: Task) -> None:
    recalls = {line["codec"]: line["recall"] for line in study.published_int8(task)}
    assert recalls["int8 raw, own bounds"] < recalls["int8, decoded"]
    assert recalls["int8, decoded"] > 0.95


def test_methods_of_the_survey_keep_to_their_budget(task: Task) -> None:
    whole = task.documents.nbytes
    for name in ("svd", "svd by magnitude", "pruning", "tensor train"):
        for budget in (2, 4):
            made = survey.METHODS[name](task, budget)
            assert made is not None
            vectors, size = made
            assert vectors.shape == task.documents.shape
            assert size <= 1.15 * whole / budget, name
    vectors, size = survey.deduplication(task, 2) or (None, 0)
    assert size >= whole  # nothing here is there twice
    assert np.array_equal(vectors, task.documents)
    twice = Task("twice", "cosine", np.repeat(task.documents[:1], 3_000, axis=0), task.queries, None, task.true)
    assert (survey.deduplication(twice, 2) or (None, 0))[1] < twice.documents.nbytes / 2


def test_a_low_rank_at_full_rank_loses_nothing(task: Task) -> None:
    vectors, size = survey._low_rank(task.documents, 32)
    assert vectors == pytest.approx(task.documents, abs=1e-5)
    assert size == 4 * 32 * (600 + 32)


def test_grouping_is_compared_at_equal_bytes() -> None:
    random = np.random.default_rng(1)
    vectors = random.standard_normal((900, 32)) * np.exp(random.normal(0, 1.0, (900, 1)))
    lines = list(grouping._compared("small", vectors.astype(np.float32), (4, 3), 1.0))
    assert [(line["metric"], line["codec"], line["bytes"]) for line in lines] == [
        (metric, codec, 4) for metric in ("l2", "ip") for codec in ("pq:4", "mpq:3")
    ]
    assert all(0 < line["energy_lost"] < 1 and 0 < line["recall"] <= 1 for line in lines)
