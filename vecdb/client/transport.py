"""Sending requests and judging answers: when to try again, and which error an answer is. Only this file knows httpx2."""

from __future__ import annotations

import asyncio
import random
import time
from typing import TYPE_CHECKING, Any, TypeVar

from vecdb import wire
from vecdb.client.calls import Call
from vecdb.errors import DatabaseClosed, InvalidInput, MissingExtra, RequestTimeout, ServiceError

if TYPE_CHECKING:
    import httpx2

T = TypeVar("T")

TRIES = 4
_FIRST_PAUSE_S = 0.1
_LONGEST_PAUSE_S = 5.0
_BUSY = (429, 503)  # the service is there, and says that it did nothing


def load_httpx() -> Any:
    """The httpx2 module. Raises MissingExtra."""
    try:
        import httpx2
    except ImportError as error:
        raise MissingExtra.of("httpx2", extra="client", what="a connection to a service") from error
    return httpx2


def options_of(url: str, api_key: str | None, timeout_s: float) -> dict[str, Any]:
    """Arguments of an httpx2 client. Raises InvalidInput for a URL that is none."""
    if not url.startswith(("http://", "https://")):
        raise InvalidInput(f"url is {url!r}; it must start with http:// or https://")
    headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
    try:
        address = load_httpx().URL(url.rstrip("/"))
    except load_httpx().InvalidURL as error:
        raise InvalidInput(f"url is {url!r}, which is no URL: {error}") from error
    return {"base_url": address, "headers": headers, "timeout": timeout_s}


class _Judge:
    """What sync and async sending share: the request's arguments, and what comes of an answer or a failure."""

    def __init__(self, call: Call[Any], url: str, timeout_s: float) -> None:
        self._httpx = load_httpx()
        self._call = call
        self._url = url
        self._timeout_s = timeout_s
        self._tried = 0

    @property
    def arguments(self) -> dict[str, Any]:
        headers = {"Content-Type": wire.JSON_TYPE} if self._call.body is not None else {}
        return {"method": self._call.method, "url": self._call.path, "content": self._call.body, "headers": headers}

    def pause_after(self, response: httpx2.Response) -> float | None:
        """Seconds until the next try, or None if this answer is final."""
        if response.status_code not in _BUSY or not self._call.is_safe:
            return None
        try:
            return self._pause(float(response.headers["retry-after"]))
        except (KeyError, ValueError):  # no word of another time: a model that is missing will be missing then too
            return None

    def pause_after_failure(self, error: Exception) -> float:
        """The same after a broken exchange. Raises RequestTimeout or ServiceError if there is no next try.

        A connection that was never made carried nothing, so that any request may be tried again; and no other one that
        writes.
        """
        never_sent = isinstance(error, self._httpx.ConnectError | self._httpx.ConnectTimeout | self._httpx.PoolTimeout)
        is_timeout = isinstance(error, self._httpx.TimeoutException)
        if never_sent or (self._call.is_safe and not is_timeout):
            pause = self._pause()
            if pause is not None:
                return pause
        if is_timeout:
            raise RequestTimeout(
                f"{self._url} did not answer {self._call.method} {self._call.path} within {self._timeout_s:g} s; ask for "
                "less, or connect with a larger timeout_s"
            ) from error
        raise ServiceError(
            f"{self._url} cannot be reached ({type(error).__name__}: {error}); does the service run?"
        ) from error

    def result(self, response: httpx2.Response) -> Any:
        """Raises the error that the service tells."""
        if response.is_success:
            return self._call.result(response.content)
        raise wire.error_from_wire(response.status_code, response.content, first=self._call.first)

    def _pause(self, at_least_s: float = 0.0) -> float | None:
        self._tried += 1
        if self._tried >= TRIES:
            return None
        pause = (
            _FIRST_PAUSE_S * float(2 ** (self._tried - 1)) * random.uniform(0.5, 1.0)
        )  # spread, so that clients do not come back at once
        return min(max(pause, at_least_s), _LONGEST_PAUSE_S)


class Sender:
    """Sends calls and waits for their results. For any number of threads."""

    def __init__(self, url: str, api_key: str | None, timeout_s: float, http: httpx2.Client | None = None) -> None:
        self.url = url
        self._timeout_s = timeout_s
        self._http: httpx2.Client = http or load_httpx().Client(**options_of(url, api_key, timeout_s))
        self._errors = load_httpx().TransportError
        self._is_closed = False

    def send(self, call: Call[T]) -> T:
        judge = _Judge(call, self.url, self._timeout_s)
        while True:
            _check_open(self._is_closed, self.url)
            try:
                response = self._http.request(**judge.arguments)
            except self._errors as error:
                pause: float | None = judge.pause_after_failure(error)
            else:
                pause = judge.pause_after(response)
                if pause is None:
                    result: T = judge.result(response)
                    return result
            time.sleep(pause or 0.0)

    def close(self) -> None:
        self._is_closed = True
        self._http.close()


class AsyncSender:
    """Sends calls and waits for their results without holding up the event loop."""

    def __init__(self, url: str, api_key: str | None, timeout_s: float, http: httpx2.AsyncClient | None = None) -> None:
        self.url = url
        self._timeout_s = timeout_s
        self._http: httpx2.AsyncClient = http or load_httpx().AsyncClient(**options_of(url, api_key, timeout_s))
        self._errors = load_httpx().TransportError
        self._is_closed = False

    async def send(self, call: Call[T]) -> T:
        judge = _Judge(call, self.url, self._timeout_s)
        while True:
            _check_open(self._is_closed, self.url)
            try:
                response = await self._http.request(**judge.arguments)
            except self._errors as error:
                pause: float | None = judge.pause_after_failure(error)
            else:
                pause = judge.pause_after(response)
                if pause is None:
                    result: T = judge.result(response)
                    return result
            await asyncio.sleep(pause or 0.0)

    async def close(self) -> None:
        self._is_closed = True
        await self._http.aclose()


def _check_open(is_closed: bool, url: str) -> None:
    if is_closed:
        raise DatabaseClosed(f"the connection to {url} was closed; connect again")
