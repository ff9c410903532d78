"""Constrained neighbours: lists made so long that enough different groups are in them, however crowded one of them is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from vecdb.attributes import Groups
from vecdb.memory import Snapshot
from vecdb.query.ranking import Ranking, Rows
from vecdb.query.selection.grouping import Numbers, first_of_each

Search = Callable[[int, Rows], Ranking]  # so many of the best, without these rows

_LEAST_ASKED = 64


def field_of(by: str) -> str:
    """Where the columns keep what records are grouped by: the parent, or a metadata key."""
    return "$parent" if by == "parent" else by


class Crowds:
    """The groups of the records of one snapshot, whose attributes are loaded."""

    def __init__(self, snapshot: Snapshot, by: str) -> None:
        assert snapshot.attributes is not None
        self._snapshot = snapshot
        self._groups: Groups = snapshot.attributes.grouped_by(field_of(by))

    def of(self, rows: Rows) -> Numbers:
        """(c,) the group of each row, -1 for none."""
        slots = self._snapshot.slots_of(rows)
        return np.where(slots >= 0, self._groups.numbers[slots], -1) if len(self._groups.numbers) else slots

    def key(self, group: int) -> Any:
        """The value that the records of a group share; None for none."""
        return self._groups.keys.get(group)

    def members(self, groups: Numbers) -> Rows:
        """All rows of these groups."""
        rows: Rows = self._snapshot.rows[np.isin(self._groups.numbers, groups[groups >= 0])]
        return rows


def spread(ranking: Ranking, asked: int, wanted: int, per_group: int, crowds: Crowds, search: Search) -> Ranking:
    """A list that leaves `wanted` rows when at most per_group of each group are kept, or all that there are.

    ranking: what a search for `asked` of the best gave. While too few groups are in it, the search is made again without the rows
    that are in it and without those of groups that are full; what it gives then follows. So rows are missing from the list that
    would have been dropped later, and no others; each search fills a group or is the last, and asks for twice as many.
    """
    found = len(ranking)
    while found == asked:
        groups = crowds.of(ranking.rows)
        if len(first_of_each(groups, per_group)) >= wanted:
            break
        counts = np.unique(groups[groups >= 0], return_counts=True)
        full = crowds.members(counts[0][counts[1] >= per_group])
        asked = max(2 * asked, _LEAST_ASKED)
        more = search(asked, np.union1d(full, ranking.rows))
        found = len(more)
        # One that an index missed at first may be better than what it gave.
        scores = np.concatenate([ranking.scores, more.scores])
        order = np.argsort(-scores, kind="stable")
        ranking = Ranking(ranking.name, np.concatenate([ranking.rows, more.rows])[order], scores[order])
    return ranking
