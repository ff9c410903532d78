"""The study of insertion orders: that its arithmetic is right and that its smallest run works. Nothing about its findings."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

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


def point(work: float, recall: float) -> dict[str, Any]:
    return {"ef": 0, "work": work, "recall": recall}


def line(order: str, seed: int, points: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "part": "order",
        "data": {"name": "x"},
        "engine": "batched",
        "order": order,
        "seed": seed,
        "points": points,
    }


def test_recall_and_work_are_read_between_points_and_never_beyond_them() -> None:
    from bench.lid.curves import recall_at, work_at

    curve = [point(1000, 0.9), point(100, 0.8), point(10_000, 0.98)]
    assert recall_at(curve, 100) == pytest.approx(0.8)
    assert recall_at(curve, math.sqrt(100 * 1000)) == pytest.approx(0.85)
    assert work_at(curve, 0.85) == pytest.approx(math.sqrt(100 * 1000))
    assert work_at(curve, 0.98) == pytest.approx(10_000)
    assert math.isnan(recall_at(curve, 99))
    assert math.isnan(recall_at(curve, 10_001))
    assert math.isnan(work_at(curve, 0.79))
    assert math.isnan(work_at(curve, 0.981))


def test_orders_are_compared_at_what_the_random_one_needs() -> None:
    from bench.lid.curves import RECALLS, compare

    at = RECALLS.index(0.9)
    lines = [
        line("random", 0, [point(100, 0.8), point(1000, 0.9), point(2000, 0.99)]),
        line("random", 1, [point(100, 0.8), point(3000, 0.9), point(4000, 0.99)]),
        line("lid_desc", 0, [point(100, 0.8), point(2000, 0.92), point(9000, 0.99)]),
        line("lid_desc", 1, [point(100, 0.8), point(2000, 0.94), point(9000, 0.99)]),
    ]
    (one,) = compare(lines)
    assert one.works[at] == pytest.approx(2000)
    assert one.recalls["lid_desc"][at].mean == pytest.approx(0.93)
    assert one.recalls["lid_desc"][at].sd == pytest.approx(math.sqrt(2) / 100)
    assert one.costs["random"][at].mean == pytest.approx(1.0)
    assert one.costs["lid_desc"][at].mean < 1
    assert compare([entry for entry in lines if entry["order"] != "random"]) == []


def test_every_order_is_a_permutation_and_clusters_come_one_by_one() -> None:
    from bench.lid.orders import ORDERS, cluster, order_of

    rng = np.random.default_rng(0)
    centres = 100 * rng.standard_normal((10, 8))
    group = rng.integers(10, size=3000)
    vectors = (centres[group] + rng.standard_normal((3000, 8))).astype(np.float32)
    lid = rng.uniform(size=3000)
    orders = {name: order_of(name, vectors, lid, 3) for name in ORDERS}
    assert all(np.array_equal(np.sort(order), np.arange(3000)) for order in orders.values())
    assert (np.diff(lid[orders["lid_asc"]]) >= 0).all()
    assert (np.diff(lid[orders["lid_desc"]]) <= 0).all()

    def changes(order: Any) -> int:
        return int(np.count_nonzero(np.diff(group[order])))

    assert changes(orders["random"]) > 2500
    assert changes(orders["clustered"]) < 100  # a hundred clusters, each within one of the ten groups
    labels = cluster(vectors, 100, np.random.default_rng(1))
    assert len(labels) == 3000
    assert labels.max() < 100


def test_the_smallest_run_writes_lines_tables_and_a_picture(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "bench", "lid", "--quick", "--engines", "batched", "--seeds", "1", "--markdown"]
    run = subprocess.run(
        [*command, "--out", str(tmp_path)], cwd=ROOT, capture_output=True, text=True, check=False, timeout=300
    )
    assert run.returncode == 0, run.stderr
    assert "| lid_desc |" in run.stdout
    (path,) = tmp_path.glob("lid-*.jsonl")
    lines = [json.loads(text) for text in path.read_text().splitlines()]
    assert [entry["part"] for entry in lines] == ["lid"] + 5 * ["order"] + 2 * ["dimension"]
    for entry in lines[1:6]:
        works = [measured["work"] for measured in entry["points"]]
        assert works == sorted(works)
        assert entry["points"][-1]["recall"] > 0.99
        assert 0 < works[0] < 2000
    assert 6 < lines[0]["mean"] < 9  # eight dimensions and some noise
    assert lines[6]["lid_mean"] < 3 < 10 < lines[7]["lid_mean"]
    assert lines[6]["points"][0]["recall"] > lines[7]["points"][0]["recall"]


def test_unknown_sets_and_orders_are_refused_with_the_choices() -> None:
    run = subprocess.run(
        [sys.executable, "-m", "bench", "lid", "--orders", "upwards"], cwd=ROOT, capture_output=True, text=True
    )
    assert run.returncode == 2
    assert "unknown orders: upwards; choose from given, random" in run.stderr
