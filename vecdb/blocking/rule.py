"""Which pairs are candidates, and how that is settled on pairs that are known to match.

A rule looks at each record of one side and takes its k nearest on the other, less those whose codes are further away than matches
usually are. Settled on n matches that training did not see: for each side and k, the distance is the largest that is needed for
as many matches as the wanted recall asks for; the rule with the fewest candidates is taken.

What is promised: if recall were below the one wanted, so many of n would be found with a probability of at most 1 - confidence
(the exact binomial bound). Side and k are chosen by the same matches, which costs a little of that; with confidence 0.5, recall
is as likely above as below. Where n is too small for any promise, all n must be found, and `assured` tells what that proves.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from vecdb.blocking.codes import Codes, Matrix, Places, nearest
from vecdb.blocking.training import Matches, ranks_and_products
from vecdb.errors import InvalidInput

Side = Literal["a", "b"]
_STEPS = (1, 2, 3, 4, 5, 6, 8, 10, 12, 15, 20, 25, 30, 40, 50, 70, 100, 150, 200, 300, 500)


@dataclass(frozen=True, slots=True)
class Rule:
    """side: whose records look for the others. least: inner product of codes below which a pair is no candidate."""

    side: Side
    k: int
    least: float = -1.0


@dataclass(frozen=True, slots=True)
class Calibration:
    """matches: how many it was settled on; found: by the rule. assured: the recall that this proves at that confidence.

    candidates: that the rule makes of the tables it was settled on. From pseudo-matches (not is_supervised) nothing is proved.
    """

    recall: float
    confidence: float
    matches: int
    found: int
    assured: float
    candidates: int
    is_supervised: bool = True


@dataclass(frozen=True, slots=True)
class Evidence:
    """What matches say of one side's rules. ranks, near (M,): of each match, from that side, and its inner product.

    products (N, K): of each record of the side with its nearest ones. others: how many there are.
    """

    side: Side
    ranks: NDArray[np.int64]
    near: Matrix
    products: Matrix
    others: int

    def rules(self, wanted: int, *, with_distance: bool = True) -> list[tuple[int, Rule]]:
        """(candidates, rule) for each k that finds so many matches; without a distance, the smallest k."""
        needed = int(np.sort(self.ranks)[wanted - 1])
        if not with_distance:
            return [(needed * len(self.products), Rule(self.side, needed))]
        made = []
        for k in sorted({needed, *(k for k in (*_STEPS, self.others) if needed <= k <= _deepest(needed))}):
            least = float(np.sort(self.near[self.ranks <= k])[::-1][wanted - 1])
            made.append((int((self.products[:, :k] >= least).sum()), Rule(self.side, k, least)))
        return made

    def found(self, rule: Rule) -> int:
        return int(((self.ranks <= rule.k) & (self.near >= rule.least)).sum())


def evidence(a: Codes, b: Codes, matches: Matches, wanted: int) -> tuple[Evidence, Evidence]:
    """For rules that are to find so many of the matches, or fewer."""
    sides = []
    for side, own, others, pairs in (("a", a, b, matches), ("b", b, a, matches.turned())):
        ranks, near = ranks_and_products(own, others, pairs)
        depth = min(len(others), _deepest(int(np.sort(ranks)[wanted - 1])))
        products = nearest(own, others, depth)[1]
        sides.append(Evidence(side, ranks, near, products, len(others)))  # type: ignore[arg-type]
    return sides[0], sides[1]


def cheapest(sides: tuple[Evidence, Evidence], wanted: int, *, with_distance: bool = True) -> tuple[int, Rule]:
    """(candidates, rule)."""
    options = [option for side in sides for option in side.rules(wanted, with_distance=with_distance)]
    return min(options, key=lambda option: option[0])


def calibrate(
    a: Codes, b: Codes, matches: Matches, *, recall: float, confidence: float, is_supervised: bool = True
) -> tuple[Rule, Calibration]:
    """The cheapest rule that finds enough of the matches. Raises InvalidInput for numbers out of range, or without a match."""
    check_wanted(recall, confidence)
    if not len(matches):
        raise InvalidInput("there is no match to settle the number of candidates on; give more pairs, or k")
    count = len(matches)
    wanted = found_for(recall, count, confidence)
    sides = evidence(a, b, matches, wanted)
    candidates, rule = cheapest(sides, wanted)
    found = sides[0 if rule.side == "a" else 1].found(rule)
    assured = assured_recall(found, count, confidence)
    return rule, Calibration(recall, confidence, count, found, assured, candidates, is_supervised)


def candidates_by(rule: Rule, a: Codes, b: Codes, *, itself: bool = False) -> tuple[Places, Places, Matrix]:
    """(C,) places in a, in b, and inner products of all candidates, by the records of the rule's side, nearest first."""
    own, others = (a, b) if rule.side == "a" else (b, a)
    places, products = nearest(own, others, rule.k, itself=itself)
    chosen = products >= rule.least
    from_own = np.repeat(np.arange(len(own)), places.shape[1]).reshape(places.shape)[chosen]
    left, right = (from_own, places[chosen]) if rule.side == "a" else (places[chosen], from_own)
    return left, right, products[chosen]


def found_for(recall: float, matches: int, confidence: float) -> int:
    """The fewest of so many matches that must be found to promise that recall; all of them where even that is no promise."""
    for found in range(math.ceil(recall * matches - 1e-9), matches + 1):
        if _tail(found, matches, recall) <= 1 - confidence + 1e-12:
            return found
    return matches


def assured_recall(found: int, matches: int, confidence: float) -> float:
    """The least recall under which so many would be found with a probability above 1 - confidence (Clopper and Pearson 1934)."""
    if not found:
        return 0.0
    low, high = 0.0, 1.0
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (low, middle) if _tail(found, matches, middle) > 1 - confidence else (middle, high)
    return low


def check_wanted(recall: float, confidence: float) -> None:
    if not 0 < recall <= 1:
        raise InvalidInput(f"recall is {recall!r}; it must be above 0 and at most 1")
    if not 0 < confidence < 1:
        raise InvalidInput(f"confidence is {confidence!r}; it must lie between 0 and 1")


def _tail(found: int, matches: int, recall: float) -> float:
    """The probability that at least so many of the matches are found."""
    if recall >= 1:
        return 1.0
    if recall <= 0:
        return float(found <= 0)
    places = range(found, matches + 1)
    whole = math.lgamma(matches + 1)
    logs = (
        whole
        - math.lgamma(i + 1)
        - math.lgamma(matches - i + 1)
        + i * math.log(recall)
        + (matches - i) * math.log1p(-recall)
        for i in places
    )
    return min(1.0, math.fsum(map(math.exp, logs)))


def _deepest(needed: int) -> int:
    """How large a k is tried: beyond the one that matches need, a larger one with a smaller distance is seldom cheaper."""
    return max(2 * needed, 10)
