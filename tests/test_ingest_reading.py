"""Files of every kind into documents, rows and chunks."""

from __future__ import annotations

import gzip
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ingest_files import write_docx, write_pdf

from vecdb.errors import InvalidInput
from vecdb.ingest.apart import ReadingProcesses
from vecdb.ingest.chunking import Chunking, cut
from vecdb.ingest.documents import Document, Unreadable
from vecdb.ingest.kinds import PLAIN_TEXT, Kind, kind_of
from vecdb.ingest.readers import decode, read_bytes, read_document
from vecdb.ingest.tables import RowOptions, read_rows
from vecdb.ingest.walk import Selection, find_files, resolve


def kind(name: str) -> Kind:
    found = kind_of(Path(name))
    assert found is not None
    return found


def rows(path: Path, **options: object) -> list[tuple[str, dict[str, object]]]:
    return [(row.text, row.metadata) for row in read_rows(path, kind(path.name), RowOptions(**options))]  # type: ignore[arg-type]


# -- kinds -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a.PDF", "pdf"),
        ("b.tar.md", "markdown"),
        ("c.jsonl.gz", "jsonl"),
        ("d.py", "code"),
        ("README", "text"),
        ("e.htm", "html"),
    ],
)
def test_a_name_tells_the_kind(name: str, expected: str) -> None:
    assert kind(name).name == expected


@pytest.mark.parametrize("name", ["a.exe", "picture.png", "core", "library.vecdb", "archive.tar.gz"])
def test_other_names_tell_nothing(name: str) -> None:
    assert kind_of(Path(name)) is None


# -- documents -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "text"),
    [
        ("\ufeffgrün".encode(), "grün"),
        ("grün".encode("utf-16"), "grün"),
        ("grün – nett".encode("cp1252"), "grün – nett"),
        (b"a\r\nb\rc", "a\nb\nc"),
    ],
)
def test_text_is_decoded_by_its_mark_or_by_trial(data: bytes, text: str) -> None:
    assert decode(data) == text


def test_binary_data_is_no_text() -> None:
    with pytest.raises(Unreadable, match="binary"):
        decode(b"PK\0\1")


@pytest.mark.parametrize(
    ("text", "name", "title"),
    [
        ("intro\n\n# The *title* #\n\n## Sub", "a.md", "The *title*"),
        ('---\ndate: x\ntitle: "From the front"\n---\n# Heading', "a.md", "From the front"),
        ("=====\nTitle\n=====\n\ntext", "a.rst", "Title"),
        ("Title\n-----\n\ntext", "a.rst", "Title"),
        ("# a comment", "a.py", None),
    ],
)
def test_the_title_is_found(text: str, name: str, title: str | None) -> None:
    assert read_document(text.encode(), kind(name)).title == title


def test_a_pdf_gives_text_title_and_pages(tmp_path: Path) -> None:
    path = write_pdf(tmp_path / "a.pdf", ["Whales sing", "Ships sink"], "On the sea")
    document = read_document(path.read_bytes(), kind("a.pdf"))
    assert (document.text, document.title) == ("Whales sing\n\nShips sink", "On the sea")
    assert [document.page_at(document.text.index(word)) for word in ("sing", "Ships", "sink")] == [1, 2, 2]


def test_a_pdf_without_text_says_that_it_needs_recognition(tmp_path: Path) -> None:
    path = write_pdf(tmp_path / "scan.pdf", ["", ""])
    with pytest.raises(Unreadable, match=r"no text in 2 pages.*OCR"):
        read_document(path.read_bytes(), kind("scan.pdf"))


def test_word_and_html_become_markdown(tmp_path: Path) -> None:
    word = read_document(write_docx(tmp_path / "a.docx", "On bees", ["Bees dance."]).read_bytes(), kind("a.docx"))
    assert (word.title, word.text) == ("On bees", "# On bees\n\nBees dance.")
    page = (
        b"<title>T &amp; U</title><body><style>x{}</style><h1>Head</h1>Some <b>bold</b><script>evil()</script></body>"
    )
    html = read_document(page, kind("a.html"))
    assert (html.title, html.text) == ("T & U", "# Head\n\nSome **bold**")


