"""Each operation in plain PyTorch: what tests compare kernels with, the way on a CPU, and what benches put beside them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import torch

Metric = Literal["ip", "cosine", "l2"]
Float8Kind = Literal["e4m3", "e5m2"]
FARTHEST = 1e18  # numbers beyond count as it where centroids are near: then no sum is NaN
_AT_ONCE = 1024  # rows whose links are made together
_SCORES = 1 << 27  # float32 numbers of rows with all centroids: 512 MiB
_GRID_BITS = 18  # of a matrix's numbers: steps of 2^-18


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


@dataclass(frozen=True, slots=True)
class Float8Layout:
    """drop: bits that are dropped from a float32; base: what is taken from the exponent; most: the largest code; least: the
    least normal number; steps: of those below it, to one; target: the power of two that scaled numbers stay below.
    """

    bias: int
    drop: int
    most: int
    least: float
    steps: float
    target: int

    @property
    def base(self) -> int:
        return (127 - self.bias) << (23 - self.drop)


FLOAT8 = {
    "e4m3": Float8Layout(7, 20, 0x7E, 2.0**-6, 2.0**9, 8),
    "e5m2": Float8Layout(15, 21, 0x7B, 2.0**-14, 2.0**16, 15),
}


def encode_float8(values: torch.Tensor, kind: Float8Kind, factors: torch.Tensor | None) -> torch.Tensor:
    """As `codecs.encode_float8`."""
    import torch

    if factors is not None:
        return _as_float8(values * factors, kind)
    shifts = _shifts(values, FLOAT8[kind].target)
    codes = _as_float8(values * _powers(shifts)[:, None], kind)
    return torch.cat([codes, (shifts + 127).to(torch.uint8)[:, None]], 1)


def decode_float8(codes: torch.Tensor, size: int, kind: Float8Kind, factors: torch.Tensor | None) -> torch.Tensor:
    """As `codecs.decode_float8`."""
    import torch

    dtype = torch.float8_e4m3fn if kind == "e4m3" else torch.float8_e5m2
    numbers = codes[:, :size]
    finite = (numbers & 0x7F).clamp(max=FLOAT8[kind].most) | (numbers & 0x80)
    values = finite.view(dtype).double()
    if factors is None:
        return _saturated(values * _wide_powers(127 - codes[:, size:].int()))
    return _saturated(values / factors.double())


def encode_levels(values: torch.Tensor, lows: torch.Tensor, inverses: torch.Tensor, levels: int) -> torch.Tensor:
    """As `codecs.encode_levels`."""
    import torch

    return ((values - lows) * inverses).round().clamp(0, levels - 1).to(torch.uint8)


def decode_levels(numbers: torch.Tensor, lows: torch.Tensor, steps: torch.Tensor) -> torch.Tensor:
    """As `codecs.decode_levels`."""
    return lows + numbers.float() * steps


def encode_parts(values: torch.Tensor, books: torch.Tensor) -> torch.Tensor:
    """As `codecs.encode_parts`: products are rounded before they are subtracted, in the order of dimensions."""
    import torch

    parts, size, count = books.shape
    halves = halves_of(books)
    made = []
    for block in values.split(max(1, _SCORES // count)):
        padded = torch.nn.functional.pad(block.clamp(-FARTHEST, FARTHEST), (0, parts * size - values.shape[1]))
        for m in range(parts):
            sums = halves[m].expand(len(block), count)
            for s in range(size):
                sums = sums - padded[:, m * size + s, None] * books[m, s]
            made.append(sums.argmin(1).to(torch.uint8))
    blocks = [torch.stack(made[i : i + parts], 1) for i in range(0, len(made), parts)]
    return torch.cat(blocks) if blocks else torch.zeros((0, parts), dtype=torch.uint8, device=values.device)


def halves_of(books: torch.Tensor) -> torch.Tensor:
    """(M, K) float32: half the squared length of each centroid of books (M, S, K)."""
    return ((books.double() ** 2).sum(1) / 2).float()


def decode_parts(codes: torch.Tensor, books: torch.Tensor) -> torch.Tensor:
    """As `codecs.decode_parts`."""
    import torch

    return torch.cat([books[m].T[codes[:, m].long()] for m in range(len(books))], 1)


def exact_product(vectors: torch.Tensor, matrix: torch.Tensor) -> torch.Tensor:
    """(N, D) @ (D, E) -> float32, for a matrix in steps of 2^-18: whole numbers of so few bits that every sum is exact."""
    shifts = _shifts(vectors, whole_bits(vectors.shape[1]))[:, None]
    whole = (vectors.double() * _wide_powers(shifts)).round()
    return _saturated(whole @ matrix.double() * _wide_powers(-shifts))


def whole_bits(dim: int) -> int:
    """Of a vector's numbers in `exact_product`, so that no sum of so many products passes 53."""
    return min(53 - _GRID_BITS - max(1, (dim - 1).bit_length()), 24)


def reduce_by(vectors: torch.Tensor, mean: torch.Tensor, basis: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
    """As `codecs.reduce_by`."""
    return _saturated(exact_product(vectors.double() - mean, basis).double() / scales)


def restore_by(reduced: torch.Tensor, mean: torch.Tensor, basis: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
    """As `codecs.restore_by`."""
    return _saturated(exact_product(reduced.double() * scales, basis.T.contiguous()).double() + mean)


def unit(vectors: torch.Tensor) -> torch.Tensor:
    """As `codecs.unit`."""
    largest = vectors.abs().amax(1, keepdim=True).double()
    wide = vectors.double() / largest.masked_fill(largest == 0, 1)
    norms = (wide * wide).sum(1, keepdim=True).sqrt()
    return (wide / norms.masked_fill(norms == 0, 1)).float()


def _shifts(values: torch.Tensor, target: int) -> torch.Tensor:
    """(N,) int32: e such that the largest of each row times 2^e lies in [2^(target - 1), 2^target); 0 for rows of zeros."""
    import torch

    largest = values.abs().amax(1)
    shifts = (target - torch.frexp(largest).exponent).clamp(-126, 126)
    return shifts.masked_fill(largest == 0, 0).int()


def _powers(exponents: torch.Tensor) -> torch.Tensor:
    """2^e in float32, for -126 <= e <= 126, bit by bit: a device's power function may round."""
    import torch

    return ((exponents.int() + 127) << 23).view(torch.float32)


def _wide_powers(exponents: torch.Tensor) -> torch.Tensor:
    """2^e in float64."""
    import torch

    return ((exponents.long() + 1023) << 52).view(torch.float64)


def _saturated(wide: torch.Tensor) -> torch.Tensor:
    import torch

    largest = torch.finfo(torch.float32).max
    return wide.clamp(-largest, largest).float()


def _as_float8(values: torch.Tensor, kind: Float8Kind) -> torch.Tensor:
    """Rounded to nearest, ties to even, by the bits; what is too large becomes the largest."""
    import torch

    layout = FLOAT8[kind]
    bits = values.view(torch.int32)
    rest = bits & 0x7FFFFFFF
    half = 1 << (layout.drop - 1)
    normal = ((rest + (half - 1 + ((rest >> layout.drop) & 1))) >> layout.drop) - layout.base
    sizes = values.abs()
    small = (sizes.clamp(max=layout.least) * layout.steps).round().int()
    code = torch.where(sizes < layout.least, small, normal.clamp(max=layout.most))
    return (code | ((bits >> 24) & 0x80)).to(torch.uint8)
