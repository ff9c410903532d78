"""Results of `bench db` as one picture: query latency above, size and load below. vecdb in colour, the others in grey."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")  # no screen is needed

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter

from bench.systems.base import TITLES

Line = dict[str, Any]

OWN, _OTHER, INK, FAINT = "#0f766e", "#9aa3ad", "#1f2933", "#e4e7eb"
_LATENCIES = ("vector", "filtered_10", "filtered_01", "text", "hybrid")
STYLE: dict[Any, Any] = {
    "font.family": "sans-serif",
    "font.size": 9,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": FAINT,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "xtick.color": "#52606d",
    "ytick.color": INK,
    "ytick.major.size": 0,
    "svg.fonttype": "none",
}
_LARGEST_SVG = 200_000


def draw(lines: Sequence[Line], folder: Path) -> Path:
    """Write folder/db.png, and db.svg beside it unless that is large; returns the PNG's path."""
    lines = [line for line in lines if line["columns"]]
    folder.mkdir(parents=True, exist_ok=True)
    with plt.rc_context(STYLE):
        figure: Any = plt.figure(figsize=(12.5, 2.4 + 0.62 * len(lines)), layout="constrained")
        upper, lower = figure.subfigures(2, 1, hspace=0.04)
        _draw_latencies(list(upper.subplots(1, len(_LATENCIES), sharey=True, sharex=True)), lines)
        upper.suptitle(_headline(lines), x=0.008, ha="left", fontsize=11, fontweight="bold")
        _draw_costs(list(lower.subplots(1, 4, sharey=True)), lines)
        figure.supxlabel(_footnote(lines), x=0.008, ha="left", fontsize=7.5, color="#52606d")
        png, svg = folder / "db.png", folder / "db.svg"
        figure.savefig(png, dpi=160)
        figure.savefig(svg)
        plt.close(figure)
    if svg.stat().st_size > _LARGEST_SVG:
        svg.unlink()
    return png


def _draw_latencies(axes: Sequence[Axes], lines: Sequence[Line]) -> None:
    """One panel a column: a dot at the median, a line to the 99th percentile, on one logarithmic scale."""
    for axis, column in zip(axes, _LATENCIES):
        for place, line in enumerate(lines):
            measured = line["columns"].get(column)
            if measured is None:
                axis.text(0.02, place, "not offered", transform=axis.get_yaxis_transform(), va="center", color=_OTHER)
                continue
            p50, p99 = measured["p50_ms"], measured["p99_ms"]
            axis.plot(
                [p50, p99], [place, place], color=_colour(line), linewidth=1.6, alpha=0.55, solid_capstyle="round"
            )
            axis.plot([p50], [place], "o", color=_colour(line), markersize=6.5)
            axis.annotate(
                _latency(line, measured), (p50, place), (0, 6), textcoords="offset points", ha="center", fontsize=8
            )
        axis.set_xscale("log")
        axis.margins(x=0.16)
        axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axis.grid(axis="x", color=FAINT)
        axis.set_axisbelow(True)
        axis.set_title(TITLES[column], loc="left", fontweight="bold", fontsize=9.5)
        axis.set_xlabel("ms, median to 99th percentile", fontsize=8)
    _name_rows(axes[0], lines)


def _draw_costs(axes: Sequence[Axes], lines: Sequence[Line]) -> None:
    panels: tuple[tuple[str, Callable[[Line], float]], ...] = (
        ("rows/s in (more is better)", lambda line: line["load"]["rows_per_s"]),
        ("until loaded and indexed, s", lambda line: line["load"]["load_s"] + line["load"]["index_s"]),
        ("first answer of a new process, ms", lambda line: line["open"]["first_ms"]),
        ("MB on disk", lambda line: line["size_mb"]["all"]),
    )
    for axis, (title, value_of) in zip(axes, panels):
        values = [value_of(line) for line in lines]
        axis.barh(range(len(lines)), values, color=[_colour(line) for line in lines], height=0.56)
        for place, value in enumerate(values):
            axis.annotate(_short(value), (value, place), (4, 0), textcoords="offset points", va="center", fontsize=8)
        axis.margins(x=0.18)
        axis.set_xlim(left=0)
        axis.set_title(title, loc="left", fontweight="bold", fontsize=9.5)
        axis.xaxis.set_visible(False)
        axis.spines["bottom"].set_visible(False)
    _name_rows(axes[0], lines)


def _name_rows(axis: Axes, lines: Sequence[Line]) -> None:
    axis.set_yticks(range(len(lines)), [line["system"] for line in lines])
    axis.set_ylim(len(lines) - 0.4, -0.7)  # the first line on top, room for its label
    for label, line in zip(axis.get_yticklabels(), lines):
        label.set_color(_colour(line) if line["system"] == "vecdb" else INK)
        label.set_fontweight("bold" if line["system"] == "vecdb" else "normal")


def _latency(line: Line, measured: dict[str, Any]) -> str:
    """The median; with the recall where it is so low that the times do not compare."""
    text = _short(measured["p50_ms"])
    low = measured.get("recall", 1.0) < line["plan"]["wanted_recall"] - 0.01
    return f"{text} (recall {measured['recall']:.2f})" if low else text


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}" if value < 10 else f"{value:.1f}"


def _colour(line: Line) -> str:
    return OWN if line["system"] == "vecdb" else _OTHER


def _headline(lines: Sequence[Line]) -> str:
    data = lines[0]["data"]
    return (
        f"One query in {data['rows']:,} records x {data['dimension']}: milliseconds at recall@10 of at least "
        f"{lines[0]['plan']['wanted_recall']}, one core"
    )


def _footnote(lines: Sequence[Line]) -> str:
    first = lines[0]
    machine = first["machine"]
    versions = ", ".join(f"{line['system']} {line['version']}" for line in lines)
    exact = [line["system"] for line in lines if not line["columns"].get("vector", {}).get("setting")]
    without_index = f" No vector index: {', '.join(exact)}." if exact else ""
    return (
        f"{first['data']['name']}; {machine['cpu']}, {machine['cores']} cores; commit {first['commit']}, {first['date'][:10]}; "
        f"{versions}.\nLoading and opening on all cores, files in the page cache. qdrant is its local mode.{without_index}"
    )
