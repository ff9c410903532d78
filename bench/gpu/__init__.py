"""`python -m bench gpu`: what the operations of vecdb.gpu take on this machine's GPU, beside PyTorch (and cuVS if it is there).

Times are medians of device events after warm-up, over inputs that change from call to call; peers run in the same process on the
same data. Floors are what the card itself was measured to do in this run: a product's rate for the arithmetic, a copy's for
the bytes; the larger time is the floor, and roofline is floor / time.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench.machine import describe_run, result_path, results_folder

_ON_CPU, _SETS = "engine", ("latent-20000", "minilm")
_OPERATIONS = ("search", "maxsim", "links", "walk", "codecs")


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench gpu", description=__doc__, formatter_class=_KeepLines)
    parser.add_argument("--only", nargs="*", choices=(*_OPERATIONS, _ON_CPU), help="these operations alone")
    parser.add_argument("--sets", nargs="*", default=list(_SETS), help="of `engine`")
    parser.add_argument("--rows", type=int, default=1_000_000, help="vectors searched")
    parser.add_argument("--dims", type=int, nargs="*", default=[768, 128])
    parser.add_argument("--out", type=Path, help="folder of the result file")
    options = parser.parse_args(arguments)
    try:
        import torch

        has_gpu = torch.cuda.is_available()
    except ImportError:
        has_gpu = False
    if not has_gpu and options.only != [_ON_CPU]:
        print("bench gpu needs a GPU, and PyTorch and Triton to use it (extra [gpu])")
        return 1
    whole = options.only in (None, [_ON_CPU]) and options.rows == 1_000_000 and options.sets == list(_SETS)
    path = result_path(options.out or results_folder(whole=whole), "gpu")
    with path.open("w") as file:
        for line in _lines(options):
            file.write(json.dumps(line) + "\n")
            file.flush()
            print(_shown(line), flush=True)
    print(path)
    return 0


class _KeepLines(argparse.RawDescriptionHelpFormatter):
    pass


def _lines(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    if options.only == [_ON_CPU]:
        from bench.gpu.engine import engine

        for name in options.sets:
            yield from ({**describe_run("gpu"), "operation": _ON_CPU, **case} for case in engine(name))
        return
    from bench.gpu import operations

    card = operations.ceilings()
    head = {**describe_run("gpu"), "card": card}
    yield {**head, "operation": "ceilings", "what": card["name"]}
    wanted = options.only or _OPERATIONS
    if "search" in wanted:
        for dim in options.dims:
            yield from ({**head, "operation": "search", **case} for case in operations.search(options.rows, dim, card))
    if "maxsim" in wanted:
        yield from ({**head, "operation": "maxsim", **case} for case in operations.maxsim(card))
    if "links" in wanted:
        yield from ({**head, "operation": "links", **case} for case in operations.links(options.rows, options.dims[0]))
    if "codecs" in wanted:
        yield from (
            {**head, "operation": "codecs", **case} for case in operations.codecs(options.rows, options.dims[0], card)
        )
    if "walk" in wanted:
        for dim in options.dims:
            yield from ({**head, "operation": "walk", **case} for case in operations.walks(options.rows, dim, card))


def _shown(line: dict[str, Any]) -> str:
    if line["operation"] == "ceilings":
        return "  ".join(f"{key} {value}" for key, value in line["card"].items())
    parts = [f"{line['operation']:<7} {line['what']:<34}"]
    units = {
        "dim": "d",
        "batch": "queries",
        "k": "best",
        "ms": "ms",
        "per_s": "/s",
        "recall": "recall",
        "work": "scored",
        "roofline": "of roofline",
    }
    for key, unit in units.items():
        if line.get(key) is not None:
            value = line[key]
            parts.append(f"{value:>10,.4g} {unit}" if isinstance(value, float) else f"{value:>6} {unit}")
    return "  ".join(parts)
