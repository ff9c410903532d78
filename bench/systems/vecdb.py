"""vecdb itself, through Collection.search with default settings but ef."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import vecdb
from bench.systems.base import COLUMNS, Setting, Where

if TYPE_CHECKING:
    from bench.data import Records, Vectors


class VecdbFile:
    columns = COLUMNS
    ladder = tuple({"ef": ef} for ef in (12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384))
    note = ""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "library.vecdb"

    def create(self) -> None:
        self._db = vecdb.open(self._path)
        self._records = self._db.collection("records")

    def load(self, records: Records) -> None:
        self._records.add(
            ids=records.ids, texts=records.texts, vectors=records.vectors, metadata=records.metadata, batch_size=None
        )

    def index(self) -> None:
        self._records.optimize()

    def open(self) -> None:
        self._db = vecdb.open(self._path, create=False)
        self._records = self._db.collection("records", create=False)

    def warm(self) -> None:
        self._records.warm()

    def vector(self, query: Vectors, k: int, setting: Setting, where: Where | None) -> list[str]:
        filter = None if where is None else {where[0]: where[1]}
        return self._records.search(vector=query, k=k, where=filter, **setting).ids

    def text(self, query: str, k: int) -> list[str]:
        return self._records.search(query, k=k, mode="text").ids

    def hybrid(self, query: str, vector: Vectors, k: int, setting: Setting) -> list[str]:
        return self._records.search(query, vector=vector, k=k, **setting).ids

    def close(self) -> None:
        self._db.close()


make = VecdbFile
