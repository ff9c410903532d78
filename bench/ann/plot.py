"""Results of `bench ann` as one picture: recall against queries per second, a panel a set. vecdb thick, the others thin."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator
from numpy.typing import NDArray

from bench.ann.figures import front
from bench.ann.peers import PEERS
from bench.ann.report import sets_of
from bench.plot import FAINT, OWN, STYLE  # chooses the backend: no screen is needed

Line = dict[str, Any]

_RECALLS = (0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.999)
_LEAST = 0.79
_MOST = 0.9995  # a recall of 1 has no place on a scale of what is missing
_COLOURS = ("#b45309", "#1d4ed8", "#be185d", "#6d28d9", "#4d7c0f", "#64748b")
_LINES = ("-", "--", ":")


def draw(lines: Sequence[Line], folder: Path, mode: str = "batch") -> Path:
    """Write folder/ann.png; returns its path."""
    names = sets_of(lines)
    folder.mkdir(parents=True, exist_ok=True)
    columns = min(2, len(names))
    rows = -(-len(names) // columns)
    with plt.rc_context(STYLE):
        figure, grid = plt.subplots(
            rows, columns, figsize=(2.2 + 5.4 * columns, 0.6 + 3.9 * rows), layout="constrained", squeeze=False
        )
        axes = list(grid.flat)
        for axis, name in zip(axes, names):
            _draw_set(axis, [line for line in lines if line["set"]["name"] == name and line["modes"].get(mode)], mode)
        for axis in axes[len(names) :]:
            axis.set_visible(False)
        handles = {handle.get_label(): handle for axis in axes for handle in axis.get_lines()}
        figure.legend(handles.values(), handles.keys(), loc="outside right upper", frameon=False, fontsize=8)
        figure.supxlabel(_footnote(lines, 95 * columns), x=0.008, ha="left", fontsize=7.5, color="#52606d")
        path = folder / "ann.png"
        figure.savefig(path, dpi=160)
        plt.close(figure)
    return path


def _draw_set(axis: Any, lines: Sequence[Line], mode: str) -> None:
    of_set = lines[0]["set"] if lines else {"name": "", "rows": 0, "dimension": 0, "metric": ""}
    drawn = {line["peer"]: [p for p in front(line["modes"][mode]) if p["recall"] >= _LEAST] for line in lines}
    for peer, points in drawn.items():
        recalls = np.minimum([point["recall"] for point in points], _MOST)
        axis.plot(recalls, [point["qps"] for point in points], label=peer, **_look(peer))
    axis.set_xscale("function", functions=(_missing, _having))
    axis.set_xlim(_LEAST, _MOST)
    axis.set_xticks(_RECALLS, [f"{recall:g}" for recall in _RECALLS], minor=False)
    if any(drawn.values()):
        axis.set_yscale("log")
        axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.yaxis.set_major_formatter(FuncFormatter(lambda qps, _: f"{qps / 1_000:g}k"))
        axis.yaxis.set_minor_locator(NullLocator())
    axis.grid(color=FAINT)
    axis.set_axisbelow(True)
    axis.set_title(
        f"{of_set['name']}  {of_set['rows']:,} x {of_set['dimension']}, {of_set['metric']}",
        loc="left",
        fontweight="bold",
        fontsize=9.5,
    )
    axis.set_xlabel("recall@10", fontsize=8)
    axis.set_ylabel("queries per second, one thread", fontsize=8)


def _look(peer: str) -> dict[str, Any]:
    if peer == "vecdb":
        return {"color": OWN, "linewidth": 2.8, "marker": "o", "markersize": 5, "zorder": 5}
    place = list(PEERS).index(peer) - 1
    style = _LINES[place // len(_COLOURS) % len(_LINES)]
    return {
        "color": _COLOURS[place % len(_COLOURS)],
        "linestyle": style,
        "linewidth": 1.2,
        "marker": ".",
        "alpha": 0.85,
    }


def _missing(recall: NDArray[np.float64]) -> NDArray[np.float64]:
    """Equal steps for equal factors of what is missing, so that .99 and .999 do not fall together."""
    return -np.log10(np.maximum(1.0 - recall, 1e-6))


def _having(place: NDArray[np.float64]) -> NDArray[np.float64]:
    return 1.0 - 10.0**-place


def _footnote(lines: Sequence[Line], width: int) -> str:
    first = lines[0]
    versions = ", ".join(dict.fromkeys(f"{line['peer']} {line['version']}" for line in lines))
    where = f"{first['machine']['cpu']}; commit {first['commit']}, {first['date'][:10]}"
    return textwrap.fill(f"Median of rounds in turns, one batch call. {where}; {versions}.", width)
