"""Local intrinsic dimensionality and the orders of insertion that follow it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from index_measures import recall
from numpy.typing import NDArray

from vecdb.errors import DimensionMismatch, InvalidInput, InvalidVector
from vecdb.index import HnswConfig, HnswIndex, exact_search
from vecdb.index.base import ORDERS
from vecdb.index.lid import (
    LidOrder,
    lid_among,
    lid_of_distances,
    lid_order,
    lid_report,
    pointwise_lid,
)
from vecdb.index.ordering import insertion_order

Floats = NDArray[np.float32]
SMALL = {"M": 8, "ef_construction": 40}


def naive_lid(vectors: Floats, k: int) -> list[float]:
    """The definition, one point and one neighbour at a time, in Python floats; nan where a point tells nothing."""
    estimates = []
    for i, point in enumerate(vectors):
        others = sorted(math.dist(point, other) for j, other in enumerate(vectors) if j != i)[:k]
        r = [distance for distance in others if distance > 0]
        if len(set(r)) < 2:
            estimates.append(math.nan)
        else:
            estimates.append(min(-len(r) / sum(math.log(distance / r[-1]) for distance in r), 4.0 * len(point)))
    return estimates


def in_subspace(count: int, latent: int, dimension: int = 128, seed: int = 0) -> Floats:
    """Points drawn evenly from the unit ball of a linear subspace in general position."""
    rng = np.random.default_rng(seed)
    directions = rng.standard_normal((count, latent))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    points = directions * rng.uniform(size=(count, 1)) ** (1 / latent)
    basis = np.linalg.qr(rng.standard_normal((dimension, latent)))[0]
    return (points @ basis.T).astype(np.float32)


@pytest.mark.parametrize("latent", [2, 8, 16])
@pytest.mark.parametrize("method", ["exact", "index"])
def test_mean_lid_is_the_dimension_of_the_subspace_within_15_percent(latent: int, method: Any) -> None:
    """Measured 2.18, 7.9, 14.5. With k = 100 of so few points the neighbourhoods reach the border, and 16 looks like 12."""
    lid = pointwise_lid(in_subspace(4000, latent), k=20, method=method)
    assert abs(lid.mean() / latent - 1) < 0.15


def test_lid_of_32_dimensions_is_underestimated_by_a_finite_sample() -> None:
    lid = pointwise_lid(in_subspace(4000, 32), k=20)
    assert 20 < lid.mean() < 28  # measured 24.3


@pytest.mark.parametrize("dimension", [1, 5, 40])
def test_estimates_from_ideal_distances_average_to_the_dimension(dimension: int) -> None:
    """Distances of points spread evenly in a ball are U^(1/d); the estimator's mean is then d k / (k - 2)."""
    k = 50
    distances = np.sort(np.random.default_rng(1).uniform(size=(20_000, k)) ** (1 / dimension), axis=1)
    assert lid_of_distances(distances, 100).mean() == pytest.approx(dimension * k / (k - 2), rel=0.01)


@pytest.mark.parametrize("k", [5, 30, 200])
def test_exact_estimates_and_orders_equal_the_naive_ones(real: Any, k: int) -> None:
    vectors = real.base[:150]
    lid, naive = pointwise_lid(vectors, k=k), np.array(naive_lid(vectors, k))
    np.testing.assert_allclose(lid, naive, rtol=1e-5)
    assert lid_order(vectors, "lid_desc", k=k).tolist() == sorted(range(150), key=lambda i: -naive[i])
    assert lid_order(vectors, "lid_asc", k=k).tolist() == sorted(range(150), key=lambda i: naive[i])


def test_an_index_gives_nearly_the_exact_estimates(real: Any, built: HnswIndex) -> None:
    exact = pointwise_lid(real.base)
    through = pointwise_lid(real.base, method="index")
    assert np.mean(np.abs(through / exact - 1) < 0.01) > 0.93  # measured 0.957: a missed neighbour moves an estimate
    assert abs(lid_report(built, method="index").mean / exact.mean() - 1) < 0.01
    assert np.array_equal(through, pointwise_lid(real.base, method="index", threads=3))


