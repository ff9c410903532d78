"""Exact search against loops over single distances, on shapes and values that trip matrix products."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from naive_index import nearest
from numpy.typing import NDArray

from vecdb.errors import DimensionMismatch, InvalidInput, InvalidQuery
from vecdb.index import exact
from vecdb.index.base import METRICS
from vecdb.index.exact import ExactIndex, exact_search

Floats = NDArray[np.float32]


def some_vectors(count: int, dimension: int, metric: str, seed: int = 3) -> Floats:
    """Gaussian, every fourth a copy of the first; unit length under cosine."""
    vectors = np.random.default_rng(seed).standard_normal((count, dimension)).astype(np.float32)
    vectors[::4] = vectors[:1]
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True) if metric == "cosine" else vectors


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("dimension", [1, 3, 123])
@pytest.mark.parametrize("share", [None, 0.0, 0.1, 0.9])
def test_answers_equal_those_of_single_distances(metric: str, dimension: int, share: float | None) -> None:
    vectors = some_vectors(40, dimension, metric)
    allowed = None if share is None else np.arange(40) < 40 * share
    rows = range(40) if allowed is None else np.flatnonzero(allowed).tolist()
    for k in (1, 7, 50):
        answer = exact_search(vectors, vectors[:6], k, metric, allowed)
        for i, query in enumerate(vectors[:6]):
            want = nearest(vectors, query, k, metric, rows)
            assert answer.positions[i, : len(want)].tolist() == [row for _, row in want]
            np.testing.assert_allclose(answer.distances[i, : len(want)], [away for away, _ in want], rtol=1e-6)
            assert (answer.positions[i, len(want) :] == -1).all()
            assert np.isinf(answer.distances[i, len(want) :]).all()
        assert (answer.work == len(rows)).all()


def test_vectors_far_from_the_origin_are_told_apart() -> None:
    """Squared distances by |a|² - 2ab + |b|² have no correct digit here: the float32 error is 100 times the distances."""
    offsets = np.random.default_rng(1).permutation(200).astype(np.float32)
    vectors = np.full((200, 64), 5000.0, np.float32)
    vectors[:, 0] += offsets / 8
    answer = exact_search(vectors, vectors[:50], 3, "l2")
    for i in range(50):
        assert answer.positions[i].tolist() == [row for _, row in nearest(vectors, vectors[i], 3, "l2", range(200))]


def test_equal_vectors_come_by_position_and_equally_far() -> None:
    vectors = some_vectors(1003, 37, "cosine")
    answer = exact_search(vectors, vectors[:3], 100, "cosine")
    assert answer.positions[0].tolist() == list(range(0, 400, 4))
    assert len(set(answer.distances[0].tolist())) == 1


def test_one_query_gets_the_same_answer_alone_as_in_a_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors = some_vectors(500, 24, "ip")
    allowed = np.random.default_rng(2).random(500) < 0.2
    together = exact_search(vectors, vectors[:40], 10, "ip", allowed)
    monkeypatch.setattr(exact, "_SCORES_AT_ONCE", 700)  # several blocks of queries, and of gathered rows
    monkeypatch.setattr(exact, "_NUMBERS_AT_ONCE", 24 * 13)
    apart = exact_search(vectors, vectors[:40], 10, "ip", allowed)
    assert np.array_equal(together.positions, apart.positions)
    assert np.array_equal(together.distances, apart.distances)


def test_a_read_only_memory_map_is_searched_in_place(tmp_path: Path) -> None:
    vectors = some_vectors(300, 16, "l2")
    np.save(tmp_path / "vectors.npy", vectors)
    mapped = np.load(tmp_path / "vectors.npy", mmap_mode="r")
    index = ExactIndex.over(mapped, "l2")
    assert np.shares_memory(index.vectors, mapped)
    assert np.array_equal(index.search(vectors[:5], 4).positions, exact_search(vectors, vectors[:5], 4, "l2").positions)


@pytest.mark.parametrize("metric", METRICS)
def test_adding_removing_and_compacting_change_the_answers_accordingly(metric: str) -> None:
    vectors = some_vectors(60, 8, metric)
    index = ExactIndex(8, metric)
    for start in range(0, 60, 7):
        index.add(vectors[start : start + 7])
    twin = index.copy()
    index.remove(np.array([0, 4, 59]))
    index.remove(np.array([4]))
    rest = [row for row in range(60) if row not in (0, 4, 59)]
    want = [row for _, row in nearest(vectors, vectors[0], 5, metric, rest)]
    assert index.search(vectors[:1], 5).positions[0].tolist() == want
    kept = index.compact()
    assert kept.tolist() == rest
    assert kept[index.search(vectors[:1], 5).positions[0]].tolist() == want
    assert len(index) == 57
    assert len(twin) == 60
    assert twin.live.all()
    assert index.check() == []


def test_a_copy_and_its_original_do_not_write_into_each_other() -> None:
    index = ExactIndex(2, "l2")
    index.add(np.zeros((3, 2), np.float32))
    index.add(np.ones((1, 2), np.float32))  # leaves room at the end of the buffer
    twin = index.copy()
    twin.add(np.full((1, 2), 5, np.float32))
    index.add(np.full((1, 2), 9, np.float32))
    assert twin.vectors[4].tolist() == [5, 5]
    assert index.vectors[4].tolist() == [9, 9]


def test_an_empty_index_answers_with_nothing() -> None:
    answer = ExactIndex(3).search(np.ones((2, 3), np.float32), 4)
    assert (answer.positions == -1).all()
    assert np.isinf(answer.distances).all()


def test_wrong_arguments_are_refused_by_name() -> None:
    index = ExactIndex.over(np.zeros((4, 3), np.float32), "l2")
    with pytest.raises(DimensionMismatch, match=r"5 numbers.*of 3"):
        index.search(np.zeros((1, 5), np.float32), 1)
    with pytest.raises(InvalidQuery, match="k is 0"):
        index.search(np.zeros((1, 3), np.float32), 0)
    with pytest.raises(InvalidInput, match="bool of shape"):
        index.search(np.zeros((1, 3), np.float32), 1, allowed=np.ones(3, np.bool_))
    with pytest.raises(InvalidInput, match="position 4 does not exist"):
        index.remove(np.array([4]))
    with pytest.raises(InvalidInput, match="metric is 'manhattan'"):
        ExactIndex(3, "manhattan")
