"""All of a collection to a file and back: JSON lines or Parquet, by the file's ending.

A line of JSON holds a record's own fields (id, text, metadata, parent, seq, expires), dates in metadata as {"$date":
…}; what it names (entities), and the links that start at it and end at a record of the same file; if asked for also
its vector and the model that made it, so that it cannot come among another model's. Settings of the collection that are
not the usual ones come before all records, as {"$collection": …}. In Parquet they stand beside the schema, and metadata is a
column of JSON text, since records need not share their keys. Times of creation are not carried over: the records are new
where they arrive.
"""

from __future__ import annotations

import gzip
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import astuple, fields
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
import orjson

from vecdb.config import CollectionConfig, TextConfig
from vecdb.errors import InvalidInput, InvalidRecord, MissingExtra
from vecdb.index.base import index_config
from vecdb.metadata import decode, encode
from vecdb.paging import pages
from vecdb.types import Filter, Link, Record

if TYPE_CHECKING:
    from vecdb.collection import Collection

_PAGE = 1000
_COLLECTION = "$collection"
_LINK_FIELDS = tuple(field.name for field in fields(Link))[1:]  # a link stands in the record that is its source
_FIELDS = ("id", "text", "parent", "seq", "expires", "vector")


def export_to(collection: Collection, target: str, *, where: Filter | None, vectors: bool) -> int:
    """Write the records that match to a file ("-": standard output); returns how many. A file appears only when it is
    whole.
    """
    settings = _settings(collection)
    if target == "-":
        return _write_json_lines(sys.stdout.buffer, settings, _exported(collection, where, vectors))
    path = Path(target)
    write = _write_parquet if _is_parquet(path) else _write_json_lines
    with _replacing(path) as stream:
        return write(stream, settings, _exported(collection, where, vectors))


def read_records(source: str) -> tuple[dict[str, Any], dict[str, Any] | None, Iterator[dict[str, Any]]]:
    """The settings for a new collection that a file ("-": standard input) holds, its first record, and all of them.
    Raises InvalidRecord where the file is broken.
    """
    lines = _read(source)
    first, given = next(lines, None), {}
    if first is not None and _COLLECTION in first:
        given, first = first[_COLLECTION], next(lines, None)
    return _checked_settings(given), first, chain([first] if first is not None else [], lines)


def usual_model(first: Mapping[str, Any] | None) -> str:
    """The model for a new collection if the user names none: none for vectors whose model nobody knows."""
    return "none" if first is not None and "vector" in first and "model" not in first else "default"


def import_from(
    collection: Collection,
    records: Iterable[dict[str, Any]],
    *,
    upsert: bool,
    batch_size: int,
    unlike: dict[str, Any] | None = None,
) -> dict[str, int]:
    """Add records; each batch is one transaction, and so are all links, which come last. Returns how many were added,
    updated and unchanged, and linked if any were. unlike: options of `add` for near duplicates, which are then counted, too;
    links and entities of those that are left out go with them.

    Raises ModelMismatch for vectors of another model than the collection's, RecordNotFound for links to records that are
    neither in the file nor in the collection.
    """
    write: Any = collection.upsert if upsert else partial(collection.add, **(unlike or {}))
    counts = {"added": 0, "updated": 0, "unchanged": 0}
    links: list[dict[str, Any]] = []
    gone: set[str] = set()
    duplicates = 0
    remaining = iter(records)
    while batch := list(islice(remaining, batch_size)):
        named = {}
        for record in batch:
            bonds = {name: record.pop(name) for name in ("links", "entities") if name in record}
            if bonds and "id" not in record:
                raise InvalidRecord(f"a record has {' and '.join(bonds)}, but no id; records with them need one")
            own_links = bonds.get("links", [])
            if not isinstance(own_links, list):
                raise InvalidRecord(f"links of record {record['id']!r} is {own_links!r}; it must be a list of objects")
            links += [
                {"source": record["id"], **_object(link, f"links of record {record['id']!r}")} for link in own_links
            ]
            if "entities" in bonds:
                named[record["id"]] = bonds["entities"]
        # A batch is of one model almost always; if not, each one's records are a transaction.
        for model in dict.fromkeys(record.get("model") for record in batch):
            own = [record for record in batch if record.get("model") == model]
            result = write([{k: v for k, v in record.items() if k != "model"} for record in own], model=model)
            for name in counts:
                counts[name] += getattr(result, name)
            duplicates += len(result.duplicates)
            if unlike is not None and unlike["duplicates"] != "link":
                gone |= {one.id for one in result.duplicates}
        if named := {id: names for id, names in named.items() if id not in gone}:
            collection.link_entities(named)
    if unlike is not None:
        counts["duplicates"] = duplicates
        links = [link for link in links if not {link["source"], link.get("target")} & gone]
    return counts | {"linked": put_links(collection, _known_links(links))} if links else counts


