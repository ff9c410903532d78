"""usearch, with vectors as float32, bfloat16 or int8. It has no re-check, so what int8 loses stays lost."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from usearch.index import Index

from bench.ann.peers.base import BEAMS, EF_CONSTRUCTION, M, Metric, Rows, Setting, Vectors


class Usearch:
    ladder = tuple({"ef": ef} for ef in BEAMS)

    def __init__(self, metric: Metric, dimension: int, threads: int, dtype: str) -> None:
        self.built_with: Setting = {"M": M, "ef_construction": EF_CONSTRUCTION, "dtype": dtype}
        self._threads = threads
        self._scale = np.float32(1.0)
        # Its int8 wants numbers between -1 and 1: cosine brings them there, for l2 they are divided by the largest.
        self._scaled = dtype == "i8" and metric == "l2"
        self._index = Index(
            ndim=dimension,
            metric="l2sq" if metric == "l2" else ("cos" if dtype == "i8" else "ip"),
            dtype=dtype,
            connectivity=M,
            expansion_add=EF_CONSTRUCTION,
        )

    def build(self, base: Vectors) -> None:
        if self._scaled:
            self._scale = np.float32(1.0) / np.abs(base).max()
            base = base * self._scale
        self._index.add(np.arange(len(base)), base, threads=self._threads, copy=True)

    def save(self, folder: Path) -> None:
        self._index.save(str(folder / "index"))
        np.save(folder / "scale.npy", self._scale)

    def load(self, folder: Path) -> None:
        self._index.load(str(folder / "index"))
        self._scale = np.load(folder / "scale.npy")[()]

    def tune(self, setting: Setting) -> None:
        self._index.expansion_search = setting["ef"]

    def batch(self, queries: Vectors, k: int) -> Rows:
        if self._scaled:
            queries = queries * self._scale
        rows: Rows = self._index.search(queries, k, threads=self._threads).keys
        return rows

    def one(self, query: Vectors, k: int) -> Rows:
        if self._scaled:
            query = query * self._scale
        rows: Rows = self._index.search(query, k, threads=1).keys
        return rows
