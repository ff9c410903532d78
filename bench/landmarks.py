"""`python -m bench landmarks`: which photographs show the same place? SIFT descriptors, one group a photograph, in a collection.

Each photograph that has another view in the folder is asked with its own descriptors, its own group left out, by
`search_groups` and by what it competes with; and one pair is drawn with what matched. Needs OpenCV (extra `images`).

    python -m bench landmarks --picture docs/landmarks.png

The folder's manifest.json lists the photographs, {"images": [{"file": …, "group": the place, or null}, …]}.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import vecdb
from bench.data import data_folder
from bench.intervals import mean_interval
from bench.learned.group_study import average_precision, recall
from bench.machine import describe_run, result_path, results_folder
from bench.report import Cell, Table, show_markdown, show_tables
from vecdb.errors import MissingExtra

Matrix = NDArray[np.float32]

_LONGEST_SIDE = 640
_DESCRIPTORS = 300  # of a photograph, the strongest
_DRAWN = 24  # matches in the picture
_VOTES = 5
_PICTURE_OF = "river1.jpg"  # of a BSD-licensed repository, so that the picture may be shown


@dataclass(frozen=True)
class Photograph:
    """points (n, 2): pixels; descriptors (n, 128) of unit length (Root-SIFT, Arandjelović & Zisserman 2012)."""

    file: str
    place: str | None
    image: Any
    points: Matrix
    descriptors: Matrix


def read(folder: Path) -> list[Photograph]:
    """Raises MissingExtra, SystemExit."""
    if find_spec("cv2") is None:
        raise MissingExtra.of("opencv-python-headless", extra="images", what="bench landmarks")
    import cv2

    manifest = folder / "manifest.json"
    if not manifest.exists():
        raise SystemExit(f"there is no {manifest}; give a folder of photographs with one")
    sift, made = cv2.SIFT_create(nfeatures=_DESCRIPTORS), []
    for entry in json.loads(manifest.read_text())["images"]:
        image = cv2.imread(str(folder / entry["file"]), cv2.IMREAD_GRAYSCALE)
        if image is None:
            raise SystemExit(f"{folder / entry['file']} is no picture that OpenCV reads")
        scale = _LONGEST_SIDE / max(image.shape)
        if scale < 1:
            image = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        points, raw = sift.detectAndCompute(image, None)
        raw = np.zeros((0, 128), np.float32) if raw is None else raw[:_DESCRIPTORS]
        shares = raw / np.maximum(raw.sum(axis=1, keepdims=True), 1e-9)
        places = np.array([point.pt for point in points[:_DESCRIPTORS]], np.float32).reshape(-1, 2)
        made.append(Photograph(entry["file"], entry["group"], image, places, np.sqrt(shares)))
    return made


def stored(db: vecdb.Database, photographs: Sequence[Photograph]) -> Any:
    """One record a descriptor; its parent is the photograph."""
    docs = db.collection("descriptors", dimension=128, metric="cosine")
    for photograph in photographs:
        ids = [f"{photograph.file}#{number}" for number in range(len(photograph.points))]
        docs.add(ids=ids, vectors=photograph.descriptors, parents=[photograph.file] * len(ids))
    docs.warm()
    return docs


def ways(docs: Any, photographs: Sequence[Photograph]) -> dict[str, Callable[[Photograph], list[str]]]:
    """Each gives files, best first, without the one that is asked."""
    count = len(photographs)
    means = {p.file: p.descriptors.mean(axis=0) for p in photographs}

    def by_groups(asked: Photograph, method: Any = "exact") -> list[str]:
        others = {"$parent": {"$ne": asked.file}}
        return list(docs.search_groups(asked.descriptors, count, method=method, where=others).groups)

    def by_mean(asked: Photograph) -> list[str]:
        query = means[asked.file]
        scores = {
            file: float(query @ mean / np.linalg.norm(mean)) for file, mean in means.items() if file != asked.file
        }
        return sorted(scores, key=lambda file: -scores[file])

    def by_votes(asked: Photograph) -> list[str]:
        others = {"$parent": {"$ne": asked.file}}
        votes: dict[str, float] = {}
        for hits in docs.search(asked.descriptors, k=_VOTES, where=others):
            for hit in hits:
                votes[hit.parent] = votes.get(hit.parent, 0) + 1 + 1e-3 * hit.score
        return sorted(votes, key=lambda file: -votes[file])

    def by_chamfer(asked: Photograph) -> list[str]:
        scores = {
            p.file: float((asked.descriptors @ p.descriptors.T).max(axis=1).mean())
            for p in photographs
            if p is not asked
        }
        return sorted(scores, key=lambda file: -scores[file])

    return {
        "search_groups, exact": by_groups,
        "search_groups, grids": lambda asked: by_groups(asked, "grids"),
        "mean pooling": by_mean,
        f"votes of {_VOTES} nearest": by_votes,
        "Chamfer (mean of best cosines)": by_chamfer,
    }


def measured(photographs: Sequence[Photograph], docs: Any) -> list[dict[str, Any]]:
    places = {p.file: p.place for p in photographs}
    asked = [p for p in photographs if p.place is not None and list(places.values()).count(p.place) > 1]
    numbers = {file: number for number, file in enumerate(places)}
    good = [frozenset(numbers[f] for f, place in places.items() if place == p.place and f != p.file) for p in asked]
    lines, first = [], {}
    for name, way in ways(docs, photographs).items():
        orders = [[numbers[file] for file in way(p)] for p in asked]
        found = {
            "first": np.array([bool(order[:1]) and order[0] in right for order, right in zip(orders, good)], float),
            "recall": np.array([recall(order, right) for order, right in zip(orders, good)]),
            "ap": np.array([average_precision(order, right) for order, right in zip(orders, good)]),
        }
        first = first or found
        lines.append(
            {
                "way": name,
                "photographs": len(photographs),
                "asked": len(asked),
                **{measure: float(values.mean()) for measure, values in found.items()},
                "exact_minus": {m: mean_interval(first[m] - found[m]) for m in found} if found is not first else {},
            }
        )
    return lines


def draw(photographs: Sequence[Photograph], docs: Any, file: str, path: Path) -> None:
    """The photograph and the one that is found for it, side by side, with lines between what matched best."""
    import cv2

    by_file = {p.file: p for p in photographs}
    asked = by_file[file]
    best = docs.search_groups(asked.descriptors, 1, method="exact", where={"$parent": {"$ne": file}})[0]
    found = by_file[best.group]
    height, gap = max(asked.image.shape[0], found.image.shape[0]), 8
    canvas = np.full((height, asked.image.shape[1] + gap + found.image.shape[1], 3), 255, np.uint8)
    canvas[: asked.image.shape[0], : asked.image.shape[1]] = asked.image[..., None]
    canvas[: found.image.shape[0], asked.image.shape[1] + gap :] = found.image[..., None]
    for match in sorted(best.matches, key=lambda match: -match.credit)[:_DRAWN]:
        start = asked.points[match.query]
        end = found.points[int(match.id.rpartition("#")[2])] + (asked.image.shape[1] + gap, 0)
        colour = (40, int(80 + 175 * match.credit), 230)
        cv2.line(canvas, tuple(map(int, start)), tuple(map(int, end)), colour, 1, cv2.LINE_AA)
    small = cv2.resize(canvas, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    path.write_bytes(cv2.imencode(".png", small, [cv2.IMWRITE_PNG_COMPRESSION, 9])[1].tobytes())


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench landmarks", description=__doc__)
    parser.add_argument("--folder", type=Path, help="default: images/landmarks of the data sets")
    parser.add_argument("--picture", type=Path, help="where the picture of one pair goes")
    parser.add_argument("--of", default=_PICTURE_OF, help="the photograph that the picture begins with")
    parser.add_argument("--markdown", action="store_true")
    parser.add_argument("--out", type=Path, help="where results go; default: bench/results for the default folder")
    given = parser.parse_args(arguments)
    photographs = read(given.folder or data_folder() / "images" / "landmarks")
    path = result_path(given.out or results_folder(whole=given.folder is None), "landmarks")
    with vecdb.open(":memory:") as db:
        docs = stored(db, photographs)
        lines = [describe_run("landmarks") | line for line in measured(photographs, docs)]
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
        if given.picture is not None:
            draw(photographs, docs, given.of, given.picture)
    rows = [
        (Cell(line["way"]), *(Cell(f"{line[m]:.3f}", -line[m]) for m in ("first", "recall", "ap")), Cell(_gap(line)))
        for line in lines
    ]
    title = f"{lines[0]['photographs']} photographs, {lines[0]['asked']} asked"
    table = Table(title, ("way", "first is right", "recall@10", "AP@10", "exact better in AP@10 by"), tuple(rows))
    (show_markdown if given.markdown else show_tables)([table], ())
    print(path, file=sys.stderr)
    return 0


def _gap(line: dict[str, Any]) -> str:
    gap = line["exact_minus"].get("ap")
    return "" if gap is None else f"{gap[0]:+.3f} [{gap[1]:+.3f}, {gap[2]:+.3f}]"
