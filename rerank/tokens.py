"""Token vectors of a text, in the form in which they are stored and compared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from vecdb.errors import InvalidVector
from vecdb.types import Vector

TokenCodec = Literal["float32", "float16", "int8"]
CODECS: tuple[TokenCodec, ...] = ("float32", "float16", "int8")

_DTYPES: dict[str, str] = {"float32": "<f4", "float16": "<f2", "int8": "|u1"}
_ZERO = 128  # the code of 0: bytes are unsigned, because the instruction that multiplies them wants one side so


@dataclass(frozen=True, slots=True)
class Tokens:
    """codes (T, D) float32, float16 or uint8; one token a row. scales (T,) float32: uint8 means (code - 128) * scale."""

    codes: NDArray[Any]
    scales: Vector | None = None

    def __len__(self) -> int:
        return len(self.codes)

    @property
    def dimension(self) -> int:
        return int(self.codes.shape[1])

    def dense(self) -> Vector:
        """(T, D) float32."""
        if self.scales is None:
            return np.asarray(self.codes, dtype=np.float32)
        return (self.codes.astype(np.float32) - _ZERO) * self.scales[:, None]


def encode_tokens(vectors: Vector, codec: TokenCodec) -> Tokens:
    """(T, D) float32 as codes. int8: each row times 127 over its largest magnitude, rounded; a row of zeros has the scale 0."""
    if vectors.ndim != 2 or not np.isfinite(vectors).all():
        raise InvalidVector(f"token vectors have the shape {vectors.shape}; give finite numbers, one row a token")
    if codec != "int8":
        with np.errstate(over="ignore"):
            codes = np.ascontiguousarray(vectors, dtype=_DTYPES[codec])
        if not np.isfinite(codes).all():
            raise InvalidVector(
                "a token vector has a number that float16 cannot hold; give unit vectors, or take float32"
            )
        return Tokens(codes)
    scales = (np.abs(vectors).max(axis=1, initial=0.0) / 127.0).astype(np.float32)
    codes = np.rint(vectors / np.where(scales > 0, scales, 1.0)[:, None]) + _ZERO
    return Tokens(np.clip(codes, 1, 255).astype(np.uint8), scales)


def to_bytes(tokens: Tokens) -> bytes:
    """Codes row by row, little-endian, then the scales as float32 if there are any."""
    scales = b"" if tokens.scales is None else np.ascontiguousarray(tokens.scales, dtype="<f4").tobytes()
    return np.ascontiguousarray(tokens.codes).tobytes() + scales


def from_bytes(data: bytes, dimension: int, codec: TokenCodec) -> Tokens:
    """What `to_bytes` gave. Raises InvalidVector for a length that no number of tokens has."""
    dtype = np.dtype(_DTYPES[codec])
    token_bytes = dimension * dtype.itemsize + (4 if codec == "int8" else 0)
    count, rest = divmod(len(data), token_bytes)
    if rest:
        raise InvalidVector(
            f"{len(data)} bytes are no {codec} token vectors of {dimension} numbers, which take {token_bytes} each"
        )
    codes = np.frombuffer(data, dtype, count * dimension).reshape(count, dimension)
    scales = np.frombuffer(data, "<f4", count, count * dimension * dtype.itemsize) if codec == "int8" else None
    return Tokens(codes, scales)


def joined(parts: Sequence[Tokens]) -> tuple[Tokens, NDArray[np.int64]]:
    """Tokens of several texts, one after the other, and (n + 1,) where each begins and ends. All of one codec."""
    ends = np.concatenate([[0], np.cumsum([len(part) for part in parts])]).astype(np.int64)
    scales = [part.scales for part in parts if part.scales is not None]
    if len(scales) not in (0, len(parts)) or len({part.codes.dtype for part in parts}) > 1:
        raise InvalidVector(
            "token vectors of several codecs cannot be compared together; bring them to one with dense()"
        )
    return Tokens(np.concatenate([part.codes for part in parts]), np.concatenate(scales) if scales else None), ends
