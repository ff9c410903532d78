"""What chance decides about a graph: the level of each node, and the order in which nodes come. Both by seed and number alone."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vecdb.index.base import HnswConfig

_HIGHEST_LEVEL = 31  # with M >= 2 a node reaches it once in 2**31
_EVEN_STEP = np.uint64(0x9E3779B97F4A7C15)  # 2**64 / golden ratio, the step of SplitMix64
_LEVELS, _ORDER = 1, 2  # two streams of random numbers from one seed


def draw_levels(config: HnswConfig, first: int, count: int) -> NDArray[np.uint8]:
    """Levels of nodes number first … first + count - 1: level l or higher with probability M**-l (mL = 1 / ln M).

    They depend on seed and running number alone, not on how nodes came in batches, and compare integers, so that no
    machine's logarithm matters.
    """
    draws = _random(config.seed, _LEVELS, first, count)
    levels = np.zeros(count, np.uint8)
    for level in range(1, _HIGHEST_LEVEL + 1):
        reaches = draws < np.uint64(2**64 // config.M**level)
        if not reaches.any():
            break
        levels += reaches
    return levels


def shuffled(config: HnswConfig, first: int, nodes: NDArray[np.int32]) -> NDArray[np.int32]:
    """The nodes, of running numbers from `first` on, in the order that the seed gives."""
    return nodes[np.argsort(_random(config.seed, _ORDER, first, len(nodes)), kind="stable")]


def _random(seed: int, stream: int, first: int, count: int) -> NDArray[np.uint64]:
    """(count,) uint64, evenly spread: SplitMix64 (Steele, Lea & Flood 2014) of seed, stream and running number."""
    numbers = np.arange(first, first + count, dtype=np.uint64)
    origin = _mixed(np.array([seed], np.uint64) + np.array([stream], np.uint64) * _EVEN_STEP)
    return _mixed(origin + _EVEN_STEP * (numbers + np.uint64(1)))


def _mixed(z: NDArray[np.uint64]) -> NDArray[np.uint64]:
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))
