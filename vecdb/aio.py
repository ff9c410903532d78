"""The async twin of `database` and `collection`: the same methods as coroutines, run by a few threads of its own.

The engine computes and reads files, which an event loop must not wait for. A task that is cancelled stops waiting;
what its thread has begun goes on to its end, so a write is made whole or not at all, and `close` waits for it.
"""

from __future__ import annotations

import asyncio
import contextvars
import os
import threading
from collections.abc import AsyncIterator, Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar, Unpack, overload

from numpy.typing import ArrayLike

from vecdb.config import CollectionConfig, TextConfig
from vecdb.duplicates import THRESHOLD
from vecdb.errors import DatabaseClosed
from vecdb.index.base import IndexConfig
from vecdb.query.request import SearchKeywords, SearchPlan
from vecdb.query.second_look import CANCELLABLE
from vecdb.rerank.base import Limits
from vecdb.types import (
    CollectionStats,
    Context,
    Filter,
    GroupHits,
    GroupMethod,
    Hits,
    Link,
    Metric,
    Page,
    Plan,
    Record,
    Vector,
    WhyNot,
    WriteResult,
)

if TYPE_CHECKING:
    from vecdb.adaptation.adapting import Adaptation
    from vecdb.blocking.blocker import Blocker
    from vecdb.collection import Collection
    from vecdb.database import Database
    from vecdb.duplicates import Deduped, Policy
    from vecdb.embedding import EmbedSpec
    from vecdb.evaluation import Comparison, Evaluation, GateResult
    from vecdb.links import Extractor
    from vecdb.query.examples import Strategy
    from vecdb.query.fusion import Adaptive
    from vecdb.recall import RecallReport
    from vecdb.similarity import LearnedSimilarity, Similarity, Triple
    from vecdb.storage import Durability
    from vecdb.storage_plan import StoragePlan
    from vecdb.stored_vectors import StorageState
    from vecdb.tuning import CollectionTuning

Progress = Callable[[int, int | None], None]  # called from a thread
T = TypeVar("T")

_MOST_THREADS = 8  # more would only take turns: kernels keep a core busy each, and SQLite has one writer


def open_async(
    path: str | Path,
    *,
    create: bool = True,
    read_only: bool = False,
    durability: Durability = "full",
    busy_timeout_s: float = 10.0,
    background: bool = True,
    device: str = "cpu",
    threads: int | None = None,
) -> AsyncDatabase:
    """The async twin of `vecdb.open`. The file is opened when the result is awaited, entered, or first used.

        async with vecdb.open_async("library.vecdb") as db: ...
        db = await vecdb.open_async("library.vecdb")

    threads: how many calls run at once; the others wait for their turn.
    """

    def opened() -> Database:
        from vecdb.database import open

        return open(
            path,
            create=create,
            read_only=read_only,
            durability=durability,
            busy_timeout_s=busy_timeout_s,
            background=background,
            device=device,
        )

    return AsyncDatabase(opened, path, threads or min(_MOST_THREADS, (os.cpu_count() or 1) + 2))


