"""Keeping a collection in step with folders: wait for changes, ingest what changed, forget what is gone."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Event

from vecdb.errors import MissingExtra
from vecdb.ingest.job import IngestJob
from vecdb.ingest.walk import Selection, find_files, resolve

_POLL_MS = 250


@dataclass(frozen=True, slots=True)
class Changes:
    """files: to read. gone: sources whose files are no more."""

    files: list[Path]
    gone: list[str]


def watch(
    make_job: Callable[[], IngestJob],
    paths: Sequence[str | Path],
    *,
    stop: Event,
    begin: Callable[[], None] = lambda: None,
    debounce_s: float = 0.5,
) -> None:
    """Ingest each batch of changes at and below paths until stop is set.

    begin is called once the watch stands: the place for a first pass over all files, since what changes meanwhile is seen
    afterwards. make_job gives the job for one batch. Changes are gathered until none came for a moment, at most
    debounce_s: an editor that writes a file in three steps is read once. Raises MissingExtra without watchfiles.
    """
    try:
        from watchfiles import watch as wait_for_changes
    except ImportError as error:
        raise MissingExtra.of("watchfiles", extra="files", what="watching folders") from error
    roots = resolve(paths)
    batches = wait_for_changes(
        *roots,
        watch_filter=None,
        debounce=int(debounce_s * 1000),
        step=max(50, int(debounce_s * 1000 / 4)),
        stop_event=stop,
        raise_interrupt=False,
        rust_timeout=_POLL_MS,
        yield_on_timeout=True,  # the first, empty batch tells that the watch stands
    )
    has_begun = False
    for batch in batches:
        if not has_begun:
            begin()
            has_begun = True
        if not batch:
            continue
        job = make_job()
        work = sort_out(job, roots, {Path(path) for _, path in batch})
        if work.files or work.gone:
            job.run_files(work.files, work.gone)


def sort_out(job: IngestJob, roots: Sequence[Path], touched: Iterable[Path]) -> Changes:
    """What touched paths mean. The kind of event is not looked at, only what the disk holds now: events are merged,
    renames of folders name only the folder, and editors replace files by renaming.
    """
    files: dict[Path, None] = {}
    gone: dict[str, None] = {}
    for path in sorted(touched):
        for root in roots:
            if not path.is_relative_to(root):
                continue
            if not path.exists():
                gone.update(dict.fromkeys(job.sources_below(path)))
            elif job.settings.selection.takes(path, root):
                files.update(dict.fromkeys(_files_at(path, root, job.settings.selection)))
    return Changes(list(files), list(gone))


def _files_at(path: Path, root: Path, selection: Selection) -> list[Path]:
    if not path.is_dir():
        return [path]
    return [file for file in find_files([path], selection).files if selection.takes(file, root)]
