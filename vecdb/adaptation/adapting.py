"""Fitting a collection's query map, and the gate that it has to pass. See Collection.adapt."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import apsw
import numpy as np

from vecdb.adaptation.kept import KIND
from vecdb.adaptation.maps import FitSettings, Lesson, QueryMap, fit_map
from vecdb.adaptation.mining import Asked, Miner
from vecdb.definition import Definition
from vecdb.errors import InvalidInput, ReadOnly
from vecdb.evaluation import BootstrapResult, Evaluation, paired_bootstrap
from vecdb.query.request import SearchOptions
from vecdb.query.retrieval import Retrieval
from vecdb.storage import Store

MEASURE = "nDCG@10"

_DEPTH = 10
_LEAST_DOCUMENTS = 30  # in each half
_EMBEDDING_SHARE = 0.4  # of the budget


@dataclass(frozen=True, kw_only=True)
class Adaptation:
    """What came of an adaptation. before, after, gain: nDCG@10 of the documents that held-out queries were made of, by vector
    alone; gain with its 95 % interval (paired bootstrap over documents). control: the gain of a map that was fitted in the same
    way to queries whose documents were exchanged; the gate must refuse it. shared_documents, shared_queries: how many documents
    and texts of queries both halves have, counted afterwards (0, or the gate would mean nothing).
    """

    is_accepted: bool
    is_applied: bool
    reason: str
    before: float
    after: float
    gain: BootstrapResult
    control: BootstrapResult
    triples: int
    learning_documents: int
    gate_documents: int
    gate_queries: int
    shared_documents: int
    shared_queries: int
    rank: int
    seconds: float
    model: str | None
    version: str

    @property
    def is_control_refused(self) -> bool:
        return self.control.low <= 0

    def __str__(self) -> str:
        used = "used by searches from now on" if self.is_applied else "not used"
        lines = [
            f"{'accepted' if self.is_accepted else 'refused'}, {used}: {self.reason}",
            f"{MEASURE} of {self.gate_queries} held-out queries: {self.before:.4f} -> {self.after:.4f}, {_shown(self.gain)}",
            f"control with exchanged documents: {_shown(self.control)}, {'refused' if self.is_control_refused else 'PASSED'}",
            f"{self.triples} triples from {self.learning_documents} documents, judged by {self.gate_documents} others; in both: "
            f"{self.shared_documents} documents, {self.shared_queries} queries",
            f"rank {self.rank}, {self.seconds:.1f} s, version {self.version}",
        ]
        return "\n".join(lines)


def adapt_collection(
    store: Store,
    definition: Definition,
    retrieval: Retrieval,
    miner: Miner,
    *,
    sample: int,
    budget_s: float,
    seed: int,
    apply: bool,
) -> Adaptation:
    """Mine, fit, judge, and with apply keep what was accepted."""
    if apply and store.read_only:
        raise ReadOnly(
            "what a database opened with read_only=True searches by cannot be changed; open it without, or give apply=False"
        )
    attempt = attempted(definition, retrieval, miner, sample=sample, budget_s=budget_s, seed=seed)
    adaptation = replace(attempt.adaptation, is_applied=apply and attempt.adaptation.is_accepted)
    if adaptation.is_applied:
        with store.write() as db:
            definition.refresh(db)
            definition.kept.put(db, KIND, asdict(adaptation), arrays=attempt.fitted.arrays())
    return adaptation


@dataclass(frozen=True, slots=True)
class Attempt:
    """What came of it, the map, and the control."""

    adaptation: Adaptation
    fitted: QueryMap
    control: QueryMap


def attempted(
    definition: Definition, retrieval: Retrieval, miner: Miner, *, sample: int, budget_s: float, seed: int
) -> Attempt:
    """Mine, fit and judge; nothing is kept."""
    since = time.perf_counter()
    check_drawing(sample, seed)
    _check_budget(budget_s)
    learning, judging = miner.halves(miner.asked(sample, since + _EMBEDDING_SHARE * budget_s))
    _check_halves(definition.name, learning, judging)
    triples = miner.triples(learning)
    if not len(triples.asked):
        raise InvalidInput(
            f"the word list and the vector list agree on every query made of collection {definition.name!r}; there is nothing "
            "to learn"
        )
    settings, lesson = FitSettings(), triples.lesson
    metric = definition.config.metric
    fitted = fit_map(lesson, metric, settings=settings, seed=seed)
    control = fit_map(exchanged(lesson, seed), metric, settings=settings, seed=seed)
    before, after, without_sense = (_found(retrieval, judging, m) for m in (None, fitted, control))
    gain, gain_of_control = (paired_bootstrap(found, before, MEASURE, seed=seed) for found in (after, without_sense))
    is_accepted, reason = judged(gain, gain_of_control)
    adaptation = Adaptation(
        is_accepted=is_accepted,
        is_applied=False,
        reason=reason,
        before=before.means[MEASURE],
        after=after.means[MEASURE],
        gain=gain,
        control=gain_of_control,
        triples=lesson.negatives.size,
        learning_documents=len(triples.asked.documents),
        gate_documents=len(judging.documents),
        gate_queries=len(judging),
        shared_documents=len(_texts(learning) & _texts(judging)) + len(learning.documents & judging.documents),
        shared_queries=len(set(learning.texts) & set(judging.texts)),
        rank=settings.rank,
        seconds=time.perf_counter() - since,
        model=definition.config.model,
        version=version_of(fitted),
    )
    return Attempt(adaptation, fitted, control)


def judged(gain: BootstrapResult, control: BootstrapResult) -> tuple[bool, str]:
    """Whether a map passes the gate, and why: its gain must be beyond chance, and that of a control without sense must not."""
    if control.low > 0:
        return (
            False,
            "a map fitted to exchanged documents seems to help as well, so the gate cannot tell; give more documents",
        )
    if gain.low > 0:
        return True, "held-out documents are found better, beyond chance"
    if gain.high < 0:
        return False, "held-out documents are found worse"
    return False, "held-out documents are not found better beyond chance"


def exchanged(lesson: Lesson, seed: int) -> Lesson:
    """The same, with every query given the document of another one's."""
    order = np.random.default_rng([seed, 1]).permutation(len(lesson.positives))
    positives = lesson.positives.copy()
    positives[order] = lesson.positives[np.roll(order, 1)]
    return replace(lesson, positives=positives)


