"""Blends of rerankers and lists."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

import vecdb
from vecdb.rerank.base import BatchReranker, Candidate, Context, Reranked, Task, by_score
from vecdb.rerank.blend import Blend, standard


class Scores(BatchReranker):
    """Gives candidates the numbers of a metadata key; leaves out those that have none."""

    def __init__(self, key: str, *, drops: bool = False) -> None:
        self.key, self.drops = key, drops

    def rerank_batch(self, tasks: Sequence[Task], context: Context) -> list[Reranked]:
        answers = []
        for task in tasks:
            places = [i for i, c in enumerate(task.candidates) if self.key in c.metadata]
            ranked = by_score(
                [task.candidates[i].metadata.get(self.key, -1e9) for i in range(len(task.candidates))], len(places)
            )
            answers.append(Reranked(ranked, {"scored": len(places)}))
        return answers


class Broken(BatchReranker):
    def rerank_batch(self, tasks: Sequence[Task], context: Context) -> list[Reranked]:
        raise RuntimeError("gone")


def task(*candidates: tuple[dict[str, Any], dict[str, float]], k: int = 9) -> Task:
    made = [Candidate(str(i), None, 1.0 - 0.1 * i, m, scores=s) for i, (m, s) in enumerate(candidates)]
    return Task("q", made, k)


def places(blend: Blend, given: Task) -> list[int]:
    return [r.position for r in blend.rerank_batch([given], Context())[0]]


THREE = task(({"a": 1.0, "b": 0.0}, {"text": 3.0}), ({"a": 0.0, "b": 1.0}, {}), ({"a": 0.9, "b": 0.9}, {"text": 1.0}))


def test_scores_are_standardised_and_weighted() -> None:
    assert places(Blend([Scores("a"), Scores("b")], lists={}, given=0), THREE) == [2, 0, 1]
    assert places(Blend([Scores("b")], lists={}, given=0), THREE) == [1, 2, 0]
    assert places(Blend([Scores("b")], lists={"text": 10}, given=0), THREE) == [
        0,
        1,
        2,
    ]  # who is not in a list has its lowest score
    assert places(Blend([], lists={}), THREE) == [0, 1, 2]  # the order of the stage before
    assert len(places(Blend([Scores("a")], lists={}), task(*[({"a": 1.0}, {})] * 5, k=2))) == 2


def test_the_sum_is_that_of_the_parts() -> None:
    answer = Blend([Scores("a"), Scores("b")], [2.0, 0.5], lists={"text": 0.25}, given=3.0).rerank_batch(
        [THREE], Context()
    )[0]
    a, b = np.array([1.0, 0.0, 0.9]), np.array([0.0, 1.0, 0.9])
    text, before = np.array([3.0, 1.0, 1.0]), np.array([1.0, 0.9, 0.8])
    z = [(x - x.mean()) / x.std() for x in (a, b, text, before)]
    expected = 2.0 * z[0] + 0.5 * z[1] + 0.25 * z[2] + 3.0 * z[3]
    assert [r.score for r in answer] == pytest.approx(sorted(expected, reverse=True))
    assert answer.counters == {"Scores": {"scored": 3}}


def test_standard_scores_of_anything() -> None:
    assert standard(np.array([2.0, np.nan, 4.0])).tolist() == pytest.approx([-0.7071, -0.7071, 1.4142], abs=1e-4)
    assert standard(np.array([3.0, 3.0])).tolist() == [0.0, 0.0]
    assert standard(np.array([np.nan])).tolist() == [0.0]
    assert standard(np.zeros(0)).tolist() == []


def test_a_part_that_fails_is_left_out_and_all_that_fail_keep_the_order() -> None:
    answer = Blend([Broken(), Scores("b")], lists={}, given=0).rerank_batch([THREE], Context())[0]
    assert [r.position for r in answer] == [1, 2, 0]
    assert answer.kept is None
    assert answer.counters["left_out"] == ["Broken: RuntimeError: gone"]
    nothing = Blend([Broken()]).rerank_batch([THREE], Context())[0]
    assert ([r.position for r in nothing], nothing.kept) == ([0, 1, 2], "Broken: RuntimeError: gone")


def test_what_a_part_drops_stays_dropped() -> None:
    given = task(({"a": 1.0}, {}), ({}, {}), ({"a": 2.0}, {}))
    assert places(Blend([Scores("a", drops=True)], lists={}, given=5), given) == [0, 2]
    assert Blend([Scores("a", drops=True)]).drops
    assert places(Blend([Scores("a")], lists={}, given=5), given) == [0, 1, 2]


@pytest.mark.parametrize(
    "wrong",
    [
        {"of": "maxsim"},
        {"of": ["klingon"]},
        {"of": ["cosine"] * 9},
        {"weights": [1]},
        {"weights": [-1, 1]},
        {"lists": {"words": 1}},
        {"of": [], "lists": {}, "given": 0},
        {"of": [{"kind": "cosine", "top": 3}]},
    ],
)
def test_wrong_options_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(vecdb.InvalidQuery):
        Blend(**wrong)


def test_in_a_search_the_lists_have_their_say() -> None:
    with vecdb.open(":memory:", background=False) as db:
        docs = db.collection("d", dimension=2)
        docs.add(ids=["a", "b"], texts=["red red", "red and blue and green"], vectors=[[0, 1], [1, 0]])
        query = {"query": "red", "vector": [1, 0]}
        by_meaning = {"kind": "blend", "of": ["cosine"], "lists": {}, "given": 0}
        assert docs.search(**query, rerank=by_meaning).ids == ["b", "a"]  # type: ignore[arg-type]
        by_words = docs.search(**query, rerank={"kind": "blend", "of": ["cosine"], "lists": {"text": 9}})  # type: ignore[arg-type]
        assert by_words.ids == ["a", "b"]
        hits = docs.search(**query, rerank="blend")  # type: ignore[arg-type]
        assert "ModelUnavailable" in hits.trace[-1].detail["left_out"][0]  # no tokens are kept: cosine and words decide
