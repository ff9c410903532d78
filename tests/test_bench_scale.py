"""The benchmarks of churn and of size: that they draw, count and judge right. They say nothing about speed."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parent.parent

if not (ROOT / "bench" / "__main__.py").exists():
    pytest.skip("bench/ is not beside the tests: it is not part of the package", allow_module_level=True)

sys.path.append(str(ROOT))
try:
    from bench import churn_index, million, target_recall
    from bench.churn_worker import SYSTEMS, Population, self_recall
    from bench.vectors import VectorSet, exact_neighbours, load_set
finally:
    sys.path.remove(str(ROOT))


def unit_vectors(count: int, dimension: int) -> np.ndarray:
    vectors = np.random.default_rng(5).standard_normal((count, dimension)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def test_a_population_keeps_its_size_and_nobody_is_in_it_twice() -> None:
    people = Population(pool_size=100, size=40)
    people.enter()
    for share, leaving in [(0.5, 20), (0.3, 12), (0.5, 20)]:
        before = set(people.rows.tolist())
        gone = people.leave(share)
        assert len(gone) == leaving
        assert not np.isin(gone, people.labels).any()
        stayed = set(people.rows.tolist())
        assert stayed < before
        rows, labels = people.enter()
        assert len(rows) == leaving
        assert stayed.isdisjoint(rows.tolist())
        assert labels.min() > gone.max()  # nobody gets the label of a predecessor
        assert len(set(people.rows.tolist())) == 40
        assert (np.diff(people.labels) > 0).all()


def test_every_system_meets_the_same_population() -> None:
    one, other = Population(200, 50), Population(200, 50)
    for people in (one, other):
        for share in (0.5, 0.3):
            people.enter()
            people.leave(share)
    assert one.rows.tolist() == other.rows.tolist()


@pytest.mark.parametrize("name", ["vecdb", "hnswlib"])
def test_a_system_finds_by_label_who_is_in_it(name: str, tmp_path: Path) -> None:
    if name == "hnswlib" and importlib.util.find_spec("hnswlib") is None:
        pytest.skip("hnswlib is not installed")
    pool = unit_vectors(400, 16)
    people = Population(len(pool), 200)
    system = SYSTEMS[name](16, 200, tmp_path)
    rows, labels = people.enter()
    system.add(pool[rows], labels)
    for share in (0.5, 0.3, 0.5):
        system.remove(people.leave(share))
        rows, labels = people.enter()
        system.add(pool[rows], labels)
    assert self_recall(system, pool[people.rows], people.labels) == 1.0
    found, work = system.search(pool[people.rows[:5]], 10)
    assert np.isin(found, people.labels).all()
    assert (work is None) == (name == "hnswlib")
    system.close()


def test_self_recall_counts_equals_but_no_strangers_and_none_who_left() -> None:
    class Told:
        """Answers with what it was told."""

        def __init__(self, nearest: list[int]) -> None:
            self.nearest = np.array(nearest, dtype=np.int64)[:, None]

        def search(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, None]:
            return self.nearest, None

    vectors = np.eye(4, 8, dtype=np.float32)
    vectors[1] = vectors[0]
    labels = np.array([3, 5, 8, 9])
    assert self_recall(Told([3, 5, 8, 9]), vectors, labels) == 1.0
    assert self_recall(Told([5, 3, 8, 9]), vectors, labels) == 1.0  # the first two are the same vector
    assert self_recall(Told([3, 5, 9, 8]), vectors, labels) == 0.5
    assert self_recall(Told([3, 5, 7, -1]), vectors, labels) == 0.5  # 7 left, and one was not answered


def churned(**figures: float | None) -> dict:
    fresh = {"self_recall": 1.0, "recall": 0.98, "work": 1000.0, "memory_mb": 40.0, "build_s": 5.0}
    head = {
        "system": "vecdb",
        "version": "1",
        "round": 1,
        "date": "today",
        "commit": "c",
        "machine": {"cpu": "a", "python": "3"},
        "data": {"rows": 40, "pool": 100, "name": "minilm", "dimension": 8, "questions": 5},
    }
    return {**head, **fresh, "removed_s": 1.0, "added_s": 2.0, "fresh": fresh, **figures}


@pytest.mark.parametrize(
    ("figures", "missed"),
    [
        ({"recall": 0.975, "work": 1150.0}, None),
        ({"self_recall": 0.9999}, "self_recall"),
        ({"recall": 0.9748}, "recall"),
        ({"work": 1151.0}, "work"),
    ],
)
def test_each_bound_of_churn_can_be_missed(figures: dict[str, float], missed: str | None) -> None:
    kept = churn_index.met([churned(), churned(**figures)])
    assert [name for name, passed in kept.items() if not passed] == ([missed] if missed else [])


def test_the_worst_round_of_a_system_is_shown() -> None:
    lines = [churned(), churned(round=2, recall=0.95, work=1200.0), churned(round=3, memory_mb=80.0)]
    rounds, worst = churn_index.tables(lines)
    assert [row[0].text for row in rounds.rows] == ["1", "2", "3"]
    assert [cell.text for cell in worst.rows[0]] == [
        "vecdb",
        "3",
        "1.00000",
        "+3.00",
        "+1.00",
        "1.200",
        "40",
        "80",
        "NO",
    ]
    uncounted = churned(system="hnswlib", work=None)
    assert churn_index.tables([uncounted])[1].rows[0][5].text == "-"
    assert churn_index.notes(lines)


def large(**figures: object) -> dict:
    line = {
        "date": "today",
        "commit": "c",
        "machine": {"cpu": "a", "cores": 2, "memory_gb": 24, "python": "3", "load_average": 0},
        "set": {"rows": 1_000, "dimension": 128, "metric": "l2", "queries": 10},
        "peer": "vecdb",
        "built": {"build_s": 2.0, "build_cpu_s": 3.5, "peak_mb": 500.0, "save_s": 1.0, "file_mb": 1.0},
        "opened": {"open_s": 0.5, "first_ms": 20.0, "median_ms": 0.2},
        "bytes_per_vector": {"resident": 800.0, "private": 10.0},
        "climbed": {"default": {"recall": 0.99}},
        "setting": {"ef": 24},
        "recall": 0.951,
        "qps": {name: {"qps": 1_000.0} for name in million.MODES.values()},
    }
    return {**line, **figures}


def test_both_bounds_of_size_can_be_missed() -> None:
    assert million.met(large()) == {"recall": True, "first_ms": True}
    assert million.met(large(recall=0.9499)) == {"recall": False, "first_ms": True}
    slow = {"open_s": 0.5, "first_ms": 50.0, "median_ms": 0.2}
    assert million.met(large(opened=slow)) == {"recall": True, "first_ms": False}
    costs, queries = million.tables([large(), large(recall=0.9)])
    assert [cell.text for cell in costs.rows[0][2:4]] == ["3.5", "500"]  # processor time; vectors a second
    assert [row[-1].text for row in queries.rows] == ["yes", "NO"]
    assert million.notes([large()])


def test_points_of_any_number_are_a_set_and_other_names_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bench.vectors._FOLDER", tmp_path)
    points = load_set("gauss-150")
    assert points.base.shape == (150, 128)
    assert points.recall(points.truth[:, :10]) == 1.0
    for name in ("gauss-0", "gauss-many", "sift-5"):
        with pytest.raises(SystemExit, match="gauss-N"):
            load_set(name)


def test_the_work_of_a_ladder_is_read_between_its_steps() -> None:
    curve = [(0.8, 100.0), (0.9, 200.0), (0.9, 210.0), (0.98, 400.0)]
    assert target_recall._work_at(curve, 0.7) == 100.0
    assert target_recall._work_at(curve, 0.85) == pytest.approx(150.0)
    assert target_recall._work_at(curve, 0.94) == pytest.approx(305.0)
    assert target_recall._work_at(curve, 0.99) is None


def test_a_recall_asked_for_is_measured_with_and_without_filters() -> None:
    from vecdb.index.base import HnswConfig
    from vecdb.index.hnsw import HnswIndex

    vectors = unit_vectors(3_000, 16)
    base, queries = vectors[:2_800], vectors[2_800:]
    truth, distances = exact_neighbours(base, queries, "cosine")
    data = VectorSet("made up", "cosine", base, queries, truth, distances)
    index = HnswIndex.build(base, "cosine", HnswConfig())
    index.calibrate()
    for share in (1.0, 0.01):
        lines = list(target_recall._of_share(index, data, share))
        assert [line["target"] for line in lines] == list(target_recall.TARGETS)
        for line in lines:
            assert line["target"] - 0.05 <= line["recall"] <= 1.0
            assert 0.0 <= line["recall_p5"] <= 1.0
            assert line["way"] == ("walk" if share == 1.0 else "scan")
            assert line["distances"] == line["allowed"] or share == 1.0
        named = [{**line, "set": data.name} for line in lines]
        text = " ".join(cell.text for row in target_recall._table(named).rows for cell in row)
        assert f"{lines[0]['recall']:.4f}" in text
