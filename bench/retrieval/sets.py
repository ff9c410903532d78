"""The judged collections, and what each first stage finds in them: lists with scores, kept in the cache.

Everything a fusion is given is made once by vecdb's own engine (exact search by vector, BM25 by words, 1,000 deep), so that
any number of fusions is compared on the very same lists in seconds.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.data import CACHE, data_folder
from vecdb.query.fusion import Evidence

DEPTH = 1_000
_LISTS = 2  # a change of what either list is makes them anew

# (id of a query) -> (what the ids of its documents begin with). LoCoMo's questions are each about one conversation.
_WITHIN: dict[str, Callable[[str], str]] = {"locomo": lambda query: query.partition("/")[0] + "/"}
_ENGLISH_ONLY = frozenset({"xquad"})
_FOLDERS = {"hotpot-musique": "multihop"}

NAMES = (
    "scifact",
    "nfcorpus-bow",
    "dbpedia-50",
    "cosqa",
    "cranfield",
    "cisi",
    "cacm",
    "npl",
    "time",
    "locomo",
    "xquad",
    "msmarco-dl19",
    "msmarco-dl21",
    "hotpot-musique",
)
# Their judgements are of the same queries, or of queries made by the same people over the same texts: none of a family
# learns for another of it.
FAMILIES = (frozenset({"msmarco-dl19", "msmarco-dl21"}),)


def family_of(name: str) -> frozenset[str]:
    return next((family for family in FAMILIES if name in family), frozenset({name}))


@dataclass(frozen=True)
class Judged:
    """One collection as it is measured. texts: of documents, title first. qrels by query id and document id."""

    name: str
    ids: list[str]
    texts: list[str]
    queries: dict[str, str]
    qrels: dict[str, dict[str, int]]
    checksum: str

    def within(self, query: str) -> str:
        """What the id of a document begins with that this query may find; empty: any."""
        choose = _WITHIN.get(self.name)
        return choose(query) if choose else ""


@dataclass(frozen=True)
class QueryLists:
    """What the two first stages found for one query. Documents are positions in the collection.

    stems: the query's distinct stems; frequencies: in how many of the documents each occurs.
    """

    id: str
    text: str
    vector_docs: NDArray[np.int32]
    vector_scores: NDArray[np.float64]
    text_docs: NDArray[np.int32]
    text_scores: NDArray[np.float64]
    stems: tuple[str, ...]
    frequencies: NDArray[np.int64]


@dataclass(frozen=True)
class Lists:
    """source: the collection whose queries and documents these are; name: what it is called where it has several lists."""

    name: str
    source: str
    documents: int
    queries: list[QueryLists]
    grades: list[dict[int, int]]  # of each query: judged documents by position

    @property
    def family(self) -> frozenset[str]:
        """The collections that these must not learn from."""
        return family_of(self.source)


def load(name: str) -> Judged:
    """Raises SystemExit where the data is absent."""
    from vecdb.errors import NotFound
    from vecdb.judged import load_judged

    folder = data_folder() / _FOLDERS.get(name, "text") / name
    try:
        found = load_judged(folder)
    except NotFound as error:
        raise SystemExit(f"{error}; set VECDB_DATA to the folder of data sets") from error
    if name in _ENGLISH_ONLY:
        corpus = [d for d in found.corpus if d["lang"] == "en"]
        queries = {id: text for id, text in found.queries.items() if id.startswith("en-")}
    else:
        corpus, queries = found.corpus, found.queries
    texts = [f"{document.get('title') or ''} {document['text']}".strip() for document in corpus]
    known = {document["_id"] for document in corpus}
    # A judged document that is not there cannot be found by anybody; the pools of DL19 and DL21 lack some.
    qrels = {id: {d: g for d, g in found.qrels[id].items() if d in known} for id in queries}
    qrels = {id: grades for id, grades in qrels.items() if any(grade > 0 for grade in grades.values())}
    queries = {id: queries[id] for id in qrels}
    digest = hashlib.sha256(json.dumps([texts, queries]).encode()).hexdigest()[:12]
    return Judged(name, [document["_id"] for document in corpus], texts, queries, qrels, digest)


def vectors_of(judged: Judged) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Vectors of the documents and of the queries, by the default model; embedded on first use."""
    path = _cached(judged, "vectors", "npz")
    if not path.exists():
        from bench.data import embed

        texts = judged.texts + list(judged.queries.values())
        vectors = embed(texts, judged.name)
        _save(path, documents=vectors[: len(judged.texts)], queries=vectors[len(judged.texts) :])
    with np.load(path) as saved:
        return saved["documents"], saved["queries"]


