"""What a hybrid query costs without the encoder: vecdb and vstash, one core, the same records and questions in turns."""

from __future__ import annotations

import statistics
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from bench.data import load_corpus
from bench.machine import version_of
from bench.systems import SYSTEMS
from bench.turns import Child

COLUMNS = ("hybrid", "hybrid_long")
_ROUNDS = 5
_WARM_UP = 20
_BUDGET_S = 10.0


def measure(rows: int, questions: int) -> list[dict[str, Any]]:
    """A line for each system that is installed: p50 and p99 in ms of each column."""
    corpus = load_corpus("debian-90k")
    systems = [name for name in ("vecdb", "vstash") if version_of(SYSTEMS[name][1])]
    taken: dict[tuple[str, str], list[list[float]]] = {(s, c): [] for s in systems for c in COLUMNS}
    with tempfile.TemporaryDirectory(prefix="bench-retrieval-") as parent, ExitStack() as stack:
        corpus.questions().save(Path(parent))
        children = {name: _loaded(name, Path(parent) / name, rows, stack) for name in systems}
        for number in range(_ROUNDS):
            piece = (_WARM_UP + number * questions // _ROUNDS, _WARM_UP + (number + 1) * questions // _ROUNDS)
            for column in COLUMNS:
                for name, child in children.items():
                    order: dict[str, Any] = {"column": column, "setting": {}, "budget_s": _BUDGET_S}
                    child.tell("ask", first=0, last=_WARM_UP, **order)
                    taken[name, column].append(child.tell("ask", first=piece[0], last=piece[1], **order)["ms"])
    return [
        {
            "system": name,
            "version": version_of(SYSTEMS[name][1]),
            "rows": rows,
            "columns": {column: _summary(taken[name, column]) for column in COLUMNS},
        }
        for name in systems
    ]


def _loaded(name: str, folder: Path, rows: int, stack: ExitStack) -> Child:
    folder.mkdir()
    with Child(name, folder) as child:
        child.tell("start")
        child.tell("load", corpus="debian-90k", rows=rows)
    print(f"loaded {rows:,} records into {name}", file=sys.stderr, flush=True)
    child = stack.enter_context(Child(name, folder, single=True))
    child.tell("start")
    child.tell("open")
    return child


def _summary(rounds: list[list[float]]) -> dict[str, Any]:
    every = [ms for part in rounds for ms in part]
    return {
        "p50_ms": statistics.median(every),
        "p99_ms": float(np.percentile(every, 99)),
        "p50_ms_rounds": [statistics.median(part) for part in rounds],
        "questions": len(every),
    }
