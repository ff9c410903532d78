"""The records of a collection: writing, reading, counting, and uploads of one record a line."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Response
from starlette.concurrency import run_in_threadpool

from vecdb import wire
from vecdb.errors import RecordNotFound, VecdbError
from vecdb.server.access import JsonBody, NdjsonRequest, Reading, Target, Writing
from vecdb.server.bulk import Aborted, BulkLoad, Lines, OnError, Operation
from vecdb.server.documents import gives, takes, takes_lines
from vecdb.server.limits import original
from vecdb.server.problems import Refused, report
from vecdb.server.routes_database import json_answer
from vecdb.server.schemas import (
    AddBody,
    CountBody,
    DedupeBody,
    DeleteBody,
    DeriveBody,
    EntitiesBody,
    FacetsBody,
    GetBody,
    LearnSimilarityBody,
    LinkBody,
    LinksBody,
    LinksOfBody,
    NeighboursBody,
    ReplaceBody,
    ScanBody,
    UnlinkBody,
    UpdateBody,
    VectorBody,
    VectorFormat,
    WriteBody,
    parsed,
)
from vecdb.types import WriteResult

router = APIRouter(prefix="/v1/collections/{name}", tags=["records"])

_WRITTEN = {"ids": ["p1"], "added": 1, "updated": 0, "unchanged": 0}
_RECORD = {
    "id": "p1",
    "text": "Vaccines in children",
    "metadata": {"year": 2024},
    "parent": None,
    "seq": None,
    "created": 1714557600.0,
    "updated": 1714557600.0,
    "expires": None,
}
_ACCOUNT = {
    "added": 2,
    "updated": 0,
    "unchanged": 0,
    "failed": 1,
    "errors": [{"line": 3, "error": "InvalidRecord", "detail": "vector[0]: input should be a valid number; got 'x'"}],
    "errors_omitted": 0,
}


@router.post(
    "/records",
    operation_id="addRecords",
    status_code=201,
    openapi_extra=takes(AddBody),
    responses=gives(_WRITTEN, status=201),
)
def add(target: Writing, raw: JsonBody) -> Response:
    """Add records, all or none; an id that exists is refused (409)."""
    body = parsed(AddBody, raw)
    return _written(target.open().add(body.as_records(target.settings), **body.given("records")), 201)


@router.put("/records", operation_id="upsertRecords", openapi_extra=takes(WriteBody), responses=gives(_WRITTEN))
def upsert(target: Writing, raw: JsonBody) -> Response:
    """Add records, or replace those whose ids exist; all or none."""
    body = parsed(WriteBody, raw)
    return _written(target.open().upsert(body.as_records(target.settings), **body.given("records")))


@router.patch("/records", operation_id="updateRecords", openapi_extra=takes(UpdateBody), responses=gives(_WRITTEN))
def update(target: Writing, raw: JsonBody) -> Response:
    """Change what is given of records that exist; all or none."""
    body = parsed(UpdateBody, raw)
    return _written(target.open().update(body.as_records(target.settings), **body.given("records")))


@router.put("/parents", operation_id="replaceParent", openapi_extra=takes(ReplaceBody), responses=gives(_WRITTEN))
def replace(target: Writing, raw: JsonBody) -> Response:
    """Make these records all there is of one parent (a document, say), in one transaction."""
    body = parsed(ReplaceBody, raw)
    records = body.as_records(target.settings)
    return _written(target.open().replace(body.parent, records, fingerprint=body.fingerprint))


@router.get("/sources", operation_id="sources", responses=gives({"sources": {"notes/a.md": "9f2c"}}))
def sources(target: Reading) -> Response:
    """The fingerprint of each parent that was given one."""
    return json_answer({"sources": target.open().sources()})


@router.post(
    "/records/neighbours",
    operation_id="neighbours",
    openapi_extra=takes(NeighboursBody),
    responses=gives({"records": [_RECORD]}),
)
def neighbours(target: Reading, raw: JsonBody) -> Response:
    """A chunk's surroundings: the records of its parent before and after it."""
    body = parsed(NeighboursBody, raw)
    found = target.open().neighbours(body.parent, body.first, body.last)
    return json_answer({"records": [wire.record_to_wire(record) for record in found]})


