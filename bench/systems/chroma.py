"""Chroma's embedded client: hnswlib graph, metadata in SQLite. Its local version has no ranked text search and no hybrid."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import chromadb
from chromadb.config import Settings

from bench.systems.base import EF_CONSTRUCTION, VECTOR_COLUMNS, M, Setting, Where

if TYPE_CHECKING:
    from bench.data import Records, Vectors


class Chroma:
    columns = VECTOR_COLUMNS
    ladder = tuple({"ef_search": ef} for ef in (16, 24, 32, 48, 64, 96, 128, 192, 256, 384))
    note = "no BM25 and no hybrid search in its local version"

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._setting: Setting = {}

    def create(self) -> None:
        graph = {"space": "cosine", "max_neighbors": M, "ef_construction": EF_CONSTRUCTION}
        self._client: Any = self._connected()
        self._records = self._client.create_collection(
            "records",
            configuration={"hnsw": graph},
            embedding_function=None,
        )

    def load(self, records: Records) -> None:
        for part in records.batches(self._client.get_max_batch_size()):
            self._records.add(
                ids=part.ids,
                embeddings=part.vectors,
                documents=part.texts,
                metadatas=part.metadata,
            )

    def index(self) -> None:
        """The graph grows while loading."""

    def open(self) -> None:
        self._client = self._connected()
        self._records = self._client.get_collection("records", embedding_function=None)

    def warm(self) -> None:
        """There is nothing to ask for; the warm-up queries load the graph."""

    def vector(self, query: Vectors, k: int, setting: Setting, where: Where | None) -> list[str]:
        if setting and setting != self._setting:
            self._apply(setting)
        found: list[list[str]] = self._records.query(
            query_embeddings=query,
            n_results=k,
            where=None if where is None else {where[0]: where[1]},
            include=["documents", "metadatas", "distances"],
        )["ids"]
        return found[0]

    def text(self, query: str, k: int) -> list[str]:
        raise NotImplementedError

    def hybrid(self, query: str, vector: Vectors, k: int, setting: Setting) -> list[str]:
        raise NotImplementedError

    def close(self) -> None:
        self._client.close()

    def _connected(self) -> Any:
        return chromadb.PersistentClient(str(self._folder / "chroma"), settings=Settings(anonymized_telemetry=False))

    def _apply(self, setting: Setting) -> None:
        """ef_search belongs to the collection; a graph that is open keeps the one that it was opened with."""
        self._records.modify(configuration={"hnsw": setting})
        self.close()
        self.open()
        self._setting = setting


make = Chroma
