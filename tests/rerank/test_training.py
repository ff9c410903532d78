"""Losses against loops and hand counts, rewards against their definitions, and each recipe for a few steps on a small network."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_models
import torch
from hypothesis import given
from hypothesis import strategies as st

from vecdb.errors import InvalidInput
from vecdb.rerank.cross_encoder import CrossEncoder
from vecdb.rerank.models.encoder import TextEncoder
from vecdb.rerank.models.multiview import MultiView
from vecdb.rerank.models.transformers_lm import TransformersModel
from vecdb.rerank.training import __main__ as command
from vecdb.rerank.training import losses, rewards, slates
from vecdb.rerank.training.recipes import Listwise, Outcome, Pairs, Recipe, Schedule, Views, WrittenOrder, train
from vecdb.rerank.training.slates import Slate

LABELS = ["1", "2", "3", "4"]


def slow_ranknet(scores: list[float], ranks: list[int], weighted: bool) -> float:
    total, pairs = 0.0, 0
    for i in range(len(scores)):
        for j in range(len(scores)):
            if 0 < ranks[i] < ranks[j]:
                share = 1.0 / (ranks[i] + ranks[j]) if weighted else 1.0
                total += share * math.log1p(math.exp(scores[j] - scores[i]))
                pairs += 1
    return total / pairs if pairs else 0.0


@given(st.lists(st.tuples(st.floats(-5, 5), st.integers(0, 6)), min_size=1, max_size=8), st.booleans())
def test_ranknet_is_the_loop_over_pairs(slate: list[tuple[float, int]], weighted: bool) -> None:
    scores, ranks = [s for s, _ in slate], [r for _, r in slate]
    found = losses.ranknet(torch.tensor([scores]), torch.tensor([ranks]), weighted=weighted)
    assert float(found) == pytest.approx(slow_ranknet(scores, ranks, weighted), rel=1e-4, abs=1e-6)


def test_the_pair_at_the_top_weighs_thirteen_times_the_one_at_ranks_19_and_20() -> None:
    """39 / 3 at equal logits (FIRST); a loss without weights gives the ablation 1."""
    for weighted, ratio in ((True, 39 / 3), (False, 1.0)):
        sizes = []
        for pair in ((1, 2), (19, 20)):
            scores = torch.zeros(1, 20, requires_grad=True)
            kept = [rank if rank in pair else 0 for rank in range(1, 21)]
            losses.ranknet(scores, torch.tensor([kept]), weighted=weighted).backward()
            assert scores.grad is not None
            sizes.append(float(scores.grad.abs().max()))
        assert sizes[0] / sizes[1] == pytest.approx(ratio, rel=1e-5)


def test_ranks_count_within_their_slate() -> None:
    scores, ranks = torch.randn(2, 5, generator=torch.Generator().manual_seed(0)), torch.tensor([[1, 2, 3, 4, 5]] * 2)
    both = losses.ranknet(scores, ranks, weighted=True)
    alone = [losses.ranknet(scores[i : i + 1], ranks[:1], weighted=True) for i in range(2)]
    assert float(both) == pytest.approx(float(sum(alone) / 2), rel=1e-5)


def test_info_nce_leaves_out_padding_and_other_best_documents() -> None:
    rng = torch.Generator().manual_seed(0)
    queries, documents = torch.randn(2, 4, generator=rng), torch.randn(2, 3, 4, generator=rng)
    ranks = torch.tensor([[2, 1, 1], [1, 2, 0]])
    found = losses.info_nce(queries, documents, ranks, temperature=1.0)
    kept = [[(0, 0), (0, 1), (1, 0), (1, 1)], [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1)]]
    expected = 0.0
    for q, (positive, pool) in enumerate(zip([(0, 1), (1, 0)], kept)):
        logits = torch.stack([queries[q] @ documents[place] for place in pool])
        expected += float(-logits.log_softmax(0)[pool.index(positive)]) / 2
    assert float(found) == pytest.approx(expected, rel=1e-5)


def test_listnet_is_least_for_the_order_it_asks_for() -> None:
    ranks = torch.tensor([[1, 2, 3, 0]])
    ideal = losses.listnet(torch.tensor([[1.0, 0.5, 1 / 3, 9.0]]), ranks)
    other = losses.listnet(torch.tensor([[1 / 3, 0.5, 1.0, 9.0]]), ranks)
    assert ideal < other
    target = torch.softmax(torch.tensor([1.0, 0.5, 1 / 3]) / 0.8, 0)
    assert float(ideal) == pytest.approx(float(-(target * target.log()).sum()), rel=1e-5)


def test_orthogonal_views_cost_nothing_and_equal_ones_most() -> None:
    assert float(losses.orthogonality(3.0 * torch.eye(4, 6))) == pytest.approx(0.0, abs=1e-10)
    assert float(losses.orthogonality(torch.ones(4, 6))) == pytest.approx(4 * 3, rel=1e-5)


def test_a_swap_at_the_top_costs_more_than_one_at_the_end() -> None:
    """With position weights; without them both cost the same (full ranking)."""
    order = [str(i) for i in range(1, 101)]
    marks = [mark for i in order for mark in ("[", i, "]", " >")][:-1]
    weights = losses.position_weights(marks)
    assert weights[:3] == pytest.approx([2.0] * 3)
    assert weights[3] == 1.0
    assert weights[8:11] == pytest.approx([1.5] * 3)
    assert weights[-2] == pytest.approx(1 + 1 / math.log2(101))

    def extra(swapped: int, own: list[float]) -> float:
        return cost(swapped, own) - cost(None, own)

    def cost(swapped: int | None, own: list[float]) -> float:
        vocabulary = {mark: i for i, mark in enumerate(dict.fromkeys(marks))}
        target = list(order)
        if swapped is not None:
            target[swapped : swapped + 2] = target[swapped : swapped + 2][::-1]
        labels = [vocabulary[m] for m in [mark for i in target for mark in ("[", i, "]", " >")][:-1]]
        sure = torch.full((1, len(marks), len(vocabulary)), 0.0)
        sure[0, range(len(marks)), [vocabulary[m] for m in marks]] = 8.0  # the model writes the true order
        return float(losses.weighted_nll(sure, torch.tensor([labels]), torch.tensor([own])))

    assert extra(0, weights) / extra(98, weights) == pytest.approx(
        (weights[1] + weights[5]) / (weights[-2] + weights[-6]), rel=1e-3
    )
    assert extra(0, weights) > 1.5 * extra(98, weights)
    plain = [1.0] * len(marks)
    assert extra(0, plain) == pytest.approx(extra(98, plain), rel=1e-3)


def test_advantages_compare_within_the_group() -> None:
    assert losses.advantages(torch.tensor([1.0, 1.0, 1.0])).tolist() == [0, 0, 0]
    found = losses.advantages(torch.tensor([1.0, 0.0, 0.0, 1.0]))
    assert found.tolist() == pytest.approx([1, -1, -1, 1])


def test_the_policy_loss_makes_rewarded_tokens_likelier_and_is_clipped() -> None:
    new = torch.zeros(2, 3, requires_grad=True)
    mask = torch.tensor([[1.0, 1, 0], [1, 1, 1]])
    losses.grpo(new, new.detach(), new.detach(), mask, torch.tensor([1.0, -1.0]), kl=0.0).backward()
    assert new.grad is not None
    assert (new.grad[0, :2] < 0).all()
    assert new.grad[0, 2] == 0
    assert (new.grad[1] > 0).all()
    far = torch.full((2, 3), 2.0, requires_grad=True)
    losses.grpo(far, torch.zeros(2, 3), far.detach(), mask, torch.tensor([1.0, 1.0]), kl=0.0).backward()
    assert far.grad is not None
    assert not far.grad.any()  # beyond the clip nothing is gained


def reply(scores: dict[str, int]) -> str:
    return f"<reason>x</reason><answer>{json.dumps(scores)}</answer>"


def test_calibrated_scores_earn_most_and_equal_ones_least() -> None:
    grades = [8.0, 5.0, 2.0, 0.0]

    def earned(*given: int) -> float:
        return rewards.group_reward(reply(dict(zip(LABELS, given))), LABELS, grades, k=2)

    equal, extreme, calibrated, permuted = (
        earned(5, 5, 5, 5),
        earned(10, 1, 0, 0),
        earned(8, 5, 2, 0),
        earned(0, 2, 5, 8),
    )
    assert equal < extreme < calibrated
    assert permuted < extreme
    assert calibrated == pytest.approx(1.0 + 0.2 + 0.1)
    assert rewards.group_reward("<reason>x</reason><answer>{}</answer>", LABELS, grades) == -0.1
    assert rewards.group_reward("sure", LABELS, grades) == -0.5


@given(st.lists(st.integers(0, 10), min_size=1, max_size=6), st.lists(st.integers(0, 10), min_size=6, max_size=6))
def test_jensen_shannon_is_between_0_and_1_and_symmetric(one: list[int], other: list[int]) -> None:
    p, q = np.array(one, float), np.array(other[: len(one)], float)
    found = rewards.jensen_shannon(p, q)
    assert -1e-9 <= found <= 1 + 1e-9
    assert found == pytest.approx(rewards.jensen_shannon(q, p), abs=1e-12)
    assert rewards.jensen_shannon(p, p) == pytest.approx(0.0, abs=1e-12)


def test_only_the_exact_answer_is_rewarded() -> None:
    assert rewards.pick_reward("<think>x</think><answer>[2]</answer>", LABELS, 1) == 1
    assert rewards.pick_reward("<think>x</think><answer>[2] it is</answer>", LABELS, 1) == 0
    assert rewards.pick_reward("<think>x</think><answer>[3]</answer>", LABELS, 1) == 0
    assert rewards.pick_reward("[2]", LABELS, 1) == 0


def made_slates(count: int = 6, size: int = 5) -> list[Slate]:
    """The passage that names the query's word is the best."""
    rng = np.random.default_rng(0)
    found = []
    for place in range(count):
        words = rng.permutation(tiny_models.WORDS[:10])[:size].tolist()
        best = place % size
        ranks = tuple(1 if i == best else 2 for i in range(size))
        found.append(
            Slate(words[best], tuple(f"{w} passage" for w in words), ranks, tuple(3.0 * (r == 1) for r in ranks))
        )
    return found