def read_links() -> list[dict[str, Any]]:
    """Links from standard input, one JSON object a line. Raises InvalidRecord where a line is none."""
    return _known_links([dict(found) for found in _objects(sys.stdin.buffer)])


def _known_links(links: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The links, each with what makes one. Raises InvalidRecord."""
    known = {field.name for field in fields(Link)}
    for number, link in enumerate(links, 1):
        if not {"source", "target"} <= link.keys() <= known:
            raise InvalidRecord(
                f"link {number} has {', '.join(link) or 'nothing'}; it must have source and target, and may have "
                f"{', '.join(sorted(known - {'source', 'target'}))}"
            )
    return links


def put_links(collection: Collection, links: Sequence[Mapping[str, Any]]) -> int:
    """In one transaction; returns how many."""
    made = [Link(**link) for link in links]
    columns = {field.name: [getattr(link, field.name) for link in made] for field in fields(Link)}
    return collection.link(**columns)


def _settings(collection: Collection) -> dict[str, Any]:
    """The settings that are not the usual ones, in nested objects."""
    usual = CollectionConfig(index=type(collection.config.index)())
    given, usual_given = collection.config.as_json(), usual.as_json()
    text, index = (_changed(given[part], usual_given[part]) for part in ("text", "index"))
    if "kind" in given["index"]:
        index["kind"] = given["index"]["kind"]
    changed = {"metric": given["metric"]} if given["metric"] != usual.metric else {}
    return changed | ({"text": text} if text else {}) | ({"index": index} if index else {})


def _changed(given: Mapping[str, Any], usual: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in given.items() if value != usual[name]}


def _checked_settings(given: object) -> dict[str, Any]:
    """What `Database.collection` takes. Raises InvalidRecord."""
    makers: dict[str, Callable[[Any], Any]] = {
        "metric": str,
        "text": lambda text: TextConfig(**text),
        "index": index_config,
    }
    settings = _object(given, f"{_COLLECTION} of the file")
    try:
        return {name: makers[name](value) for name, value in settings.items()}
    except (KeyError, TypeError) as error:
        raise InvalidRecord(
            f"{_COLLECTION} of the file is {dict(settings)!r}, and {error} is not known here; was it written by a later version?"
        ) from error


def _exported(collection: Collection, where: Filter | None, vectors: bool) -> Iterator[dict[str, Any]]:
    """The fields of each record that matches, with what it names and its links to others that match."""
    links: dict[str, list[dict[str, Any]]] = {}
    for source, *link in map(astuple, collection.links()):
        links.setdefault(source, []).append(dict(zip(_LINK_FIELDS, link)))
    kept = None
    if where is not None and links:
        kept = {record.id for page in pages(collection, where) for record in page}
    for page in pages(collection, where, vectors=vectors):
        named = collection._links.entities([record.id for record in page])
        for record in page:
            own = [link for link in links.get(record.id, ()) if kept is None or link["target"] in kept]
            bonds = {"entities": named.get(record.id), "links": own}
            yield _fields(record, collection.model) | {name: value for name, value in bonds.items() if value}


def _is_parquet(path: Path) -> bool:
    if path.suffix == ".parquet":
        return True
    if path.suffix in (".jsonl", ".ndjson") or path.name.endswith((".jsonl.gz", ".ndjson.gz")):
        return False
    raise InvalidInput(f"{path} ends with {path.suffix!r}; name a .jsonl, .jsonl.gz or .parquet file")


@contextmanager
def _replacing(path: Path) -> Iterator[BinaryIO]:
    """A stream whose content takes the path's place at the end, and leaves no trace if it fails."""
    unfinished = path.with_name(f".{path.name}.unfinished")
    try:
        with unfinished.open("wb") as stream:
            if path.suffix == ".gz":
                with gzip.open(stream, "wb") as packed:
                    yield packed  # type: ignore[misc]  # a GzipFile has all that is used of BinaryIO
            else:
                yield stream
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def _fields(record: Record, model: str | None) -> dict[str, Any]:
    """A record's own fields, those that are empty left out, metadata as JSON text."""
    fields = {name: value for name in _FIELDS if (value := getattr(record, name)) is not None}
    if "vector" in fields and model is not None:
        fields["model"] = model
    return fields | {"metadata": encode(record.metadata)}


def _write_json_lines(stream: BinaryIO, settings: Mapping[str, Any], lines: Iterable[dict[str, Any]]) -> int:
    count = 0
    if settings:
        stream.write(orjson.dumps({_COLLECTION: settings}, option=orjson.OPT_APPEND_NEWLINE))
    for line in lines:
        line["metadata"] = orjson.Fragment(line["metadata"])
        stream.write(orjson.dumps(line, option=orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_APPEND_NEWLINE))
        count += 1
    stream.flush()
    return count


def _write_parquet(stream: BinaryIO, settings: Mapping[str, Any], lines: Iterable[dict[str, Any]]) -> int:
    pa, pq = _arrow()
    link = {"target": pa.string(), "kind": pa.string(), "weight": pa.float64(), "directed": pa.bool_()}
    types = {"id": pa.string(), "text": pa.string(), "metadata": pa.string(), "parent": pa.string()}
    types |= {"seq": pa.int64(), "expires": pa.float64(), "vector": pa.list_(pa.float32()), "model": pa.string()}
    types |= {"entities": pa.list_(pa.string()), "links": pa.list_(pa.struct(list(link.items())))}
    schema = pa.schema(list(types.items()), metadata={_COLLECTION: orjson.dumps(settings)} if settings else None)
    count, remaining = 0, iter(lines)
    with pq.ParquetWriter(stream, schema, compression="zstd") as writer:
        while page := list(islice(remaining, _PAGE)):
            columns = [pa.array([line.get(name) for line in page], type_) for name, type_ in types.items()]
            writer.write_batch(pa.record_batch(columns, schema=schema))
            count += len(page)
    return count


def _read(source: str) -> Iterator[dict[str, Any]]:
    if source == "-":
        yield from _from_json_lines(sys.stdin.buffer)
    elif _is_parquet(Path(source)):
        yield from _from_parquet(Path(source))
    elif source.endswith(".gz"):
        with gzip.open(source, "rb") as packed:
            yield from _from_json_lines(packed)
    else:
        with open(source, "rb") as stream:
            yield from _from_json_lines(stream)


def _from_json_lines(lines: Iterable[bytes]) -> Iterator[dict[str, Any]]:
    return map(_record, _objects(lines))


def _object(found: object, what: str) -> Mapping[str, Any]:
    if not isinstance(found, Mapping):
        raise InvalidRecord(f"{what} holds a {type(found).__name__}; it must be an object")
    return found


def _objects(lines: Iterable[bytes]) -> Iterator[Mapping[str, Any]]:
    """Each line of JSON that is not empty. Raises InvalidRecord for one that is no object."""
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            found = orjson.loads(line)
        except orjson.JSONDecodeError as error:
            raise InvalidRecord(
                f"line {number} is not JSON ({error}); records before it may be stored already"
            ) from error
        yield _object(found, f"line {number}")


def _from_parquet(path: Path) -> Iterator[dict[str, Any]]:
    _, pq = _arrow()
    with pq.ParquetFile(path) as table:
        settings = (table.schema_arrow.metadata or {}).get(_COLLECTION.encode())
        if settings is not None:
            yield {_COLLECTION: orjson.loads(settings)}
        for batch in table.iter_batches(batch_size=_PAGE):
            for fields in batch.to_pylist():
                yield _record(fields)


def _record(fields: Mapping[str, Any]) -> dict[str, Any]:
    """What `add` takes, and model. Other fields become an error there, except the times that `get` prints."""
    record = {name: value for name, value in fields.items() if value is not None and name not in ("created", "updated")}
    metadata = record.get("metadata")
    if isinstance(metadata, str):
        record["metadata"] = decode(metadata)
    if "vector" in record:
        record["vector"] = np.asarray(record["vector"], dtype=np.float32)
    return record


def _arrow() -> tuple[Any, Any]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise MissingExtra.of("pyarrow", extra="arrow", what="a Parquet file") from error
    return pyarrow, pyarrow.parquet
