"""The requests that a client makes, and how answers are read: pure, so that sync and async client share them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar
from urllib.parse import quote

import numpy as np
from numpy.typing import ArrayLike

from vecdb import wire
from vecdb.config import CollectionConfig, TextConfig, TokenConfig, checked_synonyms
from vecdb.errors import InvalidInput, InvalidQuery, ServiceError
from vecdb.index.base import IndexConfig
from vecdb.judged import judged_queries
from vecdb.links import link_lines
from vecdb.query.plan_data import as_data
from vecdb.query.snippets import SnippetOptions
from vecdb.records import Batch, Columns, batches
from vecdb.types import (
    CollectionStats,
    Context,
    Filter,
    GroupHits,
    Hits,
    Link,
    Metric,
    Page,
    Plan,
    Record,
    Vector,
    WhyNot,
    WriteResult,
)
from vecdb.vectors import as_matrix
from vecdb.wire import Wire

if TYPE_CHECKING:
    from vecdb.adaptation.adapting import Adaptation
    from vecdb.duplicates import Deduped
    from vecdb.query.fusion import Adaptive
    from vecdb.recall import RecallReport
    from vecdb.similarity import LearnedSimilarity
    from vecdb.storage_plan import StoragePlan
    from vecdb.stored_vectors import StorageState
    from vecdb.tuning import CollectionTuning

T = TypeVar("T")
Found = Hits | list[Hits]  # of one query, of a batch


@dataclass(frozen=True, slots=True)
class Call(Generic[T]):
    """One request. read makes the result of the answer's JSON. is_safe: it changes nothing, so it may be sent again.

    first: where the records sent stand in the whole input, for the positions of errors.
    """

    method: str
    path: str
    read: Callable[[Any], T]
    body: bytes | None = None
    is_safe: bool = False
    first: int = 0

    def result(self, answer: bytes) -> T:
        """Raises ServiceError if the answer is not what a vecdb service gives."""
        try:
            return self.read(wire.loads(answer) if answer else None)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ServiceError(
                f"the answer to {self.method} {self.path} is not understood ({error!r}); does the service run another "
                "version of vecdb?"
            ) from error


@dataclass(frozen=True, slots=True)
class Limits:
    """What the service takes in one request."""

    body_bytes: int
    records: int


@dataclass(frozen=True, slots=True)
class Described:
    """A collection as the service tells it."""

    name: str
    records: int
    config: CollectionConfig


# -- the database


def about() -> Call[Limits]:
    def read(value: Wire) -> Limits:
        limits = value["limits"]
        return Limits(limits["body_bytes"], limits["records"])

    return Call("GET", "/v1", read, is_safe=True)


def list_collections() -> Call[list[str]]:
    return Call("GET", "/v1/collections", lambda value: list(value["collections"]), is_safe=True)


def open_collection(
    name: str,
    *,
    dimension: int | None,
    metric: Metric | None,
    embed: Any,
    text: TextConfig | str | None,
    index: IndexConfig | None,
    tokens: Any,
    storage: str | None,
    create: bool,
) -> Call[Described]:
    """Raises InvalidInput for an embedder that is an object or a function: the service embeds by itself."""
    if embed is not None and not isinstance(embed, str):
        raise InvalidInput(
            f"embed is of type {type(embed).__name__}, which cannot be sent; name a model that the service has, such as "
            "'default', or embed here and give vectors="
        )
    if tokens is not None and not isinstance(tokens, str | Mapping | TokenConfig):
        raise InvalidInput(
            f"tokens is of type {type(tokens).__name__}, which cannot be sent; name an encoder, such as 'default'"
        )
    body: Wire = {"name": name, "create": create}
    given = {"dimension": dimension, "metric": metric, "embed": embed, "storage": storage}
    body.update({key: value for key, value in given.items() if value is not None})
    if text is not None:
        body["text"] = asdict(text) if isinstance(text, TextConfig) else text
    if tokens is not None:
        body["tokens"] = (
            {"encoder": tokens.encoder, "codec": tokens.codec} if isinstance(tokens, TokenConfig) else tokens
        )
    if index is not None:
        body["index"] = CollectionConfig(index=index).as_json()["index"]
    return Call("POST", "/v1/collections", _described, _json(body))


def drop(name: str) -> Call[None]:
    return Call("DELETE", _path(name), _nothing)


def check_database() -> Call[list[str]]:
    return Call("GET", "/v1/check", _problems, is_safe=True)


# -- one collection


def describe(name: str) -> Call[Described]:
    return Call("GET", _path(name), _described, is_safe=True)


def writes(
    name: str,
    method: str,
    records: Any,
    columns: Columns,
    *,
    batch_size: int | None,
    limits: Limits,
    options: Wire,
    need_ids: bool = False,
) -> Iterator[Call[WriteResult]]:
    """One request for each batch, each of them one transaction. method: POST adds, PUT upserts, PATCH updates.

    Records are read as they are needed. Raises what the library raises for records that cannot be used, and
    InvalidInput for more than the service takes at once: sent in parts, they would not be written all or none.
    """
    if batch_size is not None and batch_size > limits.records:
        raise InvalidInput(
            f"batch_size is {batch_size:,}; the service takes at most {limits.records:,} records in one request"
        )
    first = 0
    for batch in batches(records, columns, limits.records + 1 if batch_size is None else batch_size, need_ids=need_ids):
        if len(batch) > limits.records:
            raise InvalidInput(
                f"there are more than {limits.records:,} records, which is what the service takes in one request; give "
                f"batch_size={min(1000, limits.records)} to write them in several transactions"
            )
        body = _json({"records": _rows(batch), **options})
        if len(body) > limits.body_bytes:
            fitting = max(1, len(batch) * limits.body_bytes // len(body) * 9 // 10)
            raise InvalidInput(
                f"{len(batch):,} records take {len(body):,} bytes, the service takes {limits.body_bytes:,} in one "
                f"request; give batch_size={fitting} to write them in several transactions"
            )
        yield Call(method, f"{_path(name)}/records", wire.write_result_from_wire, body, first=first)
        first += len(batch)


def replace(name: str, parent: str, records: Any, *, fingerprint: str | None, limits: Limits) -> Call[WriteResult]:
    """As one transaction. Raises like `writes`."""
    listed = list(records) if records is not None else []
    options: Wire = {"parent": parent, "fingerprint": fingerprint}
    body = _json({**options, "records": []})
    if listed:
        of_parent = [{**record, "parent": parent} for record in listed]
        (call,) = writes(name, "PUT", of_parent, {}, batch_size=None, limits=limits, options=options)
        body = call.body or body
    return Call("PUT", f"{_path(name)}/parents", wire.write_result_from_wire, body)


def sources(name: str) -> Call[dict[str, str]]:
    return Call("GET", f"{_path(name)}/sources", lambda value: dict(value["sources"]), is_safe=True)


def neighbours(name: str, parent: str, first: int, last: int) -> Call[list[Record]]:
    def read(value: Wire) -> list[Record]:
        return [wire.record_from_wire(record) for record in value["records"]]

    return _asking(name, "records/neighbours", {"parent": parent, "first": first, "last": last}, read)


def get(name: str, ids: Sequence[str], *, vectors: bool) -> Call[list[Record | None]]:
    def read(value: Wire) -> list[Record | None]:
        return [None if record is None else wire.record_from_wire(record) for record in value["records"]]

    return _asking(name, "records/get", {"ids": _texts(ids), "vectors": vectors, "vector_format": "base64"}, read)


def dedupe(
    name: str, policy: str, *, threshold: float | None, where: Filter | None, blocker: Any, apply: bool
) -> Call[Deduped]:
    """Raises InvalidInput for a blocker."""
    if blocker is not None:
        raise InvalidInput("a blocker cannot be sent to a service; leave it out, or dedupe the file itself")
    options = given(threshold=threshold, where=wire.filter_to_wire(where))
    body = _json({"policy": policy, "apply": apply, **options})
    return Call("POST", f"{_path(name)}/dedupe", wire.deduped_from_wire, body)


def delete(name: str, ids: str | Sequence[str] | None, where: Filter | None) -> Call[int]:
    body: Wire = {}
    if ids is not None:
        body["ids"] = [ids] if isinstance(ids, str) else _texts(ids)
    if where is not None:
        body["where"] = wire.filter_to_wire(where)
    return Call("POST", f"{_path(name)}/records/delete", lambda value: int(value["deleted"]), _json(body))


def link(name: str, sources: Any, targets: Any, kinds: Any, weights: Any, directed: Any) -> Call[int]:
    """Weights that JSON cannot say are refused here as the library refuses them."""
    lines = link_lines(sources, targets, kind=kinds, weight=weights, directed=directed)
    body = _json({"links": [wire.link_to_wire(line) for line in lines]})
    return Call("POST", f"{_path(name)}/links", lambda value: int(value["linked"]), body)


def unlink(name: str, sources: Any, targets: Any, kind: str | None) -> Call[int]:
    lines = link_lines(sources, targets, kind="link" if kind is None else kind)
    body = _json({"ends": [[line.source, line.target] for line in lines], "kind": kind})
    return Call("POST", f"{_path(name)}/links/delete", lambda value: int(value["deleted"]), body)


def links(name: str, id: str | None, kind: str | None) -> Call[list[Link]]:
    def read(value: Wire) -> list[Link]:
        return [wire.link_from_wire(link) for link in value["links"]]

    return _asking(name, "links/get", {"id": id, "kind": kind}, read)


def link_entities(name: str, extractor: Any) -> Call[int]:
    """Raises InvalidInput for a function, which is code of the caller's."""
    if isinstance(extractor, Mapping):
        extractor = {id: names if isinstance(names, str) else list(names) for id, names in extractor.items()}
    elif not isinstance(extractor, str):
        raise InvalidInput(
            f"extractor is of type {type(extractor).__name__}, which cannot be sent to a service; name a metadata key, or give "
            "what records name, by their ids"
        )
    return Call(
        "POST", f"{_path(name)}/links/entities", lambda value: int(value["mentions"]), _json({"extractor": extractor})
    )


