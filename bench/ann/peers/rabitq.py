"""rabitqlib: SymphonyQG (Gou et al. 2025), and HNSW over RaBitQ codes (Gao & Long 2024), by their authors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rabitqlib import FinalAssignmentMode, HnswIndex, RaBitQKMeans, SymqgIndex

from bench.ann.peers.base import BEAMS, DEGREE, EF_CONSTRUCTION, M, Metric, Rows, Setting, Vectors

_CLUSTERS = 16  # as in its examples


class _Rabitq:
    """_index has search(queries (B, D), k, ef, num_threads)."""

    ladder = tuple({"ef": ef} for ef in BEAMS)
    _index: Any

    def __init__(self, metric: Metric, dimension: int, threads: int) -> None:
        self._metric = "l2" if metric == "l2" else "ip"
        self._dimension = dimension
        self._threads = threads
        self._ef = 0

    def save(self, folder: Path) -> None:
        self._index.save(str(folder / "index"))

    def tune(self, setting: Setting) -> None:
        self._ef = setting["ef"]

    def batch(self, queries: Vectors, k: int) -> Rows:
        rows: Rows = self._index.search(queries, k, self._ef, self._threads)[0]
        return rows

    def one(self, query: Vectors, k: int) -> Rows:
        rows: Rows = self._index.search(query[None], k, self._ef, 1)[0][0]
        return rows


class SymphonyQG(_Rabitq):
    """bits: of the vectors that the nodes keep beside their neighbours' one-bit codes; 0 for float32."""

    def __init__(self, metric: Metric, dimension: int, threads: int, bits: int) -> None:
        super().__init__(metric, dimension, threads)
        self.built_with: Setting = {"degree": DEGREE, "ef_construction": EF_CONSTRUCTION, "bits": bits or 32}
        self._bits = bits

    def build(self, base: Vectors) -> None:
        self._index = SymqgIndex(self._dimension, DEGREE, self._metric, self._bits)
        self._index.build(base, EF_CONSTRUCTION, self._threads)

    def load(self, folder: Path) -> None:
        self._index = SymqgIndex.load(str(folder / "index"))

    def batch(self, queries: Vectors, k: int) -> Rows:
        rows: Rows = self._index.search_batch(queries, k, self._ef, self._threads)[0]
        return rows


class RabitqHnsw(_Rabitq):
    def __init__(self, metric: Metric, dimension: int, threads: int) -> None:
        super().__init__(metric, dimension, threads)
        self.built_with: Setting = {"M": M, "ef_construction": EF_CONSTRUCTION, "bits": 5, "clusters": _CLUSTERS}

    def build(self, base: Vectors) -> None:
        clusters = RaBitQKMeans(
            self._dimension, _CLUSTERS, num_threads=self._threads, final_assignment=FinalAssignmentMode.Exact
        )
        clusters.train(base)
        self._index = HnswIndex(self._dimension, len(base), M, EF_CONSTRUCTION, 5, self._metric)
        self._index.build(base, clusters.centroids, clusters.assignments, self._threads)

    def load(self, folder: Path) -> None:
        self._index = HnswIndex.load(str(folder / "index"))
