"""Choosing a set: each method against its slow twin, the bounds that coverage promises, and awkward pools."""

from __future__ import annotations

import math
from itertools import combinations, pairwise
from typing import Any

import naive_selection as naive
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

import vecdb
from vecdb.query.selection import SELECTIONS, Coverage, Dpp, KCenter, Mmr, Pool, selector_of
from vecdb.query.selection.coverage import Objective, cells_of, lazy_greedy, similarities
from vecdb.query.selection.grouping import first_of_each, roomy

SEEDS = st.integers(0, 2**32 - 1)
WEIGHTS = st.sampled_from([0.0, 0.1, 0.5, 1.0, 3.0])


@st.composite
def coverages(draw: st.DrawFn) -> Coverage:
    a, b, c = draw(WEIGHTS), draw(WEIGHTS), draw(WEIGHTS)
    assume(a + b + c > 0)
    return Coverage(a, b, c, tau=draw(st.sampled_from([0.01, 0.1, 1.0])), clusters=draw(st.integers(1, 8)))


def made_pool(seed: int, size: int, dimension: int = 5) -> Pool:
    """Vectors in clumps, with copies, records without a vector, and ties in relevance."""
    rng = np.random.default_rng(seed)
    clumps = rng.standard_normal((max(1, size // 4), dimension))
    vectors = clumps[rng.integers(len(clumps), size=size)] + rng.choice([0.0, 0.1, 1.0]) * rng.standard_normal(
        (size, dimension)
    )
    scores = -np.sort(-rng.choice([rng.random(size), np.round(rng.random(size), 1)]))
    listed = [None if rng.random() < 0.1 else vector.astype(np.float32) for vector in vectors]
    return Pool.of(scores, listed)


POOLS = st.builds(made_pool, SEEDS, st.integers(1, 14))


# -- coverage


@given(coverages(), POOLS, st.integers(1, 16))
def test_lazy_greedy_is_greedy(options: Coverage, pool: Pool, count: int) -> None:
    """Each step takes the largest gain that there is, to the bit, and of equal ones the first."""
    lazy, gains = lazy_greedy(Objective(options, pool), count)
    plain = Objective(options, pool)
    left = list(range(len(pool)))
    for place, gain in zip(lazy, gains):
        each = [float(plain.gains(np.array([candidate]))[0]) for candidate in left]
        assert (place, gain) == (left[int(np.argmax(each))], max(each))
        plain.take(place)
        left.remove(place)
    assert len(lazy) == min(count, len(pool))


@pytest.mark.parametrize("size", [200, 1000])
def test_lazy_greedy_is_greedy_for_large_pools(size: int) -> None:
    rng = np.random.default_rng(size)
    pool = Pool.of(-np.sort(-rng.random(size)), list(rng.standard_normal((size, 8)).astype(np.float32)))
    for options in (Coverage(), Coverage(1, 0, 0), Coverage(0, 0, 1), Coverage(0.2, 0.01, 0.1, tau=1)):
        lazy, _ = lazy_greedy(Objective(options, pool), 40)
        plain, left = Objective(options, pool), np.arange(size)
        for place in lazy:
            assert place == left[np.argmax(plain.gains(left))]
            plain.take(place)
            left = left[left != place]


@given(coverages(), POOLS, st.integers(1, 14))
def test_gains_sum_to_the_objective(options: Coverage, pool: Pool, count: int) -> None:
    selection = options.choose(pool, count)
    value = naive.objective(options, pool)
    for n in range(1, len(selection.places) + 1):
        assert sum(selection.gains[:n]) == pytest.approx(value(selection.places[:n]), abs=1e-9)


@given(coverages(), POOLS, st.data())
def test_the_objective_is_monotone_and_its_returns_diminish(options: Coverage, pool: Pool, data: st.DataObject) -> None:
    order = data.draw(st.permutations(range(len(pool))))
    inner = data.draw(st.integers(0, len(pool) - 1))
    outer = data.draw(st.integers(inner, len(pool) - 1))
    value, added = naive.objective(options, pool), order[-1]
    of_smaller = value([*order[:inner], added]) - value(order[:inner])
    of_larger = value([*order[:outer], added]) - value(order[:outer])
    assert -1e-9 <= of_larger <= of_smaller + 1e-9


def test_greedy_is_near_the_best_choice() -> None:
    ratios = []
    for seed in range(150):
        pool = made_pool(seed, 12)
        options = [Coverage(), Coverage(1, 0, 0, tau=1), Coverage(1, 0.05, 0.2, tau=0.3)][seed % 3]
        value = naive.objective(options, pool)
        ratios.append(value(options.choose(pool, 4).places) / naive.best_of_size(value, 12, 4))
    assert min(ratios) >= 1 - 1 / math.e
    assert np.mean(ratios) > 0.95


def test_a_budget_is_kept_and_well_used() -> None:
    ratios = []
    for seed in range(60):
        pool, rng = made_pool(seed, 10), np.random.default_rng(seed)
        options = Coverage(1, 0.1, 0.3, tau=0.5)
        costs = rng.choice([1.0, 5.0, 20.0, 100.0], size=10) * rng.random(10)
        budget = float(rng.uniform(costs.min(), costs.sum()))
        chosen = options.within(pool, costs, budget)
        assert sum(costs[chosen.places]) <= budget
        value = naive.objective(options, pool)
        ratios.append(value(chosen.places) / naive.best_within(value, costs.tolist(), budget))
    assert min(ratios) >= (1 - 1 / math.e) / 2
    assert np.mean(ratios) > 0.95


def test_neither_greedy_rule_alone_would_do() -> None:
    """By gain alone one dear record fills the budget; by gain for its cost a cheap one shuts out a far better one."""
    apart = list(np.eye(12, dtype=np.float32))
    options = Coverage(0, 1, 0)
    dear_first = Pool.of(np.array([1.0, *[0.9] * 10, 0.0]), apart)
    assert len(options.within(dear_first, np.array([10.0, *[1.0] * 10, 1.0]), 10).places) == 10
    cheap_first = Pool.of(np.array([1.0, 0.05, 0.0]), apart[:3])
    assert options.within(cheap_first, np.array([10.0, 0.1, 100.0]), 10).places == [0]


def test_nothing_is_chosen_that_does_not_fit() -> None:
    pool = made_pool(1, 5)
    assert Coverage().within(pool, np.full(5, 7.0), 6.0).places == []


@given(POOLS, st.integers(1, 16), st.floats(0.01, 5))
def test_relevance_alone_is_the_top_k_copies_last(pool: Pool, count: int, weight: float) -> None:
    assert Mmr(diversity=0).choose(pool, count).places == list(range(min(count, len(pool))))
    groups = naive.copies(pool)
    # A candidate without any relevance adds nothing either, so it is as good as a copy.
    adds = [groups[i] == i and pool.relevance[i] > 0 for i in range(len(pool))]
    expected = sorted(range(len(pool)), key=lambda i: (not adds[i], i))
    assert Coverage(0, weight, 0).choose(pool, count).places == expected[:count]


@given(coverages(), POOLS, st.integers(1, 14))
def test_what_is_covered_adds_up(options: Coverage, pool: Pool, count: int) -> None:
    selection = options.choose(pool, count)
    assert selection.covered is not None
    told = selection.covered(len(selection.places))
    assert all(later >= before - 1e-12 for before, later in pairwise(told.scores))  # sums of floats
    assert told.scores[-1] == pytest.approx(sum(told.shares))
    assert -1e-9 <= told.scores[0] <= told.scores[-1] <= 1 + 1e-9
    stood_for = [place for cell in told.cells for place in cell]
    assert len(stood_for) == len(set(stood_for))
    assert not set(stood_for) & set(selection.places)
    like = similarities(pool)
    for place, cell in zip(selection.places, told.cells):
        for other in cell:
            assert like[place, other] == max(like[chosen, other] for chosen in selection.places) > 0


def test_copies_share_a_cell_and_records_without_a_vector_have_their_own() -> None:
    rng = np.random.default_rng(0)
    vectors: list[np.ndarray | None] = [*rng.standard_normal((30, 6)).astype(np.float32), None, None]
    vectors += [vectors[0]] * 5
    cells = cells_of(Pool.of(np.linspace(1, 0, 37), vectors), 8)
    assert len(set(cells[[0, *range(32, 37)]].tolist())) == 1
    assert cells[30] == cells[31]
    assert np.count_nonzero(cells == cells[30]) == 2
    assert len(set(cells.tolist())) <= 9


# -- the others


@given(POOLS, st.integers(1, 16), st.floats(0, 1))
def test_mmr_is_maximal_marginal_relevance(pool: Pool, count: int, diversity: float) -> None:
    assert Mmr(diversity).choose(pool, count).places == naive.mmr(pool, diversity, count)


@given(POOLS, st.integers(1, 5))
def test_kcenter_is_within_twice_the_best_radius(pool: Pool, count: int) -> None:
    selection = KCenter().choose(pool, count)
    assert selection.places[0] == 0
    best = min(naive.kcenter_radius(pool, chosen) for chosen in combinations(range(len(pool)), min(count, len(pool))))
    assert naive.kcenter_radius(pool, selection.places) <= 2 * best + 1e-3  # float32 cosines of copies


@given(SEEDS, st.integers(1, 9), st.floats(0, 0.95))
def test_dpp_takes_the_largest_determinant(seed: int, size: int, relevance: float) -> None:
    rng = np.random.default_rng(seed)
    pool = Pool.of(-np.sort(-rng.random(size)), list(rng.standard_normal((size, 12)).astype(np.float32)))
    selection = Dpp(relevance).choose(pool, size)
    for n in range(1, size + 1):
        before = selection.places[: n - 1]
        each = {i: naive.log_determinant(pool, relevance, [*before, i]) for i in range(size) if i not in before}
        assert each[selection.places[n - 1]] == pytest.approx(max(each.values()), abs=1e-4)
        assert sum(selection.gains[:n]) == pytest.approx(each[selection.places[n - 1]], abs=1e-4)


def test_dpp_goes_on_by_relevance_when_nothing_new_is_left() -> None:
    pool = Pool.of(np.array([5.0, 4.0, 3.0, 2.0]), [np.array(v, np.float32) for v in ([1, 0], [1, 0], [1, 0], [0, 1])])
    selection = Dpp(0.5).choose(pool, 4)
    assert selection.places == [0, 3, 1, 2]
    assert selection.gains[2:] == [-math.inf, -math.inf]


# -- all of them


@given(st.sampled_from(sorted(SELECTIONS)), POOLS, st.integers(1, 16))
def test_each_place_is_chosen_once_and_a_page_begins_like_a_longer_one(name: str, pool: Pool, count: int) -> None:
    selector = SELECTIONS[name]()
    every = selector.choose(pool, 100).places
    assert sorted(every) == list(range(len(pool)))
    assert selector.choose(pool, count).places == every[:count]


@pytest.mark.parametrize("name", sorted(SELECTIONS))
def test_an_empty_pool_gives_nothing(name: str) -> None:
    assert SELECTIONS[name]().choose(Pool.of(np.zeros(0), []), 5).places == []


@pytest.mark.parametrize("name", sorted(SELECTIONS))
@pytest.mark.parametrize("vectors", [[None] * 4, [np.ones(3, np.float32)] * 4, [np.zeros(3, np.float32)] * 4])
def test_pools_of_one_kind_keep_the_order_of_relevance(name: str, vectors: list[np.ndarray | None]) -> None:
    assert SELECTIONS[name]().choose(Pool.of(np.array([4.0, 3.0, 2.0, 1.0]), vectors), 4).places == [0, 1, 2, 3]
    assert SELECTIONS[name]().choose(Pool.of(np.ones(4), vectors), 4).places == [0, 1, 2, 3]


@pytest.mark.parametrize("select", ["coverage", Mmr(0.6), "kcenter", "dpp"])
def test_copies_of_the_best_hit_do_not_fill_the_page(db: vecdb.Database, select: Any) -> None:
    """20 near copies (cosine above 0.98) of the top hit among 200 others: at most 2 of them come back."""
    rng = np.random.default_rng(5)
    query = np.eye(32, dtype=np.float32)[0]
    topics = rng.standard_normal((12, 32))
    others = topics[rng.integers(12, size=200)] + 0.5 * rng.standard_normal((200, 32)) + 3.0 * query
    top = query + 0.1 * topics[0] / np.linalg.norm(topics[0])
    copies = top + 0.01 * rng.standard_normal((20, 32))
    unit = lambda v: v / np.linalg.norm(v, axis=-1, keepdims=True)  # noqa: E731
    assert (unit(copies) @ unit(top)).min() > 0.98
    docs = db.collection("docs", dimension=32)
    docs.add(ids=["top", *(f"copy{i}" for i in range(20))], vectors=np.concatenate([top[None], copies]))
    docs.add(vectors=others)

    def same(hits: vecdb.Hits) -> int:
        return sum(hit.id == "top" or hit.id.startswith("copy") for hit in hits)

    assert same(docs.search(query, k=10)) == 10
    assert 1 <= same(docs.search(query, k=10, select=select)) <= 2


def test_selections_are_named_or_objects() -> None:
    assert selector_of("topk") is None
    assert selector_of("coverage") == Coverage()
    assert selector_of(Mmr(0.5)) == Mmr(0.5)
    for wrong in ("best", None, 3, Coverage):
        with pytest.raises(vecdb.InvalidQuery, match="select is"):
            selector_of(wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Mmr(diversity=2), "diversity of a selection is 2"),
        (lambda: Mmr(diversity=math.nan), "diversity of a selection is nan"),
        (lambda: Mmr(pool=0), "pool of a selection is 0"),
        (lambda: KCenter(pool=10**9), "pool of a selection is 1000000000"),
        (lambda: Dpp(relevance=1), "relevance of a selection is 1"),
        (lambda: Coverage(coverage=-1), "coverage of a selection is -1"),
        (lambda: Coverage(0, 0, 0), "are all 0"),
        (lambda: Coverage(tau=0), "tau of a selection is 0"),
        (lambda: Coverage(tau="small"), "tau of a selection is 'small'"),
        (lambda: Coverage(clusters=1.5), "clusters of a selection is 1.5"),
    ],
)
def test_wrong_options_are_refused(make: object, message: str) -> None:
    with pytest.raises(vecdb.InvalidQuery, match=message):
        make()  # type: ignore[operator]


def test_grouping_keeps_the_first_of_each_group_and_all_that_have_none() -> None:
    groups = np.array([7, 2, 7, -1, 7, -1, 2])
    assert first_of_each(groups, 1).tolist() == [0, 1, 3, 5]
    assert first_of_each(groups, 2).tolist() == [0, 1, 2, 3, 5, 6]


@given(st.lists(st.integers(-1, 4), max_size=30), st.integers(1, 12), st.integers(1, 8), st.integers(1, 3))
def test_a_pool_leaves_as_many_groups_as_there_are(given: list[int], size: int, wanted: int, per_group: int) -> None:
    groups = np.array(given, np.int64)
    places = roomy(groups, size, wanted, per_group)
    possible = min(wanted, len(first_of_each(groups, per_group)))
    assert len(first_of_each(groups[places], per_group)) >= possible
    assert len(places) >= min(size, len(groups))
    assert np.all(places[1:] > places[:-1])
    if len(first_of_each(groups[:size], per_group)) >= possible:
        assert places.tolist() == list(range(min(size, len(groups))))
