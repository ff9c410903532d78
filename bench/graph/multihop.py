"""Questions that need two to four passages (HotpotQA, MuSiQue): are all of them among the first ten?

Every setting sees the same candidates' lists (100 deep) and gives ten. The control has a graph with the same degrees, weights and
kinds whose nodes have been exchanged at random, so that it means nothing.
"""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

import vecdb
from bench.data import Vectors, data_folder
from bench.intervals import mean_interval
from bench.retrieval import sets
from vecdb.index.adjacency import Adjacency

BETAS = (0.0, 0.15, 0.3, 0.45, 0.6)
KINDS: dict[str, tuple[str, ...]] = {
    "semantic": ("semantic",),
    "entity": ("entity",),
    "semantic + entity": ("semantic", "entity"),
}
_K, _CANDIDATES, _CONTROLS = 10, 100, 3
_NAME = re.compile(r"\b(?:[A-Z][\w'’.-]*)(?:\s+(?:of|the|de|von|van|and|in)?\s*[A-Z][\w'’.-]*)*")


@dataclass(frozen=True)
class Questions:
    """wanted: for each question the ids of all passages that it needs."""

    texts: list[str]
    vectors: Vectors
    wanted: list[frozenset[str]]


@dataclass(frozen=True)
class Outcome:
    """Of each question: whether all wanted passages are there, and the share of them that is."""

    complete: np.ndarray
    recall: np.ndarray

    def told(self, part: np.ndarray) -> dict[str, float]:
        return {"all@10": float(self.complete[part].mean()), "recall@10": float(self.recall[part].mean())}


def names_in(text: str) -> list[str]:
    """Capitalised phrases, and the title (the first line): a stand-in for a recogniser of entities, which has no model."""
    title, _, body = text.partition("\n")
    found = {match.strip(" .'’-") for match in _NAME.findall(body)}
    return [re.sub(r"\s*\(.*\)$", "", title), *(name for name in found if len(name) > 3)]


def measure(mode: str) -> Iterator[dict[str, Any]]:
    """One line for each setting of one search mode; the last ones are of the control and of tuned settings."""
    docs, questions = _loaded()
    halves = np.arange(len(questions.texts)) % 2 == 0
    everything = np.ones(len(halves), dtype=bool)
    plain = _outcome(docs, questions, mode, None)
    yield {"mode": mode, "kinds": None, "beta": 0.0, "graph": "none", **plain.told(everything)}
    outcomes: dict[tuple[str, float], Outcome] = {}
    for kinds, chosen in KINDS.items():
        for beta in BETAS:
            found = outcomes[kinds, beta] = _outcome(docs, questions, mode, {"beta": beta, "kinds": chosen})
            yield {"mode": mode, "kinds": kinds, "beta": beta, "graph": "true", **_against(found, plain, everything)}
    for number, tuned_on in enumerate((halves, ~halves)):
        best = max(outcomes, key=lambda key: (outcomes[key].complete[tuned_on].mean(), -key[1]))
        line = _against(outcomes[best], plain, ~tuned_on)
        yield {"mode": mode, "kinds": best[0], "beta": best[1], "graph": f"true, tuned on half {number}", **line}
    yield from _control(docs, questions, mode, plain)


def _control(docs: vecdb.Collection, questions: Questions, mode: str, plain: Outcome) -> Iterator[dict[str, Any]]:
    overlay = docs._engine._graph.overlays.current()
    true = overlay.graph
    for seed in range(_CONTROLS):
        numbers = np.random.default_rng(seed).permutation(len(true))
        overlay.graph = Adjacency.of(len(true), numbers[true.sources], numbers[true.targets], true.weights, true.labels)
        overlay.prints = None
        overlay._choices.clear()
        for kinds, chosen in KINDS.items():
            for beta in BETAS[1:]:
                found = _outcome(docs, questions, mode, {"beta": beta, "kinds": chosen})
                line = _against(found, plain, np.ones(len(questions.texts), dtype=bool))
                yield {"mode": mode, "kinds": kinds, "beta": beta, "graph": f"random {seed}", **line}
    overlay.graph = true
    overlay._choices.clear()


def _against(found: Outcome, plain: Outcome, part: np.ndarray) -> dict[str, Any]:
    """The figures of a part of the questions, and the gain over no graph with its 95 % interval (paired bootstrap)."""
    gains = found.complete[part].astype(float) - plain.complete[part]
    gain, low, high = mean_interval(gains)
    return {
        **found.told(part),
        "plain all@10": float(plain.complete[part].mean()),
        "gain": gain,
        "interval": [low, high],
        "won": int((gains > 0).sum()),
        "lost": int((gains < 0).sum()),
        "questions": int(part.sum()),
    }


def _outcome(docs: vecdb.Collection, questions: Questions, mode: str, graph: Mapping[str, Any] | None) -> Outcome:
    asked = questions.texts if mode != "vector" else None
    vectors = None if mode == "text" else questions.vectors
    answers = docs.search(asked, vector=vectors, mode=mode, k=_K, candidates=_CANDIDATES, graph=graph)
    shares = [len(wanted.intersection(hits.ids)) / len(wanted) for wanted, hits in zip(questions.wanted, answers)]
    return Outcome(np.array(shares) == 1.0, np.array(shares))


def _loaded() -> tuple[vecdb.Collection, Questions]:
    judged = sets.load("hotpot-musique")
    vectors, asked = sets.vectors_of(judged)
    with gzip.open(data_folder() / "multihop" / "hotpot-musique" / "corpus.jsonl.gz", "rt", encoding="utf-8") as lines:
        texts = [f"{line['title']}\n{line['text']}" for line in map(json.loads, lines)]
    docs = vecdb.open(":memory:", background=False).collection("passages", dimension=vectors.shape[1])
    docs.add(ids=judged.ids, texts=texts, vectors=vectors)
    docs.link_entities(names_in)
    docs.optimize()
    wanted = [frozenset(id for id, grade in judged.qrels[query].items() if grade > 0) for query in judged.queries]
    return docs, Questions(list(judged.queries.values()), asked, wanted)
