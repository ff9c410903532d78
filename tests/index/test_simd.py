"""Inner loops against their plain twins and NumPy: whole numbers to the bit, floats within what another order of sums costs.

Loops are compiled for one level when `vecdb.index.simd` is first imported, so the other levels are tested by running this
file again, in processes of their own.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import llvmlite.binding as llvm
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numba import njit
from numpy.typing import NDArray

from vecdb.errors import InvalidInput
from vecdb.index import simd

LINES = [64, 128, 192, 384, 832]  # what codes and lines are padded to
WIDTHS = [1, 5, 16, 17, 100, 123, 384]
IS_CHILD = "VECDB_SIMD" in os.environ
Rows = NDArray[Any]


def over_rows(loop: Any) -> Callable[[Rows, Rows, Any], None]:
    @njit(nogil=True)
    def run(matrix, query, out):
        for row in range(matrix.shape[0]):
            out[row] = loop(matrix, np.int32(row), query)  # the graph's nodes are int32

    return run


NAMES = [
    "dot_codes",
    "dot_nibbles",
    "hamming",
    "dot_floats",
    "l2_floats",
    "dot_halves",
    "l2_halves",
    "dot_bytes",
    "dot_pairs",
    "dot_e4m3",
    "dot_e5m2",
    "dot_bfloats",
]
FAST = {name: over_rows(getattr(simd, name)) for name in NAMES}
PLAIN = {name: over_rows(getattr(simd, f"plain_{name}")) for name in NAMES}


def results(name: str, matrix: Rows, query: Rows, dtype: Any) -> tuple[Rows, Rows]:
    """(N,) each: by the loop, and by its plain twin."""
    fast, plain = np.empty(len(matrix), dtype), np.empty(len(matrix), dtype)
    FAST[name](matrix, query, fast)
    PLAIN[name](matrix, query, plain)
    return fast, plain


def bytes_of(width: int, dtype: Any) -> Rows:
    """Rows of random bytes, and of the least and the largest alone and by turns."""
    limits = np.iinfo(dtype)
    rng = np.random.default_rng(width)
    rows = rng.integers(limits.min, limits.max, (9, width), dtype, endpoint=True)
    rows[:4] = np.array([limits.min, limits.max, 0, 1], dtype)[:, None]
    rows[4, ::2], rows[4, 1::2] = limits.min, limits.max
    return rows


def test_the_level_is_the_one_that_was_asked_for() -> None:
    assert os.environ.get("VECDB_SIMD", simd.LEVEL) == simd.LEVEL


@pytest.mark.parametrize("width", LINES)
def test_products_of_codes_are_exact(width: int) -> None:
    codes = bytes_of(width, np.uint8)
    for query in bytes_of(width, np.int8):
        fast, plain = results("dot_codes", codes, query, np.int32)
        want = codes.astype(np.int64) @ query.astype(np.int64)
        assert np.array_equal(fast, want)
        assert np.array_equal(plain, want)


@pytest.mark.parametrize("width", LINES)
def test_products_of_nibbles_are_exact(width: int) -> None:
    lines = bytes_of(width, np.uint8)
    numbers = np.concatenate([lines & 15, lines >> 4], axis=1).astype(np.int64)
    for query in bytes_of(2 * width, np.int8):
        fast, plain = results("dot_nibbles", lines, query, np.int32)
        want = numbers @ query.astype(np.int64)
        assert np.array_equal(fast, want)
        assert np.array_equal(plain, want)


@pytest.mark.parametrize("width", LINES)
def test_four_products_of_codes_are_those_of_one_at_a_time(width: int) -> None:
    @njit
    def fast(codes, first, query, out):
        simd.dot_four_codes(codes, first, query, out)

    codes = bytes_of(width, np.uint8)
    for query in bytes_of(width, np.int8):
        want, _ = results("dot_codes", codes, query, np.int32)
        for loop in (fast, simd.plain_dot_four_codes):
            out = np.full(9, -1)
            loop(codes, 3, query, out)
            assert out.tolist() == [-1, -1, -1, *want[3:7].tolist(), -1, -1]


@pytest.mark.parametrize("width", LINES)
def test_four_products_of_nibbles_are_those_of_one_at_a_time(width: int) -> None:
    @njit
    def fast(lines, rows, first, query, out):
        simd.dot_four_nibbles(lines, rows, first, query, out)

    lines = bytes_of(width, np.uint8)
    rows = np.array([8, 0, 3, 3, 4, 1, 7, 2], np.int32)
    for query in bytes_of(2 * width, np.int8):
        want, plain = results("dot_nibbles", lines, query, np.int32)
        for loop in (fast, simd.plain_dot_four_nibbles):
            out = np.full(8, -1)
            loop(lines, rows, 2, query, out)
            assert out.tolist() == [-1, -1, *want[rows[2:6]].tolist(), -1, -1]
        assert np.array_equal(want, plain)


@given(data=st.data(), capacity=st.integers(1, 70))
def test_a_key_goes_to_its_place_and_pushes_out_the_last(data: st.DataObject, capacity: int) -> None:
    wide = st.integers(-(2**63) + 1, 2**63 - 2)
    known = sorted(data.draw(st.lists(wide, max_size=capacity, unique=True)))
    key = data.draw(wide.filter(lambda key: key not in known))
    size = len(known)
    want = sorted([*known, key])[:capacity]
    for loop in (insert_key, simd.plain_insert_key):
        room = np.full((capacity + 7) // 8 * 8, data.draw(wide), np.int64)  # what stands behind the keys is anything
        room[:size] = known
        loop(room[:capacity], size, min(size, capacity - 1), key)
        assert room[: len(want)].tolist() == want


@pytest.mark.parametrize("width", [*WIDTHS, 64, 130])
def test_products_of_bytes_and_pairs_take_any_length_and_leave_what_stands_behind(width: int) -> None:
    codes = bytes_of(width + 3, np.uint8)
    for query in bytes_of(width, np.int8):
        want = codes[:, :width].astype(np.int64) @ query.astype(np.int64)
        for found in results("dot_bytes", codes, query, np.int32):
            assert np.array_equal(found, want)
    numbers = np.concatenate([codes[:, :width] & 15, codes[:, :width] >> 4], axis=1).astype(np.int64)
    for query in bytes_of(2 * width, np.int8):
        for found in results("dot_pairs", codes, query, np.int32):
            assert np.array_equal(found, numbers @ query.astype(np.int64))


@pytest.mark.parametrize("bits", [1, 2, 3])
@pytest.mark.parametrize("words", [1, 2, 6])
def test_products_of_planes_are_those_of_the_numbers_whose_bits_they_are(words: int, bits: int) -> None:
    @njit
    def fast(matrix, planes, bits, out):
        for row in range(matrix.shape[0]):
            out[row] = simd.dot_planes(matrix, row, planes, bits)

    random = np.random.default_rng(words)
    numbers = random.integers(0, 2**bits, (9, 64 * words)).astype(np.uint8)
    packed = [np.packbits((numbers >> bit) & 1, axis=1, bitorder="little") for bit in range(bits)]
    matrix = np.concatenate([*packed, random.integers(0, 256, (9, 6), np.uint8)], axis=1)
    for query in bytes_of(64 * words, np.int8):
        bytes_ = query.view(np.uint8)
        planes = np.stack([np.packbits((bytes_ >> bit) & 1, bitorder="little").view("<u8") for bit in range(8)], axis=1)
        want = numbers.astype(np.int64) @ query.astype(np.int64)
        found, plain = np.empty(9, np.int64), np.empty(9, np.int64)
        fast(matrix, planes, bits, found)
        for row in range(9):
            plain[row] = simd.plain_dot_planes(matrix, row, planes, bits)
        assert np.array_equal(found, want)
        assert np.array_equal(plain, want)


@pytest.mark.parametrize("size", [1, 3, 8])
def test_the_nearest_centroid_is_the_first_of_the_nearest_to_the_bit(size: int) -> None:
    @njit
    def fast(values, books, halves, out):
        for row in range(out.shape[0]):
            for part in range(out.shape[1]):
                out[row, part] = simd.nearest_centroid(values, row, part * size, books, part, halves)

    random = np.random.default_rng(size)
    values = random.standard_normal((40, 3 * size + 1)).astype(np.float32)
    values[:3] = [[0.0], [3e38], [-3e38]]
    books = random.standard_normal((3, size, 256)).astype(np.float32)
    books[0] = np.tile(books[0, :, :64], 4)  # each four times
    books[1, :, 100:] = simd.FARTHEST
    halves = (np.square(books, dtype=np.float64).sum(axis=1) / 2).astype(np.float32)
    want, near = np.empty((40, 3), np.int64), np.clip(values, -simd.FARTHEST, simd.FARTHEST)
    for part in range(3):
        sums = np.repeat(halves[part][None], 40, axis=0)
        for s in range(size):
            sums = sums - near[:, part * size + s, None] * books[part, s]
        want[:, part] = sums.argmin(axis=1)
    found = np.empty((40, 3), np.int64)
    fast(values, books, halves, found)
    assert np.array_equal(found, want)
    plain = [
        [simd.plain_nearest_centroid(values, row, p * size, books, p, halves) for p in range(3)] for row in range(40)
    ]
    assert np.array_equal(plain, want)


@pytest.mark.parametrize("width", [1, 7, 16, 17, 48, 50])
def test_sums_of_tables_are_those_of_what_each_byte_looks_up(width: int) -> None:
    @njit
    def fast(codes, row, starts, planes, out):
        simd.sums_of_tables(codes, row, starts, planes, out)

    random = np.random.default_rng(width)
    codes = random.integers(0, 256, (100, width), np.uint8)
    chunks = -(-width // 16)
    starts = np.array([max(min(16 * c, width - 16), 0) for c in range(chunks)])
    tables = random.integers(0, 2**16, (width, 256)).astype(np.int64)
    planes = np.zeros((chunks, 16, 2, 256), np.uint8)
    for m in range(width):
        planes[m // 16, m - starts[m // 16]] = tables[m] & 255, tables[m] >> 8
    want = sum(tables[m][codes[:, m]] for m in range(width))
    for row in (0, 1, 20):
        for sums_of_tables in (fast, simd.plain_sums_of_tables):
            found = np.empty(64, np.int32)
            sums_of_tables(codes, row, starts, planes, found)
            assert np.array_equal(found, want[row : row + 64])


@pytest.mark.parametrize("width", WIDTHS)
def test_products_of_short_floats_are_close(width: int) -> None:
    random = np.random.default_rng(width)
    query = random.standard_normal(width).astype(np.float32)
    codes = random.integers(0, 256, (9, width + 1), np.uint8)
    for name, numbers in (("dot_e4m3", float8(4, 3, 0x7E) / 256), ("dot_e5m2", float8(5, 2, 0x7B))):
        finite = np.where(np.isfinite(numbers[codes]), codes, 0).astype(np.uint8)
        want = numbers[finite[:, :width]] @ query.astype(np.float64)
        for found in results(name, finite, query, np.float32):
            assert found == pytest.approx(want, rel=1e-4, abs=1e-5 * np.abs(numbers[finite]).max() * width)
    words = random.standard_normal((9, width)).astype(np.float32).view(np.uint32) >> 16
    want = (words << 16).astype(np.uint32).view(np.float32).astype(np.float64) @ query
    for found in results("dot_bfloats", words.astype(np.uint16), query, np.float32):
        assert found == pytest.approx(want, rel=1e-4, abs=1e-4)


def test_a_float16_is_read_from_wherever_it_stands() -> None:
    @njit
    def fast(matrix, at, out):
        for row in range(matrix.shape[0]):
            out[row] = simd.half_at(matrix, row, at)

    matrix = np.zeros((63_488, 5), np.uint8)
    bits = np.arange(2**16, dtype=np.uint16)
    finite = bits[bits & 0x7C00 != 0x7C00]
    for at in (0, 1, 3):
        matrix[:, at : at + 2] = finite.astype("<u2")[:, None].view(np.uint8)
        found = np.empty(len(finite), np.float32)
        fast(matrix, at, found)
        assert np.array_equal(found, finite.view(np.float16).astype(np.float32))
    plain = [simd.plain_half_at(matrix, row, 3) for row in range(0, len(finite), 997)]
    assert plain == finite[::997].view(np.float16).astype(np.float32).tolist()


def float8(exponent_bits: int, mantissa_bits: int, finite: int) -> Rows:
    """(256,): what each code stands for, by the format; infinity where it is no finite number."""
    codes = np.arange(256)
    exponents, mantissas = codes >> mantissa_bits & 2**exponent_bits - 1, codes & 2**mantissa_bits - 1
    sizes = (mantissas / 2**mantissa_bits + (exponents > 0)) * 2.0 ** (
        np.maximum(exponents, 1) - 2 ** (exponent_bits - 1) + 1
    )
    return np.where(codes & 127 > finite, np.inf, np.where(codes & 128, -sizes, sizes))


@njit
def insert_key(keys, size, stop, key):
    simd.insert_key(keys, size, stop, key)


@pytest.mark.parametrize("width", [*WIDTHS, 64, 832])
def test_differing_bits_are_counted_exactly(width: int) -> None:
    rows = bytes_of(width, np.uint8)
    for query in bytes_of(width, np.uint8):
        fast, plain = results("hamming", rows, query, np.int32)
        want = np.unpackbits(rows ^ query, axis=1).sum(axis=1)
        assert np.array_equal(fast, want)
        assert np.array_equal(plain, want)


def true_and_bound(kind: str, rows: Rows, query: Rows) -> tuple[Rows, Rows]:
    """What the loop is to find, in float64, and how far float32 sums in any order may be from it."""
    wide, other = rows.astype(np.float64), query.astype(np.float64)
    terms = wide * other if kind == "dot" else (wide - other) ** 2
    return terms.sum(axis=1), 2e-6 * np.abs(terms).sum(axis=1) + 1e-30


@pytest.mark.parametrize("kind", ["dot", "l2"])
@pytest.mark.parametrize("width", WIDTHS)
def test_sums_of_floats_are_near(kind: str, width: int) -> None:
    rng = np.random.default_rng(width)
    rows = rng.standard_normal((12, width)).astype(np.float32) * np.float32(10.0) ** rng.integers(-6, 7, (12, 1))
    rows = np.ascontiguousarray(rows, np.float32)
    rows[0] = 0
    for query in (rows[3].copy(), rng.standard_normal(width).astype(np.float32), np.zeros(width, np.float32)):
        want, bound = true_and_bound(kind, rows, query)
        for got in results(f"{kind}_floats", rows, query, np.float32):
            assert (np.abs(got - want) <= bound).all()


@pytest.mark.parametrize("kind", ["dot", "l2"])
@pytest.mark.parametrize("width", WIDTHS)
def test_sums_of_halves_are_near(kind: str, width: int) -> None:
    rng = np.random.default_rng(width)
    rows = (rng.standard_normal((12, width)) * 10.0 ** rng.integers(-7, 4, (12, 1))).astype(np.float16)
    rows[0] = 0
    for query in (rows[3].astype(np.float32), rng.standard_normal(width).astype(np.float32)):
        want, bound = true_and_bound(kind, rows, query)
        for got in results(f"{kind}_halves", rows.view(np.uint16), query, np.float32):
            assert (np.abs(got - want) <= bound).all()


@pytest.mark.parametrize("kind", ["dot", "l2"])
def test_infinite_numbers_stay_infinite(kind: str) -> None:
    rows = np.ones((2, 21), np.float32)
    rows[0, 20], rows[1, 3] = np.inf, np.nan
    query = np.full(21, 2, np.float32)
    for got in results(f"{kind}_floats", rows, query, np.float32):
        assert np.isinf(got[0])
        assert np.isnan(got[1])


def test_every_half_is_the_float_that_numpy_says() -> None:
    bits = np.arange(2**16, dtype=np.uint16)

    @njit
    def widen(bits, out):
        for i in range(bits.shape[0]):
            out[i] = simd.half_to_float(bits[i])

    got = np.empty(len(bits), np.float32)
    widen(bits, got)
    want = bits.view(np.float16).astype(np.float32)
    number = ~np.isnan(want)
    assert np.array_equal(got[number].view(np.uint32), want[number].view(np.uint32))
    assert np.isnan(got[~number]).all()


@pytest.mark.parametrize("dtype", [np.int64, np.int32])
def test_shifting_moves_what_overlaps(dtype: Any) -> None:
    @njit
    def shift(array, start, stop):
        simd.shift_right(array, start, stop)

    for start, stop in ((0, 0), (0, 1), (0, 99), (3, 40), (98, 99), (50, 50)):
        array = np.arange(100, dtype=dtype) * 7
        want = array.copy()
        want[start + 1 : stop + 1] = array[start:stop]
        shift(array, start, stop)
        assert np.array_equal(array, want)


def test_asking_for_memory_changes_none() -> None:
    @njit
    def ask(array):
        for row in range(array.shape[0]):
            simd.prefetch(array, row, 8)

    array = np.arange(40.0).reshape(5, 8)
    ask(array)
    assert np.array_equal(array, np.arange(40.0).reshape(5, 8))


@pytest.mark.parametrize(("width", "lines"), [(0, 0), (1, 64), (64, 64), (65, 128), (384, 384)])
def test_padding_is_to_whole_lines(width: int, lines: int) -> None:
    assert simd.padded(width) == lines


# Levels


_VNNI = {"avx512f": True, "avx512bw": True, "avx512vl": True, "avx512vnni": True}


@pytest.mark.parametrize(
    ("features", "level"),
    [
        ({}, "portable"),
        ({"neon": True}, "portable"),
        ({"avx2": True}, "avx2"),
        ({"avx2": True, **_VNNI}, "avx512"),
        ({"avx2": True, **_VNNI, "avx512vnni": False}, "avx2"),
    ],
)
def test_the_best_level_of_the_cpu_is_chosen(
    features: dict[str, bool], level: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(llvm, "get_host_cpu_features", lambda: features)
    monkeypatch.delenv("VECDB_SIMD", raising=False)
    assert simd._choose_level() == level
    for forced in ("portable", "plain"):
        monkeypatch.setenv("VECDB_SIMD", forced)
        assert simd._choose_level() == forced


@pytest.mark.parametrize(("wanted", "said"), [("sse9", "must be one of avx512, avx2"), ("avx512", "cannot run")])
def test_a_level_that_there_is_not_is_refused(wanted: str, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(llvm, "get_host_cpu_features", dict)
    monkeypatch.setenv("VECDB_SIMD", wanted)
    with pytest.raises(InvalidInput, match=said):
        simd._choose_level()


def in_a_process(level: str | None, *arguments: str) -> subprocess.CompletedProcess[str]:
    env = {name: value for name, value in os.environ.items() if name != "VECDB_SIMD"}
    if level is not None:
        env["VECDB_SIMD"] = level
    return subprocess.run([sys.executable, *arguments], env=env, capture_output=True, text=True)


def test_importing_with_a_level_that_there_is_not_says_so() -> None:
    done = in_a_process("fast", "-c", "import vecdb.index.simd")
    assert done.returncode != 0
    assert "InvalidInput: VECDB_SIMD is 'fast'" in done.stderr


@pytest.mark.slow
@pytest.mark.skipif(IS_CHILD, reason="this is the process for another level")
@pytest.mark.parametrize("level", ["avx2", "portable", "plain"])
def test_the_other_levels(level: str) -> None:
    if level == "avx2" and not llvm.get_host_cpu_features().get("avx2", False):
        pytest.skip("this CPU has no AVX2")
    done = in_a_process(level, "-m", "pytest", __file__, "-m", "not slow", "-p", "no:cacheprovider")
    assert done.returncode == 0, done.stdout


_HISTORY = """
import hashlib, json
import numpy as np
from vecdb.index import HnswConfig, HnswIndex
from vecdb.index import simd

