"""Arrays that grow by appending: a buffer with room at the end, of which the first rows are in use."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

LINE = 64  # bytes in a cache line


def with_room(buffer: NDArray[Any], used: int, wanted: int, fill: Any = 0) -> NDArray[Any]:
    """A buffer of at least `wanted` rows that begins with buffer[:used]: itself if it has the room, else a larger copy.

    A copy at least doubles what is in use, so appending n rows one by one moves O(n) rows in all. A buffer as long as its
    used part is never written to, which is how arrays that belong to somebody else stay untouched.
    """
    if wanted <= len(buffer):
        return buffer
    # Empty: the caller is about to fill it in one go, and doubling would waste half of a large build's memory.
    room = wanted if used == 0 else max(wanted, 2 * used)
    larger = aligned((room, *buffer.shape[1:]), buffer.dtype)
    larger[:used] = buffer[:used]
    larger[used:] = fill
    return larger


def aligned(shape: tuple[int, ...], dtype: Any) -> NDArray[Any]:
    """An uninitialised array that begins with a cache line: rows of whole lines then touch no line more than they need."""
    size = math.prod(shape) * np.dtype(dtype).itemsize
    room = np.empty(size + LINE, np.uint8)
    start = -room.ctypes.data % LINE
    array: NDArray[Any] = room[start : start + size].view(dtype).reshape(shape)
    return array


def is_aligned(array: NDArray[Any]) -> bool:
    """Does the array begin with a cache line?"""
    return array.ctypes.data % LINE == 0


def aligned_copy(array: NDArray[Any]) -> NDArray[Any]:
    copy = aligned(array.shape, array.dtype)
    copy[:] = array
    return copy


def frozen(array: NDArray[Any]) -> NDArray[Any]:
    """A read-only view of the array."""
    view = array.view()
    view.flags.writeable = False
    return view
