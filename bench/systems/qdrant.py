"""Qdrant's local mode: the client without a server. It searches exactly in NumPy and tokenises all texts for each text query."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qdrant_client import QdrantClient, models

from bench.systems.base import COLUMNS, Setting, Where

if TYPE_CHECKING:
    from bench.data import Records, Vectors

_BATCH = 1_000


class Qdrant:
    columns = COLUMNS
    ladder: tuple[Setting, ...] = ({},)
    note = "local mode: exact search, meant for tests; ids are integers"

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def create(self) -> None:
        self._connect()

    def load(self, records: Records) -> None:
        size = records.vectors.shape[1]
        self._client.create_collection(
            "records", vectors_config=models.VectorParams(size=size, distance=models.Distance.COSINE)
        )
        self._index_text()
        start = 0
        for part in records.batches(_BATCH):
            ids: list[Any] = list(range(start, start + len(part)))
            payloads: list[Any] = [{"text": text, **meta} for text, meta in zip(part.texts, part.metadata)]
            points = models.Batch(ids=ids, vectors=part.vectors.tolist(), payloads=payloads)
            self._client.upsert("records", points=points)
            start += len(part)

    def index(self) -> None:
        """There is none."""

    def open(self) -> None:
        self._connect()
        self._index_text()

    def warm(self) -> None:
        """Opening loads everything."""

    def vector(self, query: Vectors, k: int, setting: Setting, where: Where | None) -> list[str]:
        match = None
        if where is not None:
            condition = models.FieldCondition(key=where[0], match=models.MatchValue(value=where[1]))
            match = models.Filter(must=[condition])
        return _ids(self._client.query_points("records", query=query, query_filter=match, limit=k, with_payload=True))

    def text(self, query: str, k: int) -> list[str]:
        asked = models.TextQuery(text=query)
        return _ids(self._client.query_points("records", query=asked, using="text", limit=k, with_payload=True))

    def hybrid(self, query: str, vector: Vectors, k: int, setting: Setting) -> list[str]:
        lists = [
            models.Prefetch(query=vector.tolist(), limit=10 * k),
            models.Prefetch(query=models.TextQuery(text=query), using="text", limit=10 * k),
        ]
        fused = models.FusionQuery(fusion=models.Fusion.RRF)
        return _ids(self._client.query_points("records", prefetch=lists, query=fused, limit=k, with_payload=True))

    def close(self) -> None:
        self._client.close()

    def _connect(self) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it advises a server above 20,000 points
            self._client = QdrantClient(path=str(self._folder / "qdrant"))

    def _index_text(self) -> None:
        """Local mode forgets text indexes when it closes: they only say that a field may be searched."""
        schema = models.TextIndexParams(
            type=models.TextIndexType.TEXT, scoring=models.TextScoringParams(type=models.TextScoringType.BM25)
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self._client.create_payload_index("records", "text", field_schema=schema)


def _ids(found: Any) -> list[str]:
    return [f"r{point.id}" for point in found.points]


make = Qdrant
