"""Every compiled function of the codecs. They check nothing, raise nothing and hold no lock; ranges of rows run side by side.

All are in one file because Numba's disk cache does not notice when a callee in another file changes: it goes by
what stands in this one. After an edit of simd.py, whose loops these call, delete __pycache__/kernels.*.
Those that encode are strict: the same bytes as NumPy makes, on every CPU.
Distances are products: what a format knows of norms is added outside.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from vecdb.index.simd import (
    HAS_TABLES,
    compiled,
    dot_bfloats,
    dot_bytes,
    dot_e4m3,
    dot_e5m2,
    dot_floats,
    dot_halves,
    dot_pairs,
    dot_planes,
    half_at,
    nearest_centroid,
    sums_of_tables,
)

strict = njit(cache=True, nogil=True, error_model="numpy")

FLOATS, HALVES, BFLOATS = 0, 1, 2
E4M3, E5M2 = 0, 1
_ROWS_ENCODED, _ROWS_SCANNED = 256, 1_024


# Encoding -------------------------------------------------------------------------------------------------------------


_strict_inlined = njit(cache=True, nogil=True, error_model="numpy", forceinline=True)


@_strict_inlined
def shortened(value, drop, base, most, least, steps):
    """A float32 in a shorter format, without its sign: to nearest, ties to even, what is too large as the largest.

    Normal numbers lose the last `drop` bits of their mantissa, and base is the difference of the biases in place; numbers below
    the `least` normal one are counted in steps, so many to one. most: the code of the largest.
    """
    size = np.float32(abs(value))
    bits = size.view(np.uint32)
    half = (np.uint32(1) << drop) >> np.uint32(1)
    normal = np.uint32(np.uint32(bits + half - np.uint32(1) + ((bits >> drop) & np.uint32(1))) >> drop) - base
    # Too large numbers are cut off first: a conversion beyond the range of uint32 is undefined.
    small = np.uint32(np.int32(np.rint(min(size, least) * steps)))
    return small if size < least else min(np.uint32(normal), most)


@strict
def encode_bfloats(values, codes, start, stop):
    """What would round to infinity becomes the largest. (N, D) float32 -> (N, D) uint16."""
    for row in range(start, stop):
        for d in range(values.shape[1]):
            bits = np.float32(values[row, d]).view(np.uint32)
            rest = bits & np.uint32(0x7FFFFFFF)
            rounded = np.uint32(rest + np.uint32(0x7FFF) + ((rest >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)
            codes[row, d] = np.uint16(
                min(np.uint32(rounded), np.uint32(0x7F7F)) | ((bits >> np.uint32(16)) & np.uint32(0x8000))
            )


@strict
def encode_halves(values, codes, start, stop):
    """(N, D) float32 -> (N, D) uint16."""
    drop, base, most = np.uint32(13), np.uint32((127 - 15) << 10), np.uint32(0x7BFF)
    least, steps = np.float32(2.0**-14), np.float32(2.0**24)
    for row in range(start, stop):
        for d in range(values.shape[1]):
            value = np.float32(values[row, d])
            sign = (value.view(np.uint32) >> np.uint32(16)) & np.uint32(0x8000)
            codes[row, d] = np.uint16(shortened(value, drop, base, most, least, steps) | sign)


@strict
def encode_float8(values, factors, kind, width, codes, start, stop):
    """values * factors (D,) in float8. width: bytes of a row, D or one more: then rows have a power of two each, 2^e with
    e + 127 in the last byte. (N, D) float32 -> (N, width) uint8.
    """
    dimension = values.shape[1]
    drop = np.uint32(20 if kind == E4M3 else 21)
    base = np.uint32((127 - 7) << 3 if kind == E4M3 else (127 - 15) << 2)
    most = np.uint32(0x7E if kind == E4M3 else 0x7B)
    least = np.float32(2.0**-6 if kind == E4M3 else 2.0**-14)
    steps = np.float32(2.0**9 if kind == E4M3 else 2.0**16)
    target = np.int32(8 if kind == E4M3 else 15)
    for row in range(start, stop):
        power = np.float32(1.0)
        if width > dimension:
            largest = np.int32(
                0
            )  # bits of positive floats sort like the floats, and LLVM takes their maximum in vectors
            for d in range(dimension):
                largest = max(largest, np.float32(abs(values[row, d] * factors[d])).view(np.int32))
            shift = exponent_for(np.int32(largest).view(np.float32), target)
            codes[row, dimension] = np.uint8(shift + 127)
            power = np.int32((shift + 127) << 23).view(np.float32)
        for d in range(dimension):
            value = np.float32((values[row, d] * factors[d]) * power)
            sign = (value.view(np.uint32) >> np.uint32(24)) & np.uint32(0x80)
            codes[row, d] = np.uint8(shortened(value, drop, base, most, least, steps) | sign)


@strict
def exponent_for(largest, target):
    """e such that largest * 2^e lies in [2^(target - 1), 2^target); as `base.powers_of_two`."""
    if largest == np.float32(0.0):
        return np.int32(0)
    exponent = (np.float32(largest).view(np.int32) >> np.int32(23)) - np.int32(126)
    if exponent == np.int32(-126):  # subnormal: 2^24 times as large, and looked at again
        exponent = (np.float32(largest * np.float32(2.0**24)).view(np.int32) >> np.int32(23)) - np.int32(150)
    return np.int32(max(min(target - exponent, np.int32(126)), np.int32(-126)))


@strict
def encode_levels(values, lows, inverses, most, codes, start, stop):
    """Which of the levels 0 … most is nearest: (value - low) / step. (N, D) float32 -> (N, D) uint8."""
    top = np.float32(most)
    for row in range(start, stop):
        for d in range(values.shape[1]):
            level = np.rint((values[row, d] - lows[d]) * inverses[d])
            codes[row, d] = np.uint8(np.int32(min(max(level, np.float32(0.0)), top)))


@strict
def encode_pairs(values, lows, inverses, most, codes, start, stop):
    """As `encode_levels`, two to a byte: number d in the low half of byte d, number d + W in its high half."""
    top = np.float32(most)
    dimension, width = values.shape[1], codes.shape[1]
    for row in range(start, stop):
        for d in range(width):
            level = np.rint((values[row, d] - lows[d]) * inverses[d])
            codes[row, d] = np.uint8(np.int32(min(max(level, np.float32(0.0)), top)))
        for d in range(dimension - width):
            level = np.rint((values[row, d + width] - lows[d + width]) * inverses[d + width])
            codes[row, d] |= np.uint8(np.int32(min(max(level, np.float32(0.0)), top)) << 4)


@strict
def encode_products(values, books, halves, codes, start, stop):
    """The nearest centroid for each part of a vector, the first of equals.

    values (N, M * S) float32; books (M, S, K) float32: centroid k of part m is books[m, :, k]; halves (M, K): half their |c|²;
    codes (N, M) uint8. |v - c|² is smallest where |c|²/2 - v·c is. So many rows at a time as stay in the second-level cache
    beside the books, and a part's book meets all of them in the first-level one.
    """
    parts, size, _ = books.shape
    for first in range(start, stop, _ROWS_ENCODED):
        last = min(first + _ROWS_ENCODED, stop)
        for m in range(parts):
            for row in range(first, last):
                codes[row, m] = np.uint8(nearest_centroid(values, row, m * size, books, m, halves))


@compiled
def encode_points(turned, bits, spreads, numbers, start, stop):
    """For each vector the numbers (N, d) uint8 of the grid point with the smallest angle to it, among those of all spreads.

    turned (N, d) float32. A spread says how far the grid reaches: 1 to the largest number of the vector.
    """
    dimension = turned.shape[1]
    top = np.float32(2**bits - 1)
    middle = np.float32(top / np.float32(2.0))
    for row in range(start, stop):
        bound = np.int32(0)
        for d in range(dimension):
            bound = max(bound, np.float32(abs(turned[row, d])).view(np.int32))
        largest = max(np.int32(bound).view(np.float32), np.float32(1e-30))
        best, chosen = np.float32(-1.0), np.float32(0.0)
        for spread in spreads:
            inverse = middle / (largest * spread)
            product = energy = np.float32(0.0)
            for d in range(dimension):
                value = turned[row, d]
                point = min(max(np.floor(value * inverse + middle + np.float32(0.5)), np.float32(0.0)), top) - middle
                product += point * (value / largest)
                energy += point * point
            cosine = product / np.sqrt(energy)
            if cosine > best:
                best, chosen = cosine, inverse
        for d in range(dimension):
            point = min(max(np.floor(turned[row, d] * chosen + middle + np.float32(0.5)), np.float32(0.0)), top)
            numbers[row, d] = np.uint8(np.int32(point))


@strict
def turn_rows(values, signs):
    """values (N, d) float64, turned in place as by `turning.turned`, to the bit. Some rows lie side by side meanwhile."""
    rounds, size = signs.shape
    power = 1
    while 2 * power <= size:
        power *= 2
    half = size // 2
    whole, halved = 1.0 / np.sqrt(np.float64(power)), np.sqrt(0.5)
    lanes = min(32, values.shape[0])
    side = np.zeros((size, lanes), np.float64)
    for first in range(0, values.shape[0], max(lanes, 1)):
        count = min(lanes, values.shape[0] - first)
        for j in range(count):
            for d in range(size):
                side[d, j] = values[first + j, d]
        for r in range(rounds):
            for d in range(size):
                for j in range(lanes):
                    side[d, j] *= signs[r, d]
            start = 0 if r % 2 == 0 else size - power
            level = 1
            while level < power:
                for block in range(start, start + power, 2 * level):
                    for d in range(block, block + level):
                        for j in range(lanes):
                            low, high = side[d, j], side[d + level, j]
                            side[d, j], side[d + level, j] = low + high, low - high
                level *= 2
            for d in range(start, start + power):
                for j in range(lanes):
                    side[d, j] *= whole
            for d in range(half):
                for j in range(lanes):
                    low, high = side[d, j], side[size - half + d, j]
                    side[d, j], side[size - half + d, j] = (low + high) * halved, (low - high) * halved
        for j in range(count):
            for d in range(size):
                values[first + j, d] = side[d, j]


@strict
def add_to_centroids(values, part, codes, sums, counts):
    """For one part of `encode_products`: sums (K, S) float64 and counts (K,) int64 of the vectors of each centroid."""
    size = sums.shape[1]
    for row in range(values.shape[0]):
        k = codes[row, part]
        counts[k] += 1
        for s in range(size):
            sums[k, s] += np.float64(values[row, part * size + s])


# Products -------------------------------------------------------------------------------------------------------------


@compiled
def products_of_floats(queries, codes, kind, out, start, stop):
    """out[b, n] = queries[b] · codes[n]. codes (N, D) float32, or uint16: the bits of float16 or bfloat16."""
    for row in range(start, stop):
        for b in range(queries.shape[0]):
            out[b, row] = dot_floats(codes, row, queries[b])


@compiled
def products_of_words(queries, codes, kind, out, start, stop):
    """The same for 16-bit numbers, as uint16."""
    if kind == HALVES:
        for row in range(start, stop):
            for b in range(queries.shape[0]):
                out[b, row] = dot_halves(codes, row, queries[b])
    else:
        for row in range(start, stop):
            for b in range(queries.shape[0]):
                out[b, row] = dot_bfloats(codes, row, queries[b])


@compiled
def products_of_float8(queries, codes, kind, out, start, stop):
    """The same for float8; queries (B, D) are multiplied by what one unit is worth, rows of D + 1 bytes by their power of two."""
    dimension, width = queries.shape[1], codes.shape[1]
    for row in range(start, stop):
        worth = np.float32(256.0) if kind == E4M3 else np.float32(1.0)
        if width > dimension:
            worth *= np.int32((254 - np.int32(codes[row, dimension])) << 23).view(np.float32)
        for b in range(queries.shape[0]):
            if kind == E4M3:
                out[b, row] = worth * dot_e4m3(codes, row, queries[b])
            else:
                out[b, row] = worth * dot_e5m2(codes, row, queries[b])


@compiled
def products_of_levels(high, low, units, offsets, codes, pairs, out, start, stop):
    """out[b, n] = offsets[b] + units[b] * (256 high[b] + low[b]) · codes[n], in whole numbers but for the last step.

    high, low (B, D) int8: a query as whole numbers of fifteen bits. pairs: codes hold two numbers to a byte.
    """
    for row in range(start, stop):
        for b in range(high.shape[0]):
            if pairs:
                total = np.int64(256) * dot_pairs(codes, row, high[b]) + dot_pairs(codes, row, low[b])
            else:
                total = np.int64(256) * dot_bytes(codes, row, high[b]) + dot_bytes(codes, row, low[b])
            out[b, row] = np.float32(offsets[b] + units[b] * np.float64(total))


@strict
def whole_tables(queries, books, most, tables, origins, units):
    """For each query what its parts have in common with each centroid, as whole numbers 0 … most.

    queries (B, M * S), books (M, S, K) float32 -> tables (B, M, K) uint16, origins (B,) and units (B,) float64: the product of
    part m with centroid k is about tables[b, m, k] * units[b], and a number for each part, of which origins[b] is the sum.
    """
    parts, size, count = books.shape
    products = np.empty((parts, count), np.float32)
    lows = np.empty(parts, np.float32)
    for b in range(queries.shape[0]):
        origin, reach = 0.0, np.float32(0.0)
        for m in range(parts):
            line = products[m]
            line[:] = np.float32(0.0)
            for s in range(size):
                value = queries[b, m * size + s]
                for k in range(count):
                    line[k] += value * books[m, s, k]
            low = high = line[0]
            for k in range(count):
                low, high = min(low, line[k]), max(high, line[k])
            lows[m], reach = low, max(reach, high - low)
            origin += np.float64(low)
        origins[b], units[b] = origin, max(np.float64(reach) / most, 1e-300)
        inverse = np.float32(most) / max(reach, np.float32(1e-30))
        for m in range(parts):
            for k in range(count):
                tables[b, m, k] = np.uint16(np.int32(np.rint((products[m, k] - lows[m]) * inverse)))


@strict
def planes_of(tables, starts, planes):
    """tables (B, M, K) uint16 as `simd.sums_of_tables` wants them, planes (B, C, 16, 2, K) uint8, zeros before: chunk c looks at
    columns from starts[c], and those that the chunk before looked at count nothing.
    """
    parts = tables.shape[1]
    for b in range(tables.shape[0]):
        for c in range(starts.shape[0]):
            for m in range(16 * c, min(16 * c + 16, parts)):
                for k in range(tables.shape[2]):
                    planes[b, c, m - starts[c], 0, k] = np.uint8(tables[b, m, k] & 255)
                    planes[b, c, m - starts[c], 1, k] = np.uint8(tables[b, m, k] >> 8)


@compiled
def products_by_tables(tables, starts, planes, origins, units, codes, out, start, stop):
    """out[b, n] = origins[b] + units[b] * the sum over m of tables[b, m, codes[n, m]]; see `whole_tables` and `planes_of`.

    Whole numbers, so the same in any order. A query's tables stay in the first-level cache for some rows, then the next one's.
    """
    rows, width = codes.shape
    parts = tables.shape[1]
    sums = np.empty(64, np.int32)
    # A chunk of sixteen columns reads beyond a row that has fewer; behind the last row is nothing to read.
    spare = max(16 - width, 0)
    for first in range(start, stop, _ROWS_SCANNED):
        last = min(first + _ROWS_SCANNED, stop)
        for b in range(tables.shape[0]):
            row, table = first, tables[b]
            if HAS_TABLES:
                while row + 64 <= last and (row + 64) * width + spare <= rows * width:
                    sums_of_tables(codes, row, starts, planes[b], sums)
                    for r in range(64):
                        out[b, row + r] = np.float32(origins[b] + units[b] * np.float64(sums[r]))
                    row += 64
            while row < last:
                one = two = three = four = np.int32(0)
                for m in range(0, parts - 3, 4):
                    one += np.int32(table[m, codes[row, m]])
                    two += np.int32(table[m + 1, codes[row, m + 1]])
                    three += np.int32(table[m + 2, codes[row, m + 2]])
                    four += np.int32(table[m + 3, codes[row, m + 3]])
                for m in range(parts & ~3, parts):
                    one += np.int32(table[m, codes[row, m]])
                out[b, row] = np.float32(origins[b] + units[b] * np.float64((one + two) + (three + four)))
                row += 1


@compiled
def products_by_group(tables, codes, out, start, stop):
    """As `products_by_tables` with a set of tables for each group (B, G, M, K); a row's first byte is its group."""
    parts = tables.shape[2]
    for row in range(start, stop):
        group = codes[row, 0]
        for b in range(tables.shape[0]):
            total = np.float32(0.0)
            for m in range(parts):
                total += tables[b, group, m, codes[row, 1 + m]]
            out[b, row] = total


