"""The filter language: from a mapping such as {"year": {"$gte": 2020}} to a tree of small frozen values.

    filter     {}                                      matches everything
               {field: condition, …}                   every one of them holds
               {"$and": [filter, …]}  {"$or": [filter, …]}  {"$not": filter}
    field      a key, or a path with dots through nested objects; or one of SYSTEM_FIELDS
    condition  value                                   the same as {"$eq": value}
               {operator: operand, …}                  every one of them holds
               {"$not": {operator: operand, …}}

A path reaches values: it walks objects by key and every object of a list; at its end it reaches the value there and, if
that is a list, its elements too. A key that itself holds dots is reached by the same path. An operator holds if any
reached value satisfies it. Each leaf is true or false, never unknown, so "$ne", "$nin" and "$not" are exact complements
and match records without the key. Types are strict: null, bool, number, date and text never equal each other; a date is
its midnight in UTC.

    $eq $ne             a scalar, or a list: the whole list, in order
    $in $nin            any of these scalars
    $gt $gte $lt $lte   a number, date or text (by code point), against reached values of the same type
    $exists             true or false; a null and an empty list exist
    $contains           a list has this element; or a text, standing by itself, has this substring
    $contains_any $contains_all     the same for several operands
    $prefix             a text starts so
    $near               [latitude, longitude, metres], [date, seconds], [number, width]: at most so far, see `nearness`

Matching a tree against records is `matching.py`'s job.
"""

from __future__ import annotations

import difflib
import json
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any, Literal, cast

from vecdb.errors import InvalidFilter
from vecdb.metadata import (
    DATE_KEY,
    Kind,
    is_date_object,
    is_plain_scalar,
    iso_text,
    microseconds,
    moment_at,
    parse_date,
    plain,
    shown,
)
from vecdb.nearness import Place, place_of, reach_of

SYSTEM_FIELDS = ("$parent", "$seq", "$created", "$updated")
MAX_DEPTH = 32
MAX_OPERANDS = 10_000  # of one operator
MAX_OPERANDS_IN_ALL = 1_000_000

RangeOperator = Literal["$gt", "$gte", "$lt", "$lte"]


@dataclass(frozen=True, slots=True)
class Scalar:
    """An operand. Its kind stands beside the value, as Python holds 1 == True. DATE is int microseconds since 1970."""

    kind: Kind
    value: str | int | float | bool | None


ListOperand = tuple["Scalar | ListOperand", ...]


@dataclass(frozen=True, slots=True)
class Equal:
    path: str
    value: Scalar


@dataclass(frozen=True, slots=True)
class EqualList:
    path: str
    values: ListOperand


@dataclass(frozen=True, slots=True)
class Compare:
    path: str
    operator: RangeOperator
    value: Scalar


@dataclass(frozen=True, slots=True)
class In:
    path: str
    values: tuple[Scalar, ...]


@dataclass(frozen=True, slots=True)
class Exists:
    path: str


@dataclass(frozen=True, slots=True)
class Contains:
    """every: all of the values, else any of them. With one value it is True."""

    path: str
    values: tuple[Scalar, ...]
    every: bool


@dataclass(frozen=True, slots=True)
class Prefix:
    path: str
    text: str


@dataclass(frozen=True, slots=True)
class Near:
    """reach: in metres, in seconds, or as the number is."""

    path: str
    place: Place
    reach: float


@dataclass(frozen=True, slots=True)
class And:
    """All of the parts; without any it matches everything."""

    parts: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Or:
    parts: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Not:
    part: Node


Node = Equal | EqualList | Compare | In | Exists | Contains | Prefix | Near | And | Or | Not


def parse(where: Mapping[str, Any]) -> Node:
    """The tree of a filter. Raises InvalidFilter; its message says where in it, what stood there and what to do."""
    return _Parser().filter(where, "", 1)


def conjuncts(node: Node) -> tuple[Node, ...]:
    """The parts that must all hold: none for the filter that matches everything, the node itself if it is no And."""
    return node.parts if isinstance(node, And) else (node,)


def describe(node: Node) -> str:
    """The filter as JSON text; parsing it gives the same tree."""
    return json.dumps(_as_json(node), ensure_ascii=False)


def _all_of(parts: Iterable[Node]) -> Node:
    """One And, nested ones dissolved; a single part stands for itself."""
    flat = tuple(inner for part in parts for inner in conjuncts(part))
    return flat[0] if len(flat) == 1 else And(flat)


