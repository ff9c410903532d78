"""How good rankings are: measures per query, their means, and whether two settings differ by more than chance.

Everything here is a pure function over runs. A run holds for each query id its results, as (document id, score) pairs,
larger scores better; judgements (qrels) hold for each query id the grades of its judged documents.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from subprocess import SubprocessError
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vecdb.errors import InvalidInput, MissingExtra
from vecdb.query.request import MODES
from vecdb.types import Hits

Run = Mapping[str, Sequence[tuple[str, float]]]
Qrels = Mapping[str, Mapping[str, int]]

MEASURES = ("nDCG@10", "RR@10", "AP", "R@100")

_SAMPLES_AT_ONCE = 1_000_000  # numbers drawn in one step of the bootstrap: 8 MB


@dataclass(frozen=True, slots=True)
class Evaluation:
    """means: each measure over all judged queries. per_query: the same for each of them, 0 where nothing was found."""

    means: dict[str, float]
    per_query: dict[str, dict[str, float]]


@dataclass(frozen=True, slots=True)
class BootstrapResult:
    """difference: mean of a minus mean of b. low, high: its 95 % interval. p_value: two-sided, that there is none."""

    difference: float
    low: float
    high: float
    p_value: float


def evaluate_run(run: Run, qrels: Qrels, measures: Sequence[str] = MEASURES) -> Evaluation:
    """The run measured on every query of qrels; results of other queries are passed over.

    measures are names of ir-measures, such as those of MEASURES. Results count in the order of their scores; equal
    scores in the order given. Raises InvalidInput for an unknown measure or a document twice among a query's results,
    MissingExtra without the extra [eval].
    """
    if not qrels:
        raise InvalidInput("qrels is empty; there is nothing to measure against")
    provider = _ir_measures()
    parsed = {name: _parse(provider, name) for name in measures}
    if not parsed:
        raise InvalidInput(f"no measure given; name some, such as {', '.join(MEASURES)}")
    judged = {query: dict(grades) for query, grades in qrels.items()}
    ranked = {query: _ranked(query, run.get(query, ())) for query in judged}
    per_query = {query: dict.fromkeys(parsed, 0.0) for query in judged}
    names = {measure: name for name, measure in parsed.items()}
    try:
        values = list(provider.iter_calc(list(names), judged, ranked))
    except (ValueError, TypeError, OSError, SubprocessError) as error:  # some of its measures are programs that it runs
        raise InvalidInput(f"ir-measures cannot compute {', '.join(parsed)} here: {error}") from error
    for value in values:
        per_query[value.query_id][names[value.measure]] = float(value.value)
    means = {name: float(np.mean([found[name] for found in per_query.values()])) for name in parsed}
    return Evaluation(means, per_query)


def paired_bootstrap(
    a: Evaluation, b: Evaluation, measure: str, *, samples: int = 10_000, seed: int = 0
) -> BootstrapResult:
    """Whether a is better than b by a measure, or their queries only happened to suit it.

    Draws the queries anew, with replacement, samples times, and looks at the mean difference of each draw (Efron &
    Tibshirani 1993; for retrieval Sakai 2006). The interval is that of the percentiles. The p-value is the share of
    draws, centred on no difference, that differ at least as much as was observed; never below 1 / (samples + 1).
    """
    if samples < 1:
        raise InvalidInput(f"samples is {samples}; it must be at least 1")
    differences = _differences(a, b, measure)
    observed = float(differences.mean())
    means = _resampled_means(differences, samples, np.random.default_rng(seed))
    low, high = np.percentile(means, [2.5, 97.5])
    # Equality has to count as "at least as much" although the two sides were summed in another order.
    extreme = np.abs(means - observed) >= abs(observed) - 1e-12
    return BootstrapResult(observed, float(low), float(high), (int(extreme.sum()) + 1) / (samples + 1))


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two settings on the same queries. differences: for each measure a minus b."""

    a: Evaluation
    b: Evaluation
    differences: dict[str, BootstrapResult]

    def __str__(self) -> str:
        lines = [table({"a": self.a, "b": self.b}), ""]
        for measure, found in self.differences.items():
            lines.append(
                f"{measure}: a - b = {found.difference:+.4f}, 95 % interval {found.low:+.4f} … {found.high:+.4f}, "
                f"p = {found.p_value:.4f}"
            )
        return "\n".join(lines)


def compare_evaluations(a: Evaluation, b: Evaluation, *, samples: int = 10_000, seed: int = 0) -> Comparison:
    """Paired bootstraps of all measures that both have. Raises InvalidInput if there is none, or the queries differ."""
    shared = [measure for measure in a.means if measure in b.means]
    if not shared:
        raise InvalidInput(
            f"the two evaluations share no measure: {', '.join(a.means)} and {', '.join(b.means)}; measure both alike"
        )
    differences = {m: paired_bootstrap(a, b, m, samples=samples, seed=seed) for m in shared}
    return Comparison(a, b, differences)


