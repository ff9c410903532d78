"""`python -m bench churn`: whether every record still finds itself after rounds of deleting and upserting.

A round deletes half of the records and merges; then it adds as many, upserts 30 % of all with other vectors, and merges. So the
collection keeps its size, and after a few rounds hardly a vector of the beginning is left. All merges go through
`Collection.optimize`.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

import vecdb
from bench.data import CORPORA, Questions, Records, load_corpus
from bench.machine import describe_run, result_path, results_folder
from bench.truth import K, exact_truth

_DELETED, _UPSERTED = 0.5, 0.3
_ROWS, _ROUNDS = 20_000, 10
_BATCH = 2_000
_TIE = 1e-6


class Churned:
    """A collection of fixed ids whose contents change: record i now holds row content[i] of the pool, -1 for deleted."""

    def __init__(self, collection: vecdb.Collection, pool: Records, questions: Questions, size: int) -> None:
        self.collection = collection
        self.pool = pool
        self.questions = questions
        self.content = np.full(size, -1, dtype=np.int64)
        self._rng = np.random.default_rng(0)

    def fill(self) -> None:
        self._write(np.flatnonzero(self.content < 0), upsert=False)

    def round(self) -> dict[str, float]:
        """One round; how long its two merges took and how many records found themselves before the last."""
        size = len(self.content)
        gone = np.sort(self._rng.permutation(size)[: int(_DELETED * size)])
        self.collection.delete([f"r{i}" for i in gone])
        self.content[gone] = -1
        deleted_s = self._merged()
        self.fill()
        self._write(np.sort(self._rng.permutation(size)[: int(_UPSERTED * size)]), upsert=True)
        unmerged = self.self_recall()
        return {"merge_deleted_s": deleted_s, "self_unmerged": unmerged, "merge_added_s": self._merged()}

    def self_recall(self) -> float:
        """Share of live records that are their own nearest, or as near as the nearest."""
        live = np.flatnonzero(self.content >= 0)
        found = 0
        for start in range(0, len(live), _BATCH):
            part = live[start : start + _BATCH]
            answers = self.collection.search(self.pool.vectors[self.content[part]], k=1)
            found += sum(
                hits[0].id == f"r{i}" or hits[0].score >= 1 - _TIE for i, hits in zip(part, answers) if len(hits)
            )
        return found / len(live)

    def recall(self) -> float:
        """recall@10 of the questions, one by one, with the default settings."""
        live = np.flatnonzero(self.content >= 0)
        rows = self.content[live]
        records = Records([], [], self.pool.vectors[rows], [{}] * len(rows))
        truth = exact_truth(records, self.questions)
        place = {f"r{i}": position for position, i in enumerate(live)}
        shares = []
        for question, vector in enumerate(self.questions.vectors):
            hits = self.collection.search(vector=vector, k=K)
            shares.append(truth.recall(question, [place[id] for id in hits.ids]))
        return float(np.mean(shares))

    def _write(self, which: NDArray[np.int64], *, upsert: bool) -> None:
        """Give these records contents that no live record has."""
        is_free = np.ones(len(self.pool), dtype=bool)
        is_free[self.content[self.content >= 0]] = False
        rows = self._rng.choice(np.flatnonzero(is_free), size=len(which), replace=False)
        write = self.collection.upsert if upsert else self.collection.add
        write(
            ids=[f"r{i}" for i in which],
            texts=[self.pool.texts[row] for row in rows],
            vectors=self.pool.vectors[rows],
            metadata=[self.pool.metadata[row] for row in rows],
        )
        self.content[which] = rows

    def _merged(self) -> float:
        begun = time.perf_counter()
        self.collection.optimize()
        return time.perf_counter() - begun


def main(arguments: Sequence[str]) -> int:
    given = _arguments(arguments)
    described = describe_run("churn")
    corpus = load_corpus(given.data)
    pool, questions = corpus.records(), _some(corpus.questions(), given.questions)
    if given.rows * (1 + max(_DELETED, _UPSERTED)) > len(pool):
        raise SystemExit(f"--rows {given.rows:,} leaves too few of {len(pool):,} vectors to change to; take fewer")
    data = {"name": corpus.name, "checksum": corpus.checksum, "rows": given.rows}
    lines: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="bench-churn-") as folder, _opened(Path(folder)) as db:
        churned = Churned(db.collection("records"), pool, questions, given.rows)
        churned.fill()
        churned.collection.optimize()
        for number in range(given.rounds + 1):
            measured = churned.round() if number else {}
            lines.append({**described, "data": data, "round": number, **measured, **_state(churned)})
            print(_told(lines[-1]), file=sys.stderr, flush=True)
    whole = given.rows >= _ROWS and given.rounds >= _ROUNDS and given.data == CORPORA[0]
    path = result_path(given.out or results_folder(whole=whole), "churn")
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    _print(lines)
    print(f"results: {path}", file=sys.stderr)
    return 0 if all(line["self_recall"] == 1.0 and not line["problems"] for line in lines) else 1


def _opened(folder: Path) -> vecdb.Database:
    """Without the background thread: a merge of its own between the steps would leave nothing to measure."""
    return vecdb.open(folder / "churn.vecdb", background=False)


def _state(churned: Churned) -> dict[str, Any]:
    return {
        "records": len(churned.collection),
        "self_recall": churned.self_recall(),
        "recall": churned.recall(),
        "problems": churned.collection.check(),
    }


def _some(questions: Questions, count: int) -> Questions:
    columns = (questions.short, questions.long, questions.tenth, questions.thousandth)
    return Questions(questions.vectors[:count], *(column[:count] for column in columns))  # type: ignore[arg-type]


def _told(line: dict[str, Any]) -> str:
    return f"round {line['round']}: self-recall {line['self_recall']:.5f}, recall@{K} {line['recall']:.4f}"


def _print(lines: Sequence[dict[str, Any]]) -> None:
    table = Table(
        title=f"{lines[0]['data']['rows']:,} records, half deleted and 30 % upserted a round", title_justify="left"
    )
    names = (
        "round",
        "records",
        "self-recall",
        "before merging",
        f"recall@{K}",
        "merge after delete s",
        "after upsert s",
        "check",
    )
    for name in names:
        table.add_column(name, justify="right")
    for line in lines:
        merged = "merge_added_s" in line
        table.add_row(
            str(line["round"]),
            f"{line['records']:,}",
            f"{line['self_recall']:.5f}",
            f"{line['self_unmerged']:.5f}" if merged else "",
            f"{line['recall']:.4f}",
            f"{line['merge_deleted_s']:.1f}" if merged else "",
            f"{line['merge_added_s']:.1f}" if merged else "",
            "; ".join(line["problems"]) or "sound",
        )
    Console(width=None if Console().is_terminal else 120).print(table)


def _arguments(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench churn", description=__doc__.partition("\n\n")[0])
    parser.add_argument("--rows", type=int, default=_ROWS)
    parser.add_argument("--rounds", type=int, default=_ROUNDS)
    parser.add_argument("--questions", type=int, default=1_000, help="for recall@10")
    parser.add_argument("--data", choices=CORPORA, default=CORPORA[0])
    parser.add_argument("--out", type=Path, help="where results go; default: bench/results if all is measured")
    return parser.parse_args(arguments)