def derive(name: str, field: str, *, kinds: Any, weights: Sequence[float], **options: Any) -> Call[int]:
    named = dict(kinds) if isinstance(kinds, Mapping) else kinds if kinds is None else list(kinds)
    body = _json({"field": field, "kinds": named, "weights": [float(weight) for weight in weights], **options})
    return Call("POST", f"{_path(name)}/derive", lambda value: int(value["vectors"]), body)


def learn_similarity(name: str, similarity: Any, triples: Any, **options: Any) -> Call[LearnedSimilarity]:
    """Raises InvalidInput for a function, which is code of the caller's."""
    if similarity is not None:
        raise InvalidInput(
            f"similarity is of type {type(similarity).__name__}, which cannot be sent to a service; give triples of ids"
        )
    listed = None if triples is None else [list(triple) for triple in triples]
    body = _json({"triples": listed, **options})
    return Call("POST", f"{_path(name)}/learn-similarity", wire.similarity_from_wire, body)


def vector(name: str, id: str, field: str) -> Call[Vector | None]:
    return _asking(name, "records/vector", {"id": id, "field": field}, wire.vector_from_wire)


def count(name: str, where: Filter | None) -> Call[int]:
    return _asking(name, "records/count", {"where": wire.filter_to_wire(where)}, lambda value: int(value["count"]))


