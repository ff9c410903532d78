"""What makes a graph keep its promises after a change: every live node can be reached, and every live node finds itself.

Searching a graph is a walk, and diversity pruning may cut the last link that led to a node. Two cures. `connect` grows a
spanning tree over the base links and links in what it misses; tree links are never cut afterwards. `lose_nobody` searches
for suspects by their own vectors and, where one is missed, adds a link to it from where the search ended.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vecdb.index import kernels
from vecdb.index.graph import HnswGraph, Nodes
from vecdb.index.pool import RangePool
from vecdb.index.scratch import ScratchShelf

_ROUNDS = 24  # one to three on real data; narrow graphs of random vectors have taken a dozen
_GLANCE = 16  # beam width of the first look; who is found with it is found with any wider one
_NODES_AT_ONCE = 128
_UNCHECKED_SHARE = (
    1 / 50
)  # after so many changes everybody is looked for, which adds about a new node's own cost to each
_ALWAYS_CHECKED = 512  # in graphs so small, after every change: some milliseconds


def repair(
    graph: HnswGraph,
    lost: NDArray[np.uint8],
    shelf: ScratchShelf,
    pool: RangePool,
    *,
    new: Nodes | None = None,
    removed: int = 0,
    touched: Nodes | None,
) -> None:
    """After nodes came (new) or went (removed, a number): every live node can be reached, and finds itself.

    lost (N,) is 1 for nodes that some link no longer leads to. touched: as `connect` has it. A change can also hide a node
    that kept all its links, which is rare (seen: 2 of 87,533 after 2,467 changes): after few changes only the new and those
    who lost a link are looked for, and all only from time to time. `settle` looks for all at once.
    """
    connect(graph, lost, shelf, touched=touched)
    new = np.empty(0, np.int32) if new is None else new
    graph.unchecked += len(new) + removed
    if graph.unchecked >= _UNCHECKED_SHARE * graph.live_count or graph.live_count <= _ALWAYS_CHECKED:
        settle(graph, shelf, pool)
        return
    bereft = np.flatnonzero(lost[: graph.size].view(np.bool_) & graph.live[: graph.size]).astype(np.int32)
    lose_nobody(graph, np.union1d(new, bereft), shelf, pool)


def settle(graph: HnswGraph, shelf: ScratchShelf, pool: RangePool) -> None:
    """Look for every live node. The graph has its tree of parents."""
    lose_nobody(graph, np.flatnonzero(graph.live[: graph.size]).astype(np.int32), shelf, pool)
    graph.unchecked = 0


def connect(graph: HnswGraph, lost: NDArray[np.uint8], shelf: ScratchShelf, *, touched: Nodes | None) -> None:
    """Complete graph.parents, a tree of base links from the entry to every live node, adding links where none leads.

    touched: the nodes whose links have changed since the tree was complete; None to grow it from the root. lost (N,) gets 1
    where a node lost a link to a new one.
    """
    if graph.live_count == 0:
        graph.parents = None
        return
    queue = np.empty(2 * graph.size, np.int32)
    if graph.parents is None or touched is None:
        graph.parents = np.full(graph.size, -1, np.int32)
        graph.parents[graph.entry] = graph.entry
        touched = np.array([graph.entry], np.int32)
    parents = graph.parents
    reached = touched[parents[touched] >= 0]
    queue[: len(reached)] = reached
    kernels.grow_tree(graph.base, parents, queue, len(reached))
    missed = np.flatnonzero((parents[: graph.size] < 0) & graph.live[: graph.size]).astype(np.int32)
    if len(missed):
        with shelf.borrow(graph.size) as scratch:
            ef = graph.config.ef
            kernels.attach(graph.view(), graph.base, parents, lost, missed, ef, scratch.marks, scratch.clock, queue)


def lose_nobody(graph: HnswGraph, suspects: Nodes, shelf: ScratchShelf, pool: RangePool) -> None:
    """Search for each suspect (n,) at the default ef; where one is missed, link it to where it was looked for.

    A new link may hide others, by taking the place of another link or by drawing the beam elsewhere, so all suspects are
    looked for again in the end, until nobody had to be helped.
    """
    lost = np.zeros(graph.size, np.uint8)
    waiting, is_final = suspects, True
    for _ in range(_ROUNDS):
        missed = _missed(graph, waiting, min(_GLANCE, graph.config.ef), shelf, pool)
        missed = _missed(graph, missed, graph.config.ef, shelf, pool)
        if not len(missed):
            if is_final:
                return
            waiting, is_final = suspects, True
            continue
        assert graph.parents is not None
        lost[:] = 0
        with shelf.borrow(graph.size) as scratch:
            kernels.strengthen(
                graph.view(), graph.base, graph.parents, lost, missed, graph.config.ef, scratch.marks, scratch.clock
            )
        replaced = np.flatnonzero(lost).astype(np.int32)
        waiting, is_final = np.union1d(missed, replaced), False


def _missed(graph: HnswGraph, rows: Nodes, ef: int, shelf: ScratchShelf, pool: RangePool) -> Nodes:
    """Those of rows that a search for their own vectors does not find."""
    found = np.zeros(len(rows), np.uint8)
    view = graph.view()

    def work(start: int, stop: int) -> None:
        with shelf.borrow(graph.size) as scratch:
            kernels.find_selves(view, rows, start, stop, ef, scratch.marks, scratch.clock, found)

    pool.run(work, len(rows), step=_NODES_AT_ONCE)
    missed: Nodes = rows[found == 0]
    return missed
