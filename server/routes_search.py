"""Asking: search, why a record was not found, context for a language model, and how the collection is doing."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Response

from vecdb import wire
from vecdb.server.access import JsonBody, Reading, Target, Writing
from vecdb.server.documents import gives, takes
from vecdb.server.routes_database import json_answer
from vecdb.server.schemas import (
    AdaptBody,
    BatchBody,
    ContextBody,
    DeleteQueryBody,
    ExplainBody,
    FitFusionBody,
    GroupsBody,
    RecallBody,
    SaveQueryBody,
    SearchBody,
    SearchOptions,
    StorageBody,
    StoragePlanBody,
    TuneBody,
    WhyNotBody,
    check_plan,
    parsed,
)

router = APIRouter(prefix="/v1/collections/{name}", tags=["search"])

_HITS = {
    "hits": [
        {
            "id": "p1",
            "rank": 1,
            "score": 0.0328,
            "text": "Vaccines in children",
            "metadata": {"year": 2024},
            "parent": None,
            "seq": None,
            "trace": [{"stage": "dense", "rank": 1, "score": 0.81, "weight": 1.0}],
        }
    ],
    "cursor": None,
    "estimated_recall": None,
    "no_answer": 0.04,
    "trace": [{"stage": "dense", "candidates": 5, "ms": 0.2, "detail": {}}],
}
_GROUPS = {
    "hits": [
        {
            "group": "report.pdf",
            "rank": 1,
            "score": 0.41,
            "matches": [{"query": 0, "id": "report.pdf#3", "score": 0.83, "credit": 0.52}],
        }
    ],
    "trace": {"method": "exact", "reach": 1.21, "shape": 0.4592, "vectors": 1204, "groups": 96, "distances": 2408},
}
_WHY_NOT = {
    "id": "p7",
    "stage": "filter",
    "reason": "the filter excludes it",
    "remedy": "search without where",
    "rank": None,
}
_PLAN = {
    "stages": [
        {
            "stage": "text",
            "way": "memory",
            "why": "the word index is in memory",
            "cost": 240,
            "detail": {"candidates": 6, "terms": {"vaccin": 180, "children": 60}},
        }
    ]
}
_CONTEXT = {
    "question": "What is known of vaccines?",
    "text": "[1] Vaccines in children",
    "passages": [
        {
            "number": 1,
            "id": "p1",
            "text": "Vaccines in children",
            "source": "p1",
            "score": 0.03,
            "tokens": 4,
            "metadata": {},
        }
    ],
    "tokens": 7,
    "found": True,
    "hits": _HITS,
}
_RECALL = {
    "k": 10,
    "sample": 100,
    "rows": [{"where": "", "matching": 1204, "recall": 0.998, "p5": 0.9, "self_recall": 1.0, "exact": False}],
}
_FUSION = {"kind": "adaptive", "usual": [0.43, 0.61, 0.58], "lean": None}
_GAIN = {"difference": 0.0118, "low": 0.007, "high": 0.017, "p_value": 0.0001}
_ADAPTATION = {
    "is_accepted": True,
    "is_applied": True,
    "reason": "held-out documents are found better, beyond chance",
    "before": 0.531,
    "after": 0.5428,
    "gain": _GAIN,
    "control": {"difference": -0.0178, "low": -0.0323, "high": -0.0035, "p_value": 0.02},
    "is_control_refused": True,
    "triples": 6808,
    "learning_documents": 851,
    "gate_documents": 547,
    "gate_queries": 1093,
    "shared_documents": 0,
    "shared_queries": 0,
    "rank": 64,
    "seconds": 19.9,
    "model": "all-MiniLM-L6-v2-int8",
    "version": "db6f712d",
}
_TUNING = {
    "config": {"M": 16, "ef_construction": 200, "ef": 24, "seed": 0, "order": "random", "lid_k": 100},
    "target_recall": 0.95,
    "k": 10,
    "seed": 0,
    "recall": 0.951,
    "is_reached": True,
    "is_complete": True,
    "sample": 19000,
    "queries": 1000,
    "budget_s": 45.0,
    "own_recall": 0.987,
    "trials": [
        {
            "M": 16,
            "ef_construction": 200,
            "ef": 24,
            "recall": 0.951,
            "recall_p5": 0.8,
            "work": 640.0,
            "microseconds": 59.0,
            "build_s": 4.2,
            "bytes_per_vector": 2191.0,
        }
    ],
    "vectors": None,
    "with_queries": False,
    "rechecks": [],
    "records": 88000,
    "last_row": 88000,
    "is_applied": True,
    "changed": 0,
    "is_stale": False,
}
_STORAGE = {"wanted": "float8", "stored": "float32", "share": 0.4, "bytes_per_vector": 385, "overhead": 0}
_STORAGE_PLAN = {
    "choices": [
        {
            "codec": "float8",
            "bytes_per_vector": 385,
            "total_bytes": 33880000,
            "recall": 0.985,
            "ndcg": None,
            "loss": 0.015,
            "queries_per_second": 390.0,
            "is_pareto": True,
        }
    ],
    "recommended": None,
    "stored": "float32",
    "vectors": 49800,
    "of_vectors": 88000,
    "queries": 200,
    "budget_bytes": None,
    "max_loss": 0.01,
}
_STATS = {
    "name": "papers",
    "records": 1204,
    "dimension": 3,
    "metric": "cosine",
    "model": None,
    "indexed": 1000,
    "tail": 204,
    "text_bytes": 81204,
    "vector_bytes": 14448,
    "segment_bytes": 91000,
    "storage": "float32",
    "index": "hnsw M=16",
}


def _options(target: Target, body: SearchOptions) -> dict[str, Any]:
    """Keyword arguments of Collection.search; a plan, which may be a saved one, must keep to the service's limits, too."""
    options = body.options(target.settings)
    if body.plan is not None:
        check_plan(target.open().bound_plan(body.plan, body.params), target.settings)
    return options


