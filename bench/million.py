"""`python -m bench million`: what 100,000 to 1,000,000 vectors cost to build, keep, open and ask.

Points like those of the set `gauss`, 128 dimensions, l2. One process builds with all processors and saves; one on one core
opens the file and answers; one with all processors answers. Queries are asked at the smallest ef that reaches the wanted recall.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench.machine import describe_run, result_path, results_folder, version_of
from bench.report import Cell, Table, show_markdown, show_tables
from bench.turns import Child

Line = dict[str, Any]

WANTED_RECALL = 0.95
MOST_FIRST_MS = 50.0

# (mode of the worker, whether all processors may be used): the name of its figure.
MODES = {
    ("one", False): "a call a query, one thread",
    ("batch", False): "one batch call, one thread",
    ("each", True): "a call a query, all threads",
    ("batch", True): "one batch call, all threads",
}

_ROWS = "100000,300000,1000000"
_QUERIES = 1_000
_REPEATS = 3
_NOTHING = Cell("-")


def main(arguments: Sequence[str]) -> int:
    given = _arguments(arguments)
    lines = _measured(given) if given.show is None else _read(given.show)
    (show_markdown if given.markdown else show_tables)(tables(lines), notes(lines))
    own = [line for line in lines if line["peer"] == "vecdb"]
    return 0 if all(passed for line in own for passed in met(line).values()) else 1


def _measured(given: argparse.Namespace) -> list[Line]:
    from bench.vectors import load_set

    rows = [int(part) for part in given.rows.split(",")]
    for count in rows:
        load_set(f"gauss-{count}")  # made now if need be, and not while something is measured
    described = describe_run("million")
    path = result_path(given.out or results_folder(whole=given.rows == _ROWS), "million")
    lines: list[Line] = []
    for count in rows:
        peers = ["vecdb"]
        if count <= given.hnswlib and version_of("hnswlib"):
            peers.append("hnswlib")
        for peer in peers:
            lines.append({**described, **_of_set(f"gauss-{count}"), **_peer(peer, count, given.seconds)})
            path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    _say(f"results: {path}")
    return lines


def _of_set(name: str) -> dict[str, Any]:
    from bench.vectors import load_set

    points = load_set(name)
    rows, dimension = points.base.shape
    return {
        "set": {
            "name": name,
            "metric": points.metric,
            "rows": rows,
            "dimension": dimension,
            "queries": len(points.queries),
            "checksums": points.checksums(),
        }
    }


def _peer(peer: str, rows: int, seconds: float) -> dict[str, Any]:
    """All that is measured of one index."""
    with tempfile.TemporaryDirectory(prefix="bench-million-") as parent:
        folder = Path(parent) / peer
        with _child(peer, folder, rows, seconds, single=False) as child:
            built = child.tell("build")
        _say(f"{peer} {rows:,}: built in {built['build_s']:.1f} s, peak {built['peak_mb']:,.0f} MB")
        with _child(peer, folder, rows, seconds, single=True) as child:
            opened = child.tell("open")
            climbed = child.tell("climb", wanted=WANTED_RECALL)
            setting = climbed["points"][-1]["setting"]
            qps = dict(_speeds(child, setting, together=False))
        with _child(peer, folder, rows, seconds, single=False) as child:
            child.tell("open")
            qps |= _speeds(child, setting, together=True)
    found = climbed["points"][-1]["recall"]
    _say(f"{peer} {rows:,}: recall {found:.4f} with {setting}, first answer {opened['first_ms']:.1f} ms")
    return {
        "peer": peer,
        "version": version_of(peer),
        "built": built,
        "opened": opened,
        "bytes_per_vector": {key: opened[f"{key}_mb"] * 1e6 / rows for key in ("resident", "private")},
        "climbed": climbed,
        "setting": setting,
        "recall": found,
        "qps": qps,
    }


def _speeds(child: Child, setting: dict[str, Any], *, together: bool) -> dict[str, dict[str, Any]]:
    """Median and all values of each mode."""
    speeds = {}
    for (mode, all_threads), name in MODES.items():
        if all_threads == together:
            said = [child.tell("turn", settings=[setting], mode=mode, with_recall=False) for _ in range(_REPEATS)]
            values = [answer["points"][0]["qps"] for answer in said]
            speeds[name] = {"qps": statistics.median(values), "repeats": values}
    return speeds


@contextmanager
def _child(peer: str, folder: Path, rows: int, seconds: float, *, single: bool) -> Iterator[Child]:
    with Child(peer, folder, single=single, worker="bench.million_worker") as child:
        threads = 1 if single else None
        child.tell("start", set=f"gauss-{rows}", queries=_QUERIES, threads=threads, least_s=seconds)
        yield child


def met(line: Line) -> dict[str, bool]:
    """Which bounds this line keeps."""
    return {"recall": line["recall"] >= WANTED_RECALL, "first_ms": line["opened"]["first_ms"] < MOST_FIRST_MS}


def tables(lines: Sequence[Line]) -> list[Table]:
    return [_costs(lines), _queries(lines)]


def notes(lines: Sequence[Line]) -> list[str]:
    first = lines[0]
    machine, of_set = first["machine"], first["set"]
    return [
        f"{first['date']}, commit {first['commit']}, {machine['cpu']}, {machine['cores']} cores, {machine['memory_gb']} GB, "
        f"Python {machine['python']}, load average {machine['load_average']} at the start",
        f"vectors x {of_set['dimension']}, {of_set['metric']}; {of_set['queries']:,} questions; building with all "
        f"processors, opening on one; peak of the whole process, the given vectors included",
        f"resident: growth by opening and answering, pages of the file included; open verifies every byte of vecdb's file; "
        f"first: the first answer after that, wanted under {MOST_FIRST_MS:g} ms",
        f"queries a second at the smallest ef with recall@10 of at least {WANTED_RECALL}, median of {_REPEATS}",
    ]


def _costs(lines: Sequence[Line]) -> Table:
    header = (
        "index",
        "build s",
        "processor s",
        "vectors/s",
        "peak MB",
        "save s",
        "file MB",
        "open s",
        "first ms",
        "then ms",
        "resident B/vector",
        "private B/vector",
    )
    return Table("Building, size, opening", header, tuple(_cost(line) for line in lines))


def _cost(line: Line) -> tuple[Cell, ...]:
    built, opened, size = line["built"], line["opened"], line["bytes_per_vector"]
    return (
        Cell(_name(line)),
        Cell(f"{built['build_s']:.1f}"),
        Cell(f"{built['build_cpu_s']:.1f}") if "build_cpu_s" in built else _NOTHING,
        Cell(f"{line['set']['rows'] / built['build_s']:,.0f}"),
        Cell(f"{built['peak_mb']:,.0f}"),
        Cell(f"{built['save_s']:.1f}"),
        Cell(f"{built['file_mb']:,.0f}"),
        Cell(f"{opened['open_s']:.2f}"),
        Cell(f"{opened['first_ms']:.2f}"),
        Cell(f"{opened['median_ms']:.2f}"),
        Cell(f"{size['resident']:,.0f}"),
        Cell(f"{size['private']:,.0f}"),
    )


def _queries(lines: Sequence[Line]) -> Table:
    header = ("index", "ef", "recall@10", *MODES.values(), "recall at ef 64", "bounds kept")
    return Table("Queries a second", header, tuple(_speed(line) for line in lines))


def _speed(line: Line) -> tuple[Cell, ...]:
    return (
        Cell(_name(line)),
        Cell(f"{line['setting']['ef']}"),
        Cell(f"{line['recall']:.4f}"),
        *(Cell(f"{line['qps'][name]['qps']:,.0f}") if name in line["qps"] else _NOTHING for name in MODES.values()),
        Cell(f"{line['climbed']['default']['recall']:.4f}"),
        Cell("yes" if all(met(line).values()) else "NO"),
    )


def _name(line: Line) -> str:
    return f"{line['peer']} {line['set']['rows']:,}"


def _read(path: Path) -> list[Line]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _arguments(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench million", description=__doc__.partition("\n\n")[0])
    parser.add_argument("--rows", default=_ROWS, help="numbers of vectors; default: %(default)s")
    parser.add_argument("--hnswlib", type=int, default=100_000, metavar="N", help="beside vecdb up to so many vectors")
    parser.add_argument("--seconds", type=float, default=2.0, help="the least time of one measurement of speed")
    parser.add_argument("--markdown", action="store_true", help="print the tables as markdown")
    parser.add_argument("--out", type=Path, help="where results go; default: bench/results if all is measured")
    parser.add_argument("--show", type=Path, metavar="RESULTS", help="measure nothing: tables of an earlier run")
    return parser.parse_args(arguments)
