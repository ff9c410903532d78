"""Ways to block, each measured on entities that neither its training nor the choice of its rule saw.

Records of the test part look for their matches in the whole other table. A way gives codes of both tables for each fold; what
counts as a candidate is settled on the validation part, as the library does it: k alone, and k with a distance. Figures are
sums over five folds, so that every entity is tested once.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.learned.er_sets import FOLDS, ErSet, frozen_vectors, is_tuned, roles, tuned_vectors
from vecdb.blocking.codes import Codes, Views, lexicons_of, nearest, views_of
from vecdb.blocking.hashing import HashConfig, Head
from vecdb.blocking.rule import cheapest, evidence, found_for
from vecdb.blocking.training import Learned, Matches, hard_others, ranks_of, start, train, triplets_of

Ranks = NDArray[np.int64]
TARGETS = (0.8, 0.85, 0.88, 0.9, 0.92, 0.94, 0.95, 0.96, 0.97, 0.98, 0.99)
KS = (1, 2, 3, 4, 5, 6, 8, 10, 12, 15, 20, 25, 30, 40, 50, 70, 100, 150, 200)
_WANTED, _PUBLISHED_RECALL = 0.95, 0.89  # 0.89: the recall at which NLSHBlock reports F1 on Abt-Buy


@dataclass(frozen=True)
class Fold:
    """What a way is given: views of both tables, and of the training parts alone."""

    data: ErSet
    number: int
    views: tuple[Views, Views]
    config: HashConfig

    @property
    def valid(self) -> Matches:
        return self.data.matches_in(roles(self.number)[1])

    @property
    def test(self) -> Matches:
        return self.data.matches_in(roles(self.number)[2])

    def learned(self, views: tuple[Views, Views], config: HashConfig) -> Learned:
        """Trained on the training parts, stopped by the validation part."""
        parts = roles(self.number)[0]
        seen, matches = self.data.records_in(*parts), self.data.matches_in(*parts)
        own = tuple(side.taken(places) for side, places in zip(views, seen))
        renamed = Matches(*(np.searchsorted(p, m) for p, m in zip(seen, (matches.left, matches.right))))
        return train((own[0], own[1]), renamed, config, held_out=(views, self.valid))

    def tuned(self) -> tuple[Views, Views]:
        vectors = tuned_vectors(self.data, self.number, self.config)
        return tuple(replace(views, meaning=own) for views, own in zip(self.views, vectors))  # type: ignore[return-value]

    def without_words(self) -> tuple[Views, Views]:
        return Views(self.views[0].meaning, ()), Views(self.views[1].meaning, ())


def _whole(views: tuple[Views, Views], weights: Sequence[float]) -> Learned:
    """Views as they are, no head."""
    head = Head(np.eye(views[0].meaning.shape[1], dtype=np.float32))
    return Learned(head, np.array(weights, np.float32), ())


Way = Callable[[Fold], tuple[Learned, tuple[Views, Views]]]


def _blocker(fold: Fold) -> tuple[Learned, tuple[Views, Views]]:
    return fold.learned(fold.views, fold.config), fold.views


def _blocker_tuned(fold: Fold) -> tuple[Learned, tuple[Views, Views]]:
    views = fold.tuned()
    return fold.learned(views, fold.config), views


def _head(fold: Fold) -> tuple[Learned, tuple[Views, Views]]:
    views = fold.without_words()
    return fold.learned(views, fold.config), views


def _tuned(fold: Fold) -> tuple[Learned, tuple[Views, Views]]:
    views = fold.tuned()
    views = Views(views[0].meaning, ()), Views(views[1].meaning, ())
    return _whole(views, [1.0]), views


def _triplet(fold: Fold) -> tuple[Learned, tuple[Views, Views]]:
    return fold.learned(fold.views, replace(fold.config, loss="triplet")), fold.views


def _untrained(fold: Fold) -> tuple[Learned, tuple[Views, Views]]:
    return start(fold.views, fold.config), fold.views


def _frozen(fold: Fold) -> tuple[Learned, tuple[Views, Views]]:
    views = fold.without_words()
    return _whole(views, [1.0]), views


def _words(fold: Fold) -> tuple[Learned, tuple[Views, Views]]:
    weights = [0.0, 1.0, *[0.0] * (len(fold.views[0].words) - 1)]
    return _whole(fold.views, weights), fold.views


WAYS: dict[str, Way] = {
    "blocker": _blocker,
    "blocker, encoder trained": _blocker_tuned,
    "head alone": _head,
    "encoder trained alone": _tuned,
    "blocker, triplet loss": _triplet,
    "untrained code": _untrained,
    "frozen encoder": _frozen,
    "tf-idf of words": _words,
}
MINHASH = "MinHash LSH"
_NEEDS_TUNED = frozenset({"blocker, encoder trained", "encoder trained alone"})


def study(data: ErSet, ways: Sequence[str], config: HashConfig, *, tune: bool) -> Iterator[dict[str, Any]]:
    """One line a way. tune: train encoders that are not kept yet; without it, those ways are measured on folds that have one."""
    fields = data.a.fields
    lexicons = lexicons_of((data.a, data.b), fields)
    views = tuple(
        views_of(table, vectors, fields, lexicons) for table, vectors in zip((data.a, data.b), frozen_vectors(data))
    )
    folds = [Fold(data, number, (views[0], views[1]), config) for number in range(FOLDS)]
    for name in ways:
        if name == MINHASH:
            from bench.learned.minhash import study_minhash

            yield {"part": "blocking", "data": described(data), "way": name, **study_minhash(data, _WANTED)}
            continue
        known = [fold for fold in folds if tune or name not in _NEEDS_TUNED or is_tuned(data, fold.number, config)]
        if known:
            yield {"part": "blocking", "data": described(data), "way": name, **measured(WAYS[name], known)}


def described(data: ErSet) -> dict[str, Any]:
    return {"name": data.name, "a": len(data.a), "b": len(data.b), "matches": len(data.matches), "folds": FOLDS}


def measured(way: Way, folds: Sequence[Fold]) -> dict[str, Any]:
    data = folds[0].data
    ranks: dict[str, list[Ranks]] = {"a": [], "b": []}
    ruled: dict[tuple[float, bool], list[tuple[int, float]]] = {}
    checks, weights, took = [], [], 0.0
    for fold in folds:
        since = time.perf_counter()
        learned, views = way(fold)
        took += time.perf_counter() - since
        codes = learned.codes(views[0]), learned.codes(views[1])
        weights.append(learned.weights.tolist())
        ranks["a"].append(ranks_of(*codes, fold.test))
        ranks["b"].append(ranks_of(codes[1], codes[0], fold.test.turned()))
        for key, counted in _ruled(codes, fold).items():
            ruled.setdefault(key, []).append(counted)
        checks.append(loss_check(fold, learned, views))
    possible = len(data.a) * len(data.b)
    tested = [data.records_in(roles(fold.number)[2]) for fold in folds]
    sizes = {side: sum(len(records[place]) for records in tested) for place, side in enumerate("ab")}
    matches = sum(len(fold.test) for fold in folds)
    by_k = {
        side: [
            {"k": k, "recall": float(np.mean(np.concatenate(own) <= k)), "ratio": k * sizes[side] / possible}
            for k in KS
        ]
        for side, own in ranks.items()
    }
    curves = {
        kind: [
            {
                "target": target,
                "recall": sum(found for found, _ in ruled[target, with_distance]) / matches,
                "ratio": sum(share for _, share in ruled[target, with_distance]) / len(folds),
            }
            for target in TARGETS
        ]
        for kind, with_distance in (("k", False), ("k and distance", True))
    }
    at = {kind: ratio_at(curve, _WANTED) for kind, curve in curves.items()}
    at["smallest k"] = min(filter(None, (_smallest(curve, _WANTED) for curve in by_k.values())), default=None)
    return {
        "by_k": by_k,
        "curves": curves,
        "ratio_at_wanted": at,
        "candidates_at_wanted": {kind: None if ratio is None else ratio * possible for kind, ratio in at.items()},
        "f1": f1_at({side: np.concatenate(own) for side, own in ranks.items()}, sizes, _PUBLISHED_RECALL),
        "loss_check": {name: np.mean([check[name] for check in checks], axis=0).tolist() for name in checks[0]},
        "weights": np.mean(weights, axis=0).tolist(),
        "train_s": took / len(folds),
        "folds": len(folds),
    }


def _ruled(codes: tuple[Codes, Codes], fold: Fold) -> dict[tuple[float, bool], tuple[int, float]]:
    """By the rules settled on the validation part, for each target: matches found, the share of pairs that are candidates."""
    valid = fold.valid
    wanted = {target: found_for(target, len(valid), 0.5) for target in TARGETS}
    sides = evidence(*codes, valid, max(wanted.values()))
    rules = {
        (target, with_distance): cheapest(sides, wanted[target], with_distance=with_distance)[1]
        for target in TARGETS
        for with_distance in (False, True)
    }
    counted = {}
    for place, side in enumerate("ab"):
        mine = {key: rule for key, rule in rules.items() if rule.side == side}
        if not mine:
            continue
        own, others = codes[place], codes[1 - place]
        test = fold.test if side == "a" else fold.test.turned()
        asking = fold.data.records_in(roles(fold.number)[2])[place]
        part = own.taken(asking)
        places, products = nearest(part, others, max(rule.k for rule in mine.values()))
        where = np.searchsorted(asking, test.left)
        for key, rule in mine.items():
            chosen = products[:, : rule.k] >= rule.least
            found = ((places[where, : rule.k] == test.right[:, None]) & chosen[where]).any(axis=1)
            counted[key] = int(found.sum()), float(chosen.sum()) / (len(asking) * len(others))
    return counted


def loss_check(fold: Fold, learned: Learned, views: tuple[Views, Views]) -> dict[str, Any]:
    """Distances on test triplets, others mined by the frozen encoder: shares inside R and beyond cR, and histograms (0 to 2)."""
    plain = fold.without_words()
    frozen = _whole(plain, [1.0])
    others = hard_others(frozen.codes(plain[0]), frozen.codes(plain[1]), fold.test, fold.config.negatives)
    given = triplets_of(views, fold.test, others)
    p, q, r = (learned.head(vectors.reshape(-1, vectors.shape[-1])) for vectors in (given.p, given.q, given.r))
    r = r.reshape(*given.r.shape[:2], -1)
    weights = learned.weights
    lengths = [np.sqrt(np.maximum(s @ weights, 1e-12)) for s in (given.shown_p, given.shown_q, given.shown_r)]
    near = (weights[0] * (p * q).sum(-1) + given.pq @ weights[1:]) / (lengths[0] * lengths[1])
    far = (weights[0] * np.einsum("pd,pnd->pn", p, r) + given.pr @ weights[1:]) / (lengths[0][:, None] * lengths[2])
    near, far = (np.sqrt(np.maximum(2 - 2 * products, 0)) for products in (near, far))
    radius, beyond = fold.config.radius, fold.config.radius * fold.config.gap
    bins = np.linspace(0, 2, 41)
    return {
        "inside": float(np.mean(near <= radius)),
        "beyond": float(np.mean(far >= beyond)),
        "both": float(np.mean((near <= radius)[:, None] & (far >= beyond))),
        "near": np.histogram(near, bins)[0] / near.size,
        "far": np.histogram(far, bins)[0] / far.size,
    }


def ratio_at(curve: Sequence[dict[str, float]], recall: float) -> float | None:
    """The candidate ratio at which a curve reaches this recall, between its points; None if it does not."""
    points = sorted((point["recall"], point["ratio"]) for point in curve)
    above = next((i for i, point in enumerate(points) if point[0] >= recall), None)
    if above is None:
        return None
    if above == 0:
        return points[0][1]
    (low, first), (high, second) = points[above - 1], points[above]
    return first + (second - first) * (recall - low) / (high - low)


def _smallest(curve: Sequence[dict[str, float]], recall: float) -> float | None:
    return next((point["ratio"] for point in curve if point["recall"] >= recall), None)


def f1_at(ranks: dict[str, Ranks], sizes: dict[str, int], recall: float) -> dict[str, Any]:
    """F1 of recall and precision of the candidates at the smallest k whose recall on the test parts is at least this."""
    best: dict[str, Any] = {"f1": 0.0}
    for side, own in ranks.items():
        k = next((k for k in range(1, 1001) if np.mean(own <= k) >= recall), None)
        if k is not None:
            found = int((own <= k).sum())
            share, precision = found / len(own), found / (k * sizes[side])
            f1 = 2 * share * precision / (share + precision)
            best = max(
                best, {"f1": f1, "recall": share, "precision": precision, "k": k, "side": side}, key=lambda x: x["f1"]
            )
    return best
