"""What is the clients' own: signatures, retries, limits, failures. Results are tests/test_congruence.py's job."""

from __future__ import annotations

import asyncio
import inspect
import itertools
import json
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
import pytest

import vecdb
from vecdb.aio import AsyncCollection, AsyncDatabase
from vecdb.client import AsyncRemoteCollection, AsyncRemoteDatabase, RemoteCollection, RemoteDatabase
from vecdb.collection import Collection
from vecdb.database import Database

pytest.importorskip("httpx2")

# -- the same methods

# What stays in the process that holds the file: its paths, the model's object, and what the service checks plans by.
ONLY_LOCAL = {"backup", "path", "index_folder", "embedder", "export_triples", "bound_plan"}


def methods_of(kind: type) -> dict[str, Any]:
    return {name: value for name, value in vars(kind).items() if not name.startswith("_")}


@pytest.mark.parametrize("twin", [AsyncCollection, RemoteCollection, AsyncRemoteCollection])
def test_every_collection_has_the_librarys_methods(twin: type) -> None:
    compare(Collection, twin)


@pytest.mark.parametrize("twin", [AsyncDatabase, RemoteDatabase, AsyncRemoteDatabase])
def test_every_database_has_the_librarys_methods(twin: type) -> None:
    compare(Database, twin)


def compare(kind: type, twin: type) -> None:
    mine, theirs = methods_of(twin), methods_of(kind)
    absent = theirs.keys() - mine.keys() - ONLY_LOCAL
    absent -= {"name"} & set(vars(kind))  # an attribute of the clients'
    assert not absent, absent
    for name, method in theirs.items():
        if name not in mine or isinstance(method, property):
            continue
        for parameter in inspect.signature(method).parameters.values():
            other = inspect.signature(mine[name]).parameters.get(parameter.name)
            assert other is not None, (name, parameter)
            assert (other.kind, other.default) == (parameter.kind, parameter.default), (name, parameter)
        is_coroutine = inspect.iscoroutinefunction(mine[name])
        assert is_coroutine == twin.__name__.startswith("Async"), name


# -- a service that does as it is told


class Scripted:
    """An HTTP service that gives these answers in turn: (status, headers, body), or None to hang up."""

    def __init__(self, *answers: tuple[int, dict[str, str], bytes] | None) -> None:
        self.requests: list[str] = []
        script = iter(answers)
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                self.rfile.read(int(self.headers.get("content-length") or 0))
                outer.requests.append(f"{self.command} {self.path}")
                answer = next(script)
                if answer is None:
                    self.close_connection = True
                    return
                status, headers, body = answer
                self.send_response(status)
                for name, value in {"Content-Length": str(len(body)), **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            do_POST = do_PUT = do_PATCH = do_DELETE = do_GET

            def log_message(self, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})

    def __enter__(self) -> Scripted:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


NAMES = (200, {}, b'{"collections": ["docs"]}')
SOON = (503, {"Retry-After": "0"}, b'{"detail": "locked", "error": "DatabaseBusy"}')
ABOUT = (200, {}, b'{"limits": {"body_bytes": 5000, "records": 10}}')
MADE = (200, {}, json.dumps({"name": "docs", "records": 0, "config": vecdb.CollectionConfig().as_json()}).encode())
WRITTEN = (201, {}, b'{"ids": ["a"], "added": 1, "updated": 0, "unchanged": 0}')


def test_a_question_is_asked_again_while_the_service_is_busy_or_breaks_off() -> None:
    with Scripted(SOON, None, SOON, NAMES) as service, vecdb.connect(service.url) as db:
        assert db.collections() == ["docs"]
        assert len(service.requests) == 4


def test_the_async_client_asks_again_too() -> None:
    async def scenario(url: str) -> list[str]:
        async with vecdb.connect_async(url) as db:
            return await db.collections()

    with Scripted(SOON, None, NAMES) as service:
        assert asyncio.run(scenario(service.url)) == ["docs"]
        assert len(service.requests) == 3


def test_asking_again_comes_to_an_end() -> None:
    with Scripted(*[SOON] * 9) as service, vecdb.connect(service.url) as db:
        with pytest.raises(vecdb.DatabaseBusy, match="locked"):
            db.collections()
        assert len(service.requests) == 4


@pytest.mark.parametrize(("answer", "error"), [(SOON, vecdb.DatabaseBusy), (None, vecdb.ServiceError)])
def test_a_write_is_never_sent_twice(answer: Any, error: type[Exception]) -> None:
    with Scripted(MADE, ABOUT, answer, WRITTEN) as service, vecdb.connect(service.url) as db:
        docs = db.collection("docs")
        with pytest.raises(error):
            docs.add(ids=["a"], texts=["t"])
        assert service.requests[-1] == "POST /v1/collections/docs/records"
        assert len(service.requests) == 3


def test_an_error_that_will_stay_is_not_asked_again() -> None:
    missing = (503, {}, b'{"detail": "no such model", "error": "ModelUnavailable"}')
    with Scripted(missing) as service, vecdb.connect(service.url) as db:
        with pytest.raises(vecdb.ModelUnavailable, match="no such model"):
            db.collections()
        assert len(service.requests) == 1


