"""All records of a collection, of which no more than a page is held at a time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from vecdb.types import Filter, Page

if TYPE_CHECKING:
    from vecdb.collection import Collection


def pages(
    collection: Collection, where: Filter | None = None, *, vectors: bool = False, size: int = 1_000
) -> Iterator[Page]:
    """Pages in order of insertion. A record that gets a new row meanwhile comes again, under that."""
    cursor = None
    while True:
        page = collection.scan(where=where, limit=size, cursor=cursor, vectors=vectors)
        yield page
        cursor = page.cursor
        if cursor is None:
            return
