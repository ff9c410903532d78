"""Curves of decay, the time prior, and relevance times recency."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scripted_model import Scripted

import vecdb
from vecdb.language_model import Prompt
from vecdb.rerank.base import BatchReranker, Candidate, Context, Reranked, Task, by_score
from vecdb.rerank.decay import CURVES, decay_factors, seconds_of, value_at
from vecdb.rerank.recency import RelevanceTime
from vecdb.rerank.time_prior import TimePrior, fit_time_prior, time_prior_of


@given(
    x=st.floats(0, 1e6),
    scale=st.floats(0.01, 1e4),
    curve=st.sampled_from(CURVES),
    offset=st.floats(0, 10),
    floor=st.floats(0, 1),
)
def test_factors_fall_from_one_to_the_floor(x: float, scale: float, curve: Any, offset: float, floor: float) -> None:
    near, far = decay_factors(np.array([x, 2 * x + 1]), curve, scale, offset=offset, floor=floor)
    assert floor <= far <= near <= 1.0
    assert decay_factors(np.array([offset]), curve, scale, offset=offset)[0] == 1.0


def test_curves_have_their_values() -> None:
    at = np.array([10.0, -10.0, np.nan, np.inf])
    expected = {"exp": np.exp(-1), "linear": 0.0, "gauss": np.exp(-0.5), "half": 0.5}
    for curve in CURVES:
        assert decay_factors(at, curve, 10.0).tolist() == pytest.approx([expected[curve]] * 2 + [0.0, 0.0])


def test_times_are_read_in_every_form() -> None:
    moment = datetime(2024, 5, 1, tzinfo=UTC)
    for form in (moment, date(2024, 5, 1), "2024-05-01", {"$date": "2024-05-01T00:00:00Z"}, moment.timestamp()):
        assert seconds_of(form) == moment.timestamp()
    assert seconds_of(datetime(2024, 5, 1)) == moment.timestamp()  # naive: UTC
    assert all(np.isnan(seconds_of(form)) for form in ("soon", None, True, [1], {}))
    assert value_at({"a": {"b": 1}, "a.b": 2}, "a.b") == 2
    assert value_at({"a": {"b": 1}}, "a.b") == 1
    assert value_at({"a": 3}, "a.b") is None


def task(scores: Sequence[float], metadata: Sequence[dict[str, Any]], k: int = 10) -> Task:
    return Task("q", [Candidate(str(i), f"t{i}", s, m) for i, (s, m) in enumerate(zip(scores, metadata))], k)


def places(reranker: BatchReranker, given: Task) -> list[int]:
    return [r.position for r in reranker.rerank_batch([given], Context())[0]]


@pytest.mark.parametrize(
    "make",
    [
        lambda: decay_factors(np.zeros(1), "exp", 0.0),
        lambda: decay_factors(np.zeros(1), "exp", float("nan")),
        lambda: decay_factors(np.zeros(1), "cubic", 1.0),  # type: ignore[arg-type]
        lambda: decay_factors(np.zeros(1), "exp", 1.0, floor=2.0),
        lambda: RelevanceTime("", half_life_days=1.0),
        lambda: RelevanceTime("d", half_life_days=0.0),
        lambda: RelevanceTime("d", as_of="soon"),
        lambda: RelevanceTime("d", span=("2024-01-01", "2025-01-01")),
        lambda: RelevanceTime("d", span=("2025-01-01", "2024-01-01"), time_prior={"u": [0], "values": [1]}),
        lambda: RelevanceTime("d", relevance="klingon"),
        lambda: time_prior_of({"u": [0, 1], "values": [1, -0.5]}),
        lambda: TimePrior((0.5, 0.5), (1.0, 1.0)),
        lambda: time_prior_of({"u": [0]}),
    ],
)
def test_wrong_options_are_refused(make: Any) -> None:
    with pytest.raises(vecdb.InvalidQuery):
        make()


# -- the prior


def test_a_known_jump_is_where_the_prior_peaks() -> None:
    u = np.linspace(0, 1, 400)
    prior = fit_time_prior([(u, 0.5 + 0.4 / (1 + np.exp(-(u - 0.7) / 0.03)))] * 3 + [([], []), ([0.2], [0.5])])
    peak = prior.u[int(np.argmax(prior.values))]
    assert abs(peak - 0.7) <= 1 / 108 + 1e-9
    assert prior.u[0] >= 0.05
    assert prior.u[-1] <= 0.97
    assert (max(prior.values), min(prior.values) >= 0) == (1.0, True)
    assert prior.at([0.0, 1.0, prior.u[0]]).tolist() == [prior.values[0], prior.values[-1], prior.values[0]]
    assert time_prior_of(prior.as_json()) == prior


def test_curves_that_fall_or_say_nothing() -> None:
    assert set(fit_time_prior([([0, 1], [0.9, 0.1])]).values) == {1.0}
    assert set(fit_time_prior([([0.5], [0.5])]).values) == {1.0}
    with pytest.raises(vecdb.InvalidInput, match="none of those"):
        fit_time_prior([([], [])])
    with pytest.raises(vecdb.InvalidInput, match="as many"):
        fit_time_prior([([0, 1], [0.5])])


# -- relevance times recency


def test_nothing_after_as_of_comes_back_nor_is_shown_to_a_model() -> None:
    seen: list[str] = []

    def relevance(query: str, text: str) -> float:
        seen.append(text)
        return 0.5

    given = task([3.0, 2.0, 1.0, 0.5], [{"d": "2024-01-02"}, {"d": "2024-01-01"}, {}, {"d": "2023-12-31"}])
    reranker = RelevanceTime("d", as_of="2024-01-01", relevance=relevance)
    answer = reranker.rerank_batch([given], Context())[0]
    assert [r.position for r in answer] == [1, 3]
    assert seen == ["t1", "t3"]
    assert answer.counters["after_as_of"] == 2
    assert answer[0].detail == {"relevance": 0.5, "recency": 1.0}


def test_as_of_holds_when_the_model_fails() -> None:
    class Broken(BatchReranker):
        def rerank_batch(self, tasks: Sequence[Task], context: Context) -> list[Reranked]:
            raise RuntimeError("gone")

    given = task([3.0, 2.0], [{"d": "2030-01-01"}, {"d": "2020-01-01"}])
    for relevance in (Broken(), lambda query, text: 1 / 0):
        answer = RelevanceTime("d", as_of="2024-01-01", relevance=relevance).rerank_batch([given], Context())[0]
        assert [r.position for r in answer] == [1]
        assert answer.kept is not None


def test_a_search_never_leaks_what_is_later(tmp_path: Any) -> None:
    with vecdb.open(":memory:", background=False) as db:
        docs = db.collection("news")
        docs.add(
            ids=[f"n{i}" for i in range(20)],
            texts=["news of the day"] * 20,
            metadata=[{"day": date(2024, 1, 1 + i)} for i in range(20)],
        )
        for look in (
            {"kind": "relevance_x_time", "time_field": "day", "as_of": "2024-01-10"},
            {"kind": "relevance_x_time", "time_field": "day", "as_of": "2024-01-10", "top": 12},
            {"kind": "feedback", "by": {"kind": "relevance_x_time", "time_field": "day", "as_of": "2024-01-10"}},
        ):
            hits = docs.search("news", k=15, rerank=look)
            assert hits
            assert all(hit.metadata["day"] <= date(2024, 1, 10) for hit in hits)
        newest = docs.search(
            "news", k=1, rerank={"kind": "relevance_x_time", "time_field": "day", "as_of": "2024-01-10"}
        )
        assert newest.ids == ["n9"]


def test_equal_relevance_follows_the_prior_and_no_relevance_stays_below() -> None:
    prior = {"u": [0.0, 0.5, 1.0], "values": [0.2, 1.0, 0.0]}
    days = [{"d": "2024-01-01"}, {"d": "2024-06-30"}, {"d": "2024-12-30"}]
    span = ("2024-01-01", "2024-12-31")
    assert places(RelevanceTime("d", span=span, time_prior=prior), task([1.0] * 3, days)) == [1, 0, 2]
    grades = RelevanceTime("d", span=span, time_prior=prior, relevance=lambda q, t: {"t0": 4, "t1": 0}[t], grades=True)
    same_day = task([1.0, 1.0], [days[1], days[1]])
    answer = grades.rerank_batch([same_day], Context())[0]
    assert [r.position for r in answer] == [0, 1]
    assert answer[1].score == pytest.approx(1e-4 * answer[0].score)


def test_another_reranker_gives_the_relevance() -> None:
    class Last(BatchReranker):
        def rerank_batch(self, tasks: Sequence[Task], context: Context) -> list[Reranked]:
            return [Reranked(by_score(range(len(t.candidates)), t.k)) for t in tasks]

    given = task([3.0, 2.0, 1.0], [{"d": "2024-01-01"}] * 3, k=2)
    answer = RelevanceTime("d", as_of="2024-01-01", relevance=Last()).rerank_batch([given], Context())[0]
    assert [r.position for r in answer] == [2, 1]
    assert [r.score for r in answer] == [1.0, 0.5]


def test_grades_of_a_model_keep_their_scale() -> None:
    grades = {"t0": 1.0, "t1": 2.0}

    def told(prompt: Prompt, label: str) -> float:
        return 0.0 if int(label) == grades[next(text for text in grades if text in prompt.user)] else -np.inf

    given = task([3.0, 2.0], [{"d": "2024-01-01"}] * 2, k=2)
    graded = {"kind": "graded", "model": Scripted(score=told)}
    answer = RelevanceTime("d", as_of="2024-01-01", relevance=graded).rerank_batch([given], Context())[0]
    assert [r.position for r in answer] == [1, 0]
    assert [r.score for r in answer] == [0.5, 0.25]  # over the candidates it would have been 1 and 0
    failing = {"kind": "graded", "model": Scripted()}
    unread = Task("", given.candidates, 2)
    answer = RelevanceTime("d", as_of="2024-01-01", relevance=failing).rerank_batch([unread], Context())[0]
    assert answer.kept == "the query has no text"
    assert [r.score for r in answer] == [1.0, 1e-4]  # the stage before, over the candidates
