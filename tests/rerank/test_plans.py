"""The algorithms of the listwise rerankers with judges that know the truth: exact orders, and calls as they are counted."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import chain
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from oracle_judges import OrderOracle, PickOracle, ScoreOracle

from vecdb.rerank.listwise.engine import AT_ONCE, Verdict, run, together
from vecdb.rerank.listwise.plans import bubblesort, full_order, groups, heapsort, sliding, spans
from vecdb.rerank.models.base import Usage

lists = st.lists(st.integers(0, 30), max_size=70)  # ties are likely


def result(plan: Any, values: list[int], judge: Any) -> Any:
    return run([plan], ["q"], [[str(v) for v in values]], judge)[0].result


def shuffled(n: int, seed: int = 0) -> list[int]:
    return np.random.default_rng(seed).permutation(n).tolist()


def best(values: list[int]) -> list[int]:
    return sorted(values, reverse=True)


@given(lists, st.integers(2, 12), st.integers(1, 12))
def test_one_pass_of_windows_settles_the_best_of_their_overlap(values: list[int], window: int, step: int) -> None:
    step = min(step, window)
    order = result(sliding(len(values), window=window, step=step), values, OrderOracle())
    assert sorted(order) == list(range(len(values)))
    sure = len(values) if len(values) <= window else window - step
    assert [values[i] for i in order[:sure]] == best(values)[:sure]


@given(st.integers(0, 300), st.integers(1, 40), st.integers(1, 40))
def test_windows_cover_the_list_and_are_as_many_as_said(n: int, window: int, step: int) -> None:
    step = min(step, window)
    found = list(spans(n, window, step))
    assert len(found) == 1 + max(0, math.ceil((n - window) / step))
    assert {i for start, end in found for i in range(start, end)} == set(range(n))
    assert all(end - start == min(n, window) for start, end in found)


def test_a_hundred_candidates_take_nine_windows_and_leave_a_wrong_tail() -> None:
    values, judge = shuffled(100), OrderOracle()
    order = result(sliding(100), values, judge)
    assert judge.windows == [20] * 9
    assert [values[i] for i in order[:10]] == list(range(99, 89, -1))
    assert [values[i] for i in order] != best(values)


def test_full_ranking_is_one_call_with_fewer_documents_and_an_exact_order() -> None:
    values, windows, full = shuffled(100), OrderOracle(), OrderOracle()
    result(sliding(100), values, windows)
    order = result(sliding(100, window=None), values, full)
    assert [values[i] for i in order] == best(values)
    assert len(full.windows) == 1 < len(windows.windows)
    assert sum(full.windows) == 100 < sum(windows.windows) == 180


@given(lists, st.integers(2, 12), st.integers(1, 11))
def test_repeated_passes_make_the_complete_order(values: list[int], window: int, step: int) -> None:
    step = min(step, window - 1)
    order = result(full_order(len(values), window=window, step=step), values, OrderOracle())
    assert sorted(order) == list(range(len(values)))
    assert [values[i] for i in order] == best(values)


def test_labels_of_a_hundred_take_nine_passes() -> None:
    judge = OrderOracle()
    result(full_order(100), shuffled(100), judge)
    passes = [1 + math.ceil((m - 20) / 10) for m in range(100, 20, -10)] + [1]
    assert len(passes) == 9
    assert len(judge.windows) == sum(passes) == 45


@given(lists, st.integers(2, 12), st.integers(1, 80))
@pytest.mark.parametrize("sort", [heapsort, bubblesort])
def test_sets_give_the_best_k_in_order_and_the_rest_once(
    sort: Callable[..., Any], values: list[int], size: int, k: int
) -> None:
    order = result(sort(len(values), set_size=size, k=k), values, PickOracle())
    assert sorted(order) == list(range(len(values)))
    assert [values[i] for i in order[:k]] == best(values)[:k]


def test_a_heap_leaves_the_rest_in_first_stage_order() -> None:
    values = shuffled(60)
    order = result(heapsort(60, set_size=8, k=5), values, PickOracle())
    assert order[5:] == sorted(order[5:])


def test_a_heap_of_a_hundred_asks_as_often_as_its_page_says() -> None:
    """Six calls or a few more (a sift may go one level down) build it; each of nine extractions sifts two levels at most."""
    counts = []
    for seed in range(20):
        judge = PickOracle()
        result(heapsort(100, set_size=20, k=10), shuffled(100, seed), judge)
        counts.append(len(judge.windows))
        assert judge.rounds < len(judge.windows)  # nodes of one level are asked about side by side
        assert max(judge.windows) == 20
    assert all(6 + 9 <= count <= 7 + 2 * 9 for count in counts)
    pairwise, listwise = PickOracle(), OrderOracle()
    result(heapsort(100, set_size=2, k=10), shuffled(100), pairwise)
    result(sliding(100), shuffled(100), listwise)
    assert len(listwise.windows) < max(counts) < len(pairwise.windows) / 4


def test_bubblesort_asks_as_often_as_it_says() -> None:
    judge = PickOracle()
    result(bubblesort(100, set_size=20, k=10), shuffled(100), judge)
    assert len(judge.windows) == sum(math.ceil((100 - i - 1) / 19) for i in range(10))


@pytest.mark.parametrize("sort", [heapsort, bubblesort])
def test_a_model_that_never_answers_changes_little(sort: Callable[..., Any]) -> None:
    class Silent:
        def judge(self, questions: Any) -> list[Verdict[int | None]]:
            return [Verdict(None, Usage(calls=1, failures=1)) for _ in questions]

    order = result(sort(30, set_size=6, k=3), list(range(30)), Silent())
    assert sorted(order) == list(range(30))
    assert order[0] == 0


@given(st.lists(st.integers(0, 9), max_size=60), st.integers(1, 25), st.integers(1, 4), st.integers(0, 3))
def test_groups_of_a_judge_with_one_scale_give_every_score(
    values: list[int], size: int, rounds: int, seed: int
) -> None:
    judge = ScoreOracle()
    scores = result(groups(len(values), group_size=size, rounds=rounds, seed=seed), values, judge)
    assert scores.means.tolist() == values
    assert not scores.spreads.any()
    assert len(judge.windows) == rounds * math.ceil(len(values) / size)
    assert judge.rounds == math.ceil(len(judge.windows) / AT_ONCE)  # no group waits for another
    assert not judge.windows or max(judge.windows) - min(judge.windows) <= 1


def test_groups_are_shuffled_by_their_seed() -> None:
    def parts(seed: int) -> Any:
        return next(groups(40, group_size=10, rounds=2, seed=seed))

    assert parts(0) == parts(0) != parts(1)
    first = parts(0)
    assert sorted(chain(*first[:4])) == sorted(chain(*first[4:])) == list(range(40))
    assert first[:4] != first[4:]


def test_a_group_without_an_answer_has_no_score_in_that_round() -> None:
    class Half:
        def judge(self, questions: Any) -> list[Verdict[list[float] | None]]:
            return [Verdict(None if "3" in q.texts else [1.0] * len(q.texts), Usage()) for q in questions]

    scores = result(groups(10, group_size=5, rounds=1), list(range(10)), Half())
    assert np.isnan(scores.means).sum() == 5
    assert np.isnan(scores.means[3])


def test_queries_are_judged_together_and_pay_apart() -> None:
    judge = OrderOracle()
    texts = [[str(v) for v in shuffled(n)] for n in (100, 50, 1, 0)]
    outcomes = run([sliding(len(own)) for own in texts], list("abcd"), texts, judge)
    assert [o.usage.calls for o in outcomes] == [9, 4, 0, 0]
    assert judge.rounds == 9
    alone = [run([sliding(len(own))], ["q"], [own], OrderOracle())[0].result for own in texts]
    assert [o.result for o in outcomes] == alone


def test_what_the_check_raises_ends_the_run() -> None:
    class Late(Exception):
        pass

    asked = OrderOracle()

    def check() -> None:
        if asked.rounds == 3:
            raise Late

    with pytest.raises(Late):
        run([sliding(100)], ["q"], [[str(v) for v in range(100)]], asked, check=check)
    assert asked.rounds == 3


def test_plans_side_by_side_are_answered_each_with_its_own() -> None:
    def plan(start: int, rounds: int) -> Any:
        seen = []
        for i in range(rounds):
            answers = yield [[start + i]] * (i % 2 + 1)
            seen += answers
        return seen

    sizes = [3, 0, 5]
    combined = together([plan(10 * i, rounds) for i, rounds in enumerate(sizes)])
    windows = next(combined)
    with pytest.raises(StopIteration) as end:
        while True:
            windows = combined.send([window[0] for window in windows])
    alone = [[10 * p + i for i in range(rounds) for _ in range(i % 2 + 1)] for p, rounds in enumerate(sizes)]
    assert end.value.value == alone
