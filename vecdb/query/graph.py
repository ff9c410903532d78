"""The graph's say in an answer (Raja & Vats 2025, part 2): what the best candidates are linked to comes up, or comes in.

The best of the list so far are seeds, weighing one by their rank; personalised PageRank spreads from them over the overlay. Each
candidate's score is then

    (1 - beta) * before + beta * graph
    before the score so far, brought to 0 … 1 over the list; 0 for a record that only links led to
    graph  (PageRank - what restarting alone gives a seed) / (weight of the incoming links / mean) ** damping, by the largest

A seed's restarts are left out, because they say only that it is a seed: every list would confirm itself.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from vecdb.filters import Node
from vecdb.index.adjacency import THRESHOLD, Adjacency, Floats, Spread, spread
from vecdb.memory import Memory, Snapshot
from vecdb.overlay import Overlay, Overlays
from vecdb.query.graph_options import GraphOptions
from vecdb.query.ranking import Ranking, Rows, Scores, ranked
from vecdb.storage import Store
from vecdb.tables import Tables

_ENOUGH = 1e-9  # of the PageRank's mass; less is rounding


@dataclass(frozen=True, slots=True)
class GraphStage:
    """wish: called when walks, or the links of indexed vectors, were not there."""

    store: Store
    tables: Tables
    memory: Memory
    overlays: Overlays
    wish: Callable[[], None]
    waits: bool  # nobody makes the overlay in the background

    def ranked(
        self, pool: Ranking, options: GraphOptions, where: Node | None
    ) -> tuple[Ranking, dict[str, Any], Callable[[Sequence[int]], Mapping[int, Mapping[str, Any]]]]:
        """The list with the graph's say, what was decided, and a function that tells how rows came by their scores."""
        overlay = self.overlays.current(complete=self.waits)
        snapshot, graph = overlay.snapshot, overlay.chosen(options.kinds)
        if self.overlays.wants_preparation():
            self.wish()
        text = _scaled(pool.scores)
        slots = snapshot.slots_of(pool.rows)
        seeds, weights = _seeds(slots, options.seeds)
        hidden = _hidden(snapshot)
        walks = overlay.prints is not None and graph is overlay.graph and hidden is None
        walks &= options.restart == getattr(overlay.prints, "restart", None)
        flow = spread(
            graph, seeds, weights, rounds=options.hops, restart=options.restart, threshold=THRESHOLD, barred=hidden
        )
        mass = _page_rank(flow, overlay if walks else None)
        mass[seeds] -= np.where(graph.is_dangling[seeds], 1.0, options.restart) * weights  # what no link brought
        near = self._reachable(flow, snapshot, slots, where)
        found = _damped(mass, graph, near, options.damping)
        order = np.lexsort((near, -found))[: len(pool)]
        linked = near[order[found[order] > 0]]
        rows = np.concatenate([pool.rows, snapshot.rows[linked]])
        every = _damped(mass, graph, np.concatenate([slots, linked]), options.damping)
        largest = float(every.max(initial=0.0))
        links = every / largest if largest > 0 else every
        texts = np.concatenate([text, np.zeros(len(linked))])
        blended = ranked("graph", rows, (1 - options.beta) * texts + options.beta * links)
        detail = {
            "engine": "walks" if walks else "steps",
            "beta": options.beta,
            "seeds": len(seeds),
            "reached": len(linked),
            "edges": graph.edges,
            "complete": overlay.is_complete,
            "lowest": float(pool.scores[-1]) if len(pool) else 0.0,
            "highest": float(pool.scores[0]) if len(pool) else 0.0,
            "largest": largest,
        }
        parts = {int(row): (float(t), float(g)) for row, t, g in zip(rows, texts, links)}
        ways = _Ways(self.store, self.tables, overlay, graph, flow, options)
        return blended, detail, lambda asked: ways.told(asked, parts)

    def _reachable(self, flow: Spread, snapshot: Snapshot, pool: Rows, where: Node | None) -> Rows:
        """The slots that links lead to and the list lacks, which are visible and satisfy the filter."""
        nodes = [nodes for nodes, _ in flow.layers[1:]]
        found = np.setdiff1d(np.concatenate(nodes) if nodes else np.zeros(0, np.int64), pool)
        found = found[snapshot.live[found] & (snapshot.expires[found] > time.time())]
        return found if where is None else found[self._satisfying(snapshot.rows[found], where)]

    def _satisfying(self, rows: Rows, where: Node) -> Any:
        """(m,) bool: which of these rows satisfy a filter, as of now."""
        snapshot = self.memory.current("attributes")
        assert snapshot.attributes is not None
        slots = snapshot.slots_of(rows)
        return (slots >= 0) & snapshot.attributes.mask(where)[slots] if len(slots) else np.zeros(0, np.bool_)


