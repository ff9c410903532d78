"""One `vecdb ingest` from a person's side: the bar, Ctrl-C, and what is said at the end."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from threading import Event
from types import FrameType
from typing import TYPE_CHECKING, Any

from vecdb.cli.output import emit, print_table, talk
from vecdb.ingest import FileOutcome, IngestJob, IngestReport, IngestSettings
from vecdb.ingest.watch import watch

if TYPE_CHECKING:
    from vecdb.collection import Collection

_MOST_FAILURES_SHOWN = 20  # the JSON summary has them all


class IngestRun:
    """Runs jobs and talks about them. On a terminal a bar moves; elsewhere each written or failed file gets a line."""

    def __init__(self, collection: Collection, settings: IngestSettings, dry_run: bool, plain: bool) -> None:
        self._collection = collection
        self._settings = settings
        self._dry_run = dry_run
        self._plain = plain
        self._stop = Event()

    def once(self, paths: Sequence[str], *, prune: bool) -> bool:
        """Ingest, and sum up. True if some files failed; leaves with code 130 if Ctrl-C ended it."""
        with self._stopping_cleanly(), _progress(self._dry_run) as show:
            job = self._job(show)
            job.run(paths, prune=prune)
        self._sum_up(job.report)
        if job.report.interrupted:
            talk("stopped; what is written stays. Run the same command again to continue.")
            sys.exit(130)
        return bool(job.report.failures)

    def watch(self, paths: Sequence[str], *, prune: bool) -> bool:
        """Ingest, then follow changes until Ctrl-C. True if some files of the first pass failed."""
        first = IngestReport()

        def begin() -> None:
            nonlocal first
            with _progress(self._dry_run) as show:
                job = self._job(show)
                first = job.run(paths, prune=prune)
            self._sum_up(first)
            talk("watching for changes; Ctrl-C ends it")

        with self._stopping_cleanly():
            watch(lambda: self._job(_Lines()), paths, stop=self._stop, begin=begin)
        talk("stopped watching")
        return bool(first.failures)

    def _job(self, show: _Lines) -> IngestJob:
        return IngestJob(
            self._collection,
            self._settings,
            dry_run=self._dry_run,
            on_total=show.total,
            on_file=show.file,
            on_embedded=show.embedded,
            stop=self._stop.is_set,
        )

    @contextmanager
    def _stopping_cleanly(self) -> Iterator[None]:
        """The first Ctrl-C asks the job to stop after the file at hand; the second one does not wait."""

        def stop(number: int, frame: FrameType | None) -> None:
            if self._stop.is_set():
                raise KeyboardInterrupt
            self._stop.set()

        before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _sum_up(self, report: IngestReport) -> None:
        counts = report.as_json()
        if self._plain:
            print_table(
                ["what", "count"], [(name, value) for name, value in counts.items() if isinstance(value, int | float)]
            )
        elif not self._dry_run:
            emit(counts)
        for failure in report.failures[:_MOST_FAILURES_SHOWN]:
            talk(f"failed: {failure.source}: {failure.reason}")
        if (more := len(report.failures) - _MOST_FAILURES_SHOWN) > 0:
            talk(f"… and {more} more")
        if report.failures and not self._dry_run:
            talk(f"{len(report.failures)} of {sum(report.counts.values())} files failed; the others are stored")


class _Lines:
    """Talk without a terminal: one line for each file that is not simply unchanged."""

    def total(self, files: int) -> None:
        pass

    def file(self, outcome: FileOutcome) -> None:
        if outcome.status not in ("unchanged", "failed"):  # failures come together, at the end
            chunks = f" ({outcome.chunks:,} {'chunk' if outcome.chunks == 1 else 'chunks'})" if outcome.chunks else ""
            talk(f"{outcome.status}: {outcome.source}{chunks}")

    def embedded(self, chunks: int) -> None:
        pass


class _DryLines(_Lines):
    """A dry run: each file as a line of JSON on standard output."""

    def file(self, outcome: FileOutcome) -> None:
        line: dict[str, Any] = {"source": outcome.source, "status": outcome.status, "chunks": outcome.chunks}
        emit(line | ({"reason": outcome.reason} if outcome.reason else {}))


class _Bar(_Lines):
    """A bar over the files, with the number of chunks embedded so far."""

    def __init__(self, progress: Any) -> None:
        self._progress = progress
        self._task = progress.add_task("ingesting", total=None, chunks=0)
        self._chunks = 0

    def total(self, files: int) -> None:
        self._progress.update(self._task, total=files)

    def file(self, outcome: FileOutcome) -> None:
        self._progress.advance(self._task)

    def embedded(self, chunks: int) -> None:
        self._chunks += chunks
        self._progress.update(self._task, chunks=self._chunks)


@contextmanager
def _progress(dry_run: bool) -> Iterator[_Lines]:
    if dry_run:
        yield _DryLines()
        return
    if not sys.stderr.isatty():
        yield _Lines()
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    counts = TextColumn("files · {task.fields[chunks]:,} chunks")
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), counts)
    with Progress(
        *columns, TimeElapsedColumn(), TimeRemainingColumn(), console=Console(stderr=True), transient=True
    ) as progress:
        yield _Bar(progress)
