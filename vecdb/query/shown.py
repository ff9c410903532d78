"""The examples of a search, looked up: which records they are, and what their vectors amount to."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from vecdb.errors import InvalidQuery, RecordNotFound
from vecdb.query.examples import Examples
from vecdb.query.ranking import Ranking, Rows
from vecdb.query.request import Query, SearchOptions
from vecdb.query.retrieval import Likeness, Retrieval
from vecdb.storage import Store
from vecdb.tables import Tables
from vecdb.types import Metric
from vecdb.vectors import Matrix, as_matrix

_LEAST_LENGTH = 1e-6  # of a vector under cosine that still has a direction, and not that of rounding


@dataclass(frozen=True, slots=True)
class Shown:
    """rows: of the records among the examples, which are no hits. vectors: (E, D) of all of them; metric: theirs.
    vector: (D,) what they amount to, if that is one vector.
    """

    examples: Examples
    rows: Rows
    vectors: Matrix
    metric: Metric
    vector: Matrix | None = None

    @classmethod
    def of(cls, options: SearchOptions, store: Store, tables: Tables, retrieval: Retrieval) -> Shown | None:
        """None for a search without examples. Raises RecordNotFound, InvalidQuery, InvalidVector, DimensionMismatch."""
        examples = options.examples
        if examples is None:
            return None
        ids = [example for example in examples.examples if isinstance(example, str)]
        with store.read() as db:
            found = tables.by_ids(db, ids)
        now = time.time()
        missing = [id for id in ids if id not in found or found[id].is_expired(now)]
        if missing:
            raise RecordNotFound(f"there is no record {', '.join(map(repr, missing))}, which was given as an example")
        rows = np.unique(np.array([found[id].row for id in ids], dtype=np.int64))
        places, stored = retrieval.vectors_among(rows, options.field)
        known = dict(zip(rows[places].tolist(), stored))
        vectors = []
        for example in examples.examples:
            if not isinstance(example, str):
                matrix = as_matrix([example], what="the example")
                vectors.append(retrieval.prepared(matrix, options.field, "the example".format)[0])
            elif found[example].row in known:
                vectors.append(known[found[example].row])
            else:
                raise InvalidQuery(f"record {example!r} has no vector, so nothing is like it; give another example")
        _, metric = retrieval.field_of(options.field)
        shown = cls(examples, rows, np.stack(vectors), metric)
        return replace(shown, vector=shown._one(retrieval, options.field)) if examples.is_one_vector else shown

    def _one(self, retrieval: Retrieval, field: str) -> Matrix:
        vector = np.asarray(self.examples.vector(self.vectors.astype(np.float64)), dtype=np.float32)
        if self.metric == "cosine" and not np.linalg.norm(vector) > _LEAST_LENGTH:
            raise InvalidQuery(
                "the examples cancel each other out, which leaves no direction; give others, or strategy='best_score'"
            )
        one: Matrix = retrieval.prepared(vector[None], field, "the examples' vector".format)[0]
        return one

    def asked(self, query: Query) -> Query:
        """A query with the vector that the examples amount to, if they amount to one. Raises InvalidQuery if it has one."""
        if query.vector is not None:
            raise InvalidQuery("both a vector and examples were given; a search goes by one of them")
        return query if self.vector is None else Query(query.text, self.vector)

    def without(self, ranking: Ranking) -> Ranking:
        """A list without the examples."""
        outside = ~np.isin(ranking.rows, self.rows)
        return ranking if outside.all() else ranking.taken(np.flatnonzero(outside))

    def told(self, likeness: Likeness, rows: Sequence[int]) -> dict[int, Mapping[str, Any]]:
        """What the trace tells of these rows."""
        found = {row: likeness.of(row) for row in rows}
        return {row: self.examples.told(like) for row, like in found.items() if like is not None}
