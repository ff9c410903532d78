"""What a near vector of a group is worth, by its distance."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from vecdb.errors import InvalidInput

if TYPE_CHECKING:
    from vecdb.index.groups.exact import Grouped

USUAL_SHAPE = 0.4592  # the released code's
_PAIRS = 512  # vectors that the reach is measured from
_REACH = 0.5  # of the nearest distances between vectors and foreign groups lie so many below the reach


@dataclass(frozen=True, slots=True)
class GroupKernel:
    """s(r) = (1 - (r / reach)^a)^(1 / a) with a = shape / (1 - shape) for r < reach, else 0: a soft vote, 1 at distance 0.

    reach: p0, in Euclidean distance. shape: p1, in (0, 0.5]; at 0.5 the kernel is a straight line, below it falls faster.
    """

    reach: float
    shape: float = USUAL_SHAPE

    def __post_init__(self) -> None:
        if not self.reach > 0 or not np.isfinite(self.reach):
            raise InvalidInput(f"the kernel's reach is {self.reach}; it is a distance above 0")
        if not 0 < self.shape <= 0.5:
            raise InvalidInput(f"the kernel's shape is {self.shape}; it must lie above 0 and at most at 0.5")

    def __call__(self, distances: NDArray[np.floating]) -> NDArray[np.float64]:
        """Scores of Euclidean distances, of any shape."""
        power = self.shape / (1 - self.shape)
        share = np.minimum(np.asarray(distances, dtype=np.float64) / self.reach, 1.0)
        scores: NDArray[np.float64] = np.maximum(1.0 - share**power, 0.0) ** (1.0 / power)
        return scores


def measured_reach(grouped: Grouped, seed: int = 0) -> float:
    """The distance within which half of the vectors have a foreign group's vector, measured on a sample: what is nearer than that
    says something, what is farther is what any group offers.

    Each sampled vector is compared with the nearest vector of one group drawn at random, not its own.
    """
    from vecdb.index.groups.exact import nearest_in_groups

    random = np.random.default_rng([seed, 11])
    if len(grouped.starts) < 3 or not len(grouped.vectors):  # one group, or none
        return 1.0
    drawn = np.sort(random.permutation(len(grouped.vectors))[:_PAIRS])
    own = np.searchsorted(grouped.starts, drawn, side="right") - 1
    count = len(grouped.starts) - 1
    other = (own + random.integers(1, count, len(drawn))) % count
    found = np.empty(len(drawn))
    step = 64
    for start in range(0, len(drawn), step):
        few = slice(start, start + step)
        nearest = nearest_in_groups(grouped, grouped.vectors[drawn[few]])
        found[few] = nearest[np.arange(len(nearest)), other[few]]
    reach = float(np.quantile(found, _REACH))
    return reach if reach > 0 else 1.0