@dataclass(frozen=True, slots=True)
class _Ways:
    """How flow came to a row: the strongest way, told backwards step by step."""

    store: Store
    tables: Tables
    overlay: Overlay
    graph: Adjacency
    flow: Spread
    options: GraphOptions

    def told(self, rows: Sequence[int], parts: Mapping[int, tuple[float, float]]) -> dict[int, dict[str, Any]]:
        """For each row in parts: the two parts of its score, and the path from a seed (empty if none led to it)."""
        rows = [row for row in rows if row in parts]
        slots = self.overlay.snapshot.slots_of(np.array(rows, dtype=np.int64))
        pushed = [self._pushed(*layer) for layer in self.flow.layers[:-1]]
        paths = {row: self._path(int(slot), pushed) for row, slot in zip(rows, slots)}
        of_slot = self.overlay.snapshot.rows
        passed = {int(of_slot[end]) for path in paths.values() for step in path for end in step[:2]}
        with self.store.read() as db:
            ids = self.tables.ids_of(db, sorted(passed))
        return {
            row: {
                "before": parts[row][0],
                "graph": parts[row][1],
                "beta": self.options.beta,
                "path": [
                    {"from": ids.get(int(of_slot[a])), "to": ids.get(int(of_slot[b])), "kind": kind, "weight": weight}
                    for a, b, kind, weight in path
                ],
            }
            for row, path in paths.items()
        }

    def _pushed(self, nodes: Rows, values: Floats) -> tuple[Rows, Rows, Floats]:
        """The edges that flow of one layer went along: their places, their sources, the flow."""
        places, counts = self.graph.edges_of(nodes)
        return places, np.repeat(nodes, counts), np.repeat(values, counts) * self.graph.shares[places]

    def _path(self, slot: int, pushed: list[tuple[Rows, Rows, Floats]]) -> list[tuple[int, int, str, float]]:
        """Edges (from, to, kind, weight) from a seed to a slot, each the one that brought most of the flow."""
        if slot < 0:
            return []
        arrived = [_flow_at(layer, slot) for layer in self.flow.layers]
        step = int(np.argmax(arrived[1:])) + 1 if len(arrived) > 1 else 0
        if not step or arrived[step] <= 0:
            return []
        path: list[tuple[int, int, str, float]] = []
        for places, sources, brought in reversed(pushed[:step]):
            here = np.flatnonzero(self.graph.targets[places] == slot)
            best = here[int(np.argmax(brought[here]))]
            edge = places[best]
            kind = self.overlay.kinds[self.graph.labels[edge]]
            path.append((int(sources[best]), slot, kind, float(self.graph.weights[edge])))
            slot = int(sources[best])
        return path[::-1]


def _flow_at(layer: tuple[Rows, Floats], slot: int) -> float:
    nodes, values = layer
    place = int(np.searchsorted(nodes, slot))
    return float(values[place]) if place < len(nodes) and nodes[place] == slot else 0.0


def _page_rank(flow: Spread, overlay: Overlay | None) -> Floats:
    """The PageRank that the flow has settled, with what the walks of an overlay say of the rest."""
    mass: Floats = flow.scores.copy()
    nodes, left = flow.leftover
    if overlay is not None and overlay.prints is not None:
        from vecdb.index.pagerank import finished  # numba, which has been loaded if there are walks

        finished(mass, nodes, left, overlay.prints)
    else:
        mass[nodes] += flow.restart * left  # and the rest of it is left out
    return mass


def _damped(mass: Floats, graph: Adjacency, slots: Rows, damping: float) -> Floats:
    """(m,) the graph's score of some slots, 0 for -1."""
    found = np.zeros(len(slots))
    known = slots >= 0
    there = slots[known]
    found[known] = np.where(mass[there] > _ENOUGH, mass[there], 0) / graph.popularity[there] ** damping
    return found


def _scaled(scores: Scores) -> Scores:
    """0 … 1 by the smallest and the largest."""
    span = np.ptp(scores) if len(scores) else 0.0
    return (scores - scores.min()) / span if span > 0 else np.ones(len(scores))


def _seeds(slots: Rows, most: int) -> tuple[Rows, Scores]:
    """The first slots of a list that are in the graph, and weights that sum to 1: one by the rank. Fused scores are made for
    their order; by their size the tenth of a hybrid list would start nearly as many walks as the first, or none at all.
    """
    places = np.flatnonzero(slots >= 0)[:most]
    weights = 1.0 / (places + 1.0)
    return slots[places], weights / max(weights.sum(), 1e-300)


def _hidden(snapshot: Snapshot) -> Any:
    """(N,) the slots that have expired and are still there, which nothing may pass; None if there are none."""
    now = time.time()
    return snapshot.live & (snapshot.expires <= now) if now >= snapshot.next_expiry else None
