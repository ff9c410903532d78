"""Uploads of one record a line, of any length, in bounded memory.

The lines are written in batches, each one transaction, while the upload goes on. A bad line is told with its number,
from 1:

    on_error=skip    the good lines are written, the bad ones are listed in the answer
    on_error=abort   the first bad line ends the upload: every line before it is written, none from it on

So an upload is not all-or-nothing as `add` is. If it breaks off (the client goes away, the body is too long), the
batches written until then stay; sending it again with op=upsert is safe.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from vecdb.errors import DimensionMismatch, DuplicateId, InvalidInput, InvalidRecord
from vecdb.server.problems import Refused
from vecdb.server.schemas import RecordBody, parsed
from vecdb.server.settings import Settings
from vecdb.types import WriteResult

if TYPE_CHECKING:
    from vecdb.collection import Collection

Operation = Literal["add", "upsert"]
OnError = Literal["skip", "abort"]
_PLACE_IN_BATCH = re.compile(r"^record \d+ ")  # how the library's messages begin; the line's number says it better
Line = tuple[int, bytes | None]  # its number from 1, and its bytes; None for one that is too long


class Lines:
    """Cuts a stream of bytes into batches of numbered lines. Holds at most one batch and one line."""

    def __init__(self, batch: int, max_line_bytes: int) -> None:
        self._batch = batch
        self._max_line_bytes = max_line_bytes
        self._max_batch_bytes = 2 * max_line_bytes
        self._rest = bytearray()  # the line that has not ended yet
        self._is_too_long = False  # that line is past the limit: the rest of it is dropped
        self._number = 0
        self._lines: list[Line] = []
        self._bytes = 0

    def feed(self, chunk: bytes) -> Iterator[list[Line]]:
        """The batches that are full with this piece of the body."""
        *ended, rest = chunk.split(b"\n")
        for piece in ended:
            self._extend(piece)
            self._end_line()
            if len(self._lines) >= self._batch or self._bytes >= self._max_batch_bytes:
                yield self._taken()
        self._extend(rest)

    def finish(self) -> list[Line]:
        """The last batch, which may be empty. The last line need not end with a newline."""
        if self._rest or self._is_too_long:
            self._end_line()
        return self._taken()

    def _extend(self, piece: bytes) -> None:
        if len(self._rest) + len(piece) > self._max_line_bytes:
            self._is_too_long = True
            self._rest.clear()
        elif not self._is_too_long:
            self._rest += piece

    def _end_line(self) -> None:
        self._number += 1
        if self._is_too_long:
            self._lines.append((self._number, None))
        elif self._rest.strip():  # blank lines count, but hold nothing
            self._lines.append((self._number, bytes(self._rest)))
            self._bytes += len(self._rest)
        self._rest.clear()
        self._is_too_long = False

    def _taken(self) -> list[Line]:
        lines, self._lines, self._bytes = self._lines, [], 0
        return lines


@dataclass(slots=True)
class _Numbered:
    """A record with the number of its line."""

    line: int
    record: dict[str, Any]


class Aborted(Exception):
    """The upload ends here, because of this line."""

    def __init__(self, line: int, error: InvalidInput) -> None:
        super().__init__(str(error))
        self.line = line
        self.error = error


class BulkLoad:
    """One upload: writes batches of lines and keeps the account. Not for several threads at once."""

    def __init__(self, collection: Collection, operation: Operation, on_error: OnError, settings: Settings) -> None:
        self._collection = collection
        self._operation = operation
        self._on_error = on_error
        self._settings = settings
        self._added = self._updated = self._unchanged = self._failed = 0
        self._errors: list[dict[str, Any]] = []

    def write(self, lines: list[Line]) -> None:
        """Write one batch. Raises Aborted, or what the library raises for other reasons than a bad record."""
        numbered: list[_Numbered] = []
        for number, text in lines:
            try:
                numbered.append(_Numbered(number, self._record(text, self._collection.dimension)))
            except InvalidInput as error:
                if self._on_error == "abort":
                    self._write_good(numbered)  # may find an earlier bad line, which then counts
                self._reject(number, error)
        self._write_good(self._new_ids_only(numbered) if self._on_error == "skip" else numbered)

    def account(self) -> dict[str, Any]:
        """What was written and what was not, so far."""
        return {
            "added": self._added,
            "updated": self._updated,
            "unchanged": self._unchanged,
            "failed": self._failed,
            "errors": sorted(self._errors, key=lambda error: error["line"]),
            "errors_omitted": self._failed - len(self._errors),
        }

    def _record(self, text: bytes | None, dimension: int | None) -> dict[str, Any]:
        """The line's record. Raises InvalidInput for what can be seen in the line alone."""
        if text is None:
            raise InvalidRecord(f"the line is longer than {self._settings.max_line_bytes:,} bytes, the service's limit")
        try:
            record = parsed(RecordBody, text).as_record()
        except Refused as refused:  # not JSON
            raise InvalidRecord(str(refused.detail).replace("the body", "the line")) from refused
        vector = record.get("vector")
        if vector is not None and dimension is not None and len(vector) != dimension:
            name = self._collection.name
            raise DimensionMismatch(f"the vector has {len(vector)} numbers, collection {name!r} holds {dimension}")
        return record

    def _new_ids_only(self, numbered: list[_Numbered]) -> list[_Numbered]:
        """Reject repeated ids all together: found one by one, each would cost a try of the whole batch."""
        ids = [item.record["id"] for item in numbered if item.record.get("id")]
        taken: set[str] = set()
        if self._operation == "add" and ids:
            taken = {record.id for record in self._collection.get(ids) if record is not None}
        kept = []
        for item in numbered:
            id = item.record.get("id")
            if id and id in taken:
                self._reject(item.line, DuplicateId(f"the id {id!r} exists already; use op=upsert to replace it"))
                continue
            if id:
                taken.add(id)
            kept.append(item)
        return kept

    def _write_good(self, numbered: list[_Numbered]) -> None:
        """Write all but the bad ones. The library names one bad record at a time, and writes nothing of that try."""
        numbered = list(numbered)
        while numbered:
            try:
                self._count(self._try([item.record for item in numbered]))
                return
            except InvalidInput as error:
                if error.position is None:
                    raise  # the fault of no single record: an embedding model of another name, say
                bad = numbered[error.position]
                if self._on_error == "abort":
                    self._write_good(numbered[: error.position])
                self._reject(bad.line, error)
                del numbered[error.position]

    def _try(self, records: list[dict[str, Any]]) -> WriteResult:
        write = self._collection.add if self._operation == "add" else self._collection.upsert
        return write(records)

    def _count(self, result: WriteResult) -> None:
        self._added += result.added
        self._updated += result.updated
        self._unchanged += result.unchanged

    def _reject(self, line: int, error: InvalidInput) -> None:
        if self._on_error == "abort":
            raise Aborted(line, error)
        self._failed += 1
        if len(self._errors) < self._settings.max_errors:
            detail = _PLACE_IN_BATCH.sub("", str(error))
            self._errors.append({"line": line, "error": type(error).__name__, "detail": detail})