def facets(name: str, key: str, *, where: Filter | None, limit: int) -> Call[list[tuple[Any, int]]]:
    body = {"key": key, "where": wire.filter_to_wire(where), "limit": limit}
    return _asking(name, "records/facets", body, wire.facets_from_wire)


def scan(name: str, *, where: Filter | None, limit: int, cursor: str | None, vectors: bool) -> Call[Page]:
    body = {
        "where": wire.filter_to_wire(where),
        "limit": limit,
        "cursor": cursor,
        "vectors": vectors,
        "vector_format": "base64",
    }
    return _asking(name, "records/scan", body, wire.page_from_wire)


def search(name: str, query: str | ArrayLike | None, vector: ArrayLike | None, options: Wire) -> Call[Found]:
    asked, is_batch = _query(query, vector)
    body = {**asked, **_search_options(options)}
    if is_batch:
        return _asking(
            name, "search/batch", body, lambda value: [wire.hits_from_wire(hits) for hits in value["results"]]
        )
    return _asking(name, "search", body, wire.hits_from_wire)


def search_groups(name: str, queries: Any, options: Wire) -> Call[GroupHits]:
    asked, is_batch = _query(queries, None)
    if not is_batch:  # of one vector
        asked = (
            {"queries": [asked["query"]]} if "query" in asked else {"query_vectors_base64": [asked["vector_base64"]]}
        )
    if "where" in options:
        options["where"] = wire.filter_to_wire(options["where"])
    return _asking(name, "search/groups", {**asked, **options}, wire.group_hits_from_wire)


