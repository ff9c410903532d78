"""The OpenAPI description: bodies with their examples, answers with theirs, and how a key is sent.

Handlers take the body as bytes and parse it in their thread, so FastAPI cannot see its class; `takes` and `gives` say
it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic.json_schema import models_json_schema

from vecdb import wire
from vecdb.server import schemas

_REFERENCE = "#/components/schemas/{model}"
_PROBLEM_EXAMPLE = {
    "type": "urn:vecdb:error:DimensionMismatch",
    "title": "Dimension mismatch",
    "status": 422,
    "detail": "record 3 (id 'p4') has 5 numbers, collection 'papers' holds 3; was it embedded with another model?",
    "error": "DimensionMismatch",
    "position": 3,
}


def takes(kind: type[schemas.Body]) -> dict[str, Any]:
    """openapi_extra of a route whose body is this class in JSON."""
    schema = {"$ref": _REFERENCE.format(model=kind.__name__)}
    return {"requestBody": {"required": True, "content": {wire.JSON_TYPE: {"schema": schema, "example": kind.example}}}}


def takes_lines() -> dict[str, Any]:
    """openapi_extra of a route whose body is one record a line."""
    example = '{"id": "p1", "text": "Vaccines in children"}\n{"id": "p2", "text": "Measles"}\n'
    schema = {"type": "string", "description": "one RecordBody as JSON on each line"}
    return {"requestBody": {"required": True, "content": {wire.NDJSON_TYPE: {"schema": schema, "example": example}}}}


def gives(example: Any, *, status: int = 200, description: str = "Done") -> dict[int | str, dict[str, Any]]:
    """responses of a route: what it answers, and that errors are problem documents."""
    problem = {
        "description": "A problem document (RFC 9457)",
        "content": {wire.PROBLEM_TYPE: {"example": _PROBLEM_EXAMPLE}},
    }
    return {status: {"description": description, "content": {wire.JSON_TYPE: {"example": example}}}, "4XX": problem}


def install(app: FastAPI) -> None:
    """Make app.openapi() whole: the classes of the bodies are added to what FastAPI finds by itself."""

    def describe() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
            components = document.setdefault("components", {})
            components.setdefault("schemas", {}).update(_body_schemas())
            components["securitySchemes"] = {
                "bearer": {"type": "http", "scheme": "bearer"},
                "header": {"type": "apiKey", "in": "header", "name": "X-Api-Key"},
            }
            document["security"] = [{"bearer": []}, {"header": []}, {}]
            app.openapi_schema = document
        return app.openapi_schema

    app.openapi = describe  # type: ignore[method-assign]


def _body_schemas() -> dict[str, Any]:
    classes = [(kind, "validation") for kind in _leaves(schemas.Body) if kind.__name__ != "SearchOptions"]
    _, definitions = models_json_schema(classes, ref_template=_REFERENCE)  # type: ignore[arg-type]
    return dict(definitions["$defs"])


def _leaves(kind: type[schemas.Body]) -> Iterable[type[schemas.Body]]:
    for child in kind.__subclasses__():
        yield child
        yield from _leaves(child)
