"""Near duplicates of a collection's records: found, and skipped, linked or replaced; when records are added, or afterwards.

How alike two records are is the mean of what they have of two cosines: of their stored vectors, and of the words of their texts
in pieces (`vecdb.blocking.words`, all weighted alike). It depends on the two alone, so what is a duplicate when it is added is
one afterwards, too. With a blocker it is the inner product of the blocker's codes: its fields are "text" and keys of metadata.

One record stands for all that are like it: the oldest ("skip"), the newest ("replace"). Which ones go is decided one after the
other, each against those that stay, so likeness is never passed on from one to the next.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from vecdb.errors import InvalidInput
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
_PAGE, _AT_ONCE = 1_000, 256
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


def codes_of_records(records: Sequence[Record], blocker: Blocker | None = None) -> Codes:
    """Records with their vectors. Raises InvalidInput if no record has any of a blocker's fields, ModelUnavailable."""
    from vecdb.blocking.codes import Views, codes_of, unit
    from vecdb.blocking.words import Lexicon

    if blocker is not None:
        return _codes_by(blocker, records)
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
    from vecdb.blocking.codes import Codes

    own = np.arange(first, len(codes))
    found = []
    for start, scores in Codes(codes.dense[own], codes.sparse.taken(own)).products(codes):
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
    records = sorted(
        _all_records(collection, where), key=lambda record: record.created
    )  # stable: then as they were written
    pairs: list[tuple[int, int, float]] = []
    if len(records) > 1:
        codes = codes_of_records(records, blocker)
        pairs = like_pairs(codes, *_near(collection, records, codes, where, blocker), least)
    if policy == "link":
        found = [(b, a, similarity) for a, b, similarity in pairs]  # the newer one is the duplicate
    else:
        found = standing(len(records), pairs, newest=policy == "replace")
    duplicates = tuple(Duplicate(records[a].id, records[b].id, similarity) for a, b, similarity in found)
    if apply:
        carry_out(collection, policy, duplicates)
    counts = (0, len(duplicates)) if policy == "link" else (len(duplicates), 0)
    return Deduped(policy, least, len(records), duplicates, *counts, apply)


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


def _all_records(collection: Collection, where: Any) -> list[Record]:
    records: list[Record] = []
    cursor = None
    while True:
        page = collection.scan(where=where, limit=_PAGE, cursor=cursor, vectors=True)
        records += page.records
        cursor = page.cursor
        if cursor is None:
            return records


def _near(
    collection: Collection, records: Sequence[Record], codes: Codes, where: Any, blocker: Blocker | None
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Pairs of places worth comparing: each record with the nearest by vector, through the index; by code where a blocker, or a
    record without a vector, needs that.
    """
    if blocker is None and all(record.vector is not None for record in records):
        place = {record.id: i for i, record in enumerate(records)}
        lists = []
        for start in range(0, len(records), _AT_ONCE):
            block = np.stack(
                [record.vector for record in records[start : start + _AT_ONCE] if record.vector is not None]
            )
            hits = collection.search(vector=block, k=_LOOKED_AT + 1, mode="vector", where=where)
            lists += [[place[id] for id in own.ids if id in place] for own in hits]
        own = np.repeat(np.arange(len(records)), [len(one) for one in lists])
        return own, np.array([other for one in lists for other in one], dtype=np.int64)
    from vecdb.blocking.codes import nearest

    places, _ = nearest(codes, codes, _LOOKED_AT, itself=True)
    return np.repeat(np.arange(len(records)), places.shape[1]), places.ravel()


def _stored_like(collection: Collection, new: Sequence[Record]) -> dict[str, None]:
    """Ids of stored records that are near to new ones: by vector, by words for those without."""
    found: dict[str, None] = {}
    if not collection.count():
        return found
    vectors = [record.vector for record in new if record.vector is not None]
    texts = [record.text for record in new if record.vector is None and record.text and record.text.strip()]
    lists = []
    for start in range(0, len(vectors), _AT_ONCE):
        block = np.stack(vectors[start : start + _AT_ONCE])
        lists += collection.search(vector=block, k=_LOOKED_AT, mode="vector")
    if texts:
        lists += collection.search(texts, k=_LOOKED_AT, mode="text")
    for hits in lists:
        found |= dict.fromkeys(hits.ids)
    return found


def _codes_by(blocker: Blocker, records: Sequence[Record]) -> Codes:
    from vecdb.blocking.blocker import encoder_of
    from vecdb.blocking.tables import Table, text_of

    rows = [
        tuple(text_of(record.text if field == "text" else record.metadata.get(field)) for field in blocker.fields)
        for record in records
    ]
    if records and not any(any(row) for row in rows):
        raise InvalidInput(
            f"no record has any of the blocker's fields {', '.join(blocker.fields)}; they are 'text' or keys of metadata"
        )
    table = Table(tuple(record.id for record in records), blocker.fields, tuple(rows))
    return blocker.codes(blocker.views([table], encoder_of(blocker))[0])
