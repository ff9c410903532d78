"""`python -m bench start`: how soon vecdb answers. Every figure is the median of fresh processes; cases take turns.

"no kernels" means an empty folder as Numba's cache: nothing is compiled yet, as on a machine where vecdb never ran.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench import ROOT
from bench.data import CORPORA, Corpus, load_corpus
from bench.machine import describe_run, result_path, results_folder

_SMALL = 1_000
_TARGETS_MS = {"import": 250.0, "small, no kernels: vector": 500.0, "full: vector": 100.0}


@dataclass
class Case:
    """order: what `bench.fresh` is given; None for the import alone. compiled: whether Numba's cache may be used."""

    name: str
    order: dict[str, Any] | None = None
    compiled: bool = True
    told: list[dict[str, Any]] = field(default_factory=list)

    @property
    def value(self) -> str:
        return "import_ms" if self.order is None else "first_ms"


def main(arguments: Sequence[str]) -> int:
    given = _arguments(arguments)
    described = describe_run("start")
    corpus = load_corpus(given.data)
    with tempfile.TemporaryDirectory(prefix="bench-start-") as name:
        folder = Path(name)
        small, full = folder / "small.vecdb", folder / "full.vecdb"
        _say("making the files")
        _make(small, corpus, _SMALL)
        rows = _make(full, corpus, given.rows)
        cases = _cases(corpus, small, full)
        for number in range(given.processes):
            _say(f"round {number + 1} of {given.processes}")
            for case in cases:
                case.told.append(_told(case, folder))
    lines = [
        {**described, "data": {"name": corpus.name, "checksum": corpus.checksum, "rows": rows}, **_line(c)}
        for c in cases
    ]
    whole = given.rows is None and given.data == CORPORA[0]
    path = result_path(given.out or results_folder(whole=whole), "start")
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    _print(lines)
    _say(f"results: {path}")
    return 0


def _make(path: Path, corpus: Corpus, rows: int | None) -> int:
    import vecdb

    records = corpus.records(rows)
    with vecdb.open(path) as db:
        collection = db.collection("records")
        collection.add(ids=records.ids, texts=records.texts, vectors=records.vectors, metadata=records.metadata)
        if rows is None or rows > _SMALL:
            collection.optimize()
    return len(records)


def _cases(corpus: Corpus, small: Path, full: Path) -> list[Case]:
    asked = corpus.questions()
    vector = asked.vectors[0].tolist()
    searches: dict[str, dict[str, Any]] = {
        "vector": {"vector": vector},
        "filtered": {"vector": vector, "where": {"tenth": 3}},
        "text": {"query": asked.short[0], "mode": "text"},
        "hybrid": {"query": asked.short[0], "vector": vector},
    }
    cases = [Case("import")]
    for kind, search in searches.items():
        cases.append(Case(f"small, no kernels: {kind}", {"path": str(small), "search": search}, compiled=False))
    for kind, search in searches.items():
        cases.append(Case(f"full: {kind}", {"path": str(full), "search": search, "warm": kind == "vector"}))
    return [*cases, Case("full, no kernels: vector", {"path": str(full), "search": searches["vector"]}, compiled=False)]


def _told(case: Case, folder: Path) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(dir=folder) as empty:
        environment = dict(os.environ) if case.compiled else {**os.environ, "NUMBA_CACHE_DIR": empty}
        order = [] if case.order is None else [json.dumps(case.order)]
        begun = time.perf_counter()
        run = subprocess.run(
            [sys.executable, "-m", "bench.fresh", *order],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        took = time.perf_counter() - begun
    if run.returncode:
        raise SystemExit(f"{case.name} failed:\n{run.stderr}")
    return {**json.loads(run.stdout), "process_ms": 1e3 * took}


def _line(case: Case) -> dict[str, Any]:
    line: dict[str, Any] = {"case": case.name, "processes": len(case.told)}
    for key in ("import_ms", "first_ms", "warm_s", "process_ms"):
        values = [told[key] for told in case.told if key in told]
        if values:
            line[key] = {"median": statistics.median(values), "least": min(values), "most": max(values)}
    line["heavy"] = case.told[-1]["heavy"]
    line["engine"] = case.told[-1].get("engine", [])
    if case.name in _TARGETS_MS:
        line["target_ms"] = _TARGETS_MS[case.name]
        line["met"] = line[case.value]["median"] <= line["target_ms"]
    return line


def _print(lines: Sequence[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(
        title=f"New processes, median ms (least - most); small: {_SMALL:,} records, full: {lines[0]['data']['rows']:,}",
        title_justify="left",
    )
    table.add_column("case", no_wrap=True)
    for name in ("import", "open and first answer", "whole process", "then warm in s", "answered by", "wanted", "met"):
        table.add_column(name, justify="right")
    for line in lines:
        table.add_row(
            line["case"],
            *(_spread(line.get(key)) for key in ("import_ms", "first_ms", "process_ms", "warm_s")),
            " + ".join(line["engine"]),
            f"{line['target_ms']:g}" if "target_ms" in line else "",
            {True: "yes", False: "NO"}.get(line.get("met"), ""),  # type: ignore[arg-type]
        )
    console = Console(width=None if Console().is_terminal else 150)
    console.print(table)
    heavy = sorted({name for line in lines for name in line["heavy"]})
    console.print(f"heavy packages that `import vecdb` alone brings in: {', '.join(heavy) or 'none'}", markup=False)


def _spread(value: dict[str, float] | None) -> str:
    if value is None:
        return ""
    digits = 0 if value["median"] >= 10 else 2
    return f"{value['median']:,.{digits}f} ({value['least']:,.{digits}f} - {value['most']:,.{digits}f})"


def _arguments(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench start", description=__doc__.partition("\n\n")[0])
    parser.add_argument("--processes", type=int, default=10, help="fresh processes for each case")
    parser.add_argument("--data", choices=CORPORA, default=CORPORA[0])
    parser.add_argument("--rows", type=int, help="records in the full file")
    parser.add_argument("--out", type=Path, help="where results go; default: bench/results if all is measured")
    return parser.parse_args(arguments)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
