"""The command line of `python -m bench learned groups`."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from bench.learned.group_sets import IMAGES, SESSIONS, TEXTS
from bench.learned.group_study import crowd, study
from bench.learned.group_ways import WAYS
from bench.machine import describe_run, result_path, results_folder
from bench.report import Cell, Table, show_markdown, show_tables

SETS = (IMAGES, SESSIONS, *TEXTS)
_COLOURS = ("#0b6e4f", "#7bc8a4", "#5b5bd6", "#999999", "#c77d17", "#b3001b")


def main(arguments: Sequence[str]) -> int:
    given = _arguments(arguments)
    if given.show is not None:
        report([json.loads(line) for line in given.show.read_text().splitlines()], markdown=given.markdown)
        return 0
    path = result_path(given.out or results_folder(whole=given.is_whole), "learned-groups")
    lines: list[dict[str, Any]] = []
    with path.open("w") as results:
        for line in _measured(given):
            lines.append(describe_run("learned-groups") | line)
            results.write(json.dumps(lines[-1]) + "\n")
            results.flush()
            print(f"{line['data']['name']}: {line['way']}", file=sys.stderr)
    report(lines, markdown=given.markdown)
    if find_spec("matplotlib") is not None:
        draw(lines, path.with_suffix(".png"))
    print(path, file=sys.stderr)
    return 0


def _measured(given: argparse.Namespace) -> Iterator[dict[str, Any]]:
    for name in given.sets:
        yield from study(name, list(WAYS), given.seed)
        if name == TEXTS[0]:
            yield crowd(name, given.seed)


def tables(lines: Sequence[dict[str, Any]]) -> list[Table]:
    made = []
    header = ("way", "AP@10", "recall@10", "% of distances", "exact better in AP@10 by", "in recall@10 by")
    for name in dict.fromkeys(line["data"]["name"] for line in lines):
        mine = [line for line in lines if line["data"]["name"] == name and line["part"] == "groups"]
        data = mine[0]["data"]
        title = f"{name}: {data['rows']:,} x {data['dimension']} in {data['groups']} groups, {data['queries']} queries"
        made.append(Table(f"{title} of {data['vectors_a_query']:.1f} vectors", header, tuple(map(_row, mine))))
    crowds = [line for line in lines if line["part"] == "crowd"]
    if crowds:
        rows = [
            (
                Cell(line["data"]["name"]),
                *(Cell(f"{line['kept'][way]:.2f}") for way in ("exact", "index", "grids", "plain")),
            )
            for line in crowds
        ]
        title = "one more group, of 5,000 near copies: share of the ten best groups that are still found"
        made.append(Table(title, ("set", "exact", "index", "grids", "groups in the nearest 100 / 10"), tuple(rows)))
    return made


def _row(line: dict[str, Any]) -> tuple[Cell, ...]:
    gaps = [line["oracle_minus"].get(measure) for measure in ("ap", "recall")]
    return (
        Cell(line["way"]),
        Cell(f"{line['ap']:.3f}", -line["ap"]),
        Cell(f"{line['recall']:.3f}", -line["recall"]),
        Cell(f"{100 * line['work']:.2f}"),
        *(Cell("" if gap is None else f"{gap[0]:+.3f} [{gap[1]:+.3f}, {gap[2]:+.3f}]") for gap in gaps),
    )


def report(lines: Sequence[dict[str, Any]], *, markdown: bool) -> None:
    (show_markdown if markdown else show_tables)(tables(lines), ())


def draw(lines: Sequence[dict[str, Any]], path: Path) -> None:
    """Recall@10 against the share of distances, of each way on each set."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    names = list(dict.fromkeys(line["data"]["name"] for line in lines if line["part"] == "groups"))
    figure, axes = pyplot.subplots(1, len(names), figsize=(3.2 * len(names), 3.4), squeeze=False)
    for axis, name in zip(axes[0], names):
        for line, colour in zip(
            (li for li in lines if li["data"]["name"] == name and li["part"] == "groups"), _COLOURS
        ):
            axis.scatter(100 * line["work"], line["recall"], color=colour, label=line["way"])
        axis.set(xscale="log", title=name, xlabel="% of all distances")
        axis.grid(alpha=0.3)
    axes[0][0].set_ylabel("recall@10")
    axes[0][0].legend(fontsize=6)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def _arguments(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench learned groups", description=__doc__)
    parser.add_argument("--sets", default=",".join(SETS), help=f"of {', '.join(SETS)}")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--markdown", action="store_true", help="tables in markdown")
    parser.add_argument("--out", type=Path, help="where results go; default: bench/results if all is measured")
    parser.add_argument("--show", type=Path, metavar="RESULTS", help="the tables of an earlier run")
    given = parser.parse_args(arguments)
    given.is_whole = all(getattr(given, name) == parser.get_default(name) for name in ("sets", "seed"))
    chosen = given.sets.split(",")
    unknown = [one for one in chosen if one not in SETS]
    if unknown:
        parser.error(f"unknown sets: {', '.join(unknown)}; choose from {', '.join(SETS)}")
    given.sets = chosen
    return given
