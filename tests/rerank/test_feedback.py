"""Relevance feedback: the gradient, and that a taught query vector ranks as its teacher."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import vecdb
from vecdb.rerank.base import Candidate, Context, Ranked, Reranked, Task
from vecdb.rerank.feedback import Feedback, ranknet_slope


def loss(student: Any) -> float:
    """The weighted RankNet loss, pair by pair."""
    total = 0.0
    for i in range(len(student)):
        for j in range(i + 1, len(student)):
            total += np.log1p(np.exp(student[j] - student[i])) / (i + 1 + j + 1)
    return total


def test_the_slope_is_that_of_the_loss() -> None:
    student = np.random.default_rng(0).standard_normal(6)
    step = 1e-6
    numeric = [(loss(student + step * e) - loss(student - step * e)) / (2 * step) for e in np.eye(6)]
    np.testing.assert_allclose(ranknet_slope(student), numeric, atol=1e-6)


def test_the_first_pair_pulls_thirteen_times_as_hard_as_the_last_of_twenty() -> None:
    """1 / (1 + 2) against 1 / (19 + 20), at equal scores."""
    pulls = []
    for better in (0, 18):
        student = np.full(20, -1e4)  # far apart: all other pairs in the teacher's order are settled
        student = -1e4 * np.arange(20.0)
        student[better + 1] = student[better]
        pulls.append(-ranknet_slope(student)[better])
    assert pulls[0] / pulls[1] == pytest.approx(13.0)


@pytest.mark.parametrize("method", ["ranknet", "kl"])
def test_a_taught_vector_comes_nearer_to_its_teacher(method: Any) -> None:
    rng = np.random.default_rng(1)
    documents = rng.standard_normal((20, 16))
    documents /= np.linalg.norm(documents, axis=1, keepdims=True)
    vector = np.asarray(documents.mean(axis=0) / np.linalg.norm(documents.mean(axis=0)), dtype=np.float32)
    order = rng.permutation(20)
    task = Task(
        "q", [Candidate(str(i), None, 1.0, embedding=d.astype(np.float32)) for i, d in enumerate(documents)], 10, vector
    )
    answer = Reranked(tuple(Ranked(int(place), 1.0 - 0.05 * rank) for rank, place in enumerate(order)))
    feedback = Feedback("cosine", method=method, steps=300, rate=0.01)
    refined = feedback.refine([task], [answer], Context())
    assert refined.shape == (1, 16)
    assert np.linalg.norm(refined[0]) == pytest.approx(np.linalg.norm(vector), rel=1e-5)

    def agreement(v: Any) -> float:  # Kendall's tau, more or less
        scores = (documents @ v)[order]
        return float(np.mean(np.sign(scores[:, None] - scores[None, :])[np.triu_indices(20, 1)]))

    assert agreement(refined[0]) > agreement(vector) + 0.3


def test_too_little_to_learn_from_leaves_the_vector_alone() -> None:
    vector = np.array([1.0, 0.0], np.float32)
    lonely = Task("q", [Candidate("a", None, 1.0, embedding=vector), Candidate("b", None, 1.0)], 2, vector)
    answer = Reranked((Ranked(1, 2.0), Ranked(0, 1.0)))
    assert Feedback("cosine").refine([lonely], [answer], Context()).tolist() == [[1.0, 0.0]]
    same = Task("q", [Candidate(n, None, 1.0, embedding=vector) for n in "ab"], 2, vector)
    for method in ("ranknet", "kl", "rocchio"):
        refined = Feedback("cosine", method=method).refine([same], [answer], Context())  # type: ignore[arg-type]
        np.testing.assert_allclose(refined, [[1.0, 0.0]], atol=1e-3)


@pytest.mark.parametrize(
    "wrong",
    [
        {"method": "x"},
        {"steps": 0},
        {"rate": 0},
        {"teachers": 1},
        {"by": "klingon"},
        {"by": {"kind": "cosine", "top": 1}},
    ],
)
def test_wrong_options_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(vecdb.InvalidQuery):
        Feedback(**{"by": "cosine", **wrong})
