"""Whether anything that a search found is about the question: the rule by which RAG refuses instead of inventing.

A search always returns its k best, however bad. Two signals tell more than ranks: the best cosine of the question's vector with a
stored one, and the share of the question's informative words that stand in one of the first texts. `no_answer` makes of them the
probability that nothing relevant was found; `relevances` is the same for each hit, as a sum, and tells which passages to keep.

`python -m bench retrieval` measures it on 14 collections, each with a probability that the others taught: its own questions
against as many of theirs. It tells fields apart, not answers: of questions of the right field whose documents were taken out
most pass. And where nearly all questions are of the field, it doubts too much, for it counts as many foreign as own ones.
Cosines are those of the default model; another one's lie elsewhere, so that `no_answer` says nothing of them, and the threshold
of `relevances` may have to be given (min_relevance).
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from vecdb.function_words import ENGLISH
from vecdb.types import Hit, Metric

MOST_DOUBT = 0.5  # the probability above which a question is refused
LOOKED_AT = 5  # of the first texts

# Logistic: bias, and what the best cosine and the largest coverage add, as `python -m bench retrieval --learn` finds them.
_BY_BOTH = (10.222, -17.142, -4.798)
_BY_WORDS = (4.073, 0.0, -7.889)

COVERAGE_WEIGHT = 0.3
MIN_RELEVANCE = 0.5  # of the best hit, with vectors
MIN_COVERAGE = 0.5  # of the best hit, where only words were searched

_WORD = re.compile(r"[^\W_]+")
_UNSPACED = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]")  # kana and Chinese characters
_ENDINGS = ("ing", "edly", "ed", "es", "s", "ly")


@dataclass(frozen=True, slots=True)
class Relevance:
    """How much a hit is about the question. score: what is compared with threshold; both are about 0 … 1.3."""

    score: float
    threshold: float

    @property
    def is_enough(self) -> bool:
        return self.score >= self.threshold


def informative_words(text: str) -> frozenset[str]:
    """The text's words without function words, cut to rough stems; runs of unspaced scripts as pairs of characters."""
    words: set[str] = set()
    for word in _WORD.findall(text.casefold()):
        if _UNSPACED.search(word):
            words.update(word[i : i + 2] for i in range(max(1, len(word) - 1)))
        elif word not in ENGLISH:
            words.add(_stem(word))
    return frozenset(words)


def _stem(word: str) -> str:
    for ending in _ENDINGS:
        if word.endswith(ending) and len(word) - len(ending) >= 4:
            return word[: -len(ending)]
    return word


def coverage(words: frozenset[str], text: str) -> float:
    """Share of these words that stand in the text; 0 if there are none."""
    if not words:
        return 0.0
    folded = text.casefold()
    return sum(_stands_in(word, folded) for word in words) / len(words)


def _stands_in(word: str, folded: str) -> bool:
    """Words are rough stems, so that anywhere will do; but short ones stand in many others, and must begin one."""
    if word not in folded:
        return False
    if len(word) > 3 or _UNSPACED.search(folded):
        return True
    return re.search(rf"(?<![^\W_]){word}", folded) is not None


def signs(question: str, texts: Sequence[str | None], cosine: float | None) -> tuple[float, float]:
    """The best cosine, 0 where it is unknown, and the largest coverage of the first texts."""
    words = informative_words(question)
    return cosine or 0.0, max((coverage(words, text or "") for text in texts[:LOOKED_AT]), default=0.0)


def no_answer(question: str, texts: Sequence[str | None], cosine: float | None) -> float:
    """The probability that nothing relevant was found. texts: of the hits, best first. cosine: the largest there is, by the
    default model; None: only words can be judged.
    """
    if not texts:
        return 1.0
    bias, by_cosine, by_coverage = _BY_WORDS if cosine is None else _BY_BOTH
    best, covered = signs(question, texts, cosine)
    return 1.0 / (1.0 + math.exp(-(bias + by_cosine * best + by_coverage * covered)))


def relevances(
    question: str, hits: Sequence[Hit], metric: Metric, min_relevance: float | None = None
) -> list[Relevance]:
    """Each hit's relevance. min_relevance replaces the threshold; another model than the default one may need
    another.
    """
    words = informative_words(question)
    with_vectors = metric == "cosine" and any(_cosine(hit) is not None for hit in hits)
    usual = MIN_RELEVANCE if with_vectors else MIN_COVERAGE
    threshold = usual if min_relevance is None else min_relevance
    scores = []
    for hit in hits:
        covered = coverage(words, hit.text or "")
        # A hit that words alone found has no cosine in its trace; its words must then speak for themselves.
        scores.append((_cosine(hit) or 0.0) + COVERAGE_WEIGHT * covered if with_vectors else covered)
    return [Relevance(score, threshold) for score in scores]


def _cosine(hit: Hit) -> float | None:
    return next((step.score for step in hit.trace if step.stage == "vector"), None)
