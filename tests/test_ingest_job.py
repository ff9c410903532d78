"""The ingestion job: what is read again, what is not, and what is left after a kill."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from ingest_files import write_docx, write_pdf
from word_embedder import WordEmbedder

import vecdb
from vecdb.errors import InvalidInput
from vecdb.ingest import Chunking, IngestJob, IngestSettings, RowOptions, Selection, ingest, job
from vecdb.ingest.watch import sort_out, watch

SMALL = Chunking(size=40, overlap=0)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "files"
    (root / "sub").mkdir(parents=True)
    (root / "a.md").write_text("# Alpha\n\nThe first letter.\n\n## Use\n\nIt begins the alphabet.")
    (root / "sub" / "b.txt").write_text("The second letter.")
    (root / "c.csv").write_text("id,text,n\nx,row one,1\ny,row two,2\n")
    return root


@pytest.fixture
def embedder() -> WordEmbedder:
    return WordEmbedder()


@pytest.fixture
def docs(db: vecdb.Database, embedder: WordEmbedder) -> vecdb.Collection:
    return db.collection("docs", embed=embedder)


@pytest.fixture
def settings(folder: Path) -> IngestSettings:
    return IngestSettings(chunking=SMALL, root=folder)


def everything(docs: vecdb.Collection) -> dict[str, str | None]:
    return {record.id: record.text for record in docs.scan(limit=10_000)}


# -- one run ---------------------------------------------------------------------------------------------------------------


def test_every_kind_of_file_becomes_records(docs: vecdb.Collection, folder: Path, settings: IngestSettings) -> None:
    write_pdf(folder / "d.pdf", ["Whales sing", "Ships sink"], "On the sea")
    write_docx(folder / "e.docx", "On bees", ["Bees dance."])
    (folder / "f.html").write_text("<title>Tea</title><body><p>Tea is hot</p></body>")
    (folder / "g.py").write_text("def add(a, b):\n    return a + b\n")
    report = ingest(docs, folder, settings=settings)
    assert report.counts == {"added": 7}
    assert report.chunks == len(docs) == 9
    assert {record.metadata["kind"] for record in docs.scan(limit=50)} == {
        *("markdown", "text", "csv", "pdf", "docx", "html", "code")
    }


def test_records_say_where_they_come_from(docs: vecdb.Collection, folder: Path, settings: IngestSettings) -> None:
    os.utime(folder / "a.md", (1_700_000_000, 1_700_000_000))
    write_pdf(folder / "d.pdf", ["Whales sing", "Ships sink on the long and stormy way"], "On the sea")
    ingest(docs, folder, settings=replace(settings, metadata={"project": "letters", "year": 2024}))
    record = docs.get("a.md#2")
    assert record is not None
    assert (record.parent, record.seq, record.text) == ("a.md", 2, "## Use\n\nIt begins the alphabet.")
    assert record.metadata == {
        "source": "a.md",
        "title": "Alpha",
        "kind": "markdown",
        "section": "Alpha › Use",
        "modified": datetime.fromtimestamp(1_700_000_000, UTC),
        "project": "letters",
        "year": 2024,
    }
    row, page = docs.get(["c.csv#2", "d.pdf#2"])
    assert row is not None
    assert (row.seq, row.metadata["row"], row.metadata["id"], row.metadata["n"]) == (None, 2, "y", 2)
    assert page is not None
    assert (page.metadata["page"], page.metadata["title"]) == (2, "On the sea")


def test_without_a_root_sources_are_absolute_paths(docs: vecdb.Collection, folder: Path) -> None:
    ingest(docs, [folder / "sub"])
    assert list(everything(docs)) == [f"{(folder / 'sub/b.txt').resolve().as_posix()}#1"]


def test_a_file_outside_the_root_is_refused_before_anything_is_written(
    docs: vecdb.Collection, folder: Path, settings: IngestSettings
) -> None:
    with pytest.raises(InvalidInput, match="not below the root"):
        ingest(docs, [folder / "a.md", folder], settings=replace(settings, root=folder / "sub"))
    assert len(docs) == 0


def test_failures_stop_nothing_and_are_told(docs: vecdb.Collection, folder: Path, settings: IngestSettings) -> None:
    (folder / "bad.pdf").write_bytes(b"rubbish")
    (folder / "bad.csv").write_text("text,n\nx\n")
    (folder / "bad.txt").write_bytes(b"\0\1")
    (folder / "empty.txt").write_text(" \n")
    report = ingest(docs, folder, settings=settings)
    assert report.counts == {"added": 3, "failed": 3, "empty": 1}
    assert [failure.source for failure in report.failures] == ["bad.csv", "bad.pdf", "bad.txt"]
    assert all(failure.reason for failure in report.failures)
    assert ingest(docs, folder, settings=settings).counts == {"unchanged": 4, "failed": 3}


def test_two_runs_give_the_same_rows_in_the_same_order(tmp_path: Path, folder: Path, settings: IngestSettings) -> None:
    for n in range(30):
        (folder / f"n{n}.txt").write_text(f"note number {n}. " * (n + 1))
    write_pdf(folder / "k.pdf", ["slow to read"])
    orders = []
    for name in ("one", "two"):
        with vecdb.open(tmp_path / name, background=False) as db:
            docs = db.collection("docs", embed=WordEmbedder())
            ingest(docs, folder, settings=replace(settings, readers=4, batch_chunks=10))
            orders.append(list(everything(docs)))
    assert orders[0] == orders[1]


def test_a_collection_without_a_model_takes_files_too(db: vecdb.Database, folder: Path) -> None:
    docs = db.collection("words")
    assert ingest(docs, folder).counts == {"added": 3}
    assert [hit.metadata["title"] for hit in docs.search("alphabet", mode="text")] == ["Alpha"]


def test_a_dry_run_writes_nothing_and_tells_the_same(
    docs: vecdb.Collection, folder: Path, settings: IngestSettings, embedder: WordEmbedder
) -> None:
    dry = IngestJob(docs, settings, dry_run=True).run([folder])
    assert (len(docs), embedder.calls, docs.sources()) == (0, 0, {})
    real = ingest(docs, folder, settings=settings)
    assert (dry.counts, dry.chunks) == (real.counts, real.chunks)


# -- the next run ----------------------------------------------------------------------------------------------------------


def test_unchanged_files_are_skipped_even_if_touched(
    docs: vecdb.Collection, folder: Path, settings: IngestSettings, embedder: WordEmbedder
) -> None:
    ingest(docs, folder, settings=settings)
    calls = embedder.calls
    os.utime(folder / "a.md")
    assert ingest(docs, folder, settings=settings).counts == {"unchanged": 3}
    assert embedder.calls == calls


def test_a_changed_file_replaces_its_chunks_and_embeds_only_new_ones(
    docs: vecdb.Collection, folder: Path, settings: IngestSettings, embedder: WordEmbedder
) -> None:
    settings = replace(settings, chunking=Chunking(size=30, overlap=0))
    (folder / "a.md").write_text("# One\n\nstays as it was\n\n# Two\n\nwill be changed\n\n# Three\n\nwill go away")
    ingest(docs, folder, settings=settings)
    calls = embedder.calls
    (folder / "a.md").write_text("# Zero\n\nis new\n\n# One\n\nstays as it was\n\n# Two\n\nwas changed")
    report = ingest(docs, folder, settings=settings)
    assert report.counts == {"updated": 1, "unchanged": 2}
    assert [text for id, text in sorted(everything(docs).items()) if id.startswith("a.md")] == [
        *("# Zero\n\nis new", "# One\n\nstays as it was", "# Two\n\nwas changed")
    ]
    assert embedder.calls == calls + 2
    for record in docs.scan(where={"$parent": "a.md"}, vectors=True):
        assert record.text is not None
        assert record.vector == pytest.approx(embedder.embed_query(record.text), abs=1e-6)


def test_other_settings_read_the_files_again(docs: vecdb.Collection, folder: Path, settings: IngestSettings) -> None:
    ingest(docs, folder, settings=settings)
    larger = replace(settings, chunking=Chunking(size=500, overlap=0))
    assert ingest(docs, folder, settings=larger).counts == {"updated": 2, "unchanged": 1}  # rows are not cut
    tagged = replace(larger, metadata={"team": "red"})
    assert ingest(docs, folder, settings=tagged).counts == {"updated": 3}
    named = replace(tagged, rows=RowOptions(id_column="id"))
    assert ingest(docs, folder, settings=named).counts == {"updated": 1, "unchanged": 2}
    assert docs.count({"team": "red"}) == len(docs)
    assert docs.get("x") is not None


def test_a_file_that_became_unreadable_keeps_what_it_had(
    docs: vecdb.Collection, folder: Path, settings: IngestSettings
) -> None:
    ingest(docs, folder, settings=settings)
    before = everything(docs)
    (folder / "c.csv").write_text("id,text,n\nx,changed,1\ny,broken\n")
    assert ingest(docs, folder, settings=settings).counts == {"failed": 1, "unchanged": 2}
    assert everything(docs) == before


def test_pruning_forgets_only_files_below_the_paths(
    docs: vecdb.Collection, folder: Path, settings: IngestSettings
) -> None:
    ingest(docs, folder, settings=settings)
    (folder / "a.md").unlink()
    (folder / "sub/b.txt").unlink()
    assert ingest(docs, folder, settings=settings).counts == {"unchanged": 1}
    assert ingest(docs, folder / "sub", settings=settings, prune=True).counts == {"removed": 1}
    assert ingest(docs, folder, settings=settings, prune=True).counts == {"removed": 1, "unchanged": 1}
    assert list(docs.sources()) == ["c.csv"]
    assert len(docs) == 2


def test_a_renamed_file_with_ids_moves_when_pruned(
    docs: vecdb.Collection, folder: Path, settings: IngestSettings
) -> None:
    settings = replace(settings, rows=RowOptions(id_column="id"))
    ingest(docs, folder, settings=settings)
    (folder / "c.csv").rename(folder / "a.csv")
    assert ingest(docs, folder, settings=settings, prune=True).counts == {"added": 1, "removed": 1, "unchanged": 2}
    record = docs.get("x")
    assert record is not None
    assert record.parent == "a.csv"


def test_one_files_ids_cannot_take_anothers_records(
    docs: vecdb.Collection, folder: Path, settings: IngestSettings
) -> None:
    (folder / "z.csv").write_text("id,text,n\nnew,row,1\ny,mine,2\n")
    report = ingest(docs, folder, settings=replace(settings, rows=RowOptions(id_column="id")))
    assert report.counts == {"added": 3, "failed": 1}
    assert [failure.source for failure in report.failures] == ["z.csv"]
    record = docs.get("y")
    assert record is not None
    assert record.text == "row two"
    assert docs.get("new") is None


# -- large tables ----------------------------------------------------------------------------------------------------------


def write_rows(path: Path, count: int, changed: int | None = None) -> None:
    lines = [f"row number {n}{' changed' if n == changed else ''},{n}" for n in range(count)]
    path.write_text("\n".join(["text,n", *lines]))


def test_a_large_table_is_written_in_blocks_that_are_not_embedded_twice(
    docs: vecdb.Collection,
    folder: Path,
    settings: IngestSettings,
    embedder: WordEmbedder,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(job, "BLOCK_RECORDS", 10)
    path = folder / "c.csv"
    for count, changed in ((35, None), (35, 27), (12, None), (3, None), (40, None)):
        write_rows(path, count, changed)
        calls = embedder.calls
        ingest(docs, path, settings=settings)
        texts = [f"row number {n}{' changed' if n == changed else ''}" for n in range(count)]
        assert sorted(everything(docs).values()) == sorted(texts)  # type: ignore[type-var]
        if changed is not None:
            assert embedder.calls == calls + 1
        assert ingest(docs, path, settings=settings).counts == {"unchanged": 1}
    path.unlink()
    assert ingest(docs, folder, settings=settings, prune=True).counts["removed"] == 1
    assert docs.count({"kind": "csv"}) == 0
    assert not any("c.csv" in source for source in docs.sources())


def test_a_stop_between_blocks_is_continued(
    docs: vecdb.Collection,
    folder: Path,
    settings: IngestSettings,
    embedder: WordEmbedder,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(job, "BLOCK_RECORDS", 10)
    path = folder / "c.csv"
    write_rows(path, 50)
    stopped = IngestJob(docs, replace(settings, batch_chunks=10), stop=lambda: len(docs) >= 20)
    assert stopped.run([path]).interrupted
    assert (len(docs), embedder.calls) == (20, 20)
    assert ingest(docs, path, settings=settings).counts == {"updated": 1}
    assert (len(docs), embedder.calls) == (50, 50)


# -- stopping and being killed ---------------------------------------------------------------------------------------------


def test_a_stop_ends_cleanly_and_the_next_run_does_the_rest(
    docs: vecdb.Collection, folder: Path, settings: IngestSettings
) -> None:
    for n in range(40):
        (folder / f"n{n:02}.txt").write_text(f"note number {n}")
    small = replace(settings, batch_chunks=5)
    first = IngestJob(docs, small, stop=lambda: len(docs) >= 10).run([folder])
    assert first.interrupted
    assert 10 <= len(docs) < 20
    second = ingest(docs, folder, settings=small)
    assert second.counts["unchanged"] == sum(first.counts.values())
    assert sum(second.counts.values()) == 43


_SLOWLY = """
import sys, time
sys.path.insert(0, sys.argv[3])
from word_embedder import WordEmbedder
import vecdb
from vecdb.ingest import IngestSettings, ingest

