"""An index uploaded to a device answers as it does on the CPU: filters, removed vectors, recall that is asked for."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from vecdb.gpu import walk
from vecdb.index.base import HnswConfig
from vecdb.index.device_walk import DeviceWalk, entries_of
from vecdb.index.exact import exact_search
from vecdb.index.hnsw import HnswIndex

DEVICE = "cuda:0" if torch.cuda.is_available() else "cpu"
COUNT, DIM = 70, 12


@pytest.fixture(autouse=True)
def narrow_beams(monkeypatch: pytest.MonkeyPatch) -> None:
    if DEVICE == "cpu":
        monkeypatch.setattr(walk, "_LEAST_EF", 8)


def unit(rng: np.random.Generator, *shape: int) -> Any:
    vectors = rng.normal(size=shape).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def index_of(rng: np.random.Generator, metric: Any = "cosine") -> HnswIndex:
    return HnswIndex.build(unit(rng, COUNT, DIM), metric, HnswConfig(M=4, ef=16))


@pytest.mark.parametrize("metric", ["cosine", "l2", "ip"])
def test_an_uploaded_index_finds_what_it_finds_on_the_cpu(metric: Any, rng: np.random.Generator) -> None:
    index, queries = index_of(rng, metric), unit(rng, 2, DIM)
    found, wanted = (one.search(queries, 5, ef=16) for one in (DeviceWalk(index, device=DEVICE), index))
    assert found.way == "device walk"
    assert (found.positions == wanted.positions).all()
    np.testing.assert_allclose(found.distances, wanted.distances, rtol=1e-5, atol=1e-6)
    assert (found.work < COUNT).all()


def test_removed_and_filtered_vectors_do_not_come(rng: np.random.Generator) -> None:
    index, queries = index_of(rng), unit(rng, 2, DIM)
    index.remove(np.arange(0, COUNT, 5))
    uploaded = DeviceWalk(index, device=DEVICE)
    live = np.arange(COUNT) % 5 > 0
    truth = exact_search(index.vectors, queries, 4, "cosine", live)
    found = uploaded.search(queries, 4, ef=16)
    assert (found.positions == truth.positions).all()
    for allowed in (np.arange(COUNT) % 4 > 0, np.arange(COUNT) == 6):
        truth = exact_search(index.vectors, queries, 4, "cosine", live & allowed)
        found = uploaded.search(queries, 4, ef=16, allowed=allowed)
        assert (found.positions == truth.positions).all()
    assert found.way == "device scan"


def test_what_a_walk_leaves_out_a_scan_completes(rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    index, queries = index_of(rng), unit(rng, 1, DIM)
    uploaded = DeviceWalk(index, device=DEVICE)
    far = np.zeros(COUNT, np.bool_)
    far[exact_search(index.vectors, queries, COUNT, "cosine").positions[0, -40:]] = True
    monkeypatch.setattr(walk, "MOST_EF", 64)
    found = uploaded.search(queries, 5, ef=8, allowed=far)
    assert (found.positions == exact_search(index.vectors, queries, 5, "cosine", far).positions).all()
    assert found.way == "filtered device walk"
    assert found.work[0] > int(far.sum())


def test_a_recall_that_is_asked_for_widens_the_beam_and_is_told(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    index, queries = index_of(rng), unit(rng, 1, DIM)
    uploaded = DeviceWalk(index, device=DEVICE)
    recalls = {32: 0.9, 64: 0.99}
    monkeypatch.setattr(uploaded, "recall_of", lambda k, beam: recalls[beam])
    monkeypatch.setattr("vecdb.index.device_walk._BEAMS", tuple(recalls))
    found = uploaded.search(queries, 3, target_recall=0.9)
    assert found.estimated_recall is not None
    assert found.estimated_recall.tolist() == [pytest.approx(0.9)]
    for target in (0.95, 0.995):  # beams that would hold all: a scan
        found = uploaded.search(queries, 3, target_recall=target)
        assert (found.way, found.estimated_recall.tolist()) == ("device scan", [1.0])  # type: ignore[union-attr]


def test_the_recall_of_a_beam_is_what_it_finds_of_others(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vecdb.index.device_walk._HELD_OUT", 3)
    index = index_of(rng)
    uploaded = DeviceWalk(index, device=DEVICE)
    asked = np.arange(0, COUNT, COUNT // 3)[:3]
    found = index.search(index.vectors[asked], 4, ef=8).positions
    truth = exact_search(index.vectors, index.vectors[asked], 4, "cosine").positions
    wanted = np.mean([len(set(a[1:].tolist()) & set(b.tolist())) / 3 for a, b in zip(truth, found)])
    assert uploaded.recall_of(3, 8) == pytest.approx(wanted, abs=0.12)


def test_entries_are_the_lowest_level_with_few_enough() -> None:
    levels = np.zeros(10_000, np.uint8)
    levels[::16], levels[::256] = 1, 2
    live = np.ones(10_000, np.bool_)
    assert (entries_of(levels, live) == np.arange(0, 10_000, 256)).all()
    live[256] = False
    assert 256 not in entries_of(levels, live)
    assert len(entries_of(np.zeros(9, np.uint8), np.ones(9, np.bool_))) == 9
