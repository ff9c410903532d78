"""Plans that are saved with a collection, under names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vecdb.definition import Definition
from vecdb.errors import InvalidInput, InvalidQuery, QueryNotFound
from vecdb.query.plan_data import as_data, bound, checked
from vecdb.query.request import MODES, SearchPlan
from vecdb.storage import Store

_KIND = "query"
_LONGEST_NAME = 200


class SavedQueries:
    """Those of one collection."""

    def __init__(self, store: Store, definition: Definition) -> None:
        self._store = store
        self._definition = definition

    def save(self, name: str, plan: SearchPlan | Mapping[str, Any]) -> None:
        """Raises InvalidInput for a name or a plan that cannot be."""
        _check_name(name)
        if not isinstance(plan, SearchPlan):
            checked(plan)
        data = as_data(plan)
        with self._store.write() as db:
            self._definition.refresh(db)
            self._definition.kept.put(db, _KIND, data, name)

    def all(self) -> dict[str, dict[str, Any]]:
        with self._store.snapshot() as db:
            self._definition.refresh(db)
            return self._definition.kept.all(db, _KIND)

    def delete(self, name: str) -> bool:
        _check_name(name)
        with self._store.write() as db:
            self._definition.refresh(db)
            return self._definition.kept.forget(db, _KIND, name)

    def bound(self, plan: Any, params: Mapping[str, Any]) -> dict[str, Any]:
        """The options of a plan, given or by its name, with values for its placeholders. Raises QueryNotFound, InvalidQuery."""
        if not isinstance(params, Mapping):
            raise InvalidQuery(f"params is {params!r}; give a mapping of names to values", path="params")
        if isinstance(plan, str):
            plan = self._saved(plan)
        elif isinstance(plan, SearchPlan):
            plan = plan.changed()
        elif not isinstance(plan, Mapping):
            raise InvalidQuery(
                f"plan is {plan!r}; give the name of a saved query, or a mapping of options", path="plan"
            )
        made: dict[str, Any] = bound(plan, params)
        return made

    def _saved(self, name: str) -> Mapping[str, Any]:
        with self._store.snapshot() as db:
            self._definition.refresh(db)
            plan: Mapping[str, Any] | None = self._definition.kept.get(db, _KIND, name)
            if plan is None:
                known = ", ".join(map(repr, self._definition.kept.all(db, _KIND))) or "none"
                raise QueryNotFound(
                    f"collection {self._definition.name!r} has no query {name!r}; there are {known}; save it with save_query"
                )
        return plan


def _check_name(name: Any) -> None:
    if not isinstance(name, str) or not name.strip() or len(name) > _LONGEST_NAME:
        raise InvalidInput(f"the name of a query is {name!r}; give a text of at most {_LONGEST_NAME} characters")
    if name in MODES:
        raise InvalidInput(f"a query cannot be called {name!r}, which is a mode; give it another name")
    try:
        name.encode()
    except UnicodeEncodeError as error:
        raise InvalidInput(f"the name of a query is {name!r}, which is not valid Unicode") from error
