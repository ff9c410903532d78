"""A graph with links by the rules of gpu.links and one that the CPU builds, both walked by the CPU's engine: what each finds, and
how many distances that takes. Needs no GPU: without one, links come from the same rules in plain PyTorch, in minutes.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from bench.vectors import exact_neighbours, load_set
from vecdb.gpu import reference
from vecdb.index.base import HnswConfig, Metric, Vectors
from vecdb.index.device_build import build_on, level_by_level
from vecdb.index.hnsw import HnswIndex
from vecdb.index.imports import adopt
from vecdb.index.levels import draw_levels

_K = 10
_BEAMS = (16, 32, 48, 64, 96, 128, 192, 256)
_TARGETS = (0.9, 0.95, 0.99)
_ASKED = 1000


def engine(name: str) -> Iterator[dict[str, Any]]:
    """A line for each build and beam, and one for each recall: the distances that it takes, between the beams around it."""
    base, queries, truth, metric = _set(name)
    config = HnswConfig()
    for what, build in (("built by the CPU", _by_cpu), ("linked by the rules of the GPU", _by_rules)):
        start = time.perf_counter()
        index = build(base, metric, config)
        case = {"set": name, "rows": len(base), "dim": base.shape[1], "what": what}
        seconds = time.perf_counter() - start
        found = []
        for ef in _BEAMS:
            answer = index.search(queries, _K, ef=ef)
            recall = np.mean([len(set(a) & set(b)) for a, b in zip(answer.positions.tolist(), truth.tolist())]) / _K
            found.append((float(recall), float(answer.work.mean())))
            yield {**case, "ef": ef, "recall": found[-1][0], "work": found[-1][1], "build_s": seconds}
        recalls, work = np.array(found).T
        for target in _TARGETS:
            if recalls[0] <= target <= recalls[-1]:
                needed = float(np.exp(np.interp(target, recalls, np.log(work))))
                yield {**case, "what": f"{what}, at recall {target}", "recall": target, "work": needed}


def _by_cpu(base: Vectors, metric: Metric, config: HnswConfig) -> HnswIndex:
    return HnswIndex.build(base, metric, config)


def _by_rules(base: Vectors, metric: Metric, config: HnswConfig) -> HnswIndex:
    if torch.cuda.is_available():
        return build_on("cuda:0", base, metric, config)
    vectors = torch.from_numpy(base.copy())

    def link(members: NDArray[np.int32], own: int, most: int) -> NDArray[np.int32]:
        made: NDArray[np.int32] = reference.link_all(
            vectors[torch.from_numpy(members).long()], own=own, most=most, metric="l2" if metric == "l2" else "ip"
        ).numpy()
        return made

    levels = draw_levels(config, 0, len(base))
    return adopt(base, *level_by_level(link, levels, config), levels, metric, config, None)


def _set(name: str) -> tuple[Vectors, Vectors, NDArray[np.int32], Metric]:
    """Base, queries, their true neighbours, metric. "latent-N": N vectors like those of operations.embeddings, in NumPy."""
    if not name.startswith("latent-"):
        one = load_set(name)
        queries = np.ascontiguousarray(one.queries[:_ASKED])
        return np.ascontiguousarray(one.base), queries, one.truth[:_ASKED, :_K], one.metric
    layers, draws = np.random.default_rng(99), np.random.default_rng(0)
    first, second = (layers.standard_normal(shape, np.float32) for shape in ((32, 512), (512, 768)))
    count = int(name.removeprefix("latent-"))
    made = np.maximum(draws.standard_normal((count + _ASKED, 32), np.float32) @ first, 0) @ second
    made /= np.linalg.norm(made, axis=1, keepdims=True)
    base, queries = made[:count].copy(), made[count:].copy()
    return base, queries, exact_neighbours(base, queries, "cosine", _K)[0], "cosine"
