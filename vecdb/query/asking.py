"""What a caller asks of a search, as the engine takes it: queries with prepared vectors, and options, those of a plan among them.

Everything that can be wrong about a call is found here, before anything is searched.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from vecdb.definition import Definition
from vecdb.errors import InvalidQuery, InvalidVector
from vecdb.query.engine import Engine
from vecdb.query.plan_data import merged
from vecdb.query.request import VECTOR_FIELD, Query, SearchOptions, options_of
from vecdb.query.saved import SavedQueries
from vecdb.storage import Store
from vecdb.vectors import Matrix, as_matrix


class Asking:
    """What can be asked of one collection."""

    def __init__(self, store: Store, definition: Definition, engine: Engine, saved: SavedQueries) -> None:
        self._store = store
        self._definition = definition
        self._engine = engine
        self._saved = saved

    def search(
        self, query: Any, vector: Any, model: str | None, options: Mapping[str, Any]
    ) -> tuple[list[Query], bool, SearchOptions]:
        """What a search looks for, whether it is a batch, and how it looks; its plan counts where nothing else is said."""
        given = self._planned(options)
        own = {name: given.pop(name) for name in ("query", "vector") if name in given}
        if query is None and vector is None:
            query, vector = own.get("query"), own.get("vector")
        wanted = options_of(given)
        if query is None and vector is None and (wanted.steps or wanted.examples is not None):
            return [Query()], False, wanted
        queries, is_batch = self.queries(query, vector, model, wanted.field)
        return queries, is_batch, wanted

    def queries(
        self, query: Any, vector: Any = None, model: str | None = None, field: str = VECTOR_FIELD
    ) -> tuple[list[Query], bool]:
        """The queries of a search, vectors checked and prepared; and whether it is a batch."""
        texts: list[str | None] | None = None
        if isinstance(query, str):
            texts, is_batch = [query], False
        elif isinstance(query, list | tuple) and query and all(isinstance(q, str) for q in query):
            texts, is_batch = list(query), True
        elif query is not None:
            if vector is not None:
                raise InvalidQuery("two vectors were given; with vector= the query itself is text")
            vector, is_batch = query, False
        if texts is None and vector is None:
            raise InvalidQuery("there is no query; give text, a vector, or both")
        if vector is None:
            return [Query(text) for text in texts or ()], is_batch
        self._definition.check_model(model)
        matrix, is_batch = self._matrix(vector, is_batch if texts is not None else None, field)
        if texts is None:
            texts = [None] * len(matrix)
        if len(texts) != len(matrix):
            raise InvalidQuery(
                f"{len(texts)} texts and {len(matrix)} vectors were given; give one vector for each text"
            )
        return [Query(text, row) for text, row in zip(texts, matrix)], is_batch

    def vectors(self, queries: str | Sequence[str] | ArrayLike, model: str | None = None) -> Matrix:
        """(B, D): these queries' vectors, texts embedded and mapped as in a search."""
        known = self._engine.with_vectors(self.queries(queries, None, model)[0])
        return np.stack([query.vector for query in known if query.vector is not None])

    def _planned(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """options with those of the plan that they name or hold. Raises QueryNotFound, InvalidQuery."""
        given = dict(options)
        plan, params = given.pop("plan", None), given.pop("params", None)
        if plan is None:
            if params:
                raise InvalidQuery("params are of a plan; give plan=…, too", path="params")
            return given
        return merged(self._saved.bound(plan, params or {}), given)

    def _matrix(self, vector: Any, is_batch: bool | None, field: str) -> tuple[Matrix, bool]:
        try:
            dimensions = np.ndim(vector)
        except ValueError:  # rows of unequal length
            dimensions = 2
        if dimensions == 2 and is_batch is None:
            is_batch = True
        matrix = as_matrix(vector if dimensions == 2 else [vector], what="the query")
        if not len(matrix):
            raise InvalidQuery("the batch of queries is empty; give at least one")
        if not matrix.shape[1]:
            raise InvalidVector("the query vector is empty")
        self._definition.settled(self._store)
        name = "the query".format if len(matrix) == 1 else "query {}".format
        return self._engine.retrieval.prepared(matrix, field, name), bool(is_batch)
