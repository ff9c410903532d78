"""Search of a graph: each query walked by one program, all queries of a batch in one launch.

A program holds the `ef` best nodes that it has met as sorted keys (score, node, was it expanded) in registers. A step expands the
best few that were not yet: their links are read, those that a hashed table of the query remembers are left out, the codes of the
rest are scored, sorted, and merged with the beam; the walk ends when all of the beam are expanded. It starts at the nearest of
some entries, found by exact search among these, where a walk on a CPU goes down the upper levels. At the end the best of
the beam are scored again from exact copies.

The table forgets: a node takes the place of another. Nothing depends on that but work. A node that was met is in the beam, where
it is looked for, or is worse than all of the beam and will stay so.

CAGRA (Ootomo et al. 2024, sections 4.1 and 4.2) walks like this, with a beam in shared memory and a table that is emptied from
time to time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import triton
import triton.language as tl

from vecdb.errors import DimensionMismatch, InvalidInput, InvalidVector
from vecdb.gpu.coding import coded, refuse_infinite
from vecdb.gpu.corpus import Corpus, unit
from vecdb.gpu.launch import OutOfDeviceMemory, is_interpreted
from vecdb.gpu.links import subset
from vecdb.gpu.select import _first, _index_of, _packed, _value_of
from vecdb.gpu.topk import topk

if TYPE_CHECKING:
    import torch

Codec = Literal["int8", "float8", "float16"]

MOST_EF = 1024
_LEAST_EF = 32
_LINE = 64  # codes are padded to a multiple of so many bytes
# Words of each row read at a time, four bytes where codes are int8, else a number: as many as leave registers to the beam.
_WORDS, _LARGE = 128, 512
_WORDS_OF_LARGE = {"int8": 64, "float8": 64, "float16": 16}
_STARTS = 32  # entries that a walk starts at
_PER_PLACE = 16  # slots of the table for each place of the beam: a walk meets some dozen nodes for each
_LEAST_SLOTS, _MOST_SLOTS = 1 << 10, 1 << 14
_AT_ONCE = 1 << 14  # queries; each has a table of its own
_MANY = 512  # queries
_CHECKED_DIMS = 128
_INTERPRETED = tl.constexpr(is_interpreted())
_NONE = tl.constexpr(0x7FFFFFFFFFFFFFFF)  # the key of no node, as if it were expanded


class Walked(NamedTuple):
    """scores (B, k) float32, best first, and rows (B, k) int64 as in topk.Found; -inf and -1 fill up where the beam holds fewer
    (allowed) nodes. work (B,) int32: codes that were scored.
    """

    scores: torch.Tensor
    rows: torch.Tensor
    work: torch.Tensor


class Graph:
    """Links over the rows of a corpus, with codes to walk by: each row's own scale, one byte or two a number.

    links: (N, L) int32, -1 behind the last of a row, such as the base level of HNSW. entries: (E,) rows among which a walk looks
    for its starts, such as those of an upper level: some hundred to some thousand. The corpus is resident, in one block.
    Raises InvalidInput for links or entries that cannot be.
    """

    def __init__(self, corpus: Corpus, links: Any, entries: Any, *, codec: Codec = "int8") -> None:
        import torch

        if codec not in ("int8", "float8", "float16"):
            raise InvalidInput(f"codec is {codec!r}; it must be int8, float8 or float16")
        if len(corpus.blocks) > 1 or not corpus.is_resident:
            raise InvalidInput(
                f"{corpus!r} is in {len(corpus.blocks)} blocks; a graph wants all rows on the device in one"
            )
        links, entries = (x if isinstance(x, torch.Tensor) else torch.from_numpy(x.copy()) for x in (links, entries))
        if links.dtype != torch.int32 or links.ndim != 2 or len(links) != len(corpus) or not links.shape[1]:
            raise InvalidInput(
                f"links are {tuple(links.shape)} {links.dtype}; they must be ({len(corpus)}, L) torch.int32"
            )
        if len(links) and not (int(links.min()) >= -1 and int(links.max()) < len(corpus)):
            raise InvalidInput(
                f"links go to rows {int(links.min())} … {int(links.max())}; the corpus has {len(corpus)}"
            )
        entries = entries.to(corpus.device, torch.int64)
        if entries.ndim != 1 or (len(entries) == 0) != (len(corpus) == 0):
            raise InvalidInput(f"entries are of shape {tuple(entries.shape)}; give (E,) rows, at least one")
        if len(entries) and not (int(entries.min()) >= 0 and int(entries.max()) < len(corpus)):
            raise InvalidInput("entries are rows that the corpus does not have")
        self.corpus = corpus
        self.links = links.to(corpus.device).contiguous()
        self.entries = entries
        self.entrances = subset(corpus, entries) if len(corpus) else corpus
        self.codec: Codec = codec
        dtype = {"int8": torch.int8, "float8": torch.float8_e4m3fn, "float16": torch.float16}[codec]
        self.width = -(-corpus.dimension * dtype.itemsize // _LINE) * _LINE // dtype.itemsize
        self.codes = torch.empty((len(corpus), self.width), dtype=dtype, device=corpus.device)
        self.scales = torch.empty(len(corpus), dtype=torch.float32, device=corpus.device)
        exact = corpus.blocks[0].exact if corpus.blocks else self.codes
        for start in range(0, len(corpus), _AT_ONCE):
            rows = exact[start : min(start + _AT_ONCE, len(corpus)), : corpus.dimension].contiguous()
            made = coded(rows, self.width, dtype, base_scale=corpus.exact_scale)
            self.codes[start : start + len(rows)] = made.codes
            self.scales[start : start + len(rows)] = made.scales

    def __len__(self) -> int:
        return len(self.corpus)

    def __repr__(self) -> str:
        return f"<Graph of {self.links.shape[1]} links over {self.corpus!r}, walked in {self.codec}>"


def walk(
    queries: Any,
    graph: Graph,
    k: int,
    *,
    ef: int = 64,
    expand: int | None = None,
    allowed: torch.Tensor | None = None,
    check: bool = True,
) -> Walked:
    """The k most similar rows that a walk with a beam of ef finds for each of (B, D) queries, 1 <= k <= ef <= MOST_EF.

    ef is raised to a power of two. expand: nodes expanded in a step; more of them take fewer steps and score more nodes. allowed:
    (N,) bool, the rows that may be found: the walk is the same, and of its beam those are reported.

    Raises as topk.
    """
    import torch

    corpus = graph.corpus
    queries = queries if isinstance(queries, torch.Tensor) else torch.from_numpy(queries)
    if queries.ndim != 2:
        raise InvalidVector(f"queries have the shape {tuple(queries.shape)}; they must be (B, {corpus.dimension})")
    if queries.shape[1] != corpus.dimension:
        raise DimensionMismatch(
            f"queries have {queries.shape[1]} numbers, the corpus holds {corpus.dimension}; were they "
            "embedded with another model?"
        )
    if not 1 <= k <= ef or ef > MOST_EF:
        raise InvalidInput(f"k is {k} and ef {ef}; they must be 1 <= k <= ef <= {MOST_EF}")
    if expand is not None and expand not in (1, 2, 4, 8):
        raise InvalidInput(f"expand is {expand}; it must be 1, 2, 4 or 8")
    if allowed is not None and (allowed.dtype != torch.bool or allowed.shape != (corpus.size,)):
        raise InvalidInput(
            f"allowed is {tuple(allowed.shape)} {allowed.dtype}; it must be ({corpus.size},) torch.bool, one for each row"
        )
    k = min(k, len(graph))
    if not len(queries) or not k:
        empty = torch.empty((len(queries), k), device=corpus.device)
        return Walked(empty, empty.to(torch.int64), torch.zeros(len(queries), dtype=torch.int32, device=corpus.device))
    links = triton.next_power_of_2(graph.links.shape[1])
    width = max(_LEAST_EF, triton.next_power_of_2(ef), links)
    few, warps = _form(len(queries), width, links)
    expand = min(expand or few, width // links)
    allowed = None if allowed is None else allowed.to(corpus.device)
    limit = _AT_ONCE
    while True:
        try:
            parts = [_walked(part, graph, k, width, expand, warps, allowed) for part in queries.split(limit)]
            break
        except torch.cuda.OutOfMemoryError as error:
            if limit <= 16:
                raise OutOfDeviceMemory(
                    f"no room on {corpus.device} beside {graph!r} to walk for {limit} queries"
                ) from error
            limit = max(16, limit // 8)
            torch.cuda.empty_cache()
    scores, rows, work, finite = (torch.cat(of_all) if len(of_all) > 1 else of_all[0] for of_all in zip(*parts))
    if check:
        refuse_infinite(finite, "query")
    return Walked(scores, rows, work)


def _form(batch: int, width: int, links: int) -> tuple[int, int]:
    """How many nodes a step expands, and how many warps walk for a query.

    Many queries fill the chip by themselves: one warp each then never waits for another, and one node a step scores no more
    than is needed. Few queries leave it idle: then a step does more at once.
    """
    if batch >= _MANY:
        return 1, 1
    return min(4, width // links), 4


def _walked(
    queries: torch.Tensor, graph: Graph, k: int, width: int, expand: int, warps: int, allowed: torch.Tensor | None
) -> tuple[torch.Tensor, ...]:
    """Scores (B, k), rows, work, and whether queries are finite. Nothing waits for the device."""
    import torch

    corpus, batch = graph.corpus, len(queries)
    block, device = corpus.blocks[0], corpus.device
    queries = queries.to(device, torch.float32).contiguous()
    if corpus.metric == "cosine":
        queries = unit(queries)
    made = coded(queries, graph.width, graph.codes.dtype, exact=torch.float32)
    asked = queries.nan_to_num(0.0, 0.0, 0.0) / corpus.exact_scale  # as its rows are in the corpus of entries
    near = topk(asked, graph.entrances, min(_STARTS, len(graph.entries)), check=False)
    places = triton.next_power_of_2(graph.links.shape[1]) * expand
    starts = torch.full((batch, places), -1, dtype=torch.int32, device=device)
    starts[:, : min(near.rows.shape[1], places)] = graph.entries[near.rows].to(torch.int32)[:, :places]
    slots = min(max(_LEAST_SLOTS, width * _PER_PLACE), _MOST_SLOTS)
    table = torch.empty((batch, slots), dtype=torch.int32, device=device)
    checked = min(width, max(32, triton.next_power_of_2(2 * k)))
    found = torch.empty((batch, checked), dtype=torch.int32, device=device)
    work = torch.empty(batch, dtype=torch.int32, device=device)
    is_int8 = graph.codec == "int8"
    codes, codes_of_queries = graph.codes, made.codes
    if is_int8:
        codes, codes_of_queries = codes.view(torch.int32), codes_of_queries.view(torch.int32)
    _walk_kernel[(batch,)](
        codes,
        graph.scales,
        block.offsets,
        graph.links,
        allowed,
        codes_of_queries,
        made.scales,
        starts,
        table,
        found,
        work,
        graph.links.shape[1],
        WIDTH=codes.shape[1],
        WORDS=min(_WORDS if width < _LARGE else _WORDS_OF_LARGE[graph.codec], triton.next_power_of_2(codes.shape[1])),
        EF=width,
        LINKS=triton.next_power_of_2(graph.links.shape[1]),
        EXPAND=expand,
        BITS=slots.bit_length() - 1,
        CHECKED=checked,
        IS_INT8=is_int8,
        HAS_OFFSETS=block.offsets is not None,
        HAS_ALLOWED=allowed is not None,
        num_warps=warps,
    )
    scores = torch.empty((batch, k), dtype=torch.float32, device=device)
    rows = torch.empty((batch, k), dtype=torch.int64, device=device)
    _check_kernel[(batch,)](
        made.exact,
        made.exact_scales,
        block.exact,
        found,
        scores,
        rows,
        corpus.dimension,
        made.exact.shape[1],
        block.exact.shape[1],
        corpus.exact_scale,
        k,
        COUNT=checked,
        DIMS=min(_CHECKED_DIMS, triton.next_power_of_2(corpus.dimension)),
        WIDTH=triton.next_power_of_2(k),
        IS_L2=corpus.metric == "l2",
        num_warps=4,
    )
    return scores, rows, work, made.finite


@triton.jit
def _key(score, node):
    """One int64 that orders by falling score, then by node; its last bit says that the node was expanded."""
    bits = (-score).to(tl.int32, bitcast=True)
    ordered = tl.where(bits < 0, bits ^ 0x7FFFFFFF, bits)
    return (ordered.to(tl.int64) << 32) | (node.to(tl.int64) << 1)


@triton.jit
def _node_of(key):
    return ((key & 0xFFFFFFFF) >> 1).to(tl.int32)


@triton.jit
def _multiply_bytes(x, y, acc):
    """acc + the product of four signed bytes of each of x and y."""
    if _INTERPRETED:
        for i in tl.static_range(4):
            acc += ((x << (24 - 8 * i)) >> 24) * ((y << (24 - 8 * i)) >> 24)
        return acc
    else:
        return tl.inline_asm_elementwise(
            "dp4a.s32.s32 $0, $1, $2, $3;", "=r,r,r,r", [x, y, acc], dtype=tl.int32, is_pure=True, pack=1
        )


@triton.jit
def _sorted(keys, COUNT: tl.constexpr):
    """Keys (COUNT,), ascending."""
    if _INTERPRETED:  # tl.sort takes the interpreter a tenth of a second
        i = tl.arange(0, COUNT)
        before = (keys[None, :] < keys[:, None]) | ((keys[None, :] == keys[:, None]) & (i[None, :] < i[:, None]))
        rank = tl.sum(before.to(tl.int32), 1)
        return tl.sum(tl.where(rank[None, :] == i[:, None], keys[None, :], 0), 1)
    else:
        return tl.sort(keys)


@triton.jit
def _merged(beam, keys, EF: tl.constexpr, PLACES: tl.constexpr):
    """The EF smallest of beam (EF,), ascending, and keys (PLACES,), in any order; PLACES divides EF."""
    if _INTERPRETED:
        return _merged_by_rank(beam, keys, EF, PLACES)
    else:
        return _merged_by_swaps(beam, keys, EF, PLACES)


@triton.jit
def _merged_by_rank(beam, keys, EF: tl.constexpr, PLACES: tl.constexpr):
    """The same, in few operations on many numbers, for the interpreter."""
    i = tl.arange(0, EF)
    j = tl.arange(0, PLACES)
    above = tl.sum((beam[None, :] <= keys[:, None]).to(tl.int32), 1)
    before = (keys[None, :] < keys[:, None]) | ((keys[None, :] == keys[:, None]) & (j[None, :] < j[:, None]))
    of_keys = above + tl.sum(before.to(tl.int32), 1)
    of_beam = i + tl.sum((keys[None, :] < beam[:, None]).to(tl.int32), 1)
    made = tl.sum(tl.where(of_beam[None, :] == i[:, None], beam[None, :], 0), 1)
    return made + tl.sum(tl.where(of_keys[None, :] == i[:, None], keys[None, :], 0), 1)


@triton.jit
def _merged_by_swaps(beam, keys, EF: tl.constexpr, PLACES: tl.constexpr):
    """The same by a bitonic network (Batcher 1968): what a sort of all would take log EF times as long for."""
    keys = tl.sort(keys, descending=True)
    last = tl.arange(0, EF // PLACES)[:, None] == EF // PLACES - 1
    tail = tl.reshape(tl.where(last, keys[None, :], _NONE), (EF,))
    # One goes up and the other down, so that the smaller of each pair are the EF smallest, and rise and fall only once.
    return tl.standard.bitonic_merge(tl.minimum(beam, tail))


@triton.jit
def _walk_kernel(
    codes_ptr,
    scales_ptr,
    offsets_ptr,
    links_ptr,
    allowed_ptr,
    queries_ptr,
    query_scales_ptr,
    starts_ptr,
    table_ptr,
    found_ptr,
    work_ptr,
    links,
    WIDTH: tl.constexpr,
    WORDS: tl.constexpr,
    EF: tl.constexpr,
    LINKS: tl.constexpr,
    EXPAND: tl.constexpr,
    BITS: tl.constexpr,
    CHECKED: tl.constexpr,
    IS_INT8: tl.constexpr,
    HAS_OFFSETS: tl.constexpr,
    HAS_ALLOWED: tl.constexpr,
):
    """score = (code of the row . code of the query) * both scales + offset of the row, as in maxima.py."""
    PLACES: tl.constexpr = LINKS * EXPAND
    SLOTS: tl.constexpr = 1 << BITS
    query = tl.program_id(0).to(tl.int64)
    table_ptr += query * SLOTS
    queries_ptr += query * WIDTH
    scale = tl.load(query_scales_ptr + query)
    tl.store(table_ptr + tl.arange(0, SLOTS), tl.full((SLOTS,), -1, tl.int32))

    w = tl.arange(0, WORDS)
    link = tl.arange(0, LINKS)
    place = tl.arange(0, PLACES)
    beam = tl.full((EF,), _NONE, tl.int64)
    node = tl.load(starts_ptr + query * PLACES + place)
    work = tl.zeros((), tl.int32)
    going = tl.full((), 1, tl.int32)
    while going > 0:
        tl.debug_barrier()  # the table as the step before left it
        slot = ((node.to(tl.uint32) * 0x9E3779B1) >> (32 - BITS)).to(tl.int32)
        fresh = (node >= 0) & (tl.load(table_ptr + slot, mask=node >= 0, other=-1) != node)
        tl.store(table_ptr + slot, node, mask=fresh)
        twice = tl.max((_node_of(beam)[None, :] == node[:, None]).to(tl.int32), 1)
        if EXPAND > 1:
            again = (node[:, None] == node[None, :]) & (place[None, :] < place[:, None])
            twice = tl.maximum(twice, tl.max(again.to(tl.int32), 1))
        fresh = fresh & (twice == 0)
        work += tl.sum(fresh.to(tl.int32), 0)

        row = tl.where(fresh, node, 0).to(tl.int64)
        if IS_INT8:
            dots = tl.zeros((PLACES, WORDS), tl.int32)
        else:
            dots = tl.zeros((PLACES, WORDS), tl.float32)
        for start in tl.static_range(0, WIDTH, WORDS):
            inside = start + w < WIDTH
            at = row[:, None] * WIDTH + (start + w)[None, :]
            inside_row = fresh[:, None] & inside[None, :]
            if IS_INT8:
                x = tl.load(codes_ptr + at, mask=inside_row, other=0)
                q = tl.load(queries_ptr + start + w, mask=inside, other=0)[None, :]
                dots = _multiply_bytes(x, tl.broadcast_to(q, (PLACES, WORDS)), dots)
            else:
                x = tl.load(codes_ptr + at, mask=inside_row, other=0.0).to(tl.float32)
                dots += x * tl.load(queries_ptr + start + w, mask=inside, other=0.0).to(tl.float32)[None, :]
        score = tl.sum(dots, 1).to(tl.float32) * (tl.load(scales_ptr + row, mask=fresh, other=0.0) * scale)
        if HAS_OFFSETS:
            score += tl.load(offsets_ptr + row, mask=fresh, other=0.0)
        beam = _merged(beam, tl.where(fresh, _key(score, node), _NONE), EF, PLACES)

        is_open = (beam & 1) == 0
        if EXPAND == 1:
            best = tl.min(tl.where(is_open, beam, _NONE), 0)
            going = (best != _NONE).to(tl.int32)
            beam = tl.where(beam == best, beam | 1, beam)
            inside = (link < links) & (going > 0)
            node = tl.load(links_ptr + _node_of(best).to(tl.int64) * links + link, mask=inside, other=-1)
        else:
            rank = tl.cumsum(is_open.to(tl.int32), 0)
            turn = tl.arange(1, EXPAND + 1)[:, None]
            is_turn = is_open[None, :] & (rank[None, :] == turn)
            parent = tl.max(tl.where(is_turn, _node_of(beam)[None, :], -1), 1)
            going = (tl.max(parent, 0) >= 0).to(tl.int32)
            beam = tl.where(is_open & (rank <= EXPAND), beam | 1, beam)
            inside = (parent >= 0)[:, None] & (link < links)[None, :]
            at = tl.maximum(parent, 0).to(tl.int64)[:, None] * links + link[None, :]
            node = tl.reshape(tl.load(links_ptr + at, mask=inside, other=-1), (PLACES,))

    node = _node_of(beam)
    if HAS_ALLOWED:
        known = beam != _NONE
        may = tl.load(allowed_ptr + tl.where(known, node, 0), mask=known, other=0)
        beam = _sorted(tl.where(may != 0, beam, _NONE), EF)
        node = _node_of(beam)
    at = tl.arange(0, EF)
    tl.store(found_ptr + query * CHECKED + at, tl.where(beam != _NONE, node, -1), mask=at < CHECKED)
    tl.store(work_ptr + query, work)


@triton.jit
def _check_kernel(
    queries_ptr,
    scales_ptr,
    base_ptr,
    found_ptr,
    scores_ptr,
    rows_ptr,
    dim,
    stride_query,
    stride_base,
    base_scale,
    k,
    COUNT: tl.constexpr,
    DIMS: tl.constexpr,
    WIDTH: tl.constexpr,
    IS_L2: tl.constexpr,
):
    """The k best of COUNT rows by their exact copies: vectors are queries * scales[query] and base * base_scale."""
    query = tl.program_id(0).to(tl.int64)
    scale = tl.load(scales_ptr + query)
    at = tl.arange(0, COUNT)
    node = tl.load(found_ptr + query * COUNT + at)
    known = node >= 0
    row = tl.maximum(node, 0).to(tl.int64)
    total = tl.zeros((COUNT, DIMS), tl.float32)
    for start in range(0, dim, DIMS):
        d = start + tl.arange(0, DIMS)
        inside = known[:, None] & (d < dim)[None, :]
        x = tl.load(base_ptr + row[:, None] * stride_base + d[None, :], mask=inside, other=0.0).to(tl.float32)
        q = tl.load(queries_ptr + query * stride_query + d, mask=d < dim, other=0.0)[None, :]
        if IS_L2:
            away = tl.where(inside, x * base_scale - q * scale, 0.0)
            total -= away * away
        else:
            total += x * q
    score = tl.sum(total, 1)
    if not IS_L2:
        score *= scale * base_scale
    score = tl.where(known, score, float("-inf"))
    best = _first(_packed(score, tl.where(known, node, at)), WIDTH)  # all different, also where there is none
    value = _value_of(best)
    at = tl.arange(0, WIDTH)
    tl.store(scores_ptr + query * k + at, value, mask=at < k)
    tl.store(rows_ptr + query * k + at, tl.where(value > float("-inf"), _index_of(best), -1).to(tl.int64), mask=at < k)
