"""The bodies that clients send: what may stand in them, with an example each.

They check types and unknown names only. What the values may be is the library's business, so that a service and a file
refuse the same things with the same errors. `error` is the class for a body of the wrong shape.
"""

from __future__ import annotations

import reprlib
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, TypeVar

import numpy as np
from pydantic import BaseModel, ConfigDict, FailFast, Field, ValidationError
from pydantic_core import ErrorDetails, from_json

from vecdb import wire
from vecdb.duplicates import THRESHOLD
from vecdb.errors import (
    InvalidFilter,
    InvalidInput,
    InvalidQuery,
    InvalidRecord,
    InvalidVector,
)
from vecdb.query.snippets import SnippetOptions
from vecdb.rerank.kinds import reached
from vecdb.server.problems import Refused
from vecdb.server.settings import Settings
from vecdb.types import Mode, Vector


class _StopAtFirst(FailFast):
    """A list of millions of wrong items would make millions of error objects, each far larger than its item."""

    __hash__ = object.__hash__  # a union of annotated types needs it, and pydantic's own lacks it


Int64 = Annotated[int, Field(ge=-(2**63), lt=2**63)]
Numbers = Annotated[list[float], _StopAtFirst()]
Texts = Annotated[list[str], _StopAtFirst()]
_TUNING_SHARE = 0.75  # of a request's time may be the budget: the last graph may take longer than was thought
VectorFormat = Literal["list", "base64"]
SynonymsBody = dict[str, dict[str, float] | list[str] | str]


class Body(BaseModel):
    """One request's JSON object."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)
    error: ClassVar[type[InvalidInput]] = InvalidInput
    example: ClassVar[dict[str, Any]]

    def given(self, *but: str) -> dict[str, Any]:
        """The fields that the client sent, less some: the rest keeps the library's defaults."""
        return {name: getattr(self, name) for name in self.model_fields_set if name not in but}


class TextBody(Body):
    language: str = "english"
    fold_accents: bool = True
    cjk: bool = Field(default=False, description="cut Chinese, Japanese and Korean into pairs of characters")
    fields: dict[str, float] = Field(
        default={"text": 1.0}, description="text and metadata keys that are searched, with their weights"
    )
    k1: float = 1.2
    b: float = 0.75
    synonyms: SynonymsBody = Field(default={}, description="what else a query's word looks for")
    stop_words: list[str] | None = Field(
        default=None, description="words not looked for beside others; null: the language's function words"
    )


class IndexBody(Body):
    """kind says which of the settings mean something: M to lid_k are of hnsw, bins to probes of neural_lsh, codec to recall of
    codes; seed is of all.
    """

    kind: Literal["hnsw", "neural_lsh", "codes"] | None = None
    M: int | None = None
    ef_construction: int | None = None
    ef: int | None = None
    seed: int | None = None
    order: Literal["random", "given", "lid_desc", "lid_asc"] | None = None
    lid_k: int | None = None
    bins: int | None = None
    hidden: int | None = None
    layers: int | None = None
    soft_k: int | None = None
    graph_k: int | None = None
    epochs: int | None = None
    probes: int | None = None
    codec: str | None = Field(default=None, description="what a scan of codes reads, such as rabitq:4")
    oversampling: float | None = Field(
        default=None,
        description="so many times k of a scan of codes are measured again; 0: as many as recall was seen to need",
    )
    recall: float | None = None


class TokensBody(Body):
    """Vectors of tokens, kept for rerank="maxsim"."""

    encoder: str = "default"
    codec: Literal["float32", "float16", "int8"] = "int8"


class CollectionBody(Body):
    """Make a collection, or open one and check that it has these settings."""

    name: str
    dimension: int | None = None
    metric: Literal["cosine", "l2", "ip"] | None = None
    embed: str | None = None
    text: TextBody | str | None = None
    index: IndexBody | None = None
    tokens: str | TokensBody | None = None
    storage: str | None = Field(default=None, description="codec that vectors are kept with, such as float8")
    create: bool = True

    example: ClassVar[dict[str, Any]] = {"name": "papers", "dimension": 3, "metric": "cosine", "text": "english"}


