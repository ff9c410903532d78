"""Objects that are one of some named kinds, fusions and selections, as data: {"kind": "rrf", "k": 20}."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from vecdb.errors import InvalidQuery


def kind_to_json(option: str, given: Any, kinds: Mapping[str, Any]) -> str | dict[str, Any]:
    """A name or data as it is; an object of one of these classes as its fields and kind. Raises InvalidQuery for any other."""
    if isinstance(given, str):
        return given
    if isinstance(given, Mapping):
        return dict(given)
    kind = next((name for name, known in kinds.items() if type(given) is known), None)
    if kind is None:
        raise InvalidQuery(f"{option} is {given!r}, which cannot be sent to a service; use one of {', '.join(kinds)}")
    return {"kind": kind, **asdict(given)}


def kind_from_json(option: str, value: Mapping[str, Any], kinds: Mapping[str, Any]) -> Any:
    """Raises InvalidQuery for an unknown kind, and for options that it does not have."""
    try:
        return kinds[value["kind"]](**tuples({name: item for name, item in value.items() if name != "kind"}))
    except (KeyError, TypeError) as error:
        raise InvalidQuery(
            f"{option} is {dict(value)!r}; it must be one of {', '.join(kinds)} with its options"
        ) from error


def tuples(value: Mapping[str, Any]) -> dict[str, Any]:
    return {name: tuple(item) if isinstance(item, list) else item for name, item in value.items()}
