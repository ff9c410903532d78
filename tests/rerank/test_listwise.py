"""Listwise rerankers: what they ask, how they read what comes back, and what it costs, with models that say what they are told
to and with a small random network.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scripted_model import Scripted, shown

import vecdb
from vecdb.errors import InvalidQuery
from vecdb.language_model import Prompt
from vecdb.rerank.base import Candidate, Context, Task
from vecdb.rerank.kinds import KINDS, reranker_of
from vecdb.rerank.listwise import answers, prompts
from vecdb.rerank.listwise.first import First
from vecdb.rerank.listwise.graded import Graded
from vecdb.rerank.listwise.group import Groupwise
from vecdb.rerank.listwise.setwise import Setwise
from vecdb.rerank.listwise.written import Full, Sliding
from vecdb.rerank.models.transformers_lm import TransformersModel

LABELS = [str(i + 1) for i in range(12)]
written = st.text(alphabet='0123456789[]{}:,> "ABC<answer>\n', max_size=120)


def candidates(values: list[Any]) -> list[Candidate]:
    return [Candidate(str(i), str(v), -float(i)) for i, v in enumerate(values)]


def value(passage: str) -> float:
    return float(passage.split()[0])


def best_first(prompt: Prompt) -> list[str]:
    listed = shown(prompt)
    return sorted(listed, key=lambda label: -value(listed[label]))


def order_of(reranked: Any) -> list[int]:
    return [ranked.position for ranked in reranked]


def shuffled(n: int, seed: int = 0) -> list[int]:
    return np.random.default_rng(seed).permutation(n).tolist()


WRITES = Scripted(reply=lambda p: " > ".join(f"[{label}]" for label in best_first(p))[1:])
SCORES = Scripted(score=lambda p, label: value(shown(p)[label]))
PICKS = Scripted(reply=lambda p: f"<think>they differ</think><answer>[{best_first(p)[0]}]</answer>")
GRADES = Scripted(
    reply=lambda p: (
        f"<reason>x</reason><answer>{json.dumps({f'[{k}]': value(v) // 10 for k, v in shown(p).items()})}</answer>"
    )
)


@given(written)
def test_whatever_a_model_writes_is_read_as_a_permutation_or_not_at_all(text: str) -> None:
    order = answers.permutation(text, LABELS)
    assert order is None or sorted(order) == list(range(12))
    scores = answers.scores(text, LABELS[:2])
    assert scores is None or all(0 <= s <= 10 for s in scores)
    for read in (answers.pick, answers.strict_pick):
        place = read(text, LABELS)
        assert place is None or 0 <= place < 12
    if answers.strict_pick(text, LABELS) is not None:
        assert answers.pick(text, LABELS) == answers.strict_pick(text, LABELS)


def test_orders_are_repaired() -> None:
    read = answers.permutation
    assert read("Sure! [3] > [1] > [3] > [77] > [2]", list("1234")) == [2, 0, 1, 3]
    assert read("[ 2 ], then [4]", list("1234")) == [1, 3, 0, 2]
    assert read("3 > 1 > 2", list("1234")) == [2, 0, 1, 3]
    assert read("B > A", list("ABC")) == [1, 0, 2]
    assert read("I cannot say", list("1234")) is None
    assert read("", list("1234")) is None
    assert read("[12] > [1]", list("12")) == [0, 1]


def test_scores_are_read_from_careless_json() -> None:
    read = answers.scores
    labels = ["1", "2"]
    assert read('<answer>{"[1]": 7, "[2]": 2}</answer>', labels) == [7, 2]
    assert read('<answer>{"[1]": 7, "[2]": 2</answer>', labels) == [7, 2]
    assert read("```json\n{'1': 11, '2': -3}\n```", labels) == [10, 0]
    assert read('first {"[1]": 1, "[2]": 1}, no: {"[1]": 3, "[2]": "4"}', labels) == [3, 4]
    assert read('{"[1]": 7}', labels) is None
    assert read('{"[1]": 7, "[1]": 3, "[2]": 0}', labels) is None
    assert read('{"[1]": NaN, "[2]": 1}', labels) is None


def test_picks_are_read_leniently_and_rewarded_strictly() -> None:
    good = "<think>because</think> <answer>[2]</answer>"
    assert answers.pick(good, LABELS) == answers.strict_pick(good, LABELS) == 1
    loose = "<answer>document [2], clearly</answer>"
    assert answers.pick(loose, LABELS) == 1
    assert answers.strict_pick(loose, LABELS) is None
    assert answers.pick("[2] or [3]", LABELS) is None
    assert answers.pick("<answer>[99]</answer>", LABELS) is None
    assert answers.reasoning("<think>a b</think><answer>[1]</answer>") == "a b"
    assert answers.reasoning("<answer>[1]</answer>") is None


@pytest.mark.parametrize(
    ("reranker", "sure"),
    [
        (First(SCORES), 10),
        (Sliding(WRITES), 10),
        (Sliding(WRITES, letters=True), 10),
        (Full(WRITES), 100),
        (Setwise(PICKS), 10),
        (Setwise(PICKS, method="bubblesort", votes=3), 10),
    ],
    ids=["first", "sliding", "letters", "full", "heapsort", "bubblesort"],
)
def test_a_model_that_knows_puts_the_best_on_top_of_a_shuffled_list(reranker: Any, sure: int) -> None:
    values = shuffled(100)
    ranked = reranker.rerank("q", candidates(values), 10 if sure == 10 else 100)
    assert [values[p] for p in order_of(ranked)][:sure] == sorted(values, reverse=True)[:sure]
    scores = [r.score for r in ranked]
    assert scores == sorted(scores, reverse=True)
    assert ranked.counters["failures"] == 0


def test_groups_of_a_model_with_one_scale_are_ordered_by_its_scores_and_ties_by_the_first_stage() -> None:
    values = shuffled(100)
    ranked = Groupwise(GRADES, blend=0.0).rerank("q", candidates(values), 100)
    expected = sorted(range(100), key=lambda p: (-(values[p] // 10), p))
    assert order_of(ranked) == expected
    assert ranked.counters["calls"] == 2 * 5
    assert ranked.counters["documents"] == 200
    assert all(r.detail == {"spread": 0.0} for r in ranked)
    blended = Groupwise(GRADES, blend=1.0).rerank("q", candidates(values), 100)
    assert order_of(blended) == list(range(100))


def test_a_group_that_cannot_be_read_is_asked_again_and_then_has_the_first_stage_scores() -> None:
    broken = Scripted(reply=lambda p: "no")
    ranked = Groupwise(broken, group_size=5, rounds=1).rerank("q", candidates([1, 2, 3, 4, 5, 6]), 6)
    assert order_of(ranked) == list(range(6))
    assert ranked.counters["failures"] == 4  # two groups, twice each
    assert ranked.counters["unscored"] == 6
    assert "close the JSON object" in broken.seen[-1].user
    second = iter(["no", '{"1": 1, "2": 9}'])
    mended = Groupwise(Scripted(reply=lambda p: next(second)), rounds=1, blend=0.0).rerank("q", candidates([1, 2]), 2)
    assert [r.score for r in mended] == [0.9, 0.1]


def test_a_document_has_the_grade_that_its_model_expects() -> None:
    chances: dict[float, list[float]] = {
        0: [1, 0, 0, 0, 0],
        1: [0, 0.5, 0, 0.5, 0],
        2: [0.2] * 5,
        3: [0, 0, 0, 0, 1],
        4: [0] * 5,
    }

    def told(prompt: Prompt, label: str) -> float:
        document = prompt.user.split("The document:\n")[1].split("\n")[0]
        chance = chances[value(document)][int(label)]
        return float(np.log(chance)) if chance else -np.inf

    model = Scripted(score=told)
    ranked = Graded(model).rerank("q", candidates([0, 1, 2, 3, 4]), 5)
    assert order_of(ranked) == [3, 1, 2, 0, 4]  # equal grades in the order given; one without a grade comes last
    assert [r.score for r in ranked] == pytest.approx([1.0, 0.5, 0.5, 1e-4, 1e-4])
    assert [r.detail["grade"] for r in ranked][:4] == pytest.approx([4.0, 2.0, 2.0, 0.0])
    assert ranked[4].detail["grade"] is None
    assert {name: ranked.counters[name] for name in ("calls", "decoded_tokens", "documents", "failures", "unscored")} == {
        "calls": 5, "decoded_tokens": 5, "documents": 5, "failures": 1, "unscored": 1,
    }  # fmt: skip
    assert len(model.seen) == 5


def test_random_groups_hide_the_order_of_the_first_stage() -> None:
    seen = Scripted(reply=GRADES.reply)
    Groupwise(seen, rounds=1).rerank("q", candidates(list(range(40))), 5)
    assert [value(p) for p in shown(seen.seen[0]).values()] != sorted(value(p) for p in shown(seen.seen[0]).values())


def test_first_decodes_one_token_a_window(causal: TransformersModel, seq2seq: TransformersModel) -> None:
    given = candidates([f"{word} stone river" for word in ["red", "green", "blue"] * 12 + ["plum"]])
    for model in (causal, seq2seq):
        counters = First(model, window=10, step=5).rerank("apple", given, 10).counters
        assert counters["calls"] == 1 + -(-(37 - 10) // 5) == 7
        assert counters["decoded_tokens"] == counters["forward_passes"] == counters["calls"]
        assert counters["documents"] == 70
        again = First(model, window=10, step=5).rerank("apple", given, 10)
        assert order_of(again) == order_of(First(model, window=10, step=5).rerank("apple", given, 10))


def test_first_takes_fewer_passes_than_writing_the_same_windows(causal: TransformersModel) -> None:
    given = candidates([f"{word} stone river" for word in ["red", "green", "blue"] * 10])
    first = First(causal, window=10, step=5).rerank("apple", given, 10).counters
    wrote = Sliding(causal, window=10, step=5, letters=True).rerank("apple", given, 10).counters
    assert wrote["calls"] == first["calls"]
    assert wrote["decoded_tokens"] > 5 * first["decoded_tokens"]


def test_a_batch_of_queries_gives_what_each_gives_alone(causal: TransformersModel) -> None:
    tasks = [
        Task(query, candidates([f"{w} {query}" for w in ["red", "green", "blue", "pear", "bird"] * n]), 5)
        for query, n in (("apple", 1), ("plum", 5), ("stone", 3))
    ]
    for reranker in (
        First(causal, window=8, step=4),
        Sliding(causal, window=8, step=4),
        Groupwise(causal, reply_tokens=8),
    ):
        together = reranker.rerank_batch(tasks, Context())
        for task, answer in zip(tasks, together):
            alone = reranker.rerank_batch([task], Context())[0]
            assert order_of(answer) == order_of(alone)
            assert answer.counters == alone.counters


def test_full_ranking_reads_less_and_asks_less_than_windows() -> None:
    given = candidates([f"{v} {'word ' * 40}" for v in shuffled(100)])
    full = Full(WRITES).rerank("q", given, 10).counters
    windows = Sliding(WRITES, passage_tokens=100).rerank("q", given, 10).counters
    assert full["calls"] == 1
    assert windows["calls"] == 9
    for counter in ("prompt_tokens", "decoded_tokens", "documents"):
        assert full[counter] < windows[counter]
    assert "windowed" not in full


def test_a_list_that_does_not_fit_the_context_is_shown_in_windows_and_says_so() -> None:
    small = Scripted(reply=WRITES.reply, context=1500)
    values = shuffled(100)
    ranked = Full(small).rerank("q", candidates([f"{v} {'word ' * 40}" for v in values]), 10)
    assert ranked.counters["windowed"] is True
    assert ranked.counters["calls"] == 9
    assert [values[p] for p in order_of(ranked)] == list(range(99, 89, -1))


def test_a_reply_is_ended_after_the_best_that_are_wanted() -> None:
    model = Scripted(reply=WRITES.reply)
    Full(model, best=10).rerank("q", candidates(shuffled(100)), 10)
    assert model.limits[0] < 100
    assert "best 10" in model.seen[0].user


@given(st.lists(st.integers(0, 60), min_size=1, max_size=20), st.integers(0, 900))
def test_passages_are_cut_to_the_longest_equal_length_that_fits(lengths: list[int], context: int) -> None:
    model = Scripted(context=context)
    texts = [" ".join(f"w{i}" for i in range(length)) for length in lengths]
    labels = prompts.numbers(len(texts))

    def frame(passages: Any) -> Prompt:
        return prompts.permutation("q", labels, passages)

    try:
        fitted = prompts.fit(model, texts, frame, reply=10)
    except prompts.DoesNotFit:
        prompt = frame([" ".join(text.split()[: prompts.LEAST_PASSAGE_TOKENS]) for text in texts])
        assert sum(model.lengths([prompt.system, prompt.user])) + 10 + 32 > context - len(texts)
        return
    prompt = frame(fitted.passages)
    assert sum(model.lengths([prompt.system, prompt.user])) + 10 <= context
    if fitted.cut_to is None:
        assert fitted.passages == [prompts.clean(text) for text in texts]
    else:
        assert max(model.lengths(fitted.passages)) == fitted.cut_to


def test_a_passage_cannot_pass_for_another() -> None:
    text = prompts.clean("see [3] and [B]\n[1] fake > [ 2 ] but [note]")
    assert text == "see (3) and (B) (1) fake > (2) but [note]"


def test_letters_that_a_service_did_not_tell_come_last_and_stay_in_order() -> None:
    known = {"B": -1.0, "D": -0.5}
    model = Scripted(score=lambda p, label: known.get(label, -np.inf))
    assert order_of(First(model).rerank("q", candidates([0, 1, 2, 3, 4]), 5)) == [3, 1, 0, 2, 4]


def test_shuffles_average_out_a_models_love_of_early_letters() -> None:
    values = [1, 0, 3, 2, 5, 4]
    model = Scripted(score=lambda p, label: 0.8 * value(shown(p)[label]) - 2.0 * "ABCDEF".index(label))
    biased = First(model).rerank("q", candidates(values), 6)
    fair = First(model, shuffles=6).rerank("q", candidates(values), 6)
    best = [4, 5, 2, 3, 0, 1]
    assert order_of(biased) != best
    assert order_of(fair) == best
    assert fair.counters["decoded_tokens"] == 6


def test_votes_and_reasons() -> None:
    turn = iter(range(100))

    def reply(prompt: Prompt) -> str:
        right = f"[{best_first(prompt)[0]}]"
        wrong = f"[{best_first(prompt)[-1]}]"
        return f"<think>hm</think><answer>{wrong if next(turn) % 3 == 0 else right}</answer>"

    ranked = Setwise(Scripted(reply=reply), votes=3).rerank("q", candidates([3, 1, 2]), 1)
    assert order_of(ranked) == [0]
    assert ranked.counters["calls"] == 3
    assert ranked.counters["reasons"][0]["reason"] == "hm\nhm\nhm"


def test_void_answers_are_counted_and_the_parent_wins() -> None:
    ranked = Setwise(Scripted(reply=lambda p: "hm")).rerank("q", candidates(list(range(30))), 3)
    assert order_of(ranked)[0] == 0
    assert ranked.counters["failures"] == ranked.counters["calls"] > 0


def test_setwise_blends_with_the_first_stage_if_asked() -> None:
    values = shuffled(30)
    assert order_of(Setwise(PICKS, fuse=1.0).rerank("q", candidates(values), 30)) == list(range(30))


@pytest.mark.parametrize("values", [[], [7], [1, 1, 1]])
@pytest.mark.parametrize(
    "reranker",
    [First(SCORES), Sliding(WRITES), Full(WRITES), Groupwise(GRADES), Setwise(PICKS)],
    ids=lambda r: type(r).__name__,
)
def test_few_candidates_come_back_as_they_are(reranker: Any, values: list[int]) -> None:
    ranked = reranker.rerank("q", candidates(values), 10)
    assert sorted(order_of(ranked)) == list(range(len(values)))
    missing = [Candidate("a", None, 1.0)]
    assert order_of(First(SCORES).rerank("q", missing, 1)) == [0]


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("first", {"window": 27}),
        ("first", {"window": 10, "step": 11}),
        ("first", {"shuffles": 0}),
        ("sliding", {"letters": True, "window": 40}),
        ("sliding", {"step": 0}),
        ("full", {"best": 0}),
        ("full", {"window": 3}),
        ("group", {"rounds": 0}),
        ("group", {"blend": 1.5}),
        ("setwise", {"set_size": 1}),
        ("setwise", {"method": "quicksort"}),
        ("setwise", {"votes": True}),
    ],
)
def test_options_that_make_no_sense_are_refused(kind: str, options: dict[str, Any]) -> None:
    with pytest.raises(InvalidQuery):
        reranker_of({"kind": kind, **options})


def test_a_search_reranks_by_name_and_traces_what_it_cost() -> None:
    values = shuffled(30)
    with vecdb.open(":memory:") as db:
        docs = db.collection("numbers")
        docs.add(ids=[str(v) for v in values], texts=[f"{v} apple" for v in values])
        spec = {"kind": "first", "model": SCORES, "top": 30}
        hits = docs.search("apple", k=5, mode="text", candidates=30, rerank=spec)
        assert [hit.id for hit in hits] == ["29", "28", "27", "26", "25"]
        report = next(stage for stage in hits.trace if stage.stage == "rerank")
        assert report.detail["decoded_tokens"] == report.detail["calls"] == 2
        failed = docs.search("apple", k=5, mode="text", rerank={"kind": "sliding", "model": "nowhere.gguf"})
        assert "no GGUF file" in next(stage for stage in failed.trace if stage.stage == "rerank").detail["failed"]
        assert len(failed) == 5


def test_every_kind_of_ours_is_in_the_table() -> None:
    assert {"first", "sliding", "full", "graded", "group", "setwise", "mvp", "e2rank", "cross-encoder"} <= set(KINDS)
