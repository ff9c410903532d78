"""Tables and the picture of `python -m bench learned blocking`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.report import Cell, Table

_COLOURS = ("#0b6e4f", "#7bc8a4", "#c77d17", "#e0b050", "#5b5bd6", "#999999", "#b3001b", "#333333", "#d277b0")
PUBLISHED_F1 = (
    91.6  # NLSHBlock on Abt-Buy, as transcribed by others: k = 1 there makes recall, precision and F1 nearly one number
)


def tables(lines: Sequence[dict[str, Any]]) -> list[Table]:
    made = []
    for name in dict.fromkeys(line["data"]["name"] for line in lines):
        mine = [line for line in lines if line["data"]["name"] == name]
        data = mine[0]["data"]
        title = f"{name}: {data['a']:,} x {data['b']:,} records, {data['matches']:,} matches, each tested once"
        header = (
            "way",
            "candidates at recall .95",
            "with a distance",
            "smallest k on the test",
            "F1 at recall .89",
            "k",
            "d(p,q) <= R and d(p,r) >= cR",
        )
        made.append(Table(title, header, tuple(_row(line) for line in mine)))
    return made


def _row(line: dict[str, Any]) -> tuple[Cell, ...]:
    at = line["candidates_at_wanted"]
    f1, check = line.get("f1"), line.get("loss_check")
    first = at.get("k", at.get("threshold"))
    return (
        Cell(
            line["way"]
            if line.get("folds", data_folds(line)) == data_folds(line)
            else f"{line['way']} ({line['folds']} parts)"
        ),
        *(
            Cell("–") if count is None else Cell(f"{count:,.0f}", count)
            for count in (first, at.get("k and distance"), at.get("smallest k"))
        ),
        Cell("–") if not f1 else Cell(f"{100 * f1['f1']:.1f}", -f1["f1"]),
        Cell("–") if not f1 else Cell(str(f1.get("k", "–"))),
        Cell("–") if check is None else Cell(f"{check['both']:.3f}", -check["both"]),
    )


def data_folds(line: dict[str, Any]) -> int:
    return int(line["data"]["folds"])


def draw(lines: Sequence[dict[str, Any]], path: Path) -> None:
    """Above, pair completeness against candidate ratio (dotted: with a distance beside k); below, distances of test triplets."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    names = list(dict.fromkeys(line["data"]["name"] for line in lines))
    ways = list(dict.fromkeys(line["way"] for line in lines))
    figure, axes = pyplot.subplots(2, len(names), figsize=(5.8 * len(names), 8.2), squeeze=False)
    for column, name in enumerate(names):
        axis, below = axes[0][column], axes[1][column]
        for line in (line for line in lines if line["data"]["name"] == name):
            colour = _COLOURS[ways.index(line["way"]) % len(_COLOURS)]
            for kind, style in (("k", "-"), ("threshold", "-"), ("k and distance", ":")):
                points = sorted((p["ratio"], p["recall"]) for p in line["curves"].get(kind, ()))
                if points:
                    label = line["way"] if style == "-" else None
                    axis.plot(*zip(*points), color=colour, linestyle=style, marker=".", label=label)
            if line["way"] in ("untrained code", "blocker") and "loss_check" in line:
                places = [0.05 * i + 0.025 for i in range(len(line["loss_check"]["near"]))]
                for which, dash in (("near", "-"), ("far", "--")):
                    shown = f"{line['way']}: {'matches' if which == 'near' else 'others'}"
                    below.plot(places, line["loss_check"][which], dash, color=colour, label=shown)
        axis.axhline(0.95, color="#cccccc", linewidth=1)
        axis.set(xscale="log", xlabel="candidates / all pairs", ylabel="pair completeness", title=name)
        axis.set_ylim(0.78, 1.005)
        below.set(xlabel="distance of codes, test triplets", ylabel="share")
        for one in (axis, below):
            one.grid(alpha=0.3)
    axes[0][0].legend(fontsize=7)
    axes[1][0].legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(path, dpi=130)
    pyplot.close(figure)
