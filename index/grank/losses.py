"""What training minimises: InfoNCE against sampled negatives, corrected for how likely each was to be drawn."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from vecdb.index.grank.histories import PADDING, Items

Tensor = torch.Tensor

_POWER = 0.75  # of popularity, in drawing


class Negatives:
    """Draws negatives: `in_batch` of a step's own targets, and `sampled` by popularity ** 0.75."""

    def __init__(self, counts: NDArray[np.int64], in_batch: int, sampled: int) -> None:
        """counts (n + 1,): how often each item is a target, that of PADDING 0."""
        self._in_batch, self._sampled = in_batch, sampled
        popular, tempered = counts.astype(np.float64), counts.astype(np.float64) ** _POWER
        self._likely = tempered / tempered.sum()
        self._total = np.cumsum(self._likely)
        # A step's targets are drawn by popularity itself.
        expected = in_batch * popular / popular.sum() + sampled * self._likely
        self.log_expected = np.log(np.maximum(expected, 1e-12)).astype(np.float32)

    def draw(self, targets: Items, rng: np.random.Generator) -> Items:
        """(N,): N = in_batch + sampled, in random order; targets (T,) are those of the step, without PADDING."""
        own = targets[rng.integers(len(targets), size=self._in_batch)]
        others = np.searchsorted(self._total, rng.random(self._sampled) * self._total[-1], side="right")
        return rng.permutation(np.concatenate([own, others])).astype(np.int64)


def info_nce(positive: Tensor, negative: Tensor, collides: Tensor, log_expected: Tensor) -> Tensor:
    """(T,): -log(exp(s+) / (exp(s+) + sum of exp(s_j) / expected_j)), with scores already divided by their temperature.

    positive (T,), negative (T, N) scores; log_expected (N,): log of how often each negative was to be expected in the sample,
    which makes the sum an unbiased estimate of that over all items (so in-batch negatives do not push popular items down).
    collides (T, N): where a negative is the target itself, which does not count.
    """
    others = (negative - log_expected).masked_fill(collides, float("-inf"))
    return torch.logsumexp(torch.cat([positive[:, None], others], 1), 1) - positive


def mean_over(losses: Tensor, targets: Tensor) -> Tensor:
    """The mean where there is a target."""
    there = targets != PADDING
    return losses[there].mean()
