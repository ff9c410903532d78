"""The operations of gpu/codecs.py as kernels: each reads its input once and writes its output once. Twins: gpu/reference.py.

A program takes some whole rows into registers. Nothing is fused into one rounding that a CPU rounds twice (no contraction of a
product and a sum), powers of two are made from bits, and numbers are rounded to whole ones by adding what leaves no bits
behind the point: so bytes are those of the CPU.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import triton
import triton.language as tl

from vecdb.gpu.reference import FARTHEST, FLOAT8, Float8Kind, halves_of, whole_bits

if TYPE_CHECKING:
    import torch

_NUMBERS = 2048  # of a program: 16 for each of its threads
_AT_ONCE = 1 << 16  # rows that are turned on their side at a time
_TILE = 64  # of turning
# Of a program that looks for nearest centroids: rows, two to a thread, and centroids in registers at a time.
_NEAR_ROWS, _NEAR_CENTROIDS, _NEAR_WARPS = 256, 16, 4
_COLUMNS = 128  # of a program that looks centroids up: parts whose books stay in the first-level cache
_LARGEST = tl.constexpr(3.4028234663852886e38)
_NO_FRACTION = tl.constexpr(8388608.0)  # 2^23: a float32 of this size, and below 2^24, has no bits behind the point
_NO_WIDE_FRACTION = tl.constexpr(6755399441055744.0)  # 1.5 * 2^52: so in float64, for either sign


def encode_float8(values: torch.Tensor, kind: Float8Kind, factors: torch.Tensor | None) -> torch.Tensor:
    import torch

    rows, dim = values.shape
    layout = FLOAT8[kind]
    width = dim + (factors is None)
    codes = torch.empty((rows, width), dtype=torch.uint8, device=values.device)
    _launch(
        _encode_float8_kernel,
        rows,
        dim,
        values.contiguous(),
        factors,
        codes,
        rows,
        dim,
        width,
        DROP=layout.drop,
        BASE=layout.base,
        MOST=layout.most,
        LEAST=layout.least,
        STEPS=layout.steps,
        TARGET=layout.target,
        HAS_FACTORS=factors is not None,
    )
    return codes


def decode_float8(codes: torch.Tensor, size: int, kind: Float8Kind, factors: torch.Tensor | None) -> torch.Tensor:
    import torch

    rows, width = codes.shape
    layout = FLOAT8[kind]
    values = torch.empty((rows, size), dtype=torch.float32, device=codes.device)
    _launch(
        _decode_float8_kernel,
        rows,
        size,
        codes.contiguous(),
        factors,
        values,
        rows,
        size,
        width,
        DROP=layout.drop,
        MOST=layout.most,
        UNIT=2.0 ** (127 - layout.bias),
        HAS_FACTORS=factors is not None,
    )
    return values


def encode_levels(values: torch.Tensor, lows: torch.Tensor, inverses: torch.Tensor, levels: int) -> torch.Tensor:
    import torch

    rows, dim = values.shape
    codes = torch.empty((rows, dim), dtype=torch.uint8, device=values.device)
    given = (values.contiguous(), lows, inverses, codes, rows, dim, float(levels - 1))
    _launch(_encode_levels_kernel, rows, dim, *given)
    return codes


def decode_levels(numbers: torch.Tensor, lows: torch.Tensor, steps: torch.Tensor) -> torch.Tensor:
    import torch

    rows, dim = numbers.shape
    values = torch.empty((rows, dim), dtype=torch.float32, device=numbers.device)
    _launch(_decode_levels_kernel, rows, dim, numbers.contiguous(), lows, steps, values, rows, dim)
    return values


def encode_parts(values: torch.Tensor, books: torch.Tensor) -> torch.Tensor:
    """Vectors are turned on their side first, block by block: then threads side by side hold rows side by side, each keeps all
    sums of its rows to itself, and none of them is ever written.
    """
    import torch

    parts, size, count = books.shape
    rows, dim = values.shape
    codes = torch.empty((rows, parts), dtype=torch.uint8, device=values.device)
    if not rows:
        return codes
    pitch = triton.cdiv(min(rows, _AT_ONCE), _NEAR_ROWS) * _NEAR_ROWS
    sideways = torch.empty((parts * size, pitch), dtype=torch.float32, device=values.device)
    books, halves = books.contiguous(), halves_of(books)
    for block, of_block in zip(values.contiguous().split(_AT_ONCE), codes.split(_AT_ONCE)):
        tiles = (triton.cdiv(len(block), _TILE), triton.cdiv(parts * size, _TILE))
        _turn_kernel[tiles](
            block, sideways, len(block), dim, parts * size, pitch, FARTHEST=FARTHEST, TILE=_TILE, num_warps=4
        )
        _nearest_kernel[(triton.cdiv(len(block), _NEAR_ROWS), parts)](
            sideways,
            books,
            halves,
            of_block,
            len(block),
            parts,
            pitch,
            SIZE=size,
            COUNT=count,
            ROWS=_NEAR_ROWS,
            CENTROIDS=_NEAR_CENTROIDS,
            num_warps=_NEAR_WARPS,
            enable_fp_fusion=False,
        )
    return codes


def decode_parts(codes: torch.Tensor, books: torch.Tensor) -> torch.Tensor:
    import torch

    parts, size, count = books.shape
    rows, dim = len(codes), parts * size
    values = torch.empty((rows, dim), dtype=torch.float32, device=codes.device)
    if rows:
        by_code = books.transpose(1, 2).contiguous()
        columns = min(_COLUMNS, triton.next_power_of_2(dim))
        height = _NUMBERS // columns
        grid = (triton.cdiv(rows, height), triton.cdiv(dim, columns))
        _decode_parts_kernel[grid](
            codes.contiguous(),
            by_code,
            values,
            rows,
            dim,
            parts,
            SIZE=size,
            COUNT=count,
            ROWS=height,
            DIMS=columns,
            num_warps=4,
        )
    return values


def reduce_by(vectors: torch.Tensor, mean: torch.Tensor, basis: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
    return _through(vectors, mean, basis.double(), scales, is_back=False)


def restore_by(reduced: torch.Tensor, mean: torch.Tensor, basis: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
    return _through(reduced, scales, basis.double().T, mean, is_back=True)


def unit(vectors: torch.Tensor) -> torch.Tensor:
    import torch

    rows, dim = vectors.shape
    made = torch.empty((rows, dim), dtype=torch.float32, device=vectors.device)
    _launch(_unit_kernel, rows, dim, vectors.contiguous(), made, rows, dim)
    return made


def _through(
    vectors: torch.Tensor, before: torch.Tensor, matrix: torch.Tensor, after: torch.Tensor, *, is_back: bool
) -> torch.Tensor:
    """(vectors - before) @ matrix / after, or, back, vectors * before @ matrix + after: `reference.exact_product` between what is
    done to its input and to its result, while that is in registers anyway.
    """
    import torch

    rows, dim = vectors.shape
    whole = torch.empty((rows, dim), dtype=torch.float64, device=vectors.device)
    shifts = torch.empty(rows, dtype=torch.int32, device=vectors.device)
    given = (vectors.contiguous(), before, whole, shifts, rows, dim)
    _launch(_whole_kernel, rows, dim, *given, TARGET=whole_bits(dim), IS_BACK=is_back)
    wide = whole @ matrix
    made = torch.empty(wide.shape, dtype=torch.float32, device=vectors.device)
    _launch(_narrow_kernel, rows, wide.shape[1], wide, shifts, after, made, rows, wide.shape[1], IS_BACK=is_back)
    return made


def _launch(kernel: Any, rows: int, dim: int, *given: Any, **constants: Any) -> None:
    """A kernel whose programs take some rows each."""
    dims = triton.next_power_of_2(dim)
    height = max(1, _NUMBERS // dims)
    if rows:
        kernel[(triton.cdiv(rows, height),)](
            *given,
            **constants,
            ROWS=height,
            DIMS=dims,
            num_warps=min(max(4, dims // 1024), 16),
            enable_fp_fusion=False,
        )


@triton.jit
def _encode_float8_kernel(
    values_ptr,
    factors_ptr,
    codes_ptr,
    rows,
    dim,
    width,
    DROP: tl.constexpr,
    BASE: tl.constexpr,
    MOST: tl.constexpr,
    LEAST: tl.constexpr,
    STEPS: tl.constexpr,
    TARGET: tl.constexpr,
    HAS_FACTORS: tl.constexpr,
    ROWS: tl.constexpr,
    DIMS: tl.constexpr,
):
    """values * factors (D,) in float8; without factors, values * 2^e with e + 127 in a row's last byte."""
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    d = tl.arange(0, DIMS)
    inside = (row < rows)[:, None] & (d < dim)[None, :]
    values = tl.load(values_ptr + row[:, None] * dim + d[None, :], mask=inside, other=0.0)
    if HAS_FACTORS:
        values = values * tl.load(factors_ptr + d, mask=d < dim, other=0.0)[None, :]
    else:
        largest = tl.max(tl.abs(values), 1)
        is_subnormal = largest.to(tl.int32, bitcast=True) < 0x00800000  # 2^24 times as large it is no more
        exponent = (largest * tl.where(is_subnormal, 16777216.0, 1.0)).to(tl.int32, bitcast=True) >> 23
        shift = TARGET - exponent + tl.where(is_subnormal, 150, 126)
        shift = tl.where(largest == 0, 0, tl.minimum(tl.maximum(shift, -126), 126))
        values = values * ((shift + 127) << 23).to(tl.float32, bitcast=True)[:, None]
        tl.store(codes_ptr + row * width + dim, (shift + 127).to(tl.uint8), mask=row < rows)
    bits = values.to(tl.int32, bitcast=True)
    rest = bits & 0x7FFFFFFF
    normal = ((rest + ((1 << (DROP - 1)) - 1 + ((rest >> DROP) & 1))) >> DROP) - BASE
    sizes = tl.abs(values)
    steps = tl.minimum(sizes, LEAST) * STEPS + _NO_FRACTION
    small = steps.to(tl.int32, bitcast=True) & 0xFF
    code = tl.where(sizes < LEAST, small, tl.minimum(normal, MOST)) | ((bits >> 24) & 0x80)
    tl.store(codes_ptr + row[:, None] * width + d[None, :], code.to(tl.uint8), mask=inside)


