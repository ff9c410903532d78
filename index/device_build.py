"""Graphs built on a GPU: the same index as the CPU builds, by other means. Needs the extra [gpu]."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vecdb.errors import InvalidInput
from vecdb.index.arguments import as_metric, as_vectors
from vecdb.index.base import HnswConfig
from vecdb.index.levels import draw_levels, shuffled

if TYPE_CHECKING:
    from vecdb.index.hnsw import HnswIndex


def build_on(
    device: str,
    vectors: ArrayLike,
    metric: str = "cosine",
    config: HnswConfig | None = None,
    *,
    threads: int | None = None,
) -> HnswIndex:
    """HnswIndex over vectors (N, D), its links made on a GPU ("cuda:0") from neighbours by exact search (vecdb.gpu.links).

    Nodes come in the order of the seed, whatever config.order and ef_construction say, and float16 decides between neighbours
    about as near. Nodes that the links leave out are linked on the CPU. Raises InvalidInput without such a device, or if the
    vectors do not fit into its memory.
    """
    from vecdb.gpu.corpus import Corpus
    from vecdb.index.imports import adopt

    config = config or HnswConfig()
    dimension = np.shape(vectors)[-1]
    checked = as_vectors(vectors, dimension)
    corpus = Corpus(
        checked, metric=as_metric(metric), codec="float8", device=device, group=8, block_rows=max(len(checked), 1)
    )
    if not corpus.is_resident:
        raise InvalidInput(f"{corpus!r} does not fit into the memory of {device}; build on the CPU")
    levels = draw_levels(config, 0, len(checked))
    base, upper = links_of(corpus, levels, config)
    return adopt(checked, base, upper, levels, as_metric(metric), config, threads)


def links_of(corpus: Any, levels: NDArray[np.uint8], config: HnswConfig) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """base (N, 2M) and upper (U, M) as index/graph.py tells, for the vectors of a corpus in one block."""
    import torch

    from vecdb.gpu.links import link_all, subset

    def link(members: NDArray[np.int32], own: int, most: int) -> NDArray[np.int32]:
        among = subset(corpus, torch.from_numpy(members).to(corpus.device, torch.int64))
        places: NDArray[np.int32] = link_all(among, own=own, most=most).cpu().numpy()
        return places

    return level_by_level(link, levels, config)


def level_by_level(
    link: Callable[[NDArray[np.int32], int, int], NDArray[np.int32]], levels: NDArray[np.uint8], config: HnswConfig
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """The same for link(members, own, most): places (n, most) of links among nodes (n,), which come in this order."""
    count, M = len(levels), config.M
    starts = np.cumsum(levels, dtype=np.int64) - levels
    base = np.full((count, 2 * M), -1, np.int32)
    upper = np.full((int(levels.sum()), M), -1, np.int32)
    coming = shuffled(config, 0, np.arange(count, dtype=np.int32))
    for level in range(int(levels.max(initial=0)) + 1):
        members = coming[levels[coming] >= level]
        if len(members) < 2:
            continue
        places = link(members, M, M if level else 2 * M)
        found = np.where(places >= 0, members[places], -1).astype(np.int32)
        if level:
            upper[starts[members] + level - 1] = found
        else:
            base[members] = found
    return base, upper