class RecordBody(Body):
    """One record; the body of a line of NDJSON too."""

    id: str | None = None
    text: str | None = None
    vector: Numbers | None = None
    vector_base64: str | None = Field(default=None, description="little-endian float32, instead of vector")
    metadata: dict[str, Any] | None = None
    parent: str | None = None
    seq: Int64 | None = None
    expires: float | None = Field(default=None, description="seconds since 1970")

    error: ClassVar[type[InvalidInput]] = InvalidRecord
    example: ClassVar[dict[str, Any]] = {
        "id": "p1",
        "text": "Vaccines in children",
        "vector": [0.1, 0.7, 0.2],
        "metadata": {"year": 2024, "seen": {"$date": "2024-05-01T10:00:00Z"}},
    }

    def as_record(self) -> dict[str, Any]:
        """What the library takes. Raises InvalidVector."""
        record = self.given("vector", "vector_base64")
        if {"vector", "vector_base64"} & self.model_fields_set:
            record["vector"] = one_vector(self.vector, self.vector_base64)
        return record


class WriteBody(Body):
    """Records for one transaction: all of them are written, or none."""

    records: Annotated[list[RecordBody], _StopAtFirst()]
    model: str | None = Field(default=None, description="the embedding model that made the vectors")

    error: ClassVar[type[InvalidInput]] = InvalidRecord
    example: ClassVar[dict[str, Any]] = {"records": [RecordBody.example]}

    def as_records(self, settings: Settings) -> list[dict[str, Any]]:
        _at_most("records", len(self.records), settings.max_records, "VECDB_MAX_RECORDS", InvalidInput)
        records = []
        for position, record in enumerate(self.records):
            try:
                records.append(record.as_record())
            except InvalidVector as error:
                raise InvalidVector(f"record {position}: {error}", position=position) from error
        return records


class AddBody(WriteBody):
    """Records that are new; near duplicates may be skipped, linked or replaced."""

    duplicates: str | None = Field(default=None, description="skip, link or replace")
    threshold: float = Field(default=THRESHOLD, description="how alike two records must be for that")


class UpdateBody(WriteBody):
    """Changes to records that exist; only the fields given change."""

    replace_metadata: bool = Field(default=False, description="replace the metadata instead of merging it key by key")

    example: ClassVar[dict[str, Any]] = {"records": [{"id": "p1", "metadata": {"year": 2025}}]}


class ReplaceBody(WriteBody):
    """All that there shall be of one parent; no records and no fingerprint remove it."""

    parent: str
    fingerprint: str | None = Field(default=None, description="remembered beside the parent, and told by sources")

    example: ClassVar[dict[str, Any]] = {
        "parent": "notes/a.md",
        "fingerprint": "9f2c",
        "records": [{"id": "notes/a.md#0", "text": "First chunk", "seq": 0}],
    }


class NeighboursBody(Body):
    """The records of a parent whose seq lies between first and last, both included."""

    parent: str
    first: Int64
    last: Int64

    example: ClassVar[dict[str, Any]] = {"parent": "notes/a.md", "first": 2, "last": 4}


class GetBody(Body):
    ids: Texts
    vectors: bool = False
    vector_format: VectorFormat = "list"

    example: ClassVar[dict[str, Any]] = {"ids": ["p1", "p2"]}


class DeleteBody(Body):
    """ids or where, not both."""

    ids: Texts | None = None
    where: dict[str, Any] | None = None

    example: ClassVar[dict[str, Any]] = {"where": {"year": {"$lt": 2000}}}


class DedupeBody(Body):
    """What to look for, and what to do with it; nothing is changed unless apply is set."""

    policy: str = "skip"
    threshold: float | None = None
    where: dict[str, Any] | None = None
    apply: bool = False

    example: ClassVar[dict[str, Any]] = {"policy": "link", "threshold": 0.95}


