from __future__ import annotations

import json
from collections import UserDict
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import numpy as np
import pytest
from filter_strategies import filters, scalars
from hypothesis import given, settings
from hypothesis import strategies as st

from vecdb.errors import InvalidFilter
from vecdb.filters import (
    MAX_DEPTH,
    MAX_OPERANDS,
    OPERATORS,
    SYSTEM_FIELDS,
    And,
    Compare,
    Contains,
    Equal,
    EqualList,
    Exists,
    In,
    Not,
    Or,
    Prefix,
    Scalar,
    conjuncts,
    describe,
    parse,
)
from vecdb.metadata import Kind


def number(value: float) -> Scalar:
    return Scalar(Kind.NUMBER, value)


def text(value: str) -> Scalar:
    return Scalar(Kind.TEXT, value)


@pytest.mark.parametrize(
    ("where", "node"),
    [
        ({}, And(())),
        ({"year": 2024}, Equal("year", number(2024))),
        ({"year": {"$eq": 2024}}, Equal("year", number(2024))),
        ({"x": None}, Equal("x", Scalar(Kind.NULL, None))),
        ({"x": True}, Equal("x", Scalar(Kind.BOOL, True))),
        ({"x": np.float32(0.5)}, Equal("x", number(0.5))),
        ({"author.name": "ann"}, Equal("author.name", text("ann"))),
        ({"x": {"$ne": "a"}}, Not(Equal("x", text("a")))),
        ({"x": [1, ["a"]]}, EqualList("x", (number(1), (text("a"),)))),
        ({"x": {"$ne": []}}, Not(EqualList("x", ()))),
        ({"x": {"$in": (1, "a")}}, In("x", (number(1), text("a")))),
        ({"x": {"$in": {"b", "a", 2}}}, In("x", (number(2), text("a"), text("b")))),
        ({"x": {"$in": frozenset()}}, In("x", ())),
        ({"x": {"$nin": [1]}}, Not(In("x", (number(1),)))),
        ({"x": {"$exists": True}}, Exists("x")),
        ({"x": {"$exists": False}}, Not(Exists("x"))),
        ({"x": {"$contains": "a"}}, Contains("x", (text("a"),), True)),
        ({"x": {"$contains_any": ["a", 1]}}, Contains("x", (text("a"), number(1)), False)),
        ({"x": {"$contains_all": ["a", 1]}}, Contains("x", (text("a"), number(1)), True)),
        ({"x": {"$prefix": ""}}, Prefix("x", "")),
        ({"x": {"$not": {"$gt": 1}}}, Not(Compare("x", "$gt", number(1)))),
        ({"$not": {"x": 1}}, Not(Equal("x", number(1)))),
        ({"$or": [{"x": 1}, {"y": 2}]}, Or((Equal("x", number(1)), Equal("y", number(2))))),
        ({"$or": [{"x": 1}]}, Equal("x", number(1))),
        ({"$parent": "doc"}, Equal("$parent", text("doc"))),
        (
            {"x": {"$gte": 1, "$lt": 5}, "$and": [{"y": 2}, {"$and": [{"z": 3}]}]},
            And(
                (
                    Compare("x", "$gte", number(1)),
                    Compare("x", "$lt", number(5)),
                    Equal("y", number(2)),
                    Equal("z", number(3)),
                )
            ),
        ),
        (UserDict({"x": UserDict({"$lte": "z"})}), Compare("x", "$lte", text("z"))),
    ],
)
def test_filters_parse_to_trees(where: Any, node: Any) -> None:
    assert parse(where) == node


@pytest.mark.parametrize(
    "moment",
    [date(2024, 5, 1), datetime(2024, 5, 1), datetime(2024, 5, 1, tzinfo=UTC), {"$date": "2024-05-01"},
     {"$date": "2024-05-01T02:00:00+02:00"}],
)  # fmt: skip
def test_all_ways_to_write_a_date_give_one_operand(moment: Any) -> None:
    midnight = Scalar(Kind.DATE, 1_714_521_600_000_000)
    assert parse({"t": moment}) == Equal("t", midnight)
    assert parse({"t": {"$gt": moment}}) == Compare("t", "$gt", midnight)
    assert parse({"t": [moment]}) == EqualList("t", (midnight,))


