"""What the service may be told: by arguments, or by environment variables that start with VECDB_ (VECDB_PORT=8080)."""

from __future__ import annotations

from ipaddress import ip_address
from pathlib import Path
from typing import Literal

from pydantic import ByteSize, Field, PositiveFloat, PositiveInt
from pydantic_settings import BaseSettings, SettingsConfigDict

MIB = 1 << 20


class Settings(BaseSettings):
    """One service's settings. Frozen; the only place in the service that reads the environment.

    Sizes are in bytes and may be written "64MiB"; times are in seconds.
    """

    model_config = SettingsConfigDict(env_prefix="VECDB_", frozen=True, extra="ignore")

    # Where it listens, and with what.
    host: str = "127.0.0.1"
    port: int = Field(default=8000, ge=0, le=65_535)
    server: Literal["granian", "uvicorn"] = "granian"
    access_log: bool = False
    docs: bool = False  # /docs fetches its scripts from a CDN, so a service that must work offline leaves it off
    metrics: bool = True

    # Who may ask.
    keys_file: Path | None = None
    insecure: bool = False  # without it, a service that has no keys listens on loopback only

    # How the file is opened.
    read_only: bool = False
    durability: Literal["full", "relaxed"] = "full"
    device: str = "cpu"  # "cuda:0" or "auto": a GPU that searches, see vecdb.open
    # Models that a client may name when it makes a collection, or for a reranker. A specification may be a folder or a URL,
    # which would let clients make this machine read and fetch what they like; so only what is named here is taken.
    models: tuple[str, ...] = ("default",)

    # How much one request may ask for.
    max_body_bytes: ByteSize = ByteSize(64 * MIB)
    max_bulk_bytes: ByteSize = ByteSize(64 * 1024 * MIB)  # of one NDJSON upload; it is never held whole
    max_line_bytes: ByteSize = ByteSize(4 * MIB)
    max_records: PositiveInt = 20_000
    max_k: PositiveInt = 1_000
    max_queries: PositiveInt = 1_000
    max_candidates: PositiveInt = 100_000  # bounds offset, ef and candidates: what one query may make the engine hold
    max_errors: PositiveInt = 1_000  # listed in the answer to a bulk upload; the rest are counted
    bulk_batch: PositiveInt = 500  # lines of a bulk upload that make one transaction

    # How long, and how many at once.
    max_concurrent: PositiveInt = 32
    request_timeout_s: PositiveFloat = 60.0
    body_timeout_s: PositiveFloat = 20.0  # waiting for the body, plus one second for each min_body_rate bytes of it
    min_body_rate: PositiveInt = 1_000  # bytes per second; a slower sender is cut off, however steadily it drips
    idle_timeout_s: PositiveFloat = 30.0
    shutdown_timeout_s: PositiveInt = 30
    gzip_min_bytes: PositiveInt = 1_024

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach the service."""
        if self.host == "localhost":
            return True
        try:
            return ip_address(self.host).is_loopback
        except ValueError:
            return False
