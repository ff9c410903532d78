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


def measured_reach(grouped: Grouped, seed: int = 0, quantile: float = _REACH) -> float:
    """The distance within which half of the vectors have a foreign group's vector, measured on a sample: what is nearer than that
    says something, what is farther is what any group offers.

    Each sampled vector is compared with the nearest vector of one group drawn at random, not its own.
    """
    count = len(grouped)
    if count < 2:
        return 1.0
    random = np.random.default_rng([seed, 11])
    drawn = np.sort(random.permutation(len(grouped.positions))[:_PAIRS])
    own = np.searchsorted(grouped.starts, drawn, side="right") - 1
    other = (own + random.integers(1, count, len(drawn))) % count
    found = np.empty(len(drawn))
    for place, (number, group) in enumerate(zip(drawn.tolist(), other.tolist())):
        theirs = grouped.vectors(int(grouped.starts[group]), int(grouped.starts[group + 1]))
        found[place] = np.linalg.norm(theirs - grouped.vectors(number, number + 1), axis=1).min()
    reach = float(np.quantile(found, quantile))
    return reach if reach > 0 else 1.0