@router.post("/search", operation_id="search", openapi_extra=takes(SearchBody), responses=gives(_HITS))
def search(target: Reading, raw: JsonBody) -> Response:
    """The best records for one query."""
    body = parsed(SearchBody, raw)
    options = _options(target, body)
    hits = target.open().search(body.query, vector=body.query_vector(), **options)
    return json_answer(wire.hits_to_wire(hits, compact=body.is_compact))


@router.post(
    "/search/batch", operation_id="searchBatch", openapi_extra=takes(BatchBody), responses=gives({"results": [_HITS]})
)
def search_batch(target: Reading, raw: JsonBody) -> Response:
    """The best records for each of several queries; faster than asking one by one."""
    body = parsed(BatchBody, raw)
    body.check_size(target.settings)
    options = _options(target, body)
    results = target.open().search(body.queries, vector=body.vectors_of_queries(), **options)
    return json_answer({"results": [wire.hits_to_wire(hits, compact=body.is_compact) for hits in results]})


@router.post("/search/groups", operation_id="searchGroups", openapi_extra=takes(GroupsBody), responses=gives(_GROUPS))
def search_groups(target: Reading, raw: JsonBody) -> Response:
    """The groups of records (of one parent, or of one metadata value) that are near all of a set of query vectors."""
    body = parsed(GroupsBody, raw)
    asked = body.asked(target.settings)
    found = target.open().search_groups(asked, **body.given("queries", "query_vectors", "query_vectors_base64"))
    return json_answer(wire.group_hits_to_wire(found))


@router.post("/why-not", operation_id="whyNot", openapi_extra=takes(WhyNotBody), responses=gives(_WHY_NOT))
def why_not(target: Reading, raw: JsonBody) -> Response:
    """Which stage of a query dropped a record, and what would bring it back."""
    body = parsed(WhyNotBody, raw)
    options = _options(target, body)
    why = target.open().why_not(body.id, body.query, vector=body.query_vector(), **options)
    return json_answer(wire.why_not_to_wire(why))


