"""Numba kernels of MaxSim: for each document, the sum over query tokens of the best similarity to any of its tokens.

The arithmetic is that of a matrix product, so it is done as one: a tile of document tokens against a block of query tokens, all
of whose dot products stay in registers while the dimensions go by; then only their maximum is kept, and of the product nothing is
ever written. Query tokens lie side by side in a vector register (that is why a query is transposed first), document tokens are
broadcast; so the maximum needs no shuffling, and neither side is copied.

A document's last tile is pushed back so that it ends with the document: some tokens are then looked at twice, which changes no
maximum, and there is no code for odd ends but for documents shorter than a tile.

The level "plain" of `simd` has the tile in ordinary loops; tests compare all of them with float64.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from vecdb.index import simd
from vecdb.index.simd import LEVEL, compiled

_I8, _I32, _I64, _F32 = simd._I8, simd._I32, simd._I64, simd._F32
_LANES: int = simd._FLOATS

# (vectors of query tokens, document tokens) in a tile: so many sums, and what feeds them, fill the registers without spilling.
_VECTORS, TILE = {"avx512": (2, 12), "avx2": (2, 6)}.get(LEVEL, (2, 4))
BLOCK = _VECTORS * _LANES  # query tokens that are compared at once


def _tile(rows: int, is_codes: bool) -> Any:
    """The intrinsic (tokens, scales, first, queries, starts, block, best): best[block] = the maximum of it and the products of
    the `rows` document tokens from `first` with each query token of the block.

    float32: tokens (T, D), queries (B, D, BLOCK). Codes: tokens (T, W) uint8, queries (B, W / 4, BLOCK, 4) int8; sums begin with
    starts (B, BLOCK) int32; scales (T,) float32: sums are multiplied with it. best (B, BLOCK) float32.
    """

    def declare(typing_context, tokens, scales, first, queries, starts, block, best):
        def generate(context, builder, signature, arguments):
            kinds = signature.args

            def at(position: int, row: Any) -> Any:
                return simd._address(context, builder, kinds[position], arguments[position], row, types.intp)

            start, number = (context.cast(builder, arguments[p], kinds[p], types.intp) for p in (2, 5))
            lines = [at(0, builder.add(start, ir.Constant(_I64, row))) for row in range(rows)]
            width = builder.extract_value(context.make_array(kinds[0])(context, builder, arguments[0]).shape, 1)
            query, kept = at(3, number), at(6, number)
            floats, whole = ir.VectorType(_F32, _LANES), ir.VectorType(_I32, _LANES)
            offsets = [ir.Constant(_I64, vector * _LANES * 4) for vector in range(_VECTORS)]
            if is_codes:
                begun = at(4, number)
                initial = [simd._load(builder, begun, offset, whole) for offset in offsets] * rows
            else:
                initial = [ir.Constant(floats, None)] * (rows * _VECTORS)

            def terms(place: Any, sums: list[Any]) -> list[Any]:
                # A step is one float, or four codes, of each token: four bytes either way on the document's side of floats.
                here = builder.mul(place, ir.Constant(_I64, BLOCK if is_codes else BLOCK * 4))
                there = builder.gep(query, [here])
                others = [simd._load(builder, there, offset, whole if is_codes else floats) for offset in offsets]
                byte = place if is_codes else builder.mul(place, ir.Constant(_I64, 4))
                done = []
                for row in range(rows):
                    one = simd._load(builder, lines[row], byte, _I32 if is_codes else _F32)
                    same = _everywhere(builder, one)
                    for vector in range(_VECTORS):
                        total = sums[row * _VECTORS + vector]
                        done.append(_added(builder, total, same, others[vector], is_codes))
                return done

            step = 4 if is_codes else 1
            sums, _ = simd._loop(builder, width, step, initial, terms, ir.Constant(_I64, 0))
            largest = [simd._load(builder, kept, offset, floats) for offset in offsets]
            for row in range(rows):
                scale = None
                if is_codes:
                    place = builder.mul(builder.add(start, ir.Constant(_I64, row)), ir.Constant(_I64, 4))
                    base = simd._address(context, builder, kinds[1], arguments[1])
                    scale = _everywhere(builder, simd._load(builder, base, place, _F32))
                for vector in range(_VECTORS):
                    value = sums[row * _VECTORS + vector]
                    if scale is not None:
                        value = builder.fmul(builder.sitofp(value, floats), scale)
                    larger = builder.fcmp_ordered(">", value, largest[vector])
                    largest[vector] = builder.select(larger, value, largest[vector])
            for offset, value in zip(offsets, largest):
                target = builder.bitcast(builder.gep(kept, [offset]), floats.as_pointer())
                builder.store(value, target, align=4)
            return context.get_dummy_value()

        return types.void(tokens, scales, first, queries, starts, block, best), generate

    return intrinsic(declare)


def _everywhere(builder: Any, value: Any) -> Any:
    kind = ir.VectorType(value.type, _LANES)
    one = builder.insert_element(ir.Constant(kind, ir.Undefined), value, ir.Constant(_I32, 0))
    mask = ir.Constant(ir.VectorType(_I32, _LANES), [0] * _LANES)
    return builder.shuffle_vector(one, ir.Constant(kind, ir.Undefined), mask)


def _added(builder: Any, total: Any, document: Any, query: Any, is_codes: bool) -> Any:
    if not is_codes:
        # Allowed to become one instruction where there is one; llvm.fma would call a routine where there is none.
        product = builder.fmul(document, query, flags=("contract",))
        return builder.fadd(total, product, flags=("contract",))
    bytes_of = ir.VectorType(_I8, 4 * _LANES)
    return simd._add_products(builder, total, builder.bitcast(document, bytes_of), builder.bitcast(query, bytes_of))


@compiled
def _plain_float_tile(tokens, first, rows, queries, block, best):
    for row in range(first, first + rows):
        for lane in range(queries.shape[2]):
            total = np.float32(0.0)
            for d in range(tokens.shape[1]):
                total += tokens[row, d] * queries[block, d, lane]
            best[block, lane] = max(best[block, lane], total)


if LEVEL == "plain":

    @compiled
    def float_tile(tokens, scales, first, queries, starts, block, best):
        _plain_float_tile(tokens, first, TILE, queries, block, best)

    @compiled
    def float_token(tokens, scales, first, queries, starts, block, best):
        _plain_float_tile(tokens, first, 1, queries, block, best)

else:
    float_tile, float_token = _tile(TILE, False), _tile(1, False)

# Elsewhere products of bytes take more instructions than they save, so codes become floats: `maxsim_wide_codes`.
MULTIPLIES_BYTES: bool = LEVEL == "avx512"
if MULTIPLIES_BYTES:
    code_tile, code_token = _tile(TILE, True), _tile(1, True)


@compiled
def _total(best, query_scales):
    """The sum over query tokens; padding has the scale 0 and would make inf * 0, so it is left out by its scale."""
    total = np.float64(0.0)
    for block in range(best.shape[0]):
        for lane in range(best.shape[1]):
            if query_scales[block, lane] > 0.0:
                total += best[block, lane] * query_scales[block, lane]
    return total


@compiled
def maxsim_floats(tokens, ends, queries, query_scales, start, stop, best, out):
    """out[i] = MaxSim of document i, start <= i < stop; -inf for one without tokens.

    tokens (T, D) float32, ends (n + 1,) int64: document i has the tokens ends[i] … ends[i + 1]. queries (B, D, BLOCK) float32.
    query_scales (B, BLOCK) float32: 1, and 0 for padding. best (B, BLOCK) float32 is scratch; out (n,) float64.
    """
    unused = query_scales[0]
    for i in range(start, stop):
        first, last = ends[i], ends[i + 1]
        best[:] = -np.inf
        if last - first < TILE:
            for token in range(first, last):
                for block in range(queries.shape[0]):
                    float_token(tokens, unused, token, queries, query_scales, block, best)
        else:
            token = first
            while token < last:
                place = min(token, last - TILE)
                for block in range(queries.shape[0]):
                    float_tile(tokens, unused, place, queries, query_scales, block, best)
                token += TILE
        out[i] = _total(best, query_scales) if last > first else -np.inf


@compiled
def maxsim_halves(tokens, ends, queries, query_scales, start, stop, best, wide, out):
    """As maxsim_floats. tokens (T, D) float16 as uint16; wide (TILE, D) float32 is scratch."""
    for i in range(start, stop):
        first, last = ends[i], ends[i + 1]
        best[:] = -np.inf
        token = first
        while token < last:
            place = max(first, min(token, last - TILE))
            rows = min(TILE, last - place)
            for row in range(rows):
                for d in range(tokens.shape[1]):
                    wide[row, d] = simd.half_to_float(tokens[place + row, d])
            _compare_wide(wide, rows, queries, query_scales, best)
            token += TILE
        out[i] = _total(best, query_scales) if last > first else -np.inf


@compiled
def maxsim_wide_codes(tokens, scales, ends, queries, query_scales, start, stop, best, wide, out):
    """As maxsim_halves. tokens (T, D) uint8, scales (T,) float32: a token is (code - 128) * scale."""
    for i in range(start, stop):
        first, last = ends[i], ends[i + 1]
        best[:] = -np.inf
        token = first
        while token < last:
            place = max(first, min(token, last - TILE))
            rows = min(TILE, last - place)
            for row in range(rows):
                scale = scales[place + row]
                for d in range(tokens.shape[1]):
                    wide[row, d] = np.float32(np.int32(tokens[place + row, d]) - 128) * scale
            _compare_wide(wide, rows, queries, query_scales, best)
            token += TILE
        out[i] = _total(best, query_scales) if last > first else -np.inf


@compiled
def _compare_wide(wide, rows, queries, query_scales, best):
    """best = the maximum of it and of what the first `rows` of wide (TILE, D) give; the others become copies of the last."""
    for row in range(rows, TILE):
        wide[row] = wide[rows - 1]
    for block in range(queries.shape[0]):
        float_tile(wide, query_scales[0], 0, queries, query_scales, block, best)


if MULTIPLIES_BYTES:

    @compiled
    def maxsim_codes(tokens, scales, ends, queries, starts, query_scales, start, stop, best, out):
        """As maxsim_floats. tokens (T, W) uint8, W a multiple of 4; scales (T,) float32: a token is (code - 128) * scale.

        queries (B, W / 4, BLOCK, 4) int8, query_scales (B, BLOCK) theirs; starts (B, BLOCK) int32: -128 times each one's sum.
        """
        for i in range(start, stop):
            first, last = ends[i], ends[i + 1]
            best[:] = -np.inf
            if last - first < TILE:
                for token in range(first, last):
                    for block in range(queries.shape[0]):
                        code_token(tokens, scales, token, queries, starts, block, best)
            else:
                token = first
                while token < last:
                    place = min(token, last - TILE)
                    for block in range(queries.shape[0]):
                        code_tile(tokens, scales, place, queries, starts, block, best)
                    token += TILE
            out[i] = _total(best, query_scales) if last > first else -np.inf


@compiled
def maxsim_residuals(centroids, codes, ends, coarse, tables, start, stop, best, out):
    """As maxsim_floats, of tokens that are a centroid and a product-quantised residual.

    centroids (T,) int32, codes (T, M) uint8. coarse (C, Q) float32: each centroid's products with the query's tokens; tables
    (M, 256, Q) float32: those of each codeword. best (2, Q) float32 is scratch.
    """
    width = coarse.shape[1]
    for i in range(start, stop):
        first, last = ends[i], ends[i + 1]
        best[0] = -np.inf
        for token in range(first, last):
            for q in range(width):
                best[1, q] = coarse[centroids[token], q]
            for m in range(codes.shape[1]):
                code = codes[token, m]
                for q in range(width):
                    best[1, q] += tables[m, code, q]
            for q in range(width):
                best[0, q] = max(best[0, q], best[1, q])
        total = np.float64(0.0)
        for q in range(width):
            total += best[0, q]
        out[i] = total if last > first else -np.inf
