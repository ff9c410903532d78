"""`vecdb demo`: a real collection, loaded, searched in three ways and measured, offline and on this machine.

It is SciFact (Wadden et al. 2020): 5,183 abstracts of biomedical papers, and 300 claims with the abstracts that people
judged to bear on each. Everything shown is computed while you watch; only the texts and the judgements are prepared.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from rich.console import Console
from rich.panel import Panel
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

import vecdb
from vecdb.evaluation import Evaluation, paired_bootstrap
from vecdb.judged import JudgedCollection, load_judged
from vecdb.types import Vector

if TYPE_CHECKING:
    from vecdb.collection import Collection
    from vecdb.embedding import Embedder

Way = Literal["vector", "text", "hybrid"]
WAYS: tuple[Way, ...] = ("vector", "text", "hybrid")
_IN_WORDS = {"vector": "by meaning", "text": "by words", "hybrid": "by both"}

# One that shares few words with its answers, one whose word is a rare name, and an everyday question.
QUERIES = ("what makes arteries stiff with age", "ALDH1 expression", "Is red wine good for the heart?")
QUESTION = "Do statins protect people who have never had a heart attack?"

_COLLECTION = "papers"
_BATCH = 64  # abstracts in one transaction: what a Ctrl-C may cost, about two seconds of embedding
_TOP = 3
_TITLE = 60  # characters


@dataclass(frozen=True, slots=True)
class Loaded:
    """How the loading went. added: abstracts embedded and written now; the others were there."""

    added: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Latency:
    """Milliseconds per query. With the embedding: from text to hits; without: the search alone, its vector given."""

    search_ms: Sequence[float]
    embed_ms: Sequence[float]

    def percentile(self, percent: float, *, with_embedding: bool) -> float:
        total = np.asarray(self.search_ms) + (np.asarray(self.embed_ms) if with_embedding else 0.0)
        return float(np.percentile(total, percent))


def run(
    path: Path,
    *,
    console: Console | None = None,
    judged: JudgedCollection | None = None,
    embed: str | Embedder = "default",
) -> None:
    """The whole demonstration on one database file, made if absent. Stopped at any moment, the next run goes on."""
    console = console or Console()
    judged = judged or load_judged("scifact")
    console.print(
        f"[bold]vecdb {vecdb.__version__}[/bold]: {len(judged.corpus):,} abstracts of biomedical papers (SciFact) in {path}\n"
    )
    with vecdb.open(path) as database:
        papers = database.collection(_COLLECTION, embed=embed)
        loaded = load(papers, judged, console)
        with console.status("building the index (the first time, its kernels are compiled)"):
            papers.optimize()
            papers.warm()
        show_searches(papers, console)
        show_context(papers, console)
        with console.status(f"measuring {len(judged.queries)} claims"):
            latencies = measure_latency(papers, list(judged.queries.values()))
            evaluations = papers.evaluate(judged.queries, judged.qrels, modes=WAYS, measures=("nDCG@10", "R@100"))
        show_measures(evaluations, latencies, len(judged.queries), console)
        show_size(path, papers, loaded, console)


def load(papers: Collection, judged: JudgedCollection, console: Console) -> Loaded:
    """Embed and add the abstracts that are not there yet."""
    missing = _missing(papers, judged.corpus)
    if not missing:
        console.print(f"all {len(judged.corpus):,} abstracts are there from an earlier run\n")
        return Loaded(0, 0.0)
    started = time.perf_counter()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=console) as progress:
        task = progress.add_task("embedding and storing", total=len(judged.corpus))
        progress.update(task, completed=len(judged.corpus) - len(missing))
        remaining = iter(missing)
        while batch := list(islice(remaining, _BATCH)):
            papers.add([_record(document) for document in batch])
            progress.advance(task, len(batch))
    console.print()
    return Loaded(len(missing), time.perf_counter() - started)


def _missing(papers: Collection, corpus: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    found = papers.get([document["_id"] for document in corpus]) if len(papers) else [None] * len(corpus)
    return [document for document, record in zip(corpus, found) if record is None]


def _record(document: Mapping[str, Any]) -> dict[str, Any]:
    title = document.get("title") or ""
    metadata = {"title": title, "source": f"SciFact abstract {document['_id']}"}
    return {"id": document["_id"], "text": f"{title} {document['text']}".strip(), "metadata": metadata}


def show_searches(papers: Collection, console: Console) -> None:
    """The best hits of some queries, the three kinds of search side by side."""
    for query in QUERIES:
        table = Table(title=f"“{query}”", title_justify="left", title_style="bold", expand=True)
        for way in WAYS:
            table.add_column(_IN_WORDS[way], ratio=1)
        answers = [papers.search(query, k=_TOP, mode=way) for way in WAYS]
        for place in range(_TOP):
            table.add_row(*(_title(hits, place) for hits in answers))
        console.print(table)
    console.print()


def _title(hits: Sequence[vecdb.Hit], place: int) -> Text:
    """The beginning of a hit's title, with its score. Scores of different kinds of search do not compare."""
    if place >= len(hits):
        return Text("—", style="dim")
    hit = hits[place]
    title = str(hit.metadata["title"])
    shown = title if len(title) <= _TITLE else f"{title[: _TITLE - 1].rstrip()}…"
    return Text.assemble(f"{place + 1}. {shown}", (f" {hit.score:.3g}", "dim"))


