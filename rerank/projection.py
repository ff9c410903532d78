"""Heads of late-interaction models: from the state of a token to the small unit vector that is compared (arXiv 2510.12327).

    linear   y = W x                                            ffn   y = W2 act(W1 x)      glu   y = W2 ((W1 x) * gate(V x))
    residual adds R x to what W2 is applied to, R a matrix of its own because the widths differ

All end at unit length. Whatever has no activation folds into one matrix, so it costs at search time what the linear head costs;
it can also represent no more than that one can: what it may gain is how it trains. Training is in `training.projection`.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
from numpy.typing import NDArray

from vecdb.errors import InvalidInput, ModelUnavailable
from vecdb.types import Vector

Kind = Literal["linear", "ffn", "glu"]
Activation = Literal["identity", "relu", "silu"]

_FORMAT = 1


@dataclass(frozen=True, slots=True)
class HeadConfig:
    """width: of a token's state; dimension: of its vector; upscale: the middle is so many times as wide as the state.

    activation: of ffn, what its middle goes through; of glu, what its gate does ("identity" means the sigmoid there).
    """

    kind: Kind = "ffn"
    width: int = 384
    dimension: int = 96
    upscale: int = 2
    residual: bool = True
    activation: Activation = "identity"

    def __post_init__(self) -> None:
        if self.kind not in ("linear", "ffn", "glu") or self.activation not in ("identity", "relu", "silu"):
            raise InvalidInput(
                f"a head is of kind linear, ffn or glu with activation identity, relu or silu, not {self.kind!r}, "
                f"{self.activation!r}"
            )
        for name in ("width", "dimension", "upscale"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= 65_536:
                raise InvalidInput(f"{name} of a head is {value!r}; it must be a whole number from 1 to 65,536")

    @property
    def folds(self) -> bool:
        return self.kind == "linear" or (self.kind == "ffn" and self.activation == "identity")

    def shapes(self) -> dict[str, tuple[int, int]]:
        """The matrices by name; each is applied from the left."""
        if self.kind == "linear":
            return {"W": (self.dimension, self.width)}
        middle = self.upscale * self.width
        names = ["W1"] + ["V"] * (self.kind == "glu") + ["R"] * self.residual
        return {**dict.fromkeys(names, (middle, self.width)), "W2": (self.dimension, middle)}


@dataclass(frozen=True, slots=True)
class Head:
    """A trained head. version: what it was trained on, part of the identity of the vectors that it makes."""

    config: HeadConfig
    weights: dict[str, NDArray[np.float32]]
    version: str = "untrained"
    facts: dict[str, Any] = field(default_factory=dict)  # how it was trained

    def __post_init__(self) -> None:
        given = {name: matrix.shape for name, matrix in self.weights.items()}
        if given != self.config.shapes():
            raise InvalidInput(f"the weights of a head have the shapes {given}, wanted {self.config.shapes()}")

    def project(self, states: NDArray[Any]) -> Vector:
        """(T, width) -> (T, dimension) float32 of unit length; a zero stays zero."""
        x, w = np.asarray(states, dtype=np.float32), self.weights
        if self.config.kind == "linear":
            y = x @ w["W"].T
        else:
            middle = x @ w["W1"].T
            if self.config.kind == "glu":
                gate = x @ w["V"].T
                middle = middle * (_sigmoid(gate) if self.config.activation == "identity" else self._act(gate))
            else:
                middle = self._act(middle)
            if self.config.residual:
                middle = middle + x @ w["R"].T
            y = middle @ w["W2"].T
        return unit(y)

    def _act(self, x: Vector) -> Vector:
        if self.config.activation == "identity":
            return x
        return np.maximum(x, 0.0) if self.config.activation == "relu" else x * _sigmoid(x)

    def fold(self) -> Head:
        """The linear head that gives the same vectors. Raises InvalidInput where an activation stands between the matrices."""
        if not self.config.folds:
            raise InvalidInput(
                f"a {self.config.kind} head with {self.config.activation} cannot be folded into one matrix"
            )
        if self.config.kind == "linear":
            return self
        inner = self.weights["W1"] + (self.weights["R"] if self.config.residual else 0.0)
        matrix = np.ascontiguousarray(self.weights["W2"] @ inner, dtype=np.float32)
        config = HeadConfig("linear", self.config.width, self.config.dimension)
        return Head(config, {"W": matrix}, self.version, {**self.facts, "folded_from": asdict(self.config)})

    def save(self, file: str | Path | BinaryIO) -> None:
        """As .npz: the matrices, and the settings as JSON."""
        about = {"format": _FORMAT, "config": asdict(self.config), "version": self.version, "facts": self.facts}
        np.savez(file, about=np.array(json.dumps(about, sort_keys=True)), **self.weights)  # type: ignore[arg-type]

    @classmethod
    def load(cls, file: str | Path | BinaryIO) -> Head:
        """What `save` wrote; nothing is unpickled. Raises ModelUnavailable for anything else."""
        try:
            with np.load(file, allow_pickle=False) as saved:
                about = json.loads(str(saved["about"]))
                if about["format"] != _FORMAT:
                    raise ModelUnavailable(
                        f"{file} holds a head of format {about['format']}; this version reads {_FORMAT}"
                    )
                weights = {name: saved[name].astype(np.float32) for name in saved.files if name != "about"}
            return cls(HeadConfig(**about["config"]), weights, about["version"], about["facts"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ModelUnavailable(f"{file} is no projection head: {error}") from error


def unit(vectors: NDArray[Any]) -> Vector:
    """Rows at length 1, float32; a row of zeros stays."""
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return np.ascontiguousarray(vectors / np.where(lengths > 0, lengths, 1.0), dtype=np.float32)


def _sigmoid(x: Vector) -> Vector:
    return np.asarray(0.5 * (1.0 + np.tanh(0.5 * x)))  # does not overflow
