"""The JSON form of everything that travels between the service and its clients; both sides use this file.

Values look as they do in Python: an object's keys are the field names of its class in `types`. Three things have no
JSON of their own. A vector is a list of numbers under "vector", or the base64 of little-endian float32 under
"vector_base64", which is a third of the size and exact. A date in metadata is {"$date": …} (see `metadata`). An error
is a problem document (RFC 9457) with members more: "error", the name of its class in `errors`, and "position" and "path"
where the class knows them.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from datetime import date
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import orjson

from vecdb import errors
from vecdb.errors import InvalidInput, InvalidQuery, InvalidVector, RequestTimeout, ServiceError, VecdbError
from vecdb.filters import parse
from vecdb.metadata import DATE_KEY, encode, iso_text, normalised, plain
from vecdb.query.fusion import Adaptive, fusion_from_json, fusion_to_json
from vecdb.query.graph_options import GraphOptions, graph_of
from vecdb.query.selection import selection_from_json, selection_to_json
from vecdb.rerank.kinds import RerankSpec
from vecdb.types import (
    CollectionStats,
    Context,
    Duplicate,
    Filter,
    GroupHit,
    GroupHits,
    GroupMatch,
    Hit,
    Hits,
    Link,
    Page,
    Passage,
    Plan,
    PlannedStage,
    Record,
    StageReport,
    TraceStep,
    Vector,
    WhyNot,
    WriteResult,
)

if TYPE_CHECKING:
    from vecdb.adaptation.adapting import Adaptation
    from vecdb.duplicates import Deduped
    from vecdb.recall import RecallReport
    from vecdb.similarity import LearnedSimilarity
    from vecdb.storage_plan import StoragePlan
    from vecdb.stored_vectors import StorageState
    from vecdb.tuning import CollectionTuning

PROBLEM_TYPE = "application/problem+json"
JSON_TYPE = "application/json"
NDJSON_TYPE = "application/x-ndjson"

Wire = dict[str, Any]  # what dumps takes and loads gives


def dumps(value: Any) -> bytes:
    """JSON text of a wire value; NumPy arrays and numbers are taken as they are."""
    return orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY)


def loads(text: bytes) -> Any:
    """The value of a JSON text. Raises ServiceError, because only answers are read with it."""
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as error:
        shown = text[:80].decode("utf-8", "replace")
        raise ServiceError(f"the answer is not JSON ({error}): {shown!r}; is a vecdb service at this URL?") from error


# -- vectors


def to_base64(vector: Vector) -> str:
    """(D,) float32 -> text."""
    return base64.b64encode(np.ascontiguousarray(vector, dtype="<f4").tobytes()).decode("ascii")


def from_base64(text: str) -> Vector:
    """text -> (D,) float32. Raises InvalidVector for anything but the base64 of whole float32 numbers."""
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise InvalidVector(f"vector_base64 is not base64 ({error}); give that of little-endian float32") from error
    if not data or len(data) % 4:
        raise InvalidVector(f"vector_base64 holds {len(data)} bytes; give four for each number, little-endian float32")
    return np.frombuffer(data, dtype="<f4").astype(np.float32)


def _vector_field(vector: Vector | None, compact: bool) -> Wire:
    if vector is None:
        return {}
    return {"vector_base64": to_base64(vector)} if compact else {"vector": np.asarray(vector, dtype=np.float32)}


def vector_to_wire(vector: Vector | None) -> Wire:
    return {"vector_base64": None if vector is None else to_base64(vector)}


def vector_from_wire(value: Mapping[str, Any]) -> Vector | None:
    return _vector_of(value)


def _vector_of(value: Mapping[str, Any]) -> Vector | None:
    if (text := value.get("vector_base64")) is not None:
        return from_base64(text)
    numbers = value.get("vector")
    return None if numbers is None else np.asarray(numbers, dtype=np.float32)


# -- records, hits and the rest of `types`


def metadata_to_wire(metadata: Mapping[str, Any]) -> orjson.Fragment:
    """As `metadata.encode` writes it, put into the answer as it is."""
    return orjson.Fragment(encode(metadata))


def json_text(text: str) -> orjson.Fragment:
    """What is JSON already, put in as it is."""
    return orjson.Fragment(text)


def record_to_wire(record: Record, *, compact: bool = False) -> Wire:
    """compact: the vector as base64."""
    return {
        "id": record.id,
        "text": record.text,
        "metadata": metadata_to_wire(record.metadata),
        **_vector_field(record.vector, compact),
        "parent": record.parent,
        "seq": record.seq,
        "created": record.created,
        "updated": record.updated,
        "expires": record.expires,
    }


def record_from_wire(value: Wire) -> Record:
    return Record(
        id=value["id"],
        text=value["text"],
        metadata=normalised(value["metadata"]),
        vector=_vector_of(value),
        parent=value["parent"],
        seq=value["seq"],
        created=value["created"],
        updated=value["updated"],
        expires=value["expires"],
    )


def page_to_wire(page: Page, *, compact: bool = False) -> Wire:
    return {"records": [record_to_wire(record, compact=compact) for record in page.records], "cursor": page.cursor}


def page_from_wire(value: Wire) -> Page:
    return Page(tuple(record_from_wire(record) for record in value["records"]), value["cursor"])


def hits_to_wire(hits: Hits, *, compact: bool = False) -> Wire:
    return {
        "hits": [_hit_to_wire(hit, compact) for hit in hits.hits],
        "cursor": hits.cursor,
        "estimated_recall": hits.estimated_recall,
        "no_answer": hits.no_answer,
        "trace": [
            {"stage": step.stage, "candidates": step.candidates, "ms": step.ms, "detail": dict(step.detail)}
            for step in hits.trace
        ],
    }


def hits_from_wire(value: Wire) -> Hits:
    return Hits(
        hits=tuple(_hit_from_wire(hit) for hit in value["hits"]),
        cursor=value["cursor"],
        estimated_recall=value["estimated_recall"],
        no_answer=value["no_answer"],
        trace=tuple(StageReport(**step) for step in value["trace"]),
    )


def group_hits_to_wire(found: GroupHits) -> Wire:
    """A group's value that is a date travels as it does in metadata."""
    hits = [asdict(hit) | {"group": orjson.Fragment(_bare(hit.group))} for hit in found.hits]
    return {"hits": hits, "trace": dict(found.trace)}


