"""`python -m bench near`: the nearest vectors among what is near in a second space, at shares of 0.01 % to 100 % of the rows.

Three ways to the true ten nearest, timed one after the other for each query (index level, one thread):

near           what `search(near=…)` does: all rows within the radius are measured, by codes with a certified bound
filter first   all rows within the radius by float32 products
vector first   the graph, post-filtered: ever more neighbours until ten are within the radius; with the smallest beam, doubled
               from 64 on, that misses none over all queries (none: no beam below all vectors did)

The places are at random on the Earth ("random"), or the vectors' first principal direction is the number ("along"), so that what
is near is alike. Rows of the second space are found anew for each query, and that is counted into all three. Of shares so small
that vector first looks at most of the graph, it is asked few queries.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.data import data_folder
from bench.machine import describe_run, result_path, results_folder
from bench.report import Cell, Table, show_markdown, show_tables
from vecdb.attributes import Attributes
from vecdb.filters import parse
from vecdb.index import HnswConfig, HnswIndex
from vecdb.index.exact import exact_search

K = 10
SHARES = (0.0001, 0.001, 0.01, 0.1, 0.5, 1.0)
_QUERIES, _FEW = 40, 3
_ROUNDS = 3
_SMALL = 0.005
_BEAMS = (64, 256, 1024, 4096)

Answer = tuple[set[int], int]  # positions, distances computed


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench near", description=__doc__)
    parser.add_argument("--queries", type=int, default=_QUERIES)
    parser.add_argument("--rows", type=int, default=None, help="only the first so many vectors")
    parser.add_argument("--markdown", action="store_true")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args(arguments)
    is_whole = given.rows is None and given.queries == _QUERIES
    path = result_path(given.out or results_folder(whole=is_whole), "near")
    lines = []
    with path.open("w") as results:
        for line in study(given.rows, given.queries):
            lines.append(describe_run("near") | line)
            results.write(json.dumps(lines[-1]) + "\n")
            results.flush()
    rows = [_row(line) for line in lines]
    header = (
        "second space",
        "% of rows",
        "near: ms",
        "filter first: ms",
        "vector first: ms",
        "beam",
        "near / better",
        "recall",
    )
    data = lines[0]["data"]
    title = f"{data['rows']:,} x {data['dimension']} ({data['name']}), {given.queries} queries, median"
    (show_markdown if given.markdown else show_tables)([Table(title, header, tuple(rows))], ())
    print(path, file=sys.stderr)
    return 0


def study(rows: int | None, count: int) -> Iterator[dict[str, Any]]:
    with np.load(data_folder() / "vectors" / "sift-landmarks" / "data.npz") as saved:
        base = np.ascontiguousarray(saved["base"][:rows], np.float32)
        queries = saved["queries"].astype(np.float32)
    random = np.random.default_rng(0)
    queries = np.ascontiguousarray(queries[np.sort(random.permutation(len(queries))[:count])])
    index = HnswIndex.build(base, "l2", HnswConfig(), threads=1)
    index.search(queries[:1], K, allowed=np.ones(len(base), np.bool_), ef=len(base))  # compiles
    described = {"name": "sift-landmarks", "rows": len(base), "dimension": base.shape[1], "queries": len(queries)}
    for space, attributes, centres in _spaces(base, queries, random):
        for share in SHARES:
            filters = [parse({"place": {"$near": [*centre, _reach(attributes, centre, share)]}}) for centre in centres]
            yield {
                "part": "near",
                "data": described,
                "space": space,
                "share": share,
                **_measured(index, base, queries, attributes, filters, _FEW if share < _SMALL else len(queries)),
            }


def _measured(
    index: HnswIndex, base: Any, queries: Any, attributes: Attributes, filters: Sequence[Any], asked: int
) -> dict[str, Any]:
    truth = []
    for query, node in zip(queries, filters):
        found = exact_search(base, query[None], K, "l2", attributes.mask(node))
        truth.append(set(found.positions[0][found.positions[0] >= 0].tolist()))
    few = queries[:asked], attributes, filters[:asked], truth[:asked]
    beam = next((b for b in _BEAMS if _all_found(index, *few, b)), None)
    ways: dict[str, Callable[[Any, Any], Answer]] = {
        "near": lambda query, mask: _near(index, query, mask),
        "filter_first": lambda query, mask: _filter_first(base, query, mask),
    }
    if beam is not None:
        ways["vector_first"] = lambda query, mask: _vector_first(index, query, mask, beam)
    times: dict[str, list[float]] = {way: [] for way in ways}
    work: dict[str, list[int]] = {way: [] for way in ways}
    right = dict.fromkeys(ways, 0)
    for _ in range(_ROUNDS):
        for number, (query, node, true) in enumerate(zip(queries, filters, truth)):
            for way, answer in ways.items():
                if way == "vector_first" and number >= asked:
                    continue
                since = time.perf_counter()
                found, distances = answer(query, attributes.mask(node))
                times[way].append(time.perf_counter() - since)
                work[way].append(distances)
                right[way] += found == true
    return {
        "beam": beam,
        "ms": {way: 1e3 * float(np.median(values)) for way, values in times.items()},
        "distances": {way: float(np.mean(values)) for way, values in work.items()},
        "all_found": {way: count / len(times[way]) for way, count in right.items()},
    }


def _near(index: HnswIndex, query: Any, mask: Any) -> Answer:
    found = index.search(query[None], K, allowed=mask, ef=len(index))
    return set(found.positions[0][found.positions[0] >= 0].tolist()), int(found.work[0])


def _filter_first(base: Any, query: Any, mask: Any) -> Answer:
    found = exact_search(base, query[None], K, "l2", mask)
    return set(found.positions[0][found.positions[0] >= 0].tolist()), int(found.work[0])


def _vector_first(index: HnswIndex, query: Any, mask: Any, beam: int) -> Answer:
    wanted, depth, work = min(K, int(np.count_nonzero(mask))), K, 0
    while True:
        found = index.search(query[None], depth, ef=max(beam, depth))
        work += int(found.work[0])
        kept = found.positions[0][found.positions[0] >= 0]
        kept = kept[mask[kept]][:wanted]
        if len(kept) == wanted or depth == len(index):
            return set(kept.tolist()), work
        depth = min(4 * depth, len(index))


def _all_found(
    index: HnswIndex, queries: Any, attributes: Attributes, filters: Sequence[Any], truth: Sequence[set[int]], beam: int
) -> bool:
    asked = zip(queries, filters, truth)
    return all(_vector_first(index, query, attributes.mask(node), beam)[0] == true for query, node, true in asked)


def _spaces(base: Any, queries: Any, random: np.random.Generator) -> Iterator[tuple[str, Attributes, list[Any]]]:
    lat = np.degrees(np.arcsin(random.uniform(-1, 1, len(base) + len(queries))))
    lon = random.uniform(-180, 180, len(lat))
    places = [{"place": {"lat": float(a), "lon": float(b)}} for a, b in zip(lat, lon)]
    of_queries = [(float(a), float(b)) for a, b in zip(lat[len(base) :], lon[len(base) :])]
    yield "random", Attributes.empty().appended(places[: len(base)]), of_queries
    centred = base - base.mean(axis=0)
    _, directions = np.linalg.eigh(centred[:8192].T @ centred[:8192])
    numbers = base @ directions[:, -1]
    batch = [{"place": float(number)} for number in numbers]
    yield "along", Attributes.empty().appended(batch), [(float(number),) for number in queries @ directions[:, -1]]


def _reach(attributes: Attributes, centre: Any, share: float) -> float:
    from vecdb.nearness import place_of

    away: NDArray[np.float64] = attributes.distances("place", place_of(centre))
    return (
        float(np.partition(away, max(K, int(share * len(away))) - 1)[max(K, int(share * len(away))) - 1]) * (1 + 1e-9)
        + 1e-6
    )


def _row(line: dict[str, Any]) -> tuple[Cell, ...]:
    ms = line["ms"]
    better = min(value for way, value in ms.items() if way != "near")
    return (
        Cell(line["space"]),
        Cell(f"{100 * line['share']:g}"),
        *(Cell(f"{ms[way]:.3f}" if way in ms else "–") for way in ("near", "filter_first", "vector_first")),
        Cell(str(line["beam"])),
        Cell(f"{ms['near'] / better:.2f}"),
        Cell(f"{line['all_found']['near']:.3f}"),
    )
