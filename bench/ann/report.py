"""Results of `bench ann` as tables: one for each set and mode, and one of what the indexes cost."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bench.ann.figures import RECALLS
from bench.ann.measure import MODES
from bench.report import Cell, Table

Line = dict[str, Any]

_NOTHING = Cell("-")


def tables(lines: Sequence[Line]) -> list[Table]:
    made = []
    for name in sets_of(lines):
        of_set = [line for line in lines if line["set"]["name"] == name]
        made += [_queries(of_set, mode) for mode in MODES if any(mode in line["modes"] for line in of_set)]
        made.append(_costs(of_set))
    return made


def notes(lines: Sequence[Line]) -> list[str]:
    """Where and how; what failed; what one must know of a peer."""
    first = lines[0]
    machine, plan = first["machine"], first["plan"]
    said = [
        f"{first['date']}, commit {first['commit']}, {machine['cpu']}, {machine['cores']} cores, Python {machine['python']}, "
        f"load average {machine['load_average']} at the start",
        f"median of {plan['rounds']} rounds in which the libraries take turns; the fastest setting with at least that "
        f"recall@{plan['k']}, in brackets its recall and setting; HNSW with M = 16, flat graphs with a degree of 32, beam 200",
        "resident: growth of a fresh process that reads the saved index; call: what one call costs beside its search",
    ]
    seen = set()
    for line in lines:
        said += [f"{line['set']['name']}: {line['peer']} failed: {failure}" for failure in line["failures"]]
        if line["note"] and line["peer"] not in seen:
            said.append(f"{line['peer']}: {line['note']}")
            seen.add(line["peer"])
    if first.get("missing"):
        said.append(f"not installed: {', '.join(first['missing'])}")
    return said


def sets_of(lines: Sequence[Line]) -> list[str]:
    return list(dict.fromkeys(line["set"]["name"] for line in lines))


def _queries(lines: Sequence[Line], mode: str) -> Table:
    of_set = lines[0]["set"]
    title = f"{of_set['name']}, {of_set['rows']:,} x {of_set['dimension']} {of_set['metric']}: queries/s at recall, {MODES[mode]}"
    header = ("library", *(f"at {recall:g}" for recall in RECALLS), "best recall")
    rows = []
    for line in lines:
        points = line["modes"].get(mode)
        if points:
            cells = [_speed(line["at_recall"][mode][str(recall)]) for recall in RECALLS]
            best = max(point["recall"] for point in line["survey"])
            rows.append((Cell(f"{line['peer']} {line['version']}"), *cells, Cell(f"{best:.4f}")))
    return Table(title, header, tuple(rows))


def _speed(point: dict[str, Any] | None) -> Cell:
    if point is None:
        return _NOTHING
    setting = " ".join(f"{value:g}" for value in point["setting"].values())
    return Cell(f"{point['qps']:,.0f} ({point['recall']:.4f}, {setting})", -point["qps"])


def _costs(lines: Sequence[Line]) -> Table:
    header = ("library", "build s", "threads", "disk MB", "resident MB", "bytes/vector", "call µs")
    return Table(f"{lines[0]['set']['name']}: building, size, calls", header, tuple(_cost(line) for line in lines))


def _cost(line: Line) -> tuple[Cell, ...]:
    built, loaded, overhead = line["built"], line["loaded"], line.get("overhead")
    size = line.get("bytes_per_vector", 0.0)
    return (
        Cell(line["peer"]),
        Cell(f"{built['build_s']:.1f}", built["build_s"]) if built else _NOTHING,
        Cell(str(built["threads"])) if built else _NOTHING,
        Cell(f"{built['disk_mb']:.0f}", built["disk_mb"]) if built else _NOTHING,
        Cell(f"{loaded['memory_mb']:.0f}", loaded["memory_mb"]) if loaded else _NOTHING,
        Cell(f"{size:,.0f}", size) if loaded else _NOTHING,
        Cell(f"{overhead['call_us']:.1f}", overhead["call_us"]) if overhead else _NOTHING,
    )
