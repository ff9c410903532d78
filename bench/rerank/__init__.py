"""`python -m bench rerank`: the second look. See `run` for what it measures."""

from __future__ import annotations

from collections.abc import Sequence


def main(arguments: Sequence[str]) -> int:
    from bench.rerank.run import main as run

    return run(arguments)
