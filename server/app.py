"""create_app: the service as an ASGI application. Nothing here is global; two apps in one process do not meet."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import anyio.to_thread
from fastapi import FastAPI
from starlette.middleware.gzip import GZipMiddleware

from vecdb.server import documents, metrics, problems, routes_database, routes_records, routes_search
from vecdb.server.access import Service
from vecdb.server.keys import KeyStore
from vecdb.server.limits import BodyLimits, Gunzip, InFlight, PathSegments, Slots
from vecdb.server.settings import Settings

if TYPE_CHECKING:
    from vecdb.database import Database

_DESCRIPTION = """A retrieval database in one file, over HTTP: records with text, vectors and metadata are
searched by meaning, by words and by filter. Errors are problem documents (RFC 9457) whose member "error" names the class
that vecdb's Python clients raise."""
_ALWAYS_ANSWERED = frozenset({"/healthz", "/readyz", "/metrics"})
_GZIP_LEVEL = 5  # of the level 9 that Starlette takes by default, a third of the time for a few per cent more bytes


def create_app(db: Database, settings: Settings | None = None, *, owns_database: bool = False) -> FastAPI:
    """The application that serves this database.

    owns_database: it closes the database when it shuts down, after the running requests have finished.
    Raises InvalidInput if the key file cannot be read.
    """
    settings = settings or Settings()
    slots = Slots(settings.max_concurrent)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        # A request that was let in must not wait for a thread behind those that overran their time.
        anyio.to_thread.current_default_thread_limiter().total_tokens = settings.max_concurrent + len(_ALWAYS_ANSWERED)
        yield
        await slots.drain(settings.shutdown_timeout_s)
        if owns_database:
            db.close()

    docs = "/docs" if settings.docs else None
    app = FastAPI(
        title="vecdb",
        version=routes_database.VERSION,
        description=_DESCRIPTION,
        docs_url=docs,
        redoc_url=None,
        lifespan=lifespan,
    )
    app.state.service = Service(db, settings, KeyStore(settings.keys_file))
    for module in (routes_database, routes_records, routes_search):
        app.include_router(module.router)
    problems.install(app)
    documents.install(app)
    _add_limits(app, settings, slots)
    return app


def _add_limits(app: FastAPI, settings: Settings, slots: Slots) -> None:
    """Middleware, innermost first: FastAPI puts each one around those before it."""

    def max_bytes(path: str) -> int:
        return settings.max_bulk_bytes if path.endswith("/records/bulk") else settings.max_body_bytes

    app.add_middleware(PathSegments)
    app.add_middleware(GZipMiddleware, minimum_size=settings.gzip_min_bytes, compresslevel=_GZIP_LEVEL)
    app.add_middleware(Gunzip, max_bytes=max_bytes)
    app.add_middleware(
        BodyLimits, max_bytes=max_bytes, timeout_s=settings.body_timeout_s, min_rate=settings.min_body_rate
    )
    app.add_middleware(InFlight, slots=slots, timeout_s=settings.request_timeout_s, exempt=_ALWAYS_ANSWERED)
    if settings.metrics:
        counters = metrics.Metrics(slots)
        app.include_router(metrics.router(counters))
        app.add_middleware(metrics.Counted, metrics=counters)
