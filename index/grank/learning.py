"""Training, end to end: user vector, auxiliary tokens and ranker share the items' embeddings. PyTorch is imported when it begins.

Reproducible: what an epoch draws depends on the seed and the epoch's number alone. So training that goes on from a checkpoint
ends where it would have ended without the break.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vecdb.errors import InvalidInput, MissingExtra
from vecdb.index.grank.config import GRankConfig, Recipe
from vecdb.index.grank.histories import PADDING, Histories, Items, Windows, windows
from vecdb.index.grank.network import Network, shapes
from vecdb.index.grank.search import GRank

Arrays = dict[str, NDArray[Any]]

HELD_OUT = 50  # the cut of the nDCG that decides which epoch was the best
_CANDIDATES = 100  # of the ranker, while training looks how good it is
_MOST_JUDGED = 2_000  # histories


@dataclass(frozen=True, slots=True)
class Epoch:
    """What an epoch came to. Mean losses (0 for one that has no weight); held_out: nDCG@50 of the last items that were held out,
    None where none are.
    """

    number: int
    epochs: int
    generator: float
    auxiliary: float
    ranker: float
    held_out: float | None
    seconds: float


def learn(
    histories: Histories,
    items: int,
    config: GRankConfig,
    recipe: Recipe,
    *,
    progress: Callable[[Epoch], None] | None = None,
    saved: Mapping[str, NDArray[Any]] | None = None,
    save: Callable[[Arrays], None] | None = None,
    threads: int | None = None,
) -> Network:
    """A network for items 1 … items, learned from these histories.

    save is given the state after each epoch, as arrays; training goes on from `saved`, one of these. Raises MissingExtra
    without PyTorch, InvalidInput where there is nothing to learn from, ValueError if `saved` is of another training.
    """
    try:
        import torch
    except ImportError as error:
        raise MissingExtra.of("torch", extra="learned", what="training a recommender") from error
    if not len(histories.items) or not items:
        raise InvalidInput("the histories hold no items; give what users took, oldest first")
    with _settings(torch, recipe.seed, threads) as device:
        training = _Training(histories, items, config, recipe, device)
        if saved is not None:
            training.restore(saved)
        while not training.is_over:
            told = training.epoch()
            if save is not None:
                save(training.state())
            if progress is not None:
                progress(told)
        return Network.of(config, training.chosen())


@contextmanager
def _settings(torch: Any, seed: int, threads: int | None) -> Iterator[str]:
    """Leaves PyTorch's threads and random numbers as they were."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    before = torch.get_num_threads()
    if threads is not None:
        torch.set_num_threads(threads)
    try:
        with torch.random.fork_rng(devices=[torch.cuda.current_device()] if device == "cuda" else []):
            yield device
    finally:
        torch.set_num_threads(before)


