"""MaxSim kernels against the arithmetic limit of the machine, measured in the same run: a matrix product of the same shape, and a
large square one, which is as fast as it gets.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from vecdb.index.maxsim import ResidualCodebook, maxsim, maxsim_residuals
from vecdb.rerank.tokens import encode_tokens

Line = dict[str, Any]


def measure(documents: int = 1_000, tokens: int = 180, dimension: int = 128, query_tokens: int = 32) -> list[Line]:
    """A line for each way; ms are the median processor time of one thread, taken in turns."""
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((documents * tokens, dimension)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    query = vectors[:query_tokens].copy()
    ends = np.arange(documents + 1, dtype=np.int64) * tokens
    half, codes = encode_tokens(vectors, "float16"), encode_tokens(vectors, "int8")
    book = ResidualCodebook(vectors[:256], 0.1 * rng.standard_normal((32, 256, dimension // 32)).astype(np.float32))
    centroids = rng.integers(0, 256, len(vectors)).astype(np.int32)
    residuals = rng.integers(0, 256, (len(vectors), 32)).astype(np.uint8)
    product = np.empty((len(vectors), query_tokens), np.float32)
    square = rng.standard_normal((1024, 1024)).astype(np.float32)
    ways: dict[str, Callable[[], Any]] = {
        "matrix product of the shape": lambda: np.matmul(vectors, query.T, out=product),
        "float32": lambda: maxsim(query, vectors, ends),
        "float16": lambda: maxsim(query, half.codes, ends),
        "int8": lambda: maxsim(query, codes.codes, ends, codes.scales),
        "PQ residual, 32 bytes": lambda: maxsim_residuals(query, book, centroids, residuals, ends),
        "square matrix product": lambda: square @ square,
        **_in_torch(vectors.reshape(documents, tokens, dimension), query),
    }
    times = _in_turns(ways)
    operations = 2.0 * documents * tokens * dimension * query_tokens
    limit = times["square matrix product"] * operations / (2.0 * 1024**3)
    reference = (vectors.astype(np.float64) @ query.T.astype(np.float64)).reshape(documents, tokens, -1).max(1).sum(1)
    error = float(np.abs(ways["float32"]() - reference).max())
    shape = {"documents": documents, "tokens": tokens, "dimension": dimension, "query_tokens": query_tokens}
    return [
        {
            "way": way,
            "ms": ms * 1e3,
            "of_limit": ms / limit if way != "square matrix product" else None,
            "of_product": ms / times["matrix product of the shape"],
            "limit_ms": limit * 1e3,
            "float32_error": error,
            **shape,
        }
        for way, ms in times.items()
    ]


def _in_torch(documents: Any, query: Any) -> dict[str, Callable[[], Any]]:
    try:
        import torch
    except ImportError:
        return {}
    torch.set_num_threads(1)
    vectors, queries = torch.from_numpy(documents), torch.from_numpy(query)
    return {"PyTorch einsum": lambda: torch.einsum("qd,ntd->nqt", queries, vectors).amax(2).sum(1)}


def _in_turns(ways: dict[str, Callable[[], Any]], rounds: int = 9) -> dict[str, float]:
    taken: dict[str, list[float]] = {way: [] for way in ways}
    for turn in range(rounds + 1):
        for way, run in ways.items():
            since = time.process_time()
            run()
            if turn:  # the first compiles, and brings memory in
                taken[way].append(time.process_time() - since)
    return {way: float(np.median(times)) for way, times in taken.items()}