def group_hits_from_wire(value: Wire) -> GroupHits:
    hits = tuple(
        GroupHit(
            normalised({"value": hit["group"]})["value"],
            hit["rank"],
            hit["score"],
            tuple(GroupMatch(**match) for match in hit["matches"]),
        )
        for hit in value["hits"]
    )
    return GroupHits(hits, value["trace"])


def _hit_to_wire(hit: Hit, compact: bool) -> Wire:
    return {
        "id": hit.id,
        "rank": hit.rank,
        "score": hit.score,
        "text": hit.text,
        "metadata": metadata_to_wire(hit.metadata),
        "parent": hit.parent,
        "seq": hit.seq,
        **_vector_field(hit.vector, compact),
        "trace": [_step_to_wire(step) for step in hit.trace],
        **({} if hit.snippet is None else {"snippet": hit.snippet}),
    }


def _step_to_wire(step: TraceStep) -> Wire:
    told = {"stage": step.stage, "rank": step.rank, "score": step.score, "weight": step.weight, "added": step.added}
    return told if not step.detail else {**told, "detail": dict(step.detail)}


def _hit_from_wire(value: Wire) -> Hit:
    return Hit(
        id=value["id"],
        rank=value["rank"],
        score=value["score"],
        text=value["text"],
        metadata=normalised(value["metadata"]),
        parent=value["parent"],
        seq=value["seq"],
        vector=_vector_of(value),
        trace=tuple(TraceStep(**step) for step in value["trace"]),
        snippet=value.get("snippet"),
    )


def link_to_wire(link: Link) -> Wire:
    return asdict(link)


def link_from_wire(value: Wire) -> Link:
    return Link(**value)


def write_result_to_wire(result: WriteResult) -> Wire:
    written = {"ids": result.ids, "added": result.added, "updated": result.updated, "unchanged": result.unchanged}
    # Only where there are some: most writes do not ask.
    return written | ({"duplicates": [asdict(one) for one in result.duplicates]} if result.duplicates else {})


def write_result_from_wire(value: Wire) -> WriteResult:
    duplicates = tuple(Duplicate(**one) for one in value.get("duplicates", ()))
    return WriteResult(tuple(value["ids"]), value["added"], value["updated"], value["unchanged"], duplicates)


def deduped_to_wire(found: Deduped) -> Wire:
    return asdict(found)


def deduped_from_wire(value: Wire) -> Deduped:
    from vecdb.duplicates import Deduped

    return Deduped(**{**value, "duplicates": tuple(Duplicate(**one) for one in value["duplicates"])})


