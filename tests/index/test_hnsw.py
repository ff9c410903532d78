"""The graph index as its callers see it: recall, reproducibility, awkward sizes, opening, threads."""

from __future__ import annotations

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from index_measures import not_finding_themselves, recall
from numpy.typing import NDArray

from vecdb.errors import CorruptIndex, DimensionMismatch, InvalidInput, InvalidQuery
from vecdb.index import HnswConfig, HnswIndex, Metric, exact_search, open_index
from vecdb.index.base import METRICS


def fingerprint(index: HnswIndex) -> dict[str, bytes]:
    return {name: array.tobytes() for name, array in index.arrays().items()} | {
        "settings": json.dumps(index.settings()).encode()
    }


def test_shipped_neighbours_are_those_of_exact_search(real: Any) -> None:
    found = exact_search(real.base, real.queries, 10, "cosine").positions
    assert recall(found, real.neighbours[:, :10]) > 0.99  # they were computed before rounding to float16


@pytest.mark.parametrize(("ef", "bound"), [(10, 0.88), (20, 0.94), (40, 0.98), (64, 0.99)])
def test_recall_at_10_on_real_embeddings(built: HnswIndex, real: Any, ef: int, bound: float) -> None:
    """Measured .900, .955, .986, .996, and .895, .956, .987, .994 for hnswlib with the same settings."""
    true = exact_search(real.base, real.queries, 10, "cosine").positions
    assert recall(built.search(real.queries, 10, ef=ef).positions, true) >= bound


@pytest.mark.parametrize("metric", ["l2", "ip"])
def test_recall_at_10_under_the_other_metrics(real: Any, metric: Metric) -> None:
    """Lengths are spread from 0.5 to 1.5, so that neither metric orders as cosine does."""
    lengths = np.random.default_rng(0).uniform(0.5, 1.5, (2000, 1)).astype(np.float32)
    vectors = real.base[:2000] * lengths
    index = HnswIndex.build(vectors, metric)
    true = exact_search(vectors, real.queries, 10, metric)
    found = index.search(real.queries, 10, ef=128)
    assert recall(found.positions, true.positions) >= 0.97
    agree = found.positions == true.positions
    np.testing.assert_array_equal(found.distances[agree], true.distances[agree])
    assert index.check() == []


def test_walks_compute_far_fewer_distances_than_a_scan(built: HnswIndex, real: Any) -> None:
    assert built.search(real.queries, 10).work.mean() < 0.25 * len(real.base)


def test_structure_is_sound_and_levels_are_as_drawn(built: HnswIndex) -> None:
    assert built.check() == []
    arrays = built.arrays()
    assert arrays["base"].shape == (4000, 32)
    assert len(arrays["upper"]) == arrays["levels"].sum()
    assert not_finding_themselves(built) == []


def test_same_bytes_for_one_two_and_eight_threads(real: Any) -> None:
    def history(threads: int) -> HnswIndex:
        index = HnswIndex(384, "cosine", HnswConfig(M=8, ef_construction=40))
        index.add(real.base[:1500], threads=threads)
        index.remove(np.arange(0, 1500, 3), threads=threads)
        index.compact()
        index.add(real.base[1500:1700], threads=threads)
        return index

    one, two, eight = (history(threads) for threads in (1, 2, 8))
    assert fingerprint(one) == fingerprint(two) == fingerprint(eight)
    assert one.check() == []


def test_seed_and_order_make_another_graph(real: Any) -> None:
    def graph(config: HnswConfig) -> bytes:
        return HnswIndex.build(real.base[:300], "cosine", config).arrays()["base"].tobytes()

    small = {"M": 8, "ef_construction": 40}
    assert graph(HnswConfig(**small)) == graph(HnswConfig(**small))
    assert graph(HnswConfig(**small)) != graph(HnswConfig(**small, seed=1))
    assert HnswIndex.build(real.base[:700], "cosine", HnswConfig(**small, order="given")).check() == []


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("dimension", [1, 3, 123, 384, 768])
@pytest.mark.parametrize("count", [0, 1, 2, 150])
def test_awkward_sizes_give_every_answer_that_exists(metric: Metric, dimension: int, count: int) -> None:
    rng = np.random.default_rng(dimension)
    vectors = rng.standard_normal((count, dimension)).astype(np.float32)
    if metric == "cosine":
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    index = HnswIndex(dimension, metric, HnswConfig(M=4, ef_construction=16, ef=8))
    index.add(vectors)
    assert len(index) == count
    assert index.check() == []
    queries = vectors[:3] if count else np.ones((2, dimension), np.float32)
    for k in (1, 5, count + 3):
        found = index.search(queries, k, ef=k)
        true = exact_search(vectors, queries, k, metric)
        assert ((found.positions >= 0) == (true.positions >= 0)).all()
    if metric != "ip":  # where a longer vector may be nearer to one than itself
        assert not_finding_themselves(index) == []


