"""The model in PyTorch, for training: all targets of a window at once, by decomposed attention.

A window's items attend to one another once. User tokens, and in training the auxiliary tokens (a target or a negative through a
small network), each attend to the items up to their place and to themselves; no item ever attends to them. So a target cannot
leak into what tells it, a user token sees what it would at the end of that history, and B candidates cost B rows of attention
each, not the square of (length + B).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from vecdb.index.grank.config import GRankConfig
from vecdb.index.grank.histories import PADDING, Histories
from vecdb.index.grank.network import EPSILON, FAR, ages

Tensor = torch.Tensor

_ADDED = 0.1  # of the length that would keep lengths
_PASSES = 4  # of the randomised singular value decomposition


class Forward:
    """weights: as network.shapes names them. dropout: 0 outside training."""

    def __init__(self, config: GRankConfig, weights: dict[str, Tensor], dropout: float = 0.0) -> None:
        self.config = config
        self.weights = weights
        self._dropout = dropout

    def history(self, items: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Keys and values (W, heads, short, D / heads) of each layer, for windows (W, short) of items.

        What the last layer would make of the items is read by nothing, so it is not made.
        """
        w, config = self.weights, self.config
        length = items.shape[1]
        place = torch.arange(length, device=items.device)
        apart = place[:, None] - place[None, :]
        # Padding attends to itself alone and is attended to by nothing.
        hidden = (apart < 0) | ((items == PADDING)[:, None, :] & (apart != 0))
        tokens = self._dropped(self._items(items))
        made = []
        for layer in range(config.layers):
            name = f"layer{layer}"
            q, k, v = self._heads(name, tokens)
            made.append((k, v))
            if layer + 1 == config.layers:
                break
            logits = q @ k.transpose(2, 3) / q.shape[-1] ** 0.5 + w[f"{name}.distance"][:, apart.clamp(min=0)]
            logits = logits.masked_fill(hidden[:, None], FAR)
            tokens = self._after(name, tokens, logits.softmax(-1) @ v)
        return made

    def beside(self, tokens: Tensor, columns: Tensor, items: Tensor, made: list[tuple[Tensor, Tensor]]) -> Tensor:
        """(W, T, D): tokens (W, T, D) after all layers, each as if it alone stood behind the item in its column (W, T)."""
        w, config = self.weights, self.config
        apart = columns[:, :, None] + 1 - torch.arange(items.shape[1], device=items.device)
        hidden = (apart < 1) | (items == PADDING)[:, None, :]
        apart = apart.clamp(min=0)
        tokens = self._dropped(tokens)
        for layer in range(config.layers):
            name = f"layer{layer}"
            q, k, v = self._heads(name, tokens)
            past_k, past_v = made[layer]
            distance = w[f"{name}.distance"]
            past = q @ past_k.transpose(2, 3) / q.shape[-1] ** 0.5 + distance[:, apart].transpose(0, 1)
            past = past.masked_fill(hidden[:, None], FAR)
            own = (q * k).sum(-1, keepdim=True) / q.shape[-1] ** 0.5 + distance[:, :1, None]
            weights = torch.cat([past, own], -1).softmax(-1)
            tokens = self._after(name, tokens, weights[..., :-1] @ past_v + weights[..., -1:] * v)
        return tokens

    def users(self, before: Tensor, made: list[tuple[Tensor, Tensor]]) -> Tensor:
        """(W, short, D) at unit length: the user vector before each target of windows whose `before` is (W, long + short)."""
        short, long = self.config.short, self.config.long
        total = torch.nn.functional.pad(self._items(before).cumsum(1), (0, 0, 1, 0))
        count = torch.nn.functional.pad((before != PADDING).cumsum(1), (1, 0))
        column = torch.arange(short, device=before.device)
        last, first = column + long + 1, column + 1
        taken = (count[:, last] - count[:, first]).clamp(min=1)
        pooled = (total[:, last] - total[:, first]) / taken[:, :, None]
        items = before[:, long:]
        columns = column.expand(len(before), short)
        found = self.beside(pooled + self._through("user", pooled), columns, items, made)
        return functional.normalize(self._normed("final", found), dim=-1)

    def auxiliary(
        self, before: Tensor, columns: Tensor, candidates: Tensor, users: Tensor, made: list[tuple[Tensor, Tensor]]
    ) -> Tensor:
        """(W, P, C): target-aware scores of candidates (W, P, C) before the targets in columns (W, P); users as for `ranker`.

        What the tokens say is added to what the generator says: else they would first teach the shared layers all that the
        generator knows already, worse.
        """
        windows, places, count = candidates.shape
        tokens = self._through("aux", self._items(candidates)).reshape(windows, places * count, -1)
        spread = columns.repeat_interleave(count, 1)
        found = self.beside(tokens, spread, before[:, self.config.long :], made)
        seen = (self._normed("aux.norm", found) @ self.weights["aux.score"]).reshape(windows, places, count)
        return seen + self.weights["aux.generator"] * self._likely(candidates, users)

    def ranker(self, before: Tensor, columns: Tensor, candidates: Tensor, users: Tensor) -> Tensor:
        """(W, P, C): the ranker's scores of candidates (W, P, C) before the targets in columns (W, P).

        users (W, P, D): their user vectors.
        """
        w, config = self.weights, self.config
        age = columns[:, :, None] + config.long - torch.arange(before.shape[1], device=before.device)
        hidden = (age < 0) | (age >= config.long) | (before == PADDING)[:, None, :]
        groups = torch.from_numpy(ages(config.long)).to(before.device)
        preferred = w["ranker.age"][groups[age.clamp(0, config.long - 1)]]
        items = self._items(candidates)
        past = self._through("ranker.history", self._dropped(self._items(before)))
        keys, values = past @ w["ranker.key"], past @ w["ranker.value"]
        asked = items @ w["ranker.query"]
        logits = torch.einsum("wpcd,whd->wpch", asked, keys) / config.dimension**0.5 + preferred[:, :, None]
        attention = logits.masked_fill(hidden[:, :, None], FAR).softmax(-1)
        found = torch.einsum("wpch,whd->wpcd", attention, values)
        found = found.masked_fill(hidden.all(-1)[:, :, None, None], 0.0)
        seen = self._through("ranker", self._dropped(torch.cat([items, found, items * found], -1)))[..., 0]
        return seen + w["ranker.generator"] * self._likely(candidates, users)

    def _likely(self, candidates: Tensor, users: Tensor) -> Tensor:
        """(W, P, C): what the generator says of candidates (W, P, C) for users (W, P, D). Its own loss alone teaches it, which
        sees many more negatives.
        """
        return torch.einsum("wpcd,wpd->wpc", self.vectors(candidates), users).detach() / self.config.temperature

    def vectors(self, items: Tensor) -> Tensor:
        """(…, D): items at unit length, as they are searched."""
        return functional.normalize(self._items(items), dim=-1)

    def _items(self, items: Tensor) -> Tensor:
        return functional.embedding(items, self.weights["item"], padding_idx=PADDING)

    def _heads(self, name: str, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        parts = (self._normed(f"{name}.norm1", tokens) @ self.weights[f"{name}.qkv"]).chunk(3, -1)
        q, k, v = (part.reshape(*part.shape[:2], self.config.heads, -1).transpose(1, 2) for part in parts)
        return q, k, v

    def _after(self, name: str, tokens: Tensor, mixed: Tensor) -> Tensor:
        mixed = mixed.transpose(1, 2).flatten(2)
        tokens = tokens + self._dropped(mixed @ self.weights[f"{name}.out"])
        return tokens + self._dropped(self._through(name, self._normed(f"{name}.norm2", tokens)))

    def _through(self, name: str, x: Tensor) -> Tensor:
        w = self.weights
        return functional.relu(x @ w[f"{name}.w1"] + w[f"{name}.b1"]) @ w[f"{name}.w2"] + w[f"{name}.b2"]

    def _normed(self, name: str, x: Tensor) -> Tensor:
        return functional.layer_norm(x, x.shape[-1:], self.weights[f"{name}.g"], self.weights[f"{name}.b"], EPSILON)

    def _dropped(self, x: Tensor) -> Tensor:
        return functional.dropout(x, self._dropout) if self._dropout else x


def initial(shapes: dict[str, tuple[int, ...]], seed: int) -> dict[str, Any]:
    """Arrays to begin with: Gaussian matrices that keep lengths, norms that change nothing, zeros.

    What is added to something else is small, so that a user begins as the mean of items, and the ranker as the generator's order.
    """
    rng = np.random.default_rng([seed, 0])
    made = {}
    for name, shape in shapes.items():
        if name.endswith((".g", ".generator")):
            made[name] = np.ones(shape, np.float32)
        elif len(shape) == 1 or name.endswith(".distance"):
            made[name] = np.zeros(shape, np.float32)
        else:
            inner = shape[1] if name == "item" else shape[0]
            made[name] = (rng.standard_normal(shape) / np.sqrt(inner)).astype(np.float32)
            if name.endswith((".out", ".score")) or (
                name.endswith(".w2") and name not in ("aux.w2", "ranker.history.w2")
            ):
                made[name] *= np.float32(_ADDED)
    made["item"][PADDING] = 0.0
    return made


def main_directions(histories: Histories, items: int, dimension: int) -> NDArray[np.float32]:
    """(items, D) at unit length: the items in the truncated singular value decomposition of the matrix users x items (1 where a
    user took the item), times the singular values; rows that are zero at random. Random numbers are PyTorch's.
    """
    users = np.repeat(np.arange(len(histories)), np.diff(histories.bounds))
    pairs = np.unique(np.stack([users, histories.items - 1]), axis=1)
    taken = torch.sparse_coo_tensor(
        torch.from_numpy(pairs), torch.ones(pairs.shape[1]), (len(histories), items), check_invariants=True
    )
    rank = min(dimension, len(histories), items)
    more = min(
        2 * dimension, len(histories), items
    )  # the last of the directions that are looked for are the least exact
    _, values, directions = torch.svd_lowrank(taken, q=more, niter=_PASSES)
    made = torch.randn(items, dimension) * 1e-6
    made[:, :rank] += (directions * values)[:, :rank]
    found: NDArray[np.float32] = functional.normalize(made, dim=1).numpy()
    return found
