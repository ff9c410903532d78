"""The filter language, evaluated the plain way: one record at a time, straight from the user's mapping.

Shares no code with vecdb.filters and vecdb.matching, so that the two can be compared.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from datetime import UTC, date, datetime, time, timedelta
from typing import Any


def matches(where: Mapping[str, Any], metadata: Mapping[str, Any]) -> bool:
    """Whether decoded metadata satisfies a well-formed filter."""
    return all(_holds(key, condition, metadata) for key, condition in where.items())


def count_values(records: list[Mapping[str, Any]], path: str) -> list[tuple[str, Any, int]]:
    """Type, value and number of records of every scalar at a path, most frequent first, then by type and value."""
    counts: dict[tuple[str, Any], int] = {}
    for record in records:
        for tagged in {_tagged(value) for value in _scalars(record, path)}:
            counts[tagged] = counts.get(tagged, 0) + 1
    order = ["null", "bool", "number", "date", "text"]
    ranked = sorted(counts, key=lambda tagged: (order.index(tagged[0]), tagged[1] if tagged[1] is not None else 0))
    ranked.sort(key=lambda tagged: -counts[tagged])
    return [(kind, value, counts[kind, value]) for kind, value in ranked]


def _holds(key: str, condition: Any, metadata: Mapping[str, Any]) -> bool:
    if key == "$and":
        return all(matches(part, metadata) for part in condition)
    if key == "$or":
        return any(matches(part, metadata) for part in condition)
    if key == "$not":
        return not matches(condition, metadata)
    if not isinstance(condition, Mapping) or "$date" in condition:
        return _satisfies("$eq", condition, metadata, key)
    return all(_satisfies(name, operand, metadata, key) for name, operand in condition.items())


def _satisfies(name: str, operand: Any, metadata: Mapping[str, Any], path: str) -> bool:
    if name == "$not":
        return not _holds(path, operand, metadata)
    if name == "$ne":
        return not _satisfies("$eq", operand, metadata, path)
    if name == "$nin":
        return not _satisfies("$in", operand, metadata, path)
    if name == "$exists":
        return bool(list(_reached(metadata, path))) is operand
    if name == "$eq" and isinstance(operand, list | tuple):
        return any(isinstance(end, list) and _equal(end, operand) for end in _reached(metadata, path))
    if name == "$in":
        return any(_equal(value, choice) for value in _scalars(metadata, path) for choice in operand)
    if name == "$contains":
        return any(_contains(end, operand) for end in _reached(metadata, path))
    if name == "$contains_any":
        return any(_satisfies("$contains", part, metadata, path) for part in operand)
    if name == "$contains_all":
        return all(_satisfies("$contains", part, metadata, path) for part in operand)
    if name == "$near":
        return distance(metadata, path, operand[:-1]) <= operand[-1]
    return any(_compares(name, value, operand) for value in _scalars(metadata, path))


def distance(metadata: Mapping[str, Any], path: str, centre: Any) -> float:
    """From the nearest place, moment or number at a path; inf without one."""
    if len(centre) == 1:
        kind, origin = _tagged(centre[0])
        away = [value - origin for other, value in map(_tagged, _scalars(metadata, path)) if other == kind]
        return min((abs(a.total_seconds() if isinstance(a, timedelta) else float(a)) for a in away), default=math.inf)
    places = []
    for end in _reached(metadata, path):
        for value in end if isinstance(end, list) and any(isinstance(item, dict) for item in end) else [end]:
            pair = [value.get("lat"), value.get("lon")] if isinstance(value, dict) else value
            if isinstance(pair, list) and len(pair) == 2 and all(_tagged(part)[0] == "number" for part in pair):
                places.append(pair)
    good = [(lat, lon) for lat, lon in places if abs(lat) <= 90 and abs(lon) <= 180]
    return min((_great_circle(place, centre) for place in good), default=math.inf)


def _great_circle(a: Any, b: Any) -> float:
    """By the angle between two directions in space, which has nothing to do with the haversine."""
    p, q = (
        (math.cos(x) * math.cos(y), math.cos(x) * math.sin(y), math.sin(x))
        for x, y in (map(math.radians, c) for c in (a, b))
    )
    cross = (p[1] * q[2] - p[2] * q[1], p[2] * q[0] - p[0] * q[2], p[0] * q[1] - p[1] * q[0])
    return 6_371_008.8 * math.atan2(math.hypot(*cross), sum(i * j for i, j in zip(p, q)))


def _reached(value: Any, path: str) -> Iterator[Any]:
    """Every value that stands at the end of the path; a key may hold dots itself."""
    if isinstance(value, list):
        for item in value:
            if isinstance(item, dict):
                yield from _reached(item, path)
    elif isinstance(value, dict):
        for key, inner in value.items():
            if key == path:
                yield inner
            elif path.startswith(key + "."):
                yield from _reached(inner, path[len(key) + 1 :])


def _scalars(metadata: Mapping[str, Any], path: str) -> Iterator[Any]:
    for end in _reached(metadata, path):
        for value in end if isinstance(end, list) else [end]:
            if not isinstance(value, list | dict):
                yield value


def _contains(end: Any, operand: Any) -> bool:
    if isinstance(end, list):
        return any(_equal(item, operand) for item in end)
    return isinstance(end, str) and isinstance(operand, str) and operand in end


def _compares(name: str, value: Any, operand: Any) -> bool:
    kind, left = _tagged(value)
    other, right = _tagged(operand)
    if kind != other:
        return False
    if name == "$eq":
        return bool(left == right)
    if name == "$prefix":
        return bool(left.startswith(right))
    return bool({"$gt": left > right, "$gte": left >= right, "$lt": left < right, "$lte": left <= right}[name])


def _equal(value: Any, operand: Any) -> bool:
    if isinstance(value, list) and isinstance(operand, list | tuple):
        return len(value) == len(operand) and all(map(_equal, value, operand))
    if isinstance(value, list | dict) or isinstance(operand, list | tuple):
        return False
    return bool(_tagged(value) == _tagged(operand))


def _tagged(value: Any) -> tuple[str, Any]:
    """A scalar with the name of its type; dates as aware datetimes."""
    if isinstance(value, Mapping):
        value = datetime.fromisoformat(value["$date"])
    if value is None:
        return "null", None
    if isinstance(value, bool):
        return "bool", value
    if isinstance(value, int | float):
        return "number", value
    if isinstance(value, str):
        return "text", value
    if not isinstance(value, datetime):
        assert isinstance(value, date)
        value = datetime.combine(value, time())
    return "date", value if value.tzinfo else value.replace(tzinfo=UTC)