class LinkBody(Body):
    """One link between two records."""

    source: str
    target: str
    kind: str = "link"
    weight: float = 1.0
    directed: bool = False

    example: ClassVar[dict[str, Any]] = {"source": "p1", "target": "p2", "kind": "cites", "weight": 1.0}


class LinksBody(Body):
    """Links for one transaction: all of them are written, or none."""

    links: Annotated[list[LinkBody], _StopAtFirst()]

    example: ClassVar[dict[str, Any]] = {"links": [LinkBody.example]}

    def columns(self, settings: Settings) -> dict[str, Any]:
        """Arguments of Collection.link."""
        _at_most("links", len(self.links), settings.max_records, "VECDB_MAX_RECORDS", InvalidInput)
        return {name: [getattr(link, name) for link in self.links] for name in LinkBody.model_fields}


class UnlinkBody(Body):
    """Pairs of ids, source and target, whose links of one kind (or all) are to go."""

    ends: Annotated[list[Annotated[list[str], Field(min_length=2, max_length=2)]], _StopAtFirst()]
    kind: str | None = None

    example: ClassVar[dict[str, Any]] = {"ends": [["p1", "p2"]], "kind": "cites"}


class LinksOfBody(Body):
    id: str | None = None
    kind: str | None = None

    example: ClassVar[dict[str, Any]] = {"id": "p1"}


class EntitiesBody(Body):
    """The metadata key that lists the entities that a record names; or what some records name, by their ids."""

    extractor: str | dict[str, list[str]]

    example: ClassVar[dict[str, Any]] = {"extractor": "entities"}


class DeriveBody(Body):
    """Make vectors of links."""

    field: str = "fastrp"
    kinds: list[str] | dict[str, float] | None = None
    dimension: int = 128
    weights: list[float] = Field(default_factory=lambda: [1.0, 1.0, 1.0, 1.0])
    degree_exponent: float = -0.5
    seed: int = 0
    tune: bool = False

    example: ClassVar[dict[str, Any]] = {"field": "fastrp", "kinds": ["cites"], "dimension": 64}


class LearnSimilarityBody(Body):
    """Triples of ids: the first record is more like the second than like the third."""

    triples: Annotated[list[Texts], _StopAtFirst()] | None = None
    sample: int = 500
    dimension: int = 64
    epochs: int = 20
    seed: int = 0

    example: ClassVar[dict[str, Any]] = {"triples": [["p1", "p2", "p3"]], "dimension": 32}


class VectorBody(Body):
    id: str
    field: str = "fastrp"

    example: ClassVar[dict[str, Any]] = {"id": "p1", "field": "fastrp"}


class CountBody(Body):
    where: dict[str, Any] | None = None

    example: ClassVar[dict[str, Any]] = {"where": {"year": {"$gte": 2020}}}


class FacetsBody(Body):
    key: str
    where: dict[str, Any] | None = None
    limit: int = 20

    example: ClassVar[dict[str, Any]] = {"key": "year", "limit": 10}


class ScanBody(Body):
    where: dict[str, Any] | None = None
    limit: int = 100
    cursor: str | None = None
    vectors: bool = False
    vector_format: VectorFormat = "list"

    example: ClassVar[dict[str, Any]] = {"where": {"year": 2024}, "limit": 50}

    def check_limit(self, settings: Settings) -> None:
        _at_most("limit", self.limit, settings.max_records, "VECDB_MAX_RECORDS")


class FusionBody(Body):
    kind: Literal["rrf", "weighted", "zscore", "distribution", "combmnz", "adaptive", "vstash"]
    k: float | None = Field(default=None, description="of rrf")
    base: Literal[0, 1] | None = Field(default=None, description="of rrf: the rank of the first row")
    weights: list[float] | None = Field(default=None, description="of the vector list and the text list")
    usual: list[float] | None = Field(default=None, description="of adaptive: what Collection.fit_fusion measured")
    lean: dict[str, Any] | None = Field(default=None, description="of adaptive: bias, slopes, means, deviations")
    gate: bool | None = Field(default=None, description="of vstash: drop vector hits far behind the best")


