"""Generated metadata and filters that are likely to meet: few keys, and values that nearly equal each other."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, timezone
from typing import Any

from hypothesis import strategies as st

KEYS = ["a", "b", "c", "a.b", "é"]
PATHS = [*KEYS, "a.a", "a.b.c", "b.a", "c.c.c", "é.a", "missing"]
RANGES = ["$gt", "$gte", "$lt", "$lte"]

NEAR_MISSES: list[Any] = [
    *(None, True, False, 0, 1, 1.0, -0.0, 0.5, 1.5, 1714521600, 1714521600000000, 1e300, 5e-324),
    *("", "1", "True", "a", "ab", "abc", "é", "e\u0301", "\uffff", "\U0001f600", "t1:a", "\x00"),
    *(2**53 - 1, 2**53, 2**53 + 1, 2**53 + 2, float(2**53), -(2**53) - 1),
    *(2**63 - 1, -(2**63), float(2**63), -float(2**63)),
    *(date(2024, 5, 1), date(1969, 12, 31), datetime(2024, 5, 1, tzinfo=UTC)),
    datetime(2024, 5, 1, 2, tzinfo=timezone(timedelta(hours=2))),
    datetime(2024, 5, 1, 0, 0, 0, 1, tzinfo=UTC),
    datetime(1, 1, 1, tzinfo=UTC),
    datetime(9999, 12, 31, 23, 59, 59, 999999, tzinfo=UTC),
]

zones = st.sampled_from([UTC, timezone(timedelta(hours=-5))])
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=4)
numbers = st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False) | st.integers(-3, 3)
dates = st.dates() | st.datetimes(datetime(1900, 1, 1), datetime(2100, 1, 1), timezones=zones)
near_misses = st.sampled_from(NEAR_MISSES)
scalars = near_misses | texts | numbers | dates | st.booleans()
POOL: list[Any] = [1, True, "a", "ab", 2**53 + 1, datetime(2024, 5, 1, tzinfo=UTC)]


@dataclass(frozen=True)
class Pooled:
    """Stands for one of a few scalars that metadata and filter have in common, until `settled`."""

    number: int


pooled = st.builds(Pooled, st.integers(0, 5))
leaves = pooled | pooled | scalars
values = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=3),
    max_leaves=6,
)
_open_metadata = st.dictionaries(st.sampled_from(KEYS), leaves | values, max_size=4)


def _is_ordered(value: Any) -> bool:
    return value is not None and not isinstance(value, bool)


def _asks(names: list[str], operands: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.builds(lambda name, operand: {name: operand}, st.sampled_from(names), operands)


def _conditions() -> st.SearchStrategy[Any]:
    """What can be asked of one field."""
    ordered = pooled | scalars.filter(_is_ordered)
    lists = st.recursive(st.lists(leaves, max_size=3), lambda inner: st.lists(inner | leaves, max_size=3), max_leaves=4)
    return st.one_of(
        leaves,
        lists,
        _asks(["$eq", "$ne"], leaves | lists),
        _asks(RANGES, ordered),
        _asks(["$in", "$nin", "$contains_any"], st.lists(leaves, max_size=20)),
        _asks(["$contains_all"], st.lists(leaves, min_size=1, max_size=3)),
        _asks(["$contains"], leaves),
        _asks(["$prefix"], pooled | texts),
        _asks(["$exists"], st.booleans()),
        st.builds(lambda low, high: {"$gte": low, "$lt": high}, ordered, ordered),
        st.builds(lambda value: {"$not": {"$gt": value, "$exists": True}}, ordered),
    )


_fields = st.dictionaries(st.sampled_from(KEYS) | st.sampled_from(PATHS), _conditions(), min_size=1, max_size=2)
_open_filters = st.recursive(
    _fields,
    lambda inner: st.one_of(
        st.builds(lambda parts: {"$and": parts}, st.lists(inner, min_size=1, max_size=3)),
        st.builds(lambda parts: {"$or": parts}, st.lists(inner, min_size=1, max_size=3)),
        st.builds(lambda part: {"$not": part}, inner),
        st.builds(lambda part, field: {**field, "$or": [part, part]}, inner, _fields),
    ),
    max_leaves=5,
)


def settled(tree: Any, pool: list[Any], operator: str = "") -> Any:
    """Metadata or a filter with scalars of the pool in their places, of a type that the operator takes."""
    if isinstance(tree, dict):
        return {key: settled(value, pool, key) for key, value in tree.items()}
    if isinstance(tree, list):
        return [settled(value, pool) for value in tree]
    if not isinstance(tree, Pooled):
        return tree
    if operator == "$prefix":
        pool = [value[:2] for value in pool if isinstance(value, str)] or ["a"]
    elif operator in RANGES:
        pool = [value for value in pool if _is_ordered(value)] or [1]
    return pool[tree.number % len(pool)]


def spread(where: dict[str, Any]) -> list[dict[str, Any]]:
    """The filter, and besides each of its conditions asked of every path: most filters alone match all or nothing."""
    conditions, parts = [], [where]
    while parts:
        part = parts.pop()
        for key, value in part.items():
            if key in ("$and", "$or"):
                parts.extend(value)
            elif key == "$not":
                parts.append(value)
            else:
                conditions.append(value)
    return [where, *({path: condition} for condition in conditions for path in PATHS)]


metadata = _open_metadata.map(lambda tree: settled(tree, POOL))
filters = (_open_filters | st.just({})).map(lambda tree: settled(tree, POOL))

# Some metadata, and a filter many of whose operands occur in it.
records_and_filter = st.builds(
    lambda pool, records, where: ([settled(record, pool) for record in records], settled(where, pool)),
    st.just(POOL) | st.lists(scalars, min_size=1, max_size=5),
    st.lists(_open_metadata, max_size=8),
    _open_filters,
)
