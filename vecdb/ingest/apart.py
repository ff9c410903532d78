"""The parent's side of the reading processes: ask one for a document, and survive what becomes of it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Lock, Timer

import orjson

from vecdb.ingest.documents import Document, Unreadable
from vecdb.ingest.kinds import Kind


class ReadingProcesses:
    """Processes that read documents. Any number of threads may ask; each request has a process to itself while it
    lasts.

    A process is started when none is idle, so there are at most as many as threads ask at once. timeout_s: how long one
    document may take; then its process is killed. `close` ends all of them.
    """

    def __init__(self, *, timeout_s: float) -> None:
        self.timeout_s = timeout_s
        self._idle: SimpleQueue[subprocess.Popen[bytes]] = SimpleQueue()
        self._all: set[subprocess.Popen[bytes]] = set()
        self._lock = Lock()
        self._is_closed = False

    def close(self) -> None:
        """End the processes; requests under way fail."""
        with self._lock:
            self._is_closed = True
            processes, self._all = self._all, set()
        for process in processes:
            _end(process)

    def read(self, path: Path, kind: Kind, max_bytes: int) -> Document:
        """The document in a file. Raises Unreadable with the reason, a crash and a timeout included."""
        process = self._take()
        request = {"path": str(path), "kind": [kind.name, kind.reader, kind.language], "max_bytes": max_bytes}
        late = False

        def kill() -> None:
            nonlocal late
            late = True
            process.kill()

        timer = Timer(self.timeout_s, kill)
        timer.daemon = True
        timer.start()
        try:
            answer = _ask(process, orjson.dumps(request) + b"\n")
        finally:
            timer.cancel()
        if answer is None or late:
            with contextlib.suppress(subprocess.TimeoutExpired):  # its own exit code tells more than our signal would
                process.wait(timeout=5)
            self._forget(process)
            raise Unreadable(f"took longer than {self.timeout_s:g} s to read" if late else _last_words(process))
        self._idle.put(process)
        fields = orjson.loads(answer)
        if "reason" in fields:
            raise Unreadable(fields["reason"])
        return Document(fields["text"], fields["title"], tuple(fields["pages"]))

    def _take(self) -> subprocess.Popen[bytes]:
        with contextlib.suppress(Empty):
            return self._idle.get_nowait()
        with self._lock:  # held over the start: no process may appear after `close`
            if self._is_closed:
                raise Unreadable("the job has ended")
            try:
                process = _start()
            except OSError as error:
                raise Unreadable(f"no process could be started to read it ({error})") from error
            self._all.add(process)
        return process

    def _forget(self, process: subprocess.Popen[bytes]) -> None:
        with self._lock:
            self._all.discard(process)
        _end(process)


def _start() -> subprocess.Popen[bytes]:
    """A fresh process. It is deaf to Ctrl-C, which is the parent's to handle, and finds packages where the parent
    does.
    """
    return subprocess.Popen(
        [sys.executable, "-m", "vecdb.ingest.worker"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        start_new_session=True,
    )


def _ask(process: subprocess.Popen[bytes], request: bytes) -> bytes | None:
    """The line answered; None if the process died over it."""
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        process.stdin.write(request)
        process.stdin.flush()
        return process.stdout.readline() or None
    except OSError:
        return None


def _last_words(process: subprocess.Popen[bytes]) -> str:
    """What a process died of, for the user."""
    code = process.poll()
    if code is not None and code < 0:
        with contextlib.suppress(ValueError):
            return f"its parser crashed ({signal.Signals(-code).name})"
    return f"its parser crashed (exit code {code})"


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with contextlib.suppress(OSError):  # bytes may wait in a pipe whose reader is gone
                pipe.close()
