from __future__ import annotations

import json
from collections import OrderedDict
from datetime import UTC, date, datetime, timedelta, timezone, tzinfo
from decimal import Decimal
from enum import Enum, IntEnum, StrEnum
from types import MappingProxyType
from typing import Any
from uuid import UUID

import numpy as np
import pytest
from filter_strategies import metadata as any_metadata
from hypothesis import given, settings

from vecdb.errors import InvalidRecord, StorageError
from vecdb.metadata import MAX_DEPTH, decode, encode, microseconds, moment_at, normalised


class Colour(StrEnum):
    RED = "red"


class Level(IntEnum):
    HIGH = 3


class Plain(Enum):
    ONE = 1


def same(left: Any, right: Any) -> bool:
    """Equality that tells 1, 1.0 and True apart."""
    if type(left) is not type(right):
        return False
    if isinstance(left, dict):
        return list(left) == list(right) and all(same(left[key], right[key]) for key in left)
    if isinstance(left, list):
        return len(left) == len(right) and all(map(same, left, right))
    return bool(left == right)


def in_utc(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: in_utc(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [in_utc(inner) for inner in value]
    return value.astimezone(UTC) if isinstance(value, datetime) else value


def nested(depth: int, kind: type) -> dict[str, Any]:
    """Metadata of exactly this many levels."""
    value: Any = 1
    for _ in range(depth - 1):
        value = {"k": value} if kind is dict else [value]
    return {"k": value}


@settings(deadline=None)
@given(any_metadata)
def test_what_was_encoded_decodes_to_the_same_types_and_values(metadata: dict[str, Any]) -> None:
    text = encode(metadata)
    assert same(decode(text), in_utc(metadata))
    assert same(normalised(metadata), in_utc(metadata))
    assert encode(decode(text)) == text
    json.loads(text)


def test_dates_are_kept_as_objects_in_utc() -> None:
    naive = datetime(2024, 5, 1, 10)
    east = datetime(2024, 5, 1, 12, tzinfo=timezone(timedelta(hours=2)))
    assert encode({"t": naive}) == encode({"t": east}) == '{"t":{"$date":"2024-05-01T10:00:00Z"}}'
    assert encode({"d": date(2024, 5, 1)}) == '{"d":{"$date":"2024-05-01"}}'
    assert encode({"t": datetime(7, 1, 1, 0, 0, 0, 5)}) == '{"t":{"$date":"0007-01-01T00:00:00.000005Z"}}'


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2024-05-01", date(2024, 5, 1)),
        ("2024-05-01T10:00:00Z", datetime(2024, 5, 1, 10, tzinfo=UTC)),
        ("2024-05-01T10:00:00.25+02:00", datetime(2024, 5, 1, 8, 0, 0, 250000, tzinfo=UTC)),
        ("2024-05-01 10:00", datetime(2024, 5, 1, 10, tzinfo=UTC)),
    ],
)
def test_a_date_object_from_a_user_is_a_date(text: str, moment: date) -> None:
    decoded = decode(encode({"when": {"$date": text}, "list": [{"$date": text}]}))
    assert same(decoded, {"when": moment, "list": [moment]})


def test_text_that_looks_like_a_date_object_stays_text() -> None:
    metadata = {"a": '{"$date":"2024-05-01"}', "b": '"$date"'}
    assert decode(encode(metadata)) == metadata


def test_numpy_scalars_and_subclasses_become_plain_values() -> None:
    given_values = {
        "i": np.int32(3), "u": np.uint64(4), "f": np.float32(0.5), "d": np.float64(0.25), "b": np.bool_(True),
        "s": np.str_("x"),
        "e": Colour.RED, "n": Level.HIGH, "t": (1, (2,)), "o": OrderedDict(z=1), "m": MappingProxyType({"y": 2}),
    }  # fmt: skip
    wanted = {
        "i": 3, "u": 4, "f": 0.5, "d": 0.25, "b": True, "s": "x",
        "e": "red", "n": 3, "t": [1, [2]], "o": {"z": 1}, "m": {"y": 2},
    }  # fmt: skip
    assert same(decode(encode(given_values)), wanted)
    assert same(normalised(given_values), wanted)


def test_mappings_other_than_dict_are_taken() -> None:
    assert decode(encode(MappingProxyType({"a": 1}))) == {"a": 1}
    assert encode({}) == "{}"


class NoZone(tzinfo):
    def utcoffset(self, moment: datetime | None) -> timedelta | None:
        return None

    def dst(self, moment: datetime | None) -> timedelta | None:
        return None

    def tzname(self, moment: datetime | None) -> str | None:
        return None


def test_a_zone_without_offset_counts_as_utc() -> None:
    assert encode({"t": datetime(2024, 5, 1, tzinfo=NoZone())}) == '{"t":{"$date":"2024-05-01T00:00:00Z"}}'


