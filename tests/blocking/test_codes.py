"""Codes against what they stand for, pair by pair."""

from __future__ import annotations

import numpy as np
import pytest
from blocking.products import encoder, shops

from vecdb.blocking.codes import Views, codes_of, cosines_of_pairs, lexicons_of, nearest, view_names, views_of
from vecdb.blocking.pseudo import pseudo_matches
from vecdb.blocking.words import Lexicon

WEIGHTS = np.array([0.3, 0.1, 0.4, 0.2], np.float32)


def two_sides() -> tuple[Views, Views]:
    a, b, _ = shops(30)
    lexicons = lexicons_of((a, b), ("name", "price"))
    sides = [
        views_of(table, encoder().encode(table.texts(("name", "price"))), ("name", "price"), lexicons)
        for table in (a, b)
    ]
    return sides[0], sides[1]


def test_a_product_of_codes_is_the_weighted_mean_of_the_views_that_both_records_have() -> None:
    a, b = two_sides()
    assert len(view_names(("name", "price"))) == a.shown.shape[1] == 4
    assert not b.shown[:, 3].any()  # the other shop tells no prices
    x, y = codes_of(a, a.meaning, WEIGHTS), codes_of(b, b.meaning, WEIGHTS)
    lengths = [(code.dense**2).sum(axis=1) + (code.sparse.dense() ** 2).sum(axis=1) for code in (x, y)]
    for length in lengths:
        np.testing.assert_allclose(length, 1, atol=1e-5)
    products = np.concatenate([block for _, block in x.products(y)])
    left, right = (grid.ravel() for grid in np.indices(products.shape))
    cosines = np.column_stack(
        [np.einsum("pd,pd->p", a.meaning[left], b.meaning[right]), cosines_of_pairs(a, b, left, right)]
    )
    both = np.sqrt((a.shown @ WEIGHTS)[left] * (b.shown @ WEIGHTS)[right])
    np.testing.assert_allclose(products.ravel(), cosines @ WEIGHTS / both, atol=1e-5)


@pytest.mark.parametrize("k", [1, 4, 1000])
def test_nearest_are_those_of_the_whole_matrix(k: int) -> None:
    a, b = (codes_of(views, views.meaning, WEIGHTS) for views in two_sides())
    whole = np.concatenate([block for _, block in a.products(b)])
    places, products = nearest(a, b, k)
    assert places.shape == (len(a), min(k, len(b)))
    np.testing.assert_array_equal(products, np.sort(whole, axis=1)[:, ::-1][:, :k])
    np.testing.assert_array_equal(products, np.take_along_axis(whole, places, axis=1))
    places, products = nearest(a, a, k, itself=True)
    assert places.shape == (len(a), min(k, len(a) - 1))
    assert not (places == np.arange(len(a))[:, None]).any()


def test_words_are_weighted_by_how_rare_they_are_and_pieces_join_what_is_written_apart() -> None:
    texts = ["Canox camera DSC-W120", "canox camera dscw120", "canox camera dsc-w990", "", "?!"]
    rows = Lexicon.of(texts).vectors(texts).dense()
    lengths = np.linalg.norm(rows, axis=1)
    np.testing.assert_allclose(lengths, [1, 1, 1, 0, 0], atol=1e-5)
    assert rows[0] @ rows[1] > rows[0] @ rows[2] > 0
    common, rare = Lexicon.of(["aa bb", "aa cc", "aa dd"]).vectors(["aa", "bb", "aa bb"]).dense()[:2]
    both = Lexicon.of(["aa bb", "aa cc", "aa dd"]).vectors(["aa bb"]).dense()[0]
    assert both @ rare > both @ common
    # A text is what it is, whatever it is encoded beside.
    lexicon = Lexicon.of(texts)
    np.testing.assert_array_equal(lexicon.vectors(texts[:1]).dense()[0], rows[0])


def test_pseudo_matches_are_nearest_to_each_other_by_both_witnesses() -> None:
    a, b = two_sides()
    found = pseudo_matches(a, b)
    assert len(found) > 5
    for view in (0, 1):
        weights = np.zeros(4, np.float32)
        weights[view] = 1
        x, y = (codes_of(views, views.meaning, weights) for views in (a, b))
        there, back = nearest(x, y, 1)[0][:, 0], nearest(y, x, 1)[0][:, 0]
        np.testing.assert_array_equal(there[found.left], found.right)
        np.testing.assert_array_equal(back[found.right], found.left)
    same = pseudo_matches(a, a, itself=True)
    assert (same.left < same.right).all()
