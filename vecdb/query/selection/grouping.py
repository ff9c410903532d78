"""A limit for each group. Groups are numbers; those below 0 are no group, and their members are never too many."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.int64]


def first_of_each(groups: Numbers, per_group: int) -> Numbers:
    """Places, ascending, of the first per_group members of each group. groups: (c,) the group of each, best first."""
    order = np.argsort(groups, kind="stable")
    in_order = groups[order]
    begins = np.searchsorted(in_order, in_order, side="left")
    kept = (np.arange(len(groups)) - begins < per_group) | (in_order < 0)
    places: Numbers = np.sort(order[kept])
    return places


def roomy(groups: Numbers, size: int, wanted: int, per_group: int) -> Numbers:
    """Places, ascending, of the best `size` of a list that is cut to per_group of each group later: the first ones, unless they
    leave fewer than `wanted` then; in that case the last of them make room for members of other groups.
    """
    left = first_of_each(groups, per_group)[:wanted]
    if not len(left) or left[-1] < size:
        return np.arange(min(size, len(groups)))
    others = np.setdiff1d(np.arange(len(groups)), left)
    places: Numbers = np.sort(np.concatenate([left, others[: max(size - len(left), 0)]]))
    return places
