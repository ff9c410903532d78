"""Inner loops over one row of a matrix in explicit SIMD, emitted as LLVM IR through Numba intrinsics.

Which instructions, by `LEVEL`, is chosen once at import from the CPU's features:

    avx512    64 bytes at a time; one-byte codes by VPDPBUSD (AVX-512 VNNI), bits by VPOPCNTDQ
    avx2      16 bytes at a time, widened and multiplied by VPMADDWD (VPMADDUBSW would saturate)
    portable  16 bytes at a time in LLVM's own vectors: NEON, SSE, whatever the CPU has
    plain     ordinary Numba loops, which also are the twins that tests compare the others with

VECDB_SIMD=avx512|avx2|portable|plain in the environment forces a level. It also makes Numba compile for a CPU of that level,
and its disk cache keeps code for different CPUs apart; so it has to be set before anything is compiled.

Integer loops give the same number on every level, to the bit. Float loops differ in the order of summation.
Every loop takes (matrix, row, vector), C-contiguous. Those over codes and nibbles want whole cache lines (`padded`), so that
there is no tail; the others take any length. Those over bytes, pairs, planes and float8 go by the vector's length: what
stands behind it in a row is the codec's own.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, Literal

import llvmlite.binding as llvm
import numba
import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

from vecdb.errors import InvalidInput
from vecdb.index.growth import LINE  # also the bytes of the widest vector register

Level = Literal["avx512", "avx2", "portable", "plain"]

# reassoc lets LLVM sum in vector registers. Not plain fastmath: that assumes that inf and nan never occur.
_FLAGS: dict[str, Any] = {"cache": True, "nogil": True, "fastmath": {"contract", "reassoc"}, "error_model": "numpy"}
compiled = njit(**_FLAGS)
# A graph is passed as some eighty numbers, so a call in an inner loop costs more than most of what is called.
inlined = njit(**_FLAGS, forceinline=True)

_VNNI = ("avx512f", "avx512bw", "avx512vl", "avx512vnni")


def _choose_level() -> Level:
    """The level that VECDB_SIMD names, else the best that this CPU has."""
    features = llvm.get_host_cpu_features()
    able: dict[Level, bool] = {
        "avx512": all(features.get(name, False) for name in _VNNI),
        "avx2": bool(features.get("avx2", False)),
        "portable": True,
        "plain": True,
    }
    wanted = os.environ.get("VECDB_SIMD")
    if not wanted:
        return next(level for level, is_able in able.items() if is_able)
    for level, is_able in able.items():
        if level == wanted and is_able:
            return level
        if level == wanted:
            raise InvalidInput(f"VECDB_SIMD is {wanted!r}, which this CPU cannot run; unset it")
    raise InvalidInput(f"VECDB_SIMD is {wanted!r}; it must be one of {', '.join(able)}, or not be set")


LEVEL: Level = _choose_level()
if os.environ.get("VECDB_SIMD") and LEVEL != "avx512" and llvm.get_process_triple().startswith("x86_64"):
    numba.config.CPU_NAME = "haswell" if LEVEL == "avx2" else "x86-64"
    numba.config.CPU_FEATURES = ""


FARTHEST = 1e18  # a number, of which a product with another such is far from infinity


def padded(width: int) -> int:
    """width bytes, rounded up to whole cache lines."""
    return -(-width // LINE) * LINE


# Plain twins ----------------------------------------------------------------------------------------------------------


@compiled
def plain_dot_codes(codes, row, query):
    """Sum of codes[row] * query. (N, W) uint8, (W,) int8 -> int32."""
    total = np.int32(0)
    for d in range(query.shape[0]):
        total += np.int32(codes[row, d]) * np.int32(query[d])
    return total


@compiled
def plain_dot_four_codes(codes, first, query, out):
    """out[j] = dot_codes(codes, j, query) for the four rows from first. out (n,) int64."""
    for j in range(first, first + 4):
        out[j] = plain_dot_codes(codes, j, query)


@compiled
def plain_dot_nibbles(lines, row, query):
    """Sum of the four-bit numbers of lines[row] * query: the bytes' low halves with query[:W], their high ones with query[W:].

    (N, W) uint8, (2 W,) int8 -> int32.
    """
    total = np.int32(0)
    width = lines.shape[1]
    for d in range(width):
        byte = np.int32(lines[row, d])
        total += (byte & 15) * np.int32(query[d]) + (byte >> 4) * np.int32(query[width + d])
    return total


@compiled
def plain_dot_four_nibbles(lines, rows, first, query, out):
    """out[j] = dot_nibbles(lines, rows[j], query) for the four j from first. rows (n,) int32, out (n,) int64."""
    for j in range(first, first + 4):
        out[j] = plain_dot_nibbles(lines, rows[j], query)


@compiled
def plain_dot_floats(matrix, row, query):
    """(N, D) float32, (D,) float32 -> float32."""
    total = np.float32(0.0)
    for d in range(query.shape[0]):
        total += matrix[row, d] * query[d]
    return total


@compiled
def plain_l2_floats(matrix, row, query):
    """Squared Euclidean distance. (N, D) float32, (D,) float32 -> float32."""
    total = np.float32(0.0)
    for d in range(query.shape[0]):
        difference = matrix[row, d] - query[d]
        total += difference * difference
    return total


@compiled
def half_to_float(bits):
    """The float32 that float16 bits stand for: shifted into place, and rescaled by the difference of the biases."""
    sign = (np.uint32(bits) & np.uint32(0x8000)) << np.uint32(16)
    rest = (np.uint32(bits) & np.uint32(0x7FFF)) << np.uint32(13)
    if rest >= np.uint32(0x0F800000):  # inf and nan
        return np.uint32(sign | rest | np.uint32(0x7F800000)).view(np.float32)
    return np.uint32(sign | rest).view(np.float32) * np.float32(2.0**112)


@compiled
def plain_half_at(matrix, row, at):
    """The float16 in two bytes of a row from `at`, little-endian. (N, W) uint8 -> float32."""
    bits = np.uint32(matrix[row, at]) | (np.uint32(matrix[row, at + 1]) << np.uint32(8))
    return half_to_float(np.uint16(bits))


@compiled
def plain_dot_halves(matrix, row, query):
    """(N, D) float16 as uint16, (D,) float32 -> float32."""
    total = np.float32(0.0)
    for d in range(query.shape[0]):
        total += half_to_float(matrix[row, d]) * query[d]
    return total


@compiled
def plain_l2_halves(matrix, row, query):
    """Squared Euclidean distance. (N, D) float16 as uint16, (D,) float32 -> float32."""
    total = np.float32(0.0)
    for d in range(query.shape[0]):
        difference = half_to_float(matrix[row, d]) - query[d]
        total += difference * difference
    return total


@compiled
def plain_dot_bytes(matrix, row, query):
    """Sum of matrix[row, :D] * query; rows may be longer. (N, W) uint8, (D,) int8 -> int32."""
    total = np.int32(0)
    for d in range(query.shape[0]):
        total += np.int32(matrix[row, d]) * np.int32(query[d])
    return total


@compiled
def plain_dot_pairs(matrix, row, query):
    """Sum of four-bit numbers * query: low halves of matrix[row, :D] with query[:D], high ones with query[D:].

    (N, W) uint8, (2 D,) int8 -> int32.
    """
    total = np.int32(0)
    width = query.shape[0] // 2
    for d in range(width):
        byte = np.int32(matrix[row, d])
        total += (byte & 15) * np.int32(query[d]) + (byte >> 4) * np.int32(query[width + d])
    return total


@compiled
def e4m3_to_float(code):
    """A 256th of the number that float8 e4m3 stands for: its bits moved to where float16 has them."""
    return half_to_float(np.uint16(((np.uint32(code) & 0x80) << 8) | ((np.uint32(code) & 0x7F) << 7)))


@compiled
def e5m2_to_float(code):
    """The number that float8 e5m2 stands for: the upper half of a float16."""
    return half_to_float(np.uint16(np.uint32(code) << 8))


@compiled
def bfloat_to_float(bits):
    """The number that bfloat16 bits stand for: the upper half of a float32."""
    return np.uint32(np.uint32(bits) << np.uint32(16)).view(np.float32)


@compiled
def plain_dot_e4m3(matrix, row, query):
    """A 256th of the dot product with numbers of float8 e4m3. (N, W >= D) uint8, (D,) float32 -> float32."""
    total = np.float32(0.0)
    for d in range(query.shape[0]):
        total += e4m3_to_float(matrix[row, d]) * query[d]
    return total


@compiled
def plain_dot_e5m2(matrix, row, query):
    """The dot product with numbers of float8 e5m2. (N, W >= D) uint8, (D,) float32 -> float32."""
    total = np.float32(0.0)
    for d in range(query.shape[0]):
        total += e5m2_to_float(matrix[row, d]) * query[d]
    return total


@compiled
def plain_dot_bfloats(matrix, row, query):
    """(N, D) bfloat16 as uint16, (D,) float32 -> float32."""
    total = np.float32(0.0)
    for d in range(query.shape[0]):
        total += bfloat_to_float(matrix[row, d]) * query[d]
    return total


@compiled
def plain_dot_planes(matrix, row, planes, bits):
    """Sum of the numbers of `bits` bits in matrix[row] * query, both cut into bits. A row holds the lowest bit of all its
    numbers, then the next one; planes holds eight bits of 64 numbers side by side, then those of the next 64, the eighth
    counted negative: two's complement.

    (N, bits * 8 W) uint8, (W, 8) uint64 -> int64.
    """
    total = np.int64(0)
    words = planes.shape[0]
    for bit in range(bits):
        for w in range(words):
            word = np.uint64(0)
            for byte in range(8):
                word |= np.uint64(matrix[row, (bit * words + w) * 8 + byte]) << np.uint64(8 * byte)
            for plane in range(8):
                common = word & planes[w, plane]
                count = np.int64(0)
                while common:
                    common &= common - np.uint64(1)
                    count += 1
                total += (-count if plane == 7 else count) << (plane + bit)
    return total


@compiled
def plain_hamming(matrix, row, query):
    """How many bits differ. (N, W) uint8, (W,) uint8 -> int32."""
    total = np.int32(0)
    for d in range(query.shape[0]):
        bits = np.int32(matrix[row, d] ^ query[d])
        while bits:
            bits &= bits - 1
            total += 1
    return total


@compiled
def plain_nearest_centroid(values, row, at, books, part, halves):
    """The k whose |c|² / 2 - v · c is smallest, the first of equals. c: books[part, :, k]; v: S numbers of values[row] from at.

    Products are rounded before they are subtracted, in the order of s: the same on every CPU. Numbers beyond FARTHEST count as
    it; with books within it no sum is NaN. values (N, D) float32, books (M, S, K) float32 with K a multiple of 256, halves
    (M, K) float32: |c|² / 2. -> int64.
    """
    best, first = np.float32(np.inf), np.int64(0)
    for k in range(books.shape[2]):
        total = halves[part, k]
        for s in range(books.shape[1]):
            value = min(max(values[row, at + s], np.float32(-FARTHEST)), np.float32(FARTHEST))
            total = strict_difference(total, value, books[part, s, k])
        if total < best:
            best, first = total, np.int64(k)
    return first


# A function of its own flags: LLVM may fuse or reorder nothing here, even where it is called from one that allows it.
@njit(cache=True, nogil=True, error_model="numpy")
def strict_difference(total, value, factor):
    """total - value * factor, each rounded to float32."""
    return np.float32(total - np.float32(value * factor))


@compiled
def plain_sums_of_tables(codes, row, starts, planes, out):
    """out[r] = for the 64 rows from `row`, the sum over c and j of table (c, j) at codes[row + r, starts[c] + j].

    codes (N, W) uint8; starts (C,) int64; planes (C, 16, 2, 256) uint8: a table's low bytes, then its high ones; out (64,) int32.
    A table of zeros stands where starts[c] + j is no part of its own: bytes may be read that lie behind a row.
    """
    flat, width = codes.reshape(codes.size), codes.shape[1]
    for r in range(64):
        total = np.int32(0)
        for c in range(starts.shape[0]):
            begin = (row + r) * width + starts[c]
            for j in range(16):
                code = flat[begin + j]
                total += np.int32(planes[c, j, 0, code]) + (np.int32(planes[c, j, 1, code]) << np.int32(8))
        out[r] = total


@compiled
def plain_insert_key(keys, size, stop, key):
    """A key into its place among the ascending keys[:size] (n,) int64; then keys[:stop + 1] are right, stop <= size.

    The loops in vectors read and write whole eights of keys, from the first to the one that holds `stop`.
    """
    at = stop
    while at > 0 and keys[at - 1] > key:
        keys[at] = keys[at - 1]
        at -= 1
    if at < stop or stop == size or keys[at] > key:
        keys[at] = key


# Writing LLVM IR ------------------------------------------------------------------------------------------------------

_I8, _I16, _I32, _I64 = (ir.IntType(bits) for bits in (8, 16, 32, 64))
_F16, _F32 = ir.HalfType(), ir.FloatType()


def _vector(kind: ir.Type, lanes: int) -> ir.VectorType:
    return ir.VectorType(kind, lanes)


def _address(context: Any, builder: Any, kind: Any, value: Any, row: Any = None, row_kind: Any = None) -> Any:
    """Of array[row], or of the array where there is no row: i8*."""
    array = context.make_array(kind)(context, builder, value)
    data = builder.bitcast(array.data, _I8.as_pointer())
    if row is None:
        return data
    stride = builder.extract_value(array.strides, 0)
    return builder.gep(data, [builder.mul(context.cast(builder, row, row_kind, types.intp), stride)])


def _load(builder: Any, address: Any, offset: Any, kind: ir.Type) -> Any:
    """What stands `offset` bytes on, however aligned."""
    return builder.load(builder.bitcast(builder.gep(address, [offset]), kind.as_pointer()), align=1)


def _call(builder: Any, name: str, result: ir.Type, *arguments: Any) -> Any:
    kind = ir.FunctionType(result, [argument.type for argument in arguments])
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), arguments)


def _pick(builder: Any, vector: Any, lanes: range) -> Any:
    mask = ir.Constant(_vector(_I32, len(lanes)), list(lanes))
    return builder.shuffle_vector(vector, ir.Constant(vector.type, ir.Undefined), mask)


def _add(builder: Any, left: Any, right: Any) -> Any:
    kind = left.type.element if isinstance(left.type, ir.VectorType) else left.type
    return builder.add(left, right) if isinstance(kind, ir.IntType) else builder.fadd(left, right)


def _sum(builder: Any, vector: Any) -> Any:
    """Of all lanes, by adding halves."""
    lanes = vector.type.count
    while lanes > 1:
        lanes //= 2
        vector = _add(builder, _pick(builder, vector, range(lanes)), _pick(builder, vector, range(lanes, 2 * lanes)))
    return builder.extract_element(vector, ir.Constant(_I32, 0))


def _loop(
    builder: Any, stop: Any, step: int, totals: list[Any], terms: Callable[[Any, list[Any]], list[Any]], start: Any
) -> tuple[list[Any], Any]:
    """totals = terms(at, totals) for at = start, start + step, … while at + step is not above stop.

    -> the totals, and where it ended.
    """
    before = builder.block
    head, body, after = (builder.append_basic_block(name) for name in ("head", "body", "after"))
    builder.branch(head)
    builder.position_at_end(head)
    at = builder.phi(_I64)
    running = [builder.phi(total.type) for total in totals]
    end = builder.add(at, ir.Constant(_I64, step))
    builder.cbranch(builder.icmp_signed("<=", end, stop), body, after)
    builder.position_at_end(body)
    done = terms(at, running)
    builder.branch(head)
    for phi, first, later in zip([at, *running], [start, *totals], [end, *done]):
        phi.add_incoming(first, before)
        phi.add_incoming(later, builder.block)
    builder.position_at_end(after)
    return running, at


def _accumulate(
    builder: Any, stop: Any, step: int, totals: list[Any], term: Callable[[Any, Any], Any], start: Any
) -> tuple[list[Any], Any]:
    """A loop with totals[j] = term(at + j * step, totals[j])."""

    def terms(at: Any, running: list[Any]) -> list[Any]:
        return [term(builder.add(at, ir.Constant(_I64, j * step)), total) for j, total in enumerate(running)]

    return _loop(builder, stop, len(totals) * step, totals, terms, start)


def _reduce(builder: Any, stop: Any, step: int, kind: ir.VectorType, term: Callable[..., Any], tail: Any = None) -> Any:
    """The sum of all terms over 0 … stop: four totals side by side, then one, then items (of `tail`: size, term) one by one."""
    zero = ir.Constant(kind, None)
    totals, at = _accumulate(builder, stop, step, [zero] * 4, term, ir.Constant(_I64, 0))
    left = _add(builder, totals[0], totals[1])
    right = _add(builder, totals[2], totals[3])
    (total,), at = _accumulate(builder, stop, step, [_add(builder, left, right)], term, at)
    result = _sum(builder, total)
    if tail is not None:
        (result,), at = _accumulate(builder, stop, tail[0], [result], tail[1], at)
    return result


def _over_row(result: Any, item: int, emit: Callable[..., Any], *, by_vector: bool = False) -> Callable[..., Any]:
    """An intrinsic (matrix, row, vector) -> result; emit(builder, row's address, vector's address, bytes in the row).

    by_vector: the length is the vector's, in items; the row may go on behind it.
    """

    def declare(typing_context: Any, matrix: Any, row: Any, vector: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            matrix, row, vector = arguments
            line = _address(context, builder, signature.args[0], matrix, row, signature.args[1])
            query = _address(context, builder, signature.args[2], vector)
            kind, array, axis = (signature.args[2], vector, 0) if by_vector else (signature.args[0], matrix, 1)
            length = builder.extract_value(context.make_array(kind)(context, builder, array).shape, axis)
            return emit(builder, line, query, builder.mul(length, ir.Constant(_I64, item)))

        return result(matrix, row, vector), generate

    made: Callable[..., Any] = intrinsic(declare)
    return made


# The loops ------------------------------------------------------------------------------------------------------------

_BYTES = {"avx512": 64, "avx2": 16}.get(LEVEL, 16)  # one-byte numbers multiplied at once
_SUMS = _vector(_I32, {"avx512": 16, "avx2": 8}.get(LEVEL, 4))
_FLOATS = {"avx512": 16, "avx2": 8}.get(LEVEL, 4)


def _add_products(builder: Any, total: Any, unsigned: Any, signed: Any) -> Any:
    """total (of type _SUMS) + products of _BYTES unsigned and signed bytes, neighbours to a lane."""
    if LEVEL == "avx512":
        if llvm.llvm_version_info[0] < 22:  # until then the instruction's intrinsic took its bytes as words
            unsigned, signed = (builder.bitcast(part, _vector(_I32, 16)) for part in (unsigned, signed))
        return _call(builder, "llvm.x86.avx512.vpdpbusd.512", _SUMS, total, unsigned, signed)
    left, right = builder.zext(unsigned, _vector(_I16, _BYTES)), builder.sext(signed, _vector(_I16, _BYTES))
    if LEVEL == "avx2":
        return builder.add(total, _call(builder, "llvm.x86.avx2.pmadd.wd", _SUMS, left, right))
    wide = _vector(_I32, _BYTES)
    products = builder.mul(builder.sext(left, wide), builder.sext(right, wide))
    for first in range(0, _BYTES, _SUMS.count):
        total = builder.add(total, _pick(builder, products, range(first, first + _SUMS.count)))
    return total


def _emit_dot_codes(builder: Any, line: Any, query: Any, length: Any) -> Any:
    kind = _vector(_I8, _BYTES)

    def term(at: Any, total: Any) -> Any:
        return _add_products(builder, total, _load(builder, line, at, kind), _load(builder, query, at, kind))

    return _reduce(builder, length, _BYTES, _SUMS, term)


def _emit_dot_bytes(builder: Any, line: Any, query: Any, length: Any) -> Any:
    kind = _vector(_I8, _BYTES)

    def term(at: Any, total: Any) -> Any:
        return _add_products(builder, total, _load(builder, line, at, kind), _load(builder, query, at, kind))

    def one(at: Any, total: Any) -> Any:
        left, right = _load(builder, line, at, _I8), _load(builder, query, at, _I8)
        return builder.add(total, builder.mul(builder.zext(left, _I32), builder.sext(right, _I32)))

    return _reduce(builder, length, _BYTES, _SUMS, term, tail=(1, one))


def _emit_dot_pairs(builder: Any, line: Any, query: Any, length: Any) -> Any:
    kind = _vector(_I8, _BYTES)
    half = builder.sdiv(length, ir.Constant(_I64, 2))

    def term(at: Any, total: Any) -> Any:
        pairs, beyond = _load(builder, line, at, kind), builder.add(at, half)
        low = builder.and_(pairs, ir.Constant(kind, [15] * _BYTES))
        high = builder.lshr(pairs, ir.Constant(kind, [4] * _BYTES))
        total = _add_products(builder, total, low, _load(builder, query, at, kind))
        return _add_products(builder, total, high, _load(builder, query, beyond, kind))

    def one(at: Any, total: Any) -> Any:
        pair, beyond = builder.zext(_load(builder, line, at, _I8), _I32), builder.add(at, half)
        for part, place in (
            (builder.and_(pair, ir.Constant(_I32, 15)), at),
            (builder.lshr(pair, ir.Constant(_I32, 4)), beyond),
        ):
            product = builder.mul(part, builder.sext(_load(builder, query, place, _I8), _I32))
            total = builder.add(total, product)
        return total

    return _reduce(builder, half, _BYTES, _SUMS, term, tail=(1, one))


def _nibble_totals(builder: Any, lines: list[Any], query: Any, length: Any) -> list[Any]:
    """For each of the lines' addresses the products with the query, summed but for the lanes."""
    kind = _vector(_I8, _BYTES)
    low, four = ir.Constant(kind, [15] * _BYTES), ir.Constant(kind, [4] * _BYTES)

    def terms(at: Any, totals: list[Any]) -> list[Any]:
        pairs = [_load(builder, line, at, kind) for line in lines]
        here, beyond = _load(builder, query, at, kind), _load(builder, query, builder.add(at, length), kind)
        totals = [_add_products(builder, t, builder.and_(p, low), here) for t, p in zip(totals, pairs)]
        return [_add_products(builder, t, builder.lshr(p, four), beyond) for t, p in zip(totals, pairs)]

    zeros = [ir.Constant(_SUMS, None)] * len(lines)
    return _loop(builder, length, _BYTES, zeros, terms, ir.Constant(_I64, 0))[0]


