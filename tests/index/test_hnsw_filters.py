"""Filtered search: recall at the default ef for every selectivity, wherever the allowed rows lie, and always k answers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from index_measures import recall
from numpy.typing import NDArray

from vecdb.index import HnswConfig, HnswIndex, exact_search, hnsw

Mask = NDArray[np.bool_]


def random_share(real: Any, share: float) -> Mask:
    return np.random.default_rng(6).random(len(real.base)) < share


def farthest_from_queries(real: Any, share: float) -> Mask:
    """Allowed rows where no walk towards a query comes by."""
    closeness = (real.base @ real.queries.T).max(axis=1)
    return closeness < np.quantile(closeness, share)


def one_cluster(real: Any, share: float) -> Mask:
    closeness = real.base @ real.base[77]
    return closeness > np.quantile(closeness, 1 - share)


def found_and_true(index: HnswIndex, real: Any, allowed: Mask) -> tuple[Any, Any]:
    found = index.search(real.queries, 10, allowed=allowed)
    true = exact_search(real.base, real.queries, 10, "cosine", allowed)
    assert ((found.positions >= 0) == (true.positions >= 0)).all()
    assert allowed[found.positions[found.positions >= 0]].all()
    return found, true


def walk_always(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hnsw, "_SCAN_PER_EF", 0)
    monkeypatch.setattr(hnsw, "_LEAST_CALIBRATED", 0)


@pytest.mark.parametrize("where", [random_share, farthest_from_queries, one_cluster])
@pytest.mark.parametrize("share", [1.0, 0.5, 0.1, 0.01, 0.001])
def test_recall_by_the_planned_way(built: HnswIndex, real: Any, where: Any, share: float) -> None:
    found, true = found_and_true(built, real, where(real, share))
    assert recall(found.positions, true.positions) >= 0.95


@pytest.mark.parametrize("where", [random_share, farthest_from_queries, one_cluster])
@pytest.mark.parametrize("share", [0.7, 0.5, 0.3, 0.15])
def test_recall_of_the_walk_over_allowed_nodes(
    built: HnswIndex, real: Any, where: Any, share: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """4,000 rows would be scanned; this forces the way that larger collections go."""
    walk_always(monkeypatch)
    allowed = where(real, share)
    found, true = found_and_true(built, real, allowed)
    assert found.way == "filtered walk"
    assert recall(found.positions, true.positions) >= 0.95


@pytest.mark.parametrize("share", [1.0, 0.9, 0.5])
def test_recall_of_the_plain_walk_with_a_wider_beam(
    built: HnswIndex, real: Any, share: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    walk_always(monkeypatch)
    found, true = found_and_true(built, real, random_share(real, share))
    assert recall(found.positions, true.positions) >= 0.97


def test_a_plain_walk_that_meets_too_few_is_completed_exactly(
    built: HnswIndex, real: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    walk_always(monkeypatch)
    allowed = farthest_from_queries(real, 0.02)
    found = built.search(real.queries, 10, allowed=allowed, ef=10)
    true = exact_search(real.base, real.queries, 10, "cosine", allowed)
    assert (found.positions >= 0).all()
    assert recall(found.positions, true.positions) >= 0.9


def test_one_allowed_row_is_the_answer_and_none_is_none(built: HnswIndex, real: Any) -> None:
    allowed = np.zeros(4000, np.bool_)
    assert (built.search(real.queries, 10, allowed=allowed).positions == -1).all()
    allowed[1234] = True
    found = built.search(real.queries, 10, allowed=allowed)
    assert (found.positions[:, 0] == 1234).all()
    assert (found.positions[:, 1:] == -1).all()
    assert (found.work == 1).all()


def test_all_k_come_back_when_k_is_all_that_is_allowed(built: HnswIndex, real: Any) -> None:
    allowed = random_share(real, 0.2)
    count = int(allowed.sum())
    for k in (count, count + 5):
        found = built.search(real.queries[:3], k, allowed=allowed)
        assert (np.sort(found.positions[:, :count], axis=1) == np.flatnonzero(allowed)).all()
        assert (found.positions[:, count:] == -1).all()


def test_removed_rows_stay_away_though_allowed(built: HnswIndex, real: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    index = built.copy()
    index.remove(np.arange(0, 4000, 2))
    allowed = random_share(real, 0.6)
    true = exact_search(real.base, real.queries, 10, "cosine", allowed & index.live)
    for is_walk in (False, True):
        if is_walk:
            walk_always(monkeypatch)
        found = index.search(real.queries, 10, allowed=allowed)
        assert (found.positions % 2 == 1).all()
        assert recall(found.positions, true.positions) >= 0.95


@pytest.mark.parametrize("metric", ["cosine", "l2", "ip"])
@pytest.mark.parametrize("k", [1, 10, 100])
def test_a_scan_by_codes_is_exact(real: Any, metric: str, k: int) -> None:
    """Lengths differ a thousandfold but under cosine, so that every code has a unit of its own."""
    rng = np.random.default_rng(8)
    lengths = 10.0 ** rng.uniform(-1.5, 1.5, (1500, 1)) if metric != "cosine" else 1.0
    vectors = (real.base[:1500] * lengths).astype(np.float32)
    index = HnswIndex.build(vectors, metric, HnswConfig(M=4, ef_construction=20))
    allowed = rng.random(1500) < 0.5
    found = index.search(real.queries[:50], k, allowed=allowed)
    true = exact_search(vectors, real.queries[:50], k, index.metric, allowed)
    assert found.way == "scan"
    assert (found.positions == true.positions).all()
    assert (found.distances == true.distances).all()
    assert (found.work == allowed.sum()).all()
