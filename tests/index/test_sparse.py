"""Sparse rows against the same numbers as dense arrays."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from vecdb.index.sparse import Sparse, add_products, beside, products_of_pairs


def made(rows: int, width: int, seed: int) -> tuple[Sparse, NDArray[np.float32]]:
    random = np.random.default_rng(seed)
    full = random.standard_normal((rows, width)).astype(np.float32)
    full[random.random((rows, width)) < 0.6] = 0
    if rows > 2:
        full[1] = 0  # a row with nothing in it
    columns = [np.flatnonzero(row).astype(np.int32) for row in full]
    return Sparse.of(columns, [row[place] for row, place in zip(full, columns)], width), full


@pytest.mark.parametrize(("rows", "others", "width"), [(1, 1, 1), (5, 123, 7), (40, 3, 33), (3, 0, 4), (0, 3, 4)])
def test_products_are_those_of_dense_rows(rows: int, others: int, width: int) -> None:
    (a, full_a), (b, full_b) = made(rows, width, 1), made(others, width, 2)
    out = np.full((rows, others), 2.0, np.float32)
    add_products(a, b.transposed(), out)
    np.testing.assert_allclose(out, 2 + full_a @ full_b.T, atol=1e-5)
    left, right = np.divmod(np.arange(rows * others), max(others, 1))
    found = products_of_pairs(a, b, left, right)
    np.testing.assert_allclose(found, (full_a @ full_b.T).ravel(), atol=1e-5)


def test_rows_are_scaled_taken_turned_and_set_beside_each_other() -> None:
    (a, full_a), (b, full_b) = made(9, 6, 3), made(9, 4, 4)
    factors = np.linspace(0.5, 2, 9).astype(np.float32)
    chosen = np.array([8, 1, 1, 0])
    np.testing.assert_array_equal(a.dense(), full_a)
    np.testing.assert_array_equal(a.transposed().dense(), full_a.T)
    np.testing.assert_allclose(a.scaled(factors).dense(), full_a * factors[:, None], rtol=1e-6)
    np.testing.assert_array_equal(a.taken(chosen).dense(), full_a[chosen])
    np.testing.assert_array_equal(beside([a, b, a]).dense(), np.concatenate([full_a, full_b, full_a], axis=1))
    assert Sparse.empty(3).dense().shape == (3, 0)
    assert len(Sparse.of([], [], 5)) == 0
