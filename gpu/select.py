"""The steps after the product: from maxima to the best groups, their rows scored once more, the k best of these.

Small matrices, but at 1,024 queries a library's sorts and gathers take a third of the product's time again. So for k up to
MOST_FUSED one kernel goes down the levels of maxima, in which the k best of each level lie in the k best of the level above:
columns of the matrix of tiles, tiles, groups; each time the k best of a few hundred numbers.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import triton
import triton.language as tl

from vecdb.gpu.launch import is_interpreted
from vecdb.gpu.maxima import row_of_group

if TYPE_CHECKING:
    import torch

MOST_FUSED = 128  # groups: beyond it the k best of a level no longer fit one program's registers
_SCORED_DIMS = 256  # a step of the product with a group's rows: GROUP x 256 numbers in flight
_NONE = -1
_INTERPRETED = tl.constexpr(is_interpreted())


def choose_groups(groups: torch.Tensor, tiles: torch.Tensor, count: int) -> torch.Tensor:
    """(B, count) int32: numbers of the groups with the largest maxima; -1 where fewer are above -inf. groups (B, G) and
    tiles (B, T) are as maxima.write_maxima left them.
    """
    import torch

    batch, n_tiles = tiles.shape
    per_tile = groups.shape[1] // n_tiles
    count = min(count, groups.shape[1])
    if count > MOST_FUSED:
        best_tiles = tiles.topk(min(count, n_tiles), dim=1).indices
        within = (best_tiles[:, :, None] * per_tile + torch.arange(per_tile, device=tiles.device)).flatten(1)
        best, at = groups.gather(1, within).topk(count, dim=1)
        chosen = within.gather(1, at).to(torch.int32)
        return chosen.masked_fill(best == float("-inf"), _NONE)
    width = max(16, triton.next_power_of_2(count))
    chosen = torch.empty((batch, width), dtype=torch.int32, device=tiles.device)
    columns = min(
        512, max(width, triton.next_power_of_2(math.isqrt(n_tiles * width)))
    )  # both levels then about as large
    steps = max(triton.next_power_of_2(triton.cdiv(n_tiles, columns)), 1)
    _choose_kernel[(batch,)](
        groups,
        tiles,
        chosen,
        n_tiles,
        PER_TILE=per_tile,
        COLUMNS=columns,
        STEPS=steps,
        WIDTH=width,
        num_warps=8 if steps * columns > 8192 or width > 64 else 4,
    )
    return chosen[:, :count]


def score_groups(
    queries: torch.Tensor,
    base: torch.Tensor,
    rows: int,
    group: int,
    chosen: torch.Tensor,
    scales: torch.Tensor,
    base_scale: float,
    *,
    offsets: torch.Tensor | None,
    is_l2: bool,
) -> torch.Tensor:
    """(B, C * group) float32: scores of the rows of the chosen groups (B, C); -inf for none, padding and rows with offset -inf.

    Vectors are queries * scales[query] and base * base_scale; the sums are float32. is_l2: minus the squared distance.
    """
    import torch

    batch, dim = queries.shape
    scores = torch.empty((batch, chosen.shape[1] * group), dtype=torch.float32, device=base.device)
    _score_kernel[(batch, chosen.shape[1])](
        queries,
        base,
        chosen,
        scales,
        offsets,
        scores,
        rows,
        dim,
        chosen.stride(0),
        base_scale,
        GROUP=group,
        DIMS=min(_SCORED_DIMS, triton.next_power_of_2(dim)),
        HAS_OFFSETS=offsets is not None,
        IS_L2=is_l2,
        num_warps=4,
    )
    return scores


def best_rows(
    chosen: torch.Tensor, scores: torch.Tensor, group: int, k: int, first: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Scores (B, k) float32, best first, equal ones by row, and rows int64 counted from `first` (-1: none), of scored groups."""
    import torch

    batch, count = scores.shape
    k = min(k, count)
    best = torch.empty((batch, k), dtype=torch.float32, device=scores.device)
    rows = torch.empty((batch, k), dtype=torch.int64, device=scores.device)
    width = triton.next_power_of_2(count)
    if k <= MOST_FUSED and width <= 4096:
        _best_kernel[(batch,)](
            chosen,
            scores,
            best,
            rows,
            count,
            k,
            chosen.stride(0),
            first,
            GROUP=group,
            COUNT=width,
            WIDTH=max(16, triton.next_power_of_2(k)),
            num_warps=4 if width <= 1024 else 8,
        )
        return best, rows
    at_all = torch.arange(group, device=scores.device)
    all_rows = (chosen[:, :, None] // 4) * (4 * group) + at_all // 2 * 8 + chosen[:, :, None] % 4 * 2 + at_all % 2
    best, at = scores.topk(k, dim=1)
    return best, (all_rows.flatten(1).gather(1, at) + first).masked_fill(best == float("-inf"), _NONE)


@triton.jit
def _packed(value, index):
    """One int64 that orders by value, then by smaller index. float32 and int32 >= 0."""
    bits = value.to(tl.int32, bitcast=True)
    ordered = tl.where(bits < 0, bits ^ 0x7FFFFFFF, bits)
    return (ordered.to(tl.int64) << 32) | (0x7FFFFFFF - index).to(tl.int64)


@triton.jit
def _first(packed, WIDTH: tl.constexpr):
    """The WIDTH largest of different int64, largest first."""
    if _INTERPRETED:  # tl.topk takes the interpreter half a second
        above = tl.sum((packed[None, :] > packed[:, None]).to(tl.int32), 1)
        is_there = above[None, :] == tl.arange(0, WIDTH)[:, None]
        return tl.sum(tl.where(is_there, packed[None, :], 0), 1)
    elif WIDTH == 1:  # tl.topk knows no best one; a branch, as Triton compiles what stands behind an early return
        return tl.max(packed, 0, keep_dims=True)
    else:
        return tl.topk(packed, WIDTH)


@triton.jit
def _index_of(packed):
    return 0x7FFFFFFF - (packed & 0x7FFFFFFF).to(tl.int32)


@triton.jit
def _value_of(packed):
    ordered = (packed >> 32).to(tl.int32)
    return tl.where(ordered < 0, ordered ^ 0x7FFFFFFF, ordered).to(tl.float32, bitcast=True)


@triton.jit
def _choose_kernel(
    groups_ptr,
    tiles_ptr,
    chosen_ptr,
    n_tiles,
    PER_TILE: tl.constexpr,
    COLUMNS: tl.constexpr,
    STEPS: tl.constexpr,
    WIDTH: tl.constexpr,
):
    query = tl.program_id(0).to(tl.int64)
    tiles_ptr += query * n_tiles
    groups_ptr += query * n_tiles * PER_TILE

    column = tl.arange(0, COLUMNS)
    step = tl.arange(0, STEPS)
    at = step[:, None] * COLUMNS + column[None, :]
    highest = tl.max(tl.load(tiles_ptr + at, mask=at < n_tiles, other=float("-inf")), 0)
    column = _index_of(_first(_packed(highest, column), WIDTH))

    at = tl.reshape(step[None, :] * COLUMNS + column[:, None], (WIDTH * STEPS,))
    value = tl.load(tiles_ptr + at, mask=at < n_tiles, other=float("-inf"))
    tile = _index_of(_first(_packed(value, at), WIDTH))

    at = tl.reshape(tile[:, None] * PER_TILE + tl.arange(0, PER_TILE)[None, :], (WIDTH * PER_TILE,))
    value = tl.load(groups_ptr + at, mask=at < n_tiles * PER_TILE, other=float("-inf"))
    best = _first(_packed(value, at), WIDTH)
    group = tl.where(_value_of(best) > float("-inf"), _index_of(best), -1)
    tl.store(chosen_ptr + query * WIDTH + tl.arange(0, WIDTH), group)


@triton.jit
def _score_kernel(
    queries_ptr,
    base_ptr,
    chosen_ptr,
    scales_ptr,
    offsets_ptr,
    scores_ptr,
    rows,
    dim,
    stride_chosen,
    base_scale,
    GROUP: tl.constexpr,
    DIMS: tl.constexpr,
    HAS_OFFSETS: tl.constexpr,
    IS_L2: tl.constexpr,
):
    slot = tl.program_id(1)
    query = tl.program_id(0).to(tl.int64)
    group = tl.load(chosen_ptr + query * stride_chosen + slot)
    i = tl.arange(0, GROUP)
    row = row_of_group(tl.maximum(group, 0), i, GROUP)
    known = row < tl.where(group >= 0, rows, 0)
    at = row.to(tl.int64) * dim
    scale = tl.load(scales_ptr + query)
    total = tl.zeros((GROUP, DIMS), tl.float32)
    for start in range(0, dim, DIMS):
        d = start + tl.arange(0, DIMS)
        inside = d < dim
        q = tl.load(queries_ptr + query * dim + d, mask=inside, other=0.0).to(tl.float32)
        x = tl.load(base_ptr + at[:, None] + d[None, :], mask=known[:, None] & inside[None, :], other=0.0).to(
            tl.float32
        )
        if IS_L2:  # of the difference itself: |x|^2 - 2 q x would lose what near vectors differ by
            apart = (q * scale)[None, :] - x * base_scale
            total -= apart * apart
        else:
            total += x * q[None, :]
    score = tl.sum(total, 1)
    if not IS_L2:
        score = score * (scale * base_scale)
    if HAS_OFFSETS:
        offset = tl.load(offsets_ptr + row, mask=known, other=float("-inf"))
        known = known & (offset > float("-inf"))
    score = tl.where(known, score, float("-inf"))
    count = tl.num_programs(1) * GROUP
    tl.store(scores_ptr + query * count + slot * GROUP + i, score)


@triton.jit
def _best_kernel(
    chosen_ptr,
    scores_ptr,
    best_ptr,
    rows_ptr,
    count,
    k,
    stride_chosen,
    first,
    GROUP: tl.constexpr,
    COUNT: tl.constexpr,
    WIDTH: tl.constexpr,
):
    query = tl.program_id(0).to(tl.int64)
    at = tl.arange(0, COUNT)
    score = tl.load(scores_ptr + query * count + at, mask=at < count, other=float("-inf"))
    group = tl.load(chosen_ptr + query * stride_chosen + at // GROUP, mask=at < count, other=0)
    row = row_of_group(tl.maximum(group, 0), at % GROUP, GROUP)
    row = tl.where(score > float("-inf"), row, at)  # no two alike
    best = _first(_packed(score, row), WIDTH)
    value = _value_of(best)
    slot = tl.arange(0, WIDTH)
    row = tl.where(value > float("-inf"), first + _index_of(best).to(tl.int64), -1)
    tl.store(best_ptr + query * k + slot, value, mask=slot < k)
    tl.store(rows_ptr + query * k + slot, row, mask=slot < k)
