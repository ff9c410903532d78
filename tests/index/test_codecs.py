"""Codecs: bytes against slow twins, compiled against NumPy, distances against decoded vectors, and what quality remains."""

from __future__ import annotations

import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import naive_codecs as naive
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from vecdb.errors import CorruptIndex, DimensionMismatch, InvalidInput, InvalidQuery, InvalidVector
from vecdb.index import exact_search
from vecdb.index.codecs import Codec, CodeTable, base, compiled, learn_oversampling, parse, turning
from vecdb.index.codecs.float8 import as_float8, float8_numbers
from vecdb.index.codecs.linear import Pca
from vecdb.index.codecs.products import centroids_of, fit_books, nearest_centroids, scan_tables
from vecdb.index.codecs.table import FACTORS

Vectors = NDArray[np.float32]
PLAIN = ["float32", "float16", "bfloat16"]
SCALAR = [*PLAIN, "float8", "float8:e5m2", "float8:dimension", "int8", "int8:symmetric", "int4", "int4:symmetric"]
REDUCED = [
    "pca:5+float8",
    "pca:5,whiten+int8",
    "pca:5,randomised",
    "random:5+int4",
    "truncate:5+float16",
    "rotate+int8",
]
CODED = ["pq:3", "opq:3", "mpq:3,2", "rabitq:1", "rabitq:2", "rabitq:4", "rabitq:8"]
EVERY = [*SCALAR, *REDUCED, *CODED]
SIZE = 9  # odd: int4 has half a byte over, pq a part to fill up
METRICS = ["l2", "ip", "cosine"]


def sample(count: int = 300, size: int = SIZE, seed: int = 0) -> Vectors:
    """Around one direction, with dimensions of different spreads, as embeddings are."""
    random = np.random.default_rng(seed)
    return (random.standard_normal((count, size)) * np.linspace(2, 0.2, size) + 0.5).astype(np.float32)


def unit(vectors: Vectors) -> Vectors:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def fitted(text: str, metric: str = "l2", vectors: Vectors | None = None) -> Codec:
    given = sample() if vectors is None else vectors
    return parse(text, given.shape[1], metric).fit(given)


@pytest.fixture(scope="module")
def codecs() -> dict[tuple[str, str], Codec]:
    """Every codec under every metric, fitted once."""
    given = sample()
    return {
        (text, metric): fitted(text, metric, unit(given) if metric == "cosine" else given)
        for text in EVERY
        for metric in METRICS
    }


awkward = st.one_of(
    st.floats(width=32, allow_nan=False, allow_infinity=False),
    st.sampled_from(
        [0.0, -0.0, 1e-45, -1e-45, 1e-38, 3.4028235e38, -3.4028235e38, 1.0, 448.0, 464.0, 65504.0, 65520.0]
    ),
)
matrices = arrays(np.float32, st.tuples(st.integers(0, 6), st.just(SIZE)), elements=awkward)


# Formats ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "layout"), [("e4m3", (4, 3, 0x7E)), ("e5m2", (5, 2, 0x7B))])
@given(values=arrays(np.float32, st.integers(1, 20), elements=awkward))
@settings(max_examples=60, deadline=None)
def test_float8_is_the_nearest_number_that_there_is(kind: Any, layout: tuple[int, int, int], values: Vectors) -> None:
    codes = as_float8(values, kind)
    assert codes.tolist() == [naive.nearest_float8(value, *layout) for value in values]


@pytest.mark.parametrize(("kind", "layout"), [("e4m3", (4, 3, 0x7E)), ("e5m2", (5, 2, 0x7B))])
def test_all_numbers_of_float8_are_what_the_bits_say_and_keep_their_codes(
    kind: Any, layout: tuple[int, int, int]
) -> None:
    numbers = float8_numbers(kind)
    finite = [code for code in range(256) if code & 0x7F <= layout[2]]
    assert numbers[finite].tolist() == [naive.float8_value(code, *layout[:2]) for code in finite]
    assert as_float8(numbers, kind)[finite].tolist() == finite