class AsyncDatabase:
    """An open file whose methods are coroutines, for any number of tasks; see `vecdb.Database` for them."""

    def __init__(self, opened: Callable[[], Database], path: str | Path, threads: int) -> None:
        self._opened = opened
        self._path = None if str(path) == ":memory:" else Path(path)
        self._database: Database | None = None
        self._lock = threading.Lock()
        self._is_closed = False
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="vecdb-async")

    def __await__(self) -> Generator[Any, None, Self]:
        yield from self.run(self._opened_once).__await__()
        return self

    async def __aenter__(self) -> Self:
        return await self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    def __repr__(self) -> str:
        return f"<AsyncDatabase {self._path or ':memory:'}>"

    @property
    def path(self) -> Path | None:
        """The file; None for a database in memory."""
        return self._path

    async def collection(
        self,
        name: str,
        *,
        dimension: int | None = None,
        metric: Metric | None = None,
        embed: EmbedSpec | None = None,
        text: TextConfig | str | None = None,
        index: IndexConfig | None = None,
        tokens: Any = None,
        storage: str | None = None,
        create: bool = True,
    ) -> AsyncCollection:
        """As Database.collection: the collection of this name, made if absent."""
        found = await self.run(
            lambda: self._opened_once().collection(
                name,
                dimension=dimension,
                metric=metric,
                embed=embed,
                text=text,
                index=index,
                tokens=tokens,
                storage=storage,
                create=create,
            )
        )
        return AsyncCollection(self, found)

    async def collections(self) -> list[str]:
        """Names of all collections, sorted."""
        return await self.run(lambda: self._opened_once().collections())

    async def drop(self, name: str) -> None:
        """Delete a collection with all its records. Raises CollectionNotFound."""
        await self.run(lambda: self._opened_once().drop(name))

    async def check(self) -> list[str]:
        """Every broken invariant in words; empty if all is sound."""
        return await self.run(lambda: self._opened_once().check())

    async def backup(self, path: str | Path) -> None:
        """Copy everything that is committed into a new file."""
        await self.run(lambda: self._opened_once().backup(path))

    async def close(self) -> None:
        """Wait for what runs, then let go of the file. Closing twice does nothing more."""
        if self._is_closed:
            return
        self._is_closed = True
        await asyncio.shield(asyncio.to_thread(self._finish))

    async def run(self, work: Callable[[], T]) -> T:
        """What work returns, from one of the threads. Raises DatabaseClosed after `close`."""
        if self._is_closed:
            raise DatabaseClosed(f"{self._path or 'the database'} was closed; open it again")
        context, limits = contextvars.copy_context(), Limits()
        context.run(CANCELLABLE.set, limits)
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, partial(context.run, work))
        except asyncio.CancelledError:
            limits.cancel()  # nobody waits for what a reranker would still do
            raise

    def _opened_once(self) -> Database:
        with self._lock:
            if self._database is None:
                self._database = self._opened()
            return self._database

    def _finish(self) -> None:
        self._pool.shutdown(wait=True)
        if self._database is not None:
            self._database.close()


