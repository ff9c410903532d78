"""Fitting the adaptive fusion to a collection, from queries without judgements: what its queries and their lists are like.

The features of one query say little, their mean over some dozens says which list the collection's queries are better served by.
Queries made up from the collection's own texts (sentences, keywords, spans, the source left out of both lists) were tried in
their place and do not say it: it is what people ask that makes words or meaning the better guide.

With judgements the lean itself is learned on from the one that ships.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from vecdb.errors import InvalidInput
from vecdb.query.fusion.adaptive import Adaptive, Lean
from vecdb.query.fusion.features import NAMES, OWN, Features, features
from vecdb.query.fusion.learned import LEAN

if TYPE_CHECKING:
    from vecdb.query.engine import Engine
    from vecdb.query.ranking import Ranking
    from vecdb.query.request import Query, SearchOptions

_PRIOR = 10.0  # so many queries' worth of doubt: few queries tell little

Grades = Mapping[int, float]  # by row


def usual_of(found: Features) -> tuple[float, ...]:
    """Mean features of queries, (Q, F), drawn towards those of other collections the more the fewer queries there are."""
    own = found[:, : len(OWN)]
    mean = (own.sum(axis=0) + _PRIOR * np.array(LEAN.means[: len(OWN)])) / (len(own) + _PRIOR)
    return tuple(mean.tolist())


def fit(
    engine: Engine, queries: Sequence[Query], options: SearchOptions, grades: Sequence[Grades] | None = None
) -> Adaptive:
    """The adaptive fusion of these queries' usual features. options: of a hybrid search. grades: of each query's judged rows."""
    if not queries:
        raise InvalidInput("there are no queries to fit the fusion to; give some dozens such as will be asked")
    pairs = [(course.lists[0], course.lists[1]) for course in engine.courses(queries, options)]
    return fit_lists(pairs, grades)


def fit_lists(pairs: Sequence[tuple[Ranking, Ranking]], grades: Sequence[Grades] | None = None) -> Adaptive:
    """From each query's list by vector and list by text. With grades, queries that have none above 0 teach nothing."""
    usual = usual_of(np.array([features(vector, text) for vector, text in pairs]))
    if grades is None:
        return Adaptive(usual)
    from vecdb.query.fusion.learning import example, learn_on

    judged = [(pair, known) for pair, known in zip(pairs, grades) if any(grade > 0 for grade in known.values())]
    if not judged:
        raise InvalidInput("qrels judge nothing that is stored as relevant; give grades above 0, or leave qrels out")
    return Adaptive(usual, learn_on(LEAN, [example(*pair, known, usual) for pair, known in judged]))


def to_json(fitted: Adaptive) -> dict[str, Any]:
    return {"features": NAMES, **asdict(fitted)}


def from_json(saved: Mapping[str, Any] | None) -> Adaptive | None:
    """None for nothing, and for what was fitted to other features by another version."""
    if saved is None or tuple(saved["features"]) != NAMES:
        return None
    lean = saved["lean"]
    if lean is not None:
        lean = Lean(lean["bias"], tuple(lean["slopes"]), tuple(lean["means"]), tuple(lean["deviations"]))
    return Adaptive(tuple(saved["usual"]), lean)