@pytest.fixture(scope="module")
def marked() -> Any:
    return tiny_models.tokenizer(classes=True)


def recipes(words: Any, marked: Any) -> dict[str, Any]:
    def chat() -> TransformersModel:
        return TransformersModel(tiny_models.causal(words), words)

    def views() -> MultiView:
        torch.manual_seed(0)
        return MultiView(tiny_models.encoder(marked), marked, views=2)

    return {
        "first": lambda: WrittenOrder(chat(), letters=True, rank=10.0, noise=5.0),
        "full": lambda: WrittenOrder(chat(), letters=False, weighted=True, noise=0.0),
        "e2rank": lambda: Listwise(TextEncoder(tiny_models.encoder(marked), marked)),
        "mvp": lambda: Views(views()),
        "cross-encoder": lambda: Pairs(tiny_models.classifier(marked), marked),
    }


@pytest.mark.parametrize("name", ["first", "full", "e2rank", "mvp", "cross-encoder"])
def test_every_recipe_learns_and_repeats_itself(name: str, words: Any, marked: Any) -> None:
    made = recipes(words, marked)[name]
    schedule = Schedule(steps=12, batch=3, rate=5e-3, seed=1)
    course = train(made(), made_slates(), schedule)
    assert len(course) == 12
    assert np.mean(course[-3:]) < 0.9 * np.mean(course[:3])
    assert train(made(), made_slates(), schedule)[:4] == course[:4]
    assert train(made(), made_slates(), Schedule(steps=12, batch=3, rate=5e-3, seed=2))[:4] != course[:4]


