"""The rule for candidates: what it promises, and that it is the cheapest."""

from __future__ import annotations

import math

import numpy as np
import pytest

import vecdb
from vecdb.blocking.codes import Codes, unit
from vecdb.blocking.rule import Rule, assured_recall, calibrate, candidates_by, found_for
from vecdb.blocking.training import Matches
from vecdb.index.sparse import Sparse


def tail(found: int, matches: int, recall: float) -> float:
    return sum(math.comb(matches, i) * recall**i * (1 - recall) ** (matches - i) for i in range(found, matches + 1))


def codes(count: int, seed: int, near: Codes | None = None, noise: float = 0.9) -> Codes:
    random = np.random.default_rng(seed)
    rows = random.standard_normal((count, 8)).astype(np.float32)
    if near is not None:
        rows[: len(near)] = near.dense + noise * rows[: len(near)] / np.sqrt(8)
    return Codes(unit(rows), Sparse.empty(count))


@pytest.mark.parametrize(("matches", "recall", "confidence"), [(20, 0.8, 0.9), (200, 0.95, 0.9), (57, 0.5, 0.99)])
def test_so_many_matches_are_wanted_as_the_binomial_bound_says(matches: int, recall: float, confidence: float) -> None:
    found = found_for(recall, matches, confidence)
    assert tail(found, matches, recall) <= 1 - confidence < tail(found - 1, matches, recall)
    assert assured_recall(found, matches, confidence) >= recall > assured_recall(found - 1, matches, confidence)
    assert tail(found, matches, assured_recall(found, matches, confidence)) == pytest.approx(1 - confidence, abs=1e-6)


def test_too_few_matches_for_a_promise_must_all_be_found() -> None:
    assert found_for(0.95, 10, 0.9) == 10
    assert assured_recall(10, 10, 0.9) == pytest.approx(0.1 ** (1 / 10))
    assert assured_recall(0, 10, 0.9) == 0
    assert found_for(1.0, 30, 0.5) == 30


def test_the_rule_is_the_cheapest_that_finds_enough() -> None:
    a = codes(60, 1)
    b = codes(90, 2, a)
    places = np.arange(40)
    matches = Matches(places, places)
    rule, settled = calibrate(a, b, matches, recall=0.8, confidence=0.5)
    assert settled.found >= found_for(0.8, 40, 0.5)
    left, right, products = candidates_by(rule, a, b)
    assert len(left) == settled.candidates
    assert sum(pair in set(zip(left.tolist(), right.tolist())) for pair in zip(places, places)) == settled.found
    assert (products >= rule.least).all()
    whole = a.dense @ b.dense.T
    for side, scores in (("a", whole), ("b", whole.T)):  # each k with the largest distance that its matches need
        ranks = (scores[:40] >= scores[places, places][:, None]).sum(axis=1)
        for k in range(1, 11):
            inside = np.sort(scores[places, places][ranks <= k])[::-1]
            wanted = found_for(0.8, 40, 0.5)
            if len(inside) >= wanted and k <= max(2 * int(np.sort(ranks)[wanted - 1]), 10):
                cost = int((np.sort(scores, axis=1)[:, ::-1][:, :k] >= inside[wanted - 1] - 1e-6).sum())
                assert settled.candidates <= cost or k in (7, 9), (side, k)  # 7 and 9 are not tried


def test_recall_of_new_matches_falls_short_no_oftener_than_was_said() -> None:
    short = 0
    for seed in range(60):
        a = codes(400, 2 * seed)
        b = codes(400, 2 * seed + 1, a)
        settle, new = Matches(np.arange(100), np.arange(100)), np.arange(100, 400)
        rule, _ = calibrate(a, b, settle, recall=0.8, confidence=0.9)
        left, right, _ = candidates_by(rule, a, b)
        known = set(zip(left.tolist(), right.tolist()))
        short += np.mean([(i, i) in known for i in new.tolist()]) < 0.8
    assert short <= 12  # 6 are expected and as many again allowed: side and k are chosen on the same matches


def test_a_rule_may_look_from_either_side_and_among_its_own() -> None:
    a, b = codes(7, 5), codes(9, 6)
    left, right, _ = candidates_by(Rule("b", 2), a, b)
    assert len(left) == 18
    assert sorted(set(right.tolist())) == list(range(9))
    left, right, _ = candidates_by(Rule("a", 3), a, a, itself=True)
    assert len(left) == 21
    assert (left != right).all()


def test_wishes_out_of_range_are_refused() -> None:
    a = codes(5, 1)
    for recall, confidence, count in ((0.0, 0.9, 3), (1.1, 0.9, 3), (0.9, 1.0, 3), (0.9, 0.0, 3), (0.9, 0.9, 0)):
        places = np.arange(count)
        with pytest.raises(vecdb.InvalidInput):
            calibrate(a, a, Matches(places, places), recall=recall, confidence=confidence)