def digest(arrays):
    return {name: hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest() for name, array in arrays.items()}

rng = np.random.default_rng(5)
centres = rng.standard_normal((30, 48))
draw = lambda n: (centres[rng.integers(0, 30, n)] + 0.6 * rng.standard_normal((n, 48))).astype(np.float32)
vectors, queries = draw(1500), draw(200)
told = {}
for metric in ("l2", "ip"):
    index = HnswIndex.build(vectors[:1400], metric, HnswConfig(M=8, ef_construction=60))
    index.add(vectors[1400:])
    index.remove(np.arange(0, 1500, 10))
    found = index.search(queries, 10)
    some = index.search(queries, 10, allowed=np.arange(1500) % 3 > 0)
    told[metric] = digest(index.arrays()) | digest(
        {"positions": found.positions, "work": found.work, "some": some.positions}
    )
print(json.dumps([simd.LEVEL, told]))
"""


@pytest.mark.slow
@pytest.mark.skipif(IS_CHILD, reason="this is the process for another level")
def test_every_level_builds_the_same_graph_and_gives_the_same_answers() -> None:
    """All kernels are compiled for the other level at first, which takes a minute."""
    features = llvm.get_host_cpu_features()
    other = "avx2" if simd.LEVEL == "avx512" and features.get("avx2", False) else "portable"
    told = []
    for level in (None, other):
        done = in_a_process(level, "-c", _HISTORY)
        assert done.returncode == 0, done.stderr
        told.append(json.loads(done.stdout))
    assert [level for level, _ in told] == [simd.LEVEL, other]
    assert told[0][1] == told[1][1]
