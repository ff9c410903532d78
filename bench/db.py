"""`python -m bench db`: the same records in vecdb and in the databases beside it, and the same questions to all.

Each system has processes of its own. Loading: one process, all cores. Opening: fresh processes, all cores. Queries: one process
on one core with every thread pool limited to one; these stay alive and take turns, column by column and round by round, so that
a noisy moment of the machine hits all alike. Half of the questions choose each system's setting (the cheapest that reaches the
wanted recall), the other half are measured.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from bench.data import CORPORA, Questions, Records, load_corpus
from bench.machine import describe_run, result_path, results_folder, version_of
from bench.report import print_markdown, print_tables
from bench.systems import SYSTEMS
from bench.systems.base import COLUMNS, VECTOR_COLUMNS, Setting
from bench.truth import Truth, exact_truth
from bench.turns import Child, ChildFailed

RECALL = 0.95
LABELS = {"vector": "", "filtered_10": "tenth", "filtered_01": "thousandth"}
_WARM_UP = 20


@dataclass(frozen=True)
class Plan:
    """How much is measured. asked: questions per half. budget_s: after this long a turn ends, however few were asked."""

    systems: tuple[str, ...]
    corpus: str
    rows: int | None
    asked: int
    rounds: int
    opens: int
    loads: int
    budget_s: float


@dataclass
class Measured:
    """What is known of one system so far. ms and recall: for each column, one list a round."""

    name: str
    folder: Path
    starts: dict[str, Any] = field(default_factory=dict)
    loads: list[dict[str, Any]] = field(default_factory=list)
    size_mb: dict[str, float] = field(default_factory=dict)
    opens: list[dict[str, Any]] = field(default_factory=list)
    settings: dict[str, Setting] = field(default_factory=dict)
    tuned: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    ms: dict[str, list[list[float]]] = field(default_factory=dict)
    recall: dict[str, list[float]] = field(default_factory=dict)
    answers: dict[str, dict[int, list[int]]] = field(default_factory=dict)
    query_peak_mb: float = 0.0
    failures: list[str] = field(default_factory=list)


class Run:
    """One comparison, phase after phase. said: where talk goes."""

    def __init__(self, plan: Plan, folder: Path) -> None:
        corpus = load_corpus(plan.corpus)
        self.plan = plan
        self.records: Records = corpus.records(plan.rows)
        self.questions: Questions = corpus.questions()
        self.checksum, self.model = corpus.checksum, corpus.model
        half = len(self.questions) // 2
        asked = min(plan.asked, half)
        self.tuning = range(asked)
        self.measuring = range(half, half + asked)
        self.systems = [Measured(name, folder / name) for name in plan.systems]
        self.questions.save(folder)

    def measure(self) -> list[Measured]:
        _say(f"{len(self.records):,} records; exact answers to {len(self.questions):,} questions")
        truths = {column: exact_truth(self.records, self.questions, label) for column, label in LABELS.items()}
        self._load()
        self._open()
        with ExitStack() as stack:
            children = self._children(stack)
            self._tune(children, truths)
            for number in range(self.plan.rounds):
                _say(f"queries, round {number + 1} of {self.plan.rounds}")
                self._round(children, truths, number)
            for system in self.systems:
                if system.name in children:
                    with self._failing(system):
                        system.query_peak_mb = children[system.name].tell("end")["peak_mb"]
        return self.systems

    def _load(self) -> None:
        for _ in range(self.plan.loads):
            for system in self.systems:
                shutil.rmtree(system.folder, ignore_errors=True)
                system.folder.mkdir()
                with self._failing(system), Child(system.name, system.folder) as child:
                    system.starts = child.tell("start")
                    loaded = child.tell("load", corpus=self.plan.corpus, rows=self.plan.rows)
                    system.loads.append(loaded)
                    _say(f"loaded {system.name}: {loaded['rows_per_s']:,.0f} rows/s, index {loaded['index_s']:.1f} s")
        for system in self.systems:
            system.size_mb = _sizes(system.folder)

    def _open(self) -> None:
        for number in range(self.plan.opens):
            for system in self._sound():
                with self._failing(system), Child(system.name, system.folder) as child:
                    start = child.tell("start")
                    opened = child.tell("first_answer", question=self.measuring[number % len(self.measuring)])
                    system.opens.append({**opened, "import_ms": start["import_ms"]})

    def _children(self, stack: ExitStack) -> dict[str, Child]:
        children = {}
        for system in self._sound():
            with self._failing(system):
                child = stack.enter_context(Child(system.name, system.folder, single=True))
                child.tell("start")
                child.tell("open")
                children[system.name] = child
        return children

    def _tune(self, children: dict[str, Child], truths: dict[str, Truth]) -> None:
        """For each system and each column with a recall, the cheapest setting that reaches it; the best if none does."""
        for system in self._sound():
            with self._failing(system):
                for column in VECTOR_COLUMNS:
                    if column in system.starts["columns"]:
                        self._tune_column(system, children[system.name], column, truths[column])
                chosen = ", ".join(f"{c} {_brief(s) or 'exact'}" for c, s in system.settings.items())
                _say(f"tuned {system.name}: {chosen}")

    def _tune_column(self, system: Measured, child: Child, column: str, truth: Truth) -> None:
        tried: list[dict[str, Any]] = []
        for setting in system.starts["ladder"]:
            answer = self._ask(child, column, setting, self.tuning)
            shares = [truth.recall(q, rows) for q, rows in zip(self.tuning, answer["rows"])]
            tried.append(
                {"setting": setting, "recall": statistics.mean(shares), "p50_ms": statistics.median(answer["ms"])}
            )
            if tried[-1]["recall"] >= RECALL:
                break
        best = max(tried, key=lambda t: t["recall"]) if tried[-1]["recall"] < RECALL else tried[-1]
        system.tuned[column] = tried
        system.settings[column] = best["setting"]

    def _round(self, children: dict[str, Child], truths: dict[str, Truth], number: int) -> None:
        """Every column, and in each every system: A B C A B C, starting with another one each round."""
        size = -(-len(self.measuring) // self.plan.rounds)
        piece = self.measuring[number * size : (number + 1) * size]
        for column in COLUMNS:
            for system in _rotated(self._sound(), number):
                if column in system.starts["columns"]:
                    with self._failing(system):
                        self._measure(system, children[system.name], column, piece, truths.get(column))

    def _measure(self, system: Measured, child: Child, column: str, piece: range, truth: Truth | None) -> None:
        setting = system.settings.get(column, system.settings.get("vector", {}))
        # Questions of the tuning half, so that none that is measured was asked before.
        self._ask(child, column, setting, self.tuning[:_WARM_UP], budget_s=self.plan.budget_s / 4)
        answer = self._ask(child, column, setting, piece)
        system.ms.setdefault(column, []).append(answer["ms"])
        system.answers.setdefault(column, {}).update(zip(piece, answer["rows"]))
        if truth is not None:
            shares = [truth.recall(q, rows) for q, rows in zip(piece, answer["rows"])]
            system.recall.setdefault(column, []).extend(shares)

    def _ask(
        self, child: Child, column: str, setting: Setting, questions: range, budget_s: float | None = None
    ) -> dict[str, Any]:
        return child.tell(
            "ask",
            column=column,
            setting=setting,
            first=questions.start,
            last=questions.stop,
            budget_s=self.plan.budget_s if budget_s is None else budget_s,
        )

    def _sound(self) -> list[Measured]:
        return [system for system in self.systems if not system.failures]

    @contextmanager
    def _failing(self, system: Measured) -> Iterator[None]:
        """A system that fails is out of the rest of the run, and the report says why."""
        try:
            yield
        except ChildFailed as error:
            _say(str(error))
            system.failures.append(str(error))


def results(run: Run, described: dict[str, Any]) -> list[dict[str, Any]]:
    """One JSON-able line for each system."""
    reference = next((s for s in run.systems if s.name == "sqlite-vec"), None)
    return [
        {**described, "data": _data_line(run), "plan": _plan_line(run.plan), **_line(s, reference)} for s in run.systems
    ]


def _data_line(run: Run) -> dict[str, Any]:
    return {
        "name": run.plan.corpus,
        "checksum": run.checksum,
        "model": run.model,
        "rows": len(run.records),
        "dimension": run.records.vectors.shape[1],
        "raw_mb": run.records.raw_bytes / 1e6,
        "questions": len(run.measuring),
    }


def _plan_line(plan: Plan) -> dict[str, Any]:
    return {
        "wanted_recall": RECALL,
        "rounds": plan.rounds,
        "opens": plan.opens,
        "loads": plan.loads,
        "budget_s": plan.budget_s,
        "warm_up": _WARM_UP,
        "threads": {"load": "all cores", "open": "all cores", "query": "one core, one thread in every pool"},
    }


def _line(system: Measured, reference: Measured | None) -> dict[str, Any]:
    line: dict[str, Any] = {
        "system": system.name,
        "version": version_of(SYSTEMS[system.name][1]),
        "note": system.starts.get("note", ""),
        "failures": system.failures,
        "size_mb": system.size_mb,
        "columns": {column: _column(system, column, reference) for column in COLUMNS if column in system.ms},
        "tuned": system.tuned,
        "query_peak_mb": system.query_peak_mb,
    }
    for name, measured in (("load", system.loads), ("open", system.opens)):
        if measured:
            line[name] = {key: statistics.median(float(m[key]) for m in measured) for key in measured[0]}
    return line


def _column(system: Measured, column: str, reference: Measured | None) -> dict[str, Any]:
    """p50: the median over rounds of each round's median. p99: over all questions of all rounds."""
    rounds = system.ms[column]
    taken = [ms for part in rounds for ms in part]
    line: dict[str, Any] = {
        "p50_ms": statistics.median(statistics.median(part) for part in rounds),
        "p99_ms": float(np.percentile(taken, 99)),
        "questions": len(taken),
        "p50_ms_rounds": [statistics.median(part) for part in rounds],
    }
    if column in system.recall:
        line["recall"] = statistics.mean(system.recall[column])
        line["setting"] = system.settings[column]
    if column.startswith("text") and reference is not None and column in reference.answers:
        line["same_as_fts5"] = _overlap(system.answers[column], reference.answers[column])
    return line


