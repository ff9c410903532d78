"""The arrays of an HNSW graph: room to grow, what kernels see of them, compaction, and the check of their invariants.

Life of a node: `append` gives it a position, a vector and a level, and no links (nothing meets it); `insertion` links it;
`removal` takes all links to it and from it, after which its row is dead until `compact` renumbers the rest.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vecdb.errors import CorruptIndex
from vecdb.index import codes, kernels
from vecdb.index.arguments import as_vectors
from vecdb.index.base import HnswConfig, Mask, Metric, Positions, Vectors
from vecdb.index.growth import aligned_copy, frozen, is_aligned, with_room
from vecdb.index.kernels import METRIC_CODES, Coding, Graph
from vecdb.index.levels import draw_levels
from vecdb.index.simd import padded

Nodes = NDArray[np.int32]

_MOST_NODES = 2**31 - 1  # links are int32
_REFIT_GROWTH = 4  # times as many vectors as the coding was fitted to, if these were few
_TRIED = 64  # nodes by which lines are tried, against so many others:
_COMPARED = 2048
_TRUST = 0.9  # the share of near nodes that lines must find near; 0.99 and more on ordinary data


class HnswGraph:
    """base (N, 2M), upper (U, M) and starts (N,) as kernels.Graph tells; levels (N,) uint8, live (N,) bool.

    parents (N,) int32 is a spanning tree of the base links, rooted in the entry (-1: not in it); None when not known. It is
    derived, never saved, and says which links must not be cut. drawn counts all nodes there ever were: the running number
    that levels are drawn from. unchecked counts nodes that came or went since every node was last searched for.
    """

    def __init__(self, dimension: int, metric: Metric, config: HnswConfig) -> None:
        self.dimension = dimension
        self.metric: Metric = metric
        self.config = config
        self.size = 0
        self.upper_size = 0
        self.live_count = 0
        self.drawn = 0
        self.unchecked = 0
        self.entry = -1
        self.top = -1
        self.vectors: Vectors = np.empty((0, dimension), np.float32)
        self.coding: Coding = codes.fit(np.empty((0, dimension), np.float32), metric, config.seed)
        self.fitted_on = 0  # so many vectors
        self.codes: NDArray[np.uint8] = np.empty((0, padded(dimension)), np.uint8)
        self.lines: NDArray[np.uint8] = np.empty((0, codes.line_width(dimension)), np.uint8)
        self.base: Nodes = np.empty((0, 2 * config.M), np.int32)
        self.upper: Nodes = np.empty((0, config.M), np.int32)
        self.starts: Nodes = np.empty(0, np.int32)
        self.levels: NDArray[np.uint8] = np.empty(0, np.uint8)
        self.live: Mask = np.empty(0, np.bool_)
        self.parents: Nodes | None = None
        self._is_borrowed = False
        self._view: Graph | None = None
        self._framed: tuple[Graph, NDArray[np.int64]] | None = None

    def view(self) -> Graph:
        """What kernels read. Read-only views of the very arrays, made anew only after `changed`."""
        if self._view is None:
            self._view = self._seen(self.size)
        return self._view

    def framed(self) -> tuple[Graph, NDArray[np.int64]]:
        """The view, and a frame of it (kernels.frame_of), which holds as long as the view is held."""
        if self._framed is None:
            view = self.view()
            self._framed = view, kernels.frame_of(view)
        return self._framed

    def _seen(self, n: int) -> Graph:
        """The first n nodes, some of which may have no links yet."""
        return Graph(
            frozen(self.vectors[:n]),
            frozen(self.codes[:n]),
            frozen(self.lines[:n]),
            frozen(self.lines[:n].view(np.float32)),
            frozen(self.base[:n]),
            frozen(self.upper[: self.upper_size]),
            frozen(self.starts[:n]),
            frozen(self.levels[:n]),
            self.coding,
            METRIC_CODES[self.metric],
            self.entry,
            self.top,
        )

    def changed(self) -> None:
        """Size, entry, top or an array itself is another now (changed links alone need no call)."""
        self._view = self._framed = None

    def own(self) -> None:
        """Before links are changed: replace arrays that this graph was given by copies. Vectors never change in place."""
        if self._is_borrowed:
            self.base = aligned_copy(self.base)
            self.upper = aligned_copy(self.upper)
            self.live = self.live.copy()
            self._is_borrowed = False
            self.changed()

    def append(self, vectors: Vectors, *, adopt: bool = False) -> Nodes:
        """Positions (n,) for new nodes, with levels drawn and no links. adopt: use the array itself, if it is the first."""
        count = len(vectors)
        first, size = self.size, self.size + count
        if size > _MOST_NODES:
            raise CorruptIndex(
                f"{size:,} vectors are more than one graph can number ({_MOST_NODES:,}); split the collection"
            )
        self.own()
        if adopt and first == 0:
            self.vectors = vectors
        else:
            self.vectors = with_room(self.vectors, first, size)
            self.vectors[first:size] = vectors
        self._encode(first, size)
        levels = draw_levels(self.config, self.drawn, count)
        ends = self.upper_size + np.cumsum(levels, dtype=np.int64)
        upper_size = int(ends[-1]) if count else self.upper_size
        self.base = with_room(self.base, first, size, fill=-1)
        self.upper = with_room(self.upper, self.upper_size, upper_size, fill=-1)
        self.base[first:size] = -1
        self.upper[self.upper_size : upper_size] = -1
        self.starts = with_room(self.starts, first, size)
        self.starts[first:size] = ends - levels
        self.levels = with_room(self.levels, first, size)
        self.levels[first:size] = levels
        self.live = with_room(self.live, first, size)
        self.live[first:size] = True
        if self.parents is not None:
            self.parents = with_room(self.parents, first, size)
            self.parents[first:size] = -1
        self.size, self.upper_size = size, upper_size
        self.live_count += count
        self.drawn += count
        self.changed()
        return np.arange(first, size, dtype=np.int32)

    def _encode(self, first: int, size: int) -> None:
        """Codes of vectors[first:size]; of all where the coding was fitted to much fewer, or does not suit the new ones."""
        if size >= _REFIT_GROWTH * self.fitted_on and self.fitted_on < codes.SAMPLE:
            self._fit(size)
            return
        self._write_codes(first, size)
        if self.coding.by_lines and size - first and not self._trusts(size, _some(np.arange(first, size))):
            self._fit(size)

    def _fit(self, size: int) -> None:
        """A coding for vectors[:size], and their codes by it. Lines are trusted if they tell near from far among ordinary
        vectors and among those that lie farthest out.
        """
        self.coding, self.fitted_on = codes.fit(self.vectors[:size], self.metric, self.config.seed), size
        self.codes, self.lines = self.codes[:0], self.lines[:0]
        self._write_codes(0, size)
        reach = self.lines[:size].view(np.float32)[:, kernels.SCALE]
        outer = np.argpartition(-reach, min(_TRIED, size) - 1)[:_TRIED] if size else np.empty(0, np.int64)
        groups = _some(np.arange(size)), np.sort(outer).astype(np.int32)
        if self.coding.by_lines and not all(self._trusts(size, group) for group in groups):
            self.coding = self.coding._replace(by_lines=False)

    def _write_codes(self, first: int, size: int) -> None:
        self.codes = with_room(self.codes, first, size)
        self.lines = with_room(self.lines, first, size)
        codes.write_codes(self.vectors, self.coding, self.metric, self.codes, self.lines, first, size)

    def _trusts(self, size: int, probes: Nodes) -> bool:
        """Do estimates from lines agree with distances of codes, for these nodes, their like and others?"""
        self.changed()
        others = np.union1d(_some(np.arange(size), _COMPARED), probes).astype(np.int32)
        shares = np.empty(len(probes), np.float32)
        kernels.agreement(self._seen(size), probes, others, shares)
        return len(probes) == 0 or float(shares.mean(dtype=np.float64)) >= _TRUST

    def copy(self) -> HnswGraph:
        """An independent graph; vectors are shared, and cut to their used part so that neither writes into the other's room."""
        n = self.size
        twin = HnswGraph(self.dimension, self.metric, self.config)
        twin.size, twin.upper_size, twin.live_count = n, self.upper_size, self.live_count
        twin.drawn, twin.unchecked = self.drawn, self.unchecked
        twin.entry, twin.top = self.entry, self.top
        twin.vectors, twin.codes, twin.lines = self.vectors[:n], self.codes[:n], self.lines[:n]
        twin.coding, twin.fitted_on = self.coding, self.fitted_on
        twin.base = aligned_copy(self.base[:n])
        twin.upper = aligned_copy(self.upper[: self.upper_size])
        twin.starts = self.starts[:n]
        twin.levels = self.levels[:n]
        twin.live = self.live[:n].copy()
        twin.parents = None if self.parents is None else self.parents[:n].copy()
        return twin

    def compact(self) -> Positions:
        """Renumber the live nodes 0 … n-1, links and all; the old positions of those kept, ascending."""
        n = self.size
        kept: Positions = np.flatnonzero(self.live[:n])
        if len(kept) == n:
            return kept
        renumbered = np.full(n + 1, -1, np.int32)  # one more, so that -1 (no link) stays -1
        renumbered[kept] = np.arange(len(kept), dtype=np.int32)
        heights = self.levels[kept].astype(np.int64)
        ends = np.cumsum(heights)
        old_starts = self.starts[kept].astype(np.int64)
        # Row j of the new upper block belongs to some node: its old row is as far from the node's old start.
        upper_rows = np.arange(int(heights.sum())) + np.repeat(old_starts - (ends - heights), heights)
        self.upper = aligned_copy(renumbered[self.upper[upper_rows]])
        self.base = aligned_copy(renumbered[self.base[kept]])
        self.vectors = aligned_copy(self.vectors[kept])
        self.codes, self.lines = aligned_copy(self.codes[kept]), aligned_copy(self.lines[kept])
        self.starts = (ends - heights).astype(np.int32)
        self.levels = self.levels[kept]
        self.live = np.ones(len(kept), np.bool_)
        if self.parents is not None:
            self.parents = renumbered[self.parents[kept]]
        self.entry = int(renumbered[self.entry]) if self.entry >= 0 else -1
        self.size, self.upper_size = len(kept), len(self.upper)
        self._is_borrowed = False
        self.changed()
        return kept

    def raise_entry(self, candidates: Nodes) -> bool:
        """Make the first of the candidates with the highest level the entry, if it is above the present one -> was it?"""
        levels = self.levels[candidates]
        if len(candidates) == 0 or int(levels.max()) <= self.top:
            return False
        best = int(np.argmax(levels))
        self.entry, self.top = int(candidates[best]), int(levels[best])
        self.changed()
        return True

    def choose_entry(self) -> None:
        """The first live node of the highest level, or none."""
        self.entry = self.top = -1
        self.changed()
        self.raise_entry(np.flatnonzero(self.live[: self.size]).astype(np.int32))

    def arrays(self) -> dict[str, NDArray[Any]]:
        n = self.size
        view = self.view()
        return {
            "vectors": view.vectors,
            "codes": view.codes,
            "lines": view.lines,
            "base": view.base,
            "upper": view.upper,
            "starts": view.starts,
            "levels": view.levels,
            "live": frozen(self.live[:n]),
            **codes.as_arrays(self.coding),
        }

    @classmethod
    def open(
        cls,
        dimension: int,
        metric: Metric,
        config: HnswConfig,
        state: Mapping[str, int],
        arrays: Mapping[str, NDArray[Any]],
    ) -> HnswGraph:
        """A graph over arrays as `arrays()` gave them, which are used in place. state: entry, top, drawn and unchecked."""
        graph = cls(dimension, metric, config)
        graph.vectors = as_vectors(arrays["vectors"], dimension)
        n = graph.size = len(graph.vectors)
        graph.base = _saved(arrays, "base", np.int32, (n, 2 * config.M))
        graph.upper = _saved(arrays, "upper", np.int32, (-1, config.M))
        graph.starts = _saved(arrays, "starts", np.int32, (n,))
        graph.levels = _saved(arrays, "levels", np.uint8, (n,))
        graph.live = _saved(arrays, "live", np.bool_, (n,))
        graph.fitted_on = int(state.get("fitted_on", 0))
        if "codes" in arrays:
            graph.codes = _saved(arrays, "codes", np.uint8, (n, padded(dimension)))
            graph.lines = _saved(arrays, "lines", np.uint8, (n, codes.line_width(dimension)))
            graph.coding = codes.from_arrays(arrays)
        else:
            graph._encode(0, n)
        graph.upper_size = len(graph.upper)
        graph.live_count = int(np.count_nonzero(graph.live))
        graph.entry, graph.top = int(state["entry"]), int(state["top"])
        graph.drawn, graph.unchecked = int(state["drawn"]), int(state["unchecked"])
        if not -1 <= graph.entry < n or (graph.entry < 0) != (graph.live_count == 0):
            raise CorruptIndex(
                f"the saved graph starts at node {graph.entry} of {n} ({graph.live_count} live); rebuild it"
            )
        graph._is_borrowed = True
        return graph

    def check(self) -> list[str]:
        """Every broken invariant in words. NumPy only, so that it does not trust the kernels it checks."""
        if self.live_count == 0:
            return [] if self.entry == -1 else [f"the entry is node {self.entry}, though no node is live"]
        if not 0 <= self.entry < self.size or not self.live[self.entry]:
            return [f"the entry, node {self.entry}, is not a live node"]
        n = self.size
        live, levels = self.live[:n], self.levels[:n]
        faults = []
        highest = int(levels[live].max())
        if self.top != highest or int(levels[self.entry]) != highest:
            faults.append(
                f"the entry {self.entry} is on level {levels[self.entry]}, top is {self.top}, the highest {highest}"
            )
        faults += self._check_starts()
        if faults:
            return faults
        for level in range(highest + 1):
            holders = np.flatnonzero(levels >= level)
            rows = self.base[holders] if level == 0 else self.upper[self.starts[holders].astype(np.int64) + level - 1]
            faults += [f"level {level}: {fault}" for fault in _check_links(rows, holders, live, levels >= level)]
        if not faults:
            missed = np.flatnonzero(live & ~_reached(self.base[:n], self.entry))
            faults += [f"node {node} cannot be reached from the entry on the base level" for node in missed]
        return faults

    def _check_starts(self) -> list[str]:
        """Each node above the base level must have its own rows of upper."""
        tall = np.flatnonzero(self.levels[: self.size])
        starts = self.starts[tall].astype(np.int64)
        ends = starts + self.levels[tall]
        order = np.argsort(starts, kind="stable")
        outside = (starts < 0) | (ends > self.upper_size)
        faults = [f"node {node} has upper rows that do not exist" for node in tall[outside]]
        shared = ends[order][:-1] > starts[order][1:]
        return faults + [f"node {node} shares upper rows with another" for node in tall[order][1:][shared]]


