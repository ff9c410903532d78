"""Formulas that make a score fade with age, or any distance; and times as records have them.

Pure functions over arrays: a search's boosts and the second look (`recency`) call them. A factor of 1 is neutral.

    exp      exp(-x / scale)              linear   max(0, 1 - x / scale)
    gauss    exp(-x² / (2 scale²))        half     2 ** (-x / scale), scale is then the half-life

x is the distance from the origin, less `offset`, and never below 0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from vecdb.errors import InvalidQuery
from vecdb.types import value_under

Floats = NDArray[np.float64]
Curve = Literal["exp", "linear", "gauss", "half"]
Modifier = Literal["none", "log1p", "sqrt", "square", "reciprocal"]
CURVES: tuple[Curve, ...] = ("exp", "linear", "gauss", "half")
MODIFIERS: tuple[Modifier, ...] = ("none", "log1p", "sqrt", "square", "reciprocal")
DAY_S = 86_400.0


def decay_factors(distances: Floats, curve: Curve, scale: float, *, offset: float = 0.0, floor: float = 0.0) -> Floats:
    """floor … 1 for each distance (n,); NaN, which stands for a record without a value, gives floor. scale: above 0."""
    if curve not in CURVES:
        raise InvalidQuery(f"the curve of a decay is {curve!r}; it must be one of {', '.join(CURVES)}")
    _number("scale", scale, above=0.0)
    _number("offset", offset, least=0.0)
    _number("floor", floor, least=0.0, most=1.0)
    x = np.maximum(0.0, np.abs(distances) - offset) / scale
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):  # far away is simply 0
        if curve == "exp":
            factors = np.exp(-x)
        elif curve == "linear":
            factors = np.maximum(0.0, 1.0 - x)
        elif curve == "gauss":
            factors = np.exp(-0.5 * x * x)
        else:
            factors = np.exp2(-x)
    return np.asarray(np.maximum(floor, np.nan_to_num(factors, nan=0.0)))


# -- values of records


def value_at(metadata: Mapping[str, Any], key: str) -> Any:
    """The value under a key, whose dots go into nested objects; None if there is none. A key with dots itself is found first."""
    return metadata[key] if key in metadata else value_under(metadata, key)


def seconds_at(metadata: Sequence[Mapping[str, Any]], key: str) -> Floats:
    """(n,): the time under a key of each as seconds since 1970, NaN where there is none that can be read as a time."""
    return np.array([seconds_of(value_at(one, key)) for one in metadata], dtype=np.float64)


def seconds_of(value: Any) -> float:
    """Seconds since 1970 (UTC) of a datetime (a naive one is taken as UTC), a date (its midnight), a number (taken as such
    seconds) or an ISO 8601 text; NaN for anything else.
    """
    if isinstance(value, Mapping) and len(value) == 1 and "$date" in value:  # a date in JSON
        value = value["$date"]
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            return float("nan")
    if isinstance(value, datetime):
        return (value if value.tzinfo is not None else value.replace(tzinfo=UTC)).timestamp()
    if isinstance(value, date):
        return datetime(value.year, value.month, value.day, tzinfo=UTC).timestamp()
    if isinstance(value, int | float | np.number) and not isinstance(value, bool):
        return float(value)
    return float("nan")


def _number(name: str, value: object, *, above: float = -np.inf, least: float = -np.inf, most: float = np.inf) -> None:
    if (
        not isinstance(value, int | float | np.number)
        or isinstance(value, bool)
        or not np.isfinite(value)
        or not (value > above and least <= value <= most)
    ):
        bounds = [f"above {above:g}"] if np.isfinite(above) else []
        bounds += [f"at least {least:g}"] if np.isfinite(least) else []
        bounds += [f"at most {most:g}"] if np.isfinite(most) else []
        raise InvalidQuery(f"{name} is {value!r}; it must be a finite number {' and '.join(bounds)}".rstrip())
