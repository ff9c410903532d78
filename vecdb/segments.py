"""Segments: an index as one immutable, checksummed, memory-mapped file beside the database.

They are derived from the tables: whatever happens to them, `open_segment` either gives the arrays that were written or raises
CorruptIndex, and the caller goes on with exact search.

    magic "VECDBSEG" · version u32 · length of header u32 · crc32 of header u32 · header (JSON) · padding · arrays

Each array begins at a multiple of 64 bytes.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from vecdb import durable
from vecdb.errors import CorruptIndex

_MAGIC = b"VECDBSEG"
_VERSION = 1
_HEAD = struct.Struct("<8sIII")
_ALIGNMENT = 64


@dataclass(frozen=True, slots=True)
class Segment:
    settings: dict[str, Any]
    arrays: Mapping[str, NDArray[Any]]


def write_segment(path: Path, settings: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> int:
    """Write a segment; returns the checksum of its header, which covers all else by the checksums it holds."""
    entries = {}
    position = 0
    for name, array in arrays.items():
        data = _bytes_of(array)
        entries[name] = {
            "dtype": array.dtype.str,
            "shape": array.shape,
            "offset": position,
            "crc32": zlib.crc32(data),
        }
        position = _aligned(position + len(data))
    header = orjson.dumps({"settings": dict(settings), "arrays": entries})
    checksum = zlib.crc32(header)
    durable.write_file(path, _chunks(header, checksum, arrays))
    return checksum


def open_segment(path: Path, checksum: int) -> Segment:
    """Map a segment and verify every byte. checksum: the one that `write_segment` gave. Raises CorruptIndex."""
    try:
        mapped = np.memmap(path, dtype=np.uint8, mode="r")
        magic, version, length, stored = _HEAD.unpack(mapped[: _HEAD.size].tobytes())
        header = mapped[_HEAD.size : _HEAD.size + length].tobytes()
        if magic != _MAGIC or version != _VERSION or not stored == checksum == zlib.crc32(header):
            raise CorruptIndex(f"{path.name} is not the segment that the database registered; it will be rebuilt")
        contents = orjson.loads(header)
        start = _aligned(_HEAD.size + length)
        arrays = {name: _array(mapped, start, name, entry, path) for name, entry in contents["arrays"].items()}
    except (OSError, ValueError, struct.error, KeyError) as error:
        raise CorruptIndex(f"{path.name} cannot be read as a segment ({error}); it will be rebuilt") from error
    return Segment(contents["settings"], arrays)


def _array(mapped: NDArray[np.uint8], start: int, name: str, entry: Mapping[str, Any], path: Path) -> NDArray[Any]:
    dtype, shape = np.dtype(entry["dtype"]), tuple(entry["shape"])
    size = dtype.itemsize * int(np.prod(shape, dtype=np.int64))
    data = mapped[start + entry["offset"] : start + entry["offset"] + size]
    if len(data) != size or zlib.crc32(data.data) != entry["crc32"]:
        raise CorruptIndex(f"array {name!r} of {path.name} is damaged; it will be rebuilt")
    array: NDArray[Any] = np.asarray(data).view(dtype).reshape(shape)
    return array


def _chunks(header: bytes, checksum: int, arrays: Mapping[str, NDArray[Any]]) -> Iterator[bytes | memoryview]:
    yield _HEAD.pack(_MAGIC, _VERSION, len(header), checksum)
    yield header
    yield bytes(_aligned(_HEAD.size + len(header)) - _HEAD.size - len(header))
    for array in arrays.values():
        data = _bytes_of(array)
        yield data
        yield bytes(_aligned(len(data)) - len(data))


def _bytes_of(array: NDArray[Any]) -> memoryview:
    flat = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    return flat.data


def _aligned(position: int) -> int:
    return -(-position // _ALIGNMENT) * _ALIGNMENT