@dataclass(frozen=True, slots=True)
class GateCheck:
    """One condition of a gate. value: what was measured; wanted: what it is held against; reason: the condition in words."""

    measure: str
    value: float
    wanted: float
    passed: bool
    reason: str


@dataclass(frozen=True, slots=True)
class GateResult:
    """Whether every condition holds. evaluation: what was measured; it can be the next gate's baseline."""

    passed: bool
    checks: tuple[GateCheck, ...]
    evaluation: Evaluation

    def __bool__(self) -> bool:
        return self.passed

    def __str__(self) -> str:
        lines = [f"{'pass' if check.passed else 'FAIL'}  {check.reason}" for check in self.checks]
        return "\n".join([*lines, "the gate is passed" if self.passed else "the gate is NOT passed"])


class Gate:
    """Conditions that an evaluation must meet: a floor for each measure, and to be no worse than a baseline.

    least: for each measure the smallest mean that passes. baseline: an earlier evaluation of the same queries, or its JSON form;
    a measure fails if the 95 % interval of the difference (paired bootstrap) lies wholly below -tolerance. So chance alone fails
    one measure in forty, and a loss that a few queries cannot show passes: floors are there to stop a slow decline. Raises
    InvalidInput if there is no condition, or one that cannot be used.
    """

    def __init__(
        self,
        least: Mapping[str, float] | None = None,
        baseline: Evaluation | Mapping[str, Any] | None = None,
        *,
        tolerance: float = 0.0,
        samples: int = 10_000,
        seed: int = 0,
    ) -> None:
        self._least = dict(least or {})
        self._baseline = baseline if isinstance(baseline, Evaluation | None) else evaluation_from_json(baseline)
        self._tolerance, self._samples, self._seed = tolerance, samples, seed
        if not self.measures:
            raise InvalidInput("the gate has no condition; give min={'nDCG@10': 0.6}, or a baseline")
        if isinstance(tolerance, bool) or not isinstance(tolerance, int | float) or not 0 <= tolerance <= 1:
            raise InvalidInput(f"tolerance is {tolerance!r}; it must lie between 0 and 1")
        for measure, value in self._least.items():
            if isinstance(value, bool) or not isinstance(value, int | float) or not np.isfinite(value):
                raise InvalidInput(f"the least {measure} is {value!r}; give a number, such as 0.6")

    @property
    def measures(self) -> tuple[str, ...]:
        """What must be measured."""
        return tuple(dict.fromkeys([*self._least, *(self._baseline.means if self._baseline else ())]))

    def judged(self, found: Evaluation) -> GateResult:
        checks = [
            GateCheck(
                m, found.means[m], least, found.means[m] >= least, f"{m} is {found.means[m]:.4f}, at least {least:g}"
            )
            for m, least in self._least.items()
        ]
        if self._baseline is not None:
            before = self._baseline
            compared = compare_evaluations(found, before, samples=self._samples, seed=self._seed)
            for m, gained in compared.differences.items():
                reason = (
                    f"{m} is {found.means[m]:.4f}, the baseline's {before.means[m]:.4f} "
                    f"({gained.difference:+.4f}, {gained.low:+.4f} … {gained.high:+.4f}, tolerance {self._tolerance:g})"
                )
                passed = gained.high >= -self._tolerance
                checks.append(GateCheck(m, found.means[m], before.means[m], passed, reason))
        return GateResult(all(check.passed for check in checks), tuple(checks), found)


def evaluation_from_json(saved: Mapping[str, Any]) -> Evaluation:
    """An Evaluation from the JSON object that dataclasses.asdict makes of one. Raises InvalidInput."""
    try:
        means = {str(m): float(value) for m, value in saved["means"].items()}
        per_query = {str(q): {str(m): float(v) for m, v in found.items()} for q, found in saved["per_query"].items()}
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InvalidInput(
            f"the baseline is no evaluation ({error!r}); give one that evaluate or gate returned, or its JSON with means and "
            "per_query"
        ) from error
    if not means or not per_query or any(found.keys() != means.keys() for found in per_query.values()):
        raise InvalidInput("the baseline lacks measures of some queries; save it whole")
    return Evaluation(means, per_query)