class Slow(WordEmbedder):
    def embed_documents(self, texts):
        time.sleep(0.05)
        return super().embed_documents(texts)

with vecdb.open(sys.argv[1]) as db:
    docs = db.collection("docs", embed=Slow())
    settings = IngestSettings(batch_chunks=4)
    ingest(docs, sys.argv[2], settings=settings, on_file=lambda outcome: print(outcome.source, flush=True))
"""


def test_a_killed_run_is_continued_by_the_next_one(path: Path, tmp_path: Path) -> None:
    folder = tmp_path / "many"
    folder.mkdir()
    for n in range(80):
        (folder / f"{n:02}.txt").write_text(f"note number {n}")
    write_pdf(folder / "zz.pdf", ["the last one"])
    command = [sys.executable, "-c", _SLOWLY, str(path), str(folder), str(Path(__file__).parent)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        written = [process.stdout.readline() for _ in range(12)]
        process.send_signal(signal.SIGKILL)
    assert all(written)
    embedder = WordEmbedder()
    with vecdb.open(path) as db:
        docs = db.collection("docs", embed=embedder)
        report = ingest(docs, folder)
        assert 12 <= report.counts["unchanged"] < 80
        assert report.counts["added"] == 81 - report.counts["unchanged"] == embedder.calls
        assert len(docs) == 81
        assert db.check() == []


# -- watching --------------------------------------------------------------------------------------------------------------


def test_what_touched_paths_mean_is_read_off_the_disk(
    docs: vecdb.Collection, folder: Path, settings: IngestSettings
) -> None:
    ingest(docs, folder, settings=settings)
    (folder / "sub").rename(folder / "moved")
    (folder / ".hidden.md").write_text("x")
    (folder / "new.md").write_text("x")
    root = folder.resolve()
    touched = [root / name for name in ("sub", "moved", ".hidden.md", "new.md", "new.md~", "a.md")]
    changes = sort_out(IngestJob(docs, settings), [root], touched)
    assert [path.relative_to(root).as_posix() for path in changes.files] == ["a.md", "moved/b.txt", "new.md"]
    assert changes.gone == ["sub/b.txt"]


@pytest.fixture
def watching(docs: vecdb.Collection, folder: Path, settings: IngestSettings) -> Iterator[None]:
    stop, begun = threading.Event(), threading.Event()
    thread = threading.Thread(
        target=watch,
        args=(lambda: IngestJob(docs, settings), [folder]),
        kwargs={"stop": stop, "begin": begun.set, "debounce_s": 0.1},
    )
    thread.start()
    assert begun.wait(timeout=30)
    yield
    stop.set()
    thread.join(timeout=30)
    assert not thread.is_alive()


def wait_for(docs: vecdb.Collection, texts: dict[str, str]) -> None:
    until = time.monotonic() + 20
    while everything(docs) != texts and time.monotonic() < until:
        time.sleep(0.05)
    assert everything(docs) == texts


@pytest.mark.usefixtures("watching")
def test_a_watcher_follows_creation_change_renaming_and_deletion(docs: vecdb.Collection, folder: Path) -> None:
    (folder / "new.md").write_text("fresh")
    wait_for(docs, {"new.md#1": "fresh"})
    (folder / "new.md").write_text("changed")
    (folder / "sub").rename(folder / "moved")
    letter = {"moved/b.txt#1": "The second letter."}
    wait_for(docs, {"new.md#1": "changed"} | letter)
    (folder / "new.md").rename(folder / "old.md")
    wait_for(docs, {"old.md#1": "changed"} | letter)
    (folder / "old.md").unlink()
    wait_for(docs, letter)


def test_selection_also_binds_what_is_watched(docs: vecdb.Collection, folder: Path, settings: IngestSettings) -> None:
    only = replace(settings, selection=Selection(include=("*.md",)))
    root = folder.resolve()
    changes = sort_out(IngestJob(docs, only), [root], [root / "a.md", root / "c.csv"])
    assert changes.files == [root / "a.md"]
