"""Groups found through any vector index: each query vector's nearest, until enough different groups have come up.

A crowded group can fill any list of nearest vectors, so the list is made longer until it holds as many groups as are wanted, or
reaches past the kernel, or everything was seen.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vecdb.index.arguments import as_k, as_queries
from vecdb.index.base import VectorIndex
from vecdb.index.groups.exact import RankedGroups
from vecdb.index.groups.kernel import GroupKernel

_SPARE = 4  # times k different groups are sought for each query vector: the best in all are seldom the nearest to each


def probed_groups(
    index: VectorIndex,
    groups: NDArray[np.int64],
    queries: ArrayLike,
    k: int,
    kernel: GroupKernel,
    *,
    distinct: int | None = None,
    ef: int | None = None,
) -> RankedGroups:
    """The k best groups, as far as the index finds them. groups (len(index),): the group of each position, below 0 for none.

    distinct: different groups sought for each query vector, 4 k unless given. Under cosine and l2; vectors of unit length under
    cosine, where the Euclidean distance is the root of twice the index's.
    """
    matrix, k = as_queries(queries, index.dimension), as_k(k)
    wanted = distinct or _SPARE * k
    live = int(np.count_nonzero(index.live))
    best: dict[tuple[int, int], tuple[float, int]] = {}  # (group, query vector) -> distance, position
    work, depth = 0, min(max(2 * wanted, 16), max(live, 1))
    open_ones = np.arange(len(matrix)) if live else np.empty(0, np.int64)
    while len(open_ones):
        found = index.search(np.ascontiguousarray(matrix[open_ones]), depth, ef=None if ef is None else max(ef, depth))
        work += int(found.work.sum())
        doubled = 2.0 if index.metric == "cosine" else 1.0
        distances = np.sqrt(np.maximum(found.distances.astype(np.float64) * doubled, 0.0))
        unfinished = []
        for line, number in enumerate(open_ones.tolist()):
            near = (found.positions[line] >= 0) & (distances[line] < kernel.reach)
            positions, away = found.positions[line][near], distances[line][near]
            own = groups[positions]
            seen, first = np.unique(own, return_index=True)  # nearest first, so the first of a group is its nearest
            for group, at in zip(seen.tolist(), first.tolist()):
                if group >= 0:
                    best[group, number] = float(away[at]), int(positions[at])
            if near.all() and len(seen) < wanted and depth < live:
                unfinished.append(number)
        open_ones = np.array(unfinished, dtype=np.int64)
        depth = min(4 * depth, live)
    return _ranked(best, len(matrix), k, kernel, work)


def _ranked(
    best: dict[tuple[int, int], tuple[float, int]], count: int, k: int, kernel: GroupKernel, work: int
) -> RankedGroups:
    keys = np.array(sorted({group for group, _ in best}), dtype=np.int64)
    place = {group: at for at, group in enumerate(keys.tolist())}
    scores = np.zeros((len(keys), count))
    nearest = np.full((len(keys), count), -1, np.int64)
    for (group, number), (distance, position) in best.items():
        scores[place[group], number] = kernel(np.array(distance))
        nearest[place[group], number] = position
    total = scores.mean(axis=1) if count else np.zeros(0)
    order = np.argsort(-total, kind="stable")[:k]
    order = order[total[order] > 0]
    return RankedGroups(keys[order], total[order], nearest[order], work)