class SelectBody(Body):
    """A selection with its options; what is not given takes the library's default."""

    kind: Literal["mmr", "coverage", "kcenter", "dpp"]
    pool: int | None = Field(default=None, description="from how many candidates it chooses")
    diversity: float | None = Field(default=None, description="of mmr and coverage")
    relevance: float | None = Field(default=None, description="of coverage and dpp")
    coverage: float | None = Field(default=None, description="of coverage, as are tau and clusters")
    tau: float | None = None
    clusters: int | None = None

    def selector(self) -> Any:
        return wire.selection_from_wire(self.given())


class SnippetBody(Body):
    length: int = Field(default=200, description="the most characters of text")
    before: str | None = None
    after: str | None = None
    ellipsis: str = "…"
    html: bool = Field(default=False, description="escape the text, and mark with <mark>")


class GraphBody(Body):
    """How links change the answer; beta is their share of the score."""

    beta: float = 0.3
    hops: int = 2
    seeds: int = 10
    kinds: list[str] | dict[str, float] | None = None
    restart: float = 0.15
    damping: float = 0.5

    error: ClassVar[type[InvalidInput]] = InvalidQuery


Plan = dict[str, Any]  # the library looks into it, and names the place of a mistake


class SearchOptions(Body):
    """How to search; what is not given takes the library's default."""

    k: int = 10
    mode: Mode = "auto"
    where: dict[str, Any] | None = None
    exact: bool = False
    ef: int | None = None
    target_recall: float | None = None
    fusion: str | FusionBody = "adaptive"
    syntax: Literal["plain", "query"] = "plain"
    distinct: str | None = None
    near: dict[str, Any] | None = Field(
        default=None, description="field -> [lat, lon, metres], [centre, width], or at, within, kernel, scale"
    )
    per_group: int = 1
    select: str | SelectBody = "topk"
    min_score: float | None = None
    offset: int = 0
    cursor: str | None = None
    candidates: int | None = None
    rerank: str | dict[str, Any] | list[str | dict[str, Any]] | None = None
    graph: GraphBody | None = None
    field: str = "vector"
    vectors: bool = False
    synonyms: SynonymsBody | None = None
    fuzzy: bool = False
    snippets: bool | SnippetBody = False
    prefetch: list[Plan] | None = Field(default=None, description="searches whose candidates this one works over")
    boosts: list[dict[str, Any]] | None = Field(
        default=None, description="by where, by decay, or by a number's modifier"
    )
    recommend: dict[str, Any] | None = Field(default=None, description="positive, negative, strategy")
    discover: dict[str, Any] | None = Field(default=None, description="target, context: pairs of examples")
    plan: str | Plan | None = Field(
        default=None, description="a saved query's name, or options for what is not given here"
    )
    params: dict[str, Any] | None = Field(default=None, description="values for the plan's placeholders")
    model: str | None = None
    vector_format: VectorFormat = "list"

    error: ClassVar[type[InvalidInput]] = InvalidQuery

    def options(self, settings: Settings) -> dict[str, Any]:
        """Keyword arguments of Collection.search. Raises InvalidQuery above the service's limits."""
        _at_most("k", self.k, settings.max_k, "VECDB_MAX_K")
        for name in ("offset", "ef", "candidates", "per_group"):
            _at_most(name, getattr(self, name) or 0, settings.max_candidates, "VECDB_MAX_CANDIDATES")
        options = {name: getattr(self, name) for name in self.model_fields_set & SearchOptions.model_fields.keys()}
        options.pop("vector_format", None)
        _check_rerank(self.rerank, settings)
        check_plan({"prefetch": self.prefetch}, settings)
        if self.graph is not None:
            options["graph"] = self.graph.given()
        if isinstance(self.fusion, FusionBody):
            options["fusion"] = wire.fusion_from_wire(self.fusion.given())
        if isinstance(self.select, SelectBody):
            options["select"] = self.select.selector()
        if isinstance(self.snippets, SnippetBody):
            options["snippets"] = SnippetOptions(**self.snippets.given())
        return options

    @property
    def is_compact(self) -> bool:
        return self.vector_format == "base64"


