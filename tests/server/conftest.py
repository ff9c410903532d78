from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

import vecdb

pytest.importorskip("fastapi")
pytest.importorskip("httpx2")
pytest.importorskip("pydantic_settings")

Serve = Callable[..., Any]


@pytest.fixture
def serve(db: vecdb.Database) -> Iterator[Serve]:
    """serve(max_k=5, …) -> an HTTP client of an app with these settings over the test's database."""
    from starlette.testclient import TestClient

    from vecdb.server.app import create_app
    from vecdb.server.settings import Settings

    with ExitStack() as stack:

        def serve(**settings: Any) -> TestClient:
            # Where nothing has been compiled yet, a request may take longer than a service should let one wait.
            app = create_app(db, Settings(**{"request_timeout_s": 600, **settings}))
            return stack.enter_context(TestClient(app, base_url="http://localhost"))

        yield serve


@pytest.fixture
def http(serve: Serve) -> Any:
    return serve()


@pytest.fixture
def docs(db: vecdb.Database) -> vecdb.Collection:
    collection = db.collection("docs", dimension=3)
    collection.add(
        ids=["a", "b"], texts=["a wing", "a plate"], vectors=[[1, 0, 0], [0, 1, 0]], metadata=[{"n": 1}, {"n": 2}]
    )
    return collection
