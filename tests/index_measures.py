"""Figures that several test files take of an index."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vecdb.index import VectorIndex


def recall(found: NDArray[np.int64], true: NDArray[np.int64]) -> float:
    """Share of the true neighbours (B, k) that are among the found (B, k); -1 counts on neither side."""
    hits = [len(np.intersect1d(a[a >= 0], b[b >= 0])) for a, b in zip(found, true)]
    return sum(hits) / int((true >= 0).sum())


def not_finding_themselves(index: VectorIndex) -> list[int]:
    """Live positions whose vector, as a query at the default ef, finds neither them nor an equal vector."""
    vectors = np.ascontiguousarray(index.arrays()["vectors"])
    live = np.flatnonzero(index.live)
    found = index.search(vectors[live], 1)
    lengths = np.einsum("nd,nd->n", vectors[live], vectors[live], dtype=np.float64)
    itself = {"l2": 0 * lengths, "ip": -lengths, "cosine": np.maximum(1 - lengths, 0)}[index.metric].astype(np.float32)
    missed = (found.positions[:, 0] != live) & (found.distances[:, 0] > itself)
    return [int(position) for position in live[missed]]
