"""E2Rank on BM25's 100 candidates: the listwise query beside the plain query of the same model, and beside its controls.

Controls (each must be worse, or the texts are not what helps): random documents of the same list in the query, those of another
query; the same documents in another order (must be alike); and Rocchio's mean of the same documents' vectors, which reads
nothing. How many documents stand in the query, Rocchio's settings, and which of several encoders is looked at on the other sets,
are the best on the set that is tuned on.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.rerank.orders import MEASURE, evaluated, gain, line, sample
from bench.retrieval.sets import Judged, Lists, lists_of, load, vectors_of
from vecdb.evaluation import Evaluation
from vecdb.rerank.base import Candidate, Context, Task
from vecdb.rerank.e2rank import E2Rank
from vecdb.rerank.models.encoder import unit

Line = dict[str, Any]
TUNED_ON = "cranfield"
HELD_OUT = ("msmarco-dl19", "nfcorpus-bow", "dbpedia-50", "scifact", "cosqa")
_DEPTH = 100
_FEEDBACK = (5, 10, 16, 20)
_ROCCHIO = tuple((count, share) for count in (3, 5, 10, 20) for share in (0.5, 0.7, 0.85))


@dataclass
class Space:
    """One collection in the space of one encoder: BM25's candidates of a sample of queries, and all vectors that are compared."""

    judged: Judged
    lists: Lists
    encoder: Any  # ListwiseEncoder
    places: list[int]
    documents: NDArray[np.float32]
    plain: NDArray[np.float32]
    _plain: Evaluation | None = field(default=None, repr=False)

    @classmethod
    def of(cls, name: str, encoder: Any, queries: int) -> Space:
        """encoder None: the default model, whose vectors are kept; else the candidates are encoded now, as adding them would."""
        judged = load(name)
        lists = lists_of(judged)
        places = sample(lists, queries)
        if encoder is None:
            return cls(judged, lists, _default_encoder(), places, *vectors_of(judged))
        pool = sorted({int(d) for p in places for d in lists.queries[p].text_docs[:_DEPTH]})
        vectors = encoder.encode([judged.texts[d] for d in pool])
        documents = np.zeros((len(judged.texts), vectors.shape[1]), np.float32)
        documents[pool] = vectors
        return cls(judged, lists, encoder, places, documents, encoder.encode([q.text for q in lists.queries]))

    def listed(self, place: int) -> list[int]:
        return [int(d) for d in self.lists.queries[place].text_docs[:_DEPTH]]

    def by_cosine(self, place: int, vector: NDArray[np.float32]) -> list[int]:
        own = self.listed(place)
        return [own[i] for i in np.argsort(-(self.documents[own] @ vector), kind="stable")] if own else []

    def rocchio(self, place: int, count: int, share: float) -> list[int]:
        own = self.listed(place)[:count]
        mean = unit(self.documents[own].mean(0)) if own else self.plain[place]
        return self.by_cosine(place, share * self.plain[place] + (1 - share) * mean)

    def rocchio_measured(self, count: int, share: float) -> Evaluation:
        return self.measured(lambda p: self.rocchio(p, count, share))

    def listwise(self, feedback: int, shown: Callable[[int], list[int]]) -> tuple[dict[int, list[int]], Line]:
        """Orders by the query with the documents that `shown` gives, and what that took."""
        asked = [p for p in self.places if self.listed(p)]
        # The reranker reads the first of what it is given; what is only read is taken out of its answer.
        given = {p: shown(p)[:feedback] for p in asked}
        tasks = [
            Task(self.lists.queries[p].text, [self._candidate(d) for d in given[p] + self.listed(p)], 10_000)
            for p in asked
        ]
        since = time.process_time()
        answers = E2Rank(self.encoder, feedback=feedback).rerank_batch(tasks, Context())
        taken = time.process_time() - since
        orders: dict[int, list[int]] = {p: [] for p in self.places}
        for p, answer in zip(asked, answers):
            own, read = self.listed(p), len(given[p])
            orders[p] = [own[r.position - read] for r in answer if r.position >= read]
        work = {
            "ms": 1e3 * taken / max(1, len(asked)),
            "forward_passes": float(np.mean([a.counters["forward_passes"] for a in answers])),
            "prompt_tokens": float(np.mean([a.counters.get("prompt_tokens", 0) for a in answers])),
        }
        return orders, work

    def _candidate(self, d: int) -> Candidate:
        return Candidate(self.judged.ids[d], self.judged.texts[d], 0.0, embedding=self.documents[d])

    def measured(self, order: Callable[[int], list[int]]) -> Evaluation:
        return evaluated(self.lists, {p: order(p) for p in self.places})


