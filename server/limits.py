"""What protects the service from a request: how long its body may take and be, how long it may run, how many run.

Pure ASGI, outermost first: `InFlight` (429, 504), `BodyLimits` (408, 413), `Gunzip` (400, 413, 415), `PathSegments`
(400). The limits on bodies are raised from inside `receive`, while the body is read; the app's handler for `Refused`
answers them.
"""

from __future__ import annotations

import asyncio
import logging
import time
import zlib
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from urllib.parse import unquote

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from vecdb.errors import InvalidInput, RequestTimeout
from vecdb.query.second_look import CANCELLABLE
from vecdb.rerank.base import Limits
from vecdb.server.problems import RETRY_AFTER_S, Refused, refusal

_log = logging.getLogger("vecdb.server")
_CLOSE = {"Connection": "close"}  # the rest of the body is unread, so the connection cannot be used again


class Slots:
    """The requests now running. Given-up ones count too: a thread that computes stops at its next check, if it has one."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.tasks: set[asyncio.Task[None]] = set()

    @property
    def are_full(self) -> bool:
        return len(self.tasks) >= self.limit

    def start(self, work: Awaitable[None]) -> asyncio.Task[None]:
        task = asyncio.ensure_future(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        return task

    async def drain(self, timeout_s: float) -> None:
        """Wait until nothing runs any more."""
        if self.tasks:
            await asyncio.wait(set(self.tasks), timeout=timeout_s)


class InFlight:
    """Runs at most `slots.limit` requests at once and answers 429 to more; answers 504 to one that runs too long.

    The time of a request is counted from the last piece of body that it was given: the body's own time is
    `BodyLimits`' job, and an upload of hours is in order as long as each piece is dealt with in time. `exempt` paths
    always run.
    """

    def __init__(self, app: ASGIApp, *, slots: Slots, timeout_s: float, exempt: frozenset[str]) -> None:
        self._app = app
        self._slots = slots
        self._timeout_s = timeout_s
        self._exempt = exempt

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in self._exempt:
            await self._app(scope, receive, send)
            return
        if self._slots.are_full:
            refused = Refused(
                429,
                f"{self._slots.limit} requests are running, which is the limit; try again in a moment",
                headers={"Retry-After": str(RETRY_AFTER_S)},
            )
            await refusal(refused)(scope, receive, send)
            return
        exchange = _Exchange(receive, send, self._timeout_s)
        limits = Limits()
        with _made_cancellable(limits):  # the task keeps the context that it is made in
            task = self._slots.start(self._app(scope, exchange.receive, exchange.send))
        try:
            if await exchange.finished(task):
                task.result()  # raises what the app raised
                return
        except asyncio.CancelledError:  # the server gave the request up
            exchange.give_up()
            limits.cancel()
            task.cancel()
            raise
        exchange.give_up()
        limits.cancel()  # rerankers, which take longest, stop at their next unit of work
        task.add_done_callback(_log_late_failure)
        late = Refused(
            504,
            f"no answer within {self._timeout_s:g} s; ask for less (k, ef, records), or raise the service's limit",
            error=RequestTimeout,
        )
        await refusal(late)(scope, receive, send)


@contextmanager
def _made_cancellable(limits: Limits) -> Iterator[None]:
    token = CANCELLABLE.set(limits)
    try:
        yield
    finally:
        CANCELLABLE.reset(token)


class _Exchange:
    """One request's receive and send, with the clock between them."""

    def __init__(self, receive: Receive, send: Send, timeout_s: float) -> None:
        self._receive = receive
        self._send = send
        self._timeout_s = timeout_s
        self._since = time.monotonic()
        self._is_waiting = False  # for a piece of body: then the clock stands still
        self._has_body = True
        self._is_answering = False
        self._is_given_up = asyncio.Event()

    async def receive(self) -> Message:
        if self._is_given_up.is_set():
            return {"type": "http.disconnect"}
        if not self._has_body:  # waiting for the client to go away, which is no reading
            return await self._receive()
        self._is_waiting = True
        try:
            message = await self._receive()
        finally:
            self._is_waiting = False
            self._since = time.monotonic()
        self._has_body = bool(message.get("more_body"))
        return message

    async def send(self, message: Message) -> None:
        if self._is_given_up.is_set():
            return
        self._is_answering = True
        await self._send(message)

    def give_up(self) -> None:
        self._is_given_up.set()

    async def finished(self, task: asyncio.Task[None]) -> bool:
        """True when the app is done, False when its time is up. A begun answer is let through to its end."""
        while True:
            left = self._timeout_s - (0.0 if self._is_waiting else time.monotonic() - self._since)
            if left <= 0 and not self._is_answering:
                return False
            await asyncio.wait({task}, timeout=max(left, 0.01) if not self._is_answering else None)
            if task.done():
                return True


