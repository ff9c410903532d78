"""Links between records: edges that users put, and entities that texts name. Checked whole before anything is written."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import apsw
import numpy as np

from vecdb.definition import Definition
from vecdb.errors import InvalidInput, RecordNotFound
from vecdb.metadata import decode
from vecdb.storage import Store
from vecdb.tables import StoredLink, StoredRecord, Tables
from vecdb.types import Link, value_under

# Kinds that the graph makes by itself: of near vectors, of chunks that follow one another, of texts that name the same.
DERIVED_KINDS = ("semantic", "sequence", "entity")
_LONGEST_KIND = 64
_PAGE = 1_000

Extractor = Callable[[str], Iterable[str]] | str


@dataclass(frozen=True, slots=True)
class Entities:
    """What a record names: by a function of its text, or by a metadata key (dots go into nested ones) that holds text or a list
    of it.
    """

    extractor: Extractor

    def __post_init__(self) -> None:
        if not callable(self.extractor) and not (isinstance(self.extractor, str) and self.extractor):
            raise InvalidInput(f"extractor is {self.extractor!r}; give a function text -> entities, or a metadata key")

    def of(self, text: str | None, metadata: str) -> tuple[str, ...]:
        """Each entity once, case folded, empty ones left out. metadata: as it is stored. Raises InvalidInput."""
        if callable(self.extractor):
            found: Any = self.extractor(text) if text else ()
        else:
            found = value_under(decode(metadata), self.extractor)
            found = [found] if isinstance(found, str) else found if isinstance(found, list) else ()
            found = [name for name in found if isinstance(name, str)]
        return _names(found, "the extractor gave")


def _names(found: Any, what: str) -> tuple[str, ...]:
    """Each entity once, case folded, empty ones left out. Raises InvalidInput."""
    names: list[Any] = list(found) if isinstance(found, Iterable) else [None]
    if isinstance(found, str) or not all(isinstance(name, str) for name in names):
        raise InvalidInput(f"{what} {found!r}; it must be a list of texts, the names of entities")
    return tuple(dict.fromkeys(name.strip().casefold() for name in names if name.strip()))


class Links:
    """Writing and reading the links of one collection."""

    def __init__(self, store: Store, tables: Tables, definition: Definition) -> None:
        self._store = store
        self._tables = tables
        self._definition = definition

    def put(self, sources: Any, targets: Any, kinds: Any, weights: Any, directed: Any) -> int:
        lines = link_lines(sources, targets, kind=kinds, weight=weights, directed=directed)
        with self._store.write() as db:
            rows = self._rows(db, lines)
            self._tables.put_links(
                db,
                (
                    StoredLink(rows[line.source], rows[line.target], line.kind, line.weight, line.directed)
                    for line in lines
                ),
            )
        return len(lines)

    def remove(self, sources: Any, targets: Any, kind: str | None) -> int:
        """Links that are not there are passed over, and so are ids."""
        lines = link_lines(sources, targets, kind="link" if kind is None else kind)
        with self._store.write() as db:
            self._definition.refresh(db)
            known = self._tables.by_ids(db, list({id for line in lines for id in (line.source, line.target)}))
            ends = [
                (known[x.source].row, known[x.target].row) for x in lines if x.source in known and x.target in known
            ]
            return self._tables.remove_links(db, ends, kind)

    def of(self, id: str | None, kind: str | None) -> list[Link]:
        """The links at one record or at all, by source, target and kind. Raises RecordNotFound."""
        with self._store.snapshot() as db:
            self._definition.refresh(db)
            row = None if id is None else self._existing(db, [id])[id].row
            found = self._tables.links_of(db, row, time.time())
        links = [Link(source, target, own, weight, bool(directed)) for source, target, own, weight, directed in found]
        return [link for link in links if kind is None or link.kind == kind]

    def mention(self, entities: Entities) -> int:
        """Read the entities of all records anew, in one transaction; returns how many mentions there are."""
        mentions: list[tuple[str, int]] = []
        read: list[int] = []
        with self._store.snapshot() as db:
            self._definition.refresh(db)
            for record in self._every_record(db):
                read.append(record.row)
                mentions += [(name, record.row) for name in entities.of(record.text, record.metadata)]
        with self._store.write() as db:
            # A record that was changed meanwhile has another row and was read by the writer; mentions of a gone row go with it.
            present = self._tables.ids_of(db, read)
            self._tables.forget_mentions(db, [*present])
            self._tables.put_mentions(db, ((name, row) for name, row in mentions if row in present))
        return len(mentions)

    def name(self, named: Mapping[str, Iterable[str]]) -> int:
        """Say what records name, by id, in the place of what was known of them; returns how many mentions there are. Raises
        RecordNotFound.
        """
        checked = {id: _names(names, f"record {id!r} has entities") for id, names in named.items()}
        with self._store.write() as db:
            self._definition.refresh(db)
            known = self._existing(db, list(checked))
            self._tables.forget_mentions(db, [record.row for record in known.values()])
            self._tables.put_mentions(db, ((name, known[id].row) for id, names in checked.items() for name in names))
        return sum(map(len, checked.values()))

    def entities(self, ids: Sequence[str]) -> dict[str, list[str]]:
        """What each of these records names, sorted; those that name nothing are left out."""
        named: dict[str, list[str]] = {}
        with self._store.snapshot() as db:
            for id, name in self._tables.mentions_of(db, ids):
                named.setdefault(id, []).append(name)
        return named

    def _every_record(self, db: apsw.Connection) -> Iterator[StoredRecord]:
        after, now = 0, time.time()
        while page := self._tables.page(db, after, now, _PAGE):
            yield from page
            after = page[-1].row

    def _rows(self, db: apsw.Connection, lines: Sequence[Link]) -> dict[str, int]:
        self._definition.refresh(db)
        known = self._existing(db, list(dict.fromkeys(id for line in lines for id in (line.source, line.target))))
        return {id: record.row for id, record in known.items()}

    def _existing(self, db: apsw.Connection, ids: Sequence[str]) -> dict[str, StoredRecord]:
        known, now = self._tables.by_ids(db, ids), time.time()
        for id in ids:
            if id not in known or known[id].is_expired(now):
                raise RecordNotFound(
                    f"there is no record {id!r} in collection {self._definition.name!r}; add records before they are linked"
                )
        return known


def link_lines(sources: Any, targets: Any, **columns: Any) -> list[Link]:
    """One Link for each pair of ids, or one for two ids; a column is one value for all, or a list of one for each."""
    is_one = isinstance(sources, str) and isinstance(targets, str)
    ends = [
        list(given) if isinstance(given, Iterable) and not isinstance(given, str) else [given]
        for given in (sources, targets)
    ]
    count = max(map(len, ends))
    ends = [end * count if len(end) == 1 else end for end in ends]
    wide: dict[str, list[Any]] = {}
    for name, value in columns.items():
        is_column = isinstance(value, list | tuple | np.ndarray)
        if is_column and is_one:
            raise InvalidInput(f"{name} is {value!r} for one link; give one value")
        wide[name] = list(value) if is_column else [value] * count
    for name, column in {"sources": ends[0], "targets": ends[1], **wide}.items():
        if len(column) != count:
            raise InvalidInput(f"{count} links have {len(column)} {name}; give one for each, or one for all")
    return [
        _link(place, *ids, **dict(zip(wide, values)))
        for place, (ids, values) in enumerate(zip(zip(*ends), zip(*wide.values())))
    ]


def _link(place: int, source: Any, target: Any, kind: Any, weight: Any = 1.0, directed: Any = False) -> Link:
    for id in (source, target):
        if not isinstance(id, str):
            raise InvalidInput(f"link {place}: id {id!r} is a {type(id).__name__}; ids are text", position=place)
    if source == target:
        raise InvalidInput(f"link {place} leads from {source!r} to itself; link two records", position=place)
    if not isinstance(kind, str) or not 0 < len(kind) <= _LONGEST_KIND or not kind.isprintable():
        raise InvalidInput(
            f"link {place}: kind is {kind!r}; give 1 to {_LONGEST_KIND} printable characters", position=place
        )
    if kind in DERIVED_KINDS:
        raise InvalidInput(
            f"link {place}: kind {kind!r} is kept for links that vecdb derives; give it another name", position=place
        )
    if not isinstance(directed, bool | np.bool_):
        raise InvalidInput(f"link {place}: directed is {directed!r}; it must be True or False", position=place)
    is_number = isinstance(weight, int | float | np.integer | np.floating) and not isinstance(weight, bool)
    if not is_number or not 0 < weight <= float(np.finfo(np.float32).max) or np.float32(weight) == 0:
        raise InvalidInput(f"link {place}: weight is {weight!r}; it must be a finite number above 0", position=place)
    return Link(source, target, kind, float(weight), bool(directed))
