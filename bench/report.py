"""Results of `bench db` as tables: on the screen, or in markdown for a README."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from bench.systems.base import COLUMNS, TITLES, VECTOR_COLUMNS

Line = dict[str, Any]

# What the project promises of itself for the full set of 88,000 records (name, value in a line of results, bound, which side).
_TARGETS: tuple[tuple[str, tuple[str, ...], float, Literal["least", "most"]], ...] = (
    ("rows/s in", ("load", "rows_per_s"), 25_000, "least"),
    ("file / (text + vectors)", ("size_mb", "file"), 1.5, "most"),
    ("first answer of a new process, ms", ("open", "first_ms"), 100, "most"),
    ("vector p50, ms", ("columns", "vector", "p50_ms"), 0.5, "most"),
    ("vector recall@10", ("columns", "vector", "recall"), 0.95, "least"),
    ("filter 0.1 % p50, ms", ("columns", "filtered_01", "p50_ms"), 2.0, "most"),
    ("filter 0.1 % recall@10", ("columns", "filtered_01", "recall"), 1.0, "least"),
    ("hybrid p50, ms", ("columns", "hybrid", "p50_ms"), 4.0, "most"),
)


@dataclass(frozen=True)
class Cell:
    """text is shown; rank orders the cells of a column, the smallest is marked; None takes no part."""

    text: str
    rank: float | None = None


@dataclass(frozen=True)
class Table:
    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]

    def best(self, column: int) -> float | None:
        ranks = [row[column].rank for row in self.rows]
        known = [rank for rank in ranks if rank is not None]
        return min(known) if len(known) > 1 else None


def print_tables(lines: Sequence[Line]) -> None:
    show_tables(tables(lines), notes(lines))


def print_markdown(lines: Sequence[Line]) -> None:
    show_markdown(tables(lines), notes(lines))


def show_tables(tables: Sequence[Table], notes: Sequence[str]) -> None:
    from rich.console import Console
    from rich.table import Table as RichTable

    console = Console(width=None if Console().is_terminal else 170)
    for table in tables:
        rich = RichTable(title=table.title, title_justify="left", title_style="bold")
        for number, name in enumerate(table.header):
            rich.add_column(name, justify="left" if number == 0 else "right")
        for row in table.rows:
            rich.add_row(*(_marked(table, c, cell, "[bold green]{}[/]") for c, cell in enumerate(row)))
        console.print(rich)
    for note in notes:
        console.print(note, markup=False, highlight=False)


def show_markdown(tables: Sequence[Table], notes: Sequence[str]) -> None:
    for table in tables:
        print(f"**{table.title}**\n")
        print("| " + " | ".join(table.header) + " |")
        print("|" + "|".join([" :--- "] + [" ---: "] * (len(table.header) - 1)) + "|")
        for row in table.rows:
            print("| " + " | ".join(_marked(table, c, cell, "**{}**") for c, cell in enumerate(row)) + " |")
        print()
    for note in notes:
        print(f"- {note}")


def tables(lines: Sequence[Line]) -> list[Table]:
    """The tables that these results allow."""
    made = [_loading(lines), _queries(lines)]
    own = next((line for line in lines if line["system"] == "vecdb"), None)
    return [*made, _targets(own)] if own is not None else made


def notes(lines: Sequence[Line]) -> list[str]:
    """What one must know to read the tables: where, with what, and what each system could not do."""
    first = lines[0]
    machine, data, plan = first["machine"], first["data"], first["plan"]
    said = [
        f"{first['date']}, commit {first['commit']}, {machine['cpu']}, {machine['cores']} cores, {machine['memory_gb']} GB, "
        f"Python {machine['python']}, load average {machine['load_average']} at the start",
        f"{data['name']}: {data['rows']:,} records x {data['dimension']} ({data['model']}), {data['raw_mb']:.0f} MB of text and "
        f"float32 vectors; {data['questions']} questions in {plan['rounds']} rounds, each system in turn, after "
        f"{plan['warm_up']} questions of warm-up that do not count",
        f"loading and opening on all cores; queries on one core with every thread pool limited to one; top 10 with text and "
        f"metadata; the cheapest setting that reaches recall {plan['wanted_recall']} on other questions",
    ]
    for line in lines:
        if line["failures"]:
            said.append(f"{line['system']} failed: {'; '.join(line['failures'])}")
        if line["note"]:
            said.append(f"{line['system']}: {line['note']}")
        few = [
            f"{TITLES[c]} {v['questions']}" for c, v in line["columns"].items() if v["questions"] < data["questions"]
        ]
        if few:
            said.append(f"{line['system']}: fewer questions in the time given ({', '.join(few)})")
    return said


def _loading(lines: Sequence[Line]) -> Table:
    header = (
        "system",
        "rows/s in",
        "index s",
        "MB on disk",
        "import ms",
        "first answer ms",
        "peak MB load",
        "peak MB query",
    )
    return Table("Loading, size, opening", header, tuple(_loading_row(line) for line in lines))


def _loading_row(line: Line) -> tuple[Cell, ...]:
    name = Cell(f"{line['system']} {line['version']}")
    load, opened = line.get("load"), line.get("open")
    nothing = Cell("-")
    size = line["size_mb"].get("all", 0.0)
    apart = f" ({line['size_mb']['file']:.0f} + {line['size_mb']['index']:.0f})" if "file" in line["size_mb"] else ""
    return (
        name,
        Cell(f"{load['rows_per_s']:,.0f}", -load["rows_per_s"]) if load else nothing,
        Cell(f"{load['index_s']:.1f}" if load["index_s"] > 0.001 else "-") if load else nothing,
        Cell(f"{size:.0f}{apart}", size) if load else nothing,
        Cell(f"{opened['import_ms']:.0f}", opened["import_ms"]) if opened else nothing,
        Cell(f"{opened['first_ms']:.1f}", opened["first_ms"]) if opened else nothing,
        Cell(f"{load['peak_mb']:.0f}", load["peak_mb"]) if load else nothing,
        Cell(f"{line['query_peak_mb']:.0f}", line["query_peak_mb"]) if line["query_peak_mb"] else nothing,
    )


def _queries(lines: Sequence[Line]) -> Table:
    header: list[str] = ["system"]
    for column in COLUMNS:
        header += [TITLES[column], "recall"] if column in VECTOR_COLUMNS else [TITLES[column]]
    rows = []
    for line in lines:
        row = [Cell(str(line["system"]))]
        for column in COLUMNS:
            row += _query_cells(line, column)
        rows.append(tuple(row))
    return Table("Queries: p50 / p99 ms", tuple(header), tuple(rows))


def _query_cells(line: Line, column: str) -> list[Cell]:
    measured = line["columns"].get(column)
    if measured is None:
        return [Cell("-")] * (2 if column in VECTOR_COLUMNS else 1)
    p50, p99 = measured["p50_ms"], measured["p99_ms"]
    text = f"{p50:.3g} / {p99:.3g}" if p99 < 1_000 else f"{p50:,.0f} / {p99:,.0f}"
    if column not in VECTOR_COLUMNS:
        return [Cell(text, p50)]
    # Fast at too low a recall is not a best time. A little under it on the measured half is the luck of the questions.
    equal = measured["recall"] >= line["plan"]["wanted_recall"] - 0.01
    setting = ", ".join(f"{key} {value}" for key, value in measured["setting"].items() if value is not None)
    recall = f"{measured['recall']:.3f}" + (f" ({setting})" if setting else "")
    return [Cell(text, p50 if equal else None), Cell(recall)]


def _targets(own: Line) -> Table:
    rows = []
    for name, path, bound, side in _TARGETS:
        value: Any = own
        for key in path:
            value = value.get(key, {}) if isinstance(value, dict) else {}
        if isinstance(value, dict):
            continue
        if path[0] == "size_mb":
            value /= own["data"]["raw_mb"]
        met = value >= bound if side == "least" else value <= bound
        rows.append((Cell(name), Cell(f"{value:,.4g}"), Cell(f"at {side} {bound:,g}"), Cell("yes" if met else "NO")))
    return Table(
        "vecdb against its own targets (for 88,000 records)", ("target", "measured", "wanted", "met"), tuple(rows)
    )


def _marked(table: Table, column: int, cell: Cell, mark: str) -> str:
    best = cell.rank is not None and cell.rank == table.best(column)
    return mark.format(cell.text) if best else cell.text
