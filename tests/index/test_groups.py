"""Ranking groups of vectors: every way against the twin that measures everything one by one."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vecdb.errors import InvalidInput, InvalidQuery
from vecdb.index import ExactIndex
from vecdb.index.groups import (
    Grids,
    Grouped,
    GroupKernel,
    RankedGroups,
    exact_groups,
    gridded_groups,
    measured_reach,
    nearest_by,
    probed_groups,
)
from vecdb.index.groups.exact import ranked_pairs


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


def ranked_by(
    way: str, vectors: np.ndarray, groups: np.ndarray, queries: np.ndarray, k: int, kernel: GroupKernel
) -> RankedGroups:
    if way == "exact":
        return exact_groups(Grouped.of(vectors, groups), queries, k, kernel)
    if way == "index":
        return probed_groups(nearest_by(ExactIndex.over(vectors, "l2")), vectors, groups, queries, k, kernel)
    return gridded_groups(Grids.of(Grouped.of(vectors, groups)), vectors, groups, queries, k, kernel)


@pytest.mark.parametrize("metric", ["l2", "cosine"])
def test_an_index_finds_what_all_distances_say(metric: str) -> None:
    vectors, groups, queries = clustered(30, 6, 8, 1)
    if metric == "cosine":
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        queries /= np.linalg.norm(queries, axis=1, keepdims=True)
    kernel = GroupKernel(measured_reach(Grouped.of(vectors, groups)))
    exact = exact_groups(Grouped.of(vectors, groups), queries, 5, kernel)
    search = nearest_by(ExactIndex.over(vectors, metric))
    found = probed_groups(search, vectors, groups, queries, 5, kernel, distinct=30)
    assert found.keys.tolist() == exact.keys.tolist()
    assert found.scores == pytest.approx(exact.scores, abs=1e-3)
    assert np.array_equal(found.nearest, exact.nearest)
    assert found.distances == pytest.approx(exact.distances, abs=1e-3)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 30), st.integers(1, 4), st.integers(0, 9))
def test_known_pairs_are_scored_as_the_twin_scores_all(count: int, asked: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    vectors = random.standard_normal((count, 3)).astype(np.float32)
    groups = random.integers(-1, 5, count)
    queries = random.standard_normal((asked, 3)).astype(np.float32)
    kernel = GroupKernel(1.5)
    line, place = (part.ravel() for part in np.meshgrid(np.arange(asked), np.arange(count), indexing="ij"))
    order = random.permutation(len(line))
    line, place = np.repeat(line[order], 2), np.repeat(place[order], 2)  # in any order, and more than once
    away = np.linalg.norm(vectors[place].astype(np.float64) - queries[line], axis=1)
    found = ranked_pairs(line, groups[place], away, place, asked, kernel)
    expected = twin(vectors, groups, queries, 99, kernel)
    assert list(zip(found.keys.tolist(), found.scores.tolist())) == [(g, pytest.approx(s)) for g, s in expected]


@pytest.mark.parametrize("way", ["exact", "index", "grids"])
def test_a_crowded_group_does_not_hide_the_others(way: str) -> None:
    """5,000 near copies of a vector beside the queries, as far as the right group's: the nearest 100 are all of them."""
    vectors, groups, queries = clustered(20, 6, 8, 2)
    crowd = queries[0] + 0.05 * np.random.default_rng(0).standard_normal((5_000, 8)).astype(np.float32)
    vectors, groups = np.concatenate([vectors, crowd]), np.concatenate([groups, np.full(5_000, 99)])
    nearest = ExactIndex.over(vectors, "l2").search(queries[:1], 100).positions[0]
    assert set(groups[nearest].tolist()) == {99}
    assert ranked_by(way, vectors, groups, queries, 3, GroupKernel(2.0)).keys[0] == 0


def test_a_crowd_in_one_cell_does_not_fill_what_a_query_may_meet() -> None:
    """Copies of the query itself: they share its cell in every grid, and are more than it may meet."""
    vectors, groups, queries = clustered(60, 6, 8, 2)
    vectors = np.concatenate([vectors, np.repeat(queries[:1], 5_000, axis=0)])
    groups = np.append(groups, np.full(5_000, 99))
    kernel = GroupKernel(12.0)
    best = exact_groups(Grouped.of(vectors, groups), queries[:1], 10, kernel).keys
    found = ranked_by("grids", vectors, groups, queries[:1], 10, kernel)
    assert len(np.intersect1d(found.keys, best)) >= 7
    assert found.work < len(vectors) // 10


def test_grids_find_most_of_the_best_with_few_distances() -> None:
    vectors, groups, _ = clustered(400, 5, 16, 3)
    random = np.random.default_rng(4)
    grouped = Grouped.of(vectors, groups)
    grids, kernel = Grids.of(grouped), GroupKernel(measured_reach(grouped))
    hits, work = [], []
    for group in range(0, 400, 20):
        near = vectors[groups == group]
        queries = (near + 0.3 * random.standard_normal(near.shape)).astype(np.float32)
        found = gridded_groups(grids, vectors, groups, queries, 5, kernel)
        hits.append(found.keys[:1].tolist() == exact_groups(grouped, queries, 1, kernel).keys.tolist())
        work.append(found.work / (len(queries) * len(vectors)))
    assert np.mean(hits) >= 0.95
    assert np.mean(work) < 0.1


