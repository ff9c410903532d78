"""voyager (Spotify): HNSW in float32."""

from __future__ import annotations

import os
from pathlib import Path

import voyager

from bench.ann.peers.base import BEAMS, EF_CONSTRUCTION, M, Metric, Rows, Setting, Vectors


class Voyager:
    ladder = tuple({"ef": ef} for ef in BEAMS)

    def __init__(self, metric: Metric, dimension: int, threads: int) -> None:
        self.built_with: Setting = {"M": M, "ef_construction": EF_CONSTRUCTION}
        self._space = voyager.Space.Euclidean if metric == "l2" else voyager.Space.InnerProduct
        self._dimension = dimension
        self._threads = threads
        self._ef = 0

    def build(self, base: Vectors) -> None:
        self._index = voyager.Index(self._space, self._dimension, **self.built_with)
        self._index.add_items(base, num_threads=self._threads)

    def save(self, folder: Path) -> None:
        self._index.save(os.fspath(folder / "index"))

    def load(self, folder: Path) -> None:
        self._index = voyager.Index.load(os.fspath(folder / "index"))

    def tune(self, setting: Setting) -> None:
        self._ef = setting["ef"]

    def batch(self, queries: Vectors, k: int) -> Rows:
        rows: Rows = self._index.query(queries, k, num_threads=self._threads, query_ef=self._ef)[0]
        return rows

    def one(self, query: Vectors, k: int) -> Rows:
        rows: Rows = self._index.query(query, k, num_threads=1, query_ef=self._ef)[0]
        return rows
