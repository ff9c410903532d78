"""`python -m bench robustness`: kill -9 in the midst of a load, damaged index files, several processes on one file.

The programs that write until they are killed, and what their files must hold, are those of the tests (tests/crash_child.py and
tests/shared_file.py); here they run longer, and what happened is counted.
"""

from __future__ import annotations

import argparse
import json
import logging
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from bench import ROOT
from bench.machine import describe_run, result_path, results_folder

sys.path.insert(0, str(ROOT / "tests"))  # the tests are no package

import crash_child
import shared_file

_KILLS, _MINUTES = 200, 1.0
_WRITERS, _READERS = 2, 4
_RECORDS = 10_000  # there before the processes begin: enough for an index with the usual settings
_LONGEST_S = 2.0  # a kill falls within so many seconds of the start of the load


def main(arguments: Sequence[str]) -> int:
    given = _arguments(arguments)
    logging.getLogger("vecdb").setLevel(logging.ERROR)  # it warns of each damaged file, as it should
    described = describe_run("robustness")
    lines: list[dict[str, Any]] = []
    if given.kills:
        for name, line in killed(given.kills, given.seed).items():
            lines.append({**described, "part": name, **line})
    if given.minutes:
        lines.append({**described, "part": "processes", **shared(given.minutes * 60)})
    whole = given.kills >= _KILLS and given.minutes >= _MINUTES
    path = result_path(given.out or results_folder(whole=whole), "robustness")
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    _print(lines)
    print(f"results: {path}", file=sys.stderr)
    return 1 if any(line["problems"] for line in lines) else 0


def killed(kills: int, seed: int) -> dict[str, dict[str, Any]]:
    """Kill a load, verify what is left; then damage its index file and verify again. Results of the two parts."""
    during: Counter[str] = Counter()
    damages: Counter[str] = Counter()
    acked: list[int] = []
    merges: list[int] = []
    reopened_s: list[float] = []
    problems: dict[str, list[str]] = {"kill -9": [], "damage": []}
    for number in range(seed, seed + kills):
        with tempfile.TemporaryDirectory(prefix="bench-robustness-") as folder:
            path = Path(folder) / "library.vecdb"
            kill = crash_child.kill_at_random(path, number, longest_s=_LONGEST_S)
            begun = time.perf_counter()
            problems["kill -9"] += [f"kill {number}: {problem}" for problem in _verified(path, number, kill.acked)]
            reopened_s.append(time.perf_counter() - begun)
            during[kill.during] += 1
            acked.append(kill.acked)
            merges.append(kill.merges)
            damage = damaged(path, number)
            if damage is not None:
                damages[damage] += 1
                found = _verified(path, number, kill.acked)
                problems["damage"] += [f"{damage} after kill {number}: {problem}" for problem in found]
        print(_told(number - seed + 1, kills, during, problems), file=sys.stderr, end="\r", flush=True)
    print(file=sys.stderr)
    return {
        "kill -9": {
            "runs": kills,
            "during": dict(during),
            "acked_operations": {"median": float(np.median(acked)), "all": int(np.sum(acked))},
            "merges_before": int(np.sum(merges)),
            "verified_s": float(np.sum(reopened_s)),
            "problems": problems["kill -9"],
        },
        "damage": {"runs": sum(damages.values()), "kinds": dict(damages), "problems": problems["damage"]},
    }


def _verified(path: Path, seed: int, acked: int) -> list[str]:
    """What is wrong with a database; an error while finding out is one more thing that is wrong."""
    try:
        return list(crash_child.verify(path, seed, acked))
    except Exception as error:  # a failed run is counted, the others go on
        return [f"{type(error).__name__}: {error}"]


