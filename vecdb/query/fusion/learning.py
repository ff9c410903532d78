"""Learning a Lean from judged queries: the features' logistic weights that give the best mean nDCG@10.

For each query the fused ranking's nDCG@10 is known at 21 weights of the text list, and taken as linear between them; what is
learned is where on that curve the features should lead. A curve jumps where two documents change places, which says little of
other queries, so curves are smoothed first. Every collection counts the same, however many queries it has; but what is lost where
the fusion is worse than the better list alone counts up to 1 + HARM times, so that it first of all does no harm.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vecdb.errors import InvalidInput
from vecdb.query.fusion.adaptive import Lean, near_deviations, word_deviations
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
_LOYALTY = 0.1  # the same for a lean learned on from another, times the number of its queries
# A collection's mean gain x over its better list has the utility x + _HARM * u(x). From _SAFE on u is flat, below it ever
# steeper, until its slope is 1 at -_SAFE and stays so.
_HARM, _SAFE = 2.0, 0.005


@dataclass(frozen=True, slots=True)
class Example:
    """One query: its features (F,), and its curve (21,), nDCG@10 at each of WEIGHTS."""

    features: Floats
    curve: Floats


def example(vector: Ranking, text: Ranking, grades: Mapping[int, float], usual: Sequence[float] | None) -> Example:
    """grades: of the judged rows, larger is better; one of them must be above 0. usual: as for `features`."""
    added = [scaled(vector.scores, near_deviations)[0], scaled(text.scores, word_deviations)[0]]
    return Example(features(vector, text, usual), curve(vector, text, added, grades))


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


def learn(groups: Sequence[Sequence[Example]], weights: Sequence[float] | None = None) -> Lean:
    """The Lean that gives the best mean over groups (collections) of the utility of their mean nDCG@10. Deterministic.

    weights: of each group in that mean; None: all the same. A feature that is unknown (NaN) in every example gets the slope 0.
    """
    if not groups or not all(groups):
        raise InvalidInput("there are no examples to learn from; give judged queries for each group")
    found = np.array([example.features for group in groups for example in group])
    curves = _smoothed(np.array([example.curve for group in groups for example in group]))
    owners = np.repeat(np.arange(len(groups)), [len(group) for group in groups])
    parts = np.ones(len(groups)) if weights is None else np.array(weights, dtype=np.float64)
    shares = (parts / parts.sum() / np.bincount(owners))[owners]
    means = np.nan_to_num(shares @ found)
    deviations = np.nan_to_num(np.sqrt(shares @ (found - means) ** 2))
    even = Lean(0.0, (0.0,) * len(NAMES), tuple(means.tolist()), tuple(deviations.tolist()))
    shrinkage = np.append(np.full(len(NAMES), _SHRINKAGE), 0.0)
    return _ascended(even, found, curves, shares, owners, shrinkage)


def learn_on(lean: Lean, examples: Sequence[Example]) -> Lean:
    """The Lean that suits these examples of one collection better; drawn to the given one the more the fewer they are."""
    if not examples:
        raise InvalidInput("there are no examples to learn from; give judged queries")
    found = np.array([example.features for example in examples])
    curves = _smoothed(np.array([example.curve for example in examples]))
    shares = np.full(len(examples), 1.0 / len(examples))
    shrinkage = np.full(len(NAMES) + 1, _LOYALTY / len(examples))
    return _ascended(lean, found, curves, shares, np.zeros(len(examples), dtype=np.int64), shrinkage)


def _ascended(
    start: Lean, found: Floats, curves: Floats, shares: Floats, owners: NDArray[np.int64], shrinkage: Floats
) -> Lean:
    """From one Lean to a better one by Adam (Kingma & Ba 2015) on all examples at once.

    shares: (Q,) of each example in the mean. owners: (Q,) the number of its group. shrinkage: (F + 1,) what a distance of 1 from
    the start costs, in nDCG, for each slope and the bias.
    """
    inputs = np.column_stack([start.standard(found), np.ones(len(found))])
    origin = np.append(start.slopes, start.bias)
    sizes = np.bincount(owners)
    better = np.array([curves[owners == group].mean(axis=0)[[0, -1]].max() for group in range(len(sizes))])
    values = origin.copy()
    first, second = np.zeros_like(values), np.zeros_like(values)
    for step in range(1, _STEPS + 1):
        weights = 1.0 / (1.0 + np.exp(-(inputs @ values)))
        reached, slopes = _along(curves, weights)
        gains = np.bincount(owners, reached) / sizes - better
        urgency = 1.0 + _HARM * np.clip((_SAFE - gains) / (2 * _SAFE), 0.0, 1.0)
        gradient = inputs.T @ (shares * urgency[owners] * slopes * weights * (1 - weights))
        gradient -= 2 * shrinkage * (values - origin)
        first = 0.9 * first + 0.1 * gradient
        second = 0.999 * second + 0.001 * gradient**2
        values += _RATE * (first / (1 - 0.9**step)) / (np.sqrt(second / (1 - 0.999**step)) + 1e-8)
    return Lean(float(values[-1]), tuple(values[:-1].tolist()), start.means, start.deviations)


def _along(curves: Floats, weights: Floats) -> tuple[Floats, Floats]:
    """(Q,) the value of each curve (Q, 21) at its weight, and (Q,) how steeply it rises there."""
    pieces = len(WEIGHTS) - 1
    piece = np.minimum((weights * pieces).astype(np.int64), pieces - 1)
    each = np.arange(len(curves))
    start, end = curves[each, piece], curves[each, piece + 1]
    return start + (weights * pieces - piece) * (end - start), (end - start) * pieces


def _smoothed(curves: Floats) -> Floats:
    kernel = np.exp(-0.5 * (np.arange(-_REACH, _REACH + 1) / _SMOOTHING) ** 2)
    kernel /= kernel.sum()
    padded = np.pad(curves, ((0, 0), (_REACH, _REACH)), mode="edge")
    windows = np.lib.stride_tricks.sliding_window_view(padded, len(kernel), axis=1)
    smoothed: Floats = windows @ kernel
    return smoothed