def lists_of(judged: Judged) -> Lists:
    """Both first stages' lists for every query; made on first use by vecdb's engine."""
    return lists_from(judged, cached_lists(judged, "", lambda: make_lists(judged, *vectors_of(judged))))


def lists_from(judged: Judged, queries: list[QueryLists], name: str | None = None) -> Lists:
    place = {id: i for i, id in enumerate(judged.ids)}
    grades = [{place[d]: g for d, g in judged.qrels[query.id].items()} for query in queries]
    return Lists(name or judged.name, judged.name, len(judged.ids), queries, grades)


def cached_lists(judged: Judged, what: str, make: Callable[[], list[QueryLists]]) -> list[QueryLists]:
    """Lists of these queries; made on first use, and kept under the name of what they are."""
    path = _cached(judged, f"lists{_LISTS}{what}", "npz")
    if not path.exists():
        _save(path, **_packed(make()))
    with np.load(path) as saved:
        return _unpacked(saved, judged.queries)


def make_lists(
    judged: Judged, documents: NDArray[np.float32], queries: NDArray[np.float32], depth: int = DEPTH
) -> list[QueryLists]:
    """The lists of each query by a vecdb collection in memory."""
    import vecdb
    from vecdb.query.request import Query, SearchOptions

    made = []
    queries = queries / np.linalg.norm(queries, axis=1, keepdims=True)  # as a search does before it asks the engine
    with vecdb.open(":memory:") as db:
        docs = db.collection("judged")
        docs.add(ids=judged.ids, texts=judged.texts, vectors=documents, metadata=[_part(id) for id in judged.ids])
        docs.warm()
        engine = docs._engine
        for (id, text), vector in zip(judged.queries.items(), queries):
            part = judged.within(id)
            options = SearchOptions(
                mode="hybrid", exact=True, candidates=depth, fusion="rrf", where={"part": part} if part else None
            )
            course = engine.courses([Query(text, vector)], options)[0]
            by_vector, by_text = course.lists
            evidence = engine.retrieval.evidence([text], options, stems=True)[0]
            made.append(
                QueryLists(
                    id,
                    text,
                    # rows count from 1 in the order of adding
                    (by_vector.rows - 1).astype(np.int32)[:depth],
                    by_vector.scores[:depth],
                    (by_text.rows - 1).astype(np.int32)[:depth],
                    by_text.scores[:depth],
                    evidence.stems,
                    np.array(evidence.frequencies, dtype=np.int64),
                )
            )
    return made


def evidence_of(judged: Judged) -> list[Evidence]:
    """What the word index of the collection knows of each query."""
    import vecdb
    from vecdb.query.request import SearchOptions

    with vecdb.open(":memory:") as db:
        docs = db.collection("words")
        docs.add(ids=judged.ids, texts=judged.texts)
        docs.warm()
        return docs._engine.retrieval.evidence(list(judged.queries.values()), SearchOptions())


def _part(id: str) -> dict[str, Any]:
    return {"part": id.partition("/")[0] + "/"}


def _cached(judged: Judged, what: str, ending: str) -> Any:
    return CACHE / "retrieval" / f"{judged.name}-{what}-{judged.checksum}.{ending}"


def _save(path: Any, **arrays: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".unfinished")
    with unfinished.open("wb") as file:
        np.savez(file, **arrays)
    unfinished.rename(path)


_FIELDS = ("vector_docs", "vector_scores", "text_docs", "text_scores", "frequencies")


def _packed(lists: Sequence[QueryLists]) -> dict[str, Any]:
    arrays: dict[str, Any] = {}
    for field in _FIELDS:
        parts = [getattr(query, field) for query in lists]
        arrays[field] = np.concatenate(parts)
        arrays[f"{field}_ends"] = np.cumsum([len(part) for part in parts])
    arrays["stems"] = np.array("\n".join(" ".join(query.stems) for query in lists))
    return arrays


def _unpacked(saved: Mapping[str, Any], queries: Mapping[str, str]) -> list[QueryLists]:
    columns = [np.split(saved[field], saved[f"{field}_ends"][:-1]) for field in _FIELDS]
    stems = str(saved["stems"]).split("\n")
    return [
        QueryLists(id, text, vd, vs, td, ts, tuple(words.split(" ")) if words else (), df)
        for (id, text), vd, vs, td, ts, df, words in zip(queries.items(), *columns, stems)
    ]
