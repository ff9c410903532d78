"""An index of whatever kind: from its settings, or back from what it said about itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from numpy.typing import NDArray

from vecdb.errors import CorruptIndex
from vecdb.index.base import CodesConfig, IndexConfig, NeuralLshConfig, VectorIndex
from vecdb.index.exact import ExactIndex


def open_index(settings: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> VectorIndex:
    """The index whose `settings()` and `arrays()` these are, of any kind.

    The arrays may be read-only memory maps: they are used in place, and copied only when something is added or removed.
    Raises CorruptIndex if they do not fit together.
    """
    kind = settings.get("kind")
    try:
        if kind == "exact":
            return ExactIndex.open(settings, arrays)
        if kind == "hnsw":
            from vecdb.index.hnsw import HnswIndex  # numba takes half a second to import

            return HnswIndex.open(settings, arrays)
        if kind == "neural_lsh":
            from vecdb.index.neural_lsh import NeuralLshIndex

            return NeuralLshIndex.open(settings, arrays)
        if kind == "codes":
            from vecdb.index.code_scan import CodeScanIndex

            return CodeScanIndex.open(settings, arrays)
    except (KeyError, TypeError, ValueError) as error:
        raise CorruptIndex(f"the saved {kind} index does not fit together ({error}); rebuild it") from error
    raise CorruptIndex(
        f"the saved index is of kind {kind!r}; this version knows exact, hnsw, neural_lsh and codes; rebuild it"
    )


def empty_index(dimension: int, metric: str, config: IndexConfig) -> VectorIndex:
    """An index of the kind that config is of, to be filled."""
    if isinstance(config, NeuralLshConfig):
        from vecdb.index.neural_lsh import NeuralLshIndex

        return NeuralLshIndex(dimension, metric, config)
    if isinstance(config, CodesConfig):
        from vecdb.index.code_scan import CodeScanIndex

        return CodeScanIndex(dimension, metric, config)
    from vecdb.index.hnsw import HnswIndex

    return HnswIndex(dimension, metric, config)