def test_float8_casts_as_ml_dtypes_does() -> None:
    ml_dtypes = pytest.importorskip("ml_dtypes")
    random = np.random.default_rng(1)
    values = (random.standard_normal(200_000) * np.exp2(random.integers(-20, 8, 200_000))).astype(np.float32)
    for kind, dtype, largest in (("e4m3", "float8_e4m3fn", 448.0), ("e5m2", "float8_e5m2", 57344.0)):
        clipped = np.clip(values, -largest, largest)
        assert np.array_equal(as_float8(clipped, kind), clipped.astype(getattr(ml_dtypes, dtype)).view(np.uint8))  # type: ignore[arg-type]


@pytest.mark.parametrize("levels", [("int8", 256), ("int8:symmetric", 256), ("int4", 16), ("int4:symmetric", 16)])
def test_levels_are_the_nearest_ones_and_beyond_the_sample_the_last_ones(levels: tuple[str, int]) -> None:
    codec = fitted(levels[0])
    kept = codec.format.arrays()
    values = np.concatenate([sample(40, seed=3), np.full((1, SIZE), 1e6), np.full((1, SIZE), -1e6)]).astype(np.float32)
    decoded = codec.decode(codec.encode(values))
    low, step = kept["lows"].astype(np.float64), kept["steps"].astype(np.float64)
    for row, line in zip(values.astype(np.float64), decoded):
        right = [low[d] + step[d] * naive.nearest_level(row[d], low[d], step[d], levels[1]) for d in range(SIZE)]
        assert np.abs(line - right).max() <= 1e-5 * np.abs(low).max()
    if "symmetric" in levels[0]:
        assert not codec.decode(codec.encode(np.zeros((1, SIZE), np.float32))).any()


@pytest.mark.parametrize("text", SCALAR)
@given(values=matrices)
@settings(max_examples=40, deadline=None)
def test_compiled_and_numpy_make_the_same_bytes(text: str, values: Vectors) -> None:
    codec = fitted(text)
    compiled.kernels()  # from now on they are used for any number of vectors
    by_kernel = codec.encode(values)
    with pytest.MonkeyPatch.context() as patch:
        for module in ("floats", "float8", "levels"):
            patch.setattr(f"vecdb.index.codecs.{module}.kernels_for", lambda count: None)
        by_numpy = codec.encode(values)
    assert np.array_equal(by_kernel, by_numpy)


@pytest.mark.parametrize("text", EVERY)
@pytest.mark.parametrize("metric", METRICS)
def test_awkward_vectors_round_trip_to_finite_ones(
    text: str, metric: str, codecs: dict[tuple[str, str], Codec]
) -> None:
    codec = codecs[text, metric]

    @given(values=matrices)
    @settings(max_examples=8, deadline=None)
    def check(values: Vectors) -> None:
        codes = codec.encode(values)
        assert codes.shape == (len(values), codec.bytes_per_vector)
        assert codes.dtype == np.uint8
        decoded = codec.decode(codes)
        assert decoded.shape == values.shape
        assert np.isfinite(decoded).all()
        for i in range(len(values)):  # whatever stands beside it
            assert np.array_equal(codec.encode(values[i : i + 1])[0], codes[i])
            assert np.array_equal(codec.decode(codes[i : i + 1])[0], decoded[i])

    check()


def test_float32_comes_back_to_the_bit() -> None:
    values = sample()
    for metric in METRICS:
        assert np.array_equal(fitted("float32", metric).decode(fitted("float32", metric).encode(values)), values)


@pytest.mark.parametrize(
    ("text", "most"), [("float16", 2.0**-11), ("bfloat16", 2.0**-8), ("float8", 1 / 16), ("float8:e5m2", 1 / 8)]
)
def test_floats_err_by_half_a_step_at_most(text: str, most: float) -> None:
    values = sample()
    decoded = fitted(text).decode(fitted(text).encode(values))
    normal = np.abs(values) > np.abs(values).max(axis=1, keepdims=True) / 2**12
    assert (np.abs(decoded - values)[normal] <= most * np.abs(values)[normal]).all()


