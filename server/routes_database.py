"""The database as a whole, and its collections."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request, Response

from vecdb import wire
from vecdb.config import CollectionConfig, TextConfig
from vecdb.embedding.late import DEFAULT_ENCODER
from vecdb.errors import InvalidInput, VecdbError
from vecdb.index.base import IndexConfig, index_config
from vecdb.server.access import Asking, JsonBody, Reading, Writing, service_of
from vecdb.server.documents import gives, takes
from vecdb.server.problems import Refused
from vecdb.server.schemas import CollectionBody, IndexBody, TextBody, TokensBody, parsed

router = APIRouter(tags=["database"])
VERSION = "1"  # of this interface; it stands in every path

_COLLECTION = {
    "name": "papers",
    "records": 1204,
    "config": {
        "dimension": 3,
        "metric": "cosine",
        "model": None,
        "embed": None,
        "text": {
            "language": "english",
            "fold_accents": True,
            "cjk": False,
            "fields": {"text": 1.0},
            "k1": 1.2,
            "b": 0.75,
            "synonyms": {},
        },
        "index": {"M": 16, "ef_construction": 200, "ef": 64, "seed": 0, "order": "random", "lid_k": 100},
        "stemmer": None,
        "storage": "float32",
    },
}


def json_answer(value: Any, status: int = 200) -> Response:
    return Response(wire.dumps(value), status, media_type=wire.JSON_TYPE)


@router.get("/healthz", operation_id="health", responses=gives({"status": "alive"}))
async def health() -> Response:
    """Whether the process answers at all. Needs no key."""
    return json_answer({"status": "alive"})


@router.get("/readyz", operation_id="ready", responses=gives({"status": "ready"}))
def ready(request: Request) -> Response:
    """Whether the database answers; 503 if not. Needs no key."""
    try:
        service_of(request).db.collections()
    except VecdbError as error:
        raise Refused(
            503, f"the database does not answer: {type(error).__name__}", headers={"Retry-After": "1"}
        ) from error
    return json_answer({"status": "ready"})


@router.get("/v1", operation_id="about", responses=gives({"service": "vecdb", "interface": "1", "limits": {"k": 1000}}))
async def about(who: Asking) -> Response:
    """What this service is, and how much one request may ask for."""
    settings = who.service.settings
    limits = {
        "body_bytes": settings.max_body_bytes,
        "records": settings.max_records,
        "k": settings.max_k,
        "queries": settings.max_queries,
        "candidates": settings.max_candidates,
    }
    return json_answer({"service": "vecdb", "interface": VERSION, "limits": limits})


@router.get("/v1/check", operation_id="checkDatabase", responses=gives({"problems": []}))
def check_database(who: Asking) -> Response:
    """Every broken invariant of the file, in words; none if it is sound."""
    who.check_whole_database()
    return json_answer({"problems": who.service.db.check()})


@router.get("/v1/collections", operation_id="listCollections", responses=gives({"collections": ["papers"]}))
def list_collections(who: Asking) -> Response:
    """The names of the collections that this key may read."""
    return json_answer({"collections": [name for name in who.service.db.collections() if who.may_see(name)]})


@router.post(
    "/v1/collections", operation_id="openCollection", openapi_extra=takes(CollectionBody), responses=gives(_COLLECTION)
)
def open_collection(who: Asking, raw: JsonBody) -> Response:
    """Make a collection, or open one and check that it was made with the settings given (409 if not)."""
    body = parsed(CollectionBody, raw)
    exists = body.name in who.service.db.collections()
    target = who.reading(body.name) if exists or not body.create else who.writing(body.name)
    models = target.settings.models
    if body.embed is not None and not exists and body.embed not in models:
        raise InvalidInput(
            f"the service embeds with {', '.join(models) or 'no model'}, not with {body.embed!r}; "
            "give vectors, or name the model in VECDB_MODELS where the service starts"
        )
    tokens = body.tokens.given() if isinstance(body.tokens, TokensBody) else body.tokens
    encoder = tokens.get("encoder", "default") if isinstance(tokens, dict) else tokens
    if encoder is not None and encoder not in (*models, DEFAULT_ENCODER):
        raise InvalidInput(
            f"the service encodes tokens with {', '.join(models) or 'no model'}, not with {encoder!r}; name it in VECDB_MODELS "
            "where the service starts"
        )
    options = body.given("name", "text", "index", "tokens", "create")
    collection = target.service.db.collection(
        body.name,
        text=_text_config(body.text),
        index=_index_config(body.index),
        tokens=tokens,
        create=body.create,
        **options,
    )
    return json_answer(_described(collection.name, len(collection), collection.config), 200 if exists else 201)


@router.get("/v1/collections/{name}", operation_id="getCollection", responses=gives(_COLLECTION))
def get_collection(target: Reading) -> Response:
    """A collection's settings and size."""
    collection = target.open()
    return json_answer(_described(collection.name, len(collection), collection.config))


@router.delete("/v1/collections/{name}", operation_id="dropCollection", status_code=204)
def drop_collection(target: Writing) -> Response:
    """Delete a collection with all of its records."""
    target.service.db.drop(target.name)
    return Response(status_code=204)


def _described(name: str, records: int, config: CollectionConfig) -> dict[str, Any]:
    return {"name": name, "records": records, "config": config.as_json()}


def _text_config(given: TextBody | str | None) -> TextConfig | str | None:
    return TextConfig(**given.given()) if isinstance(given, TextBody) else given


def _index_config(given: IndexBody | None) -> IndexConfig | None:
    if given is None:
        return None
    try:
        return index_config({name: value for name, value in given.given().items() if value is not None})
    except ValueError as error:
        raise InvalidInput(f"index: {error}") from error
