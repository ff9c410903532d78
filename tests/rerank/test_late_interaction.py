"""MaxSim as a stage: order, pruning, early exit, and the twin in PyTorch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import naive_rerank
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import vecdb
from vecdb.rerank.base import Candidate, Context, Limit, Reranked, Task
from vecdb.rerank.late_interaction import MaxSim
from vecdb.rerank.tokens import Tokens, encode_tokens, from_bytes, joined, to_bytes


class Signs:
    """A text of numbers as one token a number: a vector (cos, sin) of it."""

    name, dimension = "signs", 2

    def encode_documents(self, texts: Sequence[str]) -> list[Any]:
        return [self._of(text) for text in texts]

    encode_queries = encode_documents

    def _of(self, text: str) -> Any:
        angles = np.array([float(word) for word in text.split()])
        return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


def task_of(first: Sequence[float], second: Sequence[float], k: int) -> Task:
    """Candidates whose MaxSim with the query "0" is the cosine of their one token."""
    encoder = Signs()
    vectors = encoder.encode_documents([str(float(np.arccos(value))) for value in second])
    return Task("0", [Candidate(str(i), None, s, tokens=Tokens(v)) for i, (s, v) in enumerate(zip(first, vectors))], k)


def run(reranker: MaxSim, task: Task, limit: Limit | None = None) -> Reranked:
    return reranker.rerank_batch([task], Context(limit or Limit(), None, Signs()))[0]


scores = st.lists(st.floats(0.0078125, 1, width=16), min_size=1, max_size=30)


@settings(max_examples=60, deadline=None)
@given(
    first=scores,
    seed=st.integers(0, 99),
    k=st.integers(1, 8),
    alpha=st.one_of(st.none(), st.sampled_from([0.0, 0.05, 0.3, 1.0])),
    beta=st.one_of(st.none(), st.integers(1, 5)),
)
def test_pruning_and_early_exit_do_what_the_paper_tells(
    first: list[float], seed: int, k: int, alpha: float | None, beta: int | None
) -> None:
    first = sorted(first, reverse=True)
    second = np.random.default_rng(seed).permutation(len(first)) / len(first)  # no ties, so that there is one answer
    order, scored = naive_rerank.pruned_and_stopped(first, second.tolist(), k, alpha, beta)
    answer = run(MaxSim(alpha=alpha, beta=beta), task_of(first, second.tolist(), k))
    assert [r.position for r in answer] == order
    assert answer.counters["scored"] == scored
    assert [r.score for r in answer] == pytest.approx([second[place] for place in order], abs=1e-5)


def test_without_them_it_is_a_full_rerank_and_a_loose_exit_changes_nothing() -> None:
    second = [0.1, 0.9, 0.5, 0.3]
    task = task_of([0.9, 0.8, 0.7, 0.6], second, 2)
    whole = run(MaxSim(), task)
    assert [r.position for r in whole] == [1, 2]
    assert run(MaxSim(alpha=1.0, beta=len(second)), task).ranked == whole.ranked


def test_ties_at_the_threshold_stay() -> None:
    task = task_of([1.0, 0.5, 0.5, 0.4], [0.1, 0.2, 0.9, 0.95], 2)
    answer = run(MaxSim(alpha=0.0), task)
    assert [r.position for r in answer] == [2, 1]
    assert answer.counters["pruned"] == 1


def test_scores_that_may_be_negative_are_not_pruned() -> None:
    answer = run(MaxSim(alpha=0.1), task_of([1.0, 0.5, 0.0], [0.1, 0.2, 0.9], 1))
    assert answer[0].position == 2
    assert "not_pruned" in answer.counters


def test_candidates_without_tokens_follow_the_others() -> None:
    given = [
        Candidate("none", None, 3.0),
        Candidate("text", "0.1", 2.0),
        Candidate("empty", "0", 1.5, tokens=Tokens(np.zeros((0, 2), np.float32))),
        Candidate("best", "0", 1.0, tokens=encode_tokens(Signs()._of("0"), "int8")),
    ]
    task = Task("0", given, 4)
    assert [r.position for r in run(MaxSim(), task)] == [3, 1, 0, 2]
    answer = run(MaxSim(encode=False), task)
    assert [r.position for r in answer] == [3, 0, 1, 2]
    assert answer.counters["scored"] == 1
    nothing = run(MaxSim(encode=False), Task("0", given[:2], 2))
    assert (nothing.kept, [r.position for r in nothing]) == ("no candidate has token vectors", [0, 1])
    assert run(MaxSim(), Task("", given, 2)).kept == "the query has no tokens"


def test_a_limit_stops_it() -> None:
    limit = Limit()
    limit.cancel()
    with pytest.raises(vecdb.RerankStopped, match="cancelled"):
        run(MaxSim(), task_of([1.0], [0.5], 1), limit)


@pytest.mark.parametrize(
    "wrong",
    [{"alpha": -0.1}, {"alpha": "x"}, {"beta": 0}, {"threads": 0}, {"device": 3}],
)
def test_wrong_options_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(vecdb.InvalidQuery, match="maxsim|beta"):
        MaxSim(**wrong)


def test_without_an_encoder_it_says_what_to_do() -> None:
    with pytest.raises(vecdb.ModelUnavailable, match="tokens='default'"):
        MaxSim().rerank("q", [Candidate("a", "b", 1.0)], 1)


def test_the_twin_in_pytorch_agrees() -> None:
    pytest.importorskip("torch")
    from vecdb.index.maxsim import maxsim
    from vecdb.rerank.torch_maxsim import maxsim as in_torch

    rng = np.random.default_rng(0)
    lengths = [3, 0, 17, 1]
    parts = [Tokens(rng.standard_normal((n, 8)).astype(np.float32) - 1.0) for n in lengths]
    together, ends = joined(parts)
    query = rng.standard_normal((5, 8)).astype(np.float32)
    expected = naive_rerank.maxsim(query, [part.codes for part in parts])
    np.testing.assert_allclose(in_torch(query, together, ends), expected, atol=1e-4)
    np.testing.assert_allclose(maxsim(query, together.codes, ends), expected, atol=1e-4)
    with pytest.raises(vecdb.ModelUnavailable, match="compute on"):
        in_torch(query, together, ends, device="klingon")
    task = task_of([0.9, 0.8], [0.1, 0.9], 2)
    assert [r.position for r in run(MaxSim(device="cpu"), task)] == [1, 0]


@given(tokens=st.integers(0, 5), dimension=st.integers(1, 9), codec=st.sampled_from(["float32", "float16", "int8"]))
def test_tokens_come_back_from_their_bytes(tokens: int, dimension: int, codec: Any) -> None:
    vectors = np.random.default_rng(tokens).standard_normal((tokens, dimension)).astype(np.float32)
    coded = encode_tokens(vectors, codec)
    back = from_bytes(to_bytes(coded), dimension, codec)
    assert back.dense().tolist() == coded.dense().tolist()
    bound = {"float32": 0.0, "float16": 2.0**-10, "int8": 0.5 / 127}[codec]  # half a step of the largest number
    assert np.abs(back.dense() - vectors).max(initial=0.0) <= bound * np.abs(vectors).max(initial=0.0) + 1e-7


def test_bytes_and_vectors_that_are_none_are_refused() -> None:
    with pytest.raises(vecdb.InvalidVector, match="bytes"):
        from_bytes(b"123", 2, "int8")
    for wrong in (np.full((1, 2), np.nan, np.float32), np.zeros(3, np.float32)):
        with pytest.raises(vecdb.InvalidVector, match="finite"):
            encode_tokens(wrong, "int8")
    with pytest.raises(vecdb.InvalidVector, match="float16"):
        encode_tokens(np.full((1, 2), 1e9, np.float32), "float16")
    with pytest.raises(vecdb.InvalidVector, match="codecs"):
        joined([Tokens(np.zeros((1, 2), np.float32)), encode_tokens(np.zeros((1, 2), np.float32), "int8")])


# -- token vectors as a field of a collection


def test_tokens_are_stored_with_texts_and_follow_them(tmp_path: Any) -> None:
    class Counting(Signs):
        texts = 0

        def encode_documents(self, texts: Sequence[str]) -> list[Any]:
            Counting.texts += len(texts)
            return super().encode_documents(texts)

    path = tmp_path / "t.vecdb"
    with vecdb.open(path, background=False) as db:
        docs = db.collection("docs", dimension=2, tokens=Counting())
        docs.add(ids=["a", "b", "c"], texts=["0 1", "3", "3"], vectors=[[1, 0], [0, 1], [1, 1]])
        assert Counting.texts == 2  # equal texts once
        assert docs.search("0 0.1", mode="vector", vector=[1, 1], rerank="maxsim", k=3).ids[0] == "a"
        docs.update(ids=["a"], metadata=[{"x": 1}])
        docs.update(ids=["a"], vectors=[[0, 1]])  # a new row, the same text
        docs.upsert([{"id": "b", "text": "3", "vector": [1, 0]}])
        assert Counting.texts == 2
        docs.upsert([{"id": "b", "text": "0", "vector": [1, 0]}])
        assert Counting.texts == 3
        hits = docs.search("0", vector=[1, 1], mode="vector", rerank="maxsim", k=3)
        assert (hits.ids[2], hits.trace[-1].detail["scored"]) == ("c", 3)
        assert "encoded" not in hits.trace[-1].detail
        docs.delete(["b"])
        assert docs.check() == []
        with docs._store.read() as sql:
            assert sql.execute("SELECT count(*) FROM tokens_1").get == 2
    with vecdb.open(path, background=False) as db:
        docs = db.collection("docs")
        assert docs.config.tokens == vecdb.TokenConfig("signs", "int8", 2)
        kept = docs.search(
            "0", vector=[1, 1], mode="vector", rerank="maxsim"
        )  # the encoder was an object of another program
        assert "ModelUnavailable" in kept.trace[-1].detail["failed"]
        with pytest.raises(vecdb.ModelUnavailable, match="tokens="):
            docs.add(ids=["z"], texts=["1"], vectors=[[1, 0]])
        docs = db.collection("docs", tokens=Signs())
        assert "failed" not in docs.search("0", vector=[1, 1], mode="vector", rerank="maxsim").trace[-1].detail
        db.drop("docs")


def test_tokens_of_another_encoder_are_refused() -> None:
    class Others(Signs):
        name = "others"

    with vecdb.open(":memory:", background=False) as db:
        db.collection("with", dimension=2, tokens=Signs())
        db.collection("without", dimension=2)
        for name in ("with", "without"):
            with pytest.raises(vecdb.ModelMismatch, match="others"):
                db.collection(name, tokens=Others())
        for wrong in (7, Signs, "klingon", {"encoder": "klingon"}, {"x": 1}, {"codec": "int4"}):
            with pytest.raises(vecdb.InvalidInput):
                db.collection("new", tokens=wrong)
        assert "new" not in db


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A folder as ColBERT checkpoints are: an encoder, and the head's `linear.weight` in the same file."""
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    import tiny_models
    from safetensors.numpy import load_file, save_file

    folder = tmp_path_factory.mktemp("colbert") / "checkpoint"
    words = tiny_models.tokenizer(classes=True)
    network = tiny_models.encoder(words)
    network.save_pretrained(folder)
    words.save_pretrained(folder)
    file = folder / "model.safetensors"
    head = np.random.default_rng(0).standard_normal((8, network.config.hidden_size)).astype(np.float32)
    save_file({**load_file(file), "linear.weight": head}, file, metadata={"format": "pt"})
    return folder, network, words, head


