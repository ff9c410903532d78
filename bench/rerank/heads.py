"""Heads on the frozen default encoder: what training one is worth, and whether a deeper one trains better (arXiv 2510.12327).

Fitted on SciFact's training claims and CoSQA's dev queries; each kind's learning rate is the best of four on DL21; then seeds,
and collections that nothing was fitted nor tuned on. Every head begins as the same projection onto the main directions of the
states.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from bench.data import data_folder
from bench.intervals import mean_interval
from bench.rerank.states import States, fused, hybrid, states_of
from bench.retrieval.sets import Lists, lists_of, load, vectors_of
from vecdb.evaluation import evaluate_run
from vecdb.index.maxsim import maxsim
from vecdb.judged import load_judged
from vecdb.query.fusion import Fusion
from vecdb.rerank.models.loading import best_device
from vecdb.rerank.projection import Head, HeadConfig
from vecdb.rerank.training.projection import Recipe, Slate, taught_by_states, train_head

Line = dict[str, Any]

KINDS: dict[str, HeadConfig] = {
    "linear": HeadConfig("linear"),
    "ffn": HeadConfig("ffn", residual=False),
    "ffn+skip": HeadConfig("ffn"),
    "glu+skip": HeadConfig("glu"),
    "relu+skip": HeadConfig("ffn", activation="relu"),
}
# A product of matrices moves further at the same rate than one matrix does, so each kind has a grid around its own best.
RATES: dict[str, tuple[float, ...]] = {"linear": (1e-4, 3e-4, 1e-3, 3e-3)}
_DEEPER_RATES = (1e-5, 3e-5, 1e-4, 3e-4)
SHIPPED = HeadConfig("linear", dimension=128)
TRAINED_ON = {"scifact": "train", "cosqa": "dev"}
TUNED_ON = "msmarco-dl21"
_NEGATIVES = 7  # as many as a step looks at
_LOOKED_AT = 50


@dataclass(frozen=True)
class Set:
    """A judged collection whose candidates are reranked."""

    name: str
    lists: Lists
    candidates: list[list[tuple[int, float]]]
    states: States

    @classmethod
    def of(cls, name: str, fusion: Fusion | None = None) -> Set:
        """By reciprocal rank fusion, or by a fusion as the engine applies it."""
        judged = load(name)
        lists = lists_of(judged)
        candidates = hybrid(lists) if fusion is None else fused(lists, fusion)
        wanted = [document for query in candidates for document, _ in query[:_LOOKED_AT]]
        return cls(name, lists, candidates, states_of(judged, wanted, list(judged.queries.values()), "lists"))

    def ndcg(self, orders: Sequence[Sequence[tuple[int, float]]]) -> dict[str, float]:
        """nDCG@10 of each query."""
        qrels = {
            q.id: {str(d): g for d, g in grades.items()} for q, grades in zip(self.lists.queries, self.lists.grades)
        }
        run = {q.id: [(str(d), float(s)) for d, s in order] for q, order in zip(self.lists.queries, orders)}
        found = evaluate_run(run, qrels, measures=("nDCG@10",))
        return {query: values["nDCG@10"] for query, values in found.per_query.items()}

    def reranked(self, head: Head | None) -> list[list[tuple[int, float]]]:
        """By MaxSim; head None: of the states themselves, at unit length."""
        from vecdb.rerank.projection import unit

        project = unit if head is None else head.project
        vectors = {d: project(s.astype(np.float32)) for d, s in self.states.documents.items()}
        orders = []
        for query, candidates in zip(self.states.queries, self.candidates):
            documents = [document for document, _ in candidates[:_LOOKED_AT]]
            parts = [vectors[document] for document in documents]
            ends = np.cumsum([0] + [len(part) for part in parts]).astype(np.int64)
            scores = maxsim(project(query.astype(np.float32)), np.concatenate(parts), ends)
            orders.append(sorted(zip(documents, scores.tolist()), key=lambda item: -item[1])[:10])
        return orders


def slates_of_training(name: str, split: str, most: int | None = None) -> list[Slate]:
    """The split's queries (at most so many), each with its judged documents and the nearest others."""
    judged = load(name)
    train = load_judged(data_folder() / "text" / name, split=split)
    asked = dict(list(train.queries.items())[:most])
    texts = list(asked.values())
    from vecdb.embedding.minilm import MiniLM

    documents, _ = vectors_of(judged)
    nearest = np.argsort(-(MiniLM().embed_documents(texts) @ documents.T), axis=1)[:, : _NEGATIVES + 5]
    place = {id: i for i, id in enumerate(judged.ids)}
    lists = []
    for query, near in zip(asked, nearest.tolist()):
        good = [place[d] for d, grade in train.qrels[query].items() if grade > 0 and d in place]
        others = [d for d in near if d not in good][:_NEGATIVES]
        lists.append((good + others, np.array([1.0] * len(good) + [0.0] * len(others))))
    wanted = [document for found, _ in lists for document in found]
    states = states_of(judged, wanted, texts, split if most is None else f"{split}{most}")
    return [
        Slate(query, [states.documents[d] for d in found], targets)
        for query, (found, targets) in zip(states.queries, lists)
    ]


