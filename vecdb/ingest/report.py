"""What an ingestion did, file by file."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

Status = Literal["added", "updated", "unchanged", "empty", "removed", "failed"]


@dataclass(frozen=True, slots=True)
class FileOutcome:
    """What became of one file. chunks: records written for it. reason: why it failed or is empty."""

    source: str
    status: Status
    chunks: int = 0
    reason: str | None = None


@dataclass(slots=True)
class IngestReport:
    """outcomes: every file but the unchanged ones, in the order done. counts: all files, by status.

    duplicates: how many were skipped, linked or replaced; None if that was not asked for. chunks counts those that were skipped.
    """

    outcomes: list[FileOutcome] = field(default_factory=list)
    counts: dict[Status, int] = field(default_factory=dict)
    chunks: int = 0
    seconds: float = 0.0
    interrupted: bool = False
    duplicates: int | None = None

    @property
    def failures(self) -> list[FileOutcome]:
        return [outcome for outcome in self.outcomes if outcome.status == "failed"]

    def note(self, outcome: FileOutcome) -> None:
        self.counts[outcome.status] = self.counts.get(outcome.status, 0) + 1
        self.chunks += outcome.chunks
        if outcome.status != "unchanged":
            self.outcomes.append(outcome)

    def as_json(self) -> dict[str, Any]:
        """The summary that the command prints."""
        return {
            **{
                status: self.counts.get(status, 0)
                for status in ("added", "updated", "unchanged", "empty", "removed", "failed")
            },
            "chunks": self.chunks,
            **({} if self.duplicates is None else {"duplicates": self.duplicates}),
            "seconds": round(self.seconds, 3),
            "interrupted": self.interrupted,
            "failures": [{"source": failure.source, "reason": failure.reason} for failure in self.failures],
        }