class SearchBody(SearchOptions):
    """One query: text, a vector, or both."""

    query: str | None = None
    vector: Numbers | None = None
    vector_base64: str | None = None

    example: ClassVar[dict[str, Any]] = {"query": "vaccines in children", "k": 5, "where": {"year": {"$gte": 2020}}}

    def query_vector(self) -> Vector | None:
        return one_vector(self.vector, self.vector_base64)


class BatchBody(SearchOptions):
    """Several queries with the same options: texts, vectors, or both in the same number."""

    queries: Texts | None = None
    query_vectors: Annotated[list[Numbers], _StopAtFirst()] | None = None
    query_vectors_base64: Texts | None = None

    example: ClassVar[dict[str, Any]] = {"queries": ["vaccines in children", "measles outbreaks"], "k": 5}

    def check_size(self, settings: Settings) -> None:
        _check_queries(settings, self.queries, self.query_vectors, self.query_vectors_base64)

    def vectors_of_queries(self) -> list[Any] | None:
        """(B, D) numbers, or None. Raises InvalidVector."""
        return batch_vectors(self.query_vectors, self.query_vectors_base64)


class GroupsBody(Body):
    """A set of query vectors (texts, which are embedded, or numbers) that groups of records are to be near to."""

    queries: Texts | None = None
    query_vectors: Annotated[list[Numbers], _StopAtFirst()] | None = None
    query_vectors_base64: Texts | None = None
    k: int = 10
    by: str = Field(default="parent", description="or a metadata key whose values are the groups")
    method: str = Field(default="auto", description="auto, exact, index, grids")
    where: dict[str, Any] | None = None
    reach: float | None = Field(default=None, description="distance from which on nothing counts; null: measured")
    shape: float | None = Field(default=None, description="of the kernel, above 0 and at most at 0.5")
    model: str | None = None

    error: ClassVar[type[InvalidInput]] = InvalidQuery
    example: ClassVar[dict[str, Any]] = {"query_vectors": [[0.1, 0.2, 0.3], [0.3, 0.1, 0.0]], "k": 5}

    def asked(self, settings: Settings) -> Any:
        """Texts or (m, D) numbers. Raises InvalidQuery, InvalidVector."""
        _at_most("k", self.k, settings.max_k, "VECDB_MAX_K")
        _check_queries(settings, self.queries, self.query_vectors, self.query_vectors_base64)
        vectors = batch_vectors(self.query_vectors, self.query_vectors_base64)
        if self.queries is not None and vectors is not None:
            raise InvalidQuery("both texts and vectors were given; give one of them")
        return self.queries if vectors is None else vectors


class WhyNotBody(SearchBody):
    id: str

    example: ClassVar[dict[str, Any]] = {"id": "p7", "query": "vaccines in children", "k": 5}


class ExplainBody(SearchBody):
    """One query, as for search, which is planned but not run."""

    example: ClassVar[dict[str, Any]] = {"query": "vaccines in children", "k": 5, "where": {"year": {"$gte": 2020}}}


class SaveQueryBody(Body):
    """A plan to keep under a name; {"$param": …} stands for a value that is given when it is run."""

    name: str
    plan: Plan

    error: ClassVar[type[InvalidInput]] = InvalidQuery
    example: ClassVar[dict[str, Any]] = {
        "name": "fresh",
        "plan": {
            "where": {"year": {"$gte": {"$param": "since", "default": 2000}}},
            "boosts": [{"field": "$created", "decay": "exp", "scale": "30d"}],
        },
    }


