"""How files become records: every choice of an ingestion in one frozen value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vecdb.duplicates import THRESHOLD, Policy, check_policy
from vecdb.errors import InvalidInput
from vecdb.ingest.chunking import Chunking
from vecdb.ingest.kinds import Kind
from vecdb.ingest.tables import RowOptions
from vecdb.ingest.walk import Selection
from vecdb.metadata import encode

_READER_VERSION = 1  # raise it when the readers give another text for the same file: every file is then read again


@dataclass(frozen=True, slots=True)
class IngestSettings:
    """selection, chunking, rows: which files, how documents are cut, what rows mean.

    root: sources are named by their path below it; None: by absolute path. metadata: put on every record. readers:
    threads that read ahead; None: by the number of cores. batch_chunks: how many chunks are embedded at a time.
    duplicates, threshold: what becomes of chunks that are nearly the same as one of another source, or as one before them
    in their own: see `Collection.add`. max_bytes, timeout_s: for one document; a larger or slower one is reported as failed.
    """

    selection: Selection = field(default_factory=Selection)
    chunking: Chunking = field(default_factory=Chunking)
    rows: RowOptions = field(default_factory=RowOptions)
    root: Path | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    readers: int | None = None
    batch_chunks: int = 128
    duplicates: Policy | None = None
    threshold: float = THRESHOLD
    max_bytes: int = 200_000_000
    timeout_s: float = 300.0

    def __post_init__(self) -> None:
        for name in ("readers", "batch_chunks", "max_bytes", "timeout_s"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise InvalidInput(f"{name} is {value}; it must be more than 0")
        if self.duplicates is not None:
            check_policy(self.duplicates, self.threshold)
        if self.root is not None:
            object.__setattr__(self, "root", Path(self.root).expanduser().resolve())

    def source_of(self, path: Path) -> str:
        """What a file is called in the database. Raises InvalidInput if it is not below the root."""
        if self.root is None:
            return path.as_posix()
        if not path.is_relative_to(self.root):
            raise InvalidInput(f"{path} is not below the root {self.root}; name another root, or leave it out")
        return path.relative_to(self.root).as_posix()

    def path_of(self, source: str) -> Path:
        """The file that a source was read from; a relative path if it was no file (standard input)."""
        return self.root / source if self.root is not None else Path(source)

    def identity_for(self, kind: Kind) -> str:
        """Text that changes when a setting does that matters for this kind of file: part of a source's fingerprint."""
        how = self.chunking.identity if not kind.is_rows or self.rows.split else ""
        rows = repr(self.rows) if kind.is_rows else ""
        return f"{_READER_VERSION}|{kind.name}|{how}|{rows}|{encode(dict(self.metadata))}"
