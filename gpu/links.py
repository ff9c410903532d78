"""Links of a graph, made on a GPU: near neighbours by exact search, pruned for diversity, and the reverse links.

HNSW inserts one by one, so that early nodes meet few others and have far links, which walks need to get anywhere: with each
node's nearest of all instead, clustered data falls apart. Here nodes come in the same order, in groups that double what is
there: a group searches all up to its own end, exactly; what was chosen is linked back in one step at the end.
"""

from __future__ import annotations

from copy import copy
from dataclasses import replace
from typing import TYPE_CHECKING

import triton
import triton.language as tl

from vecdb.gpu.corpus import Block, Corpus
from vecdb.gpu.launch import is_interpreted
from vecdb.gpu.topk import topk

if TYPE_CHECKING:
    import torch

_INTERPRETED = tl.constexpr(is_interpreted())
_SLOTS = 64  # the node itself and what it may link to
_FIRST_GROUP = (
    1024  # nodes, which all meet each other; a multiple of maxima.TILE, so that each prefix of the corpus is one too
)
_AT_ONCE = 1 << 16  # nodes whose candidates are made together
_PRUNED_DIMS = 64
_PAIRS = 16


def link_all(corpus: Corpus, *, own: int, most: int) -> torch.Tensor:
    """(N, most) int32: links among the rows of a corpus, which come in this order; -1 behind the last.

    Each chooses `own` of its candidates, then takes in those that chose it, and where that makes more than `most`, chooses
    again. The corpus is resident, in one block.
    """
    import torch

    chosen = torch.empty((len(corpus), own), dtype=torch.int32, device=corpus.device)
    first, end = 0, min(_FIRST_GROUP, len(corpus))
    while first < len(corpus):
        so_far = _prefix(corpus, end)
        for nodes in torch.arange(first, end, device=corpus.device).split(_AT_ONCE):
            queries = corpus.blocks[0].exact[nodes, : corpus.dimension]
            if corpus.exact_scale != 1:
                queries = queries.float() * corpus.exact_scale
            near = topk(queries, so_far, _SLOTS - 1, check=False)
            chosen[nodes] = prune(corpus, nodes, near.rows, own)
        first, end = end, min(2 * end, len(corpus))
    return _with_reverse(corpus, chosen, most)


def subset(corpus: Corpus, rows: torch.Tensor) -> Corpus:
    """A corpus of these rows, in this order, in one block."""
    return Corpus(
        corpus.blocks[0].exact[rows, : corpus.dimension],
        metric=corpus.metric,
        codec=corpus.codec,
        exact=corpus.exact,
        device=corpus.device,
        group=corpus.group,
        block_rows=max(len(rows), 1),
    )


def _prefix(corpus: Corpus, count: int) -> Corpus:
    """The first rows alone, not copied: whole tiles, or all."""
    if count == len(corpus):
        return corpus
    block = corpus.blocks[0]
    offsets = None if block.offsets is None else block.offsets[:count]
    first = copy(corpus)
    first.size = count
    first.blocks = [Block(0, count, block.codes[:count], block.exact[:count], offsets)]
    if block.exact is block.codes:
        first.blocks = [replace(first.blocks[0], exact=first.blocks[0].codes)]
    return first


def prune(
    corpus: Corpus,
    nodes: torch.Tensor,
    candidates: torch.Tensor,
    keep: int,
    *,
    all_if_few: bool = False,
) -> torch.Tensor:
    """(n, keep) int32: algorithm 4 of Malkov & Yashunin for nodes (n,) with candidates (n, C < _SLOTS), nearest first, -1: none.

    A candidate is taken if it is nearer to the node than to all taken before it (and, as on the CPU, refused where it is
    exactly as near). all_if_few: take all of a node that has no more than `keep`.
    """
    import torch

    block: Block = corpus.blocks[0]
    slots = torch.full((len(nodes), _SLOTS), -1, dtype=torch.int32, device=corpus.device)
    slots[:, 0] = nodes
    slots[:, 1 : candidates.shape[1] + 1] = candidates
    chosen = torch.full((len(nodes), keep), -1, dtype=torch.int32, device=corpus.device)
    if len(nodes):
        _prune_kernel[(len(nodes),)](
            block.exact,
            slots,
            chosen,
            block.exact.shape[1],
            keep,
            SLOTS=_SLOTS,
            DIMS=_PRUNED_DIMS,
            IS_L2=corpus.metric == "l2",
            ALL_IF_FEW=all_if_few,
            num_warps=4,
            num_stages=3,
        )
    return chosen


def _with_reverse(corpus: Corpus, chosen: torch.Tensor, most: int) -> torch.Tensor:
    """Links (n, most) of nodes that chose (n, own): these and those that chose them, nearest first."""
    import torch

    count, device = len(chosen), corpus.device
    sources = torch.arange(count, device=device)[:, None].expand_as(chosen)[chosen >= 0]
    targets = chosen[chosen >= 0].to(torch.int64)
    pairs = torch.unique(torch.cat([sources * count + targets, targets * count + sources]))
    nodes, others = pairs // count, pairs % count
    scores = _pair_scores(corpus, nodes, others)
    order = scores.sort(descending=True, stable=True).indices
    order = order[nodes[order].sort(stable=True).indices]
    nodes, others = nodes[order], others[order]
    firsts = torch.searchsorted(nodes, torch.arange(count, device=device))
    rank = torch.arange(len(nodes), device=device) - firsts[nodes]
    fits = rank < _SLOTS - 1
    candidates = torch.full((count, _SLOTS - 1), -1, dtype=torch.int64, device=device)
    candidates[nodes[fits], rank[fits]] = others[fits]
    links = torch.empty((count, most), dtype=torch.int32, device=device)
    for first in range(0, count, _AT_ONCE):
        part = torch.arange(first, min(first + _AT_ONCE, count), device=device)
        links[part] = prune(corpus, part, candidates[part], most, all_if_few=True)
    return links


