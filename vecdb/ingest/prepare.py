"""Reading ahead: threads hash, read and cut files while the caller embeds and writes those before them."""

from __future__ import annotations

import hashlib
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any

from vecdb.ingest.apart import ReadingProcesses
from vecdb.ingest.chunking import cut
from vecdb.ingest.documents import Document, Row, Unreadable
from vecdb.ingest.kinds import PLAIN_TEXT, Kind, kind_of
from vecdb.ingest.readers import read_bytes, read_document
from vecdb.ingest.settings import IngestSettings
from vecdb.ingest.tables import read_rows

_POLL_S = 0.2  # how often a wait for a slow file looks whether the user wants to stop


@dataclass(frozen=True, slots=True)
class Prepared:
    """A file that is ready to be written. records: of a document; a file of rows is read while it is written instead.

    fingerprint: of content and settings; known: the one that the database has, None for a new source.
    """

    path: Path
    source: str
    kind: Kind
    fingerprint: str
    known: str | None
    records: list[dict[str, Any]] = field(default_factory=list)

    @property
    def is_unchanged(self) -> bool:
        return self.fingerprint == self.known


@dataclass(frozen=True, slots=True)
class Failed:
    """A file that could not be read, and why."""

    source: str
    reason: str


class Preparer:
    """Prepares files in threads, in order, never more than some files ahead. Use it as a context manager."""

    def __init__(
        self, settings: IngestSettings, known: Mapping[str, str], stop: Callable[[], bool] = lambda: False
    ) -> None:
        self.settings = settings
        self._known = known
        self._stop = stop
        self._readers = settings.readers or min(8, os.cpu_count() or 1)
        self._threads = ThreadPoolExecutor(self._readers, thread_name_prefix="vecdb-read")
        self._apart = ReadingProcesses(timeout_s=settings.timeout_s)

    def __enter__(self) -> Preparer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._apart.close()  # after that no thread waits for a process any more
        self._threads.shutdown(wait=True)

    def prepare(self, files: Iterable[Path]) -> Iterator[Prepared | Failed]:
        """Each file prepared, in the order given; ends early when stop says so."""
        ahead: deque[Future[Prepared | Failed]] = deque()
        remaining = iter(files)
        while not self._stop():
            while len(ahead) < 4 * self._readers and (path := next(remaining, None)) is not None:
                ahead.append(self._threads.submit(self.prepare_one, path))
            if not ahead:
                return
            if wait([ahead[0]], timeout=_POLL_S).done:
                yield ahead.popleft().result()

    def prepare_one(self, path: Path) -> Prepared | Failed:
        source = self.settings.source_of(path)
        kind = kind_of(path) or PLAIN_TEXT
        if not _is_unicode(source):
            return Failed(
                source.encode(errors="replace").decode(),
                "its name is not valid Unicode, so it cannot be an id; rename it",
            )
        try:
            if kind.is_rows:
                return self._prepared(path, source, kind, _digest_of_file(path))
            data = read_bytes(path, self.settings.max_bytes)
            item = self._prepared(path, source, kind, hashlib.sha256(data).hexdigest())
            if not item.is_unchanged:
                item.records.extend(self._document_records(item, data))
            return item
        except Unreadable as error:
            return Failed(source, str(error))

    def _prepared(self, path: Path, source: str, kind: Kind, digest: str) -> Prepared:
        identity = hashlib.sha256(self.settings.identity_for(kind).encode()).hexdigest()
        return Prepared(path, source, kind, f"{digest[:40]}:{identity[:16]}", self._known.get(source))

    def _document_records(self, item: Prepared, data: bytes) -> Iterator[dict[str, Any]]:
        if item.kind.is_parsed_apart:
            document = self._apart.read(item.path, item.kind, self.settings.max_bytes)
        else:
            document = read_document(data, item.kind)
        shared = self._shared_metadata(item, document.title)
        for number, chunk in enumerate(cut(document, item.kind, self.settings.chunking), 1):
            own = {"page": chunk.page, "section": chunk.section}
            metadata = shared | {name: value for name, value in own.items() if value is not None}
            yield _record(f"{item.source}#{number}", chunk.text, metadata, item.source, number)

    def row_records(self, item: Prepared) -> Iterator[dict[str, Any]]:
        """The records of a file of rows, read as they are asked for. Raises Unreadable where the file is broken.

        They have no seq: a row's neighbours are other matters, not its continuation.
        """
        shared = self._shared_metadata(item, None)
        for row in read_rows(item.path, item.kind, self.settings.rows):
            own = {"title": row.title or shared["title"], "row": row.number}
            metadata = shared | own | row.metadata | dict(self.settings.metadata)
            for id, text in self._row_parts(item, row):
                yield _record(id, text, metadata, item.source, None)

    def _row_parts(self, item: Prepared, row: Row) -> Iterator[tuple[str, str]]:
        id = row.id if row.id is not None else f"{item.source}#{row.number}"
        if not self.settings.rows.split:
            yield id, row.text
            return
        chunks = cut(Document(row.text), PLAIN_TEXT, self.settings.chunking)
        for part, chunk in enumerate(chunks, 1):
            yield id if len(chunks) == 1 else f"{id}.{part}", chunk.text

    def _shared_metadata(self, item: Prepared, title: str | None) -> dict[str, Any]:
        language = {"language": item.kind.language} if item.kind.language else {}
        return {
            "source": item.source,
            "title": title or item.path.name,
            "kind": item.kind.name,
            "modified": _modified(item.path),
            **language,
            **self.settings.metadata,
        }


def _record(id: str, text: str, metadata: dict[str, Any], parent: str, seq: int | None) -> dict[str, Any]:
    return {"id": id, "text": text, "metadata": metadata, "parent": parent, "seq": seq}


def _is_unicode(name: str) -> bool:
    """False for the bytes of another encoding that some file systems hold as names."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _modified(path: Path) -> datetime:
    try:
        return datetime.fromtimestamp(int(path.stat().st_mtime), UTC)
    except OSError as error:
        raise Unreadable(error.strerror or str(error)) from error


def _digest_of_file(path: Path) -> str:
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise Unreadable(error.strerror or str(error)) from error
