"""What reading a file yields: one Document, or many Rows."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, field
from typing import Any


class Unreadable(Exception):
    """A file that cannot be read, with a reason for the user. It ends that file, not the job, so it is no
    VecdbError.
    """


@dataclass(frozen=True, slots=True)
class Document:
    """A file's text. pages: the offset in text at which each page begins, ascending; empty if the kind has no pages."""

    text: str
    title: str | None = None
    pages: tuple[int, ...] = ()

    def page_at(self, offset: int) -> int | None:
        """The number of the page (from 1) that the character at offset stands on."""
        return max(1, bisect_right(self.pages, offset)) if self.pages else None


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a table or line of a JSON file. number counts from 1, the header left out; id: the user's, if asked
    for.
    """

    number: int
    text: str
    title: str | None = None
    id: str | None = None
    metadata: dict[str, Any] = field(default_factory=dict)
