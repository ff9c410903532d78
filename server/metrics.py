"""Counters for Prometheus, in a registry of the app's own. Without prometheus-client there are none."""

from __future__ import annotations

import time

from fastapi import APIRouter, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from vecdb.errors import MissingExtra
from vecdb.server.access import Asking
from vecdb.server.limits import Slots

_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


class Metrics:
    """What one app counts. Routes are labelled by their operation, never by a path that a client chose."""

    def __init__(self, slots: Slots) -> None:
        try:
            from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
        except ImportError as error:
            raise MissingExtra.of("prometheus-client", extra="server", what="/metrics") from error
        self.registry = CollectorRegistry()
        self._requests = Counter(
            "vecdb_requests", "Requests answered", ["operation", "status"], registry=self.registry
        )  # its name on the page ends with _total
        self._seconds = Histogram(
            "vecdb_request_seconds", "Time to answer", ["operation"], buckets=_BUCKETS, registry=self.registry
        )
        running = Gauge(
            "vecdb_requests_running", "Requests being worked on, given-up ones included", registry=self.registry
        )
        running.set_function(lambda: len(slots.tasks))

    def count(self, operation: str, status: int, seconds: float) -> None:
        self._requests.labels(operation, str(status)).inc()
        self._seconds.labels(operation).observe(seconds)

    def page(self) -> Response:
        from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

        return Response(generate_latest(self.registry), headers={"Content-Type": CONTENT_TYPE_LATEST})


class Counted:
    """ASGI: counts each request with its status and time. The outermost of ours, so refusals count too."""

    def __init__(self, app: ASGIApp, *, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun, status = time.perf_counter(), 500

        async def noticed(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, noticed)
        finally:
            operation = getattr(scope.get("route"), "operation_id", None) or "none"
            self._metrics.count(operation, status, time.perf_counter() - begun)


def router(metrics: Metrics) -> APIRouter:
    """GET /metrics."""
    routes = APIRouter(tags=["database"])

    @routes.get("/metrics", operation_id="metrics", response_class=Response)
    async def page(who: Asking) -> Response:
        """Counters in the format of Prometheus. Needs a key where the service has keys, one for the whole database."""
        who.check_whole_database()
        return metrics.page()

    return routes
