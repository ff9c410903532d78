"""Late interaction: for every token of a query the best token of a document, summed; no matrix of similarities is written.

A tile is up to 128 tokens of queries against 64 tokens of one document: the tensor cores' result holds a query token's
similarities in four threads, so its maximum costs two exchanges. Which 64 tokens come next stands in a list made once for the
documents; a tile that reaches beyond its document repeats the last token instead of masking, which changes no maximum.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import triton
import triton.language as tl

from vecdb.errors import DimensionMismatch, InvalidInput, InvalidVector
from vecdb.gpu.coding import Coded, coded, refuse_infinite
from vecdb.gpu.launch import device_of, is_interpreted, need_kernels, need_triton, processors

if TYPE_CHECKING:
    import torch

Codec = Literal["float16", "int8", "float8"]

_INTERPRETED = tl.constexpr(is_interpreted())
_LARGEST = {"int8": 127.0, "float8": 448.0}
_LEAST_DIMS = 32  # that tensor cores multiply at once, of one byte
_TOKENS = 64  # of a document in one tile
_ROWS = 128  # of queries in one tile
_PER_PROCESSOR = 3  # programs that share a multiprocessor: while one takes maxima, the others multiply


class Documents:
    """Token vectors (T, D) of N documents, ready for `maxsim`.

    Document d has rows starts[d] to starts[d + 1]; starts (N + 1,) int64. int8 and float8 (e4m3) take half the memory and, like
    the query, one scale for all. Raises InvalidVector for NaN and infinity, InvalidInput for starts that fit no documents.
    """

    def __init__(
        self, tokens: Any, starts: Any, *, codec: Codec = "float16", device: str | torch.device = "auto"
    ) -> None:
        need_triton()
        import torch

        self.device = device_of(device)
        need_kernels(self.device)
        tokens, starts = (x if isinstance(x, torch.Tensor) else torch.from_numpy(x) for x in (tokens, starts))
        if tokens.ndim != 2 or not 1 <= tokens.shape[1] <= 1024:
            raise InvalidVector(f"tokens have the shape {tuple(tokens.shape)}; they must be (T, D), D at most 1,024")
        starts = starts.to("cpu", torch.int64)
        lengths = starts.diff()
        if len(starts) == 0 or int(starts[0]) != 0 or int(starts[-1]) != len(tokens) or bool((lengths < 0).any()):
            raise InvalidInput(
                f"starts must go from 0 up to the {len(tokens):,} tokens, one more than there are documents"
            )
        if codec not in ("float16", *_LARGEST):
            raise InvalidInput(f"codec is {codec!r}; it must be one of float16, int8, float8")
        self.codec: Codec = codec
        self.count = len(lengths)
        self.has_empty = bool((lengths == 0).any())
        self.dimension = tokens.shape[1]
        self.tokens, self.scale = _encoded(tokens.to(self.device), codec)
        self.starts = starts.to(self.device)
        tiles = (lengths + _TOKENS - 1) // _TOKENS
        first = torch.zeros(self.count + 1, dtype=torch.int64)
        torch.cumsum(tiles, 0, out=first[1:])
        document = torch.repeat_interleave(torch.arange(self.count), tiles)
        begin = starts[document] + (torch.arange(len(document)) - first[document]) * _TOKENS
        self._tiles_before = first
        self._tiles = tuple(x.to(self.device) for x in (document.to(torch.int32), begin, starts[document + 1] - 1))
        self._shares: dict[int, torch.Tensor] = {}

    def __len__(self) -> int:
        return self.count

    def shares(self, programs: int) -> torch.Tensor:
        """(programs + 1,) int64: the first tile of each program, so that each has about as many, of whole documents."""
        import torch

        if programs not in self._shares:
            before = self._tiles_before
            wanted = torch.arange(programs + 1) * int(before[-1]) // programs
            self._shares[programs] = before[torch.searchsorted(before, wanted)].to(self.device)
        return self._shares[programs]


def maxsim(
    queries: Any, documents: Documents, *, lengths: Any = None, candidates: Any = None, check: bool = True
) -> torch.Tensor:
    """Scores of documents for (Q, T, D) queries, whose query q has lengths[q] tokens (None: T): (Q, N) float32, larger is nearer.

    candidates (Q, C): score these documents alone for each query, (Q, C); -1 is none and scores -inf. A document or a query
    without tokens scores 0. check=False spares the waits for the device that tell whether queries are
    finite and candidates exist.
    Raises DimensionMismatch, InvalidVector for NaN and infinity, InvalidInput for other arguments.
    """
    import torch

    queries = torch.as_tensor(queries)
    if queries.ndim != 3 or queries.shape[1] == 0:
        raise InvalidVector(
            f"queries have the shape {tuple(queries.shape)}; they must be (Q, T, {documents.dimension})"
        )
    if queries.shape[2] != documents.dimension:
        raise DimensionMismatch(
            f"query tokens have {queries.shape[2]} numbers, the documents' have {documents.dimension}; were they embedded "
            "with another model?"
        )
    count, most = queries.shape[:2]
    device = documents.device
    if lengths is not None:
        lengths = torch.as_tensor(lengths)
        if lengths.shape != (count,) or not (lengths.is_cuda or bool(((lengths >= 0) & (lengths <= most)).all())):
            raise InvalidInput(f"lengths must be ({count},), between 0 and {most}")
        lengths = lengths.to(device, torch.int32)
    if candidates is not None:
        candidates = torch.as_tensor(candidates).to(device, torch.int64)
        if candidates.ndim != 2 or len(candidates) != count:
            raise InvalidInput(f"candidates are {tuple(candidates.shape)}; they must be ({count}, C)")
        if check and candidates.numel() and not -1 <= int(candidates.min()) <= int(candidates.max()) < documents.count:
            raise InvalidInput(f"candidates must lie between -1 and {documents.count - 1}")
    part = min(_ROWS, max(16, triton.next_power_of_2(most)))  # tokens of a query that are summed in one tile
    parts = triton.cdiv(most, part)
    queries = queries.to(device, queries.dtype if queries.is_floating_point() else torch.float32)
    if parts * part > most:
        queries = torch.nn.functional.pad(queries, (0, 0, 0, parts * part - most))
    rows = coded(
        queries.reshape(-1, documents.dimension),
        documents.tokens.shape[1],
        documents.tokens.dtype,
        base_scale=documents.scale,
    )
    settings = lengths, most, part, parts
    if candidates is None:
        scores = _of_all(rows, documents, *settings)
    else:
        scores = _of_candidates(rows, documents, candidates, *settings)
    if check:
        refuse_infinite(rows.finite.view(count, -1).amin(1) if count else rows.finite, "query")
    return scores


def _encoded(tokens: torch.Tensor, codec: Codec) -> tuple[torch.Tensor, float]:
    """(T, D) as codes (T, a power of two), and the scale that makes numbers of them."""
    import torch

    width = max(_LEAST_DIMS, triton.next_power_of_2(tokens.shape[1]))
    largest = float(tokens.abs().amax()) if tokens.numel() else 1.0
    if not largest < float("inf"):
        raise InvalidVector("token vectors hold NaN or infinity; every number must be finite")
    types = {"float16": torch.float16, "int8": torch.int8, "float8": torch.float8_e4m3fn}
    scale = (largest or 1.0) / _LARGEST.get(codec, 1.0)
    codes = torch.zeros((len(tokens), width), dtype=types[codec], device=tokens.device)
    scaled = tokens.float() / scale
    codes[:, : tokens.shape[1]] = (scaled.round() if codec == "int8" else scaled).to(types[codec])
    return codes, scale


def _of_all(
    rows: Coded, documents: Documents, lengths: torch.Tensor | None, most: int, part: int, parts: int
) -> torch.Tensor:
    import torch

    count = len(rows.codes) // (part * parts)
    empty = torch.zeros if documents.has_empty else torch.empty
    out = empty((count * parts, documents.count), dtype=torch.float32, device=documents.device)
    document, begin, last = documents._tiles
    if len(document) and count:
        tile = min(_ROWS, max(part, 64, triton.next_power_of_2(len(rows.codes))))
        row_tiles = triton.cdiv(len(rows.codes), tile)
        programs = max(1, min(documents.count, processors(documents.device) * _PER_PROCESSOR // row_tiles))
        _all_kernel[(row_tiles * programs,)](
            rows.codes,
            rows.scales,
            documents.tokens,
            documents.shares(programs),
            document,
            begin,
            last,
            lengths,
            out,
            len(rows.codes),
            documents.count,
            row_tiles,
            parts,
            most,
            ROWS=tile,
            PART=part,
            TOKENS=_TOKENS,
            DIMS=rows.codes.shape[1],
            num_warps=8 if tile == _ROWS and documents.codec == "float16" else 4,
            num_stages=4 if tile == _ROWS and documents.codec == "float16" else 5,
        )
    return out.view(count, parts, documents.count).sum(1) if parts > 1 else out


def _of_candidates(
    rows: Coded,
    documents: Documents,
    candidates: torch.Tensor,
    lengths: torch.Tensor | None,
    most: int,
    part: int,
    parts: int,
) -> torch.Tensor:
    import torch

    count, width = candidates.shape
    out = torch.zeros((parts, count, width), device=documents.device)
    if out.numel():
        _candidates_kernel[(count * width, parts)](
            rows.codes,
            rows.scales,
            documents.tokens,
            documents.starts,
            candidates.contiguous(),
            lengths,
            out,
            width,
            most,
            PART=part,
            TOKENS=_TOKENS,
            DIMS=rows.codes.shape[1],
            num_warps=4,
            num_stages=3,
        )
    return out.sum(0)


@triton.jit
def _similar(rows, tokens):
    """(R, DIMS), (TOKENS, DIMS) -> (R, TOKENS)"""
    if _INTERPRETED:  # which cannot multiply all types
        return tl.dot(rows.to(tl.float32), tokens.to(tl.float32).T, input_precision="ieee")
    SUM: tl.constexpr = tl.int32 if rows.dtype == tl.int8 else tl.float32
    return tl.dot(rows, tokens.T, out_dtype=SUM)


@triton.jit
def _all_kernel(
    rows_ptr,
    scales_ptr,
    tokens_ptr,
    shares_ptr,
    document_ptr,
    begin_ptr,
    last_ptr,
    lengths_ptr,
    out_ptr,
    n_rows,
    n_documents,
    row_tiles,
    parts,
    most,
    ROWS: tl.constexpr,
    PART: tl.constexpr,
    TOKENS: tl.constexpr,
    DIMS: tl.constexpr,
):
    row_tile = tl.program_id(0) % row_tiles
    program = tl.program_id(0) // row_tiles
    d = tl.arange(0, DIMS)
    row = row_tile * ROWS + tl.arange(0, ROWS)
    rows = tl.load(rows_ptr + row[:, None] * DIMS + d[None, :], mask=(row < n_rows)[:, None], other=0.0)
    piece = row // PART  # of a query: `parts` pieces each
    counts = (piece % parts) * PART + row % PART < most
    if lengths_ptr is not None:
        counts &= (piece % parts) * PART + row % PART < tl.load(
            lengths_ptr + piece // parts, mask=row < n_rows, other=0
        )
    scale = tl.load(scales_ptr + row, mask=row < n_rows, other=0.0)
    best = tl.full((ROWS,), float("-inf"), tl.float32)
    for tile in tl.range(tl.load(shares_ptr + program), tl.load(shares_ptr + program + 1)):
        last = tl.load(last_ptr + tile)
        token = tl.minimum(tl.load(begin_ptr + tile) + tl.arange(0, TOKENS), last)
        tokens = tl.load(tokens_ptr + token[:, None] * DIMS + d[None, :])
        best = tl.maximum(best, tl.max(_similar(rows, tokens), 1).to(tl.float32))
        if tl.load(begin_ptr + tile) + TOKENS > last:
            total = tl.sum(tl.reshape(tl.where(counts, best * scale, 0.0), (ROWS // PART, PART)), 1)
            at = row_tile * (ROWS // PART) + tl.arange(0, ROWS // PART)
            at_out = at.to(tl.int64) * n_documents + tl.load(document_ptr + tile)
            tl.store(out_ptr + at_out, total, mask=at * PART < n_rows)
            best = tl.full((ROWS,), float("-inf"), tl.float32)


@triton.jit
def _candidates_kernel(
    rows_ptr,
    scales_ptr,
    tokens_ptr,
    starts_ptr,
    candidates_ptr,
    lengths_ptr,
    out_ptr,
    width,
    most,
    PART: tl.constexpr,
    TOKENS: tl.constexpr,
    DIMS: tl.constexpr,
):
    pair, part = tl.program_id(0), tl.program_id(1)
    pairs, parts = tl.num_programs(0), tl.num_programs(1)
    query = pair // width
    document = tl.load(candidates_ptr + pair)
    start = tl.load(starts_ptr + tl.maximum(document, 0))
    stop = tl.load(starts_ptr + tl.maximum(document, 0) + 1)
    d = tl.arange(0, DIMS)
    within = part * PART + tl.arange(0, PART)
    rows = tl.load(rows_ptr + (query * parts * PART + within)[:, None] * DIMS + d[None, :])
    best = tl.full((PART,), float("-inf"), tl.float32)
    for first in tl.range(start, stop, TOKENS):
        token = tl.minimum(first + tl.arange(0, TOKENS), stop - 1)
        tokens = tl.load(tokens_ptr + token[:, None] * DIMS + d[None, :])
        best = tl.maximum(best, tl.max(_similar(rows, tokens), 1).to(tl.float32))
    counts = (within < most) & (stop > start)
    if lengths_ptr is not None:
        counts &= within < tl.load(lengths_ptr + query)
    scale = tl.load(scales_ptr + query * parts * PART + within)
    total = tl.sum(tl.where(counts, best * scale, 0.0), 0)
    total = tl.where(document >= 0, total, float("-inf"))
    tl.store(out_ptr + part.to(tl.int64) * pairs + pair, total)
