"""A trained model as flat arrays, and what is asked of it when it serves, in NumPy: no framework is imported.

The generator reads (S, U): the last `short` items of a history and, behind them, a token that pools the last `long` of them.
Layers of causal self-attention (heads with a learned preference for each distance) make the user's vector of the last token. The
ranker lets each candidate attend to the long history by itself, with a preference for ages, and adds what the generator says.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vecdb.index.base import Vectors
from vecdb.index.grank.config import GRankConfig
from vecdb.index.grank.histories import PADDING, Items

Arrays = Mapping[str, NDArray[np.float32]]

EPSILON = 1e-5  # of layer norms
FAR = -1e9  # the logit of what is not to be attended to: finite, so that a row of nothing else is no NaN
_USERS_AT_ONCE = 256
_PAIRS_AT_ONCE = 2**22  # candidates times items of the history


def shapes(config: GRankConfig, items: int) -> dict[str, tuple[int, ...]]:
    """The arrays of a model by name, in the order in which they are made. Those of "aux" are used in training only."""
    d, hidden = config.dimension, config.hidden * config.dimension
    made: dict[str, tuple[int, ...]] = {"item": (items + 1, d), **_net("user", d, hidden, d)}
    for layer in range(config.layers):
        name = f"layer{layer}"
        made |= {f"{name}.norm1.g": (d,), f"{name}.norm1.b": (d,), f"{name}.qkv": (d, 3 * d), f"{name}.out": (d, d)}
        made |= {f"{name}.distance": (config.heads, config.short + 1), f"{name}.norm2.g": (d,), f"{name}.norm2.b": (d,)}
        made |= _net(name, d, hidden, d)
    made |= {"final.g": (d,), "final.b": (d,), **_net("aux", d, hidden, d), "aux.norm.g": (d,), "aux.norm.b": (d,)}
    made |= {"aux.score": (d, 1), "aux.generator": (1,)}
    if config.has_ranker:
        made |= _net("ranker.history", d, hidden, d)
        made |= {f"ranker.{name}": (d, d) for name in ("query", "key", "value")}
        made |= {"ranker.age": (ages(config.long)[-1].item() + 1,), **_net("ranker", 3 * d, hidden, 1)}
        made |= {"ranker.generator": (1,)}
    return made


def ages(long: int) -> Items:
    """(long,): the group of each age, 0 for the latest item: 0, 1, 1, 2, 2, 2, 2, … as wide as they are far."""
    return np.log2(np.arange(1, long + 1)).astype(np.int64)


def _net(name: str, inner: int, hidden: int, outer: int) -> dict[str, tuple[int, ...]]:
    return {
        f"{name}.w1": (inner, hidden),
        f"{name}.b1": (hidden,),
        f"{name}.w2": (hidden, outer),
        f"{name}.b2": (outer,),
    }


@dataclass(frozen=True)
class Network:
    """weights: as `shapes` names them, float32, without those of "aux". vectors (n + 1, D): items at unit length, row 0 zeros."""

    config: GRankConfig
    weights: Arrays
    vectors: Vectors

    @classmethod
    def of(cls, config: GRankConfig, arrays: Mapping[str, NDArray[Any]]) -> Network:
        """Raises ValueError for arrays that are not those of such a model."""
        if "item" not in arrays or arrays["item"].ndim != 2 or len(arrays["item"]) < 1:
            raise ValueError("it has no items")
        wanted = shapes(config, len(arrays["item"]) - 1)
        wanted = {name: shape for name, shape in wanted.items() if not name.startswith("aux.")}
        wrong = [name for name, shape in wanted.items() if name not in arrays or arrays[name].shape != shape]
        if wrong:
            raise ValueError(f"{wrong[0]} is not there in the shape {wanted[wrong[0]]}")
        weights = {name: np.ascontiguousarray(arrays[name], np.float32) for name in wanted}
        if not all(np.isfinite(weight).all() for weight in weights.values()):
            raise ValueError("it has weights that are not finite")
        return cls(config, weights, _unit(weights["item"]))

    @property
    def items(self) -> int:
        return len(self.vectors) - 1

    def users(self, histories: Items) -> Vectors:
        """(B, D) at unit length, for the last `long` items of each history (B, long), PADDING before."""
        parts = [
            self._users(histories[start : start + _USERS_AT_ONCE]) for start in range(0, len(histories), _USERS_AT_ONCE)
        ]
        return np.concatenate(parts) if parts else np.empty((0, self.config.dimension), np.float32)

    def ranks(self, history: Items, candidates: Items, user: Vectors) -> Vectors:
        """(C,) float32: the ranker's scores of candidates (C,) for a history (long,) and its user vector (D,)."""
        step = max(1, _PAIRS_AT_ONCE // self.config.long)
        parts = [
            self._ranks(history, candidates[start : start + step], user) for start in range(0, len(candidates), step)
        ]
        return np.concatenate(parts) if parts else np.empty(0, np.float32)

    def _users(self, histories: Items) -> Vectors:
        w, config = self.weights, self.config
        taken = (histories != PADDING).sum(axis=1, keepdims=True)
        pooled = w["item"][histories].sum(axis=1) / np.maximum(taken, 1)
        short = histories[:, -config.short :]
        length = short.shape[1]
        inside = short != PADDING
        user = pooled + self._through("user", pooled)
        tokens = np.concatenate([w["item"][short], user[:, None]], axis=1)
        place = np.arange(length + 1)
        apart = place[:, None] - place[None, :]
        seen = (apart >= 0) & np.concatenate([inside, np.ones((len(short), 1), np.bool_)], axis=1)[:, None, :]
        for layer in range(config.layers):
            name = f"layer{layer}"
            normed = self._normed(f"{name}.norm1", tokens)
            q, k, v = np.split(normed @ w[f"{name}.qkv"], 3, axis=-1)
            q, k, v = (part.reshape(*part.shape[:2], config.heads, -1).transpose(0, 2, 1, 3) for part in (q, k, v))
            logits = q @ k.transpose(0, 1, 3, 2) / np.sqrt(np.float32(q.shape[-1]))
            logits = logits + w[f"{name}.distance"][:, np.maximum(apart, 0)]
            logits = np.where(seen[:, None], logits, np.float32(FAR))
            mixed = (_softmax(logits) @ v).transpose(0, 2, 1, 3).reshape(tokens.shape)
            tokens = tokens + mixed @ w[f"{name}.out"]
            tokens = tokens + self._through(name, self._normed(f"{name}.norm2", tokens))
        return _unit(self._normed("final", tokens[:, -1]))

    def _ranks(self, history: Items, candidates: Items, user: Vectors) -> Vectors:
        w, config = self.weights, self.config
        inside = history != PADDING
        items = w["item"][candidates]
        past = self._through("ranker.history", w["item"][history])
        logits = (items @ w["ranker.query"]) @ (past @ w["ranker.key"]).T / np.sqrt(np.float32(config.dimension))
        logits = logits + w["ranker.age"][ages(config.long)[::-1]]
        found = _softmax(np.where(inside, logits, np.float32(FAR))) @ (past @ w["ranker.value"])
        if not inside.any():
            found = np.zeros_like(items)
        seen = self._through("ranker", np.concatenate([items, found, items * found], axis=1))[:, 0]
        likely = self.vectors[candidates] @ user / np.float32(config.temperature)
        scores: Vectors = seen + w["ranker.generator"] * likely
        return scores

    def _through(self, name: str, x: Vectors) -> Vectors:
        w = self.weights
        middle = np.maximum(x @ w[f"{name}.w1"] + w[f"{name}.b1"], 0.0)
        out: Vectors = middle @ w[f"{name}.w2"] + w[f"{name}.b2"]
        return out

    def _normed(self, name: str, x: Vectors) -> Vectors:
        moved = x - x.mean(axis=-1, keepdims=True)
        moved = moved / np.sqrt(np.square(moved).mean(axis=-1, keepdims=True) + np.float32(EPSILON))
        out: Vectors = moved * self.weights[f"{name}.g"] + self.weights[f"{name}.b"]
        return out


def _softmax(logits: Vectors) -> Vectors:
    raised = np.exp(logits - logits.max(axis=-1, keepdims=True))
    out: Vectors = raised / raised.sum(axis=-1, keepdims=True)
    return out


def _unit(vectors: Vectors) -> Vectors:
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return np.ascontiguousarray(vectors / np.where(lengths > 0, lengths, 1.0), np.float32)
