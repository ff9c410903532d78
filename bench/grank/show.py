"""Tables of `python -m bench grank`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bench.report import Cell, Table

_SHOWN = ("generated R@500", "R@500", "R@50", "nDCG@50", "R@10", "nDCG@10")


def tables(lines: Sequence[dict[str, Any]]) -> list[Table]:
    data = lines[0]["data"]
    title = f"{data['name']}: {data['users']} users, {data['items']:,} items, {data['taken']:,} taken; whole catalogue"
    ways = [_way(line) for line in lines if line["part"] == "way"]
    made = [Table(title, ("way", *_SHOWN, "ms a user", "learning s", "epochs"), tuple(ways))]
    rows = [_difference(line) for line in lines if line["part"] == "difference"]
    made.append(
        Table("what is better than what, paired over users", ("", "by", "difference", "95 %", "p"), tuple(rows))
    )
    for line in lines:
        if line["part"] == "depth":
            points = [
                (
                    Cell(f"{p['candidates']:,}"),
                    Cell(f"{p['R@50']:.4f}"),
                    Cell(f"{p['ceiling']:.4f}"),
                    Cell(f"{p['ms']:.1f}"),
                )
                for p in line["points"]
            ]
            header = ("candidates", "R@50 after the ranker", "recall of the candidates", "ms a user")
            made.append(Table("how many candidates the ranker sees", header, tuple(points)))
    return made


def notes(lines: Sequence[dict[str, Any]]) -> tuple[str]:
    seeds = max(line["seeds"] for line in lines if line["part"] == "way")
    return (f"trained ways: mean of {seeds} seeds, ± standard deviation over them",)


def _way(line: dict[str, Any]) -> tuple[Cell, ...]:
    cells = [Cell(line["way"])]
    for name in _SHOWN:
        mean, sd = line["means"][name], line["sd"][name]
        cells.append(Cell(f"{mean:.4f}" + ("" if sd is None else f" ± {sd:.4f}"), -mean))
    epochs = "/".join(str(number) for number in line["epochs"]) if any(line["epochs"]) else "–"
    return (*cells, Cell(f"{line['ms']:.1f}"), Cell(f"{line['learning_s']:.0f}"), Cell(epochs))


def _difference(line: dict[str, Any]) -> tuple[Cell, ...]:
    return (
        Cell(f"{line['better']} – {line['worse']}"),
        Cell(line["measure"]),
        Cell(f"{line['difference']:+.4f}"),
        Cell(f"{line['low']:+.4f} … {line['high']:+.4f}"),
        Cell(f"{line['p']:.4f}"),
    )
