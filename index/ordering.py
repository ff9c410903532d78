"""The order in which new nodes enter a graph. A node can link only to those before it, so the order shapes the graph."""

from __future__ import annotations

from vecdb.index.base import HnswConfig, VectorIndex, Vectors
from vecdb.index.graph import Nodes
from vecdb.index.levels import shuffled
from vecdb.index.lid import LidMethod, lid_among, lid_order, sorted_by_lid

# Measuring all pairs of so many takes about as long as building an index over them and asking that; beyond, it takes longer.
_EXACT_UP_TO = 10_000


def insertion_order(
    config: HnswConfig,
    first_number: int,
    nodes: Nodes,
    vectors: Vectors,
    *,
    index: VectorIndex | None = None,
    threads: int | None = None,
) -> Nodes:
    """The nodes (n,), of running numbers from first_number on and with these vectors (n, D), as config.order has it.

    By LID (lid.py), a batch is ordered within itself; what is already in a graph stays where it is. The neighbours that tell
    a vector's LID are sought in `index`, the graph before the batch, or in the rest of the batch: whichever holds more.
    """
    order = config.order
    if order == "given":
        return nodes
    if order == "random":
        return shuffled(config, first_number, nodes)
    if index is not None and index.metric != "ip" and int(index.live.sum()) >= max(len(nodes), config.lid_k):
        return nodes[sorted_by_lid(lid_among(index, vectors, k=config.lid_k, threads=threads), order)]
    method: LidMethod = "exact" if len(nodes) <= _EXACT_UP_TO else "index"
    return nodes[lid_order(vectors, order, k=config.lid_k, method=method, threads=threads)]