def test_html_in_an_old_encoding_is_read_by_its_declaration() -> None:
    page = '<meta charset="iso-8859-5"><p>Привет</p>'.encode("iso-8859-5")
    assert read_document(page, kind("a.html")).text == "Привет"


@pytest.mark.parametrize("name", ["a.pdf", "a.docx"])
@pytest.mark.parametrize("data", [b"", b"%PDF-1.4 rubbish", b"PK\3\4 rubbish"])
def test_damaged_files_are_unreadable_with_a_reason(name: str, data: bytes) -> None:
    with pytest.raises(Unreadable, match="not a readable"):
        read_document(data, kind(name))


def test_a_file_over_the_limit_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"x" * 2_000_000)
    with pytest.raises(Unreadable, match="2 MB; documents over 1 MB"):
        read_bytes(path, 1_000_000)


# -- processes apart -------------------------------------------------------------------------------------------------------


def test_a_process_apart_reads_and_survives_damaged_files(tmp_path: Path) -> None:
    good = write_pdf(tmp_path / "good.pdf", ["Whales sing"])
    bad = tmp_path / "bad.pdf"
    bad.write_bytes(b"rubbish")
    processes = ReadingProcesses(timeout_s=60)
    try:
        with pytest.raises(Unreadable, match="not a readable PDF"):
            processes.read(bad, kind("bad.pdf"), 10**6)
        assert processes.read(good, kind("good.pdf"), 10**6).text == "Whales sing"
    finally:
        processes.close()