@triton.jit
def _decode_float8_kernel(
    codes_ptr,
    factors_ptr,
    values_ptr,
    rows,
    dim,
    width,
    DROP: tl.constexpr,
    MOST: tl.constexpr,
    UNIT: tl.constexpr,
    HAS_FACTORS: tl.constexpr,
    ROWS: tl.constexpr,
    DIMS: tl.constexpr,
):
    """Exponent and mantissa where float32 has them, times the difference of the biases: exact, subnormal numbers included."""
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    d = tl.arange(0, DIMS)
    inside = (row < rows)[:, None] & (d < dim)[None, :]
    code = tl.load(codes_ptr + row[:, None] * width + d[None, :], mask=inside, other=0).to(tl.int32)
    bits = (tl.minimum(code & 0x7F, MOST) << DROP) | ((code & 0x80) << 24)
    values = bits.to(tl.float32, bitcast=True) * UNIT
    if HAS_FACTORS:
        values = tl.div_rn(
            values, tl.broadcast_to(tl.load(factors_ptr + d, mask=d < dim, other=1.0)[None, :], values.shape)
        )
    else:
        # In two steps, of which the first is exact: 2^-128 and below are no normal float32 numbers.
        power = 127 - tl.load(codes_ptr + row * width + dim, mask=row < rows, other=127).to(tl.int32)
        half = power >> 1
        values = values * ((half + 127) << 23).to(tl.float32, bitcast=True)[:, None]
        values = values * ((power - half + 127) << 23).to(tl.float32, bitcast=True)[:, None]
    values = tl.minimum(tl.maximum(values, -_LARGEST), _LARGEST)
    tl.store(values_ptr + row[:, None] * dim + d[None, :], values, mask=inside)


