"""Matches without labels: near duplicates in the data itself.

Two records are taken for one if each is the other's nearest by the encoder and by words alike: two witnesses that err otherwise
(co-training, Blum and Mitchell 1998). What is found this way is the easier part of the matches.
"""

from __future__ import annotations

import numpy as np

from vecdb.blocking.codes import Codes, Views, codes_of, nearest
from vecdb.blocking.training import Matches

_LEAST_COSINE = 0.3  # a table without any duplicate has nearest neighbours, too


def pseudo_matches(a: Views, b: Views, *, itself: bool = False) -> Matches:
    """itself: b are the same records as a; each pair is then given once."""
    found = _mutual(_alone(0, a), _alone(0, b), itself)
    if a.words:
        found &= _mutual(_alone(1, a), _alone(1, b), itself)
    chosen = sorted(pair for pair in found if not itself or pair[0] < pair[1])
    pairs = np.array(chosen, dtype=np.int64).reshape(-1, 2)
    return Matches(np.ascontiguousarray(pairs[:, 0]), np.ascontiguousarray(pairs[:, 1]))


def _alone(view: int, views: Views) -> Codes:
    """Codes of one view only."""
    weights = np.zeros(1 + len(views.words), np.float32)
    weights[view] = 1
    return codes_of(views, views.meaning, weights)


def _mutual(a: Codes, b: Codes, itself: bool) -> set[tuple[int, int]]:
    there, products = nearest(a, b, 1, itself=itself)
    back = there if itself else nearest(b, a, 1)[0]
    if not there.shape[1]:
        return set()
    own, target = np.arange(len(a)), there[:, 0]
    kept = (back[target, 0] == own) & (products[:, 0] >= _LEAST_COSINE)
    return set(zip(own[kept].tolist(), target[kept].tolist()))