class Judged:
    """The queries of an evaluation that have judgments (InvalidInput if none has), and how answers to them are measured."""

    def __init__(
        self, queries: Mapping[str, Any], qrels: Mapping[str, Mapping[str, int]], measures: Sequence[str] = MEASURES
    ) -> None:
        judged = {id: query for id, query in queries.items() if id in qrels}
        if not judged:
            raise InvalidInput("no query has judgments; queries and qrels must share their ids")
        self._ids = list(judged)
        self._qrels = {id: qrels[id] for id in judged}
        self._measures = measures
        given = list(judged.values())
        only_text = all(isinstance(query, str) for query in given)
        self.batch: Any = given if only_text else np.stack([np.asarray(query) for query in given])

    def evaluated(self, answers: Sequence[Hits]) -> Evaluation:
        """answers: the hits of each query of the batch."""
        # By rank: a set comes in the order of choice, which its scores do not have.
        run = {id: [(hit.id, -float(hit.rank)) for hit in hits] for id, hits in zip(self._ids, answers)}
        return evaluate_run(run, self._qrels, measures=self._measures)


def search_options(given: Mapping[str, Any] | str, k: int) -> dict[str, Any]:
    """What is to be measured as options of `search`: a mode's name, that of a saved query, or the options themselves (a plan
    without a query is such). Raises InvalidInput.
    """
    if isinstance(given, str):
        return {"k": k, "mode" if given in MODES else "plan": given}
    if not isinstance(given, Mapping):
        raise InvalidInput(
            f"{given!r} is no setting to compare; give a mode, the name of a saved query, or options of search: "
            "{'mode': 'text'}"
        )
    if "query" in given or "vector" in given:
        raise InvalidInput("the setting has a query of its own; leave it out, as the judged queries are asked")
    return {"k": k, **given}


def table(evaluations: Mapping[str, Evaluation]) -> str:
    """A plain text table: a line for each named evaluation, a column for each measure, its best marked with a star."""
    if not evaluations:
        raise InvalidInput("no evaluation given; there is nothing to show")
    measures = list(dict.fromkeys(name for evaluation in evaluations.values() for name in evaluation.means))
    shown = {name: [_shown(evaluation.means.get(m)) for m in measures] for name, evaluation in evaluations.items()}
    best = [max(row[column] for row in shown.values()) for column in range(len(measures))]
    rows = [["", *measures]]
    for name, values in shown.items():
        marks = ["*" if len(shown) > 1 and value == top else " " for value, top in zip(values, best)]
        rows.append([name, *(value + mark for value, mark in zip(values, marks))])
    rows[0][1:] = [f"{measure} " for measure in measures]  # a space above the marks
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "  ".join([row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:]))]).rstrip()
        for row in rows
    ]
    return "\n".join(lines)


def _ir_measures() -> Any:
    try:
        import ir_measures
    except ImportError as error:
        raise MissingExtra.of("ir-measures", extra="eval", what="evaluation") from error
    return ir_measures


def _parse(provider: Any, name: str) -> Any:
    """ir-measures' object for a measure's name. Its parser raises a different error for each way to be wrong.

    It lets a cutoff of 0 pass, upon which the C code below it aborts the process.
    """
    try:
        measure = provider.parse_measure(name)
        measure.validate_params()
        if measure.params.get("cutoff", 1) < 1:
            raise ValueError("the cutoff must be at least 1")
    except (NameError, ValueError, TypeError, AssertionError) as error:
        raise InvalidInput(
            f"unknown measure {name!r}; wanted a name of ir-measures, such as {', '.join(MEASURES)}, P@5 or Success@1"
        ) from error
    return measure


def _ranked(query: str, results: Sequence[tuple[str, float]]) -> dict[str, float]:
    """The results as ir-measures takes them: descending scores, all different, so that equal ones keep their order."""
    best_first = sorted(results, key=lambda result: -result[1])  # stable
    ranked = {document: float(len(best_first) - rank) for rank, (document, _) in enumerate(best_first)}
    if len(ranked) != len(best_first):
        raise InvalidInput(f"the results of query {query!r} hold a document twice; give each document once")
    return ranked


def _differences(a: Evaluation, b: Evaluation, measure: str) -> NDArray[np.float64]:
    """(Q,) a minus b for each query, in the order of a."""
    if a.per_query.keys() != b.per_query.keys():
        only = sorted(a.per_query.keys() ^ b.per_query.keys())
        raise InvalidInput(
            f"the two evaluations are of different queries ({len(only)} in one only, such as {only[0]!r}); "
            "evaluate both with the same qrels"
        )
    for evaluation in (a, b):
        if measure not in evaluation.means:
            raise InvalidInput(f"{measure!r} was not measured; choose one of {', '.join(evaluation.means)}")
    return np.array([values[measure] - b.per_query[query][measure] for query, values in a.per_query.items()])


def _resampled_means(values: NDArray[np.float64], samples: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """(samples,) means of draws with replacement, some draws at a time so that memory stays bounded."""
    step = max(1, _SAMPLES_AT_ONCE // len(values))
    parts = [
        values[rng.integers(len(values), size=(min(step, samples - start), len(values)))].mean(axis=1)
        for start in range(0, samples, step)
    ]
    return np.concatenate(parts)


def _shown(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
