"""Ranking groups of vectors: every way against the twin that measures everything one by one."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vecdb.errors import InvalidInput, InvalidQuery
from vecdb.index import ExactIndex
from vecdb.index.groups import Grids, Grouped, GroupKernel, exact_groups, measured_reach, probed_groups


def twin(
    vectors: np.ndarray, groups: np.ndarray, queries: np.ndarray, k: int, kernel: GroupKernel
) -> list[tuple[int, float]]:
    """(group, score), best first, by a loop anyone can check."""
    a = kernel.shape / (1 - kernel.shape)
    scores = []
    for group in sorted(set(groups[groups >= 0].tolist())):
        total = 0.0
        for query in queries:
            away = min(float(np.linalg.norm(v.astype(np.float64) - query)) for v in vectors[groups == group])
            if away < kernel.reach:
                total += (1 - (away / kernel.reach) ** a) ** (1 / a)
        if len(queries) and total > 0:
            scores.append((group, total / len(queries)))
    return sorted(scores, key=lambda pair: (-pair[1], pair[0]))[:k]


def clustered(groups: int, each: int, dimension: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Vectors, their groups, and query vectors near those of group 0; the vectors of a group lie far from each other."""
    random = np.random.default_rng(seed)
    centres = random.standard_normal((groups, each, dimension)) * 3
    vectors = (centres + 0.3 * random.standard_normal(centres.shape)).reshape(-1, dimension).astype(np.float32)
    queries = (centres[0] + 0.3 * random.standard_normal((each, dimension))).astype(np.float32)
    return vectors, np.repeat(np.arange(groups), each), queries


@pytest.mark.parametrize(
    ("shape", "distance", "score"), [(0.4592, 0.0, 1.0), (0.4592, 120.0, 0.0), (0.5, 30.0, 0.75), (0.4592, 500.0, 0.0)]
)
def test_the_kernel_at_known_places(shape: float, distance: float, score: float) -> None:
    assert GroupKernel(120.0, shape)(np.array(distance)) == pytest.approx(score)


def test_the_kernel_is_the_released_one() -> None:
    """a = 0.849: 0.55 at a third and 0.23 at two thirds of the reach, as the paper's page has it."""
    kernel = GroupKernel(1.0)
    assert kernel(np.array([0.33, 0.67])) == pytest.approx([0.55, 0.23], abs=0.01)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 40), st.integers(1, 5), st.integers(0, 4), st.integers(1, 6), st.integers(0, 9))
