"""Where the compiled functions come in: numba is imported when they are first worth it, never with the package."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from vecdb.index.arguments import as_threads
from vecdb.index.codecs.base import WORTH_COMPILING
from vecdb.index.pool import RangePool

_NAME = "vecdb.index.codecs.kernels"
_ROWS_A_TASK = 4_096


def kernels() -> Any:
    """The module of kernels; the first call takes half a second, and their first use compiles them or reads numba's cache."""
    from vecdb.index.codecs import kernels

    return kernels


def kernels_for(count: int) -> Any:
    """The module of kernels if they are there already, or worth it for so many vectors; else None."""
    return kernels() if count >= WORTH_COMPILING or _NAME in sys.modules else None


def over_rows(kernel: Callable[..., None], count: int, *arguments: Any, threads: int | None = 1) -> None:
    """kernel(*arguments, start, stop) over all of `count` rows."""
    with RangePool(as_threads(threads)) as pool:
        pool.run(lambda start, stop: kernel(*arguments, start, stop), count, step=_ROWS_A_TASK)
