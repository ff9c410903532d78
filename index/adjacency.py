"""A weighted graph as arrays, and what flows through it: NumPy only, so that it answers before any kernel is compiled.

Everything here keeps one convention for a node without outgoing edges: it has an edge to itself alone. So every walk goes on for
ever, the rows of P sum to 1, and p_v = e_v for such a node, whoever the source is.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vecdb.errors import InvalidInput

Nodes = NDArray[np.int32]
Floats = NDArray[np.float64]

RESTART = 0.15  # c of Page et al.; a walk is 1 / c nodes long on average
THRESHOLD = 1e-5  # flow below it is dropped, and told as residual


@dataclass(frozen=True)
class Adjacency:
    """Directed edges grouped by source; the same two nodes may have several. An undirected edge stands here twice.

    starts: (N+1,) int64; node v's edges are starts[v] … starts[v+1]. targets: (E,) int32. weights: (E,) float32, positive and
    finite. labels: (E,) int32, whatever the maker of the graph tells its edges apart by.
    """

    starts: NDArray[np.int64]
    targets: Nodes
    weights: NDArray[np.float32]
    labels: NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.starts) - 1

    @property
    def edges(self) -> int:
        return len(self.targets)

    @classmethod
    def of(
        cls,
        size: int,
        sources: NDArray[np.integer[Any]],
        targets: NDArray[np.integer[Any]],
        weights: NDArray[np.floating[Any]],
        labels: NDArray[np.int32] | int = 0,
    ) -> Adjacency:
        """The graph of these (E,) edges over nodes 0 … size-1; edges of one source keep their order. Raises InvalidInput."""
        for name, ends in (("source", sources), ("target", targets)):
            if len(ends) and not 0 <= ends.min() <= ends.max() < size:
                raise InvalidInput(f"an edge has {name} {int(ends.max())}; nodes are numbered 0 to {size - 1}")
        if len(weights) and not (np.isfinite(weights).all() and weights.min() > 0):
            raise InvalidInput(
                f"edge weights lie between {weights.min()} and {weights.max()}; they must be above 0, and finite"
            )
        order = np.argsort(sources, kind="stable")
        starts = np.zeros(size + 1, dtype=np.int64)
        np.cumsum(np.bincount(sources, minlength=size), out=starts[1:])
        every = np.broadcast_to(np.asarray(labels, dtype=np.int32), len(sources))
        return cls(starts, targets[order].astype(np.int32), weights[order].astype(np.float32), every[order])

    @classmethod
    def undirected(
        cls,
        size: int,
        sources: NDArray[np.integer[Any]],
        targets: NDArray[np.integer[Any]],
        weights: NDArray[np.floating[Any]],
        labels: NDArray[np.int32] | int = 0,
    ) -> Adjacency:
        """The graph of these edges, each in both directions."""
        every = np.broadcast_to(np.asarray(labels, dtype=np.int32), len(sources))
        return cls.of(
            size,
            np.concatenate([sources, targets]),
            np.concatenate([targets, sources]),
            np.concatenate([weights, weights]),
            np.concatenate([every, every]),
        )

    @cached_property
    def sources(self) -> Nodes:
        """(E,) the source of each edge."""
        return np.repeat(np.arange(len(self), dtype=np.int32), np.diff(self.starts))

    @cached_property
    def shares(self) -> Floats:
        """(E,) the probability of each edge: its weight by the sum of its source's. The entries of P."""
        return self.weights / self.sums[self.sources]

    @cached_property
    def is_dangling(self) -> NDArray[np.bool_]:
        """(N,) nodes without outgoing edges."""
        found: NDArray[np.bool_] = self.starts[1:] == self.starts[:-1]
        return found

    @cached_property
    def sums(self) -> Floats:
        """(N,) the sum of the weights of the edges that go out."""
        return _sums(self.sources, self.weights, len(self))

    @cached_property
    def strengths(self) -> Floats:
        """(N,) the sum of the weights of the edges that come in."""
        return _sums(self.targets, self.weights, len(self))

    @cached_property
    def popularity(self) -> Floats:
        """(N,) strengths by their mean; 1 where nothing comes in. Where edges go both ways, this is where a walk without restarts
        is found, so a cheap stand-in for the global PageRank.
        """
        mean = self.strengths.mean() if len(self) else 1.0
        return np.where(self.strengths > 0, self.strengths / (mean or 1.0), 1.0)

    @cached_property
    def reverse(self) -> Adjacency:
        """Every edge turned round."""
        return Adjacency.of(len(self), self.targets, self.sources, self.weights, self.labels)

    def edges_of(self, nodes: NDArray[np.integer[Any]]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The places of all edges of these nodes (m,), and how many each of them has (len(nodes),)."""
        counts = self.starts[nodes + 1] - self.starts[nodes]
        ends = np.cumsum(counts)
        places = np.arange(int(ends[-1]) if len(ends) else 0) + np.repeat(self.starts[nodes] - (ends - counts), counts)
        return places, counts

    def merged(self, other: Adjacency) -> Adjacency:
        """The edges of both, over the same nodes; of each node first the ones that stand here. O(N + E), no sorting."""
        starts = self.starts + other.starts
        targets = np.empty(self.edges + other.edges, dtype=np.int32)
        weights = np.empty(len(targets), dtype=np.float32)
        labels = np.empty(len(targets), dtype=np.int32)
        for part, shift in ((self, other.starts[:-1]), (other, self.starts[1:])):
            places = np.arange(part.edges) + np.repeat(shift, np.diff(part.starts))
            targets[places], weights[places], labels[places] = part.targets, part.weights, part.labels
        return Adjacency(starts, targets, weights, labels)

    def renumbered(self, numbers: NDArray[np.integer[Any]], size: int) -> Adjacency:
        """Node v as numbers[v] of `size` nodes; edges of a node that gets -1 are gone. Numbers must ascend where not -1."""
        sources, targets = numbers[self.sources], numbers[self.targets]
        kept = (sources >= 0) & (targets >= 0)
        starts = np.zeros(size + 1, dtype=np.int64)
        np.cumsum(np.bincount(sources[kept], minlength=size), out=starts[1:])
        return Adjacency(starts, targets[kept].astype(np.int32), self.weights[kept], self.labels[kept])


def pairs_once(
    sources: NDArray[np.integer[Any]], targets: NDArray[np.integer[Any]], weights: NDArray[np.floating[Any]]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.floating[Any]]]:
    """Undirected edges (E,), each pair of nodes once though either may have named the other (the first weight counts): the
    smaller end, the larger end, the weight. Edges with an end below 0, and of weight 0 or less, are left out.
    """
    good = (targets >= 0) & (sources >= 0) & (weights > 0)
    ends = np.stack([sources[good], targets[good]]).astype(np.int64)
    low, high = ends.min(axis=0), ends.max(axis=0)
    span = int(high.max(initial=0)) + 1
    _, places = np.unique(low * span + high, return_index=True)
    return low[places], high[places], weights[good][places]


def _sums(nodes: NDArray[np.integer[Any]], values: NDArray[np.floating[Any]], size: int) -> Floats:
    """(size,) for each node the sum of its values. (np.bincount of nothing would count in whole numbers.)"""
    return np.bincount(nodes, values.astype(np.float64), minlength=size).astype(np.float64, copy=False)


@dataclass(frozen=True, slots=True)
class Spread:
    """Flow that left some seeds, round by round. layers[t]: nodes (m,) ascending and the flow (m,) that came to each after t
    steps, (1-c)^t e_s P^t; layers[0] are the seeds. scores: (N,) the part of the personalised PageRank that is settled by the
    rounds that were made. residual: mass that was dropped on the way, because it was small or its node was barred. scores, the
    last layer and residual sum to 1.
    """

    layers: list[tuple[NDArray[np.int64], Floats]]
    scores: Floats
    residual: float
    restart: float

    @property
    def leftover(self) -> tuple[NDArray[np.int64], Floats]:
        """The flow that is still on its way."""
        return self.layers[-1]


def spread(
    graph: Adjacency,
    seeds: NDArray[np.integer[Any]],
    weights: Floats,
    *,
    rounds: int,
    restart: float = RESTART,
    threshold: float = THRESHOLD,
    barred: NDArray[np.bool_] | None = None,
) -> Spread:
    """Vertex-centric decomposition (PowerWalk, Liu et al., CIKM 2016): rounds of pushing the flow one step on.

    p_s = c sum_{t<T} (1-c)^t e_s P^t + sum_v f_T(v) p_v holds exactly for any number T of rounds; the last layer is f_T.
    seeds and weights (m,): where the walk restarts, weights summing to 1. barred: (N,) nodes that nothing may pass.
    """
    flow = _sums(seeds, weights, len(graph))
    scores, residual = np.zeros(len(graph)), 0.0
    nodes = np.flatnonzero(flow)
    layers = [(nodes, flow[nodes])]
    for _ in range(rounds):
        nodes, values = layers[-1]
        stuck = graph.is_dangling[nodes]
        scores[nodes] += np.where(stuck, values, restart * values)
        places, counts = graph.edges_of(nodes)
        moved = np.repeat((1 - restart) * values, counts) * graph.shares[places]
        flow = _sums(graph.targets[places], moved, len(graph))
        nodes = np.flatnonzero(flow)
        kept = flow[nodes] >= threshold
        if barred is not None:
            kept &= ~barred[nodes]
        residual += float(flow[nodes[~kept]].sum())
        layers.append((nodes[kept], flow[nodes[kept]]))
    return Spread(layers, scores, residual, restart)


def power_iteration(graph: Adjacency, start: Floats, *, restart: float = RESTART, tolerance: float = 1e-12) -> Floats:
    """(N,) the exact PageRank of a start distribution (N,) (uniform: the global one), to within tolerance in L1."""
    scores: Floats = np.zeros(len(graph))
    flow: Floats = np.asarray(start, dtype=np.float64)
    while flow.sum() > tolerance:
        scores += restart * flow
        moved = _sums(graph.targets, flow[graph.sources] * graph.shares, len(graph))
        flow = (1 - restart) * (moved + np.where(graph.is_dangling, flow, 0.0))
    return scores
