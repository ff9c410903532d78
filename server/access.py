"""Who asks, and what they may touch: the first thing that every route depends on.

FastAPI reads these dependencies in order, so a caller without a key is refused before any of the body is read.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, cast

from fastapi import Depends, Request

from vecdb import wire
from vecdb.server.keys import ApiKey, KeyStore
from vecdb.server.limits import original
from vecdb.server.problems import Refused
from vecdb.server.settings import Settings

if TYPE_CHECKING:
    from vecdb.collection import Collection
    from vecdb.database import Database

_LOCAL_NAMES = frozenset({"localhost", "127.0.0.1", "::1", "[::1]"})


@dataclass(frozen=True, slots=True)
class Service:
    """What one app serves, kept in app.state."""

    db: Database
    settings: Settings
    keys: KeyStore


@dataclass(frozen=True, slots=True)
class Caller:
    """Somebody who was let in. key is None where the service has no keys, and then everything is allowed."""

    service: Service
    key: ApiKey | None

    def may_see(self, collection: str) -> bool:
        return self.key is None or self.key.may_read(collection)

    def check_whole_database(self) -> None:
        """Refuses a key that is limited to some collections."""
        if self.key is not None and self.key.collections is not None:
            raise _forbidden(
                f"key {self.key.name!r} is limited to some collections; this asks about the whole database"
            )

    def reading(self, collection: str) -> Target:
        if not self.may_see(collection):
            raise _forbidden(f"this key may not read the collection {collection!r}")
        return Target(self.service, collection)

    def writing(self, collection: str) -> Target:
        if self.key is not None and not self.key.may_write(collection):
            raise _forbidden(f"this key may not write to the collection {collection!r}")
        return Target(self.service, collection)


@dataclass(frozen=True, slots=True)
class Target:
    """A collection that the caller may use."""

    service: Service
    name: str

    @property
    def settings(self) -> Settings:
        return self.service.settings

    def open(self) -> Collection:
        """Raises CollectionNotFound."""
        return self.service.db.collection(self.name, create=False)


def service_of(request: Request) -> Service:
    return cast("Service", request.app.state.service)


async def caller(request: Request) -> Caller:
    """Raises Refused: 401 without a known key, 403 for a request that a foreign web page made the browser send."""
    service = service_of(request)
    if service.keys.is_open:
        _check_host(request, service.settings)
        return Caller(service, None)
    presented = _presented_key(request)
    if presented is None:
        raise _unauthorized("no API key; send it as 'Authorization: Bearer …' or 'X-Api-Key: …'")
    key = service.keys.find(presented)
    if key is None:
        raise _unauthorized("this API key is not known here; was it revoked?")
    return Caller(service, key)


async def reading(name: str, who: Annotated[Caller, Depends(caller)]) -> Target:
    return who.reading(original(name))


async def writing(name: str, who: Annotated[Caller, Depends(caller)]) -> Target:
    return who.writing(original(name))


async def json_body(request: Request) -> bytes:
    """The body's bytes. They are parsed where the handler runs, in a thread.

    Raises Refused (415) for another content type: a web page may send text/plain to any address without asking first,
    JSON not.
    """
    _check_content_type(request, (wire.JSON_TYPE,))
    return await request.body()


async def ndjson_request(request: Request) -> Request:
    _check_content_type(
        request, (wire.NDJSON_TYPE, "application/ndjson", "application/jsonl", "application/x-jsonlines")
    )
    return request


Asking = Annotated[Caller, Depends(caller)]
Reading = Annotated[Target, Depends(reading)]
Writing = Annotated[Target, Depends(writing)]
JsonBody = Annotated[bytes, Depends(json_body)]
NdjsonRequest = Annotated[Request, Depends(ndjson_request)]


def _presented_key(request: Request) -> str | None:
    scheme, _, key = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and key.strip():
        return key.strip()
    return request.headers.get("x-api-key") or None


def _check_host(request: Request, settings: Settings) -> None:
    """Without keys only this machine is served. A web page whose name was made to point here names itself."""
    if settings.insecure or not settings.is_loopback:
        return
    host = request.url.hostname or ""
    if host not in _LOCAL_NAMES and host != settings.host:
        raise _forbidden(f"the request is for the host {host!r}; without API keys only localhost is served")


def _check_content_type(request: Request, wanted: tuple[str, ...]) -> None:
    given = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if given not in wanted:
        raise Refused(415, f"content-type is {given or 'absent'!r}; send {wanted[0]}")


def _unauthorized(detail: str) -> Refused:
    return Refused(401, detail, headers={"WWW-Authenticate": "Bearer"})


def _forbidden(detail: str) -> Refused:
    return Refused(403, detail)
