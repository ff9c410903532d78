"""States of tokens of the default model, for the candidates of judged queries: made once, kept in the cache."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.data import CACHE
from bench.retrieval.measure import by_fusion
from bench.retrieval.sets import Judged, Lists
from vecdb.query.fusion import Fusion

Array = NDArray[Any]
DEPTH = 100  # candidates of a query


@dataclass(frozen=True)
class States:
    """Of documents by position in the collection, and of queries by their turn. Without [CLS], [SEP] and punctuation."""

    documents: dict[int, Array]
    queries: list[Array]


def hybrid(lists: Lists) -> list[list[tuple[int, float]]]:
    """The first stage: each query's candidates with the scores of reciprocal rank fusion, k = 60, best first."""
    found = []
    for query in lists.queries:
        scores: dict[int, float] = {}
        for documents in (query.vector_docs, query.text_docs):
            for rank, document in enumerate(documents.tolist(), start=1):
                scores[document] = scores.get(document, 0.0) + 1.0 / (60 + rank)
        found.append(sorted(scores.items(), key=lambda item: (-item[1], item[0]))[:DEPTH])
    return found


def fused(lists: Lists, fusion: Fusion) -> list[list[tuple[int, float]]]:
    """As `hybrid`, by a fusion."""
    rank = by_fusion(fusion, lists.documents)
    found = (rank(query, DEPTH) for query in lists.queries)
    return [list(zip(ranking.rows.tolist(), ranking.scores.tolist())) for ranking in found]


def states_of(judged: Judged, wanted: Sequence[int], queries: Sequence[str], label: str) -> States:
    """The states of these documents and queries. label: what they are, for the name of the file."""
    path = CACHE / "rerank" / f"{judged.name}-{label}-{judged.checksum}.npz"
    known: set[int] = set()
    if path.is_file():
        with np.load(path) as saved:
            known = set(saved["documents"].tolist())
    if not known or not known.issuperset(wanted):
        _make(path, judged, sorted(known.union(wanted)), queries)
    with np.load(path) as saved:
        ids, ends, states = saved["ids"], saved["ends"], saved["states"]
        positions = {int(document): i for i, document in enumerate(saved["documents"])}
        kept = _kept(ids, ends)
        parts = {d: states[ends[i] : ends[i + 1]][kept[i]] for d, i in positions.items() if d in set(wanted)}
        query_kept = _kept(saved["query_ids"], saved["query_ends"])
        asked = [
            saved["query_states"][a:b][keep]
            for a, b, keep in zip(saved["query_ends"][:-1], saved["query_ends"][1:], query_kept)
        ]
    return States(parts, asked)


def _make(path: Any, judged: Judged, documents: list[int], queries: Sequence[str]) -> None:
    from vecdb.embedding.minilm import MiniLM

    model = MiniLM()
    ids, ends, states = _states(model, [judged.texts[d] for d in documents])
    query_ids, query_ends, query_states = _states(model, list(queries))
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".unfinished")
    with unfinished.open("wb") as file:
        np.savez(
            file,
            documents=np.array(documents),
            ids=ids,
            ends=ends,
            states=states,
            query_ids=query_ids,
            query_ends=query_ends,
            query_states=query_states,
        )
    unfinished.rename(path)


def _states(model: Any, texts: list[str]) -> tuple[Array, Array, Array]:
    tokens = model.token_ids(texts)
    ends = np.cumsum([0] + [len(part) for part in tokens])
    states = np.empty((int(ends[-1]), model.dimension), np.float16)

    def made(position: int, found: Array) -> None:
        states[ends[position] : ends[position + 1]] = found

    model.token_states(tokens, made)
    return np.concatenate(tokens), ends, states


def _kept(ids: Array, ends: Array) -> list[Array]:
    """Which tokens of each text have vectors, as `MiniLMTokens` decides it."""
    from vecdb.embedding.late import punctuation

    unwanted = np.array(sorted(punctuation()))
    kept = []
    for a, b in pairwise(ends):
        mask = ~np.isin(ids[a:b], unwanted)
        mask[[0, -1]] = False
        kept.append(mask)
    return kept
