"""The data that ships with vecdb is whole, says where it is from, and reads as the documentation says."""

from __future__ import annotations

import gzip
import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vecdb
from vecdb.judged import load_judged, shipped_collections, shipped_data

MANIFEST = json.loads((shipped_data() / "manifest.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("entry", MANIFEST, ids=lambda entry: entry["name"])
def test_every_entry_says_what_it_is_and_its_files_are_unchanged(entry: dict[str, Any]) -> None:
    assert all(entry[key] for key in ("name", "description", "source", "licence", "counts", "files"))
    for name, digest in entry["files"].items():
        content = (shipped_data() / name).read_bytes()
        assert hashlib.sha256(content).hexdigest() == digest, name
        assert len(content) < 5_000_000


def test_every_data_file_is_in_the_manifest() -> None:
    listed = {name for entry in MANIFEST for name in entry["files"]}
    there = {
        path.relative_to(shipped_data()).as_posix()
        for path in shipped_data().rglob("*")
        if path.suffix in (".gz", ".tsv", ".npz")
    }
    assert there == listed


def test_scifact_has_the_counts_of_its_manifest_and_its_attribution() -> None:
    judged = load_judged("scifact")
    assert judged.name == "scifact"
    counts = next(entry["counts"] for entry in MANIFEST if entry["name"] == "scifact")
    assert counts == {"documents": 5183, "queries": 300, "judgements": 339}
    assert len(judged.corpus) == 5183
    assert len(judged.queries) == len(judged.qrels) == 300
    assert sum(map(len, judged.qrels.values())) == 339
    ids = {document["_id"] for document in judged.corpus}
    assert len(ids) == 5183
    assert all(document in ids for grades in judged.qrels.values() for document in grades)
    assert all(document["title"] and document["text"] for document in judged.corpus[:100])
    assert "CC BY" in next(entry["licence"] for entry in MANIFEST if entry["name"] == "scifact")
    assert "Wadden" in (shipped_data() / "scifact" / "ATTRIBUTION.md").read_text(encoding="utf-8")
    assert shipped_collections() == ["scifact"]


def test_shipped_neighbours_are_the_exact_ones() -> None:
    arrays = np.load(shipped_data() / "embeddings" / "scifact-minilm-4k.npz", allow_pickle=False)
    base, queries, neighbours = arrays["base"], arrays["queries"], arrays["neighbours"]
    assert (base.shape, queries.shape, neighbours.shape) == ((4000, 384), (300, 384), (300, 100))
    assert (base.dtype, queries.dtype, neighbours.dtype) == (np.float16, np.float16, np.int32)
    unit = [
        wide / np.linalg.norm(wide, axis=1, keepdims=True) for wide in (v.astype(np.float32) for v in (base, queries))
    ]
    cosines = unit[1].astype(np.float64) @ unit[0].astype(np.float64).T
    found = np.take_along_axis(cosines, neighbours, axis=1)
    assert (np.diff(found, axis=1) <= 1e-12).all()  # nearest first
    beyond = np.partition(cosines, -100, axis=1)[:, -100]
    np.testing.assert_allclose(found[:, -1], beyond, atol=1e-12)  # and none nearer left out
    assert all(len(set(row)) == 100 for row in neighbours.tolist())


def test_embedded_documents_are_the_first_of_the_corpus() -> None:
    """Relevant documents among the first 4,000 are near their claims: the rows belong to the documents."""
    arrays = np.load(shipped_data() / "embeddings" / "scifact-minilm-4k.npz", allow_pickle=False)
    judged = load_judged("scifact")
    row_of = {document["_id"]: row for row, document in enumerate(judged.corpus[:4000])}
    wanted = [[row_of[d] for d in judged.qrels[query] if d in row_of] for query in judged.queries]
    pairs = [(rows, set(near)) for rows, near in zip(wanted, arrays["neighbours"].tolist()) if rows]
    recall = np.mean([np.mean([row in near for row in rows]) for rows, near in pairs])
    assert recall > 0.9  # measured: 0.94


# --- folders of one's own


def write_collection(folder: Path, *, packed: bool = False) -> Path:
    documents = [{"_id": "d1", "title": "T", "text": "one", "year": 2020}, {"_id": "d2", "title": "", "text": "two"}]
    queries = [{"_id": "q1", "text": "first"}, {"_id": "q2", "text": "in another split"}]
    for name, items in (("corpus", documents), ("queries", queries)):
        lines = "\n".join(json.dumps(item) for item in items) + "\n\n"
        if packed:
            (folder / f"{name}.jsonl.gz").write_bytes(gzip.compress(lines.encode()))
        else:
            (folder / f"{name}.jsonl").write_text(lines, encoding="utf-8")
    (folder / "qrels").mkdir()
    (folder / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nq1\td1\t2\nq1\td2\t0\n", encoding="utf-8")
    (folder / "qrels" / "train.tsv").write_text("query-id\tcorpus-id\tscore\nq2\td2\t1\n", encoding="utf-8")
    return folder


@pytest.mark.parametrize("packed", [False, True])
def test_a_folder_is_read_packed_or_not(tmp_path: Path, packed: bool) -> None:
    judged = load_judged(write_collection(tmp_path, packed=packed))
    assert [document["_id"] for document in judged.corpus] == ["d1", "d2"]
    assert judged.corpus[0]["year"] == 2020
    assert judged.queries == {"q1": "first"}  # only the judged ones of the split
    assert judged.qrels == {"q1": {"d1": 2, "d2": 0}}
    assert load_judged(str(tmp_path), split="train").queries == {"q2": "in another split"}


def test_an_unknown_name_or_folder_names_the_shipped_ones(tmp_path: Path) -> None:
    for missing in ("scifakt", tmp_path / "absent"):
        with pytest.raises(vecdb.NotFound, match="scifact"):
            load_judged(missing)


@pytest.mark.parametrize(
    ("file", "content", "reason"),
    [
        ("corpus.jsonl", '{"_id": "d1"}\n', "line 1: wanted an object with the strings _id and text"),
        ("corpus.jsonl", '{"_id": "d1", "text": "x"}\n[1]\n', "line 2: wanted"),
        ("queries.jsonl", "{not json\n", "line 1 is not JSON"),
        ("queries.jsonl", "", "1 judged queries, such as 'q1', are not in its queries"),
        ("qrels/test.tsv", "header\nq1 d1 1\n", "line 2: wanted query id, document id"),
        ("qrels/test.tsv", "header\nq1\td1\thigh\n", "line 2: wanted query id, document id"),
    ],
)
def test_malformed_files_are_refused_with_the_line(tmp_path: Path, file: str, content: str, reason: str) -> None:
    (write_collection(tmp_path) / file).write_text(content, encoding="utf-8")
    with pytest.raises(vecdb.InvalidInput, match=reason):
        load_judged(tmp_path)


def test_missing_files_are_named(tmp_path: Path) -> None:
    write_collection(tmp_path)
    with pytest.raises(vecdb.InvalidInput, match=r"dev\.tsv does not exist; .* test, train"):
        load_judged(tmp_path, split="dev")
    (tmp_path / "corpus.jsonl").unlink()
    with pytest.raises(vecdb.InvalidInput, match=r"neither corpus\.jsonl nor corpus\.jsonl\.gz"):
        load_judged(tmp_path)
