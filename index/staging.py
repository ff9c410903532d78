"""Rows on their way to a device and back, block by block: while it works on one, the host copies the next in and the last out.

Copies to and from a device are fast out of page-locked memory, and waited for by nobody; copies between that and ordinary memory
are shared among threads, of which one alone is slower than the bus.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vecdb.index.arguments import as_threads
from vecdb.index.pool import RangePool

if TYPE_CHECKING:
    import torch

_MOST_THREADS = 8
_BYTES_A_TASK = 1 << 21


def in_blocks(
    work: Callable[[torch.Tensor], torch.Tensor], rows: NDArray[Any], device: torch.device, *, most: int, least: int
) -> NDArray[Any]:
    """(N, …): work of blocks of at most so many rows (N, D), one after another, on the device; of fewer where it has no room.

    Raises OutOfDeviceMemory if `least` rows find none.
    """
    import torch

    from vecdb.gpu.launch import OutOfDeviceMemory

    size, first = most, 0
    out: NDArray[Any] | None = None
    on_its_way: tuple[slice, NDArray[Any], Any] | None = None
    current = torch.cuda.device(device) if device.type == "cuda" else contextlib.nullcontext()
    with current, RangePool(min(as_threads(None), _MOST_THREADS)) as pool:
        coming, going = (_Buffers(device, min(most, len(rows))) for _ in range(2))

        def arrive() -> None:
            nonlocal on_its_way
            if on_its_way is not None:
                assert out is not None
                place, made, there = on_its_way
                if there is not None:
                    there.synchronize()
                _copy(made, out[place], pool)
                on_its_way = None

        while first < len(rows) or out is None:
            part = rows[first : first + size]
            try:
                staged = coming.next_for(part.shape, torch.from_numpy(np.empty(0, part.dtype)).dtype)
                _copy(part, staged.numpy(), pool)
                block = staged.to(device, non_blocking=True)
                coming.mark()
                made = work(block)
                left = going.next_for(made.shape, made.dtype)
                left.copy_(made, non_blocking=True)
                there = going.mark()
            except torch.cuda.OutOfMemoryError as error:
                arrive()
                if size <= least:
                    raise OutOfDeviceMemory(f"no room on {device} to code {size} vectors; code on the CPU") from error
                size = max(size // 4, least)
                torch.cuda.empty_cache()
                continue
            if out is None:
                out = np.empty((len(rows), *made.shape[1:]), left.numpy().dtype)
            arrive()
            on_its_way = slice(first, first + len(part)), left.numpy(), there
            first += size
        arrive()
    assert out is not None
    return out


class _Buffers:
    """Two of the host, that take turns; page-locked where the device is another. Made when the first block shows its shape."""

    def __init__(self, device: torch.device, rows: int) -> None:
        self._device, self._rows = device, rows
        self._buffers: list[torch.Tensor] = []
        self._free: list[Any] = [None, None]
        self._turn = 0

    def next_for(self, shape: Any, dtype: torch.dtype) -> torch.Tensor:
        """The next one's first rows, once nothing is copied from there or to it any more."""
        import torch

        if not self._buffers:
            is_locked = self._device.type == "cuda" and self._rows > 0
            self._buffers = [torch.empty((self._rows, *shape[1:]), dtype=dtype, pin_memory=is_locked) for _ in range(2)]
        self._turn = 1 - self._turn
        if self._free[self._turn] is not None:
            self._free[self._turn].synchronize()
        return self._buffers[self._turn][: shape[0]]

    def mark(self) -> Any:
        """What tells when copies with this buffer that were asked for are done: a CUDA event, or None where they are by now."""
        import torch

        if self._device.type != "cuda":
            return None
        make_event: Any = torch.cuda.Event  # untyped in PyTorch
        event = make_event()
        event.record(torch.cuda.current_stream(self._device))
        self._free[self._turn] = event
        return event


def _copy(source: NDArray[Any], into: NDArray[Any], pool: RangePool) -> None:
    def copy(start: int, stop: int) -> None:
        np.copyto(into[start:stop], source[start:stop])

    of_row = source.nbytes // max(len(source), 1)
    pool.run(copy, len(source), step=max(1, _BYTES_A_TASK // max(of_row, 1)))