def slates_of_lists(judged: Set) -> list[Slate]:
    """The candidates of judged queries with their grades, 0 where nobody judged them."""
    slates = []
    for query, candidates, grades in zip(judged.states.queries, judged.candidates, judged.lists.grades):
        found = [document for document, _ in candidates[:_LOOKED_AT]]
        targets = np.array([max(0, grades.get(document, 0)) for document in found], dtype=np.float64)
        slates.append(Slate(query, [judged.states.documents[d] for d in found], targets))
    return slates


def study(
    names: Sequence[str],
    seeds: int,
    steps: int,
    kinds: Sequence[str] = tuple(KINDS),
    most: int | None = None,
) -> Iterator[Line]:
    """A line for each kind and rate on the set that is tuned on, then for each kind and seed on the others, with the nDCG of each
    query, so that `against_linear` can pair them. kinds may be measured in several runs. most: training queries of each set.
    """
    slates = [one for name, split in TRAINED_ON.items() for one in slates_of_training(name, split, most)]
    tuned_on = Set.of(TUNED_ON)
    recipe = Recipe(steps=steps)
    rates: dict[str, float] = {}
    for kind in kinds:
        of_rate = {}
        for rate in RATES.get(kind, _DEEPER_RATES):
            head, seconds = _timed(KINDS[kind], slates, replace(recipe, rate=rate))
            of_rate[rate] = _mean(tuned_on, head)
            about = {"kind": kind, "rate": rate, "train_s": seconds}
            yield {"step": "rate", "set": TUNED_ON, "ndcg": of_rate[rate], **about}
        rates[kind] = max(of_rate, key=lambda rate: of_rate[rate])
    sets = [Set.of(name) for name in names]
    variants = {kind: (KINDS[kind], steps, rates[kind]) for kind in kinds}
    if "linear" in kinds:
        variants["linear, twice as long"] = (KINDS["linear"], 2 * steps, rates["linear"])
        yield from _untrained(sets, train_head(KINDS["linear"], slates, replace(recipe, steps=1, rate=1e-12)))
    for seed in range(seeds):
        for kind, (config, long, rate) in variants.items():
            head, seconds = _timed(config, slates, replace(recipe, steps=long, rate=rate, seed=seed))
            for one in sets:
                found = one.ndcg(one.reranked(head))
                about = {"kind": kind, "seed": seed, "rate": rate, "train_s": seconds}
                values = [round(value, 4) for value in found.values()]
                yield {"step": "seed", "set": one.name, "ndcg": _average(found), **about, "queries": values}


def _untrained(sets: Sequence[Set], start: Head) -> Iterator[Line]:
    for one in sets:
        first = one.ndcg([candidates[:10] for candidates in one.candidates])
        yield {"step": "first", "set": one.name, "ndcg": _average(first)}
        yield {"step": "states", "set": one.name, "ndcg": _mean(one, None)}
        yield {"step": "pca", "set": one.name, "ndcg": _mean(one, start)}


def against_linear(lines: Sequence[Line]) -> dict[tuple[str, str], list[float]]:
    """(set, kind) -> [difference, low, high]: each query's mean over the seeds against that of the linear head, with the 95 %
    interval of draws of queries; of the "seed" lines of a study.
    """
    runs: dict[tuple[str, str], list[list[float]]] = {}
    for line in lines:
        if line["step"] == "seed":
            runs.setdefault((line["set"], line["kind"]), []).append(line["queries"])
    means = {own: np.mean(values, axis=0) for own, values in runs.items()}
    return {
        (name, kind): mean_interval(found - means[name, "linear"])
        for (name, kind), found in means.items()
        if kind != "linear" and (name, "linear") in means
    }


def train_default(out: str, steps: int, rate: float) -> Head:
    """The head that ships, of 128 dimensions: it learns to order candidates as the states of 384 do, on SciFact's training claims
    and the queries of DL21, whose judgements it does not see. Its numbers are rounded to half precision.
    """
    slates = taught_by_states(
        slates_of_training("scifact", "train") + slates_of_lists(Set.of(TUNED_ON)) * 4
    )  # 53 queries beside 809
    recipe = Recipe(steps=steps, rate=rate, sharpness=1 / Recipe.temperature)
    head = train_head(SHIPPED, slates, recipe, version="v1")
    half = {name: matrix.astype(np.float16).astype(np.float32) for name, matrix in head.weights.items()}
    facts = {**head.facts, "data": "states of SciFact (training claims) and TREC DL 2021; no judgements"}
    kept = Head(head.config, half, head.version, facts)
    kept.save(out)
    return kept


def _timed(config: HeadConfig, slates: Sequence[Slate], recipe: Recipe) -> tuple[Head, float]:
    since = time.process_time()
    head = train_head(config, slates, recipe, device=best_device())
    return head, time.process_time() - since


def _mean(judged: Set, head: Head | None) -> float:
    return _average(judged.ndcg(judged.reranked(head)))


def _average(values: dict[str, float]) -> float:
    return float(np.mean(list(values.values())))
