"""How large a file is: the same records, texts included, with vectors stored in one way and in another."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import vecdb
from bench.data import load_corpus
from vecdb.storage_plan import K, agreement

CODECS = ("float32", "float8", "pca:192+float8", "pca:192+int8", "rabitq:4")
_ASKED = 500


def compare(
    name: str = "debian-90k", codecs: Sequence[str] = CODECS, rows: int | None = None
) -> Iterator[dict[str, Any]]:
    """A line for each codec, a file each; the first is what recall is taken against."""
    corpus = load_corpus(name)
    records, queries = corpus.records(rows), corpus.questions().vectors[:_ASKED]
    true: Any = None
    with tempfile.TemporaryDirectory(prefix="vecdb-size-") as folder:
        for codec in codecs:
            path = Path(folder) / f"{codec.replace(':', '-')}.vecdb"
            with vecdb.open(path, background=False) as db:
                docs = db.collection("records")
                docs.add(ids=records.ids, texts=records.texts, vectors=records.vectors)
                began = time.process_time()
                docs.set_storage(codec)
                seconds = time.process_time() - began
                docs.compact()
                hits = docs.search(queries, k=K, exact=True)
            # Ids are "r" and a number, see bench.data.
            found = np.array([[int(id[1:]) for id in of_query.ids] for of_query in hits], np.int64)
            true = found if true is None else true
            yield {
                "part": "size",
                "data": corpus.name,
                "rows": len(records),
                "codec": codec,
                "file_mb": path.stat().st_size / 1e6,
                "recode_s": seconds,
                "recall": agreement(found, true),
            }
            path.unlink()
