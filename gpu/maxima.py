"""The product's epilogue: of every query's scores only the maximum of each small group of rows is written.

The k best rows lie in the k groups with the largest maxima, and the k best groups in the k tiles with the largest: so nothing
else of the (B, N) scores need exist. A group is the GROUP rows, out of 4 * GROUP consecutive ones, that one thread of the
tensor cores' result holds (columns 8 i + 2 j and 8 i + 2 j + 1 of a tile, for all i): its maximum costs no exchange between
threads. `row_of_group` says which rows these are.

Two forms of one product. `wide`: queries are the 128 rows of the tile and base vectors its columns; the way of large
batches, bound by arithmetic. `tall`: base vectors are the tile's rows and up to 64 queries its columns; bound by memory.
Both run a fixed number of programs which walk over the tiles, those of one base tile beside each other, so that each base
vector comes from memory once.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import triton
import triton.language as tl

from vecdb.gpu.launch import is_interpreted, processors

if TYPE_CHECKING:
    import torch

_INTERPRETED = tl.constexpr(is_interpreted())
TILE = 256  # rows of a base are padded to a multiple of this


@dataclass(frozen=True, slots=True)
class Tiling:
    """Tile shape: queries x rows x dimensions, warps, stages; programs per multiprocessor."""

    queries: int
    rows: int
    dims: int
    warps: int
    stages: int
    per_processor: int = 1


# Fastest of those tried on an H100 (bench/gpu/README.md): bytes per element -> tiling.
WIDE = {2: Tiling(128, 256, 64, 8, 3), 1: Tiling(128, 256, 128, 8, 3)}
TALL = {2: Tiling(16, 128, 128, 4, 3, 2), 1: Tiling(16, 128, 256, 4, 3, 2)}
MOST_TALL = 64  # queries


def tiling_of(batch: int, element_size: int) -> Tiling:
    """The tiling that fits a batch of queries."""
    if batch > MOST_TALL:
        return WIDE[element_size]
    return replace(TALL[element_size], queries=max(16, triton.next_power_of_2(batch)))


def write_maxima(
    queries: torch.Tensor,
    base: torch.Tensor,
    rows: int,
    group: int,
    groups: torch.Tensor,
    tiles: torch.Tensor,
    tiling: Tiling,
    *,
    scales: torch.Tensor | None = None,
    offsets: torch.Tensor | None = None,
) -> None:
    """Maxima of all groups and tiles of base (P, D) for queries (B, D), both of one type, D a multiple of 16.

    P is a multiple of TILE; only the first `rows` are real (what the rest must hold: corpus.py). With offsets (P,) float32,
    score is product * scales[query] + offsets[row], else the product. groups (B, P / group) and tiles (B, P / tiling.rows) take
    the results, float32; a group of padding alone is -inf.
    """
    from triton.tools.tensor_descriptor import TensorDescriptor

    batch, dim = queries.shape
    is_tall = tiling.queries <= MOST_TALL
    work = triton.cdiv(batch, tiling.queries) * (base.shape[0] // tiling.rows)
    programs = min(work, processors(base.device) * tiling.per_processor)
    kernel = _tall_kernel if is_tall else _wide_kernel
    kernel[(programs,)](
        TensorDescriptor.from_tensor(queries, [tiling.queries, tiling.dims]),
        TensorDescriptor.from_tensor(base, [tiling.rows, tiling.dims]),
        scales,
        offsets,
        groups,
        tiles,
        batch,
        base.shape[0] // tiling.rows,
        rows,
        dim,
        QUERIES=tiling.queries,
        ROWS=tiling.rows,
        DIMS=tiling.dims,
        GROUP=group,
        HAS_OFFSETS=offsets is not None,
        PROGRAMS=programs,
        num_warps=tiling.warps,
        num_stages=tiling.stages,
    )


@triton.jit
def row_of_group(group, i, GROUP: tl.constexpr):
    """The i-th row of a group, 0 <= i < GROUP."""
    return (group // 4) * (4 * GROUP) + (i // 2) * 8 + (group % 4) * 2 + i % 2


@triton.jit
def _product(left, right, acc):
    """acc + left @ right.T."""
    if _INTERPRETED:  # which cannot multiply all types
        left = left.to(tl.float32)
        right = right.to(tl.float32)
        acc += tl.dot(left, right.T, input_precision="ieee").to(acc.dtype)
    else:
        acc = tl.dot(left, right.T, acc, out_dtype=acc.dtype)
    return acc


@triton.jit
def _wide_kernel(
    queries,
    base,
    scales_ptr,
    offsets_ptr,
    groups_ptr,
    tiles_ptr,
    batch,
    row_tiles,
    rows,
    dim,
    QUERIES: tl.constexpr,
    ROWS: tl.constexpr,
    DIMS: tl.constexpr,
    GROUP: tl.constexpr,
    HAS_OFFSETS: tl.constexpr,
    PROGRAMS: tl.constexpr,
):
    SUM: tl.constexpr = tl.int32 if base.dtype == tl.int8 else tl.float32
    PER_TILE: tl.constexpr = ROWS // GROUP
    query_tiles = tl.cdiv(batch, QUERIES)
    work = query_tiles * row_tiles
    for tile in tl.range(tl.program_id(0), work, PROGRAMS, flatten=True):
        first_query = (tile % query_tiles) * QUERIES
        row_tile = tile // query_tiles
        acc = tl.zeros((QUERIES, ROWS), SUM)
        for d in range(0, dim, DIMS):
            acc = _product(queries.load([first_query, d]), base.load([row_tile * ROWS, d]), acc)
        query = first_query + tl.arange(0, QUERIES)
        known = query < batch
        if HAS_OFFSETS:
            scale = tl.load(scales_ptr + query, mask=known, other=0.0)
            offset = tl.load(offsets_ptr + row_tile * ROWS + tl.arange(0, ROWS))
            best = acc.to(tl.float32) * scale[:, None] + offset[None, :]
        else:
            best = acc
        best = tl.max(tl.max(tl.reshape(best, (QUERIES, ROWS // (4 * GROUP), GROUP // 2, 4, 2)), 4), 2)
        best = tl.reshape(best, (QUERIES, PER_TILE)).to(tl.float32)
        group = row_tile * PER_TILE + tl.arange(0, PER_TILE)
        best = tl.where((row_of_group(group, 0, GROUP) < rows)[None, :], best, float("-inf"))
        query = query.to(tl.int64)
        at = query[:, None] * (row_tiles * PER_TILE) + group[None, :]
        tl.store(groups_ptr + at, best, mask=known[:, None])
        tl.store(tiles_ptr + query * row_tiles + row_tile, tl.max(best, 1), mask=known)


@triton.jit
def _tall_kernel(
    queries,
    base,
    scales_ptr,
    offsets_ptr,
    groups_ptr,
    tiles_ptr,
    batch,
    row_tiles,
    rows,
    dim,
    QUERIES: tl.constexpr,
    ROWS: tl.constexpr,
    DIMS: tl.constexpr,
    GROUP: tl.constexpr,
    HAS_OFFSETS: tl.constexpr,
    PROGRAMS: tl.constexpr,
):
    SUM: tl.constexpr = tl.int32 if base.dtype == tl.int8 else tl.float32
    PER_TILE: tl.constexpr = ROWS // GROUP
    query = tl.arange(0, QUERIES)
    known = query < batch
    if HAS_OFFSETS:
        scale = tl.load(scales_ptr + query, mask=known, other=0.0)
    for row_tile in tl.range(tl.program_id(0), row_tiles, PROGRAMS, flatten=True):
        acc = tl.zeros((ROWS, QUERIES), SUM)
        for d in range(0, dim, DIMS):
            acc = _product(base.load([row_tile * ROWS, d]), queries.load([0, d]), acc)
        if HAS_OFFSETS:
            offset = tl.load(offsets_ptr + row_tile * ROWS + tl.arange(0, ROWS))
            best = acc.to(tl.float32) * scale[None, :] + offset[:, None]
        else:
            best = acc
        best = tl.max(tl.max(tl.reshape(best, (ROWS // (4 * GROUP), GROUP // 2, 4, 2, QUERIES)), 3), 1)
        best = tl.reshape(best, (PER_TILE, QUERIES)).to(tl.float32)
        group = row_tile * PER_TILE + tl.arange(0, PER_TILE)
        best = tl.where((row_of_group(group, 0, GROUP) < rows)[:, None], best, float("-inf"))
        at = query.to(tl.int64)[None, :] * (row_tiles * PER_TILE) + group[:, None]
        tl.store(groups_ptr + at, best, mask=known[None, :])
        tl.store(tiles_ptr + query.to(tl.int64) * row_tiles + row_tile, tl.max(best, 0), mask=known)