def test_five_percent_duplicates_are_all_found(real: Any) -> None:
    vectors = real.base[:1000].copy()
    copies = np.random.default_rng(4).permutation(1000)[:80]
    vectors[copies[:20]] = vectors[copies[0]]  # one group of 20, more than a list holds
    vectors[copies[20:50]] = vectors[copies[50:]]  # and pairs
    index = HnswIndex.build(vectors, "cosine", HnswConfig(M=8, ef_construction=60))
    assert index.check() == []
    assert not_finding_themselves(index) == []
    answer = index.search(vectors[copies[:1]], 20)
    assert sorted(answer.positions[0]) == sorted(copies[:20])
    assert answer.positions[0].tolist() == sorted(answer.positions[0])  # equal distances: by position


@pytest.mark.parametrize("value", [0.0, 1.0])
@pytest.mark.parametrize("metric", ["l2", "ip"])
def test_all_equal_vectors_stay_reachable(metric: Metric, value: float) -> None:
    vectors = np.full((600, 5), value, np.float32)
    index = HnswIndex.build(vectors, metric, HnswConfig(M=4, ef_construction=16))
    assert index.check() == []
    answer = index.search(vectors[:1], 20)
    assert len(set(answer.positions[0].tolist())) == 20
    index.remove(np.arange(0, 600, 2))
    assert index.check() == []
    assert (index.search(vectors[:1], 300).positions[0] % 2 == 1).all()


def test_zero_vectors_among_others_are_kept(real: Any) -> None:
    vectors = real.base[:400].copy()
    vectors[::10] = 0
    for metric in ("l2", "ip"):
        index = HnswIndex.build(vectors, metric, HnswConfig(M=8, ef_construction=40))
        assert index.check() == []
        true = exact_search(vectors, real.queries[:50], 10, metric)
        assert recall(index.search(real.queries[:50], 10).positions, true.positions) >= 0.97


def test_saved_arrays_open_as_read_only_memory_maps_without_copies(built: HnswIndex, real: Any, tmp_path: Path) -> None:
    settings = json.loads(json.dumps(built.settings()))
    mapped = {}
    for name, array in built.arrays().items():
        assert array.flags.c_contiguous
        np.save(tmp_path / f"{name}.npy", array)
        mapped[name] = np.load(tmp_path / f"{name}.npy", mmap_mode="r")
    opened = open_index(settings, mapped)
    kept = {
        name: array for name, array in opened.arrays().items() if name != "coding.scalars"
    }  # five numbers, made anew
    assert all(np.shares_memory(array, mapped[name]) for name, array in kept.items())
    before, after = built.search(real.queries, 10), opened.search(real.queries, 10)
    assert np.array_equal(before.positions, after.positions)
    opened.add(real.queries[:10])  # arrays that were given are read-only: writing to one would raise
    opened.remove(np.arange(5))
    opened.compact()
    assert opened.check() == []
    assert opened.search(real.queries[:10], 1).distances.max() < 1e-6


@pytest.mark.parametrize(
    ("name", "broken"),
    [
        ("base", lambda a: a[:, :5]),
        ("base", lambda a: a.astype(np.int64)),
        ("levels", lambda a: a[:-1]),
        ("vectors", lambda a: a[:, :100]),
        ("live", None),
    ],
)
def test_arrays_that_do_not_fit_are_refused(built: HnswIndex, name: str, broken: Any) -> None:
    arrays: dict[str, NDArray[Any]] = dict(built.arrays())
    array = arrays.pop(name)
    if broken is not None:
        arrays[name] = np.ascontiguousarray(broken(array))
    with pytest.raises(CorruptIndex, match="rebuild"):
        open_index(built.settings(), arrays)


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(CorruptIndex, match="'btree'"):
        open_index({"kind": "btree"}, {})


