"""The command line of `bench rerank`.

maxsim    the kernels against the arithmetic limit            quality   orders of the same candidates, on judged collections
pruning   alpha and beta on DL21 and DL19 lists               heads     kinds of projection heads over seeds
e2rank    the listwise query beside its controls              readers   cross-encoders and MVP (give trained folders)
listwise  a language model's orders by every method           feedback  recall of query vectors that a reranker taught
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from bench.machine import describe_run, result_path, results_folder
from bench.report import Cell, Table, show_markdown, show_tables
from bench.rerank.orders import MEASURE

Line = dict[str, Any]

PARTS = ("maxsim", "quality", "pruning", "heads", "e2rank", "readers", "listwise", "feedback")
SETS = ("nfcorpus-bow", "dbpedia-50", "cosqa", "cranfield", "scifact", "msmarco-dl19")
HELD_OUT = ("nfcorpus-bow", "dbpedia-50", "cranfield", "msmarco-dl19")
_RUNS = ("msmarco-dl21", "msmarco-dl19")  # the first is tuned on


def main(arguments: Sequence[str]) -> int:
    given = _arguments(arguments)
    if given.train is not None:
        from bench.rerank.heads import train_default

        head = train_default(str(given.train), given.steps, given.rate)
        print(json.dumps({"version": head.version, **head.facts}))
        return 0
    if given.show is not None:
        lines = [json.loads(line) for line in given.show.read_text().splitlines()]
    else:
        lines = _measured(given)
    (show_markdown if given.markdown else show_tables)(tables(lines), [])
    return 0


def _measured(given: argparse.Namespace) -> list[Line]:
    described = describe_run("rerank")
    path = result_path(given.out or results_folder(whole=set(given.parts) == set(PARTS)), "rerank")
    lines: list[Line] = []
    for part in given.parts:
        for line in _PARTS[part](given):
            lines.append({**described, "part": part, **line})
            path.write_text("".join(json.dumps(one) + "\n" for one in lines))
            told = ("set", "way", "kind", "ndcg", "nDCG@10", "recall", "feedback", "ms")
            shown = {name: value for name, value in line.items() if name in told}
            print(f"{part}: {shown}", file=sys.stderr)
    print(path, file=sys.stderr)
    return lines


def _maxsim(given: argparse.Namespace) -> Iterator[Line]:
    from bench.rerank.kernels import measure

    yield from measure()


def _quality(given: argparse.Namespace) -> Iterator[Line]:
    from bench.rerank.quality import FIRST_STAGES, compared, encoding_ms

    sets = given.sets or SETS
    yield from encoding_ms(sets)
    for name in sets:
        for first_stage in FIRST_STAGES:
            yield from compared(name, first_stage)


def _pruning(given: argparse.Namespace) -> Iterator[Line]:
    from bench.rerank.quality import pruning

    for name in _RUNS:
        yield from pruning(name, given.run)


def _heads(given: argparse.Namespace) -> Iterator[Line]:
    from bench.rerank.heads import KINDS, study

    yield from study(given.sets or HELD_OUT, given.seeds, given.steps, given.kinds or list(KINDS), given.queries)


def _e2rank(given: argparse.Namespace) -> Iterator[Line]:
    from bench.rerank.e2rank import HELD_OUT, study

    yield from study(given.encoder or [None], given.sets or HELD_OUT, given.queries or 1_000)


def _readers(given: argparse.Namespace) -> Iterator[Line]:
    from bench.rerank.readers import study

    yield from study(given.cross_encoder, given.mvp, given.sets or SETS, given.queries or 1_000)


def _listwise(given: argparse.Namespace) -> Iterator[Line]:
    from bench.rerank.listwise import METHODS, SETS, study

    settings = {"model": given.model, "methods": given.methods or METHODS}
    depth, tokens = given.candidates, given.passage_tokens
    yield from study(given.sets or SETS, given.queries or 20, depth=depth, tokens=tokens, **settings)


def _feedback(given: argparse.Namespace) -> Iterator[Line]:
    from bench.rerank.feedback import SETS, study

    yield from study(given.sets or SETS)


_PARTS = {
    "maxsim": _maxsim,
    "quality": _quality,
    "pruning": _pruning,
    "heads": _heads,
    "e2rank": _e2rank,
    "readers": _readers,
    "listwise": _listwise,
    "feedback": _feedback,
}


def tables(lines: Sequence[Line]) -> list[Table]:
    made = []
    for part, make in {"maxsim": _kernel_table, "quality": _quality_table, "pruning": _pruning_table}.items():
        found = [line for line in lines if line["part"] == part]
        if found:
            made.append(make(found))
    heads = [line for line in lines if line["part"] == "heads"]
    if heads:
        made += [_head_table([line for line in heads if line["step"] != "rate"]), _against_linear(heads)]
    for part in ("e2rank", "readers", "listwise", "feedback"):
        own = [line for line in lines if line["part"] == part and line.get("step") != "tune"]
        names = dict.fromkeys(line["set"] for line in own)
        made += [_order_table(part, [line for line in own if line["set"] == name]) for name in names]
    return made


def _kernel_table(lines: list[Line]) -> Table:
    first = lines[0]
    size = f"{first['documents']:,} documents x {first['tokens']} tokens x {first['dimension']}"
    shape = f"{size}, {first['query_tokens']} query tokens"
    rows = tuple(
        (
            Cell(line["way"]),
            Cell(f"{line['ms']:.1f}"),
            Cell("-" if line["of_limit"] is None else f"{line['of_limit']:.2f}"),
            Cell(f"{line['of_product']:.2f}"),
        )
        for line in lines
    )
    return Table(f"MaxSim: {shape}; one thread", ("way", "ms", "of the limit", "of the product"), rows)


def _quality_table(lines: list[Line]) -> Table:
    rows = tuple(
        (
            Cell(line["set"]),
            Cell(line.get("first_stage", "-")),
            Cell(line["way"]),
            Cell(f"{line['ndcg']:.3f}" if "ndcg" in line else "-"),
            Cell(f"{line['difference']:+.3f} ({line['low']:+.3f} … {line['high']:+.3f})" if "low" in line else "-"),
            Cell(f"{line['scored']:.0f}" if "scored" in line else "-"),
            Cell(f"{line['ms']:.2f}" if "ms" in line else "-"),
        )
        for line in lines
    )
    return Table(
        "Reranking 50 hybrid candidates",
        ("set", "first stage", "way", "nDCG@10", "to the first stage", "scored", "ms a query"),
        rows,
    )


def _pruning_table(lines: list[Line]) -> Table:
    rows = tuple(
        (
            Cell(line["set"]),
            Cell(line["way"]),
            Cell(str(line["alpha"] or "-")),
            Cell(str(line["beta"] or "-")),
            Cell(str(line["depth"])),
            Cell(f"{line['scored']:.1f}"),
            Cell(f"{line['ndcg']:.4f}"),
            Cell(f"{line['difference']:+.4f}"),
        )
        for line in lines
    )
    header = ("set", "way", "alpha", "beta", "of", "scored", "nDCG@10", "to all 100")
    return Table(f"Pruning and early exit on lists of {lines[0]['run']}, k = 10", header, rows)


def _head_table(lines: list[Line]) -> Table:
    import numpy as np

    names = list(dict.fromkeys(line["set"] for line in lines))
    kinds = list(dict.fromkeys(line.get("kind", line["step"]) for line in lines))
    rows = []
    for kind in kinds:
        cells = [
            Cell({"first": "first stage", "states": "states as they are", "pca": "before training"}.get(kind, kind))
        ]
        for name in names:
            found = [line["ndcg"] for line in lines if line.get("kind", line["step"]) == kind and line["set"] == name]
            cells.append(Cell(f"{np.mean(found):.4f}" + (f" ± {np.std(found, ddof=1):.4f}" if len(found) > 1 else "")))
        rows.append(tuple(cells))
    return Table("Projection heads, 96 dimensions: nDCG@10, mean ± deviation over seeds", ("head", *names), tuple(rows))


def _against_linear(lines: list[Line]) -> Table:
    from bench.rerank.heads import against_linear

    rows = [(Cell(name), Cell(kind), Cell(_interval(gain))) for (name, kind), gain in against_linear(lines).items()]
    return Table("Means over seeds against the linear head's: nDCG@10", ("set", "head", "difference"), tuple(rows))


def _order_table(part: str, lines: list[Line]) -> Table:
    measure = "recall" if part == "feedback" else MEASURE
    header = ("order", measure, f"to the {lines[0]['against']}", "CPU ms", "calls", "prompt", "decoded", "void")
    rows = []
    for line in lines:
        work = line.get("work", line)
        counts = [work.get(name) for name in ("calls", "prompt_tokens", "decoded_tokens", "failures")]
        rows.append(
            (
                Cell(line["way"] + (f", {line['feedback']} documents" if "feedback" in line else "")),
                Cell(f"{line[measure]:.3f}", -line[measure]),
                Cell(_interval(line["gain"])),
                Cell(f"{line['ms']:,.0f}" if line.get("ms") is not None else "-"),
                *(Cell("-" if count is None else f"{count:,.1f}") for count in counts),
            )
        )
    return Table(f"{part}: {lines[0]['set']}, {lines[0]['queries']} queries", header, tuple(rows))


def _interval(gain: Sequence[float]) -> str:
    return f"{gain[0]:+.3f} [{gain[1]:+.3f}, {gain[2]:+.3f}]"


def _arguments(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench rerank", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--sets", nargs="+", help="judged collections; each part has its own without it")
    parser.add_argument("--run", default="splade-pp", help="whose lists are pruned")
    parser.add_argument("--seeds", type=int, default=5, help="heads")
    parser.add_argument("--kinds", nargs="+", help="heads: some kinds")
    parser.add_argument("--steps", type=int, default=150, help="of training")
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument(
        "--queries", type=int, help="of each set: heads (training), e2rank, readers (all), listwise (20)"
    )
    parser.add_argument("--encoder", nargs="+", help="trained E2Rank encoders; the default embedding model without it")
    parser.add_argument("--cross-encoder", nargs="+", default=[], metavar="FOLDER")
    parser.add_argument("--mvp", nargs="+", default=[], metavar="FOLDER")
    parser.add_argument("--model", help="listwise: the language model; the small offline one without it")
    parser.add_argument("--methods", nargs="+", help="listwise: some of its methods")
    parser.add_argument("--candidates", type=int, default=10, help="listwise")
    parser.add_argument("--passage-tokens", type=int, default=64, help="listwise")
    parser.add_argument("--train", type=Path, metavar="FILE", help="train the head that ships, and write it")
    parser.add_argument("--out", type=Path, help="folder for the results")
    parser.add_argument("--show", type=Path, metavar="FILE", help="show results again instead of measuring")
    parser.add_argument("--markdown", action="store_true")
    return parser.parse_args(arguments)
