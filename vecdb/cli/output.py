"""What commands print: JSON lines or a table on standard output, talk on standard error."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from typing import Any


def emit(value: Any) -> None:
    """One JSON line on standard output."""
    from vecdb.wire import dumps

    sys.stdout.buffer.write(dumps(value) + b"\n")
    sys.stdout.flush()


def talk(message: str) -> None:
    """A line for people on standard error. A name that the terminal cannot show must not end the job."""
    encoding = sys.stderr.encoding or "utf-8"
    print(message.encode(encoding, "replace").decode(encoding), file=sys.stderr)


def print_table(columns: Sequence[str], rows: Iterable[Sequence[Any]], title: str | None = None) -> None:
    """A table for eyes on standard output. Columns whose values are all numbers are set to the right."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    shown = [list(row) for row in rows]
    table = Table(title=title, title_justify="left", header_style="bold")
    for position, column in enumerate(columns):
        numeric = all(isinstance(row[position], int | float) for row in shown)
        table.add_column(column, justify="right" if numeric else "left", overflow="fold")
    for row in shown:
        table.add_row(*(Text(as_text(value)) for value in row))  # Text: brackets in data are no markup
    Console().print(table)


def as_text(value: Any) -> str:
    """A value as people write it."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 1000 else f"{value:,.0f}"
    return str(value)


def shorten(text: str | None, width: int) -> str:
    """The beginning of a text on one line."""
    line = " ".join((text or "").split())
    return line if len(line) <= width else line[: width - 1].rstrip() + "…"
