"""Exact search on a GPU over the vectors of an index, for those who search one: same answers as the scan on the CPU, up to
float32 rounding. Needs the extra [gpu], and imports it when the first scan is made.
"""

from __future__ import annotations

from functools import partial
from typing import Protocol

import numpy as np

from vecdb.index.base import Mask, Metric, Neighbours, Vectors
from vecdb.index.exact import exact_search


class Scan(Protocol):
    """What `VectorView` asks of it."""

    def search(self, queries: Vectors, k: int, allowed: Mask | None) -> Neighbours: ...


class Scanner(Protocol):
    """Makes a scan of vectors (N, D), which may be read-only memory maps."""

    def __call__(self, vectors: Vectors, metric: Metric) -> Scan: ...


def scanner_on(device: str) -> Scanner | None:
    """The maker of scans for `device=` of a database; None for the CPU, which needs none. Raises as gpu.launch.chosen_device."""
    if device == "cpu":
        return None
    from vecdb.gpu.launch import chosen_device

    chosen = chosen_device(device)
    return None if chosen == "cpu" else partial(DeviceScan, device=chosen)


class DeviceScan:
    """Half-precision copies choose, float32 copies score: six bytes a number on the device, or in blocks copied to it.

    in_one_block: however many there are, for those who walk among them. Raises MemoryError where neither device nor host has
    room for them.
    """

    def __init__(self, vectors: Vectors, metric: Metric, *, device: str, in_one_block: bool = False) -> None:
        from vecdb.gpu.corpus import Corpus
        from vecdb.gpu.launch import OutOfDeviceMemory, need_triton

        need_triton()
        import torch

        self.metric: Metric = metric
        self._vectors = vectors
        # Vectors are at unit length under cosine, as in every index, so that it is the inner product.
        product: Metric = "l2" if metric == "l2" else "ip"
        corpus = partial(Corpus, vectors, metric=product, exact="float32", device=device)
        try:
            self.corpus = corpus(block_rows=max(len(vectors), 1)) if in_one_block else corpus()
        except torch.cuda.OutOfMemoryError as error:
            raise OutOfDeviceMemory(str(error)) from error

    def search(self, queries: Vectors, k: int, allowed: Mask | None) -> Neighbours:
        """The k nearest of the allowed positions for each of (B, D) queries. The CPU answers where k is more than kernels
        take, and where the device has no room to search.
        """
        import torch

        from vecdb.gpu.launch import OutOfDeviceMemory
        from vecdb.gpu.topk import MOST_ROWS, topk

        if k > MOST_ROWS:
            return exact_search(self._vectors, queries, k, self.metric, allowed)
        mask = None if allowed is None else torch.from_numpy(np.array(allowed))
        try:
            found = topk(torch.from_numpy(np.array(queries, np.float32)), self.corpus, k, allowed=mask)
        except OutOfDeviceMemory:
            return exact_search(self._vectors, queries, k, self.metric, allowed)
        scores, rows = found.scores.cpu().numpy(), found.rows.cpu().numpy()
        positions = np.full((len(queries), k), -1, np.int64)
        distances = np.full((len(queries), k), np.inf, np.float32)
        positions[:, : rows.shape[1]] = rows
        distances[:, : rows.shape[1]] = np.maximum(1 - scores, 0) if self.metric == "cosine" else -scores
        count = len(self._vectors) if allowed is None else int(np.count_nonzero(allowed))
        return Neighbours(positions, distances, np.full(len(queries), count, np.int64), way="device scan")
