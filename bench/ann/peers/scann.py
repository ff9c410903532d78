"""ScaNN (Google): a tree of partitions, anisotropic 4-bit codes, a re-check on float32."""

from __future__ import annotations

import math
import os
from pathlib import Path

import numpy as np
from scann import scann_ops_pybind

from bench.ann.peers.base import Metric, Rows, Setting, Vectors


class Scann:
    """About 2 sqrt(N) leaves and codes of 2 dimensions, as its guide has it."""

    ladder = tuple(
        {"leaves": leaves, "reorder": reorder}
        for leaves in (2, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256)
        for reorder in (20, 40, 80, 160, 320)
    )

    def __init__(self, metric: Metric, dimension: int, threads: int) -> None:
        self._metric = "squared_l2" if metric == "l2" else "dot_product"
        self._threads = threads
        self._given: dict[str, int] = {}

    def build(self, base: Vectors) -> None:
        leaves = round(2 * math.sqrt(len(base)))
        self.built_with: Setting = {"leaves": leaves, "codes": "4 bits for 2 dimensions"}
        builder = scann_ops_pybind.builder(base, 10, self._metric)
        builder.tree(num_leaves=leaves, num_leaves_to_search=leaves // 20, training_sample_size=len(base))
        builder.score_ah(2, anisotropic_quantization_threshold=0.2).reorder(100)
        builder.set_n_training_threads(self._threads)
        self._index = builder.build()

    def save(self, folder: Path) -> None:
        self._index.serialize(os.fspath(folder), relative_path=True)

    def load(self, folder: Path) -> None:
        self._index = scann_ops_pybind.load_searcher(os.fspath(folder))
        self._index.set_num_threads(self._threads)

    def tune(self, setting: Setting) -> None:
        self._given = {"leaves_to_search": setting["leaves"], "pre_reorder_num_neighbors": setting["reorder"]}

    def batch(self, queries: Vectors, k: int) -> Rows:
        search = self._index.search_batched if self._threads == 1 else self._index.search_batched_parallel
        rows = search(queries, final_num_neighbors=k, **self._given)[0]
        return np.asarray(rows)

    def one(self, query: Vectors, k: int) -> Rows:
        rows: Rows = self._index.search(query, final_num_neighbors=k, **self._given)[0]
        return rows
