"""vecdb in ann-benchmarks: copy this folder to `ann_benchmarks/algorithms/vecdb` of a checkout of that project."""

import numpy as np

from vecdb.index import HnswConfig, HnswIndex

from ..base.module import BaseANN


class Vecdb(BaseANN):
    def __init__(self, metric, method_param):
        self.metric = {"angular": "cosine", "euclidean": "l2"}[metric]
        self.method_param = method_param
        self.name = f"vecdb ({method_param})"

    def fit(self, X):
        config = HnswConfig(M=self.method_param["M"], ef_construction=self.method_param["efConstruction"])
        self.index = HnswIndex.build(self._prepared(X), self.metric, config)
        # Kernels are compiled, or read from the cache, before the clock of the first query starts.
        self.index.search(self.index.vectors[:2], 10)

    def set_query_arguments(self, ef):
        self.ef = ef
        self.name = f"vecdb ({self.method_param}, 'ef': {ef})"

    def query(self, v, n):
        return self.index.search(self._prepared(v[None]), n, ef=self.ef, threads=1).positions[0]

    def batch_query(self, X, n):
        self.res = self.index.search(self._prepared(X), n, ef=self.ef, threads=None).positions

    def _prepared(self, X):
        """float32, and under cosine of unit length, which is what an index of vecdb's wants."""
        X = np.ascontiguousarray(X, dtype=np.float32)
        if self.metric == "cosine":
            X = X / np.maximum(np.linalg.norm(X, axis=1, keepdims=True), np.float32(1e-30))
        return X
