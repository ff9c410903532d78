"""Language models as rerankers see them: batches give what single prompts give, tokens are counted, labels are one token."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any, ClassVar

import numpy as np
import pytest
import tiny_models
import torch

from vecdb.errors import InvalidInput, InvalidQuery, MissingExtra, ModelUnavailable
from vecdb.language_model import OpenAiModel, Prompt
from vecdb.rerank.models import loading
from vecdb.rerank.models.base import Usage
from vecdb.rerank.models.loading import load_chat
from vecdb.rerank.models.openai import OpenAiChat
from vecdb.rerank.models.transformers_lm import TransformersModel

PROMPTS = [
    Prompt("order the passage", f"{'red apple ' * size} query [ A ] stone [ B ] plum") for size in (1, 9, 4, 30, 2)
]
LABELS = [list("ABCDE")[: 2 + i % 4] for i in range(5)]


@pytest.fixture(params=["causal", "seq2seq"])
def model(request: Any) -> TransformersModel:
    found: TransformersModel = request.getfixturevalue(request.param)
    return found


def test_a_batch_tells_what_single_prompts_tell(model: TransformersModel) -> None:
    together = model.first_token(PROMPTS, LABELS, "[")
    for prompt, labels, told in zip(PROMPTS, LABELS, together):
        alone = model.first_token([prompt], [labels], "[")[0]
        np.testing.assert_allclose(told.scores, alone.scores, atol=2e-5)  # float32, other padding
        assert told.scores.shape == (len(labels),)
        assert told.usage == alone.usage
    written = model.generate(PROMPTS, limit=7)
    assert written == [model.generate([prompt], limit=7)[0] for prompt in PROMPTS]


def test_scores_are_the_log_probabilities_of_a_plain_forward_pass(words: Any) -> None:
    network = tiny_models.causal(words)
    model = TransformersModel(network, words)
    told = model.first_token([PROMPTS[0]], [["A", "B", "C"]], "[")[0]
    ids = words(f"{PROMPTS[0]}\n[")["input_ids"]
    with torch.inference_mode():
        expected = network(torch.tensor([ids])).logits[0, -1].log_softmax(-1)
    np.testing.assert_allclose(told.scores, expected[words.convert_tokens_to_ids(["A", "B", "C"])], atol=1e-5)
    assert told.usage == Usage(calls=1, forward_passes=1, prompt_tokens=len(ids), decoded_tokens=1)


def test_the_first_token_written_is_the_likeliest(model: TransformersModel) -> None:
    every = [word for word in model.tokenizer.get_vocab() if word.isupper() and len(word) == 1]
    told = model.first_token(PROMPTS[:1], [every], "[")[0]
    written = model.generate(PROMPTS[:1], opening="[", limit=1)[0]
    best = every[int(told.scores.argmax())]
    if written.text in every:
        assert written.text == best
    assert written.usage.decoded_tokens == written.usage.forward_passes == 1


def test_replies_end_where_stop_says_and_their_tokens_are_counted(model: TransformersModel) -> None:
    full = model.generate(PROMPTS, limit=12)
    short = model.generate(PROMPTS, limit=12, stop=lambda text: len(text.split()) >= 3)
    for long, brief in zip(full, short):
        assert long.text.startswith(brief.text)
        assert brief.decoded_tokens <= long.decoded_tokens <= 12
    assert min(reply.decoded_tokens for reply in short) < 12


def test_a_label_that_merges_with_its_bracket_is_told_by_the_merged_token(words: Any) -> None:
    class Merging:
        """[A and [B are tokens of their own, as in some vocabularies."""

        pad_token_id, eos_token_id, chat_template = 0, 3, None

        def __call__(self, text: Any, **_: Any) -> Any:
            ids = {"[A": [7], "[B": [8], "[C": [9, 9], "[": [5]}
            return {"input_ids": ids.get(text, [6])}

    model = TransformersModel(tiny_models.causal(words), Merging())
    assert model.label_ids("[", ["A", "B"]) == ([], [7, 8])
    assert model.label_ids("[", ["B"]) == ([], [8])
    with pytest.raises(InvalidInput, match="one token of its own"):
        model.label_ids("[", ["A", "C"])


def test_a_chat_template_is_used_and_one_without_a_system_role_gets_one_turn() -> None:
    words = tiny_models.tokenizer()
    turns = "{% for m in messages %}[ {{ m.role }} ] {{ m.content }} {% endfor %}{% if add_generation_prompt %}answer{% endif %}"
    model = TransformersModel(tiny_models.causal(words), words)
    words.chat_template = turns
    assert model._chat(Prompt("red", "plum")) == "[ system ] red [ user ] plum answer"
    assert words.decode(model.prompt_ids(Prompt("red", "plum"), [7])[-4:]).split()[:2] == ["]", "plum"]
    words.chat_template = "{% if messages[0].role == 'system' %}{{ raise_exception('no') }}{% endif %}" + turns
    assert model._chat(Prompt("red", "plum")) == "[ user ] red\n\nplum answer"
    words.chat_template = "{{ raise_exception('never') }}"
    assert model._chat(Prompt("red", "plum")) is None
    assert len(model.first_token(PROMPTS[:1], LABELS[:1], "[")) == 1


def test_texts_are_cut_by_their_tokens(causal: TransformersModel) -> None:
    assert causal.lengths(["red apple", "", "[A]"]) == [2, 0, 3]
    assert causal.cut("red green blue apple", 2).split() == ["red", "green"]
    assert causal.lengths([]) == []


def test_what_is_no_model_is_refused_with_what_would_be() -> None:
    with pytest.raises(InvalidQuery, match=r"openai:MODEL@URL"):
        load_chat("openai:")
    with pytest.raises(InvalidQuery, match="first_token"):
        load_chat(3)
    with pytest.raises(ModelUnavailable, match="no GGUF file"):
        load_chat("nowhere.gguf")
    with pytest.raises(ModelUnavailable, match="local folder"):
        load_chat("/nowhere/at/all")


def test_a_missing_package_is_named_with_the_install_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "transformers", None)
    with pytest.raises(MissingExtra, match=r"pip install 'vecdb\[rerank\]'"):
        loading.needed("transformers", "a reranking model")


def test_a_changed_weight_file_is_not_loaded(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "weights_for_test"
    package.mkdir()
    (package / "w.bin").write_bytes(b"abc")
    monkeypatch.syspath_prepend(str(tmp_path))
    good = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert loading.packaged_file("weights_for_test", "w.bin", good, "weights==1").read_bytes() == b"abc"
    (package / "w.bin").write_bytes(b"abd")
    with pytest.raises(ModelUnavailable, match="--no-deps weights==1"):
        loading.packaged_file("weights_for_test", "w.bin", good, "weights==1")
    with pytest.raises(ModelUnavailable, match="not installed"):
        loading.packaged_file("no_such_package_here", "w.bin", good, "weights==1")


class _Service(BaseHTTPRequestHandler):
    answers: ClassVar[dict[str, Any]]
    bodies: ClassVar[list[Any]]

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.bodies.append(body)
        content = json.dumps(self.answers["probabilities" if body.get("logprobs") else "text"]).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def service() -> Iterator[tuple[OpenAiChat, type[_Service]]]:
    handler = type("Handler", (_Service,), {"answers": {}, "bodies": []})
    server = HTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield OpenAiChat(OpenAiModel("tiny", f"http://127.0.0.1:{server.server_port}/v1")), handler
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_service_tells_labels_by_their_log_probabilities(service: Any) -> None:
    chat, handler = service
    told = [{"token": "[B", "logprob": -0.5}, {"token": " A", "logprob": -1.0}, {"token": "x", "logprob": -2.0}]
    handler.answers["probabilities"] = {
        "choices": [{"logprobs": {"content": [{"top_logprobs": told}]}}],
        "usage": {"prompt_tokens": 7},
    }
    first = chat.first_token([PROMPTS[0]], [["A", "B", "C"]], "[")[0]
    assert first.scores.tolist() == [-1.0, -0.5, -np.inf]
    assert first.usage == Usage(calls=1, forward_passes=1, prompt_tokens=7, decoded_tokens=1)
    assert handler.bodies[0]["messages"][-1] == {"role": "assistant", "content": "["}
    assert handler.bodies[0]["max_tokens"] == 1
    with pytest.raises(ModelUnavailable, match="none of the labels"):
        chat.first_token([PROMPTS[0]], [["Q", "R"]], "[")
    handler.answers["probabilities"] = {"choices": [{"message": {"content": "A"}}]}
    with pytest.raises(ModelUnavailable, match="tells no top_logprobs"):
        chat.first_token([PROMPTS[0]], [["A", "B"]], "[")


def test_a_service_writes_and_its_tokens_are_counted(service: Any) -> None:
    chat, handler = service
    handler.answers["text"] = {
        "choices": [{"message": {"content": "[B] > [A]"}}],
        "usage": {"prompt_tokens": 9, "completion_tokens": 6},
    }
    reply = chat.generate(PROMPTS, opening="[", limit=20)
    assert [r.text for r in reply] == ["B] > [A]"] * len(PROMPTS)
    assert reply[0].usage == Usage(calls=1, forward_passes=6, prompt_tokens=9, decoded_tokens=6)
    handler.answers["text"] = {"choices": []}
    with pytest.raises(ModelUnavailable, match="no chat completion"):
        chat.generate(PROMPTS[:1], limit=5)
