"""What can be asked of the boost stage, checked once."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import date, timedelta
from typing import Any, Final, Literal, cast

import numpy as np

from vecdb.errors import InvalidInput, InvalidQuery
from vecdb.filters import parse
from vecdb.metadata import DATE_KEY, is_date_object, microseconds, parse_date
from vecdb.rerank.decay import MODIFIERS, Modifier
from vecdb.types import Filter

Decay = Literal["exp", "gauss", "linear"]
DECAYS: Final = ("exp", "gauss", "linear")
NOW: Final = "now"

_MOST = 32  # so many factors of the largest allowed size cannot overflow
_LARGEST = 1e6
_SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*([smhdw])")


@dataclass(frozen=True, slots=True)
class Boost:
    """One reason to lift a record, or to hold it back. It is of one of three kinds:

    where                   records that satisfy a filter.
    field, decay            by how far a number or a date is from an origin ("now", for a date that is not given one): "exp",
                            "gauss" or "linear" (rerank/decay.py). It is 1 up to offset from it, and `at` another scale further
                            out. Of dates, scale and offset are durations: seconds, a timedelta, or "30d" (s, m, h, d, w).
    field, modifier         by a number: "none", "log1p", "sqrt", "square", "reciprocal" (1 / x, 0 for 0). Numbers below 0 are 0
                            for log1p and sqrt; beyond 1e300 they are 1e300 for none.

    Of a list of values the one that gives most counts. A record without the field stays as it is, unless `missing` says what its
    value is: of the decay (0 … 1), or of the field. With v for what the decay or the modifier gives, op says what is done:

    "multiply"   by a factor: weight for `where`, 1 - weight + weight * v for a decay (weight 0 … 1: so much of the score is
                 at stake), 1 + weight * v for a modifier; held to 0 … 1e6
    "add"        weight for `where`, else weight * v; held to ±1e6

    All of a search's boosts together make of a score s:  s + |s| * (product of the factors - 1) + sum of what is added.  For
    s >= 0 that is s times the factors; a score below 0 (a distance, say) is lifted by a factor above 1, too.
    """

    where: Filter | None = None
    field: str | None = None
    decay: Decay | None = None
    origin: Any = None
    scale: Any = None
    offset: Any = 0
    at: float = 0.5
    modifier: Modifier | None = None
    missing: float | None = None
    weight: float | None = None
    op: Literal["multiply", "add"] = "multiply"

    def __post_init__(self) -> None:
        kind = self.kind
        _one_of("op", self.op, ("multiply", "add"))
        others: dict[str, tuple[str, ...]] = {
            "where": ("field", "decay", "origin", "scale", "offset", "at", "modifier", "missing"),
            "decay": ("modifier",),
            "modifier": ("decay", "origin", "scale", "offset", "at"),
        }
        for name in others[kind]:
            if getattr(self, name) != _DEFAULTS[name]:
                raise InvalidQuery(f"{name} has no meaning in a boost by {kind}; leave it out", path=name)
        self._check_weight(kind)
        if kind == "where":
            with InvalidInput.under("where"):
                parse(cast(Filter, self.where))
            return
        if not isinstance(self.field, str) or not self.field:
            raise InvalidQuery(f"the field of a boost is {self.field!r}; name a metadata key", path="field")
        if self.missing is not None:
            _number("missing", self.missing, *((0, 1) if kind == "decay" else (-1e300, 1e300)))
        if kind == "modifier":
            _one_of("modifier", self.modifier, MODIFIERS)
            return
        _one_of("decay", self.decay, DECAYS)
        _number("at", self.at, 1e-9, 1 - 1e-9)
        _ = self.distances
        if self.origin is not None:
            self._check_origin()
        elif not self.is_of_dates:
            raise InvalidQuery(
                "a decay of numbers has no origin; give one, or a scale such as '30d' for dates", path="origin"
            )

    @property
    def kind(self) -> Literal["where", "decay", "modifier"]:
        if self.where is not None:
            return "where"
        if self.decay is not None:
            return "decay"
        if self.modifier is not None:
            return "modifier"
        raise InvalidQuery("a boost has where, or a field with decay or modifier; none of these was given")

    @property
    def is_of_dates(self) -> bool:
        """Whether a decay goes by dates: its origin is one, or its scale a duration."""
        return self.origin == NOW or _as_date(self.origin) is not None or isinstance(self.scale, str | timedelta)

    @property
    def distances(self) -> tuple[float, float]:
        """scale and offset of a decay, in seconds where it goes by dates. Raises InvalidQuery."""
        found = []
        for name, least in (("scale", 1e-9), ("offset", 0.0)):
            value = getattr(self, name)
            number = _seconds(value) if self.is_of_dates else value
            if number is None:
                wanted = "a duration: seconds, a timedelta, or '30d'"
                raise InvalidQuery(f"the {name} of a boost is {value!r}; wanted {wanted}", path=name)
            found.append(_number(name, number, least, 1e290))
        return found[0], found[1]

    @property
    def steepness(self) -> float:
        """The scale that rerank/decay.py takes for a decay which is `at` after its own scale."""
        scale, _ = self.distances
        if self.decay == "linear":
            return scale / (1 - self.at)
        halving = -math.log(self.at)
        return scale / halving if self.decay == "exp" else scale / math.sqrt(2 * halving)

    def origin_at(self, now: float) -> float:
        """The origin of a decay: a number, or microseconds since 1970; now: in seconds."""
        if not self.is_of_dates:
            return float(self.origin)
        moment = None if self.origin is None else _as_date(self.origin)
        return now * 1e6 if moment is None else float(microseconds(moment))

    def gain(self, values: Any) -> Any:
        """What this boost does where it applies, for values (n,): factors, or what is added."""
        weight = self.share
        if self.op == "add":
            return np.clip(weight * values, -_LARGEST, _LARGEST)
        if self.kind == "where":
            return np.clip(weight * values, 0, _LARGEST)
        start = 1 - weight if self.kind == "decay" else 1
        return np.clip(start + weight * values, 0, _LARGEST)

    @property
    def share(self) -> float:
        return 1.0 if self.weight is None else float(self.weight)

    def _check_weight(self, kind: str) -> None:
        if self.weight is None:
            if kind == "where":
                raise InvalidQuery("a boost by where has no weight; say by how much, weight=1.5", path="weight")
            return
        if self.op == "add":
            _number("weight", self.weight, -_LARGEST, _LARGEST)
        else:
            _number("weight", self.weight, 0, 1 if kind == "decay" else _LARGEST)

    def _check_origin(self) -> None:
        if not self.is_of_dates:
            _number("origin", self.origin, -1e290, 1e290)
        elif self.origin != NOW and _as_date(self.origin) is None:
            raise InvalidQuery(
                f"the origin of a boost is {self.origin!r}; wanted 'now' or a date, as its scale is a duration",
                path="origin",
            )


_DEFAULTS: Final = {field.name: field.default for field in fields(Boost)}


def boosts_of(given: Any) -> tuple[Boost, ...]:
    """Boosts, also from mappings. Raises InvalidQuery, InvalidFilter; their path says which one."""
    if given is None:
        return ()
    if isinstance(given, str | Mapping) or not isinstance(given, Sequence):
        raise InvalidQuery(f"boosts is {given!r}; give a list such as [{{'where': {{…}}, 'weight': 1.5}}]")
    if len(given) > _MOST:
        raise InvalidQuery(f"there are {len(given)} boosts; at most {_MOST} are taken")
    boosts = []
    for place, one in enumerate(given):
        with InvalidInput.under(f"[{place}]"):
            boosts.append(one if isinstance(one, Boost) else _boost_of(one))
    return tuple(boosts)


def _boost_of(given: Any) -> Boost:
    known = list(_DEFAULTS)
    if not isinstance(given, Mapping):
        raise InvalidQuery(f"a boost is {given!r}; give a mapping with some of {', '.join(known)}")
    for name in given:
        if name not in known:
            raise InvalidQuery(f"a boost has no {name!r}; there are {', '.join(known)}", path=str(name))
    return Boost(**given)


def _as_date(value: Any) -> date | None:
    """The date that a value is or says; None for anything else."""
    if isinstance(value, date):
        return value
    text = value[DATE_KEY] if isinstance(value, Mapping) and is_date_object(value) else value
    try:
        return parse_date(text) if isinstance(text, str) else None
    except ValueError:
        return None


def _seconds(value: Any) -> float | None:
    """A duration in seconds; None if it is none."""
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, str):
        found = _DURATION.fullmatch(value.strip())
        return None if found is None else float(found[1]) * _SECONDS[found[2]]
    return float(value) if isinstance(value, int | float | np.number) else None


def _number(name: str, value: object, least: float, most: float) -> float:
    is_number = isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)
    if not is_number or not least <= value <= most:  # type: ignore[operator]
        raise InvalidQuery(
            f"the {name} of a boost is {value!r}; it must be a number from {least:g} to {most:g}", path=name
        )
    return float(value)  # type: ignore[arg-type]


def _one_of(name: str, value: object, choices: Sequence[str]) -> None:
    if not isinstance(value, str) or value not in choices:
        raise InvalidQuery(f"the {name} of a boost is {value!r}; it must be one of {', '.join(choices)}", path=name)
