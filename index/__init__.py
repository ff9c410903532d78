"""Vector indexes: arrays and positions in, nearest positions out. No SQL, no files, no user ids; imports nothing of those.

    base      VectorIndex, the Protocol of every kind; Neighbours, its answer; HnswConfig, NeuralLshConfig, CodesConfig
    live_vectors  LiveVectors: vectors of which some are live, which the kinds without a graph are made of
    exact     ExactIndex and exact_search: NumPy only, the oracle and the engine of small collections
    hnsw      HnswIndex: the graph index; insertion, removal and repair stand beside it
    neural_lsh  NeuralLshIndex: bins of a learned partition, searched likeliest first
    code_scan   CodeScanIndex: codes of any codec, all looked at, the best measured again
    opening   open_index: an index back from its settings and arrays
    ordering  the order in which nodes enter a graph; lid: local intrinsic dimensionality, which it may follow
    tuning    tune and recheck: which settings, and which ef, reach a recall with the least work
    adjacency a weighted graph as arrays, and flow on it; pagerank: PowerWalk; fastrp: node embeddings; nearest_links: the k-NN
              graph, read off an HNSW graph
    imports   from_hnswlib, from_faiss: their graphs taken over (the one place that reads a file, another library's)

`import vecdb.index` and `vecdb.index.exact` load no compiler; numba comes with the first use of what builds on HnswIndex.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from vecdb.index.base import (
    METRICS,
    CodesConfig,
    HnswConfig,
    IndexConfig,
    Mask,
    Metric,
    Neighbours,
    NeuralLshConfig,
    Positions,
    VectorIndex,
    Vectors,
)
from vecdb.index.exact import ExactIndex, exact_search
from vecdb.index.lid import LidReport, lid_report
from vecdb.index.opening import open_index
from vecdb.index.tuning import Tuning, recheck, tune

if TYPE_CHECKING:
    from vecdb.index.code_scan import CodeScanIndex
    from vecdb.index.hnsw import HnswIndex
    from vecdb.index.imports import Imported, from_faiss, from_hnswlib
    from vecdb.index.neural_lsh import NeuralLshIndex

__all__ = [
    "METRICS",
    "CodeScanIndex",
    "CodesConfig",
    "ExactIndex",
    "HnswConfig",
    "HnswIndex",
    "Imported",
    "IndexConfig",
    "LidReport",
    "Mask",
    "Metric",
    "Neighbours",
    "NeuralLshConfig",
    "NeuralLshIndex",
    "Positions",
    "Tuning",
    "VectorIndex",
    "Vectors",
    "exact_search",
    "from_faiss",
    "from_hnswlib",
    "lid_report",
    "open_index",
    "recheck",
    "tune",
]

# These need numba, which takes half a second to import.
_COMPILED = {
    "CodeScanIndex": "vecdb.index.code_scan",
    "HnswIndex": "vecdb.index.hnsw",
    "Imported": "vecdb.index.imports",
    "NeuralLshIndex": "vecdb.index.neural_lsh",
    "from_faiss": "vecdb.index.imports",
    "from_hnswlib": "vecdb.index.imports",
}


def __getattr__(name: str) -> Any:
    if name in _COMPILED:
        return getattr(import_module(_COMPILED[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
