"""Each operation in plain PyTorch: what tests compare kernels with, the way on a CPU, and what benches put beside them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import torch

Metric = Literal["ip", "cosine", "l2"]


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
