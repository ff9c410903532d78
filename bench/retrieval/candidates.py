"""Lists of other systems: BM25 and a trained dense or sparse encoder over all of MS MARCO, 100 candidates a query.

No vectors and no index of ours are in them, so that they show what a fusion does with any two lists. How rare the words are is
taken from the pooled passages.
"""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np

from bench.data import data_folder
from bench.retrieval.sets import Lists, QueryLists, evidence_of, load


def candidate_lists(name: str, vector_run: str, text_run: str = "bm25") -> Lists:
    """The lists of runs/*.tsv.gz, judged by every judgement there is, also of passages that are not in the pool."""
    judged = load(name)
    folder = data_folder() / "text" / name
    by_vector, by_text = (read_run(folder / "runs" / f"{run}.tsv.gz") for run in (vector_run, text_run))
    grades = _all_grades(folder / "qrels" / "test.full.tsv")
    evidence = evidence_of(judged)
    queries, judgements = [], []
    for (id, text), known in zip(judged.queries.items(), evidence):
        names = dict.fromkeys([d for d, _ in by_vector[id]] + [d for d, _ in by_text[id]] + list(grades[id]))
        place = {document: i for i, document in enumerate(names)}
        columns = [
            (np.array([place[d] for d, _ in run[id]], dtype=np.int32), np.array([s for _, s in run[id]]))
            for run in (by_vector, by_text)
        ]
        queries.append(QueryLists(id, text, *columns[0], *columns[1], known.stems, np.array(known.frequencies)))
        judgements.append({place[d]: grade for d, grade in grades[id].items()})
    return Lists(f"{name} ({vector_run} + {text_run})", name, len(judged.ids), queries, judgements)


def read_run(path: Path) -> dict[str, list[tuple[str, float]]]:
    found: dict[str, list[tuple[str, float]]] = {}
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        next(lines)
        for line in lines:
            query, document, _, score = line.rstrip("\n").split("\t")
            found.setdefault(query, []).append((document, float(score)))
    return found


def _all_grades(path: Path) -> dict[str, dict[str, int]]:
    grades: dict[str, dict[str, int]] = {}
    for line in path.read_text().splitlines()[1:]:
        query, document, grade = line.split("\t")
        grades.setdefault(query, {})[document] = int(grade)
    return grades
