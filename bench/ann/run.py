"""The command line of `python -m bench ann`."""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.ann.measure import Comparison, Plan, forget, say
from bench.ann.peers import PEERS
from bench.ann.report import notes, tables
from bench.machine import describe_run, result_path, results_folder, version_of
from bench.report import show_markdown, show_tables
from bench.vectors import SETS, load_set

_DEFAULT_SETS = ("fashion", "minilm", "sift", "gauss")


def main(arguments: Sequence[str]) -> int:
    given = _arguments(arguments)
    out = given.out or (given.show.parent if given.show else results_folder(whole=_is_whole(given)))
    lines = _read(given.show) if given.show else _measured(given, out)
    (show_markdown if given.markdown else show_tables)(tables(lines), notes(lines))
    _plot(lines, out)
    return 1 if any(line["failures"] for line in lines) else 0


def _measured(given: argparse.Namespace, out: Path) -> list[dict[str, Any]]:
    plan = Plan(
        peers=_chosen(given.peers),
        queries=min(given.queries, 500) if given.quick else given.queries,
        rounds=min(given.rounds, 2) if given.quick else given.rounds,
        quick=given.quick,
        all_threads=given.threads == "all",
        keep=given.keep,
    )
    missing = [name for name, peer in PEERS.items() if version_of(peer.distribution) is None]
    if missing:
        say(f"not installed: {', '.join(missing)}")
    described = {**describe_run("ann"), "missing": missing}
    path = result_path(out, "ann")
    lines: list[dict[str, Any]] = []
    for name in _names(given.sets, SETS, "set"):
        load_set(name)  # made now if need be, and not while something is measured
    with tempfile.TemporaryDirectory(prefix="bench-ann-") as folder:
        for name in _names(given.sets, SETS, "set"):
            comparison = Comparison(name, plan, Path(folder))
            comparison.measure()
            lines += comparison.lines(described)
            path.write_text(
                "".join(json.dumps(line) + "\n" for line in lines)
            )  # a long run that breaks off leaves these
            forget(Path(folder) / name)
    say(f"results: {path}")
    return lines


def _chosen(names: str | None) -> tuple[str, ...]:
    """The peers asked for; by default all that are installed."""
    if names is None:
        return tuple(name for name, peer in PEERS.items() if version_of(peer.distribution))
    chosen = _names(names, PEERS, "peer")
    for name in chosen:
        if version_of(PEERS[name].distribution) is None:
            raise SystemExit(f"{name} is not installed: pip install {PEERS[name].distribution}")
    return chosen


def _names(given: str, known: Sequence[str] | dict[str, Any], kind: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in given.split(","))
    for name in names:
        if name not in known:
            raise SystemExit(f"unknown {kind} {name!r}; choose from {', '.join(known)}")
    return names


def _is_whole(given: argparse.Namespace) -> bool:
    everything = tuple(given.sets.split(",")) == _DEFAULT_SETS and not given.peers and given.threads == "all"
    return everything and not given.quick


def _read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def _plot(lines: list[dict[str, Any]], out: Path) -> None:
    try:
        from bench.ann.plot import draw
    except ImportError as error:
        say(f"no plot, {error.name} is not installed: pip install matplotlib")
        return
    say(f"plot: {draw(lines, out)}")


def _arguments(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench ann", description="vecdb's graph index and other libraries' at equal recall"
    )
    parser.add_argument("--sets", default=",".join(_DEFAULT_SETS), help=f"of {','.join(SETS)}; default: %(default)s")
    parser.add_argument("--peers", help=f"of {','.join(PEERS)}; default: all that are installed")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--queries", type=int, default=2_000, help="of each set; default: %(default)s")
    parser.add_argument(
        "--threads", choices=("1", "all"), default="all", help="1: leave out the searches with all processors"
    )
    parser.add_argument("--quick", action="store_true", help="500 queries, 2 rounds, fewer settings")
    parser.add_argument(
        "--keep",
        action="store_true",
        help="keep the other libraries' indexes in bench/cache/ann, and use those kept there",
    )
    parser.add_argument("--markdown", action="store_true", help="print the tables as markdown")
    parser.add_argument("--out", type=Path, help="where results and plot go; default: bench/results if all is measured")
    parser.add_argument(
        "--show", type=Path, metavar="RESULTS", help="measure nothing: tables and plot of an earlier run"
    )
    return parser.parse_args(arguments)
