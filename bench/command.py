"""The head of a command that writes each line of results as soon as it is measured, and shows all of them at the end."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path

from bench.machine import describe_run, result_path, results_folder
from bench.report import Line, Table, show_markdown, show_tables

_SHOWING = ("markdown", "out", "show")


def several(
    parser: argparse.ArgumentParser, name: str, known: Collection[str], usual: Iterable[str] = (), between: str = ","
) -> None:
    """An option --name that takes several of the known, or usual ones (all) where it is not given, as a list."""

    def chosen(text: str) -> list[str]:
        names = text.split(between)
        unknown = [one for one in names if one not in known]
        if unknown:
            raise argparse.ArgumentTypeError(f"unknown {name}: {', '.join(unknown)}; choose from {', '.join(known)}")
        return names

    default = between.join(usual or known)
    parser.add_argument(f"--{name}", type=chosen, default=default, help=f"of {f'{between} '.join(known)}")


def options(
    parser: argparse.ArgumentParser, arguments: Sequence[str], *, beside: Sequence[str] = ()
) -> argparse.Namespace:
    """The parser's options and those that all commands have; `is_whole`, whether what is measured is as by default. `beside`
    names options that say nothing of that. Exits where an option is wrong.
    """
    parser.add_argument("--markdown", action="store_true", help="tables in markdown")
    parser.add_argument("--out", type=Path, help="where results go; default: bench/results if all is measured")
    parser.add_argument("--show", type=Path, metavar="RESULTS", help="the tables of an earlier run")
    given, usual = vars(parser.parse_args(arguments)), vars(parser.parse_args([]))
    is_whole = all(given[name] == usual[name] for name in usual if name not in (*_SHOWING, *beside))
    return argparse.Namespace(**given, is_whole=is_whole)


def run(
    given: argparse.Namespace,
    name: str,
    measured: Iterable[Line],
    tables: Callable[[Sequence[Line]], Sequence[Table]],
    *,
    notes: Callable[[Sequence[Line]], Sequence[str]] = lambda lines: (),
    draw: Callable[[Sequence[Line], Path], None] | None = None,
    file: str | None = None,
) -> int:
    """Measure (`measured` is lazy: nothing is where an earlier run is shown), write, show, draw if matplotlib is installed.

    file: what the name of the file of results begins with; None: `name`, which each line has.
    """
    show = show_markdown if given.markdown else show_tables
    if given.show is not None:
        lines = [json.loads(line) for line in given.show.read_text().splitlines()]
        show(tables(lines), notes(lines))
        return 0
    path = result_path(given.out or results_folder(whole=given.is_whole), file or name)
    lines = list(_written(path, name, measured))
    show(tables(lines), notes(lines))
    if draw is not None and find_spec("matplotlib") is not None:
        draw(lines, path.with_suffix(".png"))
    print(path, file=sys.stderr)
    return 0


def _written(path: Path, name: str, measured: Iterable[Line]) -> Iterator[Line]:
    with path.open("w") as results:
        for line in measured:
            whole = describe_run(name) | line
            results.write(json.dumps(whole) + "\n")
            results.flush()
            print(f"{line['data']['name']}: {line.get('way') or line['part']}", file=sys.stderr)
            yield whole