def test_a_process_that_dies_takes_only_its_file_along(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A parser that crashes is played by a package of its name that aborts."""
    (tmp_path / "pypdf.py").write_text("import os; os.abort()")
    monkeypatch.syspath_prepend(str(tmp_path))
    processes = ReadingProcesses(timeout_s=60)
    try:
        with pytest.raises(Unreadable, match=r"crashed \(SIGABRT\)"):
            processes.read(write_pdf(tmp_path / "a.pdf", ["x"]), kind("a.pdf"), 10**6)
        page = tmp_path / "a.html"
        page.write_text("<p>still here</p>")
        assert processes.read(page, kind("a.html"), 10**6).text == "still here"
    finally:
        processes.close()


def test_a_process_that_hangs_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "pypdf.py").write_text("import time; time.sleep(60)")
    monkeypatch.syspath_prepend(str(tmp_path))
    processes = ReadingProcesses(timeout_s=0.8)
    try:
        with pytest.raises(Unreadable, match=r"longer than 0.8 s"):
            processes.read(write_pdf(tmp_path / "a.pdf", ["x"]), kind("a.pdf"), 10**6)
    finally:
        processes.close()


# -- rows ------------------------------------------------------------------------------------------------------------------


def test_csv_columns_get_the_type_that_all_their_cells_have(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text('title,text,year,zip,ok,share\nOne,"First, row",1843,00123,true,1\nTwo,Second,,10001,FALSE,2.5\n')
    assert rows(path) == [
        ("One\nFirst, row", {"year": 1843, "zip": "00123", "ok": True, "share": 1.0}),
        ("Two\nSecond", {"zip": "10001", "ok": False, "share": 2.5}),
    ]


def test_separators_and_gzip_are_recognised(tmp_path: Path) -> None:
    semicolons, tabs, packed = tmp_path / "a.csv", tmp_path / "b.tsv", tmp_path / "c.csv.gz"
    semicolons.write_text("text;n\na, b, c;1\n")
    tabs.write_text('text\tn\nsay "hi"\t2\n')
    packed.write_bytes(gzip.compress(b"text,n\nx,3\n"))
    assert rows(semicolons) == [("a, b, c", {"n": 1})]
    assert rows(packed) == [("x", {"n": 3})]
    assert rows(tabs) == [('say "hi"', {"n": 2})]


def test_json_in_its_three_shapes(tmp_path: Path) -> None:
    lines, listed, single = tmp_path / "a.jsonl", tmp_path / "b.json", tmp_path / "c.json"
    lines.write_text('{"text": "x", "deep": {"a": [1]}}\n\n{"text": "y", "none": null}\n')
    listed.write_text('[{"body": "x"}, {"body": "y", "n": 1.5}]')
    single.write_text('{"content": "x"}')
    assert rows(lines) == [("x", {"deep": {"a": [1]}}), ("y", {})]
    assert rows(listed) == [("x", {}), ("y", {"n": 1.5})]
    assert rows(single) == [("x", {})]


def test_parquet_values_become_metadata(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    table = pa.table({"text": ["x", None, "z"], "n": [1.5, 2.5, float("nan")], "raw": [b"\x01", b"", None]})
    pq.write_table(table, path)
    assert rows(path) == [("x", {"n": 1.5, "raw": "b'\\x01'"}), ("z", {})]


def test_columns_can_be_named(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("key,head,body\nk1,Hello,world\n")
    (row,) = read_rows(path, kind("a.csv"), RowOptions(text_columns=("head", "body"), id_column="key"))
    assert (row.id, row.text, row.number, row.metadata) == ("k1", "Hello\nworld", 1, {})


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.csv", "a,b\n1,2,3\n", "line 2: 3 cells where the header has 2"),
        ("a.csv", "", "empty file"),
        ("a.csv", "text,text\na,b\n", "'text' is named twice"),
        ("a.csv", "p,q\nx,y\n", "cannot tell which column holds the text; there are 'p', 'q'"),
        ("a.csv", 'text\n"open\n', "line"),
        ("a.jsonl", '{"text": "x"}\n{oops\n', "line 2 is not JSON"),
        ("a.jsonl", "[1]\n", "line 1 holds a list"),
        ("a.json", "[1, 2]", "item 1 is a int"),
        ("a.json", "{", "not JSON"),
        ("a.parquet", "rubbish", "not a readable Parquet file"),
        ("a.jsonl.gz", "not gzip", "[Nn]ot a gzip"),
    ],
)
def test_broken_tables_say_where(tmp_path: Path, name: str, content: str, reason: str) -> None:
    path = tmp_path / name
    path.write_text(content)
    with pytest.raises(Unreadable, match=reason):
        rows(path)


def test_a_column_that_is_not_there_is_named_with_those_that_are(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("text,n\nx,1\n")
    with pytest.raises(Unreadable, match="no column 'body'; there are 'text', 'n'"):
        rows(path, text_columns=("body",))


# -- chunks ----------------------------------------------------------------------------------------------------------------


@given(
    st.text(alphabet="ab .\n\u00e9\u4e2d", max_size=400), st.integers(5, 60), st.sampled_from(["a.txt", "a.md", "a.py"])
)
def test_chunks_are_pieces_of_the_text_and_leave_no_word_out(text: str, size: int, name: str) -> None:
    chunks = cut(Document(text), kind(name), Chunking(size=size, overlap=size // 5))
    assert all(len(chunk.text) <= size and chunk.text in text for chunk in chunks)
    joined = "".join(chunk.text for chunk in chunks)
    assert {c for c in text if not c.isspace()} <= set(joined)


def test_without_overlap_the_chunks_are_the_whole_text() -> None:
    text = "\n\n".join(f"Paragraph {n} speaks of number {n}." for n in range(50))
    chunks = cut(Document(text), PLAIN_TEXT, Chunking(size=120, overlap=0))
    assert "".join("".join(chunk.text.split()) for chunk in chunks) == "".join(text.split())


def test_chunks_know_their_section_and_code_holds_no_headings() -> None:
    text = "# One\n\nfirst part\n\n## Two\n\nsecond part\n\n```sh\n# no heading\n```\n\n# Three\n\nthird part"
    chunks = cut(Document(text), kind("a.md"), Chunking(size=40, overlap=0))
    sections = {word: chunk.section for chunk in chunks for word in ("first", "second", "third") if word in chunk.text}
    assert sections == {"first": "One", "second": "One › Two", "third": "Three"}


def test_chunks_know_their_page() -> None:
    document = Document("aaaa\n\nbbbb\n\ncccc", pages=(0, 6, 12))
    chunks = cut(document, kind("a.pdf"), Chunking(size=4, overlap=0))
    assert [(chunk.text, chunk.page) for chunk in chunks] == [("aaaa", 1), ("bbbb", 2), ("cccc", 3)]


def test_any_function_can_cut() -> None:
    chunking = Chunking(split=lambda text: text.split("|"))
    assert [chunk.text for chunk in cut(Document("a|b| |c"), PLAIN_TEXT, chunking)] == ["a", "b", "c"]
    assert "lambda" in chunking.identity


def test_sizes_can_be_counted_in_tokens() -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers

    tokenizer = Tokenizer(models.WordLevel({"[UNK]": 0}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    chunking = Chunking(size=3, overlap=0, unit="tokens", tokenizer=tokenizer)
    assert [chunk.text for chunk in cut(Document("a b c d e"), PLAIN_TEXT, chunking)] == ["a b c", "d e"]


@pytest.mark.parametrize(
    "wrong", [{"size": 0}, {"size": 10, "overlap": 10}, {"overlap": -1}, {"unit": "words"}, {"unit": "tokens"}]
)
def test_impossible_chunking_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(InvalidInput):
        Chunking(**wrong)  # type: ignore[arg-type]


# -- folders ---------------------------------------------------------------------------------------------------------------


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name in ("b.md", "a.txt", "x.png", ".hidden.md", "sub/c.py", ".git/d.txt", "node_modules/e.md", "drafts/f.md"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(name)
    return tmp_path


def names(tree: Path, selection: Selection, *roots: str) -> list[str]:
    found = find_files(resolve([tree / root for root in roots or (".",)]), selection)
    assert not found.unreadable
    return [path.relative_to(tree.resolve()).as_posix() for path in found.files]


def test_folders_are_walked_in_order_without_junk(tree: Path) -> None:
    assert names(tree, Selection()) == ["a.txt", "b.md", "drafts/f.md", "sub/c.py"]


def test_patterns_choose_files(tree: Path) -> None:
    assert names(tree, Selection(include=("*.md",))) == ["b.md", "drafts/f.md"]
    assert names(tree, Selection(include=("*.md",), exclude=("drafts",))) == ["b.md"]
    assert names(tree, Selection(exclude=("sub/*", "*.md"))) == ["a.txt"]
    assert names(tree, Selection(include=("*.png",))) == ["x.png"]


def test_a_named_file_is_taken_once_whatever_it_is(tree: Path) -> None:
    assert names(tree, Selection(), ".hidden.md", "b.md", ".hidden.md", "sub") == [".hidden.md", "b.md", "sub/c.py"]


def test_links_to_folders_are_not_followed(tree: Path) -> None:
    (tree / "sub" / "loop").symlink_to(tree)
    (tree / "link.md").symlink_to(tree / "b.md")
    assert names(tree, Selection()) == ["a.txt", "b.md", "drafts/f.md", "sub/c.py"]


def test_a_path_that_does_not_exist_is_refused(tree: Path) -> None:
    with pytest.raises(InvalidInput, match=r"nowhere does not exist"):
        resolve([tree / "nowhere"])


@given(st.sampled_from(["b.md", ".hidden.md", "sub/c.py", ".git/d.txt", "drafts/f.md", "x.png", "sub", ".git"]))
def test_the_rule_for_one_path_is_the_rule_of_the_walk(name: str) -> None:
    """`takes` serves the watcher; it must agree with walking."""
    selection, root = Selection(exclude=("drafts",)), Path("/nowhere")
    walked = {"b.md", "sub/c.py"}
    if Path(name).suffix:
        assert selection.takes(root / name, root) == (name in walked)
