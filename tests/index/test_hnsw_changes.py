"""Adding, removing and compacting: the graph stays sound, nobody is lost, and recall stays that of a fresh build."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from index_measures import not_finding_themselves, recall
from numpy.typing import NDArray

from vecdb.index import ExactIndex, HnswConfig, HnswIndex, exact_search


def test_ten_rounds_of_removing_half_and_adding_a_third_lose_nobody(real: Any) -> None:
    index = HnswIndex.build(real.base[:1500], "cosine", HnswConfig(M=12, ef_construction=80))
    rng = np.random.default_rng(8)
    following = 1500
    for _ in range(10):
        live = np.flatnonzero(index.live)
        index.remove(rng.choice(live, len(live) // 2, replace=False))
        count = max(300, int(0.3 * len(live)))
        index.add(real.base[np.arange(following, following + count) % 4000])
        following += count
        assert index.check() == []
        assert not_finding_themselves(index) == []
    true = exact_search(index.vectors, real.queries, 10, "cosine", index.live)
    fresh = HnswIndex.build(index.vectors[index.live], "cosine", index.config)
    fresh_true = exact_search(fresh.vectors, real.queries, 10, "cosine")
    changed_recall = recall(index.search(real.queries, 10, ef=20).positions, true.positions)
    fresh_recall = recall(fresh.search(real.queries, 10, ef=20).positions, fresh_true.positions)
    assert changed_recall >= fresh_recall - 0.01


def test_many_adds_of_one_are_as_good_as_one_build(real: Any) -> None:
    config = HnswConfig(M=8, ef_construction=40)
    index = HnswIndex.build(real.base[:1000], "cosine", config)
    for i in range(1000, 1300):
        index.add(real.base[i : i + 1])
    assert index.check() == []
    assert not_finding_themselves(index) == []
    whole = HnswIndex.build(real.base[:1300], "cosine", config)
    assert np.array_equal(index.arrays()["levels"], whole.arrays()["levels"])
    true = exact_search(real.base[:1300], real.queries, 10, "cosine").positions
    added, built = (recall(each.search(real.queries, 10, ef=20).positions, true) for each in (index, whole))
    assert added >= built - 0.01


def test_settling_looks_for_everybody_after_changes_too_few_for_it(built: HnswIndex, real: Any) -> None:
    index = built.copy()
    index.remove(np.arange(0, 4000, 80))
    assert index.settings()["state"]["unchecked"] == 50
    opened = HnswIndex.open(index.settings(), index.arrays())
    for each in (index, opened):
        each.settle()
        assert each.settings()["state"]["unchecked"] == 0
        assert each.check() == []
        assert not_finding_themselves(each) == []
    assert index.arrays()["base"].tobytes() == opened.arrays()["base"].tobytes()


def test_a_new_topic_added_in_one_batch_is_connected_within(real: Any) -> None:
    """The new vectors are near each other and far from the old: old neighbours alone would connect them badly."""
    old, new = real.base[:1000].copy(), real.base[1000:1600].copy()
    old[:, 0] += 3
    new[:, 0] -= 3
    index = HnswIndex.build(old, "l2", HnswConfig(M=8, ef_construction=40))
    index.add(new)
    assert index.check() == []
    queries = real.queries.copy()
    queries[:, 0] -= 3
    true = exact_search(index.vectors, queries, 10, "l2").positions
    assert recall(index.search(queries, 10).positions, true) >= 0.97


def test_removed_positions_never_return_and_removing_twice_changes_nothing(built: HnswIndex, real: Any) -> None:
    index = built.copy()
    gone = np.arange(0, 4000, 2)
    index.remove(gone)
    links = index.arrays()["base"].tobytes()
    index.remove(gone[:50])
    assert index.arrays()["base"].tobytes() == links
    found = index.search(real.queries, 10)
    assert (found.positions % 2 == 1).all()
    everything = np.ones(4000, np.bool_)
    assert (index.search(real.queries, 10, allowed=everything).positions % 2 == 1).all()
    assert built.live.all()
    assert index.check() == built.check() == []


def test_compacting_renumbers_and_changes_no_answer(built: HnswIndex, real: Any) -> None:
    index = built.copy()
    index.remove(np.random.default_rng(3).permutation(4000)[:1500])
    before = index.search(real.queries, 10)
    live = np.flatnonzero(index.live)
    kept = index.compact()
    assert np.array_equal(kept, live)
    assert len(index) == 2500
    after = index.search(real.queries, 10)
    assert np.array_equal(kept[after.positions], before.positions)
    assert np.array_equal(after.work, before.work)
    assert index.check() == []
    assert index.compact().tolist() == list(range(2500))


def test_removing_everything_leaves_an_index_to_start_again_with(real: Any) -> None:
    index = HnswIndex.build(real.base[:200], "cosine")
    index.remove(np.arange(200))
    assert index.check() == []
    assert (index.search(real.queries[:3], 5).positions == -1).all()
    index.add(real.base[200:300])
    assert index.check() == []
    assert index.search(real.base[250:251], 1).positions[0, 0] == 250
    assert len(index.compact()) == 100
    assert index.search(real.base[250:251], 1).positions[0, 0] == 50


def test_a_copy_can_be_changed_while_the_original_is_read(built: HnswIndex, real: Any) -> None:
    before = {name: array.tobytes() for name, array in built.arrays().items()}
    merged = built.copy()
    assert np.shares_memory(merged.vectors, built.vectors)
    merged.remove(np.arange(100))
    merged.compact()
    merged.add(real.queries)
    assert merged.check() == []
    assert {name: array.tobytes() for name, array in built.arrays().items()} == before


class Changes(RuleBasedStateMachine):
    """An HnswIndex and an ExactIndex through the same life. Beams are narrow, so that the graph is walked from 17 nodes on.

    Numbers are whole and few: duplicates and ties are common.
    """

    @initialize(metric=st.sampled_from(["l2", "ip"]), seed=st.integers(0, 3))
    def begin(self, metric: str, seed: int) -> None:
        self.hnsw = HnswIndex(3, metric, HnswConfig(M=3, ef_construction=12, ef=8, seed=seed))
        self.exact = ExactIndex(3, metric)
        self.rng = np.random.default_rng(seed)

    def some(self, count: int) -> NDArray[np.float32]:
        return self.rng.integers(-4, 5, (count, 3)).astype(np.float32)

    @rule(count=st.integers(0, 30))
    def add(self, count: int) -> None:
        vectors = self.some(count)
        self.hnsw.add(vectors)
        self.exact.add(vectors)

    @precondition(lambda self: len(self.exact))
    @rule(share=st.sampled_from([0.05, 0.5, 1.0]))
    def remove(self, share: float) -> None:
        gone = np.flatnonzero(self.rng.random(len(self.exact)) < share)
        self.hnsw.remove(gone)
        self.exact.remove(gone)

    @rule()
    def compact(self) -> None:
        assert np.array_equal(self.hnsw.compact(), self.exact.compact())

    @rule()
    def go_on_with_a_copy(self) -> None:
        self.hnsw = self.hnsw.copy()

    @rule()
    def go_on_with_a_reopened_one(self) -> None:
        arrays = {name: array.copy() for name, array in self.hnsw.arrays().items()}
        self.hnsw = HnswIndex.open(self.hnsw.settings(), arrays)

    @rule(k=st.integers(1, 12), share=st.sampled_from([None, 0.1, 0.6]))
    def search(self, k: int, share: float | None) -> None:
        queries = self.some(3)
        allowed = None if share is None else self.rng.random(len(self.exact)) < share
        found = self.hnsw.search(queries, k, allowed=allowed)
        true = self.exact.search(queries, k, allowed=allowed)
        assert ((found.positions >= 0) == (true.positions >= 0)).all()
        for i in range(3):
            positions = found.positions[i][found.positions[i] >= 0]
            assert len(set(positions.tolist())) == len(positions)
            assert self.exact.live[positions].all()
            assert allowed is None or allowed[positions].all()
            order = list(zip(found.distances[i].tolist(), positions.tolist()))
            assert order == sorted(order)
            assert (found.distances[i] >= true.distances[i]).all()

    @invariant()
    def is_sound(self) -> None:
        if hasattr(self, "hnsw"):
            assert self.hnsw.check() == []
            assert np.array_equal(self.hnsw.live, self.exact.live)
            if self.hnsw.metric == "l2":
                assert not_finding_themselves(self.hnsw) == []


TestChanges = Changes.TestCase
TestChanges.settings = settings(max_examples=80, stateful_step_count=15, deadline=None)