@triton.jit
def _encode_levels_kernel(
    values_ptr, lows_ptr, inverses_ptr, codes_ptr, rows, dim, top, ROWS: tl.constexpr, DIMS: tl.constexpr
):
    """Cut off first and rounded then: the ends are whole, so that it is the same, and the sum below has room."""
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    d = tl.arange(0, DIMS)
    inside = (row < rows)[:, None] & (d < dim)[None, :]
    at = row[:, None] * dim + d[None, :]
    values = tl.load(values_ptr + at, mask=inside, other=0.0)
    own = tl.broadcast_to(d[None, :], (ROWS, DIMS))
    low = tl.load(lows_ptr + own, mask=inside, other=0.0)
    levels = (values - low) * tl.load(inverses_ptr + own, mask=inside, other=0.0)
    levels = tl.minimum(tl.maximum(levels, 0.0), top) + _NO_FRACTION
    tl.store(codes_ptr + at, levels.to(tl.int32, bitcast=True).to(tl.uint8), mask=inside)


@triton.jit
def _decode_levels_kernel(
    codes_ptr, lows_ptr, steps_ptr, values_ptr, rows, dim, ROWS: tl.constexpr, DIMS: tl.constexpr
):
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    d = tl.arange(0, DIMS)
    inside = (row < rows)[:, None] & (d < dim)[None, :]
    at = row[:, None] * dim + d[None, :]
    levels = tl.load(codes_ptr + at, mask=inside, other=0).to(tl.float32)
    own = tl.broadcast_to(d[None, :], (ROWS, DIMS))
    low = tl.load(lows_ptr + own, mask=inside, other=0.0)
    step = tl.load(steps_ptr + own, mask=inside, other=0.0)
    tl.store(values_ptr + at, low + levels * step, mask=inside)


