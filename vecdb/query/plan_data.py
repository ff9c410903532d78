"""Plans as JSON-able data, and data with placeholders made into plans.

A placeholder is {"$param": "name"}, or {"$param": "name", "default": value}. It may stand for any value in a plan.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, fields, is_dataclass
from datetime import date, timedelta
from typing import Any

import numpy as np
import orjson

from vecdb.errors import InvalidInput, InvalidQuery
from vecdb.metadata import DATE_KEY, iso_text, plain
from vecdb.query.boost_options import Boost
from vecdb.query.fusion import Fusion, fusion_to_json
from vecdb.query.request import SearchPlan
from vecdb.query.selection import Selector, selection_to_json

PARAM, DEFAULT = "$param", "default"
_HARMLESS = {"where": {}, "weight": 1.0}  # a boost that changes nothing


def as_data(plan: Any) -> Any:
    """A plan, or any part of one, as JSON has it; placeholders are left as they are. Raises InvalidQuery for what is code."""
    options = orjson.OPT_PASSTHROUGH_DATETIME | orjson.OPT_PASSTHROUGH_DATACLASS | orjson.OPT_PASSTHROUGH_SUBCLASS
    try:
        return orjson.loads(orjson.dumps(plan, default=_as_json, option=options))
    except TypeError as error:  # what _as_json raises is its cause
        if isinstance(error.__cause__, InvalidInput):
            raise error.__cause__ from None
        raise InvalidQuery(f"a plan holds what is no data: {error}") from error


def _as_json(value: Any) -> Any:
    if isinstance(value, SearchPlan):
        return value.changed()
    if isinstance(value, Boost):
        return {field.name: item for field in fields(Boost) if (item := getattr(value, field.name)) != field.default}
    if isinstance(value, Fusion):
        return fusion_to_json(value)
    if isinstance(value, Selector):
        return selection_to_json(value)
    if callable(getattr(value, "rerank", None)):
        raise InvalidQuery(
            f"rerank is {value!r}, an object of this process, and cannot be sent; name a kind, or rerank the hits here"
        )
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, set | frozenset | tuple):
        return list(value)
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, timedelta):
        return f"{value.total_seconds():.6f}s"
    try:
        known = plain(value)
    except ValueError as error:
        raise InvalidQuery(f"a plan holds {value!r}, which {error}") from error
    return {DATE_KEY: iso_text(known)} if isinstance(known, date) else known


def is_placeholder(value: Any) -> bool:
    return isinstance(value, Mapping) and PARAM in value


def bound(data: Any, params: Mapping[str, Any]) -> Any:
    """data with values in place of its placeholders. Raises InvalidQuery for one without value, and for values without one."""
    known = {name for name, _ in placeholders(data)}
    for name in params:
        if name not in known:
            has = f"it has {', '.join(sorted(known))}" if known else "it has none"
            raise InvalidQuery(f"the plan has no parameter {name!r}; {has}", path="params")
    return _bound(data, params)


def _bound(data: Any, params: Mapping[str, Any]) -> Any:
    if is_placeholder(data):
        name = data[PARAM]
        if name in params:
            return params[name]
        if DEFAULT in data:
            return data[DEFAULT]
        raise InvalidQuery(f"parameter {name!r} of the plan has no value; give it in params={{{name!r}: …}}")
    if isinstance(data, Mapping):
        made = {}
        for key, value in data.items():
            with InvalidInput.under(str(key)):
                made[key] = _bound(value, params)
        return made
    if isinstance(data, list | tuple):
        items = []
        for place, value in enumerate(data):
            with InvalidInput.under(f"[{place}]"):
                items.append(_bound(value, params))
        return items
    return data


def placeholders(data: Any) -> Iterator[tuple[str, Any]]:
    """Name and placeholder of each in data. Raises InvalidQuery for one that is malformed."""
    if is_placeholder(data):
        if not isinstance(data[PARAM], str) or not data[PARAM] or set(data) - {PARAM, DEFAULT}:
            raise InvalidQuery(
                f"the placeholder {dict(data)!r} is malformed; write {{'$param': 'name'}}, or with a 'default' beside it"
            )
        yield data[PARAM], data
    elif isinstance(data, Mapping):
        for key, value in data.items():
            with InvalidInput.under(str(key)):
                yield from placeholders(value)
    elif isinstance(data, list | tuple):
        for place, value in enumerate(data):
            with InvalidInput.under(f"[{place}]"):
                yield from placeholders(value)


def checked(data: Any) -> None:
    """Raises InvalidInput for a plan that cannot be run, whatever its parameters are. Placeholders count by their defaults; an
    option or a boost that has one without a default is looked at when the plan is run.
    """
    if not isinstance(data, Mapping):
        raise InvalidQuery(f"a plan is {data!r}; give a mapping such as {{'mode': 'hybrid', 'where': {{…}}}}")
    SearchPlan.of(_decided(data))


def _decided(data: Mapping[str, Any]) -> dict[str, Any]:
    """A plan without the options that are open."""
    made = {}
    for name, value in data.items():
        with InvalidInput.under(str(name)):
            if name == "prefetch" and isinstance(value, list | tuple):
                made[name] = [_step(step, place) for place, step in enumerate(value)]
            elif name == "boosts" and isinstance(value, list | tuple):
                made[name] = [_HARMLESS if _is_open(boost) else _bound(boost, {}) for boost in value]
            elif not _is_open(value):
                made[name] = _bound(value, {})
    return made


def _step(step: Any, place: int) -> Any:
    if is_placeholder(step):
        return {}
    with InvalidInput.under(f"[{place}]"):
        return _decided(step) if isinstance(step, Mapping) else step


def _is_open(data: Any) -> bool:
    return any(DEFAULT not in placeholder for _, placeholder in placeholders(data))


def merged(plan: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a plan with others in their place where those are not None; a filter narrows the plan's own."""
    both = {**plan, **{name: value for name, value in given.items() if value is not None}}
    if plan.get("where") and given.get("where"):
        both["where"] = {"$and": [plan["where"], given["where"]]}
    return both
