"""Matching a filter tree against columns: one bool per row.

Each leaf looks at the lanes that can satisfy it and marks the rows of the entries that do; And, Or and Not combine
the marks. Everything is a NumPy call over whole arrays, and nothing is compiled or cached, so the first query costs
what the second does.

Numbers are compared exactly. float64 holds most of them; ints that it cannot hold are in a lane of their own. An
operand that float64 cannot hold lies strictly between two neighbouring floats, so a range against floats is the range
against one of the two; and a float operand against ints is a range against its floor or its ceiling.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from itertools import repeat
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from vecdb.columns import ELEMENT, SCALAR_LANES, Column, Lane, View, scalar_key
from vecdb.filters import (
    And,
    Compare,
    Contains,
    Equal,
    EqualList,
    Exists,
    In,
    ListOperand,
    Near,
    Node,
    Not,
    Or,
    Prefix,
    RangeOperator,
    Scalar,
)
from vecdb.metadata import HIGHEST_INT, LOWEST_INT, Kind
from vecdb.nearness import within

Mask = NDArray[np.bool_]

_LANES: Final[dict[Kind, tuple[Lane, ...]]] = {
    Kind.NULL: (Lane.NULL,),
    Kind.BOOL: (Lane.BOOL,),
    Kind.NUMBER: (Lane.NUMBER, Lane.BIG),
    Kind.DATE: (Lane.DATE,),
    Kind.TEXT: (Lane.TEXT,),
}
_COMPARE: Final[dict[RangeOperator, Callable[[Any, Any], Any]]] = {
    "$gt": operator.gt,
    "$gte": operator.ge,
    "$lt": operator.lt,
    "$lte": operator.le,
}
_FEW: Final = 16  # up to so many operands, a pass for each is faster than numpy.isin
_IN_PLACE: Final = (0, ELEMENT)  # a value by itself, and one in a list


def matching_rows(node: Node, columns: Mapping[str, Column], rows: int) -> Mask:
    """(rows,) bool: which of rows 0 … rows-1 satisfy the filter. The array is the caller's own."""
    match node:
        case And(parts):
            return _combined(parts, columns, rows, np.logical_and, np.ones(rows, np.bool_))
        case Or(parts):
            return _combined(parts, columns, rows, np.logical_or, np.zeros(rows, np.bool_))
        case Not(part):
            inner = matching_rows(part, columns, rows)
            return np.logical_not(inner, out=inner)
        case Near(path, place, reach):
            return within(place, reach, path, columns, rows)
    mask = np.zeros(rows, np.bool_)
    column = columns.get(node.path)
    if column is not None:
        _mark_leaf(node, column, mask)
    return mask


def _combined(parts: Iterable[Node], columns: Mapping[str, Column], rows: int, combine: np.ufunc, start: Mask) -> Mask:
    for part in parts:
        combine(start, matching_rows(part, columns, rows), out=start)
    return start


def _mark_leaf(node: Node, column: Column, mask: Mask) -> None:
    match node:
        case Equal(_, value):
            _mark_equal((value,), column, mask, _IN_PLACE)
        case In(_, values):
            _mark_equal(values, column, mask, _IN_PLACE)
        case Compare(_, op, value):
            _mark_range(op, value, column, mask)
        case EqualList(_, values):
            code = column.lists.code(_operand_key(values))
            if code is not None:
                _mark(column, Lane.LIST, mask, lambda codes: codes == code)
        case Exists(_):
            for lane in (*SCALAR_LANES, Lane.LIST, Lane.OBJECT):
                _mark(column, lane, mask, lambda values: np.ones(len(values), np.bool_))
        case Prefix(_, text):
            for place in _IN_PLACE:
                _mark_texts(column, Lane.TEXT + place, mask, str.startswith, (text,))
        case Contains(_, values, every):
            _mark_contains(values, every, column, mask)


def _mark_contains(values: tuple[Scalar, ...], every: bool, column: Column, mask: Mask) -> None:
    """Lists hold an operand as an element; texts that stand by themselves hold it as a part."""
    groups = [(value,) for value in values] if every else [values]
    for place, group in enumerate(groups):
        found = np.zeros_like(mask)
        _mark_equal(group, column, found, (ELEMENT,))
        parts = [str(value.value) for value in group if value.kind is Kind.TEXT]
        _mark_texts(column, Lane.TEXT, found, operator.contains, parts)
        if place == 0:
            mask |= found
        else:
            mask &= found


