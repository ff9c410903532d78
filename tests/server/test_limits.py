"""The limits by themselves, around small ASGI applications, and then around the service."""

from __future__ import annotations

import asyncio
import gzip
import json
import threading
import time
import zlib
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.concurrency import run_in_threadpool

import vecdb
from vecdb.errors import RerankStopped
from vecdb.rerank.base import BatchReranker, Context, Limit, Limits, Reranked
from vecdb.server.keys import create_key
from vecdb.server.limits import BodyLimits, Gunzip, InFlight, PathSegments, Slots, original
from vecdb.server.problems import Refused, refusal

ASGI = Callable[..., Awaitable[None]]
PATIENCE_S = 10.0  # for what should happen at once


class Exchange:
    """One request against an ASGI application; pieces of the body are given with the pauses before them."""

    def __init__(self, pieces: Iterable[tuple[float, bytes]] = (), **scope: Any) -> None:
        self.scope = {"type": "http", "method": "POST", "path": "/", "headers": [], "query_string": b"", **scope}
        self._pieces = [*pieces, (0.0, b"")] if not pieces else list(pieces)
        self.status: int | None = None
        self.headers: dict[str, str] = {}
        self.body = b""

    async def receive(self) -> dict[str, Any]:
        if not self._pieces:
            await asyncio.sleep(PATIENCE_S)
            return {"type": "http.disconnect"}
        pause, body = self._pieces.pop(0)
        await asyncio.sleep(pause)
        return {"type": "http.request", "body": body, "more_body": bool(self._pieces)}

    async def send(self, message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            assert self.status is None, "two answers to one request"
            self.status = message["status"]
            self.headers = {name.decode(): value.decode() for name, value in message["headers"]}
        else:
            self.body += message["body"]

    async def run(self, app: ASGI) -> Exchange:
        await app(self.scope, self.receive, self.send)
        return self

    @property
    def problem(self) -> Any:
        assert self.headers["content-type"] == "application/problem+json"
        return json.loads(self.body)


def sizes(limit: int) -> Callable[[str], int]:
    return lambda path: limit


async def read_body(receive: Any) -> bytes:
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            return body


async def echo(scope: Any, receive: Any, send: Any) -> None:
    """Answers with the body; a refusal while reading is answered as the service does."""
    try:
        body = await read_body(receive)
    except Refused as refused:
        await refusal(refused)(scope, receive, send)
        return
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body})


# -- how many at once, and how long


def test_more_requests_than_slots_are_told_to_come_back() -> None:
    async def scenario() -> None:
        entered, leave = asyncio.Event(), asyncio.Event()

        async def waiting(scope: Any, receive: Any, send: Any) -> None:
            entered.set()
            await leave.wait()
            await echo(scope, receive, send)

        app = InFlight(waiting, slots=Slots(1), timeout_s=PATIENCE_S, exempt=frozenset({"/healthz"}))
        first = asyncio.create_task(Exchange().run(app))
        await entered.wait()
        second = await Exchange().run(app)
        assert second.status == 429
        assert second.headers["retry-after"] == "1"
        assert second.problem["error"] == "ServiceError"
        leave.set()
        health = await Exchange(path="/healthz").run(app)
        assert health.status == 200
        assert (await first).status == 200
        assert (await Exchange().run(app)).status == 200, "the slot is free again"

    asyncio.run(scenario())


def test_a_reranker_stops_when_its_request_was_answered_with_a_timeout() -> None:
    stopped = threading.Event()

    class Endless(BatchReranker):
        def rerank_batch(self, tasks: Any, context: Context) -> list[Reranked]:
            until = time.monotonic() + PATIENCE_S
            while time.monotonic() < until:
                try:
                    context.limit.check()
                except RerankStopped:
                    stopped.set()
                    raise
                time.sleep(0.005)
            raise AssertionError("nobody cancelled it")

    async def scenario() -> None:
        with vecdb.open(":memory:", background=False) as db:
            docs = db.collection("docs")
            docs.add(ids=["a"], texts=["red"])

            async def searching(scope: Any, receive: Any, send: Any) -> None:
                await run_in_threadpool(docs.search, "red", rerank=Endless())

            slots = Slots(1)
            app = InFlight(searching, slots=slots, timeout_s=0.1, exempt=frozenset())
            assert (await Exchange().run(app)).status == 504
            await slots.drain(PATIENCE_S)
            assert not slots.are_full
        assert stopped.is_set()

    asyncio.run(scenario())


