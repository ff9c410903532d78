"""Faiss beside us, one thread each: recall at equal bytes, encoding, and scanning 88,000 MiniLM vectors."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.codecs.study import K
from vecdb.index.codecs import CodeTable, parse
from vecdb.storage_plan import agreement

Vectors = NDArray[np.float32]
Rows = NDArray[np.int64]
# Our codec, and what Faiss calls the same.
PAIRS = (
    ("int8", "SQ8"),
    ("float16", "SQfp16"),
    ("pq:48", "PQ48"),
    ("pq:48", "PQ96x4fs"),  # for information: twice as many parts of four bits, by Faiss's fast scan
    ("pq:96", "PQ96"),
    ("opq:48", "OPQ48,PQ48"),
    ("rabitq:1", "RaBitQ"),
    ("rabitq:2", "RaBitQ2"),
    ("rabitq:4", "RaBitQ4"),
)
_TRAINED, _ENCODED, _ASKED, _ROUNDS = 20_000, 20_000, 100, 5


def compare(name: str = "minilm", pairs: tuple[tuple[str, str], ...] = PAIRS) -> Iterator[dict[str, Any]]:
    """Two lines for each pair, measured by turns. CPU time, so that a busy machine disturbs little."""
    import faiss

    from bench.vectors import load_set

    faiss.omp_set_num_threads(1)
    found = load_set(name).first_queries(_ASKED)
    base, queries, true = np.array(found.base), np.array(found.queries), found.truth[:, :K].astype(np.int64)
    for text, factory in pairs:
        codec = parse(text, base.shape[1], "cosine").fit(base[:_TRAINED])
        table = CodeTable.of(codec, base)
        described = _described(factory)
        index = faiss.index_factory(base.shape[1], described, faiss.METRIC_INNER_PRODUCT)
        index.train(base[:_TRAINED])
        index.add(base)
        size = index.sa_code_size()
        # One by one: a batch lets Faiss decode a block once for all of its queries, which is no scan of codes.
        work: dict[str, tuple[Callable[[], Any], Callable[[], Rows]]] = {
            "vecdb": (
                lambda codec=codec: codec.encode(base[:_ENCODED]),
                lambda table=table: np.concatenate([table.search(q[None], K).positions for q in queries]),
            ),
            "faiss": (
                lambda index=index: index.sa_encode(base[:_ENCODED]),
                lambda index=index: np.concatenate([index.search(q[None], K)[1] for q in queries]),
            ),
        }
        times: dict[str, list[list[float]]] = {system: [[], []] for system in work}
        for _ in range(_ROUNDS):
            for system, calls in work.items():
                for kept, call in zip(times[system], calls):
                    begun = time.process_time()
                    call()
                    kept.append(time.process_time() - begun)
        for system, (_, ask) in work.items():
            encoding, scanning = (float(np.median(kept)) for kept in times[system])
            yield {
                "part": "peers",
                "data": name,
                "system": system,
                "codec": text if system == "vecdb" else described,
                "pair": f"{text} / {factory}",
                "bytes": codec.bytes_per_vector if system == "vecdb" else size,
                "recall": agreement(ask(), true),
                "encode_gb_s": base[:_ENCODED].nbytes / encoding / 1e9,
                "scan_ns": scanning / len(queries) / len(base) * 1e9,
            }


def _described(factory: str) -> str:
    """RaBitQ wants its vectors turned first: in Faiss that is a step of its own."""
    return f"RR384,{factory}" if factory.startswith("RaBitQ") else factory
