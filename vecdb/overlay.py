"""The graph over a collection's records, in memory: made of everything that links them, and kept in step with the tables.

    semantic   the nearest by vector, read off the search index's own links and measured again; searched for, in the tail
    sequence   chunks of one parent that follow one another
    entity     texts that name the same, the more the fewer others name it
    others     what users put with `Collection.link`

It is made when first asked for, and made again when the snapshot has changed; what costs most, the neighbours of indexed vectors,
is remembered as long as the index is the same, and those of the tail as long as they are in it.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vecdb.errors import InvalidQuery
from vecdb.index.adjacency import Adjacency, pairs_once
from vecdb.index.base import Mask, Vectors
from vecdb.index.exact import exact_search
from vecdb.links import DERIVED_KINDS
from vecdb.memory import Memory, Snapshot
from vecdb.storage import Store
from vecdb.tables import StoredLink, Tables
from vecdb.vector_view import Slots, VectorView

if TYPE_CHECKING:
    from vecdb.index.pagerank import Fingerprints

Kinds = Sequence[str] | Mapping[str, float]
Edges = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.floating[Any]]]  # sources, targets, weights (E,)

NEAREST = 12  # k_g
_SEMANTIC, _SEQUENCE, _ENTITY = range(3)
_COMMON = 64  # an entity that more records name than this tells nothing, and its pairs would be too many
_WALKS = 32  # fingerprints of about 60 entries a node
_MOST_CHOICES = 8  # of kinds whose graphs are remembered


@dataclass(slots=True)
class Overlay:
    """The graph over the slots of one snapshot (without its parts, which would keep an index in memory that is used no more);
    kinds[label] names an edge's kind. is_complete: the neighbours of indexed vectors are in it. prints: walks over all of it,
    once they have been made.
    """

    snapshot: Snapshot
    index: tuple[int, str]
    graph: Adjacency
    kinds: tuple[str, ...]
    is_complete: bool
    prints: Fingerprints | None = None
    _choices: dict[tuple[tuple[str, float], ...], Adjacency] = field(default_factory=dict)

    def is_of(self, snapshot: Snapshot) -> bool:
        """Whether a snapshot has the same records, vectors and links. What did not change is shared between snapshots."""
        own = self.snapshot
        return (
            own.rows is snapshot.rows
            and own.live is snapshot.live
            and self.index == _index_of(snapshot)
            and (own.links_version, own.meta_version) == (snapshot.links_version, snapshot.meta_version)
        )

    def chosen(self, kinds: Kinds | None) -> Adjacency:
        """The edges of these kinds only, weighted by the factor given for each. Raises InvalidQuery for an unknown kind."""
        if kinds is None:
            return self.graph
        factors = dict(kinds) if isinstance(kinds, Mapping) else dict.fromkeys(kinds, 1.0)
        for kind in factors:
            if kind not in self.kinds:
                raise InvalidQuery(f"no link is of kind {kind!r}; there are {', '.join(self.kinds)}")
        key = tuple(sorted(factors.items()))
        found = self._choices.get(key)
        if found is None:
            factor = np.array([factors.get(kind, 0.0) for kind in self.kinds])
            weights = self.graph.weights * factor[self.graph.labels]
            kept = weights > 0
            found = Adjacency.of(
                len(self.graph),
                self.graph.sources[kept],
                self.graph.targets[kept],
                weights[kept],
                self.graph.labels[kept],
            )
            if len(self._choices) >= _MOST_CHOICES:
                self._choices.clear()
            self._choices[key] = found
        return found


class Overlays:
    """The overlay of one collection, for whichever snapshot is current."""

    def __init__(self, store: Store, tables: Tables, memory: Memory) -> None:
        self._store = store
        self._tables = tables
        self._memory = memory
        self._lock = threading.Lock()
        self._finding = threading.Lock()
        self._overlay: Overlay | None = None
        self._indexed: tuple[tuple[int, str], Adjacency] | None = None
        self._tail = _Tail()
        self._links: tuple[int, list[StoredLink], list[tuple[str, int]]] | None = None
        self.is_wanted = False  # a query had to go without a part of it

    def current(self, *, complete: bool = True) -> Overlay:
        """The overlay of a snapshot that knows every change committed before this call.

        complete=False: without the neighbours of indexed vectors, unless they are known: they take seconds to find.
        """
        snapshot = self._memory.current("vectors")
        if complete:
            self._find_neighbours(snapshot)
        with self._lock:
            made = self._overlay
            if made is not None and made.is_of(snapshot) and (made.is_complete or not complete):
                return made
            made = self._made(snapshot)
            self.is_wanted |= not made.is_complete
            self._overlay = made
            return made

    def prepare(self) -> None:
        """Make all of it, and the walks that answers come faster with; in the background, where there is one."""
        from vecdb.index.pagerank import fingerprints, finished  # numba

        made = self.current()
        if made.prints is None and made.graph.edges:
            prints = fingerprints(made.graph, walks=_WALKS)
            finished(
                np.zeros(1), np.zeros(0, np.int64), np.zeros(0), prints
            )  # compiled here, not when a query waits for it
            made.prints = prints
        self.is_wanted = False

    def wants_preparation(self) -> bool:
        """Whether somebody asked for the graph, and it could answer better than it does."""
        made = self._overlay
        return self.is_wanted or (made is not None and made.prints is None and made.graph.edges > 0)

    # -- making it

    def _made(self, snapshot: Snapshot) -> Overlay:
        size = len(snapshot.rows)
        links, mentions = self._stored(snapshot)
        kinds = (*DERIVED_KINDS, *sorted({link.kind for link in links}))
        view = snapshot.vectors
        assert view is not None
        known = self._indexed  # another thread may be putting a newer one there
        indexed = known[1] if known is not None and known[0] == _index_of(snapshot) else None
        parts: list[tuple[Edges, int | NDArray[np.int32]]] = [
            (self._tail.edges(snapshot, view), _SEMANTIC),
            (self._sequences(snapshot), _SEQUENCE),
            (_entity_edges(snapshot, mentions), _ENTITY),
            *_user_edges(snapshot, links, kinds),
        ]
        graph = Adjacency.of(
            size,
            np.concatenate([edges[0] for edges, _ in parts]),
            np.concatenate([edges[1] for edges, _ in parts]),
            np.concatenate([edges[2].astype(np.float64) for edges, _ in parts]),
            np.concatenate([np.broadcast_to(np.int32(label), len(edges[0])) for edges, label in parts]),
        )
        if indexed is not None:
            slots = np.where(_alive(snapshot, view.index_slots), view.index_slots, -1)
            graph = indexed.renumbered(slots, size).merged(graph)
        bare = replace(snapshot, attributes=None, words=None, vectors=None)
        return Overlay(bare, _index_of(snapshot), graph, kinds, indexed is not None or not len(view.index_slots))

    def _find_neighbours(self, snapshot: Snapshot) -> None:
        """The semantic edges between positions of the index: seconds of work, during which nobody else has to wait."""
        index = None if snapshot.vectors is None else snapshot.vectors.index
        if index is None or index.kind == "exact":  # until the kernels are there, an index is searched exactly
            return
        with self._finding:
            if self._indexed is not None and self._indexed[0] == _index_of(snapshot):
                return
            from vecdb.index.nearest_links import nearest_in  # numba

            nodes, scores = nearest_in(index, NEAREST)
            edges = pairs_once(np.repeat(np.arange(len(nodes)), NEAREST), nodes.ravel(), scores.ravel())
            self._indexed = _index_of(snapshot), Adjacency.undirected(len(nodes), *edges)

    def _stored(self, snapshot: Snapshot) -> tuple[list[StoredLink], list[tuple[str, int]]]:
        if self._links is None or self._links[0] != snapshot.links_version:
            with self._store.snapshot() as db:
                self._links = snapshot.links_version, self._tables.all_links(db), self._tables.all_mentions(db)
        return self._links[1], self._links[2]

    def _sequences(self, snapshot: Snapshot) -> Edges:
        """Chunks of one parent whose seq differ by one."""
        with self._store.snapshot() as db:
            places = self._tables.places(db, 0)
        slots = snapshot.slots_of(np.array([row for row, _, _ in places], dtype=np.int64))
        numbers: dict[str, int] = {}
        parents = np.array([numbers.setdefault(parent, len(numbers)) for _, parent, _ in places], dtype=np.int64)
        seqs = np.array([seq for _, _, seq in places], dtype=np.int64)
        order = np.lexsort((slots, seqs, parents))
        before, after = order[:-1], order[1:]
        follow = (parents[before] == parents[after]) & (seqs[before] + 1 == seqs[after])
        follow &= (slots[before] >= 0) & (slots[after] >= 0)
        return _both_ways(slots[before[follow]], slots[after[follow]], np.ones(int(follow.sum())))


@dataclass(frozen=True, slots=True)
class _Nearest:
    """Of m vectors the nearest others, nearest first: their rows (m, NEAREST), -1 where there are fewer, how far they are by the
    collection's metric, +inf there, and the cosines to them, 0 there. Rows stay when slots are renumbered.
    """

    rows: Slots
    distances: Vectors
    cosines: Vectors

    @classmethod
    def none(cls, count: int) -> _Nearest:
        shape = (count, NEAREST)
        return cls(np.full(shape, -1, np.int64), np.full(shape, np.inf, np.float32), np.zeros(shape, np.float32))

    def taken(self, places: NDArray[np.bool_]) -> _Nearest:
        return _Nearest(self.rows[places], self.distances[places], self.cosines[places])

    def followed_by(self, other: _Nearest) -> _Nearest:
        return _Nearest(
            np.concatenate([self.rows, other.rows]),
            np.concatenate([self.distances, other.distances]),
            np.concatenate([self.cosines, other.cosines]),
        )

    def or_nearer(self, other: _Nearest) -> _Nearest:
        """The nearest of both; at equal distance those here, which must be the older rows."""
        rows = np.concatenate([self.rows, other.rows], axis=1)
        distances = np.concatenate([self.distances, other.distances], axis=1)
        cosines = np.concatenate([self.cosines, other.cosines], axis=1)
        order = np.argsort(distances, axis=1, kind="stable")[:, :NEAREST]
        return _Nearest(
            np.take_along_axis(rows, order, 1),
            np.take_along_axis(distances, order, 1),
            np.take_along_axis(cosines, order, 1),
        )


class _Tail:
    """The nearest of each vector that is not in the index yet, followed from snapshot to snapshot: what is new is searched for,
    and offered to the others; who lost a neighbour is searched for again.
    """

    def __init__(self) -> None:
        self._rows: Slots = np.zeros(0, dtype=np.int64)
        self._nearest = _Nearest.none(0)

    def edges(self, snapshot: Snapshot, view: VectorView) -> Edges:
        slots = view.tail_slots[snapshot.live[view.tail_slots]]
        neighbours = snapshot.slots_of(self._nearest.rows.ravel()).reshape(self._nearest.rows.shape)
        lost = (self._nearest.rows >= 0) & ~_alive(snapshot, neighbours)
        rows = snapshot.rows[slots]
        kept = np.isin(self._rows, rows) & ~lost.any(axis=1)
        known, new = self._rows[kept], slots[~np.isin(rows, self._rows)]
        nearest = self._nearest.taken(kept)
        if len(known) and len(new):
            nearest = nearest.or_nearer(_among(snapshot, view, snapshot.slots_of(known), new))
        unknown = slots[~np.isin(rows, known)]
        nearest = nearest.followed_by(_searched(snapshot, view, unknown))
        self._rows, self._nearest = np.concatenate([known, snapshot.rows[unknown]]), nearest
        sources = np.repeat(snapshot.slots_of(self._rows), NEAREST)
        targets = snapshot.slots_of(self._nearest.rows.ravel())
        return _both_ways(*pairs_once(sources, targets, self._nearest.cosines.ravel()))


def _alive(snapshot: Snapshot, slots: Slots) -> Mask:
    """Which slots are those of records that are there."""
    found = slots >= 0
    found[found] = snapshot.live[slots[found]]
    return found


def _searched(snapshot: Snapshot, view: VectorView, slots: Slots) -> _Nearest:
    """The nearest of these slots, wherever they are."""
    if not len(slots):
        return _Nearest.none(0)
    live: Mask | None = None if snapshot.all_live else snapshot.live
    found = view.search(
        view.vectors_at(slots), NEAREST + 1, allowed=None, live=live, exact=False, ef=None, threads=None
    )
    return _others(snapshot, view, slots, found.slots, found.distances)


def _among(snapshot: Snapshot, view: VectorView, slots: Slots, others: Slots) -> _Nearest:
    """The nearest of these slots among some others."""
    k = min(NEAREST, len(others))
    found = exact_search(view.vectors_at(others), view.vectors_at(slots), k, view.metric)
    near = np.where(found.positions >= 0, others[found.positions], -1)
    room = ((0, 0), (0, NEAREST - k))
    return _others(
        snapshot,
        view,
        slots,
        np.pad(near, room, constant_values=-1),
        np.pad(found.distances, room, constant_values=np.inf),
    )


def _others(snapshot: Snapshot, view: VectorView, slots: Slots, near: Slots, distances: Vectors) -> _Nearest:
    """What a search for these slots' own vectors found, (m, NEAREST or more), less themselves."""
    is_other = (near >= 0) & (near != slots[:, None])
    order = np.argsort(~is_other, axis=1, kind="stable")[:, :NEAREST]
    is_other, near, distances = (np.take_along_axis(part, order, 1) for part in (is_other, near, distances))
    if view.metric == "cosine":
        cosines = 1 - distances
    else:
        known, places = np.unique(near[is_other], return_inverse=True)
        cosines = np.zeros(near.shape, np.float32)
        sources = np.nonzero(is_other)[0]
        cosines[is_other] = np.einsum(
            "ed,ed->e", _unit(view.vectors_at(slots))[sources], _unit(view.vectors_at(known))[places]
        )
    return _Nearest(
        np.where(is_other, snapshot.rows[near], -1),
        np.where(is_other, distances, np.inf).astype(np.float32),
        np.where(is_other, cosines, 0).astype(np.float32),
    )