class DeleteQueryBody(Body):
    name: str

    example: ClassVar[dict[str, Any]] = {"name": "fresh"}


class ContextBody(Body):
    """A question, and how much room the answer's passages have."""

    question: str
    budget_tokens: int = 1500
    k: int = 20
    where: dict[str, Any] | None = None
    mode: Mode = "auto"
    neighbours: int = Field(default=0, description="chunks to add before and after each hit")
    min_relevance: float | None = None
    select: str | SelectBody = "topk"
    vector_format: VectorFormat = "list"

    error: ClassVar[type[InvalidInput]] = InvalidQuery
    example: ClassVar[dict[str, Any]] = {"question": "What is known of vaccines in children?", "budget_tokens": 800}

    def options(self, settings: Settings) -> dict[str, Any]:
        """Keyword arguments of Collection.context. Raises InvalidQuery above the service's limits."""
        _at_most("k", self.k, settings.max_k, "VECDB_MAX_K")
        _at_most("neighbours", self.neighbours, settings.max_k, "VECDB_MAX_K")
        options = self.given("question", "vector_format")
        if isinstance(self.select, SelectBody):
            options["select"] = self.select.selector()
        return options


class RecallBody(Body):
    """How large a sample to measure on, and under which filters besides none."""

    sample: int = 200
    k: int = 10
    ef: int | None = None
    where: list[dict[str, Any]] = Field(default_factory=list)
    seed: int = 0

    error: ClassVar[type[InvalidInput]] = InvalidQuery
    example: ClassVar[dict[str, Any]] = {"sample": 100, "k": 10, "where": [{"year": 2024}]}

    def check_size(self, settings: Settings) -> None:
        _at_most("k", self.k, settings.max_k, "VECDB_MAX_K")
        _at_most("sample", self.sample, settings.max_queries, "VECDB_MAX_QUERIES")
        _at_most("ef", self.ef or 0, settings.max_candidates, "VECDB_MAX_CANDIDATES")


class TuneBody(Body):
    """The recall that is wanted, the seconds that finding out may take, and (if there are any) queries as they will be asked."""

    target_recall: float = 0.95
    k: int = 10
    budget_s: float = 60.0
    queries: Texts | None = None
    query_vectors: Annotated[list[Numbers], _StopAtFirst()] | None = None
    query_vectors_base64: Texts | None = None
    apply: bool = Field(default=False, description="build the index so from now on, if the target was reached")

    error: ClassVar[type[InvalidInput]] = InvalidQuery
    example: ClassVar[dict[str, Any]] = {"target_recall": 0.95, "k": 10, "budget_s": 30, "apply": True}

    def check_size(self, settings: Settings) -> None:
        _at_most("k", self.k, settings.max_k, "VECDB_MAX_K")
        _check_queries(settings, self.queries, self.query_vectors, self.query_vectors_base64)

    def options(self, settings: Settings) -> dict[str, Any]:
        """Keyword arguments of Collection.tune. Raises InvalidQuery, InvalidVector."""
        asked: list[Any] | None = batch_vectors(self.query_vectors, self.query_vectors_base64)
        if self.queries is not None and asked is not None:
            raise InvalidQuery("both texts and vectors were given to ask with; give one of them")
        return {
            **self.given("queries", "query_vectors", "query_vectors_base64"),
            "budget_s": min(self.budget_s, _TUNING_SHARE * settings.request_timeout_s),
            "queries": self.queries if asked is None else asked,
        }