@triton.jit
def _turn_kernel(values_ptr, sideways_ptr, rows, dim, width, pitch, FARTHEST: tl.constexpr, TILE: tl.constexpr):
    """(N, D) -> (width, pitch) on its side, zeros behind D, each number within FARTHEST."""
    row = tl.program_id(0).to(tl.int64) * TILE + tl.arange(0, TILE)
    d = tl.program_id(1).to(tl.int64) * TILE + tl.arange(0, TILE)
    inside = (row < rows)[:, None] & (d < dim)[None, :]
    values = tl.load(values_ptr + row[:, None] * dim + d[None, :], mask=inside, other=0.0)
    values = tl.trans(tl.minimum(tl.maximum(values, -FARTHEST), FARTHEST))
    inside = (d < width)[:, None] & (row < rows)[None, :]
    tl.store(sideways_ptr + d[:, None] * pitch + row[None, :], values, mask=inside)


# Of a pitch that it knows nothing of, the compiler does not load four rows to a thread at once, side by side, which it would
# then have to hand to other threads: sums are held so that rows of a thread lie a program's width apart.
@triton.jit(do_not_specialize=["pitch"])
def _nearest_kernel(
    sideways_ptr,
    books_ptr,
    halves_ptr,
    codes_ptr,
    rows,
    parts,
    pitch,
    SIZE: tl.constexpr,
    COUNT: tl.constexpr,
    ROWS: tl.constexpr,
    CENTROIDS: tl.constexpr,
):
    """The k whose |c|² / 2 - v · c is smallest, the first of equals, for some rows and one part. Each product is rounded before
    it is subtracted, in the order of dimensions, as `index.simd.nearest_centroid` has it.

    So many centroids at a time, which lie in one thread; the place of each keeps the best of those that it has held.
    """
    part = tl.program_id(1)
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    place = tl.arange(0, CENTROIDS)
    known = row < rows
    best = tl.full((CENTROIDS, ROWS), float("inf"), tl.float32)
    chosen = tl.zeros((CENTROIDS, ROWS), tl.int32)
    for first in range(0, COUNT, CENTROIDS):
        k = first + place
        there = k < COUNT
        half = tl.load(halves_ptr + part * COUNT + k, mask=there, other=float("inf"))
        sums = tl.broadcast_to(half[:, None], (CENTROIDS, ROWS))
        for s in range(SIZE):
            d = part * SIZE + s
            value = tl.load(sideways_ptr + d.to(tl.int64) * pitch + row, mask=known, other=0.0)
            centroid = tl.load(books_ptr + d * COUNT + k, mask=there, other=0.0)
            sums = sums - value[None, :] * centroid[:, None]
        nearer = sums < best
        best = tl.where(nearer, sums, best)
        chosen = tl.where(nearer, first, chosen)
    least = tl.min(best, 0)
    code = tl.min(tl.where(best == least[None, :], chosen + place[:, None], COUNT - 1), 0)
    tl.store(codes_ptr + row.to(tl.int64) * parts + part, code.to(tl.uint8), mask=known)


