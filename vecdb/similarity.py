"""A similarity of the user's own, learned: the field "learned" of a collection, a vector for each record that has one.

What is learned is a small matrix (`vecdb.blocking.hashing.Head`), kept in the file; vectors of the field are made of the stored
ones when they are asked for, so records that are written later have theirs at once, and nothing can be out of step. Learned anew,
it takes the place of the one of before, also in other processes.
"""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vecdb.definition import Definition
from vecdb.errors import InvalidInput, InvalidQuery, RecordNotFound
from vecdb.memory import Memory
from vecdb.storage import Store
from vecdb.tables import Tables
from vecdb.types import DERIVED_FIELDS, Record
from vecdb.vectors import Matrix

if TYPE_CHECKING:  # compiled kernels are behind it
    from vecdb.blocking.hashing import HashConfig, Head

LEARNED = DERIVED_FIELDS[1]
Triple = tuple[str, str, str]  # ids: the first is more like the second than like the third
Similarity = Callable[[Record, Record], float]

_LEAST_TRIPLES = 20
_NEAR, _ANY = 8, 8  # records that a similarity function is asked about, for each drawn: the nearest ones, and others


@dataclass(frozen=True, slots=True)
class LearnedSimilarity:
    """How well triples are told that were not learned from: which share of held_out has the second nearer to the first than the
    third, before by the stored vectors, after in the learned field.
    """

    triples: int
    held_out: int
    before: float
    after: float
    dimension: int


class LearnedVectors:
    """The field "learned" of one collection."""

    def __init__(self, store: Store, tables: Tables, memory: Memory, definition: Definition) -> None:
        self._store = store
        self._tables = tables
        self._memory = memory
        self._definition = definition
        self._lock = threading.Lock()
        self._head: tuple[str, Head] | None = None  # by its version
        self._current: tuple[str, NDArray[np.int64], Matrix] | None = None  # made by the head of that version

    def learn(self, triples: Sequence[Triple], config: HashConfig) -> LearnedSimilarity:
        """Raises InvalidInput (`.position`) for what is no triple, RecordNotFound, MissingExtra without PyTorch, ReadOnly."""
        checked = _checked(triples)
        ids = list(dict.fromkeys(id for triple in checked for id in triple))
        place = {id: number for number, id in enumerate(ids)}
        numbers = np.array([[place[id] for id in triple] for triple in checked], dtype=np.int64)
        head, learned = learn_triples(self._vectors(ids), numbers, config)
        version = secrets.token_hex(8)
        with self._store.write() as db:
            self._definition.refresh(db)
            self._definition.kept.put(db, "derived", {"version": version}, LEARNED, {"head": head.matrix})
        return learned

    def triples_by(
        self, similarity: Similarity, records: Callable[[list[str]], list[Record]], config: HashConfig, sample: int
    ) -> list[Triple]:
        """Triples that a function tells apart: of each of `sample` records drawn, the one most like it among near ones and others
        is its second, each that is less like it a third.
        """
        from vecdb.blocking.codes import unit

        rows, vectors = self._stored()
        random = np.random.default_rng([config.seed, 21])
        if len(rows) < 3:
            raise InvalidInput("there are fewer than 3 records with a vector; add some before a similarity is learned")
        with self._store.read() as db:
            ids = {row: record.id for row, record in self._tables.by_rows(db, rows.tolist()).items()}
        units = unit(vectors)
        triples: list[Triple] = []
        for anchor in random.permutation(len(rows))[:sample].tolist():
            near = np.argsort(-(units @ units[anchor]), kind="stable")[: _NEAR + 1]
            chosen = np.unique(np.append(near, random.integers(len(rows), size=_ANY)))
            names = [ids[row] for row in rows[chosen[chosen != anchor]].tolist() if row in ids]
            if int(rows[anchor]) not in ids or len(names) < 2:
                continue
            own, *others = records([ids[int(rows[anchor])], *names])
            said = [_number(similarity(own, other)) for other in others]
            best = int(np.argmax(said))
            triples += [(own.id, others[best].id, other.id) for other, s in zip(others, said) if s < said[best]]
        return triples

    def current(self) -> tuple[NDArray[np.int64], Matrix]:
        """The rows (m,) that have a vector now, ascending, and their vectors (m, D) at unit length. Raises InvalidQuery if
        nothing was learned yet.
        """
        version, head = self._kept()
        snapshot = self._memory.current("vectors")
        assert snapshot.vectors is not None
        slots = np.flatnonzero(snapshot.live)
        slots = slots[snapshot.vectors.holds(slots)]
        rows = snapshot.rows[slots]
        with self._lock:
            before = self._current
            if before is None or before[0] != version:
                before = version, np.zeros(0, np.int64), np.zeros((0, head.matrix.shape[1]), np.float32)
            if not np.array_equal(before[1], rows):  # a row's vector never changes: what is known of it stays
                known = np.isin(rows, before[1])
                matrix = np.empty((len(rows), head.matrix.shape[1]), np.float32)
                matrix[known] = before[2][np.searchsorted(before[1], rows[known])]
                if not known.all():
                    matrix[~known] = head(snapshot.vectors.vectors_at(slots[~known]))
                before = version, rows, matrix
            self._current = before
            return before[1], before[2]

    def vector_of(self, id: str) -> Matrix | None:
        """(D,), or None for a record that has none."""
        rows, vectors = self.current()
        with self._store.snapshot() as db:
            record = self._tables.by_id(db, id)
        place = -1 if record is None else int(np.searchsorted(rows, record.row))
        is_there = record is not None and place < len(rows) and rows[place] == record.row
        return vectors[place].copy() if is_there else None

    def dimension(self) -> int:
        return int(self._kept()[1].matrix.shape[1])

    def _kept(self) -> tuple[str, Head]:
        from vecdb.blocking.hashing import Head

        kept = self._definition.kept
        with self._store.snapshot() as db:
            value = kept.get(db, "derived", LEARNED)
            if value is None:
                raise InvalidQuery(
                    f"collection {self._definition.name!r} has no vectors in field {LEARNED!r}; make them with learn_similarity()"
                )
            known = self._head
            if known is None or known[0] != value["version"]:
                head = Head(np.ascontiguousarray(kept.arrays(db, "derived", LEARNED)["head"], dtype=np.float32))
                self._head = known = value["version"], head
            return known

    def _stored(self) -> tuple[NDArray[np.int64], Matrix]:
        snapshot = self._memory.current("vectors")
        assert snapshot.vectors is not None
        slots = np.flatnonzero(snapshot.live)
        slots = slots[snapshot.vectors.holds(slots)]
        return snapshot.rows[slots], snapshot.vectors.vectors_at(slots)

    def _vectors(self, ids: Sequence[str]) -> Matrix:
        """(N, D) the stored vectors of records. Raises RecordNotFound, InvalidInput for one that has none."""
        rows, vectors = self._stored()
        with self._store.snapshot() as db:
            known = self._tables.by_ids(db, ids)
        for id in ids:
            if id not in known:
                raise RecordNotFound(f"there is no record {id!r} in collection {self._definition.name!r}; add it first")
        wanted = np.array([known[id].row for id in ids], dtype=np.int64)
        places = np.minimum(np.searchsorted(rows, wanted), max(0, len(rows) - 1))
        missing = np.flatnonzero(rows[places] != wanted) if len(rows) else np.arange(len(ids))
        if len(missing):
            raise InvalidInput(
                f"record {ids[int(missing[0])]!r} has no vector to learn from; leave it out of the triples"
            )
        return vectors[places]


