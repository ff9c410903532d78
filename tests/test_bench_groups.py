"""The arithmetic of `python -m bench learned groups` and `near`, on sets made up for it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from bench.intervals import mean_interval
from bench.learned.group_sets import GroupedSet, sentences
from bench.learned.group_study import average_precision, recall
from bench.learned.group_ways import WAYS, Ranker


def made_up(own: int = -1) -> GroupedSet:
    """30 groups of 5 vectors that lie far from each other; the query is near those of group 4."""
    random = np.random.default_rng(0)
    centres = random.standard_normal((30, 5, 12)) * 3
    base = (centres + 0.1 * random.standard_normal(centres.shape)).reshape(-1, 12).astype(np.float32)
    query = (centres[4] + 0.1 * random.standard_normal((5, 12))).astype(np.float32)
    return GroupedSet("made up", base, np.repeat(np.arange(30), 5), [query], [frozenset({4})], [own])


@pytest.mark.parametrize("way", list(WAYS))
def test_every_way_finds_what_is_plain_and_leaves_out_what_is_no_answer(way: str) -> None:
    found = WAYS[way](Ranker(made_up(), votes=3), 0)
    assert found.groups[0] == 4
    assert found.work > 0
    assert 4 not in WAYS[way](Ranker(made_up(own=4), votes=3), 0).groups


def test_measures_by_hand() -> None:
    good = frozenset({7, 9})
    assert recall([1, 7, 2], good) == 0.5
    assert recall([9, 7], good) == 1.0
    assert average_precision([9, 1, 7], good) == pytest.approx((1 + 2 / 3) / 2)
    assert average_precision([1, 2], good) == 0
    mean, low, high = mean_interval(np.array([0.0, 1.0] * 50), 0)
    assert low < mean == 0.5 < high


def test_sentences_are_cut_at_their_ends_and_short_ones_joined() -> None:
    text = "The first of them is long enough. No. And so is the second one! What of the third one, then?"
    assert sentences(text) == [
        "The first of them is long enough. No.",
        "And so is the second one!",
        "What of the third one, then?",
    ]
    assert sentences("") == [""]


def test_near_is_measured_at_every_share(tmp_path: Path) -> None:
    from bench.data import data_folder
    from bench.near import SHARES, main

    if not (data_folder() / "vectors" / "sift-landmarks").exists():
        pytest.skip("the set sift-landmarks is not here")
    assert main(["--rows", "600", "--queries", "2", "--out", str(tmp_path)]) == 0
    (path,) = tmp_path.glob("near-*.jsonl")
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["share"] for line in lines] == [*SHARES, *SHARES]
    assert all(line["all_found"]["near"] == 1 for line in lines)
