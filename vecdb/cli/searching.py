"""vecdb search, explain, context, ask."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from vecdb.cli.arguments import (
    DEFAULT_DB,
    Db,
    Mode,
    Name,
    Plain,
    Where,
    json_object,
    lines_or_stdin,
    one_of,
    open_collection,
    parse_graph,
    parse_near,
    parse_where,
    text_or_stdin,
)
from vecdb.cli.output import emit, print_table, shorten, talk

if TYPE_CHECKING:
    from vecdb.types import Answer, Context, Hit, Hits

MODES = ("auto", "vector", "text", "hybrid")
METHODS = ("auto", "exact", "index", "grids")
SELECTIONS = ("topk", "coverage", "mmr", "kcenter", "dpp")
Select = Annotated[str, typer.Option(help="How hits are chosen: topk, or as a set by coverage, mmr, kcenter, dpp.")]
Fuzzy = Annotated[bool, typer.Option("--fuzzy", help="Take words that no record has for the nearest that some have.")]
Graph = Annotated[
    list[str] | None,
    typer.Option(
        help='Follow links: on, or beta=0.3, kinds=["cites"], hops=2, …, or all of them as JSON; may be repeated.'
    ),
]
Near = Annotated[
    list[str] | None,
    typer.Option(
        help="Only what is near: geo=48.1,11.6,2km, day=2024-05-01,30d, price=100,20, or field=JSON with at, within, kernel, "
        "scale; may be repeated."
    ),
]
Question = Annotated[str, typer.Argument(help="The question; - reads it from standard input.")]
Budget = Annotated[int, typer.Option("--budget", min=1, help="The most tokens that the passages may take.")]


def add_to(app: typer.Typer) -> None:
    for command in (search, groups, explain, context, ask):
        app.command()(command)


def search(
    query: Annotated[str, typer.Argument(help="What to look for; - reads it from standard input.")],
    db: Db = DEFAULT_DB,
    collection: Name = None,
    k: Annotated[int, typer.Option("-k", min=1, help="How many hits.")] = 10,
    mode: Mode = "auto",
    where: Where = None,
    offset: Annotated[int, typer.Option(min=0, help="Leave out so many of the best.")] = 0,
    distinct: Annotated[
        str | None, typer.Option(help="At most one hit for each parent (or value of this key).")
    ] = None,
    select: Select = "topk",
    rerank: Annotated[
        list[str] | None, typer.Option(help="A second look: maxsim, or JSON with its options; may be repeated.")
    ] = None,
    min_score: Annotated[float | None, typer.Option(help="Leave out hits with a lower score.")] = None,
    near: Near = None,
    syntax: Annotated[str, typer.Option(help='plain, or query: "a phrase", pre*, AND, OR, NOT, title:word.')] = "plain",
    exact: Annotated[bool, typer.Option("--exact", help="Compare with every vector, without the index.")] = False,
    fuzzy: Fuzzy = False,
    graph: Graph = None,
    snippets: Annotated[
        bool, typer.Option("--snippets", help="Show the part of each text that has most of the words.")
    ] = False,
    html: Annotated[bool, typer.Option("--html", help="Snippets with <mark>, and their text escaped.")] = False,
    trace: Annotated[bool, typer.Option("--trace", help="Say what each stage made of each hit.")] = False,
    plain: Plain = False,
) -> None:
    """Search by meaning, by words, or by both.

    \b
    vecdb search "vaccines in children" --where 'year=2020' -k 5 --plain
    vecdb search "a quiet place" --near geo=48.14,11.58,2km --distinct parent
    vecdb search "vaccines in children" --graph beta=0.4 --graph 'kinds=["cites"]' --trace
    echo "slow nights" | vecdb search - --mode text | jq .id
    """
    from vecdb.query.snippets import SnippetOptions

    with open_collection(db, collection) as docs:
        hits = docs.search(
            text_or_stdin(query),
            k=k,
            mode=one_of(mode, MODES, "--mode"),
            where=parse_where(where),
            offset=offset,
            distinct=distinct,
            near=parse_near(near),
            select=one_of(select, SELECTIONS, "--select"),
            rerank=[json_object(look, "--rerank") if look.startswith("{") else look for look in rerank or ()] or None,
            min_score=min_score,
            syntax=one_of(syntax, ("plain", "query"), "--syntax"),
            exact=exact,
            fuzzy=fuzzy,
            graph=parse_graph(graph),
            snippets=SnippetOptions(html=True) if html else snippets,
        )
        print_hits(hits, plain=plain, trace=trace)


def print_hits(hits: Hits, *, plain: bool, trace: bool) -> None:
    from vecdb.wire import hits_to_wire

    if plain:
        rows = ((hit.rank, hit.score, shorten(hit.id, 40), _shown(hit)) for hit in hits)
        print_table(["rank", "score", "id", "text"], rows)
    else:
        for line in hits_to_wire(hits)["hits"]:
            emit(line if trace else {name: value for name, value in line.items() if name != "trace"})
    if trace:
        for step in hits.trace:
            talk(f"{step.stage}: {step.candidates} candidates in {step.ms:.2f} ms {dict(step.detail)}")


def _shown(hit: Hit) -> str:
    """A hit's snippet, if there is one, on one line; else the beginning of its text."""
    return shorten(hit.text, 160) if hit.snippet is None else " ".join(hit.snippet.split())