def similarity_to_wire(learned: LearnedSimilarity) -> Wire:
    return asdict(learned)


def similarity_from_wire(value: Wire) -> LearnedSimilarity:
    from vecdb.similarity import LearnedSimilarity

    return LearnedSimilarity(**value)


def why_not_to_wire(why: WhyNot) -> Wire:
    return {name: getattr(why, name) for name in WhyNot.__dataclass_fields__} | {"change": _change_to_wire(why.change)}


def why_not_from_wire(value: Wire) -> WhyNot:
    change = value["change"] and {
        name: _OBJECTS[name][1](item) if isinstance(item, dict) and name in _OBJECTS else item
        for name, item in value["change"].items()
    }
    return WhyNot(**{**value, "change": change})


def _change_to_wire(change: Mapping[str, Any] | None) -> Wire | None:
    if change is None:
        return None
    return {name: _OBJECTS[name][0](item) if name in _OBJECTS else item for name, item in change.items()}


def plan_to_wire(plan: Plan) -> Wire:
    return asdict(plan)


def plan_from_wire(value: Wire) -> Plan:
    return Plan(_stages_from_wire(value["stages"]))


def _stages_from_wire(stages: Iterable[Wire]) -> tuple[PlannedStage, ...]:
    return tuple(PlannedStage(**{**stage, "stages": _stages_from_wire(stage["stages"])}) for stage in stages)


def context_to_wire(context: Context, *, compact: bool = False) -> Wire:
    return {
        "question": context.question,
        "text": context.text,
        "passages": [_passage_to_wire(passage) for passage in context.passages],
        "tokens": context.tokens,
        "found": context.found,
        "hits": hits_to_wire(context.hits, compact=compact),
    }


def context_from_wire(value: Wire) -> Context:
    return Context(
        question=value["question"],
        text=value["text"],
        passages=tuple(Passage(**{**p, "metadata": normalised(p["metadata"])}) for p in value["passages"]),
        tokens=value["tokens"],
        found=value["found"],
        hits=hits_from_wire(value["hits"]),
    )


def _passage_to_wire(passage: Passage) -> Wire:
    return {
        "number": passage.number,
        "id": passage.id,
        "text": passage.text,
        "source": passage.source,
        "score": passage.score,
        "tokens": passage.tokens,
        "metadata": metadata_to_wire(passage.metadata),
    }


def stats_to_wire(stats: CollectionStats) -> Wire:
    return {name: getattr(stats, name) for name in CollectionStats.__dataclass_fields__}


def stats_from_wire(value: Wire) -> CollectionStats:
    return CollectionStats(**value)


def recall_report_to_wire(report: RecallReport) -> Wire:
    return asdict(report)


def recall_report_from_wire(value: Wire) -> RecallReport:
    from vecdb.recall import RecallReport, RecallRow

    return RecallReport(value["k"], value["sample"], tuple(RecallRow(**row) for row in value["rows"]))


def tuning_to_wire(tuning: CollectionTuning) -> Wire:
    return {**asdict(tuning), "is_stale": tuning.is_stale}


def tuning_from_wire(value: Wire) -> CollectionTuning:
    from vecdb.tuning import tuning_from_json

    return tuning_from_json({name: item for name, item in value.items() if name != "is_stale"})


def adaptation_to_wire(adaptation: Adaptation) -> Wire:
    return {**asdict(adaptation), "is_control_refused": adaptation.is_control_refused}


def adaptation_from_wire(value: Wire) -> Adaptation:
    from vecdb.adaptation.adapting import adaptation_from_json

    return adaptation_from_json(value)


def storage_to_wire(state: StorageState) -> Wire:
    return asdict(state)


def storage_from_wire(value: Wire) -> StorageState:
    from vecdb.stored_vectors import StorageState

    return StorageState(**value)


def storage_plan_to_wire(plan: StoragePlan) -> Wire:
    return asdict(plan)


def storage_plan_from_wire(value: Wire) -> StoragePlan:
    from vecdb.storage_plan import StorageChoice, StoragePlan

    best = value["recommended"]
    return StoragePlan(
        **{
            **value,
            "choices": tuple(StorageChoice(**choice) for choice in value["choices"]),
            "recommended": None if best is None else StorageChoice(**best),
        }
    )


def facets_to_wire(facets: Iterable[tuple[Any, int]]) -> Wire:
    """A value that is a date travels as it does in metadata."""
    return {"facets": [{"value": orjson.Fragment(_bare(value)), "count": count} for value, count in facets]}


