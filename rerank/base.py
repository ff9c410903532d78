"""What a reranker is: it looks at texts and scores, never at the index or the database."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol


@dataclass(frozen=True, slots=True)
class Candidate:
    """A record that the first stage found. score: larger is better."""

    id: str
    text: str | None
    score: float
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Ranked:
    """One place in the new order. position: the candidate's in the list that was given, from 0. score: larger is better."""

    position: int
    score: float


class Reranker(Protocol):
    def rerank(self, query: str, candidates: Sequence[Candidate], k: int) -> Sequence[Ranked]:
        """The k best candidates, best first; each position at most once."""
