"""Answers as a set: which candidates come back when they are judged together instead of one by one. One file a method."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from vecdb.errors import InvalidQuery
from vecdb.query.kinds import kind_from_json, kind_to_json
from vecdb.query.selection.base import MOST_IN_POOL, Covered, Pool, Selection, Selector
from vecdb.query.selection.coverage import Coverage
from vecdb.query.selection.dpp import Dpp
from vecdb.query.selection.kcenter import KCenter
from vecdb.query.selection.mmr import Mmr

__all__ = [
    "MOST_IN_POOL",
    "SELECTIONS",
    "Coverage",
    "Covered",
    "Dpp",
    "KCenter",
    "Mmr",
    "Pool",
    "Selection",
    "Selector",
    "name_of",
    "selection_from_json",
    "selection_to_json",
    "selector_of",
]

SELECTIONS: dict[str, Callable[[], Selector]] = {"mmr": Mmr, "coverage": Coverage, "kcenter": KCenter, "dpp": Dpp}


def selector_of(given: str | Mapping[str, Any] | Selector) -> Selector | None:
    """None for "topk". Raises InvalidQuery for what is no selection."""
    if isinstance(given, Mapping):
        return selection_from_json(given)
    if isinstance(given, str):
        if given == "topk":
            return None
        if given not in SELECTIONS:
            raise InvalidQuery(
                f"select is {given!r}; it must be one of topk, {', '.join(SELECTIONS)}, or an object such as Mmr(diversity=0.5)"
            )
        return SELECTIONS[given]()
    if not isinstance(given, Selector) or isinstance(given, type):
        raise InvalidQuery(
            f"select is {given!r}; give a name such as 'coverage', or an object such as Mmr(diversity=0.5)"
        )
    return given


def selection_to_json(select: str | Mapping[str, Any] | Selector) -> str | dict[str, Any]:
    """Raises InvalidQuery for a selection of the caller's own."""
    return kind_to_json("select", select, SELECTIONS)


def selection_from_json(value: Mapping[str, Any]) -> Selector:
    """Raises InvalidQuery for options that this kind does not have."""
    selector: Selector = kind_from_json("select", value, SELECTIONS)
    return selector


def name_of(selector: Selector) -> str:
    """As reports and the wire call it; a caller's own goes by the name of its class."""
    return next((name for name, kind in SELECTIONS.items() if type(selector) is kind), type(selector).__name__)
