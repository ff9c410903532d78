"""Arrays that grow by appending: a buffer with room at the end, of which the first rows are in use."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def with_room(buffer: NDArray[Any], used: int, wanted: int, fill: Any = 0) -> NDArray[Any]:
    """A buffer of at least `wanted` rows that begins with buffer[:used]: itself if it has the room, else a larger copy.

    A copy at least doubles what is in use, so appending n rows one by one moves O(n) rows in all. A buffer as long as its
    used part is never written to, which is how arrays that belong to somebody else stay untouched.
    """
    if wanted <= len(buffer):
        return buffer
    # Empty: the caller is about to fill it in one go, and doubling would waste half of a large build's memory.
    room = wanted if used == 0 else max(wanted, 2 * used)
    larger = np.full((room, *buffer.shape[1:]), fill, dtype=buffer.dtype)
    larger[:used] = buffer[:used]
    return larger


def frozen(array: NDArray[Any]) -> NDArray[Any]:
    """A read-only view of the array."""
    view = array.view()
    view.flags.writeable = False
    return view
