"""Files into a collection: read, cut into chunks, embedded, written; run again, only what changed is done.

from vecdb.ingest import ingest
report = ingest(collection, ["notes/"], prune=True)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from vecdb.ingest.chunking import Chunking
from vecdb.ingest.job import IngestJob
from vecdb.ingest.report import FileOutcome, IngestReport
from vecdb.ingest.settings import IngestSettings
from vecdb.ingest.tables import RowOptions
from vecdb.ingest.walk import Selection

if TYPE_CHECKING:
    from vecdb.collection import Collection

__all__ = [
    "Chunking",
    "FileOutcome",
    "IngestJob",
    "IngestReport",
    "IngestSettings",
    "RowOptions",
    "Selection",
    "ingest",
]


def ingest(
    collection: Collection,
    paths: str | Path | Sequence[str | Path],
    *,
    settings: IngestSettings | None = None,
    prune: bool = False,
    on_file: Callable[[FileOutcome], None] | None = None,
) -> IngestReport:
    """Bring a collection up to date with the files at and below paths.

    Unchanged files are skipped, changed ones replace their chunks in one transaction; prune forgets those whose file
    is gone. A file that cannot be read is in report.failures and stops nothing. Raises InvalidInput if a path does
    not exist, and what the collection raises when it cannot write.
    """
    job = IngestJob(collection, settings or IngestSettings())
    if on_file is not None:
        job.on_file = on_file
    return job.run([paths] if isinstance(paths, (str, Path)) else paths, prune=prune)
