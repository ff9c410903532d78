"""Whether a search says that it found nothing: own questions of each collection against those of all others.

The probability is learned on the other collections. Besides, the own questions once more with their relevant documents taken out
of the lists: questions of the field that have no answer.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from bench.retrieval.measure import given
from bench.retrieval.sets import Judged, QueryLists, cached_lists, family_of, make_lists, vectors_of
from vecdb.query.fusion import Adaptive, fuse
from vecdb.query.fusion.learning import Floats
from vecdb.relevance import LOOKED_AT, MOST_DOUBT, signs

_MOST = 300  # questions of each kind
_DEPTH = 110

Line = dict[str, Any]


@dataclass(frozen=True)
class Signs:
    """(Q, 2) of own, foreign and unanswerable questions: the best cosine, and the coverage."""

    judged: Judged
    own: Floats
    foreign: Floats
    unanswerable: Floats


def signs_of(judged: Judged, others: Sequence[Judged], *, with_vectors: bool = True) -> Signs:
    """others: whose questions are asked as foreign ones, as many of each; those of the same family are left out."""
    rng = np.random.default_rng(0)
    own = _some(judged, _MOST, rng)
    strangers = [other for other in others if other.name not in family_of(judged.name)]
    share = len(own.queries) // len(strangers) + 1
    asked = {f"{o.name} {id}": (text, v) for o in strangers for id, text, v in _with_vectors(_some(o, share, rng), o)}
    digest = hashlib.sha256(json.dumps([judged.checksum, list(asked)]).encode()).hexdigest()[:12]
    # By another name, so that none is taken for one about a part of the collection.
    name = f"{judged.name}-foreign"
    foreign = replace(judged, name=name, queries={id: text for id, (text, _) in asked.items()}, checksum=digest)
    documents, _ = vectors_of(judged)
    own_vectors = np.array([vector for *_, vector in _with_vectors(own, judged)])
    foreign_vectors = np.array([vector for _, vector in asked.values()])
    lists = cached_lists(own, "-own", lambda: make_lists(own, documents, own_vectors, 2 * _DEPTH))
    of_others = cached_lists(foreign, "", lambda: make_lists(foreign, documents, foreign_vectors, _DEPTH))
    place = {id: i for i, id in enumerate(judged.ids)}
    relevant = [{place[d] for d, grade in judged.qrels[query.id].items() if grade > 0} for query in lists]
    without = [_without(query, rows) for query, rows in zip(lists, relevant)]
    return Signs(judged, *(_signs(part, judged, with_vectors) for part in (lists, of_others, without)))


def _some(judged: Judged, most: int, rng: np.random.Generator) -> Judged:
    ids = list(judged.queries)
    chosen = np.sort(rng.choice(len(ids), min(most, len(ids)), replace=False)).tolist()
    return replace(judged, queries={ids[place]: judged.queries[ids[place]] for place in chosen})


def _with_vectors(some: Judged, whole: Judged) -> Iterator[tuple[str, str, Any]]:
    """Id, text and vector (D,) of each question of some, which are of whole."""
    vectors = dict(zip(whole.queries, vectors_of(whole)[1]))
    return ((id, text, vectors[id]) for id, text in some.queries.items())


def _without(query: QueryLists, rows: set[int]) -> QueryLists:
    by_vector, by_text = (~np.isin(docs, list(rows)) for docs in (query.vector_docs, query.text_docs))
    return replace(
        query,
        vector_docs=query.vector_docs[by_vector],
        vector_scores=query.vector_scores[by_vector],
        text_docs=query.text_docs[by_text],
        text_scores=query.text_scores[by_text],
    )


def _signs(queries: Sequence[QueryLists], judged: Judged, with_vectors: bool) -> Floats:
    found = []
    for query in queries:
        (vector, text), evidence = given(query, 10, 100, len(judged.ids))
        ranking = fuse([vector, text], Adaptive(), evidence).ranking if with_vectors else text
        texts = [judged.texts[row] for row in ranking.rows[:LOOKED_AT].tolist()]
        found.append(signs(query.text, texts, float(vector.scores[:1].max(initial=0.0)) if with_vectors else None))
    return np.array(found)


def learned(taught: Sequence[Signs]) -> tuple[float, float, float]:
    """Bias and slopes of the probability that there is no answer; own and foreign questions of each collection count the same."""
    inputs = np.vstack([part for signs in taught for part in (signs.own, signs.foreign)])
    inputs = np.column_stack([np.ones(len(inputs)), inputs])
    truth = np.concatenate([np.repeat((0.0, 1.0), (len(s.own), len(s.foreign))) for s in taught])
    shares = np.concatenate(
        [np.repeat((1 / len(s.own), 1 / len(s.foreign)), (len(s.own), len(s.foreign))) for s in taught]
    )
    shares /= shares.sum()
    values = np.zeros(3)
    for _ in range(50):  # Newton's method
        chances = 1 / (1 + np.exp(-(inputs @ values)))
        gradient = inputs.T @ (shares * (truth - chances))
        curvature = (inputs * (shares * chances * (1 - chances))[:, None]).T @ inputs + 1e-9 * np.eye(3)
        values = values + np.linalg.solve(curvature, gradient)
    bias, by_cosine, by_coverage = values.tolist()
    return bias, by_cosine, by_coverage


def signs_of_all(judged: Mapping[str, Judged]) -> dict[str, list[Signs]]:
    """Of each collection, by what is looked at; no collection is left without strangers."""
    kinds = {"cosine and words": True, "words": False}
    every = list(judged.values())
    asked = [one for one in every if any(other.name not in family_of(one.name) for other in every)]
    return {kind: [signs_of(one, every, with_vectors=both) for one in asked] for kind, both in kinds.items()}


def lines_of(all_signs: Mapping[str, Sequence[Signs]]) -> Iterator[Line]:
    """all_signs: by what is looked at. A line for each collection, by what the others teach."""
    for kind, found in all_signs.items():
        for one in found:
            family = family_of(one.judged.name)
            bias, *slopes = learned([other for other in found if other.judged.name not in family])
            own, foreign, unanswerable = (
                1 / (1 + np.exp(-(bias + part @ np.array(slopes)))) for part in (one.own, one.foreign, one.unanswerable)
            )
            yield {
                "set": one.judged.name,
                "by": kind,
                "own": len(own),
                "foreign": len(foreign),
                "auc": area(own, foreign),
                "ece": calibration_error(own, foreign),
                "answered": float(np.mean(own <= MOST_DOUBT)),
                "refused": float(np.mean(foreign > MOST_DOUBT)),
                "auc_unanswerable": area(own, unanswerable),
                "refused_unanswerable": float(np.mean(unanswerable > MOST_DOUBT)),
            }


def area(low: Floats, high: Floats) -> float:
    """Under the ROC curve: how often one of high is above one of low, ties as half."""
    order = np.sort(low)
    below = np.searchsorted(order, high, "left") + np.searchsorted(order, high, "right")
    return float(below.mean() / (2 * len(low)))


def calibration_error(own: Floats, foreign: Floats, bins: int = 10) -> float:
    """Expected: the mean distance of probability and frequency in bins of equal width, weighed by what lies in them."""
    chances = np.concatenate([own, foreign])
    truth = np.repeat((0.0, 1.0), (len(own), len(foreign)))
    places = np.minimum((chances * bins).astype(np.int64), bins - 1)
    parts = [places == place for place in range(bins)]
    return float(sum(abs(chances[p].mean() - truth[p].mean()) * p.mean() for p in parts if p.any()))
