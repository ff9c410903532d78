"""The parent's side of a worker: a process that waits for its turn, so that several can be measured in alternation."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any

from bench import ROOT
from bench.machine import one_thread


class ChildFailed(Exception):
    """A child could not do what it was told; the message says what its system said."""


class Child:
    """One worker process, of the module `worker`. single: all its libraries get one thread and the process one core."""

    def __init__(self, system: str, folder: Path, *, single: bool = False, worker: str = "bench.worker") -> None:
        self.system = system
        self.limited = single and hasattr(os, "sched_setaffinity")
        # A file, not a pipe: nobody reads along, and a full pipe would stop the child.
        self._said = tempfile.TemporaryFile()  # noqa: SIM115 - closed in __exit__
        self._process = subprocess.Popen(
            [sys.executable, "-m", worker, system, str(folder)],
            cwd=ROOT,
            env=one_thread() if single else None,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
            text=True,
        )
        if self.limited:
            # The child reads its first order before it imports anything heavy, so its thread pools see the one core.
            os.sched_setaffinity(self._process.pid, {max(os.sched_getaffinity(0))})

    def __enter__(self) -> Child:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()
        self._said.close()

    def tell(self, order: str, **arguments: Any) -> dict[str, Any]:
        """Give an order and wait for its answer. Raises ChildFailed."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps({"do": order, **arguments}) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise ChildFailed(f"the process of {self.system} ended: {self._last_words()}")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise ChildFailed(f"{self.system} could not {order}: {answer['error']}")
        return answer

    def _last_words(self) -> str:
        self._said.seek(0)
        lines = self._said.read().decode(errors="replace").strip().splitlines()
        return " | ".join(lines[-3:]) or "it said nothing"
