"""What a database must do here to be measured.

Every answer carries what an application shows: id, text, metadata and score. Graphs are built with M = 16 and
ef_construction = 200 wherever a system lets one choose. Standard library only: importing this costs a child nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.data import Records, Vectors

Setting = dict[str, Any]
Where = tuple[str, int]  # a metadata key and the value that it must have

M = 16
EF_CONSTRUCTION = 200

VECTOR_COLUMNS = ("vector", "filtered_10", "filtered_01")
TEXT_COLUMNS = ("text", "text_long")
HYBRID_COLUMNS = ("hybrid", "hybrid_long")
COLUMNS = (*VECTOR_COLUMNS, *TEXT_COLUMNS, *HYBRID_COLUMNS)
TITLES = {
    "vector": "vector",
    "filtered_10": "filter 10 %",
    "filtered_01": "filter 0.1 %",
    "text": "text",
    "text_long": "text, long",
    "hybrid": "hybrid",
    "hybrid_long": "hybrid, long",
}


class System(Protocol):
    """columns: those of COLUMNS that it can answer. ladder: its settings for vector search, cheapest first; {} is its default.

    note: what a reader must know to compare its figures with the others'.
    """

    columns: Sequence[str]
    ladder: Sequence[Setting]
    note: str

    def create(self) -> None:
        """Make an empty database."""

    def load(self, records: Records) -> None:
        """Store all records."""

    def index(self) -> None:
        """Build whatever is not built while loading."""

    def open(self) -> None:
        """Open the database that an earlier process made."""

    def warm(self) -> None:
        """Bring into memory what the system can be asked to bring there."""

    def vector(self, query: Vectors, k: int, setting: Setting, where: Where | None) -> list[str]:
        """Ids of the k nearest, nearest first."""

    def text(self, query: str, k: int) -> list[str]:
        """Ids of the k best by words."""

    def hybrid(self, query: str, vector: Vectors, k: int, setting: Setting) -> list[str]:
        """Ids of the k best by both."""

    def close(self) -> None:
        """Everything is in the files after this."""
