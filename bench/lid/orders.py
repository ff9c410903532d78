"""Orders of insertion: permutations of a set's rows."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[np.float32]
Rows = NDArray[np.int64]

# given: as the source has them. random: shuffled. lid_asc and lid_desc: by local intrinsic dimensionality, smallest or largest
# first. clustered: one k-means cluster after the other, the clusters shuffled.
ORDERS = ("given", "random", "lid_asc", "lid_desc", "clustered")

_CLUSTERS = 100
_TRAINED_ON = 10_000
_ROUNDS = 10
_SCORES = 1 << 24


def order_of(name: str, vectors: Vectors, lid: NDArray[np.float64], seed: int) -> Rows:
    """(N,) rows in the order of that name; lid (N,) is their estimates. The seed is of shuffling and clustering."""
    rng = np.random.default_rng(seed)
    if name == "given":
        return np.arange(len(vectors))
    if name == "random":
        return rng.permutation(len(vectors))
    if name == "clustered":
        labels = cluster(vectors, min(_CLUSTERS, len(vectors)), rng)
        return np.argsort(rng.permutation(_CLUSTERS)[labels], kind="stable")
    return np.argsort({"lid_asc": lid, "lid_desc": -lid}[name], kind="stable")


def cluster(vectors: Vectors, count: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """(N,) the nearest of `count` centres, which Lloyd's algorithm finds on a sample."""
    sample = vectors[np.sort(rng.choice(len(vectors), min(_TRAINED_ON, len(vectors)), replace=False))]
    centres = sample[rng.choice(len(sample), count, replace=False)]
    for _ in range(_ROUNDS):
        labels = _nearest(sample, centres)
        sizes = np.bincount(labels, minlength=count)
        sums = np.zeros(centres.shape)
        np.add.at(sums, labels, sample)
        filled = sizes > 0  # an empty cluster keeps its centre
        centres[filled] = sums[filled] / sizes[filled, None]
    return _nearest(vectors, centres)


def _nearest(vectors: Vectors, centres: Vectors) -> NDArray[np.int64]:
    halves: Any = np.einsum("cd,cd->c", centres, centres) / 2
    step = max(1, _SCORES // len(centres))
    parts = [
        np.argmin(halves - vectors[start : start + step] @ centres.T, axis=1) for start in range(0, len(vectors), step)
    ]
    return np.concatenate(parts)