class _Training:
    """weights and the two moments of AdamW by name; best: the weights of the epoch that was best on what is held out."""

    def __init__(self, histories: Histories, items: int, config: GRankConfig, recipe: Recipe, device: str) -> None:
        import torch

        from vecdb.index.grank.forward import initial, main_directions
        from vecdb.index.grank.losses import Negatives

        self._config, self._recipe, self._device = config, recipe, device
        self._histories, self._last = (
            histories.without_last() if recipe.patience else (histories, np.empty(0, np.int64))
        )
        counts = np.bincount(self._histories.items, minlength=items + 1)
        if not counts.sum():
            raise InvalidInput("every history has a single item, and that is held out; give longer ones, or patience=0")
        self._negatives = Negatives(counts, recipe.in_batch, recipe.sampled)
        arrays = initial(shapes(config, items), recipe.seed)
        if recipe.start == "svd":
            torch.manual_seed(recipe.seed)
            arrays["item"][1:] = main_directions(self._histories, items, config.dimension)
        self._weights = {
            name: torch.from_numpy(array).to(device).requires_grad_(True) for name, array in arrays.items()
        }
        self._optimiser = torch.optim.AdamW(self._weights.values(), lr=recipe.rate, weight_decay=recipe.weight_decay)
        self._number, self._best, self._best_number = 0, -1.0, 0
        self._best_weights: Arrays = {}

    @property
    def is_over(self) -> bool:
        waited = self._number - self._best_number
        return self._number >= self._recipe.epochs or bool(0 < self._recipe.patience <= waited)

    def epoch(self) -> Epoch:
        import torch

        since = time.perf_counter()
        recipe = self._recipe
        rng = np.random.default_rng([recipe.seed, 1, self._number])
        torch.manual_seed(int(rng.integers(2**62)))
        for group in self._optimiser.param_groups:
            group["lr"] = recipe.rate * _slower(self._number / recipe.epochs)
        pieces = windows(self._histories, self._config.short, self._config.long, rng)
        told = np.array([self._step(batch, rng) for batch in pieces.batches(recipe.windows, rng)])
        self._number += 1
        held_out = self._judged() if recipe.patience else None
        if held_out is not None and held_out > self._best:
            self._best, self._best_number, self._best_weights = held_out, self._number, self._arrays()
        generator, auxiliary, ranker = told.mean(axis=0).tolist()
        seconds = time.perf_counter() - since
        return Epoch(self._number, recipe.epochs, generator, auxiliary, ranker, held_out, seconds)

    def _step(self, batch: Windows, rng: np.random.Generator) -> tuple[float, float, float]:
        import torch

        from vecdb.index.grank.forward import Forward

        losses = step_losses(
            Forward(self._config, self._weights, self._recipe.dropout),
            batch,
            self._negatives,
            self._recipe,
            rng,
            self._device,
        )
        recipe = self._recipe
        weighted = [(recipe.generator, losses[0]), (recipe.auxiliary, losses[1]), (recipe.ranker, losses[2])]
        total = sum(weight * loss for weight, loss in weighted if loss is not None)
        self._optimiser.zero_grad(set_to_none=True)
        total.backward()
        torch.nn.utils.clip_grad_norm_(self._weights.values(), recipe.clip)
        self._optimiser.step()
        first, second, third = (0.0 if loss is None else float(loss.detach()) for loss in losses)
        return first, second, third

    def _judged(self) -> float:
        """nDCG@50 of the items that were held out, over the whole catalogue without what each user took before."""
        chosen = np.flatnonzero(self._last != PADDING)
        if len(chosen) > _MOST_JUDGED:
            chosen = np.random.default_rng([self._recipe.seed, 2]).choice(chosen, _MOST_JUDGED, replace=False)
        before = [self._histories.user(number) for number in chosen.tolist()]
        found = GRank(Network.of(self._config, self._arrays())).recommend(
            before, HELD_OUT, candidates=_CANDIDATES, excluded=before
        )
        gains = 0.0
        for one, wanted in zip(found, self._last[chosen]):
            place = np.flatnonzero(one.items == wanted)
            gains += 1 / np.log2(place[0] + 2) if len(place) else 0.0
        return gains / max(len(chosen), 1)

    def chosen(self) -> Arrays:
        """The weights that training ends with."""
        return self._best_weights or self._arrays()

    def state(self) -> Arrays:
        """All that `restore` needs."""
        made: Arrays = {f"weight.{name}": array for name, array in self._arrays().items()}
        for name, weight in self._weights.items():
            moments = self._optimiser.state[weight]
            for key in ("exp_avg", "exp_avg_sq", "step"):
                if key in moments:  # a weight that no loss reaches has none
                    made[f"{key}.{name}"] = moments[key].cpu().numpy().copy()
        made |= {f"best.{name}": array for name, array in self._best_weights.items()}
        made["progress"] = np.array([self._number, self._best, self._best_number], np.float64)
        return made

    def restore(self, saved: Mapping[str, NDArray[Any]]) -> None:
        import torch

        try:
            with torch.no_grad():
                for name, weight in self._weights.items():
                    given = saved[f"weight.{name}"]
                    if given.shape != tuple(weight.shape):
                        raise ValueError(f"{name} has the shape {given.shape}, wanted {tuple(weight.shape)}")
                    weight.copy_(torch.from_numpy(np.array(given)))
                    if f"exp_avg.{name}" in saved:
                        self._optimiser.state[weight] = {
                            "step": torch.tensor(float(saved[f"step.{name}"].item())),
                            "exp_avg": torch.from_numpy(np.array(saved[f"exp_avg.{name}"])).to(self._device),
                            "exp_avg_sq": torch.from_numpy(np.array(saved[f"exp_avg_sq.{name}"])).to(self._device),
                        }
            number, best, best_number = saved["progress"].tolist()
        except KeyError as error:
            raise ValueError(f"it has no {error}") from error
        self._number, self._best, self._best_number = int(number), best, int(best_number)
        self._best_weights = {
            name.removeprefix("best."): np.array(array) for name, array in saved.items() if name.startswith("best.")
        }

    def _arrays(self) -> Arrays:
        return {name: weight.detach().cpu().numpy().copy() for name, weight in self._weights.items()}