@pytest.mark.parametrize(
    "answer",
    [
        (200, {}, b"<html>hello</html>"),
        (200, {}, b"[]"),
        (200, {}, b"{}"),
        (404, {}, b"nothing here"),
        (500, {}, b""),
        (502, {}, b'{"message": "bad gateway"}'),
        (418, {}, b'{"detail": "tea", "error": "NoSuchClass"}'),
        (302, {"Location": "/"}, b""),
    ],
)
def test_what_is_no_vecdb_service_is_told(answer: Any) -> None:
    with Scripted(answer) as service, vecdb.connect(service.url) as db, pytest.raises(vecdb.ServiceError):
        db.collections()


def test_a_service_that_is_not_there_is_told() -> None:
    with Scripted() as service:
        url = service.url
    with vecdb.connect(url) as db, pytest.raises(vecdb.ServiceError, match="does the service run"):
        db.collections()


def test_a_service_that_does_not_answer_in_time_is_told() -> None:
    leave = threading.Event()
    with Scripted() as service:
        service._server.RequestHandlerClass.do_GET = lambda self: leave.wait(10)  # type: ignore[attr-defined]
        with (
            vecdb.connect(service.url, timeout_s=0.1) as db,
            pytest.raises(vecdb.RequestTimeout, match=r"within 0\.1 s"),
        ):
            db.collections()
        leave.set()


def test_a_position_is_counted_in_the_whole_input() -> None:
    refused = (409, {}, b'{"detail": "record 1 is there", "error": "DuplicateId", "position": 1}')
    with Scripted(MADE, ABOUT, WRITTEN, refused) as service, vecdb.connect(service.url) as db:
        docs = db.collection("docs")
        with pytest.raises(vecdb.DuplicateId) as caught:
            docs.add(ids=list("abcdef"), texts=list("abcdef"), batch_size=3)
        assert caught.value.position == 4


# -- limits


def test_more_than_one_request_takes_is_refused_before_it_is_sent() -> None:
    with Scripted(MADE, ABOUT) as service, vecdb.connect(service.url) as db:
        docs = db.collection("docs")
        asked = 0

        def endless() -> Iterator[dict[str, Any]]:
            nonlocal asked
            for asked in itertools.count(1):
                yield {"id": str(asked), "text": "t"}

        with pytest.raises(vecdb.InvalidInput, match="batch_size=10"):
            docs.add(endless())
        assert asked == 11, "no more was read than shows that it is too much"
        with pytest.raises(vecdb.InvalidInput, match="at most 10 records"):
            docs.add(endless(), batch_size=11)
        with pytest.raises(vecdb.InvalidInput, match=r"batch_size=\d"):
            docs.add(ids=["a", "b"], texts=["x" * 3000, "y" * 3000])
        assert len(service.requests) == 2


def test_code_of_the_callers_is_not_sent() -> None:
    class Mine:
        needs_stems = False

        def pool(self, wanted: int) -> int:
            return wanted

        def shares(self, rankings: Any, evidence: Any) -> Any:
            return (), {}

        def rerank(self, query: str, candidates: Any, k: int) -> Any:
            return []

    with Scripted(MADE) as service, vecdb.connect(service.url) as db:
        docs = db.collection("docs")
        with pytest.raises(vecdb.InvalidQuery, match="rerank"):
            docs.search("a", rerank=Mine())
        with pytest.raises(vecdb.InvalidQuery, match="fusion"):
            docs.search("a", fusion=Mine())
        with pytest.raises(vecdb.InvalidInput, match="count_tokens"):
            docs.context("a", count_tokens=len)
        with pytest.raises(vecdb.InvalidInput, match="embed"):
            db.collection("docs", embed=lambda texts: np.zeros((len(texts), 3)))  # type: ignore[arg-type]
        assert len(service.requests) == 1


# -- opening and closing


def test_urls_are_checked() -> None:
    for url in ("localhost:8000", "ftp://x", "", "http://[::1"):
        with pytest.raises(vecdb.InvalidInput, match="url"):
            vecdb.connect(url)


def test_a_closed_client_says_so() -> None:
    db = vecdb.connect("http://127.0.0.1:1")
    db.close()
    db.close()
    with pytest.raises(vecdb.DatabaseClosed, match="connect again"):
        db.collections()


def test_without_httpx2_the_install_line_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "httpx2", None)
    with pytest.raises(vecdb.MissingExtra, match=r"pip install 'vecdb\[client\]'"):
        vecdb.connect("http://localhost")


def test_a_key_is_sent_and_its_refusal_told(path: Any, tmp_path: Any) -> None:
    pytest.importorskip("fastapi")
    from starlette.testclient import TestClient

    from vecdb.server.app import create_app
    from vecdb.server.keys import create_key
    from vecdb.server.settings import Settings

    key = create_key(tmp_path / "keys.json", name="reader", scope="read")
    with vecdb.open(path, background=False) as local:
        local.collection("docs")
        app = create_app(local, Settings(keys_file=tmp_path / "keys.json"))
        for headers, names in (({"Authorization": f"Bearer {key}"}, ["docs"]), ({}, None)):
            db = vecdb.connect("http://localhost", http=TestClient(app, base_url="http://localhost", headers=headers))
            if names is None:
                with pytest.raises(vecdb.ServiceError, match="API key"):
                    db.collections()
            else:
                assert db.collections() == names
                with pytest.raises(vecdb.ServiceError, match="may not write"):
                    db.drop("docs")


def test_importing_the_client_loads_no_kernels_model_or_server() -> None:
    import subprocess

    program = (
        "import sys, vecdb.client; vecdb.client.connect('http://localhost'); "
        "print([m for m in ('numba', 'fastapi', 'onnxruntime', 'pandas', 'torch') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
