from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from numpy.typing import NDArray

from vecdb.index import HnswIndex
from vecdb.judged import shipped_data


@dataclass(frozen=True)
class RealVectors:
    """base (4000, 384) and queries (300, 384) float32, unit length; neighbours (300, 100): the true nearest by cosine."""

    base: NDArray[np.float32]
    queries: NDArray[np.float32]
    neighbours: NDArray[np.int32]


@pytest.fixture(scope="session")
def real() -> RealVectors:
    """Embeddings of scientific abstracts and of claims about them, which ship with vecdb."""
    with np.load(shipped_data() / "embeddings" / "scifact-minilm-4k.npz") as saved:
        base, queries = (_unit(saved[name]) for name in ("base", "queries"))
        return RealVectors(base, queries, saved["neighbours"])


@pytest.fixture(scope="session")
def built(real: RealVectors) -> HnswIndex:
    """An index over the real vectors; tests that change it take a copy."""
    return HnswIndex.build(real.base, "cosine")


def _unit(vectors: NDArray[np.float16]) -> NDArray[np.float32]:
    wide = vectors.astype(np.float32)
    return wide / np.linalg.norm(wide, axis=1, keepdims=True)
