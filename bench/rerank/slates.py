"""Slates to train rerankers on; nothing here is measured on.

    python -m bench.rerank.slates --out slates.jsonl
    python -m vecdb.rerank.training e2rank --slates slates.jsonl --out FOLDER

Judged ones: the training halves of SciFact and CoSQA, the queries of DL21 (what is tuned on may be learned from; DL19 and DL20
may not), and whole collections that no reranker is measured on. Queries with many relevant documents give several slates.
Privileged ones (`training.slates.privileged`): titles and first sentences as queries. Negatives come from BM25's first 100.

Kept for measuring: DL19, nfcorpus, dbpedia, cranfield, the test halves of SciFact and CoSQA.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from bench.data import data_folder
from bench.retrieval.sets import load, vectors_of
from vecdb.judged import load_judged
from vecdb.rerank.training import slates

# set -> (split, slates of each query, how many of its documents ask as privileged queries)
SOURCES = {
    "scifact": ("train", 1, 4_000),
    "cosqa": ("dev", 1, 0),
    "msmarco-dl21": ("test", 12, 4_000),
    "xquad": ("test", 1, 0),
    "hotpot-musique": ("test", 2, 3_000),
    "cisi": ("test", 4, 1_000),
    "cacm": ("test", 4, 0),
    "npl": ("test", 4, 0),
    "time": ("test", 2, 0),
}
_DEPTH = 100
_NEAR = 50  # of a privileged query's list: further down hardly anything tells documents apart
_LONGEST = 120  # characters of a first sentence


def slates_of(name: str, *, size: int, seed: int) -> list[slates.Slate]:
    """Of every query of the source's split, and of as many of its documents as it says, with lists by a word search."""
    split, turns, asking = SOURCES[name]
    judged = load(name)
    texts = dict(zip(judged.ids, judged.texts))
    queries, qrels = judged.queries, judged.qrels
    if split != "test":
        half = load_judged(data_folder() / "text" / name, split=split)
        queries, qrels = half.queries, half.qrels
    parts = _parts(texts, asking, seed)
    found = _lists(texts, [*queries.values(), *parts.values()])
    lists = dict(zip([*queries, *parts], found))
    made = [
        one for turn in range(turns) for one in slates.judged(queries, qrels, lists, texts, size=size, seed=seed + turn)
    ]
    if parts:
        vectors = dict(zip(judged.ids, vectors_of(judged)[0]))
        near = {id: lists[id][:_NEAR] for id in parts}
        made += slates.privileged(parts, near, texts, vectors, size=size, seed=seed)
    return made


def _parts(texts: Mapping[str, str], count: int, seed: int) -> dict[str, str]:
    """A document's first sentence as the query that it asks; of documents drawn by chance that have more than that."""
    ids = list(texts)
    parts: dict[str, str] = {}
    for place in np.random.default_rng(seed).permutation(len(ids)).tolist():
        text = texts[ids[place]]
        sentence = text.split(". ")[0][:_LONGEST].rsplit(" ", 1)[0] if len(text) > _LONGEST else ""
        if len(parts) < count and len(sentence) > 20:
            parts[ids[place]] = sentence
    return parts


def _lists(texts: Mapping[str, str], queries: Sequence[str]) -> list[list[str]]:
    import vecdb

    with vecdb.open(":memory:") as db:
        docs = db.collection("texts")
        docs.add(ids=list(texts), texts=list(texts.values()))
        docs.warm()
        return [list(hits.ids) for hits in docs.search(list(queries), k=_DEPTH, mode="text")]


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.rerank.slates", description=__doc__)
    parser.add_argument("--sets", nargs="*", default=list(SOURCES), choices=list(SOURCES))
    parser.add_argument("--size", type=int, default=16, help="passages a slate")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args(list(arguments))
    made: list[slates.Slate] = []
    for name in given.sets:
        own = slates_of(name, size=given.size, seed=given.seed)
        print(json.dumps({"set": name, "split": SOURCES[name][0], "slates": len(own)}), file=sys.stderr)
        made += own
    slates.write(given.out, made)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