def step_losses(
    forward: Any, batch: Windows, negatives: Any, recipe: Recipe, rng: np.random.Generator, device: str
) -> tuple[Any, Any, Any]:
    """The three losses of a batch; None for one that has no weight. All have the same targets and the same negatives: the
    generator every target and all negatives, the other two `places` targets of each window and the first `candidates` negatives.
    """
    import torch

    from vecdb.index.grank.losses import info_nce, mean_over

    config: GRankConfig = forward.config
    drawn = negatives.draw(batch.targets[batch.targets != PADDING], rng)
    log_expected = torch.from_numpy(negatives.log_expected[drawn]).to(device)
    before, targets, other = (torch.from_numpy(a).to(device) for a in (batch.before, batch.targets, drawn))
    made = forward.history(before[:, config.long :])
    users = forward.users(before, made)
    # A window's few targets are looked at again and again where it has fewer than places.
    columns = torch.from_numpy(_columns(batch.targets, recipe.places, rng)).to(device)
    there = targets != PADDING
    told, wanted = users[there], targets[there]
    near = (told * forward.vectors(wanted)).sum(-1) / config.temperature
    far = told @ forward.vectors(other).T / config.temperature
    generator = info_nce(near, far, other == wanted[:, None], log_expected).mean()
    if not recipe.auxiliary and not (recipe.ranker and config.has_ranker):
        return generator, None, None
    few = other[: recipe.candidates]
    told = targets.gather(1, columns)
    candidates = torch.cat([told[:, :, None], few.expand(*told.shape, len(few))], -1)
    # So few of them stand for all.
    expected = log_expected[: recipe.candidates] - float(np.log(len(drawn) / recipe.candidates))

    def loss(scores: Any) -> Any:
        flat = scores.flatten(0, 1)
        collides = (candidates[..., 1:] == told[..., None]).flatten(0, 1)
        return mean_over(info_nce(flat[:, 0], flat[:, 1:], collides, expected), told.flatten())

    chosen = users.gather(1, columns[:, :, None].expand(-1, -1, users.shape[-1]))
    auxiliary = ranker = None
    if recipe.auxiliary:
        auxiliary = loss(forward.auxiliary(before, columns, candidates, chosen, made))
    if recipe.ranker and config.has_ranker:
        ranker = loss(forward.ranker(before, columns, candidates, chosen))
    return generator, auxiliary, ranker


def _columns(targets: Items, places: int, rng: np.random.Generator) -> Items:
    """(W, places): columns of each window's targets, at random; different ones as long as there are some."""
    order = np.argsort(rng.random(targets.shape) + (targets == PADDING), axis=1)
    count = (targets != PADDING).sum(axis=1)
    chosen = np.arange(places)[None, :] % np.maximum(count, 1)[:, None]
    return np.take_along_axis(order, chosen, axis=1)


def _slower(share: float) -> float:
    """The rate of learning, after this share of the epochs: half a cosine, from 1 to 0.1."""
    return float(0.55 + 0.45 * np.cos(np.pi * share))
