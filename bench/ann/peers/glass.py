"""glass (zilliztech): an HNSW graph walked over 8-bit codes, the best re-checked in float16, as its own benchmark does."""

from __future__ import annotations

import os
from pathlib import Path

import glass
import numpy as np

from bench.ann.peers.base import BEAMS, DEGREE, EF_CONSTRUCTION, Metric, Rows, Setting, Vectors


class Glass:
    ladder = tuple({"ef": ef} for ef in BEAMS)

    def __init__(self, metric: Metric, dimension: int, threads: int) -> None:
        self.built_with: Setting = {"degree": DEGREE, "L": EF_CONSTRUCTION, "codes": "SQ8U", "refine": "FP16"}
        self._metric = "L2" if metric == "l2" else "IP"
        self._threads = threads
        glass.set_num_threads(threads)

    def build(self, base: Vectors) -> None:
        self._graph = glass.Index("HNSW", self._metric, "SQ8U", R=DEGREE, L=EF_CONSTRUCTION).build(base)
        self._base = base

    def save(self, folder: Path) -> None:
        """It saves the graph alone; a searcher encodes the vectors anew."""
        self._graph.save(os.fspath(folder / "graph"))
        np.save(folder / "base.npy", self._base)

    def load(self, folder: Path) -> None:
        graph = glass.Graph(os.fspath(folder / "graph"))
        self._searcher = glass.Searcher(graph, np.load(folder / "base.npy"), self._metric, "SQ8U", "FP16")
        self._searcher.set_ef(32)
        self._searcher.optimize(self._threads)  # finds how far ahead to prefetch

    def tune(self, setting: Setting) -> None:
        self._searcher.set_ef(setting["ef"])

    def batch(self, queries: Vectors, k: int) -> Rows:
        rows: Rows = self._searcher.batch_search(queries, k, self._threads)[0]
        return rows.reshape(len(queries), k)

    def one(self, query: Vectors, k: int) -> Rows:
        rows: Rows = self._searcher.search(query, k)[0]
        return rows
