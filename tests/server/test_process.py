"""The service as a process of its own on a loopback socket: what only a real server can show."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest

import vecdb

pytest.importorskip("granian")
pytest.importorskip("uvicorn")
pytest.importorskip("httpx2")

SERVERS = ["granian", "uvicorn"]
START_WITHIN_S = 60.0  # of a loaded machine


class Process:
    """A running service."""

    def __init__(self, process: subprocess.Popen[bytes], port: int) -> None:
        self.process = process
        self.port = port
        self.url = f"http://127.0.0.1:{port}"

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=30)

    def socket(self) -> socket.socket:
        connection = socket.create_connection(("127.0.0.1", self.port), timeout=15)
        return connection


@contextmanager
def running(path: Path, **settings: str) -> Iterator[Process]:
    port = free_port()
    environment = {**os.environ, "VECDB_PORT": str(port), **{f"VECDB_{k.upper()}": v for k, v in settings.items()}}
    log = path.with_suffix(".log")
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "vecdb.server", str(path)], env=environment, stdout=output, stderr=output
        )
        try:
            _wait_until_ready(process, port, log)
            yield Process(process, port)
        finally:
            with suppress(ProcessLookupError):
                process.terminate()
            try:
                process.wait(timeout=30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_until_ready(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + START_WITHIN_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            pytest.fail(f"the service ended with {process.returncode}: {log.read_text()}")
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
                connection.settimeout(5)
                connection.sendall(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
                if connection.recv(64).startswith(b"HTTP/1.1 200"):
                    return
        except OSError:
            pass
        time.sleep(0.1)
    pytest.fail(f"the service was not ready within {START_WITHIN_S} s: {log.read_text()}")


def everything(connection: socket.socket) -> bytes:
    """What comes until the other side closes."""
    received = b""
    with suppress(ConnectionResetError):
        while piece := connection.recv(65_536):
            received += piece
    return received


def head(path: str, *headers: str, method: str = "POST") -> bytes:
    return "\r\n".join([f"{method} {path} HTTP/1.1", "Host: localhost", *headers, "", ""]).encode()


def chunk(data: bytes) -> bytes:
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"


@pytest.mark.parametrize("server", SERVERS)
def test_a_process_serves_and_keeps_what_it_acknowledged(server: str, path: Path) -> None:
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((300, 8)).astype(np.float32)
    with running(path, server=server) as service, vecdb.connect(service.url) as db:
        docs = db.collection("docs", dimension=8)
        docs.add(ids=[f"d{i}" for i in range(300)], vectors=vectors, texts=["some words"] * 300, batch_size=100)
        assert docs.search(vectors[7], k=1)[0].id == "d7"
        assert len(docs.search("words", k=300)) == 300
        assert service.stop() == 0
    with vecdb.open(path, background=False) as db:
        assert len(db.collection("docs")) == 300
        assert db.check() == []


@pytest.mark.parametrize("server", SERVERS)
def test_a_running_upload_finishes_when_the_service_is_told_to_stop(server: str, path: Path) -> None:
    with running(path, server=server) as service:
        with vecdb.connect(service.url) as db:
            db.collection("docs")
        with service.socket() as connection:
            upload = head(
                "/v1/collections/docs/records/bulk",
                "Content-Type: application/x-ndjson",
                "Transfer-Encoding: chunked",
                "Connection: close",
            )
            connection.sendall(upload + chunk(b'{"id": "before", "text": "sent before the signal"}\n'))
            time.sleep(0.5)  # it is being read now
            service.process.send_signal(signal.SIGTERM)
            time.sleep(0.5)
            connection.sendall(chunk(b'{"id": "after", "text": "sent after it"}\n') + b"0\r\n\r\n")
            answer = everything(connection)
        assert answer.startswith(b"HTTP/1.1 200")
        assert b'"added":2' in answer
        assert service.process.wait(timeout=30) == 0
    with vecdb.open(path, background=False) as db:
        assert db.collection("docs").count() == 2


def test_no_process_is_left_when_the_first_one_is_killed(path: Path) -> None:
    with running(path, server="granian") as service:
        service.process.kill()
        service.process.wait()
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            try:
                service.socket().close()
            except ConnectionRefusedError:
                break
            time.sleep(0.1)
        else:
            pytest.fail("somebody still listens")
    with vecdb.open(path, background=False) as db:
        assert db.check() == []


def test_slow_bodies_half_heads_and_idle_sockets_are_cut_off(path: Path) -> None:
    with running(path, body_timeout_s="0.5", idle_timeout_s="1") as service:
        with vecdb.connect(service.url) as db:
            db.collection("docs")
        begun = time.monotonic()
        with service.socket() as stalled, service.socket() as silent, service.socket() as half:
            stalled.sendall(
                head("/v1/collections/docs/search", "Content-Type: application/json", "Content-Length: 50") + b"{"
            )
            half.sendall(b"POST /v1 HTT")
            assert everything(stalled).startswith(b"HTTP/1.1 408")
            everything(silent)
            everything(half)
        assert time.monotonic() - begun < 12  # each would last for ever otherwise


def test_a_body_without_end_is_refused_while_it_comes(path: Path) -> None:
    with running(path, max_body_bytes="100000") as service:
        with vecdb.connect(service.url) as db:
            db.collection("docs")
        with service.socket() as connection:
            connection.sendall(
                head("/v1/collections/docs/search", "Content-Type: application/json", "Transfer-Encoding: chunked")
            )
            with suppress(BrokenPipeError, ConnectionResetError):
                for _ in range(10_000):
                    connection.sendall(chunk(b" " * 65_536))
            assert everything(connection).startswith(b"HTTP/1.1 413") or service.process.poll() is None
        with vecdb.connect(service.url) as db:
            assert db.collections() == ["docs"]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"host": "0.0.0.0"}, "without API keys"),
        ({"keys_file": "/nonexistent/keys.json"}, "cannot be read as a key file"),
    ],
)
def test_what_cannot_be_served_safely_is_refused_at_once(settings: dict[str, str], words: str, path: Path) -> None:
    environment = {**os.environ, **{f"VECDB_{key.upper()}": value for key, value in settings.items()}}
    done = subprocess.run(
        [sys.executable, "-m", "vecdb.server", str(path)], env=environment, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 1
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert not path.exists()


def test_a_file_of_another_kind_is_refused_in_one_line(path: Path) -> None:
    path.write_bytes(b"no database" * 1000)
    done = subprocess.run([sys.executable, "-m", "vecdb.server", str(path)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("server", SERVERS)
def test_a_taken_port_is_told_in_one_line(server: str, path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        environment = {**os.environ, "VECDB_PORT": str(taken.getsockname()[1]), "VECDB_SERVER": server}
        command = [sys.executable, "-m", "vecdb.server", str(path)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "cannot listen on 127.0.0.1" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_setting_that_cannot_be_is_told_in_one_line(path: Path) -> None:
    environment = {**os.environ, "VECDB_PORT": "eighty"}
    command = [sys.executable, "-m", "vecdb.server", str(path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert done.stderr.startswith("vecdb: VECDB_PORT: ")
