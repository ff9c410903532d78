"""Random grids of several widths (after CANN-RG): two vectors in one cell of a narrow grid are likely to be near.

For each of some radii there are several grids: turned at random, shifted at random. A query vector meets what is in its cells,
finest radius first, until it has met enough; only what was met is measured. Departures from the paper's released code, where a
cell knows colours and a collision counts what its radius is worth, with no distance at all: here a cell knows vectors, which are
then measured, since radii alone are too coarse to rank by, and since cells then do not depend on what vectors are grouped by;
directions are reduced to a few principal ones first, as cells of all dimensions hold but copies; radii and widths are measured on
the data (the width gives a pair at that radius a fixed chance to meet in some grid); numbers are rounded down, and keys are
hashed to 64 bits.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from vecdb.index.arguments import as_k
from vecdb.index.base import Vectors
from vecdb.index.groups.exact import Grouped, RankedGroups, Source, ranked_pairs
from vecdb.index.groups.kernel import GroupKernel
from vecdb.index.groups.probing import measured_again

_DIRECTIONS = 20
_GRIDS = 12
_RADII = 8
_MEETS = 0.85  # chance of a pair at the radius to meet in at least one grid
_SAMPLE = 256
_FINEST, _COARSEST = 0.05, 0.99  # quantiles of the distance to the nearest foreign vector
_MOST_MET = 0.05  # of all vectors, after which a query vector looks into no other grid
_MOST_OF_ONE = 16  # vectors of a group that a query vector meets: only the nearest of them counts
_AT_ONCE = 65_536
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True)
class Grids:
    """positions (n,): of the vectors in the cells; basis (D, m): the directions; turns (T, m, m), widths (T,), shifts (T, m) of T
    tables, finest first; keys (T, n) int64 ascending, members (T, n) int32: which of positions.
    """

    positions: NDArray[np.int64]
    basis: Vectors
    turns: Vectors
    widths: NDArray[np.float64]
    shifts: NDArray[np.float64]
    keys: NDArray[np.int64]
    members: NDArray[np.int32]

    @classmethod
    def of(cls, grouped: Grouped, *, grids: int = _GRIDS, radii: int = _RADII, seed: int = 0) -> Grids:
        """Over the vectors of all groups; the groups serve to measure what is near."""
        random = np.random.default_rng([seed, 13])
        basis = _principal(grouped, random)
        count, size = len(grouped.positions), basis.shape[1]
        reduced = np.empty((count, size), np.float32)
        for start in range(0, count, _AT_ONCE):
            reduced[start : start + _AT_ONCE] = grouped.vectors(start, start + _AT_ONCE) @ basis
        ladder = np.repeat(_ladder(_near_distances(grouped, reduced, random), radii), grids)
        turns = np.stack([np.linalg.qr(random.standard_normal((size, size)))[0] for _ in ladder]).astype(np.float32)
        widths = ladder * _width(size, grids)
        shifts = random.random((len(ladder), size))
        keys = np.empty((len(ladder), count), np.int64)
        members = np.empty((len(ladder), count), np.int32)
        for table, (turn, width, shift) in enumerate(zip(turns, widths, shifts)):
            cells = cells_of(reduced, turn, width, shift)
            order = np.argsort(cells, kind="stable")
            keys[table], members[table] = cells[order], order
        return cls(grouped.positions, basis, turns, widths, shifts, keys, members)

    def __len__(self) -> int:
        return len(self.positions)

    def moved(self, positions: NDArray[np.int64]) -> Grids:
        """The same cells, position p being positions[p] from now on; below 0: no position, which is passed over."""
        return replace(self, positions=positions[self.positions])

    def met(
        self, queries: Vectors, groups: NDArray[np.int64], most: int, most_of_one: int
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], int]:
        """Number of the query vector (e,) and position (e,) of each pair that meets, and entries read.

        groups (N,): of each position, below 0 for one to pass over. most: a query vector that has met so many looks into no
        other grid; most_of_one: of one group, those met first, in the finest cells, so that no crowd fills the measure.
        """
        from vecdb.index.groups import kernels

        if not len(self) or not len(queries):
            return np.empty(0, np.int64), np.empty(0, np.int64), 0
        reduced = queries @ self.basis
        tables = zip(self.turns, self.widths, self.shifts)
        wanted = np.ascontiguousarray(np.stack([cells_of(reduced, *table) for table in tables], axis=1))
        of_members = np.where(self.positions >= 0, groups[self.positions], -1)
        counts = np.zeros(int(of_members.max(initial=-1)) + 1, np.int32)
        marks, room = np.full(len(self), -1, np.int32), np.empty(len(self), np.int32)
        asked, met, read = [], [], 0
        for number in range(len(queries)):
            count, entries = kernels.meet(
                self.keys, self.members, of_members, wanted[number], most, most_of_one, marks, number, counts, room
            )
            read += entries
            asked.append(np.full(count, number))
            met.append(self.positions[room[:count]])
        return np.concatenate(asked), np.concatenate(met), read


def gridded_groups(
    grids: Grids,
    source: Source,
    groups: NDArray[np.int64],
    queries: Vectors,
    k: int,
    kernel: GroupKernel,
    *,
    besides: NDArray[np.int64] | None = None,
    most: float = _MOST_MET,
    most_of_one: int = _MOST_OF_ONE,
) -> RankedGroups:
    """The k best groups for query vectors (Q, D), as far as the grids bring them up. groups (N,): of each position, below 0 for
    none; besides: positions that the grids do not have, all of which are measured. most: of the vectors in the grids, the share
    that a query vector is to meet at most; most_of_one: how many of one group.

    Groups that were met are measured whole where they are few among all; else what did not meet counts nothing.
    """
    k = as_k(k)
    asked, positions, read = grids.met(queries, groups, max(1, int(most * len(grids))), most_of_one)
    if besides is not None and len(besides):
        besides = besides[groups[besides] >= 0]
        asked = np.concatenate([asked, np.repeat(np.arange(len(queries)), len(besides))])
        positions = np.concatenate([positions, np.tile(besides, len(queries))])
    away = np.empty(len(asked))
    for start in range(0, len(asked), _AT_ONCE):
        part = slice(start, start + _AT_ONCE)
        apart = np.asarray(source[positions[part]], np.float32) - queries[asked[part]]
        away[part] = np.sqrt(np.einsum("ed,ed->e", apart, apart))
    found = ranked_pairs(asked, groups[positions], away, positions, len(queries), kernel)
    return measured_again(found, source, groups, queries, k, kernel, work=len(asked), touched=read)


def _principal(grouped: Grouped, random: np.random.Generator) -> Vectors:
    """(D, m): the directions in which the vectors vary most."""
    drawn = np.sort(random.permutation(len(grouped.positions))[:8_192])
    sample = np.asarray(grouped.source[grouped.positions[drawn]], np.float64)
    size = min(_DIRECTIONS, grouped.dimension)
    if len(sample) < 2:
        return np.eye(grouped.dimension, size, dtype=np.float32)
    centred = sample - sample.mean(axis=0)
    _, directions = np.linalg.eigh(centred.T @ centred)
    return np.ascontiguousarray(directions[:, ::-1][:, :size], np.float32)


def _near_distances(grouped: Grouped, reduced: Vectors, random: np.random.Generator) -> NDArray[np.float64]:
    """Distances (n,), along the directions, of sampled vectors to the nearest of any other group; 1 where there is none."""
    drawn = np.sort(random.permutation(len(reduced))[:_SAMPLE])
    if len(grouped) < 2 or not len(drawn):
        return np.ones(1)
    own = np.searchsorted(grouped.starts, drawn, side="right") - 1
    squares = np.einsum("nd,nd->n", reduced, reduced)
    near = np.empty(len(drawn))
    for place, number in enumerate(drawn):
        away = squares - 2.0 * (reduced @ reduced[number]) + squares[number]
        away[grouped.starts[own[place]] : grouped.starts[own[place] + 1]] = np.inf
        near[place] = np.sqrt(max(float(away.min()), 0.0))
    there = near[near > 1e-6 * max(1.0, float(near.max()))]
    return there if len(there) else np.ones(1)


def _ladder(near: NDArray[np.float64], radii: int) -> NDArray[np.float64]:
    """(radii,) ascending, geometric."""
    low, high = np.quantile(near, [_FINEST, _COARSEST])
    low = max(float(low), 1e-3 * float(high))
    ladder: NDArray[np.float64] = np.geomspace(low, max(float(high), 1.01 * low), radii)
    return ladder


def _width(size: int, grids: int) -> float:
    """Cell width, in radii, at which a pair at the radius meets in some grid with the wanted chance: a pair in m dimensions meets
    in one grid with about exp(-0.8 sqrt(m) r / w).
    """
    one = 1.0 - (1.0 - _MEETS) ** (1.0 / grids)
    return float(0.8 * np.sqrt(size) / -np.log(one))


def cells_of(reduced: Vectors, turn: Vectors, width: float, shift: NDArray[np.float64]) -> NDArray[np.int64]:
    """(n,): the hashed cell of each point (n, m)."""
    places = np.floor((reduced @ turn).astype(np.float64) / width + shift).astype(np.int64).view(np.uint64)
    hashed = np.zeros(len(places), np.uint64)
    for column in places.T:
        hashed = (hashed ^ column) * _MULTIPLIER
        hashed ^= hashed >> np.uint64(29)
    found: NDArray[np.int64] = hashed.view(np.int64)
    return found
