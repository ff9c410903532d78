"""The async client: `remote.py` as coroutines.

Two things are otherwise, because only a coroutine can ask the service: there is no len(), use `await
collection.count()`; and `config` is what the service said last (when the collection was opened, written to, or
`refresh`ed).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self, Unpack, overload

from numpy.typing import ArrayLike

from vecdb.aio import in_thread
from vecdb.client import calls
from vecdb.client.calls import Call, Described, Limits, T
from vecdb.client.transport import AsyncSender
from vecdb.config import CollectionConfig, TextConfig, TokenConfig
from vecdb.duplicates import THRESHOLD
from vecdb.index.base import IndexConfig
from vecdb.query.request import SearchKeywords, SearchPlan
from vecdb.records import Columns, columns_of, joined
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
    import httpx2

    from vecdb.adaptation.adapting import Adaptation
    from vecdb.duplicates import Deduped, Policy
    from vecdb.evaluation import Comparison, Evaluation, GateResult
    from vecdb.query.examples import Strategy
    from vecdb.query.fusion import Adaptive
    from vecdb.recall import RecallReport
    from vecdb.similarity import LearnedSimilarity, Triple
    from vecdb.storage_plan import StoragePlan
    from vecdb.stored_vectors import StorageState
    from vecdb.tuning import CollectionTuning

Progress = Callable[[int, int | None], None]


def connect_async(
    url: str, *, api_key: str | None = None, timeout_s: float = 60.0, http: httpx2.AsyncClient | None = None
) -> AsyncRemoteDatabase:
    """The database that a service serves at this URL. Nothing is sent yet.

    timeout_s: for each step of a request (connecting, sending, waiting for the answer). http: an httpx2 client of the
    caller's own, for proxies or certificates; it must have the service's URL as base_url, and api_key and timeout_s
    are then its business. Raises MissingExtra without httpx2, InvalidInput for what is no http(s) URL.
    """
    return AsyncRemoteDatabase(AsyncSender(url, api_key, timeout_s, http))


class AsyncRemoteDatabase:
    """A database behind a URL. For any number of tasks of one event loop."""

    def __init__(self, sender: AsyncSender) -> None:
        self._sender = sender
        self._limits: Limits | None = None

    @property
    def url(self) -> str:
        return self._sender.url

    async def collection(
        self,
        name: str,
        *,
        dimension: int | None = None,
        metric: Metric | None = None,
        embed: str | None = None,
        text: TextConfig | str | None = None,
        index: IndexConfig | None = None,
        tokens: str | TokenConfig | None = None,
        storage: str | None = None,
        create: bool = True,
    ) -> AsyncRemoteCollection:
        """The collection of this name, made if absent. Settings given must be those it has (ConfigMismatch).

        embed, tokens: models that the service has. create=False and absent: CollectionNotFound.
        """
        call = calls.open_collection(
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
        return AsyncRemoteCollection(self, await self.send(call))

    async def collections(self) -> list[str]:
        """The names of the collections that the API key may read."""
        return await self.send(calls.list_collections())

    async def drop(self, name: str) -> None:
        """Delete a collection with all of its records. Raises CollectionNotFound."""
        await self.send(calls.drop(name))

    async def check(self) -> list[str]:
        """Every broken invariant of the file, in words; empty if it is sound."""
        return await self.send(calls.check_database())

    async def close(self) -> None:
        """Close the connections; the service goes on. Closing twice does nothing more."""
        await self._sender.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    def __repr__(self) -> str:
        return f"<AsyncRemoteDatabase {self.url}>"

    async def send(self, call: Call[T]) -> T:
        """The result of one call. Raises what the service tells, RequestTimeout, or ServiceError."""
        return await self._sender.send(call)

    async def limits(self) -> Limits:
        """What the service takes in one request; asked for once."""
        if self._limits is None:
            self._limits = await self.send(calls.about())
        return self._limits


class AsyncRemoteCollection:
    """A collection behind a URL; its methods are described at `vecdb.Collection`."""

    def __init__(self, database: AsyncRemoteDatabase, described: Described) -> None:
        self._database = database
        self.name = described.name
        self._config = described.config  # only the dimension is ever settled later

    @property
    def config(self) -> CollectionConfig:
        """The settings that the collection was made with."""
        return self._config

    @property
    def dimension(self) -> int | None:
        """Numbers in a vector; None until the first one was stored."""
        return self._config.dimension

    @property
    def metric(self) -> Metric:
        return self._config.metric

    @property
    def model(self) -> str | None:
        """Identity of the embedding model whose vectors these are."""
        return self._config.model

    def __repr__(self) -> str:
        return f"<AsyncRemoteCollection {self.name!r} at {self._database.url}>"

    async def refresh(self) -> None:
        """Read the settings again: the first vector, whoever adds it, settles the dimension."""
        self._config = (await self._database.send(calls.describe(self.name))).config

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
        """As Collection.add; records may also be an async iterable.

        One call is one request, all or nothing; with batch_size it is one for each batch.

        Raises InvalidInput for more than the service takes in one request, before anything of that batch is sent.
        """
        columns = columns_of(ids, texts, vectors, metadata, parents, seqs, expires)
        return await self._write(
            "POST",
            records,
            columns,
            calls.given(model=model, duplicates=duplicates, threshold=None if duplicates is None else threshold),
            batch_size,
            progress,
        )

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
        """As Collection.upsert; requests as in `add`."""
        columns = columns_of(ids, texts, vectors, metadata, parents, seqs, expires)
        return await self._write("PUT", records, columns, calls.given(model=model), batch_size, progress)

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
        """As Collection.update: only what is given changes; requests as in `add`."""
        columns = columns_of(ids, texts, vectors, metadata, parents, seqs, expires)
        return await self._write(
            "PATCH",
            records,
            columns,
            calls.given(model=model, replace_metadata=replace_metadata),
            batch_size,
            progress,
            need_ids=True,
        )

    async def replace(
        self, parent: str, records: Any = None, *, fingerprint: str | None = None, progress: Progress | None = None
    ) -> WriteResult:
        """As Collection.replace: these records become all there is of one parent, in one transaction."""
        limits = await self._database.limits()
        call = await asyncio.to_thread(
            calls.replace, self.name, parent, in_thread(records), fingerprint=fingerprint, limits=limits
        )
        result = await self._database.send(call)
        await self._settle_dimension()
        if progress is not None:
            progress(len(result.ids), len(result.ids))
        return result

    async def sources(self) -> dict[str, str]:
        """The fingerprint of each parent that `replace` gave one."""
        return await self._database.send(calls.sources(self.name))

    async def delete(self, ids: str | Sequence[str] | None = None, *, where: Filter | None = None) -> int:
        """How many records were deleted: those with these ids, or those that a filter matches."""
        return await self._database.send(calls.delete(self.name, ids, where))

    async def dedupe(
        self,
        policy: Policy = "skip",
        *,
        threshold: float | None = None,
        where: Filter | None = None,
        blocker: Any = None,
        apply: bool = False,
    ) -> Deduped:
        """As Collection.dedupe, without a blocker, which is a file of the caller's."""
        call = calls.dedupe(self.name, policy, threshold=threshold, where=where, blocker=blocker, apply=apply)
        return await self._database.send(call)

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
        return await self._database.send(calls.link(self.name, source, target, kind, weight, directed))

    async def unlink(self, source: str | Sequence[str], target: str | Sequence[str], kind: str | None = None) -> int:
        """As Collection.unlink: how many links were deleted."""
        return await self._database.send(calls.unlink(self.name, source, target, kind))

    async def links(self, id: str | None = None, kind: str | None = None) -> list[Link]:
        """The links that were put at a record, either end (None: at all)."""
        return await self._database.send(calls.links(self.name, id, kind))

    async def link_entities(self, extractor: str | Mapping[str, Iterable[str]]) -> int:
        """As Collection.link_entities, by a metadata key or what is given for each record: how many are named in all."""
        return await self._database.send(calls.link_entities(self.name, extractor))

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
        call = calls.derive(
            self.name,
            field,
            kinds=kinds,
            dimension=dimension,
            weights=weights,
            degree_exponent=degree_exponent,
            seed=seed,
            tune=tune,
        )
        return await self._database.send(call)

    async def learn_similarity(
        self,
        similarity: Any = None,
        *,
        triples: Sequence[Triple] | None = None,
        sample: int = 500,
        dimension: int = 64,
        epochs: int = 20,
        seed: int = 0,
    ) -> LearnedSimilarity:
        """As Collection.learn_similarity, by triples of ids: a function cannot be sent."""
        call = calls.learn_similarity(
            self.name, similarity, triples, sample=sample, dimension=dimension, epochs=epochs, seed=seed
        )
        return await self._database.send(call)

    async def vector(self, id: str, field: str = "fastrp") -> Vector | None:
        """The vector of a record in a derived field."""
        return await self._database.send(calls.vector(self.name, id, field))

    # -- reading

    @overload
    async def get(self, ids: str, *, vectors: bool = False) -> Record | None: ...  # type: ignore[overload-overlap]
    @overload
    async def get(self, ids: Sequence[str], *, vectors: bool = False) -> list[Record | None]: ...
    async def get(self, ids: str | Sequence[str], *, vectors: bool = False) -> Record | list[Record | None] | None:
        """The record, or None; for several ids a list in their order."""
        found = await self._database.send(calls.get(self.name, [ids] if isinstance(ids, str) else ids, vectors=vectors))
        return found[0] if isinstance(ids, str) else found

    async def count(self, where: Filter | None = None) -> int:
        """How many records there are, or how many a filter matches."""
        return await self._database.send(calls.count(self.name, where))

    async def facets(self, key: str, *, where: Filter | None = None, limit: int = 20) -> list[tuple[Any, int]]:
        """The most frequent values of a metadata key, with how many records have each."""
        return await self._database.send(calls.facets(self.name, key, where=where, limit=limit))

    async def scan(
        self, *, where: Filter | None = None, limit: int = 100, cursor: str | None = None, vectors: bool = False
    ) -> Page:
        """One page of the records, in order of insertion."""
        return await self._database.send(
            calls.scan(self.name, where=where, limit=limit, cursor=cursor, vectors=vectors)
        )

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
        """As Collection.search: Hits for one query, a list of Hits for a batch.

        Raises InvalidQuery for a reranker or a fusion that is an object of the caller's own: code cannot be sent.
        """
        asked = calls.given(cursor=cursor, model=model, **options)
        return await self._database.send(calls.search(self.name, query, vector, asked))

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
        asked = calls.given(k=k, by=by, method=method, where=where, reach=reach, shape=shape, model=model)
        return await self._database.send(calls.search_groups(self.name, queries, asked))

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
        await self._database.send(calls.save_query(self.name, name, plan))

    async def queries(self) -> dict[str, dict[str, Any]]:
        """The saved queries by name, as data."""
        return await self._database.send(calls.queries(self.name))

    async def delete_query(self, name: str) -> bool:
        """Whether there was a query of that name, which is gone now."""
        return await self._database.send(calls.delete_query(self.name, name))

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
        asked = calls.given(model=model, **options)
        return await self._database.send(calls.why_not(self.name, id, query, vector, asked))

    async def explain(
        self,
        query: str | ArrayLike | None = None,
        *,
        vector: ArrayLike | None = None,
        model: str | None = None,
        **options: Unpack[SearchKeywords],
    ) -> Plan:
        """As Collection.explain: how this search would be answered, without doing it."""
        asked = calls.given(model=model, **options)
        return await self._database.send(calls.explain(self.name, query, vector, asked))

    async def context(self, question: str, *, budget_tokens: int = 1500, **options: Any) -> Context:
        """As Collection.context: passages that answer a question, packed for a language model's prompt."""
        return await self._database.send(calls.context(self.name, question, budget_tokens, calls.given(**options)))

    async def neighbours(self, parent: str, first: int, last: int) -> list[Record]:
        """The records of one parent whose seq lies in first … last, in that order."""
        return await self._database.send(calls.neighbours(self.name, parent, first, last))

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
        """As Collection.evaluate: the service searches, the measures are taken here (extra [eval])."""
        from vecdb.evaluation import Judged, search_options

        judged = Judged(queries, qrels, measures)
        settings = {mode: {**search_options(mode, k), "where": where, **options} for mode in modes}
        answers = {mode: await self.search(judged.batch, **setting) for mode, setting in settings.items()}
        return {mode: judged.evaluated(hits) for mode, hits in answers.items()}

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
        """As Collection.compare: the service searches, the measures are taken here (extra [eval])."""
        from vecdb.evaluation import Judged, compare_evaluations, search_options

        judged = Judged(queries, qrels, measures)
        first = judged.evaluated(await self.search(judged.batch, **search_options(a, k)))
        second = judged.evaluated(await self.search(judged.batch, **search_options(b, k)))
        return compare_evaluations(first, second, samples=samples, seed=seed)

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
        """As Collection.gate: the service searches, the measures are taken here (extra [eval])."""
        from vecdb.evaluation import Gate, Judged

        gate = Gate(min, baseline, tolerance=tolerance, samples=samples, seed=seed)
        judged = Judged(queries, qrels, gate.measures)
        return gate.judged(judged.evaluated(await self.search(judged.batch, k=k, **options)))

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
        call = calls.recall_report(self.name, sample=sample, k=k, ef=ef, where=where, seed=seed)
        return await self._database.send(call)

    async def fit_fusion(
        self,
        queries: Sequence[str] | Mapping[str, str],
        *,
        vectors: ArrayLike | None = None,
        qrels: Mapping[str, Mapping[str, int]] | None = None,
        keep: bool = True,
    ) -> Adaptive:
        """As Collection.fit_fusion: the adaptive fusion fitted by queries, with or without judgements."""
        return await self._database.send(calls.fit_fusion(self.name, queries, vectors, qrels, keep))

    async def forget_fusion(self) -> bool:
        """As Collection.forget_fusion."""
        return await self._database.send(calls.forget_fusion(self.name))

    async def fusion(self) -> Adaptive | None:
        """What `fit_fusion` kept, which fusion="adaptive" stands for; None without one."""
        return await self._database.send(calls.fusion(self.name))

    async def tune(
        self,
        target_recall: float = 0.95,
        *,
        k: int = 10,
        budget_s: float = 60.0,
        queries: Sequence[str] | ArrayLike | None = None,
        apply: bool = False,
    ) -> CollectionTuning:
        """As Collection.tune; the service cuts budget_s to what its requests may take, and the result says to what."""
        call = calls.tune(self.name, target_recall, k=k, budget_s=budget_s, queries=queries, apply=apply)
        return await self._database.send(call)

    async def adapt(
        self, *, sample: int = 2_500, budget_s: float = 60.0, seed: int = 0, apply: bool = True
    ) -> Adaptation:
        """As Collection.adapt; the service cuts budget_s to what its requests may take."""
        call = calls.adapt(self.name, sample=sample, budget_s=budget_s, seed=seed, apply=apply)
        return await self._database.send(call)

    async def adapter(self) -> Adaptation | None:
        """As Collection.adapter, but to be called: what is known of the map that searches use; None without one."""
        return await self._database.send(calls.adapter(self.name))

    async def reset_adapter(self) -> bool:
        """Search by query vectors as the model makes them again; whether a map was in use."""
        return await self._database.send(calls.reset_adapter(self.name))

    async def tuning(self) -> CollectionTuning | None:
        """As Collection.tuning, but to be called: what the last `tune` measured; None without one."""
        return await self._database.send(calls.tuning(self.name))

    async def stats(self) -> CollectionStats:
        """Sizes, and how much of the collection is indexed."""
        return await self._database.send(calls.stats(self.name))

    async def check(self) -> list[str]:
        """Every broken invariant in words; empty if the collection is sound."""
        return await self._database.send(calls.check(self.name))

    async def storage(self) -> StorageState:
        """As Collection.storage, but to be called: which codec vectors are kept with, and how far a change has come."""
        return await self._database.send(calls.storage(self.name))

    async def set_storage(self, codec: str, *, wait: bool = True, progress: Progress | None = None) -> StorageState:
        """As Collection.set_storage; progress is called once, when it is done. A change that takes longer than a request may
        needs wait=False, and `storage` to see how far it is.
        """
        state = await self._database.send(calls.set_storage(self.name, codec, wait))
        if progress is not None and state.share == 1.0:
            count = await self.count()
            progress(count, count)
        return state

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
        return await self._database.send(
            calls.plan_storage(self.name, budget_bytes, max_loss=max_loss, queries=queries, qrels=qrels, codecs=codecs)
        )

    async def compact(self) -> None:
        """Give the file's unused pages back to the file system."""
        await self._database.send(calls.compact(self.name))

    async def optimize(self) -> None:
        """Bring everything that was written into the index, now, and wait for it."""
        await self._database.send(calls.optimize(self.name))

    async def warm(self) -> None:
        """Have the service load what searching needs, and wait for it."""
        await self._database.send(calls.warm(self.name))

    # -- inside

    async def _write(
        self,
        method: str,
        records: Any,
        columns: Columns,
        options: dict[str, Any],
        batch_size: int | None,
        progress: Progress | None,
        need_ids: bool = False,
    ) -> WriteResult:
        limits = await self._database.limits()
        requests = calls.writes(
            self.name,
            method,
            records,
            columns,
            batch_size=batch_size,
            limits=limits,
            options=options,
            need_ids=need_ids,
        )
        results: list[WriteResult] = []
        done = 0
        # A thread prepares each batch: large ones would hold up the loop, and a caller's generator may do what it
        # likes.
        while (call := await asyncio.to_thread(next, requests, None)) is not None:
            results.append(await self._database.send(call))
            done += len(results[-1].ids)
            if progress is not None:
                progress(done, None)
        await self._settle_dimension()
        return joined(results)

    async def _settle_dimension(self) -> None:
        if self._config.dimension is None:
            await self.refresh()