def why_not(name: str, id: str, query: str | ArrayLike | None, vector: ArrayLike | None, options: Wire) -> Call[WhyNot]:
    asked, is_batch = _query(query, vector)
    if is_batch:
        raise InvalidQuery("why_not explains one query; ask for them one at a time")
    return _asking(name, "why-not", {"id": id, **asked, **_search_options(options)}, wire.why_not_from_wire)


def explain(name: str, query: str | ArrayLike | None, vector: ArrayLike | None, options: Wire) -> Call[Plan]:
    asked, is_batch = _query(query, vector)
    if is_batch:
        raise InvalidQuery("explain plans one query; ask for them one at a time")
    return _asking(name, "explain", {**asked, **_search_options(options)}, wire.plan_from_wire)


def save_query(collection: str, name: Any, plan: Any) -> Call[None]:
    body = _json({"name": name, "plan": as_data(plan)})
    return Call("PUT", f"{_path(collection)}/queries", _nothing, body)


def queries(collection: str) -> Call[dict[str, dict[str, Any]]]:
    return Call("GET", f"{_path(collection)}/queries", lambda value: dict(value["queries"]), is_safe=True)


def delete_query(collection: str, name: Any) -> Call[bool]:
    body = _json({"name": name})
    return Call("POST", f"{_path(collection)}/queries/delete", lambda value: bool(value["deleted"]), body)


def context(name: str, question: str, budget_tokens: int, options: Wire) -> Call[Context]:
    """Raises InvalidInput for a counter of tokens, which is code of the caller's, and for a template."""
    for what in ("count_tokens", "template"):
        if options.pop(what, None) is not None:
            raise InvalidInput(
                f"{what} cannot be sent to a service; build the passages' text here from context.passages"
            )
    if "where" in options:
        options["where"] = wire.filter_to_wire(options["where"])
    if "select" in options:
        options["select"] = wire.selection_to_wire(options["select"])
    body = {"question": question, "budget_tokens": budget_tokens, **options, "vector_format": "base64"}
    return _asking(name, "context", body, wire.context_from_wire)


def stats(name: str) -> Call[CollectionStats]:
    return Call("GET", f"{_path(name)}/stats", wire.stats_from_wire, is_safe=True)


def recall_report(
    name: str, *, sample: int, k: int, ef: int | None, where: Sequence[Filter], seed: int
) -> Call[RecallReport]:
    filters = [wire.filter_to_wire(one) for one in where]
    body = {"sample": sample, "k": k, "ef": ef, "where": filters, "seed": seed}
    return _asking(name, "recall-report", body, wire.recall_report_from_wire)


def fit_fusion(
    name: str,
    queries: Sequence[str] | Mapping[str, str],
    vectors: ArrayLike | None,
    qrels: Mapping[str, Mapping[str, int]] | None,
    keep: bool,
) -> Call[Adaptive]:
    body: Wire = {"queries": dict(queries) if isinstance(queries, Mapping) else list(queries), "keep": keep}
    if vectors is not None:
        body["query_vectors_base64"] = [wire.to_base64(row) for row in as_matrix(vectors, what="the queries")]
    if qrels is not None:
        body["qrels"] = {query: dict(judged) for query, judged in qrels.items()}
    return Call("POST", f"{_path(name)}/fit-fusion", wire.adaptive_from_wire, _json(body))


def forget_fusion(name: str) -> Call[bool]:
    return Call("DELETE", f"{_path(name)}/fusion", lambda value: bool(value["forgotten"]))


def fusion(name: str) -> Call[Adaptive | None]:
    def read(value: Wire) -> Adaptive | None:
        return None if value["fusion"] is None else wire.adaptive_from_wire(value["fusion"])

    return Call("GET", f"{_path(name)}/fusion", read, is_safe=True)


