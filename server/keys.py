"""API keys: made at random, shown once, kept only as a SHA-256 digest in a file of their own.

A key carries 256 random bits, so a plain digest is enough: there is nothing to guess, and a slow password hash would
only cost time on each request. The file is JSON, {"keys": [{"name", "sha256", "scope", "collections", "created"},
...]}, readable by its owner alone. A running service notices when it changes, so that a revoked key stops working at
once.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import os
import secrets
import tempfile
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from vecdb.errors import InvalidInput, NotFound

Scope = Literal["read", "write"]
PREFIX = "vecdb_"  # lets people and secret scanners recognise a leaked key
_log = logging.getLogger("vecdb.server")


@dataclass(frozen=True, slots=True)
class ApiKey:
    """What is known of one key: never the key itself. collections is None for all of them."""

    name: str
    sha256: str
    scope: Scope
    collections: tuple[str, ...] | None
    created: str

    def may_read(self, collection: str) -> bool:
        return self.collections is None or collection in self.collections

    def may_write(self, collection: str) -> bool:
        return self.scope == "write" and self.may_read(collection)


def create_key(path: str | Path, *, name: str, scope: Scope = "read", collections: Iterable[str] | None = None) -> str:
    """A new key, added to the file (made if absent). Returned once; the file holds only its digest.

    Raises InvalidInput for an empty or used name, an unknown scope, or a file that is no key file.
    """
    if scope not in ("read", "write"):
        raise InvalidInput(f"scope is {scope!r}; it must be 'read' or 'write'")
    if not name.strip():
        raise InvalidInput("the key has no name; name it after who will use it, so that it can be revoked")
    path = Path(path)
    entries = list_keys(path) if path.exists() else []
    if any(entry.name == name for entry in entries):
        raise InvalidInput(f"{path} already holds a key named {name!r}; choose another name or revoke that one")
    key = PREFIX + secrets.token_urlsafe(32)
    limited = None if collections is None else tuple(collections)
    created = datetime.now(UTC).isoformat(timespec="seconds")
    _write(path, [*entries, ApiKey(name, _digest(key), scope, limited, created)])
    return key


def list_keys(path: str | Path) -> list[ApiKey]:
    """Every entry of a key file. Raises InvalidInput if it cannot be read as one."""
    try:
        saved = json.loads(Path(path).read_bytes())
        return [_entry(item) for item in saved["keys"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InvalidInput(
            f"{path} cannot be read as a key file ({error}); make one with create_key, or correct it by hand"
        ) from error


def revoke_key(path: str | Path, name: str) -> None:
    """Take a key out of the file. Raises NotFound if no key has that name."""
    entries = list_keys(path)
    kept = [entry for entry in entries if entry.name != name]
    if len(kept) == len(entries):
        names = ", ".join(sorted(entry.name for entry in entries)) or "none"
        raise NotFound(f"{path} holds no key named {name!r}; it holds: {names}")
    _write(Path(path), kept)


class KeyStore:
    """The keys of one file, read again when it changes. Without a file there are no keys, and `is_open` is true."""

    def __init__(self, path: str | Path | None) -> None:
        self._path = None if path is None else Path(path)
        self._entries: Sequence[ApiKey] = ()
        self._seen: tuple[int, int, int] | None = None
        if self._path is not None:
            self._entries = list_keys(self._path)
            self._seen = self._stamp()

    @property
    def is_open(self) -> bool:
        """Whether anybody may ask, no key being configured."""
        return self._path is None

    def find(self, key: str) -> ApiKey | None:
        """The entry of a presented key, or None. All are compared, so that time does not tell which matched."""
        self._refresh()
        presented, found = _digest(key), None
        for entry in self._entries:
            if hmac.compare_digest(entry.sha256, presented):
                found = entry
        return found

    def _stamp(self) -> tuple[int, int, int] | None:
        assert self._path is not None
        try:
            stat = self._path.stat()
        except OSError:
            return None
        return stat.st_ino, stat.st_mtime_ns, stat.st_size

    def _refresh(self) -> None:
        """Follow the file. While it cannot be read nobody gets in: a lost file must not bring revoked keys back."""
        if self._path is None or (stamp := self._stamp()) == self._seen:
            return
        try:
            self._entries = list_keys(self._path)
        except InvalidInput as error:
            _log.error("no API key is accepted: %s", error)
            self._entries = ()
        self._seen = stamp


def _digest(key: str) -> str:
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()


def _entry(item: dict[str, Any]) -> ApiKey:
    collections = item.get("collections")
    entry = ApiKey(
        name=item["name"],
        sha256=item["sha256"],
        scope=item["scope"],
        collections=None if collections is None else tuple(collections),
        created=item.get("created", ""),
    )
    if entry.scope not in ("read", "write"):
        raise ValueError(f"key {entry.name!r} has scope {entry.scope!r}; it must be 'read' or 'write'")
    if len(bytes.fromhex(entry.sha256)) != 32:
        raise ValueError(f"key {entry.name!r} has a digest that is not 32 bytes in hexadecimal")
    if isinstance(collections, str):
        raise ValueError(f"key {entry.name!r} has a string as collections; it must be a list of names or null")
    return entry


def _write(path: Path, entries: Sequence[ApiKey]) -> None:
    """Replace the file at once: a service that reads it meanwhile sees the old or the new one, never half of it."""
    text = json.dumps({"keys": [asdict(entry) for entry in entries]}, indent=2, ensure_ascii=False) + "\n"
    handle, temporary = tempfile.mkstemp(dir=path.resolve().parent, prefix=f".{path.name}.")  # mode 0600
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary)
        raise
