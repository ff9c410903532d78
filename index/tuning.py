"""How an HNSW graph should be built and searched for given vectors: found by measuring on a sample of them.

What is chosen are M and ef_construction, which make the graph, and ef, the beam width, which is what other engines call
oversampling: a beam that wide is walked by estimates, and the best of it are measured again on full vectors. The codec is
no choice here: the graph is always walked on one-byte codes, with lines of four bits a number ahead of them.

The smallest sufficient ef grows with the number of vectors, so that of a sample is not that of the collection: `recheck`
measures it anew on the graph that was built in the end. There every vector is a node, and a node as a query finds its
neighbours far too well, because it is linked to them (of 19,000 MiniLM vectors at ef=10 those held out reach recall 0.895,
those within 0.974). So the best are real queries; where there are none, the mark for nodes is the recall that nodes of the
sample's graph had where queries reached the target. That errs on the side of more work: for a target of 0.95, queries that
had no part in it then reached 0.954 on 88,000 MiniLM vectors and 0.970 on 100,000 of GloVe.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vecdb.errors import InvalidInput
from vecdb.index.arguments import as_k, as_metric, as_queries, as_vectors
from vecdb.index.base import HnswConfig, Mask, Metric, Neighbours, Positions, Vectors
from vecdb.index.exact import exact_search, measure

if TYPE_CHECKING:
    from vecdb.index.hnsw import HnswIndex

M_STEPS = (8, 12, 16, 24, 32)
EF_CONSTRUCTION_STEPS = (100, 200, 400)
SAMPLE = 20_000

_WIDEST = 2_048  # ef: beyond, a graph that still misses the target is the wrong one
_MOST_QUERIES = 1_000  # then the mean recall is known to some 0.003 (one standard error at 0.95)
_HELD_OUT_SHARE = 0.1
_EF_STEPS = 32  # ef is found to a 32nd of itself
_TIE = 0.03  # searches whose work differs by less are equally good, and memory decides
_BYTES_PER_M = 8  # M more links are 2M more int32 on the base level; the levels above it hardly grow

Build = tuple[int, int]  # M, ef_construction


@dataclass(frozen=True, slots=True)
class Trial:
    """One measurement of one graph at one ef.

    recall: mean share of the true k nearest that were found (a vector at the distance of the last of them is as good);
    recall_p5: its 5th percentile over the queries. work: distances computed for a query, on average. microseconds: for a
    query, in one thread. build_s: None for a graph that was there already. bytes_per_vector: of the graph's arrays, its
    vectors included.
    """

    M: int
    ef_construction: int
    ef: int
    recall: float
    recall_p5: float
    work: float
    microseconds: float
    build_s: float | None
    bytes_per_vector: float


@dataclass(frozen=True, kw_only=True)
class Tuning:
    """What was chosen, and everything that was measured on the way.

    config: the settings to build and search with. recall: of queries that are not stored, with these settings, on the graph
    of `sample` vectors. is_reached: whether that is target_recall, within the bytes allowed, and the recheck (if there was
    one) agrees; otherwise config is the best that was found. is_complete: every setting that could have been better was
    tried; if not, budget_s was too short. trials: in the order they were made. own_recall: that of stored vectors, themselves
    left out, on the graph and at the ef of the sample that were chosen.

    Once rechecked: vectors is the size of the graph that ef was measured on again, rechecks the measurements, with_queries
    whether with real queries; then recall is theirs too.
    """

    config: HnswConfig
    target_recall: float
    k: int
    seed: int
    recall: float
    is_reached: bool
    is_complete: bool
    sample: int
    queries: int
    budget_s: float
    own_recall: float
    trials: tuple[Trial, ...]
    vectors: int | None = None
    with_queries: bool = False
    rechecks: tuple[Trial, ...] = ()

    def __str__(self) -> str:
        chosen = f"M={self.config.M} ef_construction={self.config.ef_construction} ef={self.config.ef}"
        where = f"{self.sample:,} sampled vectors, {self.queries} queries"
        reached = "reached" if self.is_reached else "NOT reached"
        lines = [f"recall@{self.k} of {self.target_recall:g} is {reached}: {self.recall:.4f} with {chosen}; {where}"]
        if self.vectors is not None:
            lines.append(f"ef was measured again on the graph of {self.vectors:,} vectors")
        if not self.is_complete:
            lines.append(f"the budget of {self.budget_s:g} s ended before every promising setting was tried")
        return "\n".join(lines + [f"  {_told(trial)}" for trial in best_of_each(self.trials, self.target_recall)])

    @classmethod
    def from_json(cls, saved: Mapping[str, Any]) -> Tuning:
        """What `asdict` made of one, also after a way through JSON. Raises KeyError, TypeError or InvalidInput for others."""
        lists = {name: tuple(Trial(**trial) for trial in saved[name]) for name in ("trials", "rechecks")}
        return cls(**{**saved, **lists, "config": HnswConfig(**saved["config"])})


def tune(
    vectors: ArrayLike,
    metric: str,
    *,
    target_recall: float = 0.95,
    k: int = 10,
    queries: ArrayLike | None = None,
    sample: int = SAMPLE,
    budget_s: float = 60.0,
    bytes_per_vector: float | None = None,
    config: HnswConfig | None = None,
    seed: int = 0,
    progress: Callable[[Trial], None] | None = None,
) -> Tuning:
    """The settings that reach target_recall of the k nearest with the fewest distances computed; ties by memory.

    vectors (N, D), of which `sample` are drawn; unit length under cosine, as an index wants them. queries (B, D) ask for what
    matters to you; None holds a tenth of the sample out of the graph and asks for those. It starts from config (the
    default's M and ef_construction), whose other settings stay, and goes on to neighbouring settings while that pays.
    budget_s: the first graph is always built; another one only if, by the time that those before it took, it will be done
    before the end. Compiling the kernels, which happens once on a machine, does not count. bytes_per_vector: the most that
    graph and vectors may take. progress is called with each measurement.

    Same seed, same answer, except for times and for where they end the search. Raises InvalidInput, InvalidVector,
    DimensionMismatch, InvalidQuery.
    """
    _check(target_recall, sample, bytes_per_vector, budget_s)
    _warm()
    end, most_bytes = time.monotonic() + budget_s, math.inf if bytes_per_vector is None else bytes_per_vector
    known_metric, k = as_metric(metric), as_k(k)
    shape = np.shape(vectors)
    base, asked = _divided(as_vectors(vectors, shape[-1] if shape else 0), queries, sample, seed)
    probe = _Probe(base, known_metric, k, asked, target_recall, config or HnswConfig(), progress)
    descent = _Descent(probe, most_bytes, end)
    chosen, graph = descent.run()
    own = _trial(graph, _stored_questions(base, None, k, known_metric, seed), k, chosen.ef, chosen.build_s)
    return Tuning(
        config=probe.settings((chosen.M, chosen.ef_construction), chosen.ef),
        target_recall=float(target_recall),
        k=k,
        seed=seed,
        recall=chosen.recall,
        is_reached=chosen.recall >= target_recall and chosen.bytes_per_vector <= most_bytes,
        is_complete=descent.is_complete,
        sample=len(base),
        queries=len(asked),
        budget_s=float(budget_s),
        own_recall=own.recall,
        trials=tuple(probe.trials),
    )


def recheck(
    index: HnswIndex, tuning: Tuning, *, queries: ArrayLike | None = None, build_s: float | None = None
) -> Tuning:
    """The tuning with its ef measured again on the graph that was built in the end.

    queries: as for `tune`; these count. Without them stored vectors ask for their neighbours, and must find what those of
    the sample's graph found: tuning.own_recall. Raises InvalidInput for a graph that was built with other settings.
    """
    wanted = (tuning.config.M, tuning.config.ef_construction)
    if (index.config.M, index.config.ef_construction) != wanted:
        raise InvalidInput(f"the index {index!r} was not built as the tuning says, with M={wanted[0]}; build it anew")
    live = None if index.live.all() else index.live
    size = int(np.count_nonzero(index.live))
    if not size:
        raise InvalidInput("the index is empty; there is nothing to measure on")
    k = tuning.k
    if queries is not None:
        asked = _some(as_queries(queries, index.dimension), tuning.seed)
        questions, mark = _questions(index.vectors, live, asked, k, index.metric), tuning.target_recall
    else:
        questions = _stored_questions(index.vectors, live, k, index.metric, tuning.seed)
        # That nothing was missed in n looks says that less than 3 / n are missed (the rule of three).
        mark = min(tuning.own_recall, 1 - 3 / (k * min(tuning.sample, _MOST_QUERIES)))
    trials = _smallest_ef(lambda ef: _trial(index, questions, k, ef, build_s), k, size, mark)
    chosen = _chosen(trials, mark)
    return replace(
        tuning,
        config=replace(tuning.config, ef=chosen.ef),
        recall=tuning.recall if queries is None else chosen.recall,
        is_reached=chosen.recall >= mark and (queries is not None or tuning.is_reached),
        vectors=size,
        with_queries=queries is not None,
        rechecks=tuple(trials),
    )


def best_of_each(trials: Iterable[Trial], target: float) -> list[Trial]:
    """For each graph that was tried, in that order, the trial that speaks for it."""
    builds: dict[Build, list[Trial]] = {}
    for trial in trials:
        builds.setdefault((trial.M, trial.ef_construction), []).append(trial)
    return [_chosen(of_build, target) for of_build in builds.values()]


# -- going from setting to setting


class _Descent:
    """Coordinate descent over M_STEPS and EF_CONSTRUCTION_STEPS: from the best so far to a neighbour, while one is untried."""

    def __init__(self, probe: _Probe, most_bytes: float, end: float) -> None:
        self._probe = probe
        self._most_bytes = most_bytes
        self._end = end
        self._seconds: dict[Build, float] = {}  # that each setting took to be built and measured
        self.is_complete = True

    def run(self) -> tuple[Trial, HnswIndex]:
        """The chosen trial, and the graph it was made on."""
        build: Build | None = self._probe.start
        while build is not None:
            began = time.monotonic()
            graph = self._probe.measure(build)
            self._seconds[build] = time.monotonic() - began
            best = _chosen(self._probe.trials, self._probe.target, self._most_bytes)
            if build == (best.M, best.ef_construction):
                best_graph = graph
            build = self._next(best)
        return best, best_graph

    def _next(self, best: Trial) -> Build | None:
        untried = self._promising(best)
        in_time = (build for build in untried if self._is_in_time(best, build))
        chosen = next(in_time, None)
        self.is_complete = chosen is not None or not untried
        return chosen

    def _promising(self, best: Trial) -> list[Build]:
        """Untried settings that may be better and fit into memory, the likeliest first."""
        M, width = best.M, best.ef_construction
        if best.bytes_per_vector > self._most_bytes:
            builds = [(fewer, width) for fewer in reversed(M_STEPS) if fewer < M]
        else:
            builds = [(_step(M_STEPS, M, 1), width), (M, _step(EF_CONSTRUCTION_STEPS, width, 1))]
            if best.recall >= self._probe.target:  # else poorer graphs do not reach it either
                builds += [(_step(M_STEPS, M, -1), width), (M, _step(EF_CONSTRUCTION_STEPS, width, -1))]
        fitting = (b for b in builds if best.bytes_per_vector + _BYTES_PER_M * (b[0] - M) <= self._most_bytes)
        return [build for build in fitting if build not in self._seconds]

    def _is_in_time(self, best: Trial, build: Build) -> bool:
        """A build takes at most so many times longer as it has more links or a wider beam."""
        more = max(1.0, build[0] / best.M) * max(1.0, build[1] / best.ef_construction)
        return time.monotonic() + more * self._seconds[best.M, best.ef_construction] <= self._end


def _step(steps: Sequence[int], value: int, by: int) -> int:
    """The next of steps, or value itself at their end."""
    return steps[min(max(steps.index(value) + by, 0), len(steps) - 1)]


def _chosen(trials: Iterable[Trial], target: float, most_bytes: float = math.inf) -> Trial:
    """Of those that reach the target the one with the least work, or the smallest of those with hardly more."""
    listed = list(trials)
    fitting = [trial for trial in listed if trial.bytes_per_vector <= most_bytes]
    if not fitting:
        return min(listed, key=lambda trial: (trial.bytes_per_vector, -trial.recall, trial.work))
    reached = [trial for trial in fitting if trial.recall >= target]
    if not reached:
        return max(fitting, key=lambda trial: (trial.recall, -trial.work))
    most_work = (1 + _TIE) * min(trial.work for trial in reached)
    good = [trial for trial in reached if trial.work <= most_work]
    return min(good, key=lambda trial: (trial.M, trial.ef_construction, trial.work))


# -- measuring one graph


@dataclass(frozen=True, slots=True)
class _Questions:
    """queries (B, D). limits (B,): the distance of the last of the `counts` (B,) true nearest. own: (B,) the position that each
    query is itself, which is no answer; -1 where it is not stored.
    """

    queries: Vectors
    limits: Vectors
    counts: Positions
    own: Positions


class _Probe:
    """Builds a graph over `base` with given settings and finds the smallest ef that reaches the target in it."""

    def __init__(
        self,
        base: Vectors,
        metric: Metric,
        k: int,
        asked: Vectors,
        target: float,
        config: HnswConfig,
        progress: Callable[[Trial], None] | None,
    ) -> None:
        self.target = target
        self.trials: list[Trial] = []
        self._base = base
        self._metric = metric
        self._k = k
        self._questions = _questions(base, None, asked, k, metric)
        self._config = config
        self._progress = progress

    @property
    def start(self) -> Build:
        return (
            min(M_STEPS, key=lambda step: abs(step - self._config.M)),
            min(EF_CONSTRUCTION_STEPS, key=lambda step: abs(step - self._config.ef_construction)),
        )

    def settings(self, build: Build, ef: int) -> HnswConfig:
        return replace(self._config, M=build[0], ef_construction=build[1], ef=ef)

    def measure(self, build: Build) -> HnswIndex:
        from vecdb.index.hnsw import HnswIndex  # numba takes half a second to import

        began = time.monotonic()
        graph = HnswIndex.build(self._base, self._metric, self.settings(build, self._k), threads=None)
        build_s = time.monotonic() - began

        def at(ef: int) -> Trial:
            trial = _trial(graph, self._questions, self._k, ef, build_s)
            self.trials.append(trial)
            if self._progress is not None:
                self._progress(trial)
            return trial

        _smallest_ef(at, self._k, len(self._base), self.target)
        return graph


def _smallest_ef(at: Callable[[int], Trial], k: int, size: int, target: float) -> list[Trial]:
    """The trials that were needed to find the smallest ef >= k that reaches the target: doubling it, then halving the gap.

    Never so wide that the index would rather look at every vector: what that finds says nothing about a larger graph.
    """
    widest = max(k, min(_WIDEST, (size - 1) // 2))
    trials = [at(k)]
    while trials[-1].recall < target and trials[-1].ef < widest:
        trials.append(at(min(2 * trials[-1].ef, widest)))
    if trials[-1].recall < target or len(trials) == 1:
        return trials
    low, high = trials[-2].ef, trials[-1].ef
    while high - low > max(1, high // _EF_STEPS):
        middle = (low + high) // 2
        trials.append(at(middle))
        low, high = (low, middle) if trials[-1].recall >= target else (middle, high)
    return trials


def _trial(index: HnswIndex, questions: _Questions, k: int, ef: int, build_s: float | None) -> Trial:
    began = time.perf_counter()
    found = index.search(questions.queries, k + int(questions.own.max(initial=-1) >= 0), ef=ef, threads=1)
    seconds = time.perf_counter() - began
    shares = _shares(index, questions, k, found)
    return Trial(
        M=index.config.M,
        ef_construction=index.config.ef_construction,
        ef=ef,
        recall=float(shares.mean()),
        recall_p5=float(np.percentile(shares, 5)),
        work=float(found.work.mean()),
        microseconds=1e6 * seconds / len(questions.queries),
        build_s=build_s,
        bytes_per_vector=sum(array.nbytes for array in index.arrays().values()) / len(index),
    )


def _shares(index: HnswIndex, questions: _Questions, k: int, found: Neighbours) -> NDArray[np.float64]:
    """(B,) the share of each query's true neighbours that were found. Measured as exact_search does, so that ties are equal."""
    vectors = index.vectors
    shares = np.ones(len(found.positions))
    for i, positions in enumerate(found.positions):
        if questions.counts[i]:
            answer = positions[(positions >= 0) & (positions != questions.own[i])][:k]
            near = measure(vectors, answer, questions.queries[i], index.metric) <= questions.limits[i]
            shares[i] = min(1.0, np.count_nonzero(near) / questions.counts[i])
    return shares


# -- what is asked


def _divided(matrix: Vectors, queries: ArrayLike | None, sample: int, seed: int) -> tuple[Vectors, Vectors]:
    """The vectors to build from and the queries to ask, both drawn with the seed."""
    order = np.random.default_rng(seed).permutation(len(matrix))[:sample]
    if queries is not None:
        asked = as_queries(queries, matrix.shape[1])
        if not len(asked):
            raise InvalidInput("queries is empty; give some, or None to hold vectors out of the sample")
        return matrix[np.sort(order)], _some(asked, seed)
    if len(order) < 2:
        raise InvalidInput(
            f"there are {len(matrix)} vectors and a sample of {sample}; tuning needs two at least, and thousands to mean much"
        )
    held = min(_MOST_QUERIES, max(1, int(_HELD_OUT_SHARE * len(order))))
    return matrix[np.sort(order[held:])], matrix[order[:held]]


def _some(queries: Vectors, seed: int) -> Vectors:
    """Not more of them than are needed."""
    return queries[np.sort(np.random.default_rng(seed).permutation(len(queries))[:_MOST_QUERIES])]


def _questions(vectors: Vectors, live: Mask | None, asked: Vectors, k: int, metric: Metric) -> _Questions:
    true = exact_search(vectors, asked, k, metric, live)
    return _limited(asked, true.distances, np.full(len(asked), -1))


def _stored_questions(vectors: Vectors, live: Mask | None, k: int, metric: Metric, seed: int) -> _Questions:
    """Stored vectors, which ask for the others."""
    rows = np.arange(len(vectors)) if live is None else np.flatnonzero(live)
    own = np.sort(np.random.default_rng(seed).permutation(rows)[:_MOST_QUERIES])
    asked = vectors[own]
    true = exact_search(vectors, asked, k + 1, metric, live)
    others = np.sort(np.where(true.positions == own[:, None], np.inf, true.distances), axis=1)[:, :k]
    return _limited(asked, others, own)


def _limited(asked: Vectors, distances: Vectors, own: Positions) -> _Questions:
    """distances: (B, k) ascending, +inf where there are fewer."""
    counts = np.count_nonzero(np.isfinite(distances), axis=1)
    limits = distances[np.arange(len(asked)), np.maximum(counts - 1, 0)]
    return _Questions(np.ascontiguousarray(asked), limits, counts, own)


def _warm() -> None:
    """Compile the kernels, if no cache has them, before times are taken."""
    from vecdb.index import kernels  # numba takes half a second to import

    kernels.warm()


def _check(target_recall: float, sample: int, bytes_per_vector: float | None, budget_s: float) -> None:
    if not 0 < target_recall <= 1:
        raise InvalidInput(f"target_recall is {target_recall:g}; it must lie above 0 and be at most 1")
    if sample < 2:
        raise InvalidInput(f"sample is {sample}; draw two vectors at least, and better thousands")
    if bytes_per_vector is not None and not bytes_per_vector > 0:
        raise InvalidInput(f"bytes_per_vector is {bytes_per_vector}; give a positive number, or None for no limit")
    if not 0 < budget_s < math.inf:
        raise InvalidInput(f"budget_s is {budget_s:g}; give the seconds that tuning may take")


def _told(trial: Trial) -> str:
    return (
        f"M={trial.M:<3} ef_construction={trial.ef_construction:<4} ef={trial.ef:<5} recall {trial.recall:.4f}  "
        f"5th percentile {trial.recall_p5:.2f}  {trial.work:,.0f} distances  {trial.microseconds:,.0f} µs  "
        f"{trial.bytes_per_vector:,.0f} bytes a vector"
    )