def tune(
    name: str, target_recall: float, *, k: int, budget_s: float, queries: Sequence[str] | ArrayLike | None, apply: bool
) -> Call[CollectionTuning]:
    body: Wire = {"target_recall": target_recall, "k": k, "budget_s": budget_s, "apply": apply}
    if queries is not None:
        asked, is_batch = _query([queries] if isinstance(queries, str) else queries, None)
        body.update(asked if is_batch else {"query_vectors_base64": [asked["vector_base64"]]})
    return Call("POST", f"{_path(name)}/tune", wire.tuning_from_wire, _json(body))


def adapt(name: str, *, sample: int, budget_s: float, seed: int, apply: bool) -> Call[Adaptation]:
    body: Wire = {"sample": sample, "budget_s": budget_s, "seed": seed, "apply": apply}
    return Call("POST", f"{_path(name)}/adapt", wire.adaptation_from_wire, _json(body))


def adapter(name: str) -> Call[Adaptation | None]:
    def read(value: Wire) -> Adaptation | None:
        return None if value["adapter"] is None else wire.adaptation_from_wire(value["adapter"])

    return Call("GET", f"{_path(name)}/adapter", read, is_safe=True)


def reset_adapter(name: str) -> Call[bool]:
    return Call("DELETE", f"{_path(name)}/adapter", lambda value: bool(value["reset"]))


def tuning(name: str) -> Call[CollectionTuning | None]:
    def read(value: Wire) -> CollectionTuning | None:
        return None if value["tuning"] is None else wire.tuning_from_wire(value["tuning"])

    return Call("GET", f"{_path(name)}/tuning", read, is_safe=True)


def storage(name: str) -> Call[StorageState]:
    return Call("GET", f"{_path(name)}/storage", wire.storage_from_wire, is_safe=True)


def set_storage(name: str, codec: str, wait: bool) -> Call[StorageState]:
    body = _json({"codec": codec, "wait": wait})
    return Call("POST", f"{_path(name)}/storage", wire.storage_from_wire, body, is_safe=True)


def plan_storage(
    name: str,
    budget_bytes: int | None,
    *,
    max_loss: float | None,
    queries: Mapping[str, Any] | Sequence[str] | ArrayLike | None,
    qrels: Mapping[str, Mapping[str, int]] | None,
    codecs: Sequence[str] | None,
) -> Call[StoragePlan]:
    given = {"budget_bytes": budget_bytes, "max_loss": max_loss, "codecs": None if codecs is None else list(codecs)}
    body: Wire = {key: value for key, value in given.items() if value is not None}
    asked, judgements = judged_queries(queries, qrels)
    if judgements is not None:
        body["judgements"] = [dict(grades) for grades in judgements]
    if asked is not None:
        encoded, is_batch = _query([asked] if isinstance(asked, str) else asked, None)
        body.update(encoded if is_batch else {"query_vectors_base64": [encoded["vector_base64"]]})
    return Call("POST", f"{_path(name)}/plan-storage", wire.storage_plan_from_wire, _json(body), is_safe=True)


def compact(name: str) -> Call[None]:
    return Call("POST", f"{_path(name)}/compact", _nothing, is_safe=True)


def check(name: str) -> Call[list[str]]:
    return Call("GET", f"{_path(name)}/check", _problems, is_safe=True)


def optimize(name: str) -> Call[None]:
    return Call("POST", f"{_path(name)}/optimize", _nothing, is_safe=True)


def warm(name: str) -> Call[None]:
    return Call("POST", f"{_path(name)}/warm", _nothing, is_safe=True)


# -- pieces that callers need too


def given(**options: Any) -> Wire:
    """The options that are not None: the others keep the service's defaults."""
    return {name: value for name, value in options.items() if value is not None}


# -- pieces


def _path(name: str) -> str:
    """A name's place in the path: reserved characters escaped, and '.' and '..', which clients would resolve."""
    if not isinstance(name, str):
        raise InvalidInput(f"the name of a collection is {name!r}; it must be text")
    try:
        escaped = quote(name, safe="")
    except UnicodeEncodeError as error:
        raise InvalidInput(f"the name of a collection is {name!r}, which is not valid Unicode") from error
    return f"/v1/collections/{escaped.replace('.', '%2E') if name in ('.', '..') else escaped}"


