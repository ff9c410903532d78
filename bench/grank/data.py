"""MovieLens ml-latest-small of VECDB_DATA: the last 201 ratings of each of 610 users, every rating one thing taken.

Split by time for each user (leave one out): the last film is the test, the one before it chooses epochs, the rest is learned
from. Films that a user rated in the same second are in no order; they get a random one, because the file has them by number, and
a model would learn to count.
"""

from __future__ import annotations

import csv
import gzip
from dataclasses import dataclass

import numpy as np

from bench.data import data_folder

_FOLDER = "rec/ml-latest-small"
_LONGEST = 201  # a quarter of the users have more, up to 2,698 (SASRec, too, is measured on the last 200 of MovieLens)


@dataclass(frozen=True)
class Split:
    """histories: of each user, oldest first, without the test; the last of them is what epochs are chosen by. tests: the item to
    be found by each; items: the size of the catalogue.
    """

    name: str
    histories: list[list[str]]
    tests: list[str]
    items: int


def load(name: str, seed: int = 0) -> Split:
    """ "movielens", or "chains": made up, small, the next item mostly told by the last."""
    histories = _chains(seed) if name == "chains" else _movielens(seed)
    items = len({item for history in histories for item in history})
    return Split(name, [history[:-1] for history in histories], [history[-1] for history in histories], items)


def _movielens(seed: int) -> list[list[str]]:
    rng = np.random.default_rng(seed)
    taken: dict[str, list[tuple[int, float, str]]] = {}
    path = data_folder() / _FOLDER / "ratings.csv.gz"
    with gzip.open(path, "rt", newline="") as file:
        for row in csv.DictReader(file):
            taken.setdefault(row["userId"], []).append((int(row["timestamp"]), rng.random(), row["movieId"]))
    return [[item for _, _, item in sorted(one)[-_LONGEST:]] for one in taken.values()]


def _chains(seed: int) -> list[list[str]]:
    rng = np.random.default_rng(seed)
    follower = rng.permutation(80)
    made = []
    for _ in range(40):
        history = [int(rng.integers(80))]
        while len(history) < 12:
            history.append(int(follower[history[-1]] if rng.random() < 0.9 else rng.integers(80)))
        made.append([f"i{item}" for item in history])
    return made
