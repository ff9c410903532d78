"""What users did, in flat arrays, and the pieces of it that a model is trained on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Items = NDArray[np.int64]

PADDING = 0  # stands where a history has no item; items are numbered from 1


@dataclass(frozen=True)
class Histories:
    """items (T,): numbers from 1, of one user after the other, oldest first; bounds (U + 1,): where each user's begin."""

    items: Items
    bounds: Items

    @classmethod
    def of(cls, histories: Sequence[Sequence[int]]) -> Histories:
        lengths = [len(history) for history in histories]
        bounds = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        return cls(np.fromiter((i for history in histories for i in history), np.int64, int(bounds[-1])), bounds)

    def __len__(self) -> int:
        return len(self.bounds) - 1

    def user(self, number: int) -> Items:
        return self.items[self.bounds[number] : self.bounds[number + 1]]

    def without_last(self) -> tuple[Histories, Items]:
        """All but the last item of each, and (U,) that item: PADDING for those with fewer than two, which are kept whole."""
        ends = self.bounds[1:]
        has_last = np.diff(self.bounds) >= 2
        last = np.where(has_last, self.items[np.maximum(ends - 1, 0)] if len(self.items) else PADDING, PADDING)
        kept = np.ones(len(self.items), np.bool_)
        kept[ends[has_last] - 1] = False
        lengths = np.diff(self.bounds) - has_last
        return Histories(self.items[kept], np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)), last

    def latest(self, length: int) -> Items:
        """(U, length): the last items of each history, its end at the right, PADDING before."""
        return np.stack([padded(self.user(n), length) for n in range(len(self))]) if len(self) else _none(length)


@dataclass(frozen=True)
class Windows:
    """Pieces of histories, each with what is to be told from it.

    before (W, long + short): what the user took up to the last target, and earlier. The last `short` of its places belong to
    the targets (W, short): what is in column c came after the item at place long + c; PADDING where there is none to learn.
    """

    before: Items
    targets: Items

    def __len__(self) -> int:
        return len(self.targets)

    def batches(self, size: int, rng: np.random.Generator) -> Iterator[Windows]:
        order = rng.permutation(len(self))
        for start in range(0, len(order), size):
            chosen = order[start : start + size]
            yield Windows(self.before[chosen], self.targets[chosen])


def windows(histories: Histories, short: int, long: int, rng: np.random.Generator) -> Windows:
    """Cuts histories so that each item is a target once: of all that the same user took before it, and nothing later.

    Where the cuts are changes with rng: an item is not always seen with the same number of items before it.
    """
    before, targets = [], []
    for number in range(len(histories)):
        items = histories.user(number)
        end, first = len(items), int(rng.integers(1, short + 1))  # targets are items[end - length : end]
        length = first
        while end > 0:
            start = max(end - length, 0)
            row = np.full(short, PADDING, np.int64)
            row[short - (end - start) :] = items[start:end]
            targets.append(row)
            before.append(padded(items[: end - 1], long + short))
            end, length = start, short
    if not targets:
        return Windows(_none(long + short), _none(short))
    return Windows(np.stack(before), np.stack(targets))


def padded(items: Items, length: int) -> Items:
    """(length,): the last of the items, at the right."""
    row = np.full(length, PADDING, np.int64)
    kept = items[max(0, len(items) - length) :]
    row[length - len(kept) :] = kept
    return row


def _none(length: int) -> Items:
    return np.empty((0, length), np.int64)
