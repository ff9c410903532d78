"""vstash's store below its embedding model: sqlite-vec and FTS5 with adaptive rank fusion. One document of one chunk a record.

It has no metadata of the user's: the two keys that are filtered become its collection and its project, and all of them its
title, as JSON, so that it stores the same bytes as the others.
"""

from __future__ import annotations

import json
import sqlite3
import sys
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.systems.base import COLUMNS, Setting, Where

if TYPE_CHECKING:
    from bench.data import Records, Vectors

_BATCH = 2_000
_FIELDS = {"tenth": "collection", "thousandth": "project"}


if not hasattr(sqlite3.Connection, "enable_load_extension"):
    # It needs sqlite-vec in the standard library's SQLite, which many Pythons build without extensions. pysqlite3-binary is the
    # same module with them.
    sys.modules["sqlite3"] = import_module("pysqlite3")
    sys.modules["sqlite3.dbapi2"] = import_module("pysqlite3.dbapi2")

from vstash.store import VstashStore  # noqa: E402 - after its SQLite


class Vstash:
    columns = COLUMNS
    ladder: tuple[Setting, ...] = ({},)
    note = "exact search; filters are its fields collection and project; hybrid with its own defaults (cut-off, MMR)"

    def __init__(self, folder: Path) -> None:
        self._path = folder / "vstash.db"

    def create(self) -> None:
        """The file is made with the first records, when the dimension is known."""

    def load(self, records: Records) -> None:
        dimension = records.vectors.shape[1]
        self._path.with_suffix(".dimension").write_text(str(dimension))
        self._open(dimension)
        with self._store.batch_mode(defer_fts=True):
            for part in records.batches(_BATCH):
                self._store.add_documents_batch([_document(part, i) for i in range(len(part))])

    def index(self) -> None:
        """There is none."""

    def open(self) -> None:
        self._open(int(self._path.with_suffix(".dimension").read_text()))

    def warm(self) -> None:
        """There is nothing to ask for; the warm-up queries fill its caches."""

    def vector(self, query: Vectors, k: int, setting: Setting, where: Where | None) -> list[str]:
        # Its default cut-off, a multiple of the best distance, may leave fewer than k; this is the widest it takes.
        options: dict[str, Any] = {"retrieval_mode": "vec_only", "distance_cutoff": 1_000.0}
        if where is not None:
            options[_FIELDS[where[0]]] = str(where[1])
        return self._found("", query, k, options)

    def text(self, query: str, k: int) -> list[str]:
        return self._found(query, self._nothing, k, {"retrieval_mode": "fts_only"})

    def hybrid(self, query: str, vector: Vectors, k: int, setting: Setting) -> list[str]:
        return self._found(query, vector, k, {})

    def close(self) -> None:
        self._store.close()

    def _open(self, dimension: int) -> None:
        self._store = VstashStore(str(self._path), embedding_dim=dimension)
        self._nothing = [0.0] * dimension

    def _found(self, text: str, vector: Any, k: int, options: dict[str, Any]) -> list[str]:
        listed = vector if isinstance(vector, list) else vector.tolist()
        return [hit.path for hit in self._store.search(listed, text, top_k=k, **options)]


def _document(records: Records, position: int) -> dict[str, Any]:
    metadata = records.metadata[position]
    return {
        "path": records.ids[position],
        "title": json.dumps(metadata),
        "chunks": [records.texts[position]],
        "embeddings": [records.vectors[position].tolist()],
        "source_type": "file",
        "collection": str(metadata["tenth"]),
        "project": str(metadata["thousandth"]),
    }


make = Vstash