def _log_late_failure(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        _log.error("a request that had been answered with 504 failed afterwards", exc_info=error)


class BodyLimits:
    """Refuses a body that is too long (413), announced or not, or that comes too slowly (408).

    The time a sender may take is timeout_s and a second more for each min_rate bytes that came: steady dripping does
    not help. Only the time spent waiting for the sender counts. max_bytes(path) is the longest body that a path takes.
    """

    def __init__(self, app: ASGIApp, *, max_bytes: Callable[[str], int], timeout_s: float, min_rate: int) -> None:
        self._app = app
        self._max_bytes = max_bytes
        self._timeout_s = timeout_s
        self._min_rate = min_rate

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        limit = self._max_bytes(scope["path"])
        announced = Headers(scope=scope).get("content-length", "")
        if announced.isdigit() and int(announced) > limit:
            await refusal(too_large(limit))(scope, receive, send)
            return
        received, waited_s, is_done = 0, 0.0, False

        async def limited() -> Message:
            nonlocal received, waited_s, is_done
            if is_done:
                return await receive()
            allowed_s = self._timeout_s + received / self._min_rate - waited_s
            begun = time.monotonic()
            try:
                async with asyncio.timeout(max(allowed_s, 0.001)):
                    message = await receive()
            except TimeoutError:
                raise Refused(
                    408,
                    f"the body came too slowly: {received:,} bytes in {waited_s + time.monotonic() - begun:.1f} s; "
                    f"at least {self._min_rate:,} bytes a second are wanted",
                    error=RequestTimeout,
                    headers=_CLOSE,
                ) from None
            waited_s += time.monotonic() - begun
            received += len(message.get("body", b""))
            if received > limit:
                raise too_large(limit)
            is_done = not message.get("more_body", False)
            return message

        await self._app(scope, limited, send)


class Gunzip:
    """Unpacks gzip bodies piece by piece. What comes out is bounded like any body, so a bomb is refused."""

    PIECE = 1 << 20

    def __init__(self, app: ASGIApp, *, max_bytes: Callable[[str], int]) -> None:
        self._app = app
        self._max_bytes = max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        encoding = (
            Headers(scope=scope).get("content-encoding", "identity").lower() if scope["type"] == "http" else "identity"
        )
        if encoding == "identity":
            await self._app(scope, receive, send)
        elif encoding in ("gzip", "x-gzip"):
            packed = (b"content-encoding", b"content-length")
            scope["headers"] = [(name, value) for name, value in scope["headers"] if name not in packed]
            await self._app(scope, _Unpacked(receive, self._max_bytes(scope["path"]), self.PIECE), send)
        else:
            refused = Refused(
                415, f"content-encoding is {encoding!r}; send gzip or plain", headers={"Accept-Encoding": "gzip"}
            )
            await refusal(refused)(scope, receive, send)


class _Unpacked:
    """A `receive` that gives the unpacked body in pieces. Members of gzip may follow each other (`cat a.gz b.gz`)."""

    def __init__(self, receive: Receive, limit: int, piece: int) -> None:
        self._receive = receive
        self._limit = limit
        self._piece = piece
        self._unpack = zlib.decompressobj(wbits=31)  # 31: a gzip header and its checksum
        self._packed = b""  # came in, not unpacked yet
        self._is_full = False  # the last piece was as large as it may be: zlib may hold more, even with no input left
        self._more = True
        self._produced = 0
        self._is_done = False

    async def __call__(self) -> Message:
        if self._is_done:
            return await self._receive()
        body = b""
        while not body and not self._is_used_up:
            if not self._packed and not self._is_full:
                message = await self._receive()
                if message["type"] != "http.request":
                    return message
                self._packed, self._more = message.get("body", b""), message.get("more_body", False)
            body = self._next_piece()
        self._is_done = self._is_used_up
        if self._is_done and not self._unpack.eof:
            raise Refused(
                400, "the gzip body ends too early; was the upload cut off?", error=InvalidInput, headers=_CLOSE
            )
        return {"type": "http.request", "body": body, "more_body": not self._is_done}

    @property
    def _is_used_up(self) -> bool:
        return not (self._packed or self._is_full or self._more)

    def _next_piece(self) -> bytes:
        if self._unpack.eof and self._packed:
            self._unpack = zlib.decompressobj(wbits=31)
        try:
            body = self._unpack.decompress(self._packed, self._piece)
        except zlib.error as error:
            raise Refused(400, f"the body is not gzip ({error})", error=InvalidInput, headers=_CLOSE) from error
        self._packed = self._unpack.unused_data if self._unpack.eof else self._unpack.unconsumed_tail
        self._is_full = len(body) == self._piece
        self._produced += len(body)
        if self._produced > self._limit:
            raise too_large(self._limit)
        return body


class PathSegments:
    """Lets a name hold any character: an escaped slash stays inside its segment of the path.

    ASGI's path is unescaped, so "a%2Fb" could not be told from "a/b". Here each segment of raw_path is unescaped by
    itself, and a slash that comes out is written as "\\x1f1" ("\\x1f" itself as "\\x1f0"); `original` gives the name
    back.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        raw = scope.get("raw_path") if scope["type"] == "http" else None
        if raw and b"%" in raw:
            try:
                segments = [unquote(part, errors="strict") for part in raw.decode("ascii").split("/")]
            except UnicodeDecodeError:
                await refusal(Refused(400, "the path is not UTF-8 in percent escapes", error=InvalidInput))(
                    scope, receive, send
                )
                return
            scope["path"] = "/".join(part.replace("\x1f", "\x1f0").replace("/", "\x1f1") for part in segments)
        await self._app(scope, receive, send)


def original(segment: str) -> str:
    """The name that a segment of the path stands for."""
    return segment.replace("\x1f1", "/").replace("\x1f0", "\x1f")


def too_large(limit: int) -> Refused:
    message = (
        f"the body is longer than {limit:,} bytes, the service's limit; send fewer records at a time (batch_size=)"
    )
    return Refused(413, message, error=InvalidInput, headers=_CLOSE, limit=limit)
