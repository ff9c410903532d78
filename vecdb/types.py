"""Small frozen values that users see, and how a value in metadata is reached."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, overload

import numpy as np
from numpy.typing import NDArray

Metric = Literal["cosine", "l2", "ip"]
Mode = Literal["auto", "vector", "text", "hybrid"]
Metadata = dict[str, Any]
Filter = Mapping[str, Any]
Vector = NDArray[np.float32]
GroupMethod = Literal["auto", "exact", "index", "grids"]
DERIVED_FIELDS = ("fastrp", "learned")  # fields of vectors that are made: of a collection's links, of its vectors


def value_under(metadata: Mapping[str, Any], key: str) -> Any:
    """The value under a key, whose dots go into nested objects; None if there is none."""
    value: Any = metadata
    for part in key.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


@dataclass(frozen=True, slots=True)
class Record:
    """One stored record. Times are seconds since 1970 (UTC); vector is filled only when it was asked for."""

    id: str
    text: str | None = None
    metadata: Metadata = field(default_factory=dict)
    vector: Vector | None = None
    parent: str | None = None
    seq: int | None = None
    created: float = 0.0
    updated: float = 0.0
    expires: float | None = None


@dataclass(frozen=True, slots=True)
class Link:
    """An edge that a user put between two records. weight: above 0; directed: it leads from source to target only."""

    source: str
    target: str
    kind: str = "link"
    weight: float = 1.0
    directed: bool = False


@dataclass(frozen=True, slots=True)
class TraceStep:
    """What one stage made of a hit: its rank there (from 1), and its score there.

    Of a list that was fused: weight, its weight in the fusion, and added, what it added to the hit's fused score, weight
    included. The score of the stage "fusion" is the sum of what the lists added. detail: what else the stage knows of this hit,
    JSON-able; `Collection.search` documents it.
    """

    stage: str
    rank: int | None = None
    score: float | None = None
    weight: float | None = None
    added: float | None = None
    detail: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Hit:
    """One result. score: larger is better. trace: what each stage made of it, in order. snippet: only if it was asked for."""

    id: str
    rank: int
    score: float
    text: str | None = None
    metadata: Metadata = field(default_factory=dict)
    parent: str | None = None
    seq: int | None = None
    vector: Vector | None = None
    trace: tuple[TraceStep, ...] = ()
    snippet: str | None = None


@dataclass(frozen=True, slots=True)
class StageReport:
    """How one stage of a query went. detail: what it decided (index or exact, rows allowed, …), JSON-able."""

    stage: str
    candidates: int
    ms: float
    detail: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Hits(Sequence[Hit]):
    """The hits of one query, best first: a sequence. cursor continues after the last hit; None at the end.

    no_answer: the probability that nothing relevant was found (see `vecdb.relevance`); None for a query without text, and where
    vectors of another model than the default one were searched.
    """

    hits: tuple[Hit, ...] = ()
    cursor: str | None = None
    estimated_recall: float | None = None
    trace: tuple[StageReport, ...] = ()
    no_answer: float | None = None

    @property
    def ids(self) -> list[str]:
        return [hit.id for hit in self.hits]

    @property
    def scores(self) -> list[float]:
        return [hit.score for hit in self.hits]

    @overload
    def __getitem__(self, index: int) -> Hit: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Hit]: ...
    def __getitem__(self, index: int | slice) -> Hit | Sequence[Hit]:
        return self.hits[index]

    def __len__(self) -> int:
        return len(self.hits)

    def __iter__(self) -> Iterator[Hit]:
        return iter(self.hits)


@dataclass(frozen=True, slots=True)
class GroupMatch:
    """What a group has for one query vector.

    query: its number, from 0; id: of the group's nearest record; score: that of a search by vector; credit: what the kernel makes
    of their distance, 0 … 1.
    """

    query: int
    id: str
    score: float
    credit: float


@dataclass(frozen=True, slots=True)
class GroupHit:
    """A group of records. group: the parent, or the value of the metadata key. score: the mean of the credits over all query
    vectors; matches: of those that have a record of the group within the kernel's reach.
    """

    group: Any
    rank: int
    score: float
    matches: tuple[GroupMatch, ...] = ()


@dataclass(frozen=True, slots=True)
class GroupHits(Sequence[GroupHit]):
    """Groups, best first: a sequence. trace: how it went, JSON-able: the method, the kernel's reach and shape, how many distances
    were computed among how many vectors and groups.
    """

    hits: tuple[GroupHit, ...] = ()
    trace: Mapping[str, Any] = field(default_factory=dict)

    @property
    def groups(self) -> list[Any]:
        return [hit.group for hit in self.hits]

    @property
    def scores(self) -> list[float]:
        return [hit.score for hit in self.hits]

    @overload
    def __getitem__(self, index: int) -> GroupHit: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[GroupHit]: ...
    def __getitem__(self, index: int | slice) -> GroupHit | Sequence[GroupHit]:
        return self.hits[index]

    def __len__(self) -> int:
        return len(self.hits)

    def __iter__(self) -> Iterator[GroupHit]:
        return iter(self.hits)


@dataclass(frozen=True, slots=True)
class Duplicate:
    """Two records that are nearly the same: `id`, and the one that it is a duplicate `of`. similarity: at most 1."""

    id: str
    of: str
    similarity: float


@dataclass(frozen=True, slots=True)
class WriteResult:
    """ids: of the records written, in the order given. added + updated (+ unchanged) = their number.

    duplicates: what `add` found when it was asked to skip, link or replace them, records that were not written among them.
    """

    ids: tuple[str, ...]
    added: int = 0
    updated: int = 0
    unchanged: int = 0
    duplicates: tuple[Duplicate, ...] = ()


@dataclass(frozen=True, slots=True)
class Page:
    """Some records of a scan, in order of insertion. cursor continues after the last one; None at the end."""

    records: tuple[Record, ...]
    cursor: str | None = None

    def __len__(self) -> int:
        return len(self.records)

    def __iter__(self) -> Iterator[Record]:
        return iter(self.records)


@dataclass(frozen=True, slots=True)
class WhyNot:
    """Why a record is not among the hits. stage: the first that dropped it (None if it is a hit); reason and remedy in words.

    change: the remedy as options of `search`: the same search with these has the record among its hits. None if no option brings
    it in, or none is needed. rank: its place in the list where it was dropped.
    """

    id: str
    stage: str | None
    reason: str
    remedy: str | None = None
    rank: int | None = None
    change: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class PlannedStage:
    """One stage that a query would go through. way: how it would be done, why: what decided that. cost: about how many distances
    (of vectors) or postings (of words) it would compute, None where that says nothing. detail: JSON-able. stages: of a
    prefetch, which is a search of its own.
    """

    stage: str
    way: str
    why: str
    cost: int | None = None
    detail: Mapping[str, Any] = field(default_factory=dict)
    stages: tuple[PlannedStage, ...] = ()


@dataclass(frozen=True, slots=True)
class Plan:
    """How a query would be answered, in order. str() tells it in words, prefetches as a tree."""

    stages: tuple[PlannedStage, ...]

    def __str__(self) -> str:
        lines = []
        for step in self.stages:
            cost = (
                ""
                if step.cost is None
                else f", about {step.cost:,} {'postings' if step.stage == 'text' else 'distances'}"
            )
            details = "; ".join(f"{name}: {value}" for name, value in step.detail.items())
            lines.append(f"{step.stage}: {step.way}{cost}, because {step.why}{f' ({details})' if details else ''}")
            lines += [f"    {line}" for line in str(Plan(step.stages)).splitlines()]
        return "\n".join(lines)


@dataclass(frozen=True, slots=True)
class Passage:
    """One citable piece of a context. number: its citation, from 1."""

    number: int
    id: str
    text: str
    source: str
    score: float
    tokens: int
    metadata: Metadata = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Context:
    """Passages packed for a language model. text is what to put into the prompt; empty if nothing relevant was found."""

    question: str
    text: str
    passages: tuple[Passage, ...]
    tokens: int
    found: bool
    hits: Hits


@dataclass(frozen=True, slots=True)
class Answer:
    """What the model made of a context. refused: nothing relevant was found, so no model was asked."""

    question: str
    text: str
    citations: tuple[Passage, ...]
    refused: bool
    context: Context


@dataclass(frozen=True, slots=True)
class CollectionStats:
    """bytes are of stored payload. indexed: vectors in the newest segment; tail: vectors searched exactly beside it.

    storage: the codec whose bytes the file has for vectors. index: what searches go by, such as "hnsw M=16", or "codes rabitq:4"
    for a scan of codes.
    """

    name: str
    records: int
    dimension: int | None
    metric: Metric
    model: str | None
    indexed: int
    tail: int
    text_bytes: int
    vector_bytes: int
    segment_bytes: int
    storage: str
    index: str