def _unit(vectors: Vectors) -> Vectors:
    """(m, D) at length 1; zeros stay zeros."""
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.divide(vectors, np.where(norms > 0, norms, 1), dtype=np.float32)


def _entity_edges(snapshot: Snapshot, mentions: list[tuple[str, int]]) -> Edges:
    """Every pair of records that name the same entity, summed over entities: its rarity, log(1 + N/df) / log(1 + N), by the
    number of others that name it.

    So a walk over these edges is one from record to entity, by rarity, and on to any other record that names it. Without the
    division a name of fifty records would draw fifty times the flow of a name that two share.
    """
    slots = snapshot.slots_of(np.array([row for _, row in mentions], dtype=np.int64))
    total = max(int(np.count_nonzero(snapshot.live)), 1)
    weights: dict[tuple[int, int], float] = {}
    for _, group in groupby(range(len(mentions)), key=lambda i: mentions[i][0]):
        naming = sorted(int(slots[i]) for i in group if slots[i] >= 0 and snapshot.live[slots[i]])
        if not 2 <= len(naming) <= _COMMON:
            continue
        weight = float(np.log1p(total / len(naming)) / np.log1p(total)) / (len(naming) - 1)
        for place, low in enumerate(naming):
            for high in naming[place + 1 :]:
                weights[low, high] = weights.get((low, high), 0.0) + weight
    ends = np.array([*weights], dtype=np.int64).reshape(-1, 2)
    return _both_ways(ends[:, 0], ends[:, 1], np.array([*weights.values()], dtype=np.float64))


