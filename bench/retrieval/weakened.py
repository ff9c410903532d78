"""The same collections with one list made worse: a fusion should learn what lists look like when they fail.

Of fourteen collections few have a bad list, and nearly all vectors are of one model; a learner would take what else these few
have in common for the sign of it. So each is there with vectors of few dimensions (a poor model) and with questions of few words.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from bench.retrieval.sets import Judged, Lists, cached_lists, lists_from, make_lists, vectors_of
from vecdb.function_words import ENGLISH

DIMENSIONS = (24, 8)
SHARES = (0.5, 0.25)  # of a question's words
_MOST_QUERIES = 400
_DEPTH = 110  # what a fusion for 10 hits looks at, and a little more


def weakened(judged: Judged) -> Iterator[Lists]:
    """Four of them; made on first use by vecdb's engine."""
    few = _with_few_queries(judged)
    of_documents, of_queries = vectors_of(judged)
    places = [list(judged.queries).index(id) for id in few.queries]
    of_queries = of_queries[places]
    for dimensions in DIMENSIONS:

        def poorer(dimensions: int = dimensions) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
            axes = _principal_axes(of_documents, dimensions)
            return of_documents @ axes, of_queries @ axes

        queries = cached_lists(few, f"-{dimensions}d", lambda few=few, made=poorer: make_lists(few, *made(), _DEPTH))  # type: ignore[misc]
        yield lists_from(few, queries, f"{judged.name}, {dimensions} dimensions")
    for share in SHARES:
        asked = replace(few, queries=_shortened(few.queries, share))
        queries = cached_lists(
            few,
            f"-{share}",
            lambda asked=asked: make_lists(asked, of_documents, of_queries, _DEPTH),  # type: ignore[misc]
        )
        yield lists_from(few, queries, f"{judged.name}, {share:.0%} of the words")


def _with_few_queries(judged: Judged) -> Judged:
    ids = list(judged.queries)
    if len(ids) > _MOST_QUERIES:
        chosen = np.random.default_rng(0).choice(len(ids), _MOST_QUERIES, replace=False)
        ids = [ids[place] for place in np.sort(chosen)]
    return replace(judged, queries={id: judged.queries[id] for id in ids})


def _principal_axes(vectors: NDArray[np.float32], count: int) -> NDArray[np.float32]:
    """(D, count) along which (N, D) vectors vary most."""
    _, axes = np.linalg.eigh(np.cov(vectors.T))
    return np.ascontiguousarray(axes[:, ::-1][:, :count], dtype=np.float32)


def _shortened(queries: dict[str, str], share: float) -> dict[str, str]:
    """Each with that share of its words at random, at least one; function words do not count."""
    rng = np.random.default_rng(1)
    found = {}
    for id, text in queries.items():
        words = [word for word in text.split() if word.casefold().strip("?.,!\"'()") not in ENGLISH] or text.split()
        kept = np.flatnonzero(rng.random(len(words)) < share)
        found[id] = " ".join(words[place] for place in kept) or words[int(rng.integers(len(words)))]
    return found