@router.post(
    "/records/get",
    operation_id="getRecords",
    openapi_extra=takes(GetBody),
    responses=gives({"records": [_RECORD, None]}),
)
def get(target: Reading, raw: JsonBody) -> Response:
    """Records by their ids, in that order; null where there is none."""
    body = parsed(GetBody, raw)
    found = target.open().get(body.ids, vectors=body.vectors)
    compact = body.vector_format == "base64"
    return json_answer({"records": [None if r is None else wire.record_to_wire(r, compact=compact) for r in found]})


@router.get("/records/{id}", operation_id="getRecord", responses=gives(_RECORD))
def get_one(target: Reading, id: str, vectors: bool = False, vector_format: VectorFormat = "list") -> Response:
    """One record; 404 if there is none."""
    record = target.open().get(original(id), vectors=vectors)
    if record is None:
        raise RecordNotFound(f"collection {target.name!r} holds no record with id {original(id)!r}")
    return json_answer(wire.record_to_wire(record, compact=vector_format == "base64"))


@router.post(
    "/records/delete", operation_id="deleteRecords", openapi_extra=takes(DeleteBody), responses=gives({"deleted": 3})
)
def delete(target: Writing, raw: JsonBody) -> Response:
    """Delete the records with these ids, or those that a filter matches."""
    body = parsed(DeleteBody, raw)
    return json_answer({"deleted": target.open().delete(body.ids, where=body.where)})


@router.delete("/records/{id}", operation_id="deleteRecord", responses=gives({"deleted": 1}))
def delete_one(target: Writing, id: str) -> Response:
    """Delete one record; deleting what is not there is no error."""
    return json_answer({"deleted": target.open().delete([original(id)])})


@router.post(
    "/dedupe",
    operation_id="dedupe",
    openapi_extra=takes(DedupeBody),
    responses=gives(
        {
            "policy": "skip",
            "threshold": 0.9,
            "records": 1204,
            "duplicates": [{"id": "p9", "of": "p1", "similarity": 0.97}],
            "deleted": 1,
            "linked": 0,
            "is_applied": False,
        }
    ),
)
def dedupe(target: Writing, raw: JsonBody) -> Response:
    """Near duplicates, and what a policy makes of them: skip, link or replace."""
    return json_answer(wire.deduped_to_wire(target.open().dedupe(**parsed(DedupeBody, raw).given())))


@router.post("/links", operation_id="link", openapi_extra=takes(LinksBody), responses=gives({"linked": 1}))
def link(target: Writing, raw: JsonBody) -> Response:
    """Link records that exist, all or none of the links; one replaces what it cannot stand beside."""
    return json_answer({"linked": target.open().link(**parsed(LinksBody, raw).columns(target.settings))})


@router.post("/links/delete", operation_id="unlink", openapi_extra=takes(UnlinkBody), responses=gives({"deleted": 1}))
def unlink(target: Writing, raw: JsonBody) -> Response:
    """Delete the links between pairs of records."""
    body = parsed(UnlinkBody, raw)
    sources, targets = [ends[0] for ends in body.ends], [ends[1] for ends in body.ends]
    return json_answer({"deleted": target.open().unlink(sources, targets, body.kind)})


@router.post(
    "/links/get",
    operation_id="getLinks",
    openapi_extra=takes(LinksOfBody),
    responses=gives({"links": [{**LinkBody.example, "directed": False}]}),
)
def links(target: Reading, raw: JsonBody) -> Response:
    """The links that were put at a record, or at all."""
    body = parsed(LinksOfBody, raw)
    return json_answer({"links": [wire.link_to_wire(one) for one in target.open().links(body.id, body.kind)]})


@router.post(
    "/links/entities", operation_id="linkEntities", openapi_extra=takes(EntitiesBody), responses=gives({"mentions": 9})
)
def link_entities(target: Writing, raw: JsonBody) -> Response:
    """Link records that name the same, by a metadata key or by what is given for each."""
    return json_answer({"mentions": target.open().link_entities(parsed(EntitiesBody, raw).extractor)})