def test_exact_scores_are_the_twins(count: int, dimension: int, asked: int, k: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    vectors = random.standard_normal((count, dimension)).astype(np.float32)
    groups = random.integers(-1, 6, count) * 7
    groups[groups < 0] = -1
    queries = random.standard_normal((asked, dimension)).astype(np.float32)
    kernel = GroupKernel(1.3)
    found = exact_groups(Grouped.of(vectors, groups), queries, k, kernel)
    expected = twin(vectors, groups, queries, k, kernel)
    assert found.scores == pytest.approx([score for _, score in expected], abs=1e-3)
    known = dict(twin(vectors, groups, queries, 99, kernel))
    for key, score, nearest in zip(found.keys.tolist(), found.scores, found.nearest):
        assert known[key] == pytest.approx(score, abs=1e-3)
        for row, query in zip(nearest.tolist(), queries):
            mine = np.flatnonzero(groups == key)
            away = np.linalg.norm(vectors[mine] - query, axis=1)
            assert (row == -1) == bool(away.min() >= kernel.reach) or abs(away.min() - kernel.reach) < 1e-3
            if row >= 0:
                assert groups[row] == key
                assert np.linalg.norm(vectors[row] - query) == pytest.approx(away.min(), abs=1e-3)


@pytest.mark.parametrize("metric", ["l2", "cosine"])
def test_an_index_finds_what_all_distances_say(metric: str) -> None:
    vectors, groups, queries = clustered(30, 6, 8, 1)
    if metric == "cosine":
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        queries /= np.linalg.norm(queries, axis=1, keepdims=True)
    kernel = GroupKernel(measured_reach(Grouped.of(vectors, groups)))
    exact = exact_groups(Grouped.of(vectors, groups), queries, 5, kernel)
    found = probed_groups(ExactIndex.over(vectors, metric), groups, queries, 5, kernel, distinct=30)
    assert found.keys.tolist() == exact.keys.tolist()
    assert found.scores == pytest.approx(exact.scores, abs=1e-3)
    assert np.array_equal(found.nearest, exact.nearest)


@pytest.mark.parametrize("way", ["exact", "index", "grids"])
def test_a_crowded_group_does_not_hide_the_others(way: str) -> None:
    """5,000 near copies of a vector beside the queries, as far as the right group's: the nearest 100 are all of them."""
    vectors, groups, queries = clustered(20, 6, 8, 2)
    crowd = queries[0] + 0.05 * np.random.default_rng(0).standard_normal((5_000, 8)).astype(np.float32)
    vectors, groups = np.concatenate([vectors, crowd]), np.concatenate([groups, np.full(5_000, 99)])
    nearest = ExactIndex.over(vectors, "l2").search(queries[:1], 100).positions[0]
    assert set(groups[nearest].tolist()) == {99}
    kernel = GroupKernel(2.0)
    if way == "exact":
        found = exact_groups(Grouped.of(vectors, groups), queries, 3, kernel)
    elif way == "index":
        found = probed_groups(ExactIndex.over(vectors, "l2"), groups, queries, 3, kernel)
    else:
        found = Grids.of(Grouped.of(vectors, groups), kernel).search(queries, 3)
    assert found.keys[0] == 0


def test_grids_find_most_of_the_best_with_few_distances() -> None:
    vectors, groups, _ = clustered(400, 5, 16, 3)
    random = np.random.default_rng(4)
    grouped = Grouped.of(vectors, groups)
    grids = Grids.of(grouped)
    hits, work = [], []
    for group in range(0, 400, 20):
        near = vectors[groups == group]
        queries = (near + 0.3 * random.standard_normal(near.shape)).astype(np.float32)
        found = grids.search(queries, 5)
        hits.append(found.keys[:1].tolist() == exact_groups(grouped, queries, 1, grids.kernel).keys.tolist())
        work.append(found.work / (len(queries) * len(vectors)))
    assert np.mean(hits) >= 0.95
    assert np.mean(work) < 0.1


def test_grids_alone_compute_no_distance() -> None:
    vectors, groups, queries = clustered(50, 5, 16, 5)
    found = Grids.of(Grouped.of(vectors, groups)).search(queries, 3, recheck=0)
    assert found.keys[0] == 0
    assert (found.work, found.nearest.max()) == (0, -1)
    assert found.touched > 0


def test_grids_depend_on_their_seed_only() -> None:
    vectors, groups, queries = clustered(20, 5, 6, 6)
    one, two = (Grids.of(Grouped.of(vectors, groups), seed=3).search(queries, 5) for _ in range(2))
    assert np.array_equal(one.keys, two.keys)
    assert np.array_equal(one.scores, two.scores)


@pytest.mark.parametrize("count", [0, 1, 2])
def test_few_vectors_and_one_group(count: int) -> None:
    vectors = np.ones((count, 3), np.float32)
    grouped = Grouped.of(vectors, np.zeros(count, np.int64))
    for found in (
        exact_groups(grouped, vectors[:1], 3, GroupKernel(1.0)),
        Grids.of(grouped).search(vectors[:1], 3),
        probed_groups(ExactIndex.over(vectors, "l2"), np.zeros(count, np.int64), vectors[:1], 3, GroupKernel(1.0)),
    ):
        assert found.keys.tolist() == [0] * min(count, 1)


def test_what_makes_no_sense_is_refused() -> None:
    with pytest.raises(InvalidInput, match="reach"):
        GroupKernel(0.0)
    with pytest.raises(InvalidInput, match="shape"):
        GroupKernel(1.0, 0.7)
    with pytest.raises(InvalidInput, match="whole number"):
        Grouped.of(np.ones((3, 2), np.float32), np.ones(2, np.int64))
    grouped = Grouped.of(np.ones((3, 2), np.float32), np.arange(3))
    with pytest.raises(InvalidQuery, match="k is 0"):
        exact_groups(grouped, np.ones((1, 2), np.float32), 0, GroupKernel(1.0))
