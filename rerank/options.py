"""Whether options, as JSON or a caller has them, are what the keyword arguments of a kind's class are declared to be.

Numbers, flags, texts and choices are compared with the annotations, so that no class has to tell a text from a number itself;
bounds, and whatever is of another type, are its own to check.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

from vecdb.errors import InvalidQuery

_SAID = {bool: "true or false", int: "a whole number", float: "a number", str: "a text", type(None): "left out"}


def check_options(name: str, kind: type, options: Mapping[str, Any]) -> None:
    """Raises InvalidQuery for an option that the kind does not have, one that it lacks, or one of another type."""
    taken = inspect.signature(kind, eval_str=True).parameters
    unknown = [option for option in options if option not in taken]
    if unknown:
        raise InvalidQuery(
            f"rerank {name!r} has no option {unknown[0]!r}; it has "
            f"{', '.join([*taken, 'top and deadline_ms (as every stage)'])}"
        )
    missing = [option for option, p in taken.items() if p.default is p.empty and option not in options]
    if missing:
        raise InvalidQuery(f"rerank {name!r} needs the option {missing[0]!r}: {{'kind': {name!r}, {missing[0]!r}: …}}")
    for option, value in options.items():
        wanted = taken[option].annotation
        if not _is(value, wanted):
            raise InvalidQuery(f"{option} of rerank {name!r} is {value!r}; it must be {_said(wanted)}")


def _is(value: object, wanted: Any) -> bool:
    if get_origin(wanted) is Literal:
        return isinstance(value, str) and value in get_args(wanted)
    if _is_union(wanted):
        return any(_is(value, part) for part in get_args(wanted))
    if wanted in (int, float):
        return isinstance(value, int if wanted is int else int | float) and not isinstance(value, bool)
    return isinstance(value, wanted) if wanted in _SAID else True


def _is_union(wanted: Any) -> bool:
    return get_origin(wanted) in (Union, UnionType)


def _said(wanted: Any) -> str:
    if get_origin(wanted) is Literal:
        return "one of " + ", ".join(get_args(wanted))
    if _is_union(wanted):
        return " or ".join(_said(part) for part in get_args(wanted))
    return _SAID.get(wanted, "something else")
