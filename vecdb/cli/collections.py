"""vecdb collections, drop, stats, tune, adapt, check, version."""

from __future__ import annotations

from typing import Annotated

import typer

from vecdb.cli.arguments import DEFAULT_DB, Db, Name, Plain, open_collection, open_database
from vecdb.cli.output import emit, print_table, talk


def add_to(app: typer.Typer) -> None:
    app.command("collections")(list_collections)
    for command in (stats, tune, adapt, check, drop, version):
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
