"""Token vectors of a text, in the form in which they are stored and compared."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from vecdb.errors import InvalidVector
from vecdb.types import Vector

TokenCodec = Literal["float32", "float16", "int8"]
CODECS: tuple[TokenCodec, ...] = ("float32", "float16", "int8")

_DTYPES: dict[str, str] = {"float32": "<f4", "float16": "<f2", "int8": "<i1"}


@dataclass(frozen=True, slots=True)
class Tokens:
    """codes (T, D) float32, float16 or int8; one token a row. scales (T,) float32: an int8 row times its scale is the vector."""

    codes: NDArray[Any]
    scales: Vector | None = None

    def __len__(self) -> int:
        return len(self.codes)

    @property
    def dimension(self) -> int:
        return int(self.codes.shape[1])

    def dense(self) -> Vector:
        """(T, D) float32."""
        vectors = self.codes.astype(np.float32)
        return vectors if self.scales is None else vectors * self.scales[:, None]


def encode_tokens(vectors: Vector, codec: TokenCodec) -> Tokens:
    """(T, D) float32 as codes. int8: each row times 127 over its largest magnitude, rounded; a row of zeros has scale 0."""
    if vectors.ndim != 2 or not np.isfinite(vectors).all():
        raise InvalidVector(f"token vectors have the shape {vectors.shape}; give finite numbers, one row a token")
    if codec != "int8":
        return Tokens(np.ascontiguousarray(vectors, dtype=_DTYPES[codec]))
    scales = (np.abs(vectors).max(axis=1, initial=0.0) / 127.0).astype(np.float32)
    codes = np.rint(vectors / np.where(scales > 0, scales, 1.0)[:, None]).astype(np.int8)
    return Tokens(codes, scales)


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
    scales = np.frombuffer(data, "<f4", count, count * dimension).astype(np.float32) if codec == "int8" else None
    return Tokens(codes, scales)
