"""The compiled loop over grids. It takes arrays and numbers, checks nothing and raises nothing."""

from __future__ import annotations

import numpy as np
from numba import njit


@njit(cache=True, nogil=True)
def meet(keys, members, wanted, most, marks, number, met):
    """What a query vector shares a cell with, each once, into met (n,) int32 -> how many, entries read.

    keys (T, n) int64 ascending in each table, members (T, n) int32; wanted (T,) int64: the query's cell in each table, finest
    radius first. most: once so many were met, no other table is looked at. marks (n,) int32: never `number` before the call.
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
            if marks[member] != number:
                marks[member] = np.int32(number)
                met[count] = member
                count += 1
            low += 1
    return count, read