def test_check_names_what_is_broken(built: HnswIndex) -> None:
    def faults(change: Any) -> str:
        index = built.copy()
        change(index._graph)
        return "\n".join(index.check())

    def self_link(graph: Any) -> None:
        graph.base[5, 0] = 5

    def twice(graph: Any) -> None:
        graph.base[5, 1] = graph.base[5, 0]

    def outside(graph: Any) -> None:
        graph.base[5, 0] = 4000

    def to_removed(graph: Any) -> None:
        graph.live[graph.base[5, 0]] = False

    def gap(graph: Any) -> None:
        graph.base[5, 0] = -1

    def cut_off(graph: Any) -> None:
        graph.base[graph.base == 5] = -1
        graph.base[:] = -np.sort(-graph.base, axis=1)

    def wrong_top(graph: Any) -> None:
        graph.top += 1

    def low_level(graph: Any) -> None:
        tall = int(np.flatnonzero(graph.levels)[0])
        graph.upper[graph.starts[tall], 0] = int(np.flatnonzero(graph.levels == 0)[0])

    assert "links to itself" in faults(self_link)
    assert "twice" in faults(twice)
    assert "does not exist" in faults(outside)
    assert "removed node" in faults(to_removed)
    assert "gap" in faults(gap)
    assert "node 5 cannot be reached" in faults(cut_off)
    assert "top is" in faults(wrong_top)
    assert "not on this level" in faults(low_level)


def test_searches_in_several_threads_at_once_agree(built: HnswIndex, real: Any) -> None:
    want = built.search(real.queries, 10).positions
    with ThreadPoolExecutor(4) as threads:
        answers = list(threads.map(lambda _: built.search(real.queries, 10).positions, range(8)))
        single = list(threads.map(lambda query: built.search(query[None], 10).positions[0], real.queries))
    assert all(np.array_equal(answer, want) for answer in answers)
    assert np.array_equal(np.array(single), want)
    assert np.array_equal(built.search(real.queries, 10, threads=3).positions, want)


def test_wrong_arguments_are_refused_by_name(built: HnswIndex) -> None:
    with pytest.raises(DimensionMismatch, match="of 384"):
        built.search(np.zeros((1, 5), np.float32), 1)
    with pytest.raises(DimensionMismatch, match="of 384"):
        built.copy().add(np.zeros((1, 5), np.float32))
    with pytest.raises(InvalidQuery, match="k is 0"):
        built.search(np.zeros((1, 384), np.float32), 0)
    with pytest.raises(InvalidQuery, match="ef is 0"):
        built.search(np.zeros((1, 384), np.float32), 1, ef=0)
    with pytest.raises(InvalidInput, match="position 4000"):
        built.copy().remove(np.array([4000]))
    with pytest.raises(InvalidInput, match="threads is 0"):
        built.search(np.zeros((99, 384), np.float32), 1, threads=0)
    with pytest.raises(InvalidInput, match="M is 1"):
        HnswConfig(M=1)


def test_importing_the_index_loads_no_compiler() -> None:
    code = "import sys, vecdb.index, vecdb.index.exact, vecdb.index.opening; assert 'numba' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_arrays_that_cross_cache_lines_are_copied(built: HnswIndex, real: Any) -> None:
    def crossed(array: Any) -> Any:
        room = np.empty(array.nbytes + 128, np.uint8)
        start = -room.ctypes.data % 64 + 16
        moved = room[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
        moved[:] = array
        return moved

    arrays = {name: crossed(array) if array.size else array for name, array in built.arrays().items()}
    opened = HnswIndex.open(built.settings(), arrays)
    for name in ("codes", "lines", "base", "upper"):
        assert arrays[name].ctypes.data % 64 == 16
        assert opened.arrays()[name].ctypes.data % 64 == 0
    assert (opened.search(real.queries, 10).positions == built.search(real.queries, 10).positions).all()
