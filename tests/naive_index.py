"""Slow twins of index/kernels.py: the algorithms with sets, sorted lists and one distance at a time, in NumPy's float32."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vecdb.index import kernels
from vecdb.index.kernels import Coding, Graph

Links = Mapping[int, Sequence[int]]
Entry = tuple[float, int]  # distance, node
F = np.float32


def distance(a: NDArray[np.float32], b: NDArray[np.float32], metric: str) -> float:
    """As Neighbours defines it, in float64."""
    a, b = a.astype(np.float64), b.astype(np.float64)
    if metric == "l2":
        return float(sum((x - y) ** 2 for x, y in zip(a, b)))
    product = float(sum(x * y for x, y in zip(a, b)))
    return max(1.0 - product, 0.0) if metric == "cosine" else -product


def nearest(
    vectors: NDArray[np.float32], query: NDArray[np.float32], k: int, metric: str, rows: Iterable[int]
) -> list[Entry]:
    """The k nearest of the given rows: (distance, row), ascending."""
    return sorted((float(np.float32(distance(vectors[row], query, metric))), row) for row in rows)[:k]


def quantised(vector: NDArray[np.float32], coding: Coding) -> tuple[NDArray[np.int64], np.float32]:
    """A vector as whole numbers from -127 to 127, and what one of them is worth."""
    moved = vector - coding.centre
    largest = np.abs(moved).max()
    inverse = F(127) / largest if largest > 0 else F(0)
    return np.rint(moved * inverse).astype(np.int64), largest / F(127)


def coordinates(code: NDArray[np.int64], scale: np.float32, coding: Coding) -> NDArray[np.float64]:
    """Of a code along the directions, from the middle of the data."""
    basis = coding.basis[:, : len(code)].astype(np.int64) - kernels.MIDDLE
    return (basis @ code).astype(np.float64) * np.float64(scale) - coding.offsets


def energy(numbers: NDArray[np.float64]) -> float:
    """Sum of squares, from first to last (np.sum would add in pairs)."""
    return float(np.cumsum(numbers * numbers)[-1]) if len(numbers) else 0.0


def as_line(numbers: NDArray[np.float64]) -> NDArray[np.int64]:
    """Coordinates as odd numbers from -15 to 15, in steps of their own spread."""
    step = kernels.NODE_STEP * np.sqrt(energy(numbers) / max(len(numbers), 1))
    inverse = 1.0 / step if step > 0 else 0.0
    return 2 * np.clip(np.floor(numbers * inverse).astype(np.int64) + 8, 0, 15) - 15


@dataclass(frozen=True)
class Probe:
    """What nodes are compared with."""

    code: NDArray[np.int64]
    scale: np.float32
    norm: np.float32  # its part of code distances
    sketch: NDArray[np.int64]  # its coordinates as whole numbers
    step: np.float32  # what one of these is worth
    constant: np.float32  # its part of estimates


@dataclass
class Found:
    """How a walk went: the best by code, ascending, how many estimates it took, and the features of each step."""

    best: list[Entry]
    work: int
    steps: list[list[float]]


class SlowGraph:
    """A graph as kernels.py reads it, searched as kernels.py says."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.coding = graph.coding
        dimension, size = graph.vectors.shape[1], len(graph.coding.basis)
        self.codes = graph.codes[:, :dimension].astype(np.int64) - kernels.MIDDLE
        half = graph.lines.shape[1] - kernels.LINE_HEAD
        low, high = graph.lines[:, :half] & 15, graph.lines[:, :half] >> 4
        self.numbers = 2 * np.concatenate([low, high], axis=1)[:, :size].astype(np.int64) - 15
        heads = graph.heads
        self.scale, self.constant = heads[:, kernels.SCALE], heads[:, kernels.CONSTANT]
        self.norm, self.factor = heads[:, kernels.NORM], heads[:, kernels.FACTOR]

    # Distances

    def between(self, a: int, b: int) -> float:
        """Code distance of two nodes."""
        product = F(int(self.codes[a] @ self.codes[b]))
        return float((self.norm[a] + self.norm[b]) - F(2) * ((self.scale[b] * self.scale[a]) * product))

    def probe(self, vector: NDArray[np.float32]) -> Probe:
        return self._probe(*quantised(vector, self.coding))

    def probe_of(self, node: int) -> Probe:
        return self._probe(self.codes[node], self.scale[node])

    def _probe(self, code: NDArray[np.int64], scale: np.float32) -> Probe:
        coding = self.coding
        code_energy = float(code @ code) * float(scale) * float(scale)
        along = coordinates(code, scale, coding)
        power = energy(along)
        step = kernels._PROBE_STEP * np.sqrt(power / max(len(along), 1))
        sketch = np.clip(np.rint(along * (1.0 / step if step > 0 else 0.0)), -127, 127).astype(np.int64)
        constant = coding.norm_weight * code_energy + coding.energy_weight * power + coding.origin
        norm = F(0) if self.graph.metric == kernels.DOT else F(code_energy)
        return Probe(code, scale, norm, sketch, F(step), F(constant))

    def measure(self, probe: Probe, node: int) -> float:
        """Code distance."""
        product = F(int(self.codes[node] @ probe.code))
        return float((self.norm[node] + probe.norm) - F(2) * ((probe.scale * self.scale[node]) * product))

    def guess(self, probe: Probe, node: int) -> float:
        """Estimate of the code distance, by the node's line."""
        if not self.coding.by_lines:
            return self.measure(probe, node)
        product = F(int(self.numbers[node] @ probe.sketch))
        return float((self.constant[node] + probe.constant) + (probe.step * self.factor[node]) * product)

    # Walks

    def links(self, node: int, level: int = 0) -> list[int]:
        graph = self.graph
        row = graph.base[node] if level == 0 else graph.upper[graph.starts[node] + level - 1]
        return [int(link) for link in row if link >= 0]

    def descend(self, probe: Probe, level: int) -> tuple[int, int]:
        """From the entry to the nearest that greedy steps come to just above `level` -> (node, work)."""
        here, work = int(self.graph.entry), 1
        least = self.guess(probe, here)
        for upper in range(self.graph.top, level, -1):
            moved = True
            while moved:
                moved = False
                for link in self.links(here, upper):
                    work += 1
                    candidate = self.guess(probe, link)
                    if candidate < least:
                        least, here, moved = candidate, link, True
        return here, work

    def around(self, node: int, level: int, seen: set[int]) -> list[int]:
        """Unseen nodes one link away."""
        fresh = [link for link in self.links(node, level) if link not in seen]
        seen.update(fresh)
        return fresh

    def walk(
        self,
        probe: Probe,
        level: int,
        ef: int,
        beam: list[Entry],
        seen: set[int],
        *,
        room: int,
        kind: int = kernels.PLAIN,
        allowed: NDArray[np.bool_] | None = None,
        sought: int = -1,
        k: int = 0,
    ) -> Found:
        """Two-step pipeline: a node is chosen before the links of the one before it are looked at. k: features are noted."""
        expanded: set[int] = set()
        found, work, notes = [], 0, []
        last, waiting = -1, []
        steps = changed = 0
        while last != sought or last < 0:
            node = next((node for _, node in beam if node not in expanded), -1)
            if node < 0 and last < 0:
                break
            fresh: list[int] = []
            if node >= 0:
                expanded.add(node)
                fresh = self.around(node, level, seen)
            if last >= 0:
                if kind == kernels.PLAIN or (allowed is not None and allowed[last]):
                    steps += 1
                    entry = (self.measure(probe, last), last)
                    found = sorted([*found, entry])[:room]
                    if entry in found[:k]:
                        changed = steps
                for other in waiting:
                    beam = sorted([*beam, (self.guess(probe, other), other)])[:ef]
                if 0 < k <= len(found):
                    ahead = [away for away, other in beam if other not in expanded]
                    notes.append([*features(found, ahead, k, steps, steps - changed), work])
            work += len(fresh)
            last, waiting = node, fresh
        if 0 <= last == sought:
            found = sorted([*found, (self.measure(probe, last), last)])[:room]
        return Found(found, work, notes)

    def walk_base(
        self,
        probe: Probe,
        ef: int,
        *,
        room: int,
        kind: int = kernels.PLAIN,
        allowed: NDArray[np.bool_] | None = None,
        sought: int = -1,
        k: int = 0,
    ) -> Found:
        """From the entry down, then over the base level."""
        start, work = self.descend(probe, 0)
        beam, seen = [(self.guess(probe, start), start)], {start}
        found = self.walk(probe, 0, ef, beam, seen, room=room, kind=kind, allowed=allowed, sought=sought, k=k)
        return Found(found.best, found.work + work, found.steps)

    def search(self, query: NDArray[np.float32], k: int, ef: int, metric: str, **how: Any) -> tuple[list[Entry], int]:
        """The k nearest by full precision among those whose codes are near enough -> ((distance, node) ascending, work)."""
        found = self.walk_base(self.probe(query), ef, room=room_for(k, ef), **how)
        worthy = worth_measuring(found.best, k, self.coding.slack)
        return nearest(self.graph.vectors, query, k, metric, [node for _, node in worthy]), found.work

    # Links

    def choose(self, node: int, peers: Sequence[int], ef: int) -> list[list[int]]:
        """The links that a new node chooses, for each level from its own down to 0."""
        graph = self.graph
        probe, level = self.probe_of(node), int(graph.levels[node])
        here = self.descend(probe, min(level, graph.top))[0] if graph.entry >= 0 else -1
        chosen = []
        for at in range(level, -1, -1):
            found: list[Entry] = []
            if here >= 0 and at <= graph.top:
                found = self.walk(probe, at, ef, [(self.guess(probe, here), here)], {here}, room=ef).best
                here = found[0][1]
            found = sorted([*found, *((self.between(peer, node), peer) for peer in peers if graph.levels[peer] >= at)])[
                :ef
            ]
            chosen.append(select_neighbours(found, graph.upper.shape[1], self.between))
        return chosen

    def merge(self, target: int, level: int, sources: Sequence[int], pinned: Sequence[int]) -> list[int]:
        """Links of a target that takes in sources; pinned are kept whatever happens."""
        width = (self.graph.base if level == 0 else self.graph.upper).shape[1]
        links = self.links(target, level)
        candidates = links + [source for source in sources if source not in links]
        if len(candidates) <= width:
            return candidates
        kept = [node for node in candidates if node in pinned]
        rest = sorted((self.between(target, node), node) for node in candidates if node not in kept)
        return select_neighbours(rest[: 4 * width], width, self.between, kept)

    def mend(self, node: int, level: int, dead: NDArray[np.bool_], fill: bool) -> list[int]:
        """Links of a node after some of them died: chosen among its live ones and those that the dead lead to, and then, to
        fill up, the nearest of the others until it has as many as it had.
        """
        links = self.links(node, level)
        if not dead[links].any():
            return links
        width = (self.graph.base if level == 0 else self.graph.upper).shape[1]
        seen, waiting, live = {node}, [node], []
        while waiting:
            for link in self.links(waiting.pop(0), level):
                if link not in seen:
                    seen.add(link)
                    (waiting if dead[link] else live).append(link)
        near = sorted((self.between(node, other), other) for other in live)
        chosen = select_neighbours(near, width, self.between)
        refused = [other for _, other in near if other not in chosen]
        return chosen + refused[: max(len(links) - len(chosen), 0) if fill else 0]


