"""Three ways of inserting vectors in the order in which they stand. Whoever built it, our search walks the graph and counts.

batched: vecdb. Some hundred nodes at a time choose their links together. single: the same kernels, but after a first batch
each vector is added alone, as the textbook has it. hnswlib: one at a time, by one thread; the graph is then taken over.
vecdb repairs what a graph would not find, hnswlib does not; so an hnswlib graph is also asked by hnswlib, whose recall counts.
"""

from __future__ import annotations

from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from vecdb.index import HnswConfig, HnswIndex, from_hnswlib

Vectors = NDArray[np.float32]
Rows = NDArray[np.int64]
Metric = Literal["l2", "cosine"]

M, EF_CONSTRUCTION = 16, 128

_FIRST = 512  # vectors in the first batch of `single`: as many as a batch of `batched`


class Graph(Protocol):
    def search(self, queries: Vectors, k: int, ef: int) -> tuple[Rows, float, dict[str, Rows]]:
        """Rows (Q, k), distances computed for a query on average, and rows of other searches of the same graph by name."""


class Batched:
    def __init__(self, vectors: Vectors, metric: Metric, seed: int) -> None:
        self.index = HnswIndex.build(vectors, metric, _config(seed))

    def search(self, queries: Vectors, k: int, ef: int) -> tuple[Rows, float, dict[str, Rows]]:
        found = self.index.search(queries, k, ef=ef)
        return found.positions, float(found.work.mean()), {}


class Single(Batched):
    def __init__(self, vectors: Vectors, metric: Metric, seed: int) -> None:
        super().__init__(vectors[:_FIRST], metric, seed)
        for row in range(_FIRST, len(vectors)):
            self.index.add(vectors[row : row + 1], threads=1)


class Hnswlib:
    def __init__(self, vectors: Vectors, metric: Metric, seed: int) -> None:
        import hnswlib

        self.source: Any = hnswlib.Index(metric, vectors.shape[1])
        self.source.init_index(len(vectors), M=M, ef_construction=EF_CONSTRUCTION, random_seed=seed + 1)
        self.source.add_items(vectors, np.arange(len(vectors)), num_threads=1)
        taken = from_hnswlib(self.source)
        self.index, self.labels = taken.index, taken.labels

    def search(self, queries: Vectors, k: int, ef: int) -> tuple[Rows, float, dict[str, Rows]]:
        self.source.set_ef(ef)
        rows = self.source.knn_query(queries, k, num_threads=1)[0].astype(np.int64)
        found = self.index.search(queries, k, ef=ef)
        return rows, float(found.work.mean()), {"taken_over": self.labels[found.positions]}


ENGINES = {"batched": Batched, "single": Single, "hnswlib": Hnswlib}


def _config(seed: int) -> HnswConfig:
    return HnswConfig(M=M, ef_construction=EF_CONSTRUCTION, seed=seed, order="given")
