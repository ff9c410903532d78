"""Tuning a collection: what was measured is kept in the file, and what was chosen becomes how the next merge builds."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, cast

import apsw
import numpy as np

from vecdb.config import CollectionConfig
from vecdb.definition import Definition
from vecdb.errors import InvalidInput, ReadOnly
from vecdb.index.base import CodesConfig, HnswConfig, IndexConfig, NeuralLshConfig, VectorIndex
from vecdb.index.opening import open_index
from vecdb.index.tuning import SAMPLE, Tuning, recheck, tune
from vecdb.memory import Memory, Snapshot
from vecdb.storage import Store
from vecdb.tables import Tables
from vecdb.vectors import Matrix

if TYPE_CHECKING:
    from vecdb.index.hnsw import HnswIndex

_STALE_SHARE = 0.25
_SEED = 0
_KINDS: dict[type[IndexConfig], str] = {NeuralLshConfig: "a learned partition", CodesConfig: "a scan of codes"}


@dataclass(frozen=True, kw_only=True)
class CollectionTuning(Tuning):
    """A Tuning, and the state that the collection was in: `records`, the newest of them in row `last_row`.

    is_applied: config has become the collection's. changed: records that have come or gone since; a record whose text or
    vector was changed did both.
    """

    records: int
    last_row: int
    is_applied: bool
    changed: int = 0

    @property
    def is_stale(self) -> bool:
        """Whether so much has come or gone that it should be measured again: more than a quarter."""
        return self.changed > _STALE_SHARE * self.records


def tune_collection(
    store: Store,
    tables: Tables,
    definition: Definition,
    memory: Memory,
    *,
    target_recall: float,
    k: int,
    budget_s: float,
    queries: Matrix | None,
    apply: bool,
) -> CollectionTuning:
    """Measure, keep what was measured, and with apply let it be how the index is built from now on. See Collection.tune."""
    if apply and store.read_only:
        raise ReadOnly("the settings of a database opened with read_only=True cannot be changed; open it without")
    with store.snapshot() as db:
        definition.refresh(db)
        records, last_row = tables.count(db, time.time()), tables.next_row(db) - 1
    snapshot = memory.current("vectors")
    vectors = _drawn(snapshot)
    if not len(vectors):
        raise InvalidInput(f"collection {definition.name!r} has no vectors to tune for; add some first")
    config = definition.config
    if not isinstance(config.index, HnswConfig):
        raise InvalidInput(
            f"collection {definition.name!r} has {_KINDS[type(config.index)]}, whose settings are not tuned; search with "
            "target_recall, which it calibrates itself for"
        )
    measured = tune(
        vectors,
        config.metric,
        target_recall=target_recall,
        k=k,
        queries=queries,
        budget_s=budget_s,
        config=config.index,
        seed=_SEED,
    )
    index = None if snapshot.vectors is None else snapshot.vectors.index
    if index is not None and is_built_as(index, measured.config):
        measured = recheck(_graph(index), measured, queries=queries)
    tuning = CollectionTuning(
        **_fields(measured), records=records, last_row=last_row, is_applied=apply and measured.is_reached
    )
    if not store.read_only:
        _keep(store, definition, tuning)
    return tuning


def stored_tuning(db: apsw.Connection, tables: Tables, definition: Definition) -> CollectionTuning | None:
    """What the last tuning measured, and how much has changed since; None if there was none."""
    saved = definition.kept.get(db, "tuning")
    if saved is None:
        return None
    tuning = tuning_from_json(saved)
    added = tables.next_row(db) - 1 - tuning.last_row
    deleted = tuning.records + added - tables.count(db, time.time())
    return replace(tuning, changed=added + max(0, deleted))


def recheck_tuning(store: Store, definition: Definition, index: VectorIndex, build_s: float) -> CollectionConfig:
    """The collection's configuration, with ef measured on this index if that is the first that the last tuning led to."""
    with store.snapshot() as db:
        saved = definition.kept.get(db, "tuning")
    if saved is None or not index.live.any():
        return definition.config
    tuning = tuning_from_json(saved)
    if tuning.is_applied and tuning.vectors is None and is_built_as(index, tuning.config):
        measured = recheck(_graph(index), tuning, build_s=build_s)
        _keep(store, definition, replace(tuning, **_fields(measured)), instead_of=saved)
    return definition.config


def tuning_from_json(saved: Mapping[str, Any]) -> CollectionTuning:
    own = {name: saved[name] for name in ("records", "last_row", "is_applied", "changed")}
    return CollectionTuning(**_fields(Tuning.from_json({n: v for n, v in saved.items() if n not in own})), **own)


def settings_of(index: VectorIndex) -> IndexConfig | None:
    """What an index was built with; None for one that has no settings."""
    return getattr(index, "config", None)


def is_built_as(index: VectorIndex, wanted: IndexConfig) -> bool:
    """Whether it is the index that these settings give, but for what is of the search only."""
    built = settings_of(index)
    return built is not None and built.builds_as(wanted)


def with_settings(index: VectorIndex, wanted: IndexConfig, threads: int | None) -> VectorIndex:
    """The same index, searched with the ef, or probes, of wanted."""
    built = settings_of(index)
    if built is None or built == wanted:
        return index
    settings = index.settings()
    if not isinstance(wanted, HnswConfig) or not isinstance(built, HnswConfig):
        return open_index({**settings, "config": asdict(wanted)}, index.arrays())
    is_narrower = wanted.ef < built.ef
    if is_narrower:  # then a vector that found itself in the wider beam may not do so any more: look for all of them
        settings["state"]["unchecked"] = len(index)
    changed = _graph(open_index({**settings, "config": asdict(wanted)}, index.arrays()))
    if is_narrower:
        changed.settle(threads=threads)
    return changed


def _keep(store: Store, definition: Definition, tuning: CollectionTuning, instead_of: Any = None) -> None:
    """Save it; if instead_of is given, only where nobody has tuned meanwhile."""
    with store.write() as db:
        definition.refresh(db)
        if instead_of is not None and definition.kept.get(db, "tuning") != instead_of:
            return
        definition.kept.put(db, "tuning", asdict(tuning))
        config = definition.keep_index(db, tuning.config) if tuning.is_applied else definition.config
    definition.config = config


def _drawn(snapshot: Snapshot) -> Matrix:
    """As many of the live vectors as a tuning looks at, drawn evenly, in their order."""
    view = snapshot.vectors
    assert view is not None
    parts = [(view.tail, np.flatnonzero(snapshot.live[view.tail_slots]))]
    if view.index is not None:
        alive = np.ones(len(view.index_slots), dtype=bool) if view.index_allowed is None else view.index_allowed
        parts.insert(0, (view.index.arrays()["vectors"], np.flatnonzero(alive)))
    count = sum(len(rows) for _, rows in parts)
    drawn = np.zeros(count, dtype=bool)
    drawn[np.random.default_rng(_SEED).permutation(count)[:SAMPLE]] = True
    taken = []
    for vectors, rows in parts:
        mine, drawn = drawn[: len(rows)], drawn[len(rows) :]
        if mine.any():
            taken.append(vectors[rows[mine]])
    return np.concatenate(taken) if taken else np.zeros((0, 1), dtype=np.float32)


def _graph(index: VectorIndex) -> HnswIndex:
    return cast("HnswIndex", index)  # `is_built_as` holds for no other kind


def _fields(tuning: Tuning) -> dict[str, Any]:
    return {name: getattr(tuning, name) for name in Tuning.__dataclass_fields__}
