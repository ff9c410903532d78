"""The learned hash: a linear head on an encoder's vectors, trained so that what matches collides and what does not is kept apart.

A hash is (R, cR)-sensitive if matches lie within R of each other and others beyond cR. Learned, that definition is the loss
(Wang et al. 2023, "Neural Locality Sensitive Hashing for Entity Blocking"): max(R, d(p, q)) - min(cR, d(p, r)) for a match (p, q)
and another r, whose gradient is that of relu(d(p, q) - R) + relu(cR - d(p, r)). Others are mined: the nearest ones, found anew
before each epoch, because any others are beyond cR already and teach nothing. Outputs have unit length: otherwise the network
could satisfy the loss by making the space larger.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from vecdb.blocking.codes import unit
from vecdb.errors import InvalidInput

Matrix = NDArray[np.float32]
Loss = Literal["hinge", "triplet"]


@dataclass(frozen=True, slots=True)
class HashConfig:
    """dimension: of the output. radius, gap: R and c. negatives: how many of the nearest others each record is trained against.

    batch: matches in a step; rate: of Adam. loss: "triplet" is relu(d(p, q) - d(p, r) + (c - 1) R), for comparison.
    """

    dimension: int = 64
    radius: float = 0.8
    gap: float = 1.5
    epochs: int = 8
    negatives: int = 6
    batch: int = 64
    rate: float = 1e-3
    loss: Loss = "hinge"
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("dimension", "epochs", "negatives", "batch"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise InvalidInput(f"{name} is {value!r}; it must be a whole number of at least 1")
        if not 0 < self.radius < math.inf or not 1 < self.gap < math.inf or self.radius * self.gap > 2:
            raise InvalidInput(
                f"radius is {self.radius!r} and gap {self.gap!r}; unit vectors are at most 2 apart: radius must be above 0, gap "
                "above 1, and their product at most 2"
            )
        if not 0 < self.rate < math.inf:
            raise InvalidInput(f"rate is {self.rate!r}; it must be above 0")
        if self.loss not in ("hinge", "triplet"):
            raise InvalidInput(f"loss is {self.loss!r}; it must be 'hinge' or 'triplet'")


@dataclass(frozen=True, slots=True)
class Head:
    """matrix (D, d): what a vector is multiplied by before it is brought to unit length."""

    matrix: Matrix

    def __call__(self, vectors: Matrix) -> Matrix:
        """(N, D) -> (N, d) unit rows; a zero row stays zero."""
        return unit(vectors @ self.matrix)

    @classmethod
    def of_directions(cls, vectors: Matrix, dimension: int) -> Head:
        """What an untrained head is: the directions in which these vectors (N, D) are largest, which keep inner products best.

        dimension is lowered to what the vectors span.
        """
        _, sizes, directions = np.linalg.svd(vectors.astype(np.float64), full_matrices=False)
        dimension = min(dimension, max(1, int((sizes > 1e-6 * max(sizes[0], 1e-30)).sum())))
        signs = np.sign(directions[:, np.argmax(np.abs(directions), axis=1)].diagonal())  # the same on every machine
        return cls(np.ascontiguousarray((directions * signs[:, None])[:dimension].T, dtype=np.float32))