@compiled
def products_of_planes(planes, units, sums, offsets, along, bits, scales, codes, out, start, stop):
    """RaBitQ's: out[b, n] = offsets[b] + along[b] * coordinate of n + factor of n * units[b] * (planes[b] · code n - sums[b]).

    planes (B, W, 8) uint64: queries of eight bits, see simd.dot_planes; sums: what the middle of a code's range adds. Behind a
    code stand factor and coordinate, in units of scales (2,).
    """
    behind = 8 * bits * planes.shape[1]
    for row in range(start, stop):
        factor = scales[0] * np.float64(half_at(codes, row, behind))
        coordinate = scales[1] * np.float64(half_at(codes, row, behind + 2))
        for b in range(planes.shape[0]):
            product = np.float64(dot_planes(codes, row, planes[b], bits)) - sums[b]
            out[b, row] = np.float32(offsets[b] + along[b] * coordinate + factor * units[b] * product)


@compiled
def products_of_points(high, low, units, sums, offsets, along, behind, pairs, scales, codes, out, start, stop):
    """The same for codes of a byte each, with queries as for `products_of_levels`; or of half a byte (pairs), with queries
    of eight bits, which are high alone. behind: bytes before the factor.
    """
    for row in range(start, stop):
        factor = scales[0] * np.float64(half_at(codes, row, behind))
        coordinate = scales[1] * np.float64(half_at(codes, row, behind + 2))
        for b in range(high.shape[0]):
            if pairs:
                total = np.int64(dot_pairs(codes, row, high[b]))
            else:
                total = np.int64(256) * dot_bytes(codes, row, high[b]) + dot_bytes(codes, row, low[b])
            product = np.float64(total) - sums[b]
            out[b, row] = np.float32(offsets[b] + along[b] * coordinate + factor * units[b] * product)


# Choosing -------------------------------------------------------------------------------------------------------------


@strict
def smallest(distances, rows, nearest):
    """The K smallest of distances (N,), ascending, the first of equals first, into rows (K,) int64 and nearest (K,)."""
    wanted, size = rows.shape[0], 0
    worst = np.float32(np.inf)
    for n in range(distances.shape[0]):
        distance = distances[n]
        if size == wanted and not distance < worst:
            continue
        at = size if size < wanted else wanted - 1
        size = min(size + 1, wanted)
        while at > 0 and nearest[at - 1] > distance:
            rows[at], nearest[at] = rows[at - 1], nearest[at - 1]
            at -= 1
        rows[at], nearest[at] = n, distance
        worst = nearest[size - 1]
