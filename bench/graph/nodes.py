"""FastRP on a real graph: users and the films that they liked (MovieLens). Do the vectors know a hidden fifth of the edges?

The area under the ROC curve is that of hidden edges against as many pairs that were never rated, by cosine. Beside FastRP stand
random vectors and a truncated SVD of the normalised adjacency matrix. What hubs do is seen in the mean degree of films' ten
nearest films.
"""

from __future__ import annotations

import csv
import gzip
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.data import data_folder
from vecdb.index.adjacency import Adjacency
from vecdb.index.fastrp import FastRPConfig, embed
from vecdb.index.fastrp_tuning import tune

_LIKED = 4.0


def measure() -> Iterator[dict[str, Any]]:
    users, films, edges = _liked()
    rng = np.random.default_rng(0)
    hidden = rng.random(len(edges)) < 0.2
    ends = edges[~hidden] + np.array([0, users])
    graph = Adjacency.undirected(users + films, ends[:, 0], ends[:, 1], np.ones(len(ends)))
    test = edges[hidden] + np.array([0, users])
    seen = np.diff(graph.starts) > 0
    test = test[seen[test].all(axis=1)]  # a film without any edge left has no vector
    never = _never(edges, users, films, len(test), rng) + np.array([0, users])
    never = never[seen[never].all(axis=1)]
    about = {"what": "graph", "users": users, "films": films, "edges": len(ends), "hidden": len(test)}
    yield about
    for exponent in (0.0, -0.25, -0.5, -0.75, -1.0):
        yield _of_fastrp(graph, users, test, never, FastRPConfig(degree_exponent=exponent))
    for weights in ((1.0,), (1.0, 1.0), (0.0, 1.0, 1.0), (0.0, 0.0, 1.0, 4.0)):
        yield _of_fastrp(graph, users, test, never, FastRPConfig(weights=weights))
    for sparsity in (3.0, float(np.sqrt(len(graph)))):
        yield _of_fastrp(graph, users, test, never, FastRPConfig(sparsity=sparsity))
    yield from _tuned(graph, users, test, never)
    began = time.perf_counter()
    vectors = _truncated(graph, users)
    line = {"what": "svd of D^-1/2 A D^-1/2", "seconds": time.perf_counter() - began}
    yield line | _judged(graph, users, vectors, test, never)
    yield {"what": "random"} | _judged(graph, users, rng.standard_normal(vectors.shape), test, never)


def _tuned(graph: Adjacency, users: int, test: NDArray[np.int64], never: NDArray[np.int64]) -> Iterator[dict[str, Any]]:
    """Settings chosen by links that are hidden from what is left of the graph; none of the test's edges is among them."""
    for given in (FastRPConfig(), FastRPConfig(weights=(0.0, 0.0, 1.0, 4.0))):
        began = time.perf_counter()
        tuning = tune(graph, given)
        line = {"tuned from": list(given.weights), "tuning_s": time.perf_counter() - began, "trials": tuning.trials}
        yield _of_fastrp(graph, users, test, never, tuning.config) | line


def _of_fastrp(
    graph: Adjacency, users: int, test: NDArray[np.int64], never: NDArray[np.int64], config: FastRPConfig
) -> dict[str, Any]:
    embed(graph, config)  # compiled
    began = time.perf_counter()
    found = embed(graph, config)
    line = {
        "what": "fastrp",
        "degree_exponent": config.degree_exponent,
        "weights": list(config.weights),
        "sparsity": config.sparsity,
        "seconds": time.perf_counter() - began,
    }
    return line | _judged(graph, users, found.vectors, test, never)


def _judged(
    graph: Adjacency, users: int, vectors: NDArray[Any], test: NDArray[np.int64], never: NDArray[np.int64]
) -> dict[str, float]:
    unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    good, bad = (np.einsum("ed,ed->e", unit[pairs[:, 0]], unit[pairs[:, 1]]) for pairs in (test, never))
    ranks = np.argsort(np.argsort(np.concatenate([good, bad]), kind="stable"), kind="stable")
    area = (ranks[: len(good)].sum() - len(good) * (len(good) - 1) / 2) / (len(good) * len(bad))
    degrees = np.diff(graph.starts)
    films = np.flatnonzero(degrees[users:] > 0) + users
    near = unit[films] @ unit[films].T
    np.fill_diagonal(near, -np.inf)
    nearest = films[np.argpartition(-near, 10, axis=1)[:, :10]]
    return {"auc": float(area), "degree of 10 nearest": float(degrees[nearest].mean())}


def _truncated(graph: Adjacency, users: int, dimension: int = 128) -> NDArray[np.float64]:
    """The first singular vectors of the normalised adjacency matrix, users by films, scaled by the singular values' roots."""
    matrix = np.zeros((users, len(graph) - users))
    ends = graph.sources < users
    matrix[graph.sources[ends], graph.targets[ends] - users] = 1.0
    rows, columns = (np.maximum(matrix.sum(axis=axis), 1.0) for axis in (1, 0))
    u, s, vt = np.linalg.svd(matrix / np.sqrt(rows)[:, None] / np.sqrt(columns), full_matrices=False)
    scale = np.sqrt(s[:dimension])
    return np.concatenate([u[:, :dimension] * scale, vt[:dimension].T * scale])


def _liked() -> tuple[int, int, NDArray[np.int64]]:
    """How many users and films, and the edges (E, 2) between them."""
    with gzip.open(data_folder() / "rec" / "ml-latest-small" / "ratings.csv.gz", "rt") as file:
        liked = [(int(r["userId"]), int(r["movieId"])) for r in csv.DictReader(file) if float(r["rating"]) >= _LIKED]
    users, films = (np.unique([pair[side] for pair in liked], return_inverse=True) for side in (0, 1))
    return len(users[0]), len(films[0]), np.stack([users[1], films[1]], axis=1).astype(np.int64)


def _never(edges: NDArray[np.int64], users: int, films: int, count: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Pairs that are no edge, hidden or not."""
    drawn = np.stack([rng.integers(0, users, 2 * count), rng.integers(0, films, 2 * count)], axis=1)
    known = set(map(tuple, edges.tolist()))
    return np.array([pair for pair in drawn.tolist() if tuple(pair) not in known][:count], dtype=np.int64)