def test_a_colbert_checkpoint_gives_its_own_heads_vectors(checkpoint: Any) -> None:
    import torch

    from vecdb.embedding.late import load_token_encoder

    folder, network, words, head = checkpoint
    encoder = load_token_encoder(f"colbert:{folder}")
    assert (encoder.name, encoder.dimension) == (f"colbert:{folder}-own", 8)
    texts = ["red river", "", "blue apple river plum"]
    for text, vectors in zip(texts, encoder.encode_documents(texts)):
        ids = words(text)["input_ids"]
        with torch.inference_mode():
            states = network(input_ids=torch.tensor([ids])).last_hidden_state[0].numpy()
        kept = states[[i for i, token in enumerate(ids) if token not in words.all_special_ids]]
        wanted = kept @ head.T
        wanted = wanted / np.linalg.norm(wanted, axis=1, keepdims=True)
        assert vectors.shape == wanted.shape
        np.testing.assert_allclose(vectors, wanted, atol=1e-5)


def test_a_collection_keeps_the_tokens_of_a_colbert_model(checkpoint: Any, tmp_path: Any) -> None:
    folder, *_ = checkpoint
    texts = ["red river", "blue apple", "plum", "river plum"]
    with vecdb.open(tmp_path / "db.vecdb", background=False) as db:
        docs = db.collection("docs", tokens=f"colbert:{folder}")
        docs.add(ids=list("abcd"), texts=texts)
        hits = docs.search("blue apple", k=4, mode="text", rerank="maxsim")
        assert hits[0].id == "b"
        assert hits[0].score == pytest.approx(2.0, abs=0.05)  # each of two tokens finds itself, up to a byte's rounding
    with vecdb.open(tmp_path / "db.vecdb", background=False) as db:
        again = db.collection("docs", tokens=f"colbert:{folder}").search(
            "blue apple", k=4, mode="text", rerank="maxsim"
        )
        assert again.ids == hits.ids


def test_a_model_that_is_not_there_is_an_error_that_says_so(tmp_path: Any) -> None:
    pytest.importorskip("transformers")
    from vecdb.embedding.late import load_token_encoder

    with pytest.raises(vecdb.ModelUnavailable, match="give a folder"):
        load_token_encoder(f"colbert:{tmp_path / 'absent'}")
