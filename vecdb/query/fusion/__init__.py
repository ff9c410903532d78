"""Making one ranking of several. Each kind is a small value with two methods (see `base.Fusion`); none keeps any state.

ranks.py     by rank: Rrf                       vstash.py     the rule of vstash, to compare with
scores.py    by score: Weighted (min-max), ZScore, Distribution, CombMnz
adaptive.py  weights of each query's own        features.py   what they are read off
learning.py  from judged queries                learned.py    what was learned
fitting.py   to a collection, by what is asked of it
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from vecdb.errors import InvalidQuery
from vecdb.query.fusion.adaptive import Adaptive, Lean
from vecdb.query.fusion.base import Evidence, Fused, Fusion, Share, fuse
from vecdb.query.fusion.ranks import Rrf
from vecdb.query.fusion.scores import CombMnz, Distribution, Weighted, ZScore
from vecdb.query.fusion.vstash import Vstash
from vecdb.query.kinds import kind_from_json, kind_to_json, tuples

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
    "fusion_from_json",
    "fusion_of",
    "fusion_to_json",
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


def fusion_of(given: str | Mapping[str, Any] | Fusion, lists: int = 2) -> Fusion:
    """The fusion of so many lists, by name, as data, or as it is; weights that were not given are equal. Raises InvalidQuery."""
    if isinstance(given, str):
        if given not in FUSIONS:
            raise InvalidQuery(
                f"fusion is {given!r}; it must be one of {', '.join(FUSIONS)}, or an object such as Rrf(k=20)"
            )
        return _weighing_alike(FUSIONS[given](), lists)
    if isinstance(given, Mapping):
        fusion = fusion_from_json(given)
        return fusion if "weights" in given else _weighing_alike(fusion, lists)
    if not isinstance(given, Fusion):
        raise InvalidQuery(f"fusion is {given!r}; give 'rrf', 'weighted', or an object such as Rrf(k=20)")
    return given


def fusion_to_json(fusion: str | Mapping[str, Any] | Fusion) -> str | dict[str, Any]:
    """Raises InvalidQuery for a fusion of the caller's own, which is code and stays where it is."""
    return kind_to_json("fusion", fusion, FUSIONS)


def fusion_from_json(value: Mapping[str, Any]) -> Fusion:
    """Raises InvalidQuery for options that this kind does not have."""
    known = dict(value)
    if isinstance(lean := value.get("lean"), Mapping):  # of an adaptive fusion
        try:
            known["lean"] = Lean(**tuples(lean))
        except TypeError as error:
            message = f"the lean of a fusion is {dict(lean)!r}; give bias, slopes, means and deviations"
            raise InvalidQuery(message) from error
    fusion: Fusion = kind_from_json("fusion", known, FUSIONS)
    return fusion


def _weighing_alike(fusion: Fusion, lists: int) -> Fusion:
    weights = getattr(fusion, "weights", None)
    if weights is None or len(weights) == lists:
        return fusion
    return replace(fusion, weights=weights[:1] * lists)  # type: ignore[type-var]
