"""What each codec costs in quality: on judged collections and on pictures, alone and with a re-check on float32."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vecdb import storage_plan
from vecdb.index.base import Metric
from vecdb.index.codecs import CodeTable, learn_oversampling, parse
from vecdb.index.exact import exact_search
from vecdb.storage_plan import agreement

Vectors = NDArray[np.float32]
Rows = NDArray[np.int64]

K = 10
TARGET = 0.99  # recall that a re-check is to reach
SHARES = (1.0, 0.75, 0.5, 0.25)
SCALARS = (
    "float32",
    "float16",
    "bfloat16",
    "float8",
    "float8:e5m2",
    "float8:dimension",
    "int8",
    "int8:symmetric",
    "int4",
)
_SAMPLE = 20_000
_BATCH = 64


@dataclass(frozen=True)
class Task:
    """documents (N, D), queries (B, D); grades: for each query its judged documents by position, None where nobody judged."""

    name: str
    metric: Metric
    documents: Vectors
    queries: Vectors
    grades: list[Mapping[int, int]] | None
    true: Rows  # (B, K) by float32


def judged_task(name: str) -> Task:
    from bench.retrieval import sets

    judged = sets.load(name)
    documents, queries = sets.vectors_of(judged)
    place = {id: i for i, id in enumerate(judged.ids)}
    grades: list[Mapping[int, int]] = [{place[d]: g for d, g in judged.qrels[id].items()} for id in judged.queries]
    return Task(name, "cosine", documents, queries, grades, exact_search(documents, queries, K, "cosine").positions)


def picture_task(queries: int = 500) -> Task:
    from bench.vectors import load_set

    found = load_set("fashion").first_queries(queries)
    base, asked = np.array(found.base), np.array(found.queries)
    return Task("fashion", "l2", base, asked, None, found.truth[:, :K].astype(np.int64))


def codecs_of(dimension: int) -> list[str]:
    """Every codec at every share of the dimensions, and those that cut a vector into parts."""
    texts = []
    for share in SHARES:
        kept = round(dimension * share)
        texts += [scalar if share == 1 else f"pca:{kept}+{scalar}" for scalar in SCALARS]
        if share < 1:
            texts += [f"truncate:{kept}+float32", f"random:{kept}+float32"]
    texts += ["rabitq:1", "rabitq:2", "rabitq:4", "rabitq:8"]
    for parts in (dimension // 2, dimension // 4, dimension // 8):
        texts += [f"pq:{parts}", f"opq:{parts}", f"mpq:{parts - 1}"]
    return texts


def study(task: Task, texts: Sequence[str]) -> Iterator[dict[str, Any]]:
    """A line for each codec."""
    for text in texts:
        yield {"part": "quality", "data": task.name, "dimension": task.documents.shape[1]} | measure(task, text)


def measure(task: Task, text: str) -> dict[str, Any]:
    sample = task.documents[:: max(1, len(task.documents) // _SAMPLE)]
    codec = parse(text, task.documents.shape[1], task.metric).fit(sample)
    table = CodeTable.of(codec, task.documents)
    # Learnt on the first half of the queries, measured on the other: what it was fitted to says nothing.
    half = len(task.queries) // 2
    factor, learnt = learn_oversampling(table, task.documents, task.queries[:half], K, TARGET)
    ranked = _ranked(table, task.queries, int(np.ceil(factor * K)))
    found = ranked[:, :K]
    rechecked = np.stack([_rechecked(task, rows, query) for rows, query in zip(ranked, task.queries)])
    return {
        "codec": text,
        "bytes": codec.bytes_per_vector,
        "overhead": codec.overhead,
        "true_bytes": codec.bytes_per_vector + codec.overhead / len(task.documents),
        "recall": agreement(found, task.true),
        "ndcg": ndcg(found, task.grades),
        "oversampling": factor,
        "learnt_recall": learnt,
        "rechecked_recall": agreement(rechecked[half:], task.true[half:]),
        "rechecked_ndcg": ndcg(rechecked, task.grades),
    }


def _ranked(table: CodeTable, queries: Vectors, depth: int) -> Rows:
    depth = min(depth, len(table))
    found = np.empty((len(queries), depth), np.int64)
    for start in range(0, len(queries), _BATCH):
        for i, line in enumerate(table.distances(queries[start : start + _BATCH])):
            near = np.argpartition(line, depth - 1)[:depth]
            found[start + i] = near[np.lexsort((near, line[near]))]
    return found


def _rechecked(task: Task, rows: Rows, query: Vectors) -> Rows:
    candidates = np.sort(rows)
    found = exact_search(task.documents[candidates], query[None], K, task.metric).positions[0]
    return candidates[found]


def ndcg(found: Rows, grades: Sequence[Mapping[int, int]] | None) -> float | None:
    """nDCG@10 in hundredths."""
    return None if grades is None else 100 * storage_plan.ndcg(found, grades)


def published_int8(task: Task) -> Iterator[dict[str, Any]]:
    """int8 as Huerga-Pérez et al. 2025 measured it, beside an honest one and float8.

    Their code quantises to unsigned bytes between bounds of another corpus and takes the cosine of the bytes as they are: the
    offset and step of a dimension are never undone, and what lies outside the bounds wraps around.
    """
    halves = task.documents[::2], task.documents[1::2]
    scores = {
        "int8 raw, own bounds": _raw_codes(task, task.documents, wrap=True),
        "int8 raw, bounds of half": _raw_codes(task, halves[0], wrap=True),
        "int8 raw, bounds of 100 documents": _raw_codes(task, task.documents[:: len(task.documents) // 100], wrap=True),
        "int8 raw, bounds of 100, cut off": _raw_codes(task, task.documents[:: len(task.documents) // 100], wrap=False),
    }
    for name, score in scores.items():
        found = np.argsort(-score, axis=1, kind="stable")[:, :K]
        yield {"part": "published", "data": task.name, "codec": name} | _both(found, task)
    for text in ("int8", "float8"):
        line = measure(task, text)
        kept = {"ndcg": line["ndcg"], "recall": line["recall"]}
        yield {"part": "published", "data": task.name, "codec": f"{text}, decoded"} | kept
    cast = _cast(task.documents), _cast(task.queries)  # the paper's: no scale, documents and queries alike
    found = np.argsort(-(cast[1] @ cast[0].T), axis=1, kind="stable")[:, :K]
    yield {"part": "published", "data": task.name, "codec": "float8, plain cast"} | _both(found, task)


def _both(found: Rows, task: Task) -> dict[str, Any]:
    return {"ndcg": ndcg(found, task.grades), "recall": agreement(found, task.true)}


def _raw_codes(task: Task, calibration: Vectors, *, wrap: bool) -> Vectors:
    """(B, N) cosines between unsigned codes."""
    low, high = calibration.min(axis=0), calibration.max(axis=0)
    steps = (high - low) / 255

    def coded(vectors: Vectors) -> Vectors:
        codes = np.floor((vectors - low) / steps)
        kept = np.mod(codes, 256) if wrap else np.clip(codes, 0, 255)
        return kept / np.linalg.norm(kept, axis=1, keepdims=True)

    return np.asarray(coded(task.queries) @ coded(task.documents).T, np.float32)


def _cast(vectors: Vectors) -> Vectors:
    from vecdb.index.codecs.float8 import as_float8, float8_numbers

    cast = float8_numbers("e4m3")[as_float8(vectors, "e4m3")]
    return cast / np.linalg.norm(cast, axis=1, keepdims=True)