def test_some_rows_have_the_estimates_that_they_have_among_all(real: Any) -> None:
    rows = [3, 500, 20]
    np.testing.assert_array_equal(
        pointwise_lid(real.base[:600], k=30, rows=rows), pointwise_lid(real.base[:600], k=30)[[3, 20, 500]]
    )


def test_copies_of_a_point_tell_nothing_and_do_no_harm(real: Any) -> None:
    vectors = real.base[:300].copy()
    vectors[100:125] = vectors[0]  # 26 copies: more than k
    vectors[200] = vectors[201]
    naive = np.array(naive_lid(vectors, 20))
    assert np.flatnonzero(np.isnan(naive)).tolist() == [0, *range(100, 125)]
    expected = np.where(np.isnan(naive), np.nanmedian(naive), naive)
    np.testing.assert_allclose(pointwise_lid(vectors, k=20), expected, rtol=1e-5)
    through = pointwise_lid(vectors, k=20, method="index")
    assert np.mean(np.isclose(through, expected, rtol=1e-5)) > 0.95  # measured 0.987
    assert np.isfinite(through).all()


def test_points_without_different_neighbours_get_the_median_or_zero() -> None:
    lid = lid_of_distances([[1.0, 2.0, 4.0], [3.0, 3.0, 3.0], [0.0, 0.0, 5.0], [1.0, 4.0, 16.0]], 10)
    first, last = 3 / math.log(8), 3 / math.log(64)
    assert lid.tolist() == pytest.approx([first, (first + last) / 2, (first + last) / 2, last])
    assert pointwise_lid(np.ones((5, 3))).tolist() == [0.0] * 5
    assert pointwise_lid(np.ones((1, 3))).tolist() == [0.0]
    assert pointwise_lid(np.ones((1, 3)), method="index").tolist() == [0.0]
    assert pointwise_lid(np.empty((0, 3))).tolist() == []
    assert pointwise_lid(np.empty((0, 3)), method="index").tolist() == []


def test_nearly_equal_distances_are_cut_at_four_times_the_dimension() -> None:
    assert lid_of_distances([[1.0, 1.0 + 1e-9, 1.0 + 2e-9]], 7).tolist() == [28.0]


@pytest.mark.parametrize("method", ["exact", "index"])
def test_more_neighbours_than_there_are_take_all(real: Any, method: Any) -> None:
    vectors = real.base[:40]
    np.testing.assert_allclose(pointwise_lid(vectors, k=100, method=method), naive_lid(vectors, 39), rtol=1e-5)


def test_a_report_sums_up_what_pointwise_lid_says(real: Any) -> None:
    lid = pointwise_lid(real.base, k=50)
    report = lid_report(real.base, k=50)
    assert (report.points, report.vectors, report.dimension, report.k) == (4000, 4000, 384, 50)
    assert report.mean == pytest.approx(lid.mean())
    assert report.median == pytest.approx(np.median(lid))
    assert report.p5 < report.median < report.p95
    assert sum(report.histogram) == 4000
    assert len(report.edges) == len(report.histogram) + 1
    assert report.edges[0] == lid.min()
    drawn = lid_report(real.base, k=50, sample=1000)
    assert drawn.points == 1000
    assert drawn.mean == pytest.approx(report.mean, rel=0.03)


def test_a_report_on_an_index_is_of_its_live_vectors(real: Any) -> None:
    index = HnswIndex.build(real.base[:800], "cosine", HnswConfig(**SMALL))
    index.remove(np.arange(0, 800, 2))
    odd = lid_report(np.ascontiguousarray(real.base[1:800:2]), k=30)
    assert lid_report(index, k=30) == odd
    through = lid_report(index, k=30, method="index")
    assert through.vectors == 400
    assert through.mean == pytest.approx(odd.mean, rel=0.02)


def test_dot_products_are_no_distances_so_an_ip_index_is_not_asked(real: Any) -> None:
    vectors = real.base[:600] * np.random.default_rng(0).uniform(0.5, 1.5, (600, 1)).astype(np.float32)
    index = HnswIndex.build(vectors, "ip", HnswConfig(**SMALL))
    assert lid_report(index, k=30, method="index").mean == pytest.approx(lid_report(vectors, k=30).mean, rel=0.01)
    with pytest.raises(InvalidInput, match="not near vectors"):
        lid_among(index, real.queries, k=30)


