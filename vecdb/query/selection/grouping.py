"""A limit for each group."""

from __future__ import annotations

from collections.abc import Hashable, Sequence


def grouped(groups: Sequence[Hashable], per_group: int) -> list[int]:
    """Places of the first per_group members of each group, in the order given. None is no group: it is always kept."""
    seen: dict[Hashable, int] = {}
    places = []
    for place, group in enumerate(groups):
        if group is not None:
            seen[group] = seen.get(group, 0) + 1
            if seen[group] > per_group:
                continue
        places.append(place)
    return places
