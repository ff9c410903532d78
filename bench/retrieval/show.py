"""Results of `bench retrieval` as tables, and as one picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.report import Cell, Table
from bench.retrieval.study import MOST_HARM, OWN, SINGLE, share_of_the_way

Line = dict[str, Any]

_WAYS = (
    "dense",
    "bm25",
    "bm25s",
    "rrf",
    "rrf, constant",
    "scores, constant",
    "vstash's rule",
    "vstash",
    "adaptive, unfitted",
    OWN,
    "adaptive, labels",
    "oracle, rrf",
    "oracle, scores",
)
_NOT_RANKED = ("oracle, rrf", "oracle, scores")
_RIVALS = ("rrf", "rrf, constant", "scores, constant", "vstash's rule", "vstash", "adaptive, unfitted")


def tables(lines: Sequence[Line]) -> list[Table]:
    found = []
    of_sets = [line for line in lines if line["part"] == "set"]
    if of_sets:
        found += [_means(of_sets, "nDCG@10"), _means(of_sets, "R@100"), _harm(of_sets)]
    of_candidates = [line for line in lines if line["part"] == "candidates"]
    if of_candidates:
        found += [_means(of_candidates, "nDCG@10"), _way(of_candidates)]
    of_answers = [line for line in lines if line["part"] == "answers"]
    if of_answers:
        found.append(_answers(of_answers))
    of_latency = [line for line in lines if line["part"] == "latency"]
    return [*found, _latency(of_latency)] if of_latency else found


def notes(lines: Sequence[Line]) -> list[str]:
    first = lines[0]
    machine = first["machine"]
    return [
        f"{first['date']}, commit {first['commit']}, {machine['cpu']}, {machine['cores']} cores, Python {machine['python']}; "
        f"bm25s {first['bm25s']}, vstash {first['vstash']}",
        "adaptive and both constants were learned on the other collections (DL19 and DL21 count as one); "
        "an oracle chooses each query's weight by its judgements",
        "nDCG@10 of a search for 10, R@100 of one for 100; vstash's gate leaves hits out, which costs it recall",
    ]


def by_set(lines: Sequence[Line]) -> dict[str, dict[str, Line]]:
    found: dict[str, dict[str, Line]] = {}
    for line in lines:
        found.setdefault(line["set"], {})[line["way"]] = line
    return found


def _means(lines: Sequence[Line], measure: str) -> Table:
    sets = by_set(lines)
    ways = [way for way in _WAYS if any(way in of for of in sets.values())]
    rows = [(Cell(name), *(_cell(of.get(way), measure) for way in ways)) for name, of in sets.items()]
    if len(sets) > 1:
        rows.append((Cell(f"mean of {len(sets)}"), *(_mean_cell(sets, way, measure) for way in ways)))
    # A table marks its columns' best; here the rows' are wanted, so that it lies on its side.
    turned = tuple(zip(*[tuple(Cell(way) for way in ("", *ways)), *rows]))
    header = tuple(cell.text for cell in turned[0])
    return Table(measure, header, turned[1:])


def _cell(line: Line | None, measure: str) -> Cell:
    if line is None or measure not in line["means"]:
        return Cell("-")
    value = line["means"][measure]
    return Cell(f"{value:.4f}", None if line["way"] in _NOT_RANKED else -value)


def _mean_cell(sets: dict[str, dict[str, Line]], way: str, measure: str) -> Cell:
    values = [of[way]["means"][measure] for of in sets.values() if measure in of.get(way, {"means": {}})["means"]]
    if len(values) < len(sets):
        return Cell("-")
    mean = sum(values) / len(values)
    return Cell(f"{mean:.4f}", None if way in _NOT_RANKED else -mean)


def harm(of: dict[str, Line]) -> float:
    """How much better the adaptive fusion is than the better single list, in nDCG@10."""
    single = max(of[way]["means"]["nDCG@10"] for way in SINGLE)
    return float(of[OWN]["means"]["nDCG@10"] - single)


def _harm(lines: Sequence[Line]) -> Table:
    rows = []
    for name, of in by_set(lines).items():
        gain = harm(of)
        better = max(SINGLE, key=lambda way, of=of: of[way]["means"]["nDCG@10"])  # type: ignore[misc]
        rows.append(
            (
                Cell(name),
                Cell(better),
                Cell(f"{gain:+.4f}"),
                *(Cell(_interval(of.get(way))) for way in (better, *_RIVALS)),
                Cell(f"{of[OWN]['text_weight']['mean']:.2f} ± {of[OWN]['text_weight']['sd']:.2f}"),
                Cell("yes" if gain >= -MOST_HARM else "NO"),
            )
        )
    header = (
        "adaptive against",
        "better list",
        "gain",
        "its 95 %",
        *_RIVALS,
        "text weight",
        f"≥ best list - {MOST_HARM}",
    )
    return Table("Gain of adaptive in nDCG@10, with paired bootstrap intervals", header, tuple(rows))


def _interval(line: Line | None) -> str:
    if line is None:
        return "-"
    gain = line["adaptive_gain"]
    return f"{gain['mean']:+.4f} [{gain['low']:+.4f}, {gain['high']:+.4f}]"


def _way(lines: Sequence[Line]) -> Table:
    rows = []
    for name, of in by_set(lines).items():
        own = of[OWN]["means"]["nDCG@10"]
        parts = []
        for kind in ("rrf", "scores"):
            start, end = (of[way]["means"]["nDCG@10"] for way in (f"{kind}, constant", f"oracle, {kind}"))
            parts.append(Cell(f"{share_of_the_way(start, own, end):+.0%}"))
        rows.append((Cell(name), Cell(f"{own:.4f}"), *parts))
    header = ("lists", "adaptive", "of the way, constant to oracle, rrf", "likewise, scores")
    return Table("How far adaptive goes from the best constant to the oracle (nDCG@10)", header, tuple(rows))


def _answers(lines: Sequence[Line]) -> Table:
    measures = ("auc", "ece", "answered", "refused", "auc_unanswerable", "refused_unanswerable")
    rows = [
        (Cell(line["set"]), Cell(line["by"]), *(Cell(f"{line[measure]:.3f}") for measure in measures)) for line in lines
    ]
    for kind in dict.fromkeys(line["by"] for line in lines):
        of = [line for line in lines if line["by"] == kind]
        means = (sum(line[measure] for line in of) / len(of) for measure in measures)
        rows.append((Cell(f"mean of {len(of)}"), Cell(kind), *(Cell(f"{mean:.3f}") for mean in means)))
    header = (
        "no answer",
        "by",
        "area",
        "calibration error",
        "own answered",
        "foreign refused",
        "area, taken out",
        "refused",
    )
    return Table(
        "Telling foreign questions from own ones, and own ones from those whose documents were taken out",
        header,
        tuple(rows),
    )


def _latency(lines: Sequence[Line]) -> Table:
    rows = [
        (
            Cell(f"{line['system']} {line['version']}"),
            Cell(f"{line['rows']:,}"),
            *(
                Cell(f"{line['columns'][column]['p50_ms']:.3g} / {line['columns'][column]['p99_ms']:.3g}")
                for column in ("hybrid", "hybrid_long")
            ),
        )
        for line in lines
    ]
    header = ("system", "records", "hybrid p50 / p99 ms", "hybrid, long")
    return Table("A hybrid query on one core, without the encoder", header, tuple(rows))


def draw(lines: Sequence[Line], folder: Path) -> Path:
    """Write folder/retrieval.png: each way's nDCG@10 above or below the better single list; returns its path."""
    import matplotlib

    matplotlib.use("Agg")  # no screen is needed
    import matplotlib.pyplot as plt

    from bench.plot import FAINT, STYLE
    from bench.plot import OWN as COLOUR

    sets = by_set([line for line in lines if line["part"] in ("set", "candidates")])
    shown = {
        "rrf": ("o", "#9aa3ad"),
        "vstash's rule": ("s", "#d97706"),
        "rrf, constant": ("^", "#52606d"),
        OWN: ("D", COLOUR),
    }
    with plt.rc_context(STYLE):
        figure, axis = plt.subplots(figsize=(8.5, 1.2 + 0.36 * len(sets)), layout="constrained")
        for way, (marker, colour) in shown.items():
            gains = [
                of[way]["means"]["nDCG@10"] - max(of[s]["means"]["nDCG@10"] for s in SINGLE) for of in sets.values()
            ]
            axis.plot(gains, range(len(sets)), marker, color=colour, markersize=6, label=way)
        axis.axvline(0, color="#1f2933", linewidth=0.8)
        axis.set_yticks(range(len(sets)), list(sets))
        axis.invert_yaxis()
        axis.grid(axis="x", color=FAINT)
        axis.set_axisbelow(True)
        axis.set_xlabel("nDCG@10 above the better of dense and BM25")
        figure.legend(loc="outside upper left", ncols=len(shown), frameon=False)
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "retrieval.png"
        figure.savefig(path, dpi=150)
        plt.close(figure)
    return path
