"""vecdb demo."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vecdb.cli.output import talk


def add_to(app: typer.Typer) -> None:
    app.command()(demo)


def demo(
    db: Annotated[Path, typer.Option("--db", help="Where the demonstration's database goes.")] = Path("demo.vecdb"),
) -> None:
    """Load 5,183 abstracts that come with vecdb, search them in three ways, and measure how good and how fast it was.

    The first run embeds them, which takes some minutes on two cores; later runs find them there.

    \b
    vecdb demo
    """
    from vecdb.demo import run

    try:
        run(db)
    except KeyboardInterrupt:
        talk("stopped; what is stored stays. Run `vecdb demo` again to continue.")
        raise typer.Exit(130) from None
