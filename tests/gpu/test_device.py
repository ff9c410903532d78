"""A database opened with a GPU gives the answers of one without: the same scenarios on both, through the interpreter here."""

from __future__ import annotations

import logging
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import vecdb
from vecdb import database
from vecdb.errors import InvalidInput, MissingExtra
from vecdb.gpu import launch
from vecdb.index import device_scan
from vecdb.index.device_scan import DeviceScan, scanner_on
from vecdb.index.exact import exact_search

DEVICE = "cuda:0" if torch.cuda.is_available() else "cpu"
without_gpu = pytest.mark.skipif(DEVICE != "cpu", reason="there is a GPU")


def unit(rng: np.random.Generator, *shape: int) -> Any:
    vectors = rng.normal(size=shape).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.mark.parametrize("metric", ["cosine", "l2", "ip"])
def test_a_scan_on_the_device_answers_as_one_on_the_cpu(metric: Any, rng: np.random.Generator) -> None:
    vectors, queries = unit(rng, 300, 20), unit(rng, 3, 20)
    vectors.flags.writeable = False  # as a memory map is
    scan = DeviceScan(vectors, metric, device=DEVICE)
    few = np.arange(300) % 100 == 3
    for k, allowed in ((5, None), (40, np.arange(300) % 3 == 0), (8, few), (3, np.zeros(300, np.bool_)), (1100, few)):
        found, wanted = scan.search(queries, k, allowed), exact_search(vectors, queries, k, metric, allowed)
        np.testing.assert_allclose(found.distances, wanted.distances, rtol=1e-5, atol=1e-6)
        assert (found.positions == wanted.positions).all()
        assert (found.work == wanted.work).all()


@pytest.fixture
def on_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "scanner_on", lambda device: partial(DeviceScan, device=DEVICE))


def answers(path: Path, vectors: Any, queries: Any) -> list[Any]:
    """What a database with an index, a tail and a deletion says to several searches."""
    found = []
    with vecdb.open(path, background=False) as db:
        docs = db.collection("docs")
        ids = [f"r{i}" for i in range(len(vectors))]
        docs.add(ids=ids[:80], vectors=vectors[:80], metadata=[{"even": i % 2 == 0} for i in range(80)])
        docs.optimize()
        docs.add(ids=ids[80:], vectors=vectors[80:])
        docs.delete(["r7", "r81"])
        for options in ({}, {"where": {"even": True}}, {"exact": True}, {"k": 200}):
            found += [
                [(h.id, pytest.approx(h.score, abs=1e-5)) for h in hits] for hits in docs.search(queries, **options)
            ]
    return found


@pytest.mark.usefixtures("on_device")
def test_a_database_answers_the_same_with_a_gpu(
    tmp_path: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    vectors, queries = unit(rng, 90, 16), unit(rng, 2, 16)
    with_gpu = answers(tmp_path / "gpu.vecdb", vectors, queries)
    with vecdb.open(tmp_path / "gpu.vecdb", background=False) as db:
        docs = db.collection("docs")
        docs.optimize()
        hits = docs.search(queries[0], k=3)
        assert hits.estimated_recall == 1.0
        assert "with a GPU" in str(docs.explain(queries[0], k=3))
    monkeypatch.undo()
    assert with_gpu == answers(tmp_path / "cpu.vecdb", vectors, queries)


def test_a_gpu_without_room_leaves_the_search_to_the_cpu(
    tmp_path: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    vectors, queries = unit(rng, 90, 16), unit(rng, 2, 16)

    def full(vectors: Any, metric: Any) -> Any:
        raise launch.OutOfDeviceMemory("no room")

    wanted = answers(tmp_path / "cpu.vecdb", vectors, queries)
    monkeypatch.setattr(database, "scanner_on", lambda device: full)
    with caplog.at_level(logging.WARNING, "vecdb"):
        assert answers(tmp_path / "full.vecdb", vectors, queries) == wanted
    assert "do not fit on the GPU" in caplog.text


def test_a_search_without_room_is_answered_by_the_cpu(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    vectors, queries = unit(rng, 30, 8), unit(rng, 2, 8)
    scan = DeviceScan(vectors, "cosine", device=DEVICE)

    def full(*args: Any, **options: Any) -> Any:
        raise launch.OutOfDeviceMemory("no room")

    monkeypatch.setattr("vecdb.gpu.topk.topk", full)
    found, wanted = scan.search(queries, 4, None), exact_search(vectors, queries, 4, "cosine", None)
    assert (found.positions == wanted.positions).all()


@without_gpu
def test_a_gpu_that_is_not_there_is_refused_before_a_file_is_made(path: Path) -> None:
    with pytest.raises(InvalidInput, match="0 CUDA devices"):
        vecdb.open(path, device="cuda:0")
    with pytest.raises(InvalidInput, match="device is 'gpu'"):
        vecdb.open(path, device="gpu")
    assert not path.exists()
    vecdb.open(path, device="auto").close()


@without_gpu
def test_a_service_on_a_gpu_that_is_not_there_is_refused_before_it_listens(path: Path) -> None:
    pytest.importorskip("granian")
    from vecdb.server.run import serve
    from vecdb.server.settings import Settings

    with pytest.raises(InvalidInput, match="0 CUDA devices"):
        serve(path, Settings(device="cuda:0", port=0))
    assert not path.exists()


def test_absent_packages_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "find_spec", lambda package: None)
    assert scanner_on("auto") is None
    monkeypatch.setitem(sys.modules, "triton", None)
    with pytest.raises(MissingExtra, match=r"vecdb\[gpu\]"):
        device_scan.scanner_on("cuda:0")
