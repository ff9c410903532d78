"""The command line of `python -m bench learned`."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from bench.learned.partitions import WAYS
from bench.learned.show import draw, report
from bench.learned.study import study
from bench.machine import describe_run, result_path, results_folder
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
    if given.show is not None:
        report([json.loads(line) for line in given.show.read_text().splitlines()], markdown=given.markdown)
        return 0
    path = result_path(given.out or results_folder(whole=given.is_whole), "learned")
    lines = []
    with path.open("w") as results:
        for line in _measured(given):
            lines.append(describe_run("learned") | line)
            results.write(json.dumps(lines[-1]) + "\n")
            results.flush()
            print(f"{line['data']['name']}: {line.get('way', 'queries per second')}", file=sys.stderr)
    report(lines, markdown=given.markdown)
    if find_spec("matplotlib") is not None:
        draw(lines, path.with_suffix(".png"))
    print(path, file=sys.stderr)
    return 0


def _measured(given: argparse.Namespace) -> Iterator[dict[str, Any]]:
    for name in given.sets:
        whole = load_set(name).first_queries(given.queries)
        data = VectorSet(
            name, whole.metric, *map(np.ascontiguousarray, (whole.base, whole.queries, whole.truth, whole.distances))
        )
        yield from study(data, given.bins, given.seed, given.ways)


def _arguments(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench learned", description=__doc__)
    parser.add_argument("--sets", default=",".join(_SETS), help=f"of {', '.join(SETS)}")
    parser.add_argument("--ways", default=",".join(WAYS), help=f"of {', '.join(WAYS)}")
    parser.add_argument("--bins", type=int, default=_BINS)
    parser.add_argument("--queries", type=int, default=_QUERIES)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="a made-up set of 2,000 vectors: only whether it runs")
    parser.add_argument("--markdown", action="store_true", help="tables in markdown")
    parser.add_argument("--out", type=Path, help="where results go; default: bench/results if all is measured")
    parser.add_argument("--show", type=Path, metavar="RESULTS", help="the tables of an earlier run")
    given = parser.parse_args(arguments)
    given.is_whole = not given.quick and all(
        getattr(given, name) == parser.get_default(name) for name in ("sets", "ways", "bins", "queries", "seed")
    )
    if given.quick:
        given.sets, given.bins, given.queries = "tiny", _QUICK_BINS, _QUICK_QUERIES
    for name, choices in (("sets", SETS), ("ways", WAYS)):
        chosen = getattr(given, name).split(",")
        unknown = [one for one in chosen if one not in choices]
        if unknown:
            parser.error(f"unknown {name}: {', '.join(unknown)}; choose from {', '.join(choices)}")
        setattr(given, name, chosen)
    return given
