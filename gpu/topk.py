"""Exact search of the k most similar rows of a corpus, at about the rate of the plain matrix product.

queries -> codes (one kernel) -> maxima of groups and tiles (maxima.py) -> best groups -> their rows scored again -> the k best
(select.py). No step waits for the host, so small batches run as one recorded CUDA graph: a launch costs as much as the rest.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import TYPE_CHECKING, Any, NamedTuple
from weakref import WeakKeyDictionary

from vecdb.errors import DimensionMismatch, InvalidInput, InvalidVector
from vecdb.gpu import maxima, select
from vecdb.gpu.coding import Coded, coded, refuse_infinite
from vecdb.gpu.corpus import Block, Corpus
from vecdb.gpu.launch import OutOfDeviceMemory

if TYPE_CHECKING:
    import torch

MOST_ROWS = 1024  # k
_MAXIMA = 1 << 28  # float32 numbers of a chunk of queries: 1 GiB
_SCORES = 1 << 27  # of rows scored again, likewise
_RECORDED_BATCH = 1024  # up to here the gaps between launches cost more than a hundredth
_RECORDINGS = 16  # kept for each corpus: batch sizes and k in use
_SPARE = 6  # groups beyond k that approximate codes choose


class Found(NamedTuple):
    """scores (B, k) float32, best first: inner product, cosine or minus the squared distance. rows (B, k) int64, their places.

    k is min(k, rows of the corpus); -inf and -1 fill up where fewer rows are allowed.
    """

    scores: torch.Tensor
    rows: torch.Tensor


def topk(
    queries: Any,
    corpus: Corpus,
    k: int,
    *,
    allowed: torch.Tensor | None = None,
    candidates: int | None = None,
    check: bool = True,
) -> Found:
    """The k rows of the corpus most similar to each of (B, D) queries: any B, k up to MOST_ROWS.

    Exact for the numbers that the corpus holds. Where its codes are approximate and re-checked, `candidates` groups (by default
    k and some) are chosen by codes and scored exactly. allowed: (N,) bool, the rows that may be found. check=False spares
    the wait for the device that tells whether queries were finite.

    Raises DimensionMismatch, InvalidVector for NaN and infinity, InvalidInput for other arguments that cannot be, and
    OutOfDeviceMemory if the device has no room for the smallest chunk of queries.
    """
    import torch

    queries = queries if isinstance(queries, torch.Tensor) else torch.from_numpy(queries)
    if queries.ndim != 2:
        raise InvalidVector(f"queries have the shape {tuple(queries.shape)}; they must be (B, {corpus.dimension})")
    if queries.shape[1] != corpus.dimension:
        raise DimensionMismatch(
            f"queries have {queries.shape[1]} numbers, the corpus holds {corpus.dimension}; were they "
            "embedded with another model?"
        )
    if not 1 <= k <= MOST_ROWS:
        raise InvalidInput(f"k is {k}; it must lie between 1 and {MOST_ROWS}")
    if allowed is not None and (allowed.dtype != torch.bool or allowed.shape != (corpus.size,)):
        raise InvalidInput(
            f"allowed is {tuple(allowed.shape)} {allowed.dtype}; it must be ({corpus.size},) torch.bool, one for each row"
        )
    batch, k = len(queries), min(k, corpus.size)
    if batch == 0 or k == 0:
        empty = torch.empty((batch, k), device=corpus.device)
        return Found(empty, empty.to(torch.int64))
    queries = queries.to(corpus.device, queries.dtype if queries.is_floating_point() else torch.float32).contiguous()
    asked = k if corpus.exact == "codes" else k + _SPARE
    count = min(max(k, candidates or asked), MOST_ROWS)
    if allowed is not None:
        allowed = allowed.to(corpus.device)
    elif (
        batch <= _RECORDED_BATCH and corpus.device.type == "cuda" and corpus.is_resident and count <= select.MOST_FUSED
    ):
        try:
            return _checked(_replayed(queries, corpus, k, count), check)
        except torch.cuda.OutOfMemoryError:
            _recordings.pop(corpus, None)  # the way below takes less at once
    limit = _chunk(corpus, count)
    while True:
        try:
            return _checked(_in_chunks(queries, corpus, k, count, allowed, limit), check)
        except torch.cuda.OutOfMemoryError as error:
            if limit <= 16:
                raise OutOfDeviceMemory(
                    f"no room on {corpus.device} beside {corpus!r} for maxima of {limit} queries; make the corpus with a smaller "
                    "resident_bytes or block_rows"
                ) from error
            limit = max(16, limit // 4)
            torch.cuda.empty_cache()


def _checked(result: tuple[Found, torch.Tensor], check: bool) -> Found:
    found, finite = result
    if check:
        refuse_infinite(finite, "query")
    return found


def _chunk(corpus: Corpus, count: int) -> int:
    """How many queries at once: maxima and scores must fit, and whole tiles of queries waste nothing."""
    most_rows = max(len(block.codes) for block in corpus.blocks)
    fits = min(_MAXIMA * corpus.group // most_rows, _SCORES // (count * corpus.group))
    tile = maxima.WIDE[corpus.blocks[0].codes.element_size()].queries
    return max(16, fits // tile * tile)


def _in_chunks(
    queries: torch.Tensor, corpus: Corpus, k: int, count: int, allowed: torch.Tensor | None, limit: int
) -> tuple[Found, torch.Tensor]:
    """Blocks outside, chunks of queries inside: a block that must be copied is copied once."""
    import torch

    chunks = [_prepared(part, corpus) for part in queries.split(limit)]
    results: list[Found | None] = [None] * len(chunks)
    for block in corpus.on_device():
        offsets = _offsets(block, corpus, allowed)
        for i, chunk in enumerate(chunks):
            results[i] = _better(results[i], _in_block(chunk, block, corpus, k, count, offsets), k)
    found = [result for result in results if result is not None]
    finite = torch.cat([chunk.finite for chunk in chunks])
    return Found(torch.cat([f.scores for f in found]), torch.cat([f.rows for f in found])), finite


def _better(one: Found | None, other: Found, k: int) -> Found:
    """The k best of two results; of equal ones, those of the first."""
    import torch

    if one is None:
        return other
    scores = torch.cat([one.scores, other.scores], 1)
    best, at = scores.sort(dim=1, descending=True, stable=True)
    return Found(best[:, :k], torch.cat([one.rows, other.rows], 1).gather(1, at[:, :k]))


def _in_block(chunk: Coded, block: Block, corpus: Corpus, k: int, count: int, offsets: torch.Tensor | None) -> Found:
    import torch

    batch, rows = len(chunk.codes), len(block.codes)
    tiling = maxima.tiling_of(batch, block.codes.element_size())
    groups = torch.empty((batch, rows // corpus.group), dtype=torch.float32, device=corpus.device)
    tiles = torch.empty((batch, rows // tiling.rows), dtype=torch.float32, device=corpus.device)
    maxima.write_maxima(
        chunk.codes,
        block.codes,
        block.count,
        corpus.group,
        groups,
        tiles,
        tiling,
        scales=chunk.scales if offsets is not None else None,
        offsets=offsets,
    )
    chosen = select.choose_groups(groups, tiles, count)
    is_exact = block.exact is block.codes
    scores = select.score_groups(
        chunk.codes if is_exact else chunk.exact,
        block.exact,
        block.count,
        corpus.group,
        chosen,
        chunk.exact_scales,
        corpus.code_scale if is_exact else corpus.exact_scale,
        offsets=offsets,
        is_l2=corpus.metric == "l2",
    )
    return Found(*select.best_rows(chosen, scores, corpus.group, min(k, block.count), block.first))


def _offsets(block: Block, corpus: Corpus, allowed: torch.Tensor | None) -> torch.Tensor | None:
    """What is added to each row's product: -|x|^2 / 2 under l2, -inf where a row is not allowed; None for nothing at all."""
    import torch

    if allowed is None:
        return block.offsets
    offsets = torch.zeros(len(block.codes), device=corpus.device) if block.offsets is None else block.offsets.clone()
    offsets[: block.count].masked_fill_(~allowed[block.first : block.first + block.count], float("-inf"))
    offsets[block.count :] = float("-inf")
    return offsets