# Distances -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", EVERY)
@pytest.mark.parametrize("metric", METRICS)
def test_distances_are_those_from_the_decoded_vectors(
    text: str, metric: str, codecs: dict[tuple[str, str], Codec]
) -> None:
    """RaBitQ knows lengths better than by decoding, so only its products are compared, and rounds queries of few bits."""
    codec, vectors, queries = codecs[text, metric], sample(200, seed=5), sample(7, seed=6)
    if metric == "cosine":
        vectors, queries = unit(vectors), unit(queries)
    codes = codec.encode(vectors)
    found = codec.distances(queries, codes)
    if text.startswith("rabitq"):
        restored = codec.format.decode(codes)
        right = queries.astype(np.float64) @ restored.T.astype(np.float64)
        products = codec.format.products(queries, codes)
        scale = np.abs(queries).max() * np.abs(restored).sum(axis=1).max()
        assert np.abs(products - right).max() <= scale * (2e-4 if text == "rabitq:8" else 1e-2)
        return
    right = naive.distances(queries, codec.decode(codes), metric)
    scale = float((queries**2).sum(axis=1).max() + (vectors**2).sum(axis=1).max())
    assert np.abs(found - np.maximum(right, 0 if metric != "ip" else -np.inf)).max() <= 3e-4 * scale


def test_equal_vectors_are_at_equal_distances_and_keep_their_order(codecs: dict[tuple[str, str], Codec]) -> None:
    twice = np.repeat(sample(20, seed=9), 3, axis=0)
    for codec in codecs.values():
        table = CodeTable.of(codec, unit(twice) if codec.metric == "cosine" else twice)
        rows = table.search(sample(4, seed=2), len(twice)).positions
        for line in rows:
            for first in range(0, len(twice), 3):
                places = [int(np.flatnonzero(line == first + i)[0]) for i in range(3)]
                assert places == sorted(places), codec.text


def test_a_zero_vector_is_as_far_from_all_as_a_right_angle() -> None:
    codec = fitted("float8", "cosine")
    assert codec.distances(unit(sample(3)), codec.encode(np.zeros((1, SIZE), np.float32))).tolist() == [[1.0]] * 3


@pytest.mark.parametrize("size", [1, 2, 3, 9, 64, 384])
def test_a_turn_keeps_lengths_and_angles_and_is_the_same_compiled(size: int) -> None:
    values, signs = sample(20, size).astype(np.float64), turning.random_signs(size, 3)
    compiled.kernels()
    by_kernel = turning.turned(values, signs)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(turning, "kernels_for", lambda count: None)
        by_numpy = turning.turned(values, signs)
    assert np.array_equal(by_kernel, by_numpy)
    assert by_numpy @ by_numpy.T == pytest.approx(values @ values.T, abs=1e-9)
    assert turning.turned_back(by_numpy, signs) == pytest.approx(values, abs=1e-9)


def test_a_turn_spreads_every_number_over_all_places() -> None:
    for size in (48, 65, 384):
        turned = turning.turned(np.eye(size), turning.random_signs(size, 0))
        assert np.abs(turned).max() < 7 / np.sqrt(size)


def test_a_bound_of_rabitq_holds_as_often_as_it_says(real: Any) -> None:
    """1.9 standard deviations of a normal variable: 0.057 lie beyond; fewer with eight bits, where most is for rounding."""
    for text, least in (("rabitq:1", 0.04), ("rabitq:4", 0.03), ("rabitq:8", 0.0)):
        codec = parse(text, 384, "cosine").fit(real.base)
        codes = codec.encode(real.base[:2000])
        true = naive.distances(real.queries[:40], real.base[:2000], "cosine")
        errors = codec.errors(real.queries[:40], codes)
        assert errors is not None
        beyond = float(np.mean(np.abs(codec.distances(real.queries[:40], codes) - true) > errors))
        assert least <= beyond < 0.075
    assert fitted("int8").errors(sample(2), fitted("int8").encode(sample(3))) is None


