"""Walks on the device against the walk written out: the same rows for every codec, metric and way of stepping."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import triton
import triton.language as tl

from vecdb.errors import DimensionMismatch, InvalidInput, InvalidVector
from vecdb.gpu import reference, walk
from vecdb.gpu.corpus import Corpus
from vecdb.gpu.launch import OutOfDeviceMemory
from vecdb.gpu.walk import Graph

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
ROWS = 60


@pytest.fixture(autouse=True)
def narrow_beams(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the interpreter, where each step takes a hundredth of a second."""
    if DEVICE == "cpu":
        monkeypatch.setattr(walk, "_LEAST_EF", 8)


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).half().float().to(DEVICE)


def graph_of(base: torch.Tensor, metric: Any = "ip", *, near: int = 3, **options: Any) -> Graph:
    """Each row linked to its nearest and to two at random, with gaps at the end."""
    similar = reference.similarities(base, base, metric)
    similar.fill_diagonal_(-1e9)
    draws = torch.randint(len(base), (len(base), 2), generator=torch.Generator().manual_seed(9)).to(DEVICE)
    links = torch.cat([similar.topk(near).indices, draws, torch.full_like(draws[:, :1], -1)], 1)
    links[links == torch.arange(len(base), device=DEVICE)[:, None]] = 0
    links = torch.stack([torch.tensor([*dict.fromkeys(r), *[-1] * 6][:6]) for r in links.tolist()])
    return Graph(Corpus(base, metric=metric, device=DEVICE), links.int(), torch.arange(0, len(base), 9), **options)


def similar_codes(queries: torch.Tensor, graph: Graph) -> torch.Tensor:
    """(B, N): what the walk takes for scores, computed from the codes of both in float64."""
    made = walk.coded(queries, graph.width, graph.codes.dtype)
    codes = made.codes.double() * made.scales[:, None].double()
    scores = codes @ (graph.codes.double() * graph.scales[:, None].double()).T
    offsets = graph.corpus.blocks[0].offsets
    return (scores if offsets is None else scores + offsets[: len(graph)].double()).float()


def starts_of(queries: torch.Tensor, graph: Graph, places: int) -> torch.Tensor:
    near = reference.topk(queries, graph.corpus.blocks[0].exact[graph.entries, : queries.shape[1]].float(), 32)
    if graph.corpus.metric == "l2":
        base = graph.corpus.blocks[0].exact[graph.entries, : queries.shape[1]].float() * graph.corpus.exact_scale
        near = reference.topk(queries, base, 32, metric="l2")
    return graph.entries[near[1]][:, :places]


@pytest.mark.parametrize(
    ("metric", "codec", "expand"),
    [("ip", "int8", 1), ("l2", "int8", 2), ("ip", "float8", 2), ("l2", "float16", 1)],
)
def test_a_walk_holds_what_the_walk_written_out_holds(metric: Any, codec: Any, expand: int) -> None:
    queries, base = normal(2, 20), normal(ROWS, 20, seed=1)
    graph = graph_of(base, metric, codec=codec)
    found = walk.walk(queries, graph, 16, ef=16, expand=expand)
    starts = starts_of(queries, graph, 8 * expand)
    width = 16 if DEVICE == "cpu" else 32
    beams, work = reference.walk(similar_codes(queries, graph), graph.links, starts, width, expand=expand)
    scores = reference.similarities(queries, base, metric)
    for i, beam in enumerate(beams):
        best = sorted(beam, key=lambda row: -float(scores[i, row]))[:16]
        assert found.rows[i].tolist() == best
        torch.testing.assert_close(found.scores[i], scores[i, best], rtol=2e-3, atol=2e-3)
        assert found.work[i] == work[i]


def test_a_table_that_forgets_changes_nothing_but_work(monkeypatch: pytest.MonkeyPatch) -> None:
    queries, graph = normal(2, 20), graph_of(normal(ROWS, 20, seed=1))
    wanted = walk.walk(queries, graph, 8, ef=8)
    monkeypatch.setattr(walk, "_LEAST_SLOTS", 4)
    monkeypatch.setattr(walk, "_MOST_SLOTS", 4)
    found = walk.walk(queries, graph, 8, ef=8)
    assert (found.rows == wanted.rows).all()
    assert (found.work >= wanted.work).all()
    assert found.work.sum() > wanted.work.sum()


def test_cosine_takes_vectors_of_any_length() -> None:
    queries, base = normal(2, 20), normal(ROWS, 20, seed=1)
    longer = base * torch.arange(1, ROWS + 1, device=DEVICE)[:, None]
    found = walk.walk(queries * 50, graph_of(longer, "cosine"), 4, ef=32)
    truth = reference.topk(queries, base, 4, metric="cosine")
    torch.testing.assert_close(found.scores, truth[0], rtol=2e-3, atol=2e-3)
    assert (found.rows == truth[1]).all()