def test_a_trained_cross_encoder_finds_the_word(marked: Any, tmp_path: Path) -> None:
    recipe = Pairs(tiny_models.classifier(marked), marked)
    train(recipe, made_slates(40), Schedule(steps=60, batch=8, rate=3e-3))
    recipe.save(tmp_path)
    from vecdb.rerank.base import Candidate

    hits = 0
    for slate in made_slates(20):
        listed = [Candidate(str(i), text, 0.0) for i, text in enumerate(slate.passages)]
        hits += CrossEncoder(str(tmp_path)).rerank(slate.query, listed, 1)[0].position == slate.order[0]
    assert hits >= 15


@pytest.mark.parametrize("method", ["setwise", "group"])
def test_outcome_training_runs_and_logs_what_was_earned(method: str, words: Any) -> None:
    recipe = Outcome(
        TransformersModel(tiny_models.causal(words), words), method=method, samples=4, reply_tokens=6, passage_tokens=20
    )
    before = [p.detach().clone() for p in recipe.network.parameters()]
    course = train(recipe, made_slates(2, 3), Schedule(steps=2, batch=1, rate=1e-3))
    assert all(map(math.isfinite, course))
    assert len(recipe.log) == 2
    assert set(recipe.log[0]) == {"reward", "rewarded", "level", "tokens"}
    if method == "setwise":  # a random network earns nothing, and a level group teaches nothing
        assert recipe.log[0]["level"] == 1.0
        assert all(torch.equal(a, b) for a, b in zip(before, recipe.network.parameters()))


