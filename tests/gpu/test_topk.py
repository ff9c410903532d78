"""The fused search against the plain product: every codec, metric and awkward shape, in Triton's interpreter without a GPU."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vecdb.errors import DimensionMismatch, InvalidInput, InvalidVector
from vecdb.gpu import maxima, reference
from vecdb.gpu.corpus import Corpus
from vecdb.gpu.launch import OutOfDeviceMemory, device_of
from vecdb.gpu.topk import Found, topk

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
CODECS = ["float16", "int8", "float8"] + (["bfloat16"] if DEVICE == "cuda" else [])  # the interpreter has no bfloat16
INF = float("inf")
needs_gpu = pytest.mark.skipif(DEVICE == "cpu", reason="needs a GPU")


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    """Numbers that half precision holds."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).half().float().to(DEVICE)


def corpus(base: torch.Tensor, **options: Any) -> Corpus:
    return Corpus(base, device=DEVICE, **options)


def check(
    found: Found, queries: torch.Tensor, base: torch.Tensor, k: int, *, tolerance: float = 2e-3, **options: Any
) -> None:
    """The best scores are found, and each row has the score it is said to have: rows of equal scores may change places."""
    truth = reference.topk(queries, base, k, **options)
    torch.testing.assert_close(found.scores, truth[0], rtol=tolerance, atol=tolerance)
    assert ((found.rows >= 0) == (truth[1] >= 0)).all()
    for rows, scores, of_all in zip(
        found.rows, found.scores, reference.similarities(queries, base, options.get("metric", "ip"))
    ):
        rows, scores = rows[rows >= 0], scores[rows >= 0]
        assert len(set(rows.tolist())) == len(rows)
        torch.testing.assert_close(scores, of_all[rows], rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("metric", ["ip", "cosine", "l2"])
@pytest.mark.parametrize(("batch", "rows", "dim"), [(1, 300, 24), (5, 1000, 40), (3, 7, 5), (2, 1, 1)])
def test_half_precision_finds_the_very_best_rows(metric: Any, batch: int, rows: int, dim: int) -> None:
    queries, base = normal(batch, dim), normal(rows, dim, seed=1)
    found = topk(queries, corpus(base, metric=metric), 10)
    assert found.scores.shape == found.rows.shape == (batch, min(10, rows))
    check(found, queries, base, 10, metric=metric)


@pytest.mark.parametrize("metric", ["ip", "l2"])
@pytest.mark.parametrize("group", [4, 32])
def test_the_form_for_many_queries_finds_the_same(metric: Any, group: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(maxima, "MOST_TALL", 0)
    queries, base = normal(3, 72), normal(900, 72, seed=1)
    check(topk(queries, corpus(base, metric=metric, group=group), 5), queries, base, 5, metric=metric)


def test_more_queries_than_one_tile_holds_are_all_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(maxima, "MOST_TALL", 0)
    monkeypatch.setattr(maxima, "WIDE", {2: replace(maxima.WIDE[2], queries=64 if DEVICE == "cuda" else 16)})
    queries, base = normal(70 if DEVICE == "cuda" else 20, 8), normal(260, 8, seed=1)
    check(topk(queries, corpus(base), 1), queries, base, 1)


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("metric", ["ip", "cosine", "l2"])
def test_approximate_codes_choose_and_exact_copies_score(codec: Any, metric: Any) -> None:
    queries, base = normal(4, 48), normal(700, 48, seed=1) * (1 + torch.arange(700, device=DEVICE)[:, None] / 700)
    tolerance = 2e-2 if codec == "bfloat16" else 3e-3
    found = topk(queries, corpus(base, metric=metric, codec=codec), 10)
    if codec == "bfloat16":
        truth = reference.topk(queries, base, 10, metric=metric)
        torch.testing.assert_close(found.scores, truth[0], rtol=tolerance, atol=tolerance)
    else:
        check(found, queries, base, 10, metric=metric, tolerance=tolerance)


def test_exact_copies_may_be_whole() -> None:
    queries, base = torch.randn(4, 48, device=DEVICE), torch.randn(500, 48, device=DEVICE)
    for metric in ("ip", "l2"):
        check(
            topk(queries, corpus(base, exact="float32", metric=metric), 10),
            queries,
            base,
            10,
            metric=metric,
            tolerance=1e-5,
        )


@pytest.mark.parametrize("codec", ["int8", "float8"])
def test_codes_alone_are_scored_as_codes(codec: Any) -> None:
    queries, base = normal(4, 48), normal(300, 48, seed=1)
    only = corpus(base, codec=codec, exact="codes")
    decoded = only.blocks[0].codes[:300].float() * only.code_scale
    found = topk(queries, only, 10)
    assert only.blocks[0].exact is only.blocks[0].codes
    truth = reference.topk(queries, decoded, 10)
    torch.testing.assert_close(found.scores, truth[0], rtol=0.05, atol=0.5)  # the query is coded too


def test_a_filter_leaves_out_rows_and_says_where_too_few_are_left() -> None:
    queries, base = normal(3, 16), normal(600, 16, seed=1)
    allowed = (torch.arange(600) % 7 == 0).to(DEVICE)
    for metric in ("ip", "l2"):
        made = corpus(base, metric=metric)
        check(topk(queries, made, 8, allowed=allowed), queries, base, 8, metric=metric, allowed=allowed)
        few = torch.zeros(600, dtype=torch.bool, device=DEVICE)
        few[[5, 599]] = True
        check(topk(queries, made, 8, allowed=few), queries, base, 8, metric=metric, allowed=few)
        none = topk(queries, made, 8, allowed=torch.zeros_like(few))
        assert (none.rows == -1).all()
        assert (none.scores == -INF).all()


def test_padding_never_wins_where_all_scores_are_negative() -> None:
    base = -torch.ones(257, 8, device=DEVICE) - torch.arange(257, device=DEVICE)[:, None]
    found = topk(torch.ones(1, 8, device=DEVICE), corpus(base), 3)
    assert found.rows.tolist() == [[0, 1, 2]]
    assert found.scores.tolist() == [[-8.0, -16.0, -24.0]]


def test_duplicates_all_come_and_the_first_row_first() -> None:
    base = normal(40, 8, seed=1)[torch.arange(300) % 40]
    queries = normal(2, 8)
    found = topk(queries, corpus(base), 20)
    check(found, queries, base, 20)
    for rows, scores in zip(found.rows.tolist(), found.scores.tolist()):
        assert sorted(zip(scores, rows), key=lambda pair: (-pair[0], pair[1])) == list(zip(scores, rows))


def test_k_may_be_large_and_larger_than_the_corpus() -> None:
    queries, base = normal(2, 12), normal(450, 12, seed=1)
    check(topk(queries, corpus(base), 100), queries, base, 100)
    check(topk(queries, corpus(base, codec="int8"), 1000), queries, base, 1000)


def test_nothing_asked_or_nothing_there() -> None:
    assert topk(normal(0, 8), corpus(normal(9, 8)), 3).rows.shape == (0, 3)
    assert topk(normal(2, 8), corpus(normal(0, 8)), 3).rows.shape == (2, 0)


def test_zero_vectors_score_zero() -> None:
    base = torch.zeros(5, 8, device=DEVICE)
    for metric in ("ip", "cosine", "l2"):
        found = topk(torch.zeros(1, 8, device=DEVICE), corpus(base, metric=metric), 5)
        assert found.scores.abs().max() == 0


@pytest.mark.parametrize("factor", [1e25, 1e-25])
def test_huge_and_tiny_numbers_keep_their_order(factor: float) -> None:
    queries, base = normal(2, 8), normal(300, 8, seed=1)
    found = topk(queries, corpus(base * factor), 5)
    check(Found(found.scores / factor, found.rows), queries, base, 5)


def test_blocks_are_searched_as_one_corpus() -> None:
    queries, base = normal(3, 16), normal(900, 16, seed=1)
    parts = corpus(base, block_rows=256, metric="l2")
    assert [block.count for block in parts.blocks] == [256, 256, 256, 132]
    assert len(corpus(base, block_rows=900).blocks) == 1
    check(topk(queries, parts, 10), queries, base, 10, metric="l2")
    allowed = torch.arange(900, device=DEVICE) >= 890
    check(topk(queries, parts, 20, allowed=allowed), queries, base, 20, metric="l2", allowed=allowed)


def test_too_little_memory_leads_to_smaller_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    queries, base = normal(20, 8), normal(300, 8, seed=1)
    made, write, sizes = corpus(base), maxima.write_maxima, []

    def cramped(codes: torch.Tensor, *args: Any, **options: Any) -> None:
        sizes.append(len(codes))
        if len(codes) > most:
            raise torch.cuda.OutOfMemoryError("no room")
        write(codes, *args, **options)

    monkeypatch.setattr(maxima, "write_maxima", cramped)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    most = 16
    check(topk(queries, made, 2, allowed=torch.ones(300, dtype=torch.bool, device=DEVICE)), queries, base, 2)
    assert sizes[0] == 20
    assert sizes[-2:] == [16, 4]
    most = 0
    with pytest.raises(OutOfDeviceMemory, match="16 queries"):
        topk(queries, made, 2, allowed=torch.ones(300, dtype=torch.bool, device=DEVICE))


@pytest.mark.parametrize("bad", [float("nan"), INF, -INF])
def test_numbers_that_are_none_are_refused(bad: float) -> None:
    base = normal(9, 8)
    base[3, 2] = bad
    with pytest.raises(InvalidVector, match="NaN or infinity"):
        corpus(base)
    with pytest.raises(InvalidVector, match="query 3"):
        topk(base, corpus(normal(9, 8)), 3)


def test_arguments_that_cannot_be_are_refused() -> None:
    base = normal(9, 8)
    made = corpus(base)
    for options in ({"metric": "dot"}, {"codec": "float4"}, {"group": 5}, {"exact": "float64"}):
        with pytest.raises(InvalidInput, match="must be"):
            corpus(base, **options)
    with pytest.raises(InvalidVector, match="shape"):
        corpus(base[0])
    with pytest.raises(InvalidVector, match="shape"):
        topk(base[0], made, 3)
    with pytest.raises(DimensionMismatch, match="7 numbers"):
        topk(base[:, :7], made, 3)
    for k in (0, -1, 2000):
        with pytest.raises(InvalidInput, match="k is"):
            topk(base, made, k)
    for allowed in (torch.ones(8, dtype=torch.bool), torch.ones(9)):
        with pytest.raises(InvalidInput, match="allowed"):
            topk(base, made, 3, allowed=allowed)
    for name in ("gpu", "cuda:99", "meta"):
        with pytest.raises(InvalidInput, match="device is"):
            device_of(name)


@settings(max_examples=6, deadline=None)
@given(
    st.integers(1, 5),
    st.integers(1, 400),
    st.integers(1, 40),
    st.integers(1, 30),
    st.sampled_from(["ip", "l2"]),
    st.integers(0, 9),
)
def test_any_shape_gives_what_the_plain_product_gives(
    batch: int, rows: int, dim: int, k: int, metric: Any, seed: int
) -> None:
    queries, base = normal(batch, dim, seed=seed), normal(rows, dim, seed=seed + 10)
    check(topk(queries, corpus(base, metric=metric), k), queries, base, k, metric=metric)


@needs_gpu
def test_recorded_searches_give_each_query_its_own_answer() -> None:
    base = normal(3000, 64, seed=1)
    made = corpus(base)
    for seed in range(3):
        queries = normal(5, 64, seed=seed)
        check(topk(queries, made, 10), queries, base, 10)


@needs_gpu
def test_blocks_that_stay_on_the_host_are_searched_too() -> None:
    queries, base = normal(300, 64), normal(50_000, 64, seed=1)
    for resident in (0, 3 << 20):
        parts = corpus(base.cpu(), block_rows=8192, resident_bytes=resident, metric="l2")
        assert not parts.is_resident
        for _ in range(3):
            check(topk(queries, parts, 10), queries, base, 10, metric="l2")


@needs_gpu
def test_offsets_beyond_32_bits_reach_the_last_rows() -> None:
    rows, dim = 2_900_000, 768  # 2**31 is at row 2,796,203
    base = torch.randn(rows, dim, device=DEVICE, dtype=torch.float16)
    queries = base[-3:].float() * 2
    found = topk(queries, corpus(base), 1)
    assert found.rows[:, 0].tolist() == [rows - 3, rows - 2, rows - 1]
