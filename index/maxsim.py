"""MaxSim of one query with many documents, whose token vectors lie one after the other: the face of `token_kernels`.

    score(q, d) = sum over query tokens i of max over document tokens j of q_i . d_j

A document without tokens scores -inf, a query without tokens 0 with every document that has some.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vecdb.errors import DimensionMismatch, InvalidVector
from vecdb.index.pool import RangePool

Floats = NDArray[np.float32]
Ends = NDArray[np.int64]

_STEP = 32  # documents that a thread takes at once


def maxsim(
    query: Floats, tokens: NDArray[Any], ends: Ends, scales: Floats | None = None, *, threads: int = 1
) -> NDArray[np.float64]:
    """(n,) scores. query (Q, D) float32; tokens (T, D) float32, float16, or uint8 with scales (T,): (code - 128) * scale.

    ends (n + 1,): document i has the tokens ends[i] … ends[i + 1]. Against uint8 tokens the query is rounded to 8 bits as well.
    """
    from vecdb.index import token_kernels as kernels

    _check(query, tokens, ends)
    if tokens.dtype == np.uint8:
        if scales is None or scales.shape != tokens.shape[:1]:
            raise InvalidVector("one-byte token vectors need a scale each")
        return _of_codes(query, tokens, ends, np.ascontiguousarray(scales, np.float32), threads)
    queries, query_scales = _side_by_side(query, kernels.BLOCK)
    dimension = tokens.shape[1]
    if tokens.dtype == np.float16:
        halves = np.ascontiguousarray(tokens).view(np.uint16)

        def work(out: NDArray[np.float64], start: int, stop: int) -> None:
            best = np.empty(query_scales.shape, np.float32)
            wide = np.empty((kernels.TILE, dimension), np.float32)
            kernels.maxsim_halves(halves, ends, queries, query_scales, start, stop, best, wide, out)

    else:
        floats = np.ascontiguousarray(tokens, np.float32)

        def work(out: NDArray[np.float64], start: int, stop: int) -> None:
            best = np.empty(query_scales.shape, np.float32)
            kernels.maxsim_floats(floats, ends, queries, query_scales, start, stop, best, out)

    return _run(work, len(ends) - 1, threads)


def _of_codes(
    query: Floats, tokens: NDArray[np.uint8], ends: Ends, scales: Floats, threads: int
) -> NDArray[np.float64]:
    from vecdb.index import token_kernels as kernels

    peak = np.abs(query).max(axis=1, initial=0.0)
    units = (peak / 127.0).astype(np.float32)
    codes = np.rint(query / np.where(units > 0, units, 1.0)[:, None]).astype(np.int8)
    dimension = tokens.shape[1]
    if not kernels.MULTIPLIES_BYTES:
        queries, query_scales = _side_by_side(codes.astype(np.float32), kernels.BLOCK)
        query_scales.reshape(-1)[: len(units)] = units
        plain = np.ascontiguousarray(tokens)

        def work_wide(out: NDArray[np.float64], start: int, stop: int) -> None:
            best = np.empty(query_scales.shape, np.float32)
            wide = np.empty((kernels.TILE, dimension), np.float32)
            kernels.maxsim_wide_codes(plain, scales, ends, queries, query_scales, start, stop, best, wide, out)

        return _run(work_wide, len(ends) - 1, threads)
    padded = _whole_words(tokens)
    blocks, query_scales = _side_by_side(np.pad(codes, ((0, 0), (0, padded.shape[1] - dimension))), kernels.BLOCK)
    # A zero vector has the scale 0, as padding has: what it adds is 0 either way.
    query_scales.reshape(-1)[: len(units)] = units
    starts = (-128 * blocks.astype(np.int32).sum(axis=1)).astype(np.int32)
    count, width, lanes = blocks.shape
    words = np.ascontiguousarray(blocks.reshape(count, width // 4, 4, lanes).transpose(0, 1, 3, 2))

    def work(out: NDArray[np.float64], start: int, stop: int) -> None:
        best = np.empty(query_scales.shape, np.float32)
        kernels.maxsim_codes(padded, scales, ends, words, starts, query_scales, start, stop, best, out)

    return _run(work, len(ends) - 1, threads)


@dataclass(frozen=True, slots=True)
class ResidualCodebook:
    """Two levels: centroids (C, D) float32, and codewords (M, 256, D / M) float32 of what they leave."""

    centroids: Floats
    codewords: Floats

    def decoded(self, centroids: NDArray[np.int32], codes: NDArray[np.uint8]) -> Floats:
        """(T, D) float32: the vectors that these stand for."""
        parts = [self.codewords[m, codes[:, m]] for m in range(codes.shape[1])]
        return np.asarray(self.centroids[centroids] + np.concatenate(parts, axis=1), dtype=np.float32)


def maxsim_residuals(
    query: Floats,
    book: ResidualCodebook,
    centroids: NDArray[np.int32],
    codes: NDArray[np.uint8],
    ends: Ends,
    *,
    threads: int = 1,
) -> NDArray[np.float64]:
    """(n,) scores of tokens coded by book: centroids (T,), codes (T, M). Exact for the vectors that the codes stand for."""
    from vecdb.index import token_kernels as kernels

    _check(query, book.centroids, ends, tokens=len(centroids))
    subspaces = book.codewords.shape[0]
    coarse = np.ascontiguousarray(book.centroids @ query.T, np.float32)
    parts = query.reshape(len(query), subspaces, -1)
    tables = np.ascontiguousarray(np.einsum("mcd,qmd->mcq", book.codewords, parts), np.float32)

    def work(out: NDArray[np.float64], start: int, stop: int) -> None:
        best = np.empty((2, len(query)), np.float32)
        kernels.maxsim_residuals(centroids, codes, ends, coarse, tables, start, stop, best, out)

    return _run(work, len(ends) - 1, threads)


def _run(work: Any, documents: int, threads: int) -> NDArray[np.float64]:
    out = np.empty(documents, np.float64)
    with RangePool(threads if documents > _STEP else 1) as pool:
        pool.run(partial(work, out), documents, step=_STEP)
    return out


def _side_by_side(query: NDArray[Any], block: int) -> tuple[NDArray[Any], Floats]:
    """(Q, D) as blocks (B, D, block), token beside token, and (B, block): 1 for a token, 0 for padding. B is at least 1."""
    tokens, dimension = query.shape
    blocks = max(1, -(-tokens // block))
    padded = np.zeros((blocks * block, dimension), query.dtype)
    padded[:tokens] = query
    used = (np.arange(blocks * block) < tokens).astype(np.float32).reshape(blocks, block)
    return np.ascontiguousarray(padded.reshape(blocks, block, dimension).transpose(0, 2, 1)), used


def _whole_words(tokens: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Codes with a width that four divides; 128 stands for zero."""
    missing = -tokens.shape[1] % 4
    return np.ascontiguousarray(np.pad(tokens, ((0, 0), (0, missing)), constant_values=128) if missing else tokens)


def _check(query: Floats, vectors: NDArray[Any], ends: Ends, *, tokens: int | None = None) -> None:
    if query.ndim != 2 or vectors.ndim != 2 or query.shape[1] != vectors.shape[1]:
        raise DimensionMismatch(
            f"the query's token vectors have the shape {query.shape}, the documents' {vectors.shape}; both must be (tokens, D) "
            "with one D: were they made by one encoder?"
        )
    count = len(vectors) if tokens is None else tokens
    if ends.dtype != np.int64 or not len(ends) or ends[0] < 0 or ends[-1] > count or (np.diff(ends) < 0).any():
        raise InvalidVector(f"ends must be int64 and ascend from 0 to at most {count}, the number of tokens")
