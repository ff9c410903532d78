"""vecdb collections, drop, stats, tune, adapt, optimize-storage, check, version."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vecdb.cli.arguments import DEFAULT_DB, Db, Name, Plain, open_collection, open_database
from vecdb.cli.output import emit, print_table, talk


def add_to(app: typer.Typer) -> None:
    app.command("collections")(list_collections)
    for command in (stats, tune, adapt, optimize_storage, check, drop, version):
        app.command()(command)


def list_collections(db: Db = DEFAULT_DB, plain: Plain = False) -> None:
    """List the collections with their sizes.

    \b
    vecdb collections --plain
    """
    with open_database(db) as database:
        opened = [database.collection(name, create=False) for name in database.collections()]
        lines = [
            {
                "name": docs.name,
                "records": len(docs),
                "dimension": docs.dimension,
                "metric": docs.metric,
                "model": docs.model,
            }
            for docs in opened
        ]
    if plain:
        print_table(["name", "records", "dimension", "metric", "model"], (list(line.values()) for line in lines))
    else:
        for line in lines:
            emit(line)


def stats(db: Db = DEFAULT_DB, collection: Name = None, plain: Plain = False) -> None:
    """Count a collection's records, vectors and bytes.

    \b
    vecdb stats --collection notes --plain
    """
    from vecdb.wire import stats_to_wire

    with open_collection(db, collection) as docs:
        values = stats_to_wire(docs.stats())
    print_table(["what", "value"], values.items()) if plain else emit(values)


def tune(
    db: Db = DEFAULT_DB,
    collection: Name = None,
    target_recall: Annotated[float, typer.Option("--recall", help="The share of the true neighbours wanted.")] = 0.95,
    k: Annotated[int, typer.Option("-k", min=1, help="How many neighbours are asked for.")] = 10,
    budget_s: Annotated[float, typer.Option("--budget", help="Seconds that measuring may take.")] = 60.0,
    apply: Annotated[bool, typer.Option("--apply", help="Build the index so, now, if the target was reached.")] = False,
    plain: Plain = False,
) -> None:
    """Measure how the index should be built and searched to reach a recall with the least work. Exits with 1 if it cannot.

    \b
    vecdb tune --collection notes --recall 0.98 --apply --plain
    """
    from vecdb.wire import tuning_to_wire

    with open_collection(db, collection, read_only=False) as docs:
        tuning = docs.tune(target_recall, k=k, budget_s=budget_s, apply=apply)
        if tuning.is_applied:
            docs.optimize()
            tuning = docs.tuning or tuning
    print(tuning) if plain else emit(tuning_to_wire(tuning))
    if not tuning.is_reached:
        raise typer.Exit(1)


def adapt(
    db: Db = DEFAULT_DB,
    collection: Name = None,
    sample: Annotated[int, typer.Option("--sample", help="How many records to learn and judge by.")] = 2_500,
    budget_s: Annotated[float, typer.Option("--budget", help="Seconds that it may take.")] = 60.0,
    seed: Annotated[int, typer.Option("--seed", help="Of what is drawn.")] = 0,
    apply: Annotated[bool, typer.Option("--apply", help="Search by the map from now on, if it is accepted.")] = False,
    reset: Annotated[bool, typer.Option("--reset", help="Learn nothing: take back the map that is in use.")] = False,
    plain: Plain = False,
) -> None:
    """Learn from a collection's own documents to find them better by meaning. Exits with 1 if what was learned does not help.

    \b
    vecdb adapt --collection notes --apply --plain
    vecdb adapt --collection notes --reset
    """
    from vecdb.wire import adaptation_to_wire

    with open_collection(db, collection, read_only=False) as docs:
        if reset:
            emit({"reset": docs.reset_adapter()})
            return
        adaptation = docs.adapt(sample=sample, budget_s=budget_s, seed=seed, apply=apply)
    print(adaptation) if plain else emit(adaptation_to_wire(adaptation))
    if not adaptation.is_accepted:
        raise typer.Exit(1)


def optimize_storage(
    db: Db = DEFAULT_DB,
    collection: Name = None,
    budget_mb: Annotated[float | None, typer.Option(min=0.001, help="What all vectors may take together.")] = None,
    max_loss: Annotated[
        float | None, typer.Option(min=0.0, max=1.0, help="The loss of nDCG@10, or of recall@10 without --judged.")
    ] = None,
    judged: Annotated[
        str | None, typer.Option(help="A shipped set's name, or a folder with queries and qrels/.")
    ] = None,
    codecs: Annotated[str | None, typer.Option(help="What to try, by blanks: 'float8 pca:192+int8'.")] = None,
    plot: Annotated[Path | None, typer.Option(help="Draw bytes against loss into FILE.png and FILE.svg.")] = None,
    apply: Annotated[bool, typer.Option("--apply", help="Store vectors so from now on, and shrink the file.")] = False,
    plain: Plain = False,
) -> None:
    """Measure what every way of storing vectors costs on this collection's own, and recommend one. Changes nothing without
    --apply. Exits with 1 if none fits.

    \b
    vecdb optimize-storage --collection notes --budget-mb 40 --plot storage --plain
    vecdb optimize-storage --collection notes --max-loss 0.01 --apply
    """
    from dataclasses import asdict

    from vecdb.judged import load_judged

    if plot is not None:  # measuring takes long: say now what would be in the way afterwards
        _check_plot(plot)
    known = None if judged is None else load_judged(judged)
    with open_collection(db, collection, read_only=not apply) as docs:
        plan = docs.plan_storage(
            None if budget_mb is None else int(budget_mb * 1e6),
            max_loss=max_loss,
            queries=None if known is None else known.queries,
            qrels=None if known is None else known.qrels,
            codecs=None if codecs is None else codecs.split(),
        )
        if plain:
            print(plan)
        else:
            for choice in plan.choices:
                emit({**asdict(choice), "is_recommended": choice == plan.recommended})
        if plot is not None:
            talk(f"drawn: {', '.join(str(path) for path in plan.draw(plot))}")
        talk(f"stored now as {plan.stored}; measured on {plan.vectors:,} of {plan.of_vectors:,} vectors")
        if plan.recommended is None:
            smallest = min(plan.choices, key=lambda one: one.total_bytes)
            best = min(plan.choices, key=lambda one: one.loss)
            talk(
                f"no codec fits; allow more: the smallest is {smallest.codec} with {smallest.total_bytes / 1e6:.3g} MB, "
                f"the best is {best.codec} with a loss of {best.loss:.4f}"
            )
            raise typer.Exit(1)
        talk(f"recommended: {plan.recommended.codec}" + ("" if apply else "; --apply stores vectors so"))
        if apply:
            docs.set_storage(plan.recommended.codec)
            docs.compact()


def _check_plot(plot: Path) -> None:
    """Raises InvalidInput, MissingExtra."""
    from importlib.util import find_spec

    from vecdb.errors import InvalidInput, MissingExtra

    if not plot.absolute().parent.is_dir():
        raise InvalidInput(f"--plot is {plot}, but there is no folder {plot.absolute().parent}; make it first")
    if find_spec("matplotlib") is None:
        raise MissingExtra("pictures need matplotlib: pip install 'vecdb[plot]'")


def check(db: Db = DEFAULT_DB) -> None:
    """Look for anything broken in the file and in its indexes. Exits with 1 if something is.

    \b
    vecdb check --db library.vecdb
    """
    with open_database(db) as database:
        faults = database.check()
    for fault in faults:
        emit({"fault": fault})
    talk("everything is sound" if not faults else f"{len(faults)} faults found")
    if faults:
        raise typer.Exit(1)


def drop(
    name: Annotated[str, typer.Argument(help="The collection to delete with all its records.")],
    db: Db = DEFAULT_DB,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Delete a collection with all its records. Asks first.

    \b
    vecdb drop drafts --yes
    """
    with open_database(db, read_only=False) as database:
        count = len(database.collection(name, create=False))
        if not yes:
            typer.confirm(f"Delete {name!r} with its {count:,} records?", abort=True, err=True)
        database.drop(name)
    emit({"dropped": name, "records": count})


def version() -> None:
    """Print the version of vecdb and of what it stands on.

    \b
    vecdb version
    """
    from importlib.metadata import version as version_of

    emit({name: version_of(name) for name in ("vecdb", "numpy", "numba", "apsw", "sqlite-vec")})