def study(models: Sequence[str | None], names: Sequence[str], queries: int) -> Iterator[Line]:
    """models: folders of encoders; None: the default model, which was not trained for this. Lines have "step" tune or test."""
    tuned: list[tuple[float, int, tuple[int, float], str | None, Any]] = []
    for model in models:
        encoder = _encoder(model)
        lines, *best = _tuned(Space.of(TUNED_ON, encoder, queries), model)
        yield from lines
        tuned.append((*best, model, encoder))
    _, feedback, mean, model, encoder = max(tuned, key=lambda own: own[0])
    for name in names:
        yield from _tested(Space.of(name, encoder, queries), model, feedback, mean)


def _tuned(space: Space, model: str | None) -> tuple[list[Line], float, int, tuple[int, float]]:
    """Lines, and of the best listwise query: its measure, how many documents it has; and the best settings of Rocchio's mean."""
    plain = space.measured(lambda p: space.by_cosine(p, space.plain[p]))
    lines = [_told(space, model, "plain query", plain, plain, {}, "tune")]
    found, means = {}, {}
    for feedback in _FEEDBACK:
        orders, work = space.listwise(feedback, space.listed)
        found[feedback] = evaluated(space.lists, orders)
        lines.append(
            _told(space, model, "listwise query", found[feedback], plain, {"feedback": feedback, **work}, "tune")
        )
    for count, share in _ROCCHIO:
        means[count, share] = space.rocchio_measured(count, share)
        about = {"feedback": count, "share": share}
        lines.append(_told(space, model, "rocchio", means[count, share], plain, about, "tune"))
    best = max(found, key=lambda feedback: found[feedback].means[MEASURE])
    return lines, found[best].means[MEASURE], best, max(means, key=lambda own: means[own].means[MEASURE])


def _tested(space: Space, model: str | None, feedback: int, mean: tuple[int, float]) -> Iterator[Line]:
    chance = np.random.default_rng(0)
    others = dict(zip(space.places, space.places[1:] + space.places[:1]))

    def drawn(p: int) -> list[int]:
        return [int(d) for d in chance.permutation(space.listed(p))]

    def turned(p: int) -> list[int]:
        return [int(d) for d in chance.permutation(space.listed(p)[:feedback])]

    plain = space.measured(lambda p: space.by_cosine(p, space.plain[p]))
    rocchio = space.rocchio_measured(*mean)
    yield _told(space, model, "bm25", space.measured(space.listed), plain, {}, "test")
    yield _told(space, model, "plain query", plain, plain, {}, "test")
    yield _told(space, model, "rocchio", rocchio, plain, {"feedback": mean[0], "share": mean[1]}, "test")
    ways: dict[str, Callable[[int], list[int]]] = {
        "listwise query": space.listed,
        "the same, shuffled": turned,
        "random documents": drawn,
        "another query's documents": lambda p: space.listed(others[p]),
    }
    whole: Evaluation | None = None
    for way, shown in ways.items():
        orders, work = space.listwise(feedback, shown)
        found = evaluated(space.lists, orders)
        whole = whole or found
        against = {"over_rocchio": gain(found, rocchio)} if found is whole else {"below_listwise": gain(found, whole)}
        yield _told(space, model, way, found, plain, {"feedback": feedback, **work, **against}, "test")


def _told(
    space: Space, model: str | None, way: str, found: Evaluation, plain: Evaluation, more: Line, step: str
) -> Line:
    named = "default" if model is None else Path(model).name
    about = {
        "step": step,
        "model": named,
        "pooling": getattr(space.encoder, "pooling", "mean"),
        "against": "plain query",
    }
    return line(space.judged, way, found, plain, {**about, **more})


def _encoder(model: str | None) -> Any:
    if model is None:
        return None
    from vecdb.rerank.models.encoder import TextEncoder
    from vecdb.rerank.models.loading import best_device, load_encoder

    network, tokenizer = load_encoder(model)
    return TextEncoder(network.to(best_device()), tokenizer, max_tokens=512, batch=32)


def _default_encoder() -> Any:
    from vecdb.embedding import load_embedder
    from vecdb.rerank.models.encoder import EmbedderAsEncoder

    return EmbedderAsEncoder(load_embedder("default").embed_queries)  # type: ignore[attr-defined]