def test_trees_tell_true_from_one() -> None:
    assert parse({"x": 1}) != parse({"x": True})
    assert len({parse({"x": 1}), parse({"x": True}), parse({"x": 1.0}), parse({"x": "1"})}) == 3


@pytest.mark.parametrize("field", SYSTEM_FIELDS)
def test_system_fields_may_be_filtered(field: str) -> None:
    assert parse({field: {"$gte": 3}}) == Compare(field, "$gte", number(3))


@settings(deadline=None)
@given(filters)
def test_describing_a_filter_gives_json_that_parses_to_the_same_tree(where: dict[str, Any]) -> None:
    node = parse(where)
    assert parse(json.loads(describe(node))) == node


def test_descriptions_are_short_where_they_can_be() -> None:
    assert describe(parse({})) == "{}"
    assert describe(parse({"year": {"$gte": 2020}, "tag": "é"})) == '{"year": {"$gte": 2020}, "tag": "é"}'
    assert describe(parse({"y": {"$gt": 1, "$lt": 2}})) == '{"$and": [{"y": {"$gt": 1}}, {"y": {"$lt": 2}}]}'
    assert describe(parse({"t": date(2024, 5, 1)})) == '{"t": {"$date": "2024-05-01T00:00:00Z"}}'


def test_conjuncts_are_the_parts_that_must_all_hold() -> None:
    assert conjuncts(parse({})) == ()
    assert conjuncts(parse({"a": 1})) == (parse({"a": 1}),)
    both = parse({"a": 1, "$and": [{"b": {"$gt": 1, "$lt": 3}}, {"$or": [{"c": 1}, {"d": 1}]}]})
    assert [describe(part) for part in conjuncts(both)] == [
        '{"a": 1}', '{"b": {"$gt": 1}}', '{"b": {"$lt": 3}}', '{"$or": [{"c": 1}, {"d": 1}]}',
    ]  # fmt: skip


def deep(levels: int) -> dict[str, Any]:
    where: dict[str, Any] = {"x": 1}
    for _ in range(levels):
        where = {"$not": where}
    return where


LOOP: dict[str, Any] = {}
LOOP["$and"] = [LOOP]


