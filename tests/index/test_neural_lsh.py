"""The learned partition: its parts against slow twins, the index by its contract and on real embeddings."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from index_measures import recall

from tests.index.conftest import RealVectors
from vecdb.errors import CorruptIndex, InvalidInput, InvalidQuery
from vecdb.index import ExactIndex, exact_search, open_index
from vecdb.index.base import NeuralLshConfig
from vecdb.index.neural_lsh import NeuralLshIndex
from vecdb.index.neural_lsh.bins import Bins, balanced, bins_of, coded
from vecdb.index.neural_lsh.calibration import DEPTHS, TARGETS, calibrate
from vecdb.index.neural_lsh.index import nearest_of
from vecdb.index.neural_lsh.learning import learn
from vecdb.index.neural_lsh.network import Network, log_softmax
from vecdb.index.neural_lsh.partition import SLACK, cut_share, edges_of, partition

pytest.importorskip("torch")

SMALL = NeuralLshConfig(bins=24, hidden=64, layers=1, soft_k=20, epochs=15)


@pytest.fixture(scope="module")
def index(real: RealVectors) -> NeuralLshIndex:
    return NeuralLshIndex.build(real.base, "cosine", SMALL)


@pytest.fixture
def points(rng: np.random.Generator) -> np.ndarray:
    """300 points around 6 centres."""
    centres = rng.standard_normal((6, 10)) * 4
    return (centres[rng.integers(0, 6, 300)] + rng.standard_normal((300, 10))).astype(np.float32)


# -- the partition


def test_edges_are_weighed_by_both_ends() -> None:
    nearest = np.array([[1, 2], [0, -1], [1, -1]], np.int32)
    starts, neighbours, weights = edges_of(nearest)
    found = {
        (i, int(neighbours[e])): float(weights[e]) for i in range(3) for e in range(int(starts[i]), int(starts[i + 1]))
    }
    assert found == {(0, 1): 2.0, (1, 0): 2.0, (0, 2): 1.0, (2, 0): 1.0, (1, 2): 1.0, (2, 1): 1.0}


@settings(max_examples=25, deadline=None)
@given(st.integers(2, 60), st.integers(1, 9), st.integers(0, 5), st.booleans())
def test_no_bin_is_fuller_than_it_may_be(count: int, bins: int, seed: int, copies: bool) -> None:
    bins = min(bins, count)
    points = np.random.default_rng(seed).standard_normal((count, 3)).astype(np.float32)
    if copies:
        points[:] = points[0]
    nearest = nearest_of(points, "l2", 4) if count > 4 else np.full((count, 4), -1, np.int32)
    labels = partition(points, nearest, bins, seed)
    sizes = np.bincount(labels, minlength=bins)
    assert labels.min() >= 0
    assert sizes.max() <= np.ceil(SLACK * count / bins)


def test_propagation_lowers_the_cut(points: np.ndarray) -> None:
    nearest = nearest_of(points, "l2", 8)
    before = cut_share(nearest, partition(points, nearest, 12, 0, balanced_only=True))
    after = cut_share(nearest, partition(points, nearest, 12, 0))
    assert after < before
    random = np.random.default_rng(0).integers(0, 12, len(points)).astype(np.int32)
    assert after < 0.7 * cut_share(nearest, random)


def test_a_partition_depends_on_its_seed_only(points: np.ndarray) -> None:
    nearest = nearest_of(points, "l2", 8)
    assert np.array_equal(partition(points, nearest, 12, 3), partition(points, nearest, 12, 3))


def test_the_nearest_of_copies_are_others() -> None:
    copies = np.ones((30, 4), np.float32)
    nearest = nearest_of(copies, "l2", 5)
    assert nearest.shape == (30, 5)
    assert ((nearest >= 0) & (nearest < 30)).all()


# -- the network


def test_the_exported_network_is_the_learned_one(points: np.ndarray) -> None:
    """Training accuracy of the folded arrays: what batch norms and standardisation did must have gone into the layers."""
    nearest = nearest_of(points, "l2", 8)
    labels = partition(points, nearest, 6, 0)
    network = learn(points, labels, nearest, 6, NeuralLshConfig(bins=6, hidden=32, layers=2, soft_k=4, epochs=30))
    assert np.mean(bins_of(network, points) == labels) > 0.85
    again = Network.from_arrays(network.as_arrays())
    assert np.array_equal(again.logits(points), network.logits(points))


def test_learning_is_reproducible_and_leaves_the_random_state_alone(points: np.ndarray) -> None:
    import torch

    nearest = nearest_of(points, "l2", 8)
    labels = partition(points, nearest, 6, 0)
    config = NeuralLshConfig(bins=6, hidden=16, layers=1, soft_k=4, epochs=2)
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    first = learn(points, labels, nearest, 6, config, threads=1)
    assert torch.equal(torch.rand(3), expected)
    second = learn(points, labels, nearest, 6, config, threads=1)
    assert np.array_equal(first.logits(points), second.logits(points))


def test_log_softmax_sums_to_one(rng: np.random.Generator) -> None:
    logits = (rng.standard_normal((5, 7)) * 50).astype(np.float32)
    assert np.allclose(np.exp(log_softmax(logits)).sum(axis=1), 1.0, atol=1e-5)


def test_balancing_empties_full_bins(rng: np.random.Generator) -> None:
    points = rng.standard_normal((2_000, 4)).astype(np.float32)
    weights = rng.standard_normal((4, 10)).astype(np.float32)
    crooked = Network([weights], [np.array([3.0] + [0.0] * 9, np.float32)])
    before = np.bincount(bins_of(crooked, points), minlength=10)
    after = np.bincount(bins_of(balanced(crooked, points), points), minlength=10)
    assert before.max() > 2.5 * before.mean()
    assert after.max() < 2 * after.mean()


# -- the scan


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from(["l2", "cosine", "ip"]),
    st.integers(1, 80),
    st.integers(1, 70),
    st.integers(1, 12),
    st.integers(1, 6),
    st.integers(0, 9),
    st.booleans(),
)
def test_a_scan_finds_what_its_twin_finds(
    metric: str, count: int, dimension: int, k: int, probes: int, seed: int, filtered: bool
) -> None:
    """The twin: exact search among the rows of the likeliest bins. Codes order what is scanned, so near ties may differ."""
    random = np.random.default_rng(seed)
    vectors = random.standard_normal((count, dimension)).astype(np.float32)
    queries = random.standard_normal((3, dimension)).astype(np.float32)
    if metric == "cosine":
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        queries /= np.linalg.norm(queries, axis=1, keepdims=True)
    labels = random.integers(-1, 6, count).astype(np.int32)
    logits = random.standard_normal((3, 6)).astype(np.float32)
    allowed = random.random(count) < 0.5 if filtered else None
    found = Bins.of(vectors, labels, 6, metric).scan(
        vectors, queries, logits, k, probes=probes, mass=0.0, allowed=allowed
    )
    may = np.ones(count, bool) if allowed is None else allowed
    for i in range(3):
        order = np.argsort(-logits[i], kind="stable")
        taken = 0
        while taken < 6 and (taken < probes or (np.isin(labels, order[:taken]) & may).sum() < k):
            taken += 1
        inside = np.isin(labels, order[:taken]) & may
        assert found.work[i] == inside.sum()
        expected = exact_search(vectors, queries[i : i + 1], k, metric, inside)
        assert np.allclose(found.distances[i], expected.distances[0], atol=1e-6)
        assert set(found.positions[i].tolist()) <= {-1, *np.flatnonzero(inside).tolist()}


def test_mass_decides_how_many_bins_are_looked_into(rng: np.random.Generator) -> None:
    vectors = rng.standard_normal((60, 4)).astype(np.float32)
    labels = np.repeat(np.arange(3), 20).astype(np.int32)
    bins = Bins.of(vectors, labels, 3, "l2")
    logits = np.log(np.array([[0.7, 0.2, 0.1], [0.34, 0.33, 0.33]], np.float32))
    for mass, expected in ((0.5, [20, 40]), (0.75, [40, 60]), (0.95, [60, 60])):
        found = bins.scan(vectors, vectors[:2].copy(), logits, 1, probes=1, mass=mass, allowed=None)
        assert found.work.tolist() == expected


def test_codes_of_awkward_vectors_are_defined() -> None:
    vectors = np.array([[0, 0], [1e-45, 0], [3e38, -3e38], [1, -0.5]], np.float32)
    numbers, scales = coded(vectors)
    assert numbers.tolist() == [[0, 0], [0, 0], [127, -127], [127, -64]]
    assert np.isfinite(scales).all()


# -- the calibration


def test_thresholds_give_the_recall_they_promise(rng: np.random.Generator) -> None:
    logits = (rng.standard_normal((400, 20)) * 2).astype(np.float32)
    chances = np.exp(log_softmax(logits)).astype(np.float64)
    chances /= chances.sum(axis=1, keepdims=True)
    bins = np.stack([rng.choice(20, 100, p=row) for row in chances]).astype(np.int32)
    calibration = calibrate(logits, bins)
    for target in TARGETS:
        threshold, reached = calibration.entry(10, target)
        assert reached >= target
        assert threshold >= target - 0.15  # probabilities that are right say what recall is
    assert calibration.thresholds.shape == (len(DEPTHS), len(TARGETS))


# -- the index


def test_recall_on_real_embeddings_beats_what_is_scanned(index: NeuralLshIndex, real: RealVectors) -> None:
    """Measured .84 at 4 of 24 bins (18 % of the rows); a random partition would give .18."""
    exact = exact_search(real.base, real.queries, 10, "cosine").positions
    found = index.search(real.queries, 10, ef=4)
    hits = recall(found.positions, exact)
    assert found.work.mean() < 0.25 * len(real.base)
    assert hits > 0.8
    assert index.bin_sizes.max() < 2 * index.bin_sizes.mean()


def test_more_targets_more_recall(index: NeuralLshIndex, real: RealVectors) -> None:
    exact = exact_search(real.base, real.queries, 10, "cosine").positions
    for target in (0.8, 0.9, 0.97):
        found = index.search(real.queries, 10, target_recall=target)
        hits = recall(found.positions, exact)
        assert found.estimated_recall is not None
        assert hits > target - 0.04  # 2,000 vectors calibrate by 40
        assert abs(float(found.estimated_recall.mean()) - hits) < 0.06


def test_every_vector_finds_itself(index: NeuralLshIndex, real: RealVectors) -> None:
    assert np.array_equal(index.search(real.base, 1, ef=1).distances[:, 0] < 1e-6, np.ones(len(real.base), bool))
    assert index.check() == []


@pytest.mark.parametrize("share", [0.5, 0.05, 0.002])
def test_filters_always_fill_k(index: NeuralLshIndex, real: RealVectors, share: float) -> None:
    allowed = np.random.default_rng(1).random(len(real.base)) < share
    found = index.search(real.queries, 10, allowed=allowed)
    assert ((found.positions >= 0).sum(axis=1) == min(10, allowed.sum())).all()
    assert allowed[found.positions[found.positions >= 0]].all()


def test_one_thread_and_several_find_the_same(index: NeuralLshIndex, real: RealVectors) -> None:
    one, two = (index.search(real.queries, 5, threads=threads) for threads in (1, 2))
    assert np.array_equal(one.positions, two.positions)


def test_added_and_removed_vectors(index: NeuralLshIndex, real: RealVectors) -> None:
    changed = index.copy()
    new = real.queries[:20]
    changed.add(new)
    assert (changed.search(new, 1, ef=1).positions[:, 0] >= len(index)).all()
    changed.remove(np.arange(len(index), len(index) + 10))
    found = changed.search(new, 3, ef=24).positions
    assert not np.isin(found, np.arange(len(index), len(index) + 10)).any()
    kept = changed.compact()
    assert len(changed) == len(index) + 10 == len(kept)
    assert changed.check() == []
    assert len(index) == len(real.base)  # the original is as it was
    assert index.check() == []


def test_it_is_stale_when_much_was_added(index: NeuralLshIndex, real: RealVectors) -> None:
    grown = index.copy()
    assert not grown.is_stale
    grown.add(np.tile(real.base[:1], (len(real.base), 1)))
    assert grown.is_stale


def test_it_opens_again_without_torch(index: NeuralLshIndex, real: RealVectors, tmp_path: object) -> None:
    again = open_index(index.settings(), index.arrays())
    assert isinstance(again, NeuralLshIndex)
    assert np.array_equal(again.search(real.queries, 10).positions, index.search(real.queries, 10).positions)
    assert again.search(real.queries, 10, target_recall=0.9).estimated_recall is not None
    script = "import sys, vecdb.index.neural_lsh.index; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


def test_arrays_that_do_not_fit_are_refused(index: NeuralLshIndex) -> None:
    arrays = index.arrays()
    for wrong in ({**arrays, "labels": arrays["labels"][:-1]}, {**arrays, "network.b0": arrays["network.b0"][:-1]}):
        with pytest.raises(CorruptIndex):
            open_index(index.settings(), wrong)


def test_few_vectors_need_no_network(rng: np.random.Generator) -> None:
    index = NeuralLshIndex(5, "l2")
    assert index.search(np.zeros((2, 5), np.float32), 3).positions.tolist() == [[-1] * 3] * 2
    few = rng.standard_normal((10, 5)).astype(np.float32)
    index.add(few)
    exact = ExactIndex.over(few, "l2")
    query = rng.standard_normal((2, 5)).astype(np.float32)
    for k in (1, 4, 10, 12):
        assert np.array_equal(index.search(query, k).positions, exact.search(query, k).positions)
    index.remove(np.arange(10))
    assert (index.search(query, 2).positions == -1).all()


@pytest.mark.parametrize(
    "wrong", [{"bins": 1}, {"bins": -1}, {"hidden": 0}, {"probes": 0}, {"epochs": 0}, {"seed": -1}]
)
def test_settings_out_of_range_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(InvalidInput, match=next(iter(wrong))):
        NeuralLshConfig(**wrong)


def test_a_search_goes_by_probes_or_by_target(index: NeuralLshIndex, real: RealVectors) -> None:
    with pytest.raises(InvalidQuery, match="both"):
        index.search(real.queries, 1, ef=3, target_recall=0.9)
