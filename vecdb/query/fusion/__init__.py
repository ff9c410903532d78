"""Making one ranking of several. Each kind is a small value with two methods (see `base.Fusion`); none keeps any state.

ranks.py     by rank: Rrf                       vstash.py     the rule of vstash, to compare with
scores.py    by score: Weighted (min-max), ZScore, Distribution, CombMnz
adaptive.py  weights of each query's own        features.py   what they are read off
learning.py  from judged queries                learned.py    what was learned
fitting.py   to a collection, by what is asked of it
"""

from __future__ import annotations

from collections.abc import Callable

from vecdb.errors import InvalidQuery
from vecdb.query.fusion.adaptive import Adaptive, Lean
from vecdb.query.fusion.base import Evidence, Fused, Fusion, Share, fuse
from vecdb.query.fusion.ranks import Rrf
from vecdb.query.fusion.scores import CombMnz, Distribution, Weighted, ZScore
from vecdb.query.fusion.vstash import Vstash

__all__ = [
    "FUSIONS",
    "Adaptive",
    "CombMnz",
    "Distribution",
    "Evidence",
    "Fused",
    "Fusion",
    "Lean",
    "Rrf",
    "Share",
    "Vstash",
    "Weighted",
    "ZScore",
    "fuse",
    "fusion_of",
]

FUSIONS: dict[str, Callable[..., Fusion]] = {
    "rrf": Rrf,
    "weighted": Weighted,
    "zscore": ZScore,
    "distribution": Distribution,
    "combmnz": CombMnz,
    "adaptive": Adaptive,
    "vstash": Vstash,
}


def fusion_of(given: str | Fusion) -> Fusion:
    if isinstance(given, str):
        if given not in FUSIONS:
            raise InvalidQuery(
                f"fusion is {given!r}; it must be one of {', '.join(FUSIONS)}, or an object such as Rrf(k=20)"
            )
        return FUSIONS[given]()
    if not isinstance(given, Fusion):
        raise InvalidQuery(f"fusion is {given!r}; give 'rrf', 'weighted', or an object such as Rrf(k=20)")
    return given