def _overlap(answers: dict[int, list[int]], others: dict[int, list[int]]) -> float:
    """Mean share of the others' rows that are also in answers, over the questions that both were asked."""
    shared = [len(set(answers[q]) & set(others[q])) / len(others[q]) for q in answers if others.get(q)]
    return statistics.mean(shared) if shared else 1.0


def _sizes(folder: Path) -> dict[str, float]:
    """MB of all files; for vecdb also of the file and of the index folder apart."""
    files = {path: path.stat().st_size / 1e6 for path in folder.rglob("*") if path.is_file()}
    sizes = {"all": sum(files.values())}
    if any(path.suffix == ".vecdb" for path in files):
        sizes["file"] = sum(size for path, size in files.items() if path.suffix == ".vecdb")
        sizes["index"] = sum(size for path, size in files.items() if path.parent.name.endswith(".vecdb-index"))
    return sizes


def _rotated(systems: Sequence[Measured], by: int) -> list[Measured]:
    turn = by % max(len(systems), 1)
    return [*systems[turn:], *systems[:turn]]


def _brief(setting: Setting) -> str:
    return " ".join(f"{key}={value}" for key, value in setting.items() if value is not None)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _chosen(names: str | None) -> tuple[str, ...]:
    """The systems asked for; by default all that are installed."""
    if names is None:
        return tuple(name for name, (_, package) in SYSTEMS.items() if version_of(package))
    chosen = tuple(name.strip() for name in names.split(","))
    for name in chosen:
        if name not in SYSTEMS:
            raise SystemExit(f"unknown system {name!r}; choose from {', '.join(SYSTEMS)}")
        if version_of(SYSTEMS[name][1]) is None:
            raise SystemExit(f"{name} is not installed: pip install {SYSTEMS[name][1]}")
    return chosen


