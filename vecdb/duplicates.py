"""Near duplicates of a collection's records: found, and skipped, linked or replaced; when records are added, or afterwards.

How alike two records are is the mean of what they have of two cosines: of their stored vectors, and of the words of their texts
in pieces (`vecdb.blocking.words`, all weighted alike). It depends on the two alone, so what is a duplicate when it is added is
one afterwards, too. With a blocker it is the inner product of the blocker's codes: its fields are "text" and keys of metadata.

One record stands for all that are like it: the oldest ("skip"), the newest ("replace"). Which ones go is decided one after the
other, each against those that stay, so likeness is never passed on from one to the next.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from vecdb.errors import InvalidInput
from vecdb.paging import pages
from vecdb.types import Duplicate, Record

if TYPE_CHECKING:
    from vecdb.blocking.blocker import Blocker
    from vecdb.blocking.codes import Codes
    from vecdb.collection import Collection

Policy = Literal["skip", "link", "replace"]
POLICIES = ("skip", "link", "replace")
KIND = "duplicate"  # of links between duplicates
THRESHOLD = 0.9  # a changed word in twenty passes, a changed sentence does not
_LOOKED_AT = 16  # nearest records that are compared with each
_PAGE = 1_000  # records that are read at once
_AT_ONCE = 64  # records that are searched for at once: what they find, texts and all, is about a page
_TOLERANCE = 1e-5  # of products in float32: equal records are alike at threshold 1


@dataclass(frozen=True, slots=True)
class Deduped:
    """What `Collection.dedupe` found, and did if is_applied. duplicates: of which `id` goes (or is linked) and `of` stays.

    deleted, linked: how many records and links that are, or would be.
    """

    policy: str
    threshold: float
    records: int
    duplicates: tuple[Duplicate, ...]
    deleted: int
    linked: int
    is_applied: bool


def check_policy(policy: Any, threshold: Any) -> None:
    """Raises InvalidInput."""
    if policy not in POLICIES:
        raise InvalidInput(f"policy is {policy!r}; it must be one of {', '.join(POLICIES)}")
    number = isinstance(threshold, int | float) and not isinstance(threshold, bool)
    if not number or not 0 < threshold <= 1:
        raise InvalidInput(f"threshold is {threshold!r}; it must be a number above 0 and at most 1")


def codes_of_records(records: Sequence[Record]) -> Codes:
    """Of records with their vectors; each depends on its own record alone."""
    from vecdb.blocking.codes import Views, codes_of, unit
    from vecdb.blocking.words import Lexicon

    width = next((len(record.vector) for record in records if record.vector is not None), 1)
    vectors = np.zeros((len(records), width), np.float32)
    for place, record in enumerate(records):
        if record.vector is not None:
            vectors[place] = record.vector
    none = np.zeros(0, np.int32)
    words = Lexicon(none, none, 0).vectors([record.text or "" for record in records])
    views = Views(unit(vectors), (words,))
    return codes_of(views, views.meaning, np.array([0.5, 0.5], np.float32))


def like_pairs(
    codes: Codes, places: NDArray[np.int64], others: NDArray[np.int64], threshold: float
) -> list[tuple[int, int, float]]:
    """Of pairs of places those that are alike: (place, other, similarity), sorted."""
    from vecdb.index.sparse import products_of_pairs

    kept = places != others
    places, others = places[kept], others[kept]
    dense = np.einsum("pd,pd->p", codes.dense[places], codes.dense[others])
    products = dense + products_of_pairs(codes.sparse, codes.sparse, places, others)
    alike = np.flatnonzero(products >= threshold - _TOLERANCE)
    found = {
        (min(a, b), max(a, b)): min(1.0, product)
        for a, b, product in zip(places[alike].tolist(), others[alike].tolist(), products[alike].tolist())
    }
    return [(a, b, product) for (a, b), product in sorted(found.items())]


def all_pairs(codes: Codes, threshold: float, first: int = 0) -> list[tuple[int, int, float]]:
    """The same of every two of which one is at place `first` or later."""
    found = []
    for start, scores in codes.taken(np.arange(first, len(codes))).products(codes):
        places, others = np.nonzero(scores >= threshold - _TOLERANCE)
        pairs = zip((places + start + first).tolist(), others.tolist(), scores[places, others].tolist())
        found += [(other, place, min(1.0, product)) for place, other, product in pairs if other < place]
    return sorted(found)


def standing(count: int, pairs: Sequence[tuple[int, int, float]], *, newest: bool) -> list[tuple[int, int, float]]:
    """Which of count records (oldest first) go, and for which that stays: (gone, stays, similarity), most similar of those."""
    near: dict[int, list[tuple[float, int]]] = {}
    for a, b, similarity in pairs:
        near.setdefault(a, []).append((similarity, b))
        near.setdefault(b, []).append((similarity, a))
    gone: dict[int, tuple[int, float]] = {}
    kept: set[int] = set()
    for place in reversed(range(count)) if newest else range(count):
        mine = [(similarity, -other) for similarity, other in near.get(place, ()) if other in kept]
        if mine:
            similarity, other = max(mine)
            gone[place] = -other, similarity
        else:
            kept.add(place)
    return [(place, other, similarity) for place, (other, similarity) in sorted(gone.items())]


def dedupe(
    collection: Collection, policy: Policy, threshold: float | None, where: Any, blocker: Blocker | None, apply: bool
) -> Deduped:
    """As `Collection.dedupe`."""
    least = threshold if threshold is not None else THRESHOLD if blocker is None else max(blocker.rule.least, 1e-6)
    check_policy(policy, least)
    read = _compared(collection, where, blocker)
    ids = read.ids
    alike: dict[tuple[int, int], float] = {}
    for places, others in _near(collection, read, where) if len(ids) > 1 else ():
        alike |= {(a, b): similarity for a, b, similarity in like_pairs(read.codes, places, others, least)}
    pairs = [(a, b, similarity) for (a, b), similarity in sorted(alike.items())]
    if policy == "link":
        found = [(b, a, similarity) for a, b, similarity in pairs]  # the newer one is the duplicate
    else:
        found = standing(len(ids), pairs, newest=policy == "replace")
    duplicates = tuple(Duplicate(ids[a], ids[b], similarity) for a, b, similarity in found)
    if apply:
        carry_out(collection, policy, duplicates)
    counts = (0, len(duplicates)) if policy == "link" else (len(duplicates), 0)
    return Deduped(policy, least, len(ids), duplicates, *counts, apply)


def admitted(
    collection: Collection, new: Sequence[Record], policy: Policy, threshold: float, *, parent: str | None = None
) -> tuple[list[int], list[Duplicate]]:
    """Which places of records that are to come are written under this policy, and the duplicates that were found: among the
    stored records, less those of a parent that they take the place of, and among themselves.
    """
    near = list(_stored_like(collection, new))
    stored = [record for record in collection.get(near, vectors=True) if record is not None]
    old = [record for record in stored if parent is None or record.parent != parent]
    records = [*old, *new]
    if not records:
        return [], []
    pairs = all_pairs(codes_of_records(records), threshold, len(old))
    if policy == "link":
        return list(range(len(new))), [Duplicate(records[b].id, records[a].id, s) for a, b, s in pairs]
    gone = standing(len(records), pairs, newest=policy == "replace")
    written = sorted(set(range(len(new))) - {place - len(old) for place, _, _ in gone})
    return written, [Duplicate(records[a].id, records[b].id, s) for a, b, s in gone]


def carry_out(collection: Collection, policy: Policy, duplicates: Sequence[Duplicate]) -> None:
    """Link duplicates, or delete those that go."""
    if not duplicates:
        return
    if policy == "link":
        collection.link(
            [one.id for one in duplicates],
            [one.of for one in duplicates],
            KIND,
            [one.similarity for one in duplicates],
        )
    else:
        collection.delete([one.id for one in duplicates])


@dataclass(frozen=True, slots=True)
class _Compared:
    """What is kept of records that were read, oldest first. by_vector: each has a vector, and these are compared."""

    ids: list[str]
    codes: Codes
    by_vector: bool


def _compared(collection: Collection, where: Any, blocker: Blocker | None) -> _Compared:
    """Read page after page, of which no more stays than codes; with a blocker, whose encoder takes all at once, its fields."""
    from vecdb.blocking.codes import joined

    ids: list[str] = []
    created: list[float] = []
    parts = [codes_of_records(())]
    values: list[tuple[str, ...]] = []
    by_vector = blocker is None
    for page in pages(collection, where, vectors=True, size=_PAGE):
        ids += [record.id for record in page]
        created += [record.created for record in page]
        by_vector = by_vector and all(record.vector is not None for record in page)
        if blocker is None:
            parts.append(codes_of_records(page.records))
        else:
            values += [_values_of(record, blocker.fields) for record in page]
    # What is written meanwhile is read under its old row and under its new one, and would be its own duplicate.
    last = {id: place for place, id in enumerate(ids)}
    order = sorted(last.values(), key=lambda place: (created[place], place))  # of the same age: as they were written
    ids = [ids[place] for place in order]
    if blocker is not None and len(ids) > 1:
        return _Compared(ids, _codes_by(blocker, ids, [values[place] for place in order]), by_vector)
    codes = joined(parts)
    parts.clear()
    return _Compared(ids, codes if order == list(range(len(codes))) else codes.taken(np.array(order)), by_vector)


def _near(collection: Collection, read: _Compared, where: Any) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Pairs of places worth comparing, some at a time: each record with the nearest by vector, through the index; by code where a
    blocker, or a record without a vector, needs that.
    """
    if read.by_vector:
        place = {id: i for i, id in enumerate(read.ids)}
        for start in range(0, len(read.ids), _AT_ONCE):
            asked = collection.get(read.ids[start : start + _AT_ONCE], vectors=True)
            vectors = {one.id: one.vector for one in asked if one is not None and one.vector is not None}
            if vectors:  # not if all of them have gone since they were read
                block = np.stack(list(vectors.values()))
                hits = collection.search(vector=block, k=_LOOKED_AT + 1, mode="vector", where=where)
                pairs = [
                    (place[id], place[other]) for id, own in zip(vectors, hits) for other in own.ids if other in place
                ]
                own_places, others = np.array(pairs, np.int64).reshape(-1, 2).T
                yield own_places, others
        return
    from vecdb.blocking.codes import nearest

    places, _ = nearest(read.codes, read.codes, _LOOKED_AT, itself=True)
    for start in range(0, len(places), _PAGE):
        others = places[start : start + _PAGE]
        yield np.repeat(np.arange(start, start + len(others)), others.shape[1]), others.ravel()


