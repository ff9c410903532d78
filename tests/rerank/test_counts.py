"""What the counters say is what the networks did: hooks on the networks count, not the code that is tested."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")
import tiny_models

from vecdb.rerank.base import Candidate
from vecdb.rerank.cross_encoder import CrossEncoder
from vecdb.rerank.e2rank import E2Rank
from vecdb.rerank.listwise.first import First
from vecdb.rerank.listwise.written import Sliding
from vecdb.rerank.models.encoder import TextEncoder
from vecdb.rerank.models.multiview import MultiView
from vecdb.rerank.models.transformers_lm import TransformersModel
from vecdb.rerank.mvp import Mvp

RNG = np.random.default_rng(7)
TEXTS = [" ".join(RNG.choice(tiny_models.WORDS, size=RNG.integers(1, 12))) for _ in range(30)]
GIVEN = [Candidate(str(i), text, -float(i), embedding=RNG.standard_normal(32)) for i, text in enumerate(TEXTS)]


@dataclass
class Work:
    calls: int = 0
    rows: int = 0  # of all calls: texts that went through the network
    tokens: int = 0  # of those, without padding


@contextmanager
def watched(network: Any) -> Iterator[Work]:
    """Counts each forward pass of the network."""
    work = Work()

    def seen(module: Any, arguments: Any, given: dict[str, Any]) -> None:
        read = given["input_ids"] if "input_ids" in given else given["inputs_embeds"]
        mask = given.get("attention_mask")  # none where nothing is padded
        work.calls += 1
        work.rows += len(read)
        work.tokens += int(read.shape[0] * read.shape[1] if mask is None else mask.sum())

    hook = network.register_forward_pre_hook(seen, with_kwargs=True)
    try:
        yield work
    finally:
        hook.remove()


@pytest.fixture(scope="module")
def marked() -> Any:
    return tiny_models.tokenizer(classes=True)


def test_first_runs_its_model_once_a_window(causal: TransformersModel) -> None:
    with watched(causal.model) as work:
        counters = First(causal, window=10, step=5).rerank("apple", GIVEN, 10).counters
    assert work.rows == counters["calls"] == counters["forward_passes"] == counters["decoded_tokens"] == 5
    assert work.tokens == counters["prompt_tokens"]


def test_a_written_order_runs_its_model_once_a_token(causal: TransformersModel) -> None:
    with watched(causal.model) as work:
        counters = Sliding(causal, window=10, step=5, letters=True).rerank("apple", GIVEN, 10).counters
    assert counters["calls"] == 5
    assert work.rows == work.calls == counters["forward_passes"] == counters["decoded_tokens"] > 25


@pytest.mark.parametrize("pooling", ["mean", "query"])
def test_e2rank_runs_its_model_once_however_many_candidates_there_are(marked: Any, pooling: Any) -> None:
    encoder = TextEncoder(tiny_models.encoder(marked), marked, pooling=pooling)
    assert encoder.model.config.hidden_size == len(GIVEN[0].embedding)
    with watched(encoder.model) as work:
        answer = E2Rank(encoder, feedback=5).rerank("red river", GIVEN, 30)
    assert work.calls == work.rows == answer.counters["forward_passes"] == 1
    assert work.tokens == answer.counters["prompt_tokens"]
    assert len(answer) == 30


def test_a_cross_encoder_reads_every_candidate_once(marked: Any) -> None:
    model = tiny_models.classifier(marked)
    with watched(model) as work:
        counters = CrossEncoder((model, marked), batch=4).rerank("red river", GIVEN, 3).counters
    assert work.rows == counters["forward_passes"] == counters["documents"] == 30
    assert work.calls == 8  # batches of 4
    assert work.tokens == counters["prompt_tokens"]


def test_views_read_every_passage_once_and_make_their_anchors_in_one_step(marked: Any) -> None:
    views = MultiView(tiny_models.encoder(marked), marked, views=4).eval()
    steps = []
    hook = views.decoder.register_forward_pre_hook(lambda module, arguments: steps.append(arguments[0].shape))
    with watched(views.encoder) as work:
        counters = Mvp(views, batch=4).rerank("red river", GIVEN, 3).counters
    hook.remove()
    assert work.rows == counters["documents"] == 30
    assert work.tokens == counters["prompt_tokens"]
    assert [shape[0] for shape in steps] == [4]  # all views at once, each over all passages
    assert counters["forward_passes"] == 30 + len(steps)
