"""Slates to train rerankers on, out of the judged collections' training halves; nothing here is measured on.

    python -m bench.rerank.slates --out slates.jsonl
    python -m vecdb.rerank.training e2rank --slates slates.jsonl --out FOLDER

Negatives come from BM25's first 100. MS MARCO DL21 is what is tuned on, so its queries may be learned from; DL19's and DL20's
may not.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from bench.data import data_folder
from vecdb.judged import load_judged
from vecdb.rerank.training import slates

SPLITS = {"scifact": "train", "cosqa": "dev", "msmarco-dl21": "test"}
_DEPTH = 100


def slates_of(folder: Path, split: str, *, size: int, seed: int) -> list[slates.Slate]:
    """Of every query of the split, with negatives out of a word search in the collection."""
    import vecdb

    judged = load_judged(folder, split=split)
    texts = {d["_id"]: f"{d.get('title') or ''} {d['text']}".strip() for d in judged.corpus}
    with vecdb.open(":memory:") as db:
        docs = db.collection("texts")
        docs.add(ids=list(texts), texts=list(texts.values()))
        docs.warm()
        found = docs.search(list(judged.queries.values()), k=_DEPTH, mode="text")
        lists = {query: hits.ids for query, hits in zip(judged.queries, found)}
    return slates.judged(judged.queries, judged.qrels, lists, texts, size=size, seed=seed)


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.rerank.slates", description=__doc__)
    parser.add_argument("--sets", nargs="*", default=list(SPLITS), choices=list(SPLITS))
    parser.add_argument("--size", type=int, default=16, help="passages a slate")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args(list(arguments))
    made: list[slates.Slate] = []
    for name in given.sets:
        own = slates_of(data_folder() / "text" / name, SPLITS[name], size=given.size, seed=given.seed)
        print(json.dumps({"set": name, "split": SPLITS[name], "slates": len(own)}), file=sys.stderr)
        made += own
    slates.write(given.out, made)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
