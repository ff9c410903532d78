"""Queries as a product takes them: one kernel makes codes, their scales, and the mark of those that are not finite."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import triton
import triton.language as tl

from vecdb.errors import InvalidVector

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, slots=True)
class Coded:
    """Rows as the product takes them (codes, scales), and as scores are made (exact, exact_scales); finite (B,) int32."""

    codes: torch.Tensor
    exact: torch.Tensor
    scales: torch.Tensor
    exact_scales: torch.Tensor
    finite: torch.Tensor


def coded(
    rows: torch.Tensor,
    width: int,
    dtype: torch.dtype,
    *,
    base_scale: float = 1.0,
    exact: torch.dtype | None = None,
    is_cosine: bool = False,
) -> Coded:
    """(B, D) as codes (B, width) of a dtype, zeros behind D, each row with its own scale: code * scale / base_scale = number.

    exact: a second coding of that dtype beside the first. is_cosine: of the rows at unit length. NaN and infinity make a row
    of zeros, of which `finite` tells; nothing waits for the device.
    """
    import torch

    count, dim = rows.shape
    codes = torch.empty((count, width), dtype=dtype, device=rows.device)
    exactly = codes if exact is None else torch.empty((count, width), dtype=exact, device=rows.device)
    scales, exact_scales = (torch.empty(count, dtype=torch.float32, device=rows.device) for _ in range(2))
    finite = torch.empty(count, dtype=torch.int32, device=rows.device)
    if count:
        _coding_kernel[(count,)](
            rows,
            codes,
            exactly,
            scales,
            exact_scales,
            finite,
            dim,
            width,
            base_scale,
            LARGEST={torch.int8: 127.0, torch.float8_e4m3fn: 448.0}.get(dtype, 0.0),
            IS_COSINE=is_cosine,
            HAS_EXACT=exact is not None,
            DIMS=triton.next_power_of_2(width),
            num_warps=4 if width > 128 else 1,
        )
    return Coded(codes, exactly, scales, exact_scales, finite)


def refuse_infinite(finite: torch.Tensor, what: str) -> None:
    """Raises InvalidVector if some row was not finite; waits for the device."""
    if len(finite) and not bool(finite.all() if len(finite) > 1 else finite):
        bad = int((finite == 0).nonzero()[0, 0])
        raise InvalidVector(f"{what} {bad} holds NaN or infinity; every number must be finite")


@triton.jit
def _coding_kernel(
    rows_ptr,
    codes_ptr,
    exact_ptr,
    scales_ptr,
    exact_scales_ptr,
    finite_ptr,
    dim,
    width,
    base_scale,
    LARGEST: tl.constexpr,
    IS_COSINE: tl.constexpr,
    HAS_EXACT: tl.constexpr,
    DIMS: tl.constexpr,
):
    """codes * scale = numbers for each row, and exact * exact_scale, with scales that use the types' range whole; zeros up to
    width. Scales of codes are multiplied by the base's, so that products of codes times them are products of vectors.
    """
    query = tl.program_id(0).to(tl.int64)
    d = tl.arange(0, DIMS)
    q = tl.load(rows_ptr + query * dim + d, mask=d < dim, other=0.0).to(tl.float32)
    finite = tl.min((tl.abs(q) < float("inf")).to(tl.int32), 0)
    tl.store(finite_ptr + query, finite)
    q = tl.where(finite > 0, q, 0.0)
    largest = tl.max(tl.abs(q), 0)
    largest = tl.where(largest > 0, largest, 1.0)
    if IS_COSINE:
        q = q / largest
        length = tl.sqrt(tl.sum(q * q, 0))
        q = q / tl.where(length > 0, length, 1.0)
        largest = tl.max(tl.abs(q), 0)
        largest = tl.where(largest > 0, largest, 1.0)
    power = tl.exp2(tl.ceil(tl.log2(largest)))
    if LARGEST > 0:
        scale = largest / LARGEST
        code = q / scale
        if LARGEST == 127.0:
            code = tl.floor(code + 0.5)
    else:
        scale = power
        code = q / scale
    inside = d < width
    tl.store(codes_ptr + query * width + d, code.to(codes_ptr.dtype.element_ty), mask=inside)
    tl.store(scales_ptr + query, scale * base_scale)
    if HAS_EXACT:
        tl.store(exact_ptr + query * width + d, (q / power).to(exact_ptr.dtype.element_ty), mask=inside)
        tl.store(exact_scales_ptr + query, power)
    else:
        tl.store(exact_scales_ptr + query, scale)