def test_insertion_orders_are_what_their_names_say(real: Any) -> None:
    vectors, nodes = real.base[:200], np.arange(1000, 1200, dtype=np.int32)
    ordered = {order: insertion_order(HnswConfig(order=order, lid_k=20), 1000, nodes, vectors) for order in ORDERS}
    assert ordered["given"].tolist() == nodes.tolist()
    assert all(sorted(order.tolist()) == nodes.tolist() for order in ordered.values())
    assert all(order.dtype == np.int32 for order in ordered.values())
    for order in ("lid_desc", "lid_asc"):
        assert ordered[order].tolist() == (1000 + lid_order(vectors, order, k=20)).tolist()
    assert ordered["random"].tolist() not in [ordered[order].tolist() for order in ("given", "lid_desc", "lid_asc")]


def test_a_later_batch_is_ordered_by_what_the_index_knows(real: Any, built: HnswIndex) -> None:
    nodes = np.arange(300, dtype=np.int32)
    config = HnswConfig(order="lid_desc", lid_k=50)
    lid = lid_among(built, real.queries, k=50)
    ordered = insertion_order(config, 4000, nodes, real.queries, index=built)
    assert ordered.tolist() == np.argsort(-lid, kind="stable").tolist()
    true = exact_search(real.base, real.queries, 50, "l2")
    exact = lid_of_distances(np.sqrt(true.distances, dtype=np.float64), 384)
    assert np.mean(np.abs(lid / exact - 1) < 0.03) > 0.88  # measured 0.92: claims lie apart from abstracts
    few = HnswIndex.build(real.base[:200], "cosine", HnswConfig(**SMALL))  # fewer than the batch
    within = insertion_order(config, 200, nodes, real.queries, index=few)
    assert within.tolist() == lid_order(real.queries, "lid_desc", k=50).tolist()


@pytest.mark.parametrize("order", ["lid_desc", "lid_asc"])
def test_graphs_in_lid_order_are_sound_reproducible_and_found_in(real: Any, order: LidOrder) -> None:
    def grown(threads: int) -> HnswIndex:
        index = HnswIndex.build(real.base[:1500], "cosine", HnswConfig(**SMALL, order=order), threads=threads)
        index.add(real.base[1500:1800], threads=threads)
        return index

    one, two = grown(1), grown(2)
    assert one.check() == []
    assert all(np.array_equal(array, two.arrays()[name]) for name, array in one.arrays().items())
    true = exact_search(real.base[:1800], real.queries, 10, "cosine").positions
    assert recall(one.search(real.queries, 10).positions, true) >= 0.97
    opposite = HnswIndex.build(
        real.base[:1500], "cosine", HnswConfig(**SMALL, order="lid_asc" if order == "lid_desc" else "lid_desc")
    )
    assert not np.array_equal(one.arrays()["base"][:1500], opposite.arrays()["base"])


def test_bad_input_is_refused_with_what_to_do(real: Any) -> None:
    some = real.base[:20]
    with pytest.raises(InvalidInput, match="at least two neighbours"):
        pointwise_lid(some, k=1)
    with pytest.raises(InvalidInput, match="'guess'.*'exact'"):
        pointwise_lid(some, method="guess")  # type: ignore[arg-type]
    with pytest.raises(InvalidInput, match="'lid'.*'lid_desc'"):
        lid_order(some, "lid")  # type: ignore[arg-type]
    with pytest.raises(InvalidVector, match="one vector a row"):
        pointwise_lid(some[0])
    with pytest.raises(InvalidInput, match="position 20 does not exist"):
        pointwise_lid(some, rows=[20])
    with pytest.raises(InvalidInput, match="no vectors"):
        lid_report(np.empty((0, 4)))
    with pytest.raises(InvalidInput, match="sample is 0"):
        lid_report(some, sample=0)
    with pytest.raises(InvalidInput, match="'lid'.*random, given, lid_desc, lid_asc"):
        HnswConfig(order="lid")  # type: ignore[arg-type]
    with pytest.raises(InvalidInput, match="lid_k is 1"):
        HnswConfig(lid_k=1)
    index = HnswIndex.build(some, "cosine", HnswConfig(**SMALL))
    with pytest.raises(DimensionMismatch, match="vectors of 384"):
        lid_among(index, some[:, :10])
