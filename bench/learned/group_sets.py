"""Vectors that come in groups, and queries of several vectors with the groups that answer them.

Texts: the sentences of each document are its group, the sentences of a query its vectors, judgements are of documents. Images:
the SIFT descriptors of each photograph are its group, those of another photograph of the same place a query.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bench.data import CACHE, data_folder, embed
from bench.retrieval.sets import Judged, load, vectors_of

Matrix = NDArray[np.float32]
Labels = NDArray[np.int64]

TEXTS = ("cisi", "cacm", "time", "cranfield")
SESSIONS = "locomo"
IMAGES = "landmarks"
_LEAST_LETTERS = 25  # a shorter sentence is joined to the one before it
_DESCRIPTORS = 300  # of a query image


@dataclass(frozen=True)
class GroupedSet:
    """base (N, D) float32 with groups (N,) numbers; queries: (m, D) each; relevant: of each query the groups that answer it."""

    name: str
    base: Matrix
    groups: Labels
    queries: list[Matrix]
    relevant: list[frozenset[int]]
    own: list[int]  # of each query, the group that is no answer; -1 for none

    @property
    def count(self) -> int:
        """Of groups."""
        return len(np.unique(self.groups))


def load_grouped(name: str) -> GroupedSet:
    """Raises SystemExit where the data is absent."""
    return _images() if name == IMAGES else _sessions() if name == SESSIONS else _texts(name)


def sentences(text: str) -> list[str]:
    """The sentences of a text, at full stops, question and exclamation marks; at least one."""
    made: list[str] = []
    for part in re.split(r"(?<=[.!?])\s+", " ".join(text.split())):
        if made and (len(part) < _LEAST_LETTERS or len(made[-1]) < _LEAST_LETTERS):
            made[-1] += " " + part
        else:
            made.append(part)
    return made


def _texts(name: str) -> GroupedSet:
    judged = load(name)
    documents = [sentences(text) for text in judged.texts]
    asked = [sentences(text) for text in judged.queries.values()]
    path = CACHE / "groups" / f"{name}-sentences-{judged.checksum}.npy"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_suffix(".unfinished")
        with unfinished.open("wb") as file:
            np.save(file, embed([s for many in (*documents, *asked) for s in many], f"{name}-sentences"))
        unfinished.rename(path)
    vectors = np.load(path)
    vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    count = sum(map(len, documents))
    place = {id: number for number, id in enumerate(judged.ids)}
    return GroupedSet(
        name,
        np.ascontiguousarray(vectors[:count]),
        np.repeat(np.arange(len(documents)), [len(many) for many in documents]),
        _cut(vectors[count:], [len(many) for many in asked]),
        [_good(judged, id, place) for id in judged.queries],
        [-1] * len(asked),
    )


def _good(judged: Judged, query: str, place: dict[str, int]) -> frozenset[int]:
    return frozenset(place[document] for document, grade in judged.qrels[query].items() if grade > 0)


def _cut(vectors: Matrix, sizes: Sequence[int]) -> list[Matrix]:
    ends = np.cumsum(sizes)[:-1]
    return [np.ascontiguousarray(part) for part in np.split(vectors, ends)]


def _images() -> GroupedSet:
    """Root-SIFT: of unit length (Arandjelović & Zisserman 2012), so that all of a photograph's descriptors weigh alike.

    Each photograph that has another view is asked with some of its descriptors, which are not in the base then; its own group is
    left out of the answer.
    """
    folder = data_folder()
    pictures = json.loads((folder / "images" / "landmarks" / "manifest.json").read_text())["images"]
    with np.load(folder / "vectors" / "sift-landmarks" / "data.npz") as saved:
        vectors = _root(np.concatenate([saved["base"], saved["queries"]]))
        owner = np.concatenate([saved["base_image"], saved["queries_image"]]).astype(np.int64)
    random = np.random.default_rng(0)
    is_asked = np.zeros(len(vectors), np.bool_)
    queries, relevant, own = [], [], []
    for image in np.unique(owner).tolist():
        place = pictures[image]["group"]
        good = frozenset(other for other, p in enumerate(pictures) if p["group"] == place and other != image)
        if place is not None and good:
            mine = random.permutation(np.flatnonzero(owner == image))[:_DESCRIPTORS]
            is_asked[mine] = True
            queries.append(vectors[np.sort(mine)])
            relevant.append(good)
            own.append(image)
    return GroupedSet(IMAGES, vectors[~is_asked], owner[~is_asked], queries, relevant, own)


def _root(descriptors: NDArray[np.uint8]) -> Matrix:
    shares = descriptors / np.maximum(descriptors.sum(axis=1, keepdims=True, dtype=np.float32), 1e-9)
    return np.sqrt(shares, dtype=np.float32)


def _sessions() -> GroupedSet:
    """LoCoMo: the turns of a session are its group; a question is answered by the sessions that hold its evidence."""
    judged = load(SESSIONS)
    documents, asked = vectors_of(judged)
    owners = [id.partition(":")[0] for id in judged.ids]  # "conv-26/D1:3": the third turn of the first session
    numbers = {owner: number for number, owner in enumerate(dict.fromkeys(owners))}
    groups = np.array([numbers[owner] for owner in owners])
    place = {id: int(groups[row]) for row, id in enumerate(judged.ids)}
    asked = asked / np.linalg.norm(asked, axis=1, keepdims=True)
    return GroupedSet(
        SESSIONS,
        np.ascontiguousarray(documents / np.linalg.norm(documents, axis=1, keepdims=True)),
        groups,
        [asked[row : row + 1] for row in range(len(asked))],
        [_good(judged, id, place) for id in judged.queries],
        [-1] * len(asked),
    )
