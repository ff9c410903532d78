"""The command line of `python -m bench select`.

Options are chosen on the even questions of a set, figures are of the odd ones. The rule is the same for all methods: the highest
S-recall@10 among the options that keep 95 % of the top k's precision.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import vecdb
from bench.intervals import mean_interval
from bench.machine import describe_run, result_path, results_folder
from bench.report import Cell, Table, show_markdown, show_tables
from bench.select.measures import alpha_ndcg, precision, subtopic_recall
from bench.select.sets import SETS, Asked, FacetSet, load_facet_set
from vecdb.query.selection import Coverage, Dpp, KCenter, Mmr, Pool, Selector, name_of

K = 10
POOL = 200
MEASURES = {"S-recall": subtopic_recall, "alpha-nDCG": alpha_ndcg, "precision": precision}

_WANTED = 1.1  # times the top k's S-recall
_KEPT = 0.95  # of the top k's precision
_LATENCY_ROUNDS = 300

GRIDS: dict[str, list[Selector]] = {
    "mmr": [Mmr(d, pool) for d, pool in product((0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7), (50, 100, 200))],
    "coverage": [Coverage(1.0, b, c, tau) for b, c, tau in product((0, 0.02), (0, 0.003, 0.01), (0.03, 0.05, 0.1))],
    "kcenter": [KCenter(pool) for pool in (12, 15, 20, 30, 50, 100, 200)],
    "dpp": [Dpp(r, pool) for r, pool in product((0.7, 0.8, 0.9, 0.95, 0.98, 0.99), (50, 200))],
}


@dataclass(frozen=True)
class Question:
    """A question with its POOL best candidates: rows (c,), best first."""

    asked: Asked
    rows: NDArray[np.int64]
    scores: NDArray[np.float64]
    vectors: NDArray[np.float32]

    def answer(self, selector: Selector | None) -> list[int]:
        """The K rows that come back; None: the best."""
        if selector is None:
            return list(self.rows[:K].tolist())
        of = Pool.of(self.scores[: selector.pool], list(self.vectors[: selector.pool]))
        return [int(self.rows[place]) for place in selector.choose(of, K).places]


def main(arguments: Sequence[str]) -> int:
    given = _arguments(arguments)
    if given.show is not None:
        _report([json.loads(line) for line in given.show.read_text().splitlines()], given.markdown)
        return 0
    path = result_path(given.out or results_folder(whole=given.is_whole), "select")
    described = describe_run("select")
    lines = []
    with path.open("w") as results:
        for line in _measured(given):
            lines.append(described | line)
            results.write(json.dumps(lines[-1]) + "\n")
            results.flush()
    _report(lines, given.markdown)
    print(path, file=sys.stderr)
    return 0


def _measured(given: argparse.Namespace) -> Iterator[dict[str, Any]]:
    for name in given.sets:
        begun = time.perf_counter()
        data = load_facet_set(name)
        questions = [_question(data, asked) for asked in data.questions[: given.questions]]
        yield from _compared(data, questions[::2], questions[1::2])
        print(f"{name}: {time.perf_counter() - begun:.0f} s", file=sys.stderr)
    yield from _latencies(data, given.questions)


def _question(data: FacetSet, asked: Asked) -> Question:
    rows = np.arange(len(data.vectors)) if asked.rows is None else asked.rows
    scores = (data.vectors[rows] if asked.rows is not None else data.vectors) @ asked.vector
    best = np.argsort(-scores, kind="stable")[:POOL]
    return Question(asked, rows[best], scores[best].astype(np.float64), data.vectors[rows[best]])


def _compared(data: FacetSet, tuning: list[Question], measured: list[Question]) -> Iterator[dict[str, Any]]:
    """A line for each option on the tuning half; then one for each method: what it was set to, and its measures on questions
    that did not choose that.
    """
    (top,) = _tried([None], tuning)
    chosen: dict[str, Selector | None] = {"topk": None, "coverage (default)": Coverage(), "mmr (default)": Mmr()}
    for name, grid in GRIDS.items():
        tried = _tried(grid, tuning)
        chosen[f"{name} (tuned)"] = _best(grid, tried, top)
        for selector, means in zip(grid, tried):
            yield {
                "part": "tuning",
                "data": {"name": data.name},
                "setting": _setting(selector),
                "means": means,
                "topk": top,
            }
    values = {name: _values(selector, measured) for name, selector in chosen.items()}
    for name, selector in chosen.items():
        yield {
            "part": "quality",
            "data": {
                "name": data.name,
                "rows": len(data.vectors),
                "questions": {"tuning": len(tuning), "measured": len(measured)},
                "subtopics": data.facets_each,
            },
            "method": name,
            "setting": None if selector is None else _setting(selector),
            "pool": POOL,
            "k": K,
            "means": {measure: float(values[name][measure].mean()) for measure in MEASURES},
            "s_recall_gain": {
                other: _interval(values[name]["S-recall"] - values[other]["S-recall"])
                for other in ("topk", "mmr (tuned)")
                if other != name
            },
        }


def _setting(selector: Selector) -> dict[str, Any]:
    return {"kind": name_of(selector), **asdict(selector)}  # type: ignore[call-overload]


def _values(selector: Selector | None, questions: Sequence[Question]) -> dict[str, NDArray[np.float64]]:
    """Each measure of each question (Q,)."""
    answers = [question.answer(selector) for question in questions]
    return {
        name: np.array([measure(answer, q.asked.facets, K) for answer, q in zip(answers, questions)])
        for name, measure in MEASURES.items()
    }


def _tried(grid: Sequence[Selector | None], questions: Sequence[Question]) -> list[dict[str, float]]:
    """The means of each option."""
    return [{m: float(v.mean()) for m, v in _values(selector, questions).items()} for selector in grid]


def _best(grid: Sequence[Selector], tried: Sequence[dict[str, float]], top: dict[str, float]) -> Selector:
    least = _KEPT * top["precision"]
    return grid[max(range(len(grid)), key=lambda i: (tried[i]["precision"] >= least, tried[i]["S-recall"]))]


def _interval(differences: NDArray[np.float64]) -> dict[str, float]:
    return dict(zip(("mean", "low", "high"), mean_interval(differences)))


def _latencies(data: FacetSet, most: int | None) -> Iterator[dict[str, Any]]:
    """Through the library: the whole search and its selection, from a pool of 200, one thread at a time."""
    asked = [asked.vector for asked in data.questions[:most]]
    with vecdb.open(":memory:", background=False) as db:
        docs = db.collection("docs", dimension=data.vectors.shape[1])
        docs.add(vectors=data.vectors[data.vectors.any(axis=1)])  # a film that only held-out ratings like has none
        docs.warm()
        kinds: dict[str, str | Selector] = {"topk": "topk", "coverage": "coverage", "mmr": "mmr"}
        for name, select in {**kinds, "kcenter": KCenter(POOL), "dpp": Dpp(pool=POOL)}.items():
            whole, stage = [], []
            for number in range(_LATENCY_ROUNDS + 20):
                begun = time.perf_counter()
                hits = docs.search(asked[number % len(asked)], k=K, select=select, candidates=POOL)
                whole.append((time.perf_counter() - begun) * 1e3)
                stage.append(next((step.ms for step in hits.trace if step.stage == "select"), 0.0))
            yield {
                "part": "latency",
                "data": {"name": data.name, "rows": len(data.vectors), "dimension": data.vectors.shape[1]},
                "method": name,
                "pool": POOL,
                "search_ms": _quantiles(whole[20:]),
                "select_ms": _quantiles(stage[20:]),
            }


def _quantiles(values: Sequence[float]) -> dict[str, float]:
    return {f"p{q}": round(float(np.percentile(values, q)), 3) for q in (50, 99)}


def _report(lines: Sequence[dict[str, Any]], markdown: bool) -> None:
    made = tables(lines)
    notes = [
        f"S-recall, alpha-nDCG, precision at {K}, from the {POOL} nearest; odd questions, options chosen on even ones"
    ]
    (show_markdown if markdown else show_tables)(made, notes)


def tables(lines: Sequence[dict[str, Any]]) -> list[Table]:
    quality = [line for line in lines if line["part"] == "quality"]
    made = [_quality([line for line in quality if line["data"]["name"] == name]) for name in _names(quality)]
    if len(made) > 1:
        made.append(_means(quality))
    tuned = [line for line in lines if line["part"] == "tuning" and line["setting"]["kind"] == "coverage"]
    if tuned:
        made.append(_common(tuned))
    timed = [line for line in lines if line["part"] == "latency"]
    if timed:
        rows = tuple(
            (
                Cell(line["method"]),
                *(Cell(f"{line[what][q]:.2f}") for what in ("select_ms", "search_ms") for q in ("p50", "p99")),
            )
            for line in timed
        )
        header = ("method", "select p50 ms", "p99", "whole search p50 ms", "p99")
        made.append(Table(f"Latency, pool of {POOL} x {timed[0]['data']['dimension']}", header, rows))
    return made


def _names(quality: Sequence[dict[str, Any]]) -> list[str]:
    return list(dict.fromkeys(line["data"]["name"] for line in quality))


def _quality(lines: Sequence[dict[str, Any]]) -> Table:
    data = lines[0]["data"]
    top = lines[0]["means"]
    rows = []
    for line in lines:
        gain = line["s_recall_gain"].get("topk")
        cells = [Cell(line["method"])]
        for measure in MEASURES:
            value = line["means"][measure]
            cells.append(Cell(f"{value:.3f} ({value / top[measure] - 1:+.1%})", -value))
        cells.append(Cell("" if gain is None else f"{gain['mean']:+.3f} [{gain['low']:+.3f}, {gain['high']:+.3f}]"))
        rows.append(tuple(cells))
    asked = f"{data['questions']['measured']} questions, {data['subtopics']:.1f} sub-topics each"
    return Table(
        f"{data['name']}: {asked}, {data['rows']:,} records", ("method", *MEASURES, "S-recall gain, 95 %"), tuple(rows)
    )


def _means(quality: Sequence[dict[str, Any]]) -> Table:
    """Over all sets: the mean of each method's ratio to the top k."""
    top = {line["data"]["name"]: line["means"] for line in quality if line["method"] == "topk"}
    rows = []
    for method in dict.fromkeys(line["method"] for line in quality):
        cells = [Cell(method)]
        for measure in MEASURES:
            own = [line for line in quality if line["method"] == method]
            ratios = [line["means"][measure] / top[line["data"]["name"]][measure] for line in own]
            cells.append(Cell(f"{np.mean(ratios) - 1:+.1%}", -float(np.mean(ratios))))
        rows.append(tuple(cells))
    return Table(f"Mean of {len(top)} sets, against the top k", ("method", *MEASURES), tuple(rows))


