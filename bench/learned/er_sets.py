"""Tables of entity resolution, cut into five parts by entity; vectors of the encoder, and of encoders trained on three parts."""

from __future__ import annotations

import gzip
import hashlib
import json
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bench.data import CACHE, data_folder
from vecdb.blocking.encoders import Frozen
from vecdb.blocking.hashing import HashConfig
from vecdb.blocking.tables import Table, table_of
from vecdb.blocking.training import Matches

Matrix = NDArray[np.float32]
Places = NDArray[np.int64]

NAMES = ("abt-buy", "amazon-google", "dblp-acm")
FOLDS = 5


@dataclass(frozen=True)
class ErSet:
    """Two tables, their true matches, and the part (0 to 4) of each record: what matches is in one part, alone on either side."""

    name: str
    a: Table
    b: Table
    matches: Matches
    parts: tuple[Places, Places]
    of_matches: Places

    def matches_in(self, *parts: int) -> Matches:
        chosen = np.isin(self.of_matches, parts)
        return Matches(self.matches.left[chosen], self.matches.right[chosen])

    def records_in(self, *parts: int) -> tuple[Places, Places]:
        a, b = (np.flatnonzero(np.isin(side, parts)) for side in self.parts)
        return a, b

    def texts(self) -> tuple[list[str], list[str]]:
        return self.a.texts(self.a.fields), self.b.texts(self.a.fields)

    @property
    def checksum(self) -> str:
        return hashlib.sha256(json.dumps(self.texts()).encode()).hexdigest()[:12]


def roles(fold: int) -> tuple[tuple[int, ...], int, int]:
    """Parts to train on, to settle things on, and to test on: 3 to 1 to 1, each part tested once."""
    valid = (fold + 1) % FOLDS
    return tuple(part for part in range(FOLDS) if part not in (fold, valid)), valid, fold


def load_er(name: str, seed: int = 0) -> ErSet:
    """Raises SystemExit where the data is absent."""
    folder = data_folder() / "er" / name
    if not (folder / "matches.tsv").exists():
        raise SystemExit(f"{folder} is not there; set VECDB_DATA to the folder of data sets")
    tables = []
    for side in "ab":
        with gzip.open(folder / f"{side}.jsonl.gz", "rt", encoding="utf-8") as lines:
            tables.append(table_of(map(json.loads, lines)))
    places = [table.places() for table in tables]
    pairs = [line.split("\t") for line in (folder / "matches.tsv").read_text().splitlines()[1:]]
    left, right = (np.array([place[pair[side]] for pair in pairs]) for side, place in enumerate(places))
    return cut(name, tables[0], tables[1], Matches(left, right), seed)


def cut(name: str, a: Table, b: Table, matches: Matches, seed: int) -> ErSet:
    """Matches here are one to one, so that entities are pairs; records without a match are spread over the parts as well."""
    random = np.random.default_rng(seed)
    of_matches = random.permutation(len(matches)) % FOLDS
    parts = []
    for table, own in ((a, matches.left), (b, matches.right)):
        part = np.full(len(table), -1)
        part[own] = of_matches
        alone = np.flatnonzero(part < 0)
        part[alone] = random.permutation(len(alone)) % FOLDS
        parts.append(part)
    return ErSet(name, a, b, matches, (parts[0], parts[1]), of_matches)


def frozen_vectors(data: ErSet) -> tuple[Matrix, Matrix]:
    """By the default model; embedded on first use."""

    def made() -> tuple[Matrix, Matrix]:
        from vecdb.embedding import load_embedder

        model = Frozen(load_embedder("default"))
        a, b = data.texts()
        return model.encode(a), model.encode(b)

    return _kept(f"{data.name}-frozen-{data.checksum}", made)


def tuned_vectors(data: ErSet, fold: int, config: HashConfig) -> tuple[Matrix, Matrix]:
    """By an encoder whose last layers were trained on the training parts of this fold; trained on first use."""

    def made() -> tuple[Matrix, Matrix]:
        from vecdb.blocking.tuned import Tuned, tune

        learning, valid, test = roles(fold)
        unseen = Matches(*data.records_in(valid, test))
        layers = tune(data.texts(), data.matches_in(*learning), unseen, config)
        encoder = Tuned(layers)
        a, b = data.texts()
        return encoder.encode(a), encoder.encode(b)

    return _kept(f"{data.name}-tuned{fold}-{config.radius:g}-{config.gap:g}-{config.seed}-{data.checksum}", made)


def is_tuned(data: ErSet, fold: int, config: HashConfig) -> bool:
    name = f"{data.name}-tuned{fold}-{config.radius:g}-{config.gap:g}-{config.seed}-{data.checksum}"
    return (CACHE / "blocking" / f"{name}.npz").exists()


def _kept(name: str, make) -> tuple[Matrix, Matrix]:  # type: ignore[no-untyped-def]
    path = CACHE / "blocking" / f"{name}.npz"
    if not path.exists():
        a, b = make()
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_suffix(".unfinished")
        with unfinished.open("wb") as file:
            np.savez(file, a=a.astype(np.float16), b=b.astype(np.float16))
        unfinished.rename(path)
    with np.load(path) as saved:
        return saved["a"].astype(np.float32), saved["b"].astype(np.float32)
