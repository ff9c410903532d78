"""The compiled loop over grids. It takes arrays and numbers, checks nothing and raises nothing."""

from __future__ import annotations

import numpy as np
from numba import njit


@njit(cache=True, nogil=True)
def meet(keys, members, groups, wanted, most, most_of_one, marks, number, counts, met):
    """What a query vector shares a cell with, each once, into met (n,) int32 -> how many, entries read.

    keys (T, n) int64 ascending in each table, members (T, n) int32; groups (n,) int64: of each member, below 0 for one to pass
    over; wanted (T,) int64: the query's cell in each table, finest radius first. most: once so many were met, no other table is
    looked at; most_of_one: of one group. marks (n,) int32: never `number` before the call; counts (G,) int32: zeros, before and
    after.
    """
    count, read = 0, 0
    for t in range(wanted.shape[0]):
        if count >= most:
            break
        low, high = 0, keys.shape[1]
        key = wanted[t]
        while low < high:
            middle = (low + high) // 2
            if keys[t, middle] < key:
                low = middle + 1
            else:
                high = middle
        while low < keys.shape[1] and keys[t, low] == key:
            member = members[t, low]
            read += 1
            group = groups[member]
            if group >= 0 and marks[member] != number and counts[group] < most_of_one:
                marks[member] = np.int32(number)
                counts[group] += np.int32(1)
                met[count] = member
                count += 1
            low += 1
    for place in range(count):
        counts[groups[met[place]]] = np.int32(0)
    return count, read
