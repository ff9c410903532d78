"""The command line of `python -m bench lid`."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from bench.command import options, several
from bench.lid.engines import ENGINES
from bench.lid.orders import ORDERS
from bench.lid.show import print_tables
from bench.lid.study import DIMENSIONS, study_dimension, study_set
from bench.machine import describe_run, result_path, results_folder, version_of
from bench.vectors import SETS, VectorSet, exact_neighbours, load_set

_SETS = ("fashion", "minilm", "sift")
_QUERIES = 1_000
_SEEDS = {"batched": 5, "single": 3, "hnswlib": 5}  # a graph built one by one takes as long as four others
_DIMENSION_ROWS, _DIMENSION_SEEDS = 20_000, 3
# A look whether everything works: says nothing about any order.
_QUICK_DIMENSIONS, _QUICK_ROWS, _QUICK_SEEDS = (2, 16), 2_000, 2


def main(arguments: Sequence[str]) -> int:
    given = _arguments(arguments)
    if given.show is not None:
        lines = [json.loads(line) for line in given.show.read_text().splitlines()]
        _report(lines, given.out or given.show.parent, given.markdown)
        return 0
    path = result_path(given.out or results_folder(whole=given.is_whole), "lid")
    described = describe_run("lid") | {"hnswlib": version_of("hnswlib")}
    lines = []
    begun = time.perf_counter()
    with path.open("w") as results:
        for line in _measured(given):
            lines.append(described | line)
            results.write(json.dumps(lines[-1]) + "\n")
            results.flush()  # a run takes hours: what is measured is kept
            print(f"{time.perf_counter() - begun:7.0f} s  {_named(line)}", file=sys.stderr)
    _report(lines, path.parent, given.markdown)
    print(path, file=sys.stderr)
    return 0


def _measured(given: argparse.Namespace) -> Iterator[dict[str, Any]]:
    for name in given.sets:
        yield from study_set(_load(name, given.rows, given.queries), given.engines, given.orders, given.seeds)
    if not given.no_dimension:
        if given.quick:
            yield from study_dimension(_QUICK_ROWS, given.queries, 1, _QUICK_DIMENSIONS)
        else:
            yield from study_dimension(_DIMENSION_ROWS, given.queries, _DIMENSION_SEEDS, DIMENSIONS)


def _load(name: str, rows: int | None, queries: int) -> VectorSet:
    """The set in memory, with queries spread over all of its own; of its first rows only, if a number is given."""
    whole = load_set(name)
    asked = np.unique(np.linspace(0, len(whole.queries) - 1, queries).astype(np.int64))
    base, asking = np.array(whole.base[:rows]), np.array(whole.queries[asked])
    truth, distances = whole.truth[asked], whole.distances[asked]
    if len(base) < len(whole.base):
        truth, distances = exact_neighbours(base, asking, whole.metric)
    return VectorSet(name, whole.metric, base, asking, np.array(truth), np.array(distances))


def _report(lines: Sequence[dict[str, Any]], folder: Path, markdown: bool) -> None:
    print_tables(lines, markdown=markdown)
    if find_spec("matplotlib") is None:
        print("no picture: pip install matplotlib", file=sys.stderr)
        return
    from bench.lid.plot import draw

    print(draw(lines, folder), file=sys.stderr)


def _named(line: dict[str, Any]) -> str:
    if line["part"] == "order":
        return f"{line['data']['name']} {line['engine']} {line['order']} seed {line['seed']}: built in {line['build_s']:.1f} s"
    if line["part"] == "dimension":
        return f"dimension {line['latent']} seed {line['seed']}: recall {line['points'][0]['recall']:.3f}"
    return f"{line['data']['name']}: LID {line['mean']:.1f} on average"


def _arguments(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench lid", description=__doc__)
    several(parser, "sets", SETS, _SETS)
    several(parser, "engines", ENGINES)
    several(parser, "orders", ORDERS)
    parser.add_argument("--seeds", type=int, help=f"builds of each engine and order; default {_SEEDS}")
    parser.add_argument("--queries", type=int, default=_QUERIES)
    parser.add_argument("--rows", type=int, help="the first so many of each set; default all")
    parser.add_argument("--no-dimension", action="store_true", help="without the sets of known dimension")
    parser.add_argument("--quick", action="store_true", help="a made-up set of 2,000 vectors: only whether it runs")
    given = options(parser, arguments)
    if given.quick:
        given.sets, given.queries, given.seeds = ["tiny"], 100, given.seeds or _QUICK_SEEDS
    if "hnswlib" in given.engines and find_spec("hnswlib") is None:
        parser.error("hnswlib is not installed: pip install 'vecdb[hnswlib]', or leave it out of --engines")
    if given.seeds is not None and given.seeds < 1:
        parser.error("--seeds: at least one build of each")
    given.seeds = {engine: given.seeds or count for engine, count in _SEEDS.items()}
    return given
