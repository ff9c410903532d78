"""Errors as problem documents (RFC 9457): one place decides which status an error has."""

from __future__ import annotations

import logging
import reprlib
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from vecdb import errors, wire

_log = logging.getLogger("vecdb.server")

# An error takes the status of its nearest class here. Input that cannot be used is 422 throughout; 400 is left to
# requests that are broken as HTTP or as JSON.
STATUS: dict[type[errors.VecdbError], int] = {
    errors.VecdbError: 500,
    errors.InvalidInput: 422,
    errors.DuplicateId: 409,
    errors.ModelMismatch: 409,
    errors.NotFound: 404,
    errors.ConfigMismatch: 409,
    errors.ModelUnavailable: 503,
    errors.NoModel: 409,
    errors.MissingExtra: 501,
    errors.DatabaseBusy: 503,
    errors.DatabaseClosed: 503,
    errors.ReadOnly: 403,
    errors.DiskFull: 507,
    errors.RequestTimeout: 504,
    errors.ServiceError: 502,
}
_TRY_AGAIN = (errors.DatabaseBusy, errors.DatabaseClosed)
RETRY_AFTER_S = 1


class Refused(HTTPException):
    """A request turned away by the service itself, before or beside the library.

    error is the class that a client raises for it. It is an HTTPException so that FastAPI lets it through from inside
    `receive`.
    """

    def __init__(
        self,
        status: int,
        detail: str,
        *,
        error: type[errors.VecdbError] = errors.ServiceError,
        headers: Mapping[str, str] | None = None,
        **members: Any,
    ) -> None:
        super().__init__(status, detail, headers)
        self.error = error
        self.members = members  # more members of the problem document


def status_of(error: errors.VecdbError) -> int:
    return next(STATUS[kind] for kind in type(error).__mro__ if kind in STATUS)


def answer(status: int, body: Mapping[str, Any], headers: Mapping[str, str] | None = None) -> Response:
    return Response(wire.dumps(body), status, headers, media_type=wire.PROBLEM_TYPE)


def report(error: errors.VecdbError, **members: Any) -> Response:
    """The answer to an error of the library."""
    status = status_of(error)
    if status >= 500:
        _log.warning("%s: %s", type(error).__name__, error)
    headers = {"Retry-After": str(RETRY_AFTER_S)} if isinstance(error, _TRY_AGAIN) else None
    return answer(status, {**wire.problem(error, status), **members}, headers)


def refusal(refused: HTTPException) -> Response:
    """The answer to a request that was turned away."""
    error = refused.error if isinstance(refused, Refused) else errors.ServiceError
    members = refused.members if isinstance(refused, Refused) else {}
    title = HTTPStatus(refused.status_code).phrase
    body = {
        "type": "about:blank",  # says: nothing more than the status
        "title": title,
        "status": refused.status_code,
        "detail": str(refused.detail),
        "error": error.__name__,
        **members,
    }
    return answer(refused.status_code, body, refused.headers)


def install(app: FastAPI) -> None:
    """Make every error of the app a problem document."""

    @app.exception_handler(errors.VecdbError)
    async def library_error(request: Request, error: errors.VecdbError) -> Response:
        return report(error)

    @app.exception_handler(HTTPException)
    async def turned_away(request: Request, error: HTTPException) -> Response:
        return refusal(error)

    @app.exception_handler(RequestValidationError)
    async def wrong_parameter(request: Request, error: RequestValidationError) -> Response:
        """Of the path or the query string; bodies are checked in the handlers."""
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"][1:])
        return report(errors.InvalidInput(f"parameter {name}: {first['msg']}; got {reprlib.repr(first['input'])}"))

    @app.exception_handler(ClientDisconnect)
    async def gone(request: Request, error: ClientDisconnect) -> Response:
        return Response(status_code=499)  # nobody reads it; the status is for the metrics

    @app.exception_handler(Exception)
    async def our_mistake(request: Request, error: Exception) -> Response:
        """The traceback goes to the log, not to the client. The server logs it: Starlette raises it again."""
        return refusal(HTTPException(500, "the service failed; its log says why"))
