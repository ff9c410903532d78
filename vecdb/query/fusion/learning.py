"""Learning a Lean from judged queries: the features' logistic weights that give the best mean nDCG@10.

For each query the fused ranking's nDCG@10 is known at 21 weights of the text list, and taken as linear between them; what is
learned is where on that curve the features should lead. A curve jumps where two documents change places, which says little of
other queries, so curves are smoothed first. Every collection counts the same, however many queries it has.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vecdb.errors import InvalidInput
from vecdb.query.fusion.adaptive import Lean, near_deviations
from vecdb.query.fusion.features import NAMES, features
from vecdb.query.fusion.scores import scaled
from vecdb.query.ranking import Ranking

Floats = NDArray[np.float64]

WEIGHTS: Floats = np.linspace(0.0, 1.0, 21)  # of the text list; the vector list has the rest
_CUT = 10
_DISCOUNTS = 1.0 / np.log2(np.arange(2, _CUT + 2))
_REACH, _SMOOTHING = 4, 1.5  # of the kernel: steps of WEIGHTS to each side, and its standard deviation
_STEPS, _RATE = 400, 0.05
_SHRINKAGE = 1e-3  # what a slope of 1 costs, in nDCG


@dataclass(frozen=True, slots=True)
class Example:
    """One query: its features (F,), and its curve (21,), nDCG@10 at each of WEIGHTS."""

    features: Floats
    curve: Floats


def example(vector: Ranking, text: Ranking, grades: Mapping[int, float], tendency: float) -> Example:
    """grades: of the judged rows, larger is better; one of them must be above 0. tendency: of the collection."""
    added = [scaled(ranking.scores, near_deviations)[0] for ranking in (vector, text)]
    return Example(features(vector, text, tendency), curve(vector, text, added, grades))


def curve(vector: Ranking, text: Ranking, added: Sequence[Floats], grades: Mapping[int, float]) -> Floats:
    """(21,) nDCG@10 (linear gains, as trec_eval) at each of WEIGHTS. added: what each list adds at weight 1, (c,) each."""
    ideal = ideal_gain(list(grades.values()))
    if ideal <= 0:
        raise InvalidInput("the query has no relevant document; leave it out")
    rows = np.unique(np.concatenate([vector.rows, text.rows]))
    parts = np.zeros((2, len(rows)))
    for part, ranking, scores in zip(parts, (vector, text), added):
        part[np.searchsorted(rows, ranking.rows)] = scores
    scores = np.outer(1 - WEIGHTS, parts[0]) + np.outer(WEIGHTS, parts[1])
    best = np.argsort(-scores, axis=1, kind="stable")[:, :_CUT]  # rows ascend: equal scores are ordered by row
    gains = np.array([max(grades.get(row, 0), 0) for row in rows.tolist()], dtype=np.float64)[best]
    found: Floats = gains @ _DISCOUNTS[: gains.shape[1]] / ideal
    return found


def ideal_gain(grades: Sequence[float]) -> float:
    """The DCG@10 of the best order of these grades."""
    best = np.sort(np.maximum(np.array(grades, dtype=np.float64), 0.0))[::-1][:_CUT]
    return float(best @ _DISCOUNTS[: len(best)])


def learn(groups: Sequence[Sequence[Example]]) -> Lean:
    """The Lean that gives the best mean over groups (collections) of their mean nDCG@10. Deterministic.

    Each example is learned from twice, with its collection's tendency and without, so that one Lean serves both.
    """
    if not any(groups):
        raise InvalidInput("there are no examples to learn from; give judged queries")
    groups = [group for group in groups if group]
    found = np.array([example.features for group in groups for example in group])
    curves = _smoothed(np.array([example.curve for group in groups for example in group]))
    shares = np.concatenate([np.full(len(group), 1.0 / len(group) / len(groups)) for group in groups])
    means = shares @ found
    deviations = np.sqrt(shares @ (found - means) ** 2)
    lean = Lean(0.0, (0.0,) * len(NAMES), tuple(means.tolist()), tuple(deviations.tolist()))
    inputs = np.column_stack([lean.standard(found), np.ones(len(found))])
    unknowing = inputs.copy()
    unknowing[:, NAMES.index("tendency")] = 0.0
    values = _ascended(np.vstack([inputs, unknowing]), np.vstack([curves, curves]), np.tile(shares, 2) / 2)
    return Lean(float(values[-1]), tuple(values[:-1].tolist()), lean.means, lean.deviations)


def _ascended(inputs: Floats, curves: Floats, shares: Floats) -> Floats:
    """(F + 1,) slopes and bias, by Adam (Kingma & Ba 2015) on all examples at once, from even weights."""
    values = np.zeros(inputs.shape[1])
    first, second = np.zeros_like(values), np.zeros_like(values)
    for step in range(1, _STEPS + 1):
        weights = 1.0 / (1.0 + np.exp(-(inputs @ values)))
        rises = slopes_at(curves, weights) * weights * (1 - weights)
        gradient = inputs.T @ (shares * rises)
        gradient[:-1] -= 2 * _SHRINKAGE * values[:-1]
        first = 0.9 * first + 0.1 * gradient
        second = 0.999 * second + 0.001 * gradient**2
        values += _RATE * (first / (1 - 0.9**step)) / (np.sqrt(second / (1 - 0.999**step)) + 1e-8)
    return values


def slopes_at(curves: Floats, weights: Floats) -> Floats:
    """(Q,) how steeply each curve (Q, 21) rises at its weight."""
    pieces = len(WEIGHTS) - 1
    piece = np.minimum((weights * pieces).astype(np.int64), pieces - 1)
    each = np.arange(len(curves))
    rises: Floats = (curves[each, piece + 1] - curves[each, piece]) * pieces
    return rises


def _smoothed(curves: Floats) -> Floats:
    kernel = np.exp(-0.5 * (np.arange(-_REACH, _REACH + 1) / _SMOOTHING) ** 2)
    kernel /= kernel.sum()
    padded = np.pad(curves, ((0, 0), (_REACH, _REACH)), mode="edge")
    windows = np.lib.stride_tricks.sliding_window_view(padded, len(kernel), axis=1)
    smoothed: Floats = windows @ kernel
    return smoothed
