"""What an index library must do here to be measured.

HNSW graphs are built with M = 16 links a node (32 on the base level), flat graphs with a degree of 32, both with a beam of
200; whatever else a library lets one choose is as its documentation or its own benchmark has it, and its file says so.
Vectors of cosine sets have unit length, so a library may rank them by inner product. Standard library and NumPy only.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

Metric = Literal["l2", "cosine"]
Setting = dict[str, Any]
Vectors = NDArray[np.float32]
Rows = NDArray[np.integer[Any]]

M = 16
DEGREE = 2 * M
EF_CONSTRUCTION = 200

BEAMS = (10, 12, 14, 16, 20, 24, 28, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 256, 320, 384, 512, 640, 768, 1024)


class Peer(Protocol):
    """Made with (metric, dimension, threads); threads bounds what it may use, for building as for searching.

    built_with: the settings of its graph. ladder: its settings for a search, cheapest first.
    """

    built_with: Setting
    ladder: Sequence[Setting]

    def build(self, base: Vectors) -> None:
        """Index base (N, D) float32. Whatever of it is wanted later is kept or copied."""

    def save(self, folder: Path) -> None:
        """Write all that `load` needs into an empty folder."""

    def load(self, folder: Path) -> None:
        """Bring into memory what `save` wrote."""

    def tune(self, setting: Setting) -> None:
        """Use this one of the ladder from now on."""

    def batch(self, queries: Vectors, k: int) -> Rows:
        """(B, k) nearest rows of (B, D) queries, in one call of the library."""

    def one(self, query: Vectors, k: int) -> Rows:
        """(k,) nearest rows of one (D,) query, by the way that is quickest for the library."""
