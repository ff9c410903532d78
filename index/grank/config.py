"""What a model is made of, and how it is trained. Each checks itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from vecdb.errors import InvalidInput

_MOST = 1 << 20


@dataclass(frozen=True, slots=True)
class GRankConfig:
    """The model. dimension: of item and user vectors. short: items that the generator's self-attention sees; long: those that
    the pooled user token and the ranker see. hidden: the middle of every two-layer network, in multiples of the dimension.
    layers: of self-attention; without any, users are what the network makes of their pooled items (a two-tower model).
    temperature: what cosines of user and item are divided by in losses.

    has_ranker: candidates are ordered by cross-attention; without, the generator's order is the answer.
    """

    dimension: int = 32  # of the paper: 128, for 42 million items
    layers: int = 2  # of the paper: 4
    heads: int = 2
    short: int = 50  # of the paper: 64
    long: int = 200  # of the paper: 1,000
    hidden: int = 2
    temperature: float = 0.1
    has_ranker: bool = True

    def __post_init__(self) -> None:
        for name in ("dimension", "heads", "short", "long", "hidden"):
            _check_whole(name, getattr(self, name), least=1)
        _check_whole("layers", self.layers, least=0)
        if self.dimension % self.heads:
            raise InvalidInput(
                f"dimension is {self.dimension} and heads {self.heads}; each head takes an equal part of the dimension"
            )
        if self.long < self.short:
            raise InvalidInput(f"long is {self.long} and short {self.short}; the long history holds the short one")
        _check_number("temperature", self.temperature, 1e-3, 10.0)
        if not isinstance(self.has_ranker, bool):
            raise InvalidInput(f"has_ranker is {self.has_ranker!r}; it must be True or False")


@dataclass(frozen=True, slots=True)
class Recipe:
    """The training. Weights of the three losses: generator (next item by user vector), auxiliary (target-aware tokens beside the
    history, in training only) and ranker; 0 leaves one out.

    windows: histories' pieces in a step. negatives: items of the same step, and drawn by popularity ** 0.75, that each target
    is told from. places: how many targets of a window the auxiliary and the ranker's loss look at, each beside `candidates` of
    the negatives. patience: with the last item of each history held out, training ends after so many epochs without a better
    recall, and the best epoch's weights are kept; 0: all epochs, nothing held out. start: items' vectors begin as the main
    directions of who took what, which is already a fair recommender, or at random.
    """

    epochs: int = 10
    windows: int = 32
    in_batch: int = 300  # of the page on the paper
    sampled: int = 1000
    places: int = 4
    candidates: int = 40
    rate: float = 3e-3
    weight_decay: float = 0.01
    clip: float = 10.0
    dropout: float = 0.2
    generator: float = 1.0
    auxiliary: float = 1.0
    ranker: float = 1.0
    patience: int = 0
    start: Literal["svd", "random"] = "svd"
    seed: int = 0

    def __post_init__(self) -> None:
        if self.start not in ("svd", "random"):
            raise InvalidInput(f"start is {self.start!r}; it must be svd or random")
        for name in ("epochs", "windows", "places", "candidates"):
            _check_whole(name, getattr(self, name), least=1)
        for name in ("in_batch", "sampled", "patience", "seed"):
            _check_whole(name, getattr(self, name), least=0)
        if self.in_batch + self.sampled < self.candidates:
            raise InvalidInput(
                f"candidates is {self.candidates}; there are only {self.in_batch} + {self.sampled} negatives (in_batch + sampled)"
            )
        _check_number("rate", self.rate, 1e-8, 1.0)
        _check_number("dropout", self.dropout, 0.0, 0.95)
        _check_number("clip", self.clip, 1e-6, 1e6)
        for name in ("weight_decay", "generator", "auxiliary", "ranker"):
            _check_number(name, getattr(self, name), 0.0, 100.0)
        if not self.generator:
            raise InvalidInput("the loss of the generator has the weight 0; without it no user vector is learned")


def _check_whole(name: str, value: object, *, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= _MOST:
        raise InvalidInput(f"{name} is {value!r}; it must be a whole number from {least} to {_MOST:,}")


def _check_number(name: str, value: object, least: float, most: float) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
        raise InvalidInput(f"{name} is {value!r}; it must be a number from {least:g} to {most:g}")
