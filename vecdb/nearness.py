"""A second space beside that of vectors, in which records are near or far: places on the Earth, moments, numbers.

A place stands in metadata as an object {"lat": 48.1, "lon": 11.6}, a list of such objects, or a list of two numbers, latitude
first; degrees, within -90 … 90 and -180 … 180, else it is no place. Of several places, moments or numbers the nearest counts.
A record that has none is infinitely far.

Distances on the Earth are along great circles of a sphere of the mean radius, by the haversine formula (Sinnott, "Virtues of
the Haversine", Sky & Telescope 68, 1984), which knows no seam at the poles or at 180° and is exact for small distances too.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from vecdb.columns import ELEMENT, SCALAR_LANES, Column, Lane, View
from vecdb.metadata import DATE_KEY, is_date_object, iso_text, microseconds, moment_at, parse_date

Floats = NDArray[np.float64]
Rows = NDArray[np.int64]
Mask = NDArray[np.bool_]
Space = Literal["earth", "time", "number"]

EARTH_RADIUS_M = 6_371_008.8  # mean radius R1 of the International Union of Geodesy and Geophysics
NOW = "now"
_QUANTITY = re.compile(r"(\d+(?:\.\d+)?)\s*([a-z]+)")
_SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
_METRES = {"m": 1.0, "km": 1000.0}
_COSINE_SLACK = 1e-14  # of products of unit vectors in float64, generously
_FARTHEST = 1e290


@dataclass(frozen=True, slots=True)
class Place:
    """A centre: (latitude, longitude), (microseconds since 1970,), or (number,). A time without one is now."""

    space: Space
    centre: tuple[float, ...]

    def at(self, now: float) -> Place:
        """With its moment filled in. now: seconds since 1970."""
        return self if self.centre else Place(self.space, (int(now * 1e6),))

    @property
    def as_json(self) -> list[Any]:
        if self.space != "time":
            return list(self.centre)
        return [{DATE_KEY: iso_text(moment_at(int(self.centre[0])))} if self.centre else NOW]


def place_of(values: Sequence[Any]) -> Place:
    """The place that some operands say: two numbers, a date, "now", or a number. Raises ValueError with a reason."""
    if len(values) == 2:
        latitude, longitude = (_number(value, "coordinate") for value in values)
        for name, value, most in (("latitude", latitude, 90), ("longitude", longitude, 180)):
            if not -most <= value <= most:
                raise ValueError(
                    f"has the {name} {value:g}; it must lie between -{most} and {most} degrees, latitude first"
                )
        return Place("earth", (latitude, longitude))
    if len(values) != 1:
        raise ValueError("has no centre; wanted latitude and longitude, a date, or a number")
    (value,) = values
    if value == NOW:
        return Place("time", ())
    if isinstance(value, str | date | Mapping):
        return Place("time", (microseconds(_date(value)),))
    return Place("number", (_number(value, "centre"),))


def reach_of(value: Any, space: Space, what: str) -> float:
    """A distance above 0: metres or "2km", seconds or "30d" or a timedelta, a number. Raises ValueError with a reason."""
    units = {"earth": _METRES, "time": _SECONDS, "number": {}}[space]
    if isinstance(value, timedelta) and space == "time":
        value = value.total_seconds()
    if isinstance(value, str) and units:
        found = _QUANTITY.fullmatch(value.strip())
        if found is None or found[2] not in units:
            example = "metres or '2km'" if space == "earth" else "seconds, a timedelta or '30d'"
            raise ValueError(f"has the {what} {value!r}; wanted {example}")
        value = float(found[1]) * units[found[2]]
    number = _number(value, what)
    if not number > 0:
        raise ValueError(f"has the {what} {number:g}; it must be above 0")
    return number


def within(place: Place, reach: float, path: str, columns: Mapping[str, Column], rows: int) -> Mask:
    """(rows,) which rows are at most so far from a place."""
    mask = np.zeros(rows, np.bool_)
    if place.space != "earth":
        for found, away in _apart(place, columns.get(path), rows):
            mask[found[away <= reach]] = True
        return mask
    points = _points(path, columns, rows)
    # Far from the circle's edge a product of unit vectors tells the side; where rounding could, the haversine does.
    edge = math.cos(min(reach / EARTH_RADIUS_M, math.pi))
    cosines = points.units @ _unit(np.array([place.centre]))[0]
    inside = cosines >= edge + _COSINE_SLACK
    unsure = np.flatnonzero(~inside & (cosines >= edge - _COSINE_SLACK))
    inside[unsure] = haversine(points.degrees[unsure], place.centre) <= reach
    mask[points.rows[inside]] = True
    return mask


def distances(place: Place, path: str, columns: Mapping[str, Column], rows: int) -> Floats:
    """(rows,) how far each row is from a place, in metres, seconds or as numbers; inf for one without any."""
    nearest = np.full(rows, np.inf)
    if place.space == "earth":
        points = _points(path, columns, rows)
        np.minimum.at(nearest, points.rows, haversine(points.degrees, place.centre))
    else:
        for found, away in _apart(place, columns.get(path), rows):
            np.minimum.at(nearest, found, away)
    return nearest


def haversine(degrees: Floats, centre: Sequence[float]) -> Floats:
    """(p,) metres between places (p, 2), latitude and longitude, and a centre."""
    lat, lon = np.radians(degrees).T
    lat0, lon0 = map(math.radians, centre)
    half = np.sin((lat - lat0) / 2) ** 2 + math.cos(lat0) * np.cos(lat) * np.sin((lon - lon0) / 2) ** 2
    away: Floats = 2 * EARTH_RADIUS_M * np.arcsin(np.sqrt(np.clip(half, 0.0, 1.0)))
    return away


# -- the places of rows


@dataclass(frozen=True, slots=True)
class Points:
    """rows: (p,); degrees: (p, 2); units: (p, 3) on the unit sphere. key: of the columns that they were read from."""

    key: tuple[int, ...]
    rows: Rows
    degrees: Floats
    units: Floats


def _points(path: str, columns: Mapping[str, Column], rows: int) -> Points:
    """The places at a path; kept beside the column until it grows."""
    own, lat, lon = columns.get(path), columns.get(f"{path}.lat"), columns.get(f"{path}.lon")
    lists, pairs = _listed(own, rows), [_numbers(column, rows) for column in (lat, lon)]
    key = (len(lists[0]), *(len(pair[0]) for pair in pairs))
    keeper = lat or own
    if keeper is None:
        return Points(key, np.zeros(0, np.int64), np.zeros((0, 2)), np.zeros((0, 3)))
    known: Points | None = keeper.points
    if known is not None and known.key == key:
        return known
    of_objects = _paired(*pairs)
    found = np.concatenate([lists[0], of_objects[0]])
    degrees = np.concatenate([lists[1], of_objects[1]])
    good = np.flatnonzero((np.abs(degrees) <= [90, 180]).all(axis=1))
    points = Points(key, found[good], degrees[good], _unit(degrees[good]))
    keeper.points = points
    return points


def _unit(degrees: Floats) -> Floats:
    """(p, 3): places on the unit sphere."""
    lat, lon = np.radians(degrees).T
    return np.stack([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)], axis=1)


def _numbers(column: Column | None, rows: int) -> tuple[Rows, Floats]:
    """The numbers at a path that are no items of lists."""
    view = None if column is None else column.view(Lane.NUMBER, rows)
    return (np.zeros(0, np.int64), np.zeros(0)) if view is None else (view.rows.astype(np.int64), view.values)


def _paired(lat: tuple[Rows, Floats], lon: tuple[Rows, Floats]) -> tuple[Rows, Floats]:
    """The i-th latitude of a row with its i-th longitude, in rows that have as many of both."""
    if np.array_equal(lat[0], lon[0]):
        return lat[0], np.stack([lat[1], lon[1]], axis=1)
    size = int(max(lat[0].max(initial=-1), lon[0].max(initial=-1))) + 1
    alike = np.bincount(lat[0], minlength=size) == np.bincount(lon[0], minlength=size)
    first, second = (np.flatnonzero(alike[part[0]]) for part in (lat, lon))
    return lat[0][first], np.stack([lat[1][first], lon[1][second]], axis=1)


def _listed(column: Column | None, rows: int) -> tuple[Rows, Floats]:
    """Lists of two numbers, of rows that have one list and no other."""
    view = None if column is None else column.view(Lane.NUMBER + ELEMENT, rows)
    if column is None or view is None:
        return np.zeros(0, np.int64), np.zeros((0, 2))
    counts = np.bincount(view.rows, minlength=rows)
    lists = np.bincount(_rows_in(column, Lane.LIST, rows), minlength=rows)
    others = np.zeros(rows, np.int64)
    for lane in SCALAR_LANES:
        if lane is not Lane.NUMBER:
            others += np.bincount(_rows_in(column, lane + ELEMENT, rows), minlength=rows)
    good = (counts == 2) & (lists == 1) & (others == 0)
    kept = np.flatnonzero(good[view.rows])
    return view.rows[kept[::2]].astype(np.int64), view.values[kept].reshape(-1, 2)


def _rows_in(column: Column, lane: int, rows: int) -> NDArray[np.int32]:
    view = column.view(lane, rows)
    return np.zeros(0, np.int32) if view is None else view.rows


def _apart(place: Place, column: Column | None, rows: int) -> list[tuple[Rows, Floats]]:
    """How far each moment or number of a column is from a place: rows, and distances."""
    made = []
    for lane in (Lane.DATE,) if place.space == "time" else (Lane.NUMBER, Lane.BIG):
        for kind in (lane, lane + ELEMENT):
            view: View | None = None if column is None else column.view(kind, rows)
            if view is None:
                continue
            if place.space == "time":  # in whole numbers, as float64 does not hold every microsecond
                away = np.abs(view.values - np.int64(place.centre[0])) / 1e6
            else:
                away = np.abs(np.clip(view.values.astype(np.float64), -_FARTHEST, _FARTHEST) - place.centre[0])
            made.append((view.rows.astype(np.int64), away))
    return made


def _number(value: Any, what: str) -> float:
    is_number = isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)
    if not is_number or not abs(value) <= _FARTHEST:
        raise ValueError(f"has the {what} {value!r}; wanted a finite number")
    return float(value)


def _date(value: Any) -> date:
    if isinstance(value, date):
        return value
    if isinstance(value, Mapping) and not is_date_object(value):
        raise ValueError(f"has the centre {value!r}; wanted a date, a number, or latitude and longitude")
    try:
        return parse_date(value[DATE_KEY] if isinstance(value, Mapping) else value)
    except ValueError:
        raise ValueError(f"has the centre {value!r}; wanted a date such as '2024-05-01', or 'now'") from None
