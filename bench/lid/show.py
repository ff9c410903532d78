"""Results of `bench lid` as tables, on the screen or in markdown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bench.lid.curves import RECALLS, Comparison, Spread, compare
from bench.lid.orders import ORDERS

Line = dict[str, Any]

# Pairs of orders whose difference is the question.
PAIRS = (("lid_desc", "lid_asc"), ("lid_desc", "random"), ("random", "clustered"), ("random", "given"))


@dataclass(frozen=True)
class Table:
    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def print_tables(lines: Sequence[Line], *, markdown: bool) -> None:
    for table in tables(lines):
        if markdown:
            _print_markdown(table)
        else:
            _print_rich(table)


def tables(lines: Sequence[Line]) -> list[Table]:
    """The tables that these results allow."""
    compared = compare(lines)
    made = [_recalls(one) for one in compared] + [_costs(one) for one in compared]
    if compared:
        made.append(_gaps(compared))
    made += [_lid(chosen)] if (chosen := [line for line in lines if line["part"] == "lid"]) else []
    made += [_dimensions(chosen)] if (chosen := [line for line in lines if line["part"] == "dimension"]) else []
    return made


def by_dimension(lines: Sequence[Line]) -> dict[int, dict[str, Spread]]:
    """Recall, distances and mean LID of the sets of known dimension, over seeds."""
    found = {}
    for latent in sorted({line["latent"] for line in lines}):
        these = [line for line in lines if line["latent"] == latent]
        found[latent] = {
            "recall": Spread.of([line["points"][0]["recall"] for line in these]),
            "work": Spread.of([line["points"][0]["work"] for line in these]),
            "lid": Spread.of([line["lid_mean"] for line in these]),
        }
    return found


def _recalls(one: Comparison) -> Table:
    header = ("order", *(f"{work:,.0f}" if np.isfinite(work) else "-" for work in one.works))
    rows = tuple((order, *(_spread(spread, "{:.4f}") for spread in one.recalls[order])) for order in _orders(one))
    seeds = one.recalls["random"][0].count
    return Table(f"{one.name}, {one.engine}: recall@10 at equal distances a query, {seeds} seeds", header, rows)


def _costs(one: Comparison) -> Table:
    header = ("order", *(f"recall {recall}" for recall in RECALLS))
    rows = tuple((order, *(_spread(spread, "{:.3f}") for spread in one.costs[order])) for order in _orders(one))
    return Table(f"{one.name}, {one.engine}: distances over those of the random order", header, rows)


def _gaps(compared: Sequence[Comparison]) -> Table:
    rows = []
    for one in compared:
        cells = []
        for better, worse in PAIRS:
            if better in one.recalls and worse in one.recalls:
                points, in_sds = one.gap(better, worse)
                cells.append(f"{100 * points:+.2f} ({in_sds:+.1f} sd)")
            else:
                cells.append("-")
        rows.append((f"{one.name}, {one.engine}", *cells))
    header = ("set, engine", *(f"{better} - {worse}" for better, worse in PAIRS))
    return Table("Largest difference in recall at equal distances, in points", header, tuple(rows))


def _lid(lines: Sequence[Line]) -> Table:
    ks = [entry["k"] for entry in lines[0]["by_k"]]
    header = ("set", "mean", "median", "5 % to 95 %", *(f"mean, rank corr. at k={k}" for k in ks))
    rows = tuple(
        (
            line["data"]["name"],
            f"{line['mean']:.1f}",
            f"{line['median']:.1f}",
            f"{line['p5']:.1f} to {line['p95']:.1f}",
            *(f"{entry['mean']:.1f}, {entry['rank_correlation']:.3f}" for entry in line["by_k"]),
        )
        for line in lines
    )
    return Table(f"Local intrinsic dimensionality, k={lines[0]['lid_k']}", header, rows)


def _dimensions(lines: Sequence[Line]) -> Table:
    header = ("dimension", "mean LID", "recall@10", "distances")
    rows = tuple(
        (
            str(latent),
            _spread(of["lid"], "{:.1f}"),
            _spread(of["recall"], "{:.4f}"),
            _spread(of["work"], "{:,.0f}"),
        )
        for latent, of in by_dimension(lines).items()
    )
    data, ef = lines[0]["data"], lines[0]["points"][0]["ef"]
    title = f"{data['rows']:,} points of known dimension in R^{data['dimension']}, ef={ef}"
    return Table(title, header, rows)


def _orders(one: Comparison) -> list[str]:
    return [order for order in ORDERS if order in one.recalls]


def _spread(spread: Spread, form: str) -> str:
    if not np.isfinite(spread.mean):
        return "-"
    return f"{form.format(spread.mean)} ± {form.format(spread.sd)}"


def _print_rich(table: Table) -> None:
    from rich.console import Console
    from rich.table import Table as RichTable

    console = Console(width=None if Console().is_terminal else 150)
    rich = RichTable(title=table.title, title_justify="left", title_style="bold")
    for number, name in enumerate(table.header):
        rich.add_column(name, justify="left" if number == 0 else "right")
    for row in table.rows:
        rich.add_row(*row)
    console.print(rich)


def _print_markdown(table: Table) -> None:
    print(f"**{table.title}**\n")
    print("| " + " | ".join(table.header) + " |")
    print("|" + "|".join([" :--- "] + [" ---: "] * (len(table.header) - 1)) + "|")
    for row in table.rows:
        print("| " + " | ".join(row) + " |")
    print()
