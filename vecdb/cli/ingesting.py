"""vecdb ingest."""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vecdb.cli.arguments import DEFAULT_DB, Db, Plain, one_of, parse_metadata

if TYPE_CHECKING:
    from vecdb.collection import Collection
    from vecdb.ingest import IngestSettings


def add_to(app: typer.Typer) -> None:
    app.command()(ingest)


def ingest(
    paths: Annotated[list[str], typer.Argument(help="Files and folders; - reads one document from standard input.")],
    db: Db = DEFAULT_DB,
    collection: Annotated[
        str, typer.Option("--collection", "-c", help="The collection; made if it does not exist.")
    ] = "documents",
    embed: Annotated[
        str | None, typer.Option(help="The embedding model of a new collection: default, none, or a specification.")
    ] = None,
    language: Annotated[
        str | None, typer.Option(help="How words of a new collection are cut: english, german, …, none, cjk.")
    ] = None,
    include: Annotated[
        list[str] | None, typer.Option(help="Only files that match, such as '*.md'; may be repeated.")
    ] = None,
    exclude: Annotated[list[str] | None, typer.Option(help="Not files or folders that match; may be repeated.")] = None,
    root: Annotated[
        Path | None, typer.Option(help="Name sources relative to this folder, not by absolute path.")
    ] = None,
    name: Annotated[
        str, typer.Option(help="What the document of standard input is called; its ending tells the kind.")
    ] = "stdin.txt",
    chunk_size: Annotated[int, typer.Option(min=1, help="The most characters (or tokens) of a chunk.")] = 1000,
    overlap: Annotated[
        int | None, typer.Option(min=0, help="How much of a chunk's end its successor repeats.  [default: a tenth]")
    ] = None,
    tokens: Annotated[bool, typer.Option("--tokens", help="Count sizes in tokens of the embedding model.")] = False,
    text_column: Annotated[
        list[str] | None, typer.Option(help="Rows: the column that is the text; may be repeated.")
    ] = None,
    id_column: Annotated[str | None, typer.Option(help="Rows: the column that is the record's id.")] = None,
    split_rows: Annotated[
        bool, typer.Option("--split-rows", help="Rows: cut long texts as documents are cut.")
    ] = False,
    metadata: Annotated[list[str] | None, typer.Option(help="key=value on every record; may be repeated.")] = None,
    duplicates: Annotated[
        str | None, typer.Option(help="What becomes of near duplicates: skip, link or replace (see dedupe).")
    ] = None,
    threshold: Annotated[float, typer.Option(help="How alike two chunks must be for that.")] = 0.9,
    prune: Annotated[bool, typer.Option("--prune", help="Forget sources below PATHS whose file is gone.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would be done, a line for each file.")
    ] = False,
    watch: Annotated[bool, typer.Option("--watch", help="Stay, and follow every change until Ctrl-C.")] = False,
    plain: Plain = False,
) -> None:
    """Read files into a collection: text, Markdown, HTML, PDF, Word, CSV, JSON lines, Parquet, source code.

    Run it again at any time: unchanged files are skipped, changed ones replaced, and a run that was killed is
    continued. Prints one line of JSON with the counts. Exits with 1 if some files failed; the others are stored all
    the same.

    \b
    vecdb ingest notes/ --db library.vecdb --collection notes --prune
    vecdb ingest corpus.jsonl --text-column body --id-column _id
    vecdb ingest src/ --include '*.py' --metadata project=vecdb --watch
    curl -s https://example.org/ | vecdb ingest - --name example.html
    """
    from vecdb.cli.ingest_run import IngestRun
    from vecdb.duplicates import POLICIES

    policy = None if duplicates is None else one_of(duplicates, POLICIES, "--duplicates")
    if watch and dry_run:
        raise typer.BadParameter("--watch does not go with --dry-run")
    if "-" in paths and (paths != ["-"] or root or watch or prune):
        raise typer.BadParameter("standard input is read alone: without other paths, --root, --watch and --prune")
    cutting = {"size": chunk_size, "overlap": chunk_size // 10 if overlap is None else overlap, "tokens": tokens}
    rows = {"text_columns": tuple(text_column or ()), "id_column": id_column, "split": split_rows}
    files = {"include": tuple(include or ()), "exclude": tuple(exclude or ())}
    with (
        open_or_create(db, collection, embed, language=language, dry_run=dry_run) as docs,
        stdin_as_file(paths, name, root) as (named, base),
    ):
        settings = make_settings(docs, files, cutting, rows, base, parse_metadata(metadata))
        run = IngestRun(docs, replace(settings, duplicates=policy, threshold=threshold), dry_run, plain)
        failed = run.watch(named, prune=prune) if watch else run.once(named, prune=prune)
    if failed:
        raise typer.Exit(1)


@contextmanager
def open_or_create(
    db: Path,
    name: str,
    embed: str | None,
    *,
    usual: str = "default",
    language: str | None = None,
    settings: Mapping[str, Any] | None = None,
    dry_run: bool = False,
) -> Iterator[Collection]:
    """The collection, made if absent: with the usual model unless told otherwise, and with settings; one that exists keeps
    its own. A dry run makes it in memory.
    """
    import vecdb

    with vecdb.open(":memory:" if dry_run and not _holds(db, name) else db) as database:
        if name in database:
            yield database.collection(name, create=False, embed=_model(embed or "none"), text=language)
        else:
            yield database.collection(name, embed=_model(embed or usual), **{"text": language, **(settings or {})})


def _holds(db: Path, name: str) -> bool:
    import vecdb

    if not db.exists():
        return False
    with vecdb.open(db, create=False, read_only=True) as database:
        return name in database


def _model(embed: str) -> str | None:
    return None if embed == "none" else embed


@contextmanager
def stdin_as_file(paths: list[str], name: str, root: Path | None) -> Iterator[tuple[list[str], Path | None]]:
    """The paths, or standard input laid down as a file of that name; and the folder that sources are named from."""
    if "-" not in paths:
        yield paths, root
        return
    with tempfile.TemporaryDirectory(prefix="vecdb-") as folder:
        path = Path(folder, Path(name).name)
        with path.open("wb") as stream:
            shutil.copyfileobj(sys.stdin.buffer, stream)
        yield [str(path)], Path(folder)


def make_settings(
    docs: Collection,
    files: dict[str, Any],
    cutting: dict[str, Any],
    rows: dict[str, Any],
    root: Path | None,
    metadata: dict[str, Any],
) -> IngestSettings:
    from vecdb.ingest import Chunking, IngestSettings, RowOptions, Selection

    if cutting.pop("tokens"):
        cutting |= {"unit": "tokens", "tokenizer": _tokenizer_of(docs)}
    return IngestSettings(Selection(**files), Chunking(**cutting), RowOptions(**rows), root=root, metadata=metadata)


def _tokenizer_of(docs: Collection) -> Any:
    from vecdb.errors import InvalidInput

    model = getattr(docs.embedder, "embedder", docs.embedder)  # look into a CachedEmbedder
    tokenizer = getattr(model, "tokenizer", None)
    if tokenizer is None:
        raise InvalidInput(f"the model {docs.model or 'none'} does not show its tokenizer; leave out --tokens")
    return tokenizer
