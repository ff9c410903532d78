"""Codes of records: unit vectors with a dense part, what a record means, and a sparse part, the words of each of its fields.

A view is one way to look at a record: "meaning" (the encoder's vector, through the learned head), "words" (of all its fields
together), and "words of FIELD" for each field. Each view is a unit vector, or zero where a record has nothing to show. A code is
the views beside each other, each times the square root of its weight, brought to unit length: so the inner product of two codes
is the weighted mean of the cosines of their views, and one distance, ||x - y||^2 = 2 - 2 <x, y>, stands for all of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vecdb.blocking.tables import Table
from vecdb.blocking.words import Lexicon
from vecdb.index.sparse import Sparse, add_products, below, beside, products_of_pairs

Matrix = NDArray[np.float32]
Places = NDArray[np.int64]

MEANING, WORDS = "meaning", "words"
_AT_ONCE = 256  # rows that are compared with all others together


@dataclass(frozen=True, slots=True)
class Views:
    """meaning (N, D) unit rows; words: a Sparse (N, width) for each further view, in the order of `view_names`."""

    meaning: Matrix
    words: tuple[Sparse, ...]

    def __len__(self) -> int:
        return len(self.meaning)

    @property
    def shown(self) -> NDArray[np.bool_]:
        """(N, V): which views a record has."""
        columns = [np.any(self.meaning != 0, axis=1), *(np.diff(view.starts) > 0 for view in self.words)]
        return np.stack(columns, axis=1)

    def taken(self, places: Places) -> Views:
        return Views(self.meaning[places], tuple(view.taken(places) for view in self.words))


@dataclass(frozen=True, slots=True)
class Codes:
    """dense (N, D) and sparse (N, width): together unit rows."""

    dense: Matrix
    sparse: Sparse

    def __len__(self) -> int:
        return len(self.dense)

    def taken(self, places: Places) -> Codes:
        return Codes(self.dense[places], self.sparse.taken(places))

    def products(self, others: Codes) -> Iterator[tuple[int, Matrix]]:
        """(first row, (B, N) inner products with all others), block after block."""
        columns = others.sparse.transposed()
        for start in range(0, len(self), _AT_ONCE):
            rows = np.arange(start, min(start + _AT_ONCE, len(self)))
            found = np.ascontiguousarray(self.dense[rows] @ others.dense.T)
            add_products(self.sparse.taken(rows), columns, found)
            yield start, found


def view_names(fields: Sequence[str]) -> tuple[str, ...]:
    return (MEANING, WORDS, *(f"{WORDS} of {field}" for field in fields))


def lexicons_of(tables: Sequence[Table], fields: Sequence[str]) -> tuple[Lexicon, ...]:
    """How frequent pieces of words are: in all fields together, and in each; over all tables."""
    return tuple(
        Lexicon.of(text for column in columns for text in column)
        for columns in zip(*(_columns(table, fields) for table in tables))
    )


def views_of(table: Table, vectors: Matrix, fields: Sequence[str], lexicons: Sequence[Lexicon]) -> Views:
    """vectors: (N, D) the encoder's of the table's texts. lexicons: as `lexicons_of` gives them, or none to leave words out."""
    columns = _columns(table, fields)
    return Views(unit(vectors), tuple(lexicon.vectors(column) for lexicon, column in zip(lexicons, columns)))


def _columns(table: Table, fields: Sequence[str]) -> list[list[str]]:
    """The texts of each sparse view."""
    columns = [table.column(field) for field in fields]
    return [[" ".join(filter(None, row)) for row in zip(*columns)], *columns]


def codes_of(views: Views, meaning: Matrix, weights: Matrix) -> Codes:
    """meaning (N, d): that view after the head, unit rows. weights (V,) of the views, not negative."""
    lengths = np.sqrt(views.shown @ weights)
    scale = (1 / np.where(lengths > 0, lengths, 1)).astype(np.float32)
    roots = np.sqrt(weights).astype(np.float32)
    parts = [view.scaled(scale * root) for view, root in zip(views.words, roots[1:])]
    sparse = beside(parts) if parts else Sparse.empty(len(views))
    return Codes(np.ascontiguousarray(meaning * roots[0] * scale[:, None], np.float32), sparse)


def joined(parts: Sequence[Codes]) -> Codes:
    """The codes of several, one after the other; where none of a part has a meaning, its dense part may be narrower."""
    dense = np.zeros((sum(map(len, parts)), max(part.dense.shape[1] for part in parts)), np.float32)
    first = 0
    for part in parts:
        dense[first : first + len(part), : part.dense.shape[1]] = part.dense
        first += len(part)
    return Codes(dense, below([part.sparse for part in parts]))


def cosines_of_pairs(a: Views, b: Views, left: Places, right: Places) -> Matrix:
    """(P, V - 1): of each view but the meaning."""
    return np.stack([products_of_pairs(x, y, left, right) for x, y in zip(a.words, b.words)], axis=1)


def nearest(codes: Codes, others: Codes, k: int, *, itself: bool = False) -> tuple[Places, Matrix]:
    """(N, k) places of the nearest others, nearest first (ties by place), and their inner products. Fewer columns if others are
    fewer. itself: others are the same records, and none is its own neighbour.
    """
    k = min(k, len(others) - itself)
    places, found = np.empty((len(codes), k), np.int64), np.empty((len(codes), k), np.float32)
    for start, scores in codes.products(others):
        rows = np.arange(len(scores))
        if itself:
            scores[rows, start + rows] = -np.inf
        chosen = np.argpartition(-scores, k - 1, axis=1)[:, :k] if 0 < k < len(others) else _all(scores, k)
        own = scores[rows[:, None], chosen]
        order = np.lexsort((chosen, -own), axis=1)
        places[start : start + len(rows)] = np.take_along_axis(chosen, order, axis=1)
        found[start : start + len(rows)] = np.take_along_axis(own, order, axis=1)
    return places, found


def unit(vectors: Matrix) -> Matrix:
    """Rows at unit length; a zero row stays zero."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.ascontiguousarray(vectors / np.where(lengths > 0, lengths, 1), dtype=np.float32)


def _all(scores: Matrix, k: int) -> Places:
    return np.argsort(-scores, axis=1, kind="stable")[:, :k]
