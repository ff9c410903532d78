"""A scan of codes: what it finds against exact search, its learnt depth, and that changes and files leave it whole."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from vecdb.errors import CorruptIndex, InvalidInput
from vecdb.index import CodesConfig, ExactIndex, exact_search, open_index
from vecdb.index.code_scan import CodeScanIndex, smallest

CODECS = ["rabitq:4", "pq:48", "pca:96+int8", "float8"]
METRICS = ["cosine", "l2", "ip"]


def recall(found: NDArray[np.int64], true: NDArray[Any]) -> float:
    return float(np.mean([len(np.intersect1d(a, b[: len(a)])) / len(a) for a, b in zip(found, true)]))


@pytest.mark.parametrize("codec", CODECS)
def test_the_learnt_depth_reaches_the_recall_on_queries_that_it_was_not_learnt_from(codec: str, real: Any) -> None:
    """Stored vectors teach it. Others of their kind find as much, but for two hundredths of chance; claims about the abstracts,
    which are texts of another kind, some hundredths less.
    """
    base, own = np.delete(real.base, np.s_[::10], axis=0), real.base[::10]
    index = CodeScanIndex.build(base, "cosine", CodesConfig(codec, recall=0.99))
    for queries, slack in ((own, 0.02), (real.queries, 0.05)):
        true = exact_search(base, queries, 10, "cosine").positions
        for target in (None, 0.9, 0.99):
            found = index.search(queries, 10, target_recall=target)
            assert recall(found.positions, true) >= (target or 0.99) - slack
            assert found.way == "scan of codes"
            if target is not None:
                assert found.estimated_recall is not None
                assert (found.estimated_recall >= target - 1e-6).all()
    depths = [index.forecast(10, target_recall=t)[1] for t in (0.5, 0.9, 0.999)]
    assert depths == sorted(depths)


@pytest.mark.parametrize("metric", METRICS)
def test_distances_are_the_exact_ones(metric: Any, real: Any) -> None:
    index = CodeScanIndex.build(real.base[:2_000], metric, CodesConfig("int8"))
    found = index.search(real.queries, 10)
    true = exact_search(real.base[:2_000], real.queries, 10, metric)
    same = found.positions == true.positions
    assert same.mean() > 0.95
    assert np.array_equal(found.distances[same], true.distances[same])


def test_oversampling_by_hand_says_how_many_are_measured_again(real: Any) -> None:
    base = real.base[:3_000]
    by_hand = CodeScanIndex.build(base, "cosine", CodesConfig("rabitq:1", oversampling=3.0))
    assert (by_hand.search(real.queries, 10).work == 3_030).all()
    assert (by_hand.search(real.queries, 10, ef=50).work == 3_050).all()
    assert (by_hand.search(real.queries, 100).work == 3_300).all()
    true = exact_search(base, real.queries, 10, "cosine").positions
    recalls = [recall(by_hand.search(real.queries, 10, ef=ef).positions, true) for ef in (10, 40, 160)]
    assert recalls[0] < recalls[1] < recalls[2]


@pytest.mark.parametrize("share", [0.0, 0.002, 0.1, 0.7])
def test_only_what_is_allowed_comes_back_and_as_many_as_there_are(share: float, real: Any) -> None:
    base = real.base[:3_000]
    index = CodeScanIndex.build(base, "cosine", CodesConfig("pq:24"))
    allowed = np.random.default_rng(1).random(3_000) < share
    index.remove(np.arange(0, 3_000, 7))
    found = index.search(real.queries, 10, allowed=allowed, target_recall=0.99)
    allowed[::7] = False
    true = exact_search(base, real.queries, 10, "cosine", allowed)
    assert np.array_equal(found.positions >= 0, true.positions >= 0)
    assert allowed[found.positions[found.positions >= 0]].all()
    if true.positions.min(initial=0) >= 0 and allowed.any():
        assert recall(found.positions, true.positions) > 0.95


def test_it_lives_through_changes_as_exact_search_does(real: Any) -> None:
    """Asked as deep as there are vectors, it gives the same answers."""
    random = np.random.default_rng(0)
    index, oracle = CodeScanIndex(384, "l2", CodesConfig("pca:64+int8")), ExactIndex(384, "l2")
    assert (index.search(real.queries[:2], 3).positions == -1).all()
    for start, stop in ((0, 1), (1, 40), (40, 900), (900, 2_500)):
        for one in (index, oracle):
            one.add(real.base[start:stop])
        gone = random.choice(len(index), len(index) // 5, replace=False)
        before = index.copy()
        kept = before.live.sum()
        for one in (index, oracle):
            one.remove(gone)
        assert before.live.sum() == kept
        index.refresh()
        asked = {"ef": len(index)}
        assert np.array_equal(
            index.search(real.queries, 10, **asked).positions, oracle.search(real.queries, 10).positions
        )
        assert np.array_equal(index.compact(), oracle.compact())
        assert index.check() == []
        assert np.array_equal(
            index.search(real.queries, 10, **asked).positions, oracle.search(real.queries, 10).positions
        )


@pytest.mark.parametrize("metric", METRICS)
def test_an_index_and_its_copy_grow_without_each_other(metric: Any, real: Any) -> None:
    base, first, second = real.base[:1_100], real.base[1_100:1_200], real.base[1_200:1_300]
    index = CodeScanIndex.build(base[:1_000], metric, CodesConfig("int8"))
    index.add(base[1_000:])  # leaves room, which one of the two would fill after the other
    twin = index.copy()
    index.add(first)
    before = {name: array.copy() for name, array in index.arrays().items()}
    twin.add(second)
    for name, array in index.arrays().items():
        np.testing.assert_array_equal(array, before[name])
    assert not np.array_equal(twin.arrays()["codes"], before["codes"])


def test_a_saved_one_answers_the_same_and_a_damaged_one_is_noticed(real: Any) -> None:
    index = CodeScanIndex.build(real.base[:1_500], "cosine", CodesConfig("pca:96+int8", recall=0.95))
    arrays = {name: np.array(array) for name, array in index.arrays().items()}
    again = open_index(index.settings(), {name: array.copy() for name, array in arrays.items()})
    for target in (None, 0.9):
        first, second = (one.search(real.queries, 10, target_recall=target) for one in (index, again))
        assert np.array_equal(first.positions, second.positions)
    again.add(real.base[1_500:1_600])  # and goes on
    assert again.search(real.base[1_555:1_556], 1).positions.tolist() == [[1_555]]
    with pytest.raises(CorruptIndex):
        open_index(index.settings(), arrays | {"codes": arrays["codes"][:-1]})
    arrays["codes"][3] ^= 1
    assert open_index(index.settings(), arrays).check() == ["the code at position 3 is not its vector's"]
    empty = CodeScanIndex(384)
    assert len(open_index(empty.settings(), empty.arrays())) == 0


def test_the_smallest_are_the_first_of_equals_however_many() -> None:
    distances = np.tile(np.array([3, 1, 2, 1], np.float32), 50)
    for count in (1, 60, 64, 65, 120, 199):
        assert sorted(smallest(distances, count)) == sorted(np.argsort(distances, kind="stable")[:count])


@pytest.mark.parametrize(
    "wrong",
    [
        {"codec": "float9"},
        {"oversampling": 0.5},
        {"oversampling": -1.0},
        {"recall": 0.0},
        {"recall": 1.1},
        {"seed": -1},
    ],
)
def test_wrong_settings_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput):
        CodesConfig(**wrong)
    assert CodesConfig("int8", recall=0.5).builds_as(CodesConfig("int8", oversampling=2))
    assert not CodesConfig("int8").builds_as(CodesConfig("int4"))
