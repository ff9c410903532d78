"""An HNSW index searched on a GPU: its vectors and its base links are uploaded as they are, nothing is built again.

Needs the extra [gpu]. A database that is given a GPU scans exactly (device_scan.py): at a million vectors that is faster than the
walks that others published, at any recall above .8 (bench/gpu/README.md). A walk's time hardly grows with their number.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vecdb.index.arguments import as_ef, as_k, as_queries, as_target
from vecdb.index.base import Mask, Neighbours, Vectors
from vecdb.index.device_scan import DeviceScan
from vecdb.index.live_vectors import live_among

if TYPE_CHECKING:
    from vecdb.index.hnsw import HnswIndex

_ENTRIES_PER_ROOT = 4  # entries are so many times the root of the number of nodes, or fewer
_HELD_OUT = 256  # vectors of the index that ask what a beam finds
_BEAMS = (32, 64, 128, 256, 512, 1024)


class DeviceWalk:
    """The index as it is now; what is added to it or removed later is not seen. Its answers are those of `HnswIndex.search` up to
    what two walks of about the same width find.

    codec: what is walked by ("int8", "float8" or "float16", each row in its own scale); float32 copies score the best.
    Raises InvalidInput if there is no such device or it has no room for all of the vectors; see gpu.launch.device_of.
    """

    def __init__(self, index: HnswIndex, *, device: str = "cuda:0", codec: Any = "int8") -> None:
        from vecdb.gpu.walk import Graph

        self.dimension, self.metric, self.config = index.dimension, index.metric, index.config
        arrays = index.arrays()
        self._live: Mask = arrays["live"]
        self._scan = DeviceScan(arrays["vectors"], index.metric, device=device, in_one_block=True)
        entries = entries_of(arrays["levels"], self._live)
        self._graph = Graph(self._scan.corpus, arrays["base"], entries, codec=codec)
        self._recalls: dict[int, dict[int, float]] = {}  # k -> beam -> recall

    def __len__(self) -> int:
        return len(self._graph)

    def search(
        self,
        queries: Vectors,
        k: int,
        *,
        allowed: Mask | None = None,
        ef: int | None = None,
        target_recall: float | None = None,
    ) -> Neighbours:
        """As `VectorIndex.search`. A filter widens the beam by what it leaves out; where that is more than a walk can hold, and
        wherever a walk finds too few, the device scans. estimated_recall is the mean of what such a beam found for vectors of
        the index itself.
        """
        import torch

        from vecdb.gpu.walk import MOST_EF, walk

        queries = as_queries(queries, self.dimension)
        k, target = as_k(k), as_target(target_recall, ef)
        mask = live_among(self._live, allowed)
        count = len(self) if mask is None else int(np.count_nonzero(mask))
        beam, recall = (as_ef(ef, self.config.ef, k), None) if target is None else self._beam_for(k, target)
        beam = int(beam * len(self) / max(count, 1)) if allowed is not None else beam
        if not len(queries) or beam > MOST_EF or 2 * beam >= count:
            answer = self._scan.search(queries, k, mask)
            return answer if target is None else answer.with_recall(1.0)
        on_device = None if mask is None else torch.from_numpy(np.array(mask))
        found = walk(torch.from_numpy(np.array(queries)), self._graph, k, ef=beam, allowed=on_device)
        scores, rows, work = (x.cpu().numpy() for x in found)
        distances = np.maximum(1 - scores, 0) if self.metric == "cosine" else -scores
        answer = Neighbours(
            rows, distances, work.astype(np.int64), None, "device walk" if allowed is None else "filtered device walk"
        )
        if recall is not None:
            answer = answer.with_recall(recall)
        self._complete(queries, k, min(k, count), mask, answer)
        return answer

    def recall_of(self, k: int, beam: int) -> float:
        """The share of the true k nearest that a beam of so much finds for vectors of the index, which look for others than
        themselves. Measured when first asked for, by an exact scan beside.
        """
        import torch

        from vecdb.gpu.topk import topk
        from vecdb.gpu.walk import walk

        of_k = self._recalls.setdefault(k, {})
        if beam not in of_k:
            live = np.flatnonzero(self._live)
            asked = live[:: max(1, len(live) // _HELD_OUT)][:_HELD_OUT]
            corpus = self._graph.corpus
            queries = corpus.blocks[0].exact[torch.from_numpy(asked).to(corpus.device), : corpus.dimension].float()
            queries *= corpus.exact_scale
            mask = None if self._live.all() else torch.from_numpy(self._live.copy())
            truth = topk(queries, corpus, k + 1, allowed=mask).rows.cpu().numpy()
            found = walk(queries, self._graph, k + 1, ef=max(beam, k + 1), allowed=mask).rows.cpu().numpy()
            of_k[beam] = float(np.mean([_shared(*rows, k) for rows in zip(asked, truth, found)]))
        return of_k[beam]

    def _beam_for(self, k: int, target: float) -> tuple[int, float | None]:
        """The narrowest beam that is likely to reach the recall, and what it reaches; beyond the widest, more than it is."""
        for beam in _BEAMS:
            if beam > k and (recall := self.recall_of(k, beam)) >= target:
                return beam, recall
        return 2 * _BEAMS[-1], 1.0

    def _complete(self, queries: Vectors, k: int, wanted: int, mask: Mask | None, answer: Neighbours) -> None:
        """Answer queries for which a walk found fewer than `wanted` by a scan."""
        short = np.flatnonzero(answer.positions[:, wanted - 1] < 0)
        if len(short):
            exact = self._scan.search(queries[short], k, mask)
            answer.positions[short], answer.distances[short] = exact.positions, exact.distances
            answer.work[short] += exact.work
            if answer.estimated_recall is not None:
                answer.estimated_recall[short] = 1.0


def entries_of(levels: NDArray[np.uint8], live: Mask) -> NDArray[np.int64]:
    """Live nodes among which walks look for their starts: all of the lowest level that has few enough."""
    most = max(64, int(_ENTRIES_PER_ROOT * len(levels) ** 0.5))
    for level in range(1, int(levels[live].max(initial=0)) + 1):
        nodes = np.flatnonzero(live & (levels >= level))
        if len(nodes) <= most:
            return nodes
    return np.flatnonzero(live)[:most]


def _shared(asked: int, truth: NDArray[np.int64], found: NDArray[np.int64], k: int) -> float:
    """The share of the k nearest others that were found."""
    wanted = [row for row in truth.tolist() if row not in (asked, -1)][:k]
    got = [row for row in found.tolist() if row != asked][:k]
    return len(set(wanted) & set(got)) / max(len(wanted), 1)
