"""hnswlib, the HNSW authors' own library: float32 throughout."""

from __future__ import annotations

from pathlib import Path

import hnswlib

from bench.ann.peers.base import BEAMS, EF_CONSTRUCTION, M, Metric, Rows, Setting, Vectors


class Hnswlib:
    ladder = tuple({"ef": ef} for ef in BEAMS)

    def __init__(self, metric: Metric, dimension: int, threads: int) -> None:
        self.built_with: Setting = {"M": M, "ef_construction": EF_CONSTRUCTION}
        self._threads = threads
        # "cosine" would bring vectors of unit length to unit length once more.
        self._index = hnswlib.Index(space="l2" if metric == "l2" else "ip", dim=dimension)

    def build(self, base: Vectors) -> None:
        self._index.init_index(max_elements=len(base), random_seed=0, **self.built_with)
        self._index.add_items(base, num_threads=self._threads)

    def save(self, folder: Path) -> None:
        self._index.save_index(str(folder / "index"))

    def load(self, folder: Path) -> None:
        self._index.load_index(str(folder / "index"))

    def tune(self, setting: Setting) -> None:
        self._index.set_ef(setting["ef"])

    def batch(self, queries: Vectors, k: int) -> Rows:
        rows: Rows = self._index.knn_query(queries, k, num_threads=self._threads)[0]
        return rows

    def one(self, query: Vectors, k: int) -> Rows:
        rows: Rows = self._index.knn_query(query, k, num_threads=1)[0][0]
        return rows
