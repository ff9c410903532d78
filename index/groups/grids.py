"""Random grids of several widths (CANN-RG): two vectors in one cell of a narrow grid are near, and a cell knows its groups.

For each of some radii there are several grids: turned at random, shifted at random. A query vector adds the kernel's value
at the smallest radius at which it meets a group, once for each group; no distance is computed for that. Departures from the
paper's released code: directions are reduced to a few principal ones first, since cells of all dimensions hold but copies; radii
and widths are measured on the data (the width gives a pair at that radius a fixed chance to meet in some grid); numbers are
rounded down and keys are hashed to 64 bits; and the best groups are measured exactly afterwards, because the finest radius
decides ties.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vecdb.index.arguments import as_k, as_queries
from vecdb.index.base import Vectors
from vecdb.index.groups.exact import Grouped, RankedGroups, nearest_in_groups, ranked
from vecdb.index.groups.kernel import GroupKernel, measured_reach

_DIRECTIONS = 12
_GRIDS = 12
_RADII = 8
_MEETS = 0.8  # chance of a pair at the radius to meet in at least one grid
_SAMPLE = 256
_FINEST, _COARSEST = 0.01, 0.5  # quantiles of the distance to the nearest foreign vector
_RECHECKED = 4  # times k groups are measured
_MOST_MET = 16  # times k groups, beyond which a query vector is not looked up at coarser radii
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True)
class Grids:
    """grouped: what is searched; basis (D, m): the directions; turns (T, m, m), widths (T,), shifts (T, m) of T tables, finest
    first; keys, places (n,): entries of all tables, bounds (T + 1,); worth (T,): the kernel at each table's radius.
    """

    grouped: Grouped
    kernel: GroupKernel
    basis: Vectors
    turns: Vectors
    widths: NDArray[np.float64]
    shifts: NDArray[np.float64]
    keys: NDArray[np.int64]
    places: NDArray[np.int32]
    bounds: NDArray[np.int64]
    worth: NDArray[np.float64]

    @classmethod
    def of(
        cls,
        grouped: Grouped,
        kernel: GroupKernel | None = None,
        *,
        grids: int = _GRIDS,
        radii: int = _RADII,
        seed: int = 0,
    ) -> Grids:
        """kernel: None for one whose reach is measured."""
        kernel = kernel or GroupKernel(measured_reach(grouped, seed))
        random = np.random.default_rng([seed, 13])
        basis = _principal(grouped.vectors, random)
        reduced = grouped.vectors @ basis
        near, ratio = _near_distances(grouped, basis, random, kernel.reach / 2)
        ladder = np.repeat(_ladder(near, radii), grids)
        size = basis.shape[1]
        turns = np.stack([np.linalg.qr(random.standard_normal((size, size)))[0] for _ in ladder]).astype(np.float32)
        widths = ladder * _width(size, grids)
        shifts = random.random((len(ladder), size))
        keys, places, bounds = [], [], [0]
        owner = np.repeat(np.arange(len(grouped), dtype=np.int32), np.diff(grouped.starts))
        for turn, width, shift in zip(turns, widths, shifts):
            cells = _cells(reduced, turn, width, shift)
            order = np.lexsort((owner, cells))
            cells, owners = cells[order], owner[order]
            is_first = np.ones(len(cells), np.bool_)
            is_first[1:] = (cells[1:] != cells[:-1]) | (owners[1:] != owners[:-1])
            keys.append(cells[is_first])
            places.append(owners[is_first])
            bounds.append(bounds[-1] + int(is_first.sum()))
        return cls(
            grouped,
            kernel,
            basis,
            turns,
            widths,
            shifts,
            np.concatenate(keys),
            np.concatenate(places),
            np.array(bounds, np.int64),
            kernel(ladder * ratio),
        )

    def search(self, queries: ArrayLike, k: int, *, recheck: int | None = None) -> RankedGroups:
        """The k best groups for a set of query vectors (Q, D). recheck: groups that are measured, 4 k unless given; what the
        grids say then only decides which those are. 0: none is, and no nearest vectors are told.
        """
        from vecdb.index.groups import kernels

        matrix, k = as_queries(queries, self.grouped.vectors.shape[1]), as_k(k)
        reduced = matrix @ self.basis
        tables = zip(self.turns, self.widths, self.shifts)
        wanted = np.stack([_cells(reduced, *table) for table in tables], axis=1)
        scores, marks = np.zeros(len(self.grouped)), np.zeros(len(self.grouped), np.int32)
        read = kernels.look_up(
            self.keys, self.places, self.bounds, np.ascontiguousarray(wanted), self.worth, _MOST_MET * k, marks, scores
        )
        best = np.argsort(-scores, kind="stable")
        best = best[scores[best] > 0]
        if recheck == 0:
            best = best[:k]
            unknown = np.full((len(best), len(matrix)), -1, np.int64)
            return RankedGroups(self.grouped.keys[best], scores[best] / len(matrix), unknown, 0, int(read))
        among = best[: max(k, _RECHECKED * k if recheck is None else recheck)]
        return replace(ranked(self.grouped, matrix, np.sort(among), k, self.kernel), touched=int(read))


def _principal(vectors: Vectors, random: np.random.Generator) -> Vectors:
    """(D, m): the directions in which the vectors vary most."""
    sample = vectors[np.sort(random.permutation(len(vectors))[:8_192])].astype(np.float64)
    size = min(_DIRECTIONS, vectors.shape[1])
    if len(sample) < 2:
        return np.eye(vectors.shape[1], size, dtype=np.float32)
    centred = sample - sample.mean(axis=0)
    _, directions = np.linalg.eigh(centred.T @ centred)
    return np.ascontiguousarray(directions[:, ::-1][:, :size], np.float32)


def _near_distances(
    grouped: Grouped, basis: Vectors, random: np.random.Generator, usual: float
) -> tuple[NDArray[np.float64], float]:
    """Distances (n,) of sampled vectors to the nearest of any other group, along the directions; and how many times longer the
    whole distance is, in the median. usual: the distance where there is nothing to measure.
    """
    drawn = np.sort(random.permutation(len(grouped.vectors))[:_SAMPLE])
    if len(grouped) < 2 or not len(drawn):
        return np.array([usual]), 1.0
    own = np.searchsorted(grouped.starts, drawn, side="right") - 1
    reduced = Grouped(grouped.vectors @ basis, grouped.starts, grouped.rows, grouped.keys)
    each = np.arange(len(drawn))
    near, whole = nearest_in_groups(reduced, reduced.vectors[drawn]), nearest_in_groups(grouped, grouped.vectors[drawn])
    near[each, own] = whole[each, own] = np.inf
    near, whole = near.min(axis=1), whole.min(axis=1)
    there = near > 1e-9 * max(1.0, float(near.max()))
    if not there.any():
        return np.array([usual]), 1.0
    return near[there], float(np.median(whole[there] / near[there]))


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


def _cells(reduced: Vectors, turn: Vectors, width: float, shift: NDArray[np.float64]) -> NDArray[np.int64]:
    """(n,): the hashed cell of each point (n, m)."""
    places = np.floor((reduced @ turn).astype(np.float64) / width + shift).astype(np.int64).view(np.uint64)
    hashed = np.zeros(len(places), np.uint64)
    for column in places.T:
        hashed = (hashed ^ column) * _MULTIPLIER
        hashed ^= hashed >> np.uint64(29)
    found: NDArray[np.int64] = hashed.view(np.int64)
    return found
