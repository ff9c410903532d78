"""Searching by examples instead of a query: what is like these and unlike those.

    recommend   positive and negative examples.
        "average"          one vector: mean(positive), and without negatives that is all; with some, as far again away from
                           theirs: 2 mean(positive) - mean(negative). It goes through the index like any other query
        "best_score"       the nearest example decides: with p and n for the similarity to the nearest positive and to the
                           nearest negative, the score is h(p) where p > n, and -h(n) elsewhere
    discover    target and context, pairs of a positive and a negative example.
        with a target      for each pair 1 if the record is nearer to its positive, else -1; and h(similarity to the target).
                           So the pairs say in which region of the space, the target what comes first there
        without a target   for each pair min(0, similarity to its positive - similarity to its negative): 0 is the best

h(x) = (1 + x / (1 + |x|)) / 2 keeps any similarity between 0 and 1, in order. Similarities are the scores by vector. These are
the rules that Qdrant has under the same names.

An example is a record's id or a vector; those that are records never come back. What no single vector can say is measured on all
records that the filter admits, up to SCANNED of them (or with exact=True); above that, on a pool: those nearest to each positive
example and to the target.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from vecdb.errors import InvalidInput, InvalidQuery, InvalidVector

Floats = NDArray[np.float64]
Example = str | tuple[float, ...]
Strategy = Literal["average", "best_score"]

SCANNED: Final = 100_000
_MOST = 256


@dataclass(frozen=True, slots=True)
class Recommend:
    """Examples of what is wanted and of what is not. "average" needs a positive one, "best_score" one of either."""

    positive: tuple[Example, ...] = ()
    negative: tuple[Example, ...] = ()
    strategy: Strategy = "average"

    def __post_init__(self) -> None:
        for name in ("positive", "negative"):
            with InvalidInput.under(name):
                object.__setattr__(self, name, _examples(getattr(self, name)))
        if self.strategy not in ("average", "best_score"):
            raise InvalidQuery(f"strategy is {self.strategy!r}; it must be average or best_score", path="strategy")
        _check_count(self.examples)
        if not self.positive and (self.strategy == "average" or not self.negative):
            raise InvalidQuery("there is no positive example; give ids or vectors of what is wanted", path="positive")

    @property
    def examples(self) -> tuple[Example, ...]:
        return (*self.positive, *self.negative)

    @property
    def is_one_vector(self) -> bool:
        return self.strategy == "average"

    def vector(self, vectors: Floats) -> Floats:
        """(D,) of "average", from the vectors of the examples (E, D)."""
        wanted: Floats = vectors[: len(self.positive)].mean(axis=0)
        return 2 * wanted - vectors[len(self.positive) :].mean(axis=0) if self.negative else wanted

    @property
    def near(self) -> list[int]:
        """The examples whose neighbours are the pool."""
        return list(range(len(self.positive)))

    def scores(self, similarities: Floats) -> Floats:
        """(m,) for the similarities (m, E) of records to the examples."""
        count = len(self.positive)
        none = np.full(len(similarities), -np.inf)
        wanted = similarities[:, :count].max(axis=1) if count else none
        not_wanted = similarities[:, count:].max(axis=1) if self.negative else none
        return np.where(wanted > not_wanted, held(wanted), -held(not_wanted))

    def told(self, similarities: Sequence[float]) -> dict[str, Any]:
        """What the trace tells of one record."""
        count = len(self.positive)
        return {
            "positive": max(similarities[:count], default=None),
            "negative": max(similarities[count:], default=None),
        }


@dataclass(frozen=True, slots=True)
class Discover:
    """What is like the target (None: anything), in the region that pairs of examples point out."""

    target: Example | None = None
    context: tuple[tuple[Example, Example], ...] = ()

    def __post_init__(self) -> None:
        if self.target is not None:
            with InvalidInput.under("target"):
                object.__setattr__(self, "target", _example(self.target))
        with InvalidInput.under("context"):
            object.__setattr__(self, "context", _pairs(self.context))
        _check_count(self.examples)
        if not self.examples:
            raise InvalidQuery("there is neither a target nor a context to discover by; give one of them, or both")

    @property
    def examples(self) -> tuple[Example, ...]:
        target = () if self.target is None else (self.target,)
        return (*target, *(end for pair in self.context for end in pair))

    @property
    def is_one_vector(self) -> bool:
        return not self.context

    def vector(self, vectors: Floats) -> Floats:
        """(D,) where there is only a target, from the vectors of the examples (E, D)."""
        found: Floats = vectors[0]
        return found

    @property
    def near(self) -> list[int]:
        """The examples whose neighbours are the pool."""
        first = int(self.target is not None)
        return list(range(first)) + list(range(first, first + 2 * len(self.context), 2))

    def scores(self, similarities: Floats) -> Floats:
        """(m,) for the similarities (m, E) of records to the examples."""
        first = int(self.target is not None)
        differences = similarities[:, first::2] - similarities[:, first + 1 :: 2]
        scores: Floats = np.minimum(differences, 0).sum(axis=1)
        if self.target is not None:
            scores = np.where(differences > 0, 1.0, -1.0).sum(axis=1) + held(similarities[:, 0])
        return scores

    def told(self, similarities: Sequence[float]) -> dict[str, Any]:
        """What the trace tells of one record."""
        first = int(self.target is not None)
        pairs = [list(pair) for pair in zip(similarities[first::2], similarities[first + 1 :: 2])]
        return {"target": similarities[0] if first else None, "context": pairs}


Examples = Recommend | Discover


def held(similarities: Floats) -> Floats:
    """Any numbers, -inf too, held between 0 and 1 in their order."""
    with np.errstate(invalid="ignore"):  # where it is -inf / inf
        ratio = similarities / (1 + np.abs(similarities))
    return (1 + np.where(np.isneginf(similarities), -1.0, ratio)) / 2


def recommend_of(given: Any) -> Recommend | None:
    """Options, also from a mapping. Raises InvalidQuery, InvalidVector."""
    if given is None or isinstance(given, Recommend):
        return given
    return Recommend(**_named("recommend", given, Recommend))


def discover_of(given: Any) -> Discover | None:
    """Options, also from a mapping. Raises InvalidQuery, InvalidVector."""
    if given is None or isinstance(given, Discover):
        return given
    return Discover(**_named("discover", given, Discover))


def _named(name: str, given: Any, kind: type[Recommend] | type[Discover]) -> Mapping[str, Any]:
    known = [field.name for field in fields(kind)]
    if not isinstance(given, Mapping) or any(key not in known for key in given):
        raise InvalidQuery(f"{name} is {given!r}; give a mapping with some of {', '.join(known)}")
    return given


def _examples(given: Any) -> tuple[Example, ...]:
    """One id or vector, or several of them."""
    if given is None:
        return ()
    if not isinstance(given, str | Sequence | np.ndarray):
        raise InvalidQuery(f"examples are {given!r}; give a list of records' ids, or of vectors")
    if not len(given):
        return ()
    if isinstance(given, str) or isinstance(given[0], int | float | np.number):
        return (_example(given),)
    examples = []
    for place, one in enumerate(given):
        with InvalidInput.under(f"[{place}]"):
            examples.append(_example(one))
    return tuple(examples)


def _pairs(given: Any) -> tuple[tuple[Example, Example], ...]:
    pairs = []
    if isinstance(given, str) or not isinstance(given, Sequence | None):
        raise InvalidQuery(f"the context is {given!r}; give pairs (positive, negative) of ids or vectors")
    for place, pair in enumerate(given or ()):
        with InvalidInput.under(f"[{place}]"):
            if isinstance(pair, str) or not isinstance(pair, Sequence) or len(pair) != 2:
                raise InvalidQuery(f"a pair of the context is {pair!r}; give (positive, negative)")
            pairs.append((_example(pair[0]), _example(pair[1])))
    return tuple(pairs)


def _example(given: Any) -> Example:
    if isinstance(given, str):
        return given
    try:
        array = np.asarray(given, dtype=np.float32)
    except (TypeError, ValueError) as error:
        raise InvalidVector(f"an example is {given!r}; give a record's id, or a vector") from error
    if array.ndim != 1 or not len(array):
        raise InvalidVector(f"an example has the shape {array.shape}; give a record's id, or a vector (D,)")
    return tuple(array.tolist())


def _check_count(examples: Sequence[Example]) -> None:
    if len(examples) > _MOST:
        raise InvalidQuery(f"there are {len(examples)} examples; at most {_MOST} are taken")
