"""`python -m bench churn_index`: whether an index stays as good as a new one while its vectors come and go.

A round: half of the vectors leave, as many enter, drawn from those that are not in the index; then 30 % of the size leave and
others enter in their places (an upsert). So the size stays, and after a few rounds hardly a vector of the beginning is left.
After each round the index is compared with a fresh one over the same vectors. Every system has a process of its own, bound to
one core, and gets the same vectors in the same order.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from bench.churn_worker import DELETED, EF, SYSTEMS, UPSERTED, K
from bench.machine import describe_run, result_path, results_folder, version_of
from bench.report import Cell, Table, show_markdown, show_tables
from bench.turns import Child, ChildFailed

Line = dict[str, Any]

LEAST_SELF_RECALL = 1.0
MOST_LOST = 0.005  # recall@10, against a fresh build
MOST_WORK = 1.15  # distances, against a fresh build

_ROWS, _ROUNDS, _QUESTIONS = 20_000, 20, 500
_DISTRIBUTIONS = {"vecdb": "vecdb", "hnswlib": "hnswlib", "chroma": "chromadb"}
_NOTHING = Cell("-")


def main(arguments: Sequence[str]) -> int:
    given = _arguments(arguments)
    lines = _measured(given) if given.show is None else _read(given.show)
    (show_markdown if given.markdown else show_tables)(tables(lines), notes(lines))
    return 0 if all(passed for line in lines if line["system"] == "vecdb" for passed in met([line]).values()) else 1


def _measured(given: argparse.Namespace) -> list[Line]:
    from bench.vectors import load_set

    pool = load_set("minilm")  # made now if need be
    if given.rows * (1 + max(DELETED, UPSERTED)) > len(pool.base):
        raise SystemExit(f"--rows {given.rows:,} leaves too few of {len(pool.base):,} vectors to change to; take fewer")
    data = {"name": pool.name, "rows": given.rows, "pool": len(pool.base), "dimension": pool.base.shape[1]}
    described = {**describe_run("churn_index"), "data": {**data, **pool.checksums(), "questions": given.questions}}
    whole = (given.rows, given.rounds, given.questions, given.systems) == (_ROWS, _ROUNDS, _QUESTIONS, None)
    path = result_path(given.out or results_folder(whole=whole), "churn_index")
    lines: list[Line] = []
    with tempfile.TemporaryDirectory(prefix="bench-churn-") as folder:
        for system in _chosen(given.systems):
            head = {**described, "system": system, "version": version_of(_DISTRIBUTIONS[system])}
            try:
                for line in _rounds(system, given, Path(folder) / system):
                    lines.append({**head, **line})
                    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
            except ChildFailed as error:
                _say(f"{system} is left out from here on: {error}")
    _say(f"results: {path}")
    return lines


def _rounds(system: str, given: argparse.Namespace, folder: Path) -> Iterator[Line]:
    """The figures of one system, round after round; fewer rounds if the time is up."""
    until = time.monotonic() + 60 * given.minutes
    with Child(system, folder, single=True, worker="bench.churn_worker") as child:
        took = child.tell("start", rows=given.rows, questions=given.questions)
        for number in range(given.rounds + 1):
            if number:
                took = child.tell("round")
            line = {"round": number, **took, **child.tell("measure"), "fresh": child.tell("fresh")}
            _say(f"{system} {number}: self-recall {line['self_recall']:.5f}, recall@{K} {line['recall']:.4f}")
            yield line
            if time.monotonic() > until:
                _say(f"{system}: the time is up after {number} rounds")
                return


def met(lines: Sequence[Line]) -> dict[str, bool]:
    """Which of the three bounds all these lines keep."""
    kept = {
        "self_recall": all(line["self_recall"] >= LEAST_SELF_RECALL for line in lines),
        "recall": all(_lost(line) <= MOST_LOST for line in lines),
    }
    ratios = [_work_ratio(line) for line in lines]
    if all(ratio is not None for ratio in ratios):
        kept["work"] = all(ratio is not None and ratio <= MOST_WORK for ratio in ratios)
    return kept


def tables(lines: Sequence[Line]) -> list[Table]:
    """One of each system's rounds, and one of the worst that was seen."""
    systems = list(dict.fromkeys(line["system"] for line in lines))
    by_system = {name: [line for line in lines if line["system"] == name] for name in systems}
    return [*(_of_rounds(name, own) for name, own in by_system.items()), _of_worst(by_system)]


def notes(lines: Sequence[Line]) -> list[str]:
    first = lines[0]
    machine, data = first["machine"], first["data"]
    return [
        f"{first['date']}, commit {first['commit']}, {machine['cpu']}, Python {machine['python']}",
        f"{data['rows']:,} of {data['pool']:,} vectors of {data['name']} x {data['dimension']}; each round {DELETED:.0%} leave, "
        f"as many others enter, then {UPSERTED:.0%} are replaced; {data['questions']} questions that are in none; ef = {EF}",
        "one thread; seconds of processor time; the table of the worst has the mean of the points lost too",
        f"bounds: self-recall {LEAST_SELF_RECALL:.0%}, recall@{K} at most {100 * MOST_LOST:g} points under a fresh build, "
        f"at most {MOST_WORK:g} times its distances",
    ]


