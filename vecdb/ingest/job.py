"""The ingestion job: files in, chunks embedded and written, each file in one transaction.

The database itself remembers what was read: beside each source's records stands a fingerprint of the file's content
and of the settings that matter. A job that was killed therefore needs no journal: the next run finds the fingerprints
of what was finished, skips those files, and goes on with the rest. Reading runs ahead in threads; embedding and
writing stay in the caller's thread, over chunks of several files at a time, and in the order of the paths, so that
two runs give the same rows.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vecdb.errors import InvalidInput, MissingExtra
from vecdb.ingest.documents import Unreadable
from vecdb.ingest.prepare import Failed, Prepared, Preparer
from vecdb.ingest.report import FileOutcome, IngestReport
from vecdb.ingest.settings import IngestSettings
from vecdb.ingest.walk import find_files, resolve
from vecdb.ingest.writing import Writer
from vecdb.metadata import encode

if TYPE_CHECKING:
    from vecdb.collection import Collection

# A file of more rows is written in blocks, the first under the file's own name and the others under names of theirs:
# neither memory, nor the time that the write lock is held, nor the work lost when the job is killed grows with the
# file.
BLOCK_RECORDS = 1_000
_BLOCK_MARK = "#block-"


def _nothing(_: Any) -> None:
    pass


def _never() -> bool:
    return False


@dataclass(slots=True)
class IngestJob:
    """Brings a collection up to date with files. Run it as often as you like; `report` counts all of its runs.

    on_total is told how many files there are, before the first; on_file of each file when it is done; on_embedded of
    chunks that got their vectors. stop is asked all along: once it is True the job ends cleanly, after the
    transaction at hand. With dry_run nothing is embedded or written.
    """

    collection: Collection
    settings: IngestSettings = field(default_factory=IngestSettings)
    dry_run: bool = False
    on_total: Callable[[int], None] = _nothing
    on_file: Callable[[FileOutcome], None] = _nothing
    on_embedded: Callable[[int], None] = _nothing
    stop: Callable[[], bool] = _never
    report: IngestReport = field(default_factory=IngestReport)

    def run(self, paths: Sequence[str | Path], *, prune: bool = False) -> IngestReport:
        """Read the files at and below paths. prune: forget the sources below paths whose files are gone."""
        roots = resolve(paths)
        found = find_files(roots, self.settings.selection)
        for folder, reason in found.unreadable.items():
            self._note(FileOutcome(str(folder), "failed", reason=reason))
        gone = [source for root in roots for source in self.sources_below(root)] if prune else []
        return self.run_files(found.files, [source for source in gone if not self.settings.path_of(source).exists()])

    def run_files(self, files: Sequence[Path], gone: Iterable[str] = ()) -> IngestReport:
        """Forget the sources in gone, then read files: in this order, so that the ids of a renamed file are free
        again.
        """
        started = time.perf_counter()
        for path in files:
            self.settings.source_of(path)  # a file outside the root is an error of the call: nothing is written yet
        self.on_total(len(files))
        known = self.collection.sources()
        writer = Writer(
            self.collection,
            batch_chunks=self.settings.batch_chunks,
            on_embedded=self.on_embedded,
            stop=self.stop,
            unlike=None if self.settings.duplicates is None else (self.settings.duplicates, self.settings.threshold),
        )
        for source in dict.fromkeys(gone):
            self._forget(source, known, writer)
        with Preparer(self.settings, known, self.stop) as preparer:
            _Run(self, preparer, writer, known).ingest(preparer.prepare(files))
        if self.settings.duplicates is not None:
            self.report.duplicates = (self.report.duplicates or 0) + writer.duplicates
        self.report.seconds += time.perf_counter() - started
        return self.report

    def sources_below(self, path: Path) -> list[str]:
        """The sources that are, or were, files at or below a path."""
        return [
            source
            for source in self.collection.sources()
            if _BLOCK_MARK not in source and self.settings.path_of(source).is_relative_to(path)
        ]

    def _forget(self, source: str, known: dict[str, str], writer: Writer) -> None:
        if not self.dry_run:
            for part in (*_blocks_of(source, known), source):
                writer.replace(part, [], None)
                known.pop(part, None)
        self._note(FileOutcome(source, "removed"))

    def _note(self, outcome: FileOutcome) -> None:
        self.report.note(outcome)
        self.on_file(outcome)


@dataclass(slots=True)
class _Run:
    """One pass over prepared files. waiting: documents whose chunks are embedded together, once there are enough."""

    job: IngestJob
    preparer: Preparer
    writer: Writer
    known: dict[str, str]
    waiting: list[Prepared] = field(default_factory=list)

    def ingest(self, items: Iterator[Prepared | Failed]) -> None:
        for item in items:
            if isinstance(item, Failed):
                self.job._note(FileOutcome(item.source, "failed", reason=item.reason))
            elif item.is_unchanged:
                self.job._note(FileOutcome(item.source, "unchanged"))
            elif self.job.dry_run:
                self._count(item)
            elif item.kind.is_rows:
                self._write_waiting()
                self._write_rows(item)
            else:
                self.waiting.append(item)
                if sum(len(held.records) for held in self.waiting) >= self.job.settings.batch_chunks:
                    self._write_waiting()
        self._write_waiting()
        self.job.report.interrupted = self.job.stop()

    def _count(self, item: Prepared) -> None:
        """What a dry run tells of a file."""
        try:
            chunks = sum(1 for _ in self.preparer.row_records(item)) if item.kind.is_rows else len(item.records)
        except (Unreadable, MissingExtra) as error:
            self.job._note(FileOutcome(item.source, "failed", reason=str(error)))
            return
        self._done(item, chunks)

    def _write_waiting(self) -> None:
        """Embed the chunks of the waiting documents together; write each document in a transaction of its own."""
        items, self.waiting = self.waiting, []
        records = [record for item in items for record in item.records]
        if not self.writer.embed(records, [item.source for item in items if item.known is not None]):
            return
        for item in items:
            if self.job.stop():
                return
            try:
                self._replace(item, item.records)
            except (
                InvalidInput
            ) as error:  # this file's records are at fault. A full disk or a lost lock ends the job instead
                self.job._note(FileOutcome(item.source, "failed", reason=str(error)))

    def _write_rows(self, item: Prepared) -> None:
        try:
            records = self.preparer.row_records(item)
            first = list(islice(records, BLOCK_RECORDS))
            second = list(islice(records, BLOCK_RECORDS))
            if not self.writer.embed(first, [item.source] if item.known is not None else []):
                return
            if not second:
                self._replace(item, first)
            else:
                self._write_blocks(item, first, second, records)
        except (Unreadable, MissingExtra, InvalidInput) as error:
            self.job._note(FileOutcome(item.source, "failed", reason=str(error)))

    def _write_blocks(
        self,
        item: Prepared,
        first: list[dict[str, Any]],
        block: list[dict[str, Any]],
        records: Iterator[dict[str, Any]],
    ) -> None:
        """A large file: while it lasts its fingerprint is "partial", so that a run which ends half-way is continued.

        A block whose content the database has already is not embedded again; when all are written the first block is
        written once more with the fingerprint of the whole.
        """
        self.writer.replace(item.source, first, "partial")
        settings = item.fingerprint.partition(":")[2]
        total, number, kept = len(first), 1, {item.source}
        while block:
            number += 1
            part = f"{item.source}{_BLOCK_MARK}{number}"
            fingerprint = f"{_digest(block)}:{settings}"
            if self.known.get(part) != fingerprint:
                if not self.writer.embed(block, [part] if part in self.known else []):
                    return
                self.writer.replace(part, [{**record, "parent": part} for record in block], fingerprint)
            kept.add(part)
            total += len(block)
            block = list(islice(records, BLOCK_RECORDS))
        self._replace(item, first, total, kept)

    def _replace(
        self, item: Prepared, records: list[dict[str, Any]], total: int | None = None, kept: set[str] | None = None
    ) -> None:
        """Write a source's last (mostly: only) transaction, and forget blocks that a longer version of it had."""
        for part in _blocks_of(item.source, self.known):
            if part not in (kept or ()):
                self.writer.replace(part, [], None)
        self.writer.replace(item.source, records, item.fingerprint)
        self._done(item, len(records) if total is None else total)

    def _done(self, item: Prepared, chunks: int) -> None:
        if chunks == 0:
            self.job._note(FileOutcome(item.source, "empty", reason="there is no text in it"))
        else:
            self.job._note(FileOutcome(item.source, "added" if item.known is None else "updated", chunks))


def _blocks_of(source: str, known: Iterable[str]) -> list[str]:
    return [name for name in known if name.startswith(source + _BLOCK_MARK)]


def _digest(records: Sequence[dict[str, Any]]) -> str:
    hasher = hashlib.sha256()
    for record in records:
        hasher.update(f"{record['id']}\0{record['text']}\0{encode(record['metadata'])}\0".encode())
    return hasher.hexdigest()[:40]
