"""vecdb's own graph index, without the database around it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from bench.ann.peers.base import BEAMS, EF_CONSTRUCTION, M, Metric, Rows, Setting, Vectors
from vecdb.index.base import HnswConfig
from vecdb.index.hnsw import HnswIndex


class Vecdb:
    ladder = tuple({"ef": ef} for ef in BEAMS)

    def __init__(self, metric: Metric, dimension: int, threads: int) -> None:
        self.built_with: Setting = {"M": M, "ef_construction": EF_CONSTRUCTION}
        self._metric = metric
        self._threads = threads
        self._ef = 0

    def build(self, base: Vectors) -> None:
        self._index = HnswIndex.build(base, self._metric, HnswConfig(**self.built_with), threads=self._threads)

    def save(self, folder: Path) -> None:
        for name, array in self._index.arrays().items():
            np.save(folder / f"{name}.npy", array)
        (folder / "settings.json").write_text(json.dumps(self._index.settings()))

    def load(self, folder: Path) -> None:
        # As a saved collection's index is opened: full vectors stay in the file, mapped, for the few that are looked at.
        arrays = {
            path.stem: np.load(path, mmap_mode="r" if path.stem == "vectors" else None) for path in folder.glob("*.npy")
        }
        self._index = HnswIndex.open(json.loads((folder / "settings.json").read_text()), arrays)

    def tune(self, setting: Setting) -> None:
        self._ef = setting["ef"]

    def batch(self, queries: Vectors, k: int) -> Rows:
        rows: Rows = self._index.search(queries, k, ef=self._ef, threads=self._threads).positions
        return rows

    def one(self, query: Vectors, k: int) -> Rows:
        rows: Rows = self._index.search(query[None], k, ef=self._ef).positions[0]
        return rows
