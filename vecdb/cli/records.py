"""vecdb get, delete, link, unlink, links, export, import."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vecdb.cli.arguments import DEFAULT_DB, Db, Name, Plain, Where, lines_or_stdin, open_collection, parse_where
from vecdb.cli.output import emit, print_table, shorten, talk

Kind = Annotated[str, typer.Option(help="The kind of link: any word of your own.")]
Ids = Annotated[list[str], typer.Argument(help="Ids of records; - reads them from standard input, one a line.")]


def add_to(app: typer.Typer) -> None:
    for command in (get, delete, link, unlink, links):
        app.command()(command)
    app.command("export")(export_records)
    app.command("import")(import_records)


def get(
    ids: Ids,
    db: Db = DEFAULT_DB,
    collection: Name = None,
    vectors: Annotated[bool, typer.Option("--vectors", help="With their vectors.")] = False,
    plain: Plain = False,
) -> None:
    """Print records by id. Exits with 1 if one is not there.

    \b
    vecdb get "notes/a.md#1" --plain
    """
    from vecdb.wire import record_to_wire

    wanted = lines_or_stdin(ids)
    with open_collection(db, collection) as docs:
        found = docs.get(wanted, vectors=vectors)
    records = [record for record in found if record is not None]
    if plain:
        print_table(["id", "text", "metadata"], ((r.id, shorten(r.text, 400), str(r.metadata)) for r in records))
    else:
        for record in records:
            emit(record_to_wire(record))
    absent = [id for id, record in zip(wanted, found) if record is None]
    for id in absent:
        talk(f"error: there is no record {id!r}")
    if absent:
        raise typer.Exit(1)


def delete(
    ids: Annotated[list[str] | None, typer.Argument(help="Ids of records; - reads them from standard input.")] = None,
    db: Db = DEFAULT_DB,
    collection: Name = None,
    where: Where = None,
) -> None:
    """Delete records by id, or all that a filter matches. Prints how many went.

    \b
    vecdb delete "notes/a.md#1"
    vecdb delete --where 'kind=pdf'
    """
    if bool(ids) == bool(where):
        raise typer.BadParameter("give either ids or --where")
    with open_collection(db, collection, read_only=False) as docs:
        count = docs.delete(lines_or_stdin(ids)) if ids else docs.delete(where=parse_where(where))
    emit({"deleted": count})


def link(
    source: Annotated[
        str, typer.Argument(help="Id of a record; - reads links from standard input, one JSON object a line.")
    ],
    target: Annotated[str | None, typer.Argument(help="Id of the record that it is linked to.")] = None,
    db: Db = DEFAULT_DB,
    collection: Name = None,
    kind: Kind = "link",
    weight: Annotated[float, typer.Option(help="How much it counts; above 0.")] = 1.0,
    directed: Annotated[bool, typer.Option("--directed", help="Leads from source to target only.")] = False,
) -> None:
    """Link records, for searches that follow links. Prints how many links were written; all are, or none.

    \b
    vecdb link p1 p2 --kind cites --directed
    echo '{"source": "p1", "target": "p3", "weight": 2}' | vecdb link -
    """
    from vecdb.cli.transfer import put_links, read_links

    if (source == "-") == (target is not None):
        raise typer.BadParameter("give a source and a target, or - alone")
    with open_collection(db, collection, read_only=False) as docs:
        if target is None:
            count = put_links(docs, read_links())
        else:
            count = docs.link(source, target, kind, weight, directed=directed)
    emit({"linked": count})


def unlink(
    source: Annotated[str, typer.Argument(help="Id of a record.")],
    target: Annotated[str, typer.Argument(help="Id of the record that it is linked to.")],
    db: Db = DEFAULT_DB,
    collection: Name = None,
    kind: Annotated[str | None, typer.Option(help="Of this kind only.")] = None,
) -> None:
    """Delete the links between two records. Prints how many went.

    \b
    vecdb unlink p1 p2 --kind cites
    """
    with open_collection(db, collection, read_only=False) as docs:
        emit({"deleted": docs.unlink(source, target, kind)})


def links(
    id: Annotated[str | None, typer.Argument(help="Id of a record; left out: the links of all.")] = None,
    db: Db = DEFAULT_DB,
    collection: Name = None,
    kind: Annotated[str | None, typer.Option(help="Of this kind only.")] = None,
    plain: Plain = False,
) -> None:
    """Print links, as `vecdb link -` reads them.

    \b
    vecdb links p1 --plain
    """
    from vecdb.wire import link_to_wire

    with open_collection(db, collection) as docs:
        found = docs.links(id, kind)
    if plain:
        print_table(
            ["source", "target", "kind", "weight"], ((x.source, x.target, x.kind, str(x.weight)) for x in found)
        )
    else:
        for one in found:
            emit(link_to_wire(one))


def export_records(
    target: Annotated[
        str, typer.Argument(help="A .jsonl or .parquet file; - is standard output, as JSON lines.")
    ] = "-",
    db: Db = DEFAULT_DB,
    collection: Name = None,
    where: Where = None,
    vectors: Annotated[
        bool, typer.Option("--vectors", help="With the vectors, so that importing needs no model.")
    ] = False,
) -> None:
    """Write all records to a file that `vecdb import` reads back.

    \b
    vecdb export backup.jsonl --vectors
    vecdb export - --where 'kind=pdf' | gzip > pdf.jsonl.gz
    """
    from vecdb.cli.transfer import export_to

    with open_collection(db, collection) as docs:
        count = export_to(docs, target, where=parse_where(where), vectors=vectors)
    talk(f"{count:,} records written")


def import_records(
    source: Annotated[
        str, typer.Argument(help="A .jsonl (also .gz) or .parquet file; - is standard input, as JSON lines.")
    ],
    db: Db = DEFAULT_DB,
    collection: Annotated[
        str, typer.Option("--collection", "-c", help="The collection; made if it does not exist.")
    ] = "documents",
    embed: Annotated[
        str | None, typer.Option(help="The embedding model of a new collection: default, none, or a specification.")
    ] = None,
    upsert: Annotated[
        bool, typer.Option("--upsert", help="Replace records whose id exists instead of stopping.")
    ] = False,
    batch: Annotated[int, typer.Option(min=1, help="Records in one transaction.")] = 1000,
    duplicates: Annotated[
        str | None, typer.Option(help="What becomes of near duplicates: skip, link or replace (see dedupe).")
    ] = None,
    threshold: Annotated[float, typer.Option(help="How alike two records must be for that.")] = 0.9,
) -> None:
    """Read records (id, text, vector, model, metadata, parent, seq, expires, entities, links) into a collection. Prints how many.

    Settings that the file holds are for a collection that is made now; one that exists keeps its own.

    \b
    vecdb import backup.jsonl --db copy.vecdb --collection notes
    zcat pdf.jsonl.gz | vecdb import - --upsert
    """
    from vecdb.cli.ingesting import open_or_create
    from vecdb.cli.transfer import import_from, read_records, usual_model

    if source != "-" and not Path(source).exists():
        raise typer.BadParameter(f"{source} does not exist")
    if upsert and duplicates is not None:
        raise typer.BadParameter("--duplicates is for records that are new: leave out --upsert")
    settings, first, records = read_records(source)
    with open_or_create(db, collection, embed, usual=usual_model(first), settings=settings) as docs:
        unlike = None if duplicates is None else {"duplicates": duplicates, "threshold": threshold}
        result = import_from(docs, records, upsert=upsert, batch_size=batch, unlike=unlike)
    emit(result)
