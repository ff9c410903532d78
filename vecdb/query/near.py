"""Nearness in a second space (see `vecdb.nearness`) as part of a search: a constraint, a weight on the score, or both.

A constraint is a filter. A weight k, from a kernel of the distance d, makes of a score s:  s + |s| * (k - 1),  as a boost by the
same decay would, but of every record and not of candidates alone: the best are found for certain, since a record's score is at
most what the best similarity and the largest weight of those not yet looked at would give together.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from vecdb.attributes import Attributes, Mask
from vecdb.errors import InvalidInput, InvalidQuery
from vecdb.filters import And, Near, Node
from vecdb.nearness import Place, place_of, reach_of
from vecdb.query.ranking import Ranking, Scores, ranked

Kernel = Literal["linear", "gauss", "exp"]
KERNELS: Final[dict[Kernel, Callable[[Scores], Scores]]] = {  # of distance / scale; one half at 1
    "linear": lambda away: np.maximum(1.0 - away / 2, 0.0),
    "gauss": lambda away: np.exp2(-np.square(np.minimum(away, 1e150))),
    "exp": lambda away: np.exp2(-away),
}
_NAMES = ("at", "within", "kernel", "scale")
_MOST = 8
_HALVINGS = 12  # weights below 2 ** -12 are looked at together
Slots = NDArray[np.int64]
SearchWithin = Callable[[Mask, int], tuple[Slots, Scores]]


@dataclass(frozen=True, slots=True)
class Nearby:
    """One field's nearness to a place. within: farther records are no hits. kernel: "linear" (1 at the place, 1/2 at scale, 0
    from twice that on), "gauss" or "exp" (1/2 at scale, never 0); records of weight 0 are no hits, nor those without a place.
    """

    field: str
    place: Place
    within: float | None = None
    kernel: Kernel | None = None
    scale: float = 1.0

    @property
    def as_data(self) -> dict[str, Any]:
        """As `nearby_of` takes it."""
        given = {"within": self.within, "kernel": self.kernel, "scale": None if self.kernel is None else self.scale}
        at = self.place.as_json
        return {"at": at[0] if len(at) == 1 else at} | {
            name: value for name, value in given.items() if value is not None
        }

    def constraint(self, now: float) -> Node | None:
        """The filter that this is; None if every distance has a weight."""
        return None if self.within is None else Near(self.field, self.place.at(now), self.within)

    def weights(self, attributes: Attributes, now: float) -> Scores:
        """(n,) of each slot, 0 … 1."""
        away = attributes.distances(self.field, self.place.at(now))
        weights = np.where(np.isfinite(away), 1.0, 0.0)
        if self.kernel is not None:
            known = np.flatnonzero(weights)
            weights[known] = KERNELS[self.kernel](away[known] / self.scale)
        return weights


def nearby_of(given: Any) -> tuple[Nearby, ...]:
    """{"geo": (lat, lon, radius)}, {"time": (centre, width)}, or {"geo": {"at": (lat, lon), "kernel": "gauss", "scale": "2km"}}.

    Raises InvalidQuery; its path says which field.
    """
    if given is None:
        return ()
    if not isinstance(given, Mapping) or not given or len(given) > _MOST:
        raise InvalidQuery(
            f"near is {given!r}; give 1 to {_MOST} fields, {{'geo': (lat, lon, radius)}} or {{'time': (centre, width)}}"
        )
    made = []
    for field, said in given.items():
        with InvalidInput.under(str(field)):
            made.append(_nearby(field, said))
    return tuple(made)


def both(a: Node | None, b: Node | None) -> Node | None:
    """The filter that two make."""
    if a is None or b is None:
        return b if a is None else a
    return And((a, b))


def constraint(nearby: Sequence[Nearby], now: float | None = None) -> Node | None:
    """The filter that all of them are together; None if they are none."""
    moment = time.time() if now is None else now
    parts = tuple(part for near in nearby if (part := near.constraint(moment)) is not None)
    return None if not parts else parts[0] if len(parts) == 1 else And(parts)


def weights_of(nearby: Sequence[Nearby], attributes: Attributes) -> Scores:
    """(n,) the product of the weights of those that have a kernel."""
    now = time.time()
    product = np.ones(len(attributes))
    for near in nearby:
        if near.kernel is not None:
            product *= near.weights(attributes, now)
    return product


def weighed(scores: Scores, weights: Scores) -> Scores:
    """(c,) scores with weights: grows with both."""
    changed: Scores = scores + np.abs(scores) * (weights - 1.0)
    return changed


def weighed_ranking(ranking: Ranking, weights: Scores, depth: int) -> Ranking:
    """The depth best of a whole list anew, by weighed scores; what has weight 0 is left out. weights: (c,)."""
    kept = np.flatnonzero(weights > 0)
    return ranked(ranking.name, ranking.rows[kept], weighed(ranking.scores[kept], weights[kept])).first(depth)


def best_weighed(
    search: SearchWithin, weights: Scores, allowed: Mask, depth: int, ceiling: float
) -> tuple[Slots, Scores]:
    """Slots and weighed scores of the depth best among the allowed ones, best first, equal ones by slot: the true ones, if
    search(mask, count) gives the true best of a mask.

    weights: (n,); ceiling: a score that none is above. Slots are looked at by their weights, halving by halving, each time
    the best by score first; what is left of a halving is passed over once it cannot come up to the depth best.
    """
    slots, scores = np.zeros(0, np.int64), np.zeros(0)
    edges = [*(2.0**-step for step in range(_HALVINGS)), 0.0]
    for high, low in pairwise(edges):
        within = allowed & (weights <= high) & (weights > low)
        count = int(np.count_nonzero(within))
        if not count:
            continue
        if len(slots) == depth and weighed(np.array([ceiling]), np.array([high]))[0] < scores[-1]:
            break
        asked, before = min(depth, count), (slots, scores)
        while True:
            found, plain = search(within, asked)
            slots = np.concatenate([before[0], found])
            scores = np.concatenate([before[1], weighed(plain, weights[found])])
            order = np.lexsort((slots, -scores))[:depth]
            slots, scores = slots[order], scores[order]
            if len(found) < asked or asked == count:
                break
            if len(slots) == depth and weighed(plain[-1:], np.array([high]))[0] < scores[-1]:
                break
            asked = min(4 * asked, count)
    return slots, scores


def _nearby(field: Any, said: Any) -> Nearby:
    if not isinstance(field, str) or not field:
        raise InvalidQuery(f"near has the field {field!r}; name a metadata key, or a system field such as '$created'")
    if isinstance(said, list | tuple):
        if len(said) not in (2, 3):
            raise InvalidQuery(
                f"near {field!r} is {said!r}; give (latitude, longitude, radius), or (centre, width) of a date or a number"
            )
        said = {"at": said[:-1], "within": said[-1]}
    if not isinstance(said, Mapping):
        raise InvalidQuery(f"near {field!r} is {said!r}; give a tuple, or a mapping with some of {', '.join(_NAMES)}")
    for name in said:
        if name not in _NAMES:
            raise InvalidQuery(f"near {field!r} has no {name!r}; there are {', '.join(_NAMES)}", path=str(name))
    kernel = said.get("kernel")
    if kernel is None and said.get("within") is None:
        raise InvalidQuery(f"near {field!r} has neither within nor kernel; give one of them, or both")
    if kernel is not None and kernel not in KERNELS:
        raise InvalidQuery(f"the kernel is {kernel!r}; it must be one of {', '.join(KERNELS)}", path="kernel")
    if (kernel is None) != (said.get("scale") is None):
        raise InvalidQuery("kernel and scale go together: the weight is one half at scale", path="scale")
    at = said.get("at")
    try:
        centre = at if isinstance(at, list | tuple) else [at]
        place = place_of(centre)
        reaches = {
            name: None if said.get(name) is None else reach_of(said[name], place.space, name)
            for name in ("within", "scale")
        }
    except ValueError as error:
        raise InvalidQuery(f"near {field!r} {error}") from None
    return Nearby(field, place, reaches["within"], kernel, reaches["scale"] or 1.0)
