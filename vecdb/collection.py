"""A collection: records that are searched together. This is the face; what it calls does the work.

writer      checks, embeds, writes            memory      snapshots for reading
query/      searches                          upkeep      keeps the index in step, in the background
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack, overload

import numpy as np
from numpy.typing import ArrayLike

from vecdb.adaptation.kept import KIND as ADAPTER
from vecdb.config import CollectionConfig
from vecdb.definition import Definition
from vecdb.derived import FASTRP, Derived, NodeVectors, check_field
from vecdb.duplicates import THRESHOLD, check_policy
from vecdb.embedding.base import Embedder
from vecdb.errors import InvalidInput, InvalidQuery
from vecdb.filters import parse
from vecdb.index.device_scan import Scanner
from vecdb.index_files import IndexFiles
from vecdb.links import Entities, Extractor, Links
from vecdb.memory import Memory, Part
from vecdb.overlay import Overlays
from vecdb.query.asking import Asking
from vecdb.query.engine import Engine
from vecdb.query.graph import GraphStage
from vecdb.query.groups import GroupOptions, GroupSearch
from vecdb.query.request import SearchKeywords, SearchOptions, SearchPlan, continued
from vecdb.query.retrieval import Retrieval
from vecdb.query.saved import SavedQueries
from vecdb.query.why_not import explain_absence
from vecdb.reading import Reader, listed
from vecdb.records import Batch, batches, columns_of, joined
from vecdb.similarity import LEARNED, LearnedSimilarity, LearnedVectors, Similarity, Triple
from vecdb.similarity import config_of as similarity_config
from vecdb.storage import Store
from vecdb.stored_vectors import StorageState, StoredVectors
from vecdb.tables import Tables
from vecdb.types import (
    CollectionStats,
    Context,
    Duplicate,
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
from vecdb.upkeep import Indexing, Upkeep
from vecdb.vectors import Matrix
from vecdb.writer import Progress, Writer

if TYPE_CHECKING:
    from vecdb.adaptation.adapting import Adaptation
    from vecdb.adaptation.mining import Miner
    from vecdb.blocking.blocker import Blocker
    from vecdb.duplicates import Deduped, Policy
    from vecdb.evaluation import Comparison, Evaluation, GateResult
    from vecdb.query.examples import Strategy
    from vecdb.query.fusion import Adaptive
    from vecdb.recall import RecallReport
    from vecdb.storage_plan import StoragePlan
    from vecdb.tuning import CollectionTuning


class Collection:
    """Records that are searched together. Made by `Database.collection`; safe to use from several threads."""

    def __init__(
        self,
        store: Store,
        definition: Definition,
        upkeep: Upkeep,
        folder: Path | None,
        scanner: Scanner | None = None,
    ) -> None:
        config = definition.config
        self._store = store
        self._definition = definition
        self._upkeep = upkeep
        self._tables = Tables(definition.number, config.text)
        self._files = IndexFiles(store, folder, definition.number)
        self._stored = StoredVectors(store, self._tables, definition, self._files)
        self._memory = Memory(store, self._tables, self._files, self._stored, config.metric, config.text, scanner)
        overlays = Overlays(store, self._tables, self._memory)
        self._indexing = Indexing(store, self._memory, self._files, definition, folder, overlays, self._stored)
        self._reader = Reader(store, self._tables, definition, self._memory, self._stored)
        self._writer = Writer(store, self._tables, definition, self._stored)
        self._links = Links(store, self._tables, definition)
        node_files = IndexFiles(store, folder, definition.number, FASTRP)
        self._nodes = NodeVectors(store, self._tables, node_files, definition, overlays, self._indexing)
        self._learned = LearnedVectors(store, self._tables, self._memory, definition)
        self._derived: dict[str, Derived] = {FASTRP: self._nodes, LEARNED: self._learned}
        retrieval = Retrieval(store, self._tables, self._memory, definition, self._wish, self._derived, self._stored)
        nudge = partial(upkeep.nudge, self._indexing)
        graph = GraphStage(store, self._tables, self._memory, overlays, nudge, waits=not upkeep.enabled)
        self._engine = Engine(store, self._tables, definition, retrieval, graph)
        self._groups = GroupSearch(store, self._tables, retrieval, config.metric)
        self._saved_queries = SavedQueries(store, definition)
        self._asking = Asking(store, definition, self._engine, self._saved_queries)

    def __repr__(self) -> str:
        dimension = self.dimension or "?"
        return f"<Collection {self.name!r} {len(self):,} x {dimension} {self.metric}>"

    def __len__(self) -> int:
        return self.count()

    @property
    def name(self) -> str:
        return self._definition.name

    @property
    def config(self) -> CollectionConfig:
        """The settings that the collection was made with; `tune` may have changed how the index is built."""
        return self._definition.settled(self._store)

    @property
    def dimension(self) -> int | None:
        """Numbers in a vector; None until the first one was stored."""
        return self.config.dimension

    @property
    def metric(self) -> Metric:
        return self._definition.config.metric

    @property
    def model(self) -> str | None:
        """Identity of the embedding model whose vectors these are."""
        return self._definition.config.model

    @property
    def embedder(self) -> Embedder | None:
        """The embedding model, loaded on first use; None if the collection has none. Raises ModelUnavailable."""
        return self._definition.embedder() if self._definition.embeds or self.model else None

    # -- writing

    def add(
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
        """Add records that are new. All or nothing, unless batch_size cuts the input into several transactions.

        records: dicts (also from a generator) with the keys id, text, vector, metadata, parent, seq, expires, all optional;
        Record objects; a DataFrame; an Arrow table. Or give the columns by keyword. A record without id gets a random one; a
        text without vector is embedded if the collection has a model. expires: a datetime, seconds since 1970, or a timedelta
        from now. model: identity of the model that made the vectors. progress(done, total) is called as records are written.

        duplicates: what becomes of a record that is nearly the same as one that is stored, or that comes before it here (see
        `dedupe` for what that means, and for threshold): "skip" leaves it out, "link" adds and links it, "replace" adds it and
        then deletes the other. The result's duplicates tell of them. A batch is checked whole: give batch_size for many records.

        Raises DuplicateId for an id that exists, InvalidRecord (`.position` says which), InvalidVector, DimensionMismatch,
        ModelMismatch; then nothing of the batch was written.
        """
        columns = columns_of(ids, texts, vectors, metadata, parents, seqs, expires)
        write: Any = self._writer.add
        if duplicates is not None:
            check_policy(duplicates, threshold)
            write = partial(self._add_unlike, duplicates, threshold)
        return self._write(write, records, columns, model, batch_size, progress)

    def upsert(
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
        """Like `add`, but a record whose id exists replaces the old one whole (and costs nothing if nothing changed)."""
        columns = columns_of(ids, texts, vectors, metadata, parents, seqs, expires)
        return self._write(self._writer.upsert, records, columns, model, batch_size, progress)

    def update(
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
        """Change records that exist: only what is given. Metadata is merged key by key, unless replace_metadata is set.

        A text that is given is embedded anew if the collection has a model. Raises RecordNotFound, and then changes nothing.
        """

        write = partial(self._writer.update, replace_metadata=replace_metadata)
        columns = columns_of(ids, texts, vectors, metadata, parents, seqs, expires)
        return self._write(write, records, columns, model, batch_size, progress, need_ids=True)

    def replace(
        self, parent: str, records: Any = None, *, fingerprint: str | None = None, progress: Progress | None = None
    ) -> WriteResult:
        """Make these records (dicts as for `add`; their parent is set) all there is of one parent, in one transaction.

        None, or no records, removes those that were there. fingerprint is remembered beside the parent, and `sources` gives it
        back: with it a loader knows which documents have changed. Raises DuplicateId for an id of another parent's record.
        """
        listed = [{**record, "parent": parent} for record in records or ()]
        batch = next(batches(listed, {}, None)) if listed else None
        result = self._writer.replace(parent, batch, fingerprint, progress)
        self._wrote()
        return result

    def sources(self) -> dict[str, str]:
        """The fingerprint of each parent that `replace` gave one."""
        with self._store.read() as db:
            return self._tables.fingerprints(db)

    def delete(self, ids: str | Sequence[str] | None = None, *, where: Filter | None = None) -> int:
        """Delete records by id or by filter; returns how many. Ids that do not exist are passed over."""
        if (ids is None) == (where is None):
            raise InvalidInput("give either ids or where to delete")
        if ids is not None:
            deleted = self._writer.delete_ids(listed(ids))
        else:
            assert where is not None
            matching = partial(self._reader.matching, where)
            matching()  # checks the filter and loads its columns before the write lock is taken
            deleted = self._writer.delete(matching)
        self._wrote()
        return deleted

    def dedupe(
        self,
        policy: Policy = "skip",
        *,
        threshold: float | None = None,
        where: Filter | None = None,
        blocker: Blocker | None = None,
        apply: bool = False,
    ) -> Deduped:
        """Near duplicates among the records that a filter admits: which there are, and what the policy makes of them. Nothing is
        changed unless apply is set.

        policy: "skip" deletes the newer ones, as if they had been skipped when they came; "replace" the older ones; "link" puts
        links of kind "duplicate", weighted by similarity. threshold: the least similarity, 0.9 if it is not given: the mean of
        the cosine of vectors and that of the words of the texts, in pieces; of one of them, where there is no other. Each is
        compared with the 16 nearest by vector (by words without). blocker: a trained `vecdb.blocking.Blocker` decides instead,
        with its own threshold; its fields are "text" and keys of metadata. Raises InvalidInput, InvalidFilter, ReadOnly.
        """
        from vecdb.duplicates import dedupe

        return dedupe(self, policy, threshold, where, blocker, apply)

    # -- links

    def link(
        self,
        source: str | Sequence[str],
        target: str | Sequence[str],
        kind: str | Sequence[str] = "link",
        weight: float | Sequence[float] = 1.0,
        *,
        directed: bool | Sequence[bool] = False,
    ) -> int:
        """Link records that exist, for searches with `graph=` to follow; returns how many links were written. All or nothing.

        Lists make several links, one for each place; what is given once counts for all of them. Of one kind, two records have
        one undirected link, or one each way; a new one replaces what it cannot stand beside. A link goes with its records, and
        stays when their text changes.

        Raises RecordNotFound; InvalidInput (`.position`) for a link to itself, a weight that is not finite and above 0, or a
        kind that vecdb derives by itself ("semantic", "sequence", "entity").
        """
        return self._links.put(source, target, kind, weight, directed)

    def unlink(self, source: str | Sequence[str], target: str | Sequence[str], kind: str | None = None) -> int:
        """Delete the links from source to target, undirected ones in either order, of one kind (None: of all); returns how
        many. Links and records that are not there are passed over.
        """
        return self._links.remove(source, target, kind)

    def links(self, id: str | None = None, kind: str | None = None) -> list[Link]:
        """The links that were put at a record, either end (None: at all), by source, target and kind. Raises RecordNotFound."""
        return self._links.of(id, kind)

    def link_entities(self, extractor: Extractor | Mapping[str, Iterable[str]]) -> int:
        """Link records that name the same, for searches with `graph=`: those that are there now and, through this handle, those
        written from now on. Returns how many entities are named in all.

        extractor: a function from a text to the names in it, or the metadata key that lists them. Or what some records name, by
        their ids; that says nothing of others. Letter case does not count; what more than 64 records name links none of them.
        Raises RecordNotFound.
        """
        if isinstance(extractor, Mapping):
            return self._links.name(extractor)
        before, entities = self._writer.entities, Entities(extractor)
        self._writer.entities = entities  # before the others are read: what is written meanwhile must not be missed
        try:
            return self._links.mention(entities)
        except BaseException:
            self._writer.entities = before
            raise

    def derive(
        self,
        field: str = FASTRP,
        *,
        kinds: Sequence[str] | Mapping[str, float] | None = None,
        dimension: int = 128,
        weights: Sequence[float] = (1.0, 1.0, 1.0, 1.0),
        degree_exponent: float = -0.5,
        seed: int = 0,
        tune: bool = False,
    ) -> int:
        """Make a vector for each record that has links, by what it is linked to over several hops (FastRP); returns how many
        have one. Search them with `field="fastrp"`: records whose surroundings are alike come first.

        kinds: of the links that count, or a factor for each; None: all. weights: of one hop, two hops, …. degree_exponent: from
        -1 to 0, how much records that many links lead to are held back. Called again, everything is looked at again, and
        vectors of before are not comparable with those from then on. tune: choose weights and degree_exponent by how well they
        foretell links that are hidden from them; those given are kept unless others prove better. Raises InvalidQuery,
        InvalidInput, ReadOnly.
        """
        from vecdb.index.fastrp import FastRPConfig

        check_field(field, (FASTRP,))
        config = FastRPConfig(dimension, tuple(map(float, weights)), degree_exponent, seed=seed)
        return self._nodes.derive(config, kinds, tune=tune)

    def vector(self, id: str, field: str = FASTRP) -> Vector | None:
        """The vector of a record in a derived field; None if it has none, or is not there."""
        check_field(field)
        return self._derived[field].vector_of(id)

    def learn_similarity(
        self,
        similarity: Similarity | None = None,
        *,
        triples: Sequence[Triple] | None = None,
        sample: int = 500,
        dimension: int = 64,
        epochs: int = 20,
        seed: int = 0,
    ) -> LearnedSimilarity:
        """Learn what counts as alike here, and search by it with `field="learned"`: the query vector is one of that field (see
        `vector`), or examples (`recommend(ids, field="learned")`). Records that are added later have their vectors at once.

        triples: ids (a, b, c) for which a is more like b than like c. Or similarity: a function of two records; it is asked about
        `sample` records, each with some near ones and some others. A head of the stored vectors is trained on them (extra
        [learned]), as `vecdb.blocking` trains its hash; called again, it takes the place of the one of before. What comes back
        says how many triples it tells right that it did not learn from. Raises InvalidInput (`.position`), RecordNotFound,
        MissingExtra, ReadOnly.
        """
        if (similarity is None) == (triples is None):
            raise InvalidInput("give either similarity, a function of two records, or triples of ids")
        if isinstance(sample, bool) or not isinstance(sample, int) or sample < 1:
            raise InvalidInput(f"sample is {sample!r}; it must be a whole number of at least 1")
        config = similarity_config(dimension, epochs, seed)
        if triples is None:
            assert similarity is not None
            triples = self._learned.triples_by(similarity, self._reader.present, config, sample)
        return self._learned.learn(triples, config)

    # -- reading

    @overload
    def get(self, ids: str, *, vectors: bool = False) -> Record | None: ...  # type: ignore[overload-overlap]
    @overload
    def get(self, ids: Sequence[str], *, vectors: bool = False) -> list[Record | None]: ...
    def get(self, ids: str | Sequence[str], *, vectors: bool = False) -> Record | list[Record | None] | None:
        """One record by id, or a list of them in the order of ids; None for one that is not there.

        Under cosine a vector comes back as it is stored: at unit length. Where the collection stores other bytes than float32 it
        is what these stand for, not what was given; `storage` says which codec that is.
        """
        found = self._reader.by_ids(ids, vectors=vectors)
        return found.get(ids) if isinstance(ids, str) else [found.get(id) for id in ids]

    def count(self, where: Filter | None = None) -> int:
        return self._reader.count(where)

    def facets(self, key: str, *, where: Filter | None = None, limit: int = 20) -> list[tuple[Any, int]]:
        """The values of a metadata key (dots go into nested ones; list items count each) and how many records have each."""
        return self._reader.facets(key, where, limit)

    def scan(
        self, *, where: Filter | None = None, limit: int = 100, cursor: str | None = None, vectors: bool = False
    ) -> Page:
        """Records in order of insertion, a page at a time: pass the page's cursor to get the next one."""
        return self._reader.page(where, limit, cursor, vectors=vectors)

    # -- searching

    @overload
    def search(
        self,
        query: str,
        *,
        vector: ArrayLike | None = None,
        cursor: str | None = None,
        model: str | None = None,
        **options: Unpack[SearchKeywords],
    ) -> Hits: ...
    @overload
    def search(
        self,
        query: list[str],
        *,
        vector: ArrayLike | None = None,
        cursor: str | None = None,
        model: str | None = None,
        **options: Unpack[SearchKeywords],
    ) -> list[Hits]: ...
    @overload
    def search(
        self,
        query: ArrayLike | None = None,
        *,
        vector: ArrayLike | None = None,
        cursor: str | None = None,
        model: str | None = None,
        **options: Unpack[SearchKeywords],
    ) -> Any: ...
    def search(
        self,
        query: str | Sequence[str] | ArrayLike | None = None,
        *,
        vector: ArrayLike | None = None,
        cursor: str | None = None,
        model: str | None = None,
        **options: Unpack[SearchKeywords],
    ) -> Any:
        """The k best records for a query: text, a vector, or both (`search("text", vector=v)`).

        A list of texts, or a (B, D) array, is a batch: the answer is then a list of Hits, one for each query.

        mode: "vector" by meaning, "text" by words (BM25), "hybrid" by both; "auto" takes whatever the query and the collection
        allow. where: a filter on metadata. exact: look at every vector instead of the index. ef: beam width in the graph, larger
        is slower and truer. target_recall: instead of ef, the share of the true neighbours that is wanted (0.95, say); each
        query then ends by itself, and the hits' estimated_recall says what it is likely to have reached.
        fusion: how hybrid lists are joined: "auto", which is "adaptive" (by score, with weights of each query's own; see
        `fit_fusion`) for a vector list and a word list and "rrf" (by rank) for those of prefetches; "weighted", "zscore",
        "distribution", "combmnz" (by score), "vstash" (its rule), or an object of vecdb.query.fusion.
        syntax="query": text is read as a query with "phrases", prefix*, AND, OR, NOT and parentheses; title:word, book.title:word
        and {title text}:word look into those fields of the collection only. "plain" takes any text.
        distinct: at most per_group hits of one parent ("parent"), or of one value of a metadata key; however crowded one of them
        is, k hits come back if there are enough others. Records without that value stand for themselves.
        near: a second space beside that of vectors, {"geo": (latitude, longitude, metres)}, {"date": (centre, width)}, {"price":
        (100, 20)}: only records that are so near, and of those the true best (unless ef or target_recall says how many may be
        missed). Or a weight on the score, {"geo": {"at": (48.1, 11.6), "kernel": "gauss", "scale": "2km"}}, also beside
        "within"; kernels "linear", "gauss" and "exp" are one half at scale, and a score s becomes s + |s| (weight - 1).
        Distances may be "2km" or "30d", a centre "now"; how places stand in metadata: vecdb.nearness.
        min_score: leave out hits below.
        select: how hits are chosen from the candidates: "topk", the best; or as a set, by "coverage" (of the neighbourhood of the
        query), "mmr", "kcenter", "dpp", or an object of vecdb.query.selection such as Coverage(pool=500). A set comes in the
        order of choice, with the scores that its hits had; the trace's "select" step tells the gain of each and, for coverage,
        the share of the neighbourhood covered up to it (coverage) and by it (share), and ids of what it stands for (covers).
        offset, or the cursor of earlier Hits: go on after them.
        rerank: a second look at the best candidates: "maxsim" or another name of rerank/kinds.py, one with options such as
        {"kind": "maxsim", "alpha": 0.05, "top": 100, "deadline_ms": 50}, an object with rerank(query, candidates, k), or a list
        of them, each of which orders what the one before gave. One that fails or runs out of time leaves the order as it was,
        and the trace says so.
        candidates: how many records each first stage gives. vectors: return them too. model: identity of the model that made
        the query vector.
        synonyms: word or phrase -> what a query that has it also looks for, {"car": ["automobile"]} or with weights
        {"car": {"automobile": 0.8}}; in place of the collection's own. fuzzy: a word that no record has stands for the nearest
        words that some have (one letter away from 4 letters on, two from 8 on; first letter kept; words with digits never).
        It is off unless asked for: an answer to another word than the one given should be somebody's wish, and that nothing
        was found is an answer too. snippets: True, or a vecdb.SnippetOptions: each hit's `snippet` is the part of its text with
        most of the query's words, marked.
        graph: GraphOptions, or a dict of them: candidates that the best ones are linked to come up, and records that are not
        candidates come in; the trace tells by which path. Links are what `link` and `link_entities` put, the order of chunks,
        and nearness of vectors. field="fastrp": the query vector is one of the field that `derive` made (see `vector`).

        prefetch: searches, each the options of one as a mapping (also its own query or vector, which are this search's if it has
        none; k is 100 unless it says otherwise), nested up to 4 deep. This search then works over the records that they found:
        in mode "auto" their lists are fused; in mode "vector", "text" or "hybrid" all of them are scored anew. where holds for
        them, too.
        recommend, discover: examples in place of a query, see `recommend` and `discover`.
        boosts: a list of vecdb.query.boost_options.Boost, or mappings of its fields: {"where": {…}, "weight": 1.5}, {"field":
        "date", "decay": "exp", "scale": "30d"}, {"field": "popularity", "modifier": "log1p", "weight": 0.2}. They change the
        scores of the candidates (at least 100) after any reranker; formulas are at Boost.
        plan: the name of a query that `save_query` saved, or such a query itself: its options hold where none is given here, and
        where narrows its own. params: values for its placeholders.

        Scores: cosine similarity, inner product, or negated Euclidean distance by vector; BM25 by words; else the last stage's.
        """
        queries, is_batch, wanted = self._asking.search(query, vector, model, options)
        if cursor is not None:
            if is_batch:
                raise InvalidQuery("a cursor continues one query; search them one at a time")
            known = self._engine.looked_for(queries, wanted)
            wanted = continued(wanted, cursor, known[0])
            if wanted.examples is None:  # whose vector the search finds again
                queries = known
        hits = self._engine.run(queries, wanted)
        return hits if is_batch else hits[0]

    def search_groups(
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
        """The k groups of records that are near all of a set of query vectors: (m, D) numbers, or m texts, which are embedded.

        by: "parent", or a metadata key whose values are the groups. A group's score is the mean over the query vectors of a
        bounded kernel of the distance to the group's nearest record, (1 - (distance / reach) ** a) ** (1 / a) with
        a = shape / (1 - shape): each query vector counts once in each group, so a crowded group gains nothing by it, and what is
        farther than reach counts nothing. reach: a Euclidean distance (of unit vectors, under cosine); None: measured on the
        collection. shape: None for 0.4592, which the released code has.
        Groups of score 0 are left out.

        method: "exact" measures everything; "index" asks the index for each query vector's nearest, without the groups that came
        up already, until 4 k have; "grids" measures what shares a cell of random grids with a query vector (they are made when
        first asked for, a second or so for 50,000 vectors, and kept in memory; what was written since is measured besides).
        Both then measure the best groups whole if they are few among all; else a score is at most the true one. "auto" is
        "exact" up to 16 million distances, and where there is no index. where: only records that satisfy this filter.

        CANN: Aiger, Araujo & Lynen, "Yes, we CANN", ICCV 2023. Raises InvalidQuery, also where the metric is the inner product;
        InvalidVector, DimensionMismatch, InvalidFilter.
        """
        options = GroupOptions(int(k) if isinstance(k, np.integer) else k, by, method, reach, shape)
        node = None if where is None or where == {} else parse(where)
        return self._groups.search(self._asking.vectors(queries, model), node, options)

    def recommend(
        self,
        positive: Any = (),
        negative: Any = (),
        *,
        strategy: Strategy = "average",
        **options: Unpack[SearchKeywords],
    ) -> Hits:
        """What is like the positive examples and unlike the negative ones: ids of records, which are no hits then, or vectors.

        strategy: "average" searches by 2 mean(positive) - mean(negative), through the index; "best_score" lets the nearest
        example of each record decide. vecdb.query.examples has the formulas, and says what is measured. options: as for `search`.
        Raises RecordNotFound, InvalidQuery for a record without a vector.
        """
        examples = {"positive": positive, "negative": negative, "strategy": strategy}
        asked: SearchKeywords = {**options, "recommend": examples}
        hits: Hits = self.search(**asked)
        return hits

    def discover(self, target: Any = None, context: Any = (), **options: Unpack[SearchKeywords]) -> Hits:
        """What is like the target, in the region that the context points out: pairs (positive, negative). Without a target it
        explores that region. Examples are as in `recommend`, formulas in vecdb.query.examples, options as for `search`.
        """
        asked: SearchKeywords = {**options, "discover": {"target": target, "context": context}}
        hits: Hits = self.search(**asked)
        return hits

    def run(
        self,
        plan: str | SearchPlan | Mapping[str, Any],
        query: str | Sequence[str] | ArrayLike | None = None,
        *,
        vector: ArrayLike | None = None,
        params: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> Any:
        """Hits of a saved query, by its name, or of a plan (a list of Hits for a batch): `search(query, plan=plan, …)`."""
        return self.search(query, vector=vector, **{**options, "plan": plan, "params": params})

    def save_query(self, name: str, plan: SearchPlan | Mapping[str, Any]) -> None:
        """Keep a plan (options of `search`, and query or vector if it is to have one) with the collection under a name, in place
        of what was kept there.

        Any value in it may be a placeholder, {"$param": "since"} or {"$param": "since", "default": 2020}, whose value is given in
        `run(name, …, params={"since": 2024})`. Raises InvalidInput, whose message names the place of the mistake
        ("prefetch[1].where.year"), and ReadOnly.
        """
        self._saved_queries.save(name, plan)

    def queries(self) -> dict[str, dict[str, Any]]:
        """The saved queries by name, as data."""
        return self._saved_queries.all()

    def bound_plan(
        self, plan: str | SearchPlan | Mapping[str, Any], params: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """The options of a saved query, by its name, or of a plan, with values for its placeholders. Raises QueryNotFound,
        InvalidQuery.
        """
        return self._saved_queries.bound(plan, params or {})

    def delete_query(self, name: str) -> bool:
        """Whether there was a query of that name, which is gone now."""
        return self._saved_queries.delete(name)

    def why_not(
        self,
        id: str,
        query: str | ArrayLike | None = None,
        *,
        vector: ArrayLike | None = None,
        model: str | None = None,
        **options: Unpack[SearchKeywords],
    ) -> WhyNot:
        """Why the record is not among the hits of this search (options as for `search`), and what would bring it in.

        What a prefetch lost is told as "prefetch[1].vector". With plan=, the change is one to the options that it amounts to.
        """
        queries, is_batch, wanted = self._asking.search(query, vector, model, options)
        if is_batch:
            raise InvalidQuery("why_not explains one query; ask for them one at a time")
        return explain_absence(self._engine, self._store, self._tables, id, queries[0], wanted)

    def explain(
        self,
        query: str | ArrayLike | None = None,
        *,
        vector: ArrayLike | None = None,
        model: str | None = None,
        **options: Unpack[SearchKeywords],
    ) -> Plan:
        """How this search (options as for `search`) would be answered, without doing it: its stages, the way that each would take
        and why, what they are likely to cost, and how much the filter admits. str() of it is in words, with prefetches as a tree.
        """
        from vecdb.query.plan import plan_of

        queries, is_batch, wanted = self._asking.search(query, vector, model, options)
        if is_batch:
            raise InvalidQuery("explain plans one query; ask for them one at a time")
        return plan_of(self._engine, self._definition, queries[0], wanted)

    def context(self, question: str, *, budget_tokens: int = 1500, **options: Any) -> Context:
        """Passages that answer a question, packed for a language model's prompt: see `vecdb.rag.build_context`."""
        from vecdb.rag import build_context

        return build_context(self, question, budget_tokens=budget_tokens, **options)

    def neighbours(self, parent: str, first: int, last: int) -> list[Record]:
        """The records of one parent whose seq lies in first … last, in that order: a chunk's surroundings."""
        return self._reader.siblings(parent, first, last)

    # -- how good, how large, is it sound

    def evaluate(
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
        """How good the answers of each mode, or saved query, are: measures over queries (id -> text or vector) with judgments
        (id -> id -> grade).

        Measures are named as in ir-measures (extra [eval]). Compare two modes with `vecdb.evaluation.paired_bootstrap`.
        """
        from vecdb.evaluation import Judged, search_options

        judged = Judged(queries, qrels, measures)
        return {
            mode: judged.evaluated(self.search(judged.batch, **{**search_options(mode, k), "where": where, **options}))
            for mode in modes
        }

    def compare(
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
        """Whether setting a answers judged queries better than b, or these queries only happen to suit it: for each measure the
        mean difference, its 95 % interval and its p-value by a paired bootstrap.

        a, b: modes ("text"), names of saved queries, or options of `search` ({"mode": "hybrid", "fusion": "weighted"}; plan= and
        params= are such). The rest is as in `evaluate`.
        """
        from vecdb.evaluation import Judged, compare_evaluations, search_options

        judged = Judged(queries, qrels, measures)
        first, second = (
            judged.evaluated(self.search(judged.batch, **search_options(setting, k))) for setting in (a, b)
        )
        return compare_evaluations(first, second, samples=samples, seed=seed)

    def gate(
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
        """Whether the answers to judged queries are good enough to let a change pass; the result is true or false like a bool.

        min: for each measure the least mean that passes. baseline: an earlier result's `.evaluation` (or its JSON), than which no
        measure may be worse by more than tolerance, chance apart: see `vecdb.evaluation.Gate`. options: of `search`.
        """
        from vecdb.evaluation import Gate, Judged

        gate = Gate(min, baseline, tolerance=tolerance, samples=samples, seed=seed)
        judged = Judged(queries, qrels, gate.measures)
        return gate.judged(judged.evaluated(self.search(judged.batch, k=k, **options)))

    def recall_report(
        self, *, sample: int = 200, k: int = 10, ef: int | None = None, where: Sequence[Filter] = (), seed: int = 0
    ) -> RecallReport:
        """How often the index finds what exact search finds, on a sample of the collection's own vectors, also under filters."""
        from vecdb.recall import measure_recall

        return measure_recall(self, sample=sample, k=k, ef=ef, where=where, seed=seed)

    def tune(
        self,
        target_recall: float = 0.95,
        *,
        k: int = 10,
        budget_s: float = 60.0,
        queries: Sequence[str] | ArrayLike | None = None,
        apply: bool = False,
    ) -> CollectionTuning:
        """How the index should be built and searched to find target_recall of the k nearest with the least work.

        Measured on graphs over a sample of the vectors, which take about budget_s seconds; what came out is returned and kept
        (see `tuning`), unless the file was opened read-only. queries: texts or vectors (B, D) such as will be asked; None
        takes stored vectors, held out. is_reached says honestly whether the target was met.

        apply: if it was met, the next merge builds the index anew in that way, and measures ef again on the whole. Who opens the
        collection with index=… must then leave that out. Raises InvalidInput, InvalidQuery, ReadOnly.
        """
        from vecdb.tuning import tune_collection

        asked = None if queries is None else self._asking.vectors(queries)
        self._indexing.warm()
        tuning = tune_collection(
            self._store,
            self._tables,
            self._definition,
            self._memory,
            target_recall=target_recall,
            k=k,
            budget_s=budget_s,
            queries=asked,
            apply=apply,
        )
        self._upkeep.nudge(self._indexing)
        return tuning

    def fit_fusion(
        self,
        queries: Sequence[str] | Mapping[str, str],
        *,
        vectors: ArrayLike | None = None,
        qrels: Mapping[str, Mapping[str, int]] | None = None,
        keep: bool = True,
    ) -> Adaptive:
        """The adaptive fusion fitted to this collection by some dozens of queries such as will be asked, without judgements.

        It says which of words and vectors serves the collection's queries better. keep: it stays with the collection, and
        fusion="adaptive" means it from now on, also in other processes; False only gives it, for `search(…, fusion=that)`.
        vectors: (B, D) of the queries, where the collection does not embed. qrels: judgements (id of a query -> id -> grade, with
        queries as id -> text), which make it better where there are some dozens. Raises InvalidInput, InvalidQuery, ReadOnly.
        """
        from vecdb.query.fusion import fitting

        texts = list(queries.values() if isinstance(queries, Mapping) else queries)
        if vectors is None and not self._definition.embeds:
            raise InvalidQuery(f"collection {self.name!r} has no embedding model; give the queries' vectors as well")
        given = self._asking.queries(texts, vectors)[0] if texts else []
        grades = None if qrels is None else self._grades(queries, qrels)
        fitted = fitting.fit(self._engine, given, SearchOptions(mode="hybrid"), grades)
        if keep:
            with self._store.write() as db:
                self._definition.refresh(db)
                self._definition.kept.put(db, "fusion", fitting.to_json(fitted))
        return fitted

    def forget_fusion(self) -> bool:
        """Undo `fit_fusion`: fusion="adaptive" knows nothing of this collection any more. Whether there was something."""
        with self._store.write() as db:
            self._definition.refresh(db)
            return self._definition.kept.forget(db, "fusion")

    @property
    def fusion(self) -> Adaptive | None:
        """What `fit_fusion` kept, which fusion="adaptive" stands for; None without one."""
        return self._engine.fitted_fusion()

    def _grades(
        self, queries: Sequence[str] | Mapping[str, str], qrels: Mapping[str, Mapping[str, int]]
    ) -> list[dict[int, float]]:
        """Judgements by row, for each query; those of records that are not here are left out."""
        if not isinstance(queries, Mapping):
            raise InvalidInput("qrels are by the ids of queries; give queries as a mapping, id -> text")
        unknown = [id for id in qrels if id not in queries]
        if unknown:
            raise InvalidInput(
                f"qrels judge a query {unknown[0]!r} that is not among queries; leave it out, or give it"
            )
        ids = list(dict.fromkeys(id for judged in qrels.values() for id in judged))
        with self._store.snapshot() as db:
            known = self._tables.by_ids(db, ids)
        return [{known[id].row: float(g) for id, g in qrels.get(query, {}).items() if id in known} for query in queries]

    def adapt(self, *, sample: int = 2_500, budget_s: float = 60.0, seed: int = 0, apply: bool = True) -> Adaptation:
        """Learn from the collection's own documents, without labels, a small map of query vectors under which they are found
        better by meaning. Stored vectors stay as they are. `str()` of what comes back tells all in words.

        Queries are made of up to sample records (a sentence and some words of each); the record is what they look for, and what
        only one of the vector list and the word list has is what they do not. The map is accepted if it finds the documents of
        held-out queries better beyond chance, while a control that was taught nonsense does not.

        apply: then searches use it from now on, here and in other processes, wherever the collection embeds a query's text; a
        vector that the caller gives is taken as it is. The trace's "vector" stage names the map (adapter), and a cursor of
        before is refused. A map that is not accepted changes nothing: one of before stays. `reset_adapter` takes it back.

        budget_s: fewer records are drawn if embedding them would take more than two fifths of it. Raises InvalidInput if there
        is too little to learn from, ModelUnavailable if the collection has no embedding model, ReadOnly.
        """
        from vecdb.adaptation.adapting import adapt_collection

        self._indexing.warm()
        return adapt_collection(
            self._store,
            self._definition,
            self._engine.retrieval,
            self._miner(seed),
            sample=sample,
            budget_s=budget_s,
            seed=seed,
            apply=apply,
        )

    @property
    def adapter(self) -> Adaptation | None:
        """What is known of the map that searches use; None without one."""
        from vecdb.adaptation.adapting import kept_adaptation

        with self._store.snapshot() as db:
            self._definition.refresh(db)
            return kept_adaptation(db, self._definition)

    def reset_adapter(self) -> bool:
        """Search by query vectors as the model makes them again; whether a map was in use. Raises ReadOnly."""
        with self._store.write() as db:
            self._definition.refresh(db)
            return self._definition.kept.forget(db, ADAPTER)

    def export_triples(self, path: str | Path, *, sample: int = 2_500, seed: int = 0) -> int:
        """Write what `adapt` learns from as a new JSON Lines file, to fine-tune the whole encoder with; returns how many lines.

        Each has the texts of a query (anchor), its document (positive) and others (negative_1, …): the columns that
        sentence-transformers' MultipleNegativesRankingLoss reads. Documents that `adapt` judges by are not among them, so the
        gate can judge what was trained: see bench/adapt/finetune.py. Raises as `adapt`, and StorageError if the file exists.
        """
        from vecdb.adaptation.export import write_triples

        return write_triples(self._store, self._tables, self._miner(seed), Path(path), sample=sample, seed=seed)

    @property
    def tuning(self) -> CollectionTuning | None:
        """What the last `tune` measured, and whether the collection has changed too much since (is_stale); None without one."""
        from vecdb.tuning import stored_tuning

        with self._store.snapshot() as db:
            self._definition.refresh(db)
            return stored_tuning(db, self._tables, self._definition)

    def stats(self) -> CollectionStats:
        with self._store.snapshot() as db:
            self._definition.refresh(db)
            vectors, vector_bytes = self._tables.count_vectors(db), self._tables.vector_bytes(db)
            text_bytes = self._tables.text_bytes(db)
            segment_bytes = self._files.bytes(db)
        view = self._memory.current("vectors").vectors
        assert view is not None
        tail = len(view.tail_slots)
        return CollectionStats(
            name=self.name,
            records=self.count(),
            dimension=self.dimension,
            metric=self.metric,
            model=self.model,
            indexed=vectors - tail,
            tail=tail,
            text_bytes=text_bytes,
            vector_bytes=vector_bytes,
            segment_bytes=segment_bytes,
            storage=self._stored.state().stored,
            index=self.config.index.text,
        )

    def check(self) -> list[str]:
        """Every broken invariant in words; empty if the collection is sound."""
        from vecdb.soundness import check_collection

        return check_collection(self._store, self._tables, self._memory, self._stored, self.config)

    def optimize(self) -> None:
        """Bring everything that was written into the index, now, and wait for it."""
        self._indexing.merge(threads=None, force=True)

    @property
    def storage(self) -> StorageState:
        """Which codec the file keeps vectors with, which one is wanted, and how far a change has come."""
        return self._stored.state()

    def set_storage(self, codec: str, *, wait: bool = True, progress: Progress | None = None) -> StorageState:
        """Keep vectors with another codec from now on: "float32", "float8", "int8", "pca:192+float8", … (vecdb.index.codecs).

        All rows are turned into it, some thousand at a time, while reads, writes and searches go on; what was cut short goes on
        by itself in this or another process. wait=False leaves all of it to the background. What a codec loses is lost: going
        back to float32 brings the numbers of the last codec. progress(done, total) is called after each step.

        The file does not shrink by itself, but uses the room for what comes; `compact` gives it back. Raises InvalidInput,
        ReadOnly, DiskFull.
        """
        self._stored.want(codec)
        if wait:
            self._indexing.recode(progress)
        self._upkeep.nudge(self._indexing, wrote=True)
        return self.storage

    def plan_storage(
        self,
        budget_bytes: int | None = None,
        *,
        max_loss: float | None = None,
        queries: Mapping[str, Any] | Sequence[str] | ArrayLike | None = None,
        qrels: Mapping[str, Mapping[str, int]] | None = None,
        codecs: Sequence[str] | None = None,
    ) -> StoragePlan:
        """Which codec to store vectors with: candidates measured on a sample of this collection's own, nothing changed.

        Recommended is the codec that loses least within budget_bytes (of all vectors), or takes fewest bytes and loses at most
        max_loss (0.01 if neither is given). queries: texts or vectors (B, D) such as will be asked; None takes stored vectors,
        held out. With qrels, judgements as for `evaluate`, queries are by id, and loss is of nDCG@10; else of recall@10 against
        the vectors as they are stored now. codecs: what to try instead of the usual ones. Apply one with
        `set_storage(plan.recommended.codec)`. Raises InvalidInput, InvalidQuery.
        """
        from vecdb.judged import judged_queries
        from vecdb.storage_plan import plan_collection

        given, grades = judged_queries(queries, qrels)
        asked = None if given is None else self._asking.vectors(given)
        return plan_collection(
            self._store,
            self._tables,
            self._definition,
            self._stored,
            queries=asked,
            qrels=grades,
            codecs=codecs,
            budget_bytes=budget_bytes,
            max_loss=max_loss,
        )

    def compact(self) -> None:
        """Give the file's unused pages back to the file system. It is written anew: nobody else may write meanwhile, and as much
        room again is needed until it is done. Raises DatabaseBusy, DiskFull, ReadOnly.
        """
        self._store.vacuum()

    def warm(self) -> None:
        """Load vectors, words and columns, and compile the kernels if there is an index to search; wait for it."""
        self._memory.current("vectors", "words", "attributes")
        self._indexing.warm()

    # -- inside

    def _write(
        self,
        write: Any,
        records: Any,
        columns: dict[str, Any],
        model: str | None,
        batch_size: int | None,
        progress: Progress | None,
        need_ids: bool = False,
    ) -> WriteResult:
        self._definition.check_model(model)
        results: list[WriteResult] = []
        done = 0
        for batch in batches(records, columns, batch_size, need_ids=need_ids):
            inner = None if progress is None else (lambda n, _, done=done: progress(done + n, None))
            results.append(write(batch, inner, model))
            done += len(batch)
            self._wrote()
            if progress is not None:
                progress(done, None)
        return joined(results)

    def _add_unlike(
        self, policy: Policy, threshold: float, batch: Batch, progress: Progress | None, model: str | None
    ) -> WriteResult:
        from vecdb.duplicates import admitted, carry_out

        found: list[Duplicate] = []

        def admit(batch: Batch, vectors: list[Matrix | None]) -> Sequence[int]:
            if self._reader.present(batch.ids):
                return range(len(batch))  # the writer refuses an id that exists, and says so
            new = [Record(id, text, vector=vector) for id, text, vector in zip(batch.ids, batch.texts, vectors)]
            written, duplicates = admitted(self, new, policy, threshold)
            found.extend(duplicates)
            return written

        result = self._writer.add(batch, progress, model, admit=admit)
        if policy != "skip":
            carry_out(self, policy, found)
        return replace(result, duplicates=tuple(found))

    def _wrote(self) -> None:
        self._upkeep.nudge(self._indexing, wrote=True)

    def _wish(self, part: Part) -> None:
        """A query would have been faster with this part in memory, or with a better index."""
        loaded = self._memory.newest().has((part,))
        if self._upkeep.enabled:
            if not loaded or self._indexing.is_behind():
                self._indexing.wanted.add(part)
                self._upkeep.nudge(self._indexing)
        elif not loaded and part in self._indexing.wanted:  # asked for twice: loading pays
            self._memory.current(part)
        else:
            self._indexing.wanted.add(part)

    def _miner(self, seed: int) -> Miner:
        from vecdb.adaptation.mining import Miner

        return Miner(self._store, self._tables, self._definition, self._memory, self._engine.retrieval, seed)
