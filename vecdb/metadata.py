"""What may stand in a record's metadata, and how it is kept as JSON text.

Values are text, whole numbers of 64 bits, finite floats, bools, None, dates and datetimes, lists of these, and objects
with text keys, nested at most MAX_DEPTH deep. A NumPy scalar counts as the Python number it holds.

JSON has no dates, so a datetime is kept as {"$date": "2024-05-01T10:00:00Z"}, always in UTC, and a date as
{"$date": "2024-05-01"}. The same object is understood when a user writes it, which is how dates travel over REST. No
other key may start with "$": those names belong to the filter language.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, date, datetime
from enum import IntEnum
from typing import Any

import numpy as np
import orjson

from vecdb.errors import InvalidRecord, StorageError

MAX_DEPTH = 32  # the metadata itself is level 1
LOWEST_INT, HIGHEST_INT = -(2**63), 2**63 - 1
DATE_KEY = "$date"

PlainScalar = str | int | float | bool | date | None  # a datetime is a date

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_EPOCH_ORDINAL = _EPOCH.toordinal()
_US_PER_SECOND = 1_000_000
_US_PER_DAY = 86_400 * _US_PER_SECOND


class Kind(IntEnum):
    """The types that filters tell apart, in the order in which unlike values are listed. A value has exactly one."""

    NULL = 0
    BOOL = 1
    NUMBER = 2
    DATE = 3
    TEXT = 4


def encode(metadata: Mapping[str, Any]) -> str:
    """The JSON text that SQLite keeps. Raises InvalidRecord, naming the path of the value that cannot be kept."""
    return orjson.dumps(normalised(metadata), default=_date_object, option=orjson.OPT_PASSTHROUGH_DATETIME).decode()


def decode(text: str) -> dict[str, Any]:
    """The metadata that `encode` made this text from, normalised. Raises StorageError if it is not such a text."""
    try:
        metadata: dict[str, Any] = orjson.loads(text)
        if type(metadata) is not dict:
            raise ValueError(f"wanted a JSON object, got {shown(metadata)}")
        if '"$date"' in text:  # a search in the text is far cheaper than a walk through every value
            _revive_dates(metadata)
    except ValueError as error:  # JSONDecodeError is one
        raise StorageError(
            f"stored metadata cannot be read ({error}): {shown(text)}; was the file changed by another program?"
        ) from error
    return metadata


def normalised(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """What `decode(encode(metadata))` gives: plain dicts, lists and Python scalars, datetimes aware and in UTC.

    Flat metadata that is plain already is returned as it is, not copied. Raises InvalidRecord like `encode`.
    """
    if type(metadata) is dict and _is_flat_and_plain(metadata):
        return metadata
    if not isinstance(metadata, Mapping):
        raise InvalidRecord(f"metadata is {shown(metadata)}; it must be a dict with text keys")
    return _object(metadata, "", 1)


def normalised_value(value: Any) -> Any:
    """The same for one value, an object or a list included."""
    return _value(value, "value", 1)


def plain(value: object) -> PlainScalar:
    """One scalar as a value of exactly the builtin type; datetimes aware and in UTC (a naive one is taken as UTC).

    Raises ValueError with a reason that continues the sentence "the value …".
    """
    if isinstance(value, datetime):
        return _in_utc(value)
    if isinstance(value, date):
        return date(value.year, value.month, value.day)
    if value is None:
        return None
    if isinstance(value, bool | np.bool_):
        return bool(value)
    if isinstance(value, str):
        text = str.__str__(value)  # sheds subclasses such as numpy.str_ and StrEnum
        if not _is_unicode(text):
            raise ValueError(
                "holds a lone surrogate, which is not Unicode text; decode its source with the right encoding"
            )
        return text
    if isinstance(value, int | np.integer) and not isinstance(value, np.timedelta64):
        whole = int(value)
        if not LOWEST_INT <= whole <= HIGHEST_INT:
            raise ValueError(f"is {shown(whole)}; whole numbers have 64 bits, signed: give a float or text")
        return whole
    if isinstance(value, float | np.floating):
        real = float(value)
        if real - real != 0.0:
            raise ValueError(f"is {real}; numbers must be finite: use None or leave it out")
        return real
    raise ValueError(f"is {shown(value)}; wanted text, a number, a bool, None, a date, or a list or dict of these")


def parse_date(text: object) -> date:
    """The date or the aware datetime (in UTC) that an ISO 8601 text stands for. Raises ValueError as `plain` does."""
    if not isinstance(text, str):
        raise ValueError(f"has {shown(text)} under {DATE_KEY}; wanted ISO 8601 text such as '2024-05-01T10:00:00Z'")
    try:
        if len(text) <= 10:  # no datetime with hour and day is as short
            return date.fromisoformat(text)
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"has {shown(text)} under {DATE_KEY}, not ISO 8601 such as '2024-05-01T10:00:00Z'") from None
    return _in_utc(moment)


def is_date_object(value: Mapping[Any, Any]) -> bool:
    """Whether this is {"$date": …} and nothing else."""
    return len(value) == 1 and DATE_KEY in value


def microseconds(moment: date) -> int:
    """Exact microseconds since 1970 in UTC; a date is its midnight, a naive datetime is taken as UTC."""
    if not isinstance(moment, datetime):
        return (moment.toordinal() - _EPOCH_ORDINAL) * _US_PER_DAY
    since = (moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)) - _EPOCH
    return since.days * _US_PER_DAY + since.seconds * _US_PER_SECOND + since.microseconds


def moment_at(microseconds: int) -> datetime:
    """The aware datetime so many microseconds after 1970: the inverse of `microseconds`."""
    days, rest = divmod(microseconds, _US_PER_DAY)
    seconds, micros = divmod(rest, _US_PER_SECOND)
    midnight = datetime.fromordinal(_EPOCH_ORDINAL + days)
    return midnight.replace(
        hour=seconds // 3600, minute=seconds // 60 % 60, second=seconds % 60, microsecond=micros, tzinfo=UTC
    )


def iso_text(moment: date) -> str:
    """A normalised date or datetime as it stands under "$date"."""
    if isinstance(moment, datetime):
        return moment.isoformat()[:-6] + "Z"  # it is in UTC, so the text ends with +00:00
    return moment.isoformat()


def shown(value: object) -> str:
    """A value for an error message: short, and safe for anything a user can hand in."""
    if isinstance(value, str):
        return repr(value if len(value) <= 60 else value[:57] + "…")
    if type(value) is int and value.bit_length() > 64:
        return f"an int of {value.bit_length()} bits"  # Python refuses to print the longest ones
    if value is None or type(value) in (bool, int, float):
        return repr(value)
    return f"of type {type(value).__name__}"


def _is_flat_and_plain(metadata: dict[Any, Any]) -> bool:
    """Whether nothing has to be changed or refused: the common case, so what it calls is kept short."""
    return all(map(_is_plain_key, metadata)) and all(map(is_plain_scalar, metadata.values()))


def _is_plain_key(key: object) -> bool:
    return type(key) is str and key != "" and key[0] != "$" and _is_unicode(key)


def is_plain_scalar(value: object) -> bool:
    """Whether `plain` would give the value back as it is; False for dates, which need a closer look."""
    if type(value) is str:
        return _is_unicode(value)
    if type(value) is int:
        return LOWEST_INT <= value <= HIGHEST_INT
    if type(value) is float:
        return value - value == 0.0  # not so for NaN and the infinities
    return value is None or type(value) is bool


def _object(metadata: Mapping[Any, Any], path: str, depth: int) -> dict[str, Any]:
    if depth > MAX_DEPTH:
        raise _too_deep(path)
    result: dict[str, Any] = {}
    for key, value in metadata.items():
        name = key if _is_plain_key(key) else _key(key, path)
        if is_plain_scalar(value):
            result[name] = value
        else:
            result[name] = _value(value, f"{path}.{name}" if path else name, depth)
    return result


def _value(value: Any, path: str, depth: int) -> Any:
    """depth is that of the object or list that holds the value."""
    if isinstance(value, (list, tuple)):
        if depth >= MAX_DEPTH:
            raise _too_deep(path)
        return [
            item if is_plain_scalar(item) else _value(item, f"{path}[{place}]", depth + 1)
            for place, item in enumerate(value)
        ]
    is_object = isinstance(value, dict) or (not isinstance(value, date) and isinstance(value, Mapping))
    if is_object and not is_date_object(value):
        return _object(value, path, depth + 1)
    try:
        return parse_date(value[DATE_KEY]) if is_object else plain(value)
    except ValueError as error:
        raise InvalidRecord(f"metadata {shown(path)} {error}") from error


def _too_deep(path: str) -> InvalidRecord:
    return InvalidRecord(f"metadata {shown(path)} is nested over {MAX_DEPTH} deep; flatten it or keep it in the text")


def _key(key: object, path: str) -> str:
    within = f" in {shown(path)}" if path else ""
    if not isinstance(key, str):
        raise InvalidRecord(f"metadata has the key {shown(key)}{within}; keys must be text: use str(key)")
    name = str.__str__(key)
    if not name:
        raise InvalidRecord(f"metadata has an empty key{within}; give it a name")
    if name[0] == "$":
        raise InvalidRecord(
            f'metadata has the key {shown(name)}{within}; keys that start with "$" are reserved for filters: rename it'
        )
    if not _is_unicode(name):
        raise InvalidRecord(f"metadata has the key {shown(name)}{within}, which holds a lone surrogate; rename it")
    return name


def _is_unicode(text: str) -> bool:
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _in_utc(moment: datetime) -> datetime:
    """A plain datetime in UTC. Built from the fields, because pandas' Timestamp and NaT are datetimes in name only."""
    if type(moment) is datetime and moment.tzinfo is UTC:
        return moment
    try:
        zone = moment.tzinfo if moment.utcoffset() is not None else UTC
        exact = datetime(
            moment.year, moment.month, moment.day, moment.hour, moment.minute, moment.second, moment.microsecond, zone,
            fold=moment.fold,
        )  # fmt: skip
        return exact.astimezone(UTC)
    except (ValueError, TypeError, OverflowError) as error:
        raise ValueError(f"is {shown(moment)}, which is no moment between the years 1 and 9999 in UTC") from error


def _date_object(value: object) -> dict[str, str]:
    """What orjson calls for values that JSON lacks; after `normalised` only dates are left."""
    assert isinstance(value, date)
    return {DATE_KEY: iso_text(value)}


def _revive_dates(container: dict[str, Any] | list[Any]) -> None:
    """Turn every {"$date": …} inside into a date, in place."""
    places: Any = container.items() if type(container) is dict else enumerate(container)
    for place, value in places:
        if type(value) is dict and is_date_object(value):
            container[place] = parse_date(value[DATE_KEY])
        elif type(value) is dict or type(value) is list:
            _revive_dates(value)