def _arguments(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench db", description=__doc__.partition("\n\n")[0])
    parser.add_argument("--systems", help=f"of {','.join(SYSTEMS)}; default: all that are installed")
    parser.add_argument("--data", choices=CORPORA, default=CORPORA[0])
    parser.add_argument("--rows", type=int, help="load only so many records")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--loads", type=int, default=1, help="load so often and take the median")
    parser.add_argument("--budget", type=float, default=4.0, help="seconds that one turn of a system may take at most")
    parser.add_argument("--quick", action="store_true", help="200 questions in 2 rounds")
    parser.add_argument("--markdown", action="store_true", help="print the tables as markdown")
    parser.add_argument("--out", type=Path, help="where results and plot go; default: bench/results if all is measured")
    parser.add_argument(
        "--show", type=Path, metavar="RESULTS", help="measure nothing: table and plot of an earlier run"
    )
    return parser.parse_args(arguments)


def main(arguments: Sequence[str]) -> int:
    given = _arguments(arguments)
    out = given.out or (given.show.parent if given.show else results_folder(whole=_is_whole(given)))
    if given.show is not None:
        lines = [json.loads(line) for line in given.show.read_text().splitlines()]
    else:
        lines = _measured(given)
        path = result_path(out, "db")
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
        _say(f"results: {path}")
    (print_markdown if given.markdown else print_tables)(lines)
    _plot(lines, out)
    return 1 if any(line["failures"] for line in lines) else 0


def _is_whole(given: argparse.Namespace) -> bool:
    return not (given.quick or given.rows or given.systems) and given.data == CORPORA[0]


def _measured(given: argparse.Namespace) -> list[dict[str, Any]]:
    quick = given.quick
    plan = Plan(
        systems=_chosen(given.systems),
        corpus=given.data,
        rows=given.rows,
        asked=100 if quick else 1_000,
        rounds=2 if quick else given.rounds,
        opens=2 if quick else 7,
        loads=given.loads,
        budget_s=min(given.budget, 1.0) if quick else given.budget,
    )
    described = describe_run("db")
    with tempfile.TemporaryDirectory(prefix="bench-db-") as folder:
        run = Run(plan, Path(folder))
        run.measure()
        return results(run, described)


def _plot(lines: list[dict[str, Any]], out: Path) -> None:
    try:
        from bench.plot import draw
    except ImportError as error:
        _say(f"no plot, {error.name} is not installed: pip install matplotlib")
        return
    _say(f"plot: {draw(lines, out)}")
