"""What `bench gpu` measures. Each function yields a line for each operation, setting and peer."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from bench.machine import version_of
from vecdb.gpu import reference
from vecdb.gpu.corpus import Corpus
from vecdb.gpu.kmeans import kmeans
from vecdb.gpu.maxsim import Documents
from vecdb.gpu.maxsim import maxsim as fused_maxsim
from vecdb.gpu.topk import topk
from vecdb.gpu.walk import MOST_EF, Graph, walk
from vecdb.index.base import HnswConfig
from vecdb.index.codecs import parse
from vecdb.index.device_build import links_of
from vecdb.index.device_codecs import DeviceCodec
from vecdb.index.device_walk import entries_of
from vecdb.index.levels import draw_levels

Line = dict[str, Any]
Call = Callable[[torch.Tensor], torch.Tensor]

_LATENT, _HIDDEN = (
    32,
    512,
)  # of the data: this many numbers through a random layer of ReLUs, so that rows resemble embeddings
_BATCHES = (1, 16, 128, 1024, 8192)
_JUDGED = 1024  # queries whose true neighbours are known
_TURNS = 4  # inputs that take turns
# One-byte integers go as fast as one-byte floats; PyTorch's own product of integers does not.
_RATES = {"float16": "product_tflops", "bfloat16": "product_tflops", "int8": "float8_tflops", "float8": "float8_tflops"}


def median_ms(call: Callable[[int], Any], *, times: int = 15) -> float:
    """Device milliseconds of call(i), which gets the number of the call, to take other inputs each time."""
    for i in range(3):
        call(i)
    torch.cuda.synchronize()
    events = [(torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)) for _ in range(times)]
    for i, (start, stop) in enumerate(events):
        start.record()
        call(i)
        stop.record()
    torch.cuda.synchronize()
    return float(np.median([start.elapsed_time(stop) for start, stop in events]))


def ceilings() -> Line:
    """The card, what it copies in TB/s (read and written), and what plain products of 8,192 do in TFLOP/s, on random data."""
    size = 8192
    left, right = (torch.randn(size, size, device="cuda", dtype=torch.float16) for _ in range(2))
    small = [x.to(torch.float8_e4m3fn) for x in (left, right)]
    one = torch.ones((), device="cuda")
    block = torch.empty(1 << 31, dtype=torch.uint8, device="cuda")
    other = torch.empty_like(block)

    def rate(call: Callable[[int], Any]) -> float:
        return round(2 * size**3 / median_ms(call) / 1e9, 1)

    return {
        "name": torch.cuda.get_device_name(),
        "torch": torch.__version__,
        "triton": version_of("triton"),
        "copy_tb_s": round(2 * block.numel() / median_ms(lambda i: other.copy_(block)) / 1e9, 3),
        "product_tflops": rate(lambda i: left @ right.T),
        "float8_tflops": rate(
            lambda i: torch._scaled_mm(small[0], small[1].T, scale_a=one, scale_b=one, out_dtype=torch.float16)
        ),
    }


def embeddings(count: int, dim: int, seed: int) -> torch.Tensor:
    """(count, dim) float16 of unit length."""
    layers = torch.Generator("cuda").manual_seed(99)
    first = torch.randn(_LATENT, _HIDDEN, device="cuda", generator=layers)
    second = torch.randn(_HIDDEN, dim, device="cuda", generator=layers)
    draws = torch.Generator("cuda").manual_seed(seed)
    out = torch.empty(count, dim, device="cuda", dtype=torch.float16)
    for part in out.split(100_000):
        hidden = torch.relu(torch.randn(len(part), _LATENT, device="cuda", generator=draws) @ first)
        part.copy_(torch.nn.functional.normalize(hidden @ second, dim=1))
    return out


def search(rows: int, dim: int, card: Line) -> Iterator[Line]:
    base, queries = embeddings(rows, dim, 0), embeddings(8192 + _TURNS, dim, 5)
    trial = _Trial(queries, {k: _truth(queries[:_JUDGED], base, k) for k in (10, 100)}, rows, dim, card)
    for batch in _BATCHES:
        at_once = min(batch, _JUDGED)  # the scores of more do not fit
        for what, k in (("PyTorch product", None), ("PyTorch product + topk", 10)):
            line = trial.line(what, at_once, k, partial(_plain, base, k), "float16")
            yield {**line, "batch": batch, "ms": line["ms"] * batch / at_once}
    yield from _cuvs(trial, base)
    for codec in ("float16", "int8", "float8"):
        corpus = Corpus(base, codec=codec)
        for batch, k in (*((batch, 10) for batch in _BATCHES), (1024, 100)):
            yield trial.line(f"vecdb {codec}", batch, k, partial(_ours, corpus, k), codec)
        allowed = torch.rand(rows, device="cuda") < 0.1
        yield trial.line(f"vecdb {codec}, filter of 10 %", 1024, 10, partial(_ours, corpus, 10, allowed=allowed), codec)
    corpus = Corpus(base.cpu(), resident_bytes=0, block_rows=1 << 17)
    yield trial.line("vecdb float16, base on the host", 1024, 10, partial(_ours, corpus, 10))


@dataclass(frozen=True, slots=True)
class _Trial:
    """Queries (8192 and some, D), the true neighbours of the first of them for some k, and what they are searched in."""

    queries: torch.Tensor
    truths: dict[int, torch.Tensor]
    rows: int
    dim: int
    card: Line

    def line(self, what: str, batch: int, k: int | None, call: Call, codec: str | None = None) -> Line:
        """call takes queries and gives rows (or, for k None, anything). codec: of the base, which tells the floor."""
        ms = median_ms(lambda i: call(self.queries[i % _TURNS : i % _TURNS + batch]))
        floor = None
        if codec is not None:
            numbers = self.rows * self.dim
            floor = floor_ms(
                2 * batch * numbers, numbers * (2 if "16" in codec else 1), self.card[_RATES[codec]], self.card
            )
        is_judged = k is not None and "filter" not in what
        return {
            "what": what,
            "rows": self.rows,
            "dim": self.dim,
            "batch": batch,
            "k": k,
            "ms": ms,
            "per_s": batch / ms * 1e3,
            "floor_ms": floor,
            "roofline": None if floor is None else floor / ms,
            "recall": _recall(call(self.queries[: min(batch, _JUDGED)]), self.truths[k]) if k and is_judged else None,
        }


def _plain(base: torch.Tensor, k: int | None, queries: torch.Tensor) -> torch.Tensor:
    scores = queries @ base.T
    return scores if k is None else scores.topk(k, dim=1).indices


def _ours(corpus: Corpus, k: int, queries: torch.Tensor, allowed: torch.Tensor | None = None) -> torch.Tensor:
    return topk(queries, corpus, k, allowed=allowed, check=False).rows


def _cuvs(trial: _Trial, base: torch.Tensor) -> Iterator[Line]:
    try:
        from cuvs.neighbors import brute_force, cagra
    except ImportError:
        return

    def searched(module: Any, *settings: Any) -> Call:
        return lambda queries: torch.as_tensor(module.search(*settings, queries, 10)[1], device="cuda").long()

    index = brute_force.build(base, metric="inner_product")
    for batch in _BATCHES:
        yield trial.line("cuVS brute force", batch, 10, searched(brute_force, index))
    graph = cagra.build(cagra.IndexParams(metric="inner_product", graph_degree=32), base)
    for width in (32, 64, 128, 256, 512):
        search = searched(cagra, cagra.SearchParams(itopk_size=width), graph)
        yield trial.line(f"cuVS CAGRA, itopk {width}", 8192, 10, search)


def maxsim(card: Line, documents: int = 1000, length: int = 180, dim: int = 128, tokens: int = 32) -> Iterator[Line]:
    draws = torch.Generator("cuda").manual_seed(1)

    def normal(*shape: int) -> torch.Tensor:
        return torch.nn.functional.normalize(torch.randn(*shape, device="cuda", generator=draws), dim=-1)

    sets = [normal(documents * length, dim) for _ in range(_TURNS)]
    starts = torch.arange(documents + 1) * length
    made = {codec: [Documents(one, starts, codec=codec) for one in sets] for codec in ("float16", "int8", "float8")}
    halves = [one.half().view(documents, length, dim) for one in sets]
    for batch in (1, 16, 64):
        queries = normal(batch, tokens, dim)
        few = reference.maxsim(
            queries.flatten(0, 1), torch.arange(batch + 1) * tokens, sets[0][: 20 * length], starts[:21]
        )

        def line(what: str, calls: list[Any], codec: str, batch: int = batch) -> Line:
            numbers = documents * length * dim
            floor = floor_ms(
                2 * batch * tokens * numbers, numbers * (2 if codec == "float16" else 1), card[_RATES[codec]], card
            )
            ms = _replayed_ms(calls)  # a call's launches take longer than its work
            return {
                "what": what,
                "batch": batch,
                "documents": documents,
                "tokens": length,
                "dim": dim,
                "ms": ms,
                "call_ms": median_ms(lambda i: calls[i % _TURNS]()),
                "floor_ms": floor,
                "roofline": floor / ms,
            }

        yield line("PyTorch einsum", [partial(_einsum, queries.half(), one) for one in halves], "float16")
        for codec, of_codec in made.items():
            error = (fused_maxsim(queries, of_codec[0])[:, :20] - few).abs().max() / few.abs().max()
            calls = [partial(fused_maxsim, queries, one, check=False) for one in of_codec]
            yield {**line(f"vecdb {codec}", calls, codec), "error": float(error)}


def _einsum(queries: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    return torch.einsum("qtd,nsd->qnts", queries, tokens).amax(3).sum(2)


def _replayed_ms(calls: list[Any]) -> float:
    """Device milliseconds of one of the calls, which take turns in a CUDA graph."""
    for call in calls:
        call()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for call in calls:
            call()
    return median_ms(lambda i: graph.replay()) / len(calls)


def codecs(rows: int, dim: int, card: Line) -> Iterator[Line]:
    """Coding of vectors on the device, and with the copies from and to the host that a database makes (warm); clusters."""
    vectors = embeddings(rows, dim, 0).float()
    host = vectors.cpu().numpy()
    copy_gb_s = host.nbytes / median_ms(lambda i: torch.from_numpy(host).to("cuda"), times=3) / 1e6
    plain = median_ms(lambda i: vectors.to(torch.float8_e4m3fn))
    floor = rows * dim * 5 / card["copy_tb_s"] / 1e9
    case = {"rows": rows, "dim": dim}
    yield {**case, "what": "PyTorch cast to float8", "ms": plain, "floor_ms": floor, "roofline": floor / plain}
    for text in ("float8", "int8", "pca:192+int8", "pq:96"):
        start = time.perf_counter()
        codec = DeviceCodec(parse(text, dim, "l2")).fit(host[:20_000])
        fit_s = time.perf_counter() - start
        coder = DeviceCodec(codec)
        coder.decode(coder.encode(host[: 1 << 16]))  # kernels compile, buffers are locked
        start = time.perf_counter()
        codes = coder.encode(host)
        encode_s, start = time.perf_counter() - start, time.perf_counter()
        coder.decode(codes)
        decode_s = time.perf_counter() - start
        work = coder.encoding()
        ms = median_ms(lambda i, work=work: [work(part) for part in vectors.split(1 << 16)], times=5)
        floor = floor_ms(0, rows * (4 * dim + codec.bytes_per_vector), 1, card)
        times = {"fit_s": fit_s, "encode_s": encode_s, "decode_s": decode_s, "copy_gb_s": copy_gb_s}
        yield {**case, **times, "what": f"vecdb encode {text}", "ms": ms, "floor_ms": floor, "roofline": floor / ms}
        coded, back = torch.from_numpy(codes).cuda(), coder.decoding()
        assert back is not None
        ms = median_ms(lambda i, back=back, coded=coded: [back(part) for part in coded.split(1 << 16)], times=5)
        yield {**case, "what": f"vecdb decode {text}", "ms": ms, "floor_ms": floor, "roofline": floor / ms}
    for count in (256, 4096):
        start = time.perf_counter()
        kmeans(vectors, count, rounds=5)
        torch.cuda.synchronize()
        yield {
            **case,
            "what": f"vecdb k-means, {count} clusters",
            "ms": (time.perf_counter() - start) * 1e3,
            "rounds": 5,
        }


def links(rows: int, dim: int) -> Iterator[Line]:
    """All links of a graph. (What the CPU finds through them, tests/gpu/test_links.py asks.)"""
    vectors = embeddings(rows, dim, 0)
    for turn in ("kernels compile", "warm", "warm"):
        base, _, seconds = _linked(vectors)
        degree = float((base >= 0).sum(axis=1).mean())
        yield {"what": f"vecdb, {turn}", "rows": rows, "dim": dim, "ms": seconds * 1e3, "degree": degree}


def _linked(vectors: torch.Tensor) -> tuple[NDArray[np.int32], NDArray[np.uint8], float]:
    """Base links of a graph, the levels of its nodes, and the seconds that all of it took, encoding included."""
    config = HnswConfig()
    levels = draw_levels(config, 0, len(vectors))
    torch.cuda.synchronize()
    start = time.perf_counter()
    corpus = Corpus(vectors, metric="cosine", codec="float8", group=8)
    base, _ = links_of(corpus, levels, config)
    return base, levels, time.perf_counter() - start


def walks(rows: int, dim: int, card: Line) -> Iterator[Line]:
    """Walks through a graph that was linked here, and exact search beside, on the same vectors and queries.

    The floor is of the bytes that a walk must read: codes that it scores, links of what it expands (about ef nodes), and
    exact copies of the best.
    """
    vectors, queries = embeddings(rows, dim, 0), embeddings(8192 + _TURNS, dim, 5)
    trial = _Trial(queries, {10: _truth(queries[:_JUDGED], vectors, 10)}, rows, dim, card)
    base, levels, _ = _linked(vectors)
    corpus = Corpus(vectors, metric="cosine")
    entries = entries_of(levels, np.ones(rows, np.bool_))
    for codec in ("int8", "float8", "float16"):
        graph = Graph(corpus, base, entries, codec=codec)
        for ef in (32, 64, 128, 256, 512, MOST_EF) if codec == "int8" else (128, 512):
            for batch in (1, 128, 1024, 8192) if (codec, ef) in (("int8", 128), ("int8", 512)) else (8192,):
                line = trial.line(f"vecdb walk {codec}, ef {ef}", batch, 10, partial(_walked, graph, ef))
                work = float(walk(queries[:_JUDGED], graph, 10, ef=ef).work.float().mean())
                a_query = work * graph.width * graph.codes.element_size() + ef * 4 * base.shape[1] + 32 * 2 * dim
                floor = floor_ms(0, batch * a_query, 1, card)
                yield {**line, "work": work, "floor_ms": floor, "roofline": floor / line["ms"]}
        del graph
    for codec in ("float16", "int8", "float8"):
        corpus = Corpus(vectors, codec=codec)
        for batch in (1, 128, 8192):
            yield trial.line(f"vecdb exact {codec}", batch, 10, partial(_ours, corpus, 10), codec)


def _walked(graph: Graph, ef: int, queries: torch.Tensor) -> torch.Tensor:
    return walk(queries, graph, 10, ef=ef, check=False).rows


def _truth(queries: torch.Tensor, base: torch.Tensor, k: int) -> torch.Tensor:
    """(Q, k) rows by a float32 product, in parts."""
    return torch.cat([reference.topk(part, base, k)[1] for part in queries.split(128)])


def _recall(found: torch.Tensor, truth: torch.Tensor) -> float:
    both = min(len(found), len(truth))
    shared = [torch.isin(a, b).float().mean() for a, b in zip(truth[:both], found[:both])]
    return float(torch.stack(shared).mean())


def floor_ms(operations: float, bytes_read: float, tflops: float, card: Line) -> float:
    return max(operations / tflops / 1e9, bytes_read / card["copy_tb_s"] / 1e9)
