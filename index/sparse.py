"""Rows with few numbers that are not zero, and products of all of them with all others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

Matrix = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Sparse:
    """(N, width): row i has values[starts[i]:starts[i+1]] at the columns of the same places, ascending.

    starts (N+1,) int64, columns (n,) int32, values (n,) float32.
    """

    starts: NDArray[np.int64]
    columns: NDArray[np.int32]
    values: Matrix
    width: int

    def __len__(self) -> int:
        return len(self.starts) - 1

    @classmethod
    def of(cls, rows: Sequence[NDArray[np.int32]], values: Sequence[Matrix], width: int) -> Sparse:
        starts = np.zeros(len(rows) + 1, np.int64)
        np.cumsum([len(row) for row in rows], out=starts[1:])
        none = np.zeros(0, np.int32)
        columns = np.concatenate([none, *rows]).astype(np.int32, copy=False)
        return cls(starts, columns, np.concatenate([none.astype(np.float32), *values]), width)

    @classmethod
    def empty(cls, rows: int) -> Sparse:
        """(rows, 0)."""
        return cls(np.zeros(rows + 1, np.int64), np.zeros(0, np.int32), np.zeros(0, np.float32), 0)

    @property
    def owners(self) -> NDArray[np.int64]:
        """(n,): the row of each value."""
        return np.repeat(np.arange(len(self)), np.diff(self.starts))

    def scaled(self, by: Matrix) -> Sparse:
        """Each row times its factor; by (N,)."""
        return Sparse(self.starts, self.columns, self.values * by.astype(np.float32)[self.owners], self.width)

    def taken(self, rows: NDArray[np.int64]) -> Sparse:
        """Some of the rows, in the order given."""
        lengths = np.diff(self.starts)[rows]
        starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        places = np.repeat(self.starts[rows] - starts[:-1], lengths) + np.arange(starts[-1])
        return Sparse(starts, self.columns[places], self.values[places], self.width)

    def transposed(self) -> Sparse:
        """(width, N): of each column the rows that have it."""
        order = np.argsort(self.columns, kind="stable")
        starts = np.concatenate([[0], np.cumsum(np.bincount(self.columns, minlength=self.width))]).astype(np.int64)
        return Sparse(starts, self.owners[order].astype(np.int32), self.values[order], len(self))

    def dense(self) -> Matrix:
        """(N, width) float32."""
        full = np.zeros((len(self), self.width), np.float32)
        full[self.owners, self.columns] = self.values
        return full


def beside(parts: Sequence[Sparse]) -> Sparse:
    """The rows of several one after the other: (N, sum of widths)."""
    offsets = np.cumsum([0, *(part.width for part in parts)])
    columns = np.concatenate([part.columns + np.int32(offset) for part, offset in zip(parts, offsets)])
    owners = np.concatenate([part.owners for part in parts])
    order = np.argsort(owners, kind="stable")
    starts = np.concatenate([[0], np.cumsum(sum(np.diff(part.starts) for part in parts))]).astype(np.int64)
    values = np.concatenate([part.values for part in parts])
    return Sparse(starts, columns[order].astype(np.int32), values[order], int(offsets[-1]))


def below(parts: Sequence[Sparse]) -> Sparse:
    """The rows of one after those of the other; all are equally wide."""
    ends = np.cumsum([0, *(len(part.values) for part in parts)])
    starts = [np.zeros(1, np.int64), *(part.starts[1:] + end for part, end in zip(parts, ends))]
    columns, values = (np.concatenate([getattr(part, name) for part in parts]) for name in ("columns", "values"))
    return Sparse(np.concatenate(starts), columns, values, parts[0].width)


def add_products(rows: Sparse, others: Sparse, out: Matrix) -> None:
    """out[i, j] += the inner product of rows[i] and column j of others, which is transposed: (B, W), (W, N) -> (B, N)."""
    _add_products(rows.starts, rows.columns, rows.values, others.starts, others.columns, others.values, out)


def products_of_pairs(a: Sparse, b: Sparse, left: NDArray[np.int64], right: NDArray[np.int64]) -> Matrix:
    """(P,): the inner product of a[left[i]] and b[right[i]]."""
    out = np.empty(len(left), np.float32)
    _products_of_pairs(a.starts, a.columns, a.values, b.starts, b.columns, b.values, left, right, out)
    return out


@njit(cache=True, nogil=True)
def _add_products(starts, columns, values, other_starts, other_columns, other_values, out):  # type: ignore[no-untyped-def]
    for i in range(out.shape[0]):
        row = out[i]
        for place in range(starts[i], starts[i + 1]):
            column, value = columns[place], values[place]
            for other in range(other_starts[column], other_starts[column + 1]):
                row[other_columns[other]] += value * other_values[other]


@njit(cache=True, nogil=True)
def _products_of_pairs(a_starts, a_columns, a_values, b_starts, b_columns, b_values, left, right, out):  # type: ignore[no-untyped-def]
    """Both rows are walked at once: columns ascend."""
    for pair in range(len(left)):
        i, i_end = a_starts[left[pair]], a_starts[left[pair] + 1]
        j, j_end = b_starts[right[pair]], b_starts[right[pair] + 1]
        total = np.float32(0.0)
        while i < i_end and j < j_end:
            if a_columns[i] == b_columns[j]:
                total += a_values[i] * b_values[j]
                i += 1
                j += 1
            elif a_columns[i] < b_columns[j]:
                i += 1
            else:
                j += 1
        out[pair] = total
