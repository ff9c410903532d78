"""When grouping by magnitude helps product quantisation: the same directions, lengths that differ more and more.

Directions are those of MiniLM's vectors along their 64 principal components, lengths log-normal; and vectors as they come, of
Fashion-MNIST. At equal bytes: a byte for the group of a vector against one part more.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.codecs.study import K
from vecdb.index.base import Metric
from vecdb.index.codecs import CodeTable, parse
from vecdb.index.exact import exact_search
from vecdb.storage_plan import agreement

Vectors = NDArray[np.float32]
SPREADS = (0.0, 0.25, 0.5, 1.0, 1.5)  # standard deviation of the logarithm of lengths
_COMPONENTS, _COUNT, _ASKED = 64, 20_000, 200


def compare() -> Iterator[dict[str, Any]]:
    """A line for each set of vectors, metric and codec."""
    from bench.vectors import load_set

    random = np.random.default_rng(0)
    drawn = np.array(load_set("minilm").base[: 4 * _COUNT : 4])
    reduced = parse(f"pca:{_COMPONENTS}", drawn.shape[1], "ip").fit(drawn).reducers[0].apply(drawn)
    directions = reduced / np.linalg.norm(reduced, axis=1, keepdims=True)
    for spread in SPREADS:
        lengths = np.exp(random.normal(0, spread, (len(directions), 1))).astype(np.float32)
        yield from _compared("minilm directions", directions * lengths, (16, 15), spread)
    pictures = np.array(load_set("fashion").base[:_COUNT])
    logs = np.log(np.linalg.norm(pictures, axis=1))
    yield from _compared("fashion", pictures, (98, 97), float(logs.std()))


def _compared(data: str, vectors: Vectors, parts: tuple[int, int], spread: float) -> Iterator[dict[str, Any]]:
    asked, base = vectors[:_ASKED], np.ascontiguousarray(vectors[_ASKED:])
    metrics: tuple[Metric, ...] = ("l2", "ip")
    for metric in metrics:
        true = exact_search(base, asked, K, metric).positions
        for text in (f"pq:{parts[0]}", f"mpq:{parts[1]}"):
            # Half is fitted to, the other half says what is lost.
            codec = parse(text, base.shape[1], metric).fit(base[::2])
            unseen = base[1::2]
            lost = np.square(codec.decode(codec.encode(unseen)) - unseen, dtype=np.float64).sum(axis=1)
            found = CodeTable.of(codec, base).search(asked, K).positions
            yield {
                "part": "grouping",
                "data": data,
                "metric": metric,
                "codec": text,
                "bytes": codec.bytes_per_vector,
                "overhead": codec.overhead,
                "spread": spread,
                "energy_lost": float(lost.sum() / np.square(unseen, dtype=np.float64).sum()),
                "energy_lost_each": float(np.mean(lost / np.square(unseen, dtype=np.float64).sum(axis=1))),
                "recall": agreement(found, true),
            }