def _pair_scores(corpus: Corpus, left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """(P,) float32: products (or minus squared distances, both in the scale of exact copies) of pairs of rows."""
    import torch

    block = corpus.blocks[0]
    scores = torch.empty(len(left), dtype=torch.float32, device=corpus.device)
    if len(left):
        _pair_kernel[(triton.cdiv(len(left), _PAIRS),)](
            block.exact,
            left,
            right,
            scores,
            len(left),
            block.exact.shape[1],
            PAIRS=_PAIRS,
            DIMS=min(256, triton.next_power_of_2(block.exact.shape[1])),
            IS_L2=corpus.metric == "l2",
            num_warps=4,
        )
    return scores


@triton.jit
def _pair_kernel(
    base_ptr,
    left_ptr,
    right_ptr,
    scores_ptr,
    count,
    dim,
    PAIRS: tl.constexpr,
    DIMS: tl.constexpr,
    IS_L2: tl.constexpr,
):
    at = tl.program_id(0).to(tl.int64) * PAIRS + tl.arange(0, PAIRS)
    is_there = at < count
    left = tl.load(left_ptr + at, mask=is_there, other=0) * dim
    right = tl.load(right_ptr + at, mask=is_there, other=0) * dim
    total = tl.zeros((PAIRS, DIMS), tl.float32)
    for start in range(0, dim, DIMS):
        d = start + tl.arange(0, DIMS)
        inside = is_there[:, None] & (d < dim)[None, :]
        x = tl.load(base_ptr + left[:, None] + d[None, :], mask=inside, other=0.0).to(tl.float32)
        y = tl.load(base_ptr + right[:, None] + d[None, :], mask=inside, other=0.0).to(tl.float32)
        total += -(x - y) * (x - y) if IS_L2 else x * y
    tl.store(scores_ptr + at, tl.sum(total, 1), mask=is_there)


@triton.jit
def _prune_kernel(
    base_ptr,
    slots_ptr,
    chosen_ptr,
    dim,
    keep,
    SLOTS: tl.constexpr,
    DIMS: tl.constexpr,
    IS_L2: tl.constexpr,
    ALL_IF_FEW: tl.constexpr,
):
    """Every candidate's distances to all others by the tensor cores; then who is taken, by sweeps.

    Whether a candidate is taken depends on those before it alone, so a sweep over all of them settles at least one more, and
    when a sweep changes nothing all are settled: some five sweeps instead of sixty-three steps.
    """
    item = tl.program_id(0).to(tl.int64)
    slot = tl.arange(0, SLOTS)
    place = tl.load(slots_ptr + item * SLOTS + slot)
    known = place >= 0
    row = tl.maximum(place, 0).to(tl.int64) * dim
    near = tl.zeros((SLOTS, SLOTS), tl.float32)
    for start in range(0, dim, DIMS):
        d = start + tl.arange(0, DIMS)
        x = tl.load(base_ptr + row[:, None] + d[None, :], mask=known[:, None] & (d < dim)[None, :], other=0.0)
        if _INTERPRETED:
            near += tl.dot(x.to(tl.float32), x.to(tl.float32).T, input_precision="ieee")
        else:
            near = tl.dot(x, x.T, near)
    i = slot[:, None]
    j = slot[None, :]
    if IS_L2:
        of_i = tl.sum(tl.where(i == j, near, 0.0), 1)
        of_j = tl.sum(tl.where(i == j, near, 0.0), 0)
        near = 2 * near - of_i[:, None] - of_j[None, :]
    own = tl.sum(tl.where(j == 0, near, 0.0), 1)
    centre = tl.sum(tl.where(slot == 0, place, 0), 0)
    other = tl.load(slots_ptr + item * SLOTS + slot)
    bars = ((near >= own[:, None]) | (place[:, None] == other[None, :])) & (j < i) & (j > 0)
    known = known & (slot > 0) & (place != centre)
    taken = known.to(tl.int32)
    if ALL_IF_FEW:
        sweeps = tl.where(tl.sum(taken, 0) > keep, SLOTS, 0)
    else:
        sweeps = SLOTS
    while sweeps > 0:
        barred = tl.max((bars & (taken[None, :] > 0)).to(tl.int32), 1)
        now = tl.where(known & (barred == 0), 1, 0)
        sweeps = tl.where(tl.max(tl.where(now == taken, 0, 1), 0) > 0, sweeps - 1, 0)
        taken = now
    rank = tl.cumsum(taken, 0) - 1
    tl.store(chosen_ptr + item * keep + rank, place, mask=(taken > 0) & (rank < keep))
