"""The compiled loop over grids. It takes arrays and numbers, checks nothing and raises nothing."""

from __future__ import annotations

import numpy as np
from numba import njit


@njit(cache=True, nogil=True)
def look_up(keys, groups, bounds, wanted, worth, most, marks, scores):
    """Adds to scores (G,) float64 what each query vector sees of each group -> entries read.

    keys, groups (n,): the entries of T = radii · grids tables one after the other, table t from bounds[t] to bounds[t + 1], keys
    ascending; wanted (Q, T) int64: the key of each query vector in each table, finest radius first. worth (T,): what a group
    counts that comes up first in table t. most: a query vector that has met so many groups looks no further than its radius.
    marks (G,) int32: zeros.
    """
    read = 0
    for q in range(wanted.shape[0]):
        met = 0
        for t in range(wanted.shape[1]):
            if met >= most and worth[t] != worth[t - 1]:
                break
            low, high = bounds[t], bounds[t + 1]
            key = wanted[q, t]
            while low < high:
                middle = (low + high) // 2
                if keys[middle] < key:
                    low = middle + 1
                else:
                    high = middle
            while low < bounds[t + 1] and keys[low] == key:
                group = groups[low]
                read += 1
                if marks[group] != q + 1:
                    marks[group] = np.int32(q + 1)
                    scores[group] += worth[t]
                    met += 1
                low += 1
    return read