@router.post("/explain", operation_id="explain", openapi_extra=takes(ExplainBody), responses=gives(_PLAN))
def explain(target: Reading, raw: JsonBody) -> Response:
    """How a query would be answered: its stages, by which way and why, and what they are likely to cost."""
    body = parsed(ExplainBody, raw)
    plan = target.open().explain(body.query, vector=body.query_vector(), **_options(target, body))
    return json_answer(wire.plan_to_wire(plan))


@router.get("/queries", operation_id="queries", responses=gives({"queries": {"fresh": SaveQueryBody.example["plan"]}}))
def queries(target: Reading) -> Response:
    """The saved queries by name; run one by giving its name as `plan` to search."""
    return json_answer({"queries": target.open().queries()})


@router.put("/queries", operation_id="saveQuery", openapi_extra=takes(SaveQueryBody), status_code=204)
def save_query(target: Writing, raw: JsonBody) -> Response:
    """Keep a plan with the collection under a name, in place of what was kept there."""
    body = parsed(SaveQueryBody, raw)
    target.open().save_query(body.name, body.plan)
    return Response(status_code=204)


@router.post(
    "/queries/delete",
    operation_id="deleteQuery",
    openapi_extra=takes(DeleteQueryBody),
    responses=gives({"deleted": True}),
)
def delete_query(target: Writing, raw: JsonBody) -> Response:
    """Forget a saved query; tells whether there was one."""
    return json_answer({"deleted": target.open().delete_query(parsed(DeleteQueryBody, raw).name)})


@router.post("/context", operation_id="context", openapi_extra=takes(ContextBody), responses=gives(_CONTEXT))
def context(target: Reading, raw: JsonBody) -> Response:
    """Passages packed for a language model, numbered for citing."""
    body = parsed(ContextBody, raw)
    found = target.open().context(body.question, **body.options(target.settings))
    return json_answer(wire.context_to_wire(found, compact=body.vector_format == "base64"))


@router.post("/recall-report", operation_id="recallReport", openapi_extra=takes(RecallBody), responses=gives(_RECALL))
def recall_report(target: Reading, raw: JsonBody) -> Response:
    """How often the index finds what exact search finds, on a sample of the stored vectors."""
    body = parsed(RecallBody, raw)
    body.check_size(target.settings)
    return json_answer(wire.recall_report_to_wire(target.open().recall_report(**body.given())))


@router.post("/fit-fusion", operation_id="fitFusion", openapi_extra=takes(FitFusionBody), responses=gives(_FUSION))
def fit_fusion(target: Writing, raw: JsonBody) -> Response:
    """The adaptive fusion fitted to the collection by queries, with or without judgements. Unless keep is false,
    fusion="adaptive" means it from now on.
    """
    body = parsed(FitFusionBody, raw)
    vectors = body.vectors(target.settings)
    fitted = target.open().fit_fusion(body.queries, vectors=vectors, qrels=body.qrels, keep=body.keep)
    return json_answer(wire.fusion_to_wire(fitted))


@router.get("/fusion", operation_id="fusion", responses=gives({"fusion": _FUSION}))
def fusion(target: Reading) -> Response:
    """What was last fitted and kept, which fusion="adaptive" stands for; null if nothing was."""
    kept = target.open().fusion
    return json_answer({"fusion": None if kept is None else wire.fusion_to_wire(kept)})


@router.delete("/fusion", operation_id="forgetFusion", responses=gives({"forgotten": True}))
def forget_fusion(target: Writing) -> Response:
    """Forget what was fitted. Whether there was something to forget."""
    return json_answer({"forgotten": target.open().forget_fusion()})


