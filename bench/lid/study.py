"""What is measured: builds in several orders, and sets of known intrinsic dimension. Each yields lines of results."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.lid.engines import EF_CONSTRUCTION, ENGINES, Batched, Graph, M
from bench.lid.orders import order_of
from bench.truth import K
from bench.vectors import VectorSet, exact_neighbours
from vecdb.index.lid import LID_K, pointwise_lid

Line = dict[str, Any]

EFS = (10, 12, 14, 17, 20, 24, 28, 34, 40, 48, 56, 68, 80, 96, 112, 136, 160, 192, 224, 272, 320, 384, 448, 544, 640)
_ENOUGH = 0.998  # a sweep ends above this recall: beyond, no order can show

LID_KS = (20, 50, 100, 200)
_LID_SAMPLE = 2_000

DIMENSIONS = (2, 4, 8, 12, 16, 24, 32, 48)
_AMBIENT = 128
_DIMENSION_EF = 32


def study_set(data: VectorSet, engines: Sequence[str], orders: Sequence[str], seeds: dict[str, int]) -> Iterator[Line]:
    """Its LID, then a line for each build; seeds says how many builds of each engine and order there are."""
    begun = time.perf_counter()
    lid = pointwise_lid(data.base)
    yield {"part": "lid", "data": describe(data), **_lid_of(data, lid), "seconds": time.perf_counter() - begun}
    # Seed by seed, so that a run that is cut short has all orders of the seeds it came to.
    for seed in range(max(seeds[engine] for engine in engines)):
        for engine in engines:
            if seed < seeds[engine]:
                for order in orders:
                    yield _built(data, lid, engine, order, seed)


def study_dimension(rows: int, queries: int, seeds: int, dimensions: Sequence[int] = DIMENSIONS) -> Iterator[Line]:
    """Recall at fixed parameters as the intrinsic dimension grows: even points of a subspace's unit ball, in random order."""
    for latent in dimensions:
        for seed in range(seeds):
            base, asked = _in_subspace(rows, queries, latent, seed)
            truth, distances = exact_neighbours(base, asked, "l2", K)
            data = VectorSet(f"ball-{latent}", "l2", base, asked, truth, distances)
            lid = pointwise_lid(base, rows=np.arange(min(_LID_SAMPLE, rows)))
            points = sweep(Batched(base, "l2", seed), data, np.arange(rows), (_DIMENSION_EF,))
            yield {
                "part": "dimension",
                "data": describe(data),
                "latent": latent,
                "seed": seed,
                "settings": _settings(),
                "lid_mean": float(lid.mean()),
                "points": points,
            }


def sweep(graph: Graph, data: VectorSet, order: NDArray[np.int64], efs: Sequence[int]) -> list[dict[str, Any]]:
    """Recall and distances at each ef, until recall is enough. order (N,): the row of each position."""
    points: list[dict[str, Any]] = []
    for ef in efs:
        rows, work, others = graph.search(data.queries, K, ef)
        recall = data.recall(order[rows])
        also = {f"recall_{name}": data.recall(order[found]) for name, found in others.items()}
        points.append({"ef": ef, "recall": recall, "work": work, **also})
        if recall > _ENOUGH:
            break
    return points


def describe(data: VectorSet) -> dict[str, Any]:
    return {
        "name": data.name,
        "metric": data.metric,
        "rows": len(data.base),
        "dimension": data.base.shape[1],
        "queries": len(data.queries),
        **data.checksums(),
    }


def _built(data: VectorSet, lid: NDArray[np.float64], engine: str, name: str, seed: int) -> Line:
    order = order_of(name, data.base, lid, seed)
    vectors = np.ascontiguousarray(data.base[order])
    begun = time.perf_counter()
    graph = ENGINES[engine](vectors, data.metric, seed)
    build_s = time.perf_counter() - begun
    return {
        "part": "order",
        "data": describe(data),
        "engine": engine,
        "order": name,
        "seed": seed,
        "settings": _settings(),
        "build_s": build_s,
        "points": sweep(graph, data, order, EFS),
    }


def _settings() -> dict[str, Any]:
    return {"M": M, "ef_construction": EF_CONSTRUCTION, "k": K, "lid_k": LID_K}


def _lid_of(data: VectorSet, lid: NDArray[np.float64]) -> dict[str, Any]:
    """How LID is spread, and how much of its order another k would keep (Spearman's rank correlation, on a sample)."""
    p5, median, p95 = np.percentile(lid, [5, 50, 95])
    drawn = np.sort(np.random.default_rng(0).choice(len(lid), min(_LID_SAMPLE, len(lid)), replace=False))
    by_k = []
    for k in LID_KS:
        other = pointwise_lid(data.base, k=k, rows=drawn)
        alike = float(np.corrcoef(_ranks(other), _ranks(lid[drawn]))[0, 1])
        by_k.append({"k": k, "mean": float(other.mean()), "median": float(np.median(other)), "rank_correlation": alike})
    return {
        "lid_k": LID_K,
        "mean": float(lid.mean()),
        "median": float(median),
        "p5": float(p5),
        "p95": float(p95),
        "by_k": by_k,
    }


def _ranks(values: NDArray[np.float64]) -> NDArray[np.int64]:
    return np.argsort(np.argsort(values, kind="stable"), kind="stable")


def _in_subspace(rows: int, queries: int, latent: int, seed: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    rng = np.random.default_rng(seed)
    directions = rng.standard_normal((rows + queries, latent))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    balls = directions * rng.uniform(size=(rows + queries, 1)) ** (1 / latent)
    basis = np.linalg.qr(rng.standard_normal((_AMBIENT, latent)))[0]
    points = (balls @ basis.T).astype(np.float32)
    return points[:rows], points[rows:]
