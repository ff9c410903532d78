"""Results of `bench lid` as one picture: what each order gains or loses against the random one, and recall by dimension."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")  # no screen is needed

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes

from bench.lid.curves import RECALLS, Comparison, compare
from bench.lid.orders import ORDERS
from bench.lid.show import by_dimension

Line = dict[str, Any]

_COLOURS = {
    "given": "#9aa3ad",
    "random": "#1f2933",
    "lid_asc": "#d97706",
    "lid_desc": "#0f766e",
    "clustered": "#b91c1c",
}
_FAINT = "#e4e7eb"
_TITLES = {"batched": "in batches", "single": "one at a time", "hnswlib": "hnswlib, one at a time"}
_STYLE: dict[Any, Any] = {
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.edgecolor": _FAINT,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "svg.fonttype": "none",
}


def draw(lines: Sequence[Line], folder: Path) -> Path:
    """Write folder/lid.png; returns its path."""
    compared = compare(lines)
    of_dimension = [line for line in lines if line["part"] == "dimension"]
    engines = list(dict.fromkeys(one.engine for one in compared))
    names = list(dict.fromkeys(one.name for one in compared))
    high, wide = max(1, len(engines)), len(names) + bool(of_dimension)
    with plt.rc_context(_STYLE):
        figure, grid = plt.subplots(
            high,
            max(1, wide),
            figsize=(max(7.5, 1 + 3.6 * wide), 0.6 + 2.5 * high),
            squeeze=False,
            layout="constrained",
        )
        for axis in grid.flat:
            axis.set_visible(False)
        for one in compared:
            _draw_orders(grid[engines.index(one.engine), names.index(one.name)], one)
        _same_scale([axis for axis in grid[:, : len(names)].flat if axis.get_visible()])
        if of_dimension:
            _draw_dimensions(grid[0, -1], of_dimension)
        drawn = [plt.Line2D([], [], color=_COLOURS[order], marker="o", markersize=3, label=order) for order in ORDERS]
        figure.legend(handles=drawn, loc="outside upper left", ncols=len(ORDERS), frameon=False)
        figure.supxlabel(_footnote(lines), x=0.008, ha="left", fontsize=7, color="#52606d")
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "lid.png"
        figure.savefig(path, dpi=150)
        plt.close(figure)
    return path


def _draw_orders(axis: Axes, one: Comparison) -> None:
    """At the distances with which the random order has a recall: the others' recall minus that, in points, and one sd."""
    axis.set_visible(True)
    places = np.arange(len(RECALLS))
    for number, order in enumerate(order for order in ORDERS if order in one.recalls):
        spreads = one.recalls[order]
        gain = np.array([100 * (spread.mean - random.mean) for spread, random in zip(spreads, one.recalls["random"])])
        sd = np.array([100 * spread.sd for spread in spreads])
        shifted = places + 0.07 * (number - 2)  # so that error bars stand beside each other
        axis.errorbar(
            shifted, gain, yerr=sd, color=_COLOURS[order], marker="o", markersize=3, linewidth=1.3, elinewidth=0.8
        )
    axis.set_xticks(places, [f"{recall:g}" for recall in RECALLS])
    axis.grid(axis="y", color=_FAINT)
    axis.set_axisbelow(True)
    axis.set_title(f"{one.name}: {_TITLES[one.engine]}", loc="left", fontweight="bold", fontsize=9.5)
    axis.set_xlabel("recall@10 of the random order", fontsize=8)
    axis.set_ylabel("points of recall, equal distances", fontsize=8)


def _same_scale(axes: Sequence[Axes]) -> None:
    """One scale for all panels: a difference that looks large in one is large in all."""
    limits = [axis.get_ylim() for axis in axes]
    for axis in axes:
        axis.set_ylim(min(low for low, _ in limits), max(high for _, high in limits))


def _draw_dimensions(axis: Axes, lines: Sequence[Line]) -> None:
    axis.set_visible(True)
    found = by_dimension(lines)
    spreads = [of["recall"] for of in found.values()]
    axis.errorbar(
        list(found),
        [spread.mean for spread in spreads],
        yerr=[spread.sd for spread in spreads],
        color=_COLOURS["lid_desc"],
        marker="o",
        markersize=4,
    )
    axis.set_xscale("log", base=2)
    axis.set_xticks(list(found), [str(latent) for latent in found])
    axis.minorticks_off()
    axis.grid(axis="y", color=_FAINT)
    axis.set_title(f"recall@10 at ef={lines[0]['points'][0]['ef']}", loc="left", fontweight="bold", fontsize=9.5)
    axis.set_xlabel(
        f"dimension of {lines[0]['data']['rows']:,} points in R^{lines[0]['data']['dimension']}", fontsize=8
    )


def _footnote(lines: Sequence[Line]) -> str:
    first = lines[0]
    machine = first["machine"]
    return (
        f"Mean over seeds; bars: one standard deviation. Commit {first['commit']}, {first['date'][:10]}; "
        f"hnswlib {first['hnswlib']}; {machine['cpu']}."
    )