@triton.jit
def _decode_parts_kernel(
    codes_ptr,
    by_code_ptr,
    values_ptr,
    rows,
    dim,
    parts,
    SIZE: tl.constexpr,
    COUNT: tl.constexpr,
    ROWS: tl.constexpr,
    DIMS: tl.constexpr,
):
    """by_code (M, K, S): the numbers of a centroid side by side. Programs that run together look up the same parts."""
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    d = tl.program_id(1) * DIMS + tl.arange(0, DIMS)
    inside = (row < rows)[:, None] & (d < dim)[None, :]
    part, s = d // SIZE, d % SIZE
    code = tl.load(codes_ptr + row[:, None] * parts + part[None, :], mask=inside, other=0).to(tl.int32)
    values = tl.load(by_code_ptr + ((part * COUNT)[None, :] + code) * SIZE + s[None, :], mask=inside, other=0.0)
    tl.store(values_ptr + row[:, None] * dim + d[None, :], values, mask=inside)


@triton.jit
def _whole_kernel(
    values_ptr,
    before_ptr,
    whole_ptr,
    shifts_ptr,
    rows,
    dim,
    TARGET: tl.constexpr,
    IS_BACK: tl.constexpr,
    ROWS: tl.constexpr,
    DIMS: tl.constexpr,
):
    """values - before, or values * before, as whole numbers below 2^TARGET in float64, times 2^shift of their row."""
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    d = tl.arange(0, DIMS)
    inside = (row < rows)[:, None] & (d < dim)[None, :]
    at = row[:, None] * dim + d[None, :]
    wide = tl.load(values_ptr + at, mask=inside, other=0.0).to(tl.float64)
    own = tl.broadcast_to(d[None, :], (ROWS, DIMS))
    before = tl.load(before_ptr + own, mask=inside, other=0.0).to(tl.float64)
    wide = wide * before if IS_BACK else wide - before
    # No difference or product of float32 numbers is a subnormal float64.
    bits = tl.max(tl.abs(wide), 1).to(tl.int64, bitcast=True)
    shift = tl.minimum(tl.maximum(TARGET - ((bits >> 52) - 1022), -126), 126)
    shift = tl.where(bits == 0, 0, shift)
    power = ((shift + 1023) << 52).to(tl.float64, bitcast=True)
    whole = (wide * power[:, None] + _NO_WIDE_FRACTION) - _NO_WIDE_FRACTION
    tl.store(whole_ptr + at, whole, mask=inside)
    tl.store(shifts_ptr + row, shift.to(tl.int32), mask=row < rows)


@triton.jit
def _narrow_kernel(
    wide_ptr,
    shifts_ptr,
    after_ptr,
    values_ptr,
    rows,
    dim,
    IS_BACK: tl.constexpr,
    ROWS: tl.constexpr,
    DIMS: tl.constexpr,
):
    """wide * 2^-shift in float32, then / after or + after, in float32 again; what is too large becomes the largest."""
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    d = tl.arange(0, DIMS)
    inside = (row < rows)[:, None] & (d < dim)[None, :]
    at = row[:, None] * dim + d[None, :]
    shift = tl.load(shifts_ptr + row, mask=row < rows, other=0).to(tl.int64)
    power = ((1023 - shift) << 52).to(tl.float64, bitcast=True)
    values = _saturated(tl.load(wide_ptr + at, mask=inside, other=0.0) * power[:, None]).to(tl.float64)
    after = tl.load(after_ptr + d, mask=d < dim, other=1.0).to(tl.float64)[None, :]
    values = _saturated(values + after if IS_BACK else values / after)
    tl.store(values_ptr + at, values, mask=inside)


@triton.jit
def _unit_kernel(values_ptr, made_ptr, rows, dim, ROWS: tl.constexpr, DIMS: tl.constexpr):
    """Scaled first: squares of huge or tiny numbers would overflow or vanish. Zeros stay zeros."""
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    d = tl.arange(0, DIMS)
    inside = (row < rows)[:, None] & (d < dim)[None, :]
    at = row[:, None] * dim + d[None, :]
    values = tl.load(values_ptr + at, mask=inside, other=0.0)
    largest = tl.max(tl.abs(values), 1).to(tl.float64)
    wide = values.to(tl.float64) / tl.where(largest > 0, largest, 1.0)[:, None]
    norm = tl.sqrt(tl.sum(wide * wide, 1))
    tl.store(made_ptr + at, (wide / tl.where(norm > 0, norm, 1.0)[:, None]).to(tl.float32), mask=inside)


@triton.jit
def _saturated(wide):
    return tl.minimum(tl.maximum(wide, -_LARGEST), _LARGEST).to(tl.float32)
