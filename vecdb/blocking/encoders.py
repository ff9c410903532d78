"""Vectors of records' texts: by the offline encoder, kept in a folder if one is named, or by one that was trained further."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from vecdb import durable
from vecdb.embedding.base import Embedder, Progress, embed_in_batches
from vecdb.errors import StorageError
from vecdb.kept import packed, unpacked

Matrix = NDArray[np.float32]


class Encoder(Protocol):
    """What gives a vector for each text."""

    @property
    def name(self) -> str:
        """What tells these vectors apart from those of another encoder."""

    def encode(self, texts: Sequence[str], progress: Progress | None = None) -> Matrix:
        """(N, D) float32."""


class Frozen:
    """An embedding model as it is. folder: where vectors are kept for the next time, a file for each list of texts."""

    def __init__(self, embedder: Embedder, folder: Path | None = None) -> None:
        self.embedder = embedder
        self._folder = folder

    @property
    def name(self) -> str:
        return self.embedder.name

    def encode(self, texts: Sequence[str], progress: Progress | None = None) -> Matrix:
        file = None if self._folder is None else self._folder / f"{_digest(self.name, texts)}.npz"
        if file is not None and (kept := _kept(file, len(texts))) is not None:
            return kept
        distinct = list(dict.fromkeys(texts))
        vectors = embed_in_batches(self.embedder, distinct, progress=progress)
        place = {text: i for i, text in enumerate(distinct)}
        found: Matrix = vectors[[place[text] for text in texts]]
        if file is not None:
            durable.make_folder(file.parent)
            durable.write_file(file, [packed({"vectors": found})])
        return found


def _kept(file: Path, count: int) -> Matrix | None:
    """Vectors that are kept; None if there are none, or they are damaged: they are only a saving of time."""
    try:
        vectors: Matrix = unpacked(file.read_bytes(), file.name)["vectors"]
    except (OSError, KeyError, StorageError):
        return None
    return vectors if vectors.ndim == 2 and len(vectors) == count else None


def _digest(name: str, texts: Sequence[str]) -> str:
    digest = hashlib.blake2b(name.encode(), digest_size=16)
    for text in texts:
        digest.update(b"\0" + hashlib.blake2b(text.encode(errors="replace"), digest_size=16).digest())
    return digest.hexdigest()


def offline_encoder(name: str, layers: Mapping[str, Any] | None = None, folder: Path | None = None) -> Encoder:
    """The encoder of this name, with trained layers if there are any. Raises ModelUnavailable."""
    from vecdb import embedding
    from vecdb.errors import ModelUnavailable

    if layers:
        from vecdb.blocking.tuned import Tuned

        return Tuned(dict(layers))
    if not embedding.loads_offline(name):
        raise ModelUnavailable(f"the encoder {name!r} cannot be loaded here; give it as encoder=")
    return Frozen(embedding.load_embedder(name), folder)