def test_pandas_times_are_datetimes_and_nat_is_refused() -> None:
    pd = pytest.importorskip("pandas")
    wanted = '{"t":{"$date":"2024-05-01T10:00:00.000001Z"}}'
    assert encode({"t": pd.Timestamp("2024-05-01T10:00:00.000001")}) == wanted
    assert encode({"t": pd.Timestamp("2024-05-01T12:00:00.000001", tz="Europe/Paris")}) == wanted
    with pytest.raises(InvalidRecord, match="'t'"):
        encode({"t": pd.NaT})


@pytest.mark.parametrize(
    ("metadata", "path"),
    [
        ({"x": float("nan")}, "'x' is nan"),
        ({"a": {"b": [1, float("inf")]}}, r"'a\.b\[1\]' is inf"),
        ({"x": np.float32("nan")}, "'x' is nan"),
        ({"x": np.longdouble("inf")}, "'x' is inf"),
        ({"x": 2**63}, "'x' is 9223372036854775808"),
        ({"x": -(2**63) - 1}, "'x'"),
        ({"x": np.uint64(2**63)}, "'x'"),
        ({"x": 10**6000}, r"'x' is an int of \d+ bits"),
        ({"x": [0, 2**64]}, r"'x\[1\]'"),
        ({1: "x"}, "key 1"),
        ({None: "x"}, "key None"),
        ({"a": {b"k": 1}}, "key of type bytes in 'a'"),
        ({"$a": 1}, r"key '\$a'"),
        ({"a": [{"$date": "2024-05-01", "b": 1}]}, r"key '\$date' in 'a\[0\]'"),
        ({"$date": "2024-05-01"}, r"key '\$date'"),
        ({"": 1}, "empty key"),
        ({"a": {"": 1}}, "empty key in 'a'"),
        ({"x": "\ud800"}, "'x' holds a lone surrogate"),
        ({"x": ["ok", "é\udfff"]}, r"'x\[1\]'"),
        ({"\ud800": 1}, "surrogate"),
        ({"x": UUID(int=1)}, "'x' is of type UUID"),
        ({"x": Decimal(1)}, "of type Decimal"),
        ({"x": {1, 2}}, "of type set"),
        ({"x": b"bytes"}, "of type bytes"),
        ({"x": 1j}, "of type complex"),
        ({"x": np.array([1])}, "of type ndarray"),
        ({"x": np.datetime64("2024-05-01")}, "of type datetime64"),
        ({"x": np.timedelta64(1)}, "of type timedelta64"),
        ({"x": Plain.ONE}, "of type Plain"),
        ({"x": object()}, "of type object"),
        ({"x": datetime(2024, 5, 1).time()}, "of type time"),
        ({"x": datetime.min.replace(tzinfo=timezone(timedelta(hours=1)))}, "'x'"),
        ({"x": {"$date": "yesterday"}}, "'x' has 'yesterday'"),
        ({"x": {"$date": "2024-13-01"}}, "ISO 8601"),
        ({"x": {"$date": 5}}, "'x' has 5"),
        ({"x": {"$date": None}}, "'x' has None"),
        ({"x": {"$date": "0001-01-01T00:00:00+01:00"}}, "'x'"),
        (nested(MAX_DEPTH + 1, dict), f"over {MAX_DEPTH} deep"),
        (nested(MAX_DEPTH + 1, list), f"over {MAX_DEPTH} deep"),
        ([("a", 1)], "of type list"),
        (None, "None"),
        ("text", "'text'"),
    ],
)
def test_what_cannot_be_kept_is_refused_with_its_path(metadata: Any, path: str) -> None:
    with pytest.raises(InvalidRecord, match=path):
        encode(metadata)
    with pytest.raises(InvalidRecord, match=path):
        normalised(metadata)


def test_metadata_that_holds_itself_is_refused() -> None:
    loop: dict[str, Any] = {}
    loop["again"] = loop
    with pytest.raises(InvalidRecord, match="deep"):
        encode(loop)


@pytest.mark.parametrize("kind", [dict, list])
def test_the_deepest_allowed_nesting_comes_back(kind: type) -> None:
    deepest = nested(MAX_DEPTH, kind)
    assert decode(encode(deepest)) == deepest


@pytest.mark.parametrize(
    "text", ["", "{", "[1]", "5", '{"a": NaN}', '{"a":{"$date":"x"}}', '{"a":{"$date":1}}', "\ud800"]
)
def test_damaged_stored_text_is_a_storage_error(text: str) -> None:
    with pytest.raises(StorageError, match="stored metadata"):
        decode(text)


@pytest.mark.parametrize(
    "moment",
    [
        datetime.min.replace(tzinfo=UTC),
        datetime.max.replace(tzinfo=UTC),
        datetime(1969, 12, 31, 23, 59, 59, 999999, UTC),
        datetime(2024, 2, 29, 12, 30, 45, 123456, UTC),
    ],
)
def test_microseconds_and_moments_are_inverse(moment: datetime) -> None:
    assert moment_at(microseconds(moment)) == moment
    assert (moment - datetime(1970, 1, 1, tzinfo=UTC)) == timedelta(microseconds=microseconds(moment))
    assert microseconds(moment.date()) == microseconds(datetime.combine(moment.date(), datetime.min.time()))
