"""A child process with one database in it: it reads orders as JSON lines and answers each with one.

The parent is `turns.Child`. Nothing heavy is imported before the database's own package, so that its import is measured alone.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.machine import peak_memory_mb
from bench.systems.base import Setting, System

if TYPE_CHECKING:
    from bench.data import Questions

K = 10


class Worker:
    """name: of the system. folder: where its files are. Each public method is an order; what it returns is the answer."""

    def __init__(self, name: str, folder: Path) -> None:
        self._name = name
        self._folder = folder
        self._system: System
        self._questions: Questions

    def start(self) -> dict[str, Any]:
        """Import the package; what the system can do."""
        begun = time.perf_counter()
        from bench.systems import make_system

        self._system = make_system(self._name, self._folder)
        import_ms = 1e3 * (time.perf_counter() - begun)
        return {
            "import_ms": import_ms,
            "columns": list(self._system.columns),
            "ladder": list(self._system.ladder),
            "note": self._system.note,
            "peak_mb": peak_memory_mb(),
        }

    def load(self, corpus: str, rows: int | None) -> dict[str, Any]:
        """Store the records, then build the index. seen: whether a record is found after the first, before the second."""
        from bench.data import load_corpus

        records = load_corpus(corpus).records(rows)
        before_mb = peak_memory_mb()
        self._system.create()
        begun = time.perf_counter()
        self._system.load(records)
        loaded = time.perf_counter()
        last = len(records) - 1
        seen = records.ids[last] in self._system.vector(records.vectors[last], K, {}, None)
        indexing = time.perf_counter()
        self._system.index()
        indexed = time.perf_counter()
        self._system.close()
        return {
            "rows_per_s": len(records) / (loaded - begun),
            "load_s": loaded - begun,
            "index_s": indexed - indexing,
            "seen_before_index": seen,
            "peak_mb": peak_memory_mb(),
            "data_mb": before_mb,
        }

    def first_answer(self, question: int) -> dict[str, Any]:
        """Open the files and answer one vector query, at default settings."""
        self._read_questions()
        vector = self._questions.vectors[question]
        begun = time.perf_counter()
        self._system.open()
        opened = time.perf_counter()
        found = self._system.vector(vector, K, {}, None)
        answered = time.perf_counter()
        self._system.close()
        return {"open_ms": 1e3 * (opened - begun), "first_ms": 1e3 * (answered - begun), "found": len(found)}

    def open(self) -> dict[str, Any]:
        """Open the files and get ready for queries that are measured."""
        self._read_questions()
        self._system.open()
        self._system.warm()
        return {}

    def ask(self, column: str, setting: Setting, first: int, last: int, budget_s: float) -> dict[str, Any]:
        """Questions first … last - 1, one by one, until the time is up. ms: for each; rows: what was found, by number."""
        ask = self._asking(column, setting)
        took, answers = [], []
        until = time.perf_counter() + budget_s
        for question in range(first, last):
            begun = time.perf_counter()
            found = ask(question)
            ended = time.perf_counter()
            took.append(1e3 * (ended - begun))
            answers.append([int(id[1:]) for id in found])
            if ended > until:
                break
        return {"ms": took, "rows": answers, "peak_mb": peak_memory_mb()}

    def end(self) -> dict[str, Any]:
        self._system.close()
        return {"peak_mb": peak_memory_mb()}

    def _read_questions(self) -> None:
        from bench.data import Questions

        self._questions = Questions.saved(self._folder.parent)

    def _asking(self, column: str, setting: Setting) -> Callable[[int], list[str]]:
        system, asked = self._system, self._questions
        texts = asked.long if column.endswith("_long") else asked.short
        match column:
            case "vector":
                return lambda i: system.vector(asked.vectors[i], K, setting, None)
            case "filtered_10":
                return lambda i: system.vector(asked.vectors[i], K, setting, ("tenth", asked.tenth[i]))
            case "filtered_01":
                return lambda i: system.vector(asked.vectors[i], K, setting, ("thousandth", asked.thousandth[i]))
            case "text" | "text_long":
                return lambda i: system.text(texts[i], K)
            case _:
                return lambda i: system.hybrid(texts[i], asked.vectors[i], K, setting)


def serve(worker: object) -> None:
    """Orders come on standard input; answers go where standard output went, which peers can then no longer write to."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    for line in sys.stdin:
        order = json.loads(line)
        try:
            answer = getattr(worker, order.pop("do"))(**order)
        except Exception as error:  # whatever a peer raises becomes a line of the report, not the end of the run
            answer = {"error": f"{type(error).__name__}: {error}"}
        answers.write(json.dumps(answer) + "\n")


if __name__ == "__main__":
    serve(Worker(sys.argv[1], Path(sys.argv[2])))