@router.post("/derive", operation_id="derive", openapi_extra=takes(DeriveBody), responses=gives({"vectors": 1204}))
def derive(target: Writing, raw: JsonBody) -> Response:
    """Make a vector for each linked record, by what it is linked to; search them with field=fastrp."""
    return json_answer({"vectors": target.open().derive(**parsed(DeriveBody, raw).given())})


@router.post(
    "/learn-similarity",
    operation_id="learnSimilarity",
    openapi_extra=takes(LearnSimilarityBody),
    responses=gives({"triples": 800, "held_out": 200, "before": 0.71, "after": 0.86, "dimension": 64}),
)
def learn_similarity(target: Writing, raw: JsonBody) -> Response:
    """Learn what counts as alike from triples of ids; search by it with field=learned."""
    found = target.open().learn_similarity(**parsed(LearnSimilarityBody, raw).given())
    return json_answer(wire.similarity_to_wire(found))


@router.post(
    "/records/vector",
    operation_id="getVector",
    openapi_extra=takes(VectorBody),
    responses=gives({"vector_base64": None}),
)
def vector(target: Reading, raw: JsonBody) -> Response:
    """The vector of a record in a derived field; null if it has none."""
    body = parsed(VectorBody, raw)
    return json_answer(wire.vector_to_wire(target.open().vector(body.id, body.field)))


@router.post(
    "/records/count", operation_id="countRecords", openapi_extra=takes(CountBody), responses=gives({"count": 1204})
)
def count(target: Reading, raw: JsonBody) -> Response:
    """How many records there are, or how many a filter matches."""
    return json_answer({"count": target.open().count(parsed(CountBody, raw).where)})


@router.post(
    "/records/facets",
    operation_id="facets",
    openapi_extra=takes(FacetsBody),
    responses=gives({"facets": [{"value": 2024, "count": 310}]}),
)
def facets(target: Reading, raw: JsonBody) -> Response:
    """The most frequent values of a metadata key."""
    body = parsed(FacetsBody, raw)
    return json_answer(wire.facets_to_wire(target.open().facets(**body.given())))


@router.post(
    "/records/scan",
    operation_id="scanRecords",
    openapi_extra=takes(ScanBody),
    responses=gives({"records": [_RECORD], "cursor": None}),
)
def scan(target: Reading, raw: JsonBody) -> Response:
    """Page through the records, in order of insertion."""
    body = parsed(ScanBody, raw)
    body.check_limit(target.settings)
    page = target.open().scan(**body.given("vector_format"))
    return json_answer(wire.page_to_wire(page, compact=body.vector_format == "base64"))


@router.post("/records/bulk", operation_id="bulkLoad", openapi_extra=takes_lines(), responses=gives(_ACCOUNT))
async def bulk(
    target: Writing,
    request: NdjsonRequest,
    op: Annotated[Operation, Query(description="add refuses an id that exists, upsert replaces it")] = "add",
    on_error: Annotated[OnError, Query(description="skip bad lines, or stop at the first")] = "skip",
) -> Response:
    """Upload records, one as JSON on each line, any number of them.

    They are written batch by batch while they come, so this is not all-or-nothing. With on_error=skip the bad lines
    are listed in the answer; with on_error=abort every line before the first bad one is written, and a problem with
    its line number is answered.
    """
    load = await run_in_threadpool(_start, target, op, on_error)
    lines = Lines(target.settings.bulk_batch, target.settings.max_line_bytes)
    try:
        async for chunk in request.stream():
            for batch in lines.feed(chunk):
                await run_in_threadpool(load.write, batch)
        await run_in_threadpool(load.write, lines.finish())
    except Aborted as aborted:
        return report(aborted.error, **load.account(), line=aborted.line, position=aborted.line - 1)
    except Refused as refused:  # the body was too long or too slow
        refused.members.update(load.account())
        raise
    except VecdbError as error:
        return report(error, **load.account())
    return json_answer(load.account())


def _start(target: Target, op: Operation, on_error: OnError) -> BulkLoad:
    return BulkLoad(target.open(), op, on_error, target.settings)


def _written(result: WriteResult, status: int = 200) -> Response:
    return json_answer(wire.write_result_to_wire(result), status)
