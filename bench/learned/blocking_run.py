"""The command line of `python -m bench learned blocking`."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence

from bench.command import options, run, several
from bench.learned.blocking import MINHASH, WAYS, study
from bench.learned.blocking_show import draw, tables
from bench.learned.er_sets import NAMES, load_er
from bench.report import Line
from vecdb.blocking import HashConfig


def main(arguments: Sequence[str]) -> int:
    given = _arguments(arguments)
    return run(given, "learned blocking", _measured(given), tables, draw=draw, file="blocking")


def _measured(given: argparse.Namespace) -> Iterator[Line]:
    for name in given.sets:
        config = HashConfig(seed=given.seed)
        yield from study(load_er(name, given.seed), given.ways, config, tune=given.tune_encoder)


def _arguments(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench learned blocking", description=__doc__)
    several(parser, "sets", NAMES)
    several(parser, "ways", (*WAYS, MINHASH), between=";")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--tune-encoder", action="store_true", help="train encoders that are not kept yet: minutes for each fold"
    )
    return options(parser, arguments, beside=("tune_encoder",))
