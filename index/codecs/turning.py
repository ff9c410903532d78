"""A random turn that costs d log d, by Walsh-Hadamard transforms: no matrix is kept, and none is multiplied with.

A transform mixes a power of two of numbers. Where there are others it meets the first so many and the last so many by turns, and
between two of them the halves of the vector meet (as in Kac's walk), so that every number reaches every place. Before each
transform signs change at random. Sums are float64, each in one order: the same for a vector in whatever batch, compiled or not.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from vecdb.index.codecs.compiled import kernels_for

Signs = NDArray[np.int8]  # (ROUNDS, d), -1 or 1
Wide = NDArray[np.float64]
ROUNDS = 4


def random_signs(size: int, seed: int) -> Signs:
    drawn: Signs = np.random.default_rng([seed, size]).integers(0, 2, (ROUNDS, size), np.int8) * 2 - 1
    return drawn.astype(np.int8)


def turned(values: Wide, signs: Signs) -> Wide:
    """(N, d), turned."""
    compiled = kernels_for(len(values))
    if compiled is not None:
        made = values.copy()
        compiled.turn_rows(made, signs)
        return made
    for r in range(ROUNDS):
        values = _halves_met(_transformed(values * signs[r], r))
    return values


def turned_back(values: Wide, signs: Signs) -> Wide:
    """What `turned` makes these of, but for rounding. Each step but the signs is its own inverse."""
    for r in reversed(range(ROUNDS)):
        values = _transformed(_halves_met(values), r) * signs[r]
    return values


def _transformed(values: Wide, turn: int) -> Wide:
    """The first or the last numbers, by their Hadamard transform: sums of neighbours before their differences, log2(p) times."""
    size = values.shape[1]
    power = 1 << (size.bit_length() - 1)
    start = 0 if turn % 2 == 0 else size - power
    part = values[:, start : start + power]
    for _ in range(power.bit_length() - 1):
        part = np.concatenate([part[:, ::2] + part[:, 1::2], part[:, ::2] - part[:, 1::2]], axis=1)
    made = values.copy()
    made[:, start : start + power] = part * (1 / math.sqrt(power))
    return made


def _halves_met(values: Wide) -> Wide:
    half = values.shape[1] // 2
    if not half:
        return values
    made, low, high = values.copy(), values[:, :half], values[:, -half:]
    made[:, :half], made[:, -half:] = (low + high) * math.sqrt(0.5), (low - high) * math.sqrt(0.5)
    return made
