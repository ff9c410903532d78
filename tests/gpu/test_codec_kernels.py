"""Kernels of codecs against their twins and the CPU's codecs, byte for byte, at awkward shapes and numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from vecdb.gpu import codec_kernels, reference
from vecdb.index.codecs import parse
from vecdb.index.codecs.float8 import Float8
from vecdb.index.codecs.levels import Levels
from vecdb.index.codecs.products import ProductQuantiser

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
SHAPES = [(0, 5), (1, 1), (7, 3), (129, 17), (5, 768)]
# The interpreter computes with NumPy, which tells of what is meant to overflow.
pytestmark = pytest.mark.filterwarnings("ignore:overflow encountered:RuntimeWarning")
LARGEST = float(np.finfo(np.float32).max)


def put(array: Any) -> torch.Tensor:
    return torch.tensor(np.asarray(array), device=DEVICE)


def awkward(rng: np.random.Generator, rows: int, dim: int) -> Any:
    """Rows of all lengths that float32 has, some of zeros of both signs, subnormal, huge, or with numbers of every size."""
    vectors = rng.normal(size=(rows, dim)).astype(np.float32)
    vectors *= np.float32(10.0) ** rng.integers(-6, 7, size=(rows, 1)).astype(np.float32)
    for row, scale in enumerate((0.0, -0.0, 1e-45, 3e-40, LARGEST / 8)):
        if row < rows - 1:
            vectors[row + 1] = np.clip(vectors[row + 1], -8, 8) * np.float64(scale)
    if rows > 6:
        exponents = rng.integers(-149, 128, size=dim)
        vectors[6] = np.ldexp(rng.choice([-1.0, 1.0, 1.5], size=dim), exponents).astype(np.float32)
    return vectors


def same(made: torch.Tensor, wanted: Any) -> None:
    """To the bit: -0.0 is not 0.0."""
    wanted = np.asarray(wanted.cpu() if isinstance(wanted, torch.Tensor) else wanted)
    got = made.cpu().numpy()
    assert got.dtype == wanted.dtype
    assert got.shape == wanted.shape
    np.testing.assert_array_equal(np.ascontiguousarray(got).view(np.uint8), np.ascontiguousarray(wanted).view(np.uint8))


@pytest.mark.parametrize("kind", ["e4m3", "e5m2"])
@pytest.mark.parametrize("shape", SHAPES)
def test_float8_of_a_row_each(kind: Any, shape: tuple[int, int], rng: np.random.Generator) -> None:
    vectors, made = awkward(rng, *shape), Float8(shape[1], kind)
    codes = made.encode(vectors)
    for way in (codec_kernels, reference):
        same(way.encode_float8(put(vectors), kind, None), codes)
        same(way.decode_float8(put(codes), shape[1], kind, None), made.decode(codes))


@pytest.mark.parametrize("kind", ["e4m3", "e5m2"])
@pytest.mark.parametrize("shape", SHAPES)
def test_float8_by_factors(kind: Any, shape: tuple[int, int], rng: np.random.Generator) -> None:
    vectors = awkward(rng, *shape)
    factors = np.ldexp(np.ones(shape[1], np.float32), rng.integers(-120, 107, size=shape[1]))
    made = Float8(shape[1], kind, "dimension").with_arrays({"factors": factors})
    codes = made.encode(vectors)
    for way in (codec_kernels, reference):
        same(way.encode_float8(put(vectors), kind, put(factors)), codes)
        same(way.decode_float8(put(codes), shape[1], kind, put(factors)), made.decode(codes))


@pytest.mark.parametrize("kind", ["e4m3", "e5m2"])
def test_every_code_of_float8_with_every_power_stands_for_what_it_does_on_the_cpu(kind: Any) -> None:
    codes = np.empty((256, 257), np.uint8)
    codes[:, :256], codes[:, 256] = np.arange(256), np.arange(256)
    for way in (codec_kernels, reference):
        same(way.decode_float8(put(codes), 256, kind, None), Float8(256, kind).decode(codes))


@pytest.mark.parametrize("kind", ["e4m3", "e5m2"])
def test_float8_rounds_ties_to_even_and_its_neighbours_apart(kind: Any) -> None:
    """Between any two codes the middle, and the float32 numbers beside it; each code itself; the largest and beyond."""
    numbers = np.unique(np.abs(reference_numbers(kind)))
    middles = ((numbers[1:].astype(np.float64) + numbers[:-1]) / 2).astype(np.float32)
    up, down = np.nextafter(middles, np.float32(np.inf)), np.nextafter(middles, np.float32(0))
    row = np.concatenate([numbers, middles, up, down, [numbers[-1] * 4]]).astype(np.float32)
    vectors = np.stack([row, -row])
    ones = np.ones(len(row), np.float32)
    made = Float8(len(row), kind, "dimension").with_arrays({"factors": ones})
    for way in (codec_kernels, reference):
        same(way.encode_float8(put(vectors), kind, put(ones)), made.encode(vectors))


def reference_numbers(kind: Any) -> Any:
    codes = np.arange(256, dtype=np.uint8)[None, :]
    made = Float8(256, kind, "dimension").with_arrays({"factors": np.ones(256, np.float32)})
    return made.decode(codes)[0]


@pytest.mark.parametrize("shape", SHAPES)
def test_levels(shape: tuple[int, int], rng: np.random.Generator) -> None:
    vectors = awkward(rng, *shape)
    lows = rng.normal(size=shape[1]).astype(np.float32)
    steps = np.ldexp(np.ones(shape[1], np.float32), rng.integers(-9, 3, size=shape[1]))
    steps[::3] *= np.float32(1.1)
    if shape[0] > 10:  # halves between levels
        vectors[10:] = lows + steps * (rng.integers(-4, 520, size=(shape[0] - 10, shape[1])) / 2).astype(np.float32)
    made = Levels(shape[1]).with_arrays({"lows": lows, "steps": steps})
    codes = made.encode(vectors)
    for way in (codec_kernels, reference):
        same(way.encode_levels(put(vectors), put(lows), 1 / put(steps), 256), codes)
        same(way.decode_levels(put(codes), put(lows), put(steps)), made.decode(codes))


@pytest.mark.parametrize(("rows", "dim", "parts"), [(0, 4, 2), (1, 1, 1), (300, 17, 5), (5, 40, 8)])
def test_parts(rows: int, dim: int, parts: int, rng: np.random.Generator) -> None:
    vectors = rng.normal(size=(rows, dim)).astype(np.float32)
    books = rng.normal(size=(parts, -(-dim // parts), 256)).astype(np.float32)
    books[:, :, 77] = books[:, :, 200] = books[:, :, 5]  # ties
    if rows > 4:
        vectors[0], vectors[1], vectors[2, ::2] = 0, LARGEST, -LARGEST
        vectors[3] = (books[:, :, 77].reshape(-1))[:dim]
    made = ProductQuantiser(dim, parts).with_arrays({"books": books})
    codes = made.encode(vectors)
    if rows > 4:
        assert (codes[3, : dim // books.shape[1]] == 5).all()
    for way in (codec_kernels, reference):
        same(way.encode_parts(put(vectors), put(books)), codes)
        same(way.decode_parts(put(codes), put(books))[:, :dim], made.decode(codes))


def test_parts_of_fewer_centroids_than_a_byte_tells_apart_in_blocks(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(codec_kernels, "_AT_ONCE", 8)
    monkeypatch.setattr(reference, "_SCORES", 8 * 21)
    vectors, books = put(rng.normal(size=(19, 6)).astype(np.float32)), rng.normal(size=(2, 3, 21)).astype(np.float32)
    codes = reference.encode_parts(vectors, put(books))
    assert len(codes.unique()) > 5
    same(codec_kernels.encode_parts(vectors, put(books)), codes)


@pytest.mark.parametrize("text", ["pca:3", "pca:3,whiten", "random:5"])
@pytest.mark.parametrize(("rows", "dim"), [(0, 5), (1, 6), (129, 17), (9, 300)])
def test_linear_maps(text: str, rows: int, dim: int, rng: np.random.Generator) -> None:
    sample = rng.normal(size=(60, dim)).astype(np.float32) * np.arange(1, dim + 1, dtype=np.float32)
    reducer = parse(text, dim, "l2").fit(sample).reducers[0]
    given = [put(reducer.arrays()[name]) for name in ("mean", "basis", "scales")]
    vectors = awkward(rng, rows, dim)
    reduced = reducer.apply(vectors)
    for way in (codec_kernels, reference):
        np.testing.assert_array_equal(way.reduce_by(put(vectors), *given).cpu().numpy(), reduced)
        np.testing.assert_array_equal(way.restore_by(put(reduced), *given).cpu().numpy(), reducer.restore(reduced))


@pytest.mark.parametrize("shape", SHAPES)
def test_unit_length(shape: tuple[int, int], rng: np.random.Generator) -> None:
    vectors = put(awkward(rng, *shape))
    made = codec_kernels.unit(vectors)
    torch.testing.assert_close(made, reference.unit(vectors), rtol=1.2e-7, atol=1e-45)
    lengths = made.double().norm(dim=1)
    np.testing.assert_allclose(lengths.cpu()[vectors.cpu().any(1)], 1, rtol=1e-6)
    assert not made[~vectors.any(1)].any()