def _mark_equal(operands: tuple[Scalar, ...], column: Column, mask: Mask, places: tuple[int, ...]) -> None:
    """Rows that hold any of the operands."""
    for kind in {operand.kind for operand in operands}:
        values = [operand.value for operand in operands if operand.kind is kind]
        for lane in _LANES[kind]:
            wanted = _stored(lane, values, column)
            if len(wanted):
                for place in places:
                    _mark(column, lane + place, mask, partial(_among, wanted))


def _stored(lane: Lane, values: list[Any], column: Column) -> NDArray[Any]:
    """The operands as a lane keeps them, without those that it cannot hold."""
    if lane is Lane.TEXT:
        codes = (column.texts.code(text) for text in values)
        return np.array([code for code in codes if code is not None], np.int32)
    if lane is Lane.NUMBER:
        return np.array([value for value in values if float(value) == value], np.float64)
    if lane is Lane.BIG:
        # A float that equals an int is held exactly by float64, so that int is not in this lane.
        return np.array([value for value in values if isinstance(value, int)], np.int64)
    return np.array([value is True for value in values] if lane is not Lane.DATE else values)


def _among(wanted: NDArray[Any], stored: NDArray[Any]) -> Mask:
    if len(wanted) > _FEW:
        return np.isin(stored, wanted)
    held: Mask = stored == wanted[0]
    for value in wanted[1:]:
        held |= stored == value
    return held


def _mark_range(op: RangeOperator, operand: Scalar, column: Column, mask: Mask) -> None:
    value: Any = operand.value
    compare = _COMPARE[op]
    for place in _IN_PLACE:
        if operand.kind is Kind.NUMBER:
            _mark(column, Lane.NUMBER + place, mask, lambda floats: compare_floats(floats, op, value))
            _mark(column, Lane.BIG + place, mask, lambda ints: compare_ints(ints, op, value))
        elif operand.kind is Kind.DATE:
            _mark(column, Lane.DATE + place, mask, lambda moments: compare(moments, value))
        else:
            _mark_texts(column, Lane.TEXT + place, mask, compare, (value,))


def compare_floats(floats: NDArray[np.float64], op: RangeOperator, operand: int | float) -> Mask:
    """float64 values against any number, exactly."""
    nearest = float(operand)
    if nearest > operand:  # no float lies between the two, so "above the operand" is "at or above nearest"
        op = "$gte" if op in ("$gt", "$gte") else "$lt"
    elif nearest < operand:
        op = "$gt" if op in ("$gt", "$gte") else "$lte"
    return _COMPARE[op](floats, nearest)  # type: ignore[no-any-return]


def compare_ints(ints: NDArray[np.int64], op: RangeOperator, operand: int | float) -> Mask:
    """int64 values against any number, exactly."""
    bound = math.floor(operand) if op in ("$gt", "$lte") else math.ceil(operand)
    if bound > HIGHEST_INT:
        return np.full(len(ints), op in ("$lt", "$lte"))
    if bound < LOWEST_INT:
        return np.full(len(ints), op in ("$gt", "$gte"))
    return _COMPARE[op](ints, np.int64(bound))  # type: ignore[no-any-return]


def _mark_texts(
    column: Column, lane: int, mask: Mask, holds: Callable[[str, str], bool], operands: Sequence[str]
) -> None:
    """Rows with a text that holds(text, operand) for any operand: asked once per distinct text, looked up by code."""
    if lane not in column.streams or not operands:
        return
    texts = tuple(column.texts.texts)
    answers = np.zeros(len(texts), np.bool_)
    for operand in operands:
        answers |= np.fromiter(map(holds, texts, repeat(operand)), np.bool_, len(texts))
    _mark(column, lane, mask, answers.take)


def _mark(column: Column, lane: int, mask: Mask, test: Callable[[NDArray[Any]], Mask]) -> None:
    """Set mask where an entry of this lane passes the test."""
    view = column.view(lane, len(mask))
    if view is None or not len(view.rows):
        return
    held = test(view.values)
    span = _span(view)
    if span is not None:
        mask[span] |= held
    else:
        mask[view.rows[np.flatnonzero(held)]] = True


def _span(view: View) -> slice | None:
    """The rows as a slice, if every one of them has exactly one entry: the usual case, and several times faster."""
    first, last = int(view.rows[0]), int(view.rows[-1])
    return slice(first, last + 1) if view.single and last - first + 1 == len(view.rows) else None


def _operand_key(values: ListOperand) -> str:
    """The `list_key` of an operand."""
    parts = (
        _operand_key(value) if isinstance(value, tuple) else scalar_key(_LANES[value.kind][0], value.value)
        for value in values
    )
    return f"[{''.join(parts)}]"
