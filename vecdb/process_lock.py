"""A lock between processes. As a rule nobody waits for it: who does not get it leaves the work to the one who has it."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

_POLL_S = 0.05


@contextmanager
def try_lock(path: Path, *, wait: bool = False) -> Iterator[bool]:
    """True while this process holds the lock; False if another one does (never, with wait).

    The system frees it when a process dies.
    """
    with path.open("ab") as file:
        mine = _locked(file)
        while wait and not mine:
            time.sleep(_POLL_S)
            mine = _locked(file)
        try:
            yield mine
        finally:
            if mine:
                _unlock(file)  # closing it would not be enough: a child forked meanwhile has it open, too


if os.name == "nt":
    import msvcrt

    def _locked(file: BinaryIO) -> bool:
        file.seek(0)  # the byte that is locked is the one at the file's position
        try:
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined,unused-ignore]
        except OSError:
            return False
        return True

    def _unlock(file: BinaryIO) -> None:
        file.seek(0)
        msvcrt.locking(file.fileno(), msvcrt.LK_UNLCK, 1)  # type: ignore[attr-defined,unused-ignore]
else:
    import fcntl

    def _locked(file: BinaryIO) -> bool:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        return True

    def _unlock(file: BinaryIO) -> None:
        fcntl.flock(file, fcntl.LOCK_UN)
