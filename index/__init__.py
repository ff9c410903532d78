"""Vector indexes: arrays and positions in, nearest positions out. No SQL, no files, no user ids; imports nothing of those.

    base      VectorIndex, the Protocol of every kind; Neighbours, its answer; HnswConfig
    exact     ExactIndex and exact_search: NumPy only, the oracle and the engine of small collections
    hnsw      HnswIndex: the graph index; insertion, removal and repair stand beside it
    opening   open_index: an index back from its settings and arrays

`import vecdb.index` and `vecdb.index.exact` load no compiler; numba comes with the first use of HnswIndex.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vecdb.index.base import METRICS, HnswConfig, Mask, Metric, Neighbours, Positions, VectorIndex, Vectors
from vecdb.index.exact import ExactIndex, exact_search
from vecdb.index.opening import open_index

if TYPE_CHECKING:
    from vecdb.index.hnsw import HnswIndex

__all__ = [
    "METRICS",
    "ExactIndex",
    "HnswConfig",
    "HnswIndex",
    "Mask",
    "Metric",
    "Neighbours",
    "Positions",
    "VectorIndex",
    "Vectors",
    "exact_search",
    "open_index",
]


def __getattr__(name: str) -> Any:
    if name == "HnswIndex":
        from vecdb.index.hnsw import HnswIndex  # numba takes half a second to import

        return HnswIndex
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
