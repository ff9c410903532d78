"""The command line of `python -m bench graph`: JSON lines to a file, the same as text on the screen."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from bench.data import CORPORA
from bench.machine import describe_run, result_path, results_folder

_MODES = ("vector", "hybrid")
_PARTS = ("multihop", "powerwalk", "nodes")


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench graph", description=__doc__)
    parser.add_argument("--parts", nargs="+", choices=_PARTS, default=list(_PARTS))
    parser.add_argument("--data", choices=CORPORA, default=CORPORA[0], help="whose embeddings powerwalk walks on")
    parser.add_argument("--rows", type=int, help="only so many of them")
    parser.add_argument("--out", type=Path, help="folder of results")
    given = parser.parse_args(arguments)
    whole = set(given.parts) == set(_PARTS) and given.rows is None and given.data == CORPORA[0]
    path = result_path(given.out or results_folder(whole=whole), "graph")
    head = describe_run("graph")
    with path.open("a") as file:
        for part in given.parts:
            for line in _lines(part, given.data, given.rows):
                file.write(json.dumps({**head, "part": part, **line}) + "\n")
                file.flush()
                print(part, *(f"{name}={_short(value)}" for name, value in line.items()), sep="  ")
    print(path)
    return 0


def _lines(part: str, corpus: str, rows: int | None) -> Iterator[dict[str, Any]]:
    if part == "multihop":
        from bench.graph import multihop

        for mode in _MODES:
            yield from multihop.measure(mode)
    elif part == "powerwalk":
        from bench.graph import powerwalk

        for line in powerwalk.measure(corpus, rows):
            yield {"data": corpus, **line}
    else:
        from bench.graph import nodes

        yield from nodes.measure()


def _short(value: Any) -> Any:
    return f"{value:.4g}" if isinstance(value, float) else value
