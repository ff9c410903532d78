"""The command line of `python -m bench learned groups`."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from bench.command import options, run, several
from bench.learned.group_sets import IMAGES, SESSIONS, TEXTS
from bench.learned.group_study import crowd, study
from bench.learned.group_ways import WAYS
from bench.report import Cell, Table

SETS = (IMAGES, SESSIONS, *TEXTS)
_COLOURS = ("#0b6e4f", "#7bc8a4", "#5b5bd6", "#999999", "#c77d17", "#b3001b")


def main(arguments: Sequence[str]) -> int:
    given = _arguments(arguments)
    return run(given, "learned-groups", _measured(given), tables, draw=draw)


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
    several(parser, "sets", SETS)
    parser.add_argument("--seed", type=int, default=0)
    return options(parser, arguments)
