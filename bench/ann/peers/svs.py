"""SVS (Intel): a Vamana graph over float16 vectors, which are exact enough to need no re-check."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import svs

from bench.ann.peers.base import BEAMS, DEGREE, EF_CONSTRUCTION, Metric, Rows, Setting, Vectors

_FOLDERS = ("config", "graph", "data")


class Svs:
    ladder = tuple({"window": window} for window in BEAMS)

    def __init__(self, metric: Metric, dimension: int, threads: int) -> None:
        # What its documentation recommends for distances that are to be small and for products that are to be large.
        alpha = 1.2 if metric == "l2" else 0.95
        self.built_with: Setting = {"degree": DEGREE, "window": EF_CONSTRUCTION, "alpha": alpha}
        self._distance = svs.DistanceType.L2 if metric == "l2" else svs.DistanceType.MIP
        self._threads = threads

    def build(self, base: Vectors) -> None:
        given = svs.VamanaBuildParameters(
            alpha=self.built_with["alpha"], graph_max_degree=DEGREE, window_size=EF_CONSTRUCTION
        )
        self._index = svs.Vamana.build(given, base.astype(np.float16), self._distance, num_threads=self._threads)

    def save(self, folder: Path) -> None:
        self._index.save(*(os.fspath(folder / part) for part in _FOLDERS))

    def load(self, folder: Path) -> None:
        config, graph, data = (os.fspath(folder / part) for part in _FOLDERS)
        self._index = svs.Vamana(
            config,
            svs.GraphLoader(graph),
            svs.VectorDataLoader(data, svs.DataType.float16),
            self._distance,
            query_type=svs.DataType.float32,
            num_threads=self._threads,
        )

    def tune(self, setting: Setting) -> None:
        self._index.search_window_size = setting["window"]

    def batch(self, queries: Vectors, k: int) -> Rows:
        rows: Rows = self._index.search(queries, k)[0]
        return rows

    def one(self, query: Vectors, k: int) -> Rows:
        rows: Rows = self._index.search(query, k)[0][0]
        return rows