def _any_of(parts: Iterable[Node]) -> Node:
    members = tuple(parts)
    return members[0] if len(members) == 1 else Or(members)


class _Parser:
    """One filter's parsing: it counts the operands. `at` is the place in the filter, for messages."""

    def __init__(self) -> None:
        self.operands = 0

    def filter(self, where: object, at: str, depth: int) -> Node:
        if not isinstance(where, Mapping):
            raise _wrong(at, f"got {shown(where)}, wanted a filter", 'write a dict such as {"year": {"$gte": 2020}}')
        self._count(len(where), at, depth)
        return _all_of(self._entry(key, value, at, depth) for key, value in where.items())

    def _entry(self, key: object, value: object, at: str, depth: int) -> Node:
        if not isinstance(key, str):
            raise _wrong(at, f"got the key {shown(key)}, wanted the name of a field", "keys are text: use str(key)")
        if key in _JOINS:
            return self._join(key, value, _under(at, key), depth)
        if key in OPERATORS:
            raise _wrong(at, f"the operator {key} stands where a field is wanted", f'write {{"field": {{"{key}": …}}}}')
        if key.startswith("$") and key not in SYSTEM_FIELDS:
            known = (*_JOINS, *SYSTEM_FIELDS, *OPERATORS)
            advice = _did_you_mean(key, known) or f"here only {', '.join((*_JOINS, *SYSTEM_FIELDS))} may start with $"
            raise _wrong(at, f"unknown operator {shown(key)}", advice)
        if not key:
            raise _wrong(at, "got an empty key", "name a field")
        return self._condition(_text(key, at, "the key"), value, _under(at, key), depth)

    def _join(self, key: str, value: object, at: str, depth: int) -> Node:
        if key == "$not":
            return Not(self.filter(value, at, depth + 1))
        if not isinstance(value, list | tuple) or not value:
            got = "an empty list" if isinstance(value, list | tuple) else shown(value)
            raise _wrong(
                at, f"got {got}, wanted a list of filters", f'write {{"{key}": [{{…}}, {{…}}]}} or leave {key} out'
            )
        self._count(len(value), at, depth)
        if len(value) > MAX_OPERANDS:
            raise _too_many(at, len(value))
        parts = (self.filter(part, f"{at}[{place}]", depth + 1) for place, part in enumerate(value))
        return _all_of(parts) if key == "$and" else _any_of(parts)

    def _condition(self, path: str, value: object, at: str, depth: int) -> Node:
        """What is asked of one field: a plain value or a dict of operators."""
        if not isinstance(value, Mapping) or is_date_object(value):
            return self._equal(path, value, at)
        if not value:
            raise _wrong(
                at, "got an empty dict", f'write {{"{path}": {{"$exists": true}}}} to ask whether the field is there'
            )
        self._count(len(value), at, depth)
        return _all_of([self._operator(path, name, operand, at, depth) for name, operand in value.items()])

    def _operator(self, path: str, name: object, operand: object, at: str, depth: int) -> Node:
        if isinstance(name, str) and name in _PARSE_OPERATOR:
            return _PARSE_OPERATOR[name](self, path, operand, _under(at, name))
        if name == "$not":
            if not isinstance(operand, Mapping) or is_date_object(operand):
                advice = "write {" + '"$ne": value}, or {"$not": {"$gt": value}}'
                raise _wrong(_under(at, "$not"), f"got {shown(operand)}, wanted a dict of operators", advice)
            return Not(self._condition(path, operand, _under(at, "$not"), depth + 1))
        if name in _JOINS:
            raise _wrong(at, f"{name} stands inside a field", f'join whole filters: {{"{name}": [{{"{path}": …}}, …]}}')
        if not isinstance(name, str) or not name.startswith("$"):
            raise _nested_object(at, path, name)
        advice = _did_you_mean(name, OPERATORS) or f"the operators are {', '.join(OPERATORS)}"
        raise _wrong(at, f"unknown operator {shown(name)}", advice)

    def _equal(self, path: str, value: object, at: str) -> Node:
        if isinstance(value, list | tuple):
            return EqualList(path, self._list(value, at, 1))
        return Equal(path, _scalar(value, at))

    def _in(self, path: str, value: object, at: str) -> Node:
        return In(path, self._several(value, at))

    def _compare(self, operator: RangeOperator, path: str, value: object, at: str) -> Node:
        operand = _scalar(value, at)
        if operand.kind in (Kind.NULL, Kind.BOOL):
            raise _wrong(
                at,
                f"got {shown(value)}, wanted a number, a date or text",
                "ranges have no order for it: use $eq or $ne",
            )
        return Compare(path, operator, operand)

    def _exists(self, path: str, value: object, at: str) -> Node:
        if not isinstance(value, bool):
            raise _wrong(at, f"got {shown(value)}, wanted a bool", 'write {"$exists": true} or {"$exists": false}')
        return Exists(path) if value else Not(Exists(path))

    def _contains(self, path: str, value: object, at: str) -> Node:
        if isinstance(value, list | tuple | set | frozenset):
            raise _wrong(at, f"got {shown(value)}, wanted one value", "use $contains_any or $contains_all for several")
        return Contains(path, (_scalar(value, at),), True)

    def _contains_several(self, path: str, value: object, at: str, *, every: bool) -> Node:
        operands = self._several(value, at)
        if every and not operands:
            raise _wrong(
                at, "got an empty list, which every record would satisfy", "give at least one value or leave it out"
            )
        return Contains(path, operands, every or len(operands) == 1)

    def _prefix(self, path: str, value: object, at: str) -> Node:
        if not isinstance(value, str):
            raise _wrong(at, f"got {shown(value)}, wanted text", "use $eq for other types")
        return Prefix(path, _text(value, at, "the text"))

    def _near(self, path: str, value: object, at: str) -> Node:
        if not isinstance(value, list | tuple) or len(value) not in (2, 3):
            raise _wrong(at, f"got {shown(value)}, wanted a place and a distance", _NEAR)
        try:
            place = place_of(value[:-1])
            reach = reach_of(value[-1], place.space, "distance")
        except ValueError as error:
            raise _wrong(at, f"it {error}", _NEAR) from None
        return Near(path, place.at(time.time()), reach)

    def _several(self, value: object, at: str) -> tuple[Scalar, ...]:
        if not isinstance(value, list | tuple | set | frozenset):
            raise _wrong(
                at,
                f"got {shown(value)}, wanted a list of values",
                "put it in a list, or use the operator for one value",
            )
        if len(value) > MAX_OPERANDS:
            raise _too_many(at, len(value))
        self._count(len(value), at, 1)
        operands = tuple(
            Scalar(_KIND_OF_TYPE[type(item)], item) if is_plain_scalar(item) else _scalar(item, f"{at}[{place}]")
            for place, item in enumerate(value)
        )
        if isinstance(value, set | frozenset):  # the order of a set changes from process to process
            return tuple(sorted(operands, key=lambda operand: (operand.kind, operand.value)))
        return operands

    def _list(self, values: list[Any] | tuple[Any, ...], at: str, depth: int) -> ListOperand:
        if len(values) > MAX_OPERANDS:
            raise _too_many(at, len(values))
        self._count(len(values), at, depth)
        places = ((item, f"{at}[{place}]") for place, item in enumerate(values))
        return tuple(
            self._list(item, place, depth + 1) if isinstance(item, list | tuple) else _scalar(item, place)
            for item, place in places
        )

    def _count(self, operands: int, at: str, depth: int) -> None:
        if depth > MAX_DEPTH:
            raise _wrong(at, f"the filter is nested over {MAX_DEPTH} deep", "flatten it")
        self.operands += operands
        if self.operands > MAX_OPERANDS_IN_ALL:
            raise _wrong(at, f"the filter has over {MAX_OPERANDS_IN_ALL:,} operands", "split the query")


