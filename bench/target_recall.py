"""`python -m bench target_recall`: whether a search that is asked for a recall reaches it, and at what cost.

Questions that the index never saw, without a filter and with random ones. For each target: the mean recall@10 reached, what the
answers said of themselves (`estimated_recall`), the 5th percentile over questions, and the distances beside those that the best
single ef needs for the same mean (read from a ladder of ef, between its steps by straight lines).
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.machine import describe_run, result_path, results_folder
from bench.report import Cell, Table, show_markdown, show_tables
from bench.vectors import SETS, VectorSet, exact_neighbours, load_set
from vecdb.index.base import HnswConfig, Neighbours
from vecdb.index.hnsw import HnswIndex

Line = dict[str, Any]

TARGETS = (0.9, 0.95, 0.99)
SHARES = (1.0, 0.5, 0.1, 0.01, 0.001)
MOST_BELOW = 0.005  # of the target
MOST_WRONG = 0.02  # between what is said and what is true
MOST_WORK = 1.1  # times the best ef's distances

_SETS, _QUERIES = ("fashion", "minilm", "sift"), 1_500
_LADDER = (10, 12, 14, 16, 20, 24, 28, 32, 40, 48, 64, 80, 96, 128, 160, 192, 256, 320, 384, 512, 768)
_K = 10
_TIE = 1e-6  # relative for l2, absolute for cosine: float32 sums differ by as much


def main(arguments: Sequence[str]) -> int:
    given = _arguments(arguments)
    lines = _read(given.show) if given.show else _measured(given)
    (show_markdown if given.markdown else show_tables)([_table(lines)], _notes(lines))
    return 0 if all(all(_met(line).values()) for line in lines) else 1


def _measured(given: argparse.Namespace) -> list[Line]:
    described = describe_run("target_recall")
    names = tuple(given.sets.split(","))
    whole = (names, given.queries) == (_SETS, _QUERIES)
    path = result_path(given.out or results_folder(whole=whole), "target_recall")
    lines: list[Line] = []
    for name in names:
        data = load_set(name).first_queries(given.queries)
        index = HnswIndex.build(data.base, data.metric, HnswConfig())
        index.calibrate()
        for share in SHARES:
            for line in _of_share(index, data, share):
                lines.append({**described, "set": name, "queries": len(data.queries), **line})
                print(f"{name} {share:g}: {line['target']} -> {line['recall']:.4f}", file=sys.stderr)
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    print(f"results: {path}", file=sys.stderr)
    return lines


def _of_share(index: HnswIndex, data: VectorSet, share: float) -> Iterator[Line]:
    """A line for each target, where a random share of the vectors is allowed."""
    rng = np.random.default_rng(0)
    allowed = None if share == 1.0 else rng.random(len(data.base)) < share
    rows = np.arange(len(data.base)) if allowed is None else np.flatnonzero(allowed)
    queries = np.ascontiguousarray(data.queries)
    if allowed is None:
        worst = data.distances[:, _K - 1]
    else:
        worst = exact_neighbours(data.base[rows], queries, data.metric, _K)[1][:, -1]
    bound = worst + (_TIE if data.metric == "cosine" else _TIE * worst)
    curve = []
    for ef in _LADDER:
        found = index.search(queries, _K, allowed=allowed, ef=ef)
        curve.append((float(_recalls(found, bound).mean()), float(found.work.mean())))
    for target in TARGETS:
        found = index.search(queries, _K, allowed=allowed, target_recall=target)
        recalls = _recalls(found, bound)
        assert found.estimated_recall is not None
        yield {
            "share": share,
            "allowed": len(rows),
            "target": target,
            "way": found.way,
            "recall": float(recalls.mean()),
            "recall_p5": float(np.percentile(recalls, 5)),
            "estimate": float(found.estimated_recall.mean()),
            "distances": float(found.work.mean()),
            "distances_of_ef": _work_at(curve, float(recalls.mean())),
        }


def _recalls(found: Neighbours, bound: NDArray[np.float64]) -> NDArray[np.float64]:
    """(Q,) the share of the 10 nearest; any vector as near as the tenth counts."""
    return np.mean(found.distances <= bound[:, None], axis=1)


def _work_at(curve: Sequence[tuple[float, float]], recall: float) -> float | None:
    """Distances of the ladder at this recall; None beyond its end."""
    for (low, less), (high, more) in zip([(0.0, curve[0][1]), *curve], curve):
        if high >= recall:
            return more if high == low else less + (more - less) * max(recall - low, 0.0) / (high - low)
    return None


def _met(line: Line) -> dict[str, bool]:
    ratio = _ratio(line)
    return {
        "recall": line["recall"] >= line["target"] - MOST_BELOW,
        "estimate": abs(line["estimate"] - line["recall"]) <= MOST_WRONG,
        "distances": ratio is None or ratio <= MOST_WORK,
    }


def _ratio(line: Line) -> float | None:
    return None if line["distances_of_ef"] is None else line["distances"] / line["distances_of_ef"]


def _table(lines: Sequence[Line]) -> Table:
    header = ("set", "allowed", "target", "recall", "said", "5th pct", "distances", "x best ef", "way")
    rows = []
    for line in lines:
        met, ratio = _met(line), _ratio(line)
        cells = (
            line["set"],
            f"{line['share']:.1%}",
            f"{line['target']:g}",
            f"{line['recall']:.4f}" + ("" if met["recall"] else " !"),
            f"{line['estimate']:.4f}" + ("" if met["estimate"] else " !"),
            f"{line['recall_p5']:.2f}",
            f"{line['distances']:,.0f}",
            "-" if ratio is None else f"{ratio:.2f}" + ("" if met["distances"] else " !"),
            line["way"],
        )
        rows.append(tuple(Cell(cell) for cell in cells))
    return Table("a recall asked for", header, tuple(rows))


def _notes(lines: Sequence[Line]) -> list[str]:
    missed = sum(not passed for line in lines for passed in _met(line).values())
    return [
        f"! missed: recall under the target by more than {MOST_BELOW}, said and true apart by more than {MOST_WRONG}, "
        f"or more than {MOST_WORK} times the distances of the best ef; {missed} of {3 * len(lines)}"
    ]


def _read(path: Path) -> list[Line]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def _arguments(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench target_recall", description="whether a search that is asked for a recall reaches it"
    )
    parser.add_argument("--sets", default=",".join(_SETS), help=f"of {','.join(SETS)}; default: %(default)s")
    parser.add_argument("--queries", type=int, default=_QUERIES, help="of each set; default: %(default)s")
    parser.add_argument("--markdown", action="store_true", help="print the table as markdown")
    parser.add_argument("--out", type=Path, help="where results go; default: bench/results if all is measured")
    parser.add_argument("--show", type=Path, metavar="RESULTS", help="measure nothing: the table of an earlier run")
    return parser.parse_args(arguments)
