"""The command line of `bench retrieval`."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from textwrap import fill
from typing import Any

from bench.machine import describe_run, result_path, results_folder, version_of
from bench.report import show_markdown, show_tables
from bench.retrieval.sets import NAMES, Judged, Lists

Line = dict[str, Any]

_LATENCY_ROWS, _LATENCY_QUESTIONS = 50_000, 500
# Lists of other systems: what is measured, and what their constants are chosen on. DL20 is nobody's to look at here.
_CANDIDATES = (("msmarco-dl19", "tas-b"), ("msmarco-dl21", "splade-pp"))


def main(arguments: Sequence[str]) -> int:
    given = _arguments(arguments)
    if given.learn:
        _learn(given.sets)
        return 0
    if given.show is not None:
        lines = [json.loads(line) for line in given.show.read_text().splitlines()]
    else:
        lines = _measured(given)
    from bench.retrieval.show import draw, notes, tables

    (show_markdown if given.markdown else show_tables)(tables(lines), notes(lines))
    folder = given.out or (given.show.parent if given.show else results_folder(whole=given.is_whole))
    try:
        print(draw(lines, folder), file=sys.stderr)
    except ImportError as error:
        print(f"no picture, {error.name} is not installed: pip install matplotlib", file=sys.stderr)
    return 0


def _measured(given: argparse.Namespace) -> list[Line]:
    from bench.retrieval import answers, latency, study
    from bench.retrieval.peers import installed
    from bench.retrieval.sets import load
    from bench.retrieval.weakened import weakened

    described = {**describe_run("retrieval"), "bm25s": version_of("bm25s"), "vstash": version_of("vstash")}
    path = result_path(given.out or results_folder(whole=given.is_whole), "retrieval")
    lines: list[Line] = []

    def keep(part: str, found: Line) -> None:
        lines.append({**described, "part": part, **found})
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))

    if given.sets:
        judged = {name: load(name) for name in given.sets}
        lessons = [study.lesson_of(one) for one in _all_lists(judged, given.candidates)]
        weaker = [study.lesson_of(one) for known in judged.values() for one in weakened(known)]
        for lesson in lessons:
            lists = lesson.lists
            learned = study.learned_elsewhere(lists, lessons, weaker)
            is_set = lists.name == lists.source
            peers = installed(judged[lists.source], with_vstash=given.vstash) if is_set else {}
            for line in study.lines_of(lists, learned, *study.compared(lesson, learned, peers)):
                keep("set" if is_set else "candidates", line)
            _say(f"{lists.name}: {len(lists.queries)} queries")
        for line in answers.lines_of(answers.signs_of_all(judged)) if len(judged) > 2 else ():
            keep("answers", line)
    if given.latency:
        for line in latency.measure(_LATENCY_ROWS, _LATENCY_QUESTIONS):
            keep("latency", line)
    _say(f"results: {path}")
    return lines


def _all_lists(judged: Mapping[str, Judged], candidates: bool) -> list[Lists]:
    from bench.retrieval.candidates import candidate_lists
    from bench.retrieval.sets import lists_of

    of_others = [candidate_lists(name, run) for name, run in _CANDIDATES] if candidates else []
    return [*(lists_of(one) for one in judged.values()), *of_others]


def _learn(names: Sequence[str]) -> None:
    """Learn what ships, from all collections: print the module that holds the leans, and say the rest."""
    from bench.retrieval import answers, study
    from bench.retrieval.sets import load
    from bench.retrieval.weakened import weakened
    from vecdb.query.fusion.features import NAMES as FEATURES

    judged = {name: load(name) for name in names}
    for kind, found in answers.signs_of_all(judged).items():
        _say(f"for vecdb/relevance.py, by {kind}: {tuple(round(value, 3) for value in answers.learned(found))}")
    lists = _all_lists(judged, candidates=True)
    weaker = [study.lesson_of(one) for known in judged.values() for one in weakened(known)]
    fitted, unfitted = study.leans([study.lesson_of(one) for one in lists], weaker)
    print(
        f'"""What `python -m bench retrieval --learn` learned from {len(lists)} judged pairs of lists, and weakened ones:\n\n'
        f'{fill(", ".join(one.name for one in lists), 110)}.\n"""\n'
    )
    print("from vecdb.query.fusion.adaptive import Lean")
    for name, why, lean in (
        ("LEAN", "for a collection whose usual queries are known", fitted),
        ("UNFITTED", "for any other", unfitted),
    ):
        print(f"\n# {why}\n{name} = Lean(\n    bias={lean.bias:.6g},")
        for field in ("slopes", "means", "deviations"):
            print(f"    {field}=(")
            for feature, value in zip(FEATURES, getattr(lean, field)):
                print(f"        {value:.6g},  # {feature}")
            print("    ),")
        print(")")


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _arguments(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench retrieval", description=__doc__)
    parser.add_argument("--sets", default=",".join(NAMES), help="default: %(default)s; empty for none")
    parser.add_argument("--no-vstash", dest="vstash", action="store_false", help="without the installed vstash")
    parser.add_argument("--no-candidates", dest="candidates", action="store_false", help="without DL19's lists")
    parser.add_argument("--no-latency", dest="latency", action="store_false", help="without the times")
    parser.add_argument("--learn", action="store_true", help="print the lean that all these sets teach, and end")
    parser.add_argument("--markdown", action="store_true", help="tables in markdown")
    parser.add_argument("--out", type=Path, help="where results go; default: bench/results if all is measured")
    parser.add_argument("--show", type=Path, metavar="RESULTS", help="table and picture of an earlier run")
    given = parser.parse_args(arguments)
    given.is_whole = given.sets == ",".join(NAMES) and given.vstash and given.candidates and given.latency
    given.sets = [name for name in given.sets.split(",") if name]
    unknown = [name for name in given.sets if name not in NAMES]
    if unknown:
        parser.error(f"unknown sets: {', '.join(unknown)}; choose from {', '.join(NAMES)}")
    return given
