"""How long `Collection.adapt` takes on package descriptions, and what the map costs each query."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import Any

from bench.data import load_corpus

_QUERIES = 2_000


class _Timed:
    """An embedder that adds up the CPU time of its work."""

    def __init__(self, embedder: Any) -> None:
        self._embedder = embedder
        self.name, self.dimension = embedder.name, embedder.dimension
        self.cpu_seconds = 0.0

    def embed_documents(self, texts: list[str]) -> Any:
        return self._counted(self._embedder.embed_documents, texts)

    def embed_queries(self, texts: list[str]) -> Any:
        return self._counted(self._embedder.embed_queries, texts)

    def embed_query(self, text: str) -> Any:
        return self._counted(self._embedder.embed_query, text)

    def _counted(self, work: Any, given: Any) -> Any:
        since = time.process_time()
        try:
            return work(given)
        finally:
            self.cpu_seconds += time.process_time() - since


def measure(rows: int) -> dict[str, Any]:
    """One adaptation of rows documents, words and index loaded and built before, the model loaded too."""
    import vecdb
    from vecdb.adaptation.adapting import attempted
    from vecdb.embedding import load_embedder

    corpus = load_corpus("debian-90k")
    embedder = _Timed(load_embedder("default"))
    embedder.embed_query("the model is loaded by this")
    embedder.cpu_seconds = 0.0
    with vecdb.open(":memory:") as db:
        docs = db.collection("packages", embed=embedder)
        docs.add(texts=corpus.texts[:rows], vectors=corpus.vectors[:rows], model=embedder.name)
        docs.optimize()
        docs.warm()
        began, cpu = time.perf_counter(), time.process_time()
        attempt = attempted(
            docs._definition, docs._engine.retrieval, docs._miner(0), sample=2_500, budget_s=600.0, seed=0
        )
        spent = {"seconds": time.perf_counter() - began, "cpu_seconds": time.process_time() - cpu}
    queries = corpus.vectors[:_QUERIES]
    since = time.process_time()
    for place in range(_QUERIES):
        attempt.fitted(queries[place : place + 1])
    map_us = (time.process_time() - since) / _QUERIES * 1e6
    return {
        "documents": rows,
        "embedding_cpu_seconds": embedder.cpu_seconds,
        "map_us": map_us,
        "adaptation": asdict(attempt.adaptation),
        **spent,
    }