def test_only_allowed_rows_are_reported() -> None:
    queries, base = normal(2, 20), normal(ROWS, 20, seed=1)
    allowed = (torch.arange(ROWS) % 2 == 0).to(DEVICE)
    graph = graph_of(base)
    found, all_of_it = (walk.walk(queries, graph, 16, ef=16, allowed=a) for a in (allowed, None))
    for rows, scores, of_all in zip(found.rows.tolist(), found.scores, all_of_it.rows.tolist()):
        wanted = [row for row in of_all if row % 2 == 0]
        if DEVICE == "cpu":
            assert rows == wanted + [-1] * (16 - len(wanted))
        assert all(row % 2 == 0 for row in rows if row >= 0)
        assert (scores[[row < 0 for row in rows]] == -torch.inf).all()


def test_copies_of_one_vector_all_come_once() -> None:
    base = normal(6, 20, seed=1)[torch.arange(24) % 6]
    found = walk.walk(normal(1, 20), graph_of(base), 24, ef=32)
    rows = found.rows[0][found.rows[0] >= 0].tolist()
    assert len(set(rows)) == len(rows)


def test_nothing_asked_or_nothing_there() -> None:
    graph = graph_of(normal(ROWS, 20, seed=1))
    assert walk.walk(normal(0, 20), graph, 3).rows.shape == (0, 3)
    empty = Graph(Corpus(normal(0, 20), device=DEVICE), torch.zeros(0, 4, dtype=torch.int32), torch.arange(0))
    assert walk.walk(normal(2, 20), empty, 3).rows.shape == (2, 0)
    alone = Graph(Corpus(normal(1, 20), device=DEVICE), torch.full((1, 1), -1, dtype=torch.int32), torch.arange(1))
    assert walk.walk(normal(2, 20), alone, 3).rows.tolist() == [[0], [0]]


@triton.jit
def _merge_once(beam_ptr, keys_ptr, EF: tl.constexpr, PLACES: tl.constexpr):
    at = tl.arange(0, EF)
    merged = walk._merged_by_swaps(tl.load(beam_ptr + at), tl.load(keys_ptr + tl.arange(0, PLACES)), EF, PLACES)
    tl.store(beam_ptr + at, merged)


def test_the_network_merges_as_a_sort_does() -> None:
    draws = torch.Generator().manual_seed(3)
    beam = torch.randint(-(2**60), 2**60, (16,), generator=draws).sort().values.to(DEVICE)
    keys = torch.randint(-(2**60), 2**60, (8,), generator=draws).to(DEVICE)
    keys[3] = int(walk._NONE.value)
    wanted = torch.cat([beam, keys]).sort().values[:16]
    _merge_once[(1,)](beam, keys, EF=16, PLACES=8)
    assert (beam == wanted).all()


def test_too_little_memory_leads_to_smaller_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    graph, sizes = graph_of(normal(ROWS, 20, seed=1)), []
    walked = walk._walked

    def cramped(queries: torch.Tensor, *options: Any) -> Any:
        sizes.append(len(queries))
        if len(queries) > most:
            raise torch.cuda.OutOfMemoryError("no room")
        return walked(queries[:1].expand_as(queries).contiguous()[:1], *options)

    monkeypatch.setattr(walk, "_walked", cramped)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    monkeypatch.setattr(walk, "_AT_ONCE", 64)
    most = 16
    assert len(walk.walk(normal(20, 20), graph, 2, ef=8).rows) == 2  # of each part the one that was walked for
    assert sizes == [20, 16, 4]
    most = 0
    with pytest.raises(OutOfDeviceMemory, match="16 queries"):
        walk.walk(normal(20, 20), graph, 2, ef=8)


def test_arguments_that_cannot_be_are_refused() -> None:
    base = normal(9, 8)
    corpus = Corpus(base, device=DEVICE)
    links, entries = torch.zeros(9, 2, dtype=torch.int32), torch.arange(2)
    graph = Graph(corpus, links, entries)
    for bad in (links[:8], links.long(), links + 9, links - 2, links[:, :0], links[0]):
        with pytest.raises(InvalidInput, match="links"):
            Graph(corpus, bad, entries)
    for bad in (torch.arange(0), torch.tensor([9]), entries[None]):
        with pytest.raises(InvalidInput, match="entries"):
            Graph(corpus, links, bad)
    with pytest.raises(InvalidInput, match="codec"):
        Graph(corpus, links, entries, codec="int4")  # type: ignore[arg-type]
    with pytest.raises(InvalidInput, match="blocks"):
        Graph(Corpus(normal(600, 8), device=DEVICE, block_rows=256), torch.zeros(600, 2, dtype=torch.int32), entries)
    with pytest.raises(InvalidVector, match="shape"):
        walk.walk(base[0], graph, 3)
    with pytest.raises(DimensionMismatch, match="7 numbers"):
        walk.walk(base[:, :7], graph, 3)
    for k, ef in ((0, 8), (9, 8), (3, 2000)):
        with pytest.raises(InvalidInput, match="k is"):
            walk.walk(base, graph, k, ef=ef)
    with pytest.raises(InvalidInput, match="expand"):
        walk.walk(base, graph, 3, expand=3)
    with pytest.raises(InvalidInput, match="allowed"):
        walk.walk(base, graph, 3, allowed=torch.ones(8, dtype=torch.bool))
    with pytest.raises(InvalidVector, match="query 1"):
        walk.walk(torch.stack([base[0], base[0] / 0]), graph, 3, ef=8)