def kept_adaptation(db: apsw.Connection, definition: Definition) -> Adaptation | None:
    """What came of the adaptation whose map is in use; None if none is."""
    saved = definition.kept.get(db, KIND)
    return None if saved is None else adaptation_from_json(saved)


def adaptation_from_json(saved: Mapping[str, Any]) -> Adaptation:
    both = {name: BootstrapResult(**saved[name]) for name in ("gain", "control")}
    return Adaptation(**{name: both.get(name, saved[name]) for name in Adaptation.__dataclass_fields__})


def version_of(fitted: QueryMap) -> str:
    """Eight characters that differ for different maps."""
    digest = hashlib.blake2b(digest_size=4)
    for array in fitted.arrays().values():
        digest.update(array.astype("<f4").tobytes())
    return digest.hexdigest()


def _found(retrieval: Retrieval, judging: Asked, with_map: QueryMap | None) -> Evaluation:
    """How high each document comes in the vector lists of the queries made of it: nDCG@10, mean over its queries."""
    vectors = judging.vectors if with_map is None else with_map(judging.vectors)
    rankings = retrieval.by_vector(vectors, _DEPTH, None, SearchOptions(mode="vector", k=_DEPTH)).rankings
    gains: dict[str, list[float]] = {}
    for source, ranking in zip(judging.sources, rankings):
        places = np.flatnonzero(ranking.rows[:_DEPTH] == source.row)
        gains.setdefault(source.document, []).append(1 / np.log2(places[0] + 2) if len(places) else 0.0)
    per_query = {document: {MEASURE: float(np.mean(values))} for document, values in gains.items()}
    return Evaluation({MEASURE: float(np.mean([found[MEASURE] for found in per_query.values()]))}, per_query)


def _texts(asked: Asked) -> set[bytes]:
    return {source.text_hash for source in asked.sources}


def check_drawing(sample: int, seed: int) -> None:
    """Raises InvalidInput for a sample that cannot be divided into two halves of some size, or a seed that is none."""
    least = 2 * _LEAST_DOCUMENTS
    if isinstance(sample, bool) or not isinstance(sample, int | np.integer) or sample < least:
        raise InvalidInput(f"sample is {sample!r}; it must be a whole number of records, at least {least}")
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or seed < 0:
        raise InvalidInput(f"seed is {seed!r}; it must be a whole number, 0 or above")


def _check_budget(budget_s: float) -> None:
    if isinstance(budget_s, bool) or not isinstance(budget_s, int | float) or not 0 < budget_s < float("inf"):
        raise InvalidInput(f"budget_s is {budget_s!r}; it must be a number of seconds above 0")


def _check_halves(collection: str, learning: Asked, judging: Asked) -> None:
    """Raise InvalidInput where there is too little to learn from or to judge by."""
    least = min(len(learning.documents), len(judging.documents))
    if least < _LEAST_DOCUMENTS:
        raise InvalidInput(
            f"of the documents of collection {collection!r}, {len(learning.documents)} were drawn to learn from and "
            f"{len(judging.documents)} to judge by; {_LEAST_DOCUMENTS} each are needed: add some, or give more sample or budget_s"
        )


def _shown(found: BootstrapResult) -> str:
    return f"{found.difference:+.4f} ({found.low:+.4f} … {found.high:+.4f})"
