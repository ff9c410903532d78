"""Visited marks that searches share without waiting for each other: who needs some takes them from a shelf."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray


class Scratch:
    """marks (>= N,) uint8 and clock (1,) int64, as kernels.py tells."""

    __slots__ = ("clock", "marks")

    def __init__(self, size: int) -> None:
        self.marks: NDArray[np.uint8] = np.zeros(size, np.uint8)
        self.clock: NDArray[np.int64] = np.zeros(1, np.int64)


class ScratchShelf:
    """Holds as many scratches as were ever in use at once. take and give_back are safe in threads: list.pop is atomic."""

    def __init__(self) -> None:
        self._free: list[Scratch] = []

    def take(self, size: int) -> Scratch:
        """A scratch for a graph of `size` nodes."""
        try:
            scratch = self._free.pop()
        except IndexError:
            return Scratch(size)
        # Too small ones are dropped: the graph has grown since. A quarter more, so that growth by ones is not N times this.
        return scratch if len(scratch.marks) >= size else Scratch(size + size // 4)

    def give_back(self, scratch: Scratch) -> None:
        self._free.append(scratch)

    @contextmanager
    def borrow(self, size: int) -> Iterator[Scratch]:
        scratch = self.take(size)
        try:
            yield scratch
        finally:
            self.give_back(scratch)