def test_outcome_training_makes_what_is_rewarded_likelier(words: Any) -> None:
    """A reward that a random network does earn now and then: the first word is [."""

    def starts_right(text: str, slate: Slate) -> float:
        return float(text.strip().startswith(("[", "]", "1", "2", "3", "red", "river", "blue", "A", "B", "C", "D")))

    chat = TransformersModel(tiny_models.causal(words), words)
    recipe = Outcome(chat, samples=16, reply_tokens=1, kl=0.0, reward=starts_right)
    train(recipe, made_slates(2, 3), Schedule(steps=25, batch=1, rate=1e-2, seed=3))
    earned = [entry["reward"] for entry in recipe.log]
    assert np.mean(earned[-5:]) > np.mean(earned[:5]) + 0.2


def test_slates_come_out_of_judgements_and_back_from_a_file(tmp_path: Path) -> None:
    texts = {str(i): f"text {i}" for i in range(30)}
    qrels = {"a": {"3": 2, "5": 1, "7": 0}, "b": {"99": 1}, "c": {"1": 1}}
    lists = {"a": [str(i) for i in range(30)], "b": ["1"], "c": ["1"]}
    found = slates.judged({"a": "qa", "b": "qb", "c": "qc"}, qrels, lists, texts, size=8)
    assert [slate.query for slate in found] == ["qa"]  # b's document is not there, c has no negative
    (slate,) = found
    assert len(slate.passages) == 8
    places = [int(text.split()[1]) for text in slate.passages]
    assert places == sorted(places)  # as the first stage had them
    assert [slate.passages[i] for i in slate.order[:2]] == ["text 3", "text 5"]
    assert sorted(slate.ranks) == [1, 2, *[3] * 6]
    slates.write(tmp_path / "s.jsonl", found)
    assert slates.read(tmp_path / "s.jsonl") == found
    (tmp_path / "bad.jsonl").write_text('{"query": "x"}\n')
    with pytest.raises(InvalidInput, match="line 1"):
        slates.read(tmp_path / "bad.jsonl")
    with pytest.raises(InvalidInput, match="rank"):
        Slate("q", ("a",), ())
    with pytest.raises(InvalidInput, match="no slates"):
        train(Pairs(None, None), [], Schedule())


def test_the_command_trains_from_a_folder_into_a_folder(marked: Any, tmp_path: Path, capsys: Any) -> None:
    tiny_models.classifier(marked).save_pretrained(tmp_path / "start")
    marked.save_pretrained(tmp_path / "start")
    slates.write(tmp_path / "s.jsonl", made_slates())
    lines = []
    for out in ("one", "two"):
        arguments = ["cross-encoder", "--slates", str(tmp_path / "s.jsonl"), "--model", str(tmp_path / "start")]
        assert command.main([*arguments, "--out", str(tmp_path / out), "--steps", "3", "--batch", "2"]) == 0
        lines.append(json.loads(capsys.readouterr().out))
    assert lines[0]["steps"] == 3
    weights = [(tmp_path / out / "model.safetensors").read_bytes() for out in ("one", "two")]
    assert weights[0] == weights[1]