def _prepared(queries: torch.Tensor, corpus: Corpus) -> Coded:
    block = corpus.blocks[0]
    return coded(
        queries,
        corpus.width,
        block.codes.dtype,
        base_scale=corpus.code_scale,
        exact=None if block.exact is block.codes else block.exact.dtype,
        is_cosine=corpus.metric == "cosine",
    )


class _Recordings:
    """Searches of one corpus as CUDA graphs, the latest used last. They run one after another and share their memory."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.kept: OrderedDict[Any, _Recording] = OrderedDict()


class _Recording:
    """One search as a CUDA graph, over a query tensor and results that stay where they are."""

    def __init__(self, queries: torch.Tensor, corpus: Corpus, k: int, count: int, pool: Any) -> None:
        import torch

        self.queries = queries.clone()
        _in_chunks(self.queries, corpus, k, count, None, len(queries))  # compiles what must be compiled
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph, pool=pool):
            self.found, self.finite = _in_chunks(self.queries, corpus, k, count, None, len(queries))

    def replay(self, queries: torch.Tensor) -> tuple[Found, torch.Tensor]:
        self.queries.copy_(queries)
        self.graph.replay()
        return Found(self.found.scores.clone(), self.found.rows.clone()), self.finite.clone()


_recordings: WeakKeyDictionary[Corpus, _Recordings] = WeakKeyDictionary()


def _replayed(queries: torch.Tensor, corpus: Corpus, k: int, count: int) -> tuple[Found, torch.Tensor]:
    key = (len(queries), k, count, queries.dtype)
    recordings = _recordings.setdefault(corpus, _Recordings())
    with recordings.lock:
        kept = recordings.kept
        if key not in kept:
            pool = next(iter(kept.values())).graph.pool() if kept else None
            kept[key] = _Recording(queries, corpus, k, count, pool)
            while len(kept) > _RECORDINGS:
                kept.popitem(last=False)
        kept.move_to_end(key)
        return kept[key].replay(queries)
