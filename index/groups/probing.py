"""Groups found through any vector index: each query vector's nearest, until enough different groups have come up.

A crowded group can fill any list of nearest vectors, and of a group only the nearest vector counts: so what has come up is left
out, and the index is asked again for others, until it has given as many groups as are wanted, or reaches past the kernel, or all
was seen.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from vecdb.index.arguments import as_k
from vecdb.index.base import Mask, VectorIndex, Vectors
from vecdb.index.groups.exact import Grouped, RankedGroups, Source, cut_to, exact_groups, ranked_pairs
from vecdb.index.groups.kernel import GroupKernel

_SPARE = 4  # times k different groups are sought for each query vector: the best in all are seldom the nearest to each
_MEASURED = 4  # times k groups are measured at the end
_LARGEST_SHARE = 0.03  # of all vectors, in the groups that are measured at the end

# query (D,), how many, which positions (N,) -> positions and Euclidean distances, nearest first; distances computed
Nearest = Callable[[Vectors, int, Mask], tuple[NDArray[np.int64], NDArray[np.float64], int]]


def nearest_by(index: VectorIndex, *, ef: int | None = None) -> Nearest:
    """The search that an index is. Under cosine and l2; of vectors of unit length under cosine."""
    doubled = 2.0 if index.metric == "cosine" else 1.0

    def search(query: Vectors, count: int, allowed: Mask) -> tuple[NDArray[np.int64], NDArray[np.float64], int]:
        found = index.search(query[None], count, allowed=allowed, ef=None if ef is None else max(ef, count))
        known = found.positions[0] >= 0
        away = np.sqrt(np.maximum(found.distances[0][known].astype(np.float64) * doubled, 0.0))
        return found.positions[0][known], away, int(found.work[0])

    return search


def probed_groups(
    search: Nearest,
    source: Source,
    groups: NDArray[np.int64],
    queries: Vectors,
    k: int,
    kernel: GroupKernel,
    *,
    distinct: int | None = None,
) -> RankedGroups:
    """The k best groups for query vectors (Q, D), as far as the search finds them.

    groups (N,): of each position, below 0 for none; distinct: different groups sought for each query vector, 4 k unless given.
    """
    k = as_k(k)
    wanted = distinct or _SPARE * k
    asked, keys, away, positions, work = [], [], [], [], 0
    for number, query in enumerate(queries):
        allowed, met, depth = groups >= 0, 0, max(2 * wanted, 16)
        while met < wanted:
            found, distances, cost = search(query, depth, allowed)
            work += cost
            own, first = np.unique(
                groups[found], return_index=True
            )  # nearest first, so the first of a group is its nearest
            asked.append(np.full(len(own), number))
            keys.append(own)
            away.append(distances[first])
            positions.append(found[first])
            met += len(own)
            if len(found) < depth or distances[-1] >= kernel.reach:
                break
            allowed &= ~np.isin(groups, own)
    if not keys:
        return RankedGroups.none(len(queries), work)
    pairs = np.concatenate(asked), np.concatenate(keys), np.concatenate(away), np.concatenate(positions)
    return measured_again(ranked_pairs(*pairs, len(queries), kernel), source, groups, queries, k, kernel, work=work)


def measured_again(
    found: RankedGroups,
    source: Source,
    groups: NDArray[np.int64],
    queries: Vectors,
    k: int,
    kernel: GroupKernel,
    *,
    work: int,
    touched: int = 0,
) -> RankedGroups:
    """The k best of those found, by all distances to the best of them, as many as can be afforded: at least k, or none."""
    sizes = np.bincount(groups[groups >= 0])
    members = np.cumsum(sizes[found.keys[: _MEASURED * k]])
    most = int(np.searchsorted(members, _LARGEST_SHARE * sizes.sum(), side="right"))
    if most < min(k, len(found.keys)) or not most:
        return cut_to(found, k, work=work, touched=touched)
    chosen = Grouped.of(source, np.where(np.isin(groups, found.keys[:most]), groups, -1))
    exact = exact_groups(chosen, queries, k, kernel)
    return cut_to(exact, k, work=work + exact.work, touched=touched)
