"""Results of `bench codecs` as tables in markdown, and as one picture: bytes of a vector against what its answers are worth."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

Line = dict[str, Any]


_QUALITY = ("codec", "bytes", "recall", "ndcg", "oversampling", "rechecked_recall", "rechecked_ndcg")
_OTHERS = {
    "published": ("data", "codec", "recall", "ndcg"),
    "survey": ("data", "codec", "budget", "ratio", "true_bytes", "recall"),
    "grouping": ("data", "spread", "metric", "codec", "bytes", "energy_lost", "energy_lost_each", "recall"),
    "size": ("codec", "rows", "file_mb", "recode_s", "recall"),
    "peers": ("system", "codec", "bytes", "recall", "encode_gb_s", "scan_ns"),
}


def print_tables(lines: Sequence[Line]) -> None:
    for data in dict.fromkeys(line["data"] for line in lines if line["part"] == "quality"):
        _table(f"quality, {data}", _QUALITY, [one for one in lines if (one["part"], one["data"]) == ("quality", data)])
    for part, keys in _OTHERS.items():
        _table(part, keys, [line for line in lines if line["part"] == part])


def _table(title: str, keys: Sequence[str], lines: Sequence[Line]) -> None:
    if lines:
        print(f"**{title}**\n\n| {' | '.join(keys)} |\n|{' ---: |' * len(keys)}")
        for line in lines:
            print(f"| {' | '.join(_cell(line[key]) for key in keys)} |")
        print()


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return (
        f"{value:.3f}"
        if isinstance(value, float) and abs(value) < 10
        else f"{value:.2f}"
        if isinstance(value, float)
        else str(value)
    )


def mean_losses(lines: Sequence[Line]) -> dict[str, tuple[float, float, float]]:
    """Of each codec studied on every judged collection: share of float32's bytes, mean loss of nDCG@10 x 100, and re-checked."""
    judged = [line for line in lines if line["part"] == "quality" and line["ndcg"] is not None]
    whole = {line["data"]: line["ndcg"] for line in judged if line["codec"] == "float32"}
    found: dict[str, tuple[float, float, float]] = {}
    for codec in dict.fromkeys(line["codec"] for line in judged):
        of_codec = [line for line in judged if line["codec"] == codec and line["data"] in whole]
        if len(of_codec) == len(whole):
            lost = np.mean([whole[line["data"]] - line["ndcg"] for line in of_codec])
            rechecked = np.mean([whole[line["data"]] - line["rechecked_ndcg"] for line in of_codec])
            found[codec] = (of_codec[0]["bytes"] / (4 * of_codec[0]["dimension"]), float(lost), float(rechecked))
    return found


_FAMILIES = {  # what a codec begins with, in the order of the picture's legend
    "one number a dimension": ("float", "bfloat", "int"),
    "principal components first": ("pca",),
    "quantisers": ("pq", "opq", "mpq", "rabitq"),
    "fewer dimensions, not chosen": ("truncate", "random"),
}
_AS_GOOD = 0.002  # of recall
_COLOURS = ("#1f2933", "#0f766e", "#b91c1c", "#9aa5b1")


def mean_recalls(lines: Sequence[Line]) -> dict[str, tuple[float, float]]:
    """Of each codec studied on every judged collection: share of float32's bytes, mean recall@10."""
    found: dict[str, tuple[float, float]] = {}
    for codec, (share, _, _) in mean_losses(lines).items():
        recalls = [line["recall"] for line in lines if line["part"] == "quality" and line["codec"] == codec]
        found[codec] = share, float(np.mean(recalls))
    return found


def draw(lines: Sequence[Line], folder: Path) -> Path:
    """codecs.png and codecs.svg in the folder; named are those that no codec of as few bytes excels."""
    import matplotlib

    matplotlib.use("Agg")  # no screen is needed
    import matplotlib.pyplot as plt

    found = mean_recalls(lines)
    figure, axes = plt.subplots(figsize=(9, 5.5))
    for (family, beginnings), colour in zip(_FAMILIES.items(), _COLOURS):
        points = [point for codec, point in found.items() if codec.startswith(beginnings)]
        axes.plot([x for x, _ in points], [y for _, y in points], "o", color=colour, markersize=4, label=family)
    best = 0.0
    for codec, (share, recall) in sorted(found.items(), key=lambda item: (item[1][0], -item[1][1])):
        if recall > best + _AS_GOOD:
            best = recall
            axes.annotate(codec, (share, recall), fontsize=8, xytext=(-4, 5), textcoords="offset points", ha="right")
    axes.set_xscale("log", base=2)
    axes.set_xlim(left=2**-5.9)
    axes.set_xlabel("bytes of a vector / those of float32")
    axes.set_ylabel("recall@10 against float32, mean of the judged collections")
    axes.grid(color="#e4e7eb")
    axes.legend(loc="lower right", fontsize=8)
    figure.tight_layout()
    for ending in ("png", "svg"):
        figure.savefig(folder / f"codecs.{ending}", dpi=160)
    plt.close(figure)
    return folder / "codecs.png"
