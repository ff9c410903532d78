"""Other people's programs on the same collections: bm25s, and vstash itself with the same vectors."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from bench.retrieval.sets import Judged, QueryLists, vectors_of
from vecdb.query.ranking import Ranking

Ranker = Callable[[QueryLists, int], Ranking]


def installed(judged: Judged, *, with_vstash: bool) -> dict[str, Ranker]:
    """Those that are installed, ready to be asked."""
    found: dict[str, Ranker] = {}
    if find_spec("bm25s") is not None:
        found["bm25s"] = bm25s_ranker(judged)
    if with_vstash and find_spec("vstash") is not None:
        found["vstash"] = vstash_ranker(judged)
    return found


def bm25s_ranker(judged: Judged) -> Ranker:
    """Lucene's BM25 with its own defaults, English stop words, and the snowball stemmer where PyStemmer is installed."""
    import bm25s

    stemmer = None
    if find_spec("Stemmer") is not None:
        import Stemmer

        stemmer = Stemmer.Stemmer("english")

    def tokens(texts: list[str]) -> Any:
        return bm25s.tokenize(texts, stopwords="en", stemmer=stemmer, return_ids=False, show_progress=False)

    index = bm25s.BM25(method="lucene")
    index.index(tokens(judged.texts), show_progress=False)
    documents = np.arange(len(judged.ids))

    def rank(query: QueryLists, k: int) -> Ranking:
        part = judged.within(query.id)
        allowed = np.array([id.startswith(part) for id in judged.ids]) if part else None
        words = tokens([query.text])
        if not words[0]:
            return Ranking.empty("text")
        rows, scores = index.retrieve(
            words, corpus=documents, k=min(k, len(documents)), weight_mask=allowed, show_progress=False
        )
        hits = scores[0] > 0
        return Ranking("text", rows[0][hits].astype(np.int64), scores[0][hits].astype(np.float64))

    return rank


def vstash_ranker(judged: Judged) -> Ranker:
    """vstash's own search with its own settings: adaptive weights, gate, MMR. A query's part is its `collection`."""
    from bench.systems.vstash import VstashStore

    documents, queries = vectors_of(judged)
    folder = tempfile.TemporaryDirectory(prefix="bench-vstash-")
    store = VstashStore(str(Path(folder.name) / "vstash.db"), embedding_dim=documents.shape[1])
    with store.batch_mode(defer_fts=True):
        store.add_documents_batch(
            [
                {
                    "path": str(place),
                    "title": "",
                    "chunks": [text],
                    "embeddings": [vector.tolist()],
                    "source_type": "file",
                    "collection": id.partition("/")[0],
                }
                for place, (id, text, vector) in enumerate(zip(judged.ids, judged.texts, documents))
            ]
        )
    vectors = dict(zip(judged.queries, queries))

    def rank(query: QueryLists, k: int, _folder: Any = folder) -> Ranking:  # the folder lives as long as its ranker
        part = judged.within(query.id)
        options = {"collection": part.rstrip("/")} if part else {}
        hits = store.search(vectors[query.id].tolist(), query.text, top_k=k, **options)
        rows = np.array([int(hit.path) for hit in hits], dtype=np.int64)
        return Ranking("vstash", rows, np.arange(len(rows), 0, -1, dtype=np.float64))

    return rank