_NEAR = "write [latitude, longitude, metres], [date, seconds] or [number, width]"
_PARSE_OPERATOR: dict[str, Callable[[_Parser, str, object, str], Node]] = {
    "$eq": _Parser._equal,
    "$ne": lambda parser, path, value, at: Not(parser._equal(path, value, at)),
    "$gt": lambda parser, path, value, at: parser._compare("$gt", path, value, at),
    "$gte": lambda parser, path, value, at: parser._compare("$gte", path, value, at),
    "$lt": lambda parser, path, value, at: parser._compare("$lt", path, value, at),
    "$lte": lambda parser, path, value, at: parser._compare("$lte", path, value, at),
    "$in": _Parser._in,
    "$nin": lambda parser, path, value, at: Not(parser._in(path, value, at)),
    "$exists": _Parser._exists,
    "$contains": _Parser._contains,
    "$contains_any": lambda parser, path, value, at: parser._contains_several(path, value, at, every=False),
    "$contains_all": lambda parser, path, value, at: parser._contains_several(path, value, at, every=True),
    "$prefix": _Parser._prefix,
    "$near": _Parser._near,
}
OPERATORS = tuple(_PARSE_OPERATOR)
_JOINS = ("$and", "$or", "$not")


_KIND_OF_TYPE = {str: Kind.TEXT, int: Kind.NUMBER, float: Kind.NUMBER, bool: Kind.BOOL, type(None): Kind.NULL}


