"""Training: the loss is the published one, others are the nearest, and what is held out is not seen."""

from __future__ import annotations

import numpy as np
import pytest
from blocking.products import encoder, shops

import vecdb
from vecdb.blocking.codes import Views, lexicons_of, views_of
from vecdb.blocking.hashing import HashConfig, Head
from vecdb.blocking.learn import apart, matches_of, without_matches_of
from vecdb.blocking.training import Matches, hard_others, ranks_of, start, train, triplets_of

torch = pytest.importorskip("torch")


def material() -> tuple[tuple[Views, Views], Matches]:
    a, b, pairs = shops()
    fields = ("name",)
    lexicons = lexicons_of((a, b), fields)
    sides = [views_of(table, encoder().encode(table.texts(fields)), fields, lexicons) for table in (a, b)]
    return (sides[0], sides[1]), matches_of(a, b, pairs)


def test_others_are_the_nearest_that_do_not_match() -> None:
    sides, matches = material()
    doubled = Matches(np.append(matches.left, matches.left[0]), np.append(matches.right, matches.right[1]))
    first = start(sides, HashConfig())
    a, b = (first.codes(views) for views in sides)
    found = hard_others(a, b, doubled, 3)
    whole = np.concatenate([block for _, block in a.products(b)])
    for left, others in zip(doubled.left, found):
        mine = set(doubled.right[doubled.left == left].tolist())
        free = [place for place in np.argsort(-whole[left], kind="stable").tolist() if place not in mine]
        np.testing.assert_allclose(whole[left][others], whole[left][free[:3]], atol=1e-6)
    ranks = ranks_of(a, b, matches)
    own = whole[matches.left, matches.right]
    np.testing.assert_array_equal(ranks, (whole[matches.left] >= own[:, None]).sum(axis=1))


@pytest.mark.parametrize("loss", ["hinge", "triplet"])
def test_the_loss_is_that_of_distances_between_codes(loss: str) -> None:
    from vecdb.blocking.training import _Network

    sides, matches = material()
    config = HashConfig(dimension=8, radius=0.6, gap=2.0, loss=loss)  # type: ignore[arg-type]
    first = start(sides, config)
    a, b = (first.codes(views) for views in sides)
    others = hard_others(a, b, matches, 2)
    triplets = triplets_of(sides, matches, others)
    tensors = [torch.from_numpy(np.ascontiguousarray(getattr(triplets, name))) for name in type(triplets).__slots__]
    found = float(_Network(torch, first, config)._loss(*tensors).detach())
    x, y = (np.concatenate([code.dense, code.sparse.dense()], axis=1) for code in (a, b))
    near = np.linalg.norm(x[matches.left] - y[matches.right], axis=1)
    far = np.linalg.norm(x[matches.left][:, None] - y[others], axis=2)
    if loss == "hinge":  # max(R, d(p, q)) - min(cR, d(p, r)), less its lower bound R - cR
        wanted = np.maximum(0.6, near).mean() - np.minimum(1.2, far).mean() - (0.6 - 1.2)
    else:
        wanted = np.maximum(0, near[:, None] - far + 0.6).mean()
    assert found == pytest.approx(float(wanted), abs=2e-4)


def test_training_brings_held_out_records_nearer_to_their_matches_and_is_reproducible() -> None:
    worded, matches = material()
    sides = Views(worded[0].meaning, ()), Views(worded[1].meaning, ())  # words alone would find nearly all
    learning, held_out = apart(matches, 0)
    assert not set(learning.left.tolist()) & set(held_out.left.tolist())
    own, renamed = without_matches_of(sides, held_out, learning)
    assert len(own[0]) == len(sides[0]) - len(held_out)
    np.testing.assert_array_equal(own[0].meaning[renamed.left], sides[0].meaning[learning.left])
    told = []
    config = HashConfig(dimension=16, epochs=6, rate=3e-3)
    learned = train(
        own, renamed, config, held_out=(sides, held_out), told=lambda epoch, rank: told.append((epoch, rank))
    )
    assert learned.course[0] > min(learned.course[1:])
    assert [rank for _, rank in told] == list(learned.course[1:])
    assert learned.weights.sum() == pytest.approx(1, abs=1e-5)
    again = train(own, renamed, config, held_out=(sides, held_out))
    np.testing.assert_array_equal(learned.head.matrix, again.head.matrix)
    other = train(own, renamed, HashConfig(dimension=16, epochs=6, rate=3e-3, seed=1), held_out=(sides, held_out))
    assert not np.array_equal(learned.head.matrix, other.head.matrix)


def test_what_cannot_be_learned_from_is_refused() -> None:
    sides, _ = material()
    none = np.zeros(0, np.int64)
    with pytest.raises(vecdb.InvalidInput, match="no match"):
        train(sides, Matches(none, none), HashConfig())
    one = tuple(views.taken(np.array([0])) for views in sides)
    with pytest.raises(vecdb.InvalidInput, match="telling them apart"):
        train((one[0], one[1]), Matches(np.array([0]), np.array([0])), HashConfig())
    with pytest.raises(vecdb.InvalidInput, match="one record"):
        apart(Matches(np.zeros(9, np.int64), np.arange(9)), 0)
    for wrong in (
        {"dimension": 0},
        {"epochs": 1.5},
        {"radius": 0.0},
        {"gap": 1.0},
        {"radius": 1.5, "gap": 1.5},
        {"rate": float("nan")},
        {"loss": "cosine"},
    ):
        with pytest.raises(vecdb.InvalidInput):
            HashConfig(**wrong)  # type: ignore[arg-type]


def test_an_untrained_head_keeps_inner_products_as_well_as_its_size_allows() -> None:
    random = np.random.default_rng(3)
    vectors = (random.standard_normal((50, 4)) @ random.standard_normal((4, 20))).astype(np.float32)
    head = Head.of_directions(vectors, 64)
    assert head.matrix.shape == (20, 4)
    np.testing.assert_allclose(vectors @ head.matrix @ head.matrix.T, vectors, atol=1e-4)
    rows = head(np.vstack([vectors, np.zeros((1, 20), np.float32)]))
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), [1] * 50 + [0], atol=1e-5)