def test_what_begins_after_the_end_is_cancelled_at_once() -> None:
    limits, before, after = Limits(), Limit(), Limit()
    limits.add(before)
    before.check()
    limits.cancel()
    limits.add(after)
    for limit in (before, after):
        with pytest.raises(RerankStopped):
            limit.check()


def test_a_request_that_takes_too_long_is_answered_and_still_counts() -> None:
    async def scenario() -> None:
        leave = asyncio.Event()

        async def slow(scope: Any, receive: Any, send: Any) -> None:
            await leave.wait()
            await echo(scope, receive, send)

        slots = Slots(1)
        app = InFlight(slow, slots=slots, timeout_s=0.05, exempt=frozenset())
        late = await Exchange().run(app)
        assert late.status == 504
        assert late.problem["error"] == "RequestTimeout"
        assert slots.are_full
        assert (await Exchange().run(app)).status == 429
        leave.set()
        await slots.drain(PATIENCE_S)
        assert not slots.are_full
        assert (await Exchange().run(app)).status == 200

    asyncio.run(scenario())


def test_time_is_counted_from_the_last_piece_of_the_body() -> None:
    pieces = [(0.08, b"a"), (0.08, b"b"), (0.08, b"c")]
    app = InFlight(echo, slots=Slots(1), timeout_s=0.15, exempt=frozenset())
    assert asyncio.run(Exchange(pieces).run(app)).body == b"abc"


