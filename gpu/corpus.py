"""Vectors made ready for search on a device: encoded, padded, in blocks, as many of them on the device as fit.

Padding. A block's rows go up to a multiple of maxima.TILE, so that no kernel asks where rows end. A padding row repeats a real
row of its own group, so that it changes no maximum; a group of padding alone is known by its first row.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from vecdb.errors import InvalidInput, InvalidVector
from vecdb.gpu.launch import device_of, need_kernels, need_triton
from vecdb.gpu.maxima import TILE
from vecdb.gpu.reference import Metric

if TYPE_CHECKING:
    import torch

Codec = Literal["float16", "bfloat16", "int8", "float8"]
Exact = Literal["codes", "float16", "float32"]

_METRICS = ("ip", "cosine", "l2")
_LARGEST = {"int8": 127.0, "float8": 448.0}  # the codes' largest number
_BLOCK_ROWS = 1 << 22
_READ_ROWS = 1 << 17  # encoded at a time: float32 of these is all the room that encoding needs beside the codes
_RESIDENT_SHARE = 0.8  # of free device memory; the rest is for maxima
_ALIGNED = 16  # dimensions are padded to a multiple of it: a row of any codec then starts where the copy engine can


@dataclass(frozen=True, slots=True)
class Block:
    """Consecutive rows of a corpus, `count` from `first`.

    codes (P, D) are what the product runs over; exact (P, D) are what scores come from, or the codes themselves.
    offsets (P,) float32 or None: under l2, -|x|^2 / 2.
    """

    first: int
    count: int
    codes: torch.Tensor
    exact: torch.Tensor
    offsets: torch.Tensor | None

    def tensors(self) -> tuple[torch.Tensor, ...]:
        """Each once."""
        exact = () if self.exact is self.codes else (self.exact,)
        return self.codes, *exact, *(() if self.offsets is None else (self.offsets,))


class Corpus:
    """(N, D) vectors, a NumPy array or a tensor, ready for `topk`. Its size never changes.

    codec: what the product runs over. float16 and bfloat16 are exact for vectors that such numbers hold; int8 and float8 (e4m3)
    take half the time. exact: copies from which the rows that codes chose are scored: "float16" (the default beside int8 and
    float8), "float32", or none but the "codes" (the default else).
    resident_bytes: how much of the device's memory to fill, by default most of what is free; blocks beyond it stay in
    pinned memory of the host and are copied for each search while the block before is searched. group: rows of a group
    (maxima.py): smaller ones cost more room for maxima and less reading of rows.

    Raises InvalidVector for NaN and infinity, InvalidInput for other things that cannot be.
    """

    def __init__(
        self,
        vectors: Any,
        *,
        metric: Metric = "ip",
        codec: Codec = "float16",
        exact: Exact | None = None,
        device: str | torch.device = "auto",
        resident_bytes: int | None = None,
        block_rows: int = _BLOCK_ROWS,
        group: int = 16,
    ) -> None:
        need_triton()
        import torch

        self.device = device_of(device)
        need_kernels(self.device)
        if vectors.ndim != 2 or vectors.shape[1] == 0:
            raise InvalidVector(f"vectors have the shape {tuple(vectors.shape)}; they must be (N, D) with D >= 1")
        if metric not in _METRICS:
            raise InvalidInput(f"metric is {metric!r}; it must be one of {', '.join(_METRICS)}")
        if codec not in _types():
            raise InvalidInput(f"codec is {codec!r}; it must be one of {', '.join(_types())}")
        exact = exact or ("float16" if codec in _LARGEST else "codes")
        if exact not in ("codes", "float16", "float32"):
            raise InvalidInput(f"exact is {exact!r}; it must be codes, float16 or float32")
        if group not in (4, 8, 16, 32):
            raise InvalidInput(f"group is {group}; it must be 4, 8, 16 or 32")
        self.metric: Metric = metric
        self.codec: Codec = codec
        self.size, self.dimension = vectors.shape
        self.group = group
        self.width = -(-self.dimension // _ALIGNED) * _ALIGNED
        largest = _largest(vectors, self.device, metric)
        self.exact: Exact = exact
        self.exact_scale = _power_of_two(largest)
        self.code_scale = largest / _LARGEST[codec] if codec in _LARGEST else self.exact_scale
        block_rows = -(-max(block_rows, 1) // TILE) * TILE
        if resident_bytes is None and self.device.type == "cuda":
            resident_bytes = int(torch.cuda.mem_get_info(self.device)[0] * _RESIDENT_SHARE)
        if self.device.type != "cuda":
            resident_bytes = None  # nothing to copy
        self.blocks: list[Block] = []
        for first in range(0, self.size, block_rows):
            count = min(block_rows, self.size - first)
            bytes_needed = -(-count // TILE) * TILE * self._row_bytes()
            is_resident = resident_bytes is None or bytes_needed <= resident_bytes
            if is_resident and resident_bytes is not None:
                resident_bytes -= bytes_needed
            self.blocks.append(self._encoded(vectors[first : first + count], first, is_resident))

    def __len__(self) -> int:
        return self.size

    def __repr__(self) -> str:
        return f"<Corpus {self.size:,} x {self.dimension} {self.metric} {self.codec} on {self.device}>"

    @property
    def is_resident(self) -> bool:
        """Is all of it on the device?"""
        return all(block.codes.device == self.device for block in self.blocks)

    def on_device(self) -> Iterator[Block]:
        """Every block, on the device. A copied one holds until the block after the next is asked for."""
        import torch

        waiting = [block for block in self.blocks if block.codes.device != self.device]
        if not waiting:
            yield from self.blocks
            return
        copies = torch.cuda.Stream(self.device)
        current = torch.cuda.current_stream(self.device)
        room = [
            [torch.empty_like(t, device=self.device) for t in max(waiting, key=_bytes_of).tensors()] for _ in (0, 1)
        ]
        free = [torch.cuda.Event(), torch.cuda.Event()]
        copied: list[tuple[Block, torch.cuda.Event]] = []

        def copy(i: int) -> None:
            into, event = room[i % 2], torch.cuda.Event()
            with torch.cuda.stream(copies):
                copies.wait_event(free[i % 2])
                parts = [
                    to[: len(t)].copy_(t, non_blocking=True) for to, t in zip(into, waiting[i].tensors(), strict=True)
                ]
                event.record(copies)
            copied.append((_of_tensors(waiting[i], parts), event))

        copies.wait_stream(current)
        copy(0)
        yield from (block for block in self.blocks if block.codes.device == self.device)
        for i in range(len(waiting)):
            if i + 1 < len(waiting):
                copy(i + 1)
            block, event = copied[i]
            current.wait_event(event)
            yield block
            free[i % 2].record(current)
        current.wait_stream(copies)

    def _row_bytes(self) -> int:
        of_code = 1 if self.codec in _LARGEST else 2
        of_copy = {"codes": 0, "float16": 2, "float32": 4}[self.exact]
        return self.width * (of_code + of_copy) + 4 * (self.metric == "l2")

    def _encoded(self, vectors: Any, first: int, is_resident: bool) -> Block:
        import torch

        padded = -(-len(vectors) // TILE) * TILE
        place: dict[str, Any] = {"device": self.device}
        if not is_resident:
            place = {"device": "cpu", "pin_memory": True}
        codes = torch.zeros((padded, self.width), dtype=_types()[self.codec], **place)
        exact = codes
        if self.exact != "codes":
            exact = torch.zeros((padded, self.width), dtype=getattr(torch, self.exact), **place)
        offsets = torch.zeros(padded, dtype=torch.float32, **place) if self.metric == "l2" else None
        sources = _sources(padded, len(vectors), self.group)
        for start in range(0, padded, _READ_ROWS):
            stop = min(start + _READ_ROWS, padded)
            rows = _numbers(vectors, slice(start, stop) if stop <= len(vectors) else sources[start:stop], self.device)
            if self.metric == "cosine":
                rows = unit(rows)
            codes[start:stop, : self.dimension] = encode(rows, self.code_scale, codes.dtype)
            if exact is not codes:
                exact[start:stop, : self.dimension] = rows / self.exact_scale
            if offsets is not None:
                offsets[start:stop] = (rows * rows).sum(1) / -2
        return Block(first, len(vectors), codes, exact, offsets)


def encode(rows: torch.Tensor, scale: float, dtype: torch.dtype) -> torch.Tensor:
    """(N, D) float32 / scale as this type; int8 is rounded."""
    import torch

    scaled = rows / scale
    return (scaled.round() if dtype == torch.int8 else scaled).to(dtype)


def unit(rows: torch.Tensor) -> torch.Tensor:
    """(N, D) float32 of length 1; a zero vector stays one. Scaled first: squares of huge numbers would overflow."""
    largest = rows.abs().amax(1, keepdim=True)
    rows = rows / largest.masked_fill(largest == 0, 1)
    lengths = rows.norm(dim=1, keepdim=True)
    return rows / lengths.masked_fill(lengths == 0, 1)


def _types() -> dict[str, torch.dtype]:
    import torch

    return {
        "float16": torch.float16,
        "bfloat16": torch.bfloat16,
        "int8": torch.int8,
        "float8": torch.float8_e4m3fn,
    }


def _largest(vectors: Any, device: torch.device, metric: Metric) -> float:
    """The largest number there is, in absolute value, as it will be encoded; 1 if all are 0. One pass, one answer back."""
    import torch

    if not len(vectors):
        return 1.0
    largest = torch.zeros((), device=device)
    for start in range(0, len(vectors), _READ_ROWS):
        chunk = _numbers(vectors, slice(start, start + _READ_ROWS), device)
        largest = torch.maximum(largest, (unit(chunk) if metric == "cosine" else chunk).abs().max())  # keeps NaN
    value = float(largest)
    if not value < float("inf"):
        raise InvalidVector("vectors hold NaN or infinity; every number must be finite")
    return value or 1.0


def _numbers(vectors: Any, rows: Any, device: torch.device) -> torch.Tensor:
    """vectors[rows] as float32 on the device. Of an array a copy, since tensors do not suit read-only memory."""
    import numpy as np
    import torch

    if isinstance(vectors, torch.Tensor):
        rows = rows if isinstance(rows, slice) else rows.to(vectors.device)
        return vectors[rows].to(device, torch.float32)
    rows = rows if isinstance(rows, slice) else rows.numpy()
    return torch.from_numpy(np.array(vectors[rows], np.float32)).to(device)


def _power_of_two(value: float) -> float:
    """The smallest at or above value: dividing by it loses nothing, and no half-precision number overflows."""
    import math

    return 2.0 ** math.ceil(math.log2(value))


def _sources(padded: int, count: int, group: int) -> torch.Tensor:
    """(padded,) int64: the real row that each padded row repeats."""
    import torch

    row = torch.arange(padded)
    first_of_group = row // (4 * group) * (4 * group) + row % 8 // 2 * 2
    other = first_of_group + row % 2
    return torch.where(row < count, row, torch.where(other < count, other, first_of_group.clamp(max=count - 1)))


def _bytes_of(block: Block) -> int:
    return sum(t.numel() * t.element_size() for t in block.tensors())


def _of_tensors(block: Block, tensors: list[torch.Tensor]) -> Block:
    """The block with these in place of its own tensors."""
    rest = iter(tensors)
    codes = next(rest)
    exact = codes if block.exact is block.codes else next(rest)
    return Block(block.first, block.count, codes, exact, None if block.offsets is None else next(rest))