def groups(
    queries: Annotated[
        list[str], typer.Argument(help="Texts that a group is to be near to, all of them; - reads lines.")
    ],
    db: Db = DEFAULT_DB,
    collection: Name = None,
    k: Annotated[int, typer.Option("-k", min=1, help="How many groups.")] = 10,
    by: Annotated[str, typer.Option(help="What makes a group: parent, or a metadata key.")] = "parent",
    method: Annotated[str, typer.Option(help="auto, exact, index, grids.")] = "auto",
    where: Where = None,
    plain: Plain = False,
) -> None:
    """Rank groups of records (documents, products) by how near each query is to some record of theirs.

    \b
    vecdb groups "side effects in children" "a trial with placebo" --plain
    """
    from vecdb.wire import group_hits_to_wire

    with open_collection(db, collection) as docs:
        found = docs.search_groups(
            lines_or_stdin(queries), k, by=by, method=one_of(method, METHODS, "--method"), where=parse_where(where)
        )
    if plain:
        rows = (
            (hit.rank, hit.score, shorten(str(hit.group), 60), " ".join(match.id for match in hit.matches))
            for hit in found
        )
        print_table(["rank", "score", "group", "records"], rows)
    else:
        for line in group_hits_to_wire(found)["hits"]:
            emit(line)


def explain(
    query: Annotated[str, typer.Argument(help="What would be looked for; - reads it from standard input.")],
    db: Db = DEFAULT_DB,
    collection: Name = None,
    k: Annotated[int, typer.Option("-k", min=1, help="How many hits.")] = 10,
    mode: Mode = "auto",
    where: Where = None,
    distinct: Annotated[
        str | None, typer.Option(help="At most one hit for each parent (or value of this key).")
    ] = None,
    near: Near = None,
    syntax: Annotated[str, typer.Option(help='plain, or query: "a phrase", pre*, AND, OR, NOT, title:word.')] = "plain",
    exact: Annotated[bool, typer.Option("--exact", help="Compare with every vector, without the index.")] = False,
    fuzzy: Fuzzy = False,
    graph: Graph = None,
    plain: Plain = False,
) -> None:
    """Tell how a search would be answered, without doing it: its stages, the way each would take and why, and their cost.

    \b
    vecdb explain "vaccines in children" --where 'year=2020' --plain
    """
    from vecdb.wire import plan_to_wire

    with open_collection(db, collection) as docs:
        plan = docs.explain(
            text_or_stdin(query),
            k=k,
            mode=one_of(mode, MODES, "--mode"),
            where=parse_where(where),
            distinct=distinct,
            near=parse_near(near),
            syntax=one_of(syntax, ("plain", "query"), "--syntax"),
            exact=exact,
            fuzzy=fuzzy,
            graph=parse_graph(graph),
        )
    if plain:
        print(plan)
    else:
        for stage in plan_to_wire(plan)["stages"]:
            emit(stage)


def context(
    question: Question,
    db: Db = DEFAULT_DB,
    collection: Name = None,
    budget: Budget = 1500,
    k: Annotated[int, typer.Option("-k", min=1, help="How many hits to choose from.")] = 20,
    mode: Mode = "auto",
    where: Where = None,
    neighbours: Annotated[int, typer.Option(min=0, help="Chunks before and after each hit to add.")] = 0,
    select: Select = "topk",
    plain: Plain = False,
) -> None:
    """Pack the passages that answer a question, numbered for citation, for a language model's prompt.

    \b
    vecdb context "how long do we keep invoices" --budget 800 --plain
    """
    with open_collection(db, collection) as docs:
        packed = docs.context(
            text_or_stdin(question),
            budget_tokens=budget,
            k=k,
            mode=one_of(mode, MODES, "--mode"),
            where=parse_where(where),
            neighbours=neighbours,
            select=one_of(select, SELECTIONS, "--select"),
        )
        print_context(packed, plain=plain)


def print_context(packed: Context, *, plain: bool) -> None:
    from vecdb.wire import context_to_wire

    if not packed.found:
        talk("nothing relevant was found")
    if plain:
        print(packed.text)
    else:
        emit({name: value for name, value in context_to_wire(packed).items() if name != "hits"})


def ask(
    question: Question,
    llm: Annotated[
        str,
        typer.Option(
            envvar="VECDB_LLM", help="openai:MODEL@URL of an OpenAI-compatible service; its key: OPENAI_API_KEY."
        ),
    ],
    db: Db = DEFAULT_DB,
    collection: Name = None,
    budget: Budget = 1500,
    mode: Mode = "auto",
    select: Select = "topk",
    where: Where = None,
    plain: Plain = False,
) -> None:
    """Answer a question from the collection by a language model, with citations; refuses if nothing relevant is found.

    \b
    vecdb ask "how long do we keep invoices" --llm openai:llama3.2@http://localhost:11434/v1 --plain
    """
    from vecdb.rag import answer

    with open_collection(db, collection) as docs:
        given = answer(
            docs,
            text_or_stdin(question),
            llm=llm,
            budget_tokens=budget,
            mode=one_of(mode, MODES, "--mode"),
            select=one_of(select, SELECTIONS, "--select"),
            where=parse_where(where),
        )
    print(_in_words(given)) if plain else emit(_in_json(given))


def _in_words(given: Answer) -> str:
    sources = "\n".join(f"[{passage.number}] {passage.source}" for passage in given.citations)
    return f"{given.text}\n\n{sources}" if sources else given.text


def _in_json(given: Answer) -> dict[str, Any]:
    citations = [{"number": cited.number, "id": cited.id, "source": cited.source} for cited in given.citations]
    return {"question": given.question, "text": given.text, "refused": given.refused, "citations": citations}
