"""GRank: its parts against slow twins, and what it learns of histories whose rule is known."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from vecdb.errors import InvalidInput
from vecdb.index.grank import GRank, GRankConfig, Histories, Network, Recipe, learn
from vecdb.index.grank.histories import PADDING, padded, windows
from vecdb.index.grank.network import FAR, ages, shapes

torch = pytest.importorskip("torch")

from vecdb.index.grank.forward import Forward, initial, main_directions  # noqa: E402
from vecdb.index.grank.learning import step_losses  # noqa: E402
from vecdb.index.grank.losses import Negatives, info_nce  # noqa: E402

TINY = GRankConfig(dimension=8, layers=2, heads=2, short=5, long=9, hidden=2)
ITEMS = 20


@pytest.fixture(scope="module")
def arrays() -> dict[str, np.ndarray]:
    """A model of random weights: every array is other than where training begins, so that none can be left out unnoticed."""
    rng = np.random.default_rng(5)
    made = initial(shapes(TINY, ITEMS), 3)
    moved = {name: array + 0.3 * rng.standard_normal(array.shape).astype(np.float32) for name, array in made.items()}
    moved["item"][PADDING] = 0.0
    return moved


@pytest.fixture(scope="module")
def forward(arrays: dict[str, np.ndarray]) -> Forward:
    return Forward(TINY, {name: torch.from_numpy(array) for name, array in arrays.items()})


# -- histories


def test_every_item_is_a_target_once_with_what_came_before_it() -> None:
    rng = np.random.default_rng(0)
    given = [rng.integers(1, 100, size=n).tolist() for n in (1, 2, 5, 6, 23, 40)]
    histories = Histories.of([*given, []])
    for seed in range(3):
        made = windows(histories, TINY.short, TINY.long, np.random.default_rng(seed))
        told = []
        for before, targets in zip(made.before, made.targets):
            for column, target in enumerate(targets):
                if target != PADDING:
                    last = TINY.long + column
                    taken = before[: last + 1]
                    told.append((tuple(taken[taken != PADDING].tolist()), int(target)))
        seen = TINY.long + TINY.short
        expected = [(history[:i], item) for history in given for i, item in enumerate(history)]
        assert len(told) == len(expected)
        # What does not fit into the window any more is cut off at its old end.
        for before, item in expected:
            assert any(
                t == item and len(b) >= min(len(before), TINY.long) and b == tuple(before[len(before) - len(b) :])
                for b, t in told
            ), (before, item)
        assert max(len(b) for b, _ in told) <= seen


def test_the_last_items_are_held_out_of_histories_that_have_two() -> None:
    kept, last = Histories.of([[1, 2, 3], [4], [], [5, 6]]).without_last()
    assert [kept.user(n).tolist() for n in range(4)] == [[1, 2], [4], [], [5]]
    assert last.tolist() == [3, PADDING, PADDING, 6]


def test_padding_stands_before_the_latest_items() -> None:
    assert padded(np.array([1, 2, 3]), 5).tolist() == [0, 0, 1, 2, 3]
    assert padded(np.array([1, 2, 3]), 2).tolist() == [2, 3]
    assert padded(np.empty(0, np.int64), 2).tolist() == [0, 0]


# -- the forward passes


def _attended(weights: dict[str, np.ndarray], tokens: np.ndarray, places: list[int], seen: np.ndarray) -> np.ndarray:
    """All layers over tokens (L, D) that stand at `places`, with the whole masked square of attention, in loops and float64."""

    def normed(name: str, x: np.ndarray) -> np.ndarray:
        return (x - x.mean()) / np.sqrt(x.var() + 1e-5) * w[f"{name}.g"] + w[f"{name}.b"]

    w = {name: array.astype(np.float64) for name, array in weights.items()}
    tokens, width = tokens.astype(np.float64), TINY.dimension // TINY.heads
    for layer in range(TINY.layers):
        name = f"layer{layer}"
        three = np.stack([normed(f"{name}.norm1", x) @ w[f"{name}.qkv"] for x in tokens])
        after = np.empty_like(tokens)
        for i in range(len(tokens)):
            mixed = []
            for head in range(TINY.heads):
                q, k, v = (three[:, part * TINY.dimension + head * width :][:, :width] for part in range(3))
                logits = np.array(
                    [
                        q[i] @ k[j] / np.sqrt(width) + w[f"{name}.distance"][head, places[i] - places[j]]
                        if seen[i, j]
                        else FAR
                        for j in range(len(tokens))
                    ]
                )
                raised = np.exp(logits - logits.max())
                mixed.append(raised @ v / raised.sum())
            x = tokens[i] + np.concatenate(mixed) @ w[f"{name}.out"]
            middle = np.maximum(normed(f"{name}.norm2", x) @ w[f"{name}.w1"] + w[f"{name}.b1"], 0)
            after[i] = x + middle @ w[f"{name}.w2"] + w[f"{name}.b2"]
        tokens = after
    return tokens


def test_decomposed_attention_is_the_masked_square(arrays: dict[str, np.ndarray], forward: Forward) -> None:
    """History, then a token behind each of some columns: nobody sees those tokens but themselves."""
    rng = np.random.default_rng(1)
    items = np.array([[0, 0, 4, 7, 9], [3, 1, 2, 6, 6], [0, 0, 0, 0, 0]])
    columns = np.array([[2, 4, 4], [0, 3, 4], [4, 4, 1]])
    extra = rng.standard_normal((3, 3, TINY.dimension)).astype(np.float32)
    made = forward.history(torch.from_numpy(items))
    found = forward.beside(torch.from_numpy(extra), torch.from_numpy(columns), torch.from_numpy(items), made).numpy()
    for row in range(3):
        there = np.flatnonzero(items[row] != PADDING)
        places = [*there.tolist(), *(columns[row] + 1).tolist()]
        tokens = np.concatenate([arrays["item"][items[row][there]], extra[row]])
        count = len(there)
        seen = np.zeros((len(tokens), len(tokens)), bool)
        for i in range(len(tokens)):
            for j in range(len(tokens)):
                # Items see items up to themselves; a token sees items before its place, and itself.
                seen[i, j] = places[j] <= places[i] if j < count and i < count else j == i
                if i >= count and j < count:
                    seen[i, j] = places[j] < places[i]
        wanted = _attended(arrays, tokens, places, seen)[count:]
        np.testing.assert_allclose(found[row], wanted, atol=1e-4)


def test_numpy_gives_the_user_vectors_of_pytorch(arrays: dict[str, np.ndarray], forward: Forward) -> None:
    """The last column of a window is what a user gets who is served; also with a history that is short, or empty."""
    rng = np.random.default_rng(2)
    histories = [rng.integers(1, ITEMS + 1, size=n) for n in (30, 9, 5, 3, 1, 0)]
    before = np.stack([padded(h, TINY.long + TINY.short) for h in histories])
    tensor = torch.from_numpy(before)
    wanted = forward.users(tensor, forward.history(tensor[:, TINY.long :]))[:, -1].numpy()
    network = Network.of(TINY, arrays)
    found = network.users(np.stack([padded(h, TINY.long) for h in histories]))
    np.testing.assert_allclose(found, wanted, atol=2e-5)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1.0, atol=1e-5)


def test_numpy_ranks_as_pytorch_does(arrays: dict[str, np.ndarray], forward: Forward) -> None:
    rng = np.random.default_rng(3)
    network = Network.of(TINY, arrays)
    candidates = np.arange(1, ITEMS + 1)
    for size in (0, 1, 4, 30):
        history = rng.integers(1, ITEMS + 1, size=size)
        before = torch.from_numpy(padded(history, TINY.long + TINY.short)[None])
        users = forward.users(before, forward.history(before[:, TINY.long :]))[:, -1:]
        column = torch.tensor([[TINY.short - 1]])
        wanted = forward.ranker(before, column, torch.from_numpy(candidates)[None, None], users)[0, 0].numpy()
        found = network.ranks(padded(history, TINY.long), candidates, users[0, 0].numpy())
        np.testing.assert_allclose(found, wanted, atol=1e-4)


def test_the_ranker_in_loops(arrays: dict[str, np.ndarray]) -> None:
    network, w = Network.of(TINY, arrays), arrays
    history, candidates, user = np.array([4, 9, 2, 2]), np.array([3, 4]), np.ones(8, np.float32) / np.sqrt(8)

    def through(name: str, x: np.ndarray) -> np.ndarray:
        return np.maximum(x @ w[f"{name}.w1"] + w[f"{name}.b1"], 0) @ w[f"{name}.w2"] + w[f"{name}.b2"]

    wanted = []
    for candidate in candidates:
        e = w["item"][candidate]
        raised, values = [], []
        for place, item in enumerate(history):
            past = through("ranker.history", w["item"][item])
            preference = w["ranker.age"][int(np.log2(len(history) - place))]
            raised.append(np.exp((e @ w["ranker.query"]) @ (past @ w["ranker.key"]) / np.sqrt(8) + preference))
            values.append(past @ w["ranker.value"])
        found = sum(r * v for r, v in zip(raised, values)) / sum(raised)
        seen = through("ranker", np.concatenate([e, found, e * found]))[0]
        cosine = e @ user / np.linalg.norm(e)
        wanted.append(seen + w["ranker.generator"][0] * cosine / TINY.temperature)
    found = network.ranks(padded(history, TINY.long), candidates, user)
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4)


def test_ages_are_grouped_by_powers_of_two() -> None:
    assert ages(8).tolist() == [0, 1, 1, 2, 2, 2, 2, 3]


def test_what_comes_later_does_not_leak_into_a_user_vector(forward: Forward) -> None:
    rng = np.random.default_rng(4)
    before = rng.integers(1, ITEMS + 1, size=(1, TINY.long + TINY.short))
    changed = before.copy()
    changed[0, TINY.long + 3 :] = rng.integers(1, ITEMS + 1, size=TINY.short - 3)
    assert (changed != before).any()
    users = []
    for rows in (before, changed):
        tensor = torch.from_numpy(rows)
        users.append(forward.users(tensor, forward.history(tensor[:, TINY.long :]))[0].numpy())
    assert np.array_equal(users[0][:3], users[1][:3])
    assert not np.allclose(users[0][3:], users[1][3:])


def test_an_auxiliary_token_is_told_by_its_candidate_alone(forward: Forward) -> None:
    """Another candidate beside it changes nothing, and neither does one in another place."""
    before = torch.from_numpy(np.random.default_rng(6).integers(1, ITEMS + 1, size=(1, TINY.long + TINY.short)))
    made = forward.history(before[:, TINY.long :])
    columns, users = torch.tensor([[1, 4]]), torch.ones(1, 2, TINY.dimension)
    one = forward.auxiliary(before, columns, torch.tensor([[[3, 5], [3, 5]]]), users, made)
    other = forward.auxiliary(before, columns, torch.tensor([[[3, 9], [7, 5]]]), users, made)
    assert torch.allclose(one[0, 0, 0], other[0, 0, 0])
    assert torch.allclose(one[0, 1, 1], other[0, 1, 1])
    assert not torch.allclose(one[0, 0, 1], other[0, 0, 1])


def test_items_begin_as_the_main_directions_of_who_took_what() -> None:
    """The decomposition by NumPy has the same cosines, whatever its signs; an item that nobody took is somewhere."""
    rng = np.random.default_rng(15)
    given = [rng.integers(1, 30, size=n).tolist() for n in rng.integers(1, 20, size=25)]
    taken = np.zeros((25, 30))
    for user, history in enumerate(given):
        taken[user, np.array(history) - 1] = 1.0
    _, values, directions = np.linalg.svd(taken, full_matrices=False)
    wanted = (directions.T * values)[:29, :6]
    wanted /= np.linalg.norm(wanted, axis=1, keepdims=True)
    torch.manual_seed(0)
    found = main_directions(Histories.of(given), 30, 6)
    known = np.flatnonzero(taken.any(axis=0))
    np.testing.assert_allclose(found[known] @ found[known].T, wanted[known] @ wanted[known].T, atol=0.01)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1.0, atol=1e-5)


# -- losses


def test_info_nce_in_loops() -> None:
    rng = np.random.default_rng(7)
    positive, negative = rng.standard_normal(6), rng.standard_normal((6, 5))
    collides, expected = rng.random((6, 5)) < 0.3, rng.random(5) + 0.2
    wanted = []
    for i in range(6):
        total = np.exp(positive[i])
        for j in range(5):
            if not collides[i, j]:
                total += np.exp(negative[i, j]) / expected[j]
        wanted.append(-np.log(np.exp(positive[i]) / total))
    given = (torch.from_numpy(a) for a in (positive, negative, collides, np.log(expected)))
    np.testing.assert_allclose(info_nce(*given).numpy(), wanted, rtol=1e-9)


def test_drawn_negatives_stand_for_all_items() -> None:
    """The corrected sum over them is, on average, that over the catalogue: 400 draws of 60, within 5 %."""
    rng = np.random.default_rng(8)
    counts = np.concatenate([[0], rng.zipf(1.6, size=50).clip(max=200)])
    raised = np.exp(rng.standard_normal(51))
    negatives = Negatives(counts, in_batch=20, sampled=40)
    targets = np.repeat(np.arange(51), counts)
    sums = []
    for _ in range(400):
        drawn = negatives.draw(targets, rng)
        assert len(drawn) == 60
        sums.append((raised[drawn] / np.exp(negatives.log_expected[drawn])).sum())
    assert np.mean(sums) == pytest.approx(raised[1:].sum(), rel=0.05)


def test_a_weight_of_zero_leaves_a_loss_out(arrays: dict[str, np.ndarray], forward: Forward) -> None:
    histories = Histories.of([[1, 2, 3, 4], [5, 6, 7]])
    batch = windows(histories, TINY.short, TINY.long, np.random.default_rng(0))
    negatives = Negatives(np.ones(ITEMS + 1, np.int64), 10, 10)
    found = {}
    for auxiliary in (0.0, 1.0):
        for ranker in (0.0, 1.0):
            recipe = Recipe(in_batch=10, sampled=10, candidates=5, auxiliary=auxiliary, ranker=ranker)
            losses = step_losses(forward, batch, negatives, recipe, np.random.default_rng(1), "cpu")
            assert [loss is not None for loss in losses] == [True, auxiliary > 0, ranker > 0]
            found[auxiliary, ranker] = float(losses[0])
    assert len(set(found.values())) == 1


# -- what is learned

CHAIN = 60
FAST = Recipe(epochs=20, windows=32, in_batch=20, sampled=40, candidates=20, places=3, rate=0.02, dropout=0.1, seed=1)
SMALL = GRankConfig(dimension=16, layers=1, heads=1, short=8, long=16)


def chains(users: int, rng: np.random.Generator) -> tuple[list[list[int]], np.ndarray]:
    """Histories in which the next item is, nine times of ten, told by the last one: next = follower[last]."""
    follower = np.zeros(CHAIN + 1, np.int64)
    order = rng.permutation(CHAIN) + 1
    follower[order] = np.roll(order, -1)
    made = []
    for _ in range(users):
        history = [int(rng.integers(1, CHAIN + 1))]
        while len(history) < 20:
            history.append(int(follower[history[-1]] if rng.random() < 0.9 else rng.integers(1, CHAIN + 1)))
        made.append(history)
    return made, follower


@pytest.fixture(scope="module")
def chain() -> tuple[Network, list[list[int]], np.ndarray]:
    rng = np.random.default_rng(9)
    given, follower = chains(100, rng)
    return learn(Histories.of(given), CHAIN, SMALL, FAST, threads=1), chains(1, rng)[0], follower


def test_a_chain_of_items_is_found(chain: tuple[Network, list[list[int]], np.ndarray]) -> None:
    """The follower of the last item comes first, by the generator and by the ranker; by chance it would in one of 60."""
    network, _, follower = chain
    rng = np.random.default_rng(10)
    histories = [rng.integers(1, CHAIN + 1, size=6) for _ in range(60)]
    none = [np.empty(0, np.int64)] * 60
    model = GRank(network)
    first = {
        "generator": model.generate(histories, 1, excluded=none),
        "ranker": model.recommend(histories, 1, candidates=10, excluded=none),
    }
    for way, found in first.items():
        hits = np.mean([one.items[0] == follower[history[-1]] for one, history in zip(found, histories)])
        assert hits >= 0.8, (way, hits)


def test_candidates_are_the_nearest_of_all_items(chain: tuple[Network, list[list[int]], np.ndarray]) -> None:
    network = chain[0]
    model, rng = GRank(network), np.random.default_rng(11)
    histories = [rng.integers(1, CHAIN + 1, size=size) for size in (0, 3, 40)]
    excluded = [np.empty(0, np.int64), histories[1], np.arange(1, 41)]
    allowed = rng.random(CHAIN) < 0.8
    users = model.users(histories).astype(np.float64)
    for mask in (None, allowed):
        for k in (1, 7, 100):
            found = model.generate(histories, k, excluded=excluded, allowed=mask)
            for user, out, one in zip(users, excluded, found):
                scores = network.vectors[1:].astype(np.float64) @ user
                scores[out - 1] = -np.inf
                if mask is not None:
                    scores[~mask] = -np.inf
                order = [item for item in np.argsort(-scores, kind="stable") if scores[item] > -np.inf][:k]
                assert one.items.tolist() == [item + 1 for item in order]
                np.testing.assert_allclose(one.scores, scores[order], atol=1e-5)


def test_the_ranker_orders_what_was_generated_and_finds_nothing_else(
    chain: tuple[Network, list[list[int]], np.ndarray],
) -> None:
    model, rng = GRank(chain[0]), np.random.default_rng(12)
    histories = [rng.integers(1, CHAIN + 1, size=6) for _ in range(10)]
    generated = model.generate(histories, 12, excluded=histories)
    ranked = model.recommend(histories, 12, candidates=12, excluded=histories)
    assert any(one.items.tolist() != other.items.tolist() for one, other in zip(generated, ranked))
    for one, other, history in zip(generated, ranked, histories):
        assert sorted(one.items.tolist()) == sorted(other.items.tolist())
        assert one.items[other.generated].tolist() == other.items.tolist()
        assert not set(one.items.tolist()) & set(history.tolist())
        assert (np.diff(other.scores) <= 0).all()
    few = model.recommend(histories, 3, candidates=12, excluded=histories)
    assert all(a.items.tolist() == b.items[:3].tolist() for a, b in zip(few, ranked))


# -- training


def test_training_is_reproducible_and_goes_on_where_it_stopped() -> None:
    given, _ = chains(20, np.random.default_rng(13))
    histories = Histories.of(given)
    recipe = Recipe(
        epochs=4,
        windows=8,
        in_batch=10,
        sampled=20,
        candidates=10,
        places=2,
        patience=3,
        dropout=0.2,
        start="random",
        seed=3,
    )
    states: list[dict[str, np.ndarray]] = []
    whole = learn(histories, CHAIN, SMALL, recipe, save=states.append, threads=1)
    again = learn(histories, CHAIN, SMALL, recipe, threads=1)
    resumed = learn(histories, CHAIN, SMALL, recipe, saved=states[1], threads=1)
    other = learn(histories, CHAIN, SMALL, Recipe(**{**_fields(recipe), "seed": 4}), threads=1)
    for name, weight in whole.weights.items():
        assert np.array_equal(weight, again.weights[name]), name
        assert np.array_equal(weight, resumed.weights[name]), name
    assert not np.array_equal(whole.vectors, other.vectors)
    del states[1]["weight.item"]
    with pytest.raises(ValueError, match="weight.item"):
        learn(histories, CHAIN, SMALL, recipe, saved=states[1], threads=1)


def _fields(recipe: Recipe) -> dict[str, object]:
    return {name: getattr(recipe, name) for name in Recipe.__dataclass_fields__}


def test_training_ends_when_nothing_is_gained_and_keeps_the_best_epoch() -> None:
    """Items without any order: what is held out is no better found after ever so many epochs."""
    rng = np.random.default_rng(14)
    histories = Histories.of([rng.integers(1, CHAIN + 1, size=12).tolist() for _ in range(20)])
    recipe = Recipe(epochs=40, windows=8, in_batch=10, sampled=20, candidates=10, places=2, patience=2, rate=0.02)
    epochs, states = [], []
    network = learn(histories, CHAIN, SMALL, recipe, progress=epochs.append, save=states.append, threads=1)
    held_out = [epoch.held_out for epoch in epochs]
    assert len(epochs) < 40
    assert [epoch.number for epoch in epochs] == list(range(1, len(epochs) + 1))
    best = int(np.argmax(held_out))
    assert best == len(epochs) - 3
    assert np.array_equal(network.weights["item"], states[best]["weight.item"])


def test_random_numbers_and_threads_of_pytorch_are_left_as_they_were() -> None:
    torch.manual_seed(1)
    wanted = torch.rand(3)
    torch.manual_seed(1)
    threads = torch.get_num_threads()
    recipe = Recipe(epochs=1, in_batch=5, sampled=5, candidates=5)
    learn(Histories.of([[1, 2, 3]]), 3, SMALL, recipe, threads=1)
    assert torch.equal(torch.rand(3), wanted)
    assert torch.get_num_threads() == threads


# -- errors


@pytest.mark.parametrize(
    ("kind", "given", "message"),
    [
        (GRankConfig, {"dimension": 10, "heads": 4}, "each head takes an equal part"),
        (GRankConfig, {"short": 50, "long": 20}, "the long history holds the short one"),
        (GRankConfig, {"layers": -1}, "layers is -1"),
        (GRankConfig, {"temperature": float("nan")}, "temperature is nan"),
        (GRankConfig, {"has_ranker": 1}, "has_ranker is 1"),
        (Recipe, {"epochs": True}, "epochs is True"),
        (Recipe, {"start": "zero"}, "start is 'zero'"),
        (Recipe, {"candidates": 50, "in_batch": 10, "sampled": 10}, "only 10 \\+ 10 negatives"),
        (Recipe, {"generator": 0.0}, "without it no user vector is learned"),
        (Recipe, {"dropout": 1.0}, "dropout is 1.0"),
    ],
)
def test_settings_that_cannot_be_are_refused(kind: type, given: dict[str, object], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        kind(**given)


def test_nothing_to_learn_from_is_refused() -> None:
    with pytest.raises(InvalidInput, match="hold no items"):
        learn(Histories.of([[], []]), 0, SMALL, Recipe())


def test_arrays_that_are_no_model_are_refused(arrays: dict[str, np.ndarray]) -> None:
    with pytest.raises(ValueError, match="final.g"):
        Network.of(TINY, {**arrays, "final.g": np.ones(3, np.float32)})
    with pytest.raises(ValueError, match="no items"):
        Network.of(TINY, {})
    with pytest.raises(ValueError, match="not finite"):
        Network.of(TINY, {**arrays, "final.g": np.full(8, np.nan, np.float32)})


def test_serving_imports_no_framework() -> None:
    code = (
        "import sys, numpy as np\n"
        "import vecdb.recommender\n"
        "from vecdb.index.grank import GRankConfig, GRank, Network\n"
        "from vecdb.index.grank.network import shapes\n"
        "config = GRankConfig(dimension=4, short=3, long=4)\n"
        "network = Network.of(config, {n: np.ones(s, np.float32) for n, s in shapes(config, 3).items()})\n"
        "GRank(network).recommend([np.array([1])], 2, candidates=2, excluded=[np.array([1])])\n"
        "assert 'torch' not in sys.modules and 'safetensors' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
