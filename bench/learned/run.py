"""The command line of `python -m bench learned`."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from bench.command import options, run, several
from bench.learned.partitions import WAYS
from bench.learned.show import draw, tables
from bench.learned.study import study
from bench.vectors import SETS, VectorSet, load_set

_SETS = ("fashion", "minilm")
_BINS, _QUERIES = 256, 2_000
_QUICK_BINS, _QUICK_QUERIES = 16, 100


def main(arguments: Sequence[str]) -> int:
    if arguments[:1] == ["blocking"]:
        from bench.learned.blocking_run import main as blocking

        return blocking(arguments[1:])
    if arguments[:1] == ["groups"]:
        from bench.learned.group_run import main as groups

        return groups(arguments[1:])
    given = _arguments(arguments)
    return run(given, "learned", _measured(given), tables, draw=draw)


def _measured(given: argparse.Namespace) -> Iterator[dict[str, Any]]:
    for name in given.sets:
        whole = load_set(name).first_queries(given.queries)
        data = VectorSet(
            name, whole.metric, *map(np.ascontiguousarray, (whole.base, whole.queries, whole.truth, whole.distances))
        )
        yield from study(data, given.bins, given.seed, given.ways)


def _arguments(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench learned", description=__doc__)
    several(parser, "sets", SETS, _SETS)
    several(parser, "ways", WAYS)
    parser.add_argument("--bins", type=int, default=_BINS)
    parser.add_argument("--queries", type=int, default=_QUERIES)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="a made-up set of 2,000 vectors: only whether it runs")
    given = options(parser, arguments)
    if given.quick:
        given.sets, given.bins, given.queries = ["tiny"], _QUICK_BINS, _QUICK_QUERIES
    return given
