"""A child process with one index of many vectors in it: `python -m bench.million_worker PEER FOLDER`.

It is a worker of `bench ann` that keeps vecdb's index as a database does, in a segment that is mapped, and can also be asked
to time its first answer. Each public method is an order of the parent, which is `bench.million`.
"""

from __future__ import annotations

import json
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from bench.ann.peers import make_peer
from bench.ann.peers.base import Metric, Peer
from bench.ann.worker import K, Worker, _as_rows, _resident_mb
from bench.churn_worker import private_mb
from bench.machine import peak_memory_mb
from bench.worker import serve

_SMALL = 1_000  # vectors in a build that only warms up
_DEFAULT = {"ef": 64}
_CALLS = 200  # single queries after the first


class LargeWorker(Worker):
    """Modes of `turn`: "one" and "batch" as there; "each", a call for each query from as many threads as there may be."""

    def build(self) -> dict[str, Any]:
        """Build and save. peak_mb: of the whole process, of which base_mb are the vectors as they were given.

        build_cpu_s: processor time of all threads, which other work on the machine changes little.
        """
        self._peer.build(self._set.base[:_SMALL].copy())
        self._peer = self._make()
        base = np.load(_file_of(self._set.base))  # not through the map, whose pages would count
        begun, cpu_begun = time.perf_counter(), time.process_time()
        self._peer.build(base)
        build_s, build_cpu_s = time.perf_counter() - begun, time.process_time() - cpu_begun
        peak_mb = peak_memory_mb()
        self._folder.mkdir(parents=True)
        begun = time.perf_counter()
        self._peer.save(self._folder)
        return {
            "build_s": build_s,
            "build_cpu_s": build_cpu_s,
            "threads": self._threads,
            "built_with": self._peer.built_with,
            "peak_mb": peak_mb,
            "base_mb": base.nbytes / 1e6,
            "save_s": time.perf_counter() - begun,
            "file_mb": sum(path.stat().st_size for path in self._folder.iterdir()) / 1e6,
        }

    def open(self) -> dict[str, Any]:
        """Kernels from their cache, then the saved index, then answers one by one.

        resident_mb, private_mb: by how much opening and answering made this process grow, with and without pages of files.
        """
        begun = time.perf_counter()
        if self._name == "vecdb":
            from vecdb.index import kernels

            kernels.warm()
        warm_s = time.perf_counter() - begun
        before, private_before = _resident_mb(), private_mb()
        begun = time.perf_counter()
        self._peer.load(self._folder)
        open_s = time.perf_counter() - begun
        self._peer.tune(_DEFAULT)
        took = []
        for query in self._each[:_CALLS]:
            begun = time.perf_counter()
            self._peer.one(query, K)
            took.append(1e3 * (time.perf_counter() - begun))
        return {
            "warm_s": warm_s,
            "open_s": open_s,
            "first_ms": took[0],
            "second_ms": took[1],
            "median_ms": float(np.median(took[1:])),
            "resident_mb": _resident_mb() - before,
            "private_mb": private_mb() - private_before,
        }

    def climb(self, wanted: float) -> dict[str, Any]:
        """Recall at the settings of the ladder, cheapest first, until one reaches what is wanted; and at the default."""
        points: list[dict[str, Any]] = []
        for setting in self._peer.ladder:
            points.append({"setting": setting, "recall": self._recall(setting)})
            if points[-1]["recall"] >= wanted:
                break
        return {"points": points, "default": {"setting": _DEFAULT, "recall": self._recall(_DEFAULT)}}

    def _recall(self, setting: dict[str, Any]) -> float:
        self._peer.tune(setting)
        return self._set.recall(_as_rows(self._peer.batch(self._queries, K)))

    def _make(self) -> Peer:
        dimension = self._queries.shape[1]
        if self._name == "vecdb":
            return _in_segment(self._set.metric, dimension, self._threads)
        return make_peer(self._name, self._set.metric, dimension, self._threads)

    def _answers(self, mode: str) -> Any:
        if mode != "each":
            return super()._answers(mode)
        ask = self._peer.one
        parts = [self._each[start :: self._threads] for start in range(self._threads)]
        with ThreadPoolExecutor(self._threads) as pool:
            return list(pool.map(lambda part: [ask(query, K) for query in part], parts))


def _in_segment(metric: Metric, dimension: int, threads: int) -> Peer:
    """vecdb's peer, but saved in a segment and searched in its map."""
    from bench.ann.peers.vecdb import Vecdb
    from vecdb.index.hnsw import HnswIndex
    from vecdb.segments import open_segment, write_segment

    class InSegment(Vecdb):
        def save(self, folder: Path) -> None:
            checksum = write_segment(folder / "index.seg", self._index.settings(), self._index.arrays())
            (folder / "checksum.json").write_text(json.dumps(checksum))

        def load(self, folder: Path) -> None:
            segment = open_segment(folder / "index.seg", json.loads((folder / "checksum.json").read_text()))
            self._index = HnswIndex.open(segment.settings, segment.arrays)

    return InSegment(metric, dimension, threads)


def _file_of(mapped: Any) -> Path:
    return Path(mapped.filename)


if __name__ == "__main__":
    serve(LargeWorker(sys.argv[1], Path(sys.argv[2])))
