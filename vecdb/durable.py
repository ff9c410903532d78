"""Every durable file operation outside SQLite: create, write, sync, rename, remove.

They go through one module so that a test can record, reorder or fail them in one place. A file is complete or absent: it is
written under a temporary name, synced, renamed, and then the folder is synced, so that the name survives a power cut.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

Chunk = bytes | bytearray | memoryview


def write_file(path: Path, chunks: Iterable[Chunk]) -> None:
    """Write chunks to path so that after a crash it holds all of them or is not there (or is the old one)."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            for chunk in chunks:
                file.write(chunk)
            sync_file(file)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def sync_file(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Make renames and removals in folder last. Windows keeps no handle on folders and needs none."""
    if os.name == "nt":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def make_folder(folder: Path) -> None:
    if not folder.is_dir():
        folder.mkdir(exist_ok=True)
        sync_folder(folder.parent)


def remove_file(path: Path) -> None:
    """Remove path if it is a file that can go now.

    One that is still mapped lives on until nobody maps it; Windows keeps its name until then, too.
    """
    with suppress(PermissionError, IsADirectoryError):
        path.unlink(missing_ok=True)
