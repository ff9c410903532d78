"""The command line of `python -m bench learned blocking`."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from bench.learned.blocking import MINHASH, WAYS, study
from bench.learned.blocking_show import draw, report
from bench.learned.er_sets import NAMES, load_er
from bench.machine import describe_run, result_path, results_folder
from vecdb.blocking import HashConfig


def main(arguments: Sequence[str]) -> int:
    given = _arguments(arguments)
    if given.show is not None:
        report([json.loads(line) for line in given.show.read_text().splitlines()], markdown=given.markdown)
        return 0
    path = result_path(given.out or results_folder(whole=given.is_whole), "blocking")
    config = HashConfig(seed=given.seed)
    lines = []
    with path.open("w") as results:
        for name in given.sets:
            for line in study(load_er(name, given.seed), given.ways, config, tune=given.tune_encoder):
                lines.append(describe_run("learned blocking") | line)
                results.write(json.dumps(lines[-1]) + "\n")
                results.flush()
                print(f"{name}: {line['way']}", file=sys.stderr)
    report(lines, markdown=given.markdown)
    if find_spec("matplotlib") is not None:
        draw(lines, path.with_suffix(".png"))
    print(path, file=sys.stderr)
    return 0


def _arguments(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench learned blocking", description=__doc__)
    ways = (*WAYS, MINHASH)
    parser.add_argument("--sets", default=",".join(NAMES), help=f"of {', '.join(NAMES)}")
    parser.add_argument("--ways", default=";".join(ways), help=f"by semicolons, of {'; '.join(ways)}")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--tune-encoder", action="store_true", help="train encoders that are not kept yet: minutes for each fold"
    )
    parser.add_argument("--markdown", action="store_true", help="tables in markdown")
    parser.add_argument("--out", type=Path, help="where results go; default: bench/results if all is measured")
    parser.add_argument("--show", type=Path, metavar="RESULTS", help="the tables of an earlier run")
    given = parser.parse_args(arguments)
    given.is_whole = all(getattr(given, name) == parser.get_default(name) for name in ("sets", "ways", "seed"))
    for name, choices, between in (("sets", NAMES, ","), ("ways", ways, ";")):
        chosen = getattr(given, name).split(between)
        unknown = [one for one in chosen if one not in choices]
        if unknown:
            parser.error(f"unknown {name}: {', '.join(unknown)}; choose from {', '.join(choices)}")
        setattr(given, name, chosen)
    return given
