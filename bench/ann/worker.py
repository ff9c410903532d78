"""A child process with one index library in it, for one set: `python -m bench.ann.worker PEER FOLDER`.

The folder is where the index is saved. Each public method of Worker is an order of the parent, which is `bench.ann.measure`.
"""

from __future__ import annotations

import ctypes
import gc
import os
import shutil
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.machine import peak_memory_mb
from bench.worker import serve

if TYPE_CHECKING:
    from bench.ann.peers.base import Peer, Setting
    from bench.vectors import VectorSet

K = 10

_WARM_UP = 200  # queries before anything is timed: they load kernels and caches
_SMALL = 1_000  # vectors in a build that only warms up
_ENOUGH = 0.9995  # recall above which a larger beam is not worth a measurement
_OVERHEAD_CALLS = 1_000
_OVERHEAD_REPEATS = 5


class Worker:
    """name: of the peer. folder: of the saved index, made by `build`."""

    def __init__(self, name: str, folder: Path) -> None:
        self._name = name
        self._folder = folder
        self._peer: Peer
        self._set: VectorSet

    def start(self, set: str, queries: int, threads: int | None, least_s: float) -> dict[str, Any]:
        """Import the library and map the set. threads=None: as many as there are processors for this process.

        least_s: the time of one measurement; a single batch call of a quick library may take less.
        """
        from bench.vectors import load_set

        self._set = load_set(set).first_queries(queries)
        self._queries = self._set.queries.copy()
        self._each = list(self._queries)
        self._least_s = least_s
        processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        self._threads = threads or processors
        self._peer = self._make()
        return {"threads": self._threads}

    def build(self) -> dict[str, Any]:
        """Build and save. warm_up_s: of a small build before that, by which Numba's kernels are compiled or read."""
        begun = time.perf_counter()
        if "numba" in sys.modules:
            self._peer.build(self._set.base[:_SMALL].copy())
            self._peer = self._make()
        warm_up_s = time.perf_counter() - begun
        base = self._set.base.copy()  # read from the disk before the clock starts
        begun = time.perf_counter()
        self._peer.build(base)
        build_s = time.perf_counter() - begun
        shutil.rmtree(self._folder, ignore_errors=True)
        self._folder.mkdir(parents=True)
        self._peer.save(self._folder)
        disk = sum(path.stat().st_size for path in self._folder.rglob("*") if path.is_file())
        return {
            "build_s": build_s,
            "warm_up_s": warm_up_s,
            "threads": self._threads,
            "built_with": self._peer.built_with,
            "disk_mb": disk / 1e6,
            "peak_mb": peak_memory_mb(),
        }

    def load(self) -> dict[str, Any]:
        """Read the saved index and ask it something. memory_mb: by how much that made this process grow, without pages of mapped
        files, which the system shares between processes and takes back when it wants; those are mapped_mb.

        Kernels of Numba's are compiled or read from a cache on first use and are no part of an index: a library that has
        some loads and answers once before, and its arrays go back to the system when it is dropped.
        """
        if "numba" in sys.modules:
            self._load_and_ask()
            self._peer = self._make()
        private, mapped = _resident_mb()
        load_s, first_s = self._load_and_ask()
        after, mapped_after = _resident_mb()
        grown = {"memory_mb": after - private, "mapped_mb": mapped_after - mapped}
        return {"load_s": load_s, "first_s": first_s, **grown}

    def survey(self, budget_s: float) -> dict[str, Any]:
        """One batch call at each setting of the ladder, until recall is as good as complete or the time is up."""
        points: list[dict[str, Any]] = []
        complete = 0
        until = time.perf_counter() + budget_s
        self._warm()
        for setting in self._peer.ladder:
            points.append(self._timed(setting, "batch", with_recall=True))
            complete = complete + 1 if points[-1]["recall"] >= _ENOUGH else 0
            if complete == 2 or time.perf_counter() > until:
                break
        return {"points": points}

    def turn(self, settings: list[Setting], mode: str, with_recall: bool) -> dict[str, Any]:
        """All queries at each of these settings. mode: "batch", one call, or "one", a call each."""
        self._peer.tune(settings[0])
        self._warm()
        return {"points": [self._timed(setting, mode, with_recall=with_recall) for setting in settings]}

    def overhead(self, setting: Setting) -> dict[str, Any]:
        """What a call costs beside the search: one query again and again, in one call and in a call each.

        All that it touches stays in the caches, so the difference is the way from Python into the library and back.
        """
        self._peer.tune(setting)
        query = self._each[0]
        same = query[None].repeat(_OVERHEAD_CALLS, axis=0)
        together, apart = [], []
        for _ in range(_OVERHEAD_REPEATS):
            begun = time.perf_counter()
            self._peer.batch(same, K)
            together.append(time.perf_counter() - begun)
            begun = time.perf_counter()
            for _ in range(_OVERHEAD_CALLS):
                self._peer.one(query, K)
            apart.append(time.perf_counter() - begun)
        scale = 1e6 / _OVERHEAD_CALLS
        return {"in_batch_us": min(together) * scale, "alone_us": min(apart) * scale}

    def _make(self) -> Peer:
        from bench.ann.peers import make_peer

        return make_peer(self._name, self._set.metric, self._queries.shape[1], self._threads)

    def _load_and_ask(self) -> tuple[float, float]:
        """Seconds of loading, and of the first answers."""
        begun = time.perf_counter()
        self._peer.load(self._folder)
        loaded = time.perf_counter()
        self._peer.tune(self._peer.ladder[0])
        self._warm()
        self._peer.one(self._each[0], K)
        return loaded - begun, time.perf_counter() - loaded

    def _warm(self) -> None:
        """Another process had the caches until now."""
        self._peer.batch(self._queries[:_WARM_UP], K)

    def _timed(self, setting: Setting, mode: str, *, with_recall: bool) -> dict[str, Any]:
        """All queries, over and over until enough time has passed to be measured well."""
        self._peer.tune(setting)
        calls = 0
        begun = time.perf_counter()
        while True:
            rows = self._answers(mode)
            calls += 1
            took = time.perf_counter() - begun
            if took >= self._least_s:
                break
        point: dict[str, Any] = {"setting": setting, "qps": calls * len(self._each) / took}
        if with_recall:
            point["recall"] = self._set.recall(_as_rows(rows))
        return point

    def _answers(self, mode: str) -> Any:
        if mode == "batch":
            return self._peer.batch(self._queries, K)
        ask = self._peer.one
        return [ask(query, K) for query in self._each]


def _as_rows(rows: Any) -> Any:
    """(Q, K) int64; what a library marks as missing (a largest unsigned number, -1) becomes no row."""
    import numpy as np

    return np.asarray(rows).astype(np.int64).reshape(-1, K)


def _resident_mb() -> tuple[float, float]:
    """What this process has in memory now, after freed blocks went back to the system where that can be asked for: of its own,
    and of mapped files.
    """
    gc.collect()
    if sys.platform != "linux":
        return peak_memory_mb(), 0.0
    with suppress(OSError, AttributeError):  # another C library: what it holds back is counted
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    _, resident, shared, *_ = (int(pages) for pages in Path("/proc/self/statm").read_text().split())
    page_mb = os.sysconf("SC_PAGE_SIZE") / 1e6
    return (resident - shared) * page_mb, shared * page_mb


if __name__ == "__main__":
    serve(Worker(sys.argv[1], Path(sys.argv[2])))
