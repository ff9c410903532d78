"""The network that tells a vector's bin, as flat arrays: linear layers, ReLU between them. Asking it takes no framework."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vecdb.index.base import Vectors


@dataclass(frozen=True)
class Network:
    """weights: (in, out) float32 of each layer, biases: (out,). Standardisation and batch norms are folded into them."""

    weights: Sequence[Vectors]
    biases: Sequence[Vectors]

    @property
    def bins(self) -> int:
        return int(self.weights[-1].shape[1])

    def logits(self, vectors: Vectors) -> Vectors:
        """(B, m) float32 for vectors (B, D): the larger, the likelier the bin."""
        hidden = vectors
        for weight, bias in zip(self.weights[:-1], self.biases[:-1]):
            hidden = hidden @ weight
            hidden += bias
            np.maximum(hidden, 0.0, out=hidden)
        out: Vectors = hidden @ self.weights[-1]
        out += self.biases[-1]
        return out

    def shifted(self, bias: Vectors) -> Network:
        """The same network with (m,) added to its logits."""
        return Network(self.weights, [*self.biases[:-1], self.biases[-1] + bias])

    def as_arrays(self) -> dict[str, NDArray[Any]]:
        layers = zip(self.weights, self.biases)
        return {f"network.{name}{n}": array for n, layer in enumerate(layers) for name, array in zip(("w", "b"), layer)}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> Network:
        count = sum(name.startswith("network.w") for name in arrays)
        weights = [np.ascontiguousarray(arrays[f"network.w{n}"], np.float32) for n in range(count)]
        biases = [np.ascontiguousarray(arrays[f"network.b{n}"], np.float32) for n in range(count)]
        if not weights or any(w.shape[1] != len(b) for w, b in zip(weights, biases)):
            raise ValueError("the layers of its network do not fit together")
        if any(a.shape[1] != b.shape[0] for a, b in pairwise(weights)):
            raise ValueError("the layers of its network do not follow one another")
        return cls(weights, biases)


def log_softmax(logits: Vectors) -> Vectors:
    """(B, m) float32: log-probabilities."""
    moved = logits - logits.max(axis=1, keepdims=True)
    moved -= np.log(np.exp(moved).sum(axis=1, keepdims=True))
    said: Vectors = moved
    return said