# Reducers --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("metric", ["l2", "ip"])
def test_principal_components_are_those_of_a_singular_value_decomposition(metric: Any, tmp_path: Path) -> None:
    vectors = sample(500, 20)
    moved = vectors.astype(np.float64) - (vectors.mean(axis=0, dtype=np.float64) if metric == "l2" else 0)
    _, _, right = np.linalg.svd(moved, full_matrices=False)
    np.save(tmp_path / "vectors.npy", vectors)
    mapped = np.load(tmp_path / "vectors.npy", mmap_mode="r")
    for method, tolerance in (("exact", 1e-5), ("randomised", 2e-2)):
        basis = Pca(20, 6, method=method).fit(mapped, metric, 0).arrays()["basis"]  # type: ignore[arg-type]
        cosines = np.abs(np.einsum("dr,rd->r", basis, right[:6]))
        assert (cosines > 1 - tolerance).all()
    kept = Pca(20, 6).fit(vectors, metric, 0)
    lost = np.square(kept.restore(kept.apply(vectors)) - vectors).sum()
    assert lost == pytest.approx(np.square(np.linalg.svd(moved, compute_uv=False)[6:]).sum(), rel=1e-3)


def test_whitening_gives_every_direction_the_same_variance_and_distances_undo_it() -> None:
    whitened = fitted("pca:9,whiten")
    values = whitened.reducers[0].apply(sample())
    assert np.square(values).mean(axis=0) == pytest.approx(np.ones(9), rel=1e-3)
    found = whitened.distances(sample(3, seed=1), whitened.encode(sample()))
    assert found == pytest.approx(naive.distances(sample(3, seed=1), sample(), "l2"), rel=1e-3, abs=1e-3)


def test_an_exact_product_does_not_depend_on_the_batch() -> None:
    random = np.random.default_rng(0)
    vectors = random.standard_normal((300, 70)).astype(np.float32)
    matrix = base.on_grid(np.linalg.qr(random.standard_normal((70, 33)))[0])
    whole = base.exact_product(vectors, matrix)
    assert np.array_equal(whole, np.concatenate([base.exact_product(vectors[i : i + 1], matrix) for i in range(300)]))
    assert np.abs(whole - vectors.astype(np.float64) @ matrix).max() < 1e-5


# Products ----------------------------------------------------------------------------------------------------------------


def test_each_part_gets_its_nearest_centroid() -> None:
    values = sample(400, 12)
    books = fit_books(values, 4, 0, rounds=3)
    decoded = centroids_of(nearest_centroids(values, books), books).reshape(400, 4, 3)
    taken = np.square(decoded.astype(np.float64) - values.reshape(400, 4, 3)).sum(axis=2)
    assert taken == pytest.approx(naive.nearest_centroids(values, books), abs=1e-5)


def test_parts_are_encoded_to_the_bit_as_numpy_does_it_by_itself() -> None:
    values = np.concatenate([sample(600, 12), np.zeros((2, 12), np.float32), sample(2, 12) * np.float32(1e30)])
    books = fit_books(values[:400], 4, 0, rounds=3)
    assert np.array_equal(nearest_centroids(values, books), naive.strictly_nearest_centroids(values, books, 1e18))


@pytest.mark.parametrize("parts", [1, 3, 16, 21])
def test_a_scan_by_tables_is_the_sum_of_whole_numbers(parts: int) -> None:
    """Sixteen bits: half a step for each part, and what float32 rounds."""
    values, queries = sample(70, 42), sample(3, 42, seed=4)
    codec = parse(f"pq:{parts}", 42, "ip").fit(sample(300, 42))
    tables, _, _, origins, units = scan_tables(queries, codec.format.arrays()["books"])
    for count in (0, 1, 63, 64, 66, 70):
        codes = codec.encode(values[:count])
        found = codec.format.products(queries, codes)
        sums = sum(tables[:, m][:, codes[:, m]].astype(np.int64) for m in range(parts))
        assert np.array_equal(found, (origins[:, None] + units[:, None] * sums).astype(np.float32))
        right = queries.astype(np.float64) @ codec.format.decode(codes).T.astype(np.float64)
        assert (np.abs(found - right) <= units[:, None] * parts * 0.51 + 1e-5 * np.abs(right)).all()