class AdaptBody(Body):
    """How many records to learn and judge by, the seconds that may take, and whether searches use what is accepted."""

    sample: int = 2_500
    budget_s: float = 60.0
    seed: int = 0
    apply: bool = Field(default=True, description="search by the map from now on, if the gate accepts it")

    error: ClassVar[type[InvalidInput]] = InvalidQuery
    example: ClassVar[dict[str, Any]] = {"sample": 2500, "budget_s": 30, "apply": True}

    def options(self, settings: Settings) -> dict[str, Any]:
        """Keyword arguments of Collection.adapt."""
        _at_most("sample", self.sample, settings.max_records, "VECDB_MAX_RECORDS")
        return {**self.given(), "budget_s": min(self.budget_s, _TUNING_SHARE * settings.request_timeout_s)}


class StorageBody(Body):
    """Keep vectors with another codec from now on."""

    codec: str
    wait: bool = Field(default=True, description="answer when all vectors are changed; else at once")

    example: ClassVar[dict[str, Any]] = {"codec": "pca:192+float8", "wait": False}


class StoragePlanBody(Body):
    """Queries such as will be asked, or none; judgements of them, if there are some, in their order."""

    budget_bytes: int | None = None
    max_loss: float | None = None
    queries: Texts | None = None
    query_vectors: Annotated[list[Numbers], _StopAtFirst()] | None = None
    query_vectors_base64: Texts | None = None
    judgements: list[dict[str, int]] | None = Field(default=None, description="of each query: record id -> grade")
    codecs: Texts | None = None

    error: ClassVar[type[InvalidInput]] = InvalidQuery
    example: ClassVar[dict[str, Any]] = {"max_loss": 0.01, "codecs": ["float8", "pca:2+int8"]}

    def options(self, settings: Settings) -> dict[str, Any]:
        """Keyword arguments of Collection.plan_storage. Raises InvalidQuery, InvalidVector."""
        _check_queries(settings, self.queries, self.query_vectors, self.query_vectors_base64)
        asked: list[Any] | None = batch_vectors(self.query_vectors, self.query_vectors_base64)
        if self.queries is not None and asked is not None:
            raise InvalidQuery("both texts and vectors were given to ask with; give one of them")
        asked = self.queries if asked is None else asked
        given = self.given("queries", "query_vectors", "query_vectors_base64", "judgements")
        if self.judgements is None:
            return {**given, "queries": asked}
        if asked is None or len(asked) != len(self.judgements):
            raise InvalidQuery("judgements are of queries; give as many of these, in the same order")
        names = [str(i) for i in range(len(asked))]
        return {**given, "queries": dict(zip(names, asked)), "qrels": dict(zip(names, self.judgements))}


class FitFusionBody(Body):
    """Queries such as will be asked, and their vectors where the collection does not embed; with qrels, by their ids."""

    queries: Texts | dict[str, str]
    query_vectors: Annotated[list[Numbers], _StopAtFirst()] | None = None
    query_vectors_base64: Texts | None = None
    qrels: dict[str, dict[str, int]] | None = Field(default=None, description="query id -> record id -> grade")
    keep: bool = Field(default=True, description="as what fusion='adaptive' means for this collection")

    error: ClassVar[type[InvalidInput]] = InvalidQuery
    example: ClassVar[dict[str, Any]] = {"queries": ["vaccines in children", "side effects of aspirin"]}

    def vectors(self, settings: Settings) -> list[Any] | None:
        """The queries' vectors, if any were given. Raises InvalidQuery, InvalidVector."""
        _check_queries(settings, list(self.queries), self.query_vectors, self.query_vectors_base64)
        return batch_vectors(self.query_vectors, self.query_vectors_base64)


B = TypeVar("B", bound=Body)


def parsed(kind: type[B], raw: bytes) -> B:
    """The body as the class that the route wants. Raises InvalidInput, or Refused (400) if it is not JSON at all."""
    try:
        value = from_json(raw, allow_inf_nan=False)
    except ValueError as error:
        raise Refused(400, f"the body is not JSON: {error}", error=kind.error) from error
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        raise _invalid(kind, error.errors(include_url=False, include_context=False)[0]) from error


