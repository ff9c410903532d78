"""New nodes into a graph, in batches, with the same links for any number of threads.

All nodes of a batch choose their links at once: each searches the graph as it was before the batch and is compared with
every other member. Then the reverse links are merged, grouped by target, each target by one thread. Because peers are
compared exactly, a batch need not be small against the graph: a large one added to a small graph is as well connected.
"""

from __future__ import annotations

import numpy as np

from vecdb.index import kernels
from vecdb.index.graph import HnswGraph, Nodes
from vecdb.index.pool import RangePool
from vecdb.index.repair import repair
from vecdb.index.scratch import ScratchShelf

# Each peer costs one distance, out of the cache as long as the batch fits there: at 512 a fifth of what a node's own
# search costs, at 2,048 more than the search.
_BATCH = 512
_NODES_AT_ONCE = 32  # a range of one thread: some milliseconds of searching
_TARGETS_AT_ONCE = 256


def insert(graph: HnswGraph, nodes: Nodes, shelf: ScratchShelf, pool: RangePool) -> None:
    """Link nodes that `graph.append` just made, in this order, then see to it that each can be reached and finds itself."""
    is_first = graph.entry < 0
    lost = np.zeros(graph.size, np.uint8)
    touched = []
    for start in range(0, len(nodes), _BATCH):
        batch = nodes[start : start + _BATCH]
        _choose(graph, batch, shelf, pool)
        for level in range(int(graph.levels[batch].max()) + 1):
            targets = _merge(graph, batch, level, lost, pool)
            if level == 0:
                touched.append(targets)
        if graph.raise_entry(batch):
            graph.parents = None  # the tree's root is the entry
    where = None if is_first else np.unique(np.concatenate(touched))
    repair(graph, lost, shelf, pool, new=nodes, touched=where)


def _choose(graph: HnswGraph, batch: Nodes, shelf: ScratchShelf, pool: RangePool) -> None:
    view = graph.view()
    width = max(graph.config.ef_construction, graph.config.M)

    def work(start: int, stop: int) -> None:
        with shelf.borrow(graph.size) as scratch:
            kernels.choose_links(view, graph.base, graph.upper, batch, start, stop, width, scratch.marks, scratch.clock)

    pool.run(work, len(batch), step=_NODES_AT_ONCE)


def _merge(graph: HnswGraph, batch: Nodes, level: int, lost: np.ndarray, pool: RangePool) -> Nodes:
    """Reverse links of what the batch chose on this level -> the nodes that got them, ascending."""
    members = batch[graph.levels[batch] >= level]
    rows = graph.base[members] if level == 0 else graph.upper[graph.starts[members].astype(np.int64) + level - 1]
    is_link = rows >= 0
    sources = np.repeat(members, is_link.sum(axis=1))
    targets = rows[is_link]
    order = np.argsort(targets, kind="stable")  # within a target, sources stay in insertion order
    targets, sources = targets[order], sources[order]
    unique, firsts = np.unique(targets, return_index=True)
    bounds = np.append(firsts, len(targets)).astype(np.int64)
    parents = graph.parents
    if parents is None:
        parents = np.full(graph.size, -1, np.int32)
    view = graph.view()

    def work(start: int, stop: int) -> None:
        kernels.merge_links(view, graph.base, graph.upper, level, unique, bounds, sources, start, stop, parents, lost)

    pool.run(work, len(unique), step=_TARGETS_AT_ONCE)
    return unique
