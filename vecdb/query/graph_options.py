"""What can be asked of the graph stage, checked once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from vecdb.errors import InvalidQuery

_MOST_HOPS, _MOST_SEEDS = 10, 1_000


@dataclass(frozen=True, slots=True)
class GraphOptions:
    """How links change an answer.

    beta: the graph's share of the score, 0 … 1; 0 is the answer without it, to the bit. Questions that need several records have
    been answered best by about 0.45. hops: how far from a seed a record may be to be reached. seeds: walks start from so many of
    the best candidates, at each in proportion to one by its rank. kinds: of the links that are followed, or a factor for the
    weights of each; None: all. restart: the probability that a walk goes back to its seed. damping: how much records that many
    links lead to are held back: their share is divided by (weight of incoming links) ** damping.
    """

    beta: float = 0.3
    hops: int = 2
    seeds: int = 10
    kinds: Sequence[str] | Mapping[str, float] | None = None
    restart: float = 0.15
    damping: float = 0.5

    def __post_init__(self) -> None:
        _number("beta", self.beta, 0, 1)
        _number("damping", self.damping, 0, 1)
        _number("restart", self.restart, 0, 1)
        if self.restart in (0, 1):
            raise InvalidQuery(f"graph restart is {self.restart}; it must lie between 0 and 1, both excluded")
        _whole("hops", self.hops, _MOST_HOPS)
        _whole("seeds", self.seeds, _MOST_SEEDS)
        if self.kinds is None:
            return
        if isinstance(self.kinds, str) or not isinstance(self.kinds, Sequence | Mapping) or not self.kinds:
            raise InvalidQuery(f"graph kinds is {self.kinds!r}; give a list of kinds, or {{kind: factor}}")
        if not all(isinstance(kind, str) for kind in self.kinds):
            raise InvalidQuery(f"graph kinds is {self.kinds!r}; kinds are text")
        if isinstance(self.kinds, Mapping):
            for kind, factor in self.kinds.items():
                _number(f"factor of {kind!r}", factor, 0, float(np.finfo(np.float32).max))


def graph_of(given: GraphOptions | Mapping[str, Any] | None) -> GraphOptions | None:
    """Options, also from a mapping. Raises InvalidQuery."""
    if given is None or isinstance(given, GraphOptions):
        return given
    known = [field.name for field in fields(GraphOptions)]
    if not isinstance(given, Mapping) or any(name not in known for name in given):
        raise InvalidQuery(f"graph is {given!r}; give GraphOptions(…), or some of {', '.join(known)}")
    return GraphOptions(**given)


def _number(name: str, value: object, least: float, most: float) -> None:
    is_number = isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)
    if not is_number or not least <= value <= most:  # type: ignore[operator]
        raise InvalidQuery(f"graph {name} is {value!r}; it must lie between {least} and {most:g}")


def _whole(name: str, value: object, most: int) -> None:
    if not isinstance(value, int | np.integer) or isinstance(value, bool) or not 1 <= value <= most:
        raise InvalidQuery(f"graph {name} is {value!r}; it must be a whole number between 1 and {most:,}")