def _stored_like(collection: Collection, new: Sequence[Record]) -> dict[str, None]:
    """Ids of stored records that are near to new ones: by vector, by words for those without."""
    found: dict[str, None] = {}
    if not collection.count():
        return found
    vectors = [record.vector for record in new if record.vector is not None]
    texts = [record.text for record in new if record.vector is None and record.text and record.text.strip()]
    for start in range(0, len(vectors), _AT_ONCE):
        block = np.stack(vectors[start : start + _AT_ONCE])
        for hits in collection.search(vector=block, k=_LOOKED_AT, mode="vector"):
            found |= dict.fromkeys(hits.ids)
    for start in range(0, len(texts), _AT_ONCE):
        for hits in collection.search(texts[start : start + _AT_ONCE], k=_LOOKED_AT, mode="text"):
            found |= dict.fromkeys(hits.ids)
    return found


def _values_of(record: Record, fields: Sequence[str]) -> tuple[str, ...]:
    from vecdb.blocking.tables import text_of

    return tuple(text_of(record.text if field == "text" else record.metadata.get(field)) for field in fields)


def _codes_by(blocker: Blocker, ids: Sequence[str], values: Sequence[tuple[str, ...]]) -> Codes:
    """Raises InvalidInput if no record has any of the blocker's fields, ModelUnavailable."""
    from vecdb.blocking.blocker import encoder_of
    from vecdb.blocking.tables import Table

    if not any(map(any, values)):
        raise InvalidInput(
            f"no record has any of the blocker's fields {', '.join(blocker.fields)}; they are 'text' or keys of metadata"
        )
    table = Table(tuple(ids), blocker.fields, tuple(values))
    return blocker.codes(blocker.views([table], encoder_of(blocker))[0])