def _some(nodes: NDArray[np.int64], count: int = 64) -> Nodes:
    """At most about `count` of them, evenly spread."""
    return np.ascontiguousarray(nodes[:: max(1, len(nodes) // count)], np.int32)


def _saved(arrays: Mapping[str, NDArray[Any]], name: str, dtype: type, shape: tuple[int, ...]) -> NDArray[Any]:
    """arrays[name] as a plain, contiguous array of the expected dtype and shape (-1: any length). It is copied if it does not
    begin with a cache line: a search would touch a line more for every row, and take twice as long.
    """
    array = np.ascontiguousarray(arrays[name])
    if not is_aligned(array):
        array = aligned_copy(array)
    fits = len(array.shape) == len(shape) and all(want in (-1, have) for want, have in zip(shape, array.shape))
    if array.dtype != dtype or not fits:
        raise CorruptIndex(
            f"saved array {name!r} is {array.dtype} {array.shape}, not {np.dtype(dtype)} {shape}; rebuild"
        )
    return array


def _check_links(rows: Nodes, holders: Positions, live: Mask, reaching: Mask) -> list[str]:
    """Faults of link lists: rows[i] (n, width) are the links of holders[i]; reaching (N,): nodes that are on this level."""
    is_link = rows >= 0
    faults: list[str] = []

    def report(wrong: Any, what: str) -> None:
        faults.extend(f"node {holder} {what}" for holder in holders[wrong])

    report((is_link[:, 1:] & ~is_link[:, :-1]).any(axis=1), "has a gap among its links")
    report((rows < -1).any(axis=1) | (rows >= len(live)).any(axis=1), "links to a node that does not exist")
    if faults:
        return faults
    report((rows == holders[:, None]).any(axis=1), "links to itself")
    ordered = np.sort(rows, axis=1)
    report(((ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] >= 0)).any(axis=1), "links twice to the same node")
    report((is_link & ~live[rows]).any(axis=1), "links to a removed node")
    report((is_link & ~reaching[rows]).any(axis=1), "links to a node that is not on this level")
    report(is_link.any(axis=1) & ~live[holders], "was removed and still has links")
    return faults


def _reached(base: Nodes, entry: int) -> Mask:
    """(N,) bool: nodes that a walk over base links from the entry comes to."""
    seen = np.zeros(len(base), np.bool_)
    seen[entry] = True
    frontier = np.array([entry], np.int32)
    while len(frontier):
        links = np.unique(base[frontier])
        links = links[links >= 0]
        frontier = links[~seen[links]]
        seen[frontier] = True
    return seen