@router.post("/tune", operation_id="tune", openapi_extra=takes(TuneBody), responses=gives(_TUNING))
def tune(target: Writing, raw: JsonBody) -> Response:
    """How the index should be built and searched to reach a recall with the least work, measured on a sample.

    budget_s is cut to three quarters of what a request may take here; a tuning that takes longer is still kept.
    """
    body = parsed(TuneBody, raw)
    body.check_size(target.settings)
    return json_answer(wire.tuning_to_wire(target.open().tune(**body.options(target.settings))))


@router.post("/adapt", operation_id="adapt", openapi_extra=takes(AdaptBody), responses=gives(_ADAPTATION))
def adapt(target: Writing, raw: JsonBody) -> Response:
    """Learn a map of query vectors from the collection's own documents; searches use it if held-out ones are found better by it.

    budget_s is cut to three quarters of what a request may take here.
    """
    body = parsed(AdaptBody, raw)
    return json_answer(wire.adaptation_to_wire(target.open().adapt(**body.options(target.settings))))


@router.get("/adapter", operation_id="adapter", responses=gives({"adapter": _ADAPTATION}))
def adapter(target: Reading) -> Response:
    """What is known of the map that searches use; null if there is none."""
    kept = target.open().adapter
    return json_answer({"adapter": None if kept is None else wire.adaptation_to_wire(kept)})


@router.delete("/adapter", operation_id="resetAdapter", responses=gives({"reset": True}))
def reset_adapter(target: Writing) -> Response:
    """Search by query vectors as the model makes them again."""
    return json_answer({"reset": target.open().reset_adapter()})


@router.get("/tuning", operation_id="tuning", responses=gives({"tuning": _TUNING}))
def tuning(target: Reading) -> Response:
    """What the last tuning measured, and how much has changed since; null if there was none."""
    kept = target.open().tuning
    return json_answer({"tuning": None if kept is None else wire.tuning_to_wire(kept)})


@router.get("/storage", operation_id="storage", responses=gives(_STORAGE))
def storage(target: Reading) -> Response:
    """Which codec vectors are kept with, and how far a change of it has come."""
    return json_answer(wire.storage_to_wire(target.open().storage))


@router.post("/storage", operation_id="setStorage", openapi_extra=takes(StorageBody), responses=gives(_STORAGE))
def set_storage(target: Writing, raw: JsonBody) -> Response:
    """Keep vectors with another codec from now on. What a request's time does not suffice for goes on in the background."""
    body = parsed(StorageBody, raw)
    return json_answer(wire.storage_to_wire(target.open().set_storage(body.codec, wait=body.wait)))


@router.post(
    "/plan-storage", operation_id="planStorage", openapi_extra=takes(StoragePlanBody), responses=gives(_STORAGE_PLAN)
)
def plan_storage(target: Reading, raw: JsonBody) -> Response:
    """Which codec to keep vectors with, measured on the collection's own; nothing is changed."""
    body = parsed(StoragePlanBody, raw)
    plan = target.open().plan_storage(**body.options(target.settings))
    return json_answer(wire.storage_plan_to_wire(plan))


@router.post("/compact", operation_id="compact", status_code=204)
def compact(target: Writing) -> Response:
    """Give the file's unused pages back to the file system."""
    target.open().compact()
    return Response(status_code=204)


@router.get("/stats", operation_id="stats", responses=gives(_STATS))
def stats(target: Reading) -> Response:
    """Sizes, and how much of the collection is indexed."""
    return json_answer(wire.stats_to_wire(target.open().stats()))


@router.get("/check", operation_id="checkCollection", responses=gives({"problems": []}))
def check(target: Reading) -> Response:
    """Every broken invariant of the collection, in words; none if it is sound."""
    return json_answer({"problems": target.open().check()})


@router.post("/optimize", operation_id="optimize", status_code=204)
def optimize(target: Writing) -> Response:
    """Merge what is not indexed yet into the index, and wait for it."""
    target.open().optimize()
    return Response(status_code=204)


@router.post("/warm", operation_id="warm", status_code=204)
def warm(target: Reading) -> Response:
    """Load what searching needs, and wait for it."""
    target.open().warm()
    return Response(status_code=204)
