"""Questions whose relevant records carry labels of sub-topics.

compound-X   three questions of a judged collection asked in one sentence: a record's sub-topics are the questions that its
             judges found it relevant to. The combinations are ours (seed 0), questions and judgments the collection's.
             Of scifact, whose vectors come with the project, the mean of three claims' vectors is asked.
hotpot       questions of several hops: each supporting paragraph is a sub-topic
locomo       questions with several pieces of evidence in a long conversation: each turn is a sub-topic; only the question's
             conversation is searched
fashion      pictures: asked by the mean of one picture of each of several kinds of tops, or of shoes; a record's sub-topic is its
             kind, relevant are all of the same group
movielens    a user's liked films: asked by the mean of half of them (factors of the others' ratings), relevant is the other half,
             sub-topics are their genres

Text is embedded by the default model on first use, and kept in the cache; documents are those of `bench retrieval`.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench import ROOT
from bench.data import CACHE, data_folder
from bench.retrieval import sets
from bench.select.measures import Facets

Vectors = NDArray[np.float32]

_PARTS = 3  # questions in a compound one
_COMPOUNDS = 200
_LEAST_RELEVANT = 3  # of a question that goes into a compound one
_FASHION = Path("/usr/share/datasets/fashion-mnist")
_FASHION_ROWS, _FASHION_QUESTIONS = 20_000, 200
_KINDS = {"tops": (0, 2, 4, 6), "shoes": (5, 7, 9)}  # T-shirt, pullover, coat, shirt; sandal, sneaker, boot
_FACTORS = 32
_LIKED = 4.0
_LEAST_LIKED = 40


@dataclass(frozen=True)
class Asked:
    """A question: its vector (D,), the sub-topics of what is relevant to it, and the rows that may answer it (None: all)."""

    vector: Vectors
    facets: Facets
    rows: NDArray[np.int64] | None = None


@dataclass(frozen=True)
class FacetSet:
    """vectors: (N, D) of unit length."""

    name: str
    vectors: Vectors
    questions: list[Asked]

    @property
    def facets_each(self) -> float:
        """Sub-topics of a question, on average."""
        return float(np.mean([len({t for topics in q.facets.values() for t in topics}) for q in self.questions]))


def load_facet_set(name: str) -> FacetSet:
    """One of SETS. Exits with what is missing."""
    if name not in SETS:
        raise SystemExit(f"unknown set {name!r}; choose from {', '.join(SETS)}")
    return SETS[name](name)


# -- text


def _compound(folder: str, least_grade: int) -> Callable[[str], FacetSet]:
    def make(name: str) -> FacetSet:
        _, documents, queries, judged = _judged(folder, least_grade)
        able = sorted(query for query in queries if len(judged.get(query, ())) >= _LEAST_RELEVANT)
        rng = np.random.default_rng(0)
        asked = [rng.choice(able, size=_PARTS, replace=False).tolist() for _ in range(_COMPOUNDS)]
        texts = [" ".join(queries[part] for part in parts) for parts in asked]
        facets = [_merged((part, judged[part]) for part in parts) for parts in asked]
        return _text_set(name, folder, documents, texts, facets)

    return make


def _scifact(name: str) -> FacetSet:
    """From `datasets/` alone: 4,000 abstracts and 300 claims with their vectors; no model is needed."""
    folder = ROOT / "datasets"
    with np.load(folder / "embeddings" / "scifact-minilm-4k.npz") as arrays:
        vectors, claims = _unit(arrays["base"]), _unit(arrays["queries"])
    documents = _json_lines(folder / "scifact" / "corpus.jsonl.gz")[: len(vectors)]
    rows = {line["_id"]: row for row, line in enumerate(documents)}
    judged: dict[str, list[int]] = {}
    for line in (folder / "scifact" / "qrels" / "test.tsv").read_text().splitlines()[1:]:
        claim, document, grade = line.split("\t")
        found = judged.setdefault(claim, [])
        if int(grade) > 0 and document in rows:
            found.append(rows[document])
    # The vectors stand in the order of the claims' file, of those that were judged.
    asking = [line["_id"] for line in _json_lines(folder / "scifact" / "queries.jsonl.gz") if line["_id"] in judged]
    able = [number for number, claim in enumerate(asking) if judged[claim]]
    rng = np.random.default_rng(0)
    questions = []
    for _ in range(_COMPOUNDS):
        parts = rng.choice(able, size=_PARTS, replace=False)
        facets = _merged((asking[part], judged[asking[part]]) for part in parts)
        questions.append(Asked(_unit(claims[parts].mean(axis=0)), facets))
    return FacetSet(name, vectors, questions)


def _merged(parts: Iterable[tuple[str, Iterable[int]]]) -> Facets:
    merged: dict[int, set[str]] = defaultdict(set)
    for topic, rows in parts:
        for row in rows:
            merged[row].add(topic)
    return merged


def _hotpot(name: str) -> FacetSet:
    _, documents, queries, judged = _judged("../multihop/hotpot-musique", 1)
    ids = [id for id in queries if len(judged.get(id, ())) > 1]
    facets = [{row: {str(row)} for row in judged[id]} for id in ids]
    return _text_set(name, "hotpot-musique", documents, [queries[id] for id in ids], facets)


def _locomo(name: str) -> FacetSet:
    rows, documents, queries, judged = _judged("locomo", 1)
    of_conversation: dict[str, list[int]] = defaultdict(list)
    for id, row in rows.items():
        of_conversation[id.split("/")[0]].append(row)
    ids = [id for id in queries if len(judged.get(id, ())) > 1]
    within = [np.array(of_conversation[id.split("/")[0]]) for id in ids]
    facets = [{row: {str(row)} for row in judged[id]} for id in ids]
    return _text_set(name, "locomo", documents, [queries[id] for id in ids], facets, within)


def _judged(folder: str, least_grade: int) -> tuple[dict[str, int], list[str], dict[str, str], dict[str, list[int]]]:
    """The row of each document that any question's judges looked at, their texts, the questions, and the relevant rows of each.

    Of the passages of msmarco, which are a pool of candidate lists, only judged ones are kept: of the others nobody knows.
    """
    path = data_folder() / "text" / folder
    if not path.exists():
        raise SystemExit(f"there is no {path}; set VECDB_DATA to the folder of data sets")
    lines = (path / "qrels" / "test.tsv").read_text().splitlines()[1:]
    grades = [(query, document, int(grade)) for query, document, grade in (line.split("\t") for line in lines)]
    looked_at = {document for _, document, _ in grades} if folder.startswith("msmarco") else None
    documents, rows = [], {}
    for line in _json_lines(path / "corpus.jsonl.gz"):
        if looked_at is None or line["_id"] in looked_at:
            rows[line["_id"]] = len(documents)
            documents.append(f"{line.get('title') or ''} {line['text']}".strip())
    judged: dict[str, list[int]] = defaultdict(list)
    for query, document, grade in grades:
        if grade >= least_grade and document in rows:
            judged[query].append(rows[document])
    queries = {line["_id"]: line["text"] for line in _json_lines(path / "queries.jsonl.gz")}
    return rows, documents, queries, judged


def _text_set(
    name: str,
    judged: str,
    documents: list[str],
    questions: list[str],
    facets: Sequence[Facets],
    within: Sequence[NDArray[np.int64]] | None = None,
) -> FacetSet:
    of_judged = sets.load(judged)
    row = {text: place for place, text in enumerate(of_judged.texts)}
    vectors = _unit(sets.vectors_of(of_judged)[0][[row[text] for text in documents]])
    asked = _embedded(f"{name}-questions", questions)
    rows = within or [None] * len(questions)
    return FacetSet(name, vectors, [Asked(*parts) for parts in zip(asked, facets, rows)])


def _embedded(name: str, texts: list[str]) -> Vectors:
    """(N, D) from the cache, in float16, which is half the size; made first if it is not there or of other texts."""
    from vecdb.embedding import load_embedder
    from vecdb.embedding.base import embed_in_batches

    digest = hashlib.sha256("\0".join(texts).encode()).hexdigest()[:12]
    path = CACHE / "select" / f"{name}-{digest}.npy"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        print(f"embedding {len(texts):,} texts of {name}", flush=True)
        made = embed_in_batches(load_embedder("default"), [text or "-" for text in texts])
        np.save(unfinished := path.with_suffix(".unfinished.npy"), made.astype(np.float16))
        unfinished.rename(path)
    return _unit(np.load(path))


def _json_lines(path: Path) -> list[dict[str, Any]]:
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def _unit(vectors: NDArray[Any]) -> Vectors:
    wide = np.asarray(vectors, dtype=np.float32)
    return wide / np.maximum(np.linalg.norm(wide, axis=-1, keepdims=True), 1e-12)


# -- pictures


def _fashion(name: str) -> FacetSet:
    pixels, kinds = _pictures("train")
    vectors, kinds = _unit(pixels[:_FASHION_ROWS]), kinds[:_FASHION_ROWS]
    shown, shown_kinds = _pictures("t10k")
    rng = np.random.default_rng(0)
    questions = []
    for group in _KINDS.values():
        facets = {int(row): {str(kinds[row])} for row in np.flatnonzero(np.isin(kinds, group))}
        for _ in range(_FASHION_QUESTIONS // len(_KINDS)):
            drawn = [rng.choice(np.flatnonzero(shown_kinds == kind)) for kind in group]
            questions.append(Asked(_unit(shown[drawn].mean(axis=0)), facets))
    return FacetSet(name, vectors, questions)


def _pictures(part: str) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """(N, 784) pixels and (N,) kinds."""
    paths = [_FASHION / f"{part}-{what}-ubyte.gz" for what in ("images-idx3", "labels-idx1")]
    if not all(path.exists() for path in paths):
        raise SystemExit("no Fashion-MNIST with labels: apt-get install dataset-fashion-mnist")
    pixels, kinds = (gzip.decompress(path.read_bytes()) for path in paths)
    return np.frombuffer(pixels, np.uint8, offset=16).reshape(-1, 784), np.frombuffer(kinds, np.uint8, offset=8)


# -- films


def _movielens(name: str) -> FacetSet:
    """Users with enough liked films ask; the factors come from all other ratings, so nothing of the answer is in them."""
    folder = data_folder() / "rec" / "ml-latest-small"
    if not folder.exists():
        raise SystemExit(f"there is no {folder}; set VECDB_DATA to the folder of data sets")
    genres = {line["movieId"]: line["genres"].split("|") for line in _table(folder / "movies.csv.gz")}
    liked: dict[str, list[str]] = defaultdict(list)
    for line in _table(folder / "ratings.csv.gz"):
        if float(line["rating"]) >= _LIKED:
            liked[line["userId"]].append(line["movieId"])
    counts: dict[str, int] = defaultdict(int)
    for films in liked.values():
        for film in films:
            counts[film] += 1
    row_of = {film: row for row, film in enumerate(sorted(film for film, count in counts.items() if count >= 5))}
    asking = sorted((user for user, films in liked.items() if len(films) >= _LEAST_LIKED), key=int)
    rng = np.random.default_rng(0)
    likes = np.zeros((len(liked), len(row_of)), np.float32)
    halves: list[tuple[list[int], list[int]]] = []
    for number, user in enumerate(sorted(liked, key=int)):
        rows = [row_of[film] for film in liked[user] if film in row_of]
        if user in set(asking):
            drawn = rng.permutation(rows).tolist()
            halves.append((drawn[: len(drawn) // 2], drawn[len(drawn) // 2 :]))
            rows = halves[-1][0]
        likes[number, rows] = 1
    likes /= np.sqrt(np.maximum(likes.sum(axis=0), 1))  # or the most liked films would be all that factors tell of
    _, values, right = np.linalg.svd(likes, full_matrices=False)
    vectors = _unit(right[:_FACTORS].T * values[:_FACTORS])
    names = {row: genres[film] for film, row in row_of.items()}
    questions = []
    for given, held_out in halves:
        others = np.setdiff1d(np.arange(len(row_of)), given)
        questions.append(Asked(_unit(vectors[given].mean(axis=0)), {row: set(names[row]) for row in held_out}, others))
    return FacetSet(name, vectors, questions)


def _table(path: Path) -> list[dict[str, str]]:
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        return list(csv.DictReader(lines))


SETS: dict[str, Callable[[str], FacetSet]] = {
    "compound-scifact": _scifact,
    "compound-cranfield": _compound("cranfield", 2),
    "compound-cisi": _compound("cisi", 1),
    "compound-nfcorpus": _compound("nfcorpus-bow", 1),
    "compound-dl19": _compound("msmarco-dl19", 2),
    "compound-dl21": _compound("msmarco-dl21", 2),
    "hotpot": _hotpot,
    "locomo": _locomo,
    "fashion": _fashion,
    "movielens": _movielens,
}
