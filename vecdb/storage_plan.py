"""Which storage codec for these vectors and this budget: every candidate measured on the collection's own vectors.

A sample is coded with each, and queries are answered over the codes alone. Without judgements an answer is as good as it
agrees with that over the vectors as they are stored now (recall@10); with them, as its nDCG@10. A codec is worth looking at
if no other one takes fewer bytes and loses no more.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import apsw
import numpy as np
from numpy.typing import NDArray

from vecdb.definition import Definition
from vecdb.errors import InvalidInput, MissingExtra
from vecdb.index.base import Metric
from vecdb.index.codecs import CodeTable, parse
from vecdb.index.exact import exact_search
from vecdb.storage import Store
from vecdb.stored_vectors import StoredVectors
from vecdb.tables import Tables
from vecdb.vectors import Matrix

K = 10
Grades = Mapping[int, int]  # of a query's judged documents, by position
_FIT, _TIMED, _BATCH = 20_000, 50, 64
_SAMPLE, _HELD_OUT, _LEAST = 50_000, 200, 100  # vectors measured; those that stand for queries; fewer tell nothing
_SHARES = (0.75, 0.5, 0.25)
_DEFAULT_LOSS = 0.01


@dataclass(frozen=True)
class StorageChoice:
    """One codec as measured. total_bytes: of all vectors of the collection, with what is kept once. recall: of the ten nearest
    over the vectors as stored now; ndcg: at 10, None without judgements. loss: of nDCG where it is known, else of recall, both
    between 0 and 1, against the vectors as stored now. queries_per_second: scanning codes, one thread.
    """

    codec: str
    bytes_per_vector: int
    total_bytes: int
    recall: float
    ndcg: float | None
    loss: float
    queries_per_second: float
    is_pareto: bool


@dataclass(frozen=True)
class StoragePlan:
    """choices: most bytes first. recommended: the one that loses least within the budget, or takes fewest bytes within the loss;
    None if none does. vectors, queries: how many were measured, of how many in the collection.
    """

    choices: tuple[StorageChoice, ...]
    recommended: StorageChoice | None
    stored: str
    vectors: int
    of_vectors: int
    queries: int
    budget_bytes: int | None
    max_loss: float | None

    def __str__(self) -> str:
        """A table: the Pareto front is marked with a star, the recommendation with an arrow."""
        lines = [
            f"   {'codec':<24}{'bytes':>7}{'total MB':>10}{'recall@10':>11}{'nDCG@10':>9}{'loss':>8}{'queries/s':>11}"
        ]
        for one in self.choices:
            mark = ("->" if one == self.recommended else "  ") + ("*" if one.is_pareto else " ")
            ndcg = "-" if one.ndcg is None else f"{one.ndcg:.4f}"
            lines.append(
                f"{mark}{one.codec:<24}{one.bytes_per_vector:>7}{one.total_bytes / 1e6:>10.1f}{one.recall:>11.4f}{ndcg:>9}"
                f"{one.loss:>8.4f}{one.queries_per_second:>11,.0f}"
            )
        return "\n".join(lines)

    def draw(self, path: str | Path) -> tuple[Path, Path]:
        """The picture of bytes against loss: path.png and path.svg. Raises MissingExtra without matplotlib."""
        try:
            from matplotlib.figure import Figure
        except ImportError as error:
            raise MissingExtra("pictures need matplotlib: pip install 'vecdb[plot]'") from error
        figure = Figure(figsize=(8, 5))
        axes = figure.subplots()
        front = sorted((one for one in self.choices if one.is_pareto), key=lambda one: one.total_bytes)
        axes.plot([one.total_bytes / 1e6 for one in front], [one.loss for one in front], color="#0f766e", linewidth=1)
        for one in self.choices:
            colour = "#b91c1c" if one == self.recommended else "#0f766e" if one.is_pareto else "#9aa3ad"
            axes.plot(one.total_bytes / 1e6, one.loss, "o", color=colour, markersize=5)
            place = (one.total_bytes / 1e6, one.loss)
            axes.annotate(one.codec, place, xytext=(4, 3), textcoords="offset points", fontsize=7, color=colour)
        if self.budget_bytes is not None:
            axes.axvline(self.budget_bytes / 1e6, color="#b91c1c", linestyle=":", linewidth=1)
        if self.max_loss is not None:
            axes.axhline(self.max_loss, color="#b91c1c", linestyle=":", linewidth=1)
        axes.set_xscale("log")
        axes.set_xlabel("MB of all vectors")
        axes.set_ylabel("loss of nDCG@10" if self.choices[0].ndcg is not None else "loss of recall@10")
        figure.tight_layout()
        base = Path(path)
        base = base.with_suffix("") if base.suffix in (".png", ".svg") else base
        made = base.with_name(base.name + ".png"), base.with_name(base.name + ".svg")
        for picture in made:
            figure.savefig(picture, dpi=150)
        return made


def candidates(dimension: int) -> list[str]:
    """What is tried where nobody says what: scalar formats, alone and after principal components, and RaBitQ."""
    texts = ["float32", "float16", "float8", "int8", "int4"]
    for share in _SHARES:
        kept = round(dimension * share)
        if 1 <= kept < dimension:
            texts += [f"pca:{kept}+{scalar}" for scalar in ("float8", "int8", "int4")]
    return [*texts, "rabitq:4", "rabitq:2", "rabitq:1"]


def measure_choices(
    vectors: Matrix,
    queries: Matrix,
    metric: Metric,
    codecs: Sequence[str],
    *,
    of_vectors: int,
    grades: Sequence[Grades] | None = None,
    seed: int = 0,
) -> list[StorageChoice]:
    """vectors (N, D) as they are stored now, queries (B, D) that are none of them; most bytes first."""
    true = exact_search(vectors, queries, K, metric).positions
    best = None if grades is None else ndcg(true, grades)
    found = []
    for text in dict.fromkeys(codecs):
        sample = vectors[np.unique(np.linspace(0, len(vectors) - 1, min(_FIT, len(vectors))).astype(np.int64))]
        codec = parse(text, vectors.shape[1], metric).fit(sample, seed=seed)
        table = CodeTable.of(codec, vectors)
        rows = np.concatenate(
            [_nearest(table.distances(queries[at : at + _BATCH])) for at in range(0, len(queries), _BATCH)]
        )
        began = time.perf_counter()
        table.search(queries[:_TIMED], K)
        seconds = time.perf_counter() - began
        recall = agreement(rows, true)
        gained = None if grades is None else ndcg(rows, grades)
        loss = 1.0 - recall if best is None or gained is None else best - gained
        total = of_vectors * codec.bytes_per_vector + codec.overhead
        rate = min(_TIMED, len(queries)) / max(seconds, 1e-9)
        found.append(StorageChoice(codec.text, codec.bytes_per_vector, total, recall, gained, loss, rate, False))
    return [_marked(one, found) for one in sorted(found, key=lambda one: -one.total_bytes)]


def recommend(
    choices: Sequence[StorageChoice], budget_bytes: int | None, max_loss: float | None
) -> StorageChoice | None:
    """Within a budget the one that loses least, of equals the smallest; within a loss the smallest, of equals the best."""
    if budget_bytes is not None:
        within = [one for one in choices if one.total_bytes <= budget_bytes]
        return min(within, key=lambda one: (one.loss, one.total_bytes), default=None)
    allowed = _DEFAULT_LOSS if max_loss is None else max_loss
    within = [one for one in choices if one.loss <= allowed]
    return min(within, key=lambda one: (one.total_bytes, one.loss), default=None)


def agreement(found: NDArray[np.int64], true: NDArray[np.int64]) -> float:
    """The mean share of the true rows (B, k), -1 for none, that was found."""
    wanted = [rows[rows >= 0] for rows in true]
    return float(np.mean([len(np.intersect1d(rows, want)) / max(1, len(want)) for rows, want in zip(found, wanted)]))


def ndcg(found: NDArray[np.int64], grades: Sequence[Grades], k: int = K) -> float:
    """The mean nDCG@k of answers (B, >= k), with linear gains as trec_eval has it (Järvelin & Kekäläinen 2002)."""
    discounts = 1 / np.log2(np.arange(2, k + 2))
    values = []
    for rows, judged in zip(found, grades):
        gains = np.array([max(judged.get(int(row), 0), 0) for row in rows[:k]], dtype=np.float64)
        ideal = np.sort([grade for grade in judged.values() if grade > 0])[::-1][:k]
        if len(ideal):
            values.append(gains @ discounts[: len(gains)] / (ideal @ discounts[: len(ideal)]))
    if not values:
        raise InvalidInput("no query has a relevant document in this collection; give judgements that name its records")
    return float(np.mean(values))


def _nearest(distances: Matrix) -> NDArray[np.int64]:
    """(B, k): the K nearest of each line, ties by position; all of them where there are fewer."""
    k = min(K, distances.shape[1])
    near = np.sort(np.argpartition(distances, k - 1, axis=1)[:, :k], axis=1)
    order = np.argsort(np.take_along_axis(distances, near, axis=1), axis=1, kind="stable")
    return np.take_along_axis(near, order, axis=1)


def _marked(one: StorageChoice, others: Sequence[StorageChoice]) -> StorageChoice:
    """one, with whether it lies on the Pareto front."""
    beaten = any(
        other.total_bytes <= one.total_bytes
        and other.loss <= one.loss
        and (other.total_bytes, other.loss) != (one.total_bytes, one.loss)
        for other in others
    )
    return replace(one, is_pareto=not beaten)


def plan_collection(
    store: Store,
    tables: Tables,
    definition: Definition,
    stored: StoredVectors,
    *,
    queries: Matrix | None,
    qrels: Sequence[Mapping[str, int]] | None,
    codecs: Sequence[str] | None,
    budget_bytes: int | None,
    max_loss: float | None,
    seed: int = 0,
) -> StoragePlan:
    """See Collection.plan_storage. qrels: of each of queries, the grade of records by id."""
    _check_wish(budget_bytes, max_loss)
    random = np.random.default_rng(seed)
    with store.snapshot() as db:
        definition.refresh(db)
        config = definition.config
        rows = tables.vector_rows(db)
        if config.dimension is None or len(rows) < _LEAST:
            raise InvalidInput(
                f"collection {definition.name!r} has {len(rows)} vectors; a plan is measured on at least {_LEAST}"
            )
        places = {} if qrels is None else _rows_of(tables, db, {id for grades in qrels for id in grades})
        drawn = np.sort(random.permutation(rows)[:_SAMPLE])
        held: NDArray[np.int64] = np.empty(0, np.int64)
        if queries is None:  # stored vectors stand for what will be asked, and are left out of what is searched
            held = random.permutation(drawn)[: min(_HELD_OUT, len(drawn) // 10)]
        kept = np.union1d(np.setdiff1d(drawn, held), np.fromiter(places.values(), np.int64))
        found = stored.vectors_of(db, [*kept.tolist(), *held.tolist()])
        present = stored.state().stored
    kept = np.array([row for row in kept.tolist() if row in found], np.int64)
    vectors = np.stack([found[row] for row in kept.tolist()])
    asked = np.stack([found[row] for row in held.tolist()]) if queries is None else queries
    grades = None
    if qrels is not None:
        position = {int(row): i for i, row in enumerate(kept)}
        grades = [{position[places[id]]: g for id, g in one.items() if places.get(id) in position} for one in qrels]
    texts = candidates(config.dimension) if codecs is None else [*codecs]
    choices = measure_choices(vectors, asked, config.metric, texts, of_vectors=len(rows), grades=grades, seed=seed)
    best = recommend(choices, budget_bytes, max_loss)
    return StoragePlan(tuple(choices), best, present, len(vectors), len(rows), len(asked), budget_bytes, max_loss)


def _check_wish(budget_bytes: int | None, max_loss: float | None) -> None:
    if budget_bytes is not None and max_loss is not None:
        raise InvalidInput("budget_bytes and max_loss were both given; a plan goes by one of them")
    if budget_bytes is not None and budget_bytes < 1:
        raise InvalidInput(f"budget_bytes is {budget_bytes}; give the bytes that all vectors may take together")
    if max_loss is not None and not 0 <= max_loss <= 1:
        raise InvalidInput(
            f"max_loss is {max_loss}; it must lie between 0 and 1: 0.01 is one hundredth of nDCG@10 or recall@10"
        )


def _rows_of(tables: Tables, db: apsw.Connection, ids: Iterable[str]) -> dict[str, int]:
    return {id: record.row for id, record in tables.by_ids(db, list(ids)).items()}
