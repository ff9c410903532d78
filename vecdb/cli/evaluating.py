"""vecdb evaluate, compare, gate, fit-fusion."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vecdb.cli.arguments import (
    DEFAULT_DB,
    Db,
    Mode,
    Name,
    Plain,
    Where,
    json_object,
    one_of,
    open_collection,
    parse_floors,
    parse_plan,
    parse_where,
)
from vecdb.cli.output import emit, print_table, talk
from vecdb.cli.searching import MODES

JudgedSet = Annotated[str, typer.Argument(help="The name of a shipped set, or a folder with queries.jsonl and qrels/.")]
Depth = Annotated[int, typer.Option("-k", min=1, help="How many hits of each query are judged.")]


def add_to(app: typer.Typer) -> None:
    for command in (evaluate, compare, gate):
        app.command()(command)
    app.command("fit-fusion")(fit_fusion)


def evaluate(
    judged: JudgedSet,
    db: Db = DEFAULT_DB,
    collection: Name = None,
    modes: Annotated[
        str, typer.Option(help="Which kinds of search, or saved queries, by commas.")
    ] = "vector,text,hybrid",
    k: Depth = 100,
    where: Where = None,
    plain: Plain = False,
) -> None:
    """Measure how well searches find what people judged relevant. Ids of records must be those of the judgements.

    \b
    vecdb ingest beir/corpus.jsonl --id-column _id --collection beir
    vecdb evaluate beir --collection beir --plain
    """
    from vecdb.judged import load_judged

    chosen = [mode.strip() for mode in modes.split(",")]
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


def compare(
    judged: JudgedSet,
    a: Annotated[str, typer.Argument(help="""A mode, a saved query, or options of search: '{"mode": "text"}'.""")],
    b: Annotated[str, typer.Argument(help="The other one, likewise.")],
    db: Db = DEFAULT_DB,
    collection: Name = None,
    k: Depth = 100,
    plain: Plain = False,
) -> None:
    """Tell whether setting A finds better than setting B, or the queries only happen to suit it (paired bootstrap).

    \b
    vecdb compare beir hybrid vector --collection beir --plain
    vecdb compare beir '{"fusion": "weighted"}' '{"fusion": "rrf"}' --collection beir
    """
    from vecdb.judged import load_judged

    known = load_judged(judged)
    with open_collection(db, collection) as docs:
        found = docs.compare(parse_plan(a), parse_plan(b), known.queries, known.qrels, k=k)
    if plain:
        print(found)
        return
    for measure, difference in found.differences.items():
        emit(
            {
                "measure": measure,
                "a": found.a.means[measure],
                "b": found.b.means[measure],
                "difference": difference.difference,
                "low": difference.low,
                "high": difference.high,
                "p_value": difference.p_value,
            }
        )


def gate(
    judged: JudgedSet,
    db: Db = DEFAULT_DB,
    collection: Name = None,
    least: Annotated[
        list[str] | None, typer.Option("--min", help="measure=value: the least mean that passes; as often as needed.")
    ] = None,
    baseline: Annotated[
        Path | None, typer.Option(help="A file that --save wrote; no measure may have become worse.")
    ] = None,
    tolerance: Annotated[float, typer.Option(min=0.0, max=1.0, help="How much worse than the baseline passes.")] = 0.0,
    save: Annotated[Path | None, typer.Option(help="Write what was measured here, if the gate is passed.")] = None,
    mode: Mode = "auto",
    plan: Annotated[str | None, typer.Option(help="A saved query, or a plan as JSON, to be asked by.")] = None,
    k: Depth = 100,
    where: Where = None,
    plain: Plain = False,
) -> None:
    """Let a pipeline go on only if searches are good enough. Exits with 1 if they are not.

    \b
    vecdb gate beir --collection beir --min nDCG@10=0.6 --min R@100=0.9 --save baseline.json
    vecdb gate beir --collection beir --baseline baseline.json --tolerance 0.01 --plain
    """
    from dataclasses import asdict

    from vecdb.durable import write_file
    from vecdb.judged import load_judged
    from vecdb.wire import dumps

    known = load_judged(judged)
    with open_collection(db, collection) as docs:
        found = docs.gate(
            known.queries,
            known.qrels,
            min=parse_floors(least),
            baseline=None if baseline is None else json_object(baseline.read_bytes(), str(baseline)),
            tolerance=tolerance,
            k=k,
            where=parse_where(where),
            plan=None if plan is None else parse_plan(plan),
            **({} if mode == "auto" else {"mode": one_of(mode, MODES, "--mode")}),
        )
    if plain:
        print(found)
    else:
        for check in found.checks:
            emit(asdict(check))
        talk("the gate is passed" if found else "the gate is not passed")
    if not found:
        raise typer.Exit(1)
    if save is not None:
        write_file(save, [dumps(asdict(found.evaluation))])


def fit_fusion(
    queries: Annotated[str, typer.Argument(help="A file of queries, one a line; or a judged set, as for evaluate.")],
    db: Db = DEFAULT_DB,
    collection: Name = None,
    labels: Annotated[bool, typer.Option(help="Learn from the set's judgements as well.")] = False,
    keep: Annotated[bool, typer.Option(help="Let searches use it from now on.")] = True,
) -> None:
    """Fit how lists by vector and by words are joined to what is asked of this collection; some dozens of queries will do.

    \b
    vecdb fit-fusion asked.txt --collection notes
    """
    from vecdb.judged import load_judged
    from vecdb.wire import fusion_to_wire

    path = Path(queries)
    if path.is_file():
        if labels:
            raise typer.BadParameter("a file of queries has no judgements; give a judged set", param_hint="--labels")
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
        asked, qrels = {str(number): line for number, line in enumerate(lines) if line}, None
    else:
        known = load_judged(queries)
        asked, qrels = dict(known.queries), known.qrels if labels else None
    with open_collection(db, collection, read_only=not keep) as docs:
        emit(fusion_to_wire(docs.fit_fusion(asked, qrels=qrels, keep=keep)))