def show_context(papers: Collection, console: Console) -> None:
    """What a language model would be given for a question: numbered passages, cut to a budget."""
    context = papers.context(QUESTION, budget_tokens=450)
    console.print(f"[bold]“{QUESTION}”[/bold]: the context for a language model, {context.tokens} tokens")
    console.print(Panel(Text(context.text)))
    refused = papers.context("Which bicycle should I buy for my daughter?")
    console.print(
        "“Which bicycle should I buy for my daughter?” "
        + ("finds something here." if refused.found else "finds nothing relevant here, and is refused.")
        + "\n"
    )


def measure_latency(papers: Collection, texts: Sequence[str]) -> dict[Way, Latency]:
    """Each text embedded, then searched in each way, one at a time as a user would."""
    embedder = papers.embedder
    assert embedder is not None
    vectors: list[Vector] = []
    embed_ms = []
    for text in texts:  # none of them was embedded in this process before, so that its cache of queries is no help
        started = time.perf_counter()
        vectors.append(embedder.embed_query(text))
        embed_ms.append(_ms_since(started))
    latencies = {}
    for way in WAYS:
        search_ms = []
        for text, vector in zip(texts, vectors):
            started = time.perf_counter()
            papers.search(text, vector=None if way == "text" else vector, k=10, mode=way)
            search_ms.append(_ms_since(started))
        latencies[way] = Latency(search_ms, [0.0] * len(texts) if way == "text" else embed_ms)
    return latencies


def _ms_since(started: float) -> float:
    return (time.perf_counter() - started) * 1e3


def show_measures(
    evaluations: Mapping[str, Evaluation], latencies: Mapping[Way, Latency], queries: int, console: Console
) -> None:
    """The table, and whether searching by both was better than by one, beyond chance."""
    table = Table(title=f"{queries} claims, judged by people", title_justify="left", title_style="bold")
    table.add_column("search", no_wrap=True)
    for heading in ("nDCG@10", "recall@100", "p50 ms", "p99 ms", "p50 ms*", "p99 ms*"):
        table.add_column(heading, justify="right")
    for way in WAYS:
        means, latency = evaluations[way].means, latencies[way]
        times = [latency.percentile(p, with_embedding=w) for w in (False, True) for p in (50, 99)]
        table.add_row(
            _IN_WORDS[way],
            f"{means['nDCG@10']:.3f}",
            f"{means['R@100']:.3f}",
            *(f"{ms:.2f}" for ms in times),
        )
    console.print(table)
    console.print("ms: one search for 10 hits, in one thread. *: with the embedding of its text.", style="dim")
    alone: tuple[Way, ...] = ("vector", "text")
    single = max(alone, key=lambda way: evaluations[way].means["nDCG@10"])
    gain = paired_bootstrap(evaluations["hybrid"], evaluations[single], "nDCG@10")
    console.print(
        f"by both against the better of the others ({_IN_WORDS[single]}): {gain.difference:+.3f} nDCG@10, "
        f"95 % interval {gain.low:+.3f} … {gain.high:+.3f}"
    )


def show_size(path: Path, papers: Collection, loaded: Loaded, console: Console) -> None:
    stats = papers.stats()
    megabytes = path.stat().st_size / 1e6
    payload = (stats.text_bytes + stats.vector_bytes) / 1e6
    console.print(f"file: {megabytes:.1f} MB for {payload:.1f} MB of text and vectors")
    if loaded.added:
        rate = loaded.added / loaded.seconds
        console.print(
            f"loading: {loaded.added:,} abstracts in {loaded.seconds:.0f} s, {rate:.0f} a second, embedding included"
        )
    console.print(f'\nsearch it yourself:  vecdb search "your question" --db {path} --plain')
