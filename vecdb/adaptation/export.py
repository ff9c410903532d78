"""The mined triples as JSON Lines, for training that happens elsewhere."""

from __future__ import annotations

import time
from pathlib import Path

import orjson

from vecdb.adaptation.adapting import check_drawing
from vecdb.adaptation.mining import Miner
from vecdb.errors import StorageError
from vecdb.storage import Store
from vecdb.tables import Tables

_BUDGET_S = 24 * 3600.0


def write_triples(store: Store, tables: Tables, miner: Miner, path: Path, *, sample: int, seed: int) -> int:
    """One line for each query of the learning half: its text, that of its document, and those of its hard negatives."""
    check_drawing(sample, seed)
    learning, _ = miner.halves(miner.asked(sample, time.perf_counter() + _BUDGET_S))
    triples = miner.triples(learning)
    with store.read() as db:
        texts = {row: record.text for row, record in tables.by_rows(db, triples.rows.tolist()).items()}
    lesson = triples.lesson
    try:
        with path.open("xb") as file:
            lines = 0
            for anchor, positive, negatives in zip(triples.asked.texts, lesson.positives, lesson.negatives):
                rows = triples.rows[[positive, *negatives]].tolist()
                found = [texts.get(row) for row in rows]
                if all(found):  # else one was deleted meanwhile, or has no text
                    names = ("positive", *(f"negative_{i + 1}" for i in range(len(negatives))))
                    file.write(orjson.dumps({"anchor": anchor, **dict(zip(names, found))}) + b"\n")
                    lines += 1
    except OSError as error:
        raise StorageError(
            f"{path} cannot be written ({error}); give the path of a new file in a folder that exists"
        ) from error
    return lines