def _scalar(value: object, at: str) -> Scalar:
    """An operand with its kind, checked."""
    if isinstance(value, Mapping) and not is_date_object(value):
        raise _wrong(
            at, "got a dict, wanted a value", 'objects are not compared whole: use dotted keys, {"author.name": …}'
        )
    if isinstance(value, list | tuple | set | frozenset):
        raise _wrong(at, f"got {shown(value)}, wanted a single value", "use $in for any of several values")
    try:
        known = parse_date(value[DATE_KEY]) if isinstance(value, Mapping) else plain(value)
    except ValueError as error:
        raise _wrong(at, f"the value {error}", "change the operand") from error
    if isinstance(known, date):
        return Scalar(Kind.DATE, microseconds(known))
    return Scalar(_KIND_OF_TYPE[type(known)], known)


def _text(value: str, at: str, what: str) -> str:
    try:
        return cast("str", plain(value))
    except ValueError as error:
        raise _wrong(at, f"{what} {error}", "change it") from error


def _under(at: str, key: str) -> str:
    return f"{at}.{key}" if at else key


def _wrong(at: str, problem: str, advice: str) -> InvalidFilter:
    return InvalidFilter(f"filter{' at ' + shown(at) if at else ''}: {problem}; {advice}", path=at or None)


def _too_many(at: str, operands: int) -> InvalidFilter:
    return _wrong(at, f"got {operands:,} operands, at most {MAX_OPERANDS:,} are taken", "split the query")


def _nested_object(at: str, path: str, name: object) -> InvalidFilter:
    if isinstance(name, str) and f"${name}" in (*OPERATORS, "$not"):
        return _wrong(at, f"got the key {shown(name)}, wanted an operator", f'did you mean "${name}"?')
    return _wrong(
        at,
        f"got a dict with the key {name if type(name) is int else shown(name)}, wanted a value or operators",
        f'objects are not compared whole: use dotted keys, {{"{path}.{name if isinstance(name, str) else "key"}": …}}',
    )


def _did_you_mean(name: str, known: Iterable[str]) -> str | None:
    near = difflib.get_close_matches(name[:60].lower().strip(), known, n=1)
    return f"did you mean {near[0]!r}?" if near else None


def _as_json(node: Node) -> dict[str, Any]:
    match node:
        case And(parts):
            return _merged([_as_json(part) for part in parts])
        case Or(parts):
            return {"$or": [_as_json(part) for part in parts]}
        case Not(Equal(path, value)):
            return {path: {"$ne": _operand(value)}}
        case Not(EqualList(path, values)):
            return {path: {"$ne": _operand(values)}}
        case Not(In(path, values)):
            return {path: {"$nin": _operand(values)}}
        case Not(Exists(path)):
            return {path: {"$exists": False}}
        case Not(part):
            return {"$not": _as_json(part)}
        case Equal(path, value):
            return {path: _operand(value)}
        case EqualList(path, values):
            return {path: _operand(values)}
        case Compare(path, operator, value):
            return {path: {operator: _operand(value)}}
        case In(path, values):
            return {path: {"$in": _operand(values)}}
        case Exists(path):
            return {path: {"$exists": True}}
        case Prefix(path, text):
            return {path: {"$prefix": text}}
        case Near(path, place, reach):
            return {path: {"$near": [*place.as_json, reach]}}
        case Contains(path, values, every):
            if len(values) == 1:
                return {path: {"$contains": _operand(values[0])}}
            return {path: {"$contains_all" if every else "$contains_any": _operand(values)}}


def _merged(parts: list[dict[str, Any]]) -> dict[str, Any]:
    """ANDed filters as one dict where their keys differ, else as $and."""
    keys = [key for part in parts for key in part]
    if len(set(keys)) < len(keys):
        return {"$and": parts}
    return {key: value for part in parts for key, value in part.items()}


def _operand(value: Scalar | ListOperand) -> Any:
    if isinstance(value, tuple):
        return [_operand(item) for item in value]
    if value.kind is Kind.DATE:
        return {DATE_KEY: iso_text(moment_at(cast("int", value.value)))}
    return value.value
