"""MaxSim kernels against a float64 reference: every form of token vectors, every awkward length."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import naive_rerank
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vecdb.errors import DimensionMismatch, InvalidVector
from vecdb.index import token_kernels
from vecdb.index.maxsim import ResidualCodebook, _side_by_side, maxsim, maxsim_residuals
from vecdb.rerank.tokens import encode_tokens


def unit(rng: np.random.Generator, tokens: int, dimension: int) -> Any:
    vectors = rng.standard_normal((tokens, dimension)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def split(tokens: Any, ends: Any) -> list[Any]:
    return [tokens[a:b] for a, b in pairwise(ends)]


def laid_out(lengths: list[int]) -> Any:
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)


@settings(max_examples=25, deadline=None)
@given(
    lengths=st.lists(st.integers(0, 30), min_size=1, max_size=8),
    query_tokens=st.sampled_from([1, 5, 32, 33]),
    dimension=st.sampled_from([1, 5, 48, 128]),
    seed=st.integers(0, 999),
)
def test_every_form_agrees_with_float64(lengths: list[int], query_tokens: int, dimension: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    ends, query = laid_out(lengths), unit(rng, query_tokens, dimension)
    tokens = unit(rng, int(ends[-1]), dimension)
    np.testing.assert_allclose(maxsim(query, tokens, ends), naive_rerank.maxsim(query, split(tokens, ends)), atol=1e-4)
    for codec in ("float16", "int8"):
        coded = encode_tokens(tokens, codec)  # type: ignore[arg-type]
        # The rounding of the query is part of the arithmetic of one-byte tokens, so the reference rounds it too.
        against = encode_tokens(query, "int8").dense() if codec == "int8" else query
        expected = naive_rerank.maxsim(against, split(coded.dense(), ends))
        np.testing.assert_allclose(maxsim(query, coded.codes, ends, coded.scales), expected, atol=1e-4)


def test_codes_widened_to_floats_give_what_the_integer_instruction_gives() -> None:
    rng = np.random.default_rng(0)
    ends, query = laid_out([3, 0, 40, 1]), unit(rng, 33, 48)
    coded = encode_tokens(unit(rng, 44, 48), "int8")
    rounded = encode_tokens(query, "int8").dense()
    queries, scales = _side_by_side(rounded, token_kernels.BLOCK)
    best, wide = np.empty(scales.shape, np.float32), np.empty((token_kernels.TILE, 48), np.float32)
    out = np.empty(4)
    token_kernels.maxsim_wide_codes(coded.codes, coded.scales, ends, queries, scales, 0, 4, best, wide, out)
    np.testing.assert_allclose(out, maxsim(query, coded.codes, ends, coded.scales), atol=1e-5)


def test_only_negative_similarities_stay_negative() -> None:
    query, tokens = np.ones((1, 4), np.float32), -np.ones((2, 4), np.float32)
    assert maxsim(query, tokens, laid_out([2])).tolist() == [-4.0]
    assert maxsim(query, tokens[:1], laid_out([1])).tolist() == [-4.0]


def test_zero_vectors_and_empty_sides() -> None:
    zeros, ends = np.zeros((3, 8), np.float32), laid_out([3, 0])
    coded = encode_tokens(zeros, "int8")
    for scores in (maxsim(zeros, zeros, ends), maxsim(zeros, coded.codes, ends, coded.scales)):
        assert scores.tolist() == [0.0, -np.inf]
    assert maxsim(zeros[:0], zeros, ends).tolist() == [0.0, -np.inf]
    assert maxsim(zeros, zeros, laid_out([])).tolist() == []


def test_threads_change_nothing() -> None:
    rng = np.random.default_rng(1)
    ends, query = laid_out([7] * 100), unit(rng, 8, 16)
    tokens = unit(rng, 700, 16)
    assert maxsim(query, tokens, ends, threads=3).tolist() == maxsim(query, tokens, ends).tolist()


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 999), query_tokens=st.integers(1, 9))
def test_residual_codes_score_as_the_vectors_they_stand_for(seed: int, query_tokens: int) -> None:
    rng = np.random.default_rng(seed)
    book = ResidualCodebook(unit(rng, 5, 16), 0.1 * rng.standard_normal((4, 256, 4)).astype(np.float32))
    ends = laid_out([6, 0, 9])
    centroids = rng.integers(0, 5, 15).astype(np.int32)
    codes = rng.integers(0, 256, (15, 4)).astype(np.uint8)
    query = unit(rng, query_tokens, 16)
    expected = naive_rerank.maxsim(query, split(book.decoded(centroids, codes), ends))
    np.testing.assert_allclose(maxsim_residuals(query, book, centroids, codes, ends), expected, atol=1e-4)


def test_vectors_of_two_encoders_are_refused() -> None:
    with pytest.raises(DimensionMismatch, match="one encoder"):
        maxsim(np.ones((1, 3), np.float32), np.ones((1, 4), np.float32), laid_out([1]))
    with pytest.raises(InvalidVector, match="ascend"):
        maxsim(np.ones((1, 4), np.float32), np.ones((1, 4), np.float32), np.array([0, 2]))
    with pytest.raises(InvalidVector, match="scale"):
        maxsim(np.ones((1, 4), np.float32), np.ones((1, 4), np.uint8), laid_out([1]))
