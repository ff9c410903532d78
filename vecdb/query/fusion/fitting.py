"""Fitting the adaptive fusion to a collection, from queries without judgements: how its two lists agree as a rule.

The agreement of one query says little, the mean over some dozens says which list the collection's queries are better served by.
Queries made up from the collection's own texts (sentences, keywords, spans, the source left out of both lists) were tried in
their place and do not say it: it is what people ask that makes words or meaning the better guide.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from vecdb.errors import InvalidInput
from vecdb.query.fusion.adaptive import Adaptive
from vecdb.query.fusion.features import agreement

if TYPE_CHECKING:
    from vecdb.query.engine import Engine
    from vecdb.query.request import Query, SearchOptions

_PRIOR = 10.0  # so many queries' worth of doubt: few queries tell little
_USUAL = 0.03  # the mean agreement over the collections that the shipped lean was learned on


def tendency_of(agreements: Sequence[float]) -> float:
    """The mean agreement, drawn towards what is usual the more the fewer queries there are."""
    return (sum(agreements) + _PRIOR * _USUAL) / (len(agreements) + _PRIOR)


def fit(engine: Engine, queries: Sequence[Query], options: SearchOptions) -> Adaptive:
    """The adaptive fusion with the tendency of these queries. options: of a hybrid search."""
    if not queries:
        raise InvalidInput("there are no queries to fit the fusion to; give some dozens such as will be asked")
    courses = engine.courses(queries, options)
    return Adaptive(tendency_of([agreement(*course.lists) for course in courses]))