def test_what_meets_shares_a_cell() -> None:
    """The compiled loop against cells compared one by one, with and without an end after the finest radius."""
    from vecdb.index.groups.grids import cells_of

    vectors, groups, queries = clustered(40, 5, 6, 7)
    grids = Grids.of(Grouped.of(vectors, groups), grids=4, radii=3)
    for most in (1, 10**9):
        asked, positions, read = grids.met(queries, groups, most, 10**9)
        expected, entries = set(), 0
        for number, query in enumerate(queries):
            mine: set[int] = set()
            for table in range(len(grids.widths)):
                if len(mine) >= most:
                    break
                settings_of = grids.turns[table], grids.widths[table], grids.shifts[table]
                cells = cells_of(vectors[grids.positions] @ grids.basis, *settings_of)
                shared = np.flatnonzero(cells == cells_of(query[None] @ grids.basis, *settings_of)[0])
                entries += len(shared)
                mine |= set(grids.positions[shared].tolist())
            expected |= {(number, position) for position in mine}
        assert len(asked) == len(expected)
        assert set(zip(asked.tolist(), positions.tolist())) == expected
        assert read == entries


def test_of_a_group_no_more_are_met_than_may_be() -> None:
    vectors, groups, queries = clustered(40, 5, 6, 7)
    grids = Grids.of(Grouped.of(vectors, groups), grids=4, radii=3)
    groups = np.where(groups == 1, -1, groups)  # one that is passed over
    asked, positions, _ = grids.met(queries, groups, 10**9, 10**9)
    few = grids.met(queries, groups, 10**9, 2)
    of_all, of_few = groups[positions], groups[few[1]]
    assert of_all.min() >= 0
    assert set(zip(few[0], few[1])) <= set(zip(asked, positions))
    for number in range(len(queries)):
        counts = np.bincount(of_all[asked == number], minlength=40)
        assert np.array_equal(np.bincount(of_few[few[0] == number], minlength=40), np.minimum(counts, 2))


def test_positions_that_moved_or_went_are_followed() -> None:
    vectors, groups, queries = clustered(40, 5, 6, 8)
    kernel = GroupKernel(1.5)
    grids = Grids.of(Grouped.of(vectors, groups))
    before = gridded_groups(grids, vectors, groups, queries, 3, kernel)
    kept = np.flatnonzero(np.arange(len(vectors)) % 5 != 1)
    where = np.full(len(vectors), -1)
    where[kept] = np.arange(len(kept))
    after = gridded_groups(grids.moved(where), vectors[kept], groups[kept], queries, 3, kernel)
    assert after.keys[0] == before.keys[0] == 0
    assert set(groups[kept][after.nearest[0][after.nearest[0] >= 0]].tolist()) == {0}
    besides = np.array([len(vectors)])
    more, owner = np.concatenate([vectors, queries[:1]]), np.append(groups, 77)
    found = gridded_groups(grids, more, owner, queries, 3, kernel, besides=besides)
    assert found.scores[found.keys.tolist().index(77)] >= 1 / len(queries)


def test_grids_depend_on_their_seed_only() -> None:
    vectors, groups, queries = clustered(20, 5, 6, 6)
    kernel = GroupKernel(1.5)
    made = [Grids.of(Grouped.of(vectors, groups), seed=3) for _ in range(2)]
    one, two = (gridded_groups(grids, vectors, groups, queries, 5, kernel) for grids in made)
    assert np.array_equal(one.keys, two.keys)
    assert np.array_equal(one.scores, two.scores)


def test_the_reach_is_the_same_for_the_same_vectors() -> None:
    vectors, groups, _ = clustered(60, 5, 6, 9)
    reach = measured_reach(Grouped.of(vectors, groups))
    assert reach == measured_reach(Grouped.of(vectors.copy(), groups * 3))
    assert measured_reach(Grouped.of(vectors * 2, groups)) == pytest.approx(2 * reach, rel=1e-5)
    assert measured_reach(Grouped.of(vectors, groups * 0)) == 1.0


@pytest.mark.parametrize("count", [0, 1, 2])
@pytest.mark.parametrize("way", ["exact", "index", "grids"])
def test_few_vectors_and_one_group(count: int, way: str) -> None:
    vectors, groups = np.ones((count, 3), np.float32), np.zeros(count, np.int64)
    found = ranked_by(way, vectors, groups, np.ones((1, 3), np.float32), 3, GroupKernel(1.0))
    assert found.keys.tolist() == [0] * min(count, 1)
    assert ranked_by(way, vectors, groups, np.ones((0, 3), np.float32), 3, GroupKernel(1.0)).keys.tolist() == []


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
