"""vecdb block, dedupe."""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vecdb.cli.arguments import DEFAULT_DB, Db, Name, Plain, Where, one_of, open_collection, parse_where
from vecdb.cli.output import emit, print_table, talk

if TYPE_CHECKING:
    from vecdb.blocking import Blocker, Candidates, Table


def add_to(app: typer.Typer) -> None:
    for command in (block, dedupe):
        app.command()(command)


def block(
    a: Annotated[Path, typer.Argument(help="A table: .csv, .tsv or .jsonl, also .gz.")],
    b: Annotated[Path, typer.Argument(help="The other table.")],
    pairs: Annotated[
        Path | None,
        typer.Option(
            help="Pairs to learn from: a column with ids of A, one with ids of B, and perhaps label (1 or 0)."
        ),
    ] = None,
    recall: Annotated[float, typer.Option(help="Which share of the matches is to be among the candidates.")] = 0.95,
    confidence: Annotated[float, typer.Option(help="How sure that is to be.")] = 0.9,
    out: Annotated[Path | None, typer.Option(help="Write the candidates here, as CSV: a, b, similarity.")] = None,
    fields: Annotated[
        list[str] | None,
        typer.Option("--field", help="A column that is compared; may be repeated.  [default: all shared]"),
    ] = None,
    id_column: Annotated[
        str | None,
        typer.Option(help="The column of ids in both tables.  [default: id, _id, or the row's number from 0]"),
    ] = None,
    k: Annotated[
        int | None, typer.Option(min=1, help="This many candidates a record, whatever recall that is.")
    ] = None,
    encoder: Annotated[
        bool,
        typer.Option("--encoder", help="Train the encoder, too: better; wants a GPU, or half an hour."),
    ] = False,
    blocker: Annotated[Path | None, typer.Option(help="Use a blocker that --save wrote; nothing is learned.")] = None,
    save: Annotated[Path | None, typer.Option(help="Write what was learned here.")] = None,
    cache: Annotated[
        Path | None, typer.Option(help="A folder to keep the encoder's vectors in for the next time.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0)] = 0,
) -> None:
    """Find which records of two tables may be the same: few pairs, and hardly one missing.

    Learns from pairs that are known to match; without --pairs from near duplicates in the tables themselves, and then promises
    nothing about recall. Candidates are printed as JSON lines, or written to --out and counted.

    \b
    vecdb block a.csv b.csv --pairs train.csv --recall 0.95 --out candidates.csv
    vecdb block a.csv b.csv --pairs train.csv --save products.npz
    vecdb block new.csv b.csv --blocker products.npz
    """
    from vecdb.blocking import HashConfig, read_table
    from vecdb.blocking.blocker import encoder_of
    from vecdb.blocking.encoders import offline_encoder
    from vecdb.embedding.base import DEFAULT_MODEL

    if blocker is not None and (pairs is not None or encoder or save is not None or fields):
        raise typer.BadParameter("--blocker is used as it is: leave out --pairs, --encoder, --save and --field")
    left, right = (read_table(path, id_field=id_column) for path in (a, b))
    with _progress() as told:
        if blocker is not None:
            from vecdb.blocking import Blocker

            known = Blocker.load(blocker)
            model = encoder_of(known, cache)
        else:
            from vecdb.blocking import read_pairs, train_blocker

            model = offline_encoder(DEFAULT_MODEL, folder=cache)
            known = train_blocker(
                left,
                right,
                None if pairs is None else read_pairs(pairs),
                recall=recall,
                confidence=confidence,
                fields=fields or None,
                encoder=model,
                tune_encoder=encoder,
                config=HashConfig(seed=seed),
                progress=told,
            )
            model = encoder_of(known, cache) if encoder else model
        found = known.block(left, right, encoder=model, k=k, progress=lambda done, of: told("encoding", done, of))
    if save is not None:
        known.save(save)
    _write(found, known, left, right, out)


def dedupe(
    db: Db = DEFAULT_DB,
    collection: Name = None,
    policy: Annotated[
        str, typer.Option(help="skip deletes the newer ones, replace the older ones, link puts links between them.")
    ] = "skip",
    threshold: Annotated[
        float | None, typer.Option(help="How alike two records must be, at most 1.  [default: 0.9, or the blocker's]")
    ] = None,
    where: Where = None,
    blocker: Annotated[Path | None, typer.Option(help="A blocker that `vecdb block --save` wrote decides.")] = None,
    apply: Annotated[bool, typer.Option("--apply", help="Do it; without it nothing is changed.")] = False,
    plain: Plain = False,
) -> None:
    """Find near duplicates in a collection: a line for each, with the record that it is a duplicate of.

    \b
    vecdb dedupe --collection notes --plain
    vecdb dedupe --collection notes --policy link --threshold 0.95 --apply
    """
    from vecdb.duplicates import POLICIES

    chosen = one_of(policy, POLICIES, "--policy")
    known = None
    if blocker is not None:
        from vecdb.blocking import Blocker

        known = Blocker.load(blocker)
    with open_collection(db, collection, read_only=not apply) as docs:
        found = docs.dedupe(chosen, threshold=threshold, where=parse_where(where), blocker=known, apply=apply)
    if plain:
        print_table(["record", "duplicate of", "similarity"], ([d.id, d.of, d.similarity] for d in found.duplicates))
    else:
        for one in found.duplicates:
            emit({"id": one.id, "of": one.of, "similarity": one.similarity})
    done = "" if apply else " would be"
    counts = f"{found.deleted:,}{done} deleted, {found.linked:,}{done} linked"
    talk(f"{found.records:,} records, duplicates: {len(found.duplicates):,}, of which {counts}")
    if not apply:
        talk("nothing was changed: --apply does it")


def _write(found: Candidates, known: Blocker, a: Table, b: Table, out: Path | None) -> None:
    from vecdb.durable import write_file

    summary = {
        "candidates": len(found),
        "possible": found.possible,
        "ratio": found.ratio,
        "side": known.rule.side,
        "k": known.rule.k,
        "least_similarity": known.rule.least,
        **_promise(known),
    }
    if out is None:
        for left, right, similarity in found:
            emit({"a": left, "b": right, "similarity": similarity})
        talk(f"{len(found):,} candidates of {found.possible:,} pairs; {known!r}")
    else:
        text = io.StringIO(newline="")
        lines = csv.writer(text, lineterminator="\n")
        lines.writerow(("a", "b", "similarity"))
        lines.writerows((left, right, f"{similarity:.6f}") for left, right, similarity in found)
        write_file(out, [text.getvalue().encode()])
        emit(summary)
    settled = known.calibration
    if settled is not None and not settled.is_supervised:
        talk(
            "no pairs were given: recall was settled on near duplicates, which are easier than other matches; it is no promise"
        )


def _promise(known: Blocker) -> dict[str, Any]:
    settled = known.calibration
    if settled is None:
        return {}
    found: dict[str, Any] = {
        "held_out": settled.matches,
        "held_out_found": settled.found,
        "confidence": settled.confidence,
    }
    return found | ({"assured_recall": settled.assured} if settled.is_supervised else {})


@contextmanager
def _progress() -> Iterator[Callable[[str, int, int], None]]:
    """A bar on a terminal; elsewhere a line when each step ends."""
    if not sys.stderr.isatty():

        def say(what: str, done: int, of: int) -> None:
            if done == of:
                talk(f"{what}: {of:,} done")

        yield say
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        tasks: dict[str, Any] = {}

        def show(what: str, done: int, of: int) -> None:
            if what not in tasks:
                tasks[what] = bar.add_task(what, total=of)
            bar.update(tasks[what], completed=done, total=of)

        yield show
