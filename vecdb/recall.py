"""How often the index finds what exact search finds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from vecdb.errors import InvalidInput
from vecdb.filters import describe, parse
from vecdb.paging import pages
from vecdb.types import Filter, Hits, Record

if TYPE_CHECKING:
    from vecdb.collection import Collection


@dataclass(frozen=True, slots=True)
class RecallRow:
    """For one filter (as text; "" is none). recall: mean share of the true k nearest found; p5: its 5th percentile.

    self_recall: share of sampled records that are among their own nearest (or tie with them). matching: records that the filter
    admits. exact: whether the query was answered exactly anyway.
    """

    where: str
    matching: int
    recall: float
    p5: float
    self_recall: float
    exact: bool


@dataclass(frozen=True, slots=True)
class RecallReport:
    """sample: queries made from stored vectors; the record itself is left out of both lists, because finding it is free."""

    k: int
    sample: int
    rows: tuple[RecallRow, ...]

    @property
    def recall(self) -> float:
        """Mean recall without a filter."""
        return self.rows[0].recall

    def __str__(self) -> str:
        lines = [f"recall@{self.k} of the index against exact search, {self.sample} queries"]
        for row in self.rows:
            name = row.where or "no filter"
            how = "answered exactly" if row.exact else f"5th percentile {row.p5:.3f}"
            lines.append(f"  {row.recall:.4f}  self {row.self_recall:.4f}  {how}, {row.matching:,} records, {name}")
        return "\n".join(lines)


def measure_recall(
    collection: Collection, *, sample: int, k: int, ef: int | None, where: Sequence[Filter], seed: int
) -> RecallReport:
    """Recall with no filter and under each filter of where."""
    if sample < 1 or k < 1:
        raise InvalidInput(f"sample is {sample} and k is {k}; both must be at least 1")
    records = _sampled(collection, sample, seed)
    if not records:
        raise InvalidInput(f"collection {collection.name!r} has no vectors to measure recall on; add some first")
    rows = tuple(_row(collection, records, k, ef, filter) for filter in ({}, *where))
    return RecallReport(k, len(records), rows)


def _sampled(collection: Collection, sample: int, seed: int) -> list[Record]:
    ids = [record.id for page in pages(collection) for record in page]
    chosen = np.random.default_rng(seed).permutation(len(ids))[: 2 * sample]  # some may have no vector
    records = collection.get([ids[i] for i in chosen], vectors=True)
    return [record for record in records if record is not None and record.vector is not None][:sample]


def _row(collection: Collection, records: list[Record], k: int, ef: int | None, where: Filter) -> RecallRow:
    queries = np.stack([record.vector for record in records if record.vector is not None])
    found: list[Hits] = collection.search(queries, k=k + 1, mode="vector", where=where, ef=ef)
    truth: list[Hits] = collection.search(queries, k=k + 1, mode="vector", where=where, exact=True)
    shares, own = [], []
    for record, got, true in zip(records, found, truth):
        wanted = [hit for hit in true if hit.id != record.id][:k]
        # A record that ties with the last of the true ones is as good an answer.
        worst = wanted[-1].score - 1e-6 if wanted else 0.0
        near = [hit for hit in got if hit.id != record.id and hit.score >= worst][:k]
        shares.append(len(near) / len(wanted) if wanted else 1.0)
        if any(hit.id == record.id for hit in true):
            own.append(any(h.id == record.id or h.score >= true[0].score - 1e-6 for h in got))
    return RecallRow(
        where=describe(parse(where)) if where else "",
        matching=collection.count(where or None),
        recall=float(np.mean(shares)),
        p5=float(np.percentile(shares, 5)),
        self_recall=float(np.mean(own)) if own else 1.0,
        exact=all(hits.estimated_recall == 1.0 for hits in found),
    )
