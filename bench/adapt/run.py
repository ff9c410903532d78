"""The command line of `bench adapt`, and what it measures on judged collections.

The map is fitted to a collection without its queries or judgements; then its judged queries are searched with and without the
map, whether the gate accepts it or not: so one sees as well whether the gate is right.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bench.machine import describe_run, result_path, results_folder
from bench.report import Cell, Table, show_markdown, show_tables
from bench.retrieval.sets import NAMES, Judged, load, vectors_of

Line = dict[str, Any]

# What pseudo-queries, rank, regularisation and epochs were chosen on, and whose figures were seen while that was going on; all
# others were measured when it was over.
CHOSEN_ON = ("scifact", "cosqa", "cranfield", "cisi", "cacm")
SEEN = ("dbpedia-50", "time", "nfcorpus-bow", "xquad")
WAYS: dict[str, dict[str, Any]] = {
    "vector": {"mode": "vector"},
    "rrf": {"mode": "hybrid", "fusion": "rrf"},
    "adaptive": {"mode": "hybrid", "fusion": "adaptive"},
}
MEASURE = "nDCG@10"
_MARKS = {"chosen on": "*", "seen": "+", "untouched": ""}


def main(arguments: Sequence[str]) -> int:
    given = _arguments(arguments)
    if given.show is not None:
        lines = [json.loads(line) for line in given.show.read_text().splitlines()]
    else:
        lines = _measured(given)
    (show_markdown if given.markdown else show_tables)(tables(lines), notes(lines))
    return 0


def _measured(given: argparse.Namespace) -> list[Line]:
    path = result_path(given.out or results_folder(whole=given.is_whole), "adapt")
    lines: list[Line] = []
    for line in _lines(given):
        lines.append({**describe_run("adapt"), **line})
        path.write_text("".join(json.dumps(one) + "\n" for one in lines))
    print(f"results: {path}", file=sys.stderr)
    return lines


def _lines(given: argparse.Namespace) -> Iterator[Line]:
    for name in given.sets:
        yield {"part": "set", "set": name, **measure(load(name), given.seed)}
        print(name, file=sys.stderr, flush=True)
    if given.time:
        from bench.adapt.time import measure as measure_time

        yield {"part": "time", **measure_time(given.rows)}


def measure(judged: Judged, seed: int = 0) -> Line:
    """One collection: what the gate said, and nDCG@10 of its judged queries in each way, without, with the map, and with the
    control.
    """
    import vecdb
    from vecdb.adaptation.adapting import attempted

    documents, queries = vectors_of(judged)
    with vecdb.open(":memory:") as db:
        docs = db.collection("judged", embed="default")
        metadata = [{"part": id.partition("/")[0] + "/"} for id in judged.ids]
        docs.add(ids=judged.ids, texts=judged.texts, vectors=documents, metadata=metadata)
        docs.optimize()
        docs.warm()
        began, cpu = time.perf_counter(), time.process_time()
        attempt = attempted(
            docs._definition, docs._engine.retrieval, docs._miner(seed), sample=2_500, budget_s=600.0, seed=seed
        )
        spent = {"seconds": time.perf_counter() - began, "cpu_seconds": time.process_time() - cpu}
        of = {"before": queries, "after": attempt.fitted(queries), "control": attempt.control(queries)}
        ways = {way: _compared(docs, judged, of, options) for way, options in WAYS.items()}
    return {
        "documents": len(judged.ids),
        "queries": len(judged.queries),
        "adaptation": asdict(attempt.adaptation),
        "is_control_refused": attempt.adaptation.is_control_refused,
        "ways": ways,
        **spent,
    }


def _compared(docs: Any, judged: Judged, vectors: dict[str, Any], options: dict[str, Any]) -> Line:
    from vecdb.evaluation import evaluate_run, paired_bootstrap

    found = {
        name: evaluate_run(_run(docs, judged, of, options), judged.qrels, (MEASURE,)) for name, of in vectors.items()
    }
    gains = {name: asdict(paired_bootstrap(found[name], found["before"], MEASURE)) for name in ("after", "control")}
    return {"means": {name: one.means[MEASURE] for name, one in found.items()}, "gains": gains}


def _run(docs: Any, judged: Judged, vectors: Any, options: dict[str, Any]) -> dict[str, list[tuple[str, float]]]:
    parts: dict[str, list[int]] = {}
    ids, texts = list(judged.queries), list(judged.queries.values())
    for place, id in enumerate(ids):
        parts.setdefault(judged.within(id), []).append(place)
    run = {}
    for part, places in parts.items():
        asked = [texts[place] for place in places] if options["mode"] == "hybrid" else None
        where = {"part": part} if part else None
        answers = docs.search(asked, vector=vectors[places], k=10, exact=True, where=where, **options)
        for place, hits in zip(places, answers):
            run[ids[place]] = [(hit.id, -float(hit.rank)) for hit in hits]
    return run


def tables(lines: Sequence[Line]) -> list[Table]:
    sets = [line for line in lines if line["part"] == "set"]
    header = ("set", "queries", "gate", "held-out gain", "control", "in both", "vector", "gain", "rrf", "adaptive", "s")
    rows = []
    for line in sets:
        told, ways = line["adaptation"], line["ways"]
        rows.append(
            (
                Cell(f"{line['set']} {_MARKS[_standing(line['set'])]}".rstrip()),
                Cell(f"{line['queries']:,}"),
                Cell("accepts" if told["is_accepted"] else "refuses"),
                Cell(_shown(told["gain"])),
                Cell(f"{'refused' if line['is_control_refused'] else 'PASSES'} {_shown(told['control'])}"),
                Cell(f"{told['shared_documents']} / {told['shared_queries']}"),
                Cell(f"{ways['vector']['means']['before']:.4f} -> {ways['vector']['means']['after']:.4f}"),
                *(Cell(_shown(ways[way]["gains"]["after"])) for way in WAYS),
                Cell(f"{line['cpu_seconds']:.0f}"),
            )
        )
    found = [Table("nDCG@10 of judged queries with and without the map", header, tuple(rows))] if rows else []
    timed = [line for line in lines if line["part"] == "time"]
    if timed:
        header = ("documents", "seconds", "CPU seconds", "of them embedding", "triples", "gate", "one query, µs")
        cells = tuple(
            (
                Cell(f"{line['documents']:,}"),
                Cell(f"{line['seconds']:.1f}"),
                Cell(f"{line['cpu_seconds']:.1f}"),
                Cell(f"{line['embedding_cpu_seconds']:.1f}"),
                Cell(f"{line['adaptation']['triples']:,}"),
                Cell("accepts" if line["adaptation"]["is_accepted"] else "refuses"),
                Cell(f"{line['map_us']:.0f}"),
            )
            for line in timed
        )
        found.append(Table("Collection.adapt, all of it", header, cells))
    return found


def notes(lines: Sequence[Line]) -> list[str]:
    first, sets = lines[0], [line for line in lines if line["part"] == "set"]
    machine = first["machine"]
    said = [
        f"{first['date']}, commit {first['commit']}, {machine['cpu']}, {machine['cores']} cores, Python {machine['python']}, "
        f"load average {machine['load_average']} at the start",
        "gains of nDCG@10 with 95 % intervals (paired bootstrap); gate and control see pseudo-queries of held-out documents only",
        "* pseudo-queries and settings were chosen on these; + their figures were seen meanwhile; the others were measured after",
        "in both: documents and queries that both halves have; s: CPU seconds",
    ]
    for accepts in (True, False):
        of = [line for line in sets if line["adaptation"]["is_accepted"] == accepts]
        for standing in _MARKS:
            some = [line for line in of if _standing(line["set"]) == standing]
            if some:
                means = [
                    sum(line["ways"][w]["gains"]["after"]["difference"] for line in some) / len(some) for w in WAYS
                ]
                shown = ", ".join(f"{way} {mean:+.4f}" for way, mean in zip(WAYS, means))
                verdict = "accepts" if accepts else "refuses"
                said.append(f"mean gain where the gate {verdict} ({len(some)} {standing}): {shown}")
    return said


def _standing(name: str) -> str:
    return "chosen on" if name in CHOSEN_ON else "seen" if name in SEEN else "untouched"


def _shown(gain: dict[str, float]) -> str:
    return f"{gain['difference']:+.4f} ({gain['low']:+.4f} … {gain['high']:+.4f})"


def _arguments(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench adapt", description=__doc__)
    parser.add_argument("--sets", default=",".join(NAMES), help="default: %(default)s; empty for none")
    parser.add_argument("--no-time", dest="time", action="store_false", help="without the 50,000 documents")
    parser.add_argument("--rows", type=int, default=50_000, help="documents of that part; default: %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="of halves, pseudo-queries and fit; default: %(default)s")
    parser.add_argument("--markdown", action="store_true", help="tables in markdown")
    parser.add_argument("--out", type=Path, help="where results go; default: bench/results if all is measured")
    parser.add_argument("--show", type=Path, metavar="RESULTS", help="tables of an earlier run")
    given = parser.parse_args(arguments)
    given.is_whole = given.sets == ",".join(NAMES) and given.time and given.rows == 50_000
    given.sets = [name for name in given.sets.split(",") if name]
    unknown = [name for name in given.sets if name not in NAMES]
    if unknown:
        parser.error(f"unknown sets: {', '.join(unknown)}; choose from {', '.join(NAMES)}")
    return given
