"""Judged collections: documents, queries, and which documents people found relevant to which query.

Read from the data that ships with vecdb, or from any folder in the layout of BEIR (Thakur et al. 2021):

    corpus.jsonl      one document a line: _id, title, text, perhaps more
    queries.jsonl     one query a line: _id, text
    qrels/test.tsv    a header, then query id, document id and grade, with tabs between; qrels/<split>.tsv
                      grade 0: judged not relevant

The .jsonl files may be gzipped (.jsonl.gz).
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vecdb.errors import InvalidInput, NotFound


@dataclass(frozen=True, slots=True)
class JudgedCollection:
    """corpus: documents as dicts with `_id`, `title` and `text`. queries: text by id, the judged ones of the split.

    qrels: for each query id the grade of each judged document, larger is more relevant.
    """

    name: str
    corpus: list[dict[str, Any]]
    queries: dict[str, str]
    qrels: dict[str, dict[str, int]]


def judged_queries(queries: Any, qrels: Mapping[str, Mapping[str, int]] | None) -> tuple[Any, Any]:
    """The queries to ask, and the grades of each: of a mapping those that qrels judge, in its order; without qrels all, and None.

    Raises InvalidInput if qrels come without a mapping, or judge none of it.
    """
    if qrels is None:
        return (list(queries.values()) if isinstance(queries, Mapping) else queries), None
    if not isinstance(queries, Mapping):
        raise InvalidInput("qrels were given; give queries as a mapping from their ids to texts or vectors")
    ids = [id for id in queries if id in qrels]
    if not ids:
        raise InvalidInput("no query has judgements; queries and qrels must share their ids")
    return [queries[id] for id in ids], [qrels[id] for id in ids]


def load_judged(name_or_path: str | Path, *, split: str = "test") -> JudgedCollection:
    """A judged collection: one that ships with vecdb by its name, such as "scifact", or any folder by its path.

    Raises NotFound if there is no such collection, InvalidInput if a file of it is missing or malformed.
    """
    folder = _find(name_or_path)
    qrels = _read_qrels(folder / "qrels" / f"{split}.tsv")
    corpus = list(_read_lines(folder, "corpus", ("_id", "text")))
    queries = {query["_id"]: query["text"] for query in _read_lines(folder, "queries", ("_id", "text"))}
    unknown = [query for query in qrels if query not in queries]
    if unknown:
        raise InvalidInput(
            f"{folder}: {len(unknown)} judged queries, such as {unknown[0]!r}, are not in its queries file"
        )
    return JudgedCollection(
        folder.name, corpus, {query: text for query, text in queries.items() if query in qrels}, qrels
    )


def shipped_data() -> Path:
    """The folder of the data that ships with vecdb.

    In an installed package it lies inside `vecdb`; in a source checkout beside it, and there importlib.resources does
    not find it, because an editable install cannot map a folder without an __init__.py below a package that has one.
    """
    package = Path(__file__).resolve().parent
    for folder in (package / "datasets", package.parent / "datasets"):
        if (folder / "manifest.json").is_file():
            return folder
    raise NotFound(
        f"the data that ships with vecdb is not beside {package}; the installation is incomplete, reinstall it"
    )


def shipped_collections() -> list[str]:
    """The names of the judged collections that ship with vecdb."""
    return sorted(folder.name for folder in shipped_data().iterdir() if (folder / "qrels").is_dir())


def _find(name_or_path: str | Path) -> Path:
    """A name without a slash is looked up among the shipped collections first, then as a path."""
    if isinstance(name_or_path, str) and name_or_path in shipped_collections():
        return shipped_data() / name_or_path
    folder = Path(name_or_path)
    if not folder.is_dir():
        raise NotFound(
            f"{str(name_or_path)!r} is neither a judged collection that ships with vecdb "
            f"({', '.join(shipped_collections())}) nor a folder with corpus.jsonl, queries.jsonl and qrels/"
        )
    return folder


def _read_lines(folder: Path, name: str, wanted: tuple[str, ...]) -> Iterator[dict[str, Any]]:
    """The objects of name.jsonl or name.jsonl.gz, each checked to have the wanted keys, as strings."""
    path = next((path for path in (folder / f"{name}.jsonl", folder / f"{name}.jsonl.gz") if path.is_file()), None)
    if path is None:
        raise InvalidInput(
            f"{folder} has neither {name}.jsonl nor {name}.jsonl.gz; a judged collection needs one of them"
        )
    with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                item = json.loads(line)
            except json.JSONDecodeError as error:
                raise InvalidInput(f"{path}, line {number} is not JSON: {error}") from error
            if not isinstance(item, dict) or not all(isinstance(item.get(key), str) for key in wanted):
                raise InvalidInput(f"{path}, line {number}: wanted an object with the strings {' and '.join(wanted)}")
            yield item


def _read_qrels(path: Path) -> dict[str, dict[str, int]]:
    """Grades by query id and document id, from a file with a header line and three columns."""
    if not path.is_file():
        splits = sorted(other.stem for other in path.parent.glob("*.tsv"))
        raise InvalidInput(f"{path} does not exist; the splits that are there: {', '.join(splits) or 'none'}")
    qrels: dict[str, dict[str, int]] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines()[1:], start=2):
        columns = line.split("\t")
        try:
            query, document, grade = columns
            qrels.setdefault(query, {})[document] = int(grade)
        except ValueError as error:
            raise InvalidInput(
                f"{path}, line {number}: wanted query id, document id and a whole-number grade with tabs between, "
                f"got {line!r}"
            ) from error
    return qrels
