"""Three indexes of faiss: HNSW in float32, HNSW over 8-bit codes, and IVF-PQ with 4-bit fast scan; the last two re-check."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import faiss

from bench.ann.peers.base import BEAMS, EF_CONSTRUCTION, M, Metric, Rows, Setting, Vectors


class _Faiss:
    """factory: faiss's description of the index. With a re-check it is an IndexRefine, whose base index walks."""

    factory: str
    refined = True

    def __init__(self, metric: Metric, dimension: int, threads: int) -> None:
        faiss.omp_set_num_threads(threads)
        self._metric = faiss.METRIC_L2 if metric == "l2" else faiss.METRIC_INNER_PRODUCT
        self._dimension = dimension
        self._index: Any = None
        self.built_with: Setting = {"M": M, "ef_construction": EF_CONSTRUCTION}

    def build(self, base: Vectors) -> None:
        self.built_with = {**self.built_with, "factory": self.factory}
        self._index = faiss.index_factory(self._dimension, self.factory, self._metric)
        self._prepare(self._walking())
        self._index.train(base)
        self._index.add(base)

    def save(self, folder: Path) -> None:
        faiss.write_index(self._index, str(folder / "index"))

    def load(self, folder: Path) -> None:
        self._index = faiss.read_index(str(folder / "index"))

    def tune(self, setting: Setting) -> None:
        self._set(self._walking(), setting)
        if self.refined:
            faiss.downcast_index(self._index).k_factor = setting["refine"]

    def batch(self, queries: Vectors, k: int) -> Rows:
        rows: Rows = self._index.search(queries, k)[1]
        return rows

    def one(self, query: Vectors, k: int) -> Rows:
        rows: Rows = self._index.search(query[None], k)[1][0]
        return rows

    def _walking(self) -> Any:
        return faiss.downcast_index(faiss.downcast_index(self._index).base_index if self.refined else self._index)

    def _prepare(self, index: Any) -> None:
        index.hnsw.efConstruction = EF_CONSTRUCTION

    def _set(self, index: Any, setting: Setting) -> None:
        index.hnsw.efSearch = setting["ef"]


class FaissHnsw(_Faiss):
    ladder = tuple({"ef": ef} for ef in BEAMS)
    factory = f"HNSW{M},Flat"
    refined = False


class FaissHnswSq8(_Faiss):
    """The beam and how many times k candidates are re-checked on float32."""

    ladder = tuple({"ef": ef, "refine": refine} for ef in BEAMS for refine in (1, 2, 4) if 10 * refine <= ef)
    factory = f"HNSW{M},SQ8,RFlat"


class FaissIvfPq(_Faiss):
    """About 4 sqrt(N) lists, as faiss's guide has it; 4-bit codes for every 2 dimensions, for 4 above 512 of them."""

    ladder = tuple(
        {"nprobe": nprobe, "refine": refine}
        for nprobe in (2, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256)
        for refine in (4, 8, 16, 32)
    )

    def build(self, base: Vectors) -> None:
        lists = round(4 * math.sqrt(len(base)))
        parts = self._dimension // (4 if self._dimension > 512 else 2)
        self.factory = f"IVF{lists},PQ{parts}x4fs,RFlat"
        self.built_with = {}  # all of it is in the factory's description
        super().build(base)

    def _prepare(self, index: Any) -> None:
        """It has no graph."""

    def _set(self, index: Any, setting: Setting) -> None:
        index.nprobe = setting["nprobe"]
