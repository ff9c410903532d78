"""LanceDB: IVF-HNSW-SQ over vectors, its own full-text index, scalar indexes on the two keys that are filtered."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lancedb
import pyarrow as pa
from lancedb.rerankers import RRFReranker

from bench.systems.base import COLUMNS, EF_CONSTRUCTION, M, Setting, Where

if TYPE_CHECKING:
    from bench.data import Records, Vectors

_SHOWN = ["id", "text", "section", "length", "words", "tenth", "thousandth"]


class Lance:
    columns = COLUMNS
    # Its graph searches one-byte codes; what they miss, refine_factor (re-ranking k times as many by the vectors) brings back.
    ladder = tuple(
        {"ef": ef, "refine_factor": refine}
        for ef, refine in (
            (20, None),
            (40, None),
            (64, None),
            (40, 2),
            (64, 2),
            (100, 2),
            (100, 4),
            (200, 4),
            (400, 4),
            (800, 8),
        )
    )
    note = "filtered keys have scalar indexes; its full-text search leaves out stop words"

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._reranker = RRFReranker()

    def create(self) -> None:
        self._db = lancedb.connect(self._folder / "lance")

    def load(self, records: Records) -> None:
        self._table: Any = self._db.create_table("records", _arrow(records))

    def index(self) -> None:
        if len(self._table) > 1_000:  # too few to train its codes on
            self._table.create_index(metric="cosine", index_type="IVF_HNSW_SQ", m=M, ef_construction=EF_CONSTRUCTION)
        self._table.create_fts_index("text")
        self._table.create_scalar_index("tenth", index_type="BITMAP")
        self._table.create_scalar_index("thousandth", index_type="BTREE")
        self._table.optimize(cleanup_older_than=timedelta(0))

    def open(self) -> None:
        self._db = lancedb.connect(self._folder / "lance")
        self._table = self._db.open_table("records")

    def warm(self) -> None:
        """There is nothing to ask for; the warm-up queries fill its caches."""

    def vector(self, query: Vectors, k: int, setting: Setting, where: Where | None) -> list[str]:
        search = self._table.search(query).metric("cosine").limit(k).select([*_SHOWN, "_distance"])
        if where is not None:
            search = search.where(f"{where[0]} = {where[1]}", prefilter=True)
        return _ids(_tuned(search, setting).to_list())

    def text(self, query: str, k: int) -> list[str]:
        return _ids(self._table.search(query, query_type="fts").limit(k).select([*_SHOWN, "_score"]).to_list())

    def hybrid(self, query: str, vector: Vectors, k: int, setting: Setting) -> list[str]:
        search = self._table.search(query_type="hybrid").vector(vector).text(query).metric("cosine").limit(k)
        return _ids(_tuned(search.select(_SHOWN), setting).rerank(self._reranker).to_list())

    def close(self) -> None:
        del self._table, self._db


def _tuned(search: Any, setting: Setting) -> Any:
    if setting.get("ef"):
        search = search.ef(setting["ef"])
    if setting.get("refine_factor"):
        search = search.refine_factor(setting["refine_factor"])
    return search


def _ids(found: list[dict[str, Any]]) -> list[str]:
    return [row["id"] for row in found]


def _arrow(records: Records) -> pa.Table:
    dimension = records.vectors.shape[1]
    columns = {
        "id": pa.array(records.ids),
        "text": pa.array(records.texts),
        "vector": pa.FixedSizeListArray.from_arrays(pa.array(records.vectors.ravel()), dimension),
    }
    for key in records.metadata[0]:
        columns[key] = pa.array([metadata[key] for metadata in records.metadata])
    return pa.table(columns)


make = Lance
