"""Threads over ranges: our own, because Numba's parallel kernels abort or hang when two threads or a fork meet them."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType


class RangePool:
    """Runs work(start, stop) over the ranges of 0 … count-1. One thread means the calling thread, without any pool.

    A context manager: threads live while it is open, so nothing is left behind for a fork to break.
    """

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix="vecdb-index") if threads > 1 else None

    def __enter__(self) -> RangePool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._executor is not None:
            self._executor.shutdown()

    def run(self, work: Callable[[int, int], None], count: int, *, step: int) -> None:
        """Call work on ranges of about `step`, each item once, in no certain order. The first error is raised."""
        if self._executor is None or count <= step:
            if count:
                work(0, count)
            return
        starts = range(0, count, step)
        for done in [self._executor.submit(work, start, min(start + step, count)) for start in starts]:
            done.result()