def facets_from_wire(value: Wire) -> list[tuple[Any, int]]:
    return [(normalised({"value": facet["value"]})["value"], facet["count"]) for facet in value["facets"]]


def _bare(value: Any) -> str:
    """The JSON text of one metadata value: that of an object with one short key, without the object around it."""
    return encode({"v": value})[len('{"v":') : -1]


# -- filters and options


def filter_to_wire(where: Filter | None) -> orjson.Fragment | None:
    """A filter as it is written, dates as {"$date": …}. Raises InvalidFilter: JSON would change some wrong ones."""
    if where is None:
        return None
    parse(where)
    return orjson.Fragment(orjson.dumps(where, default=_filter_value, option=orjson.OPT_PASSTHROUGH_DATETIME))


def _filter_value(value: Any) -> Any:
    """What orjson calls for values that JSON lacks; `parse` has let only these through."""
    if isinstance(value, set | frozenset):
        return list(value)
    if isinstance(value, Mapping):
        return dict(value)
    known = plain(value)
    return {DATE_KEY: iso_text(known)} if isinstance(known, date) else known


# Plans, which are kept as JSON, have them in the same form.
fusion_to_wire, fusion_from_wire = fusion_to_json, fusion_from_json
selection_to_wire, selection_from_wire = selection_to_json, selection_from_json

# Options of a search that may be objects: how they are sent, and how an object is read back.
_OBJECTS: dict[str, tuple[Callable[[Any], Any], Callable[[Any], Any]]] = {
    "fusion": (fusion_to_wire, fusion_from_wire),
    "select": (selection_to_wire, selection_from_wire),
}


def rerank_to_wire(rerank: RerankSpec | None) -> Any:
    """Names and options as they are. Raises InvalidQuery for an object, which is code of the caller's."""
    if rerank is None or isinstance(rerank, str):
        return rerank
    if isinstance(rerank, list | tuple):
        return [rerank_to_wire(stage) for stage in rerank]
    if isinstance(rerank, Mapping):
        try:
            orjson.dumps(rerank)
        except TypeError as error:
            raise InvalidQuery(f"rerank is {rerank!r}; only options that JSON has can be sent to a service") from error
        return dict(rerank)
    raise InvalidQuery(
        f"rerank is {rerank!r}, an object of this process, and cannot be sent; name a kind, or rerank the hits here"
    )


def graph_to_wire(graph: GraphOptions | Mapping[str, Any] | None) -> Wire | None:
    """Raises InvalidQuery."""
    options = graph_of(graph)
    return None if options is None else asdict(options)


def adaptive_from_wire(value: Wire) -> Adaptive:
    return cast(Adaptive, fusion_from_wire(value))


# -- errors

ERRORS: dict[str, type[VecdbError]] = {
    name: value for name, value in vars(errors).items() if isinstance(value, type) and issubclass(value, VecdbError)
}


def problem(error: VecdbError, status: int) -> Wire:
    """The problem document of an error."""
    name = type(error).__name__ if type(error).__name__ in ERRORS else "VecdbError"
    position, path = getattr(error, "position", None), getattr(error, "path", None)
    return {
        "type": f"urn:vecdb:error:{name}",
        "title": re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).capitalize(),
        "status": status,
        "detail": str(error),
        "error": name,
        **({} if position is None else {"position": position}),
        **({} if path is None else {"path": path}),
    }


def error_from_wire(status: int, body: bytes, *, first: int = 0) -> VecdbError:
    """The error of an answer whose status is not 2xx: of the class that the library itself would have raised.

    first is added to its position: the place of the sent records in a longer input.
    """
    try:
        told = orjson.loads(body)
    except orjson.JSONDecodeError:
        told = None
    if not isinstance(told, dict) or not isinstance(told.get("detail"), str):
        shown = body[:200].decode("utf-8", "replace").strip()
        foreign = RequestTimeout if status in (408, 504) else ServiceError
        return foreign(f"the service answered {status}{': ' + shown if shown else ''}; is a vecdb service at this URL?")
    kind = ERRORS.get(str(told.get("error")), ServiceError)
    position, path = told.get("position"), told.get("path")
    if not issubclass(kind, InvalidInput):
        return kind(told["detail"])
    if not isinstance(position, int):
        return kind(told["detail"], path=path)
    where = f"of the records from {first} on, " if first else ""
    return kind(where + told["detail"], position=first + position, path=path)
