"""Each operation in plain PyTorch: what tests compare kernels with, the way on a CPU, and what benches put beside them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import torch

Metric = Literal["ip", "cosine", "l2"]
_AT_ONCE = 1024  # rows whose links are made together


def similarities(queries: torch.Tensor, base: torch.Tensor, metric: Metric) -> torch.Tensor:
    """(B, D), (N, D) -> (B, N) of the inputs' type, larger is nearer: inner product, cosine (0 for a zero vector), or minus the
    squared Euclidean distance.
    """
    import torch

    if metric == "l2":
        return 2 * queries @ base.T - (base * base).sum(1)[None, :] - (queries * queries).sum(1)[:, None]
    if metric == "cosine":
        queries, base = (torch.nn.functional.normalize(x, dim=1) for x in (queries, base))
    return queries @ base.T


def topk(
    queries: torch.Tensor, base: torch.Tensor, k: int, *, metric: Metric = "ip", allowed: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Scores (B, min(k, N)) float32 and rows int64 of the k most similar rows; -inf and -1 where fewer are allowed."""
    scores = similarities(queries.float(), base.float(), metric)
    if allowed is not None:
        scores = scores.masked_fill(~allowed[None, :], float("-inf"))
    best, rows = scores.topk(min(k, base.shape[0]), dim=1)
    return best, rows.masked_fill(best == float("-inf"), -1)


def link_all(
    base: torch.Tensor, *, own: int, most: int, metric: Metric, candidates: int = 63, first_group: int = 1024
) -> torch.Tensor:
    """(N, most) int32: links among rows (N, D) float32 that come in this order, by the rules of gpu.links; -1 behind the last.

    Groups double what is there; exact neighbours up to the group's end are pruned, and those that chose a row taken in.
    """
    import torch

    count = len(base)
    chosen = torch.full((count, own), -1)
    first, end = 0, min(first_group, count)
    while first < count:
        for nodes in torch.arange(first, end, device=base.device).split(_AT_ONCE):
            near = topk(base[nodes], base[:end], candidates, metric=metric)[1]
            chosen[nodes.cpu()] = prune(base, nodes, near, own, metric=metric).cpu()
        first, end = end, min(2 * end, count)
    partners: list[set[int]] = [{other for other in row if other >= 0} for row in chosen.tolist()]
    for node, row in enumerate(chosen.tolist()):
        for other in row:
            if other >= 0:
                partners[other].add(node)
    links = torch.full((count, most), -1, dtype=torch.int32)
    for nodes in torch.arange(count).split(_AT_ONCE):
        width = min(candidates, max((len(partners[node]) for node in nodes.tolist()), default=0))
        near = torch.full((len(nodes), width), -1)
        for i, node in enumerate(nodes.tolist()):
            others = torch.tensor(sorted(partners[node]), dtype=torch.int64)
            scores = similarities(base[node : node + 1], base[others.to(base.device)], metric)[0].cpu()
            ranked = others[scores.sort(descending=True, stable=True).indices][:width]
            near[i, : len(ranked)] = ranked
        kept = prune(base, nodes.to(base.device), near.to(base.device), most, metric=metric, all_if_few=True)
        links[nodes] = kept.cpu().to(torch.int32)
    return links


def prune(
    base: torch.Tensor,
    nodes: torch.Tensor,
    candidates: torch.Tensor,
    keep: int,
    *,
    metric: Metric,
    all_if_few: bool = False,
) -> torch.Tensor:
    """(n, keep) int64: algorithm 4 of Malkov & Yashunin for nodes (n,) with candidates (n, C), nearest first, -1: none."""
    import torch

    slots = torch.cat([nodes[:, None], candidates], 1)
    rows = base[slots.clamp(min=0)]
    near = rows @ rows.transpose(1, 2)
    if metric == "l2":
        lengths = torch.diagonal(near, dim1=1, dim2=2)
        near = 2 * near - lengths[:, :, None] - lengths[:, None, :]
    known = (slots >= 0) & (slots != nodes[:, None])
    nearer = torch.ones(near.shape[1:], dtype=torch.bool, device=base.device).tril(-1)
    bars = ((near >= near[:, :, :1]) | (slots[:, :, None] == slots[:, None, :])) & nearer & known[:, None, :]
    taken = known.clone()
    waits = known.sum(1) > keep if all_if_few else torch.ones(len(nodes), dtype=torch.bool, device=base.device)
    for i in range(1, slots.shape[1]):
        taken[:, i] &= ~(bars[:, i] & taken).any(1) | ~waits
    rank = taken.long().cumsum(1) - 1
    chosen = torch.full((len(nodes), keep + 1), -1, device=base.device)
    chosen.scatter_(1, torch.where(taken & (rank < keep), rank, keep), slots)
    return chosen[:, :keep]


def walk(
    similar: torch.Tensor, links: torch.Tensor, starts: torch.Tensor, ef: int, *, expand: int = 1
) -> tuple[list[list[int]], list[int]]:
    """For each query the rows that a walk holds at its end, best first, and how many it has scored.

    similar (B, N): scores of all rows, larger is nearer; links (N, L) and starts (B, S): -1 for none. Steps expand the best
    `expand` rows of the beam of ef that were not expanded yet; of equal scores the smaller row is better.
    """
    beams, work = [], []
    for scores, first in zip(similar.tolist(), starts.tolist()):
        beam: list[tuple[float, int]] = []
        met: set[int] = set()
        expanded: set[int] = set()
        coming = first
        while coming:
            new = set(coming) - met - {-1}
            met |= new
            beam = sorted(beam + [(-scores[row], row) for row in new])[:ef]
            parents = [row for _, row in beam if row not in expanded][:expand]
            expanded.update(parents)
            coming = [row for parent in parents for row in links[parent].tolist()]
        beams.append([row for _, row in beam])
        work.append(len(met))
    return beams, work


def maxsim(
    queries: torch.Tensor, query_starts: torch.Tensor, tokens: torch.Tensor, starts: torch.Tensor
) -> torch.Tensor:
    """Sum over a query's tokens of the largest inner product with a token of the document: (Q, N) float32.

    queries (A, D) and tokens (T, D) hold all tokens one after another; query q has rows query_starts[q] to
    query_starts[q + 1], document d rows starts[d] to starts[d + 1]. A document or a query without tokens scores 0.
    """
    import torch

    similar = queries.float() @ tokens.float().T
    out = torch.zeros(len(query_starts) - 1, len(starts) - 1, device=tokens.device)
    for q in range(out.shape[0]):
        of_query = similar[int(query_starts[q]) : int(query_starts[q + 1])]
        for d in range(out.shape[1]):
            of_both = of_query[:, int(starts[d]) : int(starts[d + 1])]
            if of_both.shape[1]:
                out[q, d] = of_both.amax(1).sum()
    return out
