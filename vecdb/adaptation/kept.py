"""The map that a collection's searches use, as the file has it now."""

from __future__ import annotations

from vecdb.adaptation.maps import QueryMap
from vecdb.definition import Definition
from vecdb.storage import Store

KIND = "adapter"


class KeptMap:
    """Follows what this or another process keeps; one small statement a search."""

    def __init__(self, store: Store, definition: Definition) -> None:
        self._store = store
        self._definition = definition
        self._known: tuple[str, QueryMap] | None = None

    def current(self) -> tuple[str, QueryMap] | None:
        """Its version and the map; None if none is kept. Raises StorageError if it is damaged."""
        kept = self._definition.kept
        with self._store.read() as db:
            value = kept.get(db, KIND)
        if value is None:
            self._known = None
            return None
        known = self._known  # another thread may put another one there
        if known is not None and known[0] == value["version"]:
            return known
        with self._store.snapshot() as db:
            value, arrays = kept.get(db, KIND), kept.arrays(db, KIND)
        if value is None:
            return None
        self._known = known = value["version"], QueryMap.of_arrays(arrays, self._definition.config.dimension)
        return known
