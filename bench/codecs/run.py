"""The command line of `python -m bench codecs`."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from bench.codecs.show import print_tables
from bench.codecs.study import codecs_of, judged_task, picture_task, published_int8, study
from bench.machine import describe_run, result_path, results_folder, version_of

SETS = ("scifact", "dbpedia-50", "cosqa", "cranfield", "fashion")
PARTS = ("quality", "published", "survey", "grouping", "peers", "size")
_SURVEYED = ("cosqa", "fashion")  # text at unit length, and pictures whose norms differ


def main(arguments: Sequence[str]) -> int:
    given = _arguments(arguments)
    if given.show is not None:
        _report([json.loads(line) for line in given.show.read_text().splitlines()], given.out or given.show.parent)
        return 0
    path = result_path(given.out or results_folder(whole=given.is_whole), "codecs")
    described = describe_run("codecs") | {"faiss": version_of("faiss-cpu")}
    lines = []
    begun = time.perf_counter()
    with path.open("w") as results:
        for line in _measured(given):
            lines.append(described | line)
            results.write(json.dumps(lines[-1]) + "\n")
            results.flush()
            print(
                f"{time.perf_counter() - begun:7.0f} s  {line['part']} {line['data']} {line['codec']}", file=sys.stderr
            )
    _report(lines, path.parent)
    print(path, file=sys.stderr)
    return 0


def _measured(given: argparse.Namespace) -> Iterator[dict[str, Any]]:
    for name in given.sets:
        task = picture_task() if name == "fashion" else judged_task(name)
        if "quality" in given.parts:
            yield from study(task, given.codecs or codecs_of(task.documents.shape[1]))
        if "published" in given.parts and task.metric == "cosine":
            yield from published_int8(task)
        if "survey" in given.parts and name in _SURVEYED:
            from bench.codecs import survey

            yield from survey.compare(task)
    if "grouping" in given.parts:
        from bench.codecs import grouping

        yield from grouping.compare()
    if "peers" in given.parts:
        from bench.codecs import peers

        yield from peers.compare()
    if "size" in given.parts:
        from bench.codecs import size

        yield from size.compare()


def _report(lines: Sequence[dict[str, Any]], folder: Path) -> None:
    print_tables(lines)
    if find_spec("matplotlib") is None:
        print("no picture: pip install matplotlib", file=sys.stderr)
        return
    from bench.codecs.show import draw

    print(draw(lines, folder), file=sys.stderr)


def _arguments(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench codecs", description=__doc__)
    parser.add_argument("--sets", default=",".join(SETS), help="judged collections, and fashion")
    parser.add_argument("--parts", default=",".join(PARTS), help=f"of {', '.join(PARTS)}")
    parser.add_argument("--codecs", default="", help="codecs to study, space between; default all")
    parser.add_argument("--out", type=Path, help="where results go; default: bench/results if all is measured")
    parser.add_argument("--show", type=Path, metavar="RESULTS", help="tables and picture of an earlier run")
    given = parser.parse_args(arguments)
    given.is_whole = all(getattr(given, name) == parser.get_default(name) for name in ("sets", "parts", "codecs"))
    given.sets, given.parts = given.sets.split(","), given.parts.split(",")
    given.codecs = given.codecs.split()
    unknown = [part for part in given.parts if part not in PARTS]
    if unknown:
        parser.error(f"unknown parts: {', '.join(unknown)}; choose from {', '.join(PARTS)}")
    return given