def test_a_begun_answer_is_let_through_to_its_end() -> None:
    async def long_answer(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for piece in (b"1", b"2", b"3"):
            await asyncio.sleep(0.05)
            await send({"type": "http.response.body", "body": piece, "more_body": piece != b"3"})

    app = InFlight(long_answer, slots=Slots(1), timeout_s=0.03, exempt=frozenset())
    exchange = asyncio.run(Exchange().run(app))
    assert (exchange.status, exchange.body) == (200, b"123")


def test_an_error_of_the_application_reaches_the_server() -> None:
    async def broken(scope: Any, receive: Any, send: Any) -> None:
        raise RuntimeError("a mistake")

    slots = Slots(1)
    with pytest.raises(RuntimeError, match="a mistake"):
        asyncio.run(Exchange().run(InFlight(broken, slots=slots, timeout_s=PATIENCE_S, exempt=frozenset())))
    assert not slots.tasks


def test_a_request_that_the_server_cancels_frees_its_slot() -> None:
    async def scenario() -> None:
        async def endless(scope: Any, receive: Any, send: Any) -> None:
            await asyncio.sleep(PATIENCE_S)

        slots = Slots(1)
        task = asyncio.create_task(
            Exchange().run(InFlight(endless, slots=slots, timeout_s=PATIENCE_S, exempt=frozenset()))
        )
        await asyncio.sleep(0.02)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await slots.drain(PATIENCE_S)
        assert not slots.are_full

    asyncio.run(scenario())


# -- bodies


@pytest.mark.parametrize("announced", [True, False])
@pytest.mark.parametrize(("length", "status"), [(0, 200), (99, 200), (100, 200), (101, 413), (5_000, 413)])
def test_long_bodies_are_refused_announced_or_not(announced: bool, length: int, status: int) -> None:
    body = b"x" * length
    pieces = [(0.0, body[i : i + 30]) for i in range(0, length, 30)]
    headers = [(b"content-length", str(length).encode())] if announced else []
    app = BodyLimits(echo, max_bytes=sizes(100), timeout_s=PATIENCE_S, min_rate=1)
    exchange = asyncio.run(Exchange(pieces, headers=headers).run(app))
    assert exchange.status == status
    if status == 413:
        assert exchange.problem["limit"] == 100
        assert exchange.headers["connection"] == "close"
    else:
        assert exchange.body == body


def test_the_rest_of_a_body_that_is_too_long_is_not_read() -> None:
    exchange = Exchange([(0.0, b"x" * 60)] * 1_000)
    asyncio.run(exchange.run(BodyLimits(echo, max_bytes=sizes(100), timeout_s=PATIENCE_S, min_rate=1)))
    assert len(exchange._pieces) == 998


def test_a_stalled_body_is_cut_off() -> None:
    app = BodyLimits(echo, max_bytes=sizes(100), timeout_s=0.05, min_rate=1_000_000)
    exchange = asyncio.run(Exchange([(0.0, b"x"), (PATIENCE_S, b"y")]).run(app))
    assert exchange.status == 408
    assert exchange.problem["error"] == "RequestTimeout"


def test_a_dripping_body_is_cut_off_though_each_pause_is_short() -> None:
    drops = [(0.02, b"x")] * 400
    exchange = Exchange(drops)
    asyncio.run(exchange.run(BodyLimits(echo, max_bytes=sizes(1_000), timeout_s=0.1, min_rate=1_000_000)))
    assert exchange.status == 408
    assert len(exchange._pieces) > 300


def test_a_long_body_that_comes_fast_enough_has_more_time() -> None:
    pieces = [(0.03, b"x" * 10)] * 10  # 0.3 s in all, more than timeout_s
    app = BodyLimits(echo, max_bytes=sizes(1_000), timeout_s=0.15, min_rate=100)
    assert asyncio.run(Exchange(pieces).run(app)).status == 200


def test_time_that_the_application_takes_between_pieces_is_not_the_senders() -> None:
    async def busy(scope: Any, receive: Any, send: Any) -> None:
        for _ in range(3):
            await receive()
            await asyncio.sleep(0.08)
        await echo(scope, receive, send)

    app = BodyLimits(busy, max_bytes=sizes(100), timeout_s=0.15, min_rate=1_000_000)
    assert asyncio.run(Exchange([(0.0, b"x")] * 5).run(app)).status == 200


# -- gzip


def unpacked(body: bytes, limit: int = 10_000_000, cut: int = 1_000, encoding: str = "gzip") -> Exchange:
    pieces = [(0.0, body[i : i + cut]) for i in range(0, len(body), cut)]
    exchange = Exchange(pieces, headers=[(b"content-encoding", encoding.encode()), (b"content-length", b"7")])
    return asyncio.run(exchange.run(Gunzip(echo, max_bytes=sizes(limit))))


@given(st.binary(max_size=3_000), st.integers(1, 50), st.integers(1, 64), st.integers(1, 4))
def test_any_gzip_body_in_any_pieces_is_unpacked(content: bytes, repeat: int, cut: int, members: int) -> None:
    body = b"".join(gzip.compress(content * repeat) for _ in range(members))
    cut = max(cut, len(body) // 200)  # not thousands of pieces
    assert unpacked(body, cut=cut).body == content * repeat * members


@pytest.mark.parametrize("size", [0, 1, Gunzip.PIECE - 1, Gunzip.PIECE, Gunzip.PIECE + 1, 3 * Gunzip.PIECE + 17])
def test_highly_packed_bodies_come_out_whole(size: int) -> None:
    assert unpacked(gzip.compress(b"\0" * size)).body == b"\0" * size


def test_a_bomb_is_refused_before_it_has_grown() -> None:
    bomb = gzip.compress(b"\0" * 50_000_000)
    assert len(bomb) < 60_000
    exchange = unpacked(bomb, limit=2_000_000)
    assert exchange.status == 413
    assert exchange.problem["limit"] == 2_000_000


@pytest.mark.parametrize(
    "body",
    [b"not gzip at all", gzip.compress(b"x" * 1000)[:-9], gzip.compress(b"x") + b"trailing", b"\x1f\x8b"],
    ids=["none", "cut", "trailing", "begun"],  # by themselves they would hold the time, and differ between processes
)
def test_what_is_not_whole_gzip_is_refused(body: bytes) -> None:
    exchange = unpacked(body)
    assert exchange.status == 400
    assert exchange.problem["error"] == "InvalidInput"


@pytest.mark.parametrize("encoding", ["br", "deflate", "gzip, gzip", "zstd"])
def test_other_encodings_are_refused(encoding: str) -> None:
    exchange = unpacked(zlib.compress(b"x"), encoding=encoding)
    assert exchange.status == 415
    assert exchange.headers["accept-encoding"] == "gzip"


# -- paths


@given(st.text(min_size=1))
def test_any_name_survives_as_one_segment_of_a_path(name: str) -> None:
    from urllib.parse import quote

    try:
        raw = f"/v1/{quote(name, safe='')}/search".encode("ascii")
    except UnicodeEncodeError:  # a lone surrogate is no text that could be sent
        return
    seen: list[str] = []

    async def note(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope["path"])

    asyncio.run(Exchange(path="?", raw_path=raw).run(PathSegments(note)))
    path = seen[0] if b"%" in raw else raw.decode()
    assert original(path.removeprefix("/v1/").removesuffix("/search")) == name
    assert path.count("/") == 3


def test_a_path_that_is_not_unicode_is_refused() -> None:
    exchange = asyncio.run(Exchange(raw_path=b"/%ff").run(PathSegments(echo)))
    assert exchange.status == 400


# -- around the service


def test_limits_hold_around_the_service(serve: Any, docs: vecdb.Collection) -> None:
    http = serve(max_body_bytes=2_000, max_k=5, max_queries=2, max_records=3, max_candidates=50, gzip_min_bytes=500)
    search, batch = "/v1/collections/docs/search", "/v1/collections/docs/search/batch"
    records = "/v1/collections/docs/records"
    too_much: list[tuple[int, str, Any]] = [
        (413, search, {"query": "x" * 3_000}),
        (422, search, {"query": "wing", "k": 6}),
        (422, search, {"query": "wing", "offset": 51}),
        (422, search, {"query": "wing", "ef": 51}),
        (422, search, {"query": "wing", "candidates": 51}),
        (422, search, {"query": "wing", "per_group": 51}),
        (422, batch, {"queries": ["a", "b", "c"]}),
        (422, batch, {"query_vectors": [[1, 2, 3]] * 3}),
        (422, records, {"records": [{"text": "t"}] * 4}),
        (422, "/v1/collections/docs/records/scan", {"limit": 4}),
        (422, "/v1/collections/docs/recall-report", {"sample": 3}),
        (422, "/v1/collections/docs/tune", {"k": 6}),
        (422, "/v1/collections/docs/adapt", {"sample": 4}),
        (422, "/v1/collections/docs/tune", {"query_vectors": [[1, 0, 0]] * 3}),
        (422, "/v1/collections/docs/context", {"question": "wing", "k": 6}),
    ]
    for status, path, body in too_much:
        answer = http.post(path, json=body)
        assert answer.status_code == status, (path, body, answer.text)
        assert "limit" in answer.text or "at most" in answer.text
    assert http.post(search, json={"query": "wing", "k": 5}).status_code == 200
    assert docs.count() == 2


def test_gzip_goes_both_ways(serve: Any, docs: vecdb.Collection) -> None:
    http = serve(gzip_min_bytes=200)
    headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
    body = gzip.compress(b'{"query": "wing plate", "mode": "text"}')
    answer = http.post("/v1/collections/docs/search", content=body, headers=headers)
    assert answer.status_code == 200
    assert answer.headers["content-encoding"] == "gzip"
    assert answer.json()["hits"]
    bomb = gzip.compress(b" " * 100_000_000)
    assert http.post("/v1/collections/docs/search", content=bomb, headers=headers).status_code == 413


def test_a_caller_without_a_key_is_refused_before_the_body_is_read(
    db: vecdb.Database, docs: vecdb.Collection, tmp_path: Any
) -> None:
    from vecdb.server.app import create_app
    from vecdb.server.settings import Settings

    create_key(tmp_path / "keys.json", name="app")
    app = create_app(db, Settings(keys_file=tmp_path / "keys.json"))
    exchange = Exchange(
        [(0.0, b"x")] * 10,
        path="/v1/collections/docs/search",
        headers=[(b"content-type", b"application/json")],
        server=("localhost", 80),
        scheme="http",
        http_version="1.1",
    )
    asyncio.run(exchange.run(app))
    assert exchange.status == 401
    assert len(exchange._pieces) == 10


def test_two_services_in_one_process_do_not_meet(serve: Any, docs: vecdb.Collection) -> None:
    one, other = serve(max_k=1), serve(max_k=10)
    assert one.post("/v1/collections/docs/search", json={"query": "wing", "k": 2}).status_code == 422
    assert other.post("/v1/collections/docs/search", json={"query": "wing", "k": 2}).status_code == 200
    assert 'operation="search",status="200"' not in one.get("/metrics").text
    assert 'operation="search",status="200"' in other.get("/metrics").text
