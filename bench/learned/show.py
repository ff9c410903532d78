"""Tables and the picture of `python -m bench learned`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.report import Cell, Table

_COLOURS = ("#0b6e4f", "#7bc8a4", "#999999", "#c77d17", "#b3001b", "#5b5bd6")


def tables(lines: Sequence[dict[str, Any]]) -> list[Table]:
    made = []
    for name in dict.fromkeys(line["data"]["name"] for line in lines):
        mine = [line for line in lines if line["data"]["name"] == name]
        data = mine[0]["data"]
        rows = [_row(line) for line in mine if line["part"] == "partition"]
        header = (
            "way",
            "% scanned at recall .9",
            "95th percentile",
            "recall at 2 probes",
            "fullest bin / mean",
            "cut",
            "built in s",
        )
        title = f"{name}: {data['rows']:,} x {data['dimension']}, {data['bins']} bins, recall@10"
        made.append(Table(title, header, tuple(rows)))
        for line in mine:
            if line["part"] == "speed":
                cells = [
                    (Cell(way), Cell(f"{s['qps']:,.0f}", -s["qps"]), Cell(f"{s['recall']:.3f}"), Cell(str(s["probes"])))
                    for way, s in line["qps"].items()
                ]
                made.append(
                    Table(
                        f"{name}: queries per second, one thread, batch",
                        ("index", "q/s", "recall", "probes"),
                        tuple(cells),
                    )
                )
    return made


def _row(line: dict[str, Any]) -> tuple[Cell, ...]:
    at = line["at_wanted"]
    two = next((point["recall"] for point in line["points"] if point["probes"] == 2), None)
    return (
        Cell(line["way"]),
        *(Cell("–") if at is None else Cell(f"{100 * at[key]:.2f}", at[key]) for key in ("scanned", "scanned_p95")),
        Cell("–") if two is None else Cell(f"{two:.3f}", -two),
        Cell(f"{line['fullest']:.2f}"),
        Cell(f"{line['cut']:.3f}", line["cut"]),
        Cell(f"{line['build_s']:.0f}"),
    )


def draw(lines: Sequence[dict[str, Any]], path: Path) -> None:
    """Recall against the share of rows that is scanned: mean, and 95th percentile dashed."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    cuts = [line for line in lines if line["part"] == "partition"]
    names = list(dict.fromkeys(line["data"]["name"] for line in cuts))
    figure, axes = pyplot.subplots(1, len(names), figsize=(6.5 * len(names), 4.8), squeeze=False)
    for axis, name in zip(axes[0], names):
        for line, colour in zip((line for line in cuts if line["data"]["name"] == name), _COLOURS):
            recalls = [point["recall"] for point in line["points"]]
            axis.plot(
                [100 * p["scanned"] for p in line["points"]], recalls, color=colour, label=line["way"], marker="."
            )
            axis.plot(
                [100 * p["scanned_p95"] for p in line["points"]], recalls, color=colour, linestyle=":", linewidth=1
            )
        data = cuts[0]["data"]
        axis.set(
            xscale="log",
            xlabel="% of rows scanned (dotted: 95th percentile)",
            ylabel="recall@10",
            title=f"{name}, {data['bins']} bins",
        )
        axis.grid(alpha=0.3)
    axes[0][0].legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=130)
    pyplot.close(figure)