def test_product_quantisation_errs_as_little_as_that_of_faiss(real: Any) -> None:
    faiss = pytest.importorskip("faiss")
    theirs = faiss.ProductQuantizer(384, 24, 8)
    theirs.train(real.base)
    error = np.square(theirs.decode(theirs.compute_codes(real.base)) - real.base).sum()
    codec = parse("pq:24", 384, "l2").fit(real.base)
    assert np.square(codec.decode(codec.encode(real.base)) - real.base).sum() < 1.02 * error


def test_grouping_by_magnitude_gains_where_norms_differ_and_nothing_where_they_do_not() -> None:
    """At equal bytes: a byte for the group against one more part; on vectors that nothing was fitted to."""
    random = np.random.default_rng(2)
    directions = unit(random.standard_normal((9_000, 16)).astype(np.float32))
    spread = directions * np.exp(random.normal(0, 1.5, (9_000, 1))).astype(np.float32)

    def lost(text: str, vectors: Vectors) -> float:
        codec, asked = parse(text, 16, "l2").fit(vectors[:6_000]), vectors[6_000:]
        return float(np.square(codec.decode(codec.encode(asked)) - asked).sum() / np.square(asked).sum())

    assert lost("mpq:4", spread) < 0.9 * lost("pq:5", spread)
    assert lost("mpq:4", directions) > lost("pq:5", directions)


# What remains ------------------------------------------------------------------------------------------------------------


def recall(found: NDArray[np.int64], true: NDArray[Any]) -> float:
    return float(np.mean([len(np.intersect1d(a, b[: len(a)])) / len(a) for a, b in zip(found, true)]))


@pytest.mark.parametrize(
    ("text", "least"),  # recall@10 on real embeddings; measured, less 0.02
    [("float16", 0.98), ("float8", 0.965), ("int8", 0.975), ("int4", 0.90), ("pca:192+int8", 0.87), ("rabitq:4", 0.93)],
)
def test_codes_find_what_vectors_find(text: str, least: float, real: Any) -> None:
    table = CodeTable.of(parse(text, 384, "cosine").fit(real.base), real.base)
    assert recall(table.search(real.queries, 10).positions, real.neighbours) >= least
    rechecked = table.search(real.queries, 10, exact=real.base)
    assert recall(rechecked.positions, real.neighbours) >= 0.98
    assert (rechecked.work > len(real.base)).all()


def test_a_learnt_factor_is_the_least_that_reaches_the_recall(real: Any) -> None:
    table = CodeTable.of(parse("rabitq:1", 384, "cosine").fit(real.base), real.base)
    queries, true = real.queries[:60], exact_search(real.base, real.queries[:60], 10, "cosine").positions
    factor, reached = learn_oversampling(table, real.base, queries, 10, 0.95)
    assert factor == naive.needed_factor(table.distances(queries), true, 10, 0.95, list(FACTORS))
    found = table.search(queries, 10, exact=real.base, oversampling=factor)
    assert recall(found.positions, true) == pytest.approx(reached, abs=0.01)
    assert reached >= 0.95
    assert (
        recall(
            table.search(real.queries[60:], 10, exact=real.base, oversampling=factor).positions, real.neighbours[60:]
        )
        > 0.93
    )


def test_a_search_finds_all_there_are_and_no_more() -> None:
    table = CodeTable.of(fitted("int8"), sample(3))
    found = table.search(sample(2, seed=1), 5)
    assert (found.positions[:, 3:] == -1).all()
    assert np.isinf(found.distances[:, 3:]).all()
    assert sorted(found.positions[0, :3].tolist()) == [0, 1, 2]
    empty = CodeTable.of(fitted("pca:5+float8"), np.empty((0, SIZE), np.float32))
    assert (empty.search(sample(2), 3).positions == -1).all()


# Saving and refusing -------------------------------------------------------------------------------------------------------


def test_a_saved_codec_is_the_same_codec(codecs: dict[tuple[str, str], Codec]) -> None:
    values = sample(30, seed=8)
    for codec in codecs.values():
        again = Codec.from_bytes(codec.to_bytes())
        assert (again.text, again.metric, again.overhead) == (codec.text, codec.metric, codec.overhead)
        assert np.array_equal(again.encode(values), codec.encode(values))
        assert np.array_equal(again.decode(codec.encode(values)), codec.decode(codec.encode(values)))