def damaged(path: Path, seed: int) -> str | None:
    """Damage the index file of a database in one of several ways, and say which; None if it has no index file."""
    draw = random.Random(f"damage {seed}")
    segments = list(path.with_name(path.name + "-index").glob("*.seg"))
    if not segments:
        return None
    segment = segments[0]
    data = bytearray(segment.read_bytes())
    kind = draw.choice(("changed byte", "cut off", "block of zeros", "emptied", "removed"))
    place = draw.randrange(len(data))
    if kind == "changed byte":
        data[place] ^= draw.randrange(1, 256)
    elif kind == "cut off":
        del data[place:]
    elif kind == "block of zeros":
        data[place : place + 4_096] = bytes(len(data[place : place + 4_096]))
    elif kind == "emptied":
        data.clear()
    segment.write_bytes(data)
    if kind == "removed":
        segment.unlink()
    return kind


def shared(seconds: float) -> dict[str, Any]:
    """Two processes write and four read one file for so long."""
    with tempfile.TemporaryDirectory(prefix="bench-robustness-") as folder:
        outcome = shared_file.run(
            Path(folder) / "library.vecdb",
            writers=_WRITERS,
            readers=_READERS,
            seconds=seconds,
            records=_RECORDS,
            eager=False,
        )
    return {
        "runs": 1,
        "seconds": seconds,
        "writers": _WRITERS,
        "readers": _READERS,
        "commits": outcome.commits,
        "records": outcome.records,
        "busy": outcome.busy,
        "merges": outcome.merges,
        "polls": len(outcome.poll_ms),
        "lag_ms": _percentiles(outcome.lag_ms),
        "poll_ms": _percentiles(outcome.poll_ms),
        "problems": outcome.wrong,
    }


def _percentiles(values: np.ndarray) -> dict[str, float]:
    if not len(values):
        return {}
    p50, p99, largest = np.percentile(values, [50, 99, 100])
    within = float(np.mean(values <= 100.0))
    return {"p50": float(p50), "p99": float(p99), "max": float(largest), "within_100": within}


def _told(done: int, kills: int, during: Counter[str], problems: dict[str, list[str]]) -> str:
    counted = ", ".join(f"{count} {name}" for name, count in during.most_common())
    return f"{done}/{kills} kills ({counted}); {sum(map(len, problems.values()))} problems"


def _print(lines: Sequence[dict[str, Any]]) -> None:
    table = Table(title="what was done to a database, and what came of it", title_justify="left")
    for name in ("part", "runs", "what happened", "problems"):
        table.add_column(name, justify="right" if name == "runs" else "left")
    for line in lines:
        table.add_row(line["part"], str(line["runs"]), _happened(line), "\n".join(line["problems"][:10]) or "none")
    Console(width=None if Console().is_terminal else 120).print(table)


def _happened(line: dict[str, Any]) -> str:
    if line["part"] == "kill -9":
        counted = ", ".join(f"{count} while {name}" for name, count in line["during"].items())
        return f"{counted}; {line['acked_operations']['all']:,} acknowledged operations, {line['merges_before']} merges ended"
    if line["part"] == "damage":
        return ", ".join(f"{count} {name}" for name, count in line["kinds"].items())
    lag, poll = line["lag_ms"], line["poll_ms"]
    if not lag:
        return "no result"
    return (
        f"{line['commits']:,} commits and {line['polls']:,} polls in {line['seconds']:.0f} s, {sum(line['merges'])} merges, "
        f"{line['busy']} busy; commit to sight p50 {lag['p50']:.0f}, p99 {lag['p99']:.0f}, max {lag['max']:.0f} ms "
        f"({lag['within_100']:.1%} within 100); a poll p50 {poll['p50']:.1f}, p99 {poll['p99']:.1f} ms"
    )


def _arguments(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench robustness", description=__doc__.partition("\n\n")[0])
    parser.add_argument("--kills", type=int, default=_KILLS)
    parser.add_argument("--minutes", type=float, default=_MINUTES, help="of two processes writing and four reading")
    parser.add_argument("--seed", type=int, default=0, help="of the first kill; each kill has the next one")
    parser.add_argument("--out", type=Path, help="where results go; default: bench/results if all is measured")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
