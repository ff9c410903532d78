"""The command line of `python -m bench grank`."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import asdict

from bench.command import options, run
from bench.grank.data import load
from bench.grank.show import notes, tables
from bench.grank.study import study
from bench.report import Line
from vecdb.recommender import GRankConfig, Recipe

CONFIG = GRankConfig(long=100)
RECIPE = Recipe(epochs=4, in_batch=100, sampled=200, places=2, candidates=24, rate=0.003, dropout=0.2, patience=4)
_QUICK_CONFIG = GRankConfig(dimension=8, layers=1, heads=1, short=6, long=8)
_QUICK_RECIPE = Recipe(
    epochs=4, windows=8, in_batch=10, sampled=20, places=4, candidates=10, rate=0.01, dropout=0.0, patience=4
)


def main(arguments: Sequence[str]) -> int:
    given = _arguments(arguments)
    return run(given, "grank", _measured(given), tables, notes=notes)


def _measured(given: argparse.Namespace) -> Iterator[Line]:
    config, recipe = (_QUICK_CONFIG, _QUICK_RECIPE) if given.quick else (CONFIG, RECIPE)
    split = load("chains" if given.quick else "movielens")
    head = {"config": asdict(config), "recipe": asdict(recipe)}
    yield from (head | line for line in study(split, config, recipe, list(range(given.seeds))))


def _arguments(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench grank", description=__doc__)
    parser.add_argument("--seeds", type=int, default=3, help="of the trained ways")
    parser.add_argument("--quick", action="store_true", help="a made-up set of 40 users: only whether it runs")
    given = options(parser, arguments)
    if given.seeds < 1:
        parser.error("--seeds must be at least 1")
    return given
