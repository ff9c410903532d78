"""serve: runs the service on granian, or on uvicorn, until it is told to stop.

One process serves, with threads: a second one would keep its own copy of every index in memory. granian starts that
process itself, so the database is opened there and not before (SQLite's connections do not survive a fork).
"""

from __future__ import annotations

import importlib.util
import multiprocessing
import os
import signal
import socket
import threading
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import vecdb
from vecdb.errors import InvalidInput, MissingExtra
from vecdb.server.keys import KeyStore
from vecdb.server.settings import Settings

if TYPE_CHECKING:
    from fastapi import FastAPI


def serve(path: str | Path, settings: Settings | None = None) -> None:
    """Serve the database file until SIGTERM or SIGINT; then finish what is running, close the file and return.

    Raises InvalidInput if it would be open to the network without keys, MissingExtra without a server package, and
    whatever `vecdb.open` raises for the file.
    """
    settings = settings or Settings()
    check(settings)
    address = bindable(settings)
    _open(path, settings).close()  # a file that cannot be opened is told here, before a process is started for it
    if settings.server == "granian":
        _on_granian(path, settings, address)
    else:
        _on_uvicorn(path, settings, address)


def check(settings: Settings) -> None:
    """Refuses settings that cannot be served, or only at a risk that nobody asked for."""
    if importlib.util.find_spec(settings.server) is None:
        raise MissingExtra.of(settings.server, extra="server", what="the service")
    if KeyStore(settings.keys_file).is_open and not settings.is_loopback and not settings.insecure:
        raise InvalidInput(
            f"without API keys everybody who reaches {settings.host} could read and change the database; make a key file "
            "and name it in VECDB_KEYS_FILE, or listen on 127.0.0.1, or pass insecure=True (--insecure) if something in "
            "front of it checks"
        )


def bindable(settings: Settings) -> str:
    """The number of the address to listen on. Raises InvalidInput if its name is unknown or the port is taken."""
    try:
        found = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, _, _, place = found[0]
        with socket.socket(family, kind) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(place)
    except OSError as error:
        raise InvalidInput(
            f"cannot listen on {settings.host} port {settings.port}: {error.strerror}; choose another one, or stop who "
            "listens there"
        ) from error
    return str(place[0])


def load_app(path: str | Path, settings: Settings) -> FastAPI:
    """The application with its database, for the process that serves it."""
    from vecdb.server.app import create_app

    return create_app(_open(path, settings), settings, owns_database=True)


def _open(path: str | Path, settings: Settings) -> vecdb.Database:
    return vecdb.open(
        path,
        create=not settings.read_only,
        read_only=settings.read_only,
        durability=settings.durability,
        device=settings.device,
    )


def _on_granian(path: str | Path, settings: Settings, address: str) -> None:
    from granian import Granian
    from granian.constants import HTTPModes, Interfaces
    from granian.http import HTTP1Settings

    server = Granian(
        "vecdb.server",  # only a name: the loader below makes the application
        address=address,
        port=settings.port,
        interface=Interfaces.ASGI,
        workers=1,
        # Granian's automatic mode waits for the first bytes without end, to see which HTTP it is; HTTP/1 alone closes
        # an idle socket after the header timeout, which also bounds half-sent headers and idle kept-alive connections.
        http=HTTPModes.http1,
        http1_settings=HTTP1Settings(header_read_timeout=int(settings.idle_timeout_s * 1000)),
        websockets=False,
        log_access=settings.access_log,
        workers_kill_timeout=settings.shutdown_timeout_s,
    )
    server.serve(target_loader=partial(_load_in_worker, path, settings), wrap_loader=False)


def _load_in_worker(path: str | Path, settings: Settings) -> FastAPI:
    """The application, in the process that granian started. It stops when its parent is killed: alone, it would hold
    the port and the file with nobody to stop it.
    """
    threading.Thread(target=_stop_after_parent, name="vecdb-parent-watch", daemon=True).start()
    return load_app(path, settings)


def _stop_after_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)  # as granian itself would have done: running requests finish


def _on_uvicorn(path: str | Path, settings: Settings, address: str) -> None:
    import uvicorn

    # After a graceful stop uvicorn raises the signal again for the handler that was there before; the default one
    # would end the process as if it had been killed.
    before = {number: signal.signal(number, _stopped_already) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        uvicorn.run(
            load_app(path, settings),
            host=address,
            port=settings.port,
            access_log=settings.access_log,
            timeout_keep_alive=int(settings.idle_timeout_s),
            timeout_graceful_shutdown=settings.shutdown_timeout_s,
            ws="none",
        )
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _stopped_already(number: int, frame: object) -> None:
    pass
