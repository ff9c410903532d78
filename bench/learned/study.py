"""What a way to cut is measured by."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from bench.learned.partitions import WAYS, Cut, Material
from bench.vectors import VectorSet

K = 10
PROBES = (1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 20, 24, 32)
_WANTED = 0.9
_ROUNDS = 5
_AT_ONCE = 64


def study(data: VectorSet, bins: int, seed: int, ways: Sequence[str]) -> Iterator[dict[str, Any]]:
    """One line for each way; then one that sets the times of queries of the indexes beside each other, if there are several."""
    material = Material.of(data, bins, seed)
    described = {"name": data.name, "rows": len(data.base), "dimension": data.base.shape[1], "bins": bins, "seed": seed}
    answering: dict[str, Any] = {}
    for name in ways:
        cut = WAYS[name](material)
        points = measured(cut, data)
        sizes = np.bincount(cut.labels, minlength=cut.scores.shape[1])
        line = {
            "part": "partition",
            "data": described,
            "way": name,
            "build_s": cut.build_s,
            "cut": cut.cut,
            "fullest": float(sizes.max() / sizes.mean()),
            "points": points,
            "at_wanted": at_recall(points, _WANTED),
        }
        if cut.index is not None:
            answering[name] = cut.index
        yield line
    if len(answering) > 1:
        yield {"part": "speed", "data": described, "recall": _WANTED, "qps": speeds(answering, data)}


def measured(cut: Cut, data: VectorSet) -> list[dict[str, float]]:
    """Recall@10 and the rows in the likeliest bins, for each of PROBES: of the cut alone, whatever then scans the bins."""
    order = np.argsort(-cut.scores, axis=1, kind="stable")
    place = np.argsort(order, axis=1, kind="stable")
    sizes = np.bincount(cut.labels, minlength=cut.scores.shape[1])
    truth = data.truth[:, :K]
    needed = np.take_along_axis(place, cut.labels[truth], axis=1)
    rows = np.cumsum(sizes[order], axis=1) / len(cut.labels)
    points = []
    for probes in PROBES:
        if probes > order.shape[1]:
            break
        scanned = rows[:, probes - 1]
        points.append(
            {
                "probes": probes,
                "recall": float((needed < probes).mean()),
                "scanned": float(scanned.mean()),
                "scanned_p95": float(np.quantile(scanned, 0.95)),
            }
        )
    return points


def at_recall(points: Sequence[dict[str, float]], wanted: float) -> dict[str, float] | None:
    """Rows scanned at a recall, between the two points around it; None if it was not reached."""
    for before, after in zip([{"recall": 0.0, "scanned": 0.0, "scanned_p95": 0.0}, *points], points):
        if after["recall"] >= wanted:
            share = (wanted - before["recall"]) / max(after["recall"] - before["recall"], 1e-12)
            return {key: before[key] + share * (after[key] - before[key]) for key in ("scanned", "scanned_p95")}
    return None


def speeds(indexes: dict[str, Any], data: VectorSet) -> dict[str, dict[str, float]]:
    """Queries per second in a batch on one thread, each with the fewest probes that reach the recall; rounds in turn."""
    from threadpoolctl import threadpool_limits

    queries = np.ascontiguousarray(data.queries)
    with threadpool_limits(1):
        chosen = {name: _fewest(index, data, queries) for name, index in indexes.items()}
        rates: dict[str, list[float]] = {name: [] for name in indexes}
        for _ in range(_ROUNDS):
            for name, index in indexes.items():
                since = time.perf_counter()
                _answered(index, queries, chosen[name])
                rates[name].append(len(queries) / (time.perf_counter() - since))
    return {
        name: {
            "probes": chosen[name],
            "qps": statistics.median(rates[name]),
            "recall": data.recall(_answered(indexes[name], queries, chosen[name])),
        }
        for name in indexes
    }


def _fewest(index: Any, data: VectorSet, queries: Any) -> int:
    for probes in range(1, 200):
        if data.recall(_answered(index, queries, probes)) >= _WANTED:
            return probes
    raise SystemExit(f"{index!r} does not reach a recall of {_WANTED}")


def _answered(index: Any, queries: Any, probes: int) -> Any:
    if hasattr(index, "nprobe"):  # Faiss
        import faiss

        faiss.omp_set_num_threads(1)
        index.nprobe = probes
        return index.search(queries, K)[1]
    return index.search(queries, K, ef=probes).positions