def _emit_dot_nibbles(builder: Any, line: Any, query: Any, length: Any) -> Any:
    return _sum(builder, _nibble_totals(builder, [line], query, length)[0])


def _sums(builder: Any, a: Any, b: Any, c: Any, d: Any) -> Any:
    """The sums of four vectors as one of four lanes: a third of the work of four sums."""
    lanes = range(a.type.count)

    def mixed(left: Any, right: Any, width: int) -> Any:
        """Of each four lanes the first and the second half of both, by turns of so many lanes, added."""
        halves = [[lane for lane in lanes if lane // 2 % 2 == half] for half in (0, 1)]
        pieces = [
            [
                source * len(lanes) + lane
                for i in range(0, len(half), width)
                for source in (0, 1)
                for lane in half[i : i + width]
            ]
            for half in halves
        ]
        first, second = (
            builder.shuffle_vector(left, right, ir.Constant(_vector(_I32, len(lanes)), piece)) for piece in pieces
        )
        return builder.add(first, second)

    total = mixed(mixed(a, b, 1), mixed(c, d, 1), 2)
    while total.type.count > 4:
        half = total.type.count // 2
        total = builder.add(_pick(builder, total, range(half)), _pick(builder, total, range(half, 2 * half)))
    return total


def _emit_floats(item: int, to_float: Callable[..., Any], is_dot: bool) -> Callable[..., Any]:
    def emit(builder: Any, line: Any, query: Any, length: Any) -> Any:
        def term_of(lanes: int) -> Callable[..., Any]:
            def term(at: Any, total: Any) -> Any:
                here = to_float(builder, line, at, lanes)
                there = builder.mul(builder.sdiv(at, ir.Constant(_I64, item)), ir.Constant(_I64, 4))
                other = _load(builder, query, there, _vector(_F32, lanes) if lanes > 1 else _F32)
                if not is_dot:
                    here = other = builder.fsub(here, other)
                kind = f".v{lanes}f32" if lanes > 1 else ".f32"
                return _call(builder, "llvm.fma" + kind, total.type, here, other, total)

            return term

        return _reduce(
            builder, length, _FLOATS * item, _vector(_F32, _FLOATS), term_of(_FLOATS), tail=(item, term_of(1))
        )

    return emit


def _float(builder: Any, line: Any, at: Any, lanes: int) -> Any:
    return _load(builder, line, at, _vector(_F32, lanes) if lanes > 1 else _F32)


def _half(builder: Any, line: Any, at: Any, lanes: int) -> Any:
    if lanes == 1:
        return builder.fpext(_load(builder, line, at, _F16), _F32)
    return builder.fpext(_load(builder, line, at, _vector(_F16, lanes)), _vector(_F32, lanes))


def _kind(item: ir.Type, lanes: int) -> ir.Type:
    return _vector(item, lanes) if lanes > 1 else item


@intrinsic
def _half_at(typing_context, matrix, row, at):
    def generate(context, builder, signature, arguments):
        line = _address(context, builder, signature.args[0], arguments[0], arguments[1], signature.args[1])
        return _half(builder, line, context.cast(builder, arguments[2], signature.args[2], types.int64), 1)

    return types.float32(matrix, row, at), generate


def _everywhere(kind: ir.Type, value: int) -> Any:
    return ir.Constant(kind, [value] * kind.count if isinstance(kind, ir.VectorType) else value)


def _e4m3(builder: Any, line: Any, at: Any, lanes: int) -> Any:
    """As `e4m3_to_float`: widened with its sign, moved up, and the second copy of the sign put out."""
    wide = builder.sext(_load(builder, line, at, _kind(_I8, lanes)), _kind(_I16, lanes))
    moved = builder.shl(wide, _everywhere(wide.type, 7))
    bits = builder.and_(moved, _everywhere(wide.type, 0xBFFF))
    return builder.fpext(builder.bitcast(bits, _kind(_F16, lanes)), _kind(_F32, lanes))


def _e5m2(builder: Any, line: Any, at: Any, lanes: int) -> Any:
    wide = builder.zext(_load(builder, line, at, _kind(_I8, lanes)), _kind(_I16, lanes))
    bits = builder.shl(wide, _everywhere(wide.type, 8))
    return builder.fpext(builder.bitcast(bits, _kind(_F16, lanes)), _kind(_F32, lanes))


def _bfloat(builder: Any, line: Any, at: Any, lanes: int) -> Any:
    wide = builder.zext(_load(builder, line, at, _kind(_I16, lanes)), _kind(_I32, lanes))
    return builder.bitcast(builder.shl(wide, _everywhere(wide.type, 16)), _kind(_F32, lanes))


@intrinsic
def _dot_planes(typing_context, matrix, row, planes, bits):
    """Each word of the row meets the eight bits of its 64 numbers at once: a lane for each."""

    def generate(context, builder, signature, arguments):
        kinds, words = signature.args, _vector(_I64, 8)
        line = _address(context, builder, kinds[0], arguments[0], arguments[1], kinds[1])
        query = _address(context, builder, kinds[2], arguments[2])
        count = builder.extract_value(context.make_array(kinds[2])(context, builder, arguments[2]).shape, 0)
        width = builder.mul(count, ir.Constant(_I64, 8))
        bits = context.cast(builder, arguments[3], kinds[3], types.int64)
        shifts = ir.Constant(words, list(range(8)))
        signs = ir.Constant(words, [0] * 7 + [-1])

        def plane(bit: Any, before: list[Any]) -> list[Any]:
            start = builder.gep(line, [builder.mul(bit, width)])

            def term(at: Any, total: Any) -> Any:
                one = builder.insert_element(ir.Constant(words, ir.Undefined), _load(builder, start, at, _I64), _ZERO)
                word = builder.shuffle_vector(one, ir.Constant(words, ir.Undefined), _EIGHT_TIMES)
                place = builder.mul(at, ir.Constant(_I64, 8))
                common = builder.and_(word, _load(builder, query, place, words))
                return builder.add(total, _call(builder, "llvm.ctpop.v8i64", words, common))

            (total,), _ = _accumulate(builder, width, 8, [ir.Constant(words, None)], term, ir.Constant(_I64, 0))
            return [builder.add(before[0], builder.shl(total, _everywhere_the(builder, bit, 8)))]

        (counts,), _ = _loop(builder, bits, 1, [ir.Constant(words, None)], plane, ir.Constant(_I64, 0))
        # The eighth lane counts negative: all bits turned, and one added.
        return _sum(builder, builder.sub(builder.xor(builder.shl(counts, shifts), signs), signs))

    return types.int64(matrix, row, planes, bits), generate


_ZERO, _EIGHT_TIMES = ir.Constant(_I32, 0), ir.Constant(_vector(_I32, 8), [0] * 8)


def _emit_hamming(builder: Any, line: Any, query: Any, length: Any) -> Any:
    words = _vector(_I64, LINE // 8)

    def term(at: Any, total: Any) -> Any:
        different = builder.xor(_load(builder, line, at, words), _load(builder, query, at, words))
        return builder.add(total, _call(builder, "llvm.ctpop.v8i64", words, different))

    def byte(at: Any, total: Any) -> Any:
        different = builder.xor(_load(builder, line, at, _I8), _load(builder, query, at, _I8))
        return builder.add(total, builder.zext(_call(builder, "llvm.ctpop.i8", _I8, different), _I64))

    return builder.trunc(_reduce(builder, length, LINE, words, term, tail=(1, byte)), _I32)


@intrinsic
def _insert_key(typing_context, keys, size, stop, key):
    """One pass without a branch that depends on the key: each place gets what is in the middle of its own old key, the one
    before it, and the new one.
    """

    def generate(context, builder, signature, arguments):
        kind = _vector(_I64, 8)
        data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        size, stop, key = (
            context.cast(builder, value, given, types.int64) for value, given in zip(arguments[1:], signature.args[1:])
        )

        def everywhere(value: Any) -> Any:
            one = builder.insert_element(ir.Constant(kind, ir.Undefined), value, ir.Constant(_I32, 0))
            return builder.shuffle_vector(one, ir.Constant(kind, ir.Undefined), ir.Constant(_vector(_I32, 8), [0] * 8))

        lanes, beyond = ir.Constant(kind, list(range(8))), ir.Constant(kind, [2**63 - 1] * 8)
        sizes, new = everywhere(size), everywhere(key)

        def terms(at: Any, before: list[Any]) -> list[Any]:
            place = builder.bitcast(builder.gep(data, [at]), kind.as_pointer())
            there = builder.icmp_signed("<", builder.add(everywhere(at), lanes), sizes)
            old = builder.select(there, builder.load(place, align=8), beyond)
            left = builder.shuffle_vector(before[0], old, ir.Constant(_vector(_I32, 8), list(range(7, 15))))
            lesser = builder.select(builder.icmp_signed("<", old, new), old, new)
            builder.store(builder.select(builder.icmp_signed(">", left, lesser), left, lesser), place, align=8)
            return [old]

        first = ir.Constant(kind, [-(2**63)] * 8)
        _loop(builder, builder.add(stop, ir.Constant(_I64, 8)), 8, [first], terms, ir.Constant(_I64, 0))
        return context.get_dummy_value()

    return types.void(keys, size, stop, key), generate


@intrinsic
def _nearest_centroid(typing_context, values, row, at, books, part, halves):
    """So many centroids at a time as there are registers for; their sums never leave these."""

    def generate(context, builder, signature, arguments):
        kinds, four = signature.args, ir.Constant(_I64, 4)
        vector = _vector(_F32, _FLOATS)
        line = _address(context, builder, kinds[0], arguments[0], arguments[1], kinds[1])
        begin = builder.mul(context.cast(builder, arguments[2], kinds[2], types.int64), four)
        line = builder.gep(line, [begin])
        book = _address(context, builder, kinds[3], arguments[3], arguments[4], kinds[4])
        half = _address(context, builder, kinds[5], arguments[5], arguments[4], kinds[4])
        shape = context.make_array(kinds[3])(context, builder, arguments[3]).shape
        size, count = (builder.extract_value(shape, axis) for axis in (1, 2))
        stride, width = builder.mul(count, four), 4 * _FLOATS
        held = 16 if LEVEL == "avx512" else 8

        def chunk(at: Any, before: list[Any]) -> list[Any]:
            """at: the first centroid's byte. before: the least sum so far, and whose it is."""
            places = [builder.add(at, ir.Constant(_I64, j * width)) for j in range(held)]

            def terms(offset: Any, sums: list[Any]) -> list[Any]:
                one = _load(builder, line, offset, _F32)
                for bound, beyond in ((-FARTHEST, "<"), (FARTHEST, ">")):
                    most = ir.Constant(_F32, float(np.float32(bound)))
                    one = builder.select(builder.fcmp_ordered(beyond, one, most), most, one)
                value = _everywhere_the(builder, one, _FLOATS)
                here = builder.gep(book, [builder.mul(builder.sdiv(offset, four), stride)])
                return [
                    builder.fsub(total, builder.fmul(value, _load(builder, here, place, vector)))
                    for total, place in zip(sums, places)
                ]

            first = [_load(builder, half, place, vector) for place in places]
            sums, _ = _loop(builder, builder.mul(size, four), 4, first, terms, ir.Constant(_I64, 0))
            least = _folded(builder, sums, lambda a, b: _lesser(builder, a, b))
            best = _across(builder, least, lambda a, b: _lesser(builder, a, b))
            everywhere, lanes = _everywhere_the(builder, best, _FLOATS), _vector(_I32, _FLOATS)
            # From the last to the first, so that the first place of a lane is the one that stays.
            found: Any = ir.Constant(lanes, [2**31 - 1] * _FLOATS)
            for j in reversed(range(held)):
                own = ir.Constant(lanes, [j * _FLOATS + lane for lane in range(_FLOATS)])
                found = builder.select(builder.fcmp_ordered("==", sums[j], everywhere), own, found)
            place = _across(builder, found, lambda a, b: builder.select(builder.icmp_signed("<", a, b), a, b))
            nearer = builder.fcmp_ordered("<", best, before[0])
            named = builder.add(builder.sdiv(at, four), builder.sext(place, _I64))
            return [builder.select(nearer, best, before[0]), builder.select(nearer, named, before[1])]

        start = [ir.Constant(_F32, float("inf")), ir.Constant(_I64, 0)]
        (_, first), _ = _loop(builder, stride, held * width, start, chunk, ir.Constant(_I64, 0))
        return first

    return types.int64(values, row, at, books, part, halves), generate


def _lesser(builder: Any, a: Any, b: Any) -> Any:
    return builder.select(builder.fcmp_ordered("<", a, b), a, b)


def _folded(builder: Any, parts: list[Any], join: Callable[[Any, Any], Any]) -> Any:
    """All parts as one, joined by pairs."""
    while len(parts) > 1:
        parts = [join(a, b) for a, b in zip(parts[::2], parts[1::2])] + parts[len(parts) & ~1 :]
    return parts[0]


def _across(builder: Any, vector: Any, join: Callable[[Any, Any], Any]) -> Any:
    """All lanes as one, joined by halves."""
    lanes = vector.type.count
    while lanes > 1:
        lanes //= 2
        vector = join(_pick(builder, vector, range(lanes)), _pick(builder, vector, range(lanes, 2 * lanes)))
    return builder.extract_element(vector, ir.Constant(_I32, 0))


def _everywhere_the(builder: Any, value: Any, lanes: int) -> Any:
    """A vector with this value in every lane."""
    empty = ir.Constant(_vector(value.type, lanes), ir.Undefined)
    one = builder.insert_element(empty, value, ir.Constant(_I32, 0))
    return builder.shuffle_vector(one, empty, ir.Constant(_vector(_I32, lanes), [0] * lanes))


@intrinsic
def _sums_of_tables(typing_context, codes, row, starts, planes, out):
    """Sixteen columns at a time: 64 rows are turned into columns within registers, and each byte of a column is looked up in
    its table by VPERMI2B, which knows 128 bytes: twice, and the byte's highest bit says which of both holds.
    """

    def generate(context, builder, signature, arguments):
        kinds, column = signature.args, _vector(_I8, 64)
        lines = _address(context, builder, kinds[0], arguments[0], arguments[1], kinds[1])
        width = builder.extract_value(context.make_array(kinds[0])(context, builder, arguments[0]).strides, 0)
        begins = context.make_array(kinds[2])(context, builder, arguments[2])
        tables = _address(context, builder, kinds[3], arguments[3])
        rows = [builder.mul(width, ir.Constant(_I64, r)) for r in range(64)]

        def looked_up(column_of_codes: Any, beyond: Any, table: Any) -> Any:
            quarters = [_load(builder, table, ir.Constant(_I64, 64 * q), column) for q in range(4)]
            near, far = (
                _call(builder, "llvm.x86.avx512.vpermi2var.qi.512", column, a, column_of_codes, b)
                for a, b in (quarters[:2], quarters[2:])
            )
            return builder.select(beyond, far, near)

        def chunk(c: Any, totals: list[Any]) -> list[Any]:
            begin = builder.gep(lines, [builder.load(builder.gep(begins.data, [c]))])
            turned = _turned(builder, [_load(builder, begin, row, _vector(_I8, 16)) for row in rows])
            here = builder.gep(tables, [builder.mul(c, ir.Constant(_I64, 16 * 512))])
            words = [ir.Constant(_vector(_I16, 32), None)] * 4  # even rows' low and high bytes, odd rows'
            for j, codes_of in enumerate(turned):
                beyond = builder.icmp_signed("<", codes_of, ir.Constant(column, None))
                for plane in range(2):
                    table = builder.gep(here, [ir.Constant(_I64, 512 * j + 256 * plane)])
                    pairs = builder.bitcast(looked_up(codes_of, beyond, table), _vector(_I16, 32))
                    even = builder.and_(pairs, _everywhere(pairs.type, 255))
                    odd = builder.lshr(pairs, _everywhere(pairs.type, 8))
                    words[plane] = builder.add(words[plane], even)
                    words[2 + plane] = builder.add(words[2 + plane], odd)
            wide = [builder.zext(word, _vector(_I32, 32)) for word in words]
            eight = _everywhere(wide[0].type, 8)
            return [
                builder.add(total, builder.add(low, builder.shl(high, eight)))
                for total, low, high in zip(totals, wide[::2], wide[1::2])
            ]

        count = builder.extract_value(begins.shape, 0)
        zeros = [ir.Constant(_vector(_I32, 32), None)] * 2
        (even, odd), _ = _loop(builder, count, 1, zeros, chunk, ir.Constant(_I64, 0))
        order = [lane // 2 + 32 * (lane % 2) for lane in range(64)]
        sums = builder.shuffle_vector(even, odd, ir.Constant(_vector(_I32, 64), order))
        target = _address(context, builder, kinds[4], arguments[4])
        builder.store(sums, builder.bitcast(target, sums.type.as_pointer()), align=4)
        return context.get_dummy_value()

    return types.void(codes, row, starts, planes, out), generate


def _turned(builder: Any, lines: list[Any]) -> list[Any]:
    """64 rows of 16 bytes as 16 columns of 64: rows 0, 16, 32, 48 side by side, and so on, turned 16 by 16 in each quarter."""

    def joined(a: Any, b: Any) -> Any:
        count = 2 * a.type.count
        return builder.shuffle_vector(a, b, ir.Constant(_vector(_I32, count), list(range(count))))

    blocks = [_folded(builder, [lines[16 * q + i] for q in range(4)], joined) for i in range(16)]
    # Four times blocks i and i + 8 are interleaved within each quarter, as cards are shuffled: a byte's place in its block and
    # the number of the block, four bits each, have then changed places.
    halves = [[16 * q + half + pair // 2 + pair % 2 * 64 for q in range(4) for pair in range(16)] for half in (0, 8)]
    masks = [ir.Constant(_vector(_I32, 64), half) for half in halves]
    for _ in range(4):
        blocks = [builder.shuffle_vector(blocks[i], blocks[i + 8], mask) for i in range(8) for mask in masks]
    return blocks


def _store_four(context: Any, builder: Any, kind: Any, array: Any, at: Any, sums: Any) -> None:
    """out[at:at + 4] = sums, out being int64."""
    target = builder.gep(context.make_array(kind)(context, builder, array).data, [at])
    wide = builder.sext(sums, _vector(_I64, 4))
    builder.store(wide, builder.bitcast(target, wide.type.as_pointer()), align=8)


@intrinsic
def _dot_four_codes(typing_context, codes, first, query, out):
    def generate(context, builder, signature, arguments):
        kinds = signature.args
        at = context.cast(builder, arguments[1], kinds[1], types.intp)
        rows = [builder.add(at, ir.Constant(_I64, j)) for j in range(4)]
        lines = [_address(context, builder, kinds[0], arguments[0], row, types.intp) for row in rows]
        length = builder.extract_value(context.make_array(kinds[0])(context, builder, arguments[0]).shape, 1)
        vector, kind = _address(context, builder, kinds[2], arguments[2]), _vector(_I8, _BYTES)

        def terms(at: Any, totals: list[Any]) -> list[Any]:
            there = _load(builder, vector, at, kind)
            return [_add_products(builder, t, _load(builder, line, at, kind), there) for t, line in zip(totals, lines)]

        zeros = [ir.Constant(_SUMS, None)] * 4
        totals, _ = _loop(builder, length, _BYTES, zeros, terms, ir.Constant(_I64, 0))
        _store_four(context, builder, kinds[3], arguments[3], at, _sums(builder, *totals))
        return context.get_dummy_value()

    return types.void(codes, first, query, out), generate


@intrinsic
def _dot_four_nibbles(typing_context, lines, rows, first, query, out):
    def generate(context, builder, signature, arguments):
        kinds = signature.args
        at = context.cast(builder, arguments[2], kinds[2], types.intp)
        chosen = builder.gep(context.make_array(kinds[1])(context, builder, arguments[1]).data, [at])
        index = [builder.load(builder.gep(chosen, [ir.Constant(_I64, j)])) for j in range(4)]
        addresses = [_address(context, builder, kinds[0], arguments[0], row, kinds[1].dtype) for row in index]
        length = builder.extract_value(context.make_array(kinds[0])(context, builder, arguments[0]).shape, 1)
        totals = _nibble_totals(builder, addresses, _address(context, builder, kinds[3], arguments[3]), length)
        _store_four(context, builder, kinds[4], arguments[4], at, _sums(builder, *totals))
        return context.get_dummy_value()

    return types.void(lines, rows, first, query, out), generate


dot_codes, dot_nibbles, hamming = plain_dot_codes, plain_dot_nibbles, plain_hamming
dot_four_codes, dot_four_nibbles, insert_key = plain_dot_four_codes, plain_dot_four_nibbles, plain_insert_key
dot_floats, l2_floats, dot_halves, l2_halves = plain_dot_floats, plain_l2_floats, plain_dot_halves, plain_l2_halves
dot_bytes, dot_pairs, dot_bfloats, dot_planes = plain_dot_bytes, plain_dot_pairs, plain_dot_bfloats, plain_dot_planes
dot_e4m3, dot_e5m2, half_at = plain_dot_e4m3, plain_dot_e5m2, plain_half_at
nearest_centroid, sums_of_tables = plain_nearest_centroid, plain_sums_of_tables
# Whether bytes can be looked up 64 at a time (AVX-512 VBMI); else tables are best read one number at a time.
HAS_TABLES = LEVEL == "avx512" and bool(llvm.get_host_cpu_features().get("avx512vbmi", False))
if HAS_TABLES:
    sums_of_tables = _sums_of_tables
if LEVEL != "plain":
    dot_bytes = _over_row(types.int32, 1, _emit_dot_bytes, by_vector=True)
    dot_pairs = _over_row(types.int32, 1, _emit_dot_pairs, by_vector=True)
    dot_bfloats = _over_row(types.float32, 2, _emit_floats(2, _bfloat, True))
    dot_planes, nearest_centroid = _dot_planes, _nearest_centroid
    dot_four_codes, dot_four_nibbles, insert_key = _dot_four_codes, _dot_four_nibbles, _insert_key
    dot_codes = _over_row(types.int32, 1, _emit_dot_codes)
    dot_nibbles = _over_row(types.int32, 1, _emit_dot_nibbles)
    hamming = _over_row(types.int32, 1, _emit_hamming)
    dot_floats = _over_row(types.float32, 4, _emit_floats(4, _float, True))
    l2_floats = _over_row(types.float32, 4, _emit_floats(4, _float, False))
if LEVEL in ("avx512", "avx2"):  # elsewhere LLVM may call a conversion routine that nobody links
    dot_halves = _over_row(types.float32, 2, _emit_floats(2, _half, True))
    l2_halves = _over_row(types.float32, 2, _emit_floats(2, _half, False))
    half_at = _half_at
    dot_e4m3 = _over_row(types.float32, 1, _emit_floats(1, _e4m3, True), by_vector=True)
    dot_e5m2 = _over_row(types.float32, 1, _emit_floats(1, _e5m2, True), by_vector=True)


# Memory ---------------------------------------------------------------------------------------------------------------


@intrinsic
def prefetch(typing_context, array, row, offset):
    """Ask for the cache line `offset` bytes into array[row]; a hint that changes no value.

    Into the second-level cache: far more lines may be on their way there than to the first, which halved the time of a
    random line where it was measured (9.4 ns to 4.5 with 32 or more asked for at once).
    """

    def generate(context, builder, signature, arguments):
        line = _address(context, builder, signature.args[0], arguments[0], arguments[1], signature.args[1])
        offset = context.cast(builder, arguments[2], signature.args[2], types.intp)
        to_read, second_level, data = (ir.Constant(_I32, value) for value in (0, 2, 1))
        _call(builder, "llvm.prefetch.p0", ir.VoidType(), builder.gep(line, [offset]), to_read, second_level, data)
        return context.get_dummy_value()

    return types.void(array, row, offset), generate


@intrinsic
def pointer_to(typing_context, address, dtype):
    """An address (int64) as a pointer to numbers of a type, np.float32 say; nothing keeps alive what is there."""

    def generate(context, builder, signature, arguments):
        return builder.inttoptr(arguments[0], context.get_value_type(signature.return_type))

    return types.CPointer(dtype.dtype)(address, dtype), generate


@intrinsic
def shift_right(typing_context, array, start, stop):
    """array[start + 1:stop + 1] = array[start:stop], by the C library's memmove: a loop of ours takes three times as long."""

    def generate(context, builder, signature, arguments):
        array_type = signature.args[0]
        data = context.make_array(array_type)(context, builder, arguments[0]).data
        first, last = (
            context.cast(builder, value, kind, types.intp) for value, kind in zip(arguments[1:], signature.args[1:])
        )
        source, target = builder.gep(data, [first]), builder.gep(data, [builder.add(first, ir.Constant(_I64, 1))])
        cgutils.raw_memmove(builder, target, source, builder.sub(last, first), array_type.dtype.bitwidth // 8)
        return context.get_dummy_value()

    return types.void(array, start, stop), generate