def _of_rounds(system: str, lines: Sequence[Line]) -> Table:
    header = (
        "round",
        "self-recall",
        "of fresh",
        f"recall@{K}",
        "of fresh",
        "points lost",
        "distances",
        "of fresh",
        "times",
        "MB",
        "of fresh",
        "remove s",
        "add s",
        "fresh build s",
    )
    return Table(f"{system} {lines[0]['version']}", header, tuple(_round_row(line) for line in lines))


def _round_row(line: Line) -> tuple[Cell, ...]:
    fresh, ratio = line["fresh"], _work_ratio(line)
    work = (
        (Cell(f"{line['work']:.0f}"), Cell(f"{fresh['work']:.0f}"), Cell(f"{ratio:.3f}"))
        if ratio
        else (_NOTHING, _NOTHING, _NOTHING)
    )
    return (
        Cell(str(line["round"])),
        Cell(f"{line['self_recall']:.5f}"),
        Cell(f"{fresh['self_recall']:.5f}"),
        Cell(f"{line['recall']:.4f}"),
        Cell(f"{fresh['recall']:.4f}"),
        Cell(f"{100 * _lost(line):+.2f}"),
        *work,
        Cell(f"{line['memory_mb']:.0f}"),
        Cell(f"{fresh['memory_mb']:.0f}"),
        Cell(f"{line['removed_s']:.2f}") if "removed_s" in line else _NOTHING,
        Cell(f"{line['added_s']:.2f}") if "added_s" in line else _NOTHING,
        Cell(f"{fresh['build_s']:.2f}"),
    )


def _of_worst(by_system: dict[str, list[Line]]) -> Table:
    header = (
        "system",
        "rounds",
        "least self-recall",
        "most points lost",
        "on average",
        "most distances",
        "MB first",
        "MB last",
        "all met",
    )
    return Table("The worst of all rounds", header, tuple(_worst_row(name, own) for name, own in by_system.items()))


def _worst_row(system: str, lines: Sequence[Line]) -> tuple[Cell, ...]:
    ratios = [ratio for ratio in map(_work_ratio, lines) if ratio is not None]
    return (
        Cell(system),
        Cell(str(lines[-1]["round"])),
        Cell(f"{min(line['self_recall'] for line in lines):.5f}"),
        Cell(f"{100 * max(map(_lost, lines)):+.2f}"),
        Cell(f"{100 * statistics.mean(map(_lost, lines)):+.2f}"),
        Cell(f"{max(ratios):.3f}") if ratios else _NOTHING,
        Cell(f"{lines[0]['memory_mb']:.0f}"),
        Cell(f"{lines[-1]['memory_mb']:.0f}"),
        Cell("yes" if all(met(lines).values()) else "NO"),
    )


def _lost(line: Line) -> float:
    """By how much recall is under the fresh build's; rounded, for both are whole numbers of hits divided."""
    return round(float(line["fresh"]["recall"] - line["recall"]), 9)


def _work_ratio(line: Line) -> float | None:
    return None if line["work"] is None else line["work"] / line["fresh"]["work"]


def _chosen(names: str | None) -> list[str]:
    """The systems asked for; by default all that are installed."""
    if names is None:
        return [name for name in SYSTEMS if version_of(_DISTRIBUTIONS[name])]
    chosen = [name.strip() for name in names.split(",")]
    for name in chosen:
        if name not in SYSTEMS:
            raise SystemExit(f"unknown system {name!r}; choose from {', '.join(SYSTEMS)}")
        if version_of(_DISTRIBUTIONS[name]) is None:
            raise SystemExit(f"{name} is not installed: pip install {_DISTRIBUTIONS[name]}")
    return chosen


def _read(path: Path) -> list[Line]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _arguments(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench churn_index", description=__doc__.partition("\n\n")[0])
    parser.add_argument("--rows", type=int, default=_ROWS)
    parser.add_argument("--rounds", type=int, default=_ROUNDS)
    parser.add_argument("--questions", type=int, default=_QUESTIONS, help="for recall@10")
    parser.add_argument("--systems", help=f"of {','.join(SYSTEMS)}; default: all that are installed")
    parser.add_argument("--minutes", type=float, default=30.0, help="for one system; then it ends with fewer rounds")
    parser.add_argument("--markdown", action="store_true", help="print the tables as markdown")
    parser.add_argument("--out", type=Path, help="where results go; default: bench/results if all is measured")
    parser.add_argument("--show", type=Path, metavar="RESULTS", help="measure nothing: tables of an earlier run")
    return parser.parse_args(arguments)
