"""pynndescent: a graph from NN-descent (Dong et al. 2011), diversified and pruned, searched by Numba kernels."""

from __future__ import annotations

import pickle
from pathlib import Path

import numba
from pynndescent import NNDescent

from bench.ann.peers.base import DEGREE, Metric, Rows, Setting, Vectors


class Pynndescent:
    """Settings of the build beyond the degree are those of its own entry in ann-benchmarks."""

    ladder = tuple(
        {"epsilon": epsilon}
        for epsilon in (0.0, 0.02, 0.04, 0.06, 0.08, 0.1, 0.12, 0.14, 0.16, 0.18, 0.2, 0.24, 0.28, 0.32, 0.36, 0.4)
    )

    def __init__(self, metric: Metric, dimension: int, threads: int) -> None:
        self.built_with: Setting = {"n_neighbors": DEGREE, "diversify_prob": 0.0, "pruning_degree_multiplier": 1.5}
        self._metric = "euclidean" if metric == "l2" else "dot"
        self._threads = threads
        self._epsilon = 0.0
        numba.set_num_threads(threads)

    def build(self, base: Vectors) -> None:
        self._index = NNDescent(
            base,
            metric=self._metric,
            n_jobs=self._threads,
            random_state=0,
            parallel_batch_queries=self._threads > 1,
            **self.built_with,
        )
        self._index.prepare()

    def save(self, folder: Path) -> None:
        """Pickle is the way that its documentation gives."""
        with (folder / "index").open("wb") as file:
            pickle.dump(self._index, file)

    def load(self, folder: Path) -> None:
        with (folder / "index").open("rb") as file:
            self._index = pickle.load(file)
        self._index.parallel_batch_queries = self._threads > 1

    def tune(self, setting: Setting) -> None:
        self._epsilon = setting["epsilon"]

    def batch(self, queries: Vectors, k: int) -> Rows:
        rows: Rows = self._index.query(queries, k, epsilon=self._epsilon)[0]
        return rows

    def one(self, query: Vectors, k: int) -> Rows:
        rows: Rows = self._index.query(query[None], k, epsilon=self._epsilon)[0][0]
        return rows
