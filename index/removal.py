"""Nodes out of a graph. What led to a removed node is linked on to where that node led, chosen by the same rule as ever."""

from __future__ import annotations

import numpy as np

from vecdb.index import kernels
from vecdb.index.base import Mask, Positions
from vecdb.index.graph import HnswGraph
from vecdb.index.pool import RangePool
from vecdb.index.repair import repair
from vecdb.index.scratch import ScratchShelf

_NODES_AT_ONCE = 512


def remove(graph: HnswGraph, positions: Positions, shelf: ScratchShelf, pool: RangePool, *, fill: bool = True) -> None:
    """Take live nodes (n,) out of the graph: afterwards no link leads to them or from them.

    fill: nodes keep their degree, by links to near nodes that the rule would refuse. Around a removed node the graph is then
    a little richer than a graph in which it never was.
    """
    n = graph.size
    graph.own()
    dead = np.zeros(n, np.bool_)
    dead[positions] = True
    graph.live[positions] = False
    graph.live_count -= len(positions)
    lost = np.zeros(n, np.uint8)
    bereaved = graph.base[positions]
    lost[bereaved[bereaved >= 0]] = 1
    if graph.live_count:
        for level in range(graph.top + 1):
            _mend(graph, level, fill, dead, lost, shelf, pool)
    _clear(graph, positions)
    if graph.entry >= 0 and dead[graph.entry]:
        graph.choose_entry()
    repair(graph, lost, shelf, pool, removed=len(positions), touched=None)


def _mend(
    graph: HnswGraph, level: int, fill: bool, dead: Mask, lost: np.ndarray, shelf: ScratchShelf, pool: RangePool
) -> None:
    n = graph.size
    rows = np.flatnonzero(graph.live[:n] & (graph.levels[:n] >= level)).astype(np.int32)
    view = graph.view()

    def work(start: int, stop: int) -> None:
        queue = np.empty(n, np.int32)
        with shelf.borrow(n) as scratch:
            kernels.mend_links(
                view,
                graph.base,
                graph.upper,
                level,
                int(fill),
                rows,
                start,
                stop,
                dead,
                lost,
                scratch.marks,
                scratch.clock,
                queue,
            )

    pool.run(work, len(rows), step=_NODES_AT_ONCE)


def _clear(graph: HnswGraph, positions: Positions) -> None:
    """The links of removed nodes, which `_mend` read until now."""
    graph.base[positions] = -1
    heights = graph.levels[positions].astype(np.int64)
    firsts = np.repeat(graph.starts[positions].astype(np.int64), heights)
    steps = np.arange(int(heights.sum())) - np.repeat(np.cumsum(heights) - heights, heights)
    graph.upper[firsts + steps] = -1
