"""What rerankers are trained on: slates, each a query with passages in a teacher's order. One JSON object a line."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vecdb.errors import InvalidInput
from vecdb.types import Vector


@dataclass(frozen=True, slots=True)
class Slate:
    """passages: in the order in which a first stage found them. ranks: the teacher's place of each, from 1; equal ranks are
    documents between which it does not tell. grades: judgements where there are any.
    """

    query: str
    passages: tuple[str, ...]
    ranks: tuple[int, ...]
    grades: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if len(self.passages) != len(self.ranks) or not self.passages or min(self.ranks) < 1:
            raise InvalidInput(
                f"a slate of {len(self.passages)} passages has ranks {self.ranks}; it needs one from 1 for each passage"
            )

    @property
    def order(self) -> list[int]:
        """Best first; passages of one rank as they were given."""
        return sorted(range(len(self.ranks)), key=lambda place: self.ranks[place])

    def shuffled(self, random: np.random.Generator) -> Slate:
        """The passages in another order: a model must not learn to repeat the first stage's."""
        turn = random.permutation(len(self.passages)).tolist()
        return Slate(
            self.query,
            tuple(self.passages[i] for i in turn),
            tuple(self.ranks[i] for i in turn),
            tuple(self.grades[i] for i in turn) if self.grades else (),
        )


def judged(
    queries: Mapping[str, str],
    qrels: Mapping[str, Mapping[str, int]],
    lists: Mapping[str, Sequence[str]],
    texts: Mapping[str, str],
    *,
    size: int = 16,
    seed: int = 0,
) -> list[Slate]:
    """Slates out of judgements: of each query up to size // 2 judged relevant documents, and negatives from its first-stage list,
    both drawn by chance. Ranks by grade; documents of one grade share a rank. Queries without a relevant document are left out.
    """
    random = np.random.default_rng(seed)
    slates = []
    for id, query in queries.items():
        grades = qrels.get(id, {})
        relevant = [d for d, grade in grades.items() if grade > 0 and d in texts]
        negatives = [d for d in lists.get(id, ()) if grades.get(d, 0) <= 0 and d in texts]
        if not relevant or not negatives:
            continue
        kept = [relevant[i] for i in random.permutation(len(relevant))[: max(1, size // 2)].tolist()]
        drawn = random.permutation(len(negatives))[: size - len(kept)].tolist()
        place = {d: i for i, d in enumerate(lists[id])}  # relevant ones that were not found stand behind
        chosen = sorted(kept + [negatives[i] for i in drawn], key=lambda d: place.get(d, len(place)))
        own = [max(0, grades.get(d, 0)) for d in chosen]
        levels = {grade: rank for rank, grade in enumerate(sorted(set(own), reverse=True), 1)}
        slates.append(
            Slate(query, tuple(texts[d] for d in chosen), tuple(levels[g] for g in own), tuple(map(float, own)))
        )
    return slates


def privileged(
    queries: Mapping[str, str],
    lists: Mapping[str, Sequence[str]],
    texts: Mapping[str, str],
    vectors: Mapping[str, Vector],
    *,
    size: int = 16,
    seed: int = 0,
) -> list[Slate]:
    """Slates without judgements: each query is a part of a document (its title, say) and has the document's id; the teacher knows
    the whole of it. Ranks by cosine of the whole document's vector (D,) with those of `size` documents drawn from the query's
    list, itself left out. A student sees the part alone: what it can learn is to read the need out of what was found.
    """
    random = np.random.default_rng(seed)
    slates = []
    for id, query in queries.items():
        found = [d for d in lists.get(id, ()) if d != id]
        if len(found) < 2:
            continue
        drawn = [found[i] for i in sorted(random.permutation(len(found))[:size].tolist())]
        cosines = np.array([float(vectors[id] @ vectors[d]) for d in drawn])
        ranks = np.empty(len(drawn), dtype=np.int64)
        ranks[np.argsort(-cosines, kind="stable")] = np.arange(1, len(drawn) + 1)
        slates.append(Slate(query, tuple(texts[d] for d in drawn), tuple(ranks.tolist())))
    return slates


def write(path: str | Path, slates: Sequence[Slate]) -> None:
    with Path(path).open("w", encoding="utf-8") as file:
        for slate in slates:
            record = {"query": slate.query, "passages": slate.passages, "ranks": slate.ranks, "grades": slate.grades}
            file.write(json.dumps(record, ensure_ascii=False) + "\n")


def read(path: str | Path) -> list[Slate]:
    """Raises InvalidInput for a line that is no slate."""
    with Path(path).open(encoding="utf-8") as file:
        return list(_slates(file))


def _slates(lines: Iterator[str]) -> Iterator[Slate]:
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            found = json.loads(line)
            yield Slate(
                str(found["query"]),
                tuple(map(str, found["passages"])),
                tuple(map(int, found["ranks"])),
                tuple(map(float, found.get("grades", ()))),
            )
        except (ValueError, KeyError, TypeError) as error:
            raise InvalidInput(f"line {number} is no slate ({error}); it needs query, passages and ranks") from error