class AsyncCollection:
    """A collection whose methods are coroutines; they are described at `vecdb.Collection`.

    There is no len(), which could not be awaited: use `await collection.count()`.
    """

    def __init__(self, database: AsyncDatabase, collection: Collection) -> None:
        self._run = database.run
        self._collection = collection

    def __repr__(self) -> str:
        return f"<AsyncCollection {self.name!r}>"

    @property
    def name(self) -> str:
        return self._collection.name

    @property
    def config(self) -> CollectionConfig:
        """The settings that the collection was made with."""
        return self._collection.config

    @property
    def dimension(self) -> int | None:
        """Numbers in a vector; None until the first one was stored."""
        return self._collection.dimension

    @property
    def metric(self) -> Metric:
        return self._collection.metric

    @property
    def model(self) -> str | None:
        """Identity of the embedding model whose vectors these are."""
        return self._collection.model

    # -- writing

    async def add(
        self,
        records: Any = None,
        *,
        ids: Sequence[str] | None = None,
        texts: Sequence[str | None] | None = None,
        vectors: ArrayLike | None = None,
        metadata: Sequence[Mapping[str, Any] | None] | None = None,
        parents: Sequence[str | None] | None = None,
        seqs: Sequence[int | None] | None = None,
        expires: Sequence[Any] | None = None,
        model: str | None = None,
        batch_size: int | None = None,
        progress: Progress | None = None,
        duplicates: Policy | None = None,
        threshold: float = THRESHOLD,
    ) -> WriteResult:
        """As Collection.add. records may also be an async iterable, which is read as it is written."""
        records = in_thread(records)
        return await self._run(
            lambda: self._collection.add(
                records, ids=ids, texts=texts, vectors=vectors, metadata=metadata, parents=parents, seqs=seqs,
                expires=expires, model=model, batch_size=batch_size, progress=progress, duplicates=duplicates,
                threshold=threshold,
            )
        )  # fmt: skip

    async def upsert(
        self,
        records: Any = None,
        *,
        ids: Sequence[str] | None = None,
        texts: Sequence[str | None] | None = None,
        vectors: ArrayLike | None = None,
        metadata: Sequence[Mapping[str, Any] | None] | None = None,
        parents: Sequence[str | None] | None = None,
        seqs: Sequence[int | None] | None = None,
        expires: Sequence[Any] | None = None,
        model: str | None = None,
        batch_size: int | None = None,
        progress: Progress | None = None,
    ) -> WriteResult:
        """As Collection.upsert; records as for `add`."""
        records = in_thread(records)
        return await self._run(
            lambda: self._collection.upsert(
                records, ids=ids, texts=texts, vectors=vectors, metadata=metadata, parents=parents, seqs=seqs,
                expires=expires, model=model, batch_size=batch_size, progress=progress,
            )
        )  # fmt: skip

    async def update(
        self,
        records: Any = None,
        *,
        ids: Sequence[str] | None = None,
        texts: Sequence[str | None] | None = None,
        vectors: ArrayLike | None = None,
        metadata: Sequence[Mapping[str, Any] | None] | None = None,
        parents: Sequence[str | None] | None = None,
        seqs: Sequence[int | None] | None = None,
        expires: Sequence[Any] | None = None,
        model: str | None = None,
        replace_metadata: bool = False,
        batch_size: int | None = None,
        progress: Progress | None = None,
    ) -> WriteResult:
        """As Collection.update; records as for `add`."""
        records = in_thread(records)
        return await self._run(
            lambda: self._collection.update(
                records, ids=ids, texts=texts, vectors=vectors, metadata=metadata, parents=parents, seqs=seqs,
                expires=expires, model=model, replace_metadata=replace_metadata, batch_size=batch_size,
                progress=progress,
            )
        )  # fmt: skip

    async def replace(
        self, parent: str, records: Any = None, *, fingerprint: str | None = None, progress: Progress | None = None
    ) -> WriteResult:
        """As Collection.replace: these records become all there is of one parent, in one transaction."""
        records = in_thread(records)
        return await self._run(
            lambda: self._collection.replace(parent, records, fingerprint=fingerprint, progress=progress)
        )

    async def sources(self) -> dict[str, str]:
        """The fingerprint of each parent that `replace` gave one."""
        return await self._run(self._collection.sources)

    async def delete(self, ids: str | Sequence[str] | None = None, *, where: Filter | None = None) -> int:
        """How many records were deleted: those with these ids, or those that a filter matches."""
        return await self._run(lambda: self._collection.delete(ids, where=where))

    async def dedupe(
        self,
        policy: Policy = "skip",
        *,
        threshold: float | None = None,
        where: Filter | None = None,
        blocker: Blocker | None = None,
        apply: bool = False,
    ) -> Deduped:
        """As Collection.dedupe: near duplicates, and what the policy makes of them; nothing is changed without apply."""
        return await self._run(
            lambda: self._collection.dedupe(policy, threshold=threshold, where=where, blocker=blocker, apply=apply)
        )

    # -- links

    async def link(
        self,
        source: str | Sequence[str],
        target: str | Sequence[str],
        kind: str | Sequence[str] = "link",
        weight: float | Sequence[float] = 1.0,
        *,
        directed: bool | Sequence[bool] = False,
    ) -> int:
        """As Collection.link: link records that exist; how many links were written."""
        return await self._run(lambda: self._collection.link(source, target, kind, weight, directed=directed))

    async def unlink(self, source: str | Sequence[str], target: str | Sequence[str], kind: str | None = None) -> int:
        """As Collection.unlink: how many links were deleted."""
        return await self._run(lambda: self._collection.unlink(source, target, kind))

    async def links(self, id: str | None = None, kind: str | None = None) -> list[Link]:
        """The links that were put at a record, either end (None: at all)."""
        return await self._run(lambda: self._collection.links(id, kind))

    async def link_entities(self, extractor: Extractor | Mapping[str, Iterable[str]]) -> int:
        """As Collection.link_entities: link records that name the same; how many entities are named in all."""
        return await self._run(lambda: self._collection.link_entities(extractor))

    async def derive(
        self,
        field: str = "fastrp",
        *,
        kinds: Sequence[str] | Mapping[str, float] | None = None,
        dimension: int = 128,
        weights: Sequence[float] = (1.0, 1.0, 1.0, 1.0),
        degree_exponent: float = -0.5,
        seed: int = 0,
        tune: bool = False,
    ) -> int:
        """As Collection.derive: make vectors of links; how many records have one."""
        return await self._run(
            lambda: self._collection.derive(
                field,
                kinds=kinds,
                dimension=dimension,
                weights=weights,
                degree_exponent=degree_exponent,
                seed=seed,
                tune=tune,
            )
        )

    async def learn_similarity(
        self,
        similarity: Similarity | None = None,
        *,
        triples: Sequence[Triple] | None = None,
        sample: int = 500,
        dimension: int = 64,
        epochs: int = 20,
        seed: int = 0,
    ) -> LearnedSimilarity:
        """As Collection.learn_similarity: the field "learned", by a function (called from a thread) or triples of ids."""
        return await self._run(
            lambda: self._collection.learn_similarity(
                similarity, triples=triples, sample=sample, dimension=dimension, epochs=epochs, seed=seed
            )
        )

    async def vector(self, id: str, field: str = "fastrp") -> Vector | None:
        """The vector of a record in a derived field."""
        return await self._run(lambda: self._collection.vector(id, field))

    # -- reading

    @overload
    async def get(self, ids: str, *, vectors: bool = False) -> Record | None: ...  # type: ignore[overload-overlap]
    @overload
    async def get(self, ids: Sequence[str], *, vectors: bool = False) -> list[Record | None]: ...
    async def get(self, ids: str | Sequence[str], *, vectors: bool = False) -> Record | list[Record | None] | None:
        """The record, or None; for several ids a list in their order."""
        return await self._run(lambda: self._collection.get(ids, vectors=vectors))

    async def count(self, where: Filter | None = None) -> int:
        """How many records there are, or how many a filter matches."""
        return await self._run(lambda: self._collection.count(where))

    async def facets(self, key: str, *, where: Filter | None = None, limit: int = 20) -> list[tuple[Any, int]]:
        """The most frequent values of a metadata key, with how many records have each."""
        return await self._run(lambda: self._collection.facets(key, where=where, limit=limit))

    async def scan(
        self, *, where: Filter | None = None, limit: int = 100, cursor: str | None = None, vectors: bool = False
    ) -> Page:
        """One page of the records, in order of insertion."""
        return await self._run(lambda: self._collection.scan(where=where, limit=limit, cursor=cursor, vectors=vectors))

    # -- searching

    @overload
    async def search(
        self,
        query: str,
        *,
        vector: ArrayLike | None = None,
        cursor: str | None = None,
        model: str | None = None,
        **options: Unpack[SearchKeywords],
    ) -> Hits: ...
    @overload
    async def search(
        self,
        query: list[str],
        *,
        vector: ArrayLike | None = None,
        cursor: str | None = None,
        model: str | None = None,
        **options: Unpack[SearchKeywords],
    ) -> list[Hits]: ...
    @overload
    async def search(
        self,
        query: ArrayLike | None = None,
        *,
        vector: ArrayLike | None = None,
        cursor: str | None = None,
        model: str | None = None,
        **options: Unpack[SearchKeywords],
    ) -> Any: ...
    async def search(
        self,
        query: str | Sequence[str] | ArrayLike | None = None,
        *,
        vector: ArrayLike | None = None,
        cursor: str | None = None,
        model: str | None = None,
        **options: Unpack[SearchKeywords],
    ) -> Any:
        """As Collection.search: Hits for one query, a list of Hits for a batch."""
        return await self._run(
            lambda: self._collection.search(query, vector=vector, cursor=cursor, model=model, **options)
        )

    async def search_groups(
        self,
        queries: str | Sequence[str] | ArrayLike,
        k: int = 10,
        *,
        by: str = "parent",
        method: GroupMethod = "auto",
        where: Filter | None = None,
        reach: float | None = None,
        shape: float | None = None,
        model: str | None = None,
    ) -> GroupHits:
        """As Collection.search_groups: the k groups of records that are near all of a set of query vectors."""
        return await self._run(
            lambda: self._collection.search_groups(
                queries, k, by=by, method=method, where=where, reach=reach, shape=shape, model=model
            )
        )

    async def recommend(
        self,
        positive: Any = (),
        negative: Any = (),
        *,
        strategy: Strategy = "average",
        **options: Unpack[SearchKeywords],
    ) -> Hits:
        """As Collection.recommend: what is like the positive examples and unlike the negative ones."""
        examples = {"positive": positive, "negative": negative, "strategy": strategy}
        asked: SearchKeywords = {**options, "recommend": examples}
        hits: Hits = await self.search(**asked)
        return hits

    async def discover(self, target: Any = None, context: Any = (), **options: Unpack[SearchKeywords]) -> Hits:
        """As Collection.discover: what is like the target, in the region that pairs of examples point out."""
        asked: SearchKeywords = {**options, "discover": {"target": target, "context": context}}
        hits: Hits = await self.search(**asked)
        return hits

    async def run(
        self,
        plan: str | SearchPlan | Mapping[str, Any],
        query: str | Sequence[str] | ArrayLike | None = None,
        *,
        vector: ArrayLike | None = None,
        params: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> Any:
        """As Collection.run: hits of a saved query, by its name, or of a plan."""
        return await self.search(query, vector=vector, **{**options, "plan": plan, "params": params})

    async def save_query(self, name: str, plan: SearchPlan | Mapping[str, Any]) -> None:
        """As Collection.save_query: keep a plan with the collection under a name."""
        await self._run(lambda: self._collection.save_query(name, plan))

    async def queries(self) -> dict[str, dict[str, Any]]:
        """The saved queries by name, as data."""
        return await self._run(self._collection.queries)

    async def delete_query(self, name: str) -> bool:
        """Whether there was a query of that name, which is gone now."""
        return await self._run(lambda: self._collection.delete_query(name))

    async def why_not(
        self,
        id: str,
        query: str | ArrayLike | None = None,
        *,
        vector: ArrayLike | None = None,
        model: str | None = None,
        **options: Unpack[SearchKeywords],
    ) -> WhyNot:
        """As Collection.why_not: why the record is not among the hits of this search (options as for `search`)."""
        return await self._run(lambda: self._collection.why_not(id, query, vector=vector, model=model, **options))

    async def explain(
        self,
        query: str | ArrayLike | None = None,
        *,
        vector: ArrayLike | None = None,
        model: str | None = None,
        **options: Unpack[SearchKeywords],
    ) -> Plan:
        """As Collection.explain: how this search would be answered, without doing it."""
        return await self._run(lambda: self._collection.explain(query, vector=vector, model=model, **options))

    async def context(self, question: str, *, budget_tokens: int = 1500, **options: Any) -> Context:
        """As Collection.context: passages that answer a question, packed for a language model's prompt."""
        return await self._run(lambda: self._collection.context(question, budget_tokens=budget_tokens, **options))

    async def neighbours(self, parent: str, first: int, last: int) -> list[Record]:
        """The records of one parent whose seq lies in first … last, in that order."""
        return await self._run(lambda: self._collection.neighbours(parent, first, last))

    # -- how good, how large, is it sound

    async def evaluate(
        self,
        queries: Mapping[str, Any],
        qrels: Mapping[str, Mapping[str, int]],
        *,
        modes: Sequence[str] = ("vector", "text", "hybrid"),
        k: int = 100,
        measures: Sequence[str] = ("nDCG@10", "RR@10", "AP", "R@100"),
        where: Filter | None = None,
        **options: Any,
    ) -> dict[str, Evaluation]:
        """As Collection.evaluate: how good the answers to judged queries are, for each mode."""
        return await self._run(
            lambda: self._collection.evaluate(
                queries, qrels, modes=modes, k=k, measures=measures, where=where, **options
            )
        )

    async def compare(
        self,
        a: Mapping[str, Any] | str,
        b: Mapping[str, Any] | str,
        queries: Mapping[str, Any],
        qrels: Mapping[str, Mapping[str, int]],
        *,
        k: int = 100,
        measures: Sequence[str] = ("nDCG@10", "RR@10", "AP", "R@100"),
        samples: int = 10_000,
        seed: int = 0,
    ) -> Comparison:
        """As Collection.compare: whether setting a answers judged queries better than b, by a paired bootstrap."""
        return await self._run(
            lambda: self._collection.compare(a, b, queries, qrels, k=k, measures=measures, samples=samples, seed=seed)
        )

    async def gate(
        self,
        queries: Mapping[str, Any],
        qrels: Mapping[str, Mapping[str, int]],
        *,
        min: Mapping[str, float] | None = None,
        baseline: Evaluation | Mapping[str, Any] | None = None,
        tolerance: float = 0.0,
        k: int = 100,
        samples: int = 10_000,
        seed: int = 0,
        **options: Any,
    ) -> GateResult:
        """As Collection.gate: whether the answers to judged queries are good enough to let a change pass."""
        return await self._run(
            lambda: self._collection.gate(
                queries,
                qrels,
                min=min,
                baseline=baseline,
                tolerance=tolerance,
                k=k,
                samples=samples,
                seed=seed,
                **options,
            )
        )

    async def recall_report(
        self,
        *,
        sample: int = 200,
        k: int = 10,
        ef: int | None = None,
        where: Sequence[Filter] = (),
        seed: int = 0,
    ) -> RecallReport:
        """How often the index finds what exact search finds, on a sample of the collection's own vectors."""
        return await self._run(
            lambda: self._collection.recall_report(sample=sample, k=k, ef=ef, where=where, seed=seed)
        )

    async def tune(
        self,
        target_recall: float = 0.95,
        *,
        k: int = 10,
        budget_s: float = 60.0,
        queries: Sequence[str] | ArrayLike | None = None,
        apply: bool = False,
    ) -> CollectionTuning:
        """As Collection.tune: how the index should be built and searched to find target_recall of the k nearest."""
        return await self._run(
            lambda: self._collection.tune(target_recall, k=k, budget_s=budget_s, queries=queries, apply=apply)
        )

    async def fit_fusion(
        self,
        queries: Sequence[str] | Mapping[str, str],
        *,
        vectors: ArrayLike | None = None,
        qrels: Mapping[str, Mapping[str, int]] | None = None,
        keep: bool = True,
    ) -> Adaptive:
        """As Collection.fit_fusion: the adaptive fusion fitted by queries, with or without judgements."""
        return await self._run(lambda: self._collection.fit_fusion(queries, vectors=vectors, qrels=qrels, keep=keep))

    async def forget_fusion(self) -> bool:
        """As Collection.forget_fusion."""
        return await self._run(self._collection.forget_fusion)

    async def fusion(self) -> Adaptive | None:
        """As Collection.fusion, but to be called: what `fit_fusion` kept; None without one."""
        return await self._run(lambda: self._collection.fusion)

    async def adapt(
        self, *, sample: int = 2_500, budget_s: float = 60.0, seed: int = 0, apply: bool = True
    ) -> Adaptation:
        """As Collection.adapt: learn a map of query vectors from the collection's own documents, and search by it if it helps."""
        return await self._run(lambda: self._collection.adapt(sample=sample, budget_s=budget_s, seed=seed, apply=apply))

    async def adapter(self) -> Adaptation | None:
        """As Collection.adapter, but to be called: what is known of the map that searches use; None without one."""
        return await self._run(lambda: self._collection.adapter)

    async def reset_adapter(self) -> bool:
        """Search by query vectors as the model makes them again; whether a map was in use."""
        return await self._run(self._collection.reset_adapter)

    async def export_triples(self, path: str | Path, *, sample: int = 2_500, seed: int = 0) -> int:
        """As Collection.export_triples: write what `adapt` learns from as JSON Lines; how many lines."""
        return await self._run(lambda: self._collection.export_triples(path, sample=sample, seed=seed))

    async def tuning(self) -> CollectionTuning | None:
        """As Collection.tuning, but to be called: what the last `tune` measured; None without one."""
        return await self._run(lambda: self._collection.tuning)

    async def stats(self) -> CollectionStats:
        """Sizes, and how much of the collection is indexed."""
        return await self._run(self._collection.stats)

    async def check(self) -> list[str]:
        """Every broken invariant in words; empty if the collection is sound."""
        return await self._run(self._collection.check)

    async def optimize(self) -> None:
        """Bring everything that was written into the index, now, and wait for it."""
        return await self._run(self._collection.optimize)

    async def storage(self) -> StorageState:
        """As Collection.storage: which codec vectors are kept with, and how far a change has come."""
        return await self._run(lambda: self._collection.storage)

    async def set_storage(self, codec: str, *, wait: bool = True, progress: Progress | None = None) -> StorageState:
        """As Collection.set_storage: keep vectors with another codec from now on."""
        return await self._run(lambda: self._collection.set_storage(codec, wait=wait, progress=progress))

    async def plan_storage(
        self,
        budget_bytes: int | None = None,
        *,
        max_loss: float | None = None,
        queries: Mapping[str, Any] | Sequence[str] | ArrayLike | None = None,
        qrels: Mapping[str, Mapping[str, int]] | None = None,
        codecs: Sequence[str] | None = None,
    ) -> StoragePlan:
        """As Collection.plan_storage: which codec to store vectors with, measured on the collection's own."""
        return await self._run(
            lambda: self._collection.plan_storage(
                budget_bytes, max_loss=max_loss, queries=queries, qrels=qrels, codecs=codecs
            )
        )

    async def compact(self) -> None:
        """Give the file's unused pages back to the file system."""
        return await self._run(self._collection.compact)

    async def warm(self) -> None:
        """Load what searching needs, compile the kernels if there is an index, and wait for it."""
        return await self._run(self._collection.warm)


def in_thread(records: Any) -> Any:
    """Records that a thread can iterate over: an async iterable is read through the loop, others are as they were."""
    if not hasattr(records, "__aiter__"):
        return records
    return _pulled(records.__aiter__(), asyncio.get_running_loop())


def _pulled(records: AsyncIterator[Any], loop: asyncio.AbstractEventLoop) -> Iterator[Any]:
    """Each record, asked for when it is needed. Runs in a thread while the loop goes on in its own."""

    async def following() -> tuple[Any, bool]:
        try:
            return await anext(records), True
        except StopAsyncIteration:
            return None, False

    while True:
        record, is_one = asyncio.run_coroutine_threadsafe(following(), loop).result()
        if not is_one:
            return
        yield record