@pytest.mark.parametrize(
    ("where", "message"),
    [
        (None, "got None, wanted a filter"),
        ([{"a": 1}], "of type list"),
        ("year > 3", "got 'year > 3'"),
        ({1: 2}, "key 1"),
        ({"": 1}, "empty key"),
        ({"\ud800": 1}, "surrogate"),
        ({"$gt": 1}, r"\$gt stands where a field is wanted"),
        ({"$adn": []}, r"did you mean '\$and'"),
        ({"$created_at": 1}, r"did you mean '\$created'"),
        ({"$zzz": 1}, r"may start with \$"),
        ({"year": {"$gtee": 1}}, r"'year'.*did you mean '\$gte?'"),
        ({"year": {"$LT": 1}}, r"did you mean '\$lt'"),
        ({"year": {"$zzz": 1}}, r"operators are \$eq"),
        ({"year": {"gte": 1}}, r'did you mean "\$gte"'),
        ({"year": {5: 1}}, "key 5"),
        ({"author": {"name": "ann"}}, r"author\.name"),
        ({"author": {"$eq": {"name": "ann"}}}, "dotted keys"),
        ({"author": [{"name": "ann"}]}, "dotted keys"),
        ({"x": {}}, "empty dict"),
        ({"x": {"$eq": {}}}, "dotted keys"),
        ({"x": {"$not": 5}}, r"\$ne"),
        ({"x": {"$not": {"$date": "2024-05-01"}}}, r"\$ne"),
        ({"x": {"$not": {}}}, "empty dict"),
        ({"x": {"$and": [{"$gt": 1}]}}, r"\$and stands inside a field"),
        ({"$and": []}, "an empty list"),
        ({"$or": {"a": 1}}, "wanted a list of filters"),
        ({"$or": [{"a": 1}, 5]}, r"\$or\[1\]"),
        ({"$not": [{"a": 1}]}, "wanted a filter"),
        ({"a": {"$gt": True}}, "ranges have no order"),
        ({"a": {"$lte": None}}, "ranges have no order"),
        ({"a": {"$gt": [1]}}, "single value"),
        ({"a": {"$in": 5}}, "wanted a list"),
        ({"a": {"$in": "abc"}}, "wanted a list"),
        ({"a": {"$in": {"b": 1}}}, "wanted a list"),
        ({"a": {"$in": [1, [2]]}}, r"\$in\[1\]"),
        ({"a": {"$in": [float("nan")]}}, "nan"),
        ({"a": {"$in": np.arange(3)}}, "of type ndarray"),
        ({"a": {"$nin": iter([1])}}, "wanted a list"),
        ({"a": {"$exists": 1}}, "wanted a bool"),
        ({"a": {"$exists": None}}, "wanted a bool"),
        ({"a": {"$prefix": 1}}, "wanted text"),
        ({"a": {"$prefix": "\ud800"}}, "surrogate"),
        ({"a": {"$contains": ["x"]}}, r"\$contains_any"),
        ({"a": {"$contains_all": "x"}}, "wanted a list"),
        ({"a": {"$contains_all": []}}, "empty list"),
        ({"a": {"$contains_any": [None, {}]}}, r"\$contains_any\[1\]"),
        ({"a": float("inf")}, "inf"),
        ({"a": 2**63}, "64 bits"),
        ({"a": 10**6000}, "an int of"),
        ({"a": Decimal(1)}, "Decimal"),
        ({"a": object()}, "of type object"),
        ({"a": b"x"}, "of type bytes"),
        ({"a": {1, 2}}, "of type set"),
        ({"a": {"$date": "soon"}}, "ISO 8601"),
        ({"a": {"$gt": {"$date": 5}}}, "has 5"),
        ({"a": {"$date": "2024-05-01", "$gt": 1}}, r"unknown operator '\$date'"),
        ({"$and": [{"a": {"$lt": {"b": 1}}}]}, r"'\$and\[0\]\.a\.\$lt'"),
        (deep(MAX_DEPTH), "nested over"),
        (LOOP, "nested over"),
        ({"a": {"$in": [0] * (MAX_OPERANDS + 1)}}, "10,001 operands"),
        ({"a": [0] * (MAX_OPERANDS + 1)}, "10,001 operands"),
        ({"$or": [{"a": 1}] * (MAX_OPERANDS + 1)}, "10,001 operands"),
        ({"$or": [{"a": {"$in": [0] * MAX_OPERANDS}}] * 101}, "over 1,000,000 operands"),
    ],
)
def test_malformed_filters_say_where_and_what(where: Any, message: str) -> None:
    with pytest.raises(InvalidFilter, match=message):
        parse(where)


def test_the_limits_themselves_are_allowed() -> None:
    parse(deep(MAX_DEPTH - 1))
    parse({"a": {"$in": [0] * MAX_OPERANDS}})


names = st.sampled_from([*OPERATORS, "$and", "$or", "$not", "$date", "$parent", "a", "a.b", "gt", ""]) | st.text(
    max_size=3
)
junk = st.recursive(
    scalars | st.none() | st.floats() | st.integers() | st.binary(max_size=2) | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(names, inner, max_size=3)
        | st.dictionaries(st.integers() | st.none() | st.booleans(), inner, max_size=1)
        | st.sets(scalars, max_size=2)
    ),
    max_leaves=8,
)


@settings(deadline=None, max_examples=500)
@given(junk)
def test_any_shape_either_parses_or_is_an_invalid_filter(where: Any) -> None:
    problem = None
    try:
        node = parse(where)
    except InvalidFilter as error:
        problem = str(error)
    if problem is None:
        assert parse(json.loads(describe(node))) == node
    else:
        assert problem.startswith("filter")
        assert "; " in problem