def room_for(k: int, ef: int) -> int:
    return min(ef, 2 * k + kernels._SPARE)


def worth_measuring(found: Sequence[Entry], k: int, slack: float) -> Sequence[Entry]:
    """The k nearest by code and those whose code is hardly farther."""
    if len(found) <= k:
        return found
    return [entry for i, entry in enumerate(found) if i < k or entry[0] <= found[k - 1][0] + slack]


def features(found: Sequence[Entry], ahead: Sequence[float], k: int, steps: int, stale: int) -> list[float]:
    """What a walk's recall is judged by after a step; ahead: estimates of what is in the beam and not expanded."""
    first, last = found[0][0], found[k - 1][0]
    spread = max(last - first, 1e-6 * abs(last)) + 1e-30
    widest = kernels._WIDEST_GAP
    gap = min(max((ahead[0] - last) / spread, -widest), widest) if ahead else widest
    idle = stale**0.5
    return [1.0, gap, gap * gap, idle, stale / steps, steps**0.5, gap * idle, spread / (abs(last) + spread)]


def select_neighbours(
    candidates: Sequence[Entry],
    limit: int,
    between: Callable[[int, int], float],
    chosen: Sequence[int] = (),
) -> list[int]:
    """Algorithm 4 of Malkov & Yashunin (2016), without its options; as near to a chosen one as to the middle means refused."""
    taken = list(chosen)
    for away, node in sorted(candidates):
        if len(taken) < limit and all(between(node, other) > away for other in taken):
            taken.append(node)
    return taken


def reached_from(entry: int, links: Links) -> set[int]:
    """All nodes that a walk over the links comes to."""
    seen, waiting = {entry}, [entry]
    while waiting:
        for node in links[waiting.pop()]:
            if node not in seen:
                seen.add(node)
                waiting.append(node)
    return seen