@given(place=st.integers(0, 10_000), flip=st.integers(1, 255))
@settings(max_examples=40, deadline=None)
def test_damage_is_noticed(place: int, flip: int) -> None:
    data = bytearray(_SAVED)
    data[place % len(data)] ^= flip
    with pytest.raises(CorruptIndex):
        Codec.from_bytes(bytes(data))


_SAVED = fitted("pca:3+int8").to_bytes()


def test_what_is_no_codec_is_refused() -> None:
    for data in (b"", _SAVED[:20], b"x" * 100, _SAVED[:-1]):
        with pytest.raises(CorruptIndex):
            Codec.from_bytes(data)
    later = b"\x02" + _SAVED[13:]
    with pytest.raises(CorruptIndex, match="version 2"):
        Codec.from_bytes(_SAVED[:8] + zlib.crc32(later).to_bytes(4, "little") + later)


@pytest.mark.parametrize("text", EVERY)
def test_a_text_is_its_codec_s(text: str) -> None:
    again = parse(text, SIZE).text
    assert parse(again, SIZE).text == again


def test_what_is_left_out_of_a_text_is_filled_in() -> None:
    assert parse("pca:4", 9).text == "pca:4+float32"
    assert parse("opq:3", 9).text == "opq:3+pq:3"
    assert parse("pca:6+opq:3", 9).text == "pca:6+opq:3+pq:3"
    assert parse("float8:e4m3,vector", 9).text == "float8"


@pytest.mark.parametrize(
    "text",
    ["", "float9", "pca", "pca:0", "pca:10", "pca:x", "pca:3,black", "float8+pca:3", "int8+int8", "rabitq:3", "pq:10", "mpq:2,1",
     "float32:4", "pca:3++int8", "random:3,whiten", "pq", "int8:affine,symmetric", "rabitq:1,2", "opq:0", "pca:-1"],
)  # fmt: skip
def test_a_text_that_says_nothing_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput):
        parse(text, SIZE)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_refused_by_its_place(bad: float) -> None:
    values = sample(50)
    values[33, 4] = bad
    codec = fitted("float8")
    with pytest.raises(InvalidVector, match="vector 33") as caught:
        codec.encode(values)
    assert caught.value.position == 33
    for refuse in (
        lambda: parse("int8", SIZE, "l2").fit(values),
        lambda: codec.distances(values, codec.encode(sample(2))),
    ):
        with pytest.raises(InvalidVector):
            refuse()


def test_wrong_shapes_are_refused() -> None:
    codec = fitted("int8")
    with pytest.raises(DimensionMismatch):
        codec.encode(sample(3, 5))
    with pytest.raises(InvalidInput, match="9 bytes"):
        codec.decode(np.zeros((2, 8), np.uint8))
    with pytest.raises(InvalidInput, match="not fitted"):
        parse("int8", SIZE).encode(sample())
    with pytest.raises(InvalidInput, match="no vector"):
        parse("int8", SIZE).fit(np.empty((0, SIZE), np.float32))
    table = CodeTable.of(codec, sample())
    with pytest.raises(InvalidQuery):
        table.search(sample(1), 0)
    with pytest.raises(InvalidInput, match="oversampling"):
        table.search(sample(1), 3, oversampling=2.0)
    with pytest.raises(InvalidInput, match="oversampling"):
        table.search(sample(1), 3, exact=sample(), oversampling=0.5)
    with pytest.raises(InvalidInput, match="queries"):
        learn_oversampling(table, sample(), np.empty((0, SIZE), np.float32), 3, 0.9)


def test_importing_codecs_and_using_a_few_vectors_loads_no_compiler() -> None:
    program = (
        "import sys, numpy as np; from vecdb.index.codecs import parse; c = parse('pca:3+int8', 4).fit(np.eye(4, dtype='f4'));"
        "c.decode(c.encode(np.eye(4, dtype='f4'))); sys.exit('numba' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
