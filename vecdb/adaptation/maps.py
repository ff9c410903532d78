"""A map of query vectors that leaves stored vectors as they are, and how it is fitted.

A query q of length |q| becomes |q| · unit(u + U Vᵀ u + b) with u = q / |q|: the identity and a correction of low rank. It is
fitted by softmax over the documents of a batch and the hard negatives of all its queries (multiple negatives ranking: Henderson
et al. 2017, section 4.4), drawn towards the identity, by Adam (Kingma & Ba 2015). Arrays in, arrays out; no text, no SQL.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vecdb.errors import StorageError
from vecdb.types import Metric
from vecdb.vectors import Matrix

Places = NDArray[np.int64]

_MOMENTUM, _SPREAD, _TINY = 0.9, 0.999, 1e-8  # Adam's


@dataclass(frozen=True, slots=True)
class FitSettings:
    """temperature: of the softmax over cosines. towards_identity: what a squared distance of 1 between a query and where it is
    mapped to costs, beside the loss in nats. The defaults were chosen on five judged collections (see `bench adapt`).
    """

    rank: int = 16
    towards_identity: float = 6.0
    temperature: float = 0.05
    epochs: int = 12
    batch: int = 128
    rate: float = 1e-3


@dataclass(frozen=True, slots=True)
class QueryMap:
    """u, v: (D, R) float32. b: (D,) float32."""

    u: Matrix
    v: Matrix
    b: Matrix

    def __call__(self, queries: Matrix) -> Matrix:
        """(B, D) -> (B, D) of the same lengths; a zero vector stays one."""
        lengths = np.linalg.norm(queries, axis=1, keepdims=True)
        units = np.divide(queries, lengths, out=np.zeros_like(queries), where=lengths > 0)
        moved = units + (units @ self.v) @ self.u.T + self.b
        norms = np.linalg.norm(moved, axis=1, keepdims=True)
        # What the correction cancels has no direction any more; it keeps the one that it had.
        directions = np.divide(moved, norms, out=units, where=norms > _TINY)
        return np.ascontiguousarray(directions * lengths, dtype=np.float32)

    def arrays(self) -> dict[str, Matrix]:
        return {"u": self.u, "v": self.v, "b": self.b}

    @classmethod
    def of_arrays(cls, arrays: Mapping[str, NDArray[Any]], dimension: int | None) -> QueryMap:
        """Raises StorageError if they are none of a map of vectors of that dimension."""
        try:
            found = cls(*(np.asarray(arrays[name], dtype=np.float32) for name in ("u", "v", "b")))
            fits = found.u.shape == found.v.shape == (len(found.b), found.u.shape[1]) and found.b.ndim == 1
        except (KeyError, ValueError, IndexError):
            fits = False
        if not fits or dimension not in (None, len(found.b)) or not all(np.isfinite(a).all() for a in arrays.values()):
            raise StorageError(
                "the map that is kept for the collection's queries is damaged; collection.reset_adapter() removes it, and "
                "collection.adapt() makes another"
            )
        return found


@dataclass(frozen=True, slots=True)
class Lesson:
    """What a map is fitted to. queries: (N, D). documents: (M, D), each once. positives: (N,) and negatives: (N, H) are places
    among the documents.
    """

    queries: Matrix
    documents: Matrix
    positives: Places
    negatives: Places


def fit_map(lesson: Lesson, metric: Metric, *, settings: FitSettings | None = None, seed: int = 0) -> QueryMap:
    """The map under which queries find their positives best. The same lesson and seed give the same map."""
    settings = settings or FitSettings()
    rng = np.random.default_rng(seed)
    dimension = lesson.queries.shape[1]
    v = rng.standard_normal((dimension, settings.rank)) / np.sqrt(dimension)
    weights = [np.zeros((dimension, settings.rank), np.float32), v.astype(np.float32), np.zeros(dimension, np.float32)]
    adam = _Adam(weights, settings.rate)
    scored = _Scored.of(lesson, metric)
    for _ in range(settings.epochs):
        order = rng.permutation(len(lesson.queries))
        for start in range(0, len(order), settings.batch):
            _, slopes = _loss(scored, order[start : start + settings.batch], weights, settings)
            adam.step(slopes)
    return QueryMap(*weights)


@dataclass(frozen=True, slots=True)
class _Scored:
    """A lesson in which a score is lengths[i] · (direction of query i · documents[j]) - offsets[j], of about a cosine's size, and
    in the order of the metric.
    """

    lesson: Lesson
    units: Matrix
    lengths: Matrix
    documents: Matrix
    offsets: Matrix

    @classmethod
    def of(cls, lesson: Lesson, metric: Metric) -> _Scored:
        norms = np.linalg.norm(lesson.queries, axis=1)
        units = lesson.queries / np.maximum(norms, _TINY)[:, None]
        scale = max(float(np.linalg.norm(lesson.documents, axis=1).mean()), _TINY)
        documents = lesson.documents / np.float32(scale)
        if metric != "l2":  # an inner product orders alike for queries of any length
            return cls(lesson, units, np.ones_like(norms), documents, np.zeros(len(documents), np.float32))
        offsets = np.einsum("nd,nd->n", documents, documents) / 2
        return cls(lesson, units, norms / np.float32(scale), documents, offsets)


def _loss(scored: _Scored, batch: Places, weights: list[Matrix], settings: FitSettings) -> tuple[float, list[Matrix]]:
    """The mean loss of a batch of queries, and its slopes by u, v and b."""
    u, v, b = weights
    lesson = scored.lesson
    places = np.unique(np.concatenate([lesson.positives[batch], lesson.negatives[batch].ravel()]))
    documents, at = scored.documents[places], np.searchsorted(places, lesson.positives[batch])
    queries, lengths = scored.units[batch], scored.lengths[batch, None]
    inner = queries @ v
    moved = queries + inner @ u.T + b
    norms = np.maximum(np.linalg.norm(moved, axis=1, keepdims=True), _TINY)
    directions = moved / norms
    scores = (lengths * (directions @ documents.T) - scored.offsets[places]) / np.float32(settings.temperature)
    scores -= scores.max(axis=1, keepdims=True)
    chances = np.exp(scores)
    chances /= chances.sum(axis=1, keepdims=True)
    each = np.arange(len(batch))
    apart = directions - queries
    nats = -np.log(np.maximum(chances[each, at], _TINY))
    loss = float(nats.mean() + settings.towards_identity * np.einsum("nd,nd->n", apart, apart).mean())
    chances[each, at] -= 1
    by_direction = lengths * (chances @ documents) / np.float32(settings.temperature)
    by_direction = (by_direction + 2 * np.float32(settings.towards_identity) * apart) / np.float32(len(batch))
    along = np.einsum("nd,nd->n", by_direction, directions)[:, None]
    by_moved = (by_direction - along * directions) / norms
    return loss, [by_moved.T @ inner, queries.T @ (by_moved @ u), by_moved.sum(axis=0)]


class _Adam:
    """Steps down the slopes, each number at its own pace. weights are changed in place."""

    def __init__(self, weights: list[Matrix], rate: float) -> None:
        self._weights, self._rate, self._steps = weights, rate, 0
        self._means = [np.zeros_like(w) for w in weights]
        self._squares = [np.zeros_like(w) for w in weights]

    def step(self, slopes: list[Matrix]) -> None:
        self._steps += 1
        rate = np.float32(self._rate * np.sqrt(1 - _SPREAD**self._steps) / (1 - _MOMENTUM**self._steps))
        for weight, mean, square, slope in zip(self._weights, self._means, self._squares, slopes):
            mean += np.float32(1 - _MOMENTUM) * (slope - mean)
            square += np.float32(1 - _SPREAD) * (slope * slope - square)
            weight -= rate * mean / (np.sqrt(square) + np.float32(_TINY))
