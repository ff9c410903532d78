"""Writes the file that later versions must still read: `python tests/formats/make.py` makes v<schema version>.vecdb.gz here.

A file of a released version is never made again: run this once for each new schema version, and keep all of them.
"""

from __future__ import annotations

import gzip
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

import vecdb
from vecdb.migrations import VERSION

FAR_AWAY = datetime(2999, 1, 1, tzinfo=UTC)


def vectors(count: int) -> np.ndarray:
    """(count, 4) small whole numbers, so that any machine gets the same ones."""
    rows, columns = np.mgrid[0:count, 0:4]
    return ((rows * 7 + columns * columns * 3 + rows * columns) % 11 - 5 + 0.5).astype(np.float32)


def write(path: Path) -> None:
    with vecdb.open(path, background=False) as db:
        notes = db.collection("notes", dimension=4, metric="l2")
        notes.add(
            ids=[f"n{i}" for i in range(30)],
            vectors=vectors(30),
            texts=[f"note number {i} about {'running horses' if i % 3 == 0 else 'sleeping cats'}" for i in range(30)],
            metadata=[
                {
                    "n": i,
                    "even": i % 2 == 0,
                    "tags": ["a", "b"] if i % 5 == 0 else [],
                    "deep": {"er": i / 2},
                    "none": None,
                }
                for i in range(30)
            ],
        )
        notes.update(ids=["n1"], metadata=[{"seen": datetime(2026, 11, 22, tzinfo=UTC)}])
        notes.upsert([{"id": "n2", "text": "changed later", "vector": vectors(31)[30], "metadata": {"n": 2}}])
        notes.delete(["n3", "n4"])
        notes.add([{"id": "keeps", "text": "expires in another age", "expires": FAR_AWAY}])
        notes.link("n5", ["n6", "n7"], "cites", [1.0, 2.5], directed=[False, True])
        notes.replace("book", [{"id": f"c{i}", "text": f"chapter {i}", "seq": i} for i in range(3)], fingerprint="f1")
        db.collection("文档 / odd name", text="cjk").add(ids=["ü"], texts=["向量数据库很快"])
        db.collection("unit", metric="cosine").add(ids=["x", "y"], vectors=[[3.0, 4.0], [0.0, 2.0]], model="some-model")
        db.collection("empty")


def main() -> None:
    target = Path(__file__).with_name(f"v{VERSION}.vecdb.gz")
    if target.exists() and "--again" not in sys.argv:
        sys.exit(f"{target.name} exists; give --again if version {VERSION} has not been released yet")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "library.vecdb"
        write(path)
        target.write_bytes(gzip.compress(path.read_bytes(), mtime=0))
    print(f"{target.name}: {target.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