def learn_triples(vectors: Matrix, triples: NDArray[np.int64], config: HashConfig) -> tuple[Head, LearnedSimilarity]:
    """vectors (N, D), triples (T, 3) places: the head after the epoch that tells most held-out triples, which is a fifth of them.

    Held-out ones share no first record with the others.
    """
    from vecdb.blocking.codes import unit
    from vecdb.blocking.training import train_on_triples

    units = unit(vectors)
    firsts = np.random.default_rng([config.seed, 22]).permutation(np.unique(triples[:, 0]))
    is_held = np.isin(triples[:, 0], firsts[: max(1, len(firsts) // 5)])
    if is_held.all():
        raise InvalidInput("all triples begin with one record; give triples of several, so that some can be held out")
    learning, held_out = triples[~is_held], triples[is_held]
    head = train_on_triples(units, learning, config, judge=lambda head: share_told(head(units), held_out))
    before, after = share_told(units, held_out), share_told(head(units), held_out)
    return head, LearnedSimilarity(len(learning), len(held_out), before, after, head.matrix.shape[1])


def share_told(units: Matrix, triples: NDArray[np.int64]) -> float:
    """Which share of triples (T, 3) has the second nearer to the first than the third is, by inner product."""
    first, second, third = (units[triples[:, column]] for column in range(3))
    return float(np.mean((first * second).sum(axis=1) > (first * third).sum(axis=1)))


def _checked(triples: Sequence[Triple]) -> list[Triple]:
    checked: list[Triple] = []
    for position, triple in enumerate(triples):
        ids = list(triple) if isinstance(triple, Sequence) and not isinstance(triple, str) else []
        if len(ids) != 3 or not all(isinstance(id, str) for id in ids) or len(set(ids)) != 3:
            raise InvalidInput(
                f"triple {position} is {ids or triple!r}; give three different ids: a record, one like it, one less like it",
                position=position,
            )
        checked.append((ids[0], ids[1], ids[2]))
    if len(checked) < _LEAST_TRIPLES:
        raise InvalidInput(f"{len(checked)} triples are too few to learn from; give at least {_LEAST_TRIPLES}")
    return checked


def _number(value: Any) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError) as error:
        raise InvalidInput(f"similarity gave {value!r}; it must give a number") from error
    if not np.isfinite(number):
        raise InvalidInput(f"similarity gave {value!r}; it must give a finite number")
    return number


def config_of(dimension: int, epochs: int, seed: int) -> HashConfig:
    """Raises InvalidInput."""
    from vecdb.blocking.hashing import HashConfig

    return HashConfig(dimension=dimension, epochs=epochs, seed=seed)