def _asking(name: str, what: str, body: Wire, read: Callable[[Any], T]) -> Call[T]:
    """A question: it is sent as a POST because of its body, but changes nothing."""
    return Call("POST", f"{_path(name)}/{what}", read, _json(body), is_safe=True)


def _json(body: Wire) -> bytes:
    try:
        return wire.dumps(body)
    except TypeError as error:  # a value of a foreign type, or text that is not Unicode
        raise InvalidInput(f"an argument cannot be sent: {error}") from error


def _rows(batch: Batch) -> list[Wire]:
    """The records as the service takes them. A field that was not given is left out: `update` must leave it alone."""
    plain: dict[str, Sequence[Any]] = {
        "text": batch.texts,
        "parent": batch.parents,
        "seq": batch.seqs,
        "expires": batch.expires,
    }
    columns = {"id": batch.ids, **{field: column for field, column in plain.items() if field in batch.given}}
    if "metadata" in batch.given:
        columns["metadata"] = [wire.json_text(text) for text in batch.metadata]
    if "vector" in batch.given:
        columns["vector_base64"] = [
            wire.to_base64(batch.vectors[i]) if batch.vectors is not None and has else None
            for i, has in enumerate(batch.has_vector)
        ]
    return [dict(zip(columns, row)) for row in zip(*columns.values())]


def _texts(ids: Sequence[str]) -> list[str]:
    listed = list(ids)
    for id in listed:
        if not isinstance(id, str):
            raise InvalidInput(f"id {id!r} is a {type(id).__name__}; ids are text")
    return listed


def _query(query: Any, vector: Any) -> tuple[Wire, bool]:
    """The query's part of the body, and whether it is a batch. Raises InvalidVector, InvalidQuery."""
    texts: Any = None
    if isinstance(query, str) or (isinstance(query, list | tuple) and query and all(isinstance(q, str) for q in query)):
        texts = query
    elif query is not None:
        if vector is not None:
            raise InvalidQuery("two vectors were given; with vector= the query itself is text")
        vector = query
    is_batch = texts is not None and not isinstance(texts, str)
    body: Wire = {}
    if vector is not None:
        matrix, is_matrix = _matrix(vector)
        if texts is not None and is_batch != is_matrix:
            raise InvalidQuery(
                "a batch of one kind and a single query of the other were given; give as many texts as vectors"
            )
        is_batch = is_matrix
        encoded = [wire.to_base64(row) for row in matrix]
        body.update({"query_vectors_base64": encoded} if is_batch else {"vector_base64": encoded[0]})
    if texts is not None:
        body.update({"queries": list(texts)} if is_batch else {"query": texts})
    return body, is_batch


def _matrix(vector: Any) -> tuple[Any, bool]:
    try:
        is_single = np.ndim(vector) == 1
    except ValueError:  # rows of unequal length; as_matrix says so
        is_single = False
    return (as_matrix([vector], what="the query"), False) if is_single else (as_matrix(vector, what="the query"), True)


def _search_options(options: Wire) -> Wire:
    """options as they travel. Raises InvalidQuery for what is code of the caller's."""
    if "rerank" in options:
        options["rerank"] = wire.rerank_to_wire(options["rerank"])
    if "where" in options:
        options["where"] = wire.filter_to_wire(options["where"])
    if "graph" in options:
        options["graph"] = wire.graph_to_wire(options["graph"])
    if "fusion" in options:
        options["fusion"] = wire.fusion_to_wire(options["fusion"])
    if "select" in options:
        options["select"] = wire.selection_to_wire(options["select"])
    if "synonyms" in options:
        options["synonyms"] = checked_synonyms(options["synonyms"], InvalidQuery)
    for part in ("prefetch", "near", "boosts", "recommend", "discover", "plan", "params"):
        if part in options:
            options[part] = as_data(options[part])
    if isinstance(options.get("snippets"), SnippetOptions):
        options["snippets"] = asdict(options["snippets"])
    return {**options, "vector_format": "base64"}


def _described(value: Wire) -> Described:
    return Described(value["name"], value["records"], CollectionConfig.from_json(value["config"]))


def _problems(value: Wire) -> list[str]:
    return list(value["problems"])


def _nothing(value: Any) -> None:
    return None