def _common(tuned: Sequence[dict[str, Any]]) -> Table:
    """The options of coverage that do best on all tuning halves together: where its defaults come from."""
    of_setting: dict[str, list[dict[str, float]]] = {}
    for line in tuned:
        ratios = {measure: line["means"][measure] / line["topk"][measure] for measure in MEASURES}
        shown = ", ".join(f"{name} {line['setting'][name]}" for name in ("relevance", "diversity", "tau"))
        of_setting.setdefault(shown, []).append(ratios)
    means = {shown: [float(np.mean([r[m] for r in ratios])) for m in MEASURES] for shown, ratios in of_setting.items()}
    met = {
        shown: sum(r["S-recall"] >= _WANTED and r["precision"] >= _KEPT for r in ratios)
        for shown, ratios in of_setting.items()
    }
    best = sorted(means, key=lambda shown: (-met[shown], -means[shown][0]))[:8]
    rows = tuple(
        (
            Cell(shown),
            *(Cell(f"{value - 1:+.1%}", -value) for value in means[shown]),
            Cell(f"{met[shown]} of {len(of_setting[shown])}", -met[shown]),
        )
        for shown in best
    )
    header = ("options", *MEASURES, "sets: S-recall +10 %, precision -5 % at most")
    return Table("Coverage on the tuning halves of all sets, against the top k", header, rows)


def _arguments(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench select", description=__doc__)
    parser.add_argument("--sets", nargs="+", default=list(SETS), choices=list(SETS))
    parser.add_argument("--questions", type=int, help="ask only so many of each set")
    parser.add_argument(
        "--common", action="store_true", help="also try the whole grid of coverage on all sets together"
    )
    parser.add_argument("--markdown", action="store_true")
    parser.add_argument("--show", type=Path, help="show the results of an earlier run")
    parser.add_argument("--out", type=Path, help="folder for the results")
    given = parser.parse_args(arguments)
    given.is_whole = given.sets == list(SETS) and given.questions is None
    return given
