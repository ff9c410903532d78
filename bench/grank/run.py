"""The command line of `python -m bench grank`."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from bench.grank.data import load
from bench.grank.show import report
from bench.grank.study import study
from bench.machine import describe_run, result_path, results_folder
from vecdb.recommender import GRankConfig, Recipe

CONFIG = GRankConfig(long=100)
RECIPE = Recipe(epochs=4, in_batch=100, sampled=200, places=2, candidates=24, rate=0.003, dropout=0.2, patience=4)
_QUICK_CONFIG = GRankConfig(dimension=8, layers=1, heads=1, short=6, long=8)
_QUICK_RECIPE = Recipe(
    epochs=4, windows=8, in_batch=10, sampled=20, places=4, candidates=10, rate=0.01, dropout=0.0, patience=4
)


def main(arguments: Sequence[str]) -> int:
    given = _arguments(arguments)
    if given.show is not None:
        report([json.loads(line) for line in given.show.read_text().splitlines()], markdown=given.markdown)
        return 0
    path = result_path(given.out or results_folder(whole=given.is_whole), "grank")
    config, recipe = (_QUICK_CONFIG, _QUICK_RECIPE) if given.quick else (CONFIG, RECIPE)
    split = load("chains" if given.quick else "movielens")
    head = describe_run("grank") | {"config": asdict(config), "recipe": asdict(recipe)}
    lines = []
    with path.open("w") as results:
        for line in study(split, config, recipe, given.seeds):
            lines.append(head | line)
            results.write(json.dumps(lines[-1]) + "\n")
            results.flush()
    report(lines, markdown=given.markdown)
    print(path, file=sys.stderr)
    return 0


def _arguments(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench grank", description=__doc__)
    parser.add_argument("--seeds", type=int, default=3, help="of the trained ways")
    parser.add_argument("--quick", action="store_true", help="a made-up set of 40 users: only whether it runs")
    parser.add_argument("--markdown", action="store_true", help="tables in markdown")
    parser.add_argument("--out", type=Path, help="where results go; default: bench/results if all is measured")
    parser.add_argument("--show", type=Path, metavar="RESULTS", help="the tables of an earlier run")
    given = parser.parse_args(arguments)
    if given.seeds < 1:
        parser.error("--seeds must be at least 1")
    given.is_whole = not given.quick and given.seeds == parser.get_default("seeds")
    given.seeds = list(range(given.seeds))
    return given