def _invalid(kind: type[Body], first: ErrorDetails) -> InvalidInput:
    """Of all that is wrong the first thing, as the error that the library raises for the like."""
    place = first["loc"]
    error = kind.error
    if any("vector" in str(part) and part != "vectors" for part in place):
        error = InvalidVector
    elif place[:1] == ("where",):
        error = InvalidFilter
    where = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in place).lstrip(".")
    position = next((part for part in place if isinstance(part, int)), None)
    in_records = place[:1] in (("records",), ("queries",), ("query_vectors",))
    message = f"{where or 'the body'}: {first['msg'][:1].lower()}{first['msg'][1:]}; got {_short(first['input'])}"
    return error(message, position=position if in_records else None)


def _short(value: Any) -> str:
    return reprlib.repr(value)  # never walks through all of a large value


def _at_most(name: str, value: float, limit: int, variable: str, error: type[InvalidInput] = InvalidQuery) -> None:
    if value > limit:
        raise error(
            f"{name} is {value:,}; this service takes at most {limit:,}: ask for less, or start it with a larger "
            f"{variable}"
        )


def check_plan(plan: Mapping[str, Any], settings: Settings, path: str = "") -> None:
    """Raises InvalidQuery for numbers in a plan, or in a prefetch of it, that are above the service's limits, and for a model
    that it was not told to use.
    """
    _check_rerank(plan.get("rerank"), settings)
    limits = dict.fromkeys(
        ("offset", "ef", "candidates", "per_group"), (settings.max_candidates, "VECDB_MAX_CANDIDATES")
    )
    limits["k"] = limits["candidates"] if path else (settings.max_k, "VECDB_MAX_K")
    for name, (limit, variable) in limits.items():
        if isinstance(value := plan.get(name), int | float):  # what is no number the library refuses
            _at_most(f"{path}{name}", value, limit, variable)
    steps = plan.get("prefetch")
    for place, step in enumerate(steps if isinstance(steps, list) else ()):
        if isinstance(step, Mapping):
            check_plan(step, settings, f"{path}prefetch[{place}].")


def _check_rerank(given: Any, settings: Settings) -> None:
    """Raises InvalidQuery for a model or an address that the service was not told to use: a client would make it fetch that."""
    for value in reached(given):
        if value not in settings.models:
            raise InvalidQuery(
                f"the service reranks with {', '.join(settings.models) or 'no model'}, not with {value!r}; name it in "
                "VECDB_MODELS where the service starts"
            )
    for stage in given if isinstance(given, list) else [given]:
        top = stage.get("top") if isinstance(stage, dict) else None
        _at_most("top of rerank", top if isinstance(top, int) else 0, settings.max_candidates, "VECDB_MAX_CANDIDATES")


def _check_queries(settings: Settings, *forms: list[Any] | None) -> None:
    most = max((len(form) for form in forms if form is not None), default=0)
    _at_most("queries", most, settings.max_queries, "VECDB_MAX_QUERIES")


def batch_vectors(numbers: list[Numbers] | None, texts: list[str] | None) -> list[Any] | None:
    """The vectors of a batch, given in one of two forms. Raises InvalidVector if in both, InvalidQuery if there are none."""
    if numbers is not None and texts is not None:
        raise InvalidVector("both query_vectors and query_vectors_base64 were given; give one of them")
    vectors: list[Any] | None = numbers if texts is None else [wire.from_base64(text) for text in texts]
    if vectors is not None and not vectors:
        raise InvalidQuery("the batch of queries is empty; give at least one")
    return vectors


def one_vector(numbers: Numbers | None, text: str | None) -> Vector | None:
    """The vector that was given in one of its two forms. Raises InvalidVector if in both."""
    if text is None:
        with np.errstate(
            over="ignore"
        ):  # beyond float32's range it becomes infinite, and the library refuses it as such
            return None if numbers is None else np.asarray(numbers, dtype=np.float32)
    if numbers is not None:
        raise InvalidVector("a vector was given both as numbers and as base64; give one of them")
    return wire.from_base64(text)