def test_training_ends_with_its_time_and_leaves_frozen_weights_alone(marked: Any) -> None:
    recipe = Pairs(tiny_models.classifier(marked), marked)
    before = {name: p.detach().clone() for name, p in recipe.network.named_parameters()}
    schedule = Schedule(steps=100_000, batch=2, rate=1e-3, seconds=0.5, frozen="word_embeddings")
    course = train(recipe, made_slates(), schedule)
    assert 1 <= len(course) < 100_000
    after = dict(recipe.network.named_parameters())
    frozen = {name for name in before if "word_embeddings" in name}
    assert frozen
    assert all(torch.equal(before[name], after[name]) for name in frozen)
    assert any(not torch.equal(before[name], after[name]) for name in before if name not in frozen)


def test_the_rate_falls_to_nothing_by_the_end_of_steps_or_of_time() -> None:
    schedule = Schedule(steps=100, warm_up=0.1)
    assert [schedule.share(step) for step in (0, 9, 10, 55)] == pytest.approx([0.1, 1.0, 1.0, 0.5])
    hurried = Schedule(steps=100, warm_up=0.1, seconds=10)
    assert hurried.share(20, elapsed=5.5) == pytest.approx(0.5)  # half of the time is gone, and more than of the steps
    assert hurried.share(20, elapsed=10) == 0.0


def test_batches_come_prepared_in_their_order() -> None:
    from itertools import islice

    from vecdb.rerank.training.recipes import _ahead

    assert list(islice(_ahead(lambda batch: batch[0], ([i] for i in iter(range(50)))), 20)) == list(range(20))


def test_a_listwise_query_shows_passages_as_the_first_stage_had_them() -> None:
    from itertools import islice

    from vecdb.rerank.training.recipes import Listwise, Pairs, _batches

    given = made_slates(2, 6)
    schedule = Schedule(steps=1, batch=2, rate=1e-3)
    for recipe in (Listwise, Pairs):
        drawn = [one for batch in islice(_batches(given, schedule, shuffles=recipe.shuffles), 8) for one in batch]
        assert {one.query for one in drawn} == {one.query for one in given}
        assert all(one in given for one in drawn) == (recipe is Listwise)


def test_privileged_slates_are_ranked_by_the_whole_document() -> None:
    texts = {name: f"text {name}" for name in "abcd"}
    vectors = {
        "a": np.array([1.0, 0.0]),
        "b": np.array([0.0, 1.0]),
        "c": np.array([0.9, 0.1]),
        "d": np.array([0.5, 0.5]),
    }
    (slate,) = slates.privileged({"a": "part"}, {"a": ["a", "b", "c", "d"]}, texts, vectors, size=8)
    assert slate.query == "part"
    assert [slate.passages[i] for i in slate.order] == ["text c", "text d", "text b"]
    assert slates.privileged({"a": "part"}, {"a": ["a", "b"]}, texts, vectors) == []


def test_a_trained_listwise_encoder_says_how_it_is_pooled(marked: Any, tmp_path: Path) -> None:
    from vecdb.rerank.models.loading import load_encoder

    recipe = Listwise(TextEncoder(tiny_models.encoder(marked), marked, pooling="query"))
    course = train(recipe, made_slates(), Schedule(steps=12, batch=3, rate=5e-3, seed=1))
    assert np.mean(course[-3:]) < 0.9 * np.mean(course[:3])
    recipe.save(tmp_path)
    again = TextEncoder(*load_encoder(str(tmp_path)))
    assert again.pooling == "query"
    np.testing.assert_allclose(again.encode(["red river"]), recipe.encoder.encode(["red river"]), atol=1e-6)


def test_recipes_are_recipes() -> None:
    assert all(issubclass(kind, Recipe) for kind in (WrittenOrder, Listwise, Views, Pairs, Outcome))
