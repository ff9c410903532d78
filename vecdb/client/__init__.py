"""Clients of the service: a database behind a URL, with the library's own methods, results and errors.

remote.py        sync: connect, RemoteDatabase, RemoteCollection
remote_async.py  the same as coroutines: connect_async, AsyncRemoteDatabase, AsyncRemoteCollection
calls.py         the requests and how answers are read, pure; both share them
transport.py     sending, trying again, errors; the only file that knows httpx2
"""

from __future__ import annotations

from vecdb.client.remote import RemoteCollection, RemoteDatabase, connect
from vecdb.client.remote_async import AsyncRemoteCollection, AsyncRemoteDatabase, connect_async

__all__ = [
    "AsyncRemoteCollection",
    "AsyncRemoteDatabase",
    "RemoteCollection",
    "RemoteDatabase",
    "connect",
    "connect_async",
]