def _user_edges(
    snapshot: Snapshot, links: list[StoredLink], kinds: tuple[str, ...]
) -> Iterator[tuple[Edges, NDArray[np.int32]]]:
    """Links as edges, undirected ones both ways."""
    number = {kind: place for place, kind in enumerate(kinds)}
    sources = snapshot.slots_of(np.array([link.source for link in links], dtype=np.int64))
    targets = snapshot.slots_of(np.array([link.target for link in links], dtype=np.int64))
    weights = np.array([link.weight for link in links], dtype=np.float64)
    labels = np.array([number[link.kind] for link in links], dtype=np.int32)
    there = (sources >= 0) & (targets >= 0)  # a record that was written a moment ago is in the next snapshot
    back = there & ~np.array([link.directed for link in links], dtype=np.bool_)
    yield (sources[there], targets[there], weights[there]), labels[there]
    yield (targets[back], sources[back], weights[back]), labels[back]


def _both_ways(low: NDArray[np.int64], high: NDArray[np.int64], weights: NDArray[np.floating[Any]]) -> Edges:
    return np.concatenate([low, high]), np.concatenate([high, low]), np.concatenate([weights, weights])


def _index_of(snapshot: Snapshot) -> tuple[int, str]:
    """Which index a snapshot searches: its epoch, and its kind, since it is searched exactly until the kernels are there."""
    view = snapshot.vectors
    return (0, "") if view is None or view.index is None else (view.epoch, view.index.kind)
