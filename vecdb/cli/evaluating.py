"""vecdb evaluate."""

from __future__ import annotations

from typing import Annotated

import typer

from vecdb.cli.arguments import DEFAULT_DB, Db, Name, Plain, Where, one_of, open_collection, parse_where
from vecdb.cli.output import emit, print_table


def add_to(app: typer.Typer) -> None:
    app.command()(evaluate)


def evaluate(
    judged: Annotated[
        str, typer.Argument(help="The name of a shipped set, or a folder with queries.jsonl and qrels/.")
    ],
    db: Db = DEFAULT_DB,
    collection: Name = None,
    modes: Annotated[str, typer.Option(help="Which kinds of search, by commas.")] = "vector,text,hybrid",
    k: Annotated[int, typer.Option("-k", min=1, help="How many hits of each query are judged.")] = 100,
    where: Where = None,
    plain: Plain = False,
) -> None:
    """Measure how well searches find what people judged relevant. Ids of records must be those of the judgements.

    \b
    vecdb ingest beir/corpus.jsonl --id-column _id --collection beir
    vecdb evaluate beir --collection beir --plain
    """
    from vecdb.judged import load_judged

    chosen = [one_of(mode.strip(), ("vector", "text", "hybrid"), "--modes") for mode in modes.split(",")]
    known = load_judged(judged)
    with open_collection(db, collection) as docs:
        results = docs.evaluate(known.queries, known.qrels, modes=chosen, k=k, where=parse_where(where))
    lines = [
        {"mode": mode, **{str(name): value for name, value in result.means.items()}} for mode, result in results.items()
    ]
    if plain:
        print_table(list(lines[0]), (list(line.values()) for line in lines))
    else:
        for line in lines:
            emit(line)
