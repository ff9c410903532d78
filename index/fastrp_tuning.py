"""Weights and degree exponent of FastRP for one graph, chosen by links that were held out.

A fifth of the links is hidden, no node's last one. Of each hidden link and of a false one that leads to another hidden link's
end (so that false ends are as popular as true ones, and on the right side of a bipartite graph) the cosine of the two ends is
taken: how often the true one is larger, the area under the ROC curve, is what a setting is worth. R does not depend on the data,
so the powers are made once for each exponent, and a trial of weights looks at the ends of hidden links only.

One half of the hidden links chooses among the trials, the other one decides whether the choice is better than what there was.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from vecdb.errors import InvalidInput
from vecdb.index.adjacency import Adjacency, pairs_once
from vecdb.index.fastrp import FastRPConfig, Keys, Matrix, embed, unit_rows

Pairs = NDArray[np.int64]  # (m, 2)

EXPONENTS = (0.0, -0.25, -0.5, -0.75, -1.0)
_DIMENSION = 64  # of a trial, at most: enough to tell settings apart (the paper's authors tune at 64 too)
_HIDDEN = 0.2
_MOST_HIDDEN = 20_000  # links that are judged by; the standard error of an area is then below 0.005
_LEAST_HIDDEN = 20
_TRIALS = 30  # of weights, for each exponent


@dataclass(frozen=True, slots=True)
class FastRPTuning:
    """config: the better one on hidden links that did not choose. auc, auc_before: of the chosen setting and of the one given, on
    those links; None where there were too few links to tell anything. trials: settings that were compared.
    """

    config: FastRPConfig
    auc: float | None
    auc_before: float | None
    trials: int


def tune(
    graph: Adjacency,
    config: FastRPConfig | None = None,
    *,
    keys: Keys | None = None,
    trials: int = _TRIALS,
    exponents: tuple[float, ...] = EXPONENTS,
    threads: int | None = None,
) -> FastRPTuning:
    """The given setting with the weights and the exponent that tell hidden links best, or as it is if none does better.

    graph: each undirected edge both ways, as `Adjacency.undirected` makes it; directed edges count as undirected. As many powers
    are weighed as config has weights. Equal for equal config.seed.
    """
    config = config or FastRPConfig()
    if trials < 1 or not exponents:
        raise InvalidInput(f"trials is {trials} and exponents {exponents}; give at least one of each")
    rng = np.random.default_rng(config.seed)
    left, hidden = _split(graph, rng)
    if len(hidden) < _LEAST_HIDDEN:
        return FastRPTuning(config, None, None, 0)
    false = _false(graph, hidden, rng)
    small = replace(config, dimension=min(config.dimension, _DIMENSION))
    weights = [config.weights, *_drawn(len(config.weights), trials, rng)]
    half = len(hidden) // 2
    best: tuple[float, FastRPConfig, float] = (-1.0, config, 0.0)  # on the first half, the setting, on the second half
    before = 0.0
    for exponent in dict.fromkeys((config.degree_exponent, *exponents)):
        trial = _Trial(left, replace(small, degree_exponent=exponent), hidden, false, keys=keys, threads=threads)
        for place, given in enumerate(weights):
            won = trial.won(given)
            first, second = float(won[:half].mean()), float(won[half:].mean())
            if place == 0 and exponent == config.degree_exponent:
                before = second
            if first > best[0]:
                best = first, replace(config, weights=given, degree_exponent=exponent), second
    _, chosen, after = best
    if after <= before:
        chosen, after = config, before
    return FastRPTuning(chosen, after, before, len(weights) * len({config.degree_exponent, *exponents}))


class _Trial:
    """The powers of one exponent at the ends of true and false links, and what it takes to weigh them: a column of the sum has a
    mean and a variance that follow from those of the powers.
    """

    def __init__(
        self,
        graph: Adjacency,
        config: FastRPConfig,
        true: Pairs,
        false: Pairs,
        *,
        keys: Keys | None = None,
        threads: int | None = None,
    ) -> None:
        found = embed(graph, config, keys=keys, threads=threads, last_power=True)
        levels = [unit_rows(level) if config.normalise else level for level in found.powers[1:]]
        centred = np.stack(levels)  # (q, N, D)
        centred -= centred[:, found.known].mean(axis=1, keepdims=True)
        known = centred[:, found.known]
        self._moments = np.einsum("qnd,rnd->qrd", known, known) / max(known.shape[1], 1)
        self._shape = len(true), centred.shape[2]
        self._ends = [
            [centred[:, side].reshape(len(centred), -1) for side in pairs.T] for pairs in (true, false)
        ]  # (q, m D) each

    def won(self, weights: tuple[float, ...]) -> NDArray[np.float64]:
        """(m,) 1 where the ends of a true link are more alike than those of its false one, 1/2 where equally."""
        by = np.array(weights, dtype=np.float32)
        variance = np.maximum(np.einsum("q,r,qrd->d", by, by, self._moments), 0)
        scale = np.where(variance > 0, variance, 1) ** -0.5

        def cosines(ends: list[Matrix]) -> Matrix:
            return np.asarray(
                np.einsum("md,md->m", *(unit_rows((by @ end).reshape(self._shape) * scale) for end in ends))
            )

        good, bad = map(cosines, self._ends)
        return np.asarray((good > bad) + (good == bad) / 2)


def _split(graph: Adjacency, rng: np.random.Generator) -> tuple[Adjacency, Pairs]:
    """The graph without the hidden links, and those. Each node keeps a link that it was drawn with first."""
    low, high, weights = pairs_once(graph.sources, graph.targets, graph.weights)
    other = low != high
    low, high, weights = low[other], high[other], weights[other]
    order = rng.permutation(len(low))
    needed = np.zeros(len(low), dtype=np.bool_)
    for ends in (low, high):
        _, firsts = np.unique(ends[order], return_index=True)
        needed[order[firsts]] = True
    free = order[~needed[order]]
    hidden = np.zeros(len(low), dtype=np.bool_)
    hidden[free[: min(int(_HIDDEN * len(low)), _MOST_HIDDEN)]] = True
    left = Adjacency.undirected(len(graph), low[~hidden], high[~hidden], weights[~hidden])
    return left, np.stack([low[hidden], high[hidden]], axis=1)[rng.permutation(int(hidden.sum()))]


def _false(graph: Adjacency, hidden: Pairs, rng: np.random.Generator) -> Pairs:
    """For each hidden link another end that is none of its links, where a few draws find one."""
    linked = np.unique(graph.sources.astype(np.int64) * len(graph) + graph.targets)
    false = hidden.copy()
    bad = np.ones(len(hidden), dtype=np.bool_)
    for _ in range(10):
        false[bad, 1] = rng.choice(hidden[:, 1], int(bad.sum()))
        codes = false[:, [0, 1]] @ np.array([len(graph), 1]), false[:, [1, 0]] @ np.array([len(graph), 1])
        bad = np.isin(codes[0], linked) | np.isin(codes[1], linked) | (false[:, 0] == false[:, 1])
    return false


def _drawn(count: int, trials: int, rng: np.random.Generator) -> list[tuple[float, ...]]:
    """Weights over three orders of magnitude, the largest 1; a power has none at all in one of four."""
    drawn = []
    for _ in range(trials):
        weights = 10 ** rng.uniform(-2, 1, count) * (rng.random(count) >= 0.25)
        if not weights.any():
            weights[rng.integers(count)] = 1.0
        drawn.append(tuple(np.round(weights / weights.max(), 4).tolist()))
    return drawn
